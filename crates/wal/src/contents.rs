//! What a log holds, but for the payloads: enough to check what comes next, and to say at start
//! what there is.

use raft::{HardState, Index, Position, Term};

/// The state that the records up to some place add up to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    pub(crate) hard_state: HardState,
    /// The entry before the first; 0, 0 if that is the very first.
    pub(crate) before: Position,
    /// The first entry of each term behind that of `before`, in order.
    pub(crate) term_starts: Vec<Position>,
    /// `before` if there are no entries.
    pub(crate) last: Position,
}

impl Contents {
    /// The position of the entry at `index`; `None` behind the end, and before `before`.
    pub(crate) fn position_at(&self, index: Index) -> Option<Position> {
        if index > self.last.index || index < self.before.index {
            return None;
        }
        let terms = self
            .term_starts
            .partition_point(|start| start.index <= index);
        let start = self.term_starts.iter().take(terms).next_back();
        let term = start.map_or(self.before.term, |start| start.term);
        Some(Position { term, index })
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

    /// Drops every entry up to this one, which is in the log.
    pub(crate) fn drop_to(&mut self, before: Position) {
        self.term_starts.retain(|start| start.index > before.index);
        self.before = before;
    }

    /// Drops every entry, and goes on behind this one.
    pub(crate) fn begin_behind(&mut self, before: Position) {
        self.term_starts.clear();
        self.before = before;
        self.last = before;
    }

    /// Drops every entry behind this one, which is in the log.
    pub(crate) fn truncate_to(&mut self, last: Position) {
        self.term_starts.retain(|start| start.index <= last.index);
        self.last = last;
    }
}
