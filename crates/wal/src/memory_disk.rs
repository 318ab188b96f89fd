//! A disk in memory that can fail: it knows what was synced and what was not, and what a power
//! cut leaves of the latter is drawn from a seed.
//!
//! A file's unsynced content is kept or lost by sectors of 512 bytes, each in any of the states
//! that it had since its last sync; an unsynced length, and each unsynced change of the
//! directory, is kept or lost as a whole and by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::io::Errno;

use crate::disk::Disk;
use crate::record::SECTOR_BYTES;

/// A directory in memory. Clones are handles on the same one, for the same process.
#[derive(Clone)]
pub struct MemoryDisk {
    path: PathBuf,
    /// The process that this handle belongs to.
    process: u64,
    state: Arc<Mutex<State>>,
}

/// An open file of a `MemoryDisk`.
#[derive(Debug)]
pub struct MemoryFile {
    inode: u64,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The device reports an error. Of a write the first half of its sectors is done; what a sync did not make durable, no
    /// later sync does.
    Device,
    /// There is no space left.
    Full,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    PowerCut,
    Failure(Failure),
}

/// What becomes of one operation.
enum Course {
    Normal,
    Fails(Failure),
    /// It is under way when the power goes.
    Interrupted,
}

type Sector = [u8; SECTOR_BYTES];

/// Copies of a disk share what neither has changed: to copy one costs little, whatever it holds.
#[derive(Clone, Default)]
struct Inode {
    current: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    /// What each sector held since it was last synced, in order; only those that were written.
    unsynced: BTreeMap<usize, Vec<Sector>>,
}

#[derive(Clone)]
enum Change {
    Set(String, u64),
    Move {
        from: String,
        to: String,
        inode: u64,
    },
    Unset(String),
}

#[derive(Clone, Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// What was done to `names` since the directory was last synced.
    changes: Vec<Change>,
    process: u64,
    is_locked: bool,
    operations: u64,
    fault: Option<(u64, Fault)>,
    is_off: bool,
    /// Nothing grows.
    is_full: bool,
    misread: Option<Misread>,
    /// Of which files which sectors can't be read.
    unreadable: BTreeSet<(u64, usize)>,
    /// The byte of which memory has another copy than the disk, and the bits that differ.
    miscopied: Option<(u64, usize, u8)>,
}

/// A read that goes wrong.
#[derive(Clone, Copy)]
struct Misread {
    /// How many go well before.
    reads: u64,
    offset: usize,
    mask: u8,
    /// What was read is what every later read finds, until the file is forgotten.
    is_kept: bool,
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not all that it holds.
        f.debug_struct("MemoryDisk")
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

impl Default for MemoryDisk {
    fn default() -> MemoryDisk {
        MemoryDisk::new()
    }
}

impl MemoryDisk {
    /// An empty directory.
    #[must_use]
    pub fn new() -> MemoryDisk {
        MemoryDisk::with_state(State::default())
    }

    fn with_state(state: State) -> MemoryDisk {
        MemoryDisk {
            path: PathBuf::from("memory"),
            process: state.process,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// How many operations were done that change something: create, rename, remove, allocate,
    /// write, sync of a file or of the directory.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Cuts the power during the operation with this number, counted from 1 as `operations`
    /// counts: it and everything after it is an error.
    pub fn cut_power_at(&self, operation: u64) {
        self.state().fault = Some((operation, Fault::PowerCut));
    }

    /// Whether the power is still on.
    #[must_use]
    pub fn has_power(&self) -> bool {
        !self.state().is_off
    }

    /// Makes the operation with this number fail, and those after it succeed.
    pub fn fail_at(&self, operation: u64, failure: Failure) {
        self.state().fault = Some((operation, Fault::Failure(failure)));
    }

    /// Whether there is no space left from now on: what needs more of it fails, and what has its
    /// space goes on.
    pub fn set_full(&self, is_full: bool) {
        self.state().is_full = is_full;
    }

    /// Lets one read that fills a buffer, after `reads` others, find one byte with the bits of
    /// `mask` turned over; the byte on the disk stays as it is. Its place is `offset` modulo the
    /// length of the buffer. With a mask of 0 all reads go well, whatever was said before.
    pub fn misread(&self, reads: u64, offset: usize, mask: u8) {
        self.set_misread(reads, offset, mask, false);
    }

    /// The same where the kernel keeps what it has read: that byte is read so until its file is
    /// forgotten (`Disk::forget`) or the byte written, whoever reads it.
    pub fn misread_and_keep(&self, reads: u64, offset: usize, mask: u8) {
        self.set_misread(reads, offset, mask, true);
    }

    fn set_misread(&self, reads: u64, offset: usize, mask: u8, is_kept: bool) {
        let mut state = self.state();
        state.misread = Some(Misread {
            reads,
            offset,
            mask,
            is_kept,
        });
        state.miscopied = None;
    }

    /// What a power cut at this moment would leave, as a disk of its own that has no fault. This
    /// one goes on as if nothing had happened. The seed decides what of the unsynced is kept.
    #[must_use]
    pub fn after_power_cut(&self, seed: u64) -> MemoryDisk {
        let mut state = self.state().clone();
        state.lose_unsynced(&mut Kept::new(seed));
        MemoryDisk::with_state(state)
    }

    /// The disk for the next process, when the one that used it was killed: its files and its
    /// lock are closed, and what it wrote is there, and not synced.
    #[must_use]
    pub fn after_kill(&self) -> MemoryDisk {
        let mut state = self.state();
        state.process += 1;
        state.is_locked = false;
        MemoryDisk {
            path: self.path.clone(),
            process: state.process,
            state: Arc::clone(&self.state),
        }
    }

    /// A disk of its own that holds the same, unsynced what is unsynced here, for a process that
    /// has nothing open yet.
    #[must_use]
    pub fn copy(&self) -> MemoryDisk {
        let mut state = self.state().clone();
        state.is_locked = false;
        MemoryDisk::with_state(state)
    }

    /// What a file holds, synced or not; `None` if it is not there.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let inode = state.names.get(name)?;
        Some(state.inodes.get(inode)?.current.to_vec())
    }

    /// Gives a file this content, durably, as somebody else than the log would.
    pub fn put(&self, name: &str, content: &[u8]) {
        let mut state = self.state();
        let inode = state.add_inode();
        let content = Arc::new(content.to_vec());
        state.inodes.insert(
            inode,
            Inode {
                current: Arc::clone(&content),
                durable: content,
                unsynced: BTreeMap::new(),
            },
        );
        state.names.insert(name.to_owned(), inode);
        state.durable_names.insert(name.to_owned(), inode);
    }

    /// Turns over the bits of `mask` in one byte of a file, as a disk that rots does. Nothing if
    /// there is no such byte.
    pub fn rot(&self, name: &str, offset: usize, mask: u8) {
        let mut state = self.state();
        let Some(inode) = state.names.get(name).copied() else {
            return;
        };
        let inode = state.inodes.entry(inode).or_default();
        for content in [&mut inode.current, &mut inode.durable] {
            if let Some(byte) = Arc::make_mut(content).get_mut(offset) {
                *byte ^= mask;
            }
        }
    }

    /// Lets the sector that this byte of a file is in be one for which the device reports an error
    /// whenever any of it is read, until all of it is written. Nothing if there is no such file.
    pub fn wear_out(&self, name: &str, offset: usize) {
        let mut state = self.state();
        if let Some(inode) = state.names.get(name).copied() {
            state.unreadable.insert((inode, offset / SECTOR_BYTES));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// The state, if this process still lives and has power.
    fn running(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.is_off || state.process != self.process {
            return Err(Error::new(ErrorKind::BrokenPipe, "the power is off"));
        }
        Ok(state)
    }

    /// Does one operation that changes something: `act` as far as it gets.
    fn operate(&self, act: impl FnOnce(&mut State, &Course) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.running()?;
        state.operations += 1;
        let course = match state.fault {
            Some((operation, fault)) if operation == state.operations => match fault {
                Fault::PowerCut => Course::Interrupted,
                Fault::Failure(failure) => Course::Fails(failure),
            },
            _ => Course::Normal,
        };
        let result = act(&mut state, &course);
        match course {
            Course::Normal => result,
            Course::Fails(Failure::Device) => Err(Error::other("device error")),
            Course::Fails(Failure::Full) => {
                Err(Error::new(ErrorKind::StorageFull, "no space left"))
            }
            Course::Interrupted => {
                state.is_off = true;
                Err(Error::new(ErrorKind::BrokenPipe, "the power went off"))
            }
        }
    }
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self, _name: &str) -> io::Result<bool> {
        let mut state = self.running()?;
        Ok(!std::mem::replace(&mut state.is_locked, true))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.running()?.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let inode = self.running()?.named(name)?;
        Ok(MemoryFile { inode })
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        let mut created = 0;
        self.operate(|state, course| {
            state.needs_space(!state.names.contains_key(name))?;
            if !matches!(course, Course::Fails(_)) {
                created = state.add_inode();
                state.change(Change::Set(name.to_owned(), created));
            }
            Ok(())
        })?;
        Ok(MemoryFile { inode: created })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.operate(|state, course| {
            let inode = state.named(from)?;
            if !matches!(course, Course::Fails(_)) {
                state.change(Change::Move {
                    from: from.to_owned(),
                    to: to.to_owned(),
                    inode,
                });
            }
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.operate(|state, course| {
            state.named(name)?;
            if !matches!(course, Course::Fails(_)) {
                state.change(Change::Unset(name.to_owned()));
            }
            Ok(())
        })
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.operate(|state, course| {
            match course {
                Course::Normal => state.durable_names = state.names.clone(),
                // What could not be made durable is forgotten to be unsynced.
                Course::Fails(_) => {}
                Course::Interrupted => return Ok(()),
            }
            state.changes.clear();
            Ok(())
        })
    }

    fn length(&self, file: &MemoryFile) -> io::Result<u64> {
        Ok(self.running()?.inode(file)?.current.len() as u64)
    }

    fn allocate(&self, file: &MemoryFile, bytes: u64) -> io::Result<()> {
        self.operate(|state, course| {
            if !matches!(course, Course::Fails(_)) {
                let bytes = to_usize(bytes)?;
                let length = state.inode(file)?.current.len();
                state.needs_space(bytes > length)?;
                let current = &mut state.inode(file)?.current;
                Arc::make_mut(current).resize(length.max(bytes), 0);
            }
            Ok(())
        })
    }

    fn read_at(&self, file: &MemoryFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.running()?;
        let start = to_usize(offset)?;
        let sectors = start / SECTOR_BYTES..(start + buffer.len()).div_ceil(SECTOR_BYTES);
        let sectors = (file.inode, sectors.start)..(file.inode, sectors.end);
        if state.unreadable.range(sectors).next().is_some() {
            return Err(Errno::IO.into());
        }
        let inode = state.inode(file)?;
        let content = inode.current.get(start..start + buffer.len());
        let content = content.ok_or(ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(content);
        state.go_wrong(file.inode, buffer, start);
        Ok(())
    }

    fn write_at(&self, file: &MemoryFile, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.operate(|state, course| {
            let start = to_usize(offset)?;
            let length = state.inode(file)?.current.len();
            state.needs_space(start + bytes.len() > length)?;
            let done = match course {
                Course::Normal | Course::Interrupted => bytes,
                Course::Fails(_) => {
                    let middle = (start + bytes.len() / 2) / SECTOR_BYTES * SECTOR_BYTES;
                    bytes.split_at(middle.saturating_sub(start)).0
                }
            };
            state.inode(file)?.write(done, start);
            let is_written = |(inode, at, _): &mut (u64, usize, u8)| {
                *inode == file.inode && (start..start + done.len()).contains(at)
            };
            state.miscopied.take_if(is_written);
            let whole = start.div_ceil(SECTOR_BYTES)..(start + done.len()) / SECTOR_BYTES;
            let is_left = |(inode, at): &(u64, usize)| *inode != file.inode || !whole.contains(at);
            state.unreadable.retain(is_left);
            Ok(())
        })
    }

    fn sync(&self, file: &MemoryFile) -> io::Result<()> {
        self.operate(|state, course| {
            let inode = state.inode(file)?;
            match course {
                Course::Normal => inode.sync(),
                // The kernel takes the pages for clean, though they are not on the disk.
                Course::Fails(_) => inode.unsynced.clear(),
                Course::Interrupted => {}
            }
            Ok(())
        })
    }

    fn forget(&self, name: &str) {
        let mut state = self.state();
        let forgotten = state.names.get(name).copied();
        state
            .miscopied
            .take_if(|(inode, ..)| Some(*inode) == forgotten);
    }
}

impl State {
    /// Spoils what was read of a file from `start` on, if that is due.
    fn go_wrong(&mut self, inode: u64, buffer: &mut [u8], start: usize) {
        let is_due = |it: &mut Misread| it.reads == 0 && !buffer.is_empty();
        if let Some(misread) = self.misread.take_if(is_due) {
            let offset = misread.offset % buffer.len();
            turn_over(buffer, offset, misread.mask);
            let kept = (inode, start + offset, misread.mask);
            self.miscopied = misread.is_kept.then_some(kept);
            return;
        }
        if let Some(misread) = &mut self.misread {
            misread.reads = misread.reads.saturating_sub(1);
        }
        if let Some((_, at, mask)) = self.miscopied.filter(|(it, ..)| *it == inode)
            && let Some(offset) = at.checked_sub(start)
        {
            turn_over(buffer, offset, mask);
        }
    }

    fn add_inode(&mut self) -> u64 {
        let inode = self.inodes.keys().next_back().map_or(1, |last| last + 1);
        self.inodes.insert(inode, Inode::default());
        inode
    }

    fn named(&self, name: &str) -> io::Result<u64> {
        let inode = self.names.get(name).copied();
        Ok(inode.ok_or(ErrorKind::NotFound)?)
    }

    fn inode(&mut self, file: &MemoryFile) -> io::Result<&mut Inode> {
        let inode = self.inodes.get_mut(&file.inode);
        Ok(inode.ok_or(ErrorKind::NotFound)?)
    }

    fn needs_space(&self, needs: bool) -> io::Result<()> {
        if needs && self.is_full {
            return Err(Error::new(ErrorKind::StorageFull, "no space left"));
        }
        Ok(())
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }

    fn lose_unsynced(&mut self, kept: &mut Kept) {
        for change in std::mem::take(&mut self.changes) {
            if kept.keeps() {
                apply(&mut self.durable_names, &change);
            }
        }
        self.names = self.durable_names.clone();
        let reachable: Vec<u64> = self.names.values().copied().collect();
        self.inodes.retain(|inode, _| reachable.contains(inode));
        for inode in self.inodes.values_mut() {
            inode.lose_unsynced(kept);
        }
        self.is_locked = false;
        self.is_off = false;
        self.miscopied = None;
        self.fault = None;
        self.operations = 0;
    }
}

impl Inode {
    fn write(&mut self, bytes: &[u8], start: usize) {
        let end = start + bytes.len();
        let current = Arc::make_mut(&mut self.current);
        if end > current.len() {
            current.resize(end, 0);
        }
        if let Some(place) = current.get_mut(start..end) {
            place.copy_from_slice(bytes);
        }
        for sector in start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let content = sector_of(current, sector);
            self.unsynced.entry(sector).or_default().push(content);
        }
    }

    fn sync(&mut self) {
        let unsynced = std::mem::take(&mut self.unsynced);
        if unsynced.is_empty() && self.durable.len() == self.current.len() {
            return;
        }
        let durable = Arc::make_mut(&mut self.durable);
        durable.resize(self.current.len(), 0);
        for (sector, contents) in unsynced {
            if let Some(content) = contents.last() {
                set_sector(durable, sector, content);
            }
        }
    }

    fn lose_unsynced(&mut self, kept: &mut Kept) {
        if self.durable.len() != self.current.len() && kept.keeps() {
            Arc::make_mut(&mut self.durable).resize(self.current.len(), 0);
        }
        for (sector, contents) in std::mem::take(&mut self.unsynced) {
            if kept.keeps()
                && let Some(content) = contents.get(kept.one_of(contents.len()))
            {
                let durable: &mut Vec<u8> = Arc::make_mut(&mut self.durable);
                set_sector(durable, sector, content);
            }
        }
        self.current = Arc::clone(&self.durable);
    }
}

fn apply(names: &mut BTreeMap<String, u64>, change: &Change) {
    match change {
        Change::Set(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        Change::Move { from, to, inode } => {
            // The name may be another file's, if this change is kept and an earlier one was not.
            if names.get(from) == Some(inode) {
                names.remove(from);
            }
            names.insert(to.clone(), *inode);
        }
        Change::Unset(name) => {
            names.remove(name);
        }
    }
}

fn sector_of(content: &[u8], sector: usize) -> Sector {
    let mut copy = [0; SECTOR_BYTES];
    let rest = content.get(sector * SECTOR_BYTES..).unwrap_or_default();
    let (from, _) = rest.split_at(rest.len().min(SECTOR_BYTES));
    if let Some(to) = copy.get_mut(..from.len()) {
        to.copy_from_slice(from);
    }
    copy
}

/// As far as the file reaches.
fn set_sector(content: &mut [u8], sector: usize, new: &Sector) {
    let Some(rest) = content.get_mut(sector * SECTOR_BYTES..) else {
        return;
    };
    let length = rest.len().min(SECTOR_BYTES);
    if let (Some(to), Some(from)) = (rest.get_mut(..length), new.get(..length)) {
        to.copy_from_slice(from);
    }
}

/// Turns over the bits of `mask` in the byte at `offset`, if there is one.
fn turn_over(bytes: &mut [u8], offset: usize, mask: u8) {
    if let Some(byte) = bytes.get_mut(offset) {
        *byte ^= mask;
    }
}

fn to_usize(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(|_| ErrorKind::InvalidInput.into())
}

/// What a power cut keeps: with some seeds everything or nothing, else each thing by chance.
struct Kept {
    random: StdRng,
    /// Out of 8.
    chance: u32,
}

impl Kept {
    fn new(seed: u64) -> Kept {
        let mut random = StdRng::seed_from_u64(seed);
        let chance = random.random_range(0..=8);
        Kept { random, chance }
    }

    fn keeps(&mut self) -> bool {
        self.random.random_range(0..8) < self.chance
    }

    /// Mostly the last.
    fn one_of(&mut self, count: usize) -> usize {
        let last = count.saturating_sub(1);
        if self.random.random_range(0..4) == 0 {
            self.random.random_range(0..=last)
        } else {
            last
        }
    }
}
