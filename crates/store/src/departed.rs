//! Why a key that is not there is gone: what `get_expired` and `get_flushed` of `stats` are counted
//! by. It is this process's own memory, of the last few thousand items, and nothing that is
//! replicated depends on it.

use std::collections::{BTreeMap, VecDeque};

/// So many are remembered.
pub(crate) const DEPARTED_MAX: usize = 4096;

/// Why an item is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Its time was over.
    Expired,
    /// A `flush_all` took it.
    Flushed,
}

/// The items that went last, by the hashes of their keys.
#[derive(Debug, Default)]
pub(crate) struct Departed {
    by_hash: BTreeMap<u64, Gone>,
    /// The hashes in the order in which they came; some may not be in `by_hash` any more.
    order: VecDeque<u64>,
}

impl Departed {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    pub(crate) fn note(&mut self, hash: u64, why: Gone) {
        if self.by_hash.insert(hash, why).is_some() {
            return;
        }
        self.order.push_back(hash);
        if self.order.len() > DEPARTED_MAX
            && let Some(first) = self.order.pop_front()
        {
            self.by_hash.remove(&first);
        }
    }

    /// A client has deleted it.
    pub(crate) fn forget(&mut self, hash: u64) {
        self.by_hash.remove(&hash);
    }

    pub(crate) fn why(&self, hash: u64) -> Option<Gone> {
        self.by_hash.get(&hash).copied()
    }
}
