//! Random commands on a dozen keys.

use bytes::Bytes;
use command::{Direction, Exptime, Key, StoreMode, Write};
use proptest::prelude::*;

pub(crate) fn any_key() -> impl Strategy<Value = Key> {
    (0..12u8)
        .prop_map(|number| Key::new(Bytes::from(vec![b'a' + number])).expect("a key of one byte"))
}

pub(crate) fn any_exptime() -> impl Strategy<Value = Exptime> {
    prop_oneof![
        3 => Just(0),
        6 => 1..5i32,
        1 => Just(-1),
        1 => 1_700_000_000..1_700_000_030i32,
    ]
    .prop_map(Exptime)
}

pub(crate) fn any_value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        Just(Bytes::from_static(b"abc")),
        (0..200u64).prop_map(|number| Bytes::from(number.to_string())),
        (0..20u64).prop_map(|number| Bytes::from(format!("{number}  "))),
    ]
}

fn any_mode() -> impl Strategy<Value = StoreMode> {
    prop_oneof![
        4 => Just(StoreMode::Set),
        1 => Just(StoreMode::Add),
        1 => Just(StoreMode::Replace),
        1 => Just(StoreMode::Append),
        1 => Just(StoreMode::Prepend),
        1 => (0..1000u64).prop_map(StoreMode::Cas),
    ]
}

pub(crate) fn any_write() -> impl Strategy<Value = Write> {
    let store = (
        any_mode(),
        any_key(),
        any::<u32>(),
        any_exptime(),
        any_value(),
    );
    let store = store.prop_map(|(mode, key, flags, exptime, value)| {
        Write::Store(command::Store {
            mode,
            key,
            flags,
            exptime,
            value,
        })
    });
    let direction = prop_oneof![Just(Direction::Increment), Just(Direction::Decrement)];
    let delta = prop_oneof![0..150u64, Just(u64::MAX)];
    let arithmetic = (any_key(), direction, delta);
    let arithmetic = arithmetic.prop_map(|(key, direction, delta)| Write::Arithmetic {
        key,
        direction,
        delta,
    });
    prop_oneof![
        8 => store,
        1 => any_key().prop_map(|key| Write::Delete { key }),
        2 => arithmetic,
        2 => (any_key(), any_exptime()).prop_map(|(key, exptime)| Write::Touch { key, exptime }),
        2 => (proptest::collection::vec(any_key(), 1..4), any_exptime())
            .prop_map(|(keys, exptime)| Write::GetAndTouch { keys, exptime }),
        1 => any_exptime().prop_map(|delay| Write::FlushAll { delay }),
    ]
}

pub(crate) fn all_keys() -> Vec<Key> {
    (0..12u8)
        .filter_map(|number| Key::new(Bytes::from(vec![b'a' + number])))
        .collect()
}
