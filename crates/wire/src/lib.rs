//! The frames between quorate's servers, as bytes: what a frame looks like, who may talk to whom,
//! and each message of the consensus core there and back. Sockets are the server's.
//!
//! A connection begins with one `Hello` from the server that made it, and one `Answer` from the
//! other. If that accepts, messages follow, in the direction of the `Hello` only. A connection for
//! the transfer of a snapshot begins with a hello of another kind, which servers that know nothing
//! of it refuse, and both sides speak on it in turns. One for what a follower's clients ask of a leader
//! begins with a third kind, and both sides speak on it as they like.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod codec;
mod forward;
mod frame;
mod hello;
mod transfer;

pub use forward::{Joiner, Piece};
pub use frame::{
    Error, FRAME_BYTES_MAX, Frame, HANDSHAKE_FRAME_BYTES_MAX, LENGTH_BYTES, Outgoing, decode,
};
pub use hello::{Answer, Hello, Identity, Refusal, VERSIONS};
pub use transfer::{Failure, Offer, Transfer};
