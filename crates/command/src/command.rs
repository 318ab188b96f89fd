//! Every write and read that a client can ask for, with its operands. Lines, flags of a line and
//! the form of the answer are the protocol's.
//!
//! Serde is for what servers send each other on behalf of their clients, where the order of variants
//! and fields is the format: what is added is added behind the others. Nothing on disk is written
//! with it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    Exptime, Key, Keys, MetaArithmetic, MetaDelete, MetaGet, MetaSet, Take, TopicChange, TopicWrite,
};

/// One command of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Goes through the log.
    Write(Write),
    /// Is answered from the store once leadership is confirmed (rule 35).
    Read(Read),
    /// Is answered at once by any server: it tells of the server and not of the data, and is
    /// never refused (rule 54).
    Stats(Stats),
}

impl Command {
    /// How many seconds this waits for a message, if it waits.
    #[must_use]
    pub fn wait(&self) -> Option<u32> {
        match self {
            Command::Write(write) => write.wait(),
            Command::Read(_) | Command::Stats(_) => None,
        }
    }
}

/// A command that goes through the log: all that may change an item (rule 38).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// `set add replace append prepend cas`.
    Store(Store),
    /// `delete`.
    Delete { key: Key },
    /// `incr decr`.
    Arithmetic {
        key: Key,
        direction: Direction,
        delta: u64,
    },
    /// `touch`.
    Touch { key: Key, exptime: Exptime },
    /// `gat gats`: sets the time of each hit and answers it as it was.
    GetAndTouch { keys: Vec<Key>, exptime: Exptime },
    /// `flush_all`; the delay is 0 or negative for at once.
    FlushAll { delay: Exptime },
    /// `cache_memlimit`: what all items may take together, in MiB.
    MemoryLimit { mib: u32 },
    /// `mg` that changes the item, or may have to give out its token.
    MetaGet(MetaGet),
    /// `ms`.
    MetaSet(MetaSet),
    /// `md`.
    MetaDelete(MetaDelete),
    /// `ma`.
    MetaArithmetic(MetaArithmetic),
    /// What changes a topic.
    Topic(TopicWrite),
}

impl Write {
    /// The key of a meta command.
    #[must_use]
    pub fn meta_key(&self) -> Option<&Key> {
        match self {
            Write::MetaGet(get) => Some(&get.key),
            Write::MetaSet(set) => Some(&set.store.key),
            Write::MetaDelete(delete) => Some(&delete.key),
            Write::MetaArithmetic(arithmetic) => Some(&arithmetic.key),
            _ => None,
        }
    }

    /// How many seconds this waits for a message, if it waits.
    #[must_use]
    pub fn wait(&self) -> Option<u32> {
        match self {
            Write::Topic(TopicWrite {
                change: TopicChange::Take(Take { wait, .. }),
                ..
            }) => Some(*wait).filter(|wait| *wait > 0),
            _ => None,
        }
    }

    /// The topic that this puts a message into which can be taken at once.
    #[must_use]
    pub fn pushed_to(&self) -> Option<&Key> {
        match self {
            Write::Topic(TopicWrite {
                topic,
                change: TopicChange::Push { delay: 0, .. },
            }) => Some(topic),
            _ => None,
        }
    }

    /// Whether this may mark an item as stale, whose token is then to be given out.
    #[must_use]
    pub fn may_mark_stale(&self) -> bool {
        match self {
            Write::MetaSet(set) => set.invalidate,
            Write::MetaDelete(delete) => delete.invalidate,
            _ => false,
        }
    }
}

/// A storage command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    pub mode: StoreMode,
    pub key: Key,
    /// Opaque to the server. Not used by append and prepend, which keep the item's.
    pub flags: u32,
    /// Not used by append and prepend, which keep the item's.
    pub exptime: Exptime,
    pub value: Bytes,
}

/// On which condition, and how, a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreMode {
    Set,
    /// Only when there is no item.
    Add,
    /// Only when there is one.
    Replace,
    /// Behind the value of the item, when there is one.
    Append,
    /// Before the value of the item, when there is one.
    Prepend,
    /// Only when the item's unique is this.
    Cas(u64),
}

impl StoreMode {
    /// What the command is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            StoreMode::Set => "set",
            StoreMode::Add => "add",
            StoreMode::Replace => "replace",
            StoreMode::Append => "append",
            StoreMode::Prepend => "prepend",
            StoreMode::Cas(_) => "cas",
        }
    }

    /// The unique that the item must have.
    #[must_use]
    pub fn unique(self) -> Option<u64> {
        match self {
            StoreMode::Cas(unique) => Some(unique),
            _ => None,
        }
    }
}

/// Which way `Arithmetic` goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// Wraps at 2^64.
    Increment,
    /// Stops at 0.
    Decrement,
}

impl Direction {
    /// What the command is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Direction::Increment => "incr",
            Direction::Decrement => "decr",
        }
    }
}

/// A command that changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Read {
    /// `get gets`: one linearization point for all keys (rule 38).
    Get { keys: Keys },
    /// `mg` that changes nothing; it goes through the log as `Write::MetaGet` if the item may be
    /// stale.
    MetaGet(MetaGet),
    /// `me`.
    Inspect { key: Key },
    /// Answered by the leader with an index: a state that has come so far holds all that was
    /// acknowledged before. For a dump of the keys, or a backup.
    Confirm,
    /// `topics`.
    Topics,
    /// `peek`.
    Peek { topic: Key },
}

/// What `stats` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stats {
    /// `stats`.
    General,
    /// `stats settings`.
    Settings,
    /// `stats items`.
    Items,
    /// `stats slabs`.
    Slabs,
    /// `stats conns`.
    Conns,
    /// `stats reset`.
    Reset,
}

/// What an item takes beyond its key and value, as far as the limit on its size goes.
pub const ITEM_OVERHEAD_BYTES: usize = 56;

/// What an item takes in memory beside its key and value, on average: 48 bytes in front of the key (a
/// counter, `KeyValue`'s fields, a length), 8 of the allocation and 8 to its size's multiple of 16, and
/// 19 for its place in a table that is between 7/16 and 7/8 full. That makes 83, and the 21 of a
/// deadline count for half, whether it has one or not: so a touch never needs room, and what is counted
/// is within a tenth of what is taken either way.
pub const ITEM_MEMORY_BYTES: usize = 93;

/// The largest item unless configured otherwise: key + value + 56.
pub const ITEM_BYTES_MAX_DEFAULT: usize = 1 << 20;
