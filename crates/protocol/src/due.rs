//! What a client is owed and is known, and is not in the output yet.

use std::vec;

use command::{Hit, Outcome, Reply};

use crate::dump::{CACHEDUMP_BYTES_MAX, Dump};
use crate::reply::shows_unique;
use crate::request::Shape;
use crate::session::StatLine;

/// A reply, or what is left of it.
#[derive(Debug)]
pub(crate) enum Due {
    /// One that is appended all at once: it is short.
    Reply {
        outcome: Outcome,
        shape: Shape,
        server_stats: Vec<StatLine>,
    },
    /// The hits that are still to be appended, and then `END`.
    Hits {
        rest: vec::IntoIter<Hit>,
        with_unique: bool,
    },
    /// A list of keys: what has been appended of it, in lines and bytes.
    Dump(Dumped),
    Answer(&'static str),
    /// Nothing comes behind it.
    Close,
}

/// How far a dump has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dumped {
    pub(crate) dump: Dump,
    /// Of a state that has come this far in the log, or further.
    pub(crate) last_applied: u64,
    /// Its first line, if it has one before those of the items, is appended.
    pub(crate) is_begun: bool,
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

impl Dumped {
    /// Whether the dump takes no more lines.
    pub(crate) fn is_full(&self) -> bool {
        match self.dump {
            Dump::Metadump | Dump::Mgdump => false,
            Dump::Cachedump { items_max } => {
                (items_max > 0 && self.items >= items_max) || self.bytes >= CACHEDUMP_BYTES_MAX
            }
        }
    }
}

impl Due {
    /// What the hits take that are still to be appended, in bytes of keys and values.
    pub(crate) fn hits_bytes(&self) -> usize {
        match self {
            Due::Hits { rest, .. } => rest.as_slice().iter().map(|hit| hit.data.bytes()).sum(),
            Due::Reply {
                outcome: Outcome::Done(Reply::MetaHit(hit)),
                ..
            } => hit.data.bytes(),
            Due::Reply {
                outcome: Outcome::Done(Reply::Message(message)),
                ..
            } => message.data.as_slice().len(),
            Due::Reply { .. } | Due::Dump(_) | Due::Answer(_) | Due::Close => 0,
        }
    }

    /// The reply to a command of this shape.
    ///
    /// # Panics
    ///
    /// When there are hits and a command of this shape can have none.
    pub(crate) fn new(outcome: Outcome, shape: Shape, server_stats: Vec<StatLine>) -> Due {
        match outcome {
            Outcome::Done(Reply::Hits(hits)) if shape != Shape::Silent => Due::Hits {
                rest: hits.into_iter(),
                with_unique: shows_unique(&shape),
            },
            Outcome::Done(Reply::Confirmed { last_applied }) if let Shape::Dump(dump) = shape => {
                Due::Dump(Dumped {
                    dump,
                    last_applied,
                    is_begun: false,
                    items: 0,
                    bytes: 0,
                })
            }
            outcome => Due::Reply {
                outcome,
                shape,
                server_stats,
            },
        }
    }
}
