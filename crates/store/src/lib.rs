//! Quorate's replicated state: a pure function of the log. Nothing in here reads a clock or leaves
//! a trace of an unordered map's order, so every server that has applied the same entries answers
//! the same.

mod expiry;
mod garbage;
mod item;
mod map;
mod meta;
mod moment;
mod snapshot;
mod store;

pub use garbage::Garbage;
pub use moment::STATE_HASH_FUNCTION;
pub use snapshot::{Frozen, LoadError, Loader};
pub use store::{Counts, Store};
