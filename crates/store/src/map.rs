//! Keys to items: a fixed number of shards, each shared until it is changed, so that a view of all
//! of them costs one counter each and a change copies one shard at most. The only unordered
//! map of the system: its order never leaves this file but as a set of items (rule 47).

use std::hash::Hasher;
use std::sync::Arc;

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;
use hashbrown::HashTable;

use crate::item::Item;

/// Enough that a shard of a store of a million items is copied, grown or dropped in far less than
/// a millisecond.
const SHARDS: usize = 1024;

/// The bits of a hash that choose the shard; its table uses lower and higher ones.
const SHARD_SHIFT: u32 = 40;

pub(crate) type Shard = HashTable<Item>;

#[derive(Debug)]
pub(crate) struct Map {
    hasher: KeyHasher,
    shards: Shards,
}

/// The items of a map; a copy shares its shards, and no later change of the map shows in it.
#[derive(Clone, Debug)]
pub(crate) struct Shards(Vec<Arc<Shard>>);

impl Shards {
    /// All items, in no order.
    pub(crate) fn items(&self) -> impl Iterator<Item = &Item> {
        self.0.iter().flat_map(|shard| shard.iter())
    }
}

/// Differs in each process, so that nobody can choose keys that collide.
#[derive(Debug)]
struct KeyHasher {
    seed: u64,
    shared_seed: SharedSeed,
}

impl KeyHasher {
    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared_seed);
        hasher.write(key);
        // The hasher itself does not tell short inputs that end in zeros apart.
        hasher.write_usize(key.len());
        hasher.finish()
    }
}

impl Map {
    pub(crate) fn new(seed: u64) -> Map {
        Map {
            hasher: KeyHasher {
                seed,
                shared_seed: SharedSeed::from_u64(seed),
            },
            shards: Shards((0..SHARDS).map(|_| Arc::default()).collect()),
        }
    }

    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<&Item> {
        self.shards.0[shard_of(hash)].find(hash, |item| item.key() == key)
    }

    pub(crate) fn find_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Item> {
        Arc::make_mut(&mut self.shards.0[shard_of(hash)]).find_mut(hash, |item| item.key() == key)
    }

    /// True if an item with this hash is over at this second.
    pub(crate) fn has_over_at(&self, hash: u64, over_at: u32) -> bool {
        let found = self.shards.0[shard_of(hash)].find(hash, |item| {
            item.over_at == over_at && self.hasher.hash(item.key()) == hash
        });
        found.is_some()
    }

    /// Puts `item` in, and gives the one that had its key.
    pub(crate) fn insert(&mut self, hash: u64, item: Item) -> Option<Item> {
        let hasher = &self.hasher;
        let shard = Arc::make_mut(&mut self.shards.0[shard_of(hash)]);
        if let Some(old) = shard.find_mut(hash, |old| old.key() == item.key()) {
            return Some(std::mem::replace(old, item));
        }
        shard.insert_unique(hash, item, |item| hasher.hash(item.key()));
        None
    }

    /// Puts in an item whose key no item has.
    pub(crate) fn insert_unique(&mut self, hash: u64, item: Item) {
        let hasher = &self.hasher;
        let shard = Arc::make_mut(&mut self.shards.0[shard_of(hash)]);
        shard.insert_unique(hash, item, |item| hasher.hash(item.key()));
    }

    pub(crate) fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Item> {
        let shard = Arc::make_mut(&mut self.shards.0[shard_of(hash)]);
        let entry = shard.find_entry(hash, |item| item.key() == key).ok()?;
        Some(entry.remove().0)
    }

    /// Takes out one item with this hash that is over at this second.
    pub(crate) fn remove_over_at(&mut self, hash: u64, over_at: u32) -> Option<Item> {
        let hasher = &self.hasher;
        let shard = Arc::make_mut(&mut self.shards.0[shard_of(hash)]);
        let entry = shard.find_entry(hash, |item| {
            item.over_at == over_at && hasher.hash(item.key()) == hash
        });
        Some(entry.ok()?.remove().0)
    }

    /// Leaves an empty map, and gives the shards that held something, so that they can be dropped
    /// piece by piece.
    pub(crate) fn take_shards(&mut self) -> Vec<Arc<Shard>> {
        let held = self.shards.0.iter_mut().filter(|shard| !shard.is_empty());
        held.map(std::mem::take).collect()
    }

    /// Takes the items out of one shard that `is_it` holds for, each with its hash, in no order;
    /// `None` behind the last shard.
    pub(crate) fn drain_shard(
        &mut self,
        shard: usize,
        mut is_it: impl FnMut(&Item) -> bool,
    ) -> Option<Vec<(u64, Item)>> {
        let hasher = &self.hasher;
        let shard = Arc::make_mut(self.shards.0.get_mut(shard)?);
        let drained = shard.extract_if(|item| is_it(item));
        Some(
            drained
                .map(|item| (hasher.hash(item.key()), item))
                .collect(),
        )
    }

    /// The items as they are.
    pub(crate) fn shards(&self) -> &Shards {
        &self.shards
    }
}

fn shard_of(hash: u64) -> usize {
    (hash >> SHARD_SHIFT) as usize % SHARDS
}
