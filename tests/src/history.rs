//! What clients did to one key and what they were told, as the checker of linearizability takes it
//! and as a failure shows it.

use std::fmt;
use std::time::Duration;

/// One command on one key whose effect is not ruled out: what was certainly not done (a redirect,
/// `no leader`) is no part of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked: for people.
    pub client: usize,
    /// Commands sent in one write have the same number here and nobody else has it. They are
    /// recorded in the order in which they were sent, in which they must take effect; and if one of
    /// them does, so do all before it.
    pub pipeline: u64,
    pub action: Action,
    /// The instant before it was sent, since the beginning of the history.
    pub invoked: Duration,
    /// `None` when nobody knows whether it was done: it takes effect once, at any time after
    /// `invoked`, or never.
    pub returned: Option<Returned>,
}

/// The reply to an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    /// The instant after it was read, since the beginning of the history.
    pub at: Duration,
    pub answer: Answer,
}

/// What an operation does to its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// `get`, or `gets` when its answer has a unique.
    Get,
    Set(String),
    /// A `set` if the item has this unique, which an earlier answer of the same history gave.
    Cas {
        value: String,
        unique: u64,
    },
    Delete,
    Incr(u64),
}

/// What the cluster said that it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Hit {
        value: String,
        unique: Option<u64>,
    },
    /// `END` without an item.
    Miss,
    Stored,
    Exists,
    NotFound,
    Deleted,
    /// What `incr` made of the value.
    Number(u64),
    /// `incr` met a value that is none.
    NotANumber,
}

impl Operation {
    /// Whether it is over and its fate known.
    pub(crate) fn returned_at(&self) -> Option<Duration> {
        self.returned.as_ref().map(|returned| returned.at)
    }

    pub(crate) fn answer(&self) -> Option<&Answer> {
        self.returned.as_ref().map(|returned| &returned.answer)
    }

    /// Whether it could leave an item that is not what it was before.
    pub(crate) fn writes(&self) -> bool {
        self.action != Action::Get
    }
}

impl Action {
    /// The value that it stores, if it stores one whatever was there.
    pub(crate) fn stored(&self) -> Option<&str> {
        match self {
            Action::Set(value) | Action::Cas { value, .. } => Some(value),
            Action::Get | Action::Delete | Action::Incr(_) => None,
        }
    }
}

impl Answer {
    /// The value that the item had at that moment, if the answer tells it.
    pub(crate) fn shown(&self) -> Option<String> {
        match self {
            Answer::Hit { value, .. } => Some(value.clone()),
            Answer::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let invoked = self.invoked.as_secs_f64();
        match &self.returned {
            Some(returned) => write!(f, "{invoked:11.6} .. {:11.6}", returned.at.as_secs_f64())?,
            None => write!(f, "{invoked:11.6} .. {:>11}", "?")?,
        }
        let action = self.action.to_string();
        write!(f, "  client {:<3} {action:<30} ", self.client)?;
        match &self.returned {
            Some(returned) => write!(f, "{}", returned.answer),
            None => f.write_str("unknown"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Get => f.write_str("get"),
            Action::Set(value) => write!(f, "set {value}"),
            Action::Cas { value, unique } => write!(f, "cas {value} if {unique}"),
            Action::Delete => f.write_str("delete"),
            Action::Incr(delta) => write!(f, "incr {delta}"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Hit {
                value,
                unique: None,
            } => write!(f, "VALUE {value}"),
            Answer::Hit {
                value,
                unique: Some(unique),
            } => write!(f, "VALUE {value}, unique {unique}"),
            Answer::Miss => f.write_str("END"),
            Answer::Stored => f.write_str("STORED"),
            Answer::Exists => f.write_str("EXISTS"),
            Answer::NotFound => f.write_str("NOT_FOUND"),
            Answer::Deleted => f.write_str("DELETED"),
            Answer::Number(number) => write!(f, "{number}"),
            Answer::NotANumber => f.write_str("not a number"),
        }
    }
}
