//! One record of the log, and a batch of them: how they are laid out. Where they go is
//! `segment.rs`, what a bad one means is `recover.rs`.
//!
//! ```text
//! header, 48 bytes
//!      0  u32  CRC-32C of bytes 4 to 47
//!      4  u32  length of the payload
//!      8  u8   version, 1
//!      9  u8   kind: 1 entry, 2 hard state, 3 truncate, 4 end of the segment,
//!              5 recovering, 6 recovered (these two are reserved)
//!     10  u8   flags: bit 7 is set in the last record of a batch; bits 0 to 3 are the kind of an
//!              entry, 0 in other records
//!     11  u8   0
//!     12  u16  zero parts: how many of the record's sector parts are all zeros by content
//!     14  u16  0
//!     16  u32  CRC-32C of the payload
//!     20  u32  0
//!     24  u64  batch: 1, 2, 3 ... through all segments, one for each sync
//!     32  u64  term
//!     40  u64  index
//! payload, then zeros up to a multiple of 8 bytes
//! ```
//! All numbers are little-endian. A record starts at a multiple of 8, and where its header would
//! reach into the next sector of 512 bytes, at that sector, with zeros before it: so a header is
//! on the disk or it is not, and a payload whose sectors did not all reach the disk has zeros
//! where the others should be. Both checksums start from the segment's salt in place of all ones,
//! so that bytes of another segment never pass.
//!
//! Term and index are those of an entry; of the last entry that stays in a truncate record; of
//! the last entry in the end of a segment; in a hard state its term and 0. The payload of a hard
//! state is
//!
//! ```text
//! voted for, 0 for nobody (u64) | seating: 0 unseated, 1 met, 2 seated (u64)
//! cluster, 0 unless met or seated (u64) | configuration index, 0 unless seated (u64)
//! ```

use std::ops::Range;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest};
use raft::{ClusterId, EntryKind, HardState, Index, Position, Seating, ServerId, Term};

/// The length of a record's header.
pub const HEADER_BYTES: usize = 48;
/// The largest payload of an entry.
pub const ENTRY_BYTES_MAX: usize = 16 << 20;
/// What a disk writes wholly or not at all.
pub const SECTOR_BYTES: usize = 512;

pub(crate) const VERSION: u8 = 1;
const LAST: u8 = 0x80;
const ENTRY_KIND: u8 = 0x0f;
const HARD_STATE_BYTES: usize = 32;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Entry(EntryKind),
    HardState,
    /// Entries behind this position were superseded.
    Truncate,
    /// The log goes on in the next segment.
    SegmentEnd,
    /// Reserved: this server lost what it may have acknowledged.
    Recovering,
    /// Reserved: it has everything again.
    Recovered,
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    /// No record of the same batch follows.
    pub last: bool,
    /// How many of the record's sector parts are all zeros by content.
    pub zero_parts: u16,
    /// At most `ENTRY_BYTES_MAX`.
    pub payload_bytes: u32,
    pub payload_checksum: u32,
    pub batch: u64,
    pub position: Position,
}

/// Why 48 bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// Nothing was written here, or it did not reach the disk.
    Zeros,
    Checksum {
        expected: u32,
        found: u32,
    },
    /// The checksum is right, and another release wrote it.
    Version(u8),
    /// The checksum is right, and this field has a value that it can't have.
    Field {
        what: &'static str,
        expected: u64,
        found: u64,
    },
}

impl Header {
    /// The 48 bytes of this header in a segment with this salt.
    #[must_use]
    pub fn encode(&self, salt: u32) -> [u8; HEADER_BYTES] {
        let (kind, flags) = self.kind.encode();
        let mut header = [0; HEADER_BYTES];
        let (checksum_bytes, covered) = header.split_at_mut(4);
        let mut fields = &mut *covered;
        fields.put_u32_le(self.payload_bytes);
        fields.put_u8(VERSION);
        fields.put_u8(kind);
        fields.put_u8(flags | if self.last { LAST } else { 0 });
        fields.put_u8(0);
        fields.put_u16_le(self.zero_parts);
        fields.put_u16_le(0);
        fields.put_u32_le(self.payload_checksum);
        fields.put_u32_le(0);
        fields.put_u64_le(self.batch);
        fields.put_u64_le(self.position.term.0);
        fields.put_u64_le(self.position.index.0);
        checksum_bytes.copy_from_slice(&checksum(salt, covered).to_le_bytes());
        header
    }

    /// The header with these bytes in a segment with this salt.
    ///
    /// # Errors
    /// Why they are none.
    pub fn decode(bytes: &[u8; HEADER_BYTES], salt: u32) -> Result<Header, Invalid> {
        if is_zero(bytes) {
            return Err(Invalid::Zeros);
        }
        let (mut expected, covered) = bytes.split_at(4);
        let expected = expected.get_u32_le();
        let found = checksum(salt, covered);
        if found != expected {
            return Err(Invalid::Checksum { expected, found });
        }
        let mut fields = covered;
        let payload_bytes = fields.get_u32_le();
        let version = fields.get_u8();
        let kind = fields.get_u8();
        let flags = fields.get_u8();
        let reserved_1 = fields.get_u8();
        let zero_parts = fields.get_u16_le();
        let reserved_2 = fields.get_u16_le();
        let payload_checksum = fields.get_u32_le();
        let reserved_3 = fields.get_u32_le();
        let batch = fields.get_u64_le();
        let position = Position {
            term: Term(fields.get_u64_le()),
            index: Index(fields.get_u64_le()),
        };
        if version != VERSION {
            return Err(Invalid::Version(version));
        }
        let kind = Kind::decode(kind, flags & !LAST)?;
        let reserved = u32::from(reserved_1) | u32::from(reserved_2) | reserved_3;
        must_be("record's unused bytes", 0, reserved.into())?;
        if payload_bytes as usize > ENTRY_BYTES_MAX {
            return Err(Invalid::Field {
                what: "record's length",
                expected: ENTRY_BYTES_MAX as u64,
                found: payload_bytes.into(),
            });
        }
        Ok(Header {
            kind,
            last: flags & LAST != 0,
            zero_parts,
            payload_bytes,
            payload_checksum,
            batch,
            position,
        })
    }

    /// Bytes of the whole record with its padding.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        HEADER_BYTES + (self.payload_bytes as usize).next_multiple_of(8)
    }
}

impl Kind {
    /// The two bytes of this kind: its code, and the flags that say more.
    fn encode(self) -> (u8, u8) {
        match self {
            Kind::Entry(kind) => (1, kind as u8),
            Kind::HardState => (2, 0),
            Kind::Truncate => (3, 0),
            Kind::SegmentEnd => (4, 0),
            Kind::Recovering => (5, 0),
            Kind::Recovered => (6, 0),
        }
    }

    fn decode(code: u8, flags: u8) -> Result<Kind, Invalid> {
        let kind = match code {
            1 => EntryKind::from_code(flags & ENTRY_KIND).map(Kind::Entry),
            2 => Some(Kind::HardState),
            3 => Some(Kind::Truncate),
            4 => Some(Kind::SegmentEnd),
            5 => Some(Kind::Recovering),
            6 => Some(Kind::Recovered),
            _ => None,
        };
        let kind = kind.ok_or(Invalid::Field {
            what: "record's kind",
            expected: 1,
            found: code.into(),
        })?;
        must_be("record's flags", kind.encode().1.into(), flags.into())?;
        Ok(kind)
    }
}

fn must_be(what: &'static str, expected: u64, found: u64) -> Result<(), Invalid> {
    if expected == found {
        return Ok(());
    }
    Err(Invalid::Field {
        what,
        expected,
        found,
    })
}

/// One record that is to be written.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) position: Position,
    pub(crate) payload: Bytes,
}

impl Record {
    pub(crate) fn hard_state(hard_state: &HardState) -> Record {
        Record {
            kind: Kind::HardState,
            position: Position {
                term: hard_state.term,
                index: Index(0),
            },
            payload: encode_hard_state(hard_state),
        }
    }

    /// The most that this record can take up, with the zeros before it.
    pub(crate) fn bytes_max(&self) -> u64 {
        (2 * HEADER_BYTES + self.payload.len().next_multiple_of(8)) as u64
    }
}

/// Lays records out as one batch that starts at `offset` of a segment, and adds the bytes to
/// `out`. Returns where each record starts. The offset is a multiple of 8.
pub(crate) fn lay_out(
    records: &[Record],
    batch: u64,
    salt: u32,
    offset: u64,
    chain: &mut Chain,
    out: &mut Vec<u8>,
) -> Vec<u64> {
    let base = out.len();
    let mut starts = Vec::with_capacity(records.len());
    for (at, record) in records.iter().enumerate() {
        let end = offset + (out.len() - base) as u64;
        let start = header_start(end);
        let header = Header {
            kind: record.kind,
            last: at + 1 == records.len(),
            zero_parts: zero_parts(start, &record.payload),
            payload_bytes: u32::try_from(record.payload.len())
                .expect("append takes no payload over ENTRY_BYTES_MAX"),
            payload_checksum: checksum(salt, &record.payload),
            batch,
            position: record.position,
        };
        out.resize(out.len() + (start - end) as usize, 0);
        let header = header.encode(salt);
        chain.add(&header);
        out.extend_from_slice(&header);
        out.extend_from_slice(&record.payload);
        let padding = record.payload.len().next_multiple_of(8) - record.payload.len();
        out.resize(out.len() + padding, 0);
        starts.push(start);
    }
    starts
}

/// What all records of the log up to some place add up to, so that the next segment can say which
/// one it belongs to: 0, then for each record the CRC-32C of its header's checksum, which covers
/// that of its payload, started from the sum before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain(pub(crate) u32);

impl Chain {
    pub(crate) fn add(&mut self, header: &[u8; HEADER_BYTES]) {
        let (header_checksum, _) = header.split_at(4);
        self.0 = checksum(self.0, header_checksum);
    }
}

/// Where the record behind `end` starts: there, or at the next sector if its header would reach
/// into that.
pub(crate) fn header_start(end: u64) -> u64 {
    let sector_bytes = SECTOR_BYTES as u64;
    let left = sector_bytes - end % sector_bytes;
    if left < HEADER_BYTES as u64 {
        end + left
    } else {
        end
    }
}

/// How many sector parts of a record that starts at `start` are all zeros. The part with the
/// header never is, and padding never has a part to itself.
pub(crate) fn zero_parts(start: u64, payload: &[u8]) -> u16 {
    let before = start as usize % SECTOR_BYTES + HEADER_BYTES;
    let beside_header = (SECTOR_BYTES - before).min(payload.len());
    let (_, rest) = payload.split_at(beside_header);
    let zero = rest.chunks(SECTOR_BYTES).filter(|part| is_zero(part));
    u16::try_from(zero.count()).expect("a payload has at most ENTRY_BYTES_MAX / 512 parts")
}

/// The CRC-32C of these bytes, started from `salt`.
pub(crate) fn checksum(salt: u32, bytes: &[u8]) -> u32 {
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, salt.into());
    digest.update(bytes);
    u32::try_from(digest.finalize()).expect("this checksum has 32 bits")
}

/// True if there is nothing but zeros.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Looking at 64 bytes at a time lets the compiler use wide registers.
    let mut chunks = bytes.chunks_exact(64);
    chunks.all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
        && chunks.remainder().iter().all(|byte| *byte == 0)
}

/// Where in a sector there may be a header: at every multiple of 8 that leaves room for it.
pub(crate) fn header_places(sector: &[u8]) -> impl Iterator<Item = &[u8; HEADER_BYTES]> {
    let places: Range<usize> = 0..sector.len().saturating_sub(HEADER_BYTES) + 1;
    places
        .step_by(8)
        .filter_map(move |at| sector.get(at..)?.first_chunk())
}

fn encode_hard_state(hard_state: &HardState) -> Bytes {
    let (seating, cluster, configuration_index) = match hard_state.seating {
        Seating::Unseated => (0, ClusterId(0), Index(0)),
        Seating::Met(cluster) => (1, cluster, Index(0)),
        Seating::Seated {
            cluster,
            configuration_index,
        } => (2, cluster, configuration_index),
    };
    let mut payload = BytesMut::with_capacity(HARD_STATE_BYTES);
    payload.put_u64_le(hard_state.voted_for.map_or(0, |server| server.0));
    payload.put_u64_le(seating);
    payload.put_u64_le(cluster.0);
    payload.put_u64_le(configuration_index.0);
    payload.freeze()
}

/// The hard state of this term with this payload; `None` if it is none.
#[must_use]
pub fn decode_hard_state(term: Term, payload: &[u8]) -> Option<HardState> {
    if payload.len() != HARD_STATE_BYTES {
        return None;
    }
    let mut fields = payload;
    let voted_for = fields.get_u64_le();
    let seating = fields.get_u64_le();
    let cluster = ClusterId(fields.get_u64_le());
    let configuration_index = Index(fields.get_u64_le());
    let seating = match (seating, cluster.0, configuration_index.0) {
        (0, 0, 0) => Seating::Unseated,
        (1, 1.., 0) => Seating::Met(cluster),
        (2, 1.., _) => Seating::Seated {
            cluster,
            configuration_index,
        },
        _ => return None,
    };
    Some(HardState {
        term,
        voted_for: (voted_for != 0).then_some(ServerId(voted_for)),
        seating,
    })
}
