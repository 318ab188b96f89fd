//! Keys.

use bytes::Bytes;

/// The longest key, in bytes, as memcached has it.
pub const KEY_BYTES_MAX: usize = 250;

/// A key: 1 to 250 bytes, any of them. Which bytes a line may hold is the protocol's business.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

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
