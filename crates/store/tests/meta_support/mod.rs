//! Random meta commands on the dozen keys of `support`.

use command::{
    Direction, Exptime, MetaArithmetic, MetaDelete, MetaGet, MetaSet, Recache, StoreMode, Write,
};
use proptest::prelude::*;

use crate::support::{any_exptime, any_key, any_value};

fn any_unique() -> impl Strategy<Value = Option<u64>> {
    let unique = prop_oneof![
        0..1000u64,
        (1..40u64, 0..6u64).prop_map(|(i, p)| i << 16 | p)
    ];
    prop::option::of(unique)
}

fn any_time() -> impl Strategy<Value = Option<Exptime>> {
    prop::option::of(any_exptime())
}

/// A meta command that goes through the log.
pub(crate) fn any_meta_write() -> impl Strategy<Value = Write> {
    let recache = prop::option::of((any_exptime(), any::<bool>()));
    let get = (any_key(), any_time(), any_time(), recache, any_unique());
    let get = get.prop_map(|(key, touch, vivify, recache, unique)| {
        Write::MetaGet(MetaGet {
            key,
            peeks: false,
            touch,
            vivify,
            recache: recache.map(|(below, after_touch)| Recache { below, after_touch }),
            unique,
        })
    });
    let modes = [
        StoreMode::Set,
        StoreMode::Add,
        StoreMode::Replace,
        StoreMode::Append,
        StoreMode::Prepend,
    ];
    let store = (
        prop::sample::select(modes.to_vec()),
        any_key(),
        any_exptime(),
        any_value(),
    );
    let set = (store, any_unique(), any::<bool>(), any_time(), any_unique());
    let set = set.prop_map(|(store, compare, invalidate, vivify, unique)| {
        let (mode, key, exptime, value) = store;
        Write::MetaSet(MetaSet {
            store: command::Store {
                mode,
                key,
                flags: 7,
                exptime,
                value,
            },
            compare,
            invalidate,
            vivify,
            unique,
        })
    });
    let delete = (
        any_key(),
        any_unique(),
        any::<[bool; 2]>(),
        any_time(),
        any_unique(),
    );
    let delete = delete.prop_map(|(key, compare, [invalidate, clear], touch, unique)| {
        Write::MetaDelete(MetaDelete {
            key,
            compare,
            invalidate,
            clear,
            touch,
            unique,
        })
    });
    let direction = prop_oneof![Just(Direction::Increment), Just(Direction::Decrement)];
    let arithmetic = (
        any_key(),
        direction,
        0..150u64,
        any_unique(),
        any_time(),
        any_time(),
    );
    let arithmetic = arithmetic.prop_map(|(key, direction, delta, compare, vivify, touch)| {
        Write::MetaArithmetic(MetaArithmetic {
            key,
            direction,
            delta,
            compare,
            vivify,
            initial: 95,
            touch,
            unique: None,
        })
    });
    prop_oneof![get, set, delete, arithmetic]
}
