//! The state as bytes. `load.rs` reads them; which file they go into, and what guards them there, is
//! for others. Long-lived, so laid out by hand; all numbers are little-endian.
//!
//! ```text
//! version 3 (u8)
//! log time, ms (u64)
//! index (u64)             of the last entry applied, below 2^48; 0 if there is none
//! item bytes max (u32)    that entry's
//! memory limit set (u64)  that entry's; 0 is none. Not in version 1
//! memory limit (u64)      what holds; 0 is none. Not in version 1
//! flush (u8)              0: none is pending. 1: one is. 2: one is, and a second before its time,
//!                         when what exists is marked, has come
//! flush second (u64)      since 1970; 0 if none is pending
//! flush below (u64)       items last changed before this vanish; 0 unless the flush is 2
//! items (u64)             how many follow
//! topics (u32)            how many follow the items. Not in versions 1 and 2
//! ```
//! Then the items, without gaps:
//!
//! ```text
//! unique (u64) | changed (u64) | flags (u32) | over at (u32) | marks (u8) | value length (u32)
//!     | key length (u8) | key | value
//! ```
//! `changed` is the place in the log of the last change, index * 2^16 + place in the entry, and
//! `unique` the same or a higher one that a client has chosen. `marks` are 1 for a stale item, and 2
//! for one whose token is given out; the sum of both if it is both. Version 1 has no `changed`, which
//! is the unique there, and no marks. Behind the items come the topics (`topic_bytes`).
//!
//! `over at` is in seconds since 1970, 0 is never. There are only items that a reader would find:
//! none that is over at the log time, and none that a flush has taken. So no trace is needed of the
//! flushes that are done. The items ascend by the hash of their keys, and by the bytes of these
//! where the hashes are equal. The hash is, modulo 2^64:
//!
//! ```text
//! h = length of the key
//! for each 8 bytes of the key, the last filled up with zeros, as a number w:
//!     h = (h xor w) * 0x9e3779b97f4a7c15
//!     h = h xor (h >> 32)
//! ```
//! With this the bytes are a function of the state alone, and whoever can read them writes the
//! same.

use crate::dump::Dump;
use crate::garbage::Garbage;
use crate::item::Item;
use crate::map::Shards;
use crate::moment::{Flush, Moment};
use crate::topic::TopicState;
use crate::topic_bytes::{message_header, topic_header};

pub(crate) const VERSION: u8 = 3;

/// The one before, without topics. Read, and not written.
pub(crate) const VERSION_2: u8 = 2;

/// The one before that, without a memory limit and without what the meta commands note. Read, and not
/// written.
pub(crate) const VERSION_1: u8 = 1;

/// Both numbers of the memory limit.
pub(crate) const LIMIT_BYTES: usize = 8 + 8;

/// The number of topics.
pub(crate) const TOPICS_BYTES: usize = 4;

/// version, log time, index, item bytes max, memory limit, flush, flush second, flush below, items,
/// topics.
pub(crate) const HEADER_BYTES: usize = 1 + 8 + 8 + 4 + LIMIT_BYTES + 1 + 8 + 8 + 8 + TOPICS_BYTES;

/// unique, changed, flags, over at, marks, value length, key length.
pub(crate) const ITEM_HEADER_BYTES: usize = 8 + 8 + 4 + 4 + 1 + 4 + 1;

/// unique, flags, over at, value length, key length.
pub(crate) const ITEM_HEADER_1_BYTES: usize = 8 + 4 + 4 + 4 + 1;

pub(crate) mod mark {
    pub(crate) const STALE: u8 = 1;
    pub(crate) const TOKEN_SENT: u8 = 2;
}

pub(crate) mod flush {
    pub(crate) const NONE: u8 = 0;
    pub(crate) const PENDING: u8 = 1;
    pub(crate) const MARKED: u8 = 2;
}

/// The state at one place in the log. It shares the items with the store that it is of, which
/// copies what it changes as long as this is there.
#[derive(Debug)]
pub struct Frozen {
    shards: Shards,
    topics: Vec<TopicState>,
    moment: Moment,
}

impl Frozen {
    pub(crate) fn new(shards: Shards, topics: Vec<TopicState>, moment: Moment) -> Frozen {
        Frozen {
            shards,
            topics,
            moment,
        }
    }

    /// What `Store::state_hash` was. Walks over all items.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        self.moment.state_hash(self.shards.items(), &self.topics)
    }

    /// Its keys, to be listed.
    #[must_use]
    pub fn into_dump(self) -> Dump {
        Dump::new(self.shards, self.moment)
    }

    /// All of it, for whoever drops it piece by piece.
    #[must_use]
    pub fn into_garbage(self) -> Garbage {
        let mut garbage = Garbage::default();
        garbage.add_items(self.shards);
        for topic in self.topics {
            garbage.add_pages(topic.messages.into_pages().collect());
        }
        garbage
    }

    /// Gives the state as bytes to `sink`, in pieces of `piece_bytes_max` bytes each but for the
    /// last, which may have fewer. The pieces are the same for every store with this state. Takes
    /// 16 bytes of memory for each item, and one piece.
    ///
    /// # Errors
    /// The first that `sink` gives; it is not called again.
    ///
    /// # Panics
    /// If `piece_bytes_max` is 0.
    pub fn write_out<E>(
        &self,
        piece_bytes_max: usize,
        sink: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let items = self.items_in_order();
        let mut pieces = Pieces::new(piece_bytes_max, sink);
        pieces.write(&self.header(items.len() as u64))?;
        for (_, item) in items {
            pieces.write(&item_header(item))?;
            pieces.write(item.key())?;
            pieces.write(item.value())?;
        }
        for topic in &self.topics {
            pieces.write(&topic_header(topic, topic.messages.count()))?;
            pieces.write(topic.name.as_bytes())?;
            for (id, held) in topic.messages.from(0) {
                pieces.write(&message_header(id, held))?;
                pieces.write(held.data.as_slice())?;
            }
        }
        pieces.finish()
    }

    /// The items that are not gone, each with the hash that it is sorted by.
    fn items_in_order(&self) -> Vec<(u64, &Item)> {
        let alive = self.shards.items();
        let alive = alive.filter(|item| self.moment.is_alive(item));
        let mut items: Vec<(u64, &Item)> = alive.map(|item| (order(item.key()), item)).collect();
        items.sort_unstable_by_key(|(hash, _)| *hash);
        for same in items.chunk_by_mut(|(hash, _), (next, _)| hash == next) {
            same.sort_unstable_by_key(|(_, item)| item.key());
        }
        items
    }

    fn header(&self, items: u64) -> [u8; HEADER_BYTES] {
        let (flush, second, below) = match self.moment.flush {
            None => (flush::NONE, 0, 0),
            Some(Flush { second, below }) => match below {
                None => (flush::PENDING, second, 0),
                Some(below) => (flush::MARKED, second, below),
            },
        };
        let mut header = [0; HEADER_BYTES];
        let mut fields = Fields(&mut header);
        fields.put([VERSION]);
        fields.put(self.moment.log_time.0.to_le_bytes());
        fields.put(self.moment.index.to_le_bytes());
        fields.put(self.moment.item_bytes_max.to_le_bytes());
        fields.put(self.moment.memory_limit.setting.to_le_bytes());
        fields.put(self.moment.memory_limit.bytes.to_le_bytes());
        fields.put([flush]);
        fields.put(second.to_le_bytes());
        fields.put(below.to_le_bytes());
        fields.put(items.to_le_bytes());
        fields.put((self.topics.len() as u32).to_le_bytes());
        header
    }
}

fn item_header(item: &Item) -> [u8; ITEM_HEADER_BYTES] {
    let value_bytes = item.value().len();
    let value_bytes = u32::try_from(value_bytes)
        .unwrap_or_else(|_| panic!("a value of {value_bytes} bytes was let in"));
    let about = item.about();
    let mut marks = 0;
    if about.marks.stale {
        marks |= mark::STALE;
    }
    if about.marks.token_sent {
        marks |= mark::TOKEN_SENT;
    }
    let mut header = [0; ITEM_HEADER_BYTES];
    let mut fields = Fields(&mut header);
    fields.put(about.unique.to_le_bytes());
    fields.put(about.changed.to_le_bytes());
    fields.put(about.flags.to_le_bytes());
    fields.put(about.over_at.to_le_bytes());
    fields.put([marks]);
    fields.put(value_bytes.to_le_bytes());
    fields.put([item.key().len() as u8]);
    header
}

/// A header that is filled field by field.
pub(crate) struct Fields<'a>(pub(crate) &'a mut [u8]);

impl Fields<'_> {
    pub(crate) fn put<const N: usize>(&mut self, field: [u8; N]) {
        let (place, rest) = std::mem::take(&mut self.0).split_at_mut(N);
        place.copy_from_slice(&field);
        self.0 = rest;
    }
}

/// Where an item stands among the others; see above.
pub(crate) fn order(key: &[u8]) -> u64 {
    let mut hash = key.len() as u64;
    let (words, rest) = key.as_chunks::<8>();
    let mut mix = |word: [u8; 8]| {
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 32;
    };
    for word in words {
        mix(*word);
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        mix(word);
    }
    hash
}

/// Cuts what is written into pieces.
struct Pieces<'a, S> {
    piece: Vec<u8>,
    piece_bytes_max: usize,
    sink: &'a mut S,
}

impl<'a, S> Pieces<'a, S> {
    fn new(piece_bytes_max: usize, sink: &'a mut S) -> Pieces<'a, S> {
        assert!(piece_bytes_max > 0, "pieces of {piece_bytes_max} bytes");
        Pieces {
            piece: Vec::new(),
            piece_bytes_max,
            sink,
        }
    }

    fn write<E>(&mut self, mut bytes: &[u8]) -> Result<(), E>
    where
        S: FnMut(&[u8]) -> Result<(), E>,
    {
        loop {
            let room = self.piece_bytes_max - self.piece.len();
            if bytes.len() < room {
                self.piece.extend_from_slice(bytes);
                return Ok(());
            }
            let (fits, rest) = bytes.split_at(room);
            self.piece.extend_from_slice(fits);
            (self.sink)(&self.piece)?;
            self.piece.clear();
            bytes = rest;
        }
    }

    fn finish<E>(self) -> Result<(), E>
    where
        S: FnMut(&[u8]) -> Result<(), E>,
    {
        if self.piece.is_empty() {
            return Ok(());
        }
        (self.sink)(&self.piece)
    }
}
