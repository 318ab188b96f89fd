//! Reading again what is durable and hardly ever read, so that what rots is found while everything in
//! it is still in memory. It is read with the readers of a start: each segment by itself, and that it
//! goes on into the next one, the last as far as it is synced; then all snapshots up to the newest.
//!
//! Nothing is locked meanwhile. A file that goes while it is read was of no use any more, so that what
//! was found in it counts only if it is needed afterwards. What is read wrongly once is read again.
//! Whoever hears of rot takes a new snapshot: it stands for all that the log holds up to its place and
//! for the snapshots before it, which then can go (`Wal::give_up_segment`, `Snapshots::give_up`).

use std::fmt;
use std::sync::Arc;

use mutants::Mutant;
use raft::Position;

use crate::disk::Disk;
use crate::error::{Error, Problem};
use crate::inspect::Seen;
use crate::meta::Mark;
use crate::reader::{Extent, Shared};
use crate::scan::Scan;
use crate::segment::parse_name;
use crate::snapshot_file::{Reading, parse_snapshot_name, snapshot_name};
use crate::snapshots::{positions, verify};

/// So much is read between two calls of whoever sets the pace, and is then no longer kept in memory.
const STRIDE_BYTES: u64 = 1 << 20;

/// What is read as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The segment of the log with this sequence.
    Segment(u64),
    /// The snapshot up to this position.
    Snapshot(Position),
}

/// What one look came to.
#[derive(Debug)]
pub enum Scrubbed {
    /// A file is as it was written, or nobody needs it any more.
    Sound,
    /// A file is as it was written. When it was first read, it was not.
    Misread(Rotten),
    /// A file that is needed can't be read as it was written.
    Rotten(Rotten),
    /// Every file was looked at. The next look begins anew.
    PassEnded,
}

/// Where something is not as it was written.
#[derive(Debug)]
pub struct Rotten {
    pub part: Part,
    pub error: Error,
}

impl Rotten {
    /// What could not be read, if it is a segment or a snapshot.
    ///
    /// # Errors
    /// The error, if it is about anything else.
    pub fn of(error: Error) -> Result<Rotten, Error> {
        let part = error.file_name().and_then(|name| {
            let segment = parse_name(name).map(|(sequence, _)| Part::Segment(sequence));
            segment.or_else(|| parse_snapshot_name(name).map(Part::Snapshot))
        });
        match part {
            Some(part) => Ok(Rotten { part, error }),
            None => Err(error),
        }
    }
}

impl fmt::Display for Rotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// Looks at the files of a server that runs, one after the other, on a thread of its own.
#[derive(Debug)]
pub struct Scrub<D> {
    shared: Arc<Shared<D>>,
    /// Looked at last in this pass.
    done: Option<Part>,
}

impl<D: Disk> Scrub<D> {
    pub(crate) fn new(shared: Arc<Shared<D>>) -> Scrub<D> {
        Scrub { shared, done: None }
    }

    /// Reads the next file of the pass. `read` is told of every so many bytes, and sets the pace.
    ///
    /// # Errors
    /// `Error::Io` if it can't be told which files there are.
    pub fn next_file(&mut self, read: &mut dyn FnMut(u64)) -> Result<Scrubbed, Error> {
        self.done = self.next_part()?;
        let Some(part) = self.done else {
            return Ok(Scrubbed::PassEnded);
        };
        let Err(first) = self.look(part, read) else {
            return Ok(Scrubbed::Sound);
        };
        let second = match mutants::is_on(Mutant::ScrubBelievesMisreads) {
            true => Err(first),
            false => self.look(part, read).map(|()| first),
        };
        match second {
            Ok(error) => Ok(Scrubbed::Misread(Rotten { part, error })),
            Err(_) if !self.is_needed(part)? => Ok(Scrubbed::Sound),
            Err(error) => Ok(Scrubbed::Rotten(Rotten { part, error })),
        }
    }

    fn next_part(&self) -> Result<Option<Part>, Error> {
        let last = match self.done {
            None => Some(0),
            Some(Part::Segment(sequence)) => Some(sequence),
            Some(Part::Snapshot(_)) => None,
        };
        if let Some(last) = last {
            let places = self.shared.places();
            let mut segments = places.segments.iter().map(|header| header.sequence);
            if let Some(next) = segments.find(|sequence| *sequence > last) {
                return Ok(Some(Part::Segment(next)));
            }
        }
        let done = match self.done {
            Some(Part::Snapshot(position)) => Some(position),
            _ => None,
        };
        let mut snapshots = self.snapshots()?;
        snapshots.retain(|position| Some(place(position)) > done.as_ref().map(place));
        Ok(snapshots.first().copied().map(Part::Snapshot))
    }

    /// All snapshots that a start could use, the oldest first. That those behind the newest can't be
    /// used was found at the start.
    fn snapshots(&self) -> Result<Vec<Position>, Error> {
        let disk = &self.shared.disk;
        let newest = self.shared.snapshots.newest();
        let newest = newest.map_or_else(Position::default, |newest| newest.position);
        let names = disk
            .list()
            .map_err(Error::io(disk, "", "list the data directory"))?;
        let mut positions = positions(&names);
        positions.retain(|position| position.index <= newest.index);
        positions.reverse();
        Ok(positions)
    }

    fn is_needed(&self, part: Part) -> Result<bool, Error> {
        match part {
            Part::Segment(sequence) => Ok(self.shared.places().extent(sequence).is_some()),
            Part::Snapshot(position) => Ok(self.snapshots()?.contains(&position)),
        }
    }

    fn look(&self, part: Part, read: &mut dyn FnMut(u64)) -> Result<(), Error> {
        let sequence = match part {
            Part::Segment(sequence) => sequence,
            Part::Snapshot(position) => return self.snapshot(position, read),
        };
        // The log goes on meanwhile: its places are not held.
        let extent = self.shared.places().extent(sequence);
        match extent {
            Some(it) if it.end.is_some() && mutants::is_on(Mutant::ScrubSkipsLast) => Ok(()),
            Some(extent) => self.segment(&extent, read),
            None => Ok(()),
        }
    }

    /// Reads a segment, which must end as it is known to.
    fn segment(&self, extent: &Extent, read: &mut dyn FnMut(u64)) -> Result<(), Error> {
        let disk = &self.shared.disk;
        let Extent {
            header,
            end,
            batch,
            chain,
        } = extent;
        let name = header.name();
        let mut pace = Pace::new(disk, &name, read);
        let mut scan = Scan::new(disk, header.identity, Mark::default(), false, |seen| {
            if let Seen::Record { offset, header, .. } = seen {
                pace.reach(offset + header.record_bytes() as u64);
            }
            Ok(())
        });
        scan.until = *end;
        let found = scan.segment(&name, false)?;
        if let Some(damage) = scan.damage.take() {
            return Err(damage);
        }
        let offset = found.map_or(0, |found| found.segment.end);
        let must_be = |what, expected: u64, found: u64| {
            if expected == found {
                return Ok(());
            }
            Err(Error::Corrupt {
                file: disk.path().join(&name),
                offset,
                problem: Problem::Unexpected {
                    what,
                    expected,
                    found,
                },
            })
        };
        must_be("segment's last batch", *batch, scan.batch)?;
        must_be("sum of all checksums", chain.0.into(), scan.chain.0.into())
    }

    fn snapshot(&self, position: Position, read: &mut dyn FnMut(u64)) -> Result<(), Error> {
        let disk = &self.shared.disk;
        let name = snapshot_name(position);
        let mut pace = Pace::new(disk, &name, read);
        let mut bytes = 0;
        verify(disk, position, None, Reading::PastCache, |content| {
            bytes += content.len() as u64;
            pace.reach(bytes);
            Ok(())
        })?;
        Ok(())
    }
}

fn place(position: &Position) -> (u64, u64) {
    (position.index.0, position.term.0)
}

/// How far one file was read.
struct Pace<'a, D: Disk> {
    disk: &'a D,
    name: &'a str,
    read: &'a mut dyn FnMut(u64),
    reached: u64,
    told: u64,
}

impl<'a, D: Disk> Pace<'a, D> {
    /// What the disk holds is read, and not what memory still has of it.
    fn new(disk: &'a D, name: &'a str, read: &'a mut dyn FnMut(u64)) -> Pace<'a, D> {
        disk.forget(name);
        Pace {
            disk,
            name,
            read,
            reached: 0,
            told: 0,
        }
    }

    fn reach(&mut self, offset: u64) {
        self.reached = offset;
        if offset - self.told >= STRIDE_BYTES {
            self.tell();
        }
    }

    fn tell(&mut self) {
        self.disk.forget(self.name);
        (self.read)(self.reached - self.told);
        self.told = self.reached;
    }
}

impl<D: Disk> Drop for Pace<'_, D> {
    fn drop(&mut self) {
        self.tell();
    }
}
