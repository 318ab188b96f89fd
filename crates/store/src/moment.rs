//! What decides, besides the items, what later commands do and what reads show.

use std::hash::Hasher;

use command::LogTime;
use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;

use crate::item::Item;

/// Which function `state_hash` is. Servers of two releases compare their states only if it is the same
/// in both.
pub const STATE_HASH_FUNCTION: u8 = 2;

/// A place in the log, and what the commands up to there left behind besides the items.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moment {
    /// The entry that is being applied, or was last.
    pub(crate) index: u64,
    /// That entry's limit for what append and prepend make.
    pub(crate) item_bytes_max: u32,
    pub(crate) log_time: LogTime,
    /// A `flush_all` whose time has not come.
    pub(crate) flush: Option<Flush>,
    /// Items whose last change is before this are gone: a delayed flush has taken them. No item
    /// stored from here on was.
    pub(crate) flushed_below: u64,
}

/// A delayed `flush_all`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flush {
    /// Since 1970: what existed a second earlier vanishes.
    pub(crate) second: u64,
    /// Items whose last change is before this existed then; `None` until that second has come.
    pub(crate) below: Option<u64>,
}

impl Moment {
    /// Whether a reader finds this item. One that is gone stays so until a command stores it anew:
    /// neither the time nor `flushed_below` goes back.
    pub(crate) fn is_alive(&self, item: &Item) -> bool {
        let about = item.about();
        about.changed >= self.flushed_below
            && (about.over_at == 0 || u64::from(about.over_at) > self.log_time.seconds())
    }

    /// The hash of the state that these items and this are.
    pub(crate) fn state_hash<'a>(&self, items: impl Iterator<Item = &'a Item>) -> u64 {
        let mut sum: u64 = 0;
        for item in items.filter(|item| self.is_alive(item)) {
            let mut hasher = FoldHasher::with_seed(0, SharedSeed::global_fixed());
            hasher.write_usize(item.key().len());
            hasher.write(item.key());
            hasher.write_usize(item.value().len());
            hasher.write(item.value());
            let about = item.about();
            hasher.write_u64(about.unique);
            hasher.write_u64(about.changed);
            hasher.write_u32(about.flags);
            hasher.write_u32(about.over_at);
            hasher.write_u8(u8::from(about.marks.stale));
            hasher.write_u8(u8::from(about.marks.token_sent));
            sum = sum.wrapping_add(hasher.finish());
        }
        let mut hasher = FoldHasher::with_seed(0, SharedSeed::global_fixed());
        hasher.write_u64(sum);
        hasher.write_u64(self.log_time.0);
        if let Some(flush) = &self.flush {
            hasher.write_u64(flush.second);
            hasher.write_u64(flush.below.unwrap_or(0));
        }
        hasher.finish()
    }
}

/// What identifies a change of an item: growing, and the same on all servers (rule 57).
pub(crate) fn unique(index: u64, place: u16) -> u64 {
    index << 16 | u64::from(place)
}
