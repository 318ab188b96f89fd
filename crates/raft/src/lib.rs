//! Quorate's consensus core: Raft without I/O.
//!
//! `Raft::step(now, input)` takes what happened, `Raft::take_output` gives what is to be done about
//! it, `Raft::next_deadline` says when time alone will make something happen. There is no socket,
//! file, clock, thread or global random source in here, so the same code runs in the server and in
//! a simulation, and any failure replays from its seed.

mod apply;
mod candidate;
mod catch_up;
mod check;
mod deferral;
mod follower;
mod io;
mod leader;
mod log;
mod members;
mod message;
mod progress;
mod quorum;
mod raft;
mod read;
mod recovering;
mod seating;
mod snapshot;
mod transfer;
mod types;

pub use check::check_cluster;
pub use io::*;
pub use members::{Configuration, Member};
pub use message::*;
pub use raft::Raft;
pub use recovering::STRANDED_AFTER;
pub use types::*;
