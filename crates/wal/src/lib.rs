//! Quorate's log on disk: everything that a server has promised, and the number of its start.
//!
//! `Wal::open` takes a directory, finds out what it holds and says so; `Wal::append` takes what
//! the consensus core wants written, `Wal::sync` makes all of it durable with one write and one
//! sync; a `Reader` gives entries back on another thread. Whatever touches a file goes through
//! `Disk`, of which there are two: a directory, and a faulty disk in memory for tests.
//!
//! A directory holds
//!
//! ```text
//! lock                     locked while a server uses the directory
//! meta.0, meta.1           whose directory it is, and how often it was started (meta.rs)
//! wal-<sequence>-<first index>.log
//!                          the segments of the log, both numbers in 16 hex digits (segment.rs)
//! wal.next, meta.tmp       a segment or a meta file that is still being prepared
//! snap-<index>-<term>.snap the newest snapshot and the one before, both numbers in 16 hex digits
//!                          (snapshot_file.rs)
//! snap-….tmp, snap-….part  a snapshot that is still being written or received
//! ```

#![deny(clippy::indexing_slicing)]

mod aside;
mod backup;
mod beginning;
mod contents;
mod disk;
mod error;
mod inspect;
mod memory_disk;
mod mend;
mod meta;
mod open;
mod reader;
pub mod record;
mod recover;
mod scan;
mod scrub;
mod segment;
mod snapshot_file;
mod snapshot_transfer;
mod snapshots;
mod wal;
mod window;

pub use backup::{Backup, restore};
pub use disk::{DirectoryDisk, Disk};
pub use error::{Error, Problem};
pub use inspect::{FileReport, Finding, Holds, Seen, Tally, Verdict, inspect};
pub use memory_disk::{Failure, MemoryDisk, MemoryFile};
pub use meta::BackupId;
pub use open::{Opened, Options};
pub use reader::Reader;
pub use record::ENTRY_BYTES_MAX;
pub use recover::Torn;
pub use scrub::{Part, Rotten, Scrub, Scrubbed};
pub use snapshot_file::{SNAPSHOT_PIECE_BYTES_MAX, SnapshotEncoder};
pub use snapshot_transfer::{SnapshotIdentity, SnapshotReceiver, SnapshotSender};
pub use snapshots::{Damaged, SnapshotReader, SnapshotWriter, Snapshots};
pub use wal::{SEGMENT_BYTES, SEGMENT_BYTES_MIN, Wal};
