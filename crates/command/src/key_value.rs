//! A key and its value in one piece of memory.

use std::sync::Arc;

use bytes::Bytes;

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

struct Value(KeyValue);

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self.0.value()
    }
}
