//! The log as its one writer has it: open, append, sync, go on in the next segment.

use std::sync::Arc;

use bytes::Bytes;
use mutants::Mutant;
use raft::{Entry, HardState, Index, Position, Write, WriteId};
use rand::Rng;
use rand::rngs::StdRng;

use crate::aside;
use crate::contents::Contents;
use crate::disk::{BLOCK_BYTES, Disk};
use crate::error::Error;
use crate::meta::{self, Mark};
use crate::open::Options;
use crate::reader::{End, Place, Reader, Shared};
use crate::record::{Chain, ENTRY_BYTES_MAX, Kind, Record, lay_out};
use crate::scrub::Scrub;
use crate::segment::{
    NEXT_NAME, Next, Segment, SegmentHeader, block_start, bytes_for, create_next, start_segment,
    write_zeros,
};
use crate::snapshots::Snapshots;

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

/// The log of one server, and its only writer.
///
/// After an error nothing more is written, and every call answers `Error::Failed`: what is on
/// disk is known only to the next start.
#[derive(Debug)]
pub struct Wal<D: Disk> {
    pub(crate) shared: Arc<Shared<D>>,
    pub(crate) options: Options,
    pub(crate) random: StdRng,
    pub(crate) meta: meta::State,
    pub(crate) meta_files: meta::Files<D::File>,
    pub(crate) segment: Segment<D::File>,
    /// The next segment's file, once there is one.
    pub(crate) next: Option<Next<D::File>>,
    /// What everything appended adds up to.
    pub(crate) contents: Contents,
    pub(crate) appended: WriteId,
    /// Since the last sync: this server has recovered.
    pub(crate) recovered: bool,
    /// Since the last sync: the log is to begin anew behind this entry. Then `pending` is what
    /// was appended after that, and the hard states from before.
    pub(crate) begin_behind: Option<Position>,
    /// The last of the segments that are to go because they can't be read as they were written.
    pub(crate) given_up: Option<u64>,
    /// What was appended since the last sync.
    pub(crate) pending: Vec<Record>,
    /// The most that `pending` can take up in a segment.
    pub(crate) pending_bytes: u64,
    pub(crate) synced: Synced,
    /// The batch that is being written, or the last one; kept for its memory.
    pub(crate) buffer: Vec<u8>,
    pub(crate) failed: bool,
}

/// What is on disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Synced {
    pub(crate) hard_state: HardState,
    pub(crate) last: Position,
    pub(crate) batch: u64,
    pub(crate) chain: Chain,
}

impl<D: Disk> Wal<D> {
    /// Takes a write, the next one in order: the first after opening has id 1. It is in memory
    /// until `sync`.
    ///
    /// # Errors
    /// `Error::Failed` after an earlier error.
    ///
    /// # Panics
    /// If the write does not go on where the log ends, an entry is over `ENTRY_BYTES_MAX`, or it
    /// begins behind an entry that no durable snapshot holds.
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
        if let Some(position) = write.begin_behind {
            self.begin_behind(position);
        }
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
        if write.recovered {
            assert!(
                self.meta.recovering,
                "{} is not recovering",
                self.options.server_id
            );
            self.recovered = true;
        }
        Ok(())
    }

    /// Makes everything appended durable: one write and one sync, but for a change of segment.
    /// Returns the last write, which is durable with all before it.
    ///
    /// # Errors
    /// `Error::NoSpace` if the log would have to go on in a next segment and there is no room for
    /// one: nothing has changed, and it may be called again. `Error::Io` if the disk fails, and
    /// then it is not known what of it is durable; `Error::Failed` after that.
    pub fn sync(&mut self) -> Result<WriteId, Error> {
        self.guard(|wal| {
            wal.write_pending()?;
            wal.note_recovered()
        })?;
        Ok(self.appended)
    }

    /// Does one short step of what is to be there before it is needed: the space of the next segment,
    /// and zeros ahead of the end of the log, which make syncs quick. For times without a write that
    /// waits. Returns whether there is more to do. A full disk is no error here (rule 7): see
    /// `has_reserve`.
    ///
    /// # Errors
    /// `Error::Io` if the disk fails; `Error::Failed` after an earlier error.
    pub fn prepare_next(&mut self) -> Result<bool, Error> {
        self.guard(Wal::prepare_step)
    }

    /// Whether the space of the next segment is reserved: without it, what this one has left is all
    /// that is sure to be there, and no more should be taken from clients (rule 9). To be asked behind
    /// `prepare_next`, which begins with that space.
    #[must_use]
    pub fn has_reserve(&self) -> bool {
        self.next.is_some()
    }

    /// A handle that reads entries on another thread.
    #[must_use]
    pub fn reader(&self) -> Reader<D> {
        Reader::new(Arc::clone(&self.shared))
    }

    /// The snapshots in the log's directory, for other threads.
    #[must_use]
    pub fn snapshots(&self) -> Snapshots<D> {
        Snapshots {
            shared: Arc::clone(&self.shared),
        }
    }

    /// What reads all that is durable again, on another thread.
    #[must_use]
    pub fn scrub(&self) -> Scrub<D> {
        Scrub::new(Arc::clone(&self.shared))
    }

    /// Notes down how far the log is synced, so that the next start can tell more. Nothing is
    /// lost without it.
    ///
    /// # Errors
    /// `Error::Io` if the disk fails; `Error::Failed` after an earlier error.
    pub fn close(mut self) -> Result<(), Error> {
        self.guard(Wal::write_meta)
    }

    pub(crate) fn guard<T>(
        &mut self,
        act: impl FnOnce(&mut Wal<D>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.failed {
            return Err(Error::Failed);
        }
        let result = act(self);
        self.failed = !matches!(result, Ok(_) | Err(Error::NoSpace { .. }));
        result
    }

    fn truncate_from(&mut self, from: Index) {
        let last = self.contents.last;
        assert!(
            from > self.contents.before.index && from <= last.index,
            "truncated from {from}, the log holds what is behind {} up to {}",
            self.contents.before.index,
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

    pub(crate) fn push(&mut self, record: Record) {
        self.pending_bytes += record.bytes_max();
        self.pending.push(record);
    }

    pub(crate) fn write_pending(&mut self) -> Result<(), Error> {
        if let Some(position) = self.begin_behind {
            self.reserve_next()?;
            self.begin_behind = None;
            return self.begin_segment(position);
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        if !self.segment.has_room(self.pending_bytes) {
            self.reserve_next()?;
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

    /// Has the next start give up everything that is in this directory, and begin anew with what the
    /// other servers have: the state that it leads to is not theirs.
    ///
    /// # Errors
    /// `Error::Io` if the disk fails; `Error::Failed` after an earlier error.
    pub fn distrust(&mut self) -> Result<(), Error> {
        self.guard(|wal| {
            wal.meta.distrusted = true;
            // Both files, so that neither can lose it.
            wal.write_meta()?;
            wal.write_meta()
        })
    }

    /// Takes the mark away, once everything that it waited for is synced.
    fn note_recovered(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.recovered) {
            return Ok(());
        }
        self.meta.recovering = false;
        self.write_meta()?;
        aside::remove_all(&self.shared.disk)
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
        self.shared.places_mut().end = self.end();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        Ok(starts)
    }

    /// Lets readers see the entries of a synced batch.
    pub(crate) fn publish(&self, records: &[Record], starts: &[u64]) {
        let mut places = self.shared.places_mut();
        let segment = self.segment.header.sequence;
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
    pub(crate) fn end_segment(&mut self) -> Result<(), Error> {
        let end = Record {
            kind: Kind::SegmentEnd,
            position: self.synced.last,
            payload: Bytes::new(),
        };
        self.write_batch(&[end])?;
        Ok(())
    }

    /// The header of a next segment that goes on where the log ends, of at least this many bytes.
    pub(crate) fn next_header(&mut self, bytes_min: u64) -> SegmentHeader {
        SegmentHeader {
            identity: self.meta.identity,
            cluster: self.synced.hard_state.seating.cluster(),
            sequence: self.segment.header.sequence + 1,
            previous: self.synced.last,
            first_batch: self.synced.batch + 1,
            file_bytes: bytes_min.max(self.options.segment_bytes),
            salt: self.random.next_u32(),
            chain: self.synced.chain,
            begins: false,
        }
    }

    /// Sees to it that the next segment has its space, with room for what is pending. Nothing else has
    /// changed if there is none.
    pub(crate) fn reserve_next(&mut self) -> Result<(), Error> {
        let bytes = bytes_for(self.pending_bytes).max(self.options.segment_bytes);
        let disk = &self.shared.disk;
        match &mut self.next {
            Some(next) => next.reserve(disk, bytes),
            None => create_next(disk, bytes).map(|next| self.next = Some(next)),
        }
        .map_err(Error::without_space)
    }

    /// Goes on in the next segment, with room for a batch of `batch_bytes`.
    pub(crate) fn start_next(&mut self, batch_bytes: u64) -> Result<(), Error> {
        let header = self.next_header(bytes_for(batch_bytes));
        let next = self.next.take();
        let disk = &self.shared.disk;
        let started = start_segment(disk, header, &self.synced.hard_state, &[], next)?;
        self.segment = started.segment;
        self.synced.chain = started.chain;
        self.synced.batch = started.batch;
        let mut places = self.shared.places_mut();
        places.segments.push_back(Arc::new(header));
        places.end = self.end();
        drop(places);
        self.write_meta()
    }

    /// Where what is synced ends.
    pub(crate) fn end(&self) -> End {
        End {
            offset: self.segment.end,
            batch: self.synced.batch,
            chain: self.synced.chain,
        }
    }

    /// Writes meta with how far the log is synced.
    pub(crate) fn write_meta(&mut self) -> Result<(), Error> {
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
        if self.next.is_none() {
            self.next = unless_full(create_next(disk, self.options.segment_bytes))?;
            if self.next.is_some() {
                return Ok(true);
            }
        }
        let ahead = segment.end + ZEROED_AHEAD_BYTES;
        let file_bytes = segment.header.file_bytes;
        let batch_bytes = self.buffer.len() as u64;
        if segment.zeroed < ahead.min(file_bytes) {
            // Not below the end: what is written there must stay.
            let from = segment.zeroed.max(segment.end);
            segment.zeroed = write_zeros(
                disk,
                &segment.file,
                &segment.header.name(),
                from,
                file_bytes,
                batch_bytes,
            )?;
            return Ok(true);
        }
        let ahead_in_next = ahead.saturating_sub(file_bytes);
        if let Some(next) = &mut self.next
            && next.zeroed < ahead_in_next.min(next.bytes)
        {
            let (file, from) = (&next.file, next.zeroed);
            next.zeroed = write_zeros(disk, file, NEXT_NAME, from, next.bytes, batch_bytes)?;
            return Ok(true);
        }
        Ok(false)
    }
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
