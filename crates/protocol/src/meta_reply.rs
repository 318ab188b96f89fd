//! Replies to meta commands: a code of two letters, and the flags that were asked for, in their
//! order.

use command::{ITEM_MEMORY_BYTES, MetaHit, Reply};

use crate::Output;
use crate::reply::{NON_NUMERIC, OUT_OF_MEMORY};
use crate::request::{MetaCommand, MetaShape};
use crate::words::{Words, unsigned};

/// Appends what a meta command is answered. In quiet mode there is no line for what was to be
/// expected: a miss of `mg`, success of the others.
///
/// # Panics
///
/// When the reply is none that the command can have.
pub(crate) fn write_meta_reply(reply: &Reply, shape: &MetaShape, output: &mut Output) {
    let is_quiet = shape.has(b'q');
    match (shape.command, reply) {
        (MetaCommand::Get, Reply::NotFound) if is_quiet => {}
        (MetaCommand::Get, Reply::NotFound) => write_code(b"EN", shape, output),
        (MetaCommand::Inspect, Reply::NotFound) => output.append(b"EN\r\n"),
        (MetaCommand::Get, Reply::MetaHit(hit)) => write_get(hit, shape, output),
        (MetaCommand::Inspect, Reply::MetaHit(hit)) => write_inspect(hit, shape, output),
        (_, Reply::NotFound) => write_code(b"NF", shape, output),
        (_, Reply::NotStored) => write_code(b"NS", shape, output),
        (_, Reply::Exists) => write_code(b"EX", shape, output),
        (_, Reply::Deleted | Reply::MetaHit(_)) if is_quiet => {}
        (_, Reply::Deleted) => write_code(b"HD", shape, output),
        (MetaCommand::Set, Reply::MetaHit(hit)) => write_set(hit, shape, output),
        (_, Reply::MetaHit(hit)) => write_arithmetic(hit, shape, output),
        (_, Reply::NonNumeric) => {
            output.append(NON_NUMERIC.as_bytes());
            output.append(b"\r\n");
        }
        (_, Reply::OutOfMemory) => {
            output.append(OUT_OF_MEMORY.as_bytes());
            output.append(b"\r\n");
        }
        (_, Reply::LowUnique) => output.append(crate::meta::BAD_TOKEN.as_bytes()),
        (command, reply) => unreachable!("{reply:?} to {command:?}"),
    }
}

/// A line with the flags that only repeat what the client has sent.
fn write_code(code: &[u8], shape: &MetaShape, output: &mut Output) {
    output.append(code);
    for flag in shape.flags() {
        write_repeated(flag, shape, output);
    }
    output.append(b"\r\n");
}

fn write_repeated(flag: &[u8], shape: &MetaShape, output: &mut Output) {
    match flag.first() {
        Some(b'k') => {
            output.append(b" k");
            output.append(&shape.key);
            if shape.has(b'b') {
                output.append(b" b");
            }
        }
        Some(b'O') => {
            output.append(b" ");
            output.append(flag);
        }
        _ => {}
    }
}

fn write_get(hit: &MetaHit, shape: &MetaShape, output: &mut Output) {
    // The client has this value already.
    let is_known = shape.token(b'C').and_then(unsigned) == Some(hit.data.about().unique);
    let shows_value = shape.has(b'v') && !is_known;
    if shows_value {
        output.append(b"VA ");
        output.append_number(hit.data.value().len() as u64);
    } else {
        output.append(b"HD");
    }
    write_shown(hit, shape, output);
    for (letter, is_so) in [
        (b" Z", hit.token_sent),
        (b" X", hit.stale),
        (b" W", hit.won),
    ] {
        if is_so {
            output.append(letter);
        }
    }
    output.append(b"\r\n");
    if shows_value {
        output.append_value(hit.data.value(), || hit.data.share_value());
        output.append(b"\r\n");
    }
}

/// The flags of a hit.
fn write_shown(hit: &MetaHit, shape: &MetaShape, output: &mut Output) {
    let about = hit.data.about();
    // A time that is asked for before it is set is the old one.
    let mut left = hit.left_before;
    for flag in shape.flags() {
        let mut show = |letter: &[u8], number: u64| {
            output.append(letter);
            output.append_number(number);
        };
        match flag.first() {
            Some(b'T' | b'N') => left = hit.left,
            Some(b't') => match left {
                Some(seconds) => show(b" t", u64::from(seconds)),
                None => output.append(b" t-1"),
            },
            Some(b'c') => show(b" c", about.unique),
            Some(b'f') => show(b" f", u64::from(about.flags)),
            Some(b'h') => show(b" h", u64::from(hit.was_fetched)),
            Some(b'l') => show(b" l", u64::from(hit.idle_seconds)),
            Some(b's') => show(b" s", hit.data.value().len() as u64),
            _ => write_repeated(flag, shape, output),
        }
    }
}

fn write_set(hit: &MetaHit, shape: &MetaShape, output: &mut Output) {
    output.append(b"HD");
    for flag in shape.flags() {
        match flag.first() {
            Some(b'c') => {
                output.append(b" c");
                output.append_number(hit.data.about().unique);
            }
            Some(b's') => {
                output.append(b" s");
                output.append_number(hit.data.value().len() as u64);
            }
            _ => write_repeated(flag, shape, output),
        }
    }
    output.append(b"\r\n");
}

fn write_arithmetic(hit: &MetaHit, shape: &MetaShape, output: &mut Output) {
    let mut buffer = itoa::Buffer::new();
    let number = buffer.format(hit.number.unwrap_or_default()).as_bytes();
    let shows_value = shape.has(b'v');
    if shows_value {
        output.append(b"VA ");
        output.append_number(number.len() as u64);
    } else {
        output.append(b"HD");
    }
    let mut left = hit.left_before;
    for flag in shape.flags() {
        match (flag.first(), left) {
            (Some(b'T'), _) => left = hit.left,
            (Some(b't'), None) => output.append(b" t-1"),
            (Some(b't'), Some(seconds)) => {
                output.append(b" t");
                output.append_number(u64::from(seconds));
            }
            (Some(b'c'), _) => {
                output.append(b" c");
                output.append_number(hit.data.about().unique);
            }
            _ => write_repeated(flag, shape, output),
        }
    }
    output.append(b"\r\n");
    if shows_value {
        output.append(number);
        output.append(b"\r\n");
    }
}

/// `me`: all items are of one made-up class.
fn write_inspect(hit: &MetaHit, shape: &MetaShape, output: &mut Output) {
    output.append(b"ME ");
    output.append(&shape.key);
    match hit.left {
        None => output.append(b" exp=-1"),
        Some(seconds) => {
            output.append(b" exp=");
            output.append_number(u64::from(seconds));
        }
    }
    output.append(b" la=");
    output.append_number(u64::from(hit.idle_seconds));
    output.append(b" cas=");
    output.append_number(hit.data.about().unique);
    let fetch = match hit.was_fetched {
        true => " fetch=yes",
        false => " fetch=no",
    };
    output.append(fetch.as_bytes());
    output.append(b" cls=1 size=");
    output.append_number((hit.data.bytes() + ITEM_MEMORY_BYTES) as u64);
    output.append(b"\r\n");
}

impl MetaShape {
    fn flags(&self) -> Words<'_> {
        Words::new(&self.flags)
    }

    /// Whether a flag with this letter stands there.
    fn has(&self, letter: u8) -> bool {
        self.token(letter).is_some()
    }

    /// What stands behind a flag's letter.
    fn token(&self, letter: u8) -> Option<&[u8]> {
        let mut flags = self.flags();
        flags.find_map(|flag| flag.strip_prefix(&[letter]))
    }
}
