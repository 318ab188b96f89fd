//! The bytes of a message of a topic, shared.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use triomphe::ThinArc;

/// What a message takes in memory beside its bytes, on average: 16 in front of them, 8 of the
/// allocation and 8 to its size's multiple of 16, 32 for what is known of it, and 3 for its part of
/// the trees that it is found by.
pub const MESSAGE_MEMORY_BYTES: usize = 67;

/// The bytes of a message: a copy costs a counter. This is how the store keeps it and how a reply
/// carries it out.
#[derive(Clone, PartialEq, Eq)]
pub struct MessageBytes(ThinArc<(), u8>);

impl MessageBytes {
    /// A copy of these.
    #[must_use]
    pub fn new(bytes: &[u8]) -> MessageBytes {
        MessageBytes(ThinArc::from_header_and_slice((), bytes))
    }

    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0.slice
    }

    /// The same bytes, sharing this memory for as long as they are held.
    #[must_use]
    pub fn share(&self) -> Bytes {
        Bytes::from_owner(self.clone())
    }
}

impl AsRef<[u8]> for MessageBytes {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for MessageBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.as_slice().escape_ascii())
    }
}

impl Serialize for MessageBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.as_slice())
    }
}

impl<'de> Deserialize<'de> for MessageBytes {
    /// Takes the bytes with one copy.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MessageBytes, D::Error> {
        <&[u8]>::deserialize(deserializer).map(MessageBytes::new)
    }
}
