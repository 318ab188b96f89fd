//! What carrying out a command costs in allocations: the item itself for a `set`, and the list of
//! hits for a `get`, whose values are shared.

use allocation_counter::measure;
use bytes::Bytes;
use command::{Exptime, Key, LogTime, Preamble, Read, Reply, Store, StoreMode, Write};

/// Commands that are carried out one after another.
const COMMANDS: u16 = 100;

fn key(number: u16) -> Key {
    Key::new(Bytes::from(format!("key{number}"))).expect("1 to 250 bytes")
}

/// A store that has all keys and knows values of this size.
fn warm(writes: &[Write]) -> quorate_store::Store {
    let mut store = quorate_store::Store::new(7);
    for index in 1..4 {
        let preamble = Preamble {
            log_time: LogTime(1_700_000_000_000),
            item_bytes_max: 1 << 20,
            mark: None,
        };
        store.enter(index, &preamble);
        for (place, write) in (0..).zip(writes) {
            assert_eq!(store.apply(place, write), Reply::Stored);
        }
    }
    store
}

fn writes() -> Vec<Write> {
    let write = |number| {
        Write::Store(Store {
            mode: StoreMode::Set,
            key: key(number),
            flags: 0,
            exptime: Exptime(0),
            value: Bytes::from(vec![b'v'; 100]),
        })
    };
    (0..COMMANDS).map(write).collect()
}

#[test]
fn a_set_allocates_its_item_and_nothing_else() {
    let writes = writes();
    let mut store = warm(&writes);
    let counted = measure(|| {
        for (place, write) in (0..).zip(&writes) {
            store.apply(place, write);
        }
    });
    assert_eq!(counted.count_total, u64::from(COMMANDS), "{counted:?}");
    // Key, value, and 56 bytes of the item's own; the old items are given back.
    assert!(
        counted.bytes_total < 165 * u64::from(COMMANDS),
        "{counted:?}"
    );
    assert_eq!(counted.count_current, 0, "{counted:?}");
}

#[test]
fn a_get_allocates_the_list_of_its_hits_and_nothing_else() {
    let store = warm(&writes());
    let keys = (0..COMMANDS).map(key).collect();
    let read = Read::Get { keys };
    let mut reply = None;
    let counted = measure(|| reply = Some(store.read(&read)));
    let Some(Reply::Hits(hits)) = reply else {
        panic!("a get answers hits");
    };
    assert_eq!(hits.len(), usize::from(COMMANDS));
    assert_eq!(counted.count_total, 1, "{counted:?}");
}
