//! A snapshot on its way from one server to another: its bytes as they are in the file, which are
//! the same on every server that has it.
//!
//! What arrives goes into a file whose name says which snapshot it is to become:
//! `snap-<index>-<term>-<length>-<checksum>.part`, all in 16 hex digits. So a transfer that broke
//! off goes on where it stopped, from whatever server, and never with another file's bytes.

use std::sync::Arc;

use bytes::Bytes;
use raft::{ClusterId, Position, Snapshot};

use crate::disk::{BLOCK_BYTES, Disk};
use crate::error::{Error, Problem};
use crate::reader::Shared;
use crate::snapshot_file::{
    FileReader, Reading, SNAPSHOT_BLOCK_BYTES, footer_checksum, parse_stem, snapshot_name, stem,
};
use crate::snapshots::{SnapshotReader, Snapshots, remove, remove_if_full};

/// How the name of a snapshot ends that is being received.
pub(crate) const PART: &str = ".part";

/// What tells one snapshot file from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotIdentity {
    pub cluster: ClusterId,
    pub position: Position,
    /// The length of the file.
    pub file_bytes: u64,
    /// Over all bytes of the file but for its footer, which says it.
    pub checksum: u64,
}

/// A snapshot file of which the bytes are sent.
#[derive(Debug)]
pub struct SnapshotSender<D: Disk> {
    shared: Arc<Shared<D>>,
    name: String,
    file: D::File,
    identity: SnapshotIdentity,
}

impl<D: Disk> SnapshotSender<D> {
    /// Opens the snapshot up to this position. It stays readable while this lives, also when it
    /// is removed meanwhile.
    ///
    /// # Errors
    /// `Error::Io` if it can't be read or is not there, `Error::Corrupt` if its header or its
    /// footer is not as it was written.
    pub fn open(snapshots: &Snapshots<D>, position: Position) -> Result<SnapshotSender<D>, Error> {
        let shared = Arc::clone(&snapshots.shared);
        let disk = &shared.disk;
        let name = snapshot_name(position);
        let reader = FileReader::open(disk, &name, Reading::Cached)?;
        let identity = SnapshotIdentity {
            cluster: reader.header().cluster,
            position: reader.header().snapshot.position,
            file_bytes: reader.file_bytes(),
            checksum: footer_checksum(disk, &name, reader.file())?,
        };
        let file = reader.into_file();
        Ok(SnapshotSender {
            shared,
            name,
            file,
            identity,
        })
    }

    /// What the receiver has to be told first.
    #[must_use]
    pub fn identity(&self) -> SnapshotIdentity {
        self.identity
    }

    /// Up to `bytes_max` bytes of the file from this offset on; none at its end. They are not
    /// verified: the receiver does that.
    ///
    /// # Errors
    /// `Error::Io`.
    pub fn read(&self, offset: u64, bytes_max: usize) -> Result<Bytes, Error> {
        let left = self.identity.file_bytes.saturating_sub(offset);
        let length = usize::try_from(left).map_or(bytes_max, |left| left.min(bytes_max));
        let mut bytes = vec![0; length];
        let disk = &self.shared.disk;
        disk.read_at(&self.file, &mut bytes, offset)
            .map_err(Error::io(disk, &self.name, "read"))?;
        Ok(bytes.into())
    }
}

/// A snapshot file of which the bytes are received. What has arrived is kept over a restart.
///
/// A disk without space gives `Error::NoSpace`, and what had arrived is removed. After
/// `Error::Misplaced`, and after `Error::Corrupt` of `finish`, the transfer is to be given up: it
/// was not this server's disk that failed. After `Error::Io` the process ends.
#[derive(Debug)]
pub struct SnapshotReceiver<D: Disk> {
    shared: Arc<Shared<D>>,
    name: String,
    file: D::File,
    identity: SnapshotIdentity,
    /// Up to where the file is written: a multiple of `BLOCK_BYTES` before the end.
    written: u64,
    /// What comes behind it, until it is a whole number of blocks.
    waiting: Vec<u8>,
}

impl<D: Disk> SnapshotReceiver<D> {
    /// Begins to receive this snapshot, or goes on with it. What was received of any other one is
    /// removed. There is one receiver at a time.
    ///
    /// # Errors
    /// `Error::NoSpace` if there is no room for the whole of it, `Error::Io`.
    pub fn open(
        snapshots: &Snapshots<D>,
        identity: SnapshotIdentity,
    ) -> Result<SnapshotReceiver<D>, Error> {
        let shared = Arc::clone(&snapshots.shared);
        let disk = &shared.disk;
        let name = part_name(&identity);
        let names = disk
            .list()
            .map_err(Error::io(disk, "", "list the data directory"))?;
        remove(disk, &names, |other| other.ends_with(PART) && other != name)?;
        let (file, written) = if names.contains(&name) {
            let written = whole_bytes(disk, &name, &identity)?;
            let file = disk.open(&name).map_err(Error::io(disk, &name, "open"))?;
            (file, written)
        } else {
            let file = begin(disk, &name, identity.file_bytes)
                .map_err(Error::without_space)
                .inspect_err(|error| remove_if_full(disk, &name, error))?;
            (file, 0)
        };
        Ok(SnapshotReceiver {
            shared,
            name,
            file,
            identity,
            written,
            waiting: Vec::new(),
        })
    }

    /// Which snapshot it is to become.
    #[must_use]
    pub fn identity(&self) -> SnapshotIdentity {
        self.identity
    }

    /// How many bytes have arrived: the offset of the next one.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.written + self.waiting.len() as u64
    }

    /// Takes the bytes at `offset`, which must be the next ones.
    ///
    /// # Errors
    /// `Error::Misplaced` if they are not, or go beyond the end; `Error::NoSpace`, `Error::Io`.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.must_be_next(offset)?;
        let left = self.identity.file_bytes - offset;
        if bytes.len() as u64 > left {
            return Err(self.misplaced(offset.saturating_add(bytes.len() as u64)));
        }
        self.waiting.extend_from_slice(bytes);
        let whole = self.waiting.len() / SNAPSHOT_BLOCK_BYTES * SNAPSHOT_BLOCK_BYTES;
        self.write_out(whole)
    }

    /// Verifies the whole snapshot, makes it durable under its name, and removes older ones. Where
    /// this server has taken two newer ones meanwhile, that is this one; it can still be read.
    ///
    /// # Errors
    /// `Error::Misplaced` if bytes are missing at the end; `Error::Corrupt` or
    /// `Error::NewerFormat` if what arrived is not this snapshot, or none: then it is removed;
    /// `Error::NoSpace`, `Error::Io`.
    pub fn finish(mut self) -> Result<SnapshotReader<D>, Error> {
        self.must_be_next(self.identity.file_bytes)?;
        self.write_out(self.waiting.len())?;
        let disk = &self.shared.disk;
        disk.sync(&self.file)
            .map_err(Error::io(disk, &self.name, "sync"))
            .map_err(Error::without_space)
            .inspect_err(|error| remove_if_full(disk, &self.name, error))?;
        let snapshot = match self.verify() {
            Ok(snapshot) => snapshot,
            Err(error @ (Error::Corrupt { .. } | Error::NewerFormat { .. })) => {
                disk.remove(&self.name)
                    .map_err(Error::io(disk, &self.name, "remove"))?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let file = self
            .shared
            .publish_snapshot(&self.name, &snapshot, Reading::Cached)
            .inspect_err(|error| remove_if_full(disk, &self.name, error))?;
        Ok(SnapshotReader::of(self.shared, file))
    }

    fn verify(&self) -> Result<Snapshot, Error> {
        let disk = &self.shared.disk;
        let mut reader = FileReader::open(disk, &self.name, Reading::Cached)?;
        let checksum = reader.verify(disk)?;
        let header = reader.header();
        let (expected, found) = (self.identity.position, header.snapshot.position);
        for (what, expected, found) in [
            ("cluster", self.identity.cluster.0, header.cluster.0),
            ("index", expected.index.0, found.index.0),
            ("term", expected.term.0, found.term.0),
            ("checksum over all", self.identity.checksum, checksum),
        ] {
            if expected != found {
                return Err(Error::Corrupt {
                    file: disk.path().join(&self.name),
                    offset: 0,
                    problem: Problem::Unexpected {
                        what,
                        expected,
                        found,
                    },
                });
            }
        }
        Ok(header.snapshot.clone())
    }

    fn write_out(&mut self, length: usize) -> Result<(), Error> {
        if length == 0 {
            return Ok(());
        }
        let (bytes, _) = self.waiting.split_at(length);
        let disk = &self.shared.disk;
        disk.write_at(&self.file, bytes, self.written)
            .map_err(Error::io(disk, &self.name, "write"))
            .map_err(Error::without_space)
            .inspect_err(|error| remove_if_full(disk, &self.name, error))?;
        self.written += length as u64;
        self.waiting.drain(..length);
        Ok(())
    }

    fn must_be_next(&self, offset: u64) -> Result<(), Error> {
        if offset == self.offset() {
            return Ok(());
        }
        Err(self.misplaced(offset))
    }

    fn misplaced(&self, found: u64) -> Error {
        Error::Misplaced {
            file: self.shared.disk.path().join(&self.name),
            expected: self.offset(),
            found,
        }
    }
}

/// An empty file with the room that it will need.
fn begin<D: Disk>(disk: &D, name: &str, bytes: u64) -> Result<D::File, Error> {
    let file = disk.create(name).map_err(Error::io(disk, name, "create"))?;
    disk.allocate(&file, bytes)
        .map_err(Error::io(disk, name, "reserve space"))?;
    Ok(file)
}

/// How much of a file that was received in part is surely as it was sent: its header, and the
/// blocks up to the first that is not whole.
fn whole_bytes<D: Disk>(disk: &D, name: &str, identity: &SnapshotIdentity) -> Result<u64, Error> {
    let unless_broken = |result: Result<bool, Error>| match result {
        Err(Error::Corrupt { .. } | Error::NewerFormat { .. }) => Ok(false),
        other => other,
    };
    let mut reader = match FileReader::open(disk, name, Reading::Cached) {
        Ok(reader) => reader,
        Err(Error::Corrupt { .. } | Error::NewerFormat { .. }) => return Ok(0),
        Err(error) => return Err(error),
    };
    let header = reader.header();
    if header.cluster != identity.cluster || header.snapshot.position != identity.position {
        return Ok(0);
    }
    while unless_broken(reader.next(disk).map(|piece| piece.is_some()))? {}
    // A shorter block is the last one: it is sent again, with the footer.
    Ok(reader.offset().min(identity.file_bytes) / BLOCK_BYTES * BLOCK_BYTES)
}

fn part_name(identity: &SnapshotIdentity) -> String {
    let SnapshotIdentity {
        position,
        file_bytes,
        checksum,
        ..
    } = identity;
    format!(
        "{}-{file_bytes:016x}-{checksum:016x}{PART}",
        stem(*position)
    )
}

/// The position in the name of a snapshot that is being received.
pub(crate) fn parse_part_name(name: &str) -> Option<Position> {
    let rest = name.strip_suffix(PART)?;
    let (rest, _checksum) = rest.rsplit_once('-')?;
    let (stem, _file_bytes) = rest.rsplit_once('-')?;
    parse_stem(stem)
}
