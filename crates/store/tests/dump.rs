//! Keys of a frozen state, listed a few at a time.

use std::collections::BTreeSet;

use bytes::Bytes;
use command::{Exptime, Key, LogTime, Preamble, StoreMode, Write};
use quorate_store::{Dump, Store};

/// A second since 1970 at which all tests start.
const START: u64 = 1_700_000_000;

fn enter(store: &mut Store, index: u64, seconds: u64) {
    let preamble = Preamble {
        log_time: LogTime((START + seconds) * 1000),
        item_bytes_max: 1 << 20,
        memory_limit_bytes: 0,
        mark: None,
    };
    store.enter(index, &preamble);
}

fn set(name: &str, exptime: i32) -> Write {
    Write::Store(command::Store {
        mode: StoreMode::Set,
        key: Key::new(Bytes::copy_from_slice(name.as_bytes())).expect("a short key"),
        flags: 5,
        exptime: Exptime(exptime),
        value: Bytes::from_static(b"value"),
    })
}

/// Thirty thousand items, each tenth of which is over two seconds later.
fn large_store() -> Store {
    let mut store = Store::new(7);
    enter(&mut store, 1, 0);
    for (number, place) in (0..30_000).zip(0u16..) {
        let exptime = if number % 10 == 0 { 2 } else { 100 };
        store.apply(place, &set(&format!("key {number}"), exptime));
    }
    store
}

/// All keys that are left, so many at a time, and how many times.
fn keys(dump: &mut Dump, items_max: usize) -> (Vec<Vec<u8>>, usize) {
    let mut keys = Vec::new();
    let mut steps = 1;
    loop {
        let before = keys.len();
        let goes_on = dump.list(items_max, &mut |item| keys.push(item.key.to_vec()));
        assert!(keys.len() - before <= items_max);
        if !goes_on {
            return (keys, steps);
        }
        steps += 1;
    }
}

#[test]
fn every_key_is_listed_once_however_few_at_a_time() {
    let store = large_store();
    let expected: BTreeSet<Vec<u8>> = (0..30_000)
        .map(|number| format!("key {number}").into_bytes())
        .collect();
    for items_max in [1, 2, 7, 256, 100_000] {
        let (keys, steps) = keys(&mut store.freeze().into_dump(), items_max);
        assert_eq!(keys.len(), 30_000);
        assert_eq!(keys.into_iter().collect::<BTreeSet<_>>(), expected);
        assert!(steps >= 30_000 / items_max);
    }
    let (none, _) = keys(&mut Store::new(7).freeze().into_dump(), 10);
    assert!(none.is_empty());
}

#[test]
fn the_keys_are_those_of_one_moment_whatever_is_stored_meanwhile() {
    let mut store = large_store();
    let mut dump = store.freeze().into_dump();
    let mut listed = Vec::new();
    let mut place = 0;
    enter(&mut store, 2, 1);
    while dump.list(1000, &mut |item| listed.push(item.key.to_vec())) {
        for _ in 0..100 {
            store.apply(place, &set(&format!("new {place}"), 0));
            place += 1;
        }
        let key = Key::new(Bytes::from(listed[listed.len() - 1].clone())).expect("a key");
        store.apply(place, &Write::Delete { key });
        place += 1;
    }
    assert_eq!(listed.len(), 30_000);
    assert!(listed.iter().all(|key| key.starts_with(b"key ")));
}

#[test]
fn what_is_gone_is_not_listed_though_its_memory_is_not_free() {
    let mut store = large_store();
    enter(&mut store, 2, 2);
    assert!(store.counts().gone_items > 0);
    let (keys, _) = keys(&mut store.freeze().into_dump(), 100);
    assert_eq!(keys.len(), 27_000);
}

#[test]
fn an_item_is_listed_with_what_it_is() {
    let mut store = Store::new(7);
    enter(&mut store, 3, 0);
    store.apply(2, &set("k", 100));
    let mut dump = store.freeze().into_dump();
    let goes_on = dump.list(10, &mut |item| {
        assert_eq!((item.key, item.value_bytes, item.flags), (&b"k"[..], 5, 5));
        assert_eq!(item.unique, 3 << 16 | 2);
        assert_eq!(item.over_at, u32::try_from(START + 100).ok());
        assert_eq!(item.bytes as u64, store.counts().bytes);
    });
    assert!(!goes_on);
}

#[test]
fn what_is_left_of_a_dump_can_be_dropped_piece_by_piece() {
    let mut store = large_store();
    let mut dump = store.freeze().into_dump();
    dump.list(10_000, &mut |_| ());
    enter(&mut store, 2, 0);
    let delay = Exptime(0);
    store.apply(0, &Write::FlushAll { delay });
    while store.tidy() {}
    let mut garbage = dump.into_garbage();
    let mut steps = 0;
    while !garbage.is_empty() {
        garbage.shrink();
        steps += 1;
    }
    assert!((10..100).contains(&steps), "{steps}");
}
