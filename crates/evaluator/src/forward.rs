//! What a follower and a leader say to each other on behalf of the follower's clients, and its
//! bytes: bincode with small integers short, limited, and without bytes behind it. The order of
//! variants and fields is the format; values and keys are copied out of the bytes (rule 59).
//!
//! Each message belongs to a *stream*: all that one follower sends to one leader of one term over
//! one connection, numbered from 0 in each direction. A connection gives the bytes in order or
//! breaks, so what is not the next number is the mistake of somebody; then the stream is over, and
//! nothing of it is carried out twice or behind a gap (rule 56).

use bincode::Options;
use bytes::Bytes;
use command::{Command, Outcome};
use raft::{Restart, Term};
use serde::{Deserialize, Serialize};

use crate::io::ConnectionId;

/// The longest message to a leader: one batch of a client, the last of whose values may be as large
/// as a value can be configured to be.
pub const TO_LEADER_BYTES_MAX: usize = 15 << 18;

/// The largest reply that is given to a follower, in bytes of keys and values, with so much for each
/// hit. It is copied on its way, and held there until the client has read it. A client that asks
/// for more at a time is disconnected by the follower.
pub const REPLY_BYTES_MAX: usize = 64 << 20;
const HIT_BYTES: usize = 32;

/// Outcomes for one connection go out together up to this size.
pub(crate) const OUTCOMES_BYTES_MAX: usize = 256 << 10;

/// The longest message to a follower: outcomes, the last of which is the largest reply.
pub const TO_FOLLOWER_BYTES_MAX: usize = REPLY_BYTES_MAX + (1 << 20);

/// Numbers grow by one at a time, and never come near this.
const NUMBER_MAX: u64 = 1 << 62;

/// What a command takes beyond its keys and its value.
const COMMAND_BYTES: usize = 64;

/// A message between a follower and a leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardMessage {
    pub stream: Stream,
    /// Its number among those of the stream in this direction, from 0.
    pub number: u64,
    pub body: ForwardBody,
}

/// Tells all streams of a follower apart; later ones are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stream {
    /// Which start of the follower.
    pub restart: Restart,
    pub number: u64,
}

/// What is said. A connection is the follower's client's, by the number that it has there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardBody {
    /// To the leader.
    Commands(ForwardedCommands),
    /// To the leader: nobody waits any more for what this connection has asked.
    Gone { connection: ConnectionId },
    /// To the follower: outcomes of a connection's commands, in order, the first of which has this
    /// number.
    Outcomes {
        connection: ConnectionId,
        first: u64,
        outcomes: Vec<Outcome>,
    },
    /// To the follower: the next outcome of this connection is larger than `REPLY_BYTES_MAX`.
    Overlong { connection: ConnectionId },
    /// To the follower: a message of the stream is missing. Nothing of it is heard any more.
    Broken,
    /// To the leader: this connection's last command waits for a message, and is to do so no longer.
    StopWaiting { connection: ConnectionId },
}

/// A batch of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardedCommands {
    pub connection: ConnectionId,
    /// The leader is to carry them out only in this term, in which the follower believes it to
    /// lead.
    pub term: Term,
    /// As in `Batch`.
    pub epoch: u64,
    /// The number of the first of them among those of the connection, which are consecutive.
    pub first: u64,
    pub commands: Vec<Command>,
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a forwarded message of {bytes} bytes can't be read")]
pub struct ForwardError {
    pub bytes: usize,
}

fn options(bytes_max: usize) -> impl Options {
    bincode::DefaultOptions::new().with_limit(bytes_max as u64)
}

impl ForwardMessage {
    /// Whether it goes to a leader, over the connection that the follower has made.
    #[must_use]
    pub fn is_to_leader(&self) -> bool {
        match self.body {
            ForwardBody::Commands(_)
            | ForwardBody::Gone { .. }
            | ForwardBody::StopWaiting { .. } => true,
            ForwardBody::Outcomes { .. } | ForwardBody::Overlong { .. } | ForwardBody::Broken => {
                false
            }
        }
    }

    /// # Panics
    /// If it is longer than what goes in its direction may be.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let bytes_max = match self.is_to_leader() {
            true => TO_LEADER_BYTES_MAX,
            false => TO_FOLLOWER_BYTES_MAX,
        };
        let bytes = options(bytes_max).serialize(self);
        Bytes::from(bytes.expect("batches and replies are within these limits"))
    }

    /// The message with these bytes, at most `bytes_max`, which is `TO_LEADER_BYTES_MAX` or
    /// `TO_FOLLOWER_BYTES_MAX`.
    ///
    /// # Errors
    /// If they are none.
    pub fn decode(bytes: &[u8], bytes_max: usize) -> Result<ForwardMessage, ForwardError> {
        let error = ForwardError { bytes: bytes.len() };
        if bytes.len() > bytes_max {
            return Err(error);
        }
        let message: Result<ForwardMessage, _> = options(bytes_max).deserialize(bytes);
        let message = message.map_err(|_| error)?;
        let first = match &message.body {
            ForwardBody::Commands(commands) => commands.first,
            ForwardBody::Outcomes { first, .. } => *first,
            ForwardBody::Gone { .. }
            | ForwardBody::StopWaiting { .. }
            | ForwardBody::Overlong { .. }
            | ForwardBody::Broken => 0,
        };
        match message.number.max(first) < NUMBER_MAX {
            true => Ok(message),
            false => Err(error),
        }
    }

    /// What it takes to hold, roughly.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        COMMAND_BYTES
            + match &self.body {
                ForwardBody::Commands(commands) => {
                    commands.commands.iter().map(command_bytes).sum()
                }
                ForwardBody::Outcomes { outcomes, .. } => outcomes.iter().map(outcome_bytes).sum(),
                ForwardBody::Gone { .. }
                | ForwardBody::StopWaiting { .. }
                | ForwardBody::Overlong { .. }
                | ForwardBody::Broken => 0,
            }
    }
}

/// What a command takes to hold, roughly.
pub(crate) fn command_bytes(command: &Command) -> usize {
    use command::Read;
    COMMAND_BYTES
        + match command {
            Command::Write(write) => command::encoded_bytes(write),
            Command::Read(Read::Get { keys }) => keys.held_bytes(),
            Command::Read(Read::MetaGet(get)) => get.key.as_bytes().len(),
            Command::Read(Read::Inspect { key }) => key.as_bytes().len(),
            Command::Read(Read::Peek { topic }) => topic.as_bytes().len(),
            Command::Read(Read::Confirm | Read::Topics) => 0,
            Command::Stats(_) => 0,
        }
}

/// What an outcome takes to hold, roughly, when its hits are not shared with a store.
pub(crate) fn outcome_bytes(outcome: &Outcome) -> usize {
    use command::Reply;
    HIT_BYTES
        + match outcome {
            Outcome::Done(Reply::Hits(hits)) => {
                let hits = hits.iter().map(|hit| HIT_BYTES + hit.data.bytes());
                hits.sum::<usize>()
            }
            Outcome::Done(Reply::MetaHit(hit)) => hit.data.bytes(),
            Outcome::Done(Reply::Message(message)) => message.data.as_slice().len(),
            Outcome::Done(Reply::Topics(topics)) => {
                let topics = topics
                    .iter()
                    .map(|it| HIT_BYTES + it.topic.as_bytes().len());
                topics.sum::<usize>()
            }
            _ => 0,
        }
}
