//! Reading ahead in memory: what the writes of an entry, or the reads of many connections, will need is
//! asked for together.

use command::{Key, Read, Write};

use crate::map::{Map, WARMED_MAX, read_lines};
use crate::store::Store;

/// So many of the keys of a `get` are looked up ahead.
const READ_KEYS_MAX: usize = 16;

impl Store {
    /// Has what `apply` reads for these writes, the next in their order, in the processor's cache, if
    /// that is known from the writes alone. Changes nothing; without it, each write waits for memory
    /// several times.
    pub fn warm(&self, writes: &[Write]) {
        let mut ahead = Ahead::new(&self.map);
        let mut read = 0;
        for write in writes {
            if let Some((key, value)) = key_and_value(write) {
                read += read_lines(value);
                ahead.push(key.as_bytes());
            }
        }
        std::hint::black_box(read);
        ahead.read();
    }

    /// The same for reads that come next.
    pub fn warm_reads<'a>(&self, reads: impl Iterator<Item = &'a Read>) {
        let mut ahead = Ahead::new(&self.map);
        for read in reads {
            match read {
                Read::Get { keys } => {
                    let keys = keys.iter().take(READ_KEYS_MAX);
                    keys.for_each(|key| ahead.push(key));
                }
                Read::MetaGet(get) => ahead.push(get.key.as_bytes()),
                Read::Inspect { .. } | Read::Confirm | Read::Topics | Read::Peek { .. } => {}
            }
        }
        ahead.read();
    }
}

/// Keys that are to be looked up soon.
struct Ahead<'a> {
    map: &'a Map,
    hashes: [u64; WARMED_MAX],
    count: usize,
}

impl<'a> Ahead<'a> {
    fn new(map: &'a Map) -> Ahead<'a> {
        Ahead {
            map,
            hashes: [0; WARMED_MAX],
            count: 0,
        }
    }

    fn push(&mut self, key: &[u8]) {
        if let Some(place) = self.hashes.get_mut(self.count) {
            *place = self.map.hash(key);
            self.count += 1;
        }
        if self.count == WARMED_MAX {
            self.read();
        }
    }

    fn read(&mut self) {
        self.map
            .warm(self.hashes.get(..self.count).unwrap_or_default());
        self.count = 0;
    }
}

/// The key of the item that a write is about, if it is about one, and the value that comes with it.
fn key_and_value(write: &Write) -> Option<(&Key, &[u8])> {
    match write {
        Write::Store(store) => Some((&store.key, &store.value)),
        Write::MetaSet(set) => Some((&set.store.key, &set.store.value)),
        Write::Delete { key } | Write::Arithmetic { key, .. } | Write::Touch { key, .. } => {
            Some((key, &[]))
        }
        Write::MetaGet(get) => Some((&get.key, &[])),
        Write::MetaDelete(delete) => Some((&delete.key, &[])),
        Write::MetaArithmetic(arithmetic) => Some((&arithmetic.key, &[])),
        Write::GetAndTouch { .. }
        | Write::FlushAll { .. }
        | Write::MemoryLimit { .. }
        | Write::Topic(_) => None,
    }
}
