//! The log as the core sees it: where it begins, every entry's term, the newest entries themselves,
//! what has been handed to the disk and what of it is synced. The bytes of older entries are the
//! disk's, and what is before the beginning is in a snapshot alone.

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
    /// The entry before the first; 0, 0 while the log holds all of them.
    before: Position,
    /// The first entry of each term, ascending in both; the first entries that are of the term of
    /// `before` have none.
    term_starts: Vec<Position>,
    /// The last entry; `before` in an empty log.
    last: Position,
    /// The newest entries, consecutive up to `last`; all that are unwritten are among them.
    cache: VecDeque<Entry>,
    cache_bytes: usize,
    /// The first entry that no write holds yet; at most one behind `last`.
    unwritten_from: Index,
    /// Entries from here on are on disk or on their way there, and were superseded.
    truncate_from: Option<Index>,
    /// The log on disk is to be given up, and to begin behind this.
    begin_behind: Option<Position>,
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
        let before = recovered.before;
        let mut term_starts = recovered.term_starts.clone();
        term_starts.retain(|start| start.index > before.index && start.term > before.term);
        Log {
            before,
            term_starts,
            last: recovered.last,
            cache: VecDeque::new(),
            cache_bytes: 0,
            unwritten_from: recovered.last.index.next(),
            truncate_from: None,
            begin_behind: None,
            persisted_index: recovered.last.index,
            issued: VecDeque::new(),
            unpersisted_bytes: 0,
        }
    }

    /// The entry before the first, whose term is still known.
    pub(crate) fn before(&self) -> Position {
        self.before
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

    /// The term of the entry at `index`; `None` beyond the end and below `before`.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        (self.before.index <= index && index <= self.last.index).then(|| self.run_start(index).term)
    }

    /// The first entry of the term that the entry at `index` is of, as far as the log goes back.
    pub(crate) fn term_start(&self, index: Index) -> Index {
        self.run_start(index).index
    }

    /// The first entry of the term that the entry at `index` is of, or else `before`.
    fn run_start(&self, index: Index) -> Position {
        let starts = self
            .term_starts
            .partition_point(|start| start.index <= index);
        starts
            .checked_sub(1)
            .map_or(self.before, |start| self.term_starts[start])
    }

    /// The entry at `index` with its term; `None` beyond the end and below `before`.
    pub(crate) fn position_at(&self, index: Index) -> Option<Position> {
        self.term_at(index).map(|term| Position { term, index })
    }

    /// The last entry at or below `limit.index` whose term is at most `limit.term`: no log that
    /// ends at `limit` agrees with this one further than that (§5.3). 0, 0 when that is further back
    /// than this log goes.
    pub(crate) fn last_agreeable(&self, limit: Position) -> Position {
        let index = limit.index.min(self.last.index);
        let runs = self
            .term_starts
            .partition_point(|start| start.term <= limit.term && start.index <= index);
        if limit.index < self.before.index || limit.term < self.before.term {
            return Position::default();
        }
        let run = runs
            .checked_sub(1)
            .map_or(self.before, |run| self.term_starts[run]);
        let end = self
            .term_starts
            .get(runs)
            .map_or(self.last.index, |next| next.index.prev());
        Position {
            term: run.term,
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
            from > self.before.index && from <= self.last.index,
            "truncate {from} of {} to {}",
            self.before.index.next(),
            self.last.index,
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
        let term = self.run_start(index).term;
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

    /// What is up to `position` is in a snapshot alone from now on.
    pub(crate) fn drop_until(&mut self, position: Position) {
        assert!(
            self.position_at(position.index) == Some(position)
                && position.index < self.unwritten_from,
            "{position:?} was dropped from a log behind {:?} that is written up to {}",
            self.before,
            self.unwritten_from.prev(),
        );
        while let Some(entry) = self
            .cache
            .pop_front_if(|entry| entry.index <= position.index)
        {
            self.cache_bytes -= entry_bytes(&entry);
        }
        self.before = position;
        self.term_starts
            .retain(|start| start.index > position.index);
        // It is in the snapshot, which is durable, whatever is known of the log's own syncs.
        self.persisted_index = self.persisted_index.max(position.index);
    }

    /// Gives up all entries: the log begins behind `position`, as a snapshot does that is durable.
    /// No sync of what was written before says anything of this log (rule 6).
    pub(crate) fn begin_behind(&mut self, position: Position) {
        self.before = position;
        self.last = position;
        self.term_starts.clear();
        self.cache.clear();
        self.cache_bytes = 0;
        self.unwritten_from = position.index.next();
        self.truncate_from = None;
        self.begin_behind = Some(position);
        self.persisted_index = if mutants::is_on(Mutant::InstallBeforeSync) {
            position.index
        } else {
            Index(0)
        };
        for issued in &mut self.issued {
            if !mutants::is_on(Mutant::LateSyncVouches) {
                issued.covers = Index(0);
            }
        }
    }

    /// What must go to the disk: all that no write holds yet; `None` when there is nothing.
    pub(crate) fn take_write(
        &mut self,
        id: WriteId,
        hard_state: Option<HardState>,
        recovered: bool,
    ) -> Option<Write> {
        let begin_behind = self.begin_behind.take();
        let truncate_from = self.truncate_from.take();
        let entries = if self.unwritten_from <= self.last.index {
            let entries = self.cached(self.unwritten_from, self.last.index, usize::MAX);
            entries.expect("the cache keeps what is unwritten")
        } else {
            Vec::new()
        };
        let log_changed = begin_behind.is_some() || truncate_from.is_some() || !entries.is_empty();
        if hard_state.is_none() && !log_changed && !recovered {
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
            begin_behind,
            truncate_from,
            entries,
            recovered,
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
                .is_sorted_by(|a, b| a.term < b.term && a.index < b.index)
                && self
                    .term_starts
                    .first()
                    .is_none_or(|it| it.index > self.before.index && it.term > self.before.term),
            "terms start at {:?}, behind {:?}",
            self.term_starts,
            self.before,
        );
        assert!(
            self.before.index <= self.last.index && self.before.index < self.cache_start(),
            "the log is {:?} to {:?}, the cache starts at {}",
            self.before,
            self.last,
            self.cache_start(),
        );
    }
}
