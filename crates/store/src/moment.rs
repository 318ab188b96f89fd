//! What decides, besides the items, what later commands do and what reads show.

use std::hash::Hasher;

use command::LogTime;
use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;

use crate::departed::Gone;
use crate::item::Item;
use crate::topic::TopicState;

/// Which function `state_hash` is. Servers of two releases compare their states only if it is the same
/// in both.
pub const STATE_HASH_FUNCTION: u8 = 3;

/// A place in the log, and what the commands up to there left behind besides the items.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moment {
    /// The entry that is being applied, or was last.
    pub(crate) index: u64,
    /// That entry's limit for what append and prepend make.
    pub(crate) item_bytes_max: u32,
    pub(crate) memory_limit: MemoryLimit,
    pub(crate) log_time: LogTime,
    /// A `flush_all` whose time has not come.
    pub(crate) flush: Option<Flush>,
    /// Items whose last change is before this are gone: a delayed flush has taken them. No item
    /// stored from here on was.
    pub(crate) flushed_below: u64,
}

/// What all items may take together. A leader's setting and `cache_memlimit` are heard alike, and
/// the newer of the two counts: the setting is new when it is not that of the entry before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryLimit {
    /// The setting of the leader that proposed the last entry, in bytes; 0 is none.
    pub(crate) setting: u64,
    /// What holds, in bytes; 0 is none.
    pub(crate) bytes: u64,
}

impl MemoryLimit {
    /// An entry says that this is its leader's setting.
    pub(crate) fn set(&mut self, setting: u64) {
        if setting != self.setting {
            *self = MemoryLimit {
                setting,
                bytes: setting,
            };
        }
    }

    /// How much more may be taken when so much is.
    pub(crate) fn room(self, taken: u64) -> u64 {
        match self.bytes {
            0 => u64::MAX,
            bytes => bytes.saturating_sub(taken),
        }
    }

    /// Whether items that take so much may be there, together.
    pub(crate) fn allows(self, bytes: u64) -> bool {
        self.bytes == 0 || bytes <= self.bytes
    }
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
    /// That of the time in the log, since 1970.
    pub(crate) fn second(&self) -> u32 {
        u32::try_from(self.log_time.seconds()).unwrap_or(u32::MAX)
    }

    /// The first second that begins now or later.
    pub(crate) fn next_second(&self) -> u32 {
        u32::try_from(self.log_time.0.div_ceil(1000)).unwrap_or(u32::MAX)
    }

    /// Whether a reader finds this item. One that is gone stays so until a command stores it anew:
    /// neither the time nor `flushed_below` goes back.
    pub(crate) fn is_alive(&self, item: &Item) -> bool {
        let about = item.about();
        about.changed >= self.flushed_below
            && (about.over_at == 0 || u64::from(about.over_at) > self.log_time.seconds())
    }

    /// Why a reader does not find this item, which is not alive.
    pub(crate) fn why_gone(&self, item: &Item) -> Gone {
        match item.about().changed < self.flushed_below {
            true => Gone::Flushed,
            false => Gone::Expired,
        }
    }

    /// The hash of the state that these items and topics and this are.
    pub(crate) fn state_hash<'a>(
        &self,
        items: impl Iterator<Item = &'a Item>,
        topics: &[TopicState],
    ) -> u64 {
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
        hasher.write_u64(self.memory_limit.setting);
        hasher.write_u64(self.memory_limit.bytes);
        if let Some(flush) = &self.flush {
            hasher.write_u64(flush.second);
            hasher.write_u64(flush.below.unwrap_or(0));
        }
        for topic in topics {
            hash_topic(topic, &mut hasher);
        }
        hasher.finish()
    }
}

fn hash_topic(topic: &TopicState, hasher: &mut FoldHasher<'_>) {
    let settings = &topic.settings;
    hasher.write_u64(topic.number);
    hasher.write_usize(topic.name.as_bytes().len());
    hasher.write(topic.name.as_bytes());
    hasher.write_u64(settings.max_length);
    hasher.write_u64(settings.max_bytes);
    hasher.write_u32(settings.max_age);
    hasher.write_u32(settings.max_deliveries);
    hasher.write_u64(topic.next_id);
    for (id, held) in topic.messages.from(0) {
        hasher.write_u64(id);
        hasher.write_usize(held.data.as_slice().len());
        hasher.write(held.data.as_slice());
        hasher.write_u32(held.since);
        hasher.write_u32(held.priority);
        hasher.write_u32(held.deliveries);
        hasher.write_u32(held.until);
        hasher.write_u8(held.state as u8);
    }
}

/// What identifies a change of an item: growing, and the same on all servers (rule 57).
pub(crate) fn unique(index: u64, place: u16) -> u64 {
    index << 16 | u64::from(place)
}
