//! Why a key is gone, as far as it is remembered.

use bytes::Bytes;
use command::{Exptime, Key, LogTime, Preamble, StoreMode, Write};
use quorate_store::{Gone, Store};

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

#[test]
fn why_a_key_is_gone_is_known_of_the_last_few_thousand() {
    let mut store = Store::new(7);
    enter(&mut store, 1, 0);
    let name = |number: u32| format!("key {number}");
    for (number, place) in (0..10_000).zip(0u16..) {
        store.apply(place, &set(&name(number), 2));
    }
    assert_eq!(store.why_gone(b"key 1"), None);
    enter(&mut store, 2, 2);
    // As long as its memory is there, and some time after that.
    let known = |store: &Store, why| {
        let known = (0..10_000).filter(|number| store.why_gone(name(*number).as_bytes()) == why);
        known.count()
    };
    assert_eq!(known(&store, Some(Gone::Expired)), 10_000);
    while store.tidy() {}
    assert_eq!(known(&store, Some(Gone::Expired)), 4096);
    assert_eq!(store.why_gone(b"another"), None);
    for (number, place) in (0..10).zip(0u16..) {
        store.apply(place, &set(&name(number), 0));
        assert_eq!(store.why_gone(name(number).as_bytes()), None);
    }
    let delay = Exptime(0);
    store.apply(10, &Write::FlushAll { delay });
    assert_eq!(known(&store, Some(Gone::Flushed)), 10);
}
