//! A frozen state, its bytes, and the store that they make.

mod meta_support;
mod support;
mod topic_support;

use std::convert::Infallible;

use bytes::Bytes;
use command::{Exptime, Key, LogTime, Preamble, Read, Reply, StoreMode, Write};
use meta_support::any_meta_write;
use proptest::prelude::*;
use proptest::sample::Index;
use quorate_store::{Frozen, Garbage, LoadError, Loader, STATE_HASH_FUNCTION, Store};
use support::{all_keys, any_key, any_value, any_write};
use topic_support::topic_changes;

/// A second since 1970 at which all tests start.
const START: u64 = 1_700_000_000;

/// A store that is given one entry after another.
struct Fixture {
    store: Store,
    index: u64,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture {
            store: Store::new(7),
            index: 0,
        }
    }

    /// One entry so many seconds after the start.
    fn entry(&mut self, seconds: u64, writes: &[Write]) {
        self.index += 1;
        enter(&mut self.store, self.index, (START + seconds) * 1000);
        for (place, write) in (0..).zip(writes) {
            self.store.apply(place, write);
        }
    }

    fn bytes(&self) -> Vec<u8> {
        bytes_of(&self.store.freeze())
    }
}

fn enter(store: &mut Store, index: u64, log_time_ms: u64) {
    let preamble = Preamble {
        log_time: LogTime(log_time_ms),
        item_bytes_max: 1 << 20,
        memory_limit_bytes: 0,
        mark: None,
    };
    store.enter(index, &preamble);
}

fn set(name: &str, exptime: i32, value: &str) -> Write {
    Write::Store(command::Store {
        mode: StoreMode::Set,
        key: Key::new(Bytes::copy_from_slice(name.as_bytes())).expect("a short key"),
        flags: 5,
        exptime: Exptime(exptime),
        value: Bytes::copy_from_slice(value.as_bytes()),
    })
}

fn flush_all(delay: i32) -> Write {
    let delay = Exptime(delay);
    Write::FlushAll { delay }
}

fn pieces_of(frozen: &Frozen, piece_bytes_max: usize) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let Ok(()) = frozen.write_out(piece_bytes_max, &mut |piece| {
        pieces.push(piece.to_vec());
        Ok::<(), Infallible>(())
    });
    pieces
}

fn bytes_of(frozen: &Frozen) -> Vec<u8> {
    pieces_of(frozen, 1 << 16).concat()
}

fn load(bytes: &[u8]) -> Result<Store, LoadError> {
    let mut loader = Loader::new(9);
    loader.push(bytes)?;
    loader.finish()
}

fn read_all(store: &Store) -> Reply {
    store.read(&Read::Get {
        keys: all_keys().into_iter().collect(),
    })
}

fn is_send<T: Send>(value: T) -> T {
    value
}

/// A header of index 1 at the start, with this many items.
fn header(items: u64) -> Vec<u8> {
    header_with(0, 0, 0, items)
}

fn header_with(flush: u8, second: u64, below: u64, items: u64) -> Vec<u8> {
    let mut bytes = vec![3];
    bytes.extend((START * 1000).to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend((1u32 << 20).to_le_bytes());
    bytes.extend([0; 16]);
    bytes.push(flush);
    bytes.extend(second.to_le_bytes());
    bytes.extend(below.to_le_bytes());
    bytes.extend(items.to_le_bytes());
    bytes.extend([0; 4]);
    bytes
}

fn item(unique: u64, over_at: u32, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = unique.to_le_bytes().to_vec();
    bytes.extend(unique.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(over_at.to_le_bytes());
    bytes.push(0);
    bytes.extend((value.len() as u32).to_le_bytes());
    bytes.push(key.len() as u8);
    bytes.extend(key);
    bytes.extend(value);
    bytes
}

fn error_of(bytes: &[u8]) -> LoadError {
    load(bytes).expect_err("these bytes are no state")
}

/// Every kind of state: a pending flush, deadlines, topics with messages in all states.
fn some_states() -> Vec<Fixture> {
    let mut states = vec![Fixture::new()];
    for delay in [None, Some(1), Some(9), Some(-1)] {
        let mut it = Fixture::new();
        let long = "v".repeat(300);
        it.entry(
            0,
            &[set("a", 0, "1"), set("b", 3, ""), set("c", 100, &long)],
        );
        it.entry(5, &[set("d", 0, "x\r\n"), set("e", 2_000_000_000, "y")]);
        it.entry(6, &delay.map(flush_all).into_iter().collect::<Vec<_>>());
        it.entry(6, &[set("f", 0, "after the flush")]);
        if delay.is_some() {
            it.entry(6, &topic_changes());
        }
        states.push(it);
    }
    states
}

#[test]
fn the_state_hash_is_the_function_that_its_number_says() {
    let mut it = Fixture::new();
    it.entry(1, &[set("a", 0, "1"), set("b", 100, "22"), flush_all(50)]);
    // Servers of two releases compare these: another function needs another number.
    assert_eq!(
        (STATE_HASH_FUNCTION, it.store.state_hash()),
        (3, 17_028_653_063_369_842_086)
    );
}

#[test]
fn a_small_state_is_these_bytes() {
    let mut it = Fixture::new();
    it.entry(0, &[set("gone", 1, "over"), set("key", 0, "value")]);
    let writes = [set("sixteen bytes ok", 60, ""), flush_all(3)];
    it.entry(2, &[&writes[..], &[set("nine byte", 0, "9")]].concat());
    let items = [
        "0200020000000000020002000000000005000000000000000001000000096e696e65206279746539",
        "0000020000000000000002000000000005000000\
         3ef153650000000000107369787465656e206279746573206f6b",
        "0100010000000000010001000000000005000000000000000005000000036b657976616c7565",
    ];
    let header = "03d06fe5cf8b010000020000000000000000001000000000000000000000000000000000000105f15365000000000000000000000000030000000000000000000000";
    assert_eq!(hex(&it.bytes()), [header, &items.concat()].concat());
    it.entry(4, &[]);
    let header = "03a077e5cf8b010000030000000000000000001000000000000000000000000000000000000205f15365000000000000030000000000030000000000000000000000";
    assert_eq!(hex(&it.bytes()), [header, &items.concat()].concat());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_memory_limit_is_in_the_snapshot_and_so_is_the_setting_that_it_came_after() {
    let mut it = Fixture::new();
    it.entry(0, &[set("a", 0, "1"), Write::MemoryLimit { mib: 8 }]);
    let mut loaded = load(&it.bytes()).unwrap();
    assert_eq!(loaded.memory_limit_bytes(), Some(8 << 20));
    assert_eq!(loaded.state_hash(), it.store.state_hash());
    for setting in [0, 100, 0] {
        it.index += 1;
        let preamble = Preamble {
            log_time: LogTime(START * 1000),
            item_bytes_max: 1 << 20,
            memory_limit_bytes: setting,
            mark: None,
        };
        it.store.enter(it.index, &preamble);
        loaded.enter(it.index, &preamble);
        assert_eq!(loaded.memory_limit_bytes(), it.store.memory_limit_bytes());
        assert_eq!(loaded.state_hash(), it.store.state_hash());
    }
}

#[test]
fn an_empty_store_is_written_and_loaded_too() {
    let bytes = Fixture::new().bytes();
    assert_eq!(bytes.len(), 66);
    let mut loaded = load(&bytes).unwrap();
    assert_eq!(loaded.state_hash(), Store::new(1).state_hash());
    enter(&mut loaded, 1, 1000);
}

#[test]
fn what_is_gone_is_left_out_and_so_are_the_flushes_that_took_it() {
    let mut it = Fixture::new();
    it.entry(0, &[set("a", 0, "1"), set("b", 2, "2"), flush_all(5)]);
    it.entry(9, &[]);
    let mut other = Fixture::new();
    other.index = 1;
    other.entry(9, &[]);
    assert_eq!(it.bytes(), other.bytes());
    // Whether the memory is free makes no difference.
    while it.store.tidy() {}
    assert_eq!(it.bytes(), other.bytes());
}

#[test]
fn all_pieces_but_the_last_are_full() {
    for it in some_states() {
        let frozen = it.store.freeze();
        let bytes = bytes_of(&frozen);
        for piece_bytes_max in 1..bytes.len() + 2 {
            let pieces = pieces_of(&frozen, piece_bytes_max);
            let cut: Vec<&[u8]> = bytes.chunks(piece_bytes_max).collect();
            assert_eq!(pieces, cut);
        }
    }
}

#[test]
fn a_sink_that_fails_is_not_called_again() {
    let it = some_states().remove(1);
    let mut calls = 0;
    let failed = it.store.freeze().write_out(8, &mut |_| {
        calls += 1;
        if calls == 3 { Err("full") } else { Ok(()) }
    });
    assert_eq!((failed, calls), (Err("full"), 3));
}

#[test]
fn a_snapshot_is_written_by_another_thread_while_commands_go_on() {
    let mut it = some_states().remove(2);
    let frozen = is_send(it.store.freeze());
    let (hash, bytes) = (it.store.state_hash(), it.bytes());
    it.entry(7, &[set("a", 0, "2"), set("new", 0, "1"), flush_all(0)]);
    assert_ne!(it.store.state_hash(), hash);
    assert_eq!((frozen.state_hash(), bytes_of(&frozen)), (hash, bytes));
}

#[test]
fn a_state_is_dropped_piece_by_piece_and_leaves_what_it_shares() {
    let mut it = Fixture::new();
    for hundred in 0..100 {
        let names = (0..100).map(|number| format!("key {}", hundred * 100 + number));
        let writes: Vec<Write> = names.map(|name| set(&name, 60, "value")).collect();
        it.entry(0, &writes);
    }
    let bytes = it.bytes();
    let steps = |mut garbage: Garbage| {
        let steps = (0..).take_while(|_| {
            let is_there = !garbage.is_empty();
            garbage.shrink();
            is_there
        });
        steps.count()
    };
    let (shared, frozen) = (it.store.freeze(), it.store.freeze());
    assert!(steps(frozen.into_garbage()) < 40);
    assert_eq!(bytes_of(&shared), bytes);
    let mut loader = Loader::new(1);
    loader.push(&bytes).expect("it is a state");
    let store = loader.finish().expect("it is a whole one");
    // Ten thousand items, and as many deadlines beside them, about a thousand at once.
    assert!((8..30).contains(&steps(store.into_garbage())));
    assert_eq!(it.bytes(), bytes);
    assert_eq!(bytes_of(&shared), bytes);
}

#[test]
fn what_is_frozen_outlives_every_change_of_a_large_store() {
    let mut it = Fixture::new();
    let set_all = |it: &mut Fixture, seconds, value| {
        for hundred in 0..200 {
            let names = (0..100).map(|number| format!("key {}", hundred * 100 + number));
            let writes: Vec<Write> = names.map(|name| set(&name, 60, value)).collect();
            it.entry(seconds, &writes);
        }
    };
    set_all(&mut it, 0, "before");
    let frozen = it.store.freeze();
    let (hash, bytes) = (frozen.state_hash(), bytes_of(&frozen));

    set_all(&mut it, 1, "after");
    let later = it.bytes();
    assert_eq!(bytes.len() - later.len(), 20_000);
    it.entry(2, &[flush_all(2)]);
    it.entry(5, &[]);
    while it.store.tidy() {}
    assert_eq!(it.store.counts().items, 0);
    set_all(&mut it, 6, "once more");
    it.entry(7, &[flush_all(0)]);
    while it.store.tidy() {}
    set_all(&mut it, 8, "and once more");
    it.entry(90, &[]);
    while it.store.tidy() {}
    assert_eq!(it.store.counts().items, 0);

    assert_eq!((frozen.state_hash(), &bytes_of(&frozen)), (hash, &bytes));
    assert_eq!(load(&bytes).unwrap().state_hash(), hash);
    load(&later).unwrap();
}

#[test]
fn bytes_that_end_early_are_no_state() {
    for it in some_states() {
        let bytes = it.bytes();
        for end in 0..bytes.len() {
            let error = error_of(&bytes[..end]);
            let is_early = matches!(
                error,
                LoadError::NoItems | LoadError::Truncated { .. } | LoadError::TruncatedTopic { .. }
            );
            assert!(is_early, "{error} after {end} bytes");
        }
        load(&bytes).unwrap();
    }
}

#[test]
fn bytes_behind_the_last_item_are_refused() {
    for it in some_states() {
        let mut bytes = it.bytes();
        bytes.extend(b"ab");
        assert_eq!(error_of(&bytes), LoadError::Trailing { bytes: 2 });
    }
}

#[test]
fn a_changed_byte_is_refused_or_another_state() {
    for it in some_states() {
        let bytes = it.bytes();
        for (place, change) in (0..bytes.len()).flat_map(|place| {
            let changes = (0..8).map(|bit| 1u8 << bit).chain([0xff]);
            changes.map(move |change| (place, change))
        }) {
            let mut changed = bytes.clone();
            changed[place] ^= change;
            if let Ok(store) = load(&changed) {
                assert_eq!(bytes_of(&store.freeze()), changed);
            }
        }
    }
}

#[test]
fn any_bytes_are_refused_or_a_state() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Ok(store) = load(bytes)
            && bytes.first() == Some(&3)
        {
            assert_eq!(bytes_of(&store.freeze()), bytes);
        }
    });
}

#[test]
fn another_version_is_refused_at_its_first_byte() {
    let mut loader = Loader::new(1);
    assert_eq!(loader.push(&[4]), Err(LoadError::Version { found: 4 }));
}

#[test]
fn the_first_versions_are_read_and_written_as_the_third() {
    let mut first = header(1);
    first[0] = 1;
    first.drain(21..37);
    first.truncate(46);
    first.extend(5u64.to_le_bytes());
    first.extend(7u32.to_le_bytes());
    first.extend((START as u32 + 9).to_le_bytes());
    first.extend(2u32.to_le_bytes());
    first.extend(b"\x01kab");
    let mut second = [header(1), item(5, START as u32 + 9, b"k", b"ab")].concat();
    second[66 + 16] = 7;
    assert_eq!(bytes_of(&load(&first).unwrap().freeze()), second);
    let third = second.clone();
    second[0] = 2;
    second.drain(62..66);
    assert_eq!(bytes_of(&load(&second).unwrap().freeze()), third);
}

#[test]
fn a_loader_that_has_failed_goes_on_failing() {
    let mut loader = Loader::new(1);
    let trailing = LoadError::Trailing { bytes: 1 };
    let bytes = Fixture::new().bytes();
    loader.push(&bytes).unwrap();
    assert_eq!(loader.push(b"x"), Err(trailing));
    assert_eq!(loader.push(&[]), Err(trailing));
    assert_eq!(loader.finish().err(), Some(trailing));
}

#[test]
fn items_out_of_order_and_two_with_one_key_are_refused() {
    let mut items = [item(1, 0, b"a", b""), item(2, 0, b"b", b"")];
    if load(&[header(2), items.concat()].concat()).is_err() {
        items.reverse();
    }
    load(&[header(2), items.concat()].concat()).unwrap();
    items.reverse();
    let bytes = [header(2), items.concat()].concat();
    assert_eq!(error_of(&bytes), LoadError::Unsorted { item: 1 });
    let twice = [item(1, 0, b"a", b""), item(2, 0, b"a", b"x")].concat();
    let bytes = [header(2), twice].concat();
    assert_eq!(error_of(&bytes), LoadError::Duplicate { item: 1 });
}

#[test]
fn items_whose_keys_have_the_same_hash_ascend_by_their_keys() {
    let mix = |hash: u64, word: u64| {
        let hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^ hash >> 32
    };
    let key = |first: u64| {
        let second = mix(16, first) ^ 77;
        [first.to_le_bytes(), second.to_le_bytes()].concat()
    };
    let mut items: Vec<Vec<u8>> = (0..9)
        .map(|first| item(first, 0, &key(first), b""))
        .collect();
    load(&[header(9), items.concat()].concat()).unwrap();
    items.swap(3, 4);
    let bytes = [header(9), items.concat()].concat();
    assert_eq!(error_of(&bytes), LoadError::Unsorted { item: 4 });

    let mut it = Fixture::new();
    for first in [5, 1, 8, 2] {
        let key = Key::new(Bytes::from(key(first))).expect("a key of 16 bytes");
        let write = Write::Store(command::Store {
            mode: StoreMode::Set,
            key,
            flags: 0,
            exptime: Exptime(0),
            value: Bytes::new(),
        });
        it.entry(0, &[write]);
    }
    let bytes = it.bytes();
    let keys = bytes[66..].chunks(30 + 16).map(|item| item[30]);
    assert_eq!(keys.collect::<Vec<_>>(), [1, 2, 5, 8]);
}

#[test]
fn items_that_cannot_be_there_are_refused() {
    let with = |item: Vec<u8>| error_of(&[header(1), item].concat());
    let over_at = START as u32;
    assert_eq!(
        with(item(1, over_at, b"a", b"")),
        LoadError::Over { item: 0, over_at }
    );
    let unique = 2 << 16;
    assert_eq!(
        with(item(unique, 0, b"a", b"")),
        LoadError::Unique {
            item: 0,
            unique,
            changed: unique
        }
    );
    let mut lowered = item(5, 0, b"a", b"");
    lowered[0] = 4;
    assert_eq!(
        with(lowered),
        LoadError::Unique {
            item: 0,
            unique: 4,
            changed: 5
        }
    );
    let mut marked = item(5, 0, b"a", b"");
    marked[24] = 4;
    assert_eq!(with(marked), LoadError::Marks { item: 0, marks: 4 });
    for length in [0, 251, 255] {
        assert_eq!(
            with(item(1, 0, &vec![b'k'; length], b"")),
            LoadError::KeyLength { item: 0, length }
        );
    }
    let longest = item((2 << 16) - 1, over_at + 1, &[b'k'; 250], b"");
    load(&[header(1), longest].concat()).unwrap();
}

#[test]
fn a_flush_that_cannot_be_pending_is_refused() {
    let next = START + 1;
    let good = [
        (0, 0, 0),
        (1, next + 1, 0),
        (2, next, 0),
        (2, next, 1 << 16),
    ];
    for (flush, second, below) in good {
        load(&header_with(flush, second, below, 0)).unwrap();
    }
    let bad = [
        (0, 1, 0),
        (0, 0, 1),
        (1, next, 0),
        (1, 0, 0),
        (1, next + 1, 1),
        (2, next + 1, 1),
        (2, next - 1, 1),
        (2, next, 2 << 16),
        (3, next + 1, 0),
    ];
    for (flush, second, below) in bad {
        let error = LoadError::Flush {
            flush,
            second,
            below,
        };
        assert_eq!(error_of(&header_with(flush, second, below, 0)), error);
    }
}

#[test]
fn an_index_that_no_unique_holds_is_refused() {
    let mut bytes = header(0);
    bytes[9..17].copy_from_slice(&(1u64 << 48).to_le_bytes());
    assert_eq!(error_of(&bytes), LoadError::Index { index: 1 << 48 });
}

#[test]
fn numbers_in_the_bytes_take_no_memory() {
    let mut largest = item(1, 0, b"k", b"");
    largest[25..29].fill(0xff);
    for items in [1, 1 << 40, u64::MAX] {
        let bytes = [header(items), item(1, 0, b"a", b"v")].concat();
        if items > 1 {
            assert_eq!(error_of(&bytes), LoadError::Truncated { item: 1, items });
        }
        let bytes = [header(items), largest.clone()].concat();
        assert_eq!(error_of(&bytes), LoadError::Truncated { item: 0, items });
    }
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// An entry begins, so many milliseconds later, or earlier, by the leader's clock.
    Enter(i64),
    Write(Write),
    /// `cas` with the item's unique.
    Cas(Key, Bytes),
    Tidy,
}

fn any_step() -> impl Strategy<Value = Step> {
    let gap = prop_oneof![-2000..0i64, 0..300i64, 300..3000i64];
    prop_oneof![
        8 => gap.prop_map(Step::Enter),
        12 => any_write().prop_map(Step::Write),
        8 => any_meta_write().prop_map(Step::Write),
        1 => (any_key(), any_value()).prop_map(|(key, value)| Step::Cas(key, value)),
        1 => Just(Step::Tidy),
    ]
}

/// A place in the log.
#[derive(Clone, Copy)]
struct Cursor {
    clock_ms: i64,
    index: u64,
    place: u16,
}

impl Cursor {
    /// Does one step to a store, and answers what a client sees of it.
    fn step(&mut self, store: &mut Store, step: &Step) -> Option<Reply> {
        let write = match step {
            Step::Enter(gap) => {
                self.clock_ms += gap;
                self.index += 1;
                self.place = 0;
                enter(store, self.index, self.clock_ms as u64);
                return None;
            }
            Step::Tidy => {
                while store.tidy() {}
                return None;
            }
            Step::Write(write) => write.clone(),
            Step::Cas(key, value) => Write::Store(command::Store {
                mode: StoreMode::Cas(unique_of(store, key)),
                key: key.clone(),
                flags: 1,
                exptime: Exptime(3),
                value: value.clone(),
            }),
        };
        self.place += 1;
        let mut reply = store.apply(self.place - 1, &write);
        if let Reply::MetaHit(hit) = &mut reply {
            // No part of the state.
            (hit.idle_seconds, hit.was_fetched) = (0, false);
        }
        Some(reply)
    }
}

fn unique_of(store: &Store, key: &Key) -> u64 {
    let keys = [key.clone()].into_iter().collect();
    match store.read(&Read::Get { keys }) {
        Reply::Hits(hits) => hits.first().map_or(0, |hit| hit.unique),
        other => panic!("{other:?} is no retrieval's"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn a_loaded_store_goes_on_as_the_frozen_one_does(
        steps in proptest::collection::vec(any_step(), 1..100),
        frozen_after: Index,
        piece_bytes in 1..200usize,
        seed: u64,
    ) {
        let mut store = Store::new(seed);
        let mut at = Cursor { clock_ms: START as i64 * 1000, index: 1, place: 0 };
        enter(&mut store, 1, START * 1000);
        let (before, after) = steps.split_at(frozen_after.index(steps.len()));
        for step in before {
            at.step(&mut store, step);
        }

        let frozen = store.freeze();
        let bytes = bytes_of(&frozen);
        let hash = store.state_hash();
        prop_assert_eq!(frozen.state_hash(), hash);
        let mut loader = Loader::new(!seed);
        for piece in bytes.chunks(piece_bytes) {
            prop_assert_eq!(loader.push(piece), Ok(()));
        }
        let mut loaded = loader.finish().expect("these are the bytes of a state");
        prop_assert_eq!(loaded.state_hash(), hash);
        prop_assert_eq!(bytes_of(&loaded.freeze()), &bytes[..]);

        for step in after {
            let mut at_loaded = at;
            let reply = at.step(&mut store, step);
            prop_assert_eq!(at_loaded.step(&mut loaded, step), reply, "{:?}", step);
            prop_assert_eq!(read_all(&loaded), read_all(&store));
            prop_assert_eq!(loaded.log_time(), store.log_time());
            prop_assert_eq!(loaded.state_hash(), store.state_hash());
            prop_assert_eq!(loaded.counts().items, store.counts().items);
            prop_assert_eq!(loaded.counts().bytes, store.counts().bytes);
            if matches!(step, Step::Tidy) {
                prop_assert_eq!(loaded.next_due(), store.next_due());
            }
        }
        for store in [&mut store, &mut loaded] {
            while store.tidy() {}
        }
        prop_assert_eq!(loaded.next_due(), store.next_due());
        prop_assert_eq!(bytes_of(&loaded.freeze()), bytes_of(&store.freeze()));

        prop_assert_eq!(frozen.state_hash(), hash);
        prop_assert_eq!(bytes_of(&frozen), bytes);
    }
}
