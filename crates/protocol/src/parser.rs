//! Whole requests out of a growing buffer.
//!
//! A line is one of the modules' to read (`classic`, `local`, `meta`, `topics`); what is here is
//! where a line ends, where a data block ends, and what is passed over. The same bytes give the
//! same requests however they are split over packets, with one exception that is memcached's own:
//! an over-long line closes the connection when its end is not among the bytes at hand.
//!
//! Memory: a line is bounded by its limit, a value by that of an item; what is too large for an
//! item is dropped as it arrives.

use std::mem;

use bytes::{Buf, Bytes, BytesMut};
use command::{Command, Key, Read, TopicChange, TopicWrite, Write};
use memchr::memchr;

use crate::request::{Block, Line, Request, Shape};
use crate::words::Words;
use crate::{Limits, classic, local, meta, topics};

/// Cuts received bytes into requests.
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    state: State,
    /// All bytes taken out of the buffer so far: the place in the stream where the buffer begins.
    consumed: u64,
    /// Where in the stream the request that is being read begins.
    start: u64,
    /// Storage commands whose item would have been over the limit.
    too_large: u64,
}

/// One request, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// How many bytes of the connection came before its first one.
    pub start: u64,
    /// What it takes to hold, in bytes: of a `get` its keys; of others their line and value, and
    /// each key's place in a list.
    pub bytes: usize,
    pub request: Request,
}

/// What the next byte of the buffer is.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each connection, and a `set` takes no allocation but its value's"
)]
enum State {
    /// The first of a line, of which this many bytes are known to hold no `\n`.
    Line { searched: usize },
    /// The first of a data block that is wanted.
    Block(Block),
    /// The next of a data block that is passed over, with this many to go.
    Skip { bytes: u64 },
    /// Of no interest any more.
    Closed,
}

/// What a look for the end of a line came to.
enum EndOfLine {
    Found(Bytes),
    NotYet { searched: usize },
    TooLong,
}

impl Parser {
    #[must_use]
    pub fn new(limits: Limits) -> Parser {
        Parser {
            limits,
            state: State::Line { searched: 0 },
            consumed: 0,
            start: 0,
            too_large: 0,
        }
    }

    /// Takes the next whole request out of the front of `buffer`; `None` when more bytes must come
    /// first, or never will matter again. Always call it with the same buffer, to whose end alone
    /// anything may be added.
    ///
    /// The request's key and value are slices of `buffer`.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Option<Parsed> {
        loop {
            match &mut self.state {
                State::Line { searched } => {
                    let searched = *searched;
                    if searched == 0 {
                        self.start = self.consumed;
                    }
                    match self.end_of_line(buffer, searched) {
                        EndOfLine::Found(line) => {
                            if let Some(request) = self.line(&line) {
                                return Some(self.parsed(request));
                            }
                        }
                        EndOfLine::NotYet { searched } => {
                            self.state = State::Line { searched };
                            return None;
                        }
                        EndOfLine::TooLong => {
                            self.state = State::Closed;
                            return Some(self.parsed(Request::Close));
                        }
                    }
                }
                State::Block(block) => {
                    if buffer.len() < block.bytes() {
                        return None;
                    }
                    let state = mem::replace(&mut self.state, State::Line { searched: 0 });
                    let State::Block(block) = state else {
                        unreachable!("the state was a data block");
                    };
                    self.consumed += block.bytes() as u64;
                    let request = block.complete(buffer);
                    return Some(self.parsed(request));
                }
                State::Skip { bytes } => {
                    let at_hand = (*bytes).min(buffer.len() as u64);
                    buffer.advance(at_hand as usize);
                    self.consumed += at_hand;
                    *bytes -= at_hand;
                    if *bytes > 0 {
                        return None;
                    }
                    self.state = State::Line { searched: 0 };
                }
                State::Closed => {
                    self.consumed += buffer.len() as u64;
                    buffer.clear();
                    return None;
                }
            }
        }
    }

    /// All bytes taken out of the buffer so far.
    #[must_use]
    pub fn consumed_bytes(&self) -> u64 {
        self.consumed
    }

    /// How many storage commands were refused so far since their item would have been too large.
    #[must_use]
    pub fn too_large(&self) -> u64 {
        self.too_large
    }

    /// How long the buffer must be for the data block that is being received; 0 when there is
    /// none or it is not kept.
    #[must_use]
    pub fn awaited_bytes(&self) -> usize {
        match &self.state {
            State::Block(block) => block.bytes(),
            _ => 0,
        }
    }

    /// Whether a line is behind it whose data block is not. (A line that has no end yet is in the
    /// buffer.)
    #[must_use]
    pub fn is_inside_data_block(&self) -> bool {
        matches!(self.state, State::Block(_) | State::Skip { .. })
    }

    fn end_of_line(&mut self, buffer: &mut BytesMut, searched: usize) -> EndOfLine {
        let unsearched = buffer.get(searched..).unwrap_or_default();
        let Some(at) = memchr(b'\n', unsearched) else {
            let bytes_max = match buffer.starts_with(b"get ") || buffer.starts_with(b"gets ") {
                true => self.limits.get_line_bytes_max,
                false => self.limits.line_bytes_max,
            };
            return match buffer.len() > bytes_max {
                true => EndOfLine::TooLong,
                false => EndOfLine::NotYet {
                    searched: buffer.len(),
                },
            };
        };
        let end = searched + at;
        if end > self.limits.get_line_bytes_max {
            return EndOfLine::TooLong;
        }
        let mut line = buffer.split_to(end + 1).freeze();
        self.consumed += line.len() as u64;
        line.truncate(end);
        if line.last() == Some(&b'\r') {
            line.truncate(end - 1);
        }
        EndOfLine::Found(line)
    }

    /// Reads a whole line; `None` when its data block must come first.
    fn line(&mut self, line: &Bytes) -> Option<Request> {
        self.state = State::Line { searched: 0 };
        match dispatch(line, &self.limits) {
            Line::Request(request) => {
                if request == Request::Close {
                    self.state = State::Closed;
                }
                Some(request)
            }
            Line::Block(block) => {
                self.state = State::Block(block);
                None
            }
            Line::Skip {
                answer,
                block_bytes,
                is_too_large,
            } => {
                self.too_large += u64::from(is_too_large);
                self.state = State::Skip { bytes: block_bytes };
                Some(Request::Answer(answer))
            }
        }
    }

    fn parsed(&self, request: Request) -> Parsed {
        let received = (self.consumed - self.start) as usize;
        let bytes = match &request {
            Request::Command { command, .. } => held_bytes(command, received),
            Request::Answer(_) | Request::Close => received,
        };
        Parsed {
            start: self.start,
            bytes,
            request,
        }
    }
}

/// What ends a data block, and is not counted in its length.
const BLOCK_END: &[u8] = b"\r\n";

impl Block {
    /// The length of the data block with its end.
    fn bytes(&self) -> usize {
        self.value_bytes + BLOCK_END.len()
    }

    /// Takes the data block off the front of `buffer`, which holds all of it. What is no block of
    /// the announced length is taken all the same; what follows is read as a line.
    fn complete(mut self, buffer: &mut BytesMut) -> Request {
        if buffer.get(self.value_bytes..self.bytes()) != Some(BLOCK_END) {
            buffer.advance(self.bytes());
            return Request::Answer(match self.shape {
                Shape::Silent => "",
                _ => classic::BAD_DATA_CHUNK,
            });
        }
        let value = buffer.split_to(self.value_bytes).freeze();
        buffer.advance(BLOCK_END.len());
        match &mut self.write {
            Write::Store(store) => store.value = value,
            Write::MetaSet(set) => set.store.value = value,
            Write::Topic(TopicWrite {
                change: TopicChange::Push { message, .. },
                ..
            }) => *message = value,
            other => unreachable!("{other:?} has no data block"),
        }
        Request::Command {
            command: Command::Write(self.write),
            shape: self.shape,
        }
    }
}

/// Reads a line, without its end.
fn dispatch(line: &Bytes, limits: &Limits) -> Line {
    match line.first() {
        None => return Line::answer(classic::BAD_FORMAT),
        Some(b' ') => return Line::answer(local::ERROR),
        Some(_) => {}
    }
    let mut words = Words::new(line);
    let name = words.next().unwrap_or_default();
    classic::line(name, words, limits)
        .or_else(|| local::line(name, words))
        .or_else(|| meta::line(name, words, limits))
        .or_else(|| topics::line(name, words, limits))
        .unwrap_or_else(|| unknown(line))
}

/// A line whose first word is no command. One that ends as the first line of an HTTP request does
/// comes from a browser that someone has tricked into it: none of what follows may be read.
fn unknown(line: &Bytes) -> Line {
    match Words::new(line).last() {
        Some(word) if word.starts_with(b"HTTP/") => Line::Request(Request::Close),
        _ => Line::answer(local::ERROR),
    }
}

/// What a command of so many bytes takes to hold. Most share what was received; a `get` has a copy
/// of its keys, and the line is let go.
fn held_bytes(command: &Command, received: usize) -> usize {
    match command {
        Command::Read(Read::Get { keys }) => keys.held_bytes(),
        Command::Write(Write::GetAndTouch { keys, .. }) => received + keys.len() * size_of::<Key>(),
        _ => received,
    }
}
