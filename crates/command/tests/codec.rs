//! The payload's format: round trips, the bytes of the released versions, hostile bytes.

use bytes::Bytes;
use proptest::prelude::*;
use quorate_command::{
    CodecError, Direction, ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX, Exptime, KEY_BYTES_MAX, Key,
    LogTime, Mark, PayloadEncoder, Preamble, Store, StoreMode, Write, decode, encoded_bytes,
};

fn key(bytes: &[u8]) -> Key {
    Key::new(Bytes::copy_from_slice(bytes)).expect("a key of a test is short")
}

fn store(mode: StoreMode, name: &[u8], value: &[u8]) -> Write {
    Write::Store(Store {
        mode,
        key: key(name),
        flags: 0xdead_beef,
        exptime: Exptime(-2),
        value: Bytes::copy_from_slice(value),
    })
}

/// One of each kind.
fn one_of_each() -> Vec<Write> {
    vec![
        store(StoreMode::Set, b"set", b"one\r\n"),
        store(StoreMode::Add, b"add", b""),
        store(StoreMode::Replace, b"replace", b"three"),
        store(StoreMode::Append, b"append", b"4"),
        store(StoreMode::Prepend, b"prepend", b"5"),
        store(StoreMode::Cas(0x0102_0304_0506_0708), b"cas", b"six"),
        Write::Delete {
            key: key(b"delete"),
        },
        Write::Arithmetic {
            key: key(b"incr"),
            direction: Direction::Increment,
            delta: u64::MAX,
        },
        Write::Arithmetic {
            key: key(b"decr"),
            direction: Direction::Decrement,
            delta: 1,
        },
        Write::Touch {
            key: key(b"touch"),
            exptime: Exptime(60),
        },
        Write::GetAndTouch {
            keys: vec![key(b"a"), key(b"b"), key(b"a")],
            exptime: Exptime(i32::MAX),
        },
        Write::FlushAll {
            delay: Exptime(i32::MIN),
        },
    ]
}

const PREAMBLE: Preamble = Preamble {
    log_time: LogTime(1_700_000_000_123),
    item_bytes_max: 1 << 20,
    memory_limit_bytes: 0,
    mark: None,
};

const MARKED: Preamble = Preamble {
    mark: Some(Mark {
        function: 3,
        index: 0x0102_0304_0506,
        hash: 0xfedc_ba98_7654_3210,
    }),
    ..PREAMBLE
};

const LIMITED: Preamble = Preamble {
    memory_limit_bytes: 64 << 20,
    ..PREAMBLE
};

const LIMITED_MARKED: Preamble = Preamble {
    memory_limit_bytes: 64 << 20,
    ..MARKED
};

/// What came with the memory limit, behind what was there before.
fn one_of_each_and_a_limit() -> Vec<Write> {
    let mut writes = one_of_each();
    writes.push(Write::MemoryLimit { mib: 1024 });
    writes
}

fn encode(writes: &[Write]) -> Bytes {
    encode_with(&PREAMBLE, writes)
}

fn encode_with(preamble: &Preamble, writes: &[Write]) -> Bytes {
    let mut encoder = PayloadEncoder::new();
    for write in writes {
        encoder.push(write);
    }
    encoder.finish(preamble)
}

fn decode_all(payload: Bytes) -> Result<(Preamble, Vec<Write>), CodecError> {
    let (preamble, commands) = decode(payload)?;
    Ok((preamble, commands.collect::<Result<_, _>>()?))
}

/// A version's bytes are read and written as they were released.
#[track_caller]
fn is_as_released(preamble: Preamble, writes: Vec<Write>, golden: &str) {
    let golden: String = golden.split_whitespace().collect();
    let payload = encode_with(&preamble, &writes);
    let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden);
    let bytes: Vec<u8> = (0..golden.len() / 2)
        .map(|at| u8::from_str_radix(&golden[at * 2..at * 2 + 2], 16).expect("hex digits"))
        .collect();
    assert_eq!(decode_all(Bytes::from(bytes)), Ok((preamble, writes)));
}

#[test]
fn version_1_reads_and_writes_the_bytes_it_was_released_with() {
    let golden = include_str!("fixtures/payload-v1.hex");
    is_as_released(PREAMBLE, one_of_each(), golden);
}

#[test]
fn version_2_is_version_1_with_a_mark() {
    let golden = include_str!("fixtures/payload-v2.hex");
    is_as_released(MARKED, one_of_each(), golden);
}

#[test]
fn versions_3_and_4_are_1_and_2_with_a_memory_limit() {
    let golden = include_str!("fixtures/payload-v3.hex");
    is_as_released(LIMITED, one_of_each_and_a_limit(), golden);
    let golden = include_str!("fixtures/payload-v4.hex");
    is_as_released(LIMITED_MARKED, one_of_each_and_a_limit(), golden);
}

#[test]
fn a_payload_cut_anywhere_is_refused() {
    for preamble in [PREAMBLE, MARKED, LIMITED, LIMITED_MARKED] {
        let payload = encode_with(&preamble, &one_of_each());
        for length in 0..payload.len() {
            let error = decode_all(payload.slice(..length)).unwrap_err();
            assert!(
                matches!(error, CodecError::Truncated { .. }),
                "cut at {length}: {error}"
            );
        }
    }
}

#[test]
fn a_payload_of_another_version_is_refused() {
    let mut payload = encode(&one_of_each()).to_vec();
    for found in [0, 5, 255] {
        payload[0] = found;
        let error = decode_all(Bytes::from(payload.clone())).unwrap_err();
        assert_eq!(error, CodecError::Version { found });
    }
}

#[test]
fn bytes_behind_the_last_command_are_refused() {
    let mut payload = encode(&one_of_each()).to_vec();
    payload.extend_from_slice(b"more");
    let error = decode_all(Bytes::from(payload)).unwrap_err();
    assert_eq!(error, CodecError::Trailing { bytes: 4 });
}

#[test]
fn an_unknown_code_is_refused_with_its_place() {
    let mut payload = encode(&vec![Write::FlushAll { delay: Exptime(0) }; 2]).to_vec();
    let second = payload.len() - 5;
    payload[second] = 200;
    let error = decode_all(Bytes::from(payload)).unwrap_err();
    assert_eq!(
        error,
        CodecError::Code {
            place: 1,
            found: 200
        }
    );
}

#[test]
fn a_key_of_no_or_too_many_bytes_is_refused() {
    for length in [0, 251, 255] {
        let mut payload = encode(&[]).to_vec();
        payload[13] = 1;
        payload.push(16);
        payload.push(length);
        payload.extend(std::iter::repeat_n(b'k', usize::from(length)));
        let error = decode_all(Bytes::from(payload)).unwrap_err();
        assert_eq!(error, CodecError::KeyLength { place: 0, length });
    }
}

#[test]
fn a_claim_of_four_billion_keys_takes_no_memory() {
    let mut payload = encode(&[]).to_vec();
    payload[13] = 1;
    payload.extend_from_slice(&[20, 0, 0, 0, 0, 255, 255, 255, 255, 1, b'k']);
    let error = decode_all(Bytes::from(payload)).unwrap_err();
    assert_eq!(error, CodecError::Truncated { place: 0 });
}

#[test]
fn a_payload_takes_one_mebibyte_or_one_command() {
    let mut encoder = PayloadEncoder::new();
    let large = store(StoreMode::Set, b"large", &vec![0; 2 * ENTRY_BYTES_MAX]);
    assert!(encoder.fits(&large));
    encoder.push(&large);
    assert!(!encoder.fits(&Write::FlushAll { delay: Exptime(0) }));
    assert!(encoder.finish(&PREAMBLE).len() > ENTRY_BYTES_MAX);

    let write = store(StoreMode::Set, b"small", &[7; 1000]);
    while encoder.fits(&write) {
        encoder.push(&write);
    }
    let bytes = encoder.finish(&PREAMBLE).len();
    assert!(bytes <= ENTRY_BYTES_MAX);
    assert!(bytes + encoded_bytes(&write) > ENTRY_BYTES_MAX);
}

#[test]
fn a_payload_takes_at_most_65535_commands() {
    let mut encoder = PayloadEncoder::new();
    let write = Write::FlushAll { delay: Exptime(0) };
    for place in 0..ENTRY_COMMANDS_MAX {
        assert!(encoder.fits(&write));
        assert_eq!(encoder.push(&write), place);
    }
    assert!(!encoder.fits(&write));
    let (_, commands) = decode(encoder.finish(&PREAMBLE)).unwrap();
    assert_eq!(commands.total(), ENTRY_COMMANDS_MAX);
    let decoded = commands.filter(Result::is_ok).count();
    assert_eq!(decoded, usize::from(ENTRY_COMMANDS_MAX));
}

#[test]
fn a_finished_encoder_starts_an_empty_payload() {
    let mut encoder = PayloadEncoder::new();
    encoder.push(&one_of_each()[0]);
    let first = encoder.finish(&PREAMBLE);
    assert_eq!(encoder.commands(), 0);
    let empty = encoder.finish(&PREAMBLE);
    assert_eq!(decode_all(empty).unwrap(), (PREAMBLE, vec![]));
    assert_eq!(decode_all(first).unwrap().1, one_of_each()[..1]);
}

fn any_key() -> impl Strategy<Value = Key> {
    proptest::collection::vec(any::<u8>(), 1..=KEY_BYTES_MAX).prop_map(|bytes| key(&bytes))
}

fn any_exptime() -> impl Strategy<Value = Exptime> {
    any::<i32>().prop_map(Exptime)
}

fn any_mode() -> impl Strategy<Value = StoreMode> {
    prop_oneof![
        Just(StoreMode::Set),
        Just(StoreMode::Add),
        Just(StoreMode::Replace),
        Just(StoreMode::Append),
        Just(StoreMode::Prepend),
        any::<u64>().prop_map(StoreMode::Cas),
    ]
}

fn any_write() -> impl Strategy<Value = Write> {
    let value = proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    let store = (any_mode(), any_key(), any::<u32>(), any_exptime(), value);
    prop_oneof![
        store.prop_map(|(mode, key, flags, exptime, value)| Write::Store(Store {
            mode,
            key,
            flags,
            exptime,
            value
        })),
        any_key().prop_map(|key| Write::Delete { key }),
        (any_key(), any::<bool>(), any::<u64>()).prop_map(|(key, up, delta)| Write::Arithmetic {
            key,
            direction: if up {
                Direction::Increment
            } else {
                Direction::Decrement
            },
            delta
        }),
        (any_key(), any_exptime()).prop_map(|(key, exptime)| Write::Touch { key, exptime }),
        (proptest::collection::vec(any_key(), 0..5), any_exptime())
            .prop_map(|(keys, exptime)| Write::GetAndTouch { keys, exptime }),
        any_exptime().prop_map(|delay| Write::FlushAll { delay }),
        any::<u32>().prop_map(|mib| Write::MemoryLimit { mib }),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_as_it_was(
        writes in proptest::collection::vec(any_write(), 0..20),
        log_time: u64,
        item_bytes_max: u32,
        memory_limit_bytes in prop_oneof![Just(0), any::<u64>()],
        mark: Option<(u8, u64, u64)>,
    ) {
        let mark = mark.map(|(function, index, hash)| Mark { function, index, hash });
        let preamble = Preamble {
            log_time: LogTime(log_time),
            item_bytes_max,
            memory_limit_bytes,
            mark,
        };
        let mut encoder = PayloadEncoder::new();
        for write in &writes {
            let before = encoder.bytes();
            encoder.push(write);
            prop_assert_eq!(encoder.bytes(), before + encoded_bytes(write));
        }
        prop_assert_eq!(decode_all(encoder.finish(&preamble)).unwrap(), (preamble, writes));
    }

    #[test]
    fn any_bytes_decode_to_commands_or_an_error(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_all(Bytes::from(bytes.clone()));
        for known in 1..=4 {
            if let Some(version) = bytes.first_mut() {
                *version = known;
            }
            let _ = decode_all(Bytes::from(bytes.clone()));
        }
    }

    #[test]
    fn a_payload_with_one_byte_changed_decodes_to_commands_or_an_error(at: prop::sample::Index, to: u8) {
        let mut payload = encode(&one_of_each()).to_vec();
        let at = at.index(payload.len());
        payload[at] = to;
        let _ = decode_all(Bytes::from(payload));
    }
}
