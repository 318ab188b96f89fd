//! Keys to items: a fixed number of shards in groups, each shared until it is changed, so that a
//! view of all of them costs one counter for each group and a change copies one group's counters
//! and one shard at most. The only unordered map of the system: its order never leaves this file
//! but as a set of items (rule 47).

use std::hash::Hasher;
use std::sync::Arc;

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;
use hashbrown::HashTable;

use crate::item::Item;

/// So few that a view of a store costs microseconds, and that an empty store is walked in less.
const GROUPS: usize = 256;

/// So many that in a store of a million items a shard has about 60: a copy takes microseconds, and
/// an entry of a thousand commands, each of which copies another shard, a few milliseconds.
const GROUP_SHARDS: usize = 64;

const SHARDS: usize = GROUPS * GROUP_SHARDS;

/// So many tables are measured, if there are as many, to tell the size of all.
const MEASURED_SHARDS_MIN: usize = 64;

/// How large the tables are that items are found by, without the items' keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSize {
    pub buckets: u64,
    pub bytes: u64,
}

/// For so many items memory is read together, at most: about as many reads as a processor keeps under
/// way.
pub(crate) const WARMED_MAX: usize = 16;

/// So much of a value is read ahead. Of a longer one a processor reads the rest ahead by itself.
const WARMED_VALUE_BYTES_MAX: usize = 1024;

const CACHE_LINE_BYTES: usize = 64;

/// The bits of a hash that choose the shard; its table uses lower and higher ones.
const SHARD_SHIFT: u32 = 40;

pub(crate) type Shard = HashTable<Item>;

/// Shards next to each other; those that never held anything are not there.
pub(crate) type Group = [Option<Arc<Shard>>; GROUP_SHARDS];

#[derive(Debug)]
pub(crate) struct Map {
    hasher: KeyHasher,
    shards: Shards,
}

/// The items of a map; a copy shares them, and no later change of the map shows in it.
#[derive(Clone, Debug)]
pub(crate) struct Shards(Vec<Option<Arc<Group>>>);

impl Shards {
    /// All items, in no order.
    pub(crate) fn items(&self) -> impl Iterator<Item = &Item> {
        let groups = self.0.iter().flatten();
        let shards = groups.flat_map(|group| group.iter().flatten());
        shards.flat_map(|shard| shard.iter())
    }

    /// Those that hold something, or did.
    pub(crate) fn into_groups(self) -> impl Iterator<Item = Arc<Group>> {
        self.0.into_iter().flatten()
    }

    /// How large the tables are: those of the first few shards that there are, and the others taken
    /// to be like them, since hashes spread keys evenly.
    pub(crate) fn table_size(&self) -> TableSize {
        let (mut groups, mut shards, mut size) = (0, 0, TableSize::default());
        for group in &self.0 {
            groups += 1;
            for shard in group.iter().flat_map(|group| group.iter().flatten()) {
                shards += 1;
                size.buckets += shard.num_buckets() as u64;
                size.bytes += (shard.allocation_size() + size_of::<Shard>()) as u64;
            }
            size.bytes += group.as_ref().map_or(0, |_| size_of::<Group>() as u64);
            if shards >= MEASURED_SHARDS_MIN {
                break;
            }
        }
        TableSize {
            buckets: size.buckets * GROUPS as u64 / groups,
            bytes: size.bytes * GROUPS as u64 / groups,
        }
    }

    fn shard(&self, number: usize) -> Option<&Shard> {
        let group = self.0[number / GROUP_SHARDS].as_ref()?;
        group[number % GROUP_SHARDS].as_deref()
    }

    /// A shard that nobody shares.
    fn shard_mut(&mut self, number: usize) -> &mut Shard {
        let group = self.0[number / GROUP_SHARDS]
            .get_or_insert_with(|| Arc::new([const { None }; GROUP_SHARDS]));
        let shard = Arc::make_mut(group)[number % GROUP_SHARDS].get_or_insert_default();
        Arc::make_mut(shard)
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
            shards: Shards(vec![None; GROUPS]),
        }
    }

    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<&Item> {
        let shard = self.shards.shard(shard_of(hash))?;
        shard.find(hash, |item| item.key() == key)
    }

    /// Reads what `find` reads on its way to items with these hashes, and the items, a step for all of
    /// them and then the next. Each step waits for memory, and what does not depend on each other is
    /// waited for together. A change needs the memory of the old item too: the allocator gives it to
    /// the next one.
    pub(crate) fn warm(&self, hashes: &[u64]) {
        let mut shards = [None; WARMED_MAX];
        let mut items = [None; WARMED_MAX];
        // What a change looks at is read as well: who shares the group, and the shard.
        let mut read = 0;
        for (shard, hash) in shards.iter_mut().zip(hashes) {
            let number = shard_of(*hash);
            if let Some(group) = &self.shards.0[number / GROUP_SHARDS] {
                read += Arc::strong_count(group);
                *shard = group[number % GROUP_SHARDS].as_ref();
            }
        }
        for shard in shards.iter().flatten() {
            read += Arc::strong_count(shard) + shard.len();
        }
        for ((item, shard), hash) in items.iter_mut().zip(shards).zip(hashes) {
            *item = shard.and_then(|shard| shard.find(*hash, |_| true));
        }
        // Of what lies beside key and value the first and the last part, which may be apart.
        for item in items.iter().flatten() {
            read += item.data.bytes() + item.key().len();
        }
        for item in items.into_iter().flatten() {
            read += read_lines(item.value());
        }
        std::hint::black_box(read);
    }

    pub(crate) fn find_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Item> {
        let shard = self.shards.shard_mut(shard_of(hash));
        shard.find_mut(hash, |item| item.key() == key)
    }

    /// True if an item with this hash is over at this second.
    pub(crate) fn has_over_at(&self, hash: u64, over_at: u32) -> bool {
        let found = self.shards.shard(shard_of(hash)).and_then(|shard| {
            shard.find(hash, |item| {
                item.over_at() == over_at && self.hasher.hash(item.key()) == hash
            })
        });
        found.is_some()
    }

    /// Puts `item` in, and gives the one that had its key.
    pub(crate) fn insert(&mut self, hash: u64, item: Item) -> Option<Item> {
        let hasher = &self.hasher;
        let shard = self.shards.shard_mut(shard_of(hash));
        if let Some(old) = shard.find_mut(hash, |old| old.key() == item.key()) {
            return Some(std::mem::replace(old, item));
        }
        shard.insert_unique(hash, item, |item| hasher.hash(item.key()));
        None
    }

    pub(crate) fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Item> {
        let shard = self.shards.shard_mut(shard_of(hash));
        let entry = shard.find_entry(hash, |item| item.key() == key).ok()?;
        Some(entry.remove().0)
    }

    /// Takes out one item with this hash that is over at this second.
    pub(crate) fn remove_over_at(&mut self, hash: u64, over_at: u32) -> Option<Item> {
        let hasher = &self.hasher;
        let shard = self.shards.shard_mut(shard_of(hash));
        let entry = shard.find_entry(hash, |item| {
            item.over_at() == over_at && hasher.hash(item.key()) == hash
        });
        Some(entry.ok()?.remove().0)
    }

    /// Leaves an empty map, and gives what it held, so that it can be dropped piece by piece.
    pub(crate) fn take_shards(&mut self) -> Shards {
        std::mem::replace(&mut self.shards, Shards(vec![None; GROUPS]))
    }

    /// Looks at the items from this shard on, whole shards until there were `items_max`, and takes
    /// out those that `is_it` holds for, each with its hash, in no order. Then says which shard is
    /// next, if one is.
    pub(crate) fn drain(
        &mut self,
        from: usize,
        items_max: usize,
        is_it: impl Fn(&Item) -> bool,
    ) -> (Vec<(u64, Item)>, Option<usize>) {
        let hasher = &self.hasher;
        let mut drained = Vec::new();
        let mut seen = 0;
        for number in from..SHARDS {
            if seen >= items_max {
                return (drained, Some(number));
            }
            let Some(shard) = self.shards.shard(number) else {
                continue;
            };
            seen += shard.len();
            if shard.iter().any(&is_it) {
                let shard = self.shards.shard_mut(number);
                let items = shard.extract_if(|item| is_it(item));
                drained.extend(items.map(|item| (hasher.hash(item.key()), item)));
            }
        }
        (drained, None)
    }

    /// The items as they are.
    pub(crate) fn shards(&self) -> &Shards {
        &self.shards
    }
}

/// Puts a map together of items with different keys. Tables are made when all have come and their
/// sizes are known, group after group: a table that grows, or is filled here and there, takes a
/// multiple of the time.
#[derive(Debug)]
pub(crate) struct MapBuilder {
    map: Map,
    groups: Vec<Vec<(u64, Item)>>,
}

impl MapBuilder {
    pub(crate) fn new(seed: u64) -> MapBuilder {
        MapBuilder {
            map: Map::new(seed),
            groups: (0..GROUPS).map(|_| Vec::new()).collect(),
        }
    }

    /// Adds an item, whose key no other has, and gives the hash of it.
    pub(crate) fn push(&mut self, item: Item) -> u64 {
        let hash = self.map.hash(item.key());
        self.groups[shard_of(hash) / GROUP_SHARDS].push((hash, item));
        hash
    }

    pub(crate) fn finish(mut self) -> Map {
        for items in self.groups {
            let mut counts = [0; GROUP_SHARDS];
            for (hash, _) in &items {
                counts[shard_of(*hash) % GROUP_SHARDS] += 1;
            }
            let hasher = &self.map.hasher;
            for (hash, item) in items {
                let number = shard_of(hash);
                let shard = self.map.shards.shard_mut(number);
                let missing = std::mem::take(&mut counts[number % GROUP_SHARDS]);
                shard.reserve(missing, |item| hasher.hash(item.key()));
                shard.insert_unique(hash, item, |item| hasher.hash(item.key()));
            }
        }
        self.map
    }
}

fn shard_of(hash: u64) -> usize {
    (hash >> SHARD_SHIFT) as usize % SHARDS
}

/// Reads every cache line of the front of these bytes. The sum is there for the reading to be done.
pub(crate) fn read_lines(bytes: &[u8]) -> usize {
    let bytes = &bytes[..bytes.len().min(WARMED_VALUE_BYTES_MAX)];
    let places = bytes.iter().step_by(CACHE_LINE_BYTES).chain(bytes.last());
    places.map(|byte| usize::from(*byte)).sum()
}
