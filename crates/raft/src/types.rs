//! The numbers and small records of the consensus core, each a type of its own so that no two can
//! be mixed up. What they mean together is in `raft.rs`.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A term: a period with at most one leader (§5.1). 0 is before the first election.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Term(pub u64);

/// A place in the log. The first entry has index 1; 0 is before it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Index(pub u64);

/// A member of the cluster, as cluster.toml names it. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServerId(pub u64);

/// One Raft group. There is one, 0, in each process; frames carry it so that there can be more.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct GroupId(pub u32);

/// The random number of a cluster, drawn by its first leader (rule 41). Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u64);

/// The random number of a data directory, drawn at its first start (rule 41). Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instance(pub u64);

/// How often a data directory has been started: durable before it is first sent (rule 15).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Restart(pub u64);

/// One write handed to the log, in order, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// One batch of reads that waits for a ReadIndex round. The caller draws them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// This server's monotonic clock: nanoseconds since an arbitrary start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The end of time: a deadline that never comes.
    pub const NEVER: Timestamp = Timestamp(u64::MAX);

    /// The time from `earlier` to this; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, duration: Duration) -> Timestamp {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_add(nanos))
    }
}

impl Index {
    /// The index after this one.
    #[must_use]
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }

    /// The index before this one; 0 stays 0.
    #[must_use]
    pub fn prev(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

impl Add<u64> for Index {
    type Output = Index;

    fn add(self, entries: u64) -> Index {
        Index(self.0 + entries)
    }
}

impl Sub<Index> for Index {
    type Output = u64;

    /// How many entries lie between; 0 when `earlier` is later.
    fn sub(self, earlier: Index) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Term {
    /// The term after this one.
    #[must_use]
    pub fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl WriteId {
    /// The write after this one.
    #[must_use]
    pub fn next(self) -> WriteId {
        WriteId(self.0 + 1)
    }
}

macro_rules! display_as_number {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
display_as_number!(Term, Index, ServerId, GroupId, Restart, WriteId, ReadId);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// An entry's index with its term: two logs that hold the same position are the same up to it
/// (§5.3). Ordered as votes compare logs: by term, then by index (§5.4.1).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    pub term: Term,
    pub index: Index,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub term: Term,
    pub index: Index,
    pub kind: EntryKind,
    /// Shared by the disk and every peer, never copied. Its meaning is the kind's.
    pub payload: Bytes,
}

impl Entry {
    /// Where this entry stands.
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            term: self.term,
            index: self.index,
        }
    }
}

/// What an entry is for. The number is its code on disk and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// A leader's first entry in its term; no payload (§8).
    NoOp = 0,
    /// Commands for the store; the payload is opaque to Raft.
    Command = 1,
    /// An encoded `Configuration`.
    Configuration = 2,
}

impl EntryKind {
    /// The kind with this code; `None` for a code that no kind has.
    #[must_use]
    pub fn from_code(code: u8) -> Option<EntryKind> {
        match code {
            0 => Some(EntryKind::NoOp),
            1 => Some(EntryKind::Command),
            2 => Some(EntryKind::Configuration),
            _ => None,
        }
    }
}

/// A snapshot that is durable here: the state after the entry at `position` and all before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub position: Position,
    /// The newest configuration entry at or below `position` (rule 40).
    pub configuration: Option<Entry>,
}

/// What a server has promised apart from its entries: durable before any message that reveals it
/// (rule 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Never falls.
    pub term: Term,
    /// Whom this server voted for in `term`. Set once in a term.
    pub voted_for: Option<ServerId>,
    pub seating: Seating,
}

/// How far a server has come into its cluster (rule 41). Only ever moves down this list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seating {
    /// It has met no seated server, and takes part in starting a new cluster.
    #[default]
    Unseated,
    /// It has met a seated one, and neither votes nor campaigns until it is seated itself.
    Met(ClusterId),
    /// A committed configuration gives this data directory its seat.
    Seated {
        cluster: ClusterId,
        /// The newest configuration entry that this server knows to be committed. Never falls.
        configuration_index: Index,
    },
}

impl Seating {
    /// The cluster that this server knows to exist.
    #[must_use]
    pub fn cluster(self) -> Option<ClusterId> {
        match self {
            Seating::Unseated => None,
            Seating::Met(cluster) | Seating::Seated { cluster, .. } => Some(cluster),
        }
    }

    /// True once a committed configuration gives this server its seat.
    #[must_use]
    pub fn is_seated(self) -> bool {
        matches!(self, Seating::Seated { .. })
    }
}
