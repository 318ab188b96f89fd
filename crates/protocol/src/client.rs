//! The other direction: commands to request bytes, reply bytes to what became of the command.
//!
//! A client keeps, for each command that it has written and that wants a reply, what
//! [`write_request`] gave it, in order, and asks [`ReplyParser::next`] for each in turn. So any
//! number of commands may be under way.

use std::borrow::Cow;
use std::mem;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use command::{
    Command, Hit, Key, KeyValue, Outcome, Read, Refusal, Reply, Stats, Store, TopicCounts, Write,
};
use memchr::memchr;

use crate::Output;
use crate::client_topics::{MessageHead, topic_counts, topic_line, write_peek, write_topic};
use crate::reply::{NO_LEADER, NON_NUMERIC, OUT_OF_DISK, OUT_OF_MEMORY, OUTCOME_UNKNOWN, REDIRECT};
use crate::words::unsigned;

/// The longest line of a reply that is taken, in bytes.
pub const REPLY_LINE_BYTES_MAX: usize = 8192;

/// The answer that a written request will have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// `set add replace append prepend cas`.
    Stored,
    Deleted,
    /// `incr decr`.
    Number,
    Touched,
    /// `flush_all`, `cache_memlimit`.
    Ok,
    /// `get gets gat gats`.
    Hits,
    Stats,
    /// `stats reset`.
    Reset,
    /// A line that says what became of a topic.
    TopicLine,
    /// `pop reserve peek`.
    Message,
    /// `topics`.
    Topics,
    /// Any line that is no error, as it is: `version`, `verbosity`.
    Text,
}

/// A whole reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What became of the command.
    Outcome(Outcome),
    /// The whole line, without its end; for `Expected::Text` alone.
    Text(String),
    /// An error line: the command was not carried out, and would not be if it were sent again.
    Error(ErrorLine),
}

/// An error line, by whose error it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorLine {
    /// `ERROR`: no such command.
    Unknown,
    /// `CLIENT_ERROR`: the text behind it.
    Client(String),
    /// `SERVER_ERROR`: the text behind it.
    Server(String),
}

/// A command that classic lines have no way to say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It has a space, a control character of lines or a NUL in it.
    #[error("a key with a space, NUL, CR or LF in it can't be sent: {}", .key.as_bytes().escape_ascii())]
    UnsendableKey { key: Key },
    /// It is a meta command.
    #[error("a meta command has no classic line")]
    Meta,
}

/// What was received is no reply to what was asked. No later reply of the connection can be
/// trusted, and what became of the commands under way is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    #[error("expected {expected:?}, received the line {line:?}")]
    Unexpected { expected: Expected, line: String },
    #[error("a line of a reply is longer than {bytes_max} bytes")]
    LineTooLong { bytes_max: usize },
    #[error("a value of {bytes} bytes was announced, {bytes_max} are taken")]
    ValueTooLarge { bytes: u64, bytes_max: usize },
    #[error("a value of {bytes} bytes is not followed by CR LF")]
    ValueNotEnded { bytes: usize },
}

/// Appends the request for a command; retrieval asks for uniques too. Large values are not copied.
///
/// # Errors
///
/// Nothing is appended when the command has a key that a line can't hold.
///
/// # Panics
///
/// If it is `Read::Confirm`, which no client sends.
pub fn write_request(command: &Command, output: &mut Output) -> Result<Expected, RequestError> {
    check_keys(command)?;
    let expected = match command {
        Command::Write(write) => write_write(write, output),
        Command::Read(Read::MetaGet(_) | Read::Inspect { .. }) => return Err(RequestError::Meta),
        Command::Read(Read::Get { keys }) => {
            output.append(b"gets");
            append_keys(keys.iter(), output);
            Expected::Hits
        }
        Command::Read(Read::Peek { topic }) => write_peek(topic, output),
        Command::Read(Read::Topics) => {
            output.append(b"topics");
            Expected::Topics
        }
        Command::Read(Read::Confirm) => unreachable!("a server confirms to itself alone"),
        Command::Stats(stats) => write_stats(*stats, output),
    };
    output.append(b"\r\n");
    Ok(expected)
}

/// Appends a request that has no command: `version`, for example, as it is written on the line.
/// Its answer is `Expected::Text`.
pub fn write_line(line: &str, output: &mut Output) -> Expected {
    output.append(line.as_bytes());
    output.append(b"\r\n");
    Expected::Text
}

/// Whether a line can hold all keys that a command names.
fn check_keys(command: &Command) -> Result<(), RequestError> {
    match command {
        Command::Write(write) => match write {
            Write::Store(Store { key, .. })
            | Write::Delete { key }
            | Write::Arithmetic { key, .. }
            | Write::Touch { key, .. } => check_key(key.as_bytes()),
            Write::GetAndTouch { keys, .. } => {
                keys.iter().map(Key::as_bytes).try_for_each(check_key)
            }
            Write::FlushAll { .. } | Write::MemoryLimit { .. } | Write::Topic(_) => Ok(()),
            Write::MetaGet(_)
            | Write::MetaSet(_)
            | Write::MetaDelete(_)
            | Write::MetaArithmetic(_) => Err(RequestError::Meta),
        },
        Command::Read(Read::Get { keys }) => keys.iter().try_for_each(check_key),
        Command::Read(Read::MetaGet(_) | Read::Inspect { .. }) => Err(RequestError::Meta),
        Command::Read(Read::Confirm | Read::Topics | Read::Peek { .. }) | Command::Stats(_) => {
            Ok(())
        }
    }
}

fn check_key(key: &[u8]) -> Result<(), RequestError> {
    let is_sendable = |byte: &u8| !matches!(byte, b' ' | 0 | b'\r' | b'\n');
    if key.iter().all(is_sendable) {
        return Ok(());
    }
    let key = Key::new(Bytes::copy_from_slice(key)).expect("it was a key");
    Err(RequestError::UnsendableKey { key })
}

fn write_write(write: &Write, output: &mut Output) -> Expected {
    match write {
        Write::Store(store) => {
            write_store(store, output);
            Expected::Stored
        }
        Write::Delete { key } => {
            append_words(&[b"delete", key.as_bytes()], output);
            Expected::Deleted
        }
        Write::Arithmetic {
            key,
            direction,
            delta,
        } => {
            append_words(&[direction.name().as_bytes(), key.as_bytes()], output);
            output.append(b" ");
            output.append_number(*delta);
            Expected::Number
        }
        Write::Touch { key, exptime } => {
            append_words(&[b"touch", key.as_bytes()], output);
            append_signed(exptime.0, output);
            Expected::Touched
        }
        Write::GetAndTouch { keys, exptime } => {
            output.append(b"gats");
            append_signed(exptime.0, output);
            append_keys(keys.iter().map(Key::as_bytes), output);
            Expected::Hits
        }
        Write::FlushAll { delay } => {
            output.append(b"flush_all");
            append_signed(delay.0, output);
            Expected::Ok
        }
        Write::MemoryLimit { mib } => {
            output.append(b"cache_memlimit ");
            output.append_number(u64::from(*mib));
            Expected::Ok
        }
        Write::Topic(write) => write_topic(write, output),
        Write::MetaGet(_) | Write::MetaSet(_) | Write::MetaDelete(_) | Write::MetaArithmetic(_) => {
            unreachable!("a meta command was not refused")
        }
    }
}

/// All but the last `\r\n`.
fn write_store(store: &Store, output: &mut Output) {
    let name = store.mode.name();
    append_words(&[name.as_bytes(), store.key.as_bytes()], output);
    output.append(b" ");
    output.append_number(u64::from(store.flags));
    append_signed(store.exptime.0, output);
    output.append(b" ");
    output.append_number(store.value.len() as u64);
    if let Some(unique) = store.mode.unique() {
        output.append(b" ");
        output.append_number(unique);
    }
    output.append(b"\r\n");
    output.append_value(&store.value, || store.value.clone());
}

fn write_stats(stats: Stats, output: &mut Output) -> Expected {
    let (line, expected): (&[u8], _) = match stats {
        Stats::General => (b"stats", Expected::Stats),
        Stats::Settings => (b"stats settings", Expected::Stats),
        Stats::Items => (b"stats items", Expected::Stats),
        Stats::Slabs => (b"stats slabs", Expected::Stats),
        Stats::Conns => (b"stats conns", Expected::Stats),
        Stats::Reset => (b"stats reset", Expected::Reset),
    };
    output.append(line);
    expected
}

fn append_words(words: &[&[u8]; 2], output: &mut Output) {
    let [name, key] = words;
    output.append(name);
    output.append(b" ");
    output.append(key);
}

fn append_keys<'a>(keys: impl Iterator<Item = &'a [u8]>, output: &mut Output) {
    for key in keys {
        output.append(b" ");
        output.append(key);
    }
}

/// A space and the number.
fn append_signed(number: i32, output: &mut Output) {
    output.append(b" ");
    output.append(itoa::Buffer::new().format(number).as_bytes());
}

/// Cuts received bytes into replies.
#[derive(Debug)]
pub struct ReplyParser {
    value_bytes_max: usize,
    /// Bytes at the front of the buffer that are known to hold no `\n`.
    searched: usize,
    /// A hit whose value is still to come.
    head: Option<Head>,
    /// What the reply has had so far.
    hits: Vec<Hit>,
    stats: Vec<(Cow<'static, str>, String)>,
    topics: Vec<TopicCounts>,
    /// A message that is still to come.
    message: Option<(MessageHead, usize)>,
}

impl ReplyParser {
    /// One that takes values up to this length.
    #[must_use]
    pub fn new(value_bytes_max: usize) -> ReplyParser {
        ReplyParser {
            value_bytes_max,
            searched: 0,
            head: None,
            hits: Vec::new(),
            stats: Vec::new(),
            topics: Vec::new(),
            message: None,
        }
    }

    /// Takes the next whole reply off the front of `buffer`; `None` when more bytes must come
    /// first. Until then, call it with the same buffer and the same `expected` again. The
    /// unique of a hit is 0 when it was not asked for.
    ///
    /// # Errors
    ///
    /// The connection is of no more use then.
    pub fn next(
        &mut self,
        expected: Expected,
        buffer: &mut BytesMut,
    ) -> Result<Option<Answer>, ReplyError> {
        loop {
            if let Some(head) = &self.head
                && buffer.len() < head.bytes + 2
            {
                return Ok(None);
            }
            if let Some(head) = self.head.take() {
                self.hits.push(head.with_value(buffer)?);
            }
            if let Some((_, bytes)) = &self.message
                && buffer.len() < bytes + 2
            {
                return Ok(None);
            }
            if let Some((head, bytes)) = self.message.take() {
                let message = head.with(&take_block(bytes, buffer)?);
                return Ok(Some(Answer::Outcome(Outcome::Done(Reply::Message(
                    message,
                )))));
            }
            let Some(line) = self.line(buffer)? else {
                return Ok(None);
            };
            if let Some(answer) = self.answer(expected, &line)? {
                self.hits.clear();
                self.stats.clear();
                self.topics.clear();
                return Ok(Some(answer));
            }
        }
    }

    fn line(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, ReplyError> {
        let unsearched = buffer.get(self.searched..).unwrap_or_default();
        let end = memchr(b'\n', unsearched).map(|at| self.searched + at);
        if end.unwrap_or(buffer.len()) > REPLY_LINE_BYTES_MAX {
            return Err(ReplyError::LineTooLong {
                bytes_max: REPLY_LINE_BYTES_MAX,
            });
        }
        let Some(end) = end else {
            self.searched = buffer.len();
            return Ok(None);
        };
        self.searched = 0;
        let mut line = buffer.split_to(end + 1).freeze();
        line.truncate(end);
        if line.last() == Some(&b'\r') {
            line.truncate(end - 1);
        }
        Ok(Some(line))
    }

    /// What the reply is when this line ends it.
    fn answer(&mut self, expected: Expected, line: &Bytes) -> Result<Option<Answer>, ReplyError> {
        if let Some(answer) = refusal_or_error(expected, line) {
            return Ok(Some(answer));
        }
        let reply = match (expected, &**line) {
            (Expected::Stored, b"STORED") => Reply::Stored,
            (Expected::Stored, b"NOT_STORED") => Reply::NotStored,
            (Expected::Stored, b"EXISTS") => Reply::Exists,
            (Expected::Deleted, b"DELETED") => Reply::Deleted,
            (Expected::Touched, b"TOUCHED") => Reply::Touched,
            (Expected::Ok, b"OK") | (Expected::Reset, b"RESET") => Reply::Ok,
            (
                Expected::Stored | Expected::Deleted | Expected::Number | Expected::Touched,
                b"NOT_FOUND",
            ) => Reply::NotFound,
            (Expected::Number, digits) => match unsigned(digits) {
                Some(number) => Reply::Number(number),
                None => return Err(unexpected(expected, line)),
            },
            (Expected::Hits, b"END") => Reply::Hits(mem::take(&mut self.hits)),
            (Expected::Stats, b"END") => Reply::Stats(mem::take(&mut self.stats)),
            (Expected::Hits, _) => {
                self.head = Some(self.value_line(line)?);
                return Ok(None);
            }
            (Expected::Stats, _) => {
                self.stats.push(stat_line(line)?);
                return Ok(None);
            }
            (Expected::TopicLine, line) => match topic_line(line) {
                Some(reply) => reply,
                None => return Err(unexpected(expected, line)),
            },
            (Expected::Message, b"EMPTY") => Reply::Empty,
            (Expected::Message, b"NOT_FOUND") => Reply::NotFound,
            (Expected::Message, line) => {
                let head = MessageHead::read(line).ok_or_else(|| unexpected(expected, line))?;
                let bytes = self.value_bytes(head.bytes)?;
                self.message = Some((head, bytes));
                return Ok(None);
            }
            (Expected::Topics, b"END") => Reply::Topics(mem::take(&mut self.topics)),
            (Expected::Topics, line) => {
                let counts = topic_counts(line).ok_or_else(|| unexpected(expected, line))?;
                self.topics.push(counts);
                return Ok(None);
            }
            (Expected::Text, text) => return Ok(Some(Answer::Text(lossy(text)))),
            _ => return Err(unexpected(expected, line)),
        };
        Ok(Some(Answer::Outcome(Outcome::Done(reply))))
    }

    /// `VALUE <key> <flags> <bytes> [<unique>]`.
    fn value_line(&self, line: &Bytes) -> Result<Head, ReplyError> {
        let malformed = || unexpected(Expected::Hits, line);
        let mut words = line.split(|byte| *byte == b' ');
        let mut word = || words.next();
        let (Some(b"VALUE"), Some(key), Some(flags), Some(bytes), unique, None) =
            (word(), word(), word(), word(), word(), word())
        else {
            return Err(malformed());
        };
        let number = |word| unsigned(word).ok_or_else(malformed);
        let bytes = number(bytes)?;
        Ok(Head {
            key: Key::new(line.slice_ref(key)).ok_or_else(malformed)?,
            flags: u32::try_from(number(flags)?).map_err(|_| malformed())?,
            unique: unique.map_or(Ok(0), number)?,
            bytes: self.value_bytes(bytes)?,
        })
    }

    /// The length of a value, if it is not too large.
    fn value_bytes(&self, bytes: u64) -> Result<usize, ReplyError> {
        let bytes_max = self.value_bytes_max;
        let fits = usize::try_from(bytes).ok();
        fits.filter(|bytes| *bytes <= bytes_max)
            .ok_or(ReplyError::ValueTooLarge { bytes, bytes_max })
    }
}

/// What a `VALUE` line says.
#[derive(Debug)]
struct Head {
    key: Key,
    flags: u32,
    unique: u64,
    /// The length of the value.
    bytes: usize,
}

impl Head {
    /// The hit with its value, which is at the front of `buffer` as a whole.
    fn with_value(self, buffer: &mut BytesMut) -> Result<Hit, ReplyError> {
        let value = take_block(self.bytes, buffer)?;
        Ok(Hit {
            flags: self.flags,
            unique: self.unique,
            data: KeyValue::new(&self.key, &value),
        })
    }
}

/// A value of this length and its end, which are at the front of `buffer` as a whole.
fn take_block(bytes: usize, buffer: &mut BytesMut) -> Result<BytesMut, ReplyError> {
    let value = buffer.split_to(bytes);
    if !buffer.starts_with(b"\r\n") {
        return Err(ReplyError::ValueNotEnded { bytes });
    }
    buffer.advance(2);
    Ok(value)
}

/// The lines that end any reply.
fn refusal_or_error(expected: Expected, line: &[u8]) -> Option<Answer> {
    if let Some(address) = line.strip_prefix(REDIRECT.as_bytes()) {
        return redirect(address).map(|refusal| Answer::Outcome(Outcome::NotDone(refusal)));
    }
    let outcome = match line {
        _ if line == NO_LEADER.as_bytes() => Outcome::NotDone(Refusal::NoLeader),
        _ if line == OUT_OF_DISK.as_bytes() => Outcome::NotDone(Refusal::OutOfDisk),
        _ if line == OUTCOME_UNKNOWN.as_bytes() => Outcome::Unknown,
        _ if expected == Expected::Number && line == NON_NUMERIC.as_bytes() => {
            Outcome::Done(Reply::NonNumeric)
        }
        _ if stores(expected) && line == OUT_OF_MEMORY.as_bytes() => {
            Outcome::Done(Reply::OutOfMemory)
        }
        _ if expected == Expected::TopicLine && topic_line(line).is_some() => return None,
        _ => return error_line(line).map(Answer::Error),
    };
    Some(Answer::Outcome(outcome))
}

/// Whether a command with such a reply may store an item.
fn stores(expected: Expected) -> bool {
    matches!(expected, Expected::Stored | Expected::Number)
}

fn error_line(line: &[u8]) -> Option<ErrorLine> {
    if line == b"ERROR" || line.starts_with(b"ERROR ") {
        return Some(ErrorLine::Unknown);
    }
    if let Some(text) = line.strip_prefix(b"CLIENT_ERROR ") {
        return Some(ErrorLine::Client(lossy(text)));
    }
    line.strip_prefix(b"SERVER_ERROR ")
        .map(|text| ErrorLine::Server(lossy(text)))
}

/// `<host> <client_port>`.
fn redirect(address: &[u8]) -> Option<Refusal> {
    let (host, port) = std::str::from_utf8(address).ok()?.split_once(' ')?;
    Some(Refusal::Redirect {
        host: Arc::from(host),
        client_port: port.parse().ok()?,
    })
}

/// `STAT <name> <value>`; the value may hold spaces.
fn stat_line(line: &[u8]) -> Result<(Cow<'static, str>, String), ReplyError> {
    let malformed = || unexpected(Expected::Stats, line);
    let text = line.strip_prefix(b"STAT ").ok_or_else(malformed)?;
    let at = memchr(b' ', text).ok_or_else(malformed)?;
    let (name, value) = text.split_at(at);
    let value = value.strip_prefix(b" ").unwrap_or_default();
    Ok((Cow::Owned(lossy(name)), lossy(value)))
}

fn unexpected(expected: Expected, line: &[u8]) -> ReplyError {
    ReplyError::Unexpected {
        expected,
        line: lossy(line),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
