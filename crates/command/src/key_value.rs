//! A key, its value and what is kept beside them, in one piece of memory.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use triomphe::{Arc, ThinArc};

use crate::key::Misshapen;
use crate::{KEY_BYTES_MAX, Key};

/// A key and its value, shared: a copy costs a counter. This is how the store keeps an item and how
/// a hit carries it out, so that a line that asks for half a million keys is answered without an
/// allocation for each.
///
/// Two are equal if their keys and values are.
#[derive(Clone)]
pub struct KeyValue {
    /// The key and, behind it, the value.
    data: ThinArc<Beside, u8>,
}

/// What is kept beside key and value.
#[derive(Debug)]
struct Beside {
    /// These are `About`'s, laid out without gaps.
    unique: u64,
    changed: u64,
    flags: u32,
    over_at: u32,
    marks: Marks,
    key_bytes: u8,
    /// Of this server alone, and no part of the state: when the item was last asked for, in seconds
    /// since 1970, and whether it ever was.
    accessed: AtomicU32,
    fetched: AtomicBool,
}

impl Beside {
    fn new(about: About, key_bytes: u8, accessed: u32, fetched: bool) -> Beside {
        Beside {
            unique: about.unique,
            changed: about.changed,
            flags: about.flags,
            over_at: about.over_at,
            marks: about.marks,
            key_bytes,
            accessed: AtomicU32::new(accessed),
            fetched: AtomicBool::new(fetched),
        }
    }
}

/// What the state says of an item besides its key and value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Of the last change but touches (rule 57); never below `changed`.
    pub unique: u64,
    /// Log index and place in the entry of that change: index * 2^16 + place.
    pub changed: u64,
    pub flags: u32,
    /// Over from this second since 1970 on; 0 is never. 32 bits last until 2106.
    pub over_at: u32,
    pub marks: Marks,
}

/// What the meta commands note of an item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The value may be out of date; who is told that it won is to bring another.
    pub stale: bool,
    /// Someone was told.
    pub token_sent: bool,
}

impl KeyValue {
    /// A copy of both.
    #[must_use]
    pub fn new(key: &Key, value: &[u8]) -> KeyValue {
        KeyValue::joined(&mut Vec::new(), About::default(), 0, key, value, &[])
    }

    /// The key, and as value `head` and `tail` together, copied, as of this second. `scratch` is
    /// only there to be used again.
    #[must_use]
    pub fn joined(
        scratch: &mut Vec<u8>,
        about: About,
        second: u32,
        key: &Key,
        head: &[u8],
        tail: &[u8],
    ) -> KeyValue {
        let key = key.as_bytes();
        assert!(
            key.len() <= KEY_BYTES_MAX,
            "a key of {} bytes was let in",
            key.len()
        );
        scratch.clear();
        scratch.reserve(key.len() + head.len() + tail.len());
        scratch.extend_from_slice(key);
        scratch.extend_from_slice(head);
        scratch.extend_from_slice(tail);
        let beside = Beside::new(about, key.len() as u8, second, false);
        KeyValue {
            data: ThinArc::from_header_and_slice(beside, scratch),
        }
    }

    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.data.slice[..self.key_bytes()]
    }

    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.data.slice[self.key_bytes()..]
    }

    /// The value, sharing this memory for as long as it is held.
    #[must_use]
    pub fn share_value(&self) -> Bytes {
        Bytes::from_owner(Value(self.clone()))
    }

    /// The length of key and value together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.slice.len()
    }

    #[must_use]
    pub fn about(&self) -> About {
        let beside = self.beside();
        About {
            unique: beside.unique,
            changed: beside.changed,
            flags: beside.flags,
            over_at: beside.over_at,
            marks: beside.marks,
        }
    }

    /// Says something else about the same key and value. What others share with this one stays as
    /// it is: they keep the memory, and this one gets a copy.
    pub fn set_about(&mut self, about: About) {
        let (accessed, fetched) = (self.accessed(), self.is_fetched());
        let beside = Beside::new(about, self.beside().key_bytes, accessed, fetched);
        let shared = self.data.with_arc_mut(|shared| match Arc::get_mut(shared) {
            Some(own) => {
                *own.header_mut() = beside;
                None
            }
            None => Some(beside),
        });
        if let Some(beside) = shared {
            self.data = ThinArc::from_header_and_slice(beside, &self.data.slice);
        }
    }

    /// The second in which the item was last asked for, or made, on this server.
    #[must_use]
    pub fn accessed(&self) -> u32 {
        self.beside().accessed.load(Ordering::Relaxed)
    }

    /// Whether it was asked for on this server.
    #[must_use]
    pub fn is_fetched(&self) -> bool {
        self.beside().fetched.load(Ordering::Relaxed)
    }

    /// It is asked for in this second. Memory that is shared is only written to if that is news.
    pub fn access(&self, second: u32) {
        let beside = self.beside();
        if beside.accessed.load(Ordering::Relaxed) != second {
            beside.accessed.store(second, Ordering::Relaxed);
        }
        if !beside.fetched.load(Ordering::Relaxed) {
            beside.fetched.store(true, Ordering::Relaxed);
        }
    }

    fn key_bytes(&self) -> usize {
        usize::from(self.beside().key_bytes)
    }

    fn beside(&self) -> &Beside {
        &self.data.header.header
    }
}

impl PartialEq for KeyValue {
    fn eq(&self, other: &KeyValue) -> bool {
        self.key_bytes() == other.key_bytes() && self.data.slice == other.data.slice
    }
}

impl Eq for KeyValue {}

impl fmt::Debug for KeyValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, value) = (self.key().escape_ascii(), self.value().escape_ascii());
        write!(formatter, "{key}: {value}")
    }
}

/// A `KeyValue` on its way between servers: without what one of them remembers for itself.
#[derive(Serialize, Deserialize)]
struct Sent<'a> {
    about: About,
    key_bytes: u8,
    #[serde(borrow)]
    data: Raw<'a>,
}

/// Bytes that are written and read in one piece.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw<'a>, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Raw)
    }
}

impl Serialize for KeyValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sent = Sent {
            about: self.about(),
            key_bytes: self.beside().key_bytes,
            data: Raw(&self.data.slice),
        };
        sent.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for KeyValue {
    /// Takes the bytes with one copy.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KeyValue, D::Error> {
        let Sent {
            about,
            key_bytes,
            data: Raw(data),
        } = Sent::deserialize(deserializer)?;
        let key = usize::from(key_bytes);
        if !(1..=KEY_BYTES_MAX).contains(&key) || key > data.len() {
            let (what, bytes) = ("key and value", data.len());
            return Err(de::Error::custom(Misshapen { what, bytes }));
        }
        let beside = Beside::new(about, key_bytes, 0, false);
        Ok(KeyValue {
            data: ThinArc::from_header_and_slice(beside, data),
        })
    }
}

struct Value(KeyValue);

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self.0.value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_beside_takes_32_bytes() {
        assert_eq!(size_of::<Beside>(), 32);
        assert_eq!(size_of::<KeyValue>(), 8);
    }

    #[test]
    fn what_is_said_of_a_shared_one_is_not_said_of_the_others() {
        let key = Key::new(Bytes::from_static(b"k")).expect("a key");
        let mut one = KeyValue::new(&key, b"v");
        let other = one.clone();
        one.access(7);
        let about = About {
            flags: 5,
            ..About::default()
        };
        one.set_about(about);
        assert_eq!((one.about(), other.about()), (about, About::default()));
        assert_eq!((one.accessed(), one.is_fetched()), (7, true));
        assert_eq!((one.key(), one.value()), (&b"k"[..], &b"v"[..]));
        assert_eq!(one, other);
    }
}
