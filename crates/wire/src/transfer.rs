//! What is said on a connection of its own while a snapshot goes from one server to another. The
//! one that has it calls, with a hello that says what for, and offers; the other asks for one piece
//! after the other, from where it is, and says when it has all.
//!
//! ```text
//! code (u8), then
//! 0 Offer:    cluster (u64) | term, index (u64 each) | file's length (u64) | checksum (u64)
//! 1 Next:     offset (u64)
//! 2 Piece:    offset (u64) | length (u32), at least 1 | bytes
//! 3 Checking: nothing
//! 4 Loaded:   nothing
//! 5 Failed:   why (u8): 0 other bytes than were offered, 1 no space
//! ```
//! All numbers are little-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::{ClusterId, Index, Position, Term};

use crate::codec::check_position;
use crate::frame::Error;

const OFFER: u8 = 0;
const NEXT: u8 = 1;
const PIECE: u8 = 2;
const CHECKING: u8 = 3;
const LOADED: u8 = 4;
const FAILED: u8 = 5;

/// One step of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// The sender's first word.
    Offer(Offer),
    /// The receiver wants the bytes from this offset on.
    Next { offset: u64 },
    /// Bytes of the file.
    Piece { offset: u64, bytes: Bytes },
    /// The receiver has nothing to ask for, since it is busy with what it has; said now and then.
    Checking,
    /// The snapshot is durable at the receiver, and its state at hand: what is left is the
    /// message.
    Loaded,
    /// There will be no snapshot at the receiver.
    Failed(Failure),
}

/// What tells a snapshot file from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    pub cluster: ClusterId,
    pub position: Position,
    pub file_bytes: u64,
    /// Over the file.
    pub checksum: u64,
}

/// Why a transfer came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("what has arrived is not what was offered")]
    Damaged,
    #[error("there is no space for it")]
    NoSpace,
}

impl Transfer {
    /// The length of the encoding.
    pub(crate) fn bytes(&self) -> usize {
        1 + match self {
            Transfer::Offer(_) => 5 * 8,
            Transfer::Next { .. } => 8,
            Transfer::Piece { bytes, .. } => 8 + 4 + bytes.len(),
            Transfer::Checking | Transfer::Loaded => 0,
            Transfer::Failed(_) => 1,
        }
    }

    /// Encodes all but the bytes of a piece, which follow.
    pub(crate) fn encode(&self, bytes: &mut BytesMut) {
        match self {
            Transfer::Offer(offer) => {
                bytes.put_u8(OFFER);
                bytes.put_u64_le(offer.cluster.0);
                bytes.put_u64_le(offer.position.term.0);
                bytes.put_u64_le(offer.position.index.0);
                bytes.put_u64_le(offer.file_bytes);
                bytes.put_u64_le(offer.checksum);
            }
            Transfer::Next { offset } => {
                bytes.put_u8(NEXT);
                bytes.put_u64_le(*offset);
            }
            Transfer::Piece {
                offset,
                bytes: piece,
            } => {
                let length = u32::try_from(piece.len());
                bytes.put_u8(PIECE);
                bytes.put_u64_le(*offset);
                bytes.put_u32_le(length.expect("a frame is at most 4 MiB"));
            }
            Transfer::Checking => bytes.put_u8(CHECKING),
            Transfer::Loaded => bytes.put_u8(LOADED),
            Transfer::Failed(failure) => {
                bytes.put_u8(FAILED);
                bytes.put_u8(match failure {
                    Failure::Damaged => 0,
                    Failure::NoSpace => 1,
                });
            }
        }
    }

    /// The bytes of a piece are a slice of `bytes`.
    pub(crate) fn decode(mut bytes: Bytes) -> Result<Transfer, Error> {
        let code = bytes.try_get_u8().map_err(|_| Error::Short)?;
        let transfer = match code {
            OFFER => Transfer::Offer(Offer::decode(&mut bytes)?),
            NEXT => Transfer::Next {
                offset: number(&mut bytes)?,
            },
            PIECE => {
                let offset = number(&mut bytes)?;
                let length = bytes.try_get_u32_le().map_err(|_| Error::Short)?;
                let length = usize::try_from(length).map_err(|_| Error::Field)?;
                match length {
                    0 => return Err(Error::Field),
                    length if length > bytes.len() => return Err(Error::Short),
                    _ => {}
                }
                let bytes = bytes.split_to(length);
                Transfer::Piece { offset, bytes }
            }
            CHECKING => Transfer::Checking,
            LOADED => Transfer::Loaded,
            FAILED => Transfer::Failed(match bytes.try_get_u8() {
                Ok(0) => Failure::Damaged,
                Ok(1) => Failure::NoSpace,
                Ok(_) => return Err(Error::Field),
                Err(_) => return Err(Error::Short),
            }),
            _ => return Err(Error::Field),
        };
        match bytes.len() {
            0 => Ok(transfer),
            found => Err(Error::Trailing { found }),
        }
    }
}

impl Offer {
    fn decode(bytes: &mut Bytes) -> Result<Offer, Error> {
        let offer = Offer {
            cluster: ClusterId(number(bytes)?),
            position: Position {
                term: Term(number(bytes)?),
                index: Index(number(bytes)?),
            },
            file_bytes: number(bytes)?,
            checksum: number(bytes)?,
        };
        check_position(offer.position)?;
        let possible = offer.position.index > Index(0);
        possible.then_some(offer).ok_or(Error::Field)
    }
}

fn number(bytes: &mut Bytes) -> Result<u64, Error> {
    bytes.try_get_u64_le().map_err(|_| Error::Short)
}
