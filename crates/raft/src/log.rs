//! The log as the core sees it: every entry's term, the newest entries themselves, what has been
//! handed to the disk and what of it is synced. The bytes of older entries are the disk's.

use std::collections::VecDeque;

use mutants::Mutant;

use crate::io::{Recovered, Write};
use crate::types::{Entry, HardState, Index, Position, Term, WriteId};

/// What an entry takes in memory and on the wire beyond its payload, about.
const ENTRY_OVERHEAD_BYTES: usize = 32;

/// What an entry counts for in every limit on bytes.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    entry.payload.len() + ENTRY_OVERHEAD_BYTES
}

#[derive(Debug)]
pub(crate) struct Log {
    /// The first entry of each term, ascending in both.
    term_starts: Vec<Position>,
    /// The last entry.
    last: Position,
    /// The newest entries, consecutive up to `last`; all that are unwritten are among them.
    cache: VecDeque<Entry>,
    cache_bytes: usize,
    /// The first entry that no write holds yet; at most one behind `last`.
    unwritten_from: Index,
    /// Entries from here on are on disk or on their way there, and were superseded.
    truncate_from: Option<Index>,
    /// Everything up to here is synced on this server's disk; at most `last`.
    persisted_index: Index,
    /// Writes handed out and not known to be synced, oldest first.
    issued: VecDeque<Issued>,
    unpersisted_bytes: usize,
}

/// A write that was handed out.
#[derive(Debug)]
struct Issued {
    id: WriteId,
    /// Its sync proves this much of the present log to be on disk; lowered when entries are taken
    /// back, so that a late sync never vouches for an entry that has replaced its own (rule 6).
    covers: Index,
    bytes: usize,
}

impl Log {
    pub(crate) fn new(recovered: &Recovered) -> Log {
        Log {
            term_starts: recovered.term_starts.clone(),
            last: recovered.last,
            cache: VecDeque::new(),
            cache_bytes: 0,
            unwritten_from: recovered.last.index.next(),
            truncate_from: None,
            persisted_index: recovered.last.index,
            issued: VecDeque::new(),
            unpersisted_bytes: 0,
        }
    }

    pub(crate) fn last(&self) -> Position {
        self.last
    }

    pub(crate) fn persisted_index(&self) -> Index {
        self.persisted_index
    }

    pub(crate) fn unpersisted_bytes(&self) -> usize {
        self.unpersisted_bytes
    }

    /// The term of the entry at `index`; `None` beyond the end. Before the first entry it is 0.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index > self.last.index {
            return None;
        }
        let starts = self
            .term_starts
            .partition_point(|start| start.index <= index);
        Some(
            starts
                .checked_sub(1)
                .map_or(Term(0), |start| self.term_starts[start].term),
        )
    }

    /// The first entry of the term that the entry at `index` is of.
    pub(crate) fn term_start(&self, index: Index) -> Index {
        let starts = self
            .term_starts
            .partition_point(|start| start.index <= index);
        starts
            .checked_sub(1)
            .map_or(Index(0), |start| self.term_starts[start].index)
    }

    /// The entry at `index` with its term; `None` beyond the end.
    pub(crate) fn position_at(&self, index: Index) -> Option<Position> {
        self.term_at(index).map(|term| Position { term, index })
    }

    /// The last entry at or below `limit.index` whose term is at most `limit.term`: no log that
    /// ends at `limit` agrees with this one further than that (§5.3).
    pub(crate) fn last_agreeable(&self, limit: Position) -> Position {
        let index = limit.index.min(self.last.index);
        let runs = self
            .term_starts
            .partition_point(|start| start.term <= limit.term && start.index <= index);
        let Some(run) = runs.checked_sub(1) else {
            return Position::default();
        };
        let end = self
            .term_starts
            .get(runs)
            .map_or(self.last.index, |next| next.index.prev());
        Position {
            term: self.term_starts[run].term,
            index: index.min(end),
        }
    }

    /// The entries from `from` to `to`, as far as memory holds all of them and up to `bytes_max`,
    /// but at least one; `None` when memory does not hold the first.
    pub(crate) fn cached(&self, from: Index, to: Index, bytes_max: usize) -> Option<Vec<Entry>> {
        let first = self.cache.front()?.index;
        if from < first || from > self.last.index {
            return None;
        }
        let skip = usize::try_from(from - first).ok()?;
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in self.cache.range(skip..) {
            bytes += entry_bytes(entry);
            if entry.index > to || (bytes > bytes_max && !entries.is_empty()) {
                break;
            }
            entries.push(entry.clone());
        }
        Some(entries)
    }

    /// The bytes of those entries from `from` to `to` that memory holds.
    pub(crate) fn cached_bytes(&self, from: Index, to: Index) -> usize {
        let skip = usize::try_from(from - self.cache_start()).unwrap_or(usize::MAX);
        let entries = self
            .cache
            .iter()
            .skip(skip)
            .take_while(|entry| entry.index <= to);
        entries.map(entry_bytes).sum()
    }

    /// The first entry that memory holds; one behind the last when it holds none.
    pub(crate) fn cache_start(&self) -> Index {
        self.cache
            .front()
            .map_or(self.last.index.next(), |entry| entry.index)
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        assert!(
            entry.index == self.last.index.next() && entry.term >= self.last.term,
            "entry {} of term {} behind entry {} of term {}",
            entry.index,
            entry.term,
            self.last.index,
            self.last.term,
        );
        if entry.term > self.last.term {
            self.term_starts.push(entry.position());
        }
        self.last = entry.position();
        self.cache_bytes += entry_bytes(&entry);
        self.cache.push_back(entry);
    }

    /// Takes back the entries from `from` on, and gives their bytes in memory.
    pub(crate) fn truncate(&mut self, from: Index) -> usize {
        assert!(
            from.0 > 0 && from <= self.last.index,
            "truncate {from} of {}",
            self.last.index
        );
        let mut bytes = 0;
        while self.cache.back().is_some_and(|entry| entry.index >= from) {
            bytes += self.cache.pop_back().map_or(0, |entry| entry_bytes(&entry));
        }
        self.cache_bytes -= bytes;
        while self
            .term_starts
            .last()
            .is_some_and(|start| start.index >= from)
        {
            self.term_starts.pop();
        }
        let index = from.prev();
        let term = self.term_starts.last().map_or(Term(0), |start| start.term);
        self.last = Position { term, index };
        if from < self.unwritten_from {
            self.unwritten_from = from;
            self.truncate_from = Some(self.truncate_from.map_or(from, |other| other.min(from)));
        }
        self.persisted_index = self.persisted_index.min(index);
        for issued in &mut self.issued {
            if !mutants::is_on(Mutant::LateSyncVouches) {
                issued.covers = issued.covers.min(index);
            }
        }
        bytes
    }

    /// What must go to the disk: all that no write holds yet; `None` when there is nothing.
    pub(crate) fn take_write(
        &mut self,
        id: WriteId,
        hard_state: Option<HardState>,
    ) -> Option<Write> {
        let truncate_from = self.truncate_from.take();
        let entries = if self.unwritten_from <= self.last.index {
            let entries = self.cached(self.unwritten_from, self.last.index, usize::MAX);
            entries.expect("the cache keeps what is unwritten")
        } else {
            Vec::new()
        };
        if hard_state.is_none() && truncate_from.is_none() && entries.is_empty() {
            return None;
        }
        let bytes = entries.iter().map(entry_bytes).sum();
        self.unwritten_from = self.last.index.next();
        self.unpersisted_bytes += bytes;
        self.issued.push_back(Issued {
            id,
            covers: self.last.index,
            bytes,
        });
        Some(Write {
            id,
            hard_state,
            begin_behind: None,
            truncate_from,
            entries,
        })
    }

    /// Writes up to `id` are synced.
    pub(crate) fn persisted(&mut self, id: WriteId) {
        while self.issued.front().is_some_and(|issued| issued.id <= id) {
            let Some(issued) = self.issued.pop_front() else {
                break;
            };
            self.unpersisted_bytes -= issued.bytes;
            self.persisted_index = self.persisted_index.max(issued.covers);
        }
    }

    /// Forgets the oldest entries while memory holds more than `bytes_max`, but none above `keep`.
    pub(crate) fn shrink(&mut self, keep: Index, bytes_max: usize) {
        let keep = keep.min(self.persisted_index);
        while self.cache_bytes > bytes_max {
            match self.cache.pop_front_if(|entry| entry.index <= keep) {
                Some(entry) => self.cache_bytes -= entry_bytes(&entry),
                None => break,
            }
        }
    }

    pub(crate) fn check(&self) {
        assert!(
            self.persisted_index < self.unwritten_from
                && self.unwritten_from.0 <= self.last.index.0 + 1,
            "persisted {}, unwritten from {}, last {}",
            self.persisted_index,
            self.unwritten_from,
            self.last.index,
        );
        let cached = self.cache.len() as u64;
        assert!(
            self.cache_start().0 + cached == self.last.index.0 + 1,
            "the cache starts at {} with {cached} entries, the last is {}",
            self.cache_start(),
            self.last.index,
        );
        assert!(
            self.cache_start() <= self.unwritten_from,
            "the cache starts at {}, unwritten from {}",
            self.cache_start(),
            self.unwritten_from,
        );
        assert!(
            self.term_starts
                .is_sorted_by(|a, b| a.term < b.term && a.index < b.index),
            "terms start at {:?}",
            self.term_starts,
        );
    }
}
