//! What became of a command, as far as a client can know: done, not done, or unknown. Nothing here
//! says one of the first two unless it is certain.

use std::io;
use std::sync::Arc;

use command::Key;
use thiserror::Error;

use crate::Address;

/// What became of a command.
#[derive(Clone, Debug)]
pub enum Outcome<T> {
    /// Carried out; this is the answer.
    Done(T),
    /// Not carried out, and it never will be.
    NotDone(NotDone),
    /// It may have been carried out, or be carried out yet.
    Unknown(Doubt),
}

/// Why a command was not carried out.
#[derive(Clone, Debug, Error)]
pub enum NotDone {
    /// No server took a connection until the deadline.
    #[error("no server could be reached, the last tried was {address}: {error}")]
    Unreachable {
        address: Address,
        error: Arc<io::Error>,
    },
    /// Servers answered, but none of them led until the deadline.
    #[error("no leader")]
    NoLeader,
    /// The leader had no room left on its disk until the deadline, and nobody else took over.
    #[error("the leader is out of disk")]
    OutOfDisk,
    /// Servers sent this client to one another until the deadline.
    #[error("redirected to {address}, which does not lead either")]
    Redirected { address: Address },
    /// The server refused it with this line, which begins with `CLIENT_ERROR`, `SERVER_ERROR` or
    /// `ERROR`.
    #[error("the server refused: {line}")]
    Refused { line: String },
    /// A command that changes nothing, and no answer came, until the deadline or until the outcome
    /// of a command behind it was unknown.
    #[error("no answer from {address}")]
    Unanswered { address: Address },
    /// The deadline was over before it could be sent.
    #[error("the deadline was over before it was sent")]
    TooLate,
    /// It was not sent again, since it follows a command whose outcome is unknown and which may
    /// still be carried out after it.
    #[error("not sent: the outcome of a command before it is unknown")]
    AfterUnknown,
    /// The key can't be sent.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Why nobody knows what became of a command.
#[derive(Clone, Debug, Error)]
pub enum Doubt {
    /// The server lost its leadership or its majority while the command was under way.
    #[error("the server does not know the outcome")]
    Server,
    /// The connection broke when the command had been sent and its answer had not come.
    #[error("the connection to {address} broke before the answer: {error}")]
    Broken {
        address: Address,
        error: Arc<io::Error>,
    },
    /// No answer until the deadline.
    #[error("no answer in time from {address}")]
    Unanswered { address: Address },
    /// What came back is not an answer to this command.
    #[error("{address} sent what is no answer")]
    Malformed { address: Address },
}

impl<T> Outcome<T> {
    /// The same fate with another form of the answer.
    pub fn map<U>(self, form: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Outcome::Done(answer) => Outcome::Done(form(answer)),
            Outcome::NotDone(reason) => Outcome::NotDone(reason),
            Outcome::Unknown(doubt) => Outcome::Unknown(doubt),
        }
    }

    /// The answer, if it was carried out.
    pub fn done(self) -> Option<T> {
        match self {
            Outcome::Done(answer) => Some(answer),
            Outcome::NotDone(_) | Outcome::Unknown(_) => None,
        }
    }
}

/// Bytes that are no key of memcached's text protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Empty, or longer than 250 bytes.
    #[error("a key has 1 to 250 bytes, not {bytes}")]
    Length { bytes: usize },
    /// A byte that the text protocol has no place for in a key.
    #[error("a key can't hold a space, a line end or a NUL")]
    Byte { byte: u8 },
}

impl KeyError {
    /// What is wrong with a key that can't be sent.
    pub(crate) fn of(key: &Key) -> KeyError {
        let bytes = key.as_bytes();
        let length = KeyError::Length { bytes: bytes.len() };
        unfit_byte(bytes).map_or(length, |byte| KeyError::Byte { byte })
    }
}

/// The key with these bytes, if a line can hold them: 1 to 250 bytes, none of them a space, `\r`,
/// `\n` or NUL.
///
/// # Errors
/// What is wrong with them.
pub fn key(bytes: impl AsRef<[u8]>) -> Result<Key, KeyError> {
    let bytes = bytes.as_ref();
    if let Some(byte) = unfit_byte(bytes) {
        return Err(KeyError::Byte { byte });
    }
    let length = KeyError::Length { bytes: bytes.len() };
    Key::new(bytes::Bytes::copy_from_slice(bytes)).ok_or(length)
}

fn unfit_byte(bytes: &[u8]) -> Option<u8> {
    let unfit = |byte: &u8| matches!(byte, b' ' | b'\r' | b'\n' | 0);
    bytes.iter().copied().find(unfit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_1_to_250_bytes_and_none_that_ends_a_word() {
        assert!(key("k").is_ok());
        assert!(key([0xff_u8; 250]).is_ok());
        assert_eq!(key(""), Err(KeyError::Length { bytes: 0 }));
        assert_eq!(key([b'k'; 251]), Err(KeyError::Length { bytes: 251 }));
        for byte in [b' ', b'\r', b'\n', 0] {
            assert_eq!(key([b'a', byte]), Err(KeyError::Byte { byte }));
        }
    }
}
