//! What is committed and handed out to be applied, from memory or read back from the log.

use crate::io::{Fetch, Fetched, Reader};
use crate::log::entry_bytes;
use crate::raft::Raft;
use crate::types::{Entry, Index};

/// The most of entries that is handed out at once to be applied, but for a single larger one: to
/// apply what a few small commands make of this takes some milliseconds, far from a timeout.
const APPLY_BYTES_MAX: usize = 256 << 10;

impl Raft {
    pub(crate) fn take_committed(&mut self) -> Vec<Entry> {
        let mut committed = std::mem::take(&mut self.to_apply);
        if let Some(last) = committed.last() {
            self.last_applied = last.index;
        }
        let from = self.last_applied.next();
        if from <= self.commit_index && !self.apply_fetching {
            if let Some(entries) = self.cached_to_apply(from, &committed) {
                committed.extend(entries);
                if let Some(last) = committed.last() {
                    self.last_applied = last.index;
                }
            } else {
                let to = self.commit_index.min(self.log.cache_start().prev());
                let fetch = Fetch {
                    reader: Reader::Apply,
                    from,
                    to,
                    bytes_max: APPLY_BYTES_MAX,
                };
                self.fetches.push(fetch);
                self.apply_fetching = true;
            }
        }
        committed
    }

    /// What memory holds of what is to be applied next, none if enough is handed out already;
    /// `None` if it does not hold the first of it.
    fn cached_to_apply(&self, from: Index, committed: &[Entry]) -> Option<Vec<Entry>> {
        let handed_out: usize = committed.iter().map(entry_bytes).sum();
        match APPLY_BYTES_MAX.checked_sub(handed_out) {
            Some(bytes_max) => self.log.cached(from, self.commit_index, bytes_max),
            None => Some(Vec::new()),
        }
    }

    pub(crate) fn fetched(&mut self, fetched: Fetched) {
        match fetched.fetch.reader {
            Reader::Apply => self.fetched_to_apply(fetched),
            Reader::Follower(id) => self.fetched_for_follower(id, fetched.entries),
        }
    }

    fn fetched_to_apply(&mut self, fetched: Fetched) {
        self.apply_fetching = false;
        let mut next = self
            .to_apply
            .last()
            .map_or(self.last_applied, |entry| entry.index)
            .next();
        if fetched.fetch.from != next {
            // A snapshot was installed since they were asked for, and holds them.
            return;
        }
        for entry in fetched.entries {
            let expected = self.log.position_at(next);
            assert!(
                expected == Some(entry.position()),
                "the log gave back {:?} for {expected:?}",
                entry.position(),
            );
            if next > self.commit_index {
                break;
            }
            next = next.next();
            self.to_apply.push(entry);
        }
    }
}
