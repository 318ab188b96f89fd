//! Lists of keys.

use bytes::Bytes;
use quorate_command::{Key, Keys, KeysBuilder};

fn key(bytes: &[u8]) -> Key {
    Key::new(Bytes::copy_from_slice(bytes)).expect("tests name keys of 1 to 250 bytes")
}

/// One of each length that a key may have, with bytes of every kind.
fn of_each_length() -> Vec<Key> {
    let bytes = |length: usize| (0..length).map(move |at| (at * 7 + length) as u8);
    (1..=250)
        .map(|length| key(&bytes(length).collect::<Vec<u8>>()))
        .collect()
}

#[test]
fn a_list_gives_its_keys_back_in_their_order() {
    let given = of_each_length();
    let keys: Keys = given.iter().rev().cloned().collect();
    assert_eq!(keys.len(), 250);
    let given: Vec<&[u8]> = given.iter().rev().map(Key::as_bytes).collect();
    assert_eq!(keys.iter().collect::<Vec<_>>(), given);
}

#[test]
fn a_key_may_be_listed_more_than_once() {
    let keys: Keys = [key(b"a"), key(b"b"), key(b"a")].into_iter().collect();
    assert_eq!(keys.iter().collect::<Vec<_>>(), [b"a", b"b", b"a"]);
}

#[test]
fn only_what_has_1_to_250_bytes_is_listed() {
    let mut builder = KeysBuilder::default();
    assert!(!builder.push(b""));
    assert!(!builder.push(&[b'x'; 251]));
    assert!(builder.push(&[b'x'; 250]));
    let keys = builder.finish();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys, [key(&[b'x'; 250])].into_iter().collect());
}

#[test]
fn an_empty_list_holds_nothing() {
    let keys = KeysBuilder::with_capacity(100).finish();
    assert!(keys.is_empty());
    assert_eq!(keys, Keys::default());
    assert_eq!(keys.iter().next(), None);
    assert_eq!(keys.held_bytes(), 0);
}

#[test]
fn all_keys_of_a_list_lie_in_one_piece_of_memory() {
    let keys: Keys = of_each_length().into_iter().collect();
    let copy = keys.clone();
    let mut at = copy.iter().next().map(|key| key.as_ptr_range());
    for key in keys.iter().skip(1) {
        let range = key.as_ptr_range();
        let before = at.replace(range.clone()).expect("there is a first key");
        assert_eq!(range.start.addr(), before.end.addr() + 1);
    }
    assert_eq!(keys.held_bytes(), (1..=250).map(|length| length + 1).sum());
}

#[test]
fn a_list_shows_its_keys_to_who_debugs() {
    let keys: Keys = [key(b"a"), key(b"\x00\n")].into_iter().collect();
    assert_eq!(format!("{keys:?}"), r#"["a", "\\x00\\n"]"#);
}
