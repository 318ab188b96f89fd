//! The lines of topics (message queues). They are answered `ERROR`; only the data block of `push`
//! is known, and passed over, so that no message is read as a command.

use crate::classic::{block_length, skip_block};
use crate::local::ERROR;
use crate::request::Line;
use crate::words::Words;

/// Reads the rest of a line that begins with `name`; `None` when that is no command of here.
pub(crate) fn line(name: &[u8], words: Words<'_>) -> Option<Line> {
    match name {
        b"push" => Some(push(words)),
        _ => None,
    }
}

/// `<topic> <bytes> [delay=<s>] [priority=<n>] [noreply]`.
fn push(mut words: Words<'_>) -> Line {
    let (_topic, length) = (words.next(), words.next());
    match length.and_then(block_length) {
        Some(value_bytes) => skip_block(ERROR, value_bytes),
        None => Line::answer(ERROR),
    }
}
