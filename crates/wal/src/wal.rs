//! The log as its one writer has it: open, append, sync, go on in the next segment.

use std::sync::Arc;

use bytes::Bytes;
use mutants::Mutant;
use raft::{
    Entry, HardState, Index, Instance, Position, Recovered, Restart, ServerId, Write, WriteId,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::contents::Contents;
use crate::disk::{BLOCK_BYTES, Disk};
use crate::error::Error;
use crate::meta::{self, Mark};
use crate::reader::{Place, Places, Reader, Shared};
use crate::record::{Chain, ENTRY_BYTES_MAX, Kind, Record, lay_out};
use crate::recover::{Log, Torn, recover};
use crate::segment::{
    NEXT_NAME, Next, Segment, SegmentHeader, block_start, bytes_for, create_next, start_segment,
    write_zeros,
};

/// The usual length of a segment.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// The least length of a segment.
pub const SEGMENT_BYTES_MIN: u64 = 8 << 10;

/// How far `prepare_next` keeps written zeros ahead of the end of the log. Syncing a small write
/// over them takes two thirds of the time that it takes over space that is only reserved.
const ZEROED_AHEAD_BYTES: u64 = 4 << 20;
/// How far a batch that leaves the zeros behind writes its own: to the next multiple of this. With
/// four times as much, each such sync would be felt; with less, there would be too many.
const ZERO_BESIDE_BYTES: u64 = 64 << 10;
/// How much may be synced before the mark in meta is moved on.
const MARK_BYTES: u64 = 4 << 20;
/// What the buffer for a batch keeps when a larger batch is through.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// What is fixed while a log is open.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whose directory it must be.
    pub server_id: ServerId,
    /// The length of a segment: a multiple of 4096, at least `SEGMENT_BYTES_MIN`. One that holds
    /// a single larger batch is longer.
    pub segment_bytes: u64,
    /// Random, and another at each start: the instance number and the salts are drawn from it.
    pub seed: u64,
}

/// What a directory held.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Drawn at the first start (rule 41).
    pub instance: Instance,
    /// Larger than at any start before, and durable (rule 15).
    pub restart: Restart,
    pub recovered: Recovered,
    /// What was erased at the end of the log.
    pub torn: Option<Torn>,
}

/// The log of one server, and its only writer.
///
/// After an error nothing more is written, and every call answers `Error::Failed`: what is on
/// disk is known only to the next start.
#[derive(Debug)]
pub struct Wal<D: Disk> {
    shared: Arc<Shared<D>>,
    options: Options,
    random: StdRng,
    meta: meta::State,
    meta_files: meta::Files<D::File>,
    segment: Segment<D::File>,
    /// The next segment's file, once there is one.
    next: Option<Next<D::File>>,
    /// What everything appended adds up to.
    contents: Contents,
    appended: WriteId,
    /// What was appended since the last sync.
    pending: Vec<Record>,
    /// The most that `pending` can take up in a segment.
    pending_bytes: u64,
    synced: Synced,
    /// The batch that is being written; kept for its memory.
    buffer: Vec<u8>,
    failed: bool,
}

/// What is on disk.
#[derive(Clone, Copy, Debug)]
struct Synced {
    hard_state: HardState,
    last: Position,
    batch: u64,
    chain: Chain,
}

impl<D: Disk> Wal<D> {
    /// Opens the log in a directory, which may be empty: then it is this server's from now on.
    /// Everything that `Opened` says is durable.
    ///
    /// # Errors
    /// `Error::Locked` if another process has the directory, `Error::OtherServer` if it is another
    /// server's, `Error::NewerFormat` if a later release wrote it, `Error::Corrupt` or
    /// `Error::Missing` if something that was synced is not there any more, `Error::Io`.
    ///
    /// # Panics
    /// If an option is out of its range.
    pub fn open(disk: D, options: Options) -> Result<(Wal<D>, Opened), Error> {
        let segment_bytes = options.segment_bytes;
        assert!(
            segment_bytes >= SEGMENT_BYTES_MIN && segment_bytes.is_multiple_of(BLOCK_BYTES),
            "segments of {segment_bytes} bytes",
        );
        lock(&disk)?;
        let mut random = StdRng::seed_from_u64(options.seed);
        let names = disk
            .list()
            .map_err(Error::io(&disk, "", "list the data directory"))?;
        let claimed = meta::claim(&disk, options.server_id, &names, &mut random)?;
        let mut meta = claimed.state;
        // A process that was killed may have renamed what it did not come to sync (rule 8).
        disk.sync_directory()
            .map_err(Error::io(&disk, "", "sync the data directory"))?;
        let log = match recover(&disk, meta.identity, meta.mark, &names)? {
            Some(log) => log,
            None => first_log(&disk, &options, &meta, &mut random)?,
        };
        meta.cluster = meta.cluster.or(log.contents.hard_state.seating.cluster());
        let doubtful = claimed.doubtful && !mutants::is_on(Mutant::RestartReused);
        meta.restart = Restart(meta.restart.0 + 1 + u64::from(doubtful));
        let opened = Opened {
            instance: meta.identity.instance,
            restart: meta.restart,
            recovered: Recovered {
                hard_state: log.contents.hard_state,
                before: Position::default(),
                snapshot: None,
                term_starts: log.contents.term_starts.clone(),
                last: log.contents.last,
                configurations: log.configurations,
            },
            torn: log.torn,
        };
        let mut wal = Wal {
            synced: Synced {
                hard_state: log.contents.hard_state,
                last: log.contents.last,
                batch: log.batch,
                chain: log.chain,
            },
            shared: Arc::new(Shared::new(disk, log.places)),
            options,
            random,
            meta,
            meta_files: claimed.files,
            segment: log.segment,
            next: None,
            contents: log.contents,
            appended: WriteId(0),
            pending: Vec::new(),
            pending_bytes: 0,
            buffer: Vec::new(),
            failed: false,
        };
        if log.has_ended {
            wal.start_next(0)?;
        }
        if !mutants::is_on(Mutant::RestartNotDurable) {
            wal.write_meta()?;
            if doubtful {
                // Both files, so that neither is behind by more than the one start that the next
                // doubtful one allows for.
                wal.write_meta()?;
            }
        }
        Ok((wal, opened))
    }

    /// Takes a write, the next one in order: the first after opening has id 1. It is in memory
    /// until `sync`.
    ///
    /// # Errors
    /// `Error::Failed` after an earlier error.
    ///
    /// # Panics
    /// If the write does not go on where the log ends, or an entry is over `ENTRY_BYTES_MAX`.
    pub fn append(&mut self, write: &Write) -> Result<(), Error> {
        if self.failed {
            return Err(Error::Failed);
        }
        assert!(
            write.id == self.appended.next(),
            "write {} after write {}",
            write.id,
            self.appended
        );
        self.appended = write.id;
        if let Some(from) = write.truncate_from {
            self.truncate_from(from);
        }
        for entry in &write.entries {
            self.append_entry(entry);
        }
        if let Some(hard_state) = write.hard_state {
            assert!(
                hard_state.term >= self.contents.hard_state.term,
                "term {} after term {}",
                hard_state.term,
                self.contents.hard_state.term
            );
            self.contents.hard_state = hard_state;
            self.push(Record::hard_state(&hard_state));
        }
        Ok(())
    }

    /// Makes everything appended durable: one write and one sync, but for a change of segment.
    /// Returns the last write, which is durable with all before it.
    ///
    /// # Errors
    /// `Error::Io` if the disk fails, and then it is not known what of it is durable;
    /// `Error::Failed` after an earlier error.
    pub fn sync(&mut self) -> Result<WriteId, Error> {
        self.guard(Wal::write_pending)?;
        Ok(self.appended)
    }

    /// Does one short step of what makes later syncs quick: writes zeros ahead of the end of the
    /// log, and makes the next segment when this one is nearly full. For times without a write
    /// that waits. Returns whether there is more to do. A full disk is no error here (rule 7).
    ///
    /// # Errors
    /// `Error::Io` if the disk fails; `Error::Failed` after an earlier error.
    pub fn prepare_next(&mut self) -> Result<bool, Error> {
        self.guard(Wal::prepare_step)
    }

    /// A handle that reads entries on another thread.
    #[must_use]
    pub fn reader(&self) -> Reader<D> {
        Reader::new(Arc::clone(&self.shared))
    }

    /// Notes down how far the log is synced, so that the next start can tell more. Nothing is
    /// lost without it.
    ///
    /// # Errors
    /// `Error::Io` if the disk fails; `Error::Failed` after an earlier error.
    pub fn close(mut self) -> Result<(), Error> {
        self.guard(Wal::write_meta)
    }

    fn guard<T>(&mut self, act: fn(&mut Wal<D>) -> Result<T, Error>) -> Result<T, Error> {
        if self.failed {
            return Err(Error::Failed);
        }
        let result = act(self);
        self.failed = result.is_err();
        result
    }

    fn truncate_from(&mut self, from: Index) {
        let last = self.contents.last;
        assert!(
            from > Index(0) && from <= last.index,
            "truncated from {from}, the log ends at {}",
            last.index
        );
        let stays = self.contents.position_at(from.prev());
        let stays = stays.expect("it is before the last entry");
        self.contents.truncate_to(stays);
        // No reader gets a superseded entry from here on; what was not synced has no place yet.
        let mut places = self.shared.places_mut();
        if places.last_index() > stays.index {
            places.truncate_to(stays.index);
        }
        drop(places);
        if mutants::is_on(Mutant::NoTruncateRecord) {
            return;
        }
        self.push(Record {
            kind: Kind::Truncate,
            position: stays,
            payload: Bytes::new(),
        });
    }

    fn append_entry(&mut self, entry: &Entry) {
        let position = entry.position();
        assert!(
            self.contents.takes(position),
            "entry {position:?} after {:?}",
            self.contents.last
        );
        assert!(
            entry.payload.len() <= ENTRY_BYTES_MAX,
            "an entry of {} bytes",
            entry.payload.len()
        );
        self.contents.append(position);
        self.push(Record {
            kind: Kind::Entry(entry.kind),
            position,
            payload: entry.payload.clone(),
        });
    }

    fn push(&mut self, record: Record) {
        self.pending_bytes += record.bytes_max();
        self.pending.push(record);
    }

    fn write_pending(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if !self.segment.has_room(self.pending_bytes) {
            self.end_segment()?;
            self.start_next(self.pending_bytes)?;
        }
        let records = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let starts = self.write_batch(&records)?;
        self.publish(&records, &starts);
        self.synced.hard_state = self.contents.hard_state;
        self.synced.last = self.contents.last;
        let mark = self.meta.mark;
        if self.segment.end - mark.offset >= MARK_BYTES {
            self.write_meta()?;
        }
        Ok(())
    }

    /// Writes and syncs one batch. Returns where each record starts.
    fn write_batch(&mut self, records: &[Record]) -> Result<Vec<u64>, Error> {
        let segment = &mut self.segment;
        let batch = self.synced.batch + 1;
        let mut chain = self.synced.chain;
        self.buffer.clear();
        self.buffer.extend_from_slice(&segment.tail);
        let starts = lay_out(
            records,
            batch,
            segment.header.salt,
            segment.end,
            &mut chain,
            &mut self.buffer,
        );
        let start = block_start(segment.end);
        let end = start + self.buffer.len() as u64;
        assert!(
            end <= segment.header.file_bytes,
            "a batch up to {end} in a segment of {}",
            segment.header.file_bytes
        );
        let tail_start = block_start(end);
        let (_, tail) = self.buffer.split_at((tail_start - start) as usize);
        segment.tail.clear();
        segment.tail.extend_from_slice(tail);
        let beside = if end > segment.zeroed {
            ZERO_BESIDE_BYTES
        } else {
            BLOCK_BYTES
        };
        let written = end.next_multiple_of(beside).min(segment.header.file_bytes);
        self.buffer.resize((written - start) as usize, 0);
        let disk = &self.shared.disk;
        let name = segment.header.name();
        disk.write_at(&segment.file, &self.buffer, start)
            .map_err(Error::io(disk, &name, "write"))?;
        if !mutants::is_on(Mutant::NoSync) {
            let synced = disk.sync(&segment.file);
            let synced = synced.map_err(Error::io(disk, &name, "sync"));
            if !mutants::is_on(Mutant::SyncErrorIgnored) {
                synced?;
            }
        }
        segment.end = end;
        segment.zeroed = segment.zeroed.max(written);
        self.synced.batch = batch;
        self.synced.chain = chain;
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        Ok(starts)
    }

    /// Lets readers see the entries of a synced batch.
    fn publish(&self, records: &[Record], starts: &[u64]) {
        let mut places = self.shared.places_mut();
        let segment = places.segments.len() - 1;
        // Entries that were superseded within the batch leave no trace.
        let mut entries: Vec<(Index, Place)> = Vec::new();
        for (record, start) in records.iter().zip(starts) {
            let index = record.position.index;
            match record.kind {
                Kind::Entry(_) => entries.push((index, Place::new(segment, *start))),
                Kind::Truncate => entries.retain(|(entry, _)| *entry <= index),
                _ => {}
            }
        }
        for (index, place) in entries {
            assert!(
                index == places.last_index().next(),
                "entry {index} has a place after {}",
                places.last_index()
            );
            places.push(place);
        }
    }

    /// Closes the segment with a batch of its own.
    fn end_segment(&mut self) -> Result<(), Error> {
        let end = Record {
            kind: Kind::SegmentEnd,
            position: self.synced.last,
            payload: Bytes::new(),
        };
        self.write_batch(&[end])?;
        Ok(())
    }

    /// Goes on in the next segment, with room for a batch of `batch_bytes`.
    fn start_next(&mut self, batch_bytes: u64) -> Result<(), Error> {
        let header = SegmentHeader {
            identity: self.meta.identity,
            cluster: self.synced.hard_state.seating.cluster(),
            sequence: self.segment.header.sequence + 1,
            previous: self.synced.last,
            first_batch: self.synced.batch + 1,
            file_bytes: bytes_for(batch_bytes).max(self.options.segment_bytes),
            salt: self.random.next_u32(),
            chain: self.synced.chain,
        };
        let next = self.next.take();
        let disk = &self.shared.disk;
        let (segment, chain) = start_segment(disk, header, &self.synced.hard_state, next)?;
        self.segment = segment;
        self.synced.chain = chain;
        self.synced.batch += 1;
        self.shared.places_mut().segments.push(Arc::new(header));
        self.write_meta()
    }

    /// Writes meta with how far the log is synced.
    fn write_meta(&mut self) -> Result<(), Error> {
        let cluster = self.synced.hard_state.seating.cluster();
        let meta = meta::State {
            sequence: self.meta.sequence + 1,
            cluster: self.meta.cluster.or(cluster),
            mark: Mark {
                segment: self.segment.header.sequence,
                offset: self.segment.end,
                index: self.synced.last.index,
            },
            ..self.meta
        };
        self.meta_files.write(&self.shared.disk, &meta)?;
        self.meta = meta;
        Ok(())
    }

    fn prepare_step(&mut self) -> Result<bool, Error> {
        let segment = &mut self.segment;
        let disk = &self.shared.disk;
        let ahead = segment.end + ZEROED_AHEAD_BYTES;
        let file_bytes = segment.header.file_bytes;
        if segment.zeroed < ahead.min(file_bytes) {
            // Not below the end: what is written there must stay.
            let from = segment.zeroed.max(segment.end);
            segment.zeroed = write_zeros(
                disk,
                &segment.file,
                &segment.header.name(),
                from,
                file_bytes,
            )?;
            return Ok(true);
        }
        let ahead_in_next = ahead.saturating_sub(file_bytes);
        if ahead_in_next == 0 {
            return Ok(false);
        }
        let Some(next) = &mut self.next else {
            let bytes = self.options.segment_bytes;
            self.next = unless_full(create_next(disk, bytes))?;
            return Ok(self.next.is_some());
        };
        if next.zeroed < ahead_in_next.min(next.bytes) {
            next.zeroed = write_zeros(disk, &next.file, NEXT_NAME, next.zeroed, next.bytes)?;
            return Ok(true);
        }
        Ok(false)
    }
}

fn lock<D: Disk>(disk: &D) -> Result<(), Error> {
    let name = "lock";
    if disk.lock(name).map_err(Error::io(disk, name, "lock"))? {
        return Ok(());
    }
    Err(Error::Locked {
        file: disk.path().join(name),
    })
}

/// An empty log with its first segment.
fn first_log<D: Disk>(
    disk: &D,
    options: &Options,
    meta: &meta::State,
    random: &mut StdRng,
) -> Result<Log<D::File>, Error> {
    let header = SegmentHeader {
        identity: meta.identity,
        cluster: None,
        sequence: 1,
        previous: Position::default(),
        first_batch: 1,
        file_bytes: options.segment_bytes,
        salt: random.next_u32(),
        chain: Chain::default(),
    };
    let (segment, chain) = start_segment(disk, header, &HardState::default(), None)?;
    let mut places = Places::default();
    places.segments.push(Arc::new(header));
    Ok(Log {
        contents: Contents::default(),
        configurations: Vec::new(),
        places,
        batch: 1,
        segment,
        chain,
        has_ended: false,
        torn: None,
    })
}

/// `None` in place of the error that the disk is full.
fn unless_full<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::StorageFull => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
