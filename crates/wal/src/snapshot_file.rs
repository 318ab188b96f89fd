//! A snapshot file: how it is laid out, written and read. Which ones there are is `snapshots.rs`,
//! how one gets to another server `snapshot_transfer.rs`; what is in it is the caller's.
//!
//! ```text
//! header, a multiple of 4096 bytes
//!      0  8 bytes  "QUORSNAP"
//!      8  u32      CRC-32C of the header from byte 12 on
//!     12  u32      format version, 1
//!     16  u32      length of the header
//!     20  u32      length of the configuration's payload
//!     24  u64      cluster id; 0 for a state that a new cluster begins with: a backup of another
//!     32  u64      term of the last entry that the snapshot holds
//!     40  u64      index of that entry
//!     48  u64      term of the newest configuration entry up to there, 0 if there is none
//!     56  u64      index of that entry, 0 if there is none
//!     64           its payload, then zeros
//! blocks, each of 256 KiB but for the last, which may be shorter
//!      0  u32      CRC-32C of the block from byte 4 on
//!      4  u32      length of the content, never 0
//!      8  u64      number: 0, 1, 2 ...
//!     16           content
//! footer, 48 bytes
//!      0  u32      CRC-32C of bytes 4 to 47
//!      4  u32      0, where a block has its length
//!      8  u64      how many blocks there are
//!     16  u64      how many bytes their contents have together
//!     24  u64      length of the file
//!     32  u64      CRC-64/NVME of all bytes before the footer
//!     40  8 bytes  "SNAP-END"
//! ```
//! All numbers are little-endian. The magic, the checksum, the version and the header's length
//! stay where they are in every version. The bytes depend on what the snapshot holds alone: two
//! servers that write the same write the same file, however they cut it into pieces.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest};
use mutants::Mutant;
use raft::{ClusterId, Entry, EntryKind, Index, Position, Snapshot, Term};

use crate::disk::{BLOCK_BYTES, Disk};
use crate::error::{Error, Problem};
use crate::record::{ENTRY_BYTES_MAX, checksum};
use crate::segment::{ALL_ONES, FORMAT_VERSION, Unreadable, seal, unseal};

/// The most that one block takes up.
pub(crate) const SNAPSHOT_BLOCK_BYTES: usize = 256 << 10;
/// The most content that one block has: no piece that a reader gives is larger.
pub const SNAPSHOT_PIECE_BYTES_MAX: usize = SNAPSHOT_BLOCK_BYTES - BLOCK_HEADER_BYTES;

const MAGIC: &[u8; 8] = b"QUORSNAP";
const END_MAGIC: &[u8; 8] = b"SNAP-END";
const HEADER_BYTES_MIN: usize = BLOCK_BYTES as usize;
const HEADER_BYTES_MAX: usize = HEADER_BYTES_MIN + ENTRY_BYTES_MAX;
const FIXED_BYTES: usize = 64;
const BLOCK_HEADER_BYTES: usize = 16;
const FOOTER_BYTES: usize = 48;

/// The cluster of a state that a new cluster begins with, before it has an id.
pub(crate) const NO_CLUSTER: ClusterId = ClusterId(0);

/// A file's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotHeader {
    pub(crate) cluster: ClusterId,
    pub(crate) snapshot: Snapshot,
}

impl SnapshotHeader {
    fn encode(&self) -> Vec<u8> {
        let configuration = self.snapshot.configuration.as_ref();
        let payload = configuration.map_or(&[][..], |entry| &entry.payload);
        let length = (FIXED_BYTES + payload.len()).next_multiple_of(HEADER_BYTES_MIN);
        assert!(
            length <= HEADER_BYTES_MAX,
            "a configuration of {} bytes",
            payload.len()
        );
        let position = self.snapshot.position;
        let configured = configuration.map_or(Position::default(), Entry::position);
        let mut fields = Vec::with_capacity(length - 12);
        fields.put_u32_le(FORMAT_VERSION);
        fields.put_u32_le(length as u32);
        fields.put_u32_le(payload.len() as u32);
        fields.put_u64_le(self.cluster.0);
        for position in [position, configured] {
            fields.put_u64_le(position.term.0);
            fields.put_u64_le(position.index.0);
        }
        fields.put_slice(payload);
        seal(MAGIC, length, fields)
    }

    fn decode(bytes: &[u8]) -> Result<SnapshotHeader, Unreadable> {
        let mut fields = unseal(MAGIC, bytes)?;
        let _length = fields.get_u32_le();
        let payload_bytes = fields.get_u32_le() as usize;
        let cluster = ClusterId(fields.get_u64_le());
        let [position, configured] = [(); 2].map(|()| Position {
            term: Term(fields.get_u64_le()),
            index: Index(fields.get_u64_le()),
        });
        let payload = fields.get(..payload_bytes);
        let payload = payload.ok_or(Unreadable::Corrupt(unexpected(
            "configuration's length",
            fields.len() as u64,
            payload_bytes as u64,
        )))?;
        let configuration = (configured.index > Index(0)).then(|| Entry {
            term: configured.term,
            index: configured.index,
            kind: EntryKind::Configuration,
            payload: Bytes::copy_from_slice(payload),
        });
        Ok(SnapshotHeader {
            cluster,
            snapshot: Snapshot {
                position,
                configuration,
            },
        })
    }
}

/// The end of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Footer {
    blocks: u64,
    content_bytes: u64,
    file_bytes: u64,
    checksum: u64,
}

impl Footer {
    fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut bytes = [0; FOOTER_BYTES];
        let (sum, covered) = bytes.split_at_mut(4);
        let mut fields = &mut *covered;
        fields.put_u32_le(0);
        fields.put_u64_le(self.blocks);
        fields.put_u64_le(self.content_bytes);
        fields.put_u64_le(self.file_bytes);
        fields.put_u64_le(self.checksum);
        fields.put_slice(END_MAGIC);
        sum.copy_from_slice(&checksum(ALL_ONES, covered).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; FOOTER_BYTES]) -> Result<Footer, Problem> {
        let (mut expected, covered) = bytes.split_at(4);
        let expected = expected.get_u32_le();
        let found = checksum(ALL_ONES, covered);
        if found != expected {
            return Err(Problem::Checksum { expected, found });
        }
        let mut fields = covered;
        let zero = fields.get_u32_le();
        let footer = Footer {
            blocks: fields.get_u64_le(),
            content_bytes: fields.get_u64_le(),
            file_bytes: fields.get_u64_le(),
            checksum: fields.get_u64_le(),
        };
        must_be("footer's zeros", 0, zero.into())?;
        let magic = u64::from_be_bytes(*END_MAGIC);
        must_be("footer's magic number", magic, fields.get_u64())?;
        Ok(footer)
    }
}

/// Turns the content of a snapshot into the bytes of its file, as it comes. Whoever is given them
/// writes or sends them, in order.
#[derive(Debug)]
pub struct SnapshotEncoder {
    /// The block that is being filled, with room for its header.
    block: Vec<u8>,
    /// The bytes given out.
    bytes: u64,
    blocks: u64,
    content_bytes: u64,
    digest: Digest,
}

impl SnapshotEncoder {
    /// Begins a snapshot of this cluster's state, and gives out its header.
    ///
    /// # Errors
    /// What `sink` gives.
    pub fn begin<E>(
        cluster: ClusterId,
        snapshot: Snapshot,
        sink: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<SnapshotEncoder, E> {
        let bytes = SnapshotHeader { cluster, snapshot }.encode();
        let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
        digest.update(&bytes);
        sink(&bytes)?;
        let mut block = Vec::with_capacity(SNAPSHOT_BLOCK_BYTES + FOOTER_BYTES);
        block.resize(BLOCK_HEADER_BYTES, 0);
        Ok(SnapshotEncoder {
            block,
            bytes: bytes.len() as u64,
            blocks: 0,
            content_bytes: 0,
            digest,
        })
    }

    /// Takes what comes next, and gives out whole blocks.
    ///
    /// # Errors
    /// What `sink` gives; then the rest is not to be written.
    pub fn write<E>(
        &mut self,
        mut content: &[u8],
        sink: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !content.is_empty() {
            let room = SNAPSHOT_BLOCK_BYTES - self.block.len();
            let (part, rest) = content.split_at(room.min(content.len()));
            self.block.extend_from_slice(part);
            content = rest;
            if self.block.len() == SNAPSHOT_BLOCK_BYTES {
                self.seal_block();
                self.give_out(sink)?;
                self.block.resize(BLOCK_HEADER_BYTES, 0);
            }
        }
        Ok(())
    }

    /// Gives out the last block and the footer.
    ///
    /// # Errors
    /// What `sink` gives.
    pub fn finish<E>(&mut self, sink: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.block.len() > BLOCK_HEADER_BYTES {
            self.seal_block();
        } else {
            self.block.clear();
        }
        let before = self.bytes + self.block.len() as u64;
        let footer = Footer {
            blocks: self.blocks,
            content_bytes: self.content_bytes,
            file_bytes: before + FOOTER_BYTES as u64,
            checksum: self.digest.finalize(),
        };
        self.block.extend_from_slice(&footer.encode());
        self.give_out(sink)
    }

    fn seal_block(&mut self) {
        let content_bytes = self.block.len() - BLOCK_HEADER_BYTES;
        let (sum, covered) = self.block.split_at_mut(4);
        let mut fields = &mut *covered;
        fields.put_u32_le(content_bytes as u32);
        fields.put_u64_le(self.blocks);
        sum.copy_from_slice(&checksum(ALL_ONES, covered).to_le_bytes());
        self.digest.update(&self.block);
        self.blocks += 1;
        self.content_bytes += content_bytes as u64;
    }

    fn give_out<E>(&mut self, sink: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        sink(&self.block)?;
        self.bytes += self.block.len() as u64;
        self.block.clear();
        Ok(())
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct FileWriter<F> {
    file: F,
    name: String,
    encoder: SnapshotEncoder,
    offset: u64,
}

impl<F> FileWriter<F> {
    pub(crate) fn create<D: Disk<File = F>>(
        disk: &D,
        name: String,
        header: SnapshotHeader,
    ) -> Result<FileWriter<F>, Error> {
        let file = disk
            .create(&name)
            .map_err(Error::io(disk, &name, "create"))?;
        let mut offset = 0;
        let SnapshotHeader { cluster, snapshot } = header;
        let mut sink = writing(disk, &name, &file, &mut offset);
        let encoder = SnapshotEncoder::begin(cluster, snapshot, &mut sink)?;
        drop(sink);
        Ok(FileWriter {
            file,
            name,
            encoder,
            offset,
        })
    }

    pub(crate) fn write<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        content: &[u8],
    ) -> Result<(), Error> {
        let sink = &mut writing(disk, &self.name, &self.file, &mut self.offset);
        self.encoder.write(content, sink)
    }

    /// Writes the last block and the footer, and makes all of it durable under its present name.
    pub(crate) fn finish<D: Disk<File = F>>(&mut self, disk: &D) -> Result<(), Error> {
        let sink = &mut writing(disk, &self.name, &self.file, &mut self.offset);
        self.encoder.finish(sink)?;
        if mutants::is_on(Mutant::SnapshotNotSynced) {
            return Ok(());
        }
        disk.sync(&self.file)
            .map_err(Error::io(disk, &self.name, "sync"))
    }
}

/// Writes what it is given one after the other, from `offset` on.
fn writing<D: Disk>(
    disk: &D,
    name: &str,
    file: &D::File,
    offset: &mut u64,
) -> impl FnMut(&[u8]) -> Result<(), Error> {
    move |bytes| {
        disk.write_at(file, bytes, *offset)
            .map_err(Error::io(disk, name, "write"))?;
        *offset += bytes.len() as u64;
        Ok(())
    }
}

/// A file that is being read from front to back.
#[derive(Debug)]
pub(crate) struct FileReader<F> {
    file: F,
    name: String,
    file_bytes: u64,
    header: SnapshotHeader,
    first_block: u64,
    offset: u64,
    blocks: u64,
    content_bytes: u64,
    digest: Digest,
    /// The checksum over all, once the footer was reached.
    checksum: Option<u64>,
    reading: Reading,
    /// The memory of the last block, to be used again if nobody has any of it.
    spare: BytesMut,
}

/// Where what is read comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// The memory that has a copy, if there is one; otherwise it gets one.
    Cached,
    /// The disk, since it is to be known that it is there. To have all of a large file in the page cache
    /// besides takes longer than to read it.
    PastCache,
}

impl<F> FileReader<F> {
    /// Opens a file and verifies its header.
    pub(crate) fn open<D: Disk<File = F>>(
        disk: &D,
        name: &str,
        reading: Reading,
    ) -> Result<FileReader<F>, Error> {
        let file = disk.open(name).map_err(Error::io(disk, name, "open"))?;
        let failed = Error::io(disk, name, "read");
        let corrupt = |problem| Unreadable::Corrupt(problem).into_error(disk, name);
        let file_bytes = disk.length(&file).map_err(&failed)?;
        let least = (HEADER_BYTES_MIN + FOOTER_BYTES) as u64;
        if file_bytes < least {
            return Err(corrupt(unexpected("length of the file", least, file_bytes)));
        }
        let mut bytes = vec![0; HEADER_BYTES_MIN];
        disk.read_at(&file, &mut bytes, 0).map_err(&failed)?;
        let (_, mut length) = bytes.split_at(16);
        let length = length.get_u32_le() as usize;
        let longest = HEADER_BYTES_MAX.min((file_bytes - FOOTER_BYTES as u64) as usize);
        // A length that makes no sense is what the checksum of the least header then finds.
        let is_longer = length > HEADER_BYTES_MIN && length <= longest;
        if is_longer && length.is_multiple_of(HEADER_BYTES_MIN) {
            bytes.resize(length, 0);
            disk.read_at(&file, &mut bytes, 0).map_err(&failed)?;
        }
        let header =
            SnapshotHeader::decode(&bytes).map_err(|error| error.into_error(disk, name))?;
        if length != bytes.len() {
            let problem = unexpected("length of the header", bytes.len() as u64, length as u64);
            return Err(corrupt(problem));
        }
        let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
        digest.update(&bytes);
        Ok(FileReader {
            file,
            name: name.to_owned(),
            file_bytes,
            header,
            first_block: length as u64,
            offset: length as u64,
            blocks: 0,
            content_bytes: 0,
            digest,
            checksum: None,
            reading,
            spare: BytesMut::new(),
        })
    }

    /// How many bytes the contents of the blocks have together, up to where it was read.
    pub(crate) fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    pub(crate) fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    pub(crate) fn file(&self) -> &F {
        &self.file
    }

    pub(crate) fn into_file(self) -> F {
        self.file
    }

    /// Up to where the file is known to be whole.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The content of the next block; `None` behind the last, once the footer is verified too.
    pub(crate) fn next<D: Disk<File = F>>(&mut self, disk: &D) -> Result<Option<Bytes>, Error> {
        if self.checksum.is_some() {
            return Ok(None);
        }
        let left = self.file_bytes - self.offset;
        let mut part = std::mem::take(&mut self.spare);
        part.resize(left.min(SNAPSHOT_BLOCK_BYTES as u64) as usize, 0);
        match self.reading {
            Reading::Cached => disk.read_at(&self.file, &mut part, self.offset),
            Reading::PastCache => disk.read_past_cache_at(&self.file, &mut part, self.offset),
        }
        .map_err(Error::io(disk, &self.name, "read"))?;
        let bytes = part.split().freeze();
        self.spare = part;
        self.take(bytes).map_err(|problem| Error::Corrupt {
            file: disk.path().join(&self.name),
            offset: self.offset,
            problem,
        })
    }

    /// Reads what is left. Returns the checksum over all.
    pub(crate) fn verify<D: Disk<File = F>>(&mut self, disk: &D) -> Result<u64, Error> {
        while self.next(disk)?.is_some() {}
        Ok(self.checksum.expect("the footer was reached"))
    }

    /// Takes the block or the footer at the start of these bytes.
    fn take(&mut self, bytes: Bytes) -> Result<Option<Bytes>, Problem> {
        let Some(header) = bytes.first_chunk::<BLOCK_HEADER_BYTES>() else {
            return Err(unexpected(
                "length of the file",
                self.offset + FOOTER_BYTES as u64,
                self.file_bytes,
            ));
        };
        let mut fields = &header[..];
        let expected = fields.get_u32_le();
        let content_bytes = fields.get_u32_le() as usize;
        let number = fields.get_u64_le();
        if content_bytes == 0 {
            self.take_footer(&bytes)?;
            return Ok(None);
        }
        let block_bytes = BLOCK_HEADER_BYTES + content_bytes;
        let Some(block) = bytes.get(..block_bytes) else {
            return Err(unexpected(
                "block's length",
                (bytes.len() - BLOCK_HEADER_BYTES) as u64,
                content_bytes as u64,
            ));
        };
        let (_, covered) = block.split_at(4);
        let found = checksum(ALL_ONES, covered);
        if found != expected && !mutants::is_on(Mutant::BadBlockAccepted) {
            return Err(Problem::Checksum { expected, found });
        }
        must_be("block's number", self.blocks, number)?;
        // Only the last block may be shorter.
        let place = self.first_block + number * SNAPSHOT_BLOCK_BYTES as u64;
        must_be("block's place", place, self.offset)?;
        self.digest.update(block);
        self.blocks += 1;
        self.content_bytes += content_bytes as u64;
        self.offset += block_bytes as u64;
        Ok(Some(bytes.slice(BLOCK_HEADER_BYTES..block_bytes)))
    }

    fn take_footer(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        let end = self.offset + FOOTER_BYTES as u64;
        let Some(bytes) = bytes.first_chunk() else {
            return Err(unexpected("length of the file", end, self.file_bytes));
        };
        let footer = Footer::decode(bytes)?;
        must_be("count of blocks", footer.blocks, self.blocks)?;
        must_be(
            "length of all contents",
            footer.content_bytes,
            self.content_bytes,
        )?;
        must_be("length of the file", footer.file_bytes, self.file_bytes)?;
        must_be("length of the file", end, self.file_bytes)?;
        let checksum = self.digest.finalize();
        must_be("checksum over all", footer.checksum, checksum)?;
        self.checksum = Some(checksum);
        self.offset = end;
        Ok(())
    }
}

/// What the footer of an open file says that the checksum over all is, without a look at the rest.
pub(crate) fn footer_checksum<D: Disk>(disk: &D, name: &str, file: &D::File) -> Result<u64, Error> {
    let failed = Error::io(disk, name, "read");
    let file_bytes = disk.length(file).map_err(&failed)?;
    let offset = file_bytes.saturating_sub(FOOTER_BYTES as u64);
    let mut bytes = [0; FOOTER_BYTES];
    disk.read_at(file, &mut bytes, offset).map_err(&failed)?;
    let footer = Footer::decode(&bytes);
    let footer = footer.map_err(|problem| Error::Corrupt {
        file: disk.path().join(name),
        offset,
        problem,
    })?;
    Ok(footer.checksum)
}

/// The name of the snapshot up to this position.
pub(crate) fn snapshot_name(position: Position) -> String {
    format!("{}.snap", stem(position))
}

/// What all names of this snapshot begin with.
pub(crate) fn stem(position: Position) -> String {
    format!("snap-{:016x}-{:016x}", position.index.0, position.term.0)
}

/// The position in a snapshot's name.
pub(crate) fn parse_snapshot_name(name: &str) -> Option<Position> {
    parse_stem(name.strip_suffix(".snap")?)
}

/// The position in what a snapshot's name begins with.
pub(crate) fn parse_stem(stem: &str) -> Option<Position> {
    let (index, term) = stem.strip_prefix("snap-")?.split_once('-')?;
    if index.len() != 16 || term.len() != 16 {
        return None;
    }
    Some(Position {
        term: Term(u64::from_str_radix(term, 16).ok()?),
        index: Index(u64::from_str_radix(index, 16).ok()?),
    })
}

fn must_be(what: &'static str, expected: u64, found: u64) -> Result<(), Problem> {
    if expected == found {
        return Ok(());
    }
    Err(unexpected(what, expected, found))
}

fn unexpected(what: &'static str, expected: u64, found: u64) -> Problem {
    Problem::Unexpected {
        what,
        expected,
        found,
    }
}
