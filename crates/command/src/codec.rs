//! The payload of a command entry: what the leader put together in one turn. Long-lived, so laid
//! out by hand; all numbers are little-endian.
//!
//! ```text
//! version 1 (u8) | log time, ms (u64) | item bytes max (u32) | commands (u16) | commands
//! ```
