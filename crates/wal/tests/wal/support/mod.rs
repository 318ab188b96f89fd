//! What the tests of the log share: a model of what a log must hold, scripts of what it might be
//! asked, and snapshots.

pub(crate) mod hooked_disk;
pub(crate) mod script;
pub(crate) mod snapshots;
pub(crate) mod sweep;

use std::fmt;

use bytes::Bytes;
use quorate_wal::{Disk, Error, MemoryDisk, Opened, Options, SEGMENT_BYTES_MIN, Wal};
use raft::{
    Entry, EntryKind, Fetch, HardState, Index, Position, Reader, Restart, ServerId, Snapshot, Term,
    Write, WriteId,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use script::Operation;
use snapshots::{content_of, read_snapshot, receive_snapshot, write_snapshot};

pub(crate) const SERVER: ServerId = ServerId(3);

/// Small segments, so that a short script fills many.
pub(crate) fn options(seed: u64) -> Options {
    Options {
        server_id: SERVER,
        segment_bytes: SEGMENT_BYTES_MIN,
        seed,
        heals: false,
    }
}

/// The same for a server with peers that can give back what is lost.
pub(crate) fn healing_options(seed: u64) -> Options {
    Options {
        heals: true,
        ..options(seed)
    }
}

/// What a log must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) hard_state: HardState,
    /// The newest snapshot.
    pub(crate) snapshot: Option<Snapshot>,
    /// The entry before the first.
    pub(crate) before: Position,
    pub(crate) entries: Vec<Entry>,
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, last) = (self.before, self.last());
        let term = self.hard_state.term;
        write!(f, "from {before:?} to {last:?} in term {term}")
    }
}

impl Model {
    pub(crate) fn last(&self) -> Position {
        self.entries.last().map_or(self.before, Entry::position)
    }

    pub(crate) fn position_at(&self, index: Index) -> Option<Position> {
        if index == self.before.index {
            return Some(self.before);
        }
        let at = index.0.checked_sub(self.before.index.0 + 1)?;
        self.entries.get(at as usize).map(Entry::position)
    }

    pub(crate) fn apply(&mut self, write: &Write) {
        if let Some(before) = write.begin_behind {
            self.begin_behind(before);
        }
        if let Some(from) = write.truncate_from {
            self.entries
                .truncate((from - self.before.index.next()) as usize);
        }
        self.entries.extend(write.entries.iter().cloned());
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
    }

    pub(crate) fn begin_behind(&mut self, before: Position) {
        self.before = before;
        self.entries.clear();
    }

    /// The entries up to this one are gone.
    pub(crate) fn drop_to(&mut self, before: Position) {
        let dropped = (before.index - self.before.index) as usize;
        self.entries.drain(..dropped);
        self.before = before;
    }

    /// What a start makes of this log with this snapshot beside it.
    pub(crate) fn recovered_with(&self, snapshot: Option<&Snapshot>) -> Model {
        let mut model = self.clone();
        model.snapshot = snapshot.cloned();
        if let Some(Snapshot { position, .. }) = snapshot
            && self.position_at(position.index) != Some(*position)
        {
            model.begin_behind(*position);
        }
        model
    }
}

/// What an operation came to.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    /// Everything appended is durable.
    Synced,
    /// The log begins behind this entry now; `None` if it begins where it did.
    Dropped(Option<Position>),
    Other,
}

/// Does one operation.
pub(crate) fn operate<D: Disk>(wal: &mut Wal<D>, operation: &Operation) -> Result<Done, Error> {
    match operation {
        Operation::Append(write) => wal.append(write)?,
        Operation::Sync => return wal.sync().map(|_| Done::Synced),
        Operation::Prepare => {
            wal.prepare_next()?;
        }
        Operation::Snapshot(snapshot) => write_snapshot(&wal.snapshots(), snapshot)?,
        Operation::Receive(snapshot) => receive_snapshot(&wal.snapshots(), snapshot)?,
        Operation::Drop(index, kept_bytes) => {
            return wal.drop_until(*index, *kept_bytes).map(Done::Dropped);
        }
    }
    Ok(Done::Other)
}

/// Everything that a log holds, as its reader and its recovery say, and its newest snapshot.
pub(crate) fn observe<D: Disk>(wal: &Wal<D>, opened: &Opened) -> Model {
    let model = observe_log(wal, opened);
    if let Some(snapshot) = &model.snapshot {
        let content = read_snapshot(&wal.snapshots(), snapshot.position);
        let content = content.expect("what was recovered can be read");
        assert!(content == content_of(snapshot), "{:?}", snapshot.position);
    }
    model
}

/// The same, but for what is in the snapshot.
pub(crate) fn observe_log<D: Disk>(wal: &Wal<D>, opened: &Opened) -> Model {
    let recovered = &opened.recovered;
    let model = Model {
        hard_state: recovered.hard_state,
        snapshot: recovered.snapshot.clone(),
        before: recovered.before,
        entries: read_all(wal, recovered.before.index, recovered.last.index),
    };
    assert_eq!(model.last(), recovered.last);
    if let Some(snapshot) = &model.snapshot {
        assert_eq!(wal.snapshots().newest(), model.snapshot);
        let position = snapshot.position;
        assert_eq!(model.position_at(position.index), Some(position));
    }
    let mut term = recovered.before.term;
    let mut term_starts = Vec::new();
    for entry in &model.entries {
        if entry.term > term {
            term_starts.push(entry.position());
            term = entry.term;
        }
    }
    assert_eq!(term_starts, recovered.term_starts);
    let configurations: Vec<Entry> = model
        .entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::Configuration)
        .cloned()
        .collect();
    assert_eq!(configurations, recovered.configurations);
    model
}

/// All entries behind `before` up to `to`, in as many fetches as it takes.
pub(crate) fn read_all<D: Disk>(wal: &Wal<D>, before: Index, to: Index) -> Vec<Entry> {
    let reader = wal.reader();
    let mut entries: Vec<Entry> = Vec::new();
    while (entries.len() as u64) < to - before {
        let fetch = Fetch {
            reader: Reader::Apply,
            from: (before + entries.len() as u64).next(),
            to,
            bytes_max: 64 << 10,
        };
        let read = reader.read(&fetch).expect("what was recovered can be read");
        assert!(!read.is_empty(), "{fetch:?} gives nothing");
        entries.extend(read);
    }
    entries
}

/// Opens the log in a directory that is sound.
pub(crate) fn open<D: Disk>(disk: D, seed: u64) -> (Wal<D>, Opened, Model) {
    let (wal, opened) = Wal::open(disk, options(seed)).expect("a sound directory opens");
    let model = observe(&wal, &opened);
    (wal, opened, model)
}

/// The write that appends these payloads in a term, behind `last`.
pub(crate) fn write(id: u64, term: u64, last: u64, payloads: &[&[u8]]) -> Write {
    Write {
        id: WriteId(id),
        entries: entries(term, last, payloads),
        ..Write::default()
    }
}

/// Commands with these payloads in a term, behind `last`.
pub(crate) fn entries(term: u64, last: u64, payloads: &[&[u8]]) -> Vec<Entry> {
    let entries = (last + 1..).zip(payloads).map(|(index, payload)| Entry {
        term: Term(term),
        index: Index(index),
        kind: EntryKind::Command,
        payload: Bytes::copy_from_slice(payload),
    });
    entries.collect()
}

/// Seeds for what belongs together: far apart, so that no two sequences overlap.
pub(crate) fn mix(seed: u64, part: u64) -> u64 {
    StdRng::seed_from_u64(seed ^ part.rotate_left(32)).next_u64()
}

/// A start number that was never handed out before.
pub(crate) fn assert_grown(restart: Restart, before: Restart) {
    assert!(
        restart > before,
        "restart number {restart} after {before} was used"
    );
}

/// The files whose names end so, in order.
pub(crate) fn files_named(disk: &MemoryDisk, ending: &str) -> Vec<String> {
    let mut names = disk.list().expect("the disk is sound");
    names.retain(|name| name.ends_with(ending));
    names.sort();
    names
}

/// Behind the last byte of a file that is not 0.
pub(crate) fn used(disk: &MemoryDisk, name: &str) -> usize {
    let content = disk.content(name).expect("it was listed");
    let last = content.iter().rposition(|byte| *byte != 0);
    last.map_or(0, |last| last + 1)
}

/// The segments in order, each with where its last record ends.
pub(crate) fn segments(disk: &MemoryDisk) -> Vec<(String, usize)> {
    let names = files_named(disk, ".log").into_iter();
    names
        .map(|name| (name.clone(), used(disk, &name)))
        .collect()
}
