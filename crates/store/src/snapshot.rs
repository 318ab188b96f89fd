//! The state as bytes, and the store that they make. Which file they go into, and what guards them
//! there, is for others. Long-lived, so laid out by hand; all numbers are little-endian.
//!
//! ```text
//! version 2 (u8)
//! log time, ms (u64)
//! index (u64)             of the last entry applied, below 2^48; 0 if there is none
//! item bytes max (u32)    that entry's
//! flush (u8)              0: none is pending. 1: one is. 2: one is, and a second before its time,
//!                         when what exists is marked, has come
//! flush second (u64)      since 1970; 0 if none is pending
//! flush below (u64)       items last changed before this vanish; 0 unless the flush is 2
//! items (u64)             how many follow
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
//! is the unique there, and no marks.
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

use std::cmp::Ordering;

use bytes::{Buf, Bytes, BytesMut};
use command::{About, Key, LogTime, Marks};
use mutants::Mutant;
use thiserror::Error;

use crate::Counts;
use crate::expiry::Expiry;
use crate::garbage::Garbage;
use crate::item::Item;
use crate::map::{MapBuilder, Shards};
use crate::moment::{Flush, Moment, unique};
use crate::store::Store;

const VERSION: u8 = 2;

/// The one before, which is read and not written.
const VERSION_1: u8 = 1;

/// version, log time, index, item bytes max, flush, flush second, flush below, items.
const HEADER_BYTES: usize = 1 + 8 + 8 + 4 + 1 + 8 + 8 + 8;

/// unique, changed, flags, over at, marks, value length, key length.
const ITEM_HEADER_BYTES: usize = 8 + 8 + 4 + 4 + 1 + 4 + 1;

/// unique, flags, over at, value length, key length.
const ITEM_HEADER_1_BYTES: usize = 8 + 4 + 4 + 4 + 1;

mod mark {
    pub(super) const STALE: u8 = 1;
    pub(super) const TOKEN_SENT: u8 = 2;
}

mod flush {
    pub(super) const NONE: u8 = 0;
    pub(super) const PENDING: u8 = 1;
    pub(super) const MARKED: u8 = 2;
}

/// The state at one place in the log. It shares the items with the store that it is of, which
/// copies what it changes as long as this is there.
#[derive(Debug)]
pub struct Frozen {
    shards: Shards,
    moment: Moment,
}

impl Frozen {
    pub(crate) fn new(shards: Shards, moment: Moment) -> Frozen {
        Frozen { shards, moment }
    }

    /// What `Store::state_hash` was. Walks over all items.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        self.moment.state_hash(self.shards.items())
    }

    /// All of it, for whoever drops it piece by piece.
    #[must_use]
    pub fn into_garbage(self) -> Garbage {
        let mut garbage = Garbage::default();
        garbage.add_items(self.shards);
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
        fields.put([flush]);
        fields.put(second.to_le_bytes());
        fields.put(below.to_le_bytes());
        fields.put(items.to_le_bytes());
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
struct Fields<'a>(&'a mut [u8]);

impl Fields<'_> {
    fn put<const N: usize>(&mut self, field: [u8; N]) {
        let (place, rest) = std::mem::take(&mut self.0).split_at_mut(N);
        place.copy_from_slice(&field);
        self.0 = rest;
    }
}

/// Where an item stands among the others; see above.
fn order(key: &[u8]) -> u64 {
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

/// Why bytes are no state. Items are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LoadError {
    #[error("snapshot version {found} is unknown")]
    Version { found: u8 },
    #[error("snapshot is of index {index}, which is too large")]
    Index { index: u64 },
    #[error("snapshot has flush {flush} at second {second} below {below}, which cannot be pending")]
    Flush { flush: u8, second: u64, below: u64 },
    #[error("item {item} of the snapshot has a key of {length} bytes")]
    KeyLength { item: u64, length: usize },
    #[error(
        "item {item} of the snapshot has the unique {unique} and was changed at {changed}, one of \
         which can't be"
    )]
    Unique {
        item: u64,
        unique: u64,
        changed: u64,
    },
    #[error("item {item} of the snapshot has the marks {marks}")]
    Marks { item: u64, marks: u8 },
    #[error("item {item} of the snapshot is over since second {over_at}")]
    Over { item: u64, over_at: u32 },
    #[error("item {item} of the snapshot belongs before the one before it")]
    Unsorted { item: u64 },
    #[error("item {item} of the snapshot has the key of the one before it")]
    Duplicate { item: u64 },
    #[error("snapshot ends before its items begin")]
    NoItems,
    #[error("snapshot ends before item {item} of {items} does")]
    Truncated { item: u64, items: u64 },
    #[error("{bytes} bytes follow the snapshot's last item")]
    Trailing { bytes: usize },
}

/// Puts a store together from the bytes of a state, as they come. Takes memory for what has come,
/// whatever the bytes say.
#[derive(Debug)]
pub struct Loader {
    /// What has come and was not taken yet.
    bytes: BytesMut,
    /// So many bytes are needed to go on.
    needed: usize,
    /// `None` until the header has come.
    items: Option<Items>,
    seed: u64,
    failed: Option<LoadError>,
}

impl Loader {
    /// Makes a store with this seed, as in `Store::new`.
    #[must_use]
    pub fn new(seed: u64) -> Loader {
        Loader {
            bytes: BytesMut::new(),
            needed: 1,
            items: None,
            seed,
            failed: None,
        }
    }

    /// Takes the next bytes, however they are cut.
    ///
    /// # Errors
    /// If no bytes that begin with those pushed are a state; then every later call answers the
    /// same.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() < self.needed {
            return Ok(());
        }
        let mut rest = self.bytes.split().freeze();
        self.needed = self.take(&mut rest).inspect_err(|error| {
            self.failed = Some(*error);
        })?;
        self.bytes.extend_from_slice(&rest);
        Ok(())
    }

    /// The store, when all bytes were pushed.
    ///
    /// # Errors
    /// If they were not all, or `push` has failed.
    pub fn finish(self) -> Result<Store, LoadError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.items.ok_or(LoadError::NoItems)?.finish()
    }

    /// Takes whole parts off the front, and says how many bytes the next one needs.
    fn take(&mut self, bytes: &mut Bytes) -> Result<usize, LoadError> {
        let items = match &mut self.items {
            Some(items) => items,
            None => {
                let version = bytes.first().copied();
                match take_header(bytes)? {
                    Some((moment, count)) => {
                        let items =
                            Items::new(self.seed, moment, count, version == Some(VERSION_1));
                        self.items.insert(items)
                    }
                    None => return Ok(HEADER_BYTES),
                }
            }
        };
        items.take(bytes)
    }
}

/// The moment, and how many items follow; `None` if there are too few bytes.
fn take_header(bytes: &mut Bytes) -> Result<Option<(Moment, u64)>, LoadError> {
    // Another version may have a shorter header.
    if let Some(found) = bytes.first().copied()
        && !matches!(found, VERSION | VERSION_1)
    {
        return Err(LoadError::Version { found });
    }
    if bytes.len() < HEADER_BYTES {
        return Ok(None);
    }
    bytes.advance(1);
    let log_time = LogTime(bytes.get_u64_le());
    let index = bytes.get_u64_le();
    if index >= 1 << 48 {
        return Err(LoadError::Index { index });
    }
    let item_bytes_max = bytes.get_u32_le();
    let (flush, second, below) = (bytes.get_u8(), bytes.get_u64_le(), bytes.get_u64_le());
    let next = log_time.seconds() + 1;
    let flush = match (flush, second, below) {
        (flush::NONE, 0, 0) => None,
        (flush::PENDING, second, 0) if second > next => Some(Flush {
            second,
            below: None,
        }),
        (flush::MARKED, second, below) if second == next && below <= unique(index, u16::MAX) => {
            Some(Flush {
                second,
                below: Some(below),
            })
        }
        (flush, second, below) => {
            return Err(LoadError::Flush {
                flush,
                second,
                below,
            });
        }
    };
    let moment = Moment {
        index,
        item_bytes_max,
        log_time,
        flush,
        flushed_below: 0,
    };
    Ok(Some((moment, bytes.get_u64_le())))
}

/// The items that have come.
#[derive(Debug)]
struct Items {
    moment: Moment,
    map: MapBuilder,
    deadlines: Vec<(u32, u64)>,
    counts: Counts,
    /// So many there must be in the end.
    count: u64,
    is_version_1: bool,
    /// Where the last one stands, and its key.
    last: Option<(u64, Key)>,
    scratch: Vec<u8>,
}

impl Items {
    fn new(seed: u64, moment: Moment, count: u64, is_version_1: bool) -> Items {
        Items {
            moment,
            map: MapBuilder::new(seed),
            deadlines: Vec::new(),
            counts: Counts::default(),
            count,
            is_version_1,
            last: None,
            scratch: Vec::new(),
        }
    }

    /// Takes whole items off the front, and says how many bytes the next one needs.
    fn take(&mut self, bytes: &mut Bytes) -> Result<usize, LoadError> {
        let header_bytes = match self.is_version_1 {
            true => ITEM_HEADER_1_BYTES,
            false => ITEM_HEADER_BYTES,
        };
        while self.counts.items < self.count {
            let Some(header) = bytes.get(..header_bytes) else {
                return Ok(header_bytes);
            };
            let (about, value_bytes, key_bytes) = self.item_header(header)?;
            self.check(about)?;
            let item_bytes = (header_bytes + key_bytes).saturating_add(value_bytes);
            if bytes.len() < item_bytes {
                return Ok(item_bytes);
            }
            bytes.advance(header_bytes);
            let key = bytes.split_to(key_bytes);
            let value = bytes.split_to(value_bytes);
            self.put(about, key, &value)?;
        }
        match bytes.len() {
            0 => Ok(1),
            bytes => Err(LoadError::Trailing { bytes }),
        }
    }

    /// What an item's header says, and how long its value and key are.
    fn item_header(&self, mut header: &[u8]) -> Result<(About, usize, usize), LoadError> {
        let item = self.counts.items;
        let unique = header.get_u64_le();
        let changed = match self.is_version_1 {
            true => unique,
            false => header.get_u64_le(),
        };
        let (flags, over_at) = (header.get_u32_le(), header.get_u32_le());
        let marks = match self.is_version_1 {
            true => 0,
            false => header.get_u8(),
        };
        if marks & !(mark::STALE | mark::TOKEN_SENT) != 0 {
            return Err(LoadError::Marks { item, marks });
        }
        let mut about = About {
            unique,
            changed,
            flags,
            over_at,
            marks: Marks {
                stale: marks & mark::STALE != 0,
                token_sent: marks & mark::TOKEN_SENT != 0,
            },
        };
        if mutants::is_on(Mutant::LoadForgetsExpiry) {
            about.over_at = 0;
        }
        if mutants::is_on(Mutant::LoadForgetsUnique) {
            (about.unique, about.changed) = (0, 0);
        }
        if mutants::is_on(Mutant::LoadForgetsMarks) {
            about.marks = Marks::default();
        }
        let value_bytes = header.get_u32_le() as usize;
        Ok((about, value_bytes, usize::from(header.get_u8())))
    }

    fn check(&self, about: About) -> Result<(), LoadError> {
        let item = self.counts.items;
        let About {
            unique,
            changed,
            over_at,
            ..
        } = about;
        // Else a later change could have a lower one.
        if changed > crate::moment::unique(self.moment.index, u16::MAX) || unique < changed {
            return Err(LoadError::Unique {
                item,
                unique,
                changed,
            });
        }
        if over_at != 0 && u64::from(over_at) <= self.moment.log_time.seconds() {
            return Err(LoadError::Over { item, over_at });
        }
        Ok(())
    }

    fn put(&mut self, about: About, bytes: Bytes, value: &[u8]) -> Result<(), LoadError> {
        let item = self.counts.items;
        let length = bytes.len();
        let key = Key::new(bytes).ok_or(LoadError::KeyLength { item, length })?;
        let place = (order(key.as_bytes()), key);
        if let Some(last) = &self.last {
            match last.cmp(&place) {
                Ordering::Less => {}
                Ordering::Equal => return Err(LoadError::Duplicate { item }),
                Ordering::Greater => return Err(LoadError::Unsorted { item }),
            }
        }
        let (_, key) = self.last.insert(place);
        let second = u32::try_from(self.moment.log_time.seconds()).unwrap_or(u32::MAX);
        let item = Item::new(&mut self.scratch, about, second, key, value, &[]);
        self.counts.items += 1;
        self.counts.bytes += item.bytes() as u64;
        let hash = self.map.push(item);
        if about.over_at != 0 {
            self.deadlines.push((about.over_at, hash));
        }
        Ok(())
    }

    fn finish(self) -> Result<Store, LoadError> {
        let Counts { items: item, .. } = self.counts;
        if item < self.count {
            return Err(LoadError::Truncated {
                item,
                items: self.count,
            });
        }
        let expiry = Expiry::from_iter(self.deadlines);
        Ok(Store::loaded(
            self.moment,
            self.map.finish(),
            expiry,
            self.counts,
        ))
    }
}
