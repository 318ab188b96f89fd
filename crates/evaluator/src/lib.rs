//! Raft, the store and who waits for what, in one group: everything between the sockets and the
//! disk, still without I/O. Time comes in as an argument.
//!
//! A turn is any number of `Evaluator::step` and then one `Evaluator::take_output`. All writes of
//! a turn become one entry of the log, all its reads join one round, and everything that the turn
//! came to is handed out at once.

mod answers;
mod applying;
mod evaluator;
mod forward;
mod io;
mod log_time;
mod owed;
mod peer_clocks;
mod snapshots;
mod state_hashes;
mod status;
mod waiting;

pub use evaluator::Evaluator;
pub use forward::{
    ForwardBody, ForwardError, ForwardMessage, ForwardedCommands, REPLY_BYTES_MAX, Stream,
    TO_FOLLOWER_BYTES_MAX, TO_LEADER_BYTES_MAX,
};
pub use io::*;
pub use snapshots::{FrozenState, LoadedState};
pub use state_hashes::{HashJob, StateHash};
pub use status::{Counters, ForwardCounters, Status};
