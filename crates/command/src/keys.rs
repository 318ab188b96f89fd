//! Many keys in one piece of memory.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::key::Misshapen;
use crate::{KEY_BYTES_MAX, Key};

/// Keys in the order in which they are asked for. A line may name half a million: to make, hold and
/// drop them costs no allocation for each, and a byte of memory beyond their own.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Bytes", try_from = "Bytes")]
pub struct Keys {
    /// Of each key: length (u8), bytes.
    data: Bytes,
    count: usize,
}

impl Keys {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The memory that they take, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.data.len()
    }

    /// The bytes of each key, 1 to 250 of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest: &[u8] = &self.data;
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first()?;
            let (key, behind) = behind.split_at(usize::from(*length));
            rest = behind;
            Some(key)
        })
    }
}

impl From<Keys> for Bytes {
    fn from(keys: Keys) -> Bytes {
        keys.data
    }
}

impl TryFrom<Bytes> for Keys {
    type Error = Misshapen;

    fn try_from(data: Bytes) -> Result<Keys, Misshapen> {
        let (what, bytes) = ("list of keys", data.len());
        let misshapen = Misshapen { what, bytes };
        let (mut rest, mut count) = (&data[..], 0);
        while let Some((length, behind)) = rest.split_first() {
            let length = usize::from(*length);
            if !(1..=KEY_BYTES_MAX).contains(&length) {
                return Err(misshapen);
            }
            rest = behind.get(length..).ok_or(misshapen)?;
            count += 1;
        }
        Ok(Keys { data, count })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.iter();
        let shown = keys.map(|key| key.escape_ascii().to_string());
        formatter.debug_list().entries(shown).finish()
    }
}

impl FromIterator<Key> for Keys {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Keys {
        let mut builder = KeysBuilder::default();
        for key in keys {
            let fits = builder.push(key.as_bytes());
            assert!(fits, "{key:?} was let in");
        }
        builder.finish()
    }
}

/// Puts `Keys` together.
#[derive(Debug, Default)]
pub struct KeysBuilder {
    data: Vec<u8>,
    count: usize,
}

impl KeysBuilder {
    /// With room for keys of so many bytes in all, counting one more for each.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> KeysBuilder {
        KeysBuilder {
            data: Vec::with_capacity(bytes),
            count: 0,
        }
    }

    /// Adds the key with these bytes; false, and nothing is added, unless there are 1 to 250 of
    /// them.
    #[must_use]
    pub fn push(&mut self, key: &[u8]) -> bool {
        if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
            return false;
        }
        self.data.push(key.len() as u8);
        self.data.extend_from_slice(key);
        self.count += 1;
        true
    }

    #[must_use]
    pub fn finish(self) -> Keys {
        Keys {
            data: Bytes::from(self.data),
            count: self.count,
        }
    }
}
