//! What a log goes on without because something in front of it was lost is set aside, and not
//! removed: it may hold the only copies of what was acknowledged, and a server that has only just
//! found its own damage does not know how the others are. Once it is whole again, all of it is of no
//! more use, and goes. When so many servers are damaged that nothing can be elected, it is still there.
//!
//! A file `name` becomes `lost.<start number>.<name>`. The files that the start changes, which are the
//! meta files and the segment that it cuts off, are copied first. So what is set aside by one start
//! is, with the sound rest of the log, the directory as it was before that start.

use mutants::Mutant;
use raft::Restart;

use crate::disk::{BLOCK_BYTES, Disk};
use crate::error::Error;
use crate::meta;
use crate::snapshots::{TEMPORARY, remove, remove_if_full};

const PREFIX: &str = "lost.";

/// How much is copied at a time.
const COPY_BYTES: u64 = 1 << 20;

/// What so many starts have found is kept, and not what later ones do before the server is whole
/// again: in between it has acknowledged nothing that counts.
const STARTS_MAX: usize = 16;

/// The files that are set aside among these.
pub(crate) fn is_aside(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// What one start sets aside.
pub(crate) struct Aside<'a, D> {
    disk: &'a D,
    restart: Restart,
    keeps: bool,
}

impl<'a, D: Disk> Aside<'a, D> {
    /// For the start with this number, of a directory with these names.
    pub(crate) fn new(disk: &'a D, restart: Restart, names: &[String]) -> Aside<'a, D> {
        let starts = names.iter().filter_map(|name| start(name));
        let mut starts: Vec<&str> = starts.collect();
        starts.sort_unstable();
        starts.dedup();
        Aside {
            disk,
            restart,
            keeps: starts.len() < STARTS_MAX && !mutants::is_on(Mutant::LostRemoved),
        }
    }

    /// Copies the meta files, as they are before the mark is in them. That is durable.
    pub(crate) fn meta(&self, names: &[String]) -> Result<(), Error> {
        let there = meta::NAMES
            .iter()
            .filter(|file| names.iter().any(|name| name == *file));
        for name in there.filter(|_| self.keeps) {
            self.copy(name)?;
        }
        self.sync_directory()
    }

    /// Copies the segment that is cut off, and gives all that is of no use another name. Everything
    /// is durable.
    pub(crate) fn log(&self, cut: Option<&str>, useless: &[String]) -> Result<(), Error> {
        if self.keeps {
            if let Some(name) = cut {
                self.copy(name)?;
            }
            for name in useless {
                self.disk
                    .rename(name, &self.name(name))
                    .map_err(Error::io(self.disk, name, "rename"))?;
            }
        } else {
            remove(self.disk, useless, |_| true)?;
        }
        self.sync_directory()
    }

    fn sync_directory(&self) -> Result<(), Error> {
        self.disk
            .sync_directory()
            .map_err(Error::io(self.disk, "", "sync the data directory"))
    }

    fn name(&self, name: &str) -> String {
        format!("{PREFIX}{}.{name}", self.restart)
    }

    fn copy(&self, name: &str) -> Result<(), Error> {
        let copy = self.name(name);
        let temporary = format!("{copy}{TEMPORARY}");
        self.write_copy(name, &temporary)
            .map_err(Error::without_space)
            .inspect_err(|error| remove_if_full(self.disk, &temporary, error))?;
        self.disk
            .rename(&temporary, &copy)
            .map_err(Error::io(self.disk, &temporary, "rename"))
    }

    fn write_copy(&self, name: &str, temporary: &str) -> Result<(), Error> {
        let disk = self.disk;
        let from = disk.open(name).map_err(Error::io(disk, name, "open"))?;
        let bytes = disk.length(&from).map_err(Error::io(disk, name, "read"))?;
        let to = disk
            .create(temporary)
            .map_err(Error::io(disk, temporary, "create"))?;
        let mut offset = 0;
        while offset < bytes {
            let mut piece = vec![0; (bytes - offset).min(COPY_BYTES) as usize];
            if disk.read_at(&from, &mut piece, offset).is_err() {
                read_blocks(disk, &from, &mut piece, offset);
            }
            disk.write_at(&to, &piece, offset)
                .map_err(Error::io(disk, temporary, "write"))?;
            offset += piece.len() as u64;
        }
        disk.sync(&to).map_err(Error::io(disk, temporary, "sync"))
    }
}

/// Reads what can be read, block by block; the rest is left as it is.
fn read_blocks<D: Disk>(disk: &D, file: &D::File, piece: &mut [u8], offset: u64) {
    let blocks = piece.chunks_mut(BLOCK_BYTES as usize);
    for (block, at) in blocks.zip((offset..).step_by(BLOCK_BYTES as usize)) {
        let mut read = vec![0; block.len()];
        if disk.read_at(file, &mut read, at).is_ok() {
            block.copy_from_slice(&read);
        }
    }
}

/// The number of the start that has set this file aside.
fn start(name: &str) -> Option<&str> {
    Some(name.strip_prefix(PREFIX)?.split_once('.')?.0)
}

/// Removes everything that was set aside: the server is whole.
pub(crate) fn remove_all<D: Disk>(disk: &D) -> Result<(), Error> {
    let names = disk
        .list()
        .map_err(Error::io(disk, "", "list the data directory"))?;
    remove(disk, &names, is_aside)
}
