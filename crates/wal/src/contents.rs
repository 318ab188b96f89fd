//! What a log holds, but for the payloads: enough to check what comes next, and to say at start
//! what there is.

use raft::{HardState, Index, Position, Term};

/// The state that the records up to some place add up to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    pub(crate) hard_state: HardState,
    /// The first entry of each term, in order.
    pub(crate) term_starts: Vec<Position>,
    pub(crate) last: Position,
}

impl Contents {
    /// The position of the entry at `index`; `None` behind the end, 0, 0 before the start.
    pub(crate) fn position_at(&self, index: Index) -> Option<Position> {
        if index > self.last.index {
            return None;
        }
        let terms = self
            .term_starts
            .partition_point(|start| start.index <= index);
        let start = self.term_starts.iter().take(terms).next_back();
        Some(start.map_or(Position::default(), |start| Position {
            term: start.term,
            index,
        }))
    }

    /// True if an entry of this position may come next.
    pub(crate) fn takes(&self, entry: Position) -> bool {
        entry.index == self.last.index.next()
            && entry.term >= self.last.term
            && entry.term > Term(0)
    }

    pub(crate) fn append(&mut self, entry: Position) {
        if entry.term > self.last.term {
            self.term_starts.push(entry);
        }
        self.last = entry;
    }

    /// Drops every entry behind this one, which is in the log.
    pub(crate) fn truncate_to(&mut self, last: Position) {
        self.term_starts.retain(|start| start.index <= last.index);
        self.last = last;
    }
}
