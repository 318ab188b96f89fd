//! The memory limit: what goes over it is refused, at the same place in the log on every server,
//! whatever of its memory is free.

mod support;

use bytes::Bytes;
use command::{Direction, Exptime, Key, LogTime, Preamble, Read, Reply, StoreMode, Write};
use proptest::prelude::*;
use quorate_store::{Loader, Store};
use support::{all_keys, any_write};

/// A second since 1970 at which all tests start.
const START: u64 = 1_700_000_000;

/// A store that is given one entry after another.
struct Fixture {
    store: Store,
    index: u64,
    setting: u64,
}

impl Fixture {
    fn with_setting(setting: u64) -> Fixture {
        Fixture {
            store: Store::new(7),
            index: 0,
            setting,
        }
    }

    /// One entry so many seconds after the start.
    fn at(&mut self, seconds: u64, write: &Write) -> Reply {
        self.index += 1;
        enter(&mut self.store, self.index, seconds * 1000, self.setting);
        self.store.apply(0, write)
    }

    fn write(&mut self, write: &Write) -> Reply {
        self.at(0, write)
    }

    fn value(&self, name: &str) -> Option<Vec<u8>> {
        let keys = [key(name)].into_iter().collect();
        let Reply::Hits(hits) = self.store.read(&Read::Get { keys }) else {
            panic!("a get answers with hits");
        };
        hits.first().map(|hit| hit.value().to_vec())
    }
}

fn enter(store: &mut Store, index: u64, after_ms: u64, setting: u64) {
    let preamble = Preamble {
        log_time: LogTime(START * 1000 + after_ms),
        item_bytes_max: 1 << 20,
        memory_limit_bytes: setting,
        mark: None,
    };
    store.enter(index, &preamble);
}

fn key(name: &str) -> Key {
    Key::new(Bytes::copy_from_slice(name.as_bytes())).expect("a short key")
}

fn store(mode: StoreMode, name: &str, exptime: i32, bytes: usize) -> Write {
    Write::Store(command::Store {
        mode,
        key: key(name),
        flags: 0,
        exptime: Exptime(exptime),
        value: Bytes::from(vec![b'1'; bytes]),
    })
}

fn set(name: &str, bytes: usize) -> Write {
    store(StoreMode::Set, name, 0, bytes)
}

/// The most that the value of the only item may have, with a key of one byte.
fn value_bytes_max(limit: u64) -> usize {
    let mut it = Fixture::with_setting(0);
    it.write(&set("k", 0));
    usize::try_from(limit - it.store.counts().bytes).expect("a small limit")
}

#[test]
fn what_would_go_over_the_limit_is_refused_and_changes_nothing() {
    let mut it = Fixture::with_setting(1000);
    let fits = value_bytes_max(1000);
    assert_eq!(it.store.memory_limit_bytes(), None);
    assert_eq!(it.write(&set("k", fits + 1)), Reply::OutOfMemory);
    assert_eq!(it.store.memory_limit_bytes(), Some(1000));
    assert_eq!(it.value("k"), None);
    assert_eq!(it.write(&set("k", fits)), Reply::Stored);
    assert_eq!(it.store.counts().bytes, 1000);
    let (counts, before) = (it.store.counts(), it.value("k"));

    let another = store(StoreMode::Add, "a", 0, 0);
    assert_eq!(it.write(&another), Reply::OutOfMemory);
    assert_eq!(it.value("a"), None);
    for mode in [StoreMode::Set, StoreMode::Replace] {
        let larger = store(mode, "k", 0, fits + 1);
        assert_eq!(it.write(&larger), Reply::OutOfMemory);
    }
    for mode in [StoreMode::Append, StoreMode::Prepend] {
        assert_eq!(it.write(&store(mode, "k", 0, 1)), Reply::OutOfMemory);
    }
    assert_eq!(it.value("k"), before);
    assert_eq!(it.store.counts(), counts);
}

#[test]
fn a_condition_that_fails_is_told_before_the_limit() {
    let mut it = Fixture::with_setting(1000);
    it.write(&set("k", value_bytes_max(1000)));
    let large = |mode, name| store(mode, name, 0, 2000);
    assert_eq!(it.write(&large(StoreMode::Add, "k")), Reply::NotStored);
    assert_eq!(it.write(&large(StoreMode::Replace, "a")), Reply::NotStored);
    assert_eq!(it.write(&large(StoreMode::Append, "a")), Reply::NotStored);
    assert_eq!(it.write(&large(StoreMode::Cas(1), "k")), Reply::Exists);
    assert_eq!(it.write(&large(StoreMode::Cas(1), "a")), Reply::NotFound);
}

#[test]
fn a_number_may_change_as_long_as_it_grows_no_longer() {
    let mut it = Fixture::with_setting(1000);
    it.write(&store(StoreMode::Set, "n", 0, 2));
    let left = 1000 - usize::try_from(it.store.counts().bytes).expect("few bytes");
    it.write(&set("k", left - (1000 - value_bytes_max(1000))));
    assert_eq!(it.store.counts().bytes, 1000);
    let count = |direction, delta| Write::Arithmetic {
        key: key("n"),
        direction,
        delta,
    };
    let up = |delta| count(Direction::Increment, delta);
    assert_eq!(it.write(&up(88)), Reply::Number(99));
    assert_eq!(it.write(&up(1)), Reply::OutOfMemory);
    assert_eq!(it.value("n").as_deref(), Some(&b"99"[..]));
    let down = count(Direction::Decrement, 90);
    assert_eq!(it.write(&down), Reply::Number(9));
}

#[test]
fn what_makes_room_goes_on_and_what_is_gone_leaves_room_at_once() {
    let fits = value_bytes_max(1000);
    let full = |exptime| {
        let mut it = Fixture::with_setting(1000);
        it.write(&store(StoreMode::Set, "k", exptime, fits));
        assert_eq!(it.write(&set("a", fits)), Reply::OutOfMemory);
        it
    };
    let mut it = full(0);
    assert_eq!(it.write(&Write::Delete { key: key("k") }), Reply::Deleted);
    assert_eq!(it.write(&set("a", fits)), Reply::Stored);

    let mut it = full(0);
    let exptime = Exptime(100);
    let touch = Write::Touch {
        key: key("k"),
        exptime,
    };
    assert_eq!(it.write(&touch), Reply::Touched);
    assert_eq!(it.at(99, &set("a", fits)), Reply::OutOfMemory);
    assert_eq!(it.at(100, &set("a", fits)), Reply::Stored);

    let mut it = full(0);
    assert_eq!(it.write(&set("k", fits - 1)), Reply::Stored);
    let over = store(StoreMode::Set, "k", -1, fits + 1);
    assert_eq!(it.write(&over), Reply::Stored, "what is over takes no room");
    assert_eq!(it.write(&set("a", fits)), Reply::Stored);

    for delay in [0, 3] {
        let mut it = full(0);
        let delay = Exptime(delay);
        assert_eq!(it.write(&Write::FlushAll { delay }), Reply::Ok);
        assert_eq!(it.at(3, &set("a", fits)), Reply::Stored);
    }
    assert_eq!(full(5).at(5, &set("a", fits)), Reply::Stored);
}

#[test]
fn a_crowd_that_is_over_leaves_room_though_its_memory_is_not_free() {
    let mut it = Fixture::with_setting(0);
    for number in 0..5000 {
        it.write(&store(StoreMode::Set, &format!("key{number}"), 10, 10));
    }
    it.setting = it.store.counts().bytes;
    assert_eq!(it.write(&set("k", 0)), Reply::OutOfMemory);
    let all = usize::try_from(it.setting).expect("a few hundred KiB") - 100;
    assert_eq!(it.at(10, &set("k", all)), Reply::Stored);
    assert!(it.store.counts().gone_items > 0);
    assert!(it.store.counts().bytes <= it.setting);
}

#[test]
fn the_newer_of_the_setting_and_the_command_counts() {
    let mut it = Fixture::with_setting(1000);
    let limit = |mib| Write::MemoryLimit { mib };
    it.write(&set("k", 0));
    assert_eq!(it.store.memory_limit_bytes(), Some(1000));
    assert_eq!(it.write(&limit(8)), Reply::Ok);
    assert_eq!(it.store.memory_limit_bytes(), Some(8 << 20));
    it.write(&set("k", 0));
    assert_eq!(it.store.memory_limit_bytes(), Some(8 << 20));
    it.setting = 500;
    it.write(&set("k", 0));
    assert_eq!(it.store.memory_limit_bytes(), Some(500));
    it.write(&limit(u32::MAX));
    let most = u64::from(u32::MAX) << 20;
    assert_eq!(it.store.memory_limit_bytes(), Some(most));
    it.setting = 0;
    it.write(&set("k", 0));
    assert_eq!(it.store.memory_limit_bytes(), None);
}

#[test]
fn a_limit_that_comes_down_takes_nothing_away_and_lets_nothing_grow() {
    let mut it = Fixture::with_setting(0);
    it.write(&set("a", 500));
    it.write(&set("b", 500));
    it.setting = 300;
    assert_eq!(it.write(&set("a", 501)), Reply::OutOfMemory);
    assert_eq!(it.write(&set("a", 500)), Reply::Stored);
    assert_eq!(it.write(&set("a", 499)), Reply::Stored);
    assert_eq!(it.write(&set("c", 0)), Reply::OutOfMemory);
    assert_eq!(it.value("b").map(|value| value.len()), Some(500));
}

/// What happens next to a store.
#[derive(Clone, Debug)]
enum Step {
    /// An entry so many milliseconds later.
    Entry(u64, Vec<Write>),
    /// One of two servers tidies up.
    Tidy(bool),
    /// One of two servers starts from its snapshot.
    Restart(bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    let writes = proptest::collection::vec(any_write(), 0..6);
    prop_oneof![
        8 => (0..2500u64, writes).prop_map(|(gap, writes)| Step::Entry(gap, writes)),
        1 => any::<bool>().prop_map(Step::Tidy),
        1 => any::<bool>().prop_map(Step::Restart),
    ]
}

fn restarted(store: &Store) -> Store {
    let mut loader = Loader::new(99);
    let written = store
        .freeze()
        .write_out(1 << 16, &mut |piece| loader.push(piece));
    written.expect("these are the bytes of a state");
    loader.finish().expect("these are all of them")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn two_servers_refuse_the_same_and_stay_within_the_limit(
        steps in proptest::collection::vec(any_step(), 1..60),
        limit in 60..700u64,
        seeds: (u64, u64),
    ) {
        let (mut one, mut two) = (Store::new(seeds.0), Store::new(seeds.1));
        let (mut index, mut clock_ms) = (0, 0);
        for step in steps {
            match step {
                Step::Entry(gap, writes) => {
                    index += 1;
                    clock_ms += gap;
                    enter(&mut one, index, clock_ms, limit);
                    enter(&mut two, index, clock_ms, limit);
                    for (place, write) in (0u16..).zip(&writes) {
                        prop_assert_eq!(one.apply(place, write), two.apply(place, write), "{:?}", write);
                        prop_assert!(one.counts().bytes <= limit);
                        prop_assert_eq!(one.counts().bytes, two.counts().bytes);
                    }
                }
                Step::Tidy(first) => {
                    if first { one.tidy() } else { two.tidy() };
                }
                Step::Restart(true) => one = restarted(&one),
                Step::Restart(false) => two = restarted(&two),
            }
            prop_assert_eq!(one.counts().items, two.counts().items);
            prop_assert_eq!(one.state_hash(), two.state_hash());
        }
        let all = Read::Get { keys: all_keys().into_iter().collect() };
        prop_assert_eq!(one.read(&all), two.read(&all));
    }
}
