//! What the parser yields, and the form that its reply must take.

use bytes::Bytes;
use command::{Command, Stats, Write};

use crate::Dump;

/// One request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// For the evaluator. Its outcome is written in the form of `shape`.
    Command { command: Command, shape: Shape },
    /// Needs no store: these bytes are the whole reply, in its place among the others. Empty when
    /// the client wants none.
    Answer(&'static str),
    /// Close the connection once all earlier replies are written. The parser is at its end.
    Close,
}

/// The form that the reply to a command must take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One line that says what became of it.
    Line,
    /// `noreply`: nothing, whatever became of it.
    Silent,
    /// `get gat`: `VALUE` lines, `END`.
    Values,
    /// `gets gats`: `VALUE` lines with the unique, `END`.
    ValuesWithUnique,
    /// `stats`: `STAT` lines, `END`; or `RESET`.
    Stats(Stats),
    /// A list of all keys, which the server gives.
    Dump(Dump),
    /// A meta command's line.
    Meta(MetaShape),
    /// `pop reserve peek`: a `MESSAGE` line and its data block, or one line.
    Message(MessageShape),
    /// `topics`: `TOPIC` lines, `END`.
    Topics,
}

/// What the line of a message repeats and shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageShape {
    /// As it was sent.
    pub topic: Bytes,
    pub shows_deliveries: bool,
    /// The command may wait for a message. What follows it on the connection waits with it.
    pub waits: bool,
}

/// What the reply to a meta command repeats and shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaShape {
    pub command: MetaCommand,
    /// As it was sent.
    pub key: Bytes,
    /// The flags of the line, as they were sent.
    pub flags: Bytes,
}

/// Which meta command it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaCommand {
    /// `mg`.
    Get,
    /// `ms`.
    Set,
    /// `md`.
    Delete,
    /// `ma`.
    Arithmetic,
    /// `me`.
    Inspect,
}

/// What one line came to.
#[derive(Debug)]
pub(crate) enum Line {
    /// A whole request.
    Request(Request),
    /// The value is still to come.
    Block(Block),
    /// Answered at once, and a data block is passed over unread, so that no value is ever read as
    /// a command.
    Skip {
        answer: &'static str,
        block_bytes: u64,
        /// That is why.
        is_too_large: bool,
    },
}

/// A storage command that waits for its data block.
#[derive(Debug)]
pub(crate) struct Block {
    /// `Store`, `MetaSet` or a push, complete but for its value.
    pub(crate) write: Write,
    /// Without the `\r\n` that ends the block.
    pub(crate) value_bytes: usize,
    pub(crate) shape: Shape,
}

impl Line {
    /// The line is answered with `text`, whatever follows.
    pub(crate) fn answer(text: &'static str) -> Line {
        Line::Request(Request::Answer(text))
    }

    /// The line is answered with `text` unless the client wants no reply.
    pub(crate) fn answer_unless(silent: bool, text: &'static str) -> Line {
        Line::answer(if silent { "" } else { text })
    }

    /// The line is a whole command.
    pub(crate) fn command(command: Command, shape: Shape) -> Line {
        Line::Request(Request::Command { command, shape })
    }
}
