//! One file of the log: its name, its header, and the room in it.
//!
//! ```text
//! header, 4096 bytes
//!      0  8 bytes  "QUOR-WAL"
//!      8  u32      CRC-32C of bytes 12 to 4095
//!     12  u32      format version, 1
//!     16  u64      server id
//!     24  u64      instance: the random number of the data directory
//!     32  u64      cluster id, 0 if it was not known
//!     40  u64      sequence: 1, 2, 3 ...
//!     48  u64      first index: that of the first entry appended here
//!     56  u64      term of the entry before that one
//!     64  u64      first batch
//!     72  u64      length of the file
//!     80  u32      salt: random, where the checksums of the records start
//!     84  u32      chain: what the checksums of all records before add up to (record.rs)
//!     88  u64      1 if the log begins here, and what is in older segments does not count; else 0
//!     96           zeros
//! records, the first of which is the hard state in a batch of its own (record.rs)
//! zeros
//! ```
//! All numbers are little-endian. The magic, the checksum and the version stay where they are in
//! every version. The header and the first batch are synced before the file gets its name, so a
//! file with this name has them whole. The name has the sequence as well as the first index,
//! since two segments can have the same first index: what is between may have been superseded.

use bytes::{Buf, BufMut};
use mutants::Mutant;
use raft::{ClusterId, HardState, Index, Instance, Position, ServerId, Term};

use crate::disk::{BLOCK_BYTES, Disk};
use crate::error::{Error, Problem};
use crate::record::{Chain, HEADER_BYTES, Record, checksum, header_start, is_zero, lay_out};

/// The length of a segment's header.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 4096;
/// The segment that is being prepared.
pub(crate) const NEXT_NAME: &str = "wal.next";
/// The newest format that this release reads, and the one it writes.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// How much of a segment is written as zeros at a time, at least and at most: what comes meanwhile
/// waits for it, a third of a millisecond for the least, and more where other servers use the disk.
const ZERO_STEP_BYTES: u64 = 256 << 10;
const ZERO_STEP_BYTES_MAX: u64 = 1 << 20;
/// As many batches like the last one are written over it. With the least step at all times, a fourth of
/// all writes and syncs under full load was zeros; with the most, few small writes waited for long.
const ZERO_STEP_BATCHES: u64 = 8;
const MAGIC: &[u8; 8] = b"QUOR-WAL";
/// Where a file's checksum starts, in place of a salt.
pub(crate) const ALL_ONES: u32 = u32::MAX;

/// Whose data directory it is (rule 41).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) server: ServerId,
    pub(crate) instance: Instance,
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) identity: Identity,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) sequence: u64,
    /// The last entry before this segment.
    pub(crate) previous: Position,
    pub(crate) first_batch: u64,
    pub(crate) file_bytes: u64,
    pub(crate) salt: u32,
    pub(crate) chain: Chain,
    /// The log begins here: older segments were given up for a snapshot.
    pub(crate) begins: bool,
}

impl SegmentHeader {
    /// The name of the file with this header.
    pub(crate) fn name(&self) -> String {
        let first = self.previous.index.next();
        format!("wal-{:016x}-{:016x}.log", self.sequence, first.0)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(SEGMENT_HEADER_BYTES - 12);
        fields.put_u32_le(FORMAT_VERSION);
        fields.put_u64_le(self.identity.server.0);
        fields.put_u64_le(self.identity.instance.0);
        fields.put_u64_le(self.cluster.map_or(0, |cluster| cluster.0));
        fields.put_u64_le(self.sequence);
        fields.put_u64_le(self.previous.index.next().0);
        fields.put_u64_le(self.previous.term.0);
        fields.put_u64_le(self.first_batch);
        fields.put_u64_le(self.file_bytes);
        fields.put_u32_le(self.salt);
        fields.put_u32_le(self.chain.0);
        fields.put_u64_le(self.begins.into());
        seal(MAGIC, SEGMENT_HEADER_BYTES, fields)
    }

    /// The header with these bytes, and its format version if that is a newer one.
    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, Unreadable> {
        let mut fields = unseal(MAGIC, bytes)?;
        let server = ServerId(fields.get_u64_le());
        let instance = Instance(fields.get_u64_le());
        let cluster = fields.get_u64_le();
        let sequence = fields.get_u64_le();
        let first_index = Index(fields.get_u64_le());
        let previous_term = Term(fields.get_u64_le());
        Ok(SegmentHeader {
            identity: Identity { server, instance },
            cluster: (cluster != 0).then_some(ClusterId(cluster)),
            sequence,
            previous: Position {
                term: previous_term,
                index: first_index.prev(),
            },
            first_batch: fields.get_u64_le(),
            file_bytes: fields.get_u64_le(),
            salt: fields.get_u32_le(),
            chain: Chain(fields.get_u32_le()),
            begins: match fields.get_u64_le() {
                0 => false,
                1 => true,
                found => {
                    return Err(Unreadable::Corrupt(Problem::Unexpected {
                        what: "mark of the log's beginning",
                        expected: 0,
                        found,
                    }));
                }
            },
        })
    }
}

/// Why the fixed part of a file can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    Newer(u32),
    Corrupt(Problem),
}

impl Unreadable {
    pub(crate) fn into_error<D: Disk>(self, disk: &D, name: &str) -> Error {
        let file = disk.path().join(name);
        match self {
            Unreadable::Newer(found) => Error::NewerFormat {
                file,
                found,
                newest: FORMAT_VERSION,
            },
            Unreadable::Corrupt(problem) => Error::Corrupt {
                file,
                offset: 0,
                problem,
            },
        }
    }
}

/// Magic, checksum, the fields (the version first), and zeros up to `length`.
pub(crate) fn seal(magic: &[u8; 8], length: usize, mut fields: Vec<u8>) -> Vec<u8> {
    fields.resize(length - 12, 0);
    let mut bytes = Vec::with_capacity(length);
    bytes.put_slice(magic);
    bytes.put_u32_le(checksum(ALL_ONES, &fields));
    bytes.put_slice(&fields);
    bytes
}

/// The fields behind the version, which is known to be ours.
pub(crate) fn unseal<'a>(magic: &[u8; 8], bytes: &'a [u8]) -> Result<&'a [u8], Unreadable> {
    if is_zero(bytes) {
        return Err(Unreadable::Corrupt(Problem::Lost));
    }
    let (mut head, fields) = bytes.split_at(12);
    let mut found_magic = [0; 8];
    head.copy_to_slice(&mut found_magic);
    let expected = head.get_u32_le();
    let found = checksum(ALL_ONES, fields);
    if expected != found {
        return Err(Unreadable::Corrupt(Problem::Checksum { expected, found }));
    }
    if found_magic != *magic {
        return Err(Unreadable::Corrupt(Problem::Unexpected {
            what: "file's magic number",
            expected: u64::from_be_bytes(*magic),
            found: u64::from_be_bytes(found_magic),
        }));
    }
    let mut rest = fields;
    match rest.get_u32_le() {
        FORMAT_VERSION => Ok(rest),
        newer => Err(Unreadable::Newer(newer)),
    }
}

/// The sequence and the first index in a segment's name.
pub(crate) fn parse_name(name: &str) -> Option<(u64, Index)> {
    let (sequence, first) = name
        .strip_prefix("wal-")?
        .strip_suffix(".log")?
        .split_once('-')?;
    if sequence.len() != 16 || first.len() != 16 {
        return None;
    }
    let sequence = u64::from_str_radix(sequence, 16).ok()?;
    let first = u64::from_str_radix(first, 16).ok()?;
    Some((sequence, Index(first)))
}

/// A segment that is open, and how far it is filled.
#[derive(Debug)]
pub(crate) struct Segment<F> {
    pub(crate) file: F,
    pub(crate) header: SegmentHeader,
    /// Where the next record may start: a multiple of 8. Everything behind it is zeros.
    pub(crate) end: u64,
    /// What lies before `end` in its block: it is written again with what follows, so that whole
    /// blocks are written always.
    pub(crate) tail: Vec<u8>,
    /// Up to here, `end` or more, zeros were written and synced: syncing what overwrites them is
    /// cheaper than syncing what was only reserved, whose state the file system has to note down.
    pub(crate) zeroed: u64,
}

impl<F> Segment<F> {
    /// True if a batch of this size fits in, and the segment's end record behind it.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        header_start(self.end + bytes) + HEADER_BYTES as u64 <= self.header.file_bytes
    }
}

/// The next segment's file while it is being prepared.
#[derive(Debug)]
pub(crate) struct Next<F> {
    pub(crate) file: F,
    pub(crate) bytes: u64,
    pub(crate) zeroed: u64,
}

impl<F> Next<F> {
    /// Makes it this long, if it is shorter.
    pub(crate) fn reserve<D: Disk<File = F>>(&mut self, disk: &D, bytes: u64) -> Result<(), Error> {
        if self.bytes < bytes {
            disk.allocate(&self.file, bytes).map_err(Error::io(
                disk,
                NEXT_NAME,
                "reserve space",
            ))?;
            self.bytes = bytes;
        }
        Ok(())
    }
}

/// The least length of a segment that a batch of this size fits in.
pub(crate) fn bytes_for(batch_bytes: u64) -> u64 {
    let hard_state = Record::hard_state(&HardState::default()).bytes_max();
    // Behind the batch comes the end record, which may have to start at the next sector.
    let end = 2 * HEADER_BYTES as u64;
    let needed = SEGMENT_HEADER_BYTES as u64 + hard_state + batch_bytes + end;
    needed.next_multiple_of(BLOCK_BYTES)
}

/// Where the block with this offset starts.
pub(crate) fn block_start(offset: u64) -> u64 {
    offset / BLOCK_BYTES * BLOCK_BYTES
}

/// A segment that was just made.
pub(crate) struct Started<F> {
    pub(crate) segment: Segment<F>,
    /// The last batch in it.
    pub(crate) batch: u64,
    /// The chain behind that.
    pub(crate) chain: Chain,
    /// Where each record of the batch behind the hard state starts.
    pub(crate) starts: Vec<u64>,
}

/// Makes a segment with its header, the hard state, and one more batch if there are records for
/// it, all durable before it has its name.
pub(crate) fn start_segment<D: Disk>(
    disk: &D,
    header: SegmentHeader,
    hard_state: &HardState,
    records: &[Record],
    next: Option<Next<D::File>>,
) -> Result<Started<D::File>, Error> {
    let mut next = match next {
        Some(next) => next,
        None => create_next(disk, header.file_bytes)?,
    };
    next.reserve(disk, header.file_bytes)?;
    let mut bytes = header.encode();
    let mut chain = header.chain;
    lay_out(
        &[Record::hard_state(hard_state)],
        header.first_batch,
        header.salt,
        SEGMENT_HEADER_BYTES as u64,
        &mut chain,
        &mut bytes,
    );
    let mut batch = header.first_batch;
    let mut starts = Vec::new();
    if !records.is_empty() {
        batch += 1;
        let offset = bytes.len() as u64;
        starts = lay_out(records, batch, header.salt, offset, &mut chain, &mut bytes);
    }
    let end = bytes.len() as u64;
    assert!(
        end <= header.file_bytes,
        "a first batch up to {end} in a segment of {}",
        header.file_bytes
    );
    let (_, tail) = bytes.split_at(block_start(end) as usize);
    let tail = tail.to_vec();
    let mut written = end.next_multiple_of(BLOCK_BYTES);
    if next.zeroed < end {
        written = written.max(ZERO_STEP_BYTES.min(header.file_bytes));
        next.zeroed = written;
    }
    bytes.resize(written as usize, 0);
    let name = header.name();
    disk.write_at(&next.file, &bytes, 0)
        .map_err(Error::io(disk, NEXT_NAME, "write"))?;
    disk.sync(&next.file)
        .map_err(Error::io(disk, NEXT_NAME, "sync"))?;
    disk.rename(NEXT_NAME, &name)
        .map_err(Error::io(disk, NEXT_NAME, "rename"))?;
    if !mutants::is_on(Mutant::NoDirectorySync) {
        disk.sync_directory()
            .map_err(Error::io(disk, "", "sync the data directory"))?;
    }
    let segment = Segment {
        file: next.file,
        header,
        end,
        tail,
        zeroed: next.zeroed,
    };
    Ok(Started {
        segment,
        batch,
        chain,
        starts,
    })
}

/// Makes the next segment's file with its space; it is not there if there is none.
pub(crate) fn create_next<D: Disk>(disk: &D, bytes: u64) -> Result<Next<D::File>, Error> {
    let file = disk
        .create(NEXT_NAME)
        .map_err(Error::io(disk, NEXT_NAME, "create"))?;
    let mut next = Next {
        file,
        bytes: 0,
        zeroed: 0,
    };
    if let Err(error) = next.reserve(disk, bytes) {
        // What it got of the space is somebody else's again. It is made anew the next time, so that
        // nothing depends on this.
        let _ = disk.remove(NEXT_NAME);
        return Err(error);
    }
    Ok(next)
}

/// Writes zeros from the next block on, up to the next step, and makes them durable. Returns how
/// far. The length of the last batch says how much is being written.
pub(crate) fn write_zeros<D: Disk>(
    disk: &D,
    file: &D::File,
    name: &str,
    from: u64,
    file_bytes: u64,
    batch_bytes: u64,
) -> Result<u64, Error> {
    let step = (ZERO_STEP_BATCHES * batch_bytes).next_power_of_two();
    let step = step.clamp(ZERO_STEP_BYTES, ZERO_STEP_BYTES_MAX);
    let from = from.next_multiple_of(BLOCK_BYTES).min(file_bytes);
    let to = (from + 1).next_multiple_of(step).min(file_bytes);
    disk.write_zeros_at(file, to - from, from)
        .map_err(Error::io(disk, name, "write zeros"))?;
    disk.sync(file).map_err(Error::io(disk, name, "sync"))?;
    Ok(to)
}
