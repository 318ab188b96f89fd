//! What the meta commands ask for beyond the classic ones. Which letters of a line say it, and what
//! a reply shows, is the protocol's.

use serde::{Deserialize, Serialize};

use crate::{Direction, Exptime, Key, KeyValue, Store};

/// `mg`: reads an item, and may change its time, make it, or give out the token that says who is to
/// bring another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaGet {
    pub key: Key,
    /// Does not count as an access.
    pub peeks: bool,
    /// A hit gets this time.
    pub touch: Option<Exptime>,
    /// A miss makes an empty item with this time, and wins.
    pub vivify: Option<Exptime>,
    pub recache: Option<Recache>,
    /// The unique of the item that a miss makes.
    pub unique: Option<u64>,
}

/// An item that has less than this left is to be made anew by whoever asks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recache {
    pub below: Exptime,
    /// Judged by the time that `MetaGet::touch` has given.
    pub after_touch: bool,
}

impl MetaGet {
    /// Whether the command itself changes nothing. The item may still be stale, and its token be
    /// given out.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        self.touch.is_none()
            && self.vivify.is_none()
            && self.recache.is_none()
            && self.unique.is_none()
    }
}

/// `ms`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaSet {
    /// Its mode is never `Cas`.
    pub store: Store,
    /// The unique that the item must have; not looked at by add.
    pub compare: Option<u64>,
    /// With `compare`: a lower one than the item's stores the value too, and marks it stale.
    pub invalidate: bool,
    /// Append and prepend make a missing item, with this time.
    pub vivify: Option<Exptime>,
    /// The item's new unique.
    pub unique: Option<u64>,
}

/// `md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaDelete {
    pub key: Key,
    /// The unique that the item must have.
    pub compare: Option<u64>,
    /// The item stays, and is marked stale.
    pub invalidate: bool,
    /// The item stays, without value and flags.
    pub clear: bool,
    /// The time of an item that is marked stale.
    pub touch: Option<Exptime>,
    /// The new unique of an item that stays.
    pub unique: Option<u64>,
}

/// `ma`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaArithmetic {
    pub key: Key,
    pub direction: Direction,
    pub delta: u64,
    /// The unique that the item must have.
    pub compare: Option<u64>,
    /// A missing item is made with this time and `initial`.
    pub vivify: Option<Exptime>,
    pub initial: u64,
    pub touch: Option<Exptime>,
    /// The item's new unique.
    pub unique: Option<u64>,
}

/// The item that a meta command has found or made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaHit {
    /// The key, the value, and what the state says of the item behind the command.
    pub data: KeyValue,
    /// Seconds left before and behind what the command did to them; `None` is forever.
    pub left_before: Option<u32>,
    pub left: Option<u32>,
    /// As this server remembers it: seconds since the last access, and whether there was one.
    pub idle_seconds: u32,
    pub was_fetched: bool,
    pub stale: bool,
    /// Who asked is to bring another value.
    pub won: bool,
    /// Someone else is already to.
    pub token_sent: bool,
    /// It was a miss, and the command has made the item.
    pub was_made: bool,
    /// The result of `ma`.
    pub number: Option<u64>,
}
