//! Backups: a snapshot file outside of any data directory, and a data directory that begins with
//! one.
//!
//! The state goes into a snapshot that is of no cluster yet, at the same place in the log, so that
//! uniques go on growing; the log begins behind it. The meta file says which backup it was, and is
//! written last: a crash before that leaves a directory that a start refuses or takes for empty,
//! and into which can be restored again.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use bytes::Bytes;
use mutants::Mutant;
use raft::{ClusterId, Snapshot};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::disk::{DirectoryDisk, Disk};
use crate::error::Error;
use crate::meta::{self, BackupId};
use crate::open::{LOCK_NAME, Options, lock};
use crate::snapshot_file::{
    FileReader, FileWriter, NO_CLUSTER, Reading, SnapshotHeader, parse_snapshot_name, parse_stem,
    snapshot_name, stem,
};
use crate::snapshots::{TEMPORARY, remove, verify};

/// A backup, read from front to back.
#[derive(Debug)]
pub struct Backup<D: Disk = DirectoryDisk> {
    disk: D,
    file: FileReader<D::File>,
}

impl Backup {
    /// Opens a backup and verifies its header.
    ///
    /// # Errors
    /// `Error::Io` if it can't be read, `Error::Corrupt` if it is none or not as it was written,
    /// `Error::NewerFormat` if a later release wrote it.
    pub fn open(path: &Path) -> Result<Backup, Error> {
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        let name = path.file_name().and_then(OsStr::to_str);
        let name = name.ok_or_else(|| Error::Io {
            file: path.to_path_buf(),
            operation: "open",
            source: io::Error::new(io::ErrorKind::InvalidInput, "not a name in UTF-8"),
        })?;
        let disk = DirectoryDisk::open_to_read(parent.unwrap_or(Path::new(".")))?;
        Backup::open_on(disk, name)
    }
}

impl<D: Disk> Backup<D> {
    /// As `open`, of a file of this name on this disk.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_on(disk: D, name: &str) -> Result<Backup<D>, Error> {
        let file = FileReader::open(&disk, name, Reading::Cached)?;
        Ok(Backup { disk, file })
    }

    /// The cluster that it is a backup of.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.file.header().cluster
    }

    /// Up to where in the log of that cluster.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.file.header().snapshot
    }

    /// The length of the file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file.file_bytes()
    }

    /// The next piece of the content; `None` behind the last, once all was verified.
    ///
    /// # Errors
    /// `Error::Io`; `Error::Corrupt` at the first byte that is not as it was written, is missing,
    /// or is too much.
    pub fn read(&mut self) -> Result<Option<Bytes>, Error> {
        self.file.next(&self.disk)
    }

    /// Reads what is left.
    ///
    /// # Errors
    /// As `read`.
    pub fn verify(mut self) -> Result<BackupId, Error> {
        // Never 0, and one of two that are the same by chance is as good as never.
        Ok(BackupId(self.file.verify(&self.disk)?.max(1)))
    }
}

/// Lets an empty directory begin with the state of a backup: what is opened there next is a server
/// of a new cluster. Everything is durable.
///
/// # Errors
/// `Error::NotEmpty`, and nothing is changed; `Error::Locked`; `Error::Corrupt` and
/// `Error::NewerFormat` about the backup; `Error::Io`.
pub fn restore<D: Disk, S: Disk>(
    disk: &D,
    options: &Options,
    mut backup: Backup<S>,
) -> Result<BackupId, Error> {
    lock(disk)?;
    clear(disk)?;
    let position = backup.snapshot().position;
    let keeps = mutants::is_on(Mutant::RestoreKeepsCluster);
    let header = SnapshotHeader {
        cluster: if keeps { backup.cluster() } else { NO_CLUSTER },
        snapshot: Snapshot {
            position,
            // It names the members and the seats of the other cluster.
            configuration: None,
        },
    };
    let temporary = format!("{}{TEMPORARY}", stem(position));
    let mut file = FileWriter::create(disk, temporary.clone(), header)?;
    while let Some(piece) = backup.read()? {
        file.write(disk, &piece)?;
    }
    let id = backup.verify()?;
    file.finish(disk)?;
    let name = snapshot_name(position);
    disk.rename(&temporary, &name)
        .map_err(Error::io(disk, &temporary, "rename"))?;
    disk.sync_directory()
        .map_err(Error::io(disk, "", "sync the data directory"))?;
    verify(disk, position, None, Reading::PastCache, |_| Ok(()))?;
    let mut random = StdRng::seed_from_u64(options.seed);
    let marked = Some(id).filter(|_| !mutants::is_on(Mutant::RestoreUnmarked));
    meta::begin(disk, options.server_id, marked, &mut random)?;
    Ok(id)
}

/// Removes what a restore that was cut short has left. There must be nothing else.
fn clear<D: Disk>(disk: &D) -> Result<(), Error> {
    let names = disk
        .list()
        .map_err(Error::io(disk, "", "list the data directory"))?;
    let is_no_data = |name: &str| {
        matches!(
            name,
            "." | ".." | "lost+found" | LOCK_NAME | meta::TEMPORARY_NAME
        )
    };
    let has_meta = names
        .iter()
        .any(|name| meta::NAMES.contains(&name.as_str()));
    let is_left = |name: &str| !has_meta && is_left_by_restore(disk, name);
    let (left, others): (Vec<String>, Vec<String>) =
        names.into_iter().partition(|name| is_left(name));
    let data = others.into_iter().filter(|name| !is_no_data(name));
    if let Some(found) = data.min() {
        return Err(Error::NotEmpty {
            directory: disk.path().to_path_buf(),
            found,
        });
    }
    remove(disk, &left, |_| true)
}

/// True for what a restore writes before the meta file: a snapshot that is not finished, and one of
/// no cluster. A snapshot of a cluster may be all that is left of a server, and one whose header
/// can't be read may be that, too.
fn is_left_by_restore<D: Disk>(disk: &D, name: &str) -> bool {
    if name.strip_suffix(TEMPORARY).and_then(parse_stem).is_some() {
        return true;
    }
    parse_snapshot_name(name).is_some()
        && FileReader::open(disk, name, Reading::Cached)
            .is_ok_and(|file| file.header().cluster == NO_CLUSTER)
}
