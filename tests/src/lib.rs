//! The harness of the tests of quorate's real programs: clusters of processes on ports and in
//! directories of their own, and connections that send and expect bytes. It knows the programs
//! through their arguments, ports and replies only.

mod cluster;
mod history;
mod http;
mod linearizable;
mod links;
mod load;
mod nemesis;
mod plan;
mod plausible;
mod ports;
mod process;
mod programs;
mod register;
mod rot;
mod shared;
mod text;
mod turn;
mod wait;
mod workload;

pub use cluster::Cluster;
pub use history::{Action, Answer, Operation, Returned};
pub use http::Response;
pub use linearizable::{Verdict, check};
pub use load::{Fate, Load, Written};
pub use nemesis::Nemesis;
pub use plan::Plan;
pub use ports::Ports;
pub use process::{Ended, Process};
pub use programs::Programs;
pub use rot::{IN_THE_FIRST_RECORD, flip, forge};
pub use shared::{Shared, User};
pub use text::Text;
pub use turn::Turn;
pub use wait::{assert_took_less, deadline, wait_until};
pub use workload::Workload;
