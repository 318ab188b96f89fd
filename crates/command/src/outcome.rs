//! What became of a command: three fates, never two. As in `command.rs`, the order of variants and
//! fields is the format between servers.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{KeyValue, Message, MetaHit, TopicCounts};

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Applied (or read); this is what the store answered.
    Done(Reply),
    /// Not applied, and it never will be.
    NotDone(Refusal),
    /// It was in the log when leadership or the majority was lost, or is not committed in time,
    /// and may still be applied.
    Unknown,
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// This server is a follower; the leader's clients connect there.
    Redirect { host: Arc<str>, client_port: u16 },
    /// No live leader is known, or the leader has lost its majority.
    NoLeader,
    /// The leader has no room left on its disk (rule 9).
    OutOfDisk,
}

/// What the store answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Stored,
    NotStored,
    /// `cas`: the item has another unique.
    Exists,
    NotFound,
    Deleted,
    Touched,
    /// `incr decr`: the value after it.
    Number(u64),
    /// `incr decr` of a value that is no number.
    NonNumeric,
    /// The item would take all of them over the memory limit: nothing was changed.
    OutOfMemory,
    /// `flush_all`, `cache_memlimit`, `stats reset`.
    Ok,
    /// `get gets gat gats`: the hits, in the order of the keys asked for.
    Hits(Vec<Hit>),
    /// A meta command has found or made the item.
    MetaHit(MetaHit),
    /// A meta command asks for a unique that is not above all that the item may have had.
    LowUnique,
    /// `stats`: name and value of each line.
    Stats(Vec<(Cow<'static, str>, String)>),
    /// A confirmation: a state with all that is applied up to this index holds every command that
    /// was acknowledged before it was asked for.
    Confirmed {
        last_applied: u64,
    },
    /// `topic`: it is there now. `Exists` if it was before.
    Created,
    /// `topic`: there are as many as there may be.
    TooManyTopics,
    /// `push`: the message's id.
    Pushed(u64),
    /// `push`: one more would be over the topic's own limits.
    TopicFull,
    /// `pop reserve peek`.
    Message(Message),
    /// `pop reserve peek`: no message can be taken.
    Empty,
    Acked,
    Extended,
    /// `nack`: the message can be taken again, at once or later.
    Released,
    /// `nack`: it was delivered as often as it may be.
    Buried,
    Kicked(u64),
    Purged(u64),
    Dropped,
    /// `topics`, in order of creation.
    Topics(Vec<TopicCounts>),
}

/// One item of a retrieval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    pub flags: u32,
    /// Log index and place in the entry of the item's last change: index * 2^16 + place
    /// (rule 57).
    pub unique: u64,
    /// The key as it was asked for, and the value.
    pub data: KeyValue,
}

impl Hit {
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.data.key()
    }

    #[must_use]
    pub fn value(&self) -> &[u8] {
        self.data.value()
    }
}
