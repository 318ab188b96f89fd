//! A disk in memory that lets a test act before each operation.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use quorate_wal::{Disk, MemoryDisk, MemoryFile, Wal};

/// What is about to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Read,
    /// Anything that changes the disk, a sync too. A power cut now meets the operation before it
    /// unsynced, and this one not done.
    Change,
}

type Hook = dyn Fn(&MemoryDisk, Act) + Send + Sync;

/// A `MemoryDisk` with a hook.
#[derive(Clone)]
pub(crate) struct HookedDisk {
    pub(crate) disk: MemoryDisk,
    hook: Arc<Hook>,
}

impl HookedDisk {
    pub(crate) fn new(
        disk: MemoryDisk,
        hook: impl Fn(&MemoryDisk, Act) + Send + Sync + 'static,
    ) -> HookedDisk {
        HookedDisk {
            disk,
            hook: Arc::new(hook),
        }
    }

    /// An empty disk, and a place for a log on it: at the first read after a log was put there it is
    /// taken out, and something is done with it.
    pub(crate) fn overtaking(
        by: impl Fn(Wal<HookedDisk>) + Send + Sync + 'static,
    ) -> (HookedDisk, Arc<Mutex<Option<Wal<HookedDisk>>>>) {
        let running: Arc<Mutex<Option<Wal<HookedDisk>>>> = Arc::default();
        let hooked = Arc::clone(&running);
        let disk = HookedDisk::new(MemoryDisk::new(), move |_, act| {
            let mut running = hooked.lock().expect("no holder of this lock panics");
            if act == Act::Read
                && let Some(wal) = running.take()
            {
                drop(running);
                by(wal);
            }
        });
        (disk, running)
    }

    fn before(&self, act: Act) -> &MemoryDisk {
        (self.hook)(&self.disk, act);
        &self.disk
    }
}

impl fmt::Debug for HookedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}

impl Disk for HookedDisk {
    type File = MemoryFile;

    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn lock(&self, name: &str) -> io::Result<bool> {
        self.disk.lock(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        self.disk.open(name)
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        self.before(Act::Change).create(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.before(Act::Change).rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.before(Act::Change).remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.before(Act::Change).sync_directory()
    }

    fn length(&self, file: &MemoryFile) -> io::Result<u64> {
        self.disk.length(file)
    }

    fn allocate(&self, file: &MemoryFile, bytes: u64) -> io::Result<()> {
        self.before(Act::Change).allocate(file, bytes)
    }

    fn read_at(&self, file: &MemoryFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.before(Act::Read).read_at(file, buffer, offset)
    }

    fn write_at(&self, file: &MemoryFile, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.before(Act::Change).write_at(file, bytes, offset)
    }

    fn sync(&self, file: &MemoryFile) -> io::Result<()> {
        self.before(Act::Change).sync(file)
    }

    fn forget(&self, name: &str) {
        self.disk.forget(name);
    }
}
