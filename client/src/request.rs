//! One request in the form in which it is sent, and what may come back for it.

use bytes::{Buf, Bytes, BytesMut};
use command::{Command, Outcome, Refusal, Reply, StoreMode, Write};
use protocol::Output;
use protocol::client::{self as text, ErrorLine, Expected, ReplyParser};

use crate::topic::{TopicKind, admits, refusal};
use crate::{Address, KeyError};

/// A request, encoded, so that it can be sent again.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    bytes: Bytes,
    expected: Expected,
    kind: Kind,
}

/// What matters of a command beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `version`: any server answers it.
    Version,
    /// `verbosity`: any server answers it.
    Verbosity,
    /// `stats`: any server answers it.
    OfServer,
    Read,
    /// A write that is no storage command.
    Write,
    Set,
    /// `add replace append prepend`.
    Conditional,
    Cas,
    Topic(TopicKind),
}

/// A whole answer to a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// One of the replies to this command.
    Reply(Reply),
    /// The text of a version.
    Version(String),
    /// `OK` to a request that has no command.
    Ok,
    Redirect(Address),
    NoLeader,
    OutOfDisk,
    Unknown,
    /// An error line.
    Refused(String),
}

/// What was received is no answer to what was asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Malformed;

impl Request {
    /// Retrievals ask for uniques.
    pub(crate) fn new(command: &Command) -> Result<Request, KeyError> {
        let kind = match command {
            Command::Write(Write::Store(store)) => match store.mode {
                StoreMode::Set => Kind::Set,
                StoreMode::Cas(_) => Kind::Cas,
                StoreMode::Add | StoreMode::Replace | StoreMode::Append | StoreMode::Prepend => {
                    Kind::Conditional
                }
            },
            Command::Write(Write::Topic(write)) => Kind::Topic(TopicKind::of(&write.change)),
            Command::Write(_) => Kind::Write,
            Command::Read(_) => Kind::Read,
            Command::Stats(_) => Kind::OfServer,
        };
        let mut output = Output::new();
        let expected = text::write_request(command, &mut output).map_err(|error| match error {
            text::RequestError::UnsendableKey { key } => KeyError::of(&key),
            text::RequestError::Meta => unreachable!("the client sends {command:?}"),
        })?;
        let bytes = output.copy_to_bytes(output.remaining());
        Ok(Request {
            bytes,
            expected,
            kind,
        })
    }

    pub(crate) fn version() -> Request {
        Request::line("version", Kind::Version)
    }

    pub(crate) fn verbosity(level: u32) -> Request {
        Request::line(&format!("verbosity {level}"), Kind::Verbosity)
    }

    fn line(line: &str, kind: Kind) -> Request {
        let mut output = Output::new();
        let expected = text::write_line(line, &mut output);
        Request {
            bytes: output.copy_to_bytes(output.remaining()),
            expected,
            kind,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it may be sent again whatever became of it.
    pub(crate) fn changes_nothing(&self) -> bool {
        (self.kind == Kind::Read || !self.needs_leader()) && self.expected != Expected::Reset
    }

    /// Whether only a leader carries it out.
    pub(crate) fn needs_leader(&self) -> bool {
        !matches!(self.kind, Kind::Version | Kind::Verbosity | Kind::OfServer)
    }

    /// Takes the answer to this request off the front of what was received; `None` while it is
    /// not whole.
    pub(crate) fn take_answer(
        &self,
        parser: &mut ReplyParser,
        received: &mut BytesMut,
    ) -> Result<Option<Answer>, Malformed> {
        let answer = parser
            .next(self.expected, received)
            .map_err(|_| Malformed)?;
        match answer {
            None => Ok(None),
            Some(text::Answer::Outcome(Outcome::Done(reply)))
                if let Some(line) = refusal(&reply) =>
            {
                Ok(Some(Answer::Refused(line.to_owned())))
            }
            Some(text::Answer::Outcome(Outcome::Done(reply))) if self.admits(&reply) => {
                Ok(Some(Answer::Reply(reply)))
            }
            Some(text::Answer::Outcome(Outcome::Done(_))) => Err(Malformed),
            Some(text::Answer::Outcome(Outcome::NotDone(refusal))) => Ok(Some(match refusal {
                Refusal::Redirect { host, client_port } => {
                    Answer::Redirect(Address::new(&*host, client_port))
                }
                Refusal::NoLeader => Answer::NoLeader,
                Refusal::OutOfDisk => Answer::OutOfDisk,
            })),
            Some(text::Answer::Outcome(Outcome::Unknown)) => Ok(Some(Answer::Unknown)),
            Some(text::Answer::Text(line)) => match (self.kind, line.strip_prefix("VERSION ")) {
                (Kind::Version, Some(version)) => Ok(Some(Answer::Version(version.to_owned()))),
                (Kind::Verbosity, None) if line == "OK" => Ok(Some(Answer::Ok)),
                _ => Err(Malformed),
            },
            Some(text::Answer::Error(error)) => Ok(Some(Answer::Refused(match error {
                ErrorLine::Unknown => "ERROR".to_owned(),
                ErrorLine::Client(text) => format!("CLIENT_ERROR {text}"),
                ErrorLine::Server(text) => format!("SERVER_ERROR {text}"),
            }))),
        }
    }

    /// Whether this is one of the replies to this very command: the protocol's parser tells only
    /// families apart.
    fn admits(&self, reply: &Reply) -> bool {
        match self.kind {
            Kind::Version | Kind::Verbosity | Kind::OfServer | Kind::Read | Kind::Write => true,
            Kind::Set => matches!(reply, Reply::Stored),
            Kind::Conditional => matches!(reply, Reply::Stored | Reply::NotStored),
            Kind::Topic(change) => admits(change, reply),
            Kind::Cas => matches!(reply, Reply::Stored | Reply::Exists | Reply::NotFound),
        }
    }
}

#[cfg(test)]
mod tests {
    use command::{Exptime, Store};

    use super::*;
    use crate::key;

    fn store(mode: StoreMode) -> Request {
        let store = Store {
            mode,
            key: key("k").unwrap(),
            flags: 7,
            exptime: Exptime(0),
            value: Bytes::from_static(b"a\r\nb"),
        };
        Request::new(&Command::Write(Write::Store(store))).unwrap()
    }

    fn answer(request: &Request, bytes: &str) -> Result<Option<Answer>, Malformed> {
        let mut parser = ReplyParser::new(100);
        request.take_answer(&mut parser, &mut BytesMut::from(bytes))
    }

    #[test]
    fn a_value_may_hold_line_ends() {
        assert_eq!(store(StoreMode::Set).bytes(), b"set k 7 0 4\r\na\r\nb\r\n");
    }

    #[test]
    fn a_reply_to_another_kind_of_command_is_no_answer() {
        let conditional = store(StoreMode::Add);
        let stored = answer(&store(StoreMode::Set), "STORED\r\n");
        assert!(matches!(stored, Ok(Some(Answer::Reply(Reply::Stored)))));
        assert!(answer(&store(StoreMode::Set), "NOT_STORED\r\n").is_err());
        assert!(answer(&conditional, "NOT_STORED\r\n").is_ok());
        assert!(answer(&conditional, "EXISTS\r\n").is_err());
        assert!(answer(&store(StoreMode::Cas(1)), "EXISTS\r\n").is_ok());
        let line = "SERVER_ERROR out of memory storing object";
        let refused = answer(&conditional, &format!("{line}\r\n"));
        assert!(matches!(refused, Ok(Some(Answer::Refused(told))) if told == line));
        assert!(answer(&store(StoreMode::Cas(1)), "NOT_STORED\r\n").is_err());
        assert!(answer(&Request::version(), "HELLO\r\n").is_err());
        assert!(answer(&Request::version(), "OK\r\n").is_err());
        assert!(answer(&Request::verbosity(1), "VERSION 1\r\n").is_err());
    }

    #[test]
    fn error_lines_are_kept_as_they_came() {
        for line in ["ERROR", "CLIENT_ERROR bad data chunk", "SERVER_ERROR full"] {
            let refused = answer(&store(StoreMode::Set), &format!("{line}\r\n"));
            assert!(matches!(refused, Ok(Some(Answer::Refused(text))) if text == line));
        }
    }
}
