//! The state and what each command does to it. Commands are applied one at a time, so that reads
//! may stand between two commands of an entry (rule 54). What clients see is exact at every place
//! in the log; the memory of what is gone may be freed a little later, piece by piece (`tidy`).

use command::{
    Deadline, Direction, Exptime, Hit, Key, LogTime, Preamble, Read, Reply, StoreMode, Write,
};
use mutants::Mutant;

use crate::departed::{DEPARTED_MAX, Departed, Gone};
use crate::expiry::Expiry;
use crate::garbage::Garbage;
use crate::item::{About, Item, arithmetic, over_at};
use crate::map::{Map, TableSize};
use crate::moment::{Flush, Moment, unique};
use crate::snapshot::Frozen;
use crate::tally::Tally;

/// The most items that are taken out at once because they are over.
const EXPIRE_ITEMS_MAX: usize = 1024;

/// The most items that are looked at, for whether a flush has taken them, at once, give or take a
/// shard.
const SWEEP_ITEMS_MAX: usize = 1024;

/// The replicated state of one group.
#[derive(Debug)]
pub struct Store {
    map: Map,
    /// Every item of `map` that has a deadline, whether it has come or not.
    expiry: Expiry,
    moment: Moment,
    /// The next shard to take items out of that a delayed flush has taken.
    sweep: Option<usize>,
    /// What was flushed at once.
    garbage: Garbage,
    /// What is alive.
    tally: Tally,
    departed: Departed,
    /// The items of `map`, whether they are alive or not.
    held_items: u64,
    /// Only what happens is counted here.
    counts: Counts,
    scratch: Vec<u8>,
}

/// What the store holds, for `stats`, and what has happened to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Items that a reader finds: the same number at the same place in the log on all servers.
    pub items: u64,
    /// Keys, values and `ITEM_OVERHEAD_BYTES` for each of them: what the memory limit is about.
    pub bytes: u64,
    /// Items that are gone, and whose memory is not free yet; without those of `flush_all` at once.
    pub gone_items: u64,
    /// Items stored by the entries applied since the start.
    pub total_items: u64,
    /// Items whose deadline came since the start.
    pub expired_items: u64,
    /// Items that were gone already, and not freed, when one with their key was stored.
    pub reclaimed_items: u64,
}

impl Store {
    /// An empty store. `seed` is this process's own, and shows nowhere.
    #[must_use]
    pub fn new(seed: u64) -> Store {
        Store {
            map: Map::new(seed),
            expiry: Expiry::default(),
            moment: Moment::default(),
            sweep: None,
            garbage: Garbage::default(),
            tally: Tally::default(),
            departed: Departed::default(),
            held_items: 0,
            counts: Counts::default(),
            scratch: Vec::new(),
        }
    }

    /// The store at this moment, with these items, which are all alive.
    pub(crate) fn loaded(moment: Moment, map: Map, expiry: Expiry, tally: Tally) -> Store {
        Store {
            map,
            expiry,
            moment,
            held_items: tally.alive().items,
            tally,
            ..Store::new(0)
        }
    }

    /// Begins the entry at `index`: time goes on to its stamp, never back, and what is due is gone
    /// (rules 48 and 49).
    ///
    /// # Panics
    /// If `index` is not larger than that of the entry before, or 2^48 or more.
    pub fn enter(&mut self, index: u64, preamble: &Preamble) {
        assert!(
            self.moment.index < index && index < 1 << 48,
            "entry {index} after {}",
            self.moment.index
        );
        self.moment.index = index;
        self.moment.item_bytes_max = preamble.item_bytes_max;
        self.moment.memory_limit.set(preamble.memory_limit_bytes);
        if preamble.log_time > self.moment.log_time || mutants::is_on(Mutant::TimeGoesBack) {
            self.moment.log_time = preamble.log_time;
            self.flush_if_due(unique(index, 0));
            self.tally.expire(self.moment.log_time.seconds());
            self.expire();
        }
    }

    /// Carries out the command at `place` of the entry begun last.
    pub fn apply(&mut self, place: u16, write: &Write) -> Reply {
        let mut unique = unique(self.moment.index, place);
        if mutants::is_on(Mutant::LocalUnique) {
            unique ^= self.map.hash(&[]) & 0xff;
        }
        match write {
            Write::Store(store) => self.store(unique, store),
            Write::Delete { key } => self.delete(key),
            Write::Arithmetic {
                key,
                direction,
                delta,
            } => self.arithmetic(unique, key, *direction, *delta),
            Write::Touch { key, exptime } => self.touch(key, *exptime),
            Write::GetAndTouch { keys, exptime } => self.get_and_touch(keys, *exptime),
            Write::FlushAll { delay } => self.flush_all(unique, *delay),
            Write::MemoryLimit { mib } => {
                self.moment.memory_limit.bytes = u64::from(*mib) << 20;
                Reply::Ok
            }
        }
    }

    /// Answers from the state as it is, which is that of one place in the log.
    #[must_use]
    pub fn read(&self, read: &Read) -> Reply {
        match read {
            Read::Get { keys } => {
                let mut hits = Vec::with_capacity(keys.len());
                hits.extend(keys.iter().filter_map(|key| self.get(key)));
                if mutants::is_on(Mutant::UnorderedHits) {
                    hits.sort_by_key(|hit| self.map.hash(hit.data.key()));
                }
                Reply::Hits(hits)
            }
            Read::Confirm => Reply::Ok,
        }
    }

    /// The time in the log.
    #[must_use]
    pub fn log_time(&self) -> LogTime {
        self.moment.log_time
    }

    /// The first second after the time in the log at which something falls due: an entry stamped
    /// then or later makes it happen.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        let flush = self.moment.flush.as_ref().map(|flush| match flush.below {
            None => flush.second - 1,
            Some(_) => flush.second,
        });
        let item = self.expiry.next_after(self.moment.log_time.seconds());
        flush.into_iter().chain(item).min()
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        let alive = self.tally.alive();
        Counts {
            items: alive.items,
            bytes: alive.bytes,
            gone_items: self.held_items - alive.items,
            ..self.counts
        }
    }

    /// Why there is no item with this key, if one of the last few thousand that went by themselves
    /// had it, or one whose memory is still there. Of this process alone.
    #[must_use]
    pub fn why_gone(&self, key: &[u8]) -> Option<Gone> {
        if self.departed.is_empty() && self.held_items == self.tally.alive().items {
            return None;
        }
        let hash = self.map.hash(key);
        match self.map.find(hash, key) {
            None => self.departed.why(hash),
            Some(item) if self.moment.is_alive(item) => None,
            Some(item) => Some(self.moment.why_gone(item)),
        }
    }

    /// How large the tables are that items are found by.
    #[must_use]
    pub fn table_size(&self) -> TableSize {
        self.map.shards().table_size()
    }

    /// What all items may take together, in bytes; `None` if there is no limit.
    #[must_use]
    pub fn memory_limit_bytes(&self) -> Option<u64> {
        Some(self.moment.memory_limit.bytes).filter(|bytes| *bytes > 0)
    }

    /// Frees a bounded part of the memory of what is gone; true if there is more. Changes nothing
    /// that a client could see.
    pub fn tidy(&mut self) -> bool {
        self.expire();
        self.sweep_shards();
        self.garbage.shrink();
        self.sweep.is_some()
            || !self.garbage.is_empty()
            || self
                .expiry
                .first_due(self.moment.log_time.seconds())
                .is_some()
    }

    /// A number that is the same on all servers that have applied the same entries, and very likely
    /// not on others. Walks over all items.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        self.moment.state_hash(self.map.shards().items())
    }

    /// The state at this place in the log, which no later change of the store shows in. Items are
    /// shared until they change.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        Frozen::new(self.map.shards().clone(), self.moment.clone())
    }

    /// All of it, for whoever drops it piece by piece.
    #[must_use]
    pub fn into_garbage(mut self) -> Garbage {
        let mut garbage = Garbage::default();
        garbage.add_items(self.map.take_shards());
        garbage.add_expiry(self.expiry);
        garbage.append(self.garbage);
        garbage
    }

    /// The item with this key, unless it is gone.
    fn find(&self, hash: u64, key: &[u8]) -> Option<&Item> {
        let item = self.map.find(hash, key)?;
        self.moment.is_alive(item).then_some(item)
    }

    fn get(&self, key: &[u8]) -> Option<Hit> {
        let item = self.find(self.map.hash(key), key)?;
        Some(Hit {
            flags: item.flags,
            unique: item.unique,
            data: item.data.clone(),
        })
    }

    fn store(&mut self, unique: u64, store: &command::Store) -> Reply {
        let hash = self.map.hash(store.key.as_bytes());
        let found = self.find(hash, store.key.as_bytes());
        match (store.mode, found) {
            (StoreMode::Add, Some(_))
            | (StoreMode::Replace | StoreMode::Append | StoreMode::Prepend, None) => {
                return Reply::NotStored;
            }
            (StoreMode::Cas(_), None) => return Reply::NotFound,
            (StoreMode::Cas(unique), Some(item)) if item.unique != unique => return Reply::Exists,
            _ => {}
        }
        match store.mode {
            StoreMode::Append | StoreMode::Prepend => self.extend(unique, hash, store),
            _ => self.put(unique, hash, store),
        }
    }

    /// Stores a whole value, with its flags and time.
    fn put(&mut self, unique: u64, hash: u64, store: &command::Store) -> Reply {
        let key = store.key.as_bytes();
        match over_at(store.exptime.deadline(self.moment.log_time)) {
            // It was stored and is over: what remains of that is that the old item is gone.
            None => {
                self.remove(hash, key);
                self.departed.note(hash, Gone::Expired);
            }
            Some(over_at) => {
                let about = About {
                    unique,
                    flags: store.flags,
                    over_at,
                };
                let item = Item::new(&mut self.scratch, about, &store.key, &store.value, &[]);
                if !self.insert(hash, item) {
                    return Reply::OutOfMemory;
                }
            }
        }
        self.counts.total_items += 1;
        Reply::Stored
    }

    /// Appends or prepends to the item, which exists. Flags and time stay as they are.
    fn extend(&mut self, unique: u64, hash: u64, store: &command::Store) -> Reply {
        let key = store.key.as_bytes();
        let Some(old) = self.map.find(hash, key) else {
            return Reply::NotStored;
        };
        if old.bytes() + store.value.len() > self.moment.item_bytes_max as usize {
            return Reply::NotStored;
        }
        let (head, tail) = match store.mode {
            StoreMode::Prepend => (&*store.value, old.value()),
            _ => (old.value(), &*store.value),
        };
        let about = About {
            unique,
            flags: old.flags,
            over_at: old.over_at,
        };
        let item = Item::new(&mut self.scratch, about, &store.key, head, tail);
        if !self.insert(hash, item) {
            return Reply::OutOfMemory;
        }
        self.counts.total_items += 1;
        Reply::Stored
    }

    fn delete(&mut self, key: &Key) -> Reply {
        let hash = self.map.hash(key.as_bytes());
        if self.find(hash, key.as_bytes()).is_none() {
            return Reply::NotFound;
        }
        self.remove(hash, key.as_bytes());
        self.departed.forget(hash);
        Reply::Deleted
    }

    fn arithmetic(&mut self, unique: u64, key: &Key, direction: Direction, delta: u64) -> Reply {
        let hash = self.map.hash(key.as_bytes());
        let Some(old) = self.find(hash, key.as_bytes()) else {
            return Reply::NotFound;
        };
        let Some((number, value)) = arithmetic(old.value(), direction, delta) else {
            return Reply::NonNumeric;
        };
        let about = About {
            unique,
            flags: old.flags,
            over_at: old.over_at,
        };
        let item = Item::new(&mut self.scratch, about, key, &value, &[]);
        match self.insert(hash, item) {
            true => Reply::Number(number),
            false => Reply::OutOfMemory,
        }
    }

    fn touch(&mut self, key: &Key, exptime: Exptime) -> Reply {
        let hash = self.map.hash(key.as_bytes());
        if self.find(hash, key.as_bytes()).is_none() {
            return Reply::NotFound;
        }
        self.set_deadline(hash, key, exptime);
        Reply::Touched
    }

    fn get_and_touch(&mut self, keys: &[Key], exptime: Exptime) -> Reply {
        let mut hits = Vec::new();
        for key in keys {
            if let Some(hit) = self.get(key.as_bytes()) {
                hits.push(hit);
                self.set_deadline(self.map.hash(key.as_bytes()), key, exptime);
            }
        }
        Reply::Hits(hits)
    }

    /// Gives an item that exists another deadline. Its unique stays (docs/memcached.md, cas).
    fn set_deadline(&mut self, hash: u64, key: &Key, exptime: Exptime) {
        let Some(over_at) = over_at(exptime.deadline(self.moment.log_time)) else {
            self.remove(hash, key.as_bytes());
            self.departed.note(hash, Gone::Expired);
            return;
        };
        if let Some(item) = self.map.find_mut(hash, key.as_bytes()) {
            self.tally.remove(item);
            let old = std::mem::replace(&mut item.over_at, over_at);
            self.tally.add(item);
            self.forget_deadline(hash, old);
            self.expiry.insert(over_at, hash);
        }
    }

    fn flush_all(&mut self, unique: u64, delay: Exptime) -> Reply {
        self.moment.flush = None;
        self.tally.unmark();
        match delay.deadline(self.moment.log_time) {
            Deadline::Never | Deadline::Past => self.flush_now(),
            Deadline::At(second) => {
                let begun = self.moment.log_time.seconds() + 1 >= second;
                if begun {
                    self.tally.mark(unique);
                }
                self.moment.flush = Some(Flush {
                    second,
                    below: begun.then_some(unique),
                });
            }
        }
        Reply::Ok
    }

    fn flush_now(&mut self) {
        self.sweep = None;
        self.tally.clear();
        if self.held_items == 0 {
            return;
        }
        for item in self.map.shards().items().take(DEPARTED_MAX) {
            self.departed.note(self.map.hash(item.key()), Gone::Flushed);
        }
        self.garbage.add_items(self.map.take_shards());
        let expiry = std::mem::take(&mut self.expiry);
        self.garbage.add_expiry(expiry);
        self.held_items = 0;
    }

    /// Takes a delayed flush as far as the time in the log goes: first what exists is marked, a
    /// second later it vanishes. `unique` is that of the first command after this.
    fn flush_if_due(&mut self, unique: u64) {
        let second = self.moment.log_time.seconds();
        let Some(flush) = &mut self.moment.flush else {
            return;
        };
        if second + 1 >= flush.second {
            let below = *flush.below.get_or_insert_with(|| {
                self.tally.mark(unique);
                unique
            });
            if second >= flush.second {
                self.tally.flush();
                self.moment.flush = None;
                self.moment.flushed_below = below;
                self.sweep = Some(0);
            }
        }
    }

    /// Takes out items that are over, some at once, which is all but for a crowd.
    fn expire(&mut self) {
        let second = self.moment.log_time.seconds();
        for _ in 0..EXPIRE_ITEMS_MAX {
            let Some((over_at, hash)) = self.expiry.first_due(second) else {
                return;
            };
            self.expiry.remove(over_at, hash);
            while let Some(item) = self.map.remove_over_at(hash, over_at) {
                self.counts.expired_items += 1;
                self.uncount(&item);
                self.departed.note(hash, self.moment.why_gone(&item));
            }
        }
    }

    /// Takes flushed items out of a few more shards.
    fn sweep_shards(&mut self) {
        let (Some(shard), below) = (self.sweep, self.moment.flushed_below) else {
            return;
        };
        let is_flushed = |item: &Item| item.unique < below;
        let (drained, next) = self.map.drain(shard, SWEEP_ITEMS_MAX, is_flushed);
        self.sweep = next;
        for (hash, item) in drained {
            self.uncount(&item);
            self.departed.note(hash, Gone::Flushed);
            self.forget_deadline(hash, item.over_at);
        }
    }

    /// Puts `item` in the place of the one that had its key; false, and nothing is changed, if that
    /// would take all of them over the memory limit. What grows nothing is let in even then: the
    /// limit may have come down.
    #[must_use]
    fn insert(&mut self, hash: u64, item: Item) -> bool {
        if !self.has_room(hash, &item) && !mutants::is_on(Mutant::OverMemoryLimit) {
            return false;
        }
        self.held_items += 1;
        self.tally.add(&item);
        let over_at = item.over_at;
        if let Some(old) = self.map.insert(hash, item) {
            self.uncount(&old);
            self.counts.reclaimed_items += u64::from(!self.moment.is_alive(&old));
            self.forget_deadline(hash, old.over_at);
        }
        self.expiry.insert(over_at, hash);
        true
    }

    fn has_room(&self, hash: u64, item: &Item) -> bool {
        if self.moment.memory_limit.bytes == 0 {
            return true;
        }
        let old = self.find(hash, item.key()).map_or(0, Item::bytes) as u64;
        let new = item.bytes() as u64;
        let bytes = self.tally.alive().bytes - old + new;
        new <= old || self.moment.memory_limit.allows(bytes)
    }

    fn remove(&mut self, hash: u64, key: &[u8]) {
        if let Some(old) = self.map.remove(hash, key) {
            self.uncount(&old);
            self.forget_deadline(hash, old.over_at);
        }
    }

    /// This item is not in the map any more.
    fn uncount(&mut self, item: &Item) {
        self.held_items -= 1;
        if self.moment.is_alive(item) {
            self.tally.remove(item);
        }
    }

    /// An item with this hash is not over at this second any more.
    fn forget_deadline(&mut self, hash: u64, over_at: u32) {
        if over_at != 0 && !self.map.has_over_at(hash, over_at) {
            self.expiry.remove(over_at, hash);
        }
    }
}
