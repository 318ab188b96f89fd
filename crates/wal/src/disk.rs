//! The directory that a log lives in. `Disk` is all that the log asks of it, `DirectoryDisk` is
//! the real one; it decides nothing, so that what the log relies on can be tested without it.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{Advice, AtFlags, CWD, Dir, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::Error;

/// Disks read and write multiples of this size, or of a divisor of it.
pub(crate) const BLOCK_BYTES: u64 = 4096;

/// The most that is copied for a read or a write past the page cache at a time.
const DIRECT_BYTES_MAX: usize = 1 << 20;

/// What is written where zeros are wanted, again and again, so that it stays in a processor's cache.
static ZEROS: Zeros = Zeros([0; ZEROS_BYTES]);

const ZEROS_BYTES: usize = 64 << 10;

/// Whole blocks that start where the device may read them.
#[repr(align(4096))]
struct Zeros([u8; ZEROS_BYTES]);

/// One directory without folders in it. Names are plain file names.
///
/// What is written is durable after `sync` of its file, and what is created, renamed or removed
/// after `sync_directory`; before that a crash keeps any part of it.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// An open file.
    type File: fmt::Debug + Send + Sync + 'static;

    /// Where the directory is, for messages.
    fn path(&self) -> &Path;

    /// Takes the lock that one process at a time has, and holds it while this `Disk` lives.
    /// False if another has it.
    fn lock(&self, name: &str) -> io::Result<bool>;

    /// The names of all files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file for reading and writing; an error if it is not there.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Makes an empty file, in place of one of that name.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name, in place of one that has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    fn remove(&self, name: &str) -> io::Result<()>;

    fn sync_directory(&self) -> io::Result<()>;

    /// The length of a file in bytes.
    fn length(&self, file: &Self::File) -> io::Result<u64>;

    /// Makes a file this long and reserves the space for it. What was not written reads as zeros.
    fn allocate(&self, file: &Self::File, bytes: u64) -> io::Result<()>;

    /// Fills the buffer; an error if the file ends before.
    fn read_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// As `read_at`, but what is whole blocks of 4096 bytes is what the disk has, if it can be asked
    /// past the memory that has a copy, which then gets none.
    fn read_past_cache_at(
        &self,
        file: &Self::File,
        buffer: &mut [u8],
        offset: u64,
    ) -> io::Result<()> {
        self.read_at(file, buffer, offset)
    }

    /// Writes all of it. Whole blocks of 4096 bytes take the least effort.
    fn write_at(&self, file: &Self::File, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Writes so many zeros. Whole blocks of 4096 bytes take the least effort.
    fn write_zeros_at(&self, file: &Self::File, bytes: u64, offset: u64) -> io::Result<()> {
        self.write_at(file, &vec![0; bytes as usize], offset)
    }

    /// Makes what was written to this file durable, its length too.
    fn sync(&self, file: &Self::File) -> io::Result<()>;

    /// Gives back the memory that has a copy of this file, as far as there is any and it can be had:
    /// the next read asks the disk.
    fn forget(&self, _name: &str) {}
}

/// What may be done with the files of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    All,
    Read,
}

/// A directory of the file system. Its files are readable by their owner only.
#[derive(Debug)]
pub struct DirectoryDisk {
    path: PathBuf,
    directory: OwnedFd,
    access: Access,
    /// Held while it is open.
    lock: Mutex<Option<OwnedFd>>,
}

/// An open file of a `DirectoryDisk`. What is read comes through the page cache unless the disk is asked
/// for, and what is no whole number of blocks goes through it; whole blocks go past it. To have the cache
/// write them back at each sync costs twice the time of a processor, and a third more until it is done.
#[derive(Debug)]
pub struct DirectoryFile {
    cached: File,
    /// `None` where the file system has no such way.
    direct: Option<File>,
    /// Where bytes are put that go past the page cache. Each file has its own, so that the log does
    /// not wait for a snapshot.
    aligned: Mutex<Aligned>,
}

impl DirectoryDisk {
    /// The directory at `path`, made if it is not there.
    ///
    /// # Errors
    /// `Error::Io` if it can't be made or opened.
    pub fn open(path: &Path) -> Result<DirectoryDisk, Error> {
        let failed = |operation| {
            move |source: io::Error| Error::Io {
                file: path.to_path_buf(),
                operation,
                source,
            }
        };
        if !path.exists() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(failed("create the data directory"))?;
            // The directory's own entry has to survive a crash too (rule 8).
            let parent = path.parent().filter(|parent| *parent != Path::new(""));
            File::open(parent.unwrap_or(Path::new(".")))
                .and_then(|parent| parent.sync_all())
                .map_err(failed("sync the directory that holds it"))?;
        }
        Self::open_as(path, Access::All)
    }

    /// The directory at `path`, which is there. What is in it can be read, and not be changed.
    ///
    /// # Errors
    /// `Error::Io` if it can't be opened.
    pub fn open_to_read(path: &Path) -> Result<DirectoryDisk, Error> {
        Self::open_as(path, Access::Read)
    }

    fn open_as(path: &Path, access: Access) -> Result<DirectoryDisk, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, path, flags, Mode::empty());
        let directory = directory.map_err(|error| Error::Io {
            file: path.to_path_buf(),
            operation: "open the data directory",
            source: error.into(),
        })?;
        Ok(DirectoryDisk {
            path: path.to_path_buf(),
            directory,
            access,
            lock: Mutex::new(None),
        })
    }

    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<DirectoryFile> {
        let cached = self.open_with(name, flags)?.into();
        if self.access == Access::Read {
            return Ok(DirectoryFile {
                cached,
                direct: None,
                aligned: Mutex::default(),
            });
        }
        let direct = match self.open_with(name, OFlags::DIRECT) {
            Ok(direct) => Some(direct.into()),
            Err(error) if is_invalid(&error) => None,
            Err(error) => return Err(error),
        };
        Ok(DirectoryFile {
            cached,
            direct,
            aligned: Mutex::default(),
        })
    }

    /// The files of a directory that is only read are refused by the kernel, its names here.
    fn may_change(&self) -> io::Result<()> {
        match self.access {
            Access::All => Ok(()),
            Access::Read => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }

    fn open_with(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let access = match self.access {
            Access::All => OFlags::RDWR,
            Access::Read => OFlags::RDONLY,
        };
        // A link in the directory may lead anywhere, so it is not followed.
        let flags = flags | access | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(rustix::fs::openat(&self.directory, name, flags, mode)?)
    }
}

impl Disk for DirectoryDisk {
    type File = DirectoryFile;

    fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self, name: &str) -> io::Result<bool> {
        let (flags, operation) = match self.access {
            Access::All => (OFlags::CREATE, FlockOperation::NonBlockingLockExclusive),
            Access::Read => (OFlags::empty(), FlockOperation::NonBlockingLockShared),
        };
        let file = match self.open_with(name, flags) {
            // Whoever may only read takes the lock if there is one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            file => file?,
        };
        match rustix::fs::flock(&file, operation) {
            Ok(()) => {
                *self.lock.lock().expect("no holder of this lock panics") = Some(file);
                Ok(true)
            }
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            // A name that is no text is none of ours.
            if let Ok(name) = entry?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<DirectoryFile> {
        self.open_file(name, OFlags::empty())
    }

    fn create(&self, name: &str) -> io::Result<DirectoryFile> {
        self.may_change()?;
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        self.open_file(name, OFlags::CREATE | OFlags::EXCL)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.may_change()?;
        Ok(rustix::fs::renameat(
            &self.directory,
            from,
            &self.directory,
            to,
        )?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.may_change()?;
        Ok(rustix::fs::unlinkat(
            &self.directory,
            name,
            AtFlags::empty(),
        )?)
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.directory)?)
    }

    fn length(&self, file: &DirectoryFile) -> io::Result<u64> {
        Ok(file.cached.metadata()?.len())
    }

    fn allocate(&self, file: &DirectoryFile, bytes: u64) -> io::Result<()> {
        let file = &file.cached;
        let reserved = rustix::io::retry_on_intr(|| {
            rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes)
        });
        match reserved {
            Err(Errno::OPNOTSUPP) => file.set_len(bytes),
            other => Ok(other?),
        }
    }

    fn read_at(&self, file: &DirectoryFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        file.cached.read_exact_at(buffer, offset)
    }

    fn read_past_cache_at(
        &self,
        file: &DirectoryFile,
        buffer: &mut [u8],
        mut offset: u64,
    ) -> io::Result<()> {
        let is_first_whole = offset.is_multiple_of(BLOCK_BYTES);
        let Some(direct) = file.direct.as_ref().filter(|_| is_first_whole) else {
            return self.read_at(file, buffer, offset);
        };
        let mut aligned = file.aligned.lock().expect("no holder of this lock panics");
        let whole = buffer.len() - buffer.len() % BLOCK_BYTES as usize;
        let (whole, rest) = buffer.split_at_mut(whole);
        for chunk in whole.chunks_mut(DIRECT_BYTES_MAX) {
            let place = aligned.place(chunk.len());
            match direct.read_exact_at(place, offset) {
                Ok(()) => chunk.copy_from_slice(place),
                // The device has larger blocks.
                Err(error) if is_invalid(&error) => file.cached.read_exact_at(chunk, offset)?,
                Err(error) => return Err(as_of_cached(error)),
            }
            offset += chunk.len() as u64;
        }
        file.cached.read_exact_at(rest, offset)
    }

    fn write_at(&self, file: &DirectoryFile, bytes: &[u8], offset: u64) -> io::Result<()> {
        let whole_blocks = (offset | bytes.len() as u64).is_multiple_of(BLOCK_BYTES);
        let Some(direct) = file.direct.as_ref().filter(|_| whole_blocks) else {
            return file.cached.write_all_at(bytes, offset);
        };
        let mut aligned = file.aligned.lock().expect("no holder of this lock panics");
        for (chunk, at) in bytes.chunks(DIRECT_BYTES_MAX).zip(0..) {
            let offset = offset + at * DIRECT_BYTES_MAX as u64;
            match direct.write_all_at(aligned.copy(chunk), offset) {
                Ok(()) => {}
                // The device has larger blocks. Nothing of it was written.
                Err(error) if is_invalid(&error) => file.cached.write_all_at(chunk, offset)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_zeros_at(&self, file: &DirectoryFile, bytes: u64, offset: u64) -> io::Result<()> {
        let whole_blocks = (offset | bytes).is_multiple_of(BLOCK_BYTES);
        let direct = file.direct.as_ref().filter(|_| whole_blocks);
        let mut to = direct.unwrap_or(&file.cached);
        let end = offset + bytes;
        let mut at = offset;
        while at < end {
            let left = (end - at) as usize;
            let whole = std::iter::repeat_n(&ZEROS.0[..], left / ZEROS.0.len());
            let part = ZEROS.0.get(..left % ZEROS.0.len()).unwrap_or_default();
            let pieces: Vec<IoSlice<'_>> = whole.chain([part]).map(IoSlice::new).collect();
            match rustix::io::pwritev(to, &pieces, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => at += written as u64,
                Err(Errno::INTR) => {}
                // The device has larger blocks, or has stopped within one.
                Err(Errno::INVAL) if !std::ptr::eq(to, &file.cached) => to = &file.cached,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync(&self, file: &DirectoryFile) -> io::Result<()> {
        // Not the standard library's, which tries again when it is interrupted (rule 7).
        Ok(rustix::fs::fdatasync(&file.cached)?)
    }

    fn forget(&self, name: &str) {
        if let Ok(file) = self.open_with(name, OFlags::empty()) {
            // A file system that keeps its copy gives that one back.
            let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
        }
    }
}

fn is_invalid(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::INVAL.raw_os_error())
}

/// What a read through the page cache says where one past it failed with this. The kernel tells the
/// latter why the device could not give back what it has, and the former only that.
fn as_of_cached(error: io::Error) -> io::Error {
    let whys = [
        Errno::NODATA,
        Errno::ILSEQ,
        Errno::REMOTEIO,
        Errno::NOLINK,
        Errno::TIMEDOUT,
        Errno::BADE,
    ];
    let is_why = |why: &Errno| error.raw_os_error() == Some(why.raw_os_error());
    match whys.iter().any(is_why) {
        true => Errno::IO.into(),
        false => error,
    }
}

/// Memory in which bytes start at a multiple of `BLOCK_BYTES`.
#[derive(Debug, Default)]
struct Aligned(Vec<u8>);

impl Aligned {
    /// A copy of these bytes, at most `DIRECT_BYTES_MAX`.
    fn copy(&mut self, bytes: &[u8]) -> &[u8] {
        let place = self.place(bytes.len());
        place.copy_from_slice(bytes);
        place
    }

    /// So many bytes, at most `DIRECT_BYTES_MAX`.
    fn place(&mut self, bytes: usize) -> &mut [u8] {
        let block_bytes = BLOCK_BYTES as usize;
        let needed = bytes + block_bytes;
        if self.0.len() < needed {
            self.0.resize(needed, 0);
        }
        let start = self.0.as_ptr().align_offset(block_bytes);
        self.0
            .get_mut(start..start + bytes)
            .expect("there is a block more than what is asked for")
    }
}
