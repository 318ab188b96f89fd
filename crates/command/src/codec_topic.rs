//! The commands of an entry that change topics; see `codec`.
//!
//! ```text
//! 64 topic    name | max length (u64) | max bytes (u64) | max age, s (u32) | max deliveries (u32)
//! 65 push     name | priority (u32) | delay, s (u32) | message
//! 66 pop      name
//! 67 reserve  name | time to run, s (u32)
//! 68 ack      name | id (u64)
//! 69 nack     name | id (u64) | delay, s (u32)
//! 70 extend   name | id (u64) | time to run, s (u32)
//! 71 kick     name | count (u64)
//! 72 purge    name
//! 73 drop     name
//! name        as a key
//! message     as a value
//! ```

use bytes::{BufMut, BytesMut};

use crate::codec::{CodecError, Reader, encode_key};
use crate::{Take, TopicChange, TopicSettings, TopicWrite};

const CREATE: u8 = 64;
const PUSH: u8 = 65;
const POP: u8 = 66;
const RESERVE: u8 = 67;
const ACK: u8 = 68;
const NACK: u8 = 69;
const EXTEND: u8 = 70;
const KICK: u8 = 71;
const PURGE: u8 = 72;
const DROP: u8 = 73;

/// The bytes that a command takes behind its code.
pub(crate) fn topic_bytes(write: &TopicWrite) -> usize {
    let operands = match &write.change {
        TopicChange::Create(_) => 8 + 8 + 4 + 4,
        TopicChange::Push { message, .. } => 4 + 4 + 4 + message.len(),
        TopicChange::Take(Take { ttr: Some(_), .. }) => 4,
        TopicChange::Take(Take { ttr: None, .. }) | TopicChange::Purge | TopicChange::Drop => 0,
        TopicChange::Ack { .. } | TopicChange::Kick { .. } => 8,
        TopicChange::Nack { .. } | TopicChange::Extend { .. } => 8 + 4,
    };
    1 + write.topic.as_bytes().len() + operands
}

pub(crate) fn encode_topic(write: &TopicWrite, bytes: &mut BytesMut) {
    bytes.put_u8(match write.change {
        TopicChange::Create(_) => CREATE,
        TopicChange::Push { .. } => PUSH,
        TopicChange::Take(Take { ttr: None, .. }) => POP,
        TopicChange::Take(Take { ttr: Some(_), .. }) => RESERVE,
        TopicChange::Ack { .. } => ACK,
        TopicChange::Nack { .. } => NACK,
        TopicChange::Extend { .. } => EXTEND,
        TopicChange::Kick { .. } => KICK,
        TopicChange::Purge => PURGE,
        TopicChange::Drop => DROP,
    });
    encode_key(&write.topic, bytes);
    match &write.change {
        TopicChange::Create(settings) => {
            bytes.put_u64_le(settings.max_length);
            bytes.put_u64_le(settings.max_bytes);
            bytes.put_u32_le(settings.max_age);
            bytes.put_u32_le(settings.max_deliveries);
        }
        TopicChange::Push {
            message,
            priority,
            delay,
        } => {
            bytes.put_u32_le(*priority);
            bytes.put_u32_le(*delay);
            let length = u32::try_from(message.len());
            bytes.put_u32_le(length.expect("a message is shorter than 4 GiB"));
            bytes.put_slice(message);
        }
        TopicChange::Take(Take { ttr, .. }) => {
            if let Some(ttr) = ttr {
                bytes.put_u32_le(*ttr);
            }
        }
        TopicChange::Ack { id } => bytes.put_u64_le(*id),
        TopicChange::Nack { id, delay: seconds } | TopicChange::Extend { id, ttr: seconds } => {
            bytes.put_u64_le(*id);
            bytes.put_u32_le(*seconds);
        }
        TopicChange::Kick { count } => bytes.put_u64_le(*count),
        TopicChange::Purge | TopicChange::Drop => {}
    }
}

impl Reader<'_> {
    /// The command with this code; `None` if it is none of here.
    pub(crate) fn topic(&mut self, code: u8) -> Result<Option<TopicWrite>, CodecError> {
        if !(CREATE..=DROP).contains(&code) {
            return Ok(None);
        }
        let topic = self.key()?;
        let change = match code {
            CREATE => TopicChange::Create(TopicSettings {
                max_length: self.u64()?,
                max_bytes: self.u64()?,
                max_age: self.u32()?,
                max_deliveries: self.u32()?,
            }),
            PUSH => {
                let (priority, delay, length) = (self.u32()?, self.u32()?, self.u32()?);
                TopicChange::Push {
                    message: self.take(length as usize)?,
                    priority,
                    delay,
                }
            }
            POP => TopicChange::Take(Take { ttr: None, wait: 0 }),
            RESERVE => TopicChange::Take(Take {
                ttr: Some(self.u32()?),
                wait: 0,
            }),
            ACK => TopicChange::Ack { id: self.u64()? },
            NACK => TopicChange::Nack {
                id: self.u64()?,
                delay: self.u32()?,
            },
            EXTEND => TopicChange::Extend {
                id: self.u64()?,
                ttr: self.u32()?,
            },
            KICK => TopicChange::Kick { count: self.u64()? },
            PURGE => TopicChange::Purge,
            _ => TopicChange::Drop,
        };
        Ok(Some(TopicWrite { topic, change }))
    }
}
