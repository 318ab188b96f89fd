//! Keys.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The longest key, in bytes, as memcached has it.
pub const KEY_BYTES_MAX: usize = 250;

/// A key: 1 to 250 bytes, any of them. Which bytes a line may hold is the protocol's business.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "Bytes", try_from = "Bytes")]
pub struct Key(Bytes);

/// Bytes from another server that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes are no {what}")]
pub struct Misshapen {
    pub what: &'static str,
    pub bytes: usize,
}

impl From<Key> for Bytes {
    fn from(key: Key) -> Bytes {
        key.0
    }
}

impl TryFrom<Bytes> for Key {
    type Error = Misshapen;

    fn try_from(bytes: Bytes) -> Result<Key, Misshapen> {
        let (what, length) = ("key", bytes.len());
        Key::new(bytes).ok_or(Misshapen {
            what,
            bytes: length,
        })
    }
}

impl Key {
    /// The key with these bytes; `None` unless there are 1 to 250 of them.
    #[must_use]
    pub fn new(bytes: Bytes) -> Option<Key> {
        (1..=KEY_BYTES_MAX)
            .contains(&bytes.len())
            .then_some(Key(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
