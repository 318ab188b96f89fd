//! What can be asked of topics, which are message queues. A topic is named by 1 to 250 bytes, as a
//! key is, in a name space of its own.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Key, MessageBytes};

/// The most topics at a time: what is one more is refused.
pub const TOPICS_MAX: usize = 65_536;

/// The longest delay, time to run and age of a message, in seconds.
pub const MESSAGE_SECONDS_MAX: u32 = i32::MAX as u32;

/// The longest that a consumer may wait for a message, in seconds: a day.
pub const WAIT_SECONDS_MAX: u32 = 24 * 60 * 60;

/// A change of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicWrite {
    pub topic: Key,
    pub change: TopicChange,
}

/// What is done to a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TopicChange {
    /// `topic`.
    Create(TopicSettings),
    /// `push`.
    Push {
        message: Bytes,
        /// The lower number is taken first.
        priority: u32,
        /// Seconds until it can be taken.
        delay: u32,
    },
    /// `pop reserve`.
    Take(Take),
    /// `ack`: a reserved message is done with.
    Ack { id: u64 },
    /// `nack`: a reserved message can be taken again, after so many seconds.
    Nack { id: u64, delay: u32 },
    /// `extend`: a reserved message stays so for this many seconds from now.
    Extend { id: u64, ttr: u32 },
    /// `kick`: so many dead messages can be taken again.
    Kick { count: u64 },
    /// `purge`: all messages are gone.
    Purge,
    /// `drop`.
    Drop,
}

/// Takes the first message that can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Take {
    /// `reserve`: the message comes back unless it is acknowledged within so many seconds. `None` is
    /// `pop`: it is gone.
    pub ttr: Option<u32>,
    /// How many seconds to wait for one. It is the leader who waits: an entry of the log says nothing
    /// of it.
    pub wait: u32,
}

/// What a topic is created with; 0 is no limit, for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSettings {
    /// The most messages, whatever state they are in.
    pub max_length: u64,
    /// The most bytes of all messages.
    pub max_bytes: u64,
    /// A message that is so many seconds old is gone, unless it is reserved.
    pub max_age: u32,
    /// A message that was reserved so often, and comes back, is dead.
    pub max_deliveries: u32,
}

/// A message that is taken, or shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Grows within a topic, from 1.
    pub id: u64,
    /// How often it was reserved, with this time.
    pub deliveries: u32,
    pub data: MessageBytes,
}

/// A topic and its messages, counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicCounts {
    pub topic: Key,
    pub counts: MessageCounts,
}

/// Messages, by what can be done with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageCounts {
    /// They can be taken.
    pub ready: u64,
    /// A consumer has them.
    pub reserved: u64,
    /// They can be taken when their time has come.
    pub delayed: u64,
    /// They were delivered too often, and are kept to be looked at.
    pub dead: u64,
}

impl MessageCounts {
    #[must_use]
    pub fn total(&self) -> u64 {
        self.ready + self.reserved + self.delayed + self.dead
    }
}
