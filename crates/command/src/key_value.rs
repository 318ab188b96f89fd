//! A key and its value in one piece of memory.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::key::Misshapen;
use crate::{KEY_BYTES_MAX, Key};

/// A key and its value, shared: a copy costs a counter. This is how the store keeps an item's bytes
/// and how a hit carries them out, so that a line that asks for half a million keys is answered
/// without an allocation for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// Key length (u8), key, value.
    data: Arc<[u8]>,
}

impl KeyValue {
    /// A copy of both.
    #[must_use]
    pub fn new(key: &Key, value: &[u8]) -> KeyValue {
        KeyValue::joined(&mut Vec::new(), key, value, &[])
    }

    /// The key, and as value `head` and `tail` together, copied. `scratch` is only there to be used
    /// again.
    #[must_use]
    pub fn joined(scratch: &mut Vec<u8>, key: &Key, head: &[u8], tail: &[u8]) -> KeyValue {
        let key = key.as_bytes();
        assert!(
            key.len() <= KEY_BYTES_MAX,
            "a key of {} bytes was let in",
            key.len()
        );
        scratch.clear();
        scratch.reserve(1 + key.len() + head.len() + tail.len());
        scratch.push(key.len() as u8);
        scratch.extend_from_slice(key);
        scratch.extend_from_slice(head);
        scratch.extend_from_slice(tail);
        KeyValue {
            data: Arc::from(scratch.as_slice()),
        }
    }

    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.data[1..self.value_start()]
    }

    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.data[self.value_start()..]
    }

    /// The value, sharing this memory for as long as it is held.
    #[must_use]
    pub fn share_value(&self) -> Bytes {
        Bytes::from_owner(Value(self.clone()))
    }

    /// The length of key and value together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len() - 1
    }

    fn value_start(&self) -> usize {
        1 + usize::from(self.data[0])
    }
}

impl Serialize for KeyValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.data)
    }
}

impl<'de> Deserialize<'de> for KeyValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KeyValue, D::Error> {
        deserializer.deserialize_bytes(Shaped)
    }
}

/// Takes the bytes of a `KeyValue`, with one copy.
struct Shaped;

impl de::Visitor<'_> for Shaped {
    type Value = KeyValue;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the length of a key, the key, and a value")
    }

    fn visit_bytes<E: de::Error>(self, data: &[u8]) -> Result<KeyValue, E> {
        let key_length = data.first().map(|length| usize::from(*length));
        let has_key = key_length
            .is_some_and(|length| (1..=KEY_BYTES_MAX).contains(&length) && length < data.len());
        if !has_key {
            let (what, bytes) = ("key and value", data.len());
            return Err(E::custom(Misshapen { what, bytes }));
        }
        let data = Arc::from(data);
        Ok(KeyValue { data })
    }
}

struct Value(KeyValue);

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self.0.value()
    }
}
