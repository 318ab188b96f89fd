//! The state and what each command does to it. Commands are applied one at a time, so that reads
//! may stand between two commands of an entry (rule 54). What clients see is exact at every place
//! in the log; the memory of what is gone may be freed a little later, piece by piece (`tidy`).

use command::{
    About, Deadline, Direction, Exptime, Hit, Key, LogTime, Marks, Preamble, Read, Reply,
    StoreMode, Write,
};
use mutants::Mutant;

use crate::departed::{DEPARTED_MAX, Departed, Gone};
use crate::expiry::Expiry;
use crate::garbage::Garbage;
use crate::item::{Item, arithmetic, over_at};
use crate::map::{Map, TableSize};
use crate::moment::{Flush, Moment, unique};
use crate::snapshot::Frozen;
use crate::tally::Tally;
use crate::topics::Topics;

/// The most items that are taken out at once because they are over.
const EXPIRE_ITEMS_MAX: usize = 1024;

/// The most items that are looked at, for whether a flush has taken them, at once, give or take a
/// shard.
const SWEEP_ITEMS_MAX: usize = 1024;

/// The replicated state of one group.
#[derive(Debug)]
pub struct Store {
    pub(crate) map: Map,
    /// Every item of `map` that has a deadline, whether it has come or not.
    expiry: Expiry,
    pub(crate) moment: Moment,
    /// This server's own clock, for what it alone remembers of an item, and for how long one has
    /// left.
    clock: LogTime,
    /// The next shard to take items out of that a delayed flush has taken.
    sweep: Option<usize>,
    /// What was flushed at once.
    garbage: Garbage,
    /// What is alive.
    pub(crate) tally: Tally,
    pub(crate) topics: Topics,
    pub(crate) departed: Departed,
    /// The items of `map`, whether they are alive or not.
    held_items: u64,
    /// Only what happens is counted here.
    pub(crate) counts: Counts,
    pub(crate) scratch: Vec<u8>,
}

/// What the store holds, for `stats`, and what has happened to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Items that a reader finds: the same number at the same place in the log on all servers.
    pub items: u64,
    /// What these take in memory, counted alike on all servers: what the memory limit is about.
    pub bytes: u64,
    pub topics: u64,
    /// Messages of all topics, whatever state they are in.
    pub messages: u64,
    /// What topics and messages take in memory, counted like `bytes`.
    pub topic_bytes: u64,
    /// Items that are gone, and whose memory is not free yet; without those of `flush_all` at once.
    pub gone_items: u64,
    /// Items stored by the entries applied since the start.
    pub total_items: u64,
    /// Items whose deadline came since the start.
    pub expired_items: u64,
    /// Of these, those that nobody had asked this server for.
    pub expired_unfetched: u64,
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
            clock: LogTime::default(),
            sweep: None,
            garbage: Garbage::default(),
            tally: Tally::default(),
            topics: Topics::default(),
            departed: Departed::default(),
            held_items: 0,
            counts: Counts::default(),
            scratch: Vec::new(),
        }
    }

    /// The store at this moment, with these items, which are all alive, and topics.
    pub(crate) fn loaded(
        moment: Moment,
        map: Map,
        expiry: Expiry,
        tally: Tally,
        topics: Topics,
    ) -> Store {
        Store {
            topics,
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
            self.topics.come_due(self.moment.second());
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
            Write::MetaGet(get) => self.meta_get(unique, get),
            Write::MetaSet(set) => self.meta_set(unique, set),
            Write::MetaDelete(delete) => self.meta_delete(unique, delete),
            Write::MetaArithmetic(arithmetic) => self.meta_arithmetic(unique, arithmetic),
            Write::Topic(write) => self.topic(unique, write),
        }
    }

    /// Answers from the state as it is, which is that of one place in the log.
    ///
    /// # Panics
    ///
    /// For `Read::Confirm`, which does not ask for the state.
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
            Read::MetaGet(get) => self.meta_read(get),
            Read::Inspect { key } => self.inspect(key),
            Read::Topics | Read::Peek { .. } => self.topics.read(read),
            Read::Confirm => unreachable!("a confirmation asks for an index and no state"),
        }
    }

    /// What this server's own clock shows. Nothing that is the same on all servers depends on it.
    pub fn set_clock(&mut self, clock: LogTime) {
        self.clock = clock;
    }

    /// The second in which something is asked for, by this server's clock.
    pub(crate) fn second(&self) -> u32 {
        let now = self.clock.max(self.moment.log_time);
        u32::try_from(now.seconds()).unwrap_or(u32::MAX)
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
        let topic = self.topics.next_due();
        flush.into_iter().chain(item).chain(topic).min()
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        let alive = self.tally.alive();
        Counts {
            items: alive.items,
            bytes: alive.bytes,
            gone_items: self.held_items - alive.items,
            topics: self.topics.count() as u64,
            messages: self.topics.messages(),
            topic_bytes: self.topics.memory_bytes(),
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
        self.garbage.add_pages(self.topics.take_garbage());
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
        let topics = self.topics.states();
        self.moment.state_hash(self.map.shards().items(), &topics)
    }

    /// The state at this place in the log, which no later change of the store shows in. Items are
    /// shared until they change.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        Frozen::new(
            self.map.shards().clone(),
            self.topics.states(),
            self.moment.clone(),
        )
    }

    /// All of it, for whoever drops it piece by piece.
    #[must_use]
    pub fn into_garbage(mut self) -> Garbage {
        let mut garbage = Garbage::default();
        garbage.add_items(self.map.take_shards());
        garbage.add_expiry(self.expiry);
        garbage.append(self.garbage);
        garbage.add_pages(self.topics.into_pages());
        garbage
    }

    /// The item with this key, unless it is gone.
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<&Item> {
        let item = self.map.find(hash, key)?;
        self.moment.is_alive(item).then_some(item)
    }

    fn get(&self, key: &[u8]) -> Option<Hit> {
        let item = self.find(self.map.hash(key), key)?;
        Some(hit(item, self.second()))
    }

    fn store(&mut self, changed: u64, store: &command::Store) -> Reply {
        let hash = self.map.hash(store.key.as_bytes());
        let found = self.find(hash, store.key.as_bytes()).map(Item::about);
        match (store.mode, found) {
            (StoreMode::Add, Some(_))
            | (StoreMode::Replace | StoreMode::Append | StoreMode::Prepend, None) => {
                return Reply::NotStored;
            }
            (StoreMode::Cas(_), None) => return Reply::NotFound,
            (StoreMode::Cas(unique), Some(old)) if old.unique != unique => return Reply::Exists,
            _ => {}
        }
        let unique = next_unique(changed, found);
        match store.mode {
            StoreMode::Append | StoreMode::Prepend => match self.extend(changed, unique, store) {
                Some(item) => self.stored(hash, item),
                None => Reply::NotStored,
            },
            _ => self.put(changed, unique, hash, store),
        }
    }

    /// Puts an item in that a client has stored.
    fn stored(&mut self, hash: u64, item: Item) -> Reply {
        if !self.insert(hash, item) {
            return Reply::OutOfMemory;
        }
        self.counts.total_items += 1;
        Reply::Stored
    }

    /// Stores a whole value, with its flags and time.
    fn put(&mut self, changed: u64, unique: u64, hash: u64, store: &command::Store) -> Reply {
        match over_at(store.exptime.deadline(self.moment.log_time)) {
            // It was stored and is over: what remains of that is that the old item is gone.
            None => {
                self.expired(hash, store.key.as_bytes());
                self.counts.total_items += 1;
                Reply::Stored
            }
            Some(over_at) => {
                let about = About {
                    unique,
                    changed,
                    flags: store.flags,
                    over_at,
                    marks: Marks::default(),
                };
                let item = self.item(about, &store.key, &store.value);
                self.stored(hash, item)
            }
        }
    }

    /// An item that is made now.
    pub(crate) fn item(&mut self, about: About, key: &Key, value: &[u8]) -> Item {
        let second = self.second();
        Item::new(&mut self.scratch, about, second, key, value, &[])
    }

    /// The item that appending or prepending to this one makes, which exists; `None` if it would be
    /// too large. Flags and time stay as they are.
    pub(crate) fn extend(
        &mut self,
        changed: u64,
        unique: u64,
        store: &command::Store,
    ) -> Option<Item> {
        let key = store.key.as_bytes();
        let old = self.map.find(self.map.hash(key), key)?;
        if old.limited_bytes() + store.value.len() > self.moment.item_bytes_max as usize {
            return None;
        }
        let (head, tail) = match store.mode {
            StoreMode::Prepend => (&*store.value, old.value()),
            _ => (old.value(), &*store.value),
        };
        let about = About {
            unique,
            changed,
            marks: Marks::default(),
            ..old.about()
        };
        let second = u32::try_from(self.clock.max(self.moment.log_time).seconds());
        let second = second.unwrap_or(u32::MAX);
        Some(Item::new(
            &mut self.scratch,
            about,
            second,
            &store.key,
            head,
            tail,
        ))
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

    fn arithmetic(&mut self, changed: u64, key: &Key, direction: Direction, delta: u64) -> Reply {
        let hash = self.map.hash(key.as_bytes());
        let Some(old) = self.find(hash, key.as_bytes()) else {
            return Reply::NotFound;
        };
        let unique = next_unique(changed, Some(old.about()));
        match self.calculated(changed, unique, key, direction, delta) {
            Some((number, item)) => match self.insert(hash, item) {
                true => Reply::Number(number),
                false => Reply::OutOfMemory,
            },
            None => Reply::NonNumeric,
        }
    }

    /// The item that `incr` or `decr` makes of this one, which exists, and its number; `None` if it
    /// is no number.
    pub(crate) fn calculated(
        &mut self,
        changed: u64,
        unique: u64,
        key: &Key,
        direction: Direction,
        delta: u64,
    ) -> Option<(u64, Item)> {
        let old = self
            .map
            .find(self.map.hash(key.as_bytes()), key.as_bytes())?;
        let (number, value) = arithmetic(old.value(), direction, delta)?;
        let mut about = About {
            unique,
            changed,
            ..old.about()
        };
        // As in memcached: a number that fits into the item is written into it, another one makes
        // an item anew.
        if value.len() > old.value().len() {
            about.marks = Marks::default();
        }
        Some((number, self.item(about, key, &value)))
    }

    fn touch(&mut self, key: &Key, exptime: Exptime) -> Reply {
        let hash = self.map.hash(key.as_bytes());
        let Some(item) = self.find(hash, key.as_bytes()) else {
            return Reply::NotFound;
        };
        // To `h` of `mg` a touch is a question, too.
        item.data.access(self.second());
        self.set_deadline(hash, key, exptime);
        Reply::Touched
    }

    fn get_and_touch(&mut self, keys: &[Key], exptime: Exptime) -> Reply {
        let mut hits = Vec::new();
        for key in keys {
            let hash = self.map.hash(key.as_bytes());
            let Some(item) = self.find(hash, key.as_bytes()) else {
                continue;
            };
            // An item that is over by this is shown a last time. Any other has its new time before
            // it is shared with the reply: whoever shares it keeps the old one, in a copy.
            if over_at(exptime.deadline(self.moment.log_time)).is_none() {
                hits.push(hit(item, self.second()));
                self.set_deadline(hash, key, exptime);
            } else {
                self.set_deadline(hash, key, exptime);
                hits.extend(self.get(key.as_bytes()));
            }
        }
        Reply::Hits(hits)
    }

    /// Gives an item that exists another deadline. Its unique stays (docs/memcached.md, cas).
    fn set_deadline(&mut self, hash: u64, key: &Key, exptime: Exptime) {
        match over_at(exptime.deadline(self.moment.log_time)) {
            None => self.expired(hash, key.as_bytes()),
            Some(over_at) => self.change(hash, key, |about| about.over_at = over_at),
        }
    }

    /// Says something else about an item that exists.
    pub(crate) fn change(&mut self, hash: u64, key: &Key, change: impl FnOnce(&mut About)) {
        let Some(item) = self.map.find_mut(hash, key.as_bytes()) else {
            return;
        };
        let old = item.about();
        let mut about = old;
        change(&mut about);
        self.tally.remove(item);
        item.data.set_about(about);
        self.tally.add(item);
        if about.over_at != old.over_at {
            self.forget_deadline(hash, old.over_at);
            self.expiry.insert(about.over_at, hash);
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
                self.counts.expired_unfetched += u64::from(!item.data.is_fetched());
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
        let is_flushed = |item: &Item| item.about().changed < below;
        let (drained, next) = self.map.drain(shard, SWEEP_ITEMS_MAX, is_flushed);
        self.sweep = next;
        for (hash, item) in drained {
            self.uncount(&item);
            self.departed.note(hash, Gone::Flushed);
            self.forget_deadline(hash, item.over_at());
        }
    }

    /// Puts `item` in the place of the one that had its key; false, and nothing is changed, if that
    /// would take all of them over the memory limit. What grows nothing is let in even then: the
    /// limit may have come down.
    #[must_use]
    pub(crate) fn insert(&mut self, hash: u64, item: Item) -> bool {
        if !self.has_room(hash, &item) && !mutants::is_on(Mutant::OverMemoryLimit) {
            return false;
        }
        self.held_items += 1;
        self.tally.add(&item);
        let over_at = item.over_at();
        if let Some(old) = self.map.insert(hash, item) {
            self.uncount(&old);
            self.counts.reclaimed_items += u64::from(!self.moment.is_alive(&old));
            self.forget_deadline(hash, old.over_at());
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
        let bytes = self.tally.alive().bytes + self.topics.memory_bytes() - old + new;
        new <= old || self.moment.memory_limit.allows(bytes)
    }

    /// An item is over by a command.
    pub(crate) fn expired(&mut self, hash: u64, key: &[u8]) {
        self.remove(hash, key);
        self.departed.note(hash, Gone::Expired);
    }

    pub(crate) fn remove(&mut self, hash: u64, key: &[u8]) {
        if let Some(old) = self.map.remove(hash, key) {
            self.uncount(&old);
            self.forget_deadline(hash, old.over_at());
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

/// A hit of this item, which is asked for in this second.
fn hit(item: &Item, second: u32) -> Hit {
    item.data.access(second);
    let about = item.about();
    Hit {
        flags: about.flags,
        unique: about.unique,
        data: item.data.clone(),
    }
}

/// The unique of an item that is changed at this place in the log: growing, even if an earlier one
/// of the item was raised (rule 57).
pub(crate) fn next_unique(changed: u64, old: Option<About>) -> u64 {
    let above = match old {
        Some(old) if !mutants::is_on(Mutant::RaisedUniqueForgotten) => old.unique.saturating_add(1),
        _ => 0,
    };
    changed.max(above)
}
