//! Reading ahead in memory: what the writes of an entry will need is asked for together.

use command::{Key, Write};

use crate::map::WARMED_MAX;
use crate::store::Store;

impl Store {
    /// Has what `apply` reads for these writes, the next in their order, in the processor's cache, if
    /// that is known from the writes alone. Changes nothing; without it, each write waits for memory
    /// several times.
    pub fn warm(&self, writes: &[Write]) {
        for writes in writes.chunks(WARMED_MAX) {
            let mut hashes = [0; WARMED_MAX];
            let keys = writes.iter().filter_map(key);
            let mut count = 0;
            for (place, key) in hashes.iter_mut().zip(keys) {
                *place = self.map.hash(key.as_bytes());
                count += 1;
            }
            self.map.warm(hashes.get(..count).unwrap_or_default());
        }
    }
}

/// The key of the item that a write is about, if it is about one.
fn key(write: &Write) -> Option<&Key> {
    match write {
        Write::Store(store) => Some(&store.key),
        Write::Delete { key } | Write::Arithmetic { key, .. } | Write::Touch { key, .. } => {
            Some(key)
        }
        Write::MetaGet(get) => Some(&get.key),
        Write::MetaSet(set) => Some(&set.store.key),
        Write::MetaDelete(delete) => Some(&delete.key),
        Write::MetaArithmetic(arithmetic) => Some(&arithmetic.key),
        Write::GetAndTouch { .. }
        | Write::FlushAll { .. }
        | Write::MemoryLimit { .. }
        | Write::Topic(_) => None,
    }
}
