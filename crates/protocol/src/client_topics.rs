//! The other direction for topics: commands to request bytes, reply lines to what became of them.

use command::{
    Key, Message, MessageBytes, MessageCounts, Reply, Take, TopicChange, TopicCounts,
    TopicSettings, TopicWrite,
};

use crate::Output;
use crate::client::Expected;
use crate::reply::{OUT_OF_MEMORY, TOO_MANY_TOPICS, TOPIC_FULL};
use crate::topic_name::{append_topic_name, decode};
use crate::words::unsigned;

/// All but the last `\r\n`.
pub(crate) fn write_topic(write: &TopicWrite, output: &mut Output) -> Expected {
    let name: &[u8] = match &write.change {
        TopicChange::Create(_) => b"topic",
        TopicChange::Push { .. } => b"push",
        TopicChange::Take(Take { ttr: None, .. }) => b"pop",
        TopicChange::Take(Take { ttr: Some(_), .. }) => b"reserve",
        TopicChange::Ack { .. } => b"ack",
        TopicChange::Nack { .. } => b"nack",
        TopicChange::Extend { .. } => b"extend",
        TopicChange::Kick { .. } => b"kick",
        TopicChange::Purge => b"purge",
        TopicChange::Drop => b"drop",
    };
    append_command(name, &write.topic, output);
    match &write.change {
        TopicChange::Create(settings) => append_settings(settings, output),
        TopicChange::Push {
            message,
            priority,
            delay,
        } => {
            append_number(message.len() as u64, output);
            append_option(b"priority", *priority, output);
            append_option(b"delay", *delay, output);
            output.append(b"\r\n");
            output.append_value(message, || message.clone());
        }
        TopicChange::Take(Take { ttr, wait }) => {
            if let Some(ttr) = ttr {
                append_number(u64::from(*ttr), output);
            }
            append_option(b"wait", *wait, output);
            return Expected::Message;
        }
        TopicChange::Ack { id } => append_number(*id, output),
        TopicChange::Nack { id, delay } => {
            append_number(*id, output);
            append_option(b"delay", *delay, output);
        }
        TopicChange::Extend { id, ttr } => {
            append_number(*id, output);
            append_number(u64::from(*ttr), output);
        }
        TopicChange::Kick { count } => append_number(*count, output),
        TopicChange::Purge | TopicChange::Drop => {}
    }
    Expected::TopicLine
}

/// All but the last `\r\n`.
pub(crate) fn write_peek(topic: &Key, output: &mut Output) -> Expected {
    append_command(b"peek", topic, output);
    Expected::Message
}

fn append_command(name: &[u8], topic: &Key, output: &mut Output) {
    output.append(name);
    output.append(b" ");
    append_topic_name(topic.as_bytes(), output);
}

fn append_settings(settings: &TopicSettings, output: &mut Output) {
    for (name, value) in [
        ("max_length", settings.max_length),
        ("max_bytes", settings.max_bytes),
        ("max_age", u64::from(settings.max_age)),
        ("max_deliveries", u64::from(settings.max_deliveries)),
    ] {
        if value > 0 {
            output.append(b" ");
            output.append(name.as_bytes());
            output.append(b"=");
            output.append_number(value);
        }
    }
}

/// A space and the number.
fn append_number(number: u64, output: &mut Output) {
    output.append(b" ");
    output.append_number(number);
}

/// Unless it is 0, which is what a line without it says.
fn append_option(name: &[u8], number: u32, output: &mut Output) {
    if number > 0 {
        output.append(b" ");
        output.append(name);
        output.append(b"=");
        output.append_number(u64::from(number));
    }
}

/// The reply that this line is as a whole, to a command that changes a topic.
pub(crate) fn topic_line(line: &[u8]) -> Option<Reply> {
    let numbered = |word: &[u8]| unsigned(line.strip_prefix(word)?);
    Some(match line {
        b"CREATED" => Reply::Created,
        b"EXISTS" => Reply::Exists,
        b"NOT_FOUND" => Reply::NotFound,
        b"ACKED" => Reply::Acked,
        b"EXTENDED" => Reply::Extended,
        b"RELEASED" => Reply::Released,
        b"BURIED" => Reply::Buried,
        b"DROPPED" => Reply::Dropped,
        _ if line == TOPIC_FULL.as_bytes() => Reply::TopicFull,
        _ if line == TOO_MANY_TOPICS.as_bytes() => Reply::TooManyTopics,
        _ if line == OUT_OF_MEMORY.as_bytes() => Reply::OutOfMemory,
        _ => numbered(b"PUSHED ")
            .map(Reply::Pushed)
            .or_else(|| numbered(b"KICKED ").map(Reply::Kicked))
            .or_else(|| numbered(b"PURGED ").map(Reply::Purged))?,
    })
}

/// What a `MESSAGE` line says.
#[derive(Debug)]
pub(crate) struct MessageHead {
    id: u64,
    deliveries: u32,
    /// The length of the message.
    pub(crate) bytes: u64,
}

impl MessageHead {
    /// `MESSAGE <topic> <id> <bytes> [<deliveries>]`.
    pub(crate) fn read(line: &[u8]) -> Option<MessageHead> {
        let mut words = line.split(|byte| *byte == b' ');
        let mut word = || words.next();
        let (Some(b"MESSAGE"), Some(topic), Some(id), Some(bytes), deliveries, None) =
            (word(), word(), word(), word(), word(), word())
        else {
            return None;
        };
        decode(topic)?;
        Some(MessageHead {
            id: unsigned(id)?,
            bytes: unsigned(bytes)?,
            deliveries: u32::try_from(deliveries.map_or(Some(0), unsigned)?).ok()?,
        })
    }

    pub(crate) fn with(self, bytes: &[u8]) -> Message {
        Message {
            id: self.id,
            deliveries: self.deliveries,
            data: MessageBytes::new(bytes),
        }
    }
}

/// `TOPIC <topic> <ready> <reserved> <delayed> <dead>`.
pub(crate) fn topic_counts(line: &[u8]) -> Option<TopicCounts> {
    let mut words = line.split(|byte| *byte == b' ');
    let mut word = || words.next();
    let (Some(b"TOPIC"), Some(topic), Some(ready), Some(reserved), Some(delayed), Some(dead), None) =
        (word(), word(), word(), word(), word(), word(), word())
    else {
        return None;
    };
    Some(TopicCounts {
        topic: decode(topic)?,
        counts: MessageCounts {
            ready: unsigned(ready)?,
            reserved: unsigned(reserved)?,
            delayed: unsigned(delayed)?,
            dead: unsigned(dead)?,
        },
    })
}
