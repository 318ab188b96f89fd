//! The classic commands' lines to commands: storage, retrieval, `delete incr decr touch
//! flush_all`. The order in which the parts of a line are looked at decides which error line is
//! sent, and is memcached's.

use bytes::Bytes;
use command::{
    Command, Direction, Exptime, ITEM_OVERHEAD_BYTES, Key, Keys, KeysBuilder, Read, Store,
    StoreMode, Write,
};

use crate::Limits;
use crate::request::{Block, Line, Shape};
use crate::words::{Words, exptime, is_key, signed, unsigned};

pub(crate) const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format\r\n";
pub(crate) const BAD_DATA_CHUNK: &str = "CLIENT_ERROR bad data chunk\r\n";
pub(crate) const TOO_LARGE: &str = "SERVER_ERROR object too large for cache\r\n";
const INVALID_DELTA: &str = "CLIENT_ERROR invalid numeric delta argument\r\n";
const INVALID_EXPTIME: &str = "CLIENT_ERROR invalid exptime argument\r\n";
const DELETE_USAGE: &str =
    "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n";

/// The longest value that a line can announce, as memcached has it.
const ANNOUNCED_BYTES_MAX: i64 = 2_147_483_645;

/// Reads the rest of a line that begins with `name`; `None` when that is no command of here.
pub(crate) fn line(name: &[u8], words: Words<'_>, limits: &Limits) -> Option<Line> {
    let line = match name {
        b"get" => get(words, Shape::Values),
        b"gets" => get(words, Shape::ValuesWithUnique),
        b"set" => store(StoreMode::Set, words, limits),
        b"add" => store(StoreMode::Add, words, limits),
        b"replace" => store(StoreMode::Replace, words, limits),
        b"append" => store(StoreMode::Append, words, limits),
        b"prepend" => store(StoreMode::Prepend, words, limits),
        b"cas" => store(StoreMode::Cas(0), words, limits),
        b"incr" => arithmetic(Direction::Increment, words),
        b"decr" => arithmetic(Direction::Decrement, words),
        b"delete" => delete(words),
        b"touch" => touch(words),
        b"gat" => get_and_touch(words, Shape::Values),
        b"gats" => get_and_touch(words, Shape::ValuesWithUnique),
        b"flush_all" => flush_all(words),
        _ => return None,
    };
    Some(line)
}

/// The length of a data block that a word announces, without its `\r\n`; `None` when it can't be
/// told, and what follows is then a command.
pub(crate) fn block_length(word: &[u8]) -> Option<usize> {
    signed(word)
        .filter(|bytes| (0..=ANNOUNCED_BYTES_MAX).contains(bytes))
        .and_then(|bytes| usize::try_from(bytes).ok())
}

/// Answers `answer` and passes over a data block of that length.
pub(crate) fn skip_block(answer: &'static str, value_bytes: usize) -> Line {
    Line::Skip {
        answer,
        block_bytes: value_bytes as u64 + 2,
    }
}

/// `<key> <flags> <exptime> <bytes> [noreply]`, for `cas` with a unique before `noreply`. Once the
/// length is known the data block is taken off, whatever is wrong with the rest.
fn store(mode: StoreMode, mut words: Words<'_>, limits: &Limits) -> Line {
    let Some(key) = words.next() else {
        return Line::answer(BAD_FORMAT);
    };
    let silent = words.end_in_noreply();
    let (Some(flags), Some(time), Some(length)) = (words.next(), words.next(), words.next()) else {
        return Line::answer_unless(silent, BAD_FORMAT);
    };
    let Some(value_bytes) = block_length(length) else {
        return Line::answer_unless(silent, BAD_FORMAT);
    };
    let mode = match mode {
        StoreMode::Cas(_) => words.next().and_then(unsigned).map(StoreMode::Cas),
        other => Some(other),
    };
    // memcached keeps the low 32 bits of flags that are longer.
    let flags = unsigned(flags).map(|flags| flags as u32);
    let (Some(key), Some(flags), Some(exptime), Some(mode)) =
        (words.key(key), flags, exptime(time), mode)
    else {
        return skip_block(if silent { "" } else { BAD_FORMAT }, value_bytes);
    };
    if item_bytes(&key, value_bytes) > limits.item_bytes_max {
        return skip_block(if silent { "" } else { TOO_LARGE }, value_bytes);
    }
    Line::Block(Block {
        write: Write::Store(Store {
            mode,
            key,
            flags,
            exptime,
            value: Bytes::new(),
        }),
        value_bytes,
        shape: line_or_silent(silent),
    })
}

/// The size of an item as far as its limit goes. No sum overflows: a key has at most 250 bytes, a
/// value fewer than 2^31.
pub(crate) fn item_bytes(key: &Key, value_bytes: usize) -> usize {
    key.as_bytes().len() + value_bytes + ITEM_OVERHEAD_BYTES
}

/// `<key>+`. One bad key spoils them all.
fn get(words: Words<'_>, shape: Shape) -> Line {
    match many_keys(words) {
        Some(keys) => Line::command(Command::Read(Read::Get { keys }), shape),
        None => Line::answer(BAD_FORMAT),
    }
}

/// `<exptime> <key>+`.
fn get_and_touch(mut words: Words<'_>, shape: Shape) -> Line {
    let Some(time) = words.next() else {
        return Line::answer(BAD_FORMAT);
    };
    if words.clone().next().is_none() {
        return Line::answer(BAD_FORMAT);
    }
    let Some(exptime) = exptime(time) else {
        return Line::answer(INVALID_EXPTIME);
    };
    match keys(words) {
        Some(keys) => Line::command(Command::Write(Write::GetAndTouch { keys, exptime }), shape),
        None => Line::answer(BAD_FORMAT),
    }
}

/// All words as keys in one piece of memory, as `keys` but for their form.
fn many_keys(words: Words<'_>) -> Option<Keys> {
    // A word takes a space before it, a key its length.
    let mut keys = KeysBuilder::with_capacity(words.rest_bytes());
    for word in words {
        if !is_key(word) || !keys.push(word) {
            return None;
        }
    }
    let keys = keys.finish();
    (!keys.is_empty()).then_some(keys)
}

/// All words as keys; `None` when there are none or one of them can't be a key.
fn keys(mut words: Words<'_>) -> Option<Vec<Key>> {
    let first = words.next()?;
    let mut keys = vec![words.key(first)?];
    while let Some(word) = words.next() {
        keys.push(words.key(word)?);
    }
    Some(keys)
}

/// `<key> [0] [noreply]`: a time of 0 is a relic that old clients send.
fn delete(mut words: Words<'_>) -> Line {
    let Some(key) = words.next() else {
        return Line::answer(BAD_FORMAT);
    };
    let silent = words.end_in_noreply();
    let Some(key) = words.key(key) else {
        return Line::answer_unless(silent, BAD_FORMAT);
    };
    match (words.next(), words.next(), words.next()) {
        (None | Some(b"0" | b"noreply"), None, None) | (Some(b"0"), Some(b"noreply"), None) => {
            Line::command(
                Command::Write(Write::Delete { key }),
                line_or_silent(silent),
            )
        }
        _ => Line::answer_unless(silent, DELETE_USAGE),
    }
}

/// `<key> <delta> [noreply]`.
fn arithmetic(direction: Direction, mut words: Words<'_>) -> Line {
    let (Some(key), silent) = (words.next(), words.end_in_noreply()) else {
        return Line::answer(BAD_FORMAT);
    };
    let (Some(key), Some(delta)) = (words.key(key), words.next()) else {
        return Line::answer_unless(silent, BAD_FORMAT);
    };
    let Some(delta) = unsigned(delta) else {
        return Line::answer_unless(silent, INVALID_DELTA);
    };
    let write = Write::Arithmetic {
        key,
        direction,
        delta,
    };
    Line::command(Command::Write(write), line_or_silent(silent))
}

/// `<key> <exptime> [noreply]`.
fn touch(mut words: Words<'_>) -> Line {
    let (Some(key), silent) = (words.next(), words.end_in_noreply()) else {
        return Line::answer(BAD_FORMAT);
    };
    let (Some(key), Some(time)) = (words.key(key), words.next()) else {
        return Line::answer_unless(silent, BAD_FORMAT);
    };
    let Some(exptime) = exptime(time) else {
        return Line::answer_unless(silent, INVALID_EXPTIME);
    };
    Line::command(
        Command::Write(Write::Touch { key, exptime }),
        line_or_silent(silent),
    )
}

/// `[delay] [noreply]`.
fn flush_all(mut words: Words<'_>) -> Line {
    let silent = words.end_in_noreply();
    let delay = match words.next() {
        None => Some(Exptime(0)),
        Some(b"noreply") if words.next().is_none() => Some(Exptime(0)),
        Some(delay) => exptime(delay),
    };
    let Some(delay) = delay else {
        return Line::answer_unless(silent, INVALID_EXPTIME);
    };
    Line::command(
        Command::Write(Write::FlushAll { delay }),
        line_or_silent(silent),
    )
}

fn line_or_silent(silent: bool) -> Shape {
    if silent { Shape::Silent } else { Shape::Line }
}
