//! Raft, the store and who waits for what, in one group: everything between the sockets and the
//! disk, still without I/O. Time comes in as an argument.

mod io;

pub use io::*;
