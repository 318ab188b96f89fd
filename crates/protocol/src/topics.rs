//! The lines of topics (message queues) to commands. Once the length of a message is known its data
//! block is taken off, whatever is wrong with the rest of the line.

use std::ops::RangeInclusive;

use bytes::Bytes;
use command::{
    Command, Key, MESSAGE_SECONDS_MAX, Read, Take, TopicChange, TopicSettings, TopicWrite,
    WAIT_SECONDS_MAX, Write,
};

use crate::Limits;
use crate::classic::{
    BAD_FORMAT, block_length, item_bytes, line_or_silent, skip_block, skip_too_large,
};
use crate::request::{Block, Line, MessageShape, Shape};
use crate::topic_name::decode;
use crate::words::{Words, unsigned};

pub(crate) const BAD_TOPIC: &str = "CLIENT_ERROR bad topic name\r\n";
pub(crate) const BAD_SETTING: &str = "CLIENT_ERROR bad topic setting\r\n";
pub(crate) const BAD_OPTION: &str = "CLIENT_ERROR bad option\r\n";
pub(crate) const BAD_NUMBER: &str = "CLIENT_ERROR invalid numeric argument\r\n";

/// Seconds of a delay.
const DELAYS: RangeInclusive<u64> = 0..=MESSAGE_SECONDS_MAX as u64;
/// Seconds that a message is reserved for.
const TIMES_TO_RUN: RangeInclusive<u64> = 1..=MESSAGE_SECONDS_MAX as u64;
const WAITS: RangeInclusive<u64> = 0..=WAIT_SECONDS_MAX as u64;
const NUMBERS: RangeInclusive<u64> = 0..=u32::MAX as u64;

/// A line that is answered with this.
type Wrong = &'static str;

/// Reads the rest of a line that begins with `name`; `None` when that is no command of here.
pub(crate) fn line(name: &[u8], words: Words<'_>, limits: &Limits) -> Option<Line> {
    let line = match name {
        b"topic" => create(words),
        b"topics" => end(words).map(|()| Line::command(Command::Read(Read::Topics), Shape::Topics)),
        b"push" => return Some(push(words, limits)),
        b"pop" => take(words, false),
        b"reserve" => take(words, true),
        b"ack" => ack(words),
        b"nack" => nack(words),
        b"extend" => extend(words),
        b"peek" => peek(words),
        b"kick" => kick(words),
        b"purge" => whole(words, TopicChange::Purge),
        b"drop" => whole(words, TopicChange::Drop),
        _ => return None,
    };
    Some(line.unwrap_or_else(Line::answer))
}

/// `<topic> [<setting>=<value> …]`.
fn create(mut words: Words<'_>) -> Result<Line, Wrong> {
    let topic = topic(&mut words)?;
    let mut settings = TopicSettings::default();
    let mut seen = Vec::new();
    for word in words {
        let (name, value) = option(word).ok_or(BAD_SETTING)?;
        if seen.contains(&name) {
            return Err(BAD_SETTING);
        }
        seen.push(name);
        let seconds = || within(value, &DELAYS);
        match name {
            b"max_length" => settings.max_length = unsigned(value).ok_or(BAD_NUMBER)?,
            b"max_bytes" => settings.max_bytes = unsigned(value).ok_or(BAD_NUMBER)?,
            b"max_age" => settings.max_age = seconds()?,
            b"max_deliveries" => settings.max_deliveries = within(value, &NUMBERS)?,
            _ => return Err(BAD_SETTING),
        }
    }
    Ok(change(topic, TopicChange::Create(settings)))
}

/// `<topic> <bytes> [delay=<s>] [priority=<n>] [noreply]`.
fn push(mut words: Words<'_>, limits: &Limits) -> Line {
    let silent = words.end_in_noreply();
    let (topic, length) = (words.next(), words.next());
    let Some(value_bytes) = length.and_then(block_length) else {
        return Line::answer_unless(silent, BAD_FORMAT);
    };
    let wrong = |answer| skip_block(if silent { "" } else { answer }, value_bytes);
    let Some(topic) = topic.and_then(decode) else {
        return wrong(BAD_TOPIC);
    };
    let (priority, delay) = match push_options(words) {
        Ok(options) => options,
        Err(answer) => return wrong(answer),
    };
    if item_bytes(&topic, value_bytes) > limits.item_bytes_max {
        return skip_too_large(silent, value_bytes);
    }
    let message = Bytes::new();
    let change = TopicChange::Push {
        message,
        priority,
        delay,
    };
    Line::Block(Block {
        write: Write::Topic(TopicWrite { topic, change }),
        value_bytes,
        shape: line_or_silent(silent),
    })
}

/// Priority and delay.
fn push_options(words: Words<'_>) -> Result<(u32, u32), Wrong> {
    let (mut priority, mut delay) = (None, None);
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        match option(word) {
            Some((b"priority", number)) if priority.is_none() => {
                priority = Some(within(number, &NUMBERS)?);
            }
            Some((b"delay", seconds)) if delay.is_none() => {
                delay = Some(within(seconds, &DELAYS)?);
            }
            None if word == b"noreply" && words.peek().is_none() => {}
            _ => return Err(BAD_OPTION),
        }
    }
    Ok((priority.unwrap_or(0), delay.unwrap_or(0)))
}

/// `<topic> [wait=<s>]`, for `reserve` with a time to run before it.
fn take(mut words: Words<'_>, reserves: bool) -> Result<Line, Wrong> {
    let word = words.next().ok_or(BAD_FORMAT)?;
    let name = decode(word).ok_or(BAD_TOPIC)?;
    let ttr = match reserves {
        true => {
            let ttr = words.next().ok_or(BAD_FORMAT)?;
            Some(within(ttr, &TIMES_TO_RUN)?)
        }
        false => None,
    };
    let wait = single_option(&mut words, b"wait", &WAITS)?;
    let shape = Shape::Message(MessageShape {
        topic: words.share(word),
        shows_deliveries: reserves,
        waits: wait > 0,
    });
    let change = TopicChange::Take(Take { ttr, wait });
    let write = Write::Topic(TopicWrite {
        topic: name,
        change,
    });
    Ok(Line::command(Command::Write(write), shape))
}

/// `<topic> <id>`.
fn ack(mut words: Words<'_>) -> Result<Line, Wrong> {
    let topic = topic(&mut words)?;
    let id = id(&mut words)?;
    end(words)?;
    Ok(change(topic, TopicChange::Ack { id }))
}

/// `<topic> <id> [delay=<s>]`.
fn nack(mut words: Words<'_>) -> Result<Line, Wrong> {
    let topic = topic(&mut words)?;
    let id = id(&mut words)?;
    let delay = single_option(&mut words, b"delay", &DELAYS)?;
    Ok(change(topic, TopicChange::Nack { id, delay }))
}

/// `<topic> <id> <ttr s>`.
fn extend(mut words: Words<'_>) -> Result<Line, Wrong> {
    let topic = topic(&mut words)?;
    let id = id(&mut words)?;
    let ttr = within(words.next().ok_or(BAD_FORMAT)?, &TIMES_TO_RUN)?;
    end(words)?;
    Ok(change(topic, TopicChange::Extend { id, ttr }))
}

/// `<topic>`.
fn peek(mut words: Words<'_>) -> Result<Line, Wrong> {
    let word = words.next().ok_or(BAD_FORMAT)?;
    let topic = decode(word).ok_or(BAD_TOPIC)?;
    let shape = Shape::Message(MessageShape {
        topic: words.share(word),
        shows_deliveries: false,
        waits: false,
    });
    end(words)?;
    Ok(Line::command(Command::Read(Read::Peek { topic }), shape))
}

/// `<topic> <n>`.
fn kick(mut words: Words<'_>) -> Result<Line, Wrong> {
    let topic = topic(&mut words)?;
    let count = unsigned(words.next().ok_or(BAD_FORMAT)?).ok_or(BAD_NUMBER)?;
    end(words)?;
    Ok(change(topic, TopicChange::Kick { count }))
}

/// `<topic>`.
fn whole(mut words: Words<'_>, whole: TopicChange) -> Result<Line, Wrong> {
    let topic = topic(&mut words)?;
    end(words)?;
    Ok(change(topic, whole))
}

fn change(topic: Key, change: TopicChange) -> Line {
    let write = Write::Topic(TopicWrite { topic, change });
    Line::command(Command::Write(write), Shape::Line)
}

fn topic(words: &mut Words<'_>) -> Result<Key, Wrong> {
    decode(words.next().ok_or(BAD_FORMAT)?).ok_or(BAD_TOPIC)
}

fn id(words: &mut Words<'_>) -> Result<u64, Wrong> {
    unsigned(words.next().ok_or(BAD_FORMAT)?).ok_or(BAD_NUMBER)
}

/// Whatever follows is one too many.
fn end(mut words: Words<'_>) -> Result<(), Wrong> {
    match words.next() {
        None => Ok(()),
        Some(_) => Err(BAD_FORMAT),
    }
}

/// The one option that a line may end in; 0 if it does not.
fn single_option(
    words: &mut Words<'_>,
    name: &[u8],
    range: &RangeInclusive<u64>,
) -> Result<u32, Wrong> {
    let number = match words.next().map(option) {
        None => 0,
        Some(Some((found, number))) if found == name => within(number, range)?,
        Some(_) => return Err(BAD_OPTION),
    };
    end(*words)?;
    Ok(number)
}

/// `<name>=<value>`.
fn option(word: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b'=', word)?;
    let (name, value) = word.split_at(at);
    Some((name, value.get(1..)?))
}

fn within(word: &[u8], range: &RangeInclusive<u64>) -> Result<u32, Wrong> {
    let number = unsigned(word).filter(|number| range.contains(number));
    number
        .and_then(|number| u32::try_from(number).ok())
        .ok_or(BAD_NUMBER)
}
