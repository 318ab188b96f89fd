//! Quorate's replicated state: a pure function of the log. Nothing in here reads a clock or leaves
//! a trace of an unordered map's order, so every server that has applied the same entries answers
//! the same.

mod departed;
mod dump;
mod expiry;
mod garbage;
mod item;
mod load;
mod map;
mod messages;
mod meta;
mod moment;
mod order;
mod snapshot;
mod store;
mod tally;
mod topic;
mod topic_bytes;
mod topics;
mod warm;

pub use departed::Gone;
pub use dump::{Dump, Listed};
pub use garbage::Garbage;
pub use load::{LoadError, Loader, View, Viewer};
pub use map::TableSize;
pub use moment::STATE_HASH_FUNCTION;
pub use snapshot::Frozen;
pub use store::{Counts, Store};
pub use topic_bytes::MessageView;
