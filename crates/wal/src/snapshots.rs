//! The snapshots in a data directory: which ones are kept, who may write and read them.
//!
//! The newest snapshot and the one before stay. An older one is removed once the newest has been
//! read back whole, and not before (rule 43). While a snapshot is being written or received its
//! file has another name, which the next start removes if it is of no use.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use mutants::Mutant;
use raft::{ClusterId, Index, Position, Snapshot};

use crate::disk::Disk;
use crate::error::{Error, Problem};
use crate::reader::Shared;
use crate::snapshot_file::{
    FileReader, FileWriter, NO_CLUSTER, Reading, SnapshotHeader, parse_snapshot_name, parse_stem,
    snapshot_name, stem,
};
use crate::snapshot_transfer::{PART, parse_part_name};

/// How many snapshots are kept.
const KEPT: usize = 2;
/// How the name of a snapshot ends that is being written.
pub(crate) const TEMPORARY: &str = ".tmp";

/// The snapshots of a data directory. They are written and read on other threads than the log.
#[derive(Debug)]
pub struct Snapshots<D> {
    pub(crate) shared: Arc<Shared<D>>,
}

impl<D> Clone for Snapshots<D> {
    fn clone(&self) -> Snapshots<D> {
        Snapshots {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<D> Snapshots<D> {
    /// The newest snapshot that is durable and was read back whole.
    #[must_use]
    pub fn newest(&self) -> Option<Snapshot> {
        self.shared.snapshots.newest()
    }

    /// Has a snapshot that can't be read as it was written go as soon as there is a newer one, or
    /// another of the same position.
    pub fn give_up(&self, position: Position) {
        self.shared.snapshots.give_up(position);
    }
}

/// Which snapshots are there, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    kept: Mutex<Vec<Snapshot>>,
    /// Not to be kept beside a newer one.
    given_up: Mutex<Vec<Position>>,
    /// Held by whoever gives a snapshot its name, until older ones are removed.
    publishing: Mutex<()>,
}

impl Catalog {
    pub(crate) fn new(newest: Option<Snapshot>) -> Catalog {
        Catalog {
            kept: Mutex::new(newest.into_iter().collect()),
            ..Catalog::default()
        }
    }

    pub(crate) fn newest(&self) -> Option<Snapshot> {
        self.kept().last().cloned()
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Snapshot>> {
        self.kept.lock().expect("no holder of this lock panics")
    }

    fn given_up(&self) -> MutexGuard<'_, Vec<Position>> {
        self.given_up.lock().expect("no holder of this lock panics")
    }

    fn give_up(&self, position: Position) {
        if !mutants::is_on(Mutant::RottenSnapshotKept) {
            self.given_up().push(position);
        }
    }

    /// Adds a snapshot. Returns what is to be kept.
    fn add(&self, snapshot: Snapshot) -> Vec<Position> {
        let mut kept = self.kept();
        let index = snapshot.position.index;
        let mut given_up = self.given_up();
        kept.retain(|Snapshot { position, .. }| {
            *position != snapshot.position
                && (position.index > index || !given_up.contains(position))
        });
        given_up.retain(|position| position.index > index);
        kept.push(snapshot);
        kept.sort_by_key(|snapshot| snapshot.position.index);
        let older = kept.len().saturating_sub(KEPT);
        kept.drain(..older);
        kept.iter().map(|snapshot| snapshot.position).collect()
    }
}

impl<D: Disk> Shared<D> {
    /// Gives a synced file the name of its snapshot, reads it back, and removes older ones. The
    /// snapshot is open: should there be newer ones, it is among those removed.
    pub(crate) fn publish_snapshot(
        &self,
        from: &str,
        expected: &Snapshot,
        reading: Reading,
    ) -> Result<FileReader<D::File>, Error> {
        let disk = &self.disk;
        let publishing = &self.snapshots.publishing;
        let _publishing = publishing.lock().expect("no holder of this lock panics");
        let name = snapshot_name(expected.position);
        disk.rename(from, &name)
            .map_err(Error::io(disk, from, "rename"))
            .map_err(Error::without_space)?;
        if !mutants::is_on(Mutant::SnapshotNameNotSynced) {
            disk.sync_directory()
                .map_err(Error::io(disk, "", "sync the data directory"))?;
        }
        if !mutants::is_on(Mutant::SnapshotNotReadBack) {
            verify(disk, expected.position, None, reading, |_| Ok(()))?;
        }
        let published = FileReader::open(disk, &name, Reading::Cached)?;
        let kept = self.snapshots.add(expected.clone());
        let names = disk.list();
        let names = names.map_err(Error::io(disk, "", "list the data directory"))?;
        remove(disk, &names, |name| {
            parse_snapshot_name(name).is_some_and(|position| !kept.contains(&position))
        })?;
        Ok(published)
    }
}

/// Removes those of these files that are no use. They may be back after a power cut.
pub(crate) fn remove<D: Disk>(
    disk: &D,
    names: &[String],
    useless: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let mut useless: Vec<&String> = names.iter().filter(|name| useless(name)).collect();
    useless.sort();
    for name in useless {
        disk.remove(name).map_err(Error::io(disk, name, "remove"))?;
    }
    Ok(())
}

/// Writes one snapshot. What is not finished is removed when it is dropped, or at the next start.
///
/// A disk without space gives `Error::NoSpace`, which ends this snapshot and nothing else (rule 7).
/// After any other error it is not known what is on disk, and the process ends as it does after
/// an error of the log.
#[derive(Debug)]
pub struct SnapshotWriter<D: Disk> {
    shared: Arc<Shared<D>>,
    name: String,
    file: FileWriter<D::File>,
    snapshot: Snapshot,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Writing,
    /// There was no space.
    GivenUp,
    /// Nothing is to be done any more: it has its name, or the disk failed.
    Ended,
}

impl<D: Disk> SnapshotWriter<D> {
    /// Begins a snapshot of this cluster's state up to `snapshot.position`. There is one writer
    /// at a time.
    ///
    /// # Errors
    /// `Error::NoSpace`, `Error::Io`.
    ///
    /// # Panics
    /// If the position is 0, or the configuration is behind it.
    pub fn create(
        snapshots: &Snapshots<D>,
        cluster: ClusterId,
        snapshot: Snapshot,
    ) -> Result<SnapshotWriter<D>, Error> {
        let index = snapshot.position.index;
        assert!(index > Index(0), "a snapshot of nothing");
        let configured = snapshot.configuration.as_ref();
        let configured = configured.map_or(Index(0), |entry| entry.index);
        assert!(
            configured <= index,
            "a snapshot up to {index} with the configuration of {configured}"
        );
        let shared = Arc::clone(&snapshots.shared);
        let name = format!("{}{TEMPORARY}", stem(snapshot.position));
        let header = SnapshotHeader {
            cluster,
            snapshot: snapshot.clone(),
        };
        let created = FileWriter::create(&shared.disk, name.clone(), header);
        let file = created
            .map_err(Error::without_space)
            .inspect_err(|error| remove_if_full(&shared.disk, &name, error))?;
        Ok(SnapshotWriter {
            shared,
            name,
            file,
            snapshot,
            state: State::Writing,
        })
    }

    /// Writes what comes next. Into how many pieces it is cut makes no difference to the file.
    ///
    /// # Errors
    /// `Error::NoSpace`, `Error::Io`; `Error::Failed` after an earlier error.
    pub fn write(&mut self, content: &[u8]) -> Result<(), Error> {
        self.guard(|writer| {
            let written = writer.file.write(&writer.shared.disk, content);
            written.map_err(Error::without_space)
        })
    }

    /// Makes the snapshot durable under its name, reads it back, and removes the snapshots before
    /// the one before.
    ///
    /// # Errors
    /// `Error::NoSpace`, `Error::Io`; `Error::Corrupt` if it is not read as it was written;
    /// `Error::Failed` after an earlier error.
    pub fn finish(mut self) -> Result<Snapshot, Error> {
        self.guard(|writer| {
            let shared = &writer.shared;
            let finished = writer.file.finish(&shared.disk);
            finished.map_err(Error::without_space)?;
            shared.publish_snapshot(&writer.name, &writer.snapshot, Reading::PastCache)?;
            Ok(())
        })?;
        self.state = State::Ended;
        Ok(self.snapshot.clone())
    }

    fn guard<T>(
        &mut self,
        act: impl FnOnce(&mut SnapshotWriter<D>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.state != State::Writing {
            return Err(Error::Failed);
        }
        let result = act(self);
        match &result {
            Ok(_) => {}
            Err(Error::NoSpace { .. }) => self.state = State::GivenUp,
            Err(_) => self.state = State::Ended,
        }
        result
    }
}

impl<D: Disk> Drop for SnapshotWriter<D> {
    fn drop(&mut self) {
        if self.state != State::Ended {
            // If this fails, the next start does it.
            let _ = self.shared.disk.remove(&self.name);
        }
    }
}

/// After an error for want of space: removes the file, which gives back what it took.
pub(crate) fn remove_if_full<D: Disk>(disk: &D, name: &str, error: &Error) {
    if matches!(error, Error::NoSpace { .. }) {
        // It may not be there. If this fails, the next start does it.
        let _ = disk.remove(name);
    }
}

/// Reads one snapshot from front to back.
#[derive(Debug)]
pub struct SnapshotReader<D: Disk> {
    shared: Arc<Shared<D>>,
    file: FileReader<D::File>,
}

impl<D: Disk> SnapshotReader<D> {
    /// Opens the snapshot up to this position.
    ///
    /// # Errors
    /// `Error::Io` if it can't be read or is not there, `Error::Corrupt` if its header is not as
    /// it was written, `Error::NewerFormat` if a later release wrote it.
    pub fn open(snapshots: &Snapshots<D>, position: Position) -> Result<SnapshotReader<D>, Error> {
        let shared = Arc::clone(&snapshots.shared);
        let file = FileReader::open(&shared.disk, &snapshot_name(position), Reading::Cached)?;
        Ok(SnapshotReader { shared, file })
    }

    pub(crate) fn of(shared: Arc<Shared<D>>, file: FileReader<D::File>) -> SnapshotReader<D> {
        SnapshotReader { shared, file }
    }

    /// What it is a snapshot of.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.file.header().snapshot
    }

    /// Whose state it is.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.file.header().cluster
    }

    /// The length of the file, which is a little more than that of the content.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file.file_bytes()
    }

    /// The next piece of the content, up to `SNAPSHOT_PIECE_BYTES_MAX`. Each was checked by
    /// itself; that none is missing is known when there are no more: `None`.
    ///
    /// # Errors
    /// `Error::Io`; `Error::Corrupt` at the first byte that is not as it was written, is missing,
    /// or is too much.
    pub fn read(&mut self) -> Result<Option<Bytes>, Error> {
        self.file.next(&self.shared.disk)
    }
}

/// A snapshot that is there and can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    pub file: PathBuf,
    pub offset: u64,
    pub problem: Problem,
}

impl Damaged {
    /// What an error says, if it is that.
    pub(crate) fn of(error: &Error) -> Option<Damaged> {
        match error {
            Error::Corrupt {
                file,
                offset,
                problem,
            } => Some(Damaged {
                file: file.clone(),
                offset: *offset,
                problem: problem.clone(),
            }),
            _ => None,
        }
    }
}

/// What a start finds.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The newest snapshot that can be used.
    pub(crate) newest: Option<Snapshot>,
    /// Newer ones that can't be.
    pub(crate) damaged: Vec<Damaged>,
}

/// Looks for the newest snapshot among these files that is whole, and this cluster's.
pub(crate) fn find<D: Disk>(
    disk: &D,
    names: &[String],
    cluster: Option<ClusterId>,
) -> Result<Found, Error> {
    let mut found = Found::default();
    for position in positions(names) {
        match verify(disk, position, cluster, Reading::Cached, |_| Ok(())) {
            Ok((snapshot, _)) => {
                found.newest = Some(snapshot);
                break;
            }
            Err(error) => found.damaged.push(Damaged::of(&error).ok_or(error)?),
        }
    }
    Ok(found)
}

/// Of all snapshots among these files, the newest first.
pub(crate) fn positions(names: &[String]) -> Vec<Position> {
    let positions = names.iter().filter_map(|name| parse_snapshot_name(name));
    let mut positions: Vec<Position> = positions.collect();
    positions.sort_unstable_by_key(|position| std::cmp::Reverse((position.index, position.term)));
    positions
}

/// Reads the whole of a snapshot, which must be this cluster's, and shows each piece of its content
/// to `see`. Gives it with the length of its content. Where the disk can't give it back it is damaged.
pub(crate) fn verify<D: Disk>(
    disk: &D,
    position: Position,
    cluster: Option<ClusterId>,
    reading: Reading,
    mut see: impl FnMut(Bytes) -> Result<(), Error>,
) -> Result<(Snapshot, u64), Error> {
    let name = snapshot_name(position);
    let mut file = FileReader::open(disk, &name, reading).map_err(|error| error.or_damage(0))?;
    loop {
        let offset = file.offset();
        match file.next(disk).map_err(|error| error.or_damage(offset))? {
            Some(piece) => see(piece)?,
            None => break,
        }
    }
    let header = file.header();
    let must_be = |what, expected, found| {
        if expected == found {
            return Ok(());
        }
        Err(Error::Corrupt {
            file: disk.path().join(&name),
            offset: 0,
            problem: Problem::Unexpected {
                what,
                expected,
                found,
            },
        })
    };
    let found = header.snapshot.position;
    must_be("snapshot's index", position.index.0, found.index.0)?;
    must_be("snapshot's term", position.term.0, found.term.0)?;
    // What a new cluster began with belongs to whatever cluster that has become.
    let cluster = cluster.filter(|_| header.cluster != NO_CLUSTER);
    let cluster = cluster.unwrap_or(header.cluster);
    must_be("snapshot's cluster", cluster.0, header.cluster.0)?;
    Ok((header.snapshot.clone(), file.content_bytes()))
}

/// True for the name of a snapshot that is being written or received, or was not finished.
pub(crate) fn is_unfinished(name: &str) -> bool {
    let is_temporary = name.strip_suffix(TEMPORARY).and_then(parse_stem).is_some();
    is_temporary || parse_part_name(name).is_some()
}

/// Removes what an earlier start left behind: snapshots older than the one before the newest, and
/// files that never became one and never will.
pub(crate) fn tidy<D: Disk>(
    disk: &D,
    names: &[String],
    newest: Option<&Snapshot>,
) -> Result<(), Error> {
    let newest = newest.map_or(Index(0), |newest| newest.position.index);
    let positions = positions(names);
    let mut usable = positions.iter().filter(|position| position.index <= newest);
    let older: Vec<Position> = usable.by_ref().skip(KEPT).copied().collect();
    remove(disk, names, |name| {
        let is_older = || parse_snapshot_name(name).is_some_and(|found| older.contains(&found));
        let is_temporary = || name.strip_suffix(TEMPORARY).and_then(parse_stem).is_some();
        let is_outdated = || {
            name.ends_with(PART) && parse_part_name(name).is_none_or(|found| found.index <= newest)
        };
        is_older() || is_temporary() || is_outdated()
    })
}
