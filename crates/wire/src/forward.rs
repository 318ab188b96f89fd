//! What a follower and a leader say to each other on behalf of the follower's clients, on a
//! connection of its own. It is opaque here: a message of any length in pieces.
//!
//! ```text
//! last (u8): 1 if a message ends with this piece, or else 0 | bytes
//! ```
//! A hello of its own kind begins the connection. A server that does not know it hangs up, and is
//! forwarded nothing.

use bytes::{Buf, Bytes, BytesMut};

use crate::frame::Error;

/// The most of a message in one frame.
pub(crate) const PIECE_BYTES_MAX: usize = 256 << 10;

/// A part of a message, or all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The message ends with it.
    pub is_last: bool,
    pub bytes: Bytes,
}

impl Piece {
    /// A slice of `bytes`.
    pub(crate) fn decode(mut bytes: Bytes) -> Result<Piece, Error> {
        let is_last = match bytes.try_get_u8() {
            Ok(0) => false,
            Ok(1) => true,
            Ok(_) => return Err(Error::Field),
            Err(_) => return Err(Error::Short),
        };
        Ok(Piece { is_last, bytes })
    }
}

/// Puts pieces together.
#[derive(Debug)]
pub struct Joiner {
    bytes_max: usize,
    /// Of a message that has not ended.
    joined: BytesMut,
}

impl Joiner {
    /// For messages of up to so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Joiner {
        Joiner {
            bytes_max,
            joined: BytesMut::new(),
        }
    }

    /// Takes the next piece; the message that ends with it. A message of one piece is not copied.
    ///
    /// # Errors
    /// `Error::Overlong` if the message is longer than it may be.
    pub fn join(&mut self, piece: Piece) -> Result<Option<Bytes>, Error> {
        if self.joined.len() + piece.bytes.len() > self.bytes_max {
            return Err(Error::Overlong {
                bytes_max: self.bytes_max,
            });
        }
        if self.joined.is_empty() && piece.is_last {
            return Ok(Some(piece.bytes));
        }
        self.joined.extend_from_slice(&piece.bytes);
        // What a large message has taken is not kept.
        Ok(piece
            .is_last
            .then(|| std::mem::take(&mut self.joined).freeze()))
    }
}
