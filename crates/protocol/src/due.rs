//! What a client is owed and is known, and is not in the output yet.

use std::vec;

use command::{Hit, Outcome, Reply};

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
    Answer(&'static str),
    /// Nothing comes behind it.
    Close,
}

impl Due {
    /// What the hits take that are still to be appended, in bytes of keys and values.
    pub(crate) fn hits_bytes(&self) -> usize {
        match self {
            Due::Hits { rest, .. } => rest.as_slice().iter().map(|hit| hit.data.bytes()).sum(),
            Due::Reply { .. } | Due::Answer(_) | Due::Close => 0,
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
                with_unique: shows_unique(shape),
            },
            outcome => Due::Reply {
                outcome,
                shape,
                server_stats,
            },
        }
    }
}
