//! Where the log begins: dropping what a snapshot covers, and beginning anew behind a snapshot.
//!
//! Dropping deletes whole segments from the front, and leaves the others as they are: the first
//! that stays says in its header which entry is before it, and repeats the hard state. Deletions
//! may reach the disk in any order, since at the next start the log is what comes behind the last
//! gap, and must begin at or before the newest snapshot.
//!
//! Beginning anew starts a segment that is marked as the log's beginning, with the hard state and
//! everything else that is to be written in it before it gets its name: a crash finds the old log
//! or the new one. The old segments are deleted afterwards, and count for nothing before.

use std::io;
use std::sync::Arc;

use mutants::Mutant;
use raft::{Index, Position};

use crate::disk::Disk;
use crate::error::Error;
use crate::record::Kind;
use crate::segment::{SegmentHeader, bytes_for, start_segment};
use crate::wal::Wal;

impl<D: Disk> Wal<D> {
    /// Deletes the segments of which no entry is behind `index`, the oldest first, as long as at
    /// least `keep_bytes` of segments are left, and never the last one. Returns the entry that the
    /// log begins behind from now on; `None` if nothing was deleted.
    ///
    /// To be able to fall back to the snapshot before the newest, `index` is that one's.
    ///
    /// # Errors
    /// `Error::Io` if the disk fails; `Error::Failed` after an earlier error.
    ///
    /// # Panics
    /// If no snapshot up to `index` or later is durable (rule 43).
    pub fn drop_until(&mut self, index: Index, keep_bytes: u64) -> Result<Option<Position>, Error> {
        self.must_be_in_snapshot(index);
        self.guard(|wal| wal.drop_segments(index, keep_bytes))
    }

    fn drop_segments(&mut self, index: Index, keep_bytes: u64) -> Result<Option<Position>, Error> {
        // A log that is to begin anew has given up all its segments.
        if self.begin_behind.is_some() {
            return Ok(None);
        }
        self.drop_first(self.segments_to_drop(index, keep_bytes))
    }

    /// Deletes so many segments, of which no entry is behind a snapshot.
    fn drop_first(&mut self, dropped: usize) -> Result<Option<Position>, Error> {
        if dropped == 0 {
            return Ok(None);
        }
        let mut places = self.shared.places_mut();
        let names: Vec<String> = places
            .segments
            .drain(..dropped)
            .map(|header| header.name())
            .collect();
        let first = places.segments.front().expect("the last one stays");
        // The entries at the end of the dropped ones may have been superseded since.
        let before = places
            .last_before_segment(first.sequence)
            .min(first.previous.index);
        let before = self.contents.position_at(before);
        let before = before.expect("what has a place is in the log");
        places.drop_to(before.index);
        drop(places);
        self.contents.drop_to(before);
        self.remove_segments(&names)?;
        Ok(Some(before))
    }

    /// How many segments may go, from the front.
    fn segments_to_drop(&self, index: Index, keep_bytes: u64) -> usize {
        let places = self.shared.places();
        let mut kept_bytes = self.segment.end;
        let mut kept = 1;
        // A segment may go if the one behind it begins behind an entry that the snapshot covers:
        // then the next start finds that nothing is missing, whatever else it finds.
        let behind = places.segments.iter().rev();
        let segments = places.segments.iter().rev().skip(1);
        for (segment, behind) in segments.zip(behind) {
            let is_covered =
                behind.previous.index <= index || mutants::is_on(Mutant::DropsUncovered);
            if kept_bytes >= keep_bytes && is_covered {
                break;
            }
            kept_bytes += segment.file_bytes;
            kept += 1;
        }
        places.segments.len() - kept
    }

    /// Has a segment that can't be read as it was written go, with all before it, as soon as a
    /// snapshot holds what is in them (`drop_given_up`); the log goes on in a next one if it is the
    /// last. Returns the entry up to which that snapshot must reach; `None` if the segment has gone.
    ///
    /// # Errors
    /// `Error::NoSpace` if there is no room for a next segment: nothing has changed, and it may be
    /// called again. `Error::Io` if the disk fails; `Error::Failed` after an earlier error.
    pub fn give_up_segment(&mut self, sequence: u64) -> Result<Option<Index>, Error> {
        self.guard(|wal| {
            let is_there = wal.shared.places().extent(sequence).is_some();
            if !is_there || wal.begin_behind.is_some() {
                return Ok(None);
            }
            if sequence == wal.segment.header.sequence {
                wal.reserve_next()?;
                wal.end_segment()?;
                wal.start_next(wal.pending_bytes)?;
            }
            wal.given_up = wal.given_up.max(Some(sequence));
            let places = wal.shared.places();
            let behind = places.segments.iter().find(|it| it.sequence > sequence);
            Ok(behind.map(|behind| behind.previous.index))
        })
    }

    /// Deletes the segments that were given up, as far as no entry in them is behind `index`. Returns
    /// what `drop_until` returns.
    ///
    /// # Errors
    /// As `drop_until`.
    ///
    /// # Panics
    /// If no snapshot up to `index` or later is durable (rule 43).
    pub fn drop_given_up(&mut self, index: Index) -> Result<Option<Position>, Error> {
        self.must_be_in_snapshot(index);
        let given_up = match self.given_up {
            Some(given_up) if self.begin_behind.is_none() => given_up,
            _ => return Ok(None),
        };
        let places = self.shared.places();
        let segments = places.segments.iter();
        let behind = places.segments.iter().skip(1);
        let dropped = segments
            .zip(behind)
            .take_while(|(segment, behind)| {
                let is_covered =
                    behind.previous.index <= index || mutants::is_on(Mutant::RottenDropsUncovered);
                segment.sequence <= given_up && is_covered
            })
            .count();
        drop(places);
        self.guard(|wal| wal.drop_first(dropped))
    }

    /// The log has no entries any more and goes on behind this one, once it is synced.
    pub(crate) fn begin_behind(&mut self, position: Position) {
        self.must_be_in_snapshot(position.index);
        self.contents.begin_behind(position);
        // No reader gets an entry of the old log from here on.
        self.shared.places_mut().begin_behind(position.index);
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        for record in pending {
            if record.kind == Kind::HardState {
                self.push(record);
            }
        }
        self.begin_behind = Some(position);
    }

    /// Begins the log in a segment behind `position`, with what is pending, and deletes the old
    /// one.
    pub(crate) fn begin_segment(&mut self, position: Position) -> Result<(), Error> {
        let header = SegmentHeader {
            previous: position,
            begins: true,
            ..self.next_header(bytes_for(self.pending_bytes))
        };
        let records = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let next = self.next.take();
        if mutants::is_on(Mutant::OldLogDeletedFirst) {
            let old = self.shared.places().segments.clone();
            let old: Vec<String> = old.iter().map(|header| header.name()).collect();
            self.remove_segments(&old)?;
        }
        let disk = &self.shared.disk;
        let started = start_segment(disk, header, &self.synced.hard_state, &records, next)?;
        self.segment = started.segment;
        self.synced.batch = started.batch;
        self.synced.chain = started.chain;
        let mut places = self.shared.places_mut();
        let names: Vec<String> = places
            .segments
            .drain(..)
            .map(|header| header.name())
            .collect();
        places.segments.push_back(Arc::new(header));
        places.end = self.end();
        drop(places);
        self.publish(&records, &started.starts);
        self.synced.hard_state = self.contents.hard_state;
        self.synced.last = self.contents.last;
        self.write_meta()?;
        if mutants::is_on(Mutant::OldLogDeletedFirst) {
            return Ok(());
        }
        self.remove_segments(&names)
    }

    fn remove_segments(&self, names: &[String]) -> Result<(), Error> {
        let disk = &self.shared.disk;
        for name in names {
            match disk.remove(name) {
                // It was lost, which is why it is to go.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(Error::io(disk, name, "remove"))?,
            }
        }
        disk.sync_directory()
            .map_err(Error::io(disk, "", "sync the data directory"))
    }

    fn must_be_in_snapshot(&self, index: Index) {
        let newest = self.shared.snapshots.newest();
        let covered = newest.map_or(Index(0), |newest| newest.position.index);
        assert!(
            index <= covered,
            "entries up to {index} are to go, and snapshots cover those up to {covered}"
        );
    }
}
