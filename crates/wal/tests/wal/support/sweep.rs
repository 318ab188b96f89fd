//! A data directory of a given size with everything in it that a server keeps, and what it must give
//! back whatever is damaged.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_wal::{Disk, MemoryDisk, Options, SEGMENT_BYTES_MIN, SnapshotWriter, Wal};
use raft::{
    Entry, EntryKind, HardState, Index, Restart, Seating, ServerId, Snapshot, Write, WriteId,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::snapshots::{CLUSTER, snapshot_at};
use super::{Model, healing_options, mix, segments};

/// What a file of the directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Meta,
    /// One that the log has gone on from.
    ClosedSegment,
    OpenSegment,
    /// The one that is being prepared.
    Reserve,
    NewestSnapshot,
    SnapshotBefore,
}

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) bytes: usize,
    pub(crate) part: Part,
}

/// What the log held after a sync, and where its last record ended then.
struct Synced {
    file: String,
    end: usize,
    /// From the first entry on.
    model: Model,
}

/// A directory as a killed server left it: everything in it was synced.
pub(crate) struct Subject {
    pub(crate) disk: MemoryDisk,
    pub(crate) files: Vec<Listed>,
    pub(crate) restart: Restart,
    pub(crate) options: Options,
    /// What a start finds.
    pub(crate) sound: Model,
    /// The content of each snapshot.
    contents: BTreeMap<Index, Vec<u8>>,
    /// The older one and the newest.
    pub(crate) snapshots: [Snapshot; 2],
    history: Vec<Synced>,
}

impl Subject {
    /// About this many bytes, half of which are the log's if there is room for that.
    pub(crate) fn new(bytes: usize) -> Subject {
        Author::new(bytes).subject()
    }

    pub(crate) fn content_of(&self, snapshot: &Snapshot) -> &[u8] {
        self.contents
            .get(&snapshot.position.index)
            .expect("it is one of the two")
    }

    /// What a recovering server must have kept when this file is not usable from this offset on:
    /// the log in front of it, or if that ends before the newest snapshot, nothing behind that.
    pub(crate) fn kept(&self, file: &str, offset: usize) -> (Model, Vec<HardState>) {
        let [_, newest] = &self.snapshots;
        let is_before = |synced: &&Synced| (synced.file.as_str(), synced.end) <= (file, offset);
        let synced = self.history.iter().take_while(is_before).last();
        let mut model = synced.map_or_else(Model::default, |synced| synced.model.clone());
        let mut hard_states = vec![model.hard_state];
        let position = newest.position;
        if model.position_at(position.index) == Some(position) {
            model.drop_to(self.sound.before);
        } else {
            // The segment that repeats the hard state may be the damaged one.
            hard_states.push(HardState::default());
            model.begin_behind(position);
        }
        model.snapshot = Some(newest.clone());
        (model, hard_states)
    }
}

/// Who fills a directory.
struct Author {
    random: StdRng,
    bytes: usize,
    options: Options,
    disk: MemoryDisk,
    wal: Wal<MemoryDisk>,
    restart: Restart,
    model: Model,
    id: WriteId,
    history: Vec<Synced>,
    contents: BTreeMap<Index, Vec<u8>>,
    snapshots: Vec<Snapshot>,
}

impl Author {
    fn new(bytes: usize) -> Author {
        let disk = MemoryDisk::new();
        // 16 to 32 segments, if they are not too short.
        let segment_bytes = (bytes as u64 / 32).next_power_of_two();
        let options = Options {
            segment_bytes: segment_bytes.max(SEGMENT_BYTES_MIN),
            ..healing_options(17)
        };
        let (wal, opened) = Wal::open(disk.clone(), options).expect("an empty directory opens");
        Author {
            random: StdRng::seed_from_u64(17),
            bytes,
            options,
            disk,
            wal,
            restart: opened.restart,
            model: Model::default(),
            id: WriteId(0),
            history: Vec::new(),
            contents: BTreeMap::new(),
            snapshots: Vec::new(),
        }
    }

    fn subject(mut self) -> Subject {
        // An older snapshot and what it covers, of which the segments go; then one four times as
        // large, of two blocks if there is room, and the log from the older one on.
        let quarter = self.bytes / 4;
        self.fill(self.options.segment_bytes as usize + quarter / 4);
        self.snapshot(quarter / 4);
        self.fill(self.log_bytes() + quarter / 2);
        self.snapshot(quarter * 9 / 8);
        let [older, _] = &self.snapshots[..] else {
            panic!("two were taken");
        };
        let dropped = self.wal.drop_until(older.position.index, 0);
        let before = dropped.expect("the disk is sound").unwrap_or_default();
        while self.wal.prepare_next().expect("the disk is sound") {}
        let rest = self.bytes.saturating_sub(self.total());
        self.fill(self.log_bytes() + rest);
        while self.wal.prepare_next().expect("the disk is sound") {}
        let mut sound = self.model.clone();
        sound.drop_to(before);
        sound.snapshot = self.snapshots.last().cloned();
        let files = self.files();
        drop(self.wal);
        Subject {
            disk: self.disk.after_kill(),
            files,
            restart: self.restart,
            options: self.options,
            sound,
            contents: self.contents,
            snapshots: self.snapshots.try_into().expect("two were taken"),
            history: self.history,
        }
    }

    /// Writes until the segments have this many bytes together, and the last one is half full.
    fn fill(&mut self, bytes: usize) {
        let half = self.options.segment_bytes as usize / 2;
        loop {
            self.write();
            let (name, end) = self.end();
            self.history.push(Synced {
                file: name,
                end,
                model: self.model.clone(),
            });
            if self.log_bytes() >= bytes && end >= half {
                return;
            }
        }
    }

    /// One write of a few entries, synced; now and then in a later term, with a vote, and in place
    /// of the last entries.
    fn write(&mut self) {
        self.id = self.id.next();
        let mut write = Write {
            id: self.id,
            ..Write::default()
        };
        let mut term = self.model.hard_state.term;
        let mut last = self.model.last().index;
        if self.id.0 == 1 || self.random.random_range(0..20) == 0 {
            term = term.next();
            let committed = self.snapshots.last();
            let committed = committed.map_or(Index(0), |newest| newest.position.index);
            let back = self.random.random_range(0..4).min(last - committed);
            if back > 0 {
                write.truncate_from = Some(Index(last.0 - back + 1));
                last = Index(last.0 - back);
            }
            write.hard_state = Some(HardState {
                term,
                voted_for: Some(ServerId(self.random.random_range(1..6))),
                seating: Seating::Seated {
                    cluster: CLUSTER,
                    configuration_index: Index(1),
                },
            });
        }
        for _ in 0..self.random.random_range(1..4) {
            last = last.next();
            write.entries.push(Entry {
                term,
                index: last,
                kind: match self.random.random_range(0..20) {
                    0 => EntryKind::NoOp,
                    1 => EntryKind::Configuration,
                    _ => EntryKind::Command,
                },
                payload: self.payload(),
            });
        }
        self.model.apply(&write);
        self.wal.append(&write).expect("the log takes it");
        self.wal.sync().expect("the disk is sound");
    }

    /// No sector of it has a single bit, which a flip would make look like one that was not written.
    fn payload(&mut self) -> Bytes {
        let largest = self.options.segment_bytes as usize / 5;
        let length = match self.random.random_range(0..8) {
            0 => 0,
            1..3 => self.random.random_range(1..100),
            _ => self.random.random_range(100..largest),
        };
        let mut payload = vec![0; length];
        self.random.fill_bytes(&mut payload);
        payload.iter_mut().for_each(|byte| *byte |= 0x11);
        payload.into()
    }

    /// Takes a snapshot of everything but the last few entries.
    fn snapshot(&mut self, bytes: usize) {
        let index = Index(self.model.last().index.0 - 2);
        let position = self.model.position_at(index).expect("it is in the log");
        let snapshot = snapshot_at(position);
        let mut content = vec![0; bytes];
        StdRng::seed_from_u64(mix(index.0, 8)).fill_bytes(&mut content);
        let snapshots = self.wal.snapshots();
        let mut writer = SnapshotWriter::create(&snapshots, CLUSTER, snapshot.clone())
            .expect("the disk is sound");
        writer.write(&content).expect("the disk is sound");
        writer.finish().expect("the disk is sound");
        self.contents.insert(index, content);
        self.snapshots.push(snapshot);
    }

    /// The open segment, and where its last record ends.
    fn end(&self) -> (String, usize) {
        let (name, end) = segments(&self.disk).pop().expect("there is a segment");
        // Records take up whole multiples of this.
        (name, end.next_multiple_of(8))
    }

    fn log_bytes(&self) -> usize {
        let files = self.files();
        let segments = files.iter().filter(|file| file.name.ends_with(".log"));
        segments.map(|file| file.bytes).sum()
    }

    fn total(&self) -> usize {
        self.files().iter().map(|file| file.bytes).sum()
    }

    fn files(&self) -> Vec<Listed> {
        let names = self.disk.list().expect("the disk is sound");
        let (open, _) = self.end();
        let newest = names.iter().filter(|name| name.ends_with(".snap")).max();
        let newest = newest.cloned().unwrap_or_default();
        let listed = names.into_iter().map(|name| Listed {
            bytes: self.disk.content(&name).expect("it was listed").len(),
            part: match name.as_str() {
                "meta.0" | "meta.1" => Part::Meta,
                "wal.next" => Part::Reserve,
                name if name == open => Part::OpenSegment,
                name if name == newest => Part::NewestSnapshot,
                name if name.ends_with(".snap") => Part::SnapshotBefore,
                _ => Part::ClosedSegment,
            },
            name,
        });
        listed.collect()
    }
}
