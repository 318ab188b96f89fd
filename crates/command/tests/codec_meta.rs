//! The meta commands of an entry: what is encoded is decoded as it was, and bytes of any kind are
//! commands or an error.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use quorate_command::{
    CodecError, Direction, Exptime, Key, LogTime, MetaArithmetic, MetaDelete, MetaGet, MetaSet,
    PayloadEncoder, Preamble, Recache, Store, StoreMode, Write, decode, encoded_bytes,
};

const PREAMBLE: Preamble = Preamble {
    log_time: LogTime(1),
    item_bytes_max: 1 << 20,
    mark: None,
};

fn any_key() -> impl Strategy<Value = Key> {
    let bytes = proptest::collection::vec(any::<u8>(), 1..=250);
    bytes.prop_map(|bytes| Key::new(Bytes::from(bytes)).expect("1 to 250 bytes"))
}

fn any_time() -> impl Strategy<Value = Option<Exptime>> {
    prop::option::of(any::<i32>().prop_map(Exptime))
}

fn any_direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Increment), Just(Direction::Decrement)]
}

fn any_write() -> impl Strategy<Value = Write> {
    let recache = prop::option::of((any::<i32>(), any::<bool>()));
    let get = (
        any_key(),
        any::<bool>(),
        any_time(),
        any_time(),
        recache,
        any::<Option<u64>>(),
    );
    let get = get.prop_map(|(key, peeks, touch, vivify, recache, unique)| {
        let recache = recache.map(|(below, after_touch)| Recache {
            below: Exptime(below),
            after_touch,
        });
        Write::MetaGet(MetaGet {
            key,
            peeks,
            touch,
            vivify,
            recache,
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
    let value = proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    let mode = prop::sample::select(modes.to_vec());
    let store = (mode, any_key(), any::<u32>(), any::<i32>(), value);
    let rest = (
        any::<Option<u64>>(),
        any::<bool>(),
        any_time(),
        any::<Option<u64>>(),
    );
    let set = (store, rest).prop_map(|(store, (compare, invalidate, vivify, unique))| {
        let (mode, key, flags, exptime, value) = store;
        let exptime = Exptime(exptime);
        Write::MetaSet(MetaSet {
            store: Store {
                mode,
                key,
                flags,
                exptime,
                value,
            },
            compare,
            invalidate,
            vivify,
            unique,
        })
    });
    let facts = any::<[bool; 2]>();
    let delete = (any_key(), any::<[Option<u64>; 2]>(), facts, any_time());
    let delete = delete.prop_map(|(key, [compare, unique], [invalidate, clear], touch)| {
        Write::MetaDelete(MetaDelete {
            key,
            compare,
            invalidate,
            clear,
            touch,
            unique,
        })
    });
    let numbers = (any::<u64>(), any::<u64>(), any::<[Option<u64>; 2]>());
    let arithmetic = (any_key(), any_direction(), numbers, any_time(), any_time());
    let arithmetic = arithmetic.prop_map(|(key, direction, numbers, vivify, touch)| {
        let (delta, initial, [compare, unique]) = numbers;
        Write::MetaArithmetic(MetaArithmetic {
            key,
            direction,
            delta,
            compare,
            vivify,
            initial,
            touch,
            unique,
        })
    });
    prop_oneof![get, set, delete, arithmetic]
}

fn decode_all(payload: Bytes) -> Result<Vec<Write>, CodecError> {
    decode(payload)?.1.collect()
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_as_it_was(
        writes in proptest::collection::vec(any_write(), 0..20),
    ) {
        let mut encoder = PayloadEncoder::new();
        for write in &writes {
            let before = encoder.bytes();
            encoder.push(write);
            prop_assert_eq!(encoder.bytes(), before + encoded_bytes(write));
        }
        prop_assert_eq!(decode_all(encoder.finish(&PREAMBLE)).unwrap(), writes);
    }

    #[test]
    fn a_command_that_is_cut_off_or_changed_is_another_or_an_error(
        write in any_write(),
        at: prop::sample::Index,
        to: u8,
    ) {
        let mut encoder = PayloadEncoder::new();
        encoder.push(&write);
        let payload = encoder.finish(&PREAMBLE);
        let at = at.index(payload.len());
        prop_assert!(decode_all(payload.slice(..at)).is_err());
        let mut changed = payload.to_vec();
        changed[at] = to;
        let _ = decode_all(Bytes::from(changed));
    }
}

#[test]
fn a_mode_that_ms_does_not_have_is_an_error() {
    for (mode, is_one) in [(0, false), (1, true), (5, true), (6, false), (255, false)] {
        let mut payload = BytesMut::from(&[1u8][..]);
        payload.put_u64_le(1);
        payload.put_u32_le(9);
        payload.put_u16_le(1);
        payload.put_slice(&[33, 1, b'k', 0, mode]);
        payload.put_slice(&[0; 12]);
        let decoded = decode_all(payload.freeze());
        assert_eq!(decoded.is_ok(), is_one, "{mode}: {decoded:?}");
    }
}
