//! The benchmark's requests, encoded beforehand, and as much of the replies as it takes to tell
//! them apart. The general parser would cost more than a server does.

use super::nats;
use super::text::{self, Family};
use crate::Address;

/// Digits of a key, behind the prefix: all keys are of one length.
const KEY_DIGITS: usize = 10;

/// The most keys, so that their numbers fit their digits.
pub(super) const KEYS_MAX: u32 = 1_000_000_000;

const PREFIX: &[u8] = b"bench-";

/// The bytes of a key.
pub(super) const KEY_BYTES: usize = PREFIX.len() + KEY_DIGITS;

/// The longest reply line, in bytes: longer than any that names a key, or in which a NATS server says
/// what it is.
pub(super) const LINE_BYTES_MAX: usize = 4096;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Set,
    Get,
    /// That the sets before it are replicated. Counts for no command itself.
    Wait,
}

/// What one reply says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// `STORED`, or what the server has for it.
    Stored,
    Hit,
    Miss,
    Redirect(Address),
    NoLeader,
    Unknown,
    /// `ERROR`, `CLIENT_ERROR`, any other `SERVER_ERROR`, or what the server has for them.
    Refused(String),
}

/// The bytes are no reply to what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Said {
    /// The command was carried out.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Said::Stored | Said::Hit | Said::Miss)
    }
}

/// Requests and replies in the protocol of the server that is measured.
#[derive(Debug)]
pub(super) enum Requests {
    Text(text::Requests),
    Nats(nats::Requests),
}

impl Requests {
    /// Those of this family with values of this many bytes.
    pub(super) fn text(family: Family, value_bytes: usize) -> Self {
        Self::Text(text::Requests::new(family, value_bytes))
    }

    /// Those of a NATS server's key-value store with values of this many bytes.
    pub(super) fn nats(value_bytes: usize) -> Self {
        Self::Nats(nats::Requests::new(value_bytes))
    }

    /// What a connection sends before anything else, if it is to be answered on a subject, on this one.
    pub(super) fn opening(&self, inbox: u64) -> Vec<u8> {
        match self {
            Self::Text(_) => Vec::new(),
            Self::Nats(_) => nats::opening(inbox),
        }
    }

    /// Appends a request of a connection with this subject.
    pub(super) fn append(&self, what: What, key: u32, inbox: u64, to: &mut Vec<u8>) {
        match self {
            Self::Text(text) => text.append(what, key, to),
            Self::Nats(nats) => nats.append(what, key, inbox, to),
        }
    }

    /// The reply at the start of `bytes`, and how long it is; `None` while it is not whole.
    pub(super) fn reply(
        &self,
        what: What,
        bytes: &[u8],
    ) -> Result<Option<(Said, usize)>, Malformed> {
        match self {
            Self::Text(text) => text.reply(what, bytes),
            Self::Nats(_) => nats::reply(bytes),
        }
    }

    /// Whether sets that are sent together are carried out only once a `WAIT` behind them is answered.
    pub(super) fn waits(&self) -> bool {
        match self {
            Self::Text(text) => text.waits(),
            Self::Nats(_) => false,
        }
    }

    /// The bytes of one set.
    pub(super) fn set_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.set_bytes(),
            Self::Nats(nats) => nats.set_bytes(),
        }
    }
}

pub(super) fn append_key(key: u32, to: &mut Vec<u8>) {
    to.extend_from_slice(PREFIX);
    append_digits::<KEY_DIGITS>(key.into(), to);
}

/// Appends the last digits of a number.
pub(super) fn append_digits<const DIGITS: usize>(number: u64, to: &mut Vec<u8>) {
    let mut digits = [b'0'; DIGITS];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    to.extend_from_slice(&digits);
}

/// The first line without its end; `None` while it has none.
pub(super) fn line(bytes: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let end = bytes.windows(2).take(LINE_BYTES_MAX);
    match end.into_iter().position(|end| end == b"\r\n") {
        Some(length) => Ok(bytes.get(..length)),
        None if bytes.len() > LINE_BYTES_MAX => Err(Malformed),
        None => Ok(None),
    }
}
