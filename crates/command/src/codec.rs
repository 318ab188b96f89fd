//! The payload of a command entry: what the leader put together in one turn. Long-lived, so laid
//! out by hand; all numbers are little-endian.
//!
//! ```text
//! version 1 (u8) | log time, ms (u64) | item bytes max (u32) | commands (u16) | commands
//! version 2 (u8) | log time, ms (u64) | item bytes max (u32) | mark | commands (u16) | commands
//! version 3 (u8) | log time, ms (u64) | item bytes max (u32) | limit | commands (u16) | commands
//! version 4 (u8) | log time, ms (u64) | item bytes max (u32) | limit | mark | commands (u16) |
//!                commands
//! limit          memory limit, bytes (u64)
//! mark           function (u8) | index (u64) | hash (u64)
//! ```
//! Without a limit it is 0, and so the payload of a cluster that has none is one that older releases
//! read.
//!
//! Each command is its code (u8) and its operands:
//!
//! ```text
//!  1 set, 2 add, 3 replace, 4 append, 5 prepend    key | flags (u32) | exptime (i32) | value
//!  6 cas          unique (u64) | key | flags (u32) | exptime (i32) | value
//! 16 delete       key
//! 17 incr         key | delta (u64)
//! 18 decr         key | delta (u64)
//! 19 touch        key | exptime (i32)
//! 20 gat          exptime (i32) | keys (u32) | each key
//! 21 flush_all    delay (i32)
//! 22 cache_memlimit   MiB (u32)
//! key             length, 1 to 250 (u8) | bytes
//! value           length (u32) | bytes
//! ```
//! Codes 32 to 63 are the meta commands' (`codec_meta`), 64 to 95 those of topics (`codec_topic`).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::codec_meta::{encode_meta, meta_bytes};
use crate::codec_topic::{encode_topic, topic_bytes};
use crate::{Direction, Exptime, Key, LogTime, Store, StoreMode, Write};

const VERSION: u8 = 1;

/// With a mark.
const VERSION_MARKED: u8 = 2;

/// With a memory limit.
const VERSION_LIMITED: u8 = 3;

/// With a memory limit and a mark.
const VERSION_LIMITED_MARKED: u8 = 4;

/// version, log time, item bytes max, commands.
const HEADER_BYTES: usize = 1 + 8 + 4 + 2;

/// The memory limit.
const LIMIT_BYTES: usize = 8;

/// function, index, hash.
const MARK_BYTES: usize = 1 + 8 + 8;

/// The most that one payload holds, header included, but for a single larger command.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;

/// The most commands in one payload: a place must fit into 16 bits of a unique (rule 57).
pub const ENTRY_COMMANDS_MAX: u16 = u16::MAX;

mod code {
    pub(super) const SET: u8 = 1;
    pub(super) const ADD: u8 = 2;
    pub(super) const REPLACE: u8 = 3;
    pub(super) const APPEND: u8 = 4;
    pub(super) const PREPEND: u8 = 5;
    pub(super) const CAS: u8 = 6;
    pub(super) const DELETE: u8 = 16;
    pub(super) const INCREMENT: u8 = 17;
    pub(super) const DECREMENT: u8 = 18;
    pub(super) const TOUCH: u8 = 19;
    pub(super) const GET_AND_TOUCH: u8 = 20;
    pub(super) const FLUSH_ALL: u8 = 21;
    pub(super) const MEMORY_LIMIT: u8 = 22;
}

/// What the leader says for all commands of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// The stamp of the leader's clock (rule 48).
    pub log_time: LogTime,
    /// The largest item (key + value + 56) that append and prepend may make: the leader's own
    /// setting, so that all servers judge by the same one (rule 47).
    pub item_bytes_max: u32,
    /// The leader's setting for how much all items may take together, in bytes; 0 for no limit.
    pub memory_limit_bytes: u64,
    /// All servers are to hash the state behind this entry, and to compare what they had before.
    pub mark: Option<Mark>,
}

/// What the hash of the state behind an entry is on most servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which function it is: others can't be compared.
    pub function: u8,
    /// The entry; 0 if there is no hash to be compared.
    pub index: u64,
    pub hash: u64,
}

/// Why bytes are no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    #[error("payload version {found} is unknown")]
    Version { found: u8 },
    #[error("payload ends within its header or command {place}")]
    Truncated { place: u16 },
    #[error("code {found} of command {place} is unknown")]
    Code { place: u16, found: u8 },
    #[error("command {place} has a key of {length} bytes")]
    KeyLength { place: u16, length: u8 },
    #[error("{bytes} bytes follow the last command")]
    Trailing { bytes: usize },
}

/// Puts a payload together, command by command.
#[derive(Debug)]
pub struct PayloadEncoder {
    /// The header, its fields 0 until `finish`, then the commands.
    bytes: BytesMut,
    commands: u16,
}

impl Default for PayloadEncoder {
    fn default() -> PayloadEncoder {
        PayloadEncoder::new()
    }
}

impl PayloadEncoder {
    #[must_use]
    pub fn new() -> PayloadEncoder {
        PayloadEncoder {
            bytes: BytesMut::zeroed(HEADER_BYTES),
            commands: 0,
        }
    }

    /// How many commands were pushed.
    #[must_use]
    pub fn commands(&self) -> u16 {
        self.commands
    }

    /// The size of the payload as it stands, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// True if `write` may go into this payload: any into an empty one, else what keeps it within
    /// `ENTRY_BYTES_MAX` and `ENTRY_COMMANDS_MAX`.
    #[must_use]
    pub fn fits(&self, write: &Write) -> bool {
        self.commands == 0
            || (self.commands < ENTRY_COMMANDS_MAX
                && self.bytes.len() + encoded_bytes(write) <= ENTRY_BYTES_MAX)
    }

    /// Adds a command and answers its place in the entry, from 0.
    ///
    /// # Panics
    /// If `ENTRY_COMMANDS_MAX` commands are in it already.
    pub fn push(&mut self, write: &Write) -> u16 {
        assert!(
            self.commands < ENTRY_COMMANDS_MAX,
            "an entry has {} commands already",
            self.commands
        );
        encode(write, &mut self.bytes);
        self.commands += 1;
        self.commands - 1
    }

    /// The payload with everything pushed since the last call; the encoder is empty again.
    #[must_use]
    pub fn finish(&mut self, preamble: &Preamble) -> Bytes {
        let mut payload = self.bytes.split();
        let limit = (preamble.memory_limit_bytes > 0).then_some(preamble.memory_limit_bytes);
        let version = match (limit, preamble.mark) {
            (None, None) => VERSION,
            (None, Some(_)) => VERSION_MARKED,
            (Some(_), None) => VERSION_LIMITED,
            (Some(_), Some(_)) => VERSION_LIMITED_MARKED,
        };
        let more_bytes = header_bytes(version).unwrap_or(HEADER_BYTES) - HEADER_BYTES;
        if more_bytes > 0 {
            let mut longer = BytesMut::with_capacity(more_bytes + payload.len());
            longer.put_bytes(0, more_bytes);
            longer.put_slice(&payload);
            payload = longer;
        }
        let mut header = &mut payload[..];
        header.put_u8(version);
        header.put_u64_le(preamble.log_time.0);
        header.put_u32_le(preamble.item_bytes_max);
        if let Some(limit) = limit {
            header.put_u64_le(limit);
        }
        if let Some(mark) = preamble.mark {
            header.put_u8(mark.function);
            header.put_u64_le(mark.index);
            header.put_u64_le(mark.hash);
        }
        header.put_u16_le(self.commands);
        self.commands = 0;
        self.bytes.put_bytes(0, HEADER_BYTES);
        payload.freeze()
    }
}

/// The bytes that `write` takes in a payload.
#[must_use]
pub fn encoded_bytes(write: &Write) -> usize {
    let key_bytes = |key: &Key| 1 + key.as_bytes().len();
    1 + match write {
        Write::Store(store) => {
            let unique = match store.mode {
                StoreMode::Cas(_) => 8,
                _ => 0,
            };
            unique + key_bytes(&store.key) + 4 + 4 + 4 + store.value.len()
        }
        Write::Delete { key } => key_bytes(key),
        Write::Arithmetic { key, .. } => key_bytes(key) + 8,
        Write::Touch { key, .. } => key_bytes(key) + 4,
        Write::GetAndTouch { keys, .. } => 4 + 4 + keys.iter().map(key_bytes).sum::<usize>(),
        Write::FlushAll { .. } | Write::MemoryLimit { .. } => 4,
        Write::MetaGet(_) | Write::MetaSet(_) | Write::MetaDelete(_) | Write::MetaArithmetic(_) => {
            meta_bytes(write)
        }
        Write::Topic(write) => topic_bytes(write),
    }
}

fn encode(write: &Write, bytes: &mut BytesMut) {
    bytes.reserve(encoded_bytes(write));
    match write {
        Write::Store(store) => encode_store(store, bytes),
        Write::Delete { key } => {
            bytes.put_u8(code::DELETE);
            encode_key(key, bytes);
        }
        Write::Arithmetic {
            key,
            direction,
            delta,
        } => {
            bytes.put_u8(match direction {
                Direction::Increment => code::INCREMENT,
                Direction::Decrement => code::DECREMENT,
            });
            encode_key(key, bytes);
            bytes.put_u64_le(*delta);
        }
        Write::Touch { key, exptime } => {
            bytes.put_u8(code::TOUCH);
            encode_key(key, bytes);
            bytes.put_i32_le(exptime.0);
        }
        Write::GetAndTouch { keys, exptime } => {
            bytes.put_u8(code::GET_AND_TOUCH);
            bytes.put_i32_le(exptime.0);
            bytes.put_u32_le(u32::try_from(keys.len()).expect("a line is shorter than 4 GiB"));
            for key in keys {
                encode_key(key, bytes);
            }
        }
        Write::FlushAll { delay } => {
            bytes.put_u8(code::FLUSH_ALL);
            bytes.put_i32_le(delay.0);
        }
        Write::MemoryLimit { mib } => {
            bytes.put_u8(code::MEMORY_LIMIT);
            bytes.put_u32_le(*mib);
        }
        Write::MetaGet(_) | Write::MetaSet(_) | Write::MetaDelete(_) | Write::MetaArithmetic(_) => {
            encode_meta(write, bytes);
        }
        Write::Topic(write) => encode_topic(write, bytes),
    }
}

fn encode_store(store: &Store, bytes: &mut BytesMut) {
    match store.mode {
        StoreMode::Set => bytes.put_u8(code::SET),
        StoreMode::Add => bytes.put_u8(code::ADD),
        StoreMode::Replace => bytes.put_u8(code::REPLACE),
        StoreMode::Append => bytes.put_u8(code::APPEND),
        StoreMode::Prepend => bytes.put_u8(code::PREPEND),
        StoreMode::Cas(unique) => {
            bytes.put_u8(code::CAS);
            bytes.put_u64_le(unique);
        }
    }
    encode_key(&store.key, bytes);
    bytes.put_u32_le(store.flags);
    bytes.put_i32_le(store.exptime.0);
    bytes.put_u32_le(u32::try_from(store.value.len()).expect("a value is shorter than 4 GiB"));
    bytes.put_slice(&store.value);
}

pub(crate) fn encode_key(key: &Key, bytes: &mut BytesMut) {
    let key = key.as_bytes();
    bytes.put_u8(u8::try_from(key.len()).expect("a key has at most 250 bytes"));
    bytes.put_slice(key);
}

/// The length of the header of a payload of this version; `None` if there is no such version.
fn header_bytes(version: u8) -> Option<usize> {
    match version {
        VERSION => Some(HEADER_BYTES),
        VERSION_MARKED => Some(HEADER_BYTES + MARK_BYTES),
        VERSION_LIMITED => Some(HEADER_BYTES + LIMIT_BYTES),
        VERSION_LIMITED_MARKED => Some(HEADER_BYTES + LIMIT_BYTES + MARK_BYTES),
        _ => None,
    }
}

/// The header of a payload, and the commands behind it.
///
/// # Errors
/// If it is of an unknown version, or has no whole header.
pub fn decode(mut payload: Bytes) -> Result<(Preamble, Commands), CodecError> {
    let truncated = CodecError::Truncated { place: 0 };
    let version = *payload.first().ok_or(truncated)?;
    let header_bytes = header_bytes(version).ok_or(CodecError::Version { found: version })?;
    let is_limited = matches!(version, VERSION_LIMITED | VERSION_LIMITED_MARKED);
    let is_marked = matches!(version, VERSION_MARKED | VERSION_LIMITED_MARKED);
    if payload.len() < header_bytes {
        return Err(truncated);
    }
    let mut header = payload.split_to(header_bytes);
    header.advance(1);
    let preamble = Preamble {
        log_time: LogTime(header.get_u64_le()),
        item_bytes_max: header.get_u32_le(),
        memory_limit_bytes: if is_limited { header.get_u64_le() } else { 0 },
        mark: is_marked.then(|| Mark {
            function: header.get_u8(),
            index: header.get_u64_le(),
            hash: header.get_u64_le(),
        }),
    };
    let commands = Commands {
        rest: payload,
        place: 0,
        count: header.get_u16_le(),
    };
    Ok((preamble, commands))
}

/// The commands of a payload in order, decoded as they are asked for; keys and values share the
/// payload's memory. The iterator ends after the first error.
#[derive(Clone, Debug)]
pub struct Commands {
    rest: Bytes,
    /// Of the next command.
    place: u16,
    count: u16,
}

impl Commands {
    /// How many commands there are in all, by the header.
    #[must_use]
    pub fn total(&self) -> u16 {
        self.count
    }
}

impl Iterator for Commands {
    type Item = Result<Write, CodecError>;

    fn next(&mut self) -> Option<Result<Write, CodecError>> {
        if self.place == self.count {
            let bytes = self.rest.len();
            self.rest = Bytes::new();
            return (bytes > 0).then_some(Err(CodecError::Trailing { bytes }));
        }
        let mut reader = Reader {
            rest: &mut self.rest,
            place: self.place,
        };
        let write = reader.write();
        match write {
            Ok(_) => self.place += 1,
            Err(_) => {
                self.rest = Bytes::new();
                self.place = self.count;
            }
        }
        Some(write)
    }
}

/// Takes a command off the front of `rest`.
pub(crate) struct Reader<'a> {
    rest: &'a mut Bytes,
    place: u16,
}

impl Reader<'_> {
    fn write(&mut self) -> Result<Write, CodecError> {
        let code = self.u8()?;
        Ok(match code {
            code::SET => self.store(StoreMode::Set)?,
            code::ADD => self.store(StoreMode::Add)?,
            code::REPLACE => self.store(StoreMode::Replace)?,
            code::APPEND => self.store(StoreMode::Append)?,
            code::PREPEND => self.store(StoreMode::Prepend)?,
            code::CAS => {
                let unique = self.u64()?;
                self.store(StoreMode::Cas(unique))?
            }
            code::DELETE => Write::Delete { key: self.key()? },
            code::INCREMENT => self.arithmetic(Direction::Increment)?,
            code::DECREMENT => self.arithmetic(Direction::Decrement)?,
            code::TOUCH => Write::Touch {
                key: self.key()?,
                exptime: self.exptime()?,
            },
            code::GET_AND_TOUCH => self.get_and_touch()?,
            code::FLUSH_ALL => Write::FlushAll {
                delay: self.exptime()?,
            },
            code::MEMORY_LIMIT => Write::MemoryLimit { mib: self.u32()? },
            found => {
                if let Some(write) = self.topic(found)? {
                    return Ok(Write::Topic(write));
                }
                let meta = self.meta(found)?;
                return meta.ok_or_else(|| self.unknown_code(found));
            }
        })
    }

    fn store(&mut self, mode: StoreMode) -> Result<Write, CodecError> {
        let key = self.key()?;
        let flags = self.u32()?;
        let exptime = self.exptime()?;
        let length = self.u32()?;
        let value = self.take(length as usize)?;
        Ok(Write::Store(Store {
            mode,
            key,
            flags,
            exptime,
            value,
        }))
    }

    fn arithmetic(&mut self, direction: Direction) -> Result<Write, CodecError> {
        Ok(Write::Arithmetic {
            key: self.key()?,
            direction,
            delta: self.u64()?,
        })
    }

    fn get_and_touch(&mut self) -> Result<Write, CodecError> {
        let exptime = self.exptime()?;
        let count = self.u32()? as usize;
        // Each key takes at least two bytes, so that a wrong count can't claim more memory than
        // there are bytes.
        let mut keys = Vec::with_capacity(count.min(self.rest.len() / 2));
        for _ in 0..count {
            keys.push(self.key()?);
        }
        Ok(Write::GetAndTouch { keys, exptime })
    }

    pub(crate) fn key(&mut self) -> Result<Key, CodecError> {
        let length = self.u8()?;
        let bytes = self.take(usize::from(length))?;
        let place = self.place;
        Key::new(bytes).ok_or(CodecError::KeyLength { place, length })
    }

    pub(crate) fn exptime(&mut self) -> Result<Exptime, CodecError> {
        let value = self.rest.try_get_i32_le();
        value.map(Exptime).map_err(|_| self.truncated())
    }

    pub(crate) fn u8(&mut self) -> Result<u8, CodecError> {
        self.rest.try_get_u8().map_err(|_| self.truncated())
    }

    pub(crate) fn u32(&mut self) -> Result<u32, CodecError> {
        self.rest.try_get_u32_le().map_err(|_| self.truncated())
    }

    pub(crate) fn u64(&mut self) -> Result<u64, CodecError> {
        self.rest.try_get_u64_le().map_err(|_| self.truncated())
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<Bytes, CodecError> {
        if self.rest.len() < length {
            return Err(self.truncated());
        }
        Ok(self.rest.split_to(length))
    }

    pub(crate) fn unknown_code(&self, found: u8) -> CodecError {
        let place = self.place;
        CodecError::Code { place, found }
    }

    fn truncated(&self) -> CodecError {
        CodecError::Truncated { place: self.place }
    }
}
