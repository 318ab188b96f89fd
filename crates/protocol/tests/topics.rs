//! Topics on the line: what is read as which command, what is written for which outcome, and that
//! both are understood at the other end.

use bytes::{Buf, Bytes, BytesMut};
use command::{
    Command, Key, Message, MessageBytes, MessageCounts, Outcome, Read, Reply, Take, TopicChange,
    TopicCounts, TopicSettings, TopicWrite, Write,
};
use proptest::prelude::*;
use quorate_protocol::client::{Answer, Expected, ReplyParser, write_request};
use quorate_protocol::{
    Limits, MessageShape, Output, Parser, Request, Session, Shape, write_reply,
};

const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format";
const BAD_TOPIC: &str = "CLIENT_ERROR bad topic name";
const BAD_SETTING: &str = "CLIENT_ERROR bad topic setting";
const BAD_OPTION: &str = "CLIENT_ERROR bad option";
const BAD_NUMBER: &str = "CLIENT_ERROR invalid numeric argument";
const TOO_LARGE: &str = "SERVER_ERROR object too large for cache";

fn name(text: &[u8]) -> Key {
    Key::new(Bytes::copy_from_slice(text)).expect("a short name")
}

fn change(topic: &str, change: TopicChange) -> Command {
    let topic = name(topic.as_bytes());
    Command::Write(Write::Topic(TopicWrite { topic, change }))
}

fn push(topic: &str, message: &'static str, priority: u32, delay: u32) -> Command {
    let message = Bytes::from_static(message.as_bytes());
    let push = TopicChange::Push {
        message,
        priority,
        delay,
    };
    change(topic, push)
}

/// The one request in these bytes.
fn request(input: &[u8]) -> Request {
    let mut buffer = BytesMut::from(input);
    let mut parser = Parser::new(Limits::default());
    let parsed = parser.next(&mut buffer);
    assert_eq!(
        parser.next(&mut buffer),
        None,
        "after {}",
        input.escape_ascii()
    );
    assert!(buffer.is_empty(), "{} leaves bytes", input.escape_ascii());
    parsed
        .unwrap_or_else(|| panic!("{} is no request", input.escape_ascii()))
        .request
}

#[test]
fn every_line_is_read_as_its_command() {
    let settings = TopicSettings {
        max_length: 5,
        max_bytes: u64::MAX,
        max_age: 60,
        max_deliveries: 3,
    };
    let take = |ttr, wait| TopicChange::Take(Take { ttr, wait });
    let cases = [
        (
            "topic t",
            change("t", TopicChange::Create(TopicSettings::default())),
        ),
        (
            "topic t max_length=5 max_bytes=18446744073709551615 max_age=60 max_deliveries=3",
            change("t", TopicChange::Create(settings)),
        ),
        ("push a%20b 2\r\nhi", push("a b", "hi", 0, 0)),
        ("push t 0\r\n", push("t", "", 0, 0)),
        ("push t 2 delay=7 priority=9\r\nhi", push("t", "hi", 9, 7)),
        (
            "push t 2 priority=4294967295 noreply\r\nhi",
            push("t", "hi", u32::MAX, 0),
        ),
        ("pop t", change("t", take(None, 0))),
        ("pop t wait=86400", change("t", take(None, 86_400))),
        ("reserve t 30", change("t", take(Some(30), 0))),
        ("reserve t 30 wait=5", change("t", take(Some(30), 5))),
        ("ack t 7", change("t", TopicChange::Ack { id: 7 })),
        (
            "nack t 7",
            change("t", TopicChange::Nack { id: 7, delay: 0 }),
        ),
        (
            "nack t 7 delay=60",
            change("t", TopicChange::Nack { id: 7, delay: 60 }),
        ),
        (
            "extend t 7 60",
            change("t", TopicChange::Extend { id: 7, ttr: 60 }),
        ),
        ("kick t 5", change("t", TopicChange::Kick { count: 5 })),
        ("purge t", change("t", TopicChange::Purge)),
        ("drop t", change("t", TopicChange::Drop)),
        ("topics", Command::Read(Read::Topics)),
        ("peek t", Command::Read(Read::Peek { topic: name(b"t") })),
    ];
    for (line, expected) in cases {
        match request(format!("{line}\r\n").as_bytes()) {
            Request::Command { command, shape } => {
                assert_eq!(command, expected, "{line}");
                let is_silent = shape == Shape::Silent;
                assert_eq!(is_silent, line.contains("noreply"), "{line}");
                let waits = matches!(shape, Shape::Message(shape) if shape.waits);
                assert_eq!(waits, line.contains("wait="), "{line}");
            }
            other => panic!("{line} is read as {other:?}"),
        }
    }
}

#[test]
fn a_wrong_line_is_answered_with_what_is_wrong_and_its_block_is_taken_off() {
    let long = format!("push {} 2\r\nhi\r\n", "a".repeat(251));
    let cases = [
        ("topic\r\n", BAD_FORMAT),
        ("topic %\r\n", BAD_TOPIC),
        ("topic t max_length\r\n", BAD_SETTING),
        ("topic t colour=red\r\n", BAD_SETTING),
        ("topic t max_length=many\r\n", BAD_NUMBER),
        ("topic t max_length=-1\r\n", BAD_NUMBER),
        ("topic t max_age=2147483648\r\n", BAD_NUMBER),
        ("topic t max_deliveries=4294967296\r\n", BAD_NUMBER),
        ("push\r\n", BAD_FORMAT),
        ("push t\r\n", BAD_FORMAT),
        ("push t two\r\n", BAD_FORMAT),
        ("push t -1\r\n", BAD_FORMAT),
        ("push % 6\r\nquit\r\n\r\n", BAD_TOPIC),
        (long.as_str(), BAD_TOPIC),
        ("push t 6 delay=x\r\nquit\r\n\r\n", BAD_NUMBER),
        ("push t 6 delay=2147483648\r\nquit\r\n\r\n", BAD_NUMBER),
        ("push t 6 priority=4294967296\r\nquit\r\n\r\n", BAD_NUMBER),
        ("push t 6 colour=red\r\nquit\r\n\r\n", BAD_OPTION),
        ("push t 6 noreply x\r\nquit\r\n\r\n", BAD_OPTION),
        ("push t 4\r\nquit!!", "CLIENT_ERROR bad data chunk"),
        ("topics x\r\n", BAD_FORMAT),
        ("topic t max_age=1 max_age=1\r\n", BAD_SETTING),
        ("push t 6 delay=1 delay=1\r\nquit\r\n\r\n", BAD_OPTION),
        ("pop\r\n", BAD_FORMAT),
        ("pop %\r\n", BAD_TOPIC),
        ("pop t 5\r\n", BAD_OPTION),
        ("pop t wait=\r\n", BAD_NUMBER),
        ("pop t wait=86401\r\n", BAD_NUMBER),
        ("pop t wait=1 wait=1\r\n", BAD_FORMAT),
        ("reserve t\r\n", BAD_FORMAT),
        ("reserve t 0\r\n", BAD_NUMBER),
        ("reserve t 2147483648\r\n", BAD_NUMBER),
        ("reserve t wait=5\r\n", BAD_NUMBER),
        ("ack t\r\n", BAD_FORMAT),
        ("ack t x\r\n", BAD_NUMBER),
        ("ack t 1 2\r\n", BAD_FORMAT),
        ("nack t 1 wait=5\r\n", BAD_OPTION),
        ("extend t 1\r\n", BAD_FORMAT),
        ("extend t 1 0\r\n", BAD_NUMBER),
        ("kick t\r\n", BAD_FORMAT),
        ("kick t all\r\n", BAD_NUMBER),
        ("peek t t\r\n", BAD_FORMAT),
        ("purge\r\n", BAD_FORMAT),
        ("drop t now\r\n", BAD_FORMAT),
    ];
    for (line, expected) in cases {
        match request(line.as_bytes()) {
            Request::Answer(answer) => assert_eq!(answer, format!("{expected}\r\n"), "{line}"),
            other => panic!("{line} is read as {other:?}"),
        }
    }
}

#[test]
fn a_message_over_the_limit_of_a_value_is_passed_over() {
    let fits = (1 << 20) - 56 - 1;
    for (bytes, is_taken) in [(fits, true), (fits + 1, false)] {
        let mut line = format!("push t {bytes}\r\n").into_bytes();
        line.resize(line.len() + bytes, b'x');
        line.extend_from_slice(b"\r\n");
        match request(&line) {
            Request::Command { .. } => assert!(is_taken, "{bytes} bytes"),
            other => {
                assert!(!is_taken, "{bytes} bytes");
                assert_eq!(
                    other,
                    Request::Answer("SERVER_ERROR object too large for cache\r\n")
                );
            }
        }
    }
    let silent = request(b"push t 6 delay=x noreply\r\nquit\r\n\r\n");
    assert_eq!(silent, Request::Answer(""));
    assert!(TOO_LARGE.starts_with("SERVER_ERROR"));
}

fn reply_bytes(outcome: &Outcome, shape: &Shape) -> Bytes {
    let mut output = Output::new();
    write_reply(outcome, shape, &[], &mut output);
    output.copy_to_bytes(output.remaining())
}

fn message_shape(shows_deliveries: bool) -> Shape {
    Shape::Message(MessageShape {
        topic: Bytes::from_static(b"my%20jobs"),
        shows_deliveries,
        waits: false,
    })
}

#[test]
fn every_outcome_has_its_line() {
    let message = Message {
        id: 7,
        deliveries: 2,
        data: MessageBytes::new(b"x\r\ny"),
    };
    let counts = TopicCounts {
        topic: name(b"my jobs"),
        counts: MessageCounts {
            ready: 1,
            reserved: 2,
            delayed: 3,
            dead: 4,
        },
    };
    let cases = [
        (Reply::Created, Shape::Line, "CREATED\r\n"),
        (Reply::Exists, Shape::Line, "EXISTS\r\n"),
        (
            Reply::TooManyTopics,
            Shape::Line,
            "SERVER_ERROR too many topics\r\n",
        ),
        (Reply::Pushed(12), Shape::Line, "PUSHED 12\r\n"),
        (Reply::TopicFull, Shape::Line, "SERVER_ERROR topic full\r\n"),
        (Reply::Acked, Shape::Line, "ACKED\r\n"),
        (Reply::Released, Shape::Line, "RELEASED\r\n"),
        (Reply::Buried, Shape::Line, "BURIED\r\n"),
        (Reply::Extended, Shape::Line, "EXTENDED\r\n"),
        (Reply::Kicked(3), Shape::Line, "KICKED 3\r\n"),
        (Reply::Purged(3), Shape::Line, "PURGED 3\r\n"),
        (Reply::Dropped, Shape::Line, "DROPPED\r\n"),
        (Reply::Empty, message_shape(false), "EMPTY\r\n"),
        (Reply::NotFound, message_shape(false), "NOT_FOUND\r\n"),
        (
            Reply::Message(message.clone()),
            message_shape(false),
            "MESSAGE my%20jobs 7 4\r\nx\r\ny\r\n",
        ),
        (
            Reply::Message(message),
            message_shape(true),
            "MESSAGE my%20jobs 7 4 2\r\nx\r\ny\r\n",
        ),
        (
            Reply::Topics(vec![counts]),
            Shape::Topics,
            "TOPIC my%20jobs 1 2 3 4\r\nEND\r\n",
        ),
        (Reply::Topics(Vec::new()), Shape::Topics, "END\r\n"),
    ];
    for (reply, shape, expected) in cases {
        let written = reply_bytes(&Outcome::Done(reply.clone()), &shape);
        assert_eq!(written, expected.as_bytes(), "{reply:?}");
    }
}

#[test]
fn what_follows_a_command_that_waits_is_left_alone_until_it_is_answered() {
    let mut session = Session::new(Limits::default());
    let bytes = b"get a\r\npop t wait=5\r\npush t 1\r\nx\r\n";
    session.receive_buffer().extend_from_slice(bytes);
    let run = session.next_run().expect("a run");
    assert_eq!(run.commands.len(), 2);
    assert!(session.awaits_message());
    assert_eq!(session.next_run(), None);
    assert!(!session.wants_input());
    let hits = Outcome::Done(Reply::Hits(Vec::new()));
    session.outcomes([hits], |_| Vec::new());
    assert!(session.awaits_message());
    session.outcomes([Outcome::Done(Reply::Empty)], |_| Vec::new());
    assert!(!session.awaits_message());
    let run = session.next_run().expect("the rest");
    assert_eq!(run.commands, [push("t", "x", 0, 0)]);
}

fn any_name() -> impl Strategy<Value = Key> {
    let bytes = prop::collection::vec(any::<u8>(), 1..=250);
    bytes.prop_map(|bytes| name(&bytes))
}

fn any_change() -> impl Strategy<Value = TopicChange> {
    let message = prop::collection::vec(any::<u8>(), 0..300);
    let push = (message, any::<u32>(), 0..=i32::MAX as u32);
    let settings = (
        any::<u64>(),
        any::<u64>(),
        0..=i32::MAX as u32,
        any::<u32>(),
    );
    let ttr = || 1..=i32::MAX as u32;
    prop_oneof![
        settings.prop_map(|(max_length, max_bytes, max_age, max_deliveries)| {
            TopicChange::Create(TopicSettings {
                max_length,
                max_bytes,
                max_age,
                max_deliveries,
            })
        }),
        push.prop_map(|(message, priority, delay)| TopicChange::Push {
            message: Bytes::from(message),
            priority,
            delay,
        }),
        (prop::option::of(ttr()), 0..=86_400u32)
            .prop_map(|(ttr, wait)| TopicChange::Take(Take { ttr, wait })),
        any::<u64>().prop_map(|id| TopicChange::Ack { id }),
        (any::<u64>(), 0..=i32::MAX as u32).prop_map(|(id, delay)| TopicChange::Nack { id, delay }),
        (any::<u64>(), ttr()).prop_map(|(id, ttr)| TopicChange::Extend { id, ttr }),
        any::<u64>().prop_map(|count| TopicChange::Kick { count }),
        Just(TopicChange::Purge),
        Just(TopicChange::Drop),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    let write = (any_name(), any_change())
        .prop_map(|(topic, change)| Command::Write(Write::Topic(TopicWrite { topic, change })));
    prop_oneof![
        8 => write,
        1 => any_name().prop_map(|topic| Command::Read(Read::Peek { topic })),
        1 => Just(Command::Read(Read::Topics)),
    ]
}

/// What an outcome is written as and expected as.
fn any_exchange() -> impl Strategy<Value = (Expected, Shape, Reply)> {
    let line = prop_oneof![
        Just(Reply::Created),
        Just(Reply::Exists),
        Just(Reply::NotFound),
        Just(Reply::TooManyTopics),
        Just(Reply::TopicFull),
        Just(Reply::OutOfMemory),
        Just(Reply::Acked),
        Just(Reply::Released),
        Just(Reply::Buried),
        Just(Reply::Extended),
        Just(Reply::Dropped),
        any::<u64>().prop_map(Reply::Pushed),
        any::<u64>().prop_map(Reply::Kicked),
        any::<u64>().prop_map(Reply::Purged),
    ];
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    let message = (any::<u64>(), any::<u32>(), bytes).prop_map(|(id, deliveries, bytes)| {
        Reply::Message(Message {
            id,
            deliveries,
            data: MessageBytes::new(&bytes),
        })
    });
    let taken = prop_oneof![
        4 => message,
        1 => Just(Reply::Empty),
        1 => Just(Reply::NotFound),
    ];
    let counts = (any_name(), any::<[u64; 4]>()).prop_map(|(topic, counts)| {
        let [ready, reserved, delayed, dead] = counts;
        let counts = MessageCounts {
            ready,
            reserved,
            delayed,
            dead,
        };
        TopicCounts { topic, counts }
    });
    let topics = prop::collection::vec(counts, 0..4).prop_map(Reply::Topics);
    prop_oneof![
        line.prop_map(|reply| (Expected::TopicLine, Shape::Line, reply)),
        taken.prop_map(|reply| (Expected::Message, message_shape(true), reply)),
        topics.prop_map(|reply| (Expected::Topics, Shape::Topics, reply)),
    ]
}

proptest! {
    #[test]
    fn a_written_request_is_read_as_the_same_command(command in any_command()) {
        let mut output = Output::new();
        write_request(&command, &mut output).expect("a topic can always be named");
        let bytes = output.copy_to_bytes(output.remaining());
        match request(&bytes) {
            Request::Command { command: read, .. } => prop_assert_eq!(read, command),
            other => prop_assert!(false, "{:?} for {:?}", other, command),
        }
    }

    #[test]
    fn a_written_reply_is_read_as_the_same_outcome(
        exchanges in prop::collection::vec(any_exchange(), 1..8),
        piece_bytes in 1..100usize,
    ) {
        let mut bytes = Vec::new();
        for (_, shape, reply) in &exchanges {
            bytes.extend_from_slice(&reply_bytes(&Outcome::Done(reply.clone()), shape));
        }
        let mut parser = ReplyParser::new(1 << 20);
        let (mut buffer, mut read) = (BytesMut::new(), Vec::new());
        for piece in bytes.chunks(piece_bytes) {
            buffer.extend_from_slice(piece);
            while let Some((expected, ..)) = exchanges.get(read.len())
                && let Some(answer) = parser.next(*expected, &mut buffer).expect("a reply")
            {
                read.push(answer);
            }
        }
        let written = exchanges.into_iter().map(|(_, _, reply)| reply);
        let written = written.map(|reply| Answer::Outcome(Outcome::Done(reply)));
        prop_assert_eq!(read, written.collect::<Vec<_>>());
    }
}
