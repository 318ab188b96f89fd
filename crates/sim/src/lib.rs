//! A simulated cluster of quorate: everything but sockets and threads, in one deterministic program
//! that is far faster than real time. Commands enter as bytes through the parser, servers talk in
//! encoded frames, and the log is the real one on a disk in memory that knows what is synced.
//!
//! Each seed draws which faults there are (`options.rs`), the world lets them happen (`world.rs`,
//! `chaos.rs`), and `check` judges every step. At the end all is healed, and the cluster has to make
//! progress and to agree (`settle.rs`). The same seed gives the same run.

mod chaos;
mod check;
mod client;
mod coverage;
mod forwards;
mod host;
mod life;
mod options;
mod past;
mod run;
mod scrub;
mod settle;
mod snapshots;
mod topics;
mod traffic;
mod turn;
mod world;

pub use coverage::Coverage;
pub use options::{Fault, Forwards, Mix, Options};
pub use run::{Failure, Run, run_all};
pub use world::Finished;
