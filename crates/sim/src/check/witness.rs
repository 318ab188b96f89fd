//! What the committed log says: the state after each command, and what each command came to. Every
//! server's state and every reply is held against it.

use std::collections::BTreeMap;

use bytes::Bytes;
use command::{Command, Hit, Key, Keys, Read, Reply, TopicChange, Write, decode};
use raft::{Entry, EntryKind, Index, Term};
use store::{Frozen, Store};

use super::{History, Place};
use crate::coverage::Coverage;

/// The state is remembered as a hash after each so many entries: to hash it takes a while.
const HASH_INTERVAL: u64 = 32;

/// What a key held from a place on.
#[derive(Clone, Debug)]
struct Version {
    from: Place,
    hit: Option<Hit>,
}

/// A store that applies what is committed, and remembers every state.
#[derive(Debug)]
pub(crate) struct Witness {
    store: Store,
    /// After the last command applied.
    place: Place,
    versions: BTreeMap<Key, Vec<Version>>,
    /// Of the state after each entry at a multiple of `HASH_INTERVAL`.
    hashes: Vec<u64>,
    /// Of each leadership, what its server's wall clock showed when it began, in milliseconds, and
    /// when that was.
    leaderships: BTreeMap<Term, (u64, u64)>,
}

impl Witness {
    pub(crate) fn new() -> Witness {
        let store = Store::new(1);
        Witness {
            hashes: vec![store.state_hash()],
            store,
            place: Place::default(),
            versions: BTreeMap::new(),
            leaderships: BTreeMap::new(),
        }
    }

    /// The state after the last command applied.
    pub(crate) fn freeze(&mut self) -> Frozen {
        self.store.freeze()
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// The hash of the state after this entry, if it is one of those, or the newest.
    pub(crate) fn hash(&self, index: Index) -> Option<u64> {
        if self.place < Place::entered(index.0 + 1) && self.place >= Place::entered(index.0) {
            return Some(self.store.state_hash());
        }
        if !index.0.is_multiple_of(HASH_INTERVAL) {
            return None;
        }
        self.hashes.get((index.0 / HASH_INTERVAL) as usize).copied()
    }

    /// Applies the next committed entry.
    pub(crate) fn apply(
        &mut self,
        entry: &Entry,
        now: u64,
        history: &mut History,
        coverage: &mut Coverage,
    ) {
        coverage.entries += 1;
        self.place = Place::entered(entry.index.0);
        if entry.kind == EntryKind::Command {
            let (preamble, commands) = decode(entry.payload.clone()).expect("our own encoding");
            self.check_time(entry.term, preamble.log_time.0, now);
            let expired = self.store.counts().expired_items;
            self.store.enter(entry.index.0, &preamble);
            self.look_at_all();
            coverage.ticks += u64::from(commands.total() == 0);
            for (write, place) in commands.zip(0..) {
                let write = write.expect("our own encoding");
                self.place = Place::after(entry.index.0, place);
                let reply = self.store.apply(place, &write);
                coverage.out_of_memory += u64::from(reply == Reply::OutOfMemory);
                self.note(&write);
                history.placed(self.place, &write, reply);
                coverage.applied += 1;
            }
            while self.store.tidy() {}
            coverage.expirations += self.store.counts().expired_items - expired;
        }
        if entry.index.0.is_multiple_of(HASH_INTERVAL) {
            self.hashes.push(self.store.state_hash());
        }
    }

    /// The first second at which something falls due.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.store.next_due()
    }

    /// A leadership begins at `now`, and its server's wall clock shows this.
    pub(crate) fn leads(&mut self, term: Term, wall_ms: u64, now: u64) {
        self.leaderships.insert(term, (wall_ms, now));
    }

    /// In one leadership the time in the log runs at most 10 s ahead of the time that passes
    /// (rule 50), on a clock that may be a tenth too fast.
    fn check_time(&self, term: Term, stamp_ms: u64, now: u64) {
        let Some((begun_ms, since)) = self.leaderships.get(&term) else {
            panic!("an entry of term {term}, which nobody leads");
        };
        let passed_ms = (now - since) / 1_000_000;
        let most = begun_ms + passed_ms * 11 / 10 + 10_001;
        let before = self.store.log_time().0;
        assert!(
            stamp_ms <= most.max(before),
            "the time in the log is {stamp_ms} ms in term {term}, {before} ms came before, and \
             {most} ms at most could have come",
        );
    }

    /// The first place from `from` to `to` at which a read of these keys finds these hits.
    pub(crate) fn first_place(
        &self,
        keys: &Keys,
        hits: &[Hit],
        with_unique: bool,
        from: Place,
        to: Place,
    ) -> Option<Place> {
        let keys: Vec<Key> = keys
            .iter()
            .filter_map(|key| Key::new(Bytes::copy_from_slice(key)))
            .collect();
        self.first_where(&keys, from, to, |found| {
            found.len() == hits.len()
                && found.iter().zip(hits).all(|(found, hit)| {
                    found.data == hit.data
                        && found.flags == hit.flags
                        && (!with_unique || found.unique == hit.unique)
                })
        })
    }

    /// The first place from `from` to `to` at which `mg` with `f c s` of this key is answered so.
    pub(crate) fn first_meta_place(
        &self,
        key: &Key,
        line: &str,
        from: Place,
        to: Place,
    ) -> Option<Place> {
        self.first_where(std::slice::from_ref(key), from, to, |found| {
            let expected = match found {
                [] => "EN".to_owned(),
                [hit, ..] => {
                    let (flags, unique, bytes) = (hit.flags, hit.unique, hit.value().len());
                    format!("HD f{flags} c{unique} s{bytes}")
                }
            };
            line == expected
        })
    }

    fn first_where(
        &self,
        keys: &[Key],
        from: Place,
        to: Place,
        mut is_so: impl FnMut(&[&Hit]) -> bool,
    ) -> Option<Place> {
        let mut candidates = vec![from];
        for key in keys {
            let versions = self.versions.get(key).map_or(&[][..], Vec::as_slice);
            let after = versions.partition_point(|version| version.from <= from);
            let within = versions.iter().skip(after).map(|version| version.from);
            candidates.extend(within.take_while(|place| *place <= to));
        }
        candidates.sort_unstable();
        candidates.dedup();
        candidates.into_iter().find(|place| {
            let found: Vec<&Hit> = keys.iter().filter_map(|key| self.at(key, *place)).collect();
            is_so(&found)
        })
    }

    fn at(&self, key: &Key, place: Place) -> Option<&Hit> {
        let versions = self.versions.get(key)?;
        let after = versions.partition_point(|version| version.from <= place);
        versions.get(after.checked_sub(1)?)?.hit.as_ref()
    }

    fn note(&mut self, write: &Write) {
        match write {
            Write::Store(store) => self.look_at(&store.key),
            Write::Delete { key } | Write::Arithmetic { key, .. } | Write::Touch { key, .. } => {
                self.look_at(key);
            }
            Write::GetAndTouch { keys, .. } => keys.iter().for_each(|key| self.look_at(key)),
            Write::FlushAll { .. } => self.look_at_all(),
            Write::MemoryLimit { .. } | Write::Topic(_) => {}
            Write::MetaGet(_)
            | Write::MetaSet(_)
            | Write::MetaDelete(_)
            | Write::MetaArithmetic(_) => {
                if let Some(key) = write.meta_key() {
                    self.look_at(key);
                }
            }
        }
    }

    fn look_at_all(&mut self) {
        let keys: Vec<Key> = self.versions.keys().cloned().collect();
        for key in keys {
            // What is gone comes back by a command of its own only.
            if self.at(&key, self.place).is_some() {
                self.look_at(&key);
            }
        }
    }

    fn look_at(&mut self, key: &Key) {
        let read = Read::Get {
            keys: [key.clone()].into_iter().collect(),
        };
        let Reply::Hits(hits) = self.store.read(&read) else {
            unreachable!("a get answers with hits");
        };
        let hit = hits.into_iter().next();
        if hit.is_none() && !self.versions.contains_key(key) {
            return;
        }
        let versions = self.versions.entry(key.clone()).or_default();
        if versions.last().map(|last| &last.hit) != Some(&hit) {
            versions.push(Version {
                from: self.place,
                hit,
            });
        }
    }
}

/// A key of a test.
pub(crate) fn key(text: &str) -> Key {
    Key::new(Bytes::copy_from_slice(text.as_bytes())).expect("a short key")
}

/// A key that marks its only command.
pub(crate) fn marked_key(mark: u64) -> Key {
    key(&format!("once{mark}"))
}

/// The number that marks a command as one client's own, if it has one.
pub(crate) fn mark(write: &Write) -> Option<u64> {
    match write {
        Write::Store(store) => mark_of_value(&store.value),
        Write::Delete { key } => mark_of_key(key),
        Write::Arithmetic { delta, .. } => Some(*delta),
        Write::Touch { exptime, .. } | Write::GetAndTouch { exptime, .. } => {
            u64::try_from(exptime.0.checked_sub(MARKED_SECOND)?).ok()
        }
        Write::FlushAll { .. } | Write::MemoryLimit { .. } => None,
        Write::MetaSet(set) => mark_of_value(&set.store.value),
        Write::MetaArithmetic(arithmetic) => Some(arithmetic.delta),
        Write::MetaDelete(delete) => mark_of_key(&delete.key),
        Write::MetaGet(_) => None,
        Write::Topic(write) => match &write.change {
            TopicChange::Push { message, .. } => mark_of_value(message),
            _ => None,
        },
    }
}

fn mark_of_key(key: &Key) -> Option<u64> {
    let text = std::str::from_utf8(key.as_bytes()).ok()?;
    text.strip_prefix("once")?.parse().ok()
}

/// Times that mark a command are this many seconds since 1970 and its mark.
pub(crate) const MARKED_SECOND: i32 = 2_000_000_000;

/// `#<mark>.`, and anything.
fn mark_of_value(value: &[u8]) -> Option<u64> {
    let text = value.strip_prefix(b"#")?;
    let end = text.iter().position(|byte| *byte == b'.')?;
    std::str::from_utf8(text.get(..end)?).ok()?.parse().ok()
}

/// What a client may send.
#[derive(Clone, Debug)]
pub(crate) enum Sent {
    Command(Command),
    /// No command; an error line is the answer.
    Malformed,
}
