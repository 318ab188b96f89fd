//! Topics as bytes, behind the items of a snapshot; see `snapshot`. All numbers are little-endian.
//!
//! ```text
//! number (u64)          the place in the log of its creation; ascending
//! next id (u64)
//! max length (u64) | max bytes (u64) | max age, s (u32) | max deliveries (u32)    0 is none
//! messages (u64)        how many follow the name
//! name length (u8) | name
//! ```
//! Each message, ids ascending:
//!
//! ```text
//! id (u64) | pushed in second (u32) | priority (u32) | deliveries (u32) | state (u8) | until (u32)
//!     | length (u32) | bytes
//! ```
//! `state` is 0 for ready, 1 for reserved, 2 for delayed, 3 for dead. `until` is the second at which a
//! reserved message comes back, or a delayed one is ready; else 0. Nothing is due: what was to happen
//! by the log time has happened.

use std::collections::BTreeSet;

use bytes::{Buf, Bytes};
use command::{Key, MessageBytes, TopicSettings};
use mutants::Mutant;

use crate::load::LoadError;
use crate::messages::{Held, Messages, State};
use crate::moment::{Moment, unique};
use crate::snapshot::Fields;
use crate::topic::{Judges, TopicState};

/// All of a topic before its name.
pub(crate) const TOPIC_HEADER_BYTES: usize = 8 + 8 + 8 + 8 + 4 + 4 + 8 + 1;

/// All of a message before its bytes.
pub(crate) const MESSAGE_HEADER_BYTES: usize = 8 + 4 + 4 + 4 + 1 + 4 + 4;

/// The header of a topic of so many messages.
pub(crate) fn topic_header(topic: &TopicState, messages: u64) -> [u8; TOPIC_HEADER_BYTES] {
    let mut header = [0; TOPIC_HEADER_BYTES];
    let mut fields = Fields(&mut header);
    fields.put(topic.number.to_le_bytes());
    fields.put(topic.next_id.to_le_bytes());
    fields.put(topic.settings.max_length.to_le_bytes());
    fields.put(topic.settings.max_bytes.to_le_bytes());
    fields.put(topic.settings.max_age.to_le_bytes());
    fields.put(topic.settings.max_deliveries.to_le_bytes());
    fields.put(messages.to_le_bytes());
    fields.put([topic.name.as_bytes().len() as u8]);
    header
}

pub(crate) fn message_header(id: u64, held: &Held) -> [u8; MESSAGE_HEADER_BYTES] {
    let length = held.data.as_slice().len();
    let length =
        u32::try_from(length).unwrap_or_else(|_| panic!("a message of {length} bytes was let in"));
    let mut header = [0; MESSAGE_HEADER_BYTES];
    let mut fields = Fields(&mut header);
    fields.put(id.to_le_bytes());
    fields.put(held.since.to_le_bytes());
    fields.put(held.priority.to_le_bytes());
    fields.put(held.deliveries.to_le_bytes());
    fields.put([held.state as u8]);
    fields.put(held.until.to_le_bytes());
    fields.put(length.to_le_bytes());
    header
}

/// The topics that have come.
#[derive(Debug, Default)]
pub(crate) struct TopicsDecoder {
    /// So many there must be in the end.
    count: u32,
    pub(crate) whole: Vec<TopicState>,
    names: BTreeSet<Key>,
    /// The one whose messages come, how many are still to come, and the last one's id.
    part: Option<(TopicState, u64, u64)>,
    /// Whether the messages are kept.
    keeps: bool,
}

/// A message as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageView {
    pub id: u64,
    /// The second since 1970 in which it was pushed.
    pub since: u32,
    pub priority: u32,
    pub deliveries: u32,
    /// `ready`, `reserved`, `delayed` or `dead`.
    pub state: &'static str,
    /// The second since 1970 at which a reserved one comes back, or a delayed one is ready.
    pub until: u32,
    pub bytes: usize,
}

/// What bytes come to.
pub(crate) enum TopicPart<'a> {
    /// And how many messages follow.
    Topic(&'a TopicState, u64),
    Message(MessageView),
}

impl TopicsDecoder {
    /// For so many topics. `keeps` says whether their messages are wanted in `whole`.
    pub(crate) fn new(count: u32, keeps: bool) -> TopicsDecoder {
        TopicsDecoder {
            count,
            keeps,
            ..TopicsDecoder::default()
        }
    }

    /// Fails if there is not all of them.
    pub(crate) fn finish(&self) -> Result<(), LoadError> {
        match self.part.is_some() || self.whole.len() < self.count as usize {
            true => Err(LoadError::TruncatedTopic {
                topic: self.whole.len() as u64,
                topics: u64::from(self.count),
            }),
            false => Ok(()),
        }
    }

    /// Takes whole parts off the front, and says how many bytes the next one needs.
    pub(crate) fn take(
        &mut self,
        moment: &Moment,
        bytes: &mut Bytes,
        sink: &mut impl FnMut(TopicPart<'_>),
    ) -> Result<usize, LoadError> {
        loop {
            if let Some((topic, ..)) = self.part.take_if(|(_, left, _)| *left == 0) {
                self.whole.push(topic);
            }
            if self.part.is_some() {
                let Some(header) = bytes.get(..MESSAGE_HEADER_BYTES) else {
                    return Ok(MESSAGE_HEADER_BYTES);
                };
                let (view, held_state) = self.message_header(moment, header)?;
                let all = MESSAGE_HEADER_BYTES.saturating_add(view.bytes);
                if bytes.len() < all {
                    return Ok(all);
                }
                bytes.advance(MESSAGE_HEADER_BYTES);
                let data = bytes.split_to(view.bytes);
                self.message(view, held_state, &data);
                sink(TopicPart::Message(view));
            } else if self.whole.len() < self.count as usize {
                let Some(header) = bytes.get(..TOPIC_HEADER_BYTES) else {
                    return Ok(TOPIC_HEADER_BYTES);
                };
                let all = TOPIC_HEADER_BYTES + usize::from(header[TOPIC_HEADER_BYTES - 1]);
                if bytes.len() < all {
                    return Ok(all);
                }
                let (topic, messages) = self.topic(moment, bytes)?;
                let (topic, messages, _) = self.part.insert((topic, messages, 0));
                sink(TopicPart::Topic(topic, *messages));
            } else {
                return match bytes.len() {
                    0 => Ok(1),
                    bytes => Err(LoadError::Trailing { bytes }),
                };
            }
        }
    }

    /// The header of a topic, and its name, which are all there.
    fn topic(
        &mut self,
        moment: &Moment,
        bytes: &mut Bytes,
    ) -> Result<(TopicState, u64), LoadError> {
        let topic = self.whole.len() as u64;
        let invalid = LoadError::Topic { topic };
        let number = bytes.get_u64_le();
        let next_id = bytes.get_u64_le();
        let settings = TopicSettings {
            max_length: bytes.get_u64_le(),
            max_bytes: bytes.get_u64_le(),
            max_age: bytes.get_u32_le(),
            max_deliveries: bytes.get_u32_le(),
        };
        let messages = bytes.get_u64_le();
        let length = usize::from(bytes.get_u8());
        let name = Key::new(Bytes::copy_from_slice(&bytes.split_to(length)));
        let name = name.ok_or(invalid)?;
        let is_behind = self.whole.last().is_none_or(|last| last.number < number);
        let is_known = !self.names.insert(name.clone());
        if !is_behind || is_known || number > unique(moment.index, u16::MAX) || next_id == 0 {
            return Err(invalid);
        }
        let state = TopicState {
            number,
            name,
            settings,
            next_id,
            messages: Messages::default(),
        };
        Ok((state, messages))
    }

    fn message_header(
        &self,
        moment: &Moment,
        mut header: &[u8],
    ) -> Result<(MessageView, State), LoadError> {
        let topic = self.whole.len() as u64;
        let id = header.get_u64_le();
        let invalid = LoadError::Message { topic, id };
        let (since, priority) = (header.get_u32_le(), header.get_u32_le());
        let deliveries = header.get_u32_le();
        let (state, word) = match header.get_u8() {
            0 => (State::Ready, "ready"),
            1 => (State::Reserved, "reserved"),
            2 => (State::Delayed, "delayed"),
            3 => (State::Dead, "dead"),
            _ => return Err(invalid),
        };
        let until = header.get_u32_le();
        let view = MessageView {
            id,
            since,
            priority,
            deliveries,
            state: word,
            until,
            bytes: header.get_u32_le() as usize,
        };
        let Some((part, _, last)) = &self.part else {
            return Err(invalid);
        };
        let now = moment.second();
        let waits = matches!(state, State::Reserved | State::Delayed);
        let is_too_old = part.settings.is_too_old(since, now) && state != State::Reserved;
        if id <= *last
            || id >= part.next_id
            || waits != (until > now)
            || (!waits && until != 0)
            || is_too_old
        {
            return Err(invalid);
        }
        Ok((view, state))
    }

    fn message(&mut self, view: MessageView, state: State, data: &[u8]) {
        let Some((topic, left, last)) = &mut self.part else {
            return;
        };
        *left -= 1;
        *last = view.id;
        if !self.keeps {
            return;
        }
        let mut held = Held::new(MessageBytes::new(data), view.since, view.priority);
        held.deliveries = view.deliveries;
        held.state = state;
        held.until = view.until;
        if mutants::is_on(Mutant::LoadForgetsReservations) {
            (held.state, held.until) = (State::Ready, 0);
        }
        topic.messages.push(view.id, held);
    }
}
