//! What is common to all frames, and a queue of encoded ones on their way to a socket.
//!
//! ```text
//! length of what follows (u32) | version (u8) | kind (u8) | group (u32) | body
//! ```
//! All numbers are little-endian. The version is 0 in the frames of the handshake, whose
//! layout never changes, and the one that the handshake agreed upon in all others.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::{GroupId, Index, Message};

use crate::codec;
use crate::forward::{PIECE_BYTES_MAX, Piece};
use crate::hello::{Answer, Hello, VERSIONS};
use crate::transfer::Transfer;

/// The longest frame, its length field not counted.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

/// The longest frame while nobody knows who is there.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 1 << 10;

/// The size of the length field before each frame.
pub const LENGTH_BYTES: usize = 4;

/// Version, kind and group.
const HEADER_BYTES: usize = 6;

/// A payload up to this size is copied behind the frame's header, a larger one is a chunk of its
/// own: one more piece in a vectored write costs about as much as copying this much.
const COPIED_BYTES_MAX: usize = 16 << 10;

const HANDSHAKE_VERSION: u8 = 0;

/// The kinds of frames.
const HELLO: u8 = 0;
const ANSWER: u8 = 1;
const APPEND_ENTRIES: u8 = 2;
const MESSAGE: u8 = 3;
const CLOCK: u8 = 4;
const INSTALL_SNAPSHOT: u8 = 5;
const TRANSFER_HELLO: u8 = 6;
const TRANSFER: u8 = 7;
const STATE_HASH: u8 = 8;
const FORWARD_HELLO: u8 = 9;
const FORWARD: u8 = 10;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Hello(Hello),
    Answer(Answer),
    Message(GroupId, Message),
    /// What the sender's wall clock shows: milliseconds since 1970.
    Clock(u64),
    /// What function number `function` makes of the sender's state behind the entry at `index`.
    StateHash {
        function: u8,
        index: Index,
        hash: u64,
    },
    /// A hello on a connection that is for the transfer of a snapshot.
    TransferHello(Hello),
    Transfer(Transfer),
    /// A hello on a connection that is for what clients of the caller ask for.
    ForwardHello(Hello),
    /// A part of such a message, or of an answer to it.
    Forward(Piece),
}

/// Why bytes are no frame. The connection that they came from is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a frame ends before its fields do")]
    Short,
    #[error("a frame of version {found}")]
    Version { found: u8 },
    #[error("a frame of unknown kind {found}")]
    Kind { found: u8 },
    #[error("a handshake by something else than a server of quorate")]
    Magic,
    #[error("a frame with a field that has no meaning")]
    Field,
    #[error("a frame with {found} bytes too many")]
    Trailing { found: usize },
    #[error("a message of more than {bytes_max} bytes")]
    Overlong { bytes_max: usize },
}

/// The frame with these bytes, its length field not among them. Payloads of entries are slices of
/// `bytes`, not copies.
///
/// # Errors
/// Why the bytes are no frame. Nothing is allocated in proportion to a number in them.
pub fn decode(mut bytes: Bytes) -> Result<Frame, Error> {
    let version = bytes.try_get_u8().map_err(|_| Error::Short)?;
    let kind = bytes.try_get_u8().map_err(|_| Error::Short)?;
    let group = GroupId(bytes.try_get_u32_le().map_err(|_| Error::Short)?);
    let of_handshake = matches!(kind, HELLO | ANSWER | TRANSFER_HELLO | FORWARD_HELLO);
    if of_handshake != (version == HANDSHAKE_VERSION)
        || !(of_handshake || VERSIONS.contains(&version))
    {
        return Err(Error::Version { found: version });
    }
    match kind {
        HELLO => Hello::decode(&mut bytes).map(Frame::Hello),
        ANSWER => Answer::decode(&mut bytes).map(Frame::Answer),
        TRANSFER_HELLO => Hello::decode(&mut bytes).map(Frame::TransferHello),
        TRANSFER => Transfer::decode(bytes).map(Frame::Transfer),
        FORWARD_HELLO => Hello::decode(&mut bytes).map(Frame::ForwardHello),
        FORWARD => Piece::decode(bytes).map(Frame::Forward),
        APPEND_ENTRIES => Ok(Frame::Message(group, codec::decode_append_entries(bytes)?)),
        MESSAGE => Ok(Frame::Message(group, codec::decode_message(&bytes)?)),
        INSTALL_SNAPSHOT => {
            let message = codec::decode_install_snapshot(bytes)?;
            Ok(Frame::Message(group, message))
        }
        CLOCK => match bytes.try_get_u64_le() {
            Err(_) => Err(Error::Short),
            Ok(_) if bytes.has_remaining() => Err(Error::Trailing { found: bytes.len() }),
            Ok(wall_ms) => Ok(Frame::Clock(wall_ms)),
        },
        STATE_HASH => decode_state_hash(bytes),
        found => Err(Error::Kind { found }),
    }
}

fn decode_state_hash(mut bytes: Bytes) -> Result<Frame, Error> {
    let frame = Frame::StateHash {
        function: bytes.try_get_u8().map_err(|_| Error::Short)?,
        index: Index(bytes.try_get_u64_le().map_err(|_| Error::Short)?),
        hash: bytes.try_get_u64_le().map_err(|_| Error::Short)?,
    };
    match bytes.len() {
        0 => Ok(frame),
        found => Err(Error::Trailing { found }),
    }
}

/// Encoded frames, each behind its length, in the order in which they were pushed. As a `Buf` it
/// is what is still to be written; large payloads are shared with whoever else holds them.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// All but the last bytes, none of them empty.
    chunks: VecDeque<Bytes>,
    /// The last bytes, still growing.
    tail: BytesMut,
    /// In `chunks` and `tail` together.
    remaining: usize,
}

impl Outgoing {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Outgoing {
        Outgoing::default()
    }

    /// Appends a message of the version that the handshake agreed upon.
    ///
    /// # Panics
    /// If the frame would be longer than `FRAME_BYTES_MAX`.
    pub fn push_message(&mut self, version: u8, group: GroupId, message: &Message) {
        assert!(
            VERSIONS.contains(&version),
            "version {version} was agreed upon"
        );
        if let Some(append) = codec::append_entries(message) {
            let length = codec::append_entries_bytes(append);
            self.header(version, APPEND_ENTRIES, group, length);
            codec::encode_append_entries(message, append, &mut self.tail);
            for entry in &append.entries {
                self.payload(&entry.payload);
            }
        } else if let Some(snapshot) = codec::install_snapshot(message) {
            let length = codec::install_snapshot_bytes(snapshot);
            self.header(version, INSTALL_SNAPSHOT, group, length);
            codec::encode_install_snapshot(message, snapshot, &mut self.tail);
        } else {
            let body = codec::encode_message(message);
            self.header(version, MESSAGE, group, body.len());
            self.tail.put_slice(&body);
        }
    }

    /// Appends what this server's wall clock shows, in milliseconds since 1970.
    ///
    /// # Panics
    /// If nobody speaks that version.
    pub fn push_clock(&mut self, version: u8, wall_ms: u64) {
        assert!(
            VERSIONS.contains(&version),
            "version {version} was agreed upon"
        );
        self.header(version, CLOCK, GroupId(0), size_of::<u64>());
        self.tail.put_u64_le(wall_ms);
    }

    /// Appends a hash of this server's state.
    ///
    /// # Panics
    /// If nobody speaks that version.
    pub fn push_state_hash(&mut self, version: u8, function: u8, index: Index, hash: u64) {
        assert!(
            VERSIONS.contains(&version),
            "version {version} was agreed upon"
        );
        self.header(version, STATE_HASH, GroupId(0), 1 + 8 + 8);
        self.tail.put_u8(function);
        self.tail.put_u64_le(index.0);
        self.tail.put_u64_le(hash);
    }

    /// Appends a `Hello`.
    pub fn push_hello(&mut self, hello: &Hello) {
        self.header(HANDSHAKE_VERSION, HELLO, GroupId(0), hello.bytes());
        hello.encode(&mut self.tail);
    }

    /// Appends a `Hello` of a connection that is for the transfer of a snapshot.
    pub fn push_transfer_hello(&mut self, hello: &Hello) {
        self.header(HANDSHAKE_VERSION, TRANSFER_HELLO, GroupId(0), hello.bytes());
        hello.encode(&mut self.tail);
    }

    /// Appends a step of such a transfer.
    ///
    /// # Panics
    /// If nobody speaks that version, or the frame would be longer than `FRAME_BYTES_MAX`.
    pub fn push_transfer(&mut self, version: u8, transfer: &Transfer) {
        assert!(
            VERSIONS.contains(&version),
            "version {version} was agreed upon"
        );
        self.header(version, TRANSFER, GroupId(0), transfer.bytes());
        transfer.encode(&mut self.tail);
        if let Transfer::Piece { bytes, .. } = transfer {
            self.payload(bytes);
        }
    }

    /// Appends a `Hello` of a connection that is for what clients of this server ask for.
    pub fn push_forward_hello(&mut self, hello: &Hello) {
        self.header(HANDSHAKE_VERSION, FORWARD_HELLO, GroupId(0), hello.bytes());
        hello.encode(&mut self.tail);
    }

    /// Appends such a message, or an answer to it, in as many pieces as it takes.
    ///
    /// # Panics
    /// If nobody speaks that version.
    pub fn push_forward(&mut self, version: u8, mut message: Bytes) {
        assert!(
            VERSIONS.contains(&version),
            "version {version} was agreed upon"
        );
        loop {
            let bytes = message.split_to(message.len().min(PIECE_BYTES_MAX));
            let is_last = message.is_empty();
            self.header(version, FORWARD, GroupId(0), 1 + bytes.len());
            self.tail.put_u8(is_last.into());
            self.payload(&bytes);
            if is_last {
                return;
            }
        }
    }

    /// Appends an `Answer`.
    pub fn push_answer(&mut self, answer: &Answer) {
        self.header(HANDSHAKE_VERSION, ANSWER, GroupId(0), answer.bytes());
        answer.encode(&mut self.tail);
    }

    fn header(&mut self, version: u8, kind: u8, group: GroupId, body_bytes: usize) {
        let length = HEADER_BYTES + body_bytes;
        assert!(
            length <= FRAME_BYTES_MAX,
            "a frame of {length} bytes, at most {FRAME_BYTES_MAX} are possible"
        );
        self.tail
            .put_u32_le(u32::try_from(length).expect("at most FRAME_BYTES_MAX"));
        self.tail.put_u8(version);
        self.tail.put_u8(kind);
        self.tail.put_u32_le(group.0);
        self.remaining += LENGTH_BYTES + length;
    }

    fn payload(&mut self, payload: &Bytes) {
        if payload.len() <= COPIED_BYTES_MAX {
            self.tail.put_slice(payload);
            return;
        }
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
        self.chunks.push_back(payload.clone());
    }
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&self.tail, |chunk| chunk)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = Some(&self.tail[..]).filter(|tail| !tail.is_empty());
        let pieces = self.chunks.iter().map(|chunk| &chunk[..]).chain(tail);
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        assert!(
            count <= self.remaining,
            "advanced by {count} of {} bytes",
            self.remaining
        );
        self.remaining -= count;
        while let Some(chunk) = self.chunks.front_mut() {
            if count < chunk.len() {
                chunk.advance(count);
                return;
            }
            count -= chunk.len();
            self.chunks.pop_front();
        }
        self.tail.advance(count);
    }
}
