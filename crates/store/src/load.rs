//! Bytes back into a state: put together to a store, or only looked at. Nothing in the bytes is
//! believed that was not checked.

use std::cmp::Ordering;

use bytes::{Buf, Bytes, BytesMut};
use command::{About, Key, LogTime, Marks, TopicSettings};
use mutants::Mutant;
use thiserror::Error;

use crate::expiry::Expiry;
use crate::item::Item;
use crate::map::MapBuilder;
use crate::moment::{Flush, MemoryLimit, Moment, unique};
use crate::snapshot::{
    HEADER_BYTES, ITEM_HEADER_1_BYTES, ITEM_HEADER_BYTES, LIMIT_BYTES, TOPICS_BYTES, VERSION,
    VERSION_1, VERSION_2, flush, mark, order,
};
use crate::store::Store;
use crate::tally::Tally;
use crate::topic_bytes::{MessageView, TopicPart, TopicsDecoder};
use crate::topics::Topics;

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
    #[error("topic {topic} of the snapshot has a number, a name or a next id that can't be")]
    Topic { topic: u64 },
    #[error("message {id} of topic {topic} of the snapshot can't be there as it is")]
    Message { topic: u64, id: u64 },
    #[error("snapshot ends before topic {topic} of {topics} does")]
    TruncatedTopic { topic: u64, topics: u64 },
    #[error("{bytes} bytes follow the snapshot's last item")]
    Trailing { bytes: usize },
}

/// Puts a store together from the bytes of a state, as they come. Takes memory for what has come,
/// whatever the bytes say.
#[derive(Debug)]
pub struct Loader {
    decoder: Decoder,
    map: MapBuilder,
    deadlines: Vec<(u32, u64)>,
    tally: Tally,
    scratch: Vec<u8>,
}

impl Loader {
    /// Makes a store with this seed, as in `Store::new`.
    #[must_use]
    pub fn new(seed: u64) -> Loader {
        Loader {
            decoder: Decoder::new(true),
            map: MapBuilder::new(seed),
            deadlines: Vec::new(),
            tally: Tally::default(),
            scratch: Vec::new(),
        }
    }

    /// Takes the next bytes, however they are cut.
    ///
    /// # Errors
    /// If no bytes that begin with those pushed are a state; then every later call answers the
    /// same.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        let (map, tally, scratch) = (&mut self.map, &mut self.tally, &mut self.scratch);
        self.decoder.push(bytes, &mut |part| match part {
            Part::Beginning(moment, ..) => {
                if let Some(below) = moment.flush.as_ref().and_then(|flush| flush.below) {
                    tally.mark(below);
                }
            }
            Part::Item(moment, about, key, value) => {
                let second = u32::try_from(moment.log_time.seconds()).unwrap_or(u32::MAX);
                let item = Item::new(scratch, about, second, key, value, &[]);
                tally.add(&item);
                let hash = map.push(item);
                if about.over_at != 0 {
                    self.deadlines.push((about.over_at, hash));
                }
            }
            Part::Topic(_) => {}
        })
    }

    /// The store, when all bytes were pushed.
    ///
    /// # Errors
    /// If they were not all, or `push` has failed.
    pub fn finish(self) -> Result<Store, LoadError> {
        let (moment, topics) = self.decoder.finish()?;
        let expiry = Expiry::from_iter(self.deadlines);
        let topics = Topics::loaded(topics.whole);
        let map = self.map.finish();
        Ok(Store::loaded(moment, map, expiry, self.tally, topics))
    }
}

/// Looks at the bytes of a state, as they come, with memory for one item at a time.
#[derive(Debug)]
pub struct Viewer(Decoder);

/// What a [`Viewer`] sees, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View<'a> {
    State {
        log_time: LogTime,
        /// Of the entries' item size limit and of the memory that all items may take, in bytes; 0 is
        /// no limit.
        item_bytes_max: u32,
        memory_limit_bytes: u64,
        /// The second since 1970 at which a pending `flush_all` takes effect.
        flush_second: Option<u64>,
        items: u64,
        topics: u32,
    },
    Item {
        key: &'a [u8],
        value_bytes: usize,
        about: About,
    },
    /// A topic; its messages follow.
    Topic {
        name: &'a [u8],
        settings: TopicSettings,
        next_id: u64,
        messages: u64,
    },
    Message(MessageView),
}

impl Viewer {
    #[must_use]
    pub fn new() -> Viewer {
        Viewer(Decoder::new(false))
    }

    /// Takes the next bytes, however they are cut.
    ///
    /// # Errors
    /// As [`Loader::push`].
    pub fn push(&mut self, bytes: &[u8], sink: &mut impl FnMut(View<'_>)) -> Result<(), LoadError> {
        self.0.push(bytes, &mut |part| {
            sink(match part {
                Part::Beginning(moment, items, topics) => View::State {
                    log_time: moment.log_time,
                    item_bytes_max: moment.item_bytes_max,
                    memory_limit_bytes: moment.memory_limit.bytes,
                    flush_second: moment.flush.as_ref().map(|flush| flush.second),
                    items,
                    topics,
                },
                Part::Item(_, about, key, value) => View::Item {
                    key: key.as_bytes(),
                    value_bytes: value.len(),
                    about,
                },
                Part::Topic(TopicPart::Topic(topic, messages)) => View::Topic {
                    name: topic.name.as_bytes(),
                    settings: topic.settings,
                    next_id: topic.next_id,
                    messages,
                },
                Part::Topic(TopicPart::Message(message)) => View::Message(message),
            });
        })
    }

    /// When all bytes were pushed.
    ///
    /// # Errors
    /// If they were not all, or `push` has failed.
    pub fn finish(self) -> Result<(), LoadError> {
        self.0.finish().map(|_| ())
    }
}

impl Default for Viewer {
    fn default() -> Viewer {
        Viewer::new()
    }
}

/// What bytes come to.
enum Part<'a> {
    /// And how many items and topics follow.
    Beginning(&'a Moment, u64, u32),
    /// An item, and its value.
    Item(&'a Moment, About, &'a Key, &'a [u8]),
    Topic(TopicPart<'a>),
}

/// Takes a state apart, and checks it.
#[derive(Debug)]
struct Decoder {
    /// What has come and was not taken yet.
    bytes: BytesMut,
    /// So many bytes are needed to go on.
    needed: usize,
    /// `None` until the header has come.
    items: Option<Items>,
    topics: TopicsDecoder,
    keeps_messages: bool,
    failed: Option<LoadError>,
}

impl Decoder {
    fn new(keeps_messages: bool) -> Decoder {
        Decoder {
            bytes: BytesMut::new(),
            needed: 1,
            items: None,
            topics: TopicsDecoder::default(),
            keeps_messages,
            failed: None,
        }
    }

    fn push(&mut self, bytes: &[u8], sink: &mut impl FnMut(Part<'_>)) -> Result<(), LoadError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() < self.needed {
            return Ok(());
        }
        let mut rest = self.bytes.split().freeze();
        self.needed = self.take(&mut rest, sink).inspect_err(|error| {
            self.failed = Some(*error);
        })?;
        self.bytes.extend_from_slice(&rest);
        Ok(())
    }

    fn finish(self) -> Result<(Moment, TopicsDecoder), LoadError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let items = self.items.ok_or(LoadError::NoItems)?;
        match items.taken < items.count {
            true => Err(LoadError::Truncated {
                item: items.taken,
                items: items.count,
            }),
            false => {
                self.topics.finish()?;
                Ok((items.moment, self.topics))
            }
        }
    }

    /// Takes whole parts off the front, and says how many bytes the next one needs.
    fn take(
        &mut self,
        bytes: &mut Bytes,
        sink: &mut impl FnMut(Part<'_>),
    ) -> Result<usize, LoadError> {
        let items = match &mut self.items {
            Some(items) => items,
            None => {
                let is_version_1 = bytes.first() == Some(&VERSION_1);
                let Some((moment, count, topics)) = take_header(bytes)? else {
                    return header_bytes(bytes);
                };
                sink(Part::Beginning(&moment, count, topics));
                self.topics = TopicsDecoder::new(topics, self.keeps_messages);
                self.items.insert(Items {
                    moment,
                    count,
                    is_version_1,
                    taken: 0,
                    last: None,
                })
            }
        };
        if let Some(needed) = items.take(bytes, sink)? {
            return Ok(needed);
        }
        let mut sink = |part: TopicPart<'_>| sink(Part::Topic(part));
        self.topics.take(&items.moment, bytes, &mut sink)
    }
}

/// The length of the header that begins with these bytes.
fn header_bytes(bytes: &[u8]) -> Result<usize, LoadError> {
    match bytes.first() {
        None | Some(&VERSION) => Ok(HEADER_BYTES),
        Some(&VERSION_2) => Ok(HEADER_BYTES - TOPICS_BYTES),
        Some(&VERSION_1) => Ok(HEADER_BYTES - TOPICS_BYTES - LIMIT_BYTES),
        Some(&found) => Err(LoadError::Version { found }),
    }
}

/// The moment, and how many items and topics follow; `None` if there are too few bytes.
fn take_header(bytes: &mut Bytes) -> Result<Option<(Moment, u64, u32)>, LoadError> {
    if bytes.len() < header_bytes(bytes)? {
        return Ok(None);
    }
    let version = bytes.get_u8();
    let log_time = LogTime(bytes.get_u64_le());
    let index = bytes.get_u64_le();
    if index >= 1 << 48 {
        return Err(LoadError::Index { index });
    }
    let item_bytes_max = bytes.get_u32_le();
    let memory_limit = match version {
        VERSION_1 => MemoryLimit::default(),
        _ => MemoryLimit {
            setting: bytes.get_u64_le(),
            bytes: bytes.get_u64_le(),
        },
    };
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
        memory_limit,
        log_time,
        flush,
        flushed_below: 0,
    };
    let items = bytes.get_u64_le();
    let topics = match version {
        VERSION => bytes.get_u32_le(),
        _ => 0,
    };
    Ok(Some((moment, items, topics)))
}

/// The items that have come.
#[derive(Debug)]
struct Items {
    moment: Moment,
    /// So many there must be in the end.
    count: u64,
    is_version_1: bool,
    taken: u64,
    /// Where the last one stands, and its key.
    last: Option<(u64, Key)>,
}

impl Items {
    /// Takes whole items off the front, and says how many bytes the next one needs; `None` if it was
    /// the last.
    fn take(
        &mut self,
        bytes: &mut Bytes,
        sink: &mut impl FnMut(Part<'_>),
    ) -> Result<Option<usize>, LoadError> {
        let header_bytes = match self.is_version_1 {
            true => ITEM_HEADER_1_BYTES,
            false => ITEM_HEADER_BYTES,
        };
        while self.taken < self.count {
            let Some(header) = bytes.get(..header_bytes) else {
                return Ok(Some(header_bytes));
            };
            let (about, value_bytes, key_bytes) = self.item_header(header)?;
            self.check(about)?;
            let item_bytes = (header_bytes + key_bytes).saturating_add(value_bytes);
            if bytes.len() < item_bytes {
                return Ok(Some(item_bytes));
            }
            bytes.advance(header_bytes);
            let key = bytes.split_to(key_bytes);
            let value = bytes.split_to(value_bytes);
            let place = self.place(key)?;
            let (_, key) = self.last.insert(place);
            sink(Part::Item(&self.moment, about, key, &value));
            self.taken += 1;
        }
        Ok(None)
    }

    /// What an item's header says, and how long its value and key are.
    fn item_header(&self, mut header: &[u8]) -> Result<(About, usize, usize), LoadError> {
        let item = self.taken;
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
        let item = self.taken;
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

    /// Where the next item stands, which is behind the one before, and its key.
    fn place(&self, key: Bytes) -> Result<(u64, Key), LoadError> {
        let (item, length) = (self.taken, key.len());
        let key = Key::new(key).ok_or(LoadError::KeyLength { item, length })?;
        let place = (order(key.as_bytes()), key);
        if let Some(last) = &self.last {
            match last.cmp(&place) {
                Ordering::Less => {}
                Ordering::Equal => return Err(LoadError::Duplicate { item }),
                Ordering::Greater => return Err(LoadError::Unsorted { item }),
            }
        }
        Ok(place)
    }
}
