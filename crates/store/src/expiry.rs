//! What is over at which second: exactly one entry for each item that has a deadline, so that
//! touching an item again and again takes no memory.

use std::collections::BTreeSet;
use std::ops::Bound;

/// The deadlines of the items of a map, each with the hash of its key, which finds the item there.
/// Items that share both share an entry.
#[derive(Debug, Default)]
pub(crate) struct Expiry {
    deadlines: BTreeSet<Entry>,
}

/// A second and a hash, ordered by both. In bytes it takes 12, and as a pair of numbers 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    over_at: [u8; 4],
    hash: [u8; 8],
}

impl Entry {
    fn new(over_at: u32, hash: u64) -> Entry {
        Entry {
            over_at: over_at.to_be_bytes(),
            hash: hash.to_be_bytes(),
        }
    }

    fn over_at(self) -> u32 {
        u32::from_be_bytes(self.over_at)
    }
}

impl FromIterator<(u32, u64)> for Expiry {
    /// The deadlines of these items, each with the hash of its key; none is 0.
    fn from_iter<I: IntoIterator<Item = (u32, u64)>>(deadlines: I) -> Expiry {
        Expiry {
            deadlines: deadlines
                .into_iter()
                .map(|(over_at, hash)| Entry::new(over_at, hash))
                .collect(),
        }
    }
}

impl Expiry {
    /// An item with this hash is over at this second; nothing if that is never.
    pub(crate) fn insert(&mut self, over_at: u32, hash: u64) {
        if over_at != 0 {
            self.deadlines.insert(Entry::new(over_at, hash));
        }
    }

    /// No item with this hash is over at this second any more.
    pub(crate) fn remove(&mut self, over_at: u32, hash: u64) {
        self.deadlines.remove(&Entry::new(over_at, hash));
    }

    /// The first deadline, if it is at this second or before.
    pub(crate) fn first_due(&self, second: u64) -> Option<(u32, u64)> {
        let first = *self.deadlines.first()?;
        let is_due = u64::from(first.over_at()) <= second;
        is_due.then(|| (first.over_at(), u64::from_be_bytes(first.hash)))
    }

    /// The first second after this one at which an item is over.
    pub(crate) fn next_after(&self, second: u64) -> Option<u64> {
        let second = u32::try_from(second).ok()?;
        let from = Bound::Excluded(Entry::new(second, u64::MAX));
        let next = self.deadlines.range((from, Bound::Unbounded)).next()?;
        Some(u64::from(next.over_at()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.deadlines.is_empty()
    }

    /// Drops up to `count` entries, and says how many; at least 1, for the time that it takes.
    pub(crate) fn shrink(&mut self, count: usize) -> usize {
        let dropped = (0..count).find(|_| self.deadlines.pop_first().is_none());
        dropped.unwrap_or(count).max(1)
    }
}
