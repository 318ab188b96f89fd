//! The client's direction: what it writes is what the server's parser reads, what the server
//! writes is what it reads.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use command::{
    Command, Direction, Exptime, Hit, Key, KeyValue, Outcome, Read, Refusal, Reply, Stats, Store,
    StoreMode, Write,
};
use proptest::prelude::*;
use quorate_protocol::client::{
    Answer, ErrorLine, Expected, ReplyError, ReplyParser, RequestError, write_line, write_request,
};
use quorate_protocol::{Limits, Output, Parser, Request, Shape, write_reply};

const VALUE_BYTES_MAX: usize = 1 << 20;

fn bytes_of(output: &mut Output) -> Bytes {
    output.copy_to_bytes(output.remaining())
}

/// The replies in `bytes`, received in pieces of this length, to requests that expect these.
fn answers(
    expected: &[Expected],
    bytes: &[u8],
    piece_bytes: usize,
) -> Result<Vec<Answer>, ReplyError> {
    let mut parser = ReplyParser::new(VALUE_BYTES_MAX);
    let mut buffer = BytesMut::new();
    let mut answers = Vec::new();
    for piece in bytes.chunks(piece_bytes) {
        buffer.extend_from_slice(piece);
        while let Some(expected) = expected.get(answers.len()) {
            match parser.next(*expected, &mut buffer)? {
                Some(answer) => answers.push(answer),
                None => break,
            }
        }
    }
    assert!(
        answers.len() < expected.len() || buffer.is_empty(),
        "{} bytes are left",
        buffer.len()
    );
    Ok(answers)
}

fn answer(expected: Expected, bytes: &str) -> Result<Vec<Answer>, ReplyError> {
    answers(&[expected], bytes.as_bytes(), usize::MAX)
}

fn key() -> impl Strategy<Value = Key> {
    let byte = (1..=255u8).prop_filter("a byte of a line", |byte| !b" \r\n".contains(byte));
    prop::collection::vec(byte, 1..=250)
        .prop_map(|bytes| Key::new(Bytes::from(bytes)).expect("1 to 250 bytes"))
}

fn keys() -> impl Strategy<Value = Vec<Key>> {
    prop::collection::vec(key(), 1..5)
}

fn exptime() -> impl Strategy<Value = Exptime> {
    any::<i32>().prop_map(Exptime)
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(any::<u8>(), 4090..4100),
    ]
    .prop_map(Bytes::from)
}

fn store() -> impl Strategy<Value = Write> {
    let mode = prop_oneof![
        Just(StoreMode::Set),
        Just(StoreMode::Add),
        Just(StoreMode::Replace),
        Just(StoreMode::Append),
        Just(StoreMode::Prepend),
        any::<u64>().prop_map(StoreMode::Cas),
    ];
    (mode, key(), any::<u32>(), exptime(), value()).prop_map(
        |(mode, key, flags, exptime, value)| {
            Write::Store(Store {
                mode,
                key,
                flags,
                exptime,
                value,
            })
        },
    )
}

fn arithmetic() -> impl Strategy<Value = Write> {
    let direction = prop_oneof![Just(Direction::Increment), Just(Direction::Decrement)];
    (key(), direction, any::<u64>()).prop_map(|(key, direction, delta)| Write::Arithmetic {
        key,
        direction,
        delta,
    })
}

fn command() -> impl Strategy<Value = Command> {
    let write = prop_oneof![
        store(),
        arithmetic(),
        key().prop_map(|key| Write::Delete { key }),
        (key(), exptime()).prop_map(|(key, exptime)| Write::Touch { key, exptime }),
        (keys(), exptime()).prop_map(|(keys, exptime)| Write::GetAndTouch { keys, exptime }),
        exptime().prop_map(|delay| Write::FlushAll { delay }),
    ];
    let stats = prop::sample::select(vec![
        Stats::General,
        Stats::Settings,
        Stats::Items,
        Stats::Slabs,
        Stats::Reset,
    ]);
    prop_oneof![
        6 => write.prop_map(Command::Write),
        2 => keys().prop_map(|keys| {
            let keys = keys.into_iter().collect();
            Command::Read(Read::Get { keys })
        }),
        1 => stats.prop_map(Command::Stats),
    ]
}

fn hit() -> impl Strategy<Value = Hit> {
    (key(), any::<u32>(), any::<u64>(), value()).prop_map(|(key, flags, unique, value)| Hit {
        flags,
        unique,
        data: KeyValue::new(&key, &value),
    })
}

/// What a command expects, the shape in which the server answers it, and an outcome it can have.
fn exchange() -> impl Strategy<Value = (Expected, Shape, Outcome)> {
    let of = |expected, shape: Shape, replies: Vec<Reply>| {
        prop::sample::select(replies)
            .prop_map(move |reply| (expected, shape.clone(), Outcome::Done(reply)))
    };
    let stat_line = ("[a-z_:0-9]{1,20}", "[ -~]{0,20}");
    let stats = prop::collection::vec(stat_line, 0..4).prop_map(|lines| {
        let lines = lines
            .into_iter()
            .map(|(name, value)| (Cow::Owned(name), value));
        Outcome::Done(Reply::Stats(lines.collect()))
    });
    let hits = prop::collection::vec(hit(), 0..4);
    let refusal = prop_oneof![
        Just(Outcome::Unknown),
        Just(Outcome::NotDone(Refusal::NoLeader)),
        ("[a-z0-9.:-]{1,40}", any::<u16>()).prop_map(|(host, client_port)| {
            let host = Arc::from(host);
            Outcome::NotDone(Refusal::Redirect { host, client_port })
        }),
    ];
    let stored = vec![
        Reply::Stored,
        Reply::NotStored,
        Reply::Exists,
        Reply::NotFound,
    ];
    prop_oneof![
        of(Expected::Stored, Shape::Line, stored),
        of(
            Expected::Deleted,
            Shape::Line,
            vec![Reply::Deleted, Reply::NotFound]
        ),
        of(
            Expected::Touched,
            Shape::Line,
            vec![Reply::Touched, Reply::NotFound]
        ),
        of(
            Expected::Number,
            Shape::Line,
            vec![Reply::NonNumeric, Reply::NotFound]
        ),
        of(Expected::Ok, Shape::Line, vec![Reply::Ok]),
        of(Expected::Reset, Shape::Stats(Stats::Reset), vec![Reply::Ok]),
        any::<u64>().prop_map(move |n| {
            (
                Expected::Number,
                Shape::Line,
                Outcome::Done(Reply::Number(n)),
            )
        }),
        hits.prop_map(|hits| {
            let outcome = Outcome::Done(Reply::Hits(hits));
            (Expected::Hits, Shape::ValuesWithUnique, outcome)
        }),
        stats.prop_map(|outcome| (Expected::Stats, Shape::Stats(Stats::Items), outcome)),
        refusal
            .clone()
            .prop_map(move |refusal| (Expected::Stored, Shape::Line, refusal)),
        refusal.prop_map(|refusal| (Expected::Hits, Shape::Values, refusal)),
    ]
}

proptest! {
    #[test]
    fn a_written_request_is_read_as_the_same_command(
        commands in prop::collection::vec(command(), 1..8),
    ) {
        let mut output = Output::new();
        for command in &commands {
            write_request(command, &mut output).expect("the keys can be sent");
        }
        let mut buffer = BytesMut::from(bytes_of(&mut output));
        let mut parser = Parser::new(Limits::default());
        for command in commands {
            match parser.next(&mut buffer).map(|parsed| parsed.request) {
                Some(Request::Command { command: read, .. }) => prop_assert_eq!(read, command),
                other => prop_assert!(false, "{:?} for {:?}", other, command),
            }
        }
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn a_written_reply_is_read_as_the_same_outcome(
        exchanges in prop::collection::vec(exchange(), 1..8),
        piece_bytes in 1..100usize,
    ) {
        let mut output = Output::new();
        let mut expected = Vec::new();
        let mut outcomes = Vec::new();
        for (expects, shape, outcome) in exchanges {
            write_reply(&outcome, &shape, &[], &mut output);
            expected.push(expects);
            outcomes.push(Answer::Outcome(outcome));
        }
        let bytes = bytes_of(&mut output);
        prop_assert_eq!(answers(&expected, &bytes, piece_bytes), Ok(outcomes.clone()));
        prop_assert_eq!(answers(&expected, &bytes, usize::MAX), Ok(outcomes));
    }
}

#[test]
fn requests_are_written_as_memcached_reads_them() {
    let key = |name: &'static str| Key::new(Bytes::from_static(name.as_bytes())).expect("a key");
    let store = Store {
        mode: StoreMode::Cas(9),
        key: key("a"),
        flags: 5,
        exptime: Exptime(-1),
        value: Bytes::from_static(b"x\r\n"),
    };
    let cases = [
        (
            Command::Write(Write::Store(store)),
            "cas a 5 -1 3 9\r\nx\r\n\r\n",
        ),
        (
            Command::Read(Read::Get {
                keys: [key("a"), key("b")].into_iter().collect(),
            }),
            "gets a b\r\n",
        ),
        (
            Command::Write(Write::GetAndTouch {
                keys: vec![key("a")],
                exptime: Exptime(7),
            }),
            "gats 7 a\r\n",
        ),
        (
            Command::Write(Write::Touch {
                key: key("a"),
                exptime: Exptime(7),
            }),
            "touch a 7\r\n",
        ),
        (
            Command::Write(Write::FlushAll { delay: Exptime(0) }),
            "flush_all 0\r\n",
        ),
        (Command::Stats(Stats::Settings), "stats settings\r\n"),
    ];
    let mut output = Output::new();
    for (command, expected) in cases {
        write_request(&command, &mut output).expect("the keys can be sent");
        assert_eq!(bytes_of(&mut output), expected.as_bytes());
    }
    write_line("version", &mut output);
    assert_eq!(bytes_of(&mut output), b"version\r\n".as_slice());
}

#[test]
fn a_key_that_a_line_cannot_hold_is_not_written() {
    for bytes in [b"a b".as_slice(), b"a\r\nquit", b"a\0", b"a\n"] {
        let key = Key::new(Bytes::from_static(bytes)).expect("1 to 250 bytes");
        let command = Command::Write(Write::Delete { key: key.clone() });
        let mut output = Output::new();
        assert_eq!(
            write_request(&command, &mut output),
            Err(RequestError::UnsendableKey { key })
        );
        assert_eq!(output.remaining(), 0);
    }
}

#[test]
fn error_lines_say_whose_error_it_is() {
    let error = |expected, bytes| match answer(expected, bytes).as_deref() {
        Ok([Answer::Error(line)]) => line.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(error(Expected::Stored, "ERROR\r\n"), ErrorLine::Unknown);
    assert_eq!(
        error(Expected::Hits, "CLIENT_ERROR bad command line format\r\n"),
        ErrorLine::Client("bad command line format".to_string()),
    );
    assert_eq!(
        error(
            Expected::Stored,
            "SERVER_ERROR object too large for cache\r\n"
        ),
        ErrorLine::Server("object too large for cache".to_string()),
    );
}

#[test]
fn an_error_amid_hits_is_the_whole_answer_and_the_next_one_starts_afresh() {
    let found = answers(
        &[Expected::Hits, Expected::Hits],
        b"VALUE a 0 1\r\nx\r\nSERVER_ERROR no leader\r\nEND\r\n",
        usize::MAX,
    );
    assert_eq!(
        found,
        Ok(vec![
            Answer::Outcome(Outcome::NotDone(Refusal::NoLeader)),
            Answer::Outcome(Outcome::Done(Reply::Hits(Vec::new()))),
        ]),
    );
}

#[test]
fn a_line_that_answers_something_else_is_an_error_of_the_connection() {
    let cases = [
        (Expected::Stored, "DELETED\r\n"),
        (Expected::Deleted, "STORED\r\n"),
        (Expected::Deleted, "END\r\n"),
        (Expected::Touched, "1\r\n"),
        (Expected::Number, "-1\r\n"),
        (Expected::Number, "12 \r\n"),
        (Expected::Ok, "RESET\r\n"),
        (Expected::Hits, "VALUE a 0\r\n"),
        (Expected::Hits, "VALUE a 0 1 2 3\r\n"),
        (Expected::Hits, "VALUE a -1 1\r\n"),
        (Expected::Hits, "VALUE  0 1\r\n"),
        (Expected::Hits, "STAT a b\r\n"),
        (Expected::Stats, "STAT a\r\n"),
        (Expected::Stats, "VALUE a 0 1\r\n"),
        (Expected::Stored, "ERR_REDIRECT host\r\n"),
        (Expected::Stored, "ERR_REDIRECT host 65536\r\n"),
        (Expected::Stored, "\r\n"),
    ];
    for (expected, bytes) in cases {
        let line = bytes.trim_end().to_string();
        let line = if expected == Expected::Number {
            bytes.trim_end_matches("\r\n").to_string()
        } else {
            line
        };
        assert_eq!(
            answer(expected, bytes),
            Err(ReplyError::Unexpected { expected, line }),
        );
    }
}

#[test]
fn what_a_server_announces_is_bounded() {
    let too_large = format!("VALUE a 0 {}\r\n", VALUE_BYTES_MAX + 1);
    assert_eq!(
        answer(Expected::Hits, &too_large),
        Err(ReplyError::ValueTooLarge {
            bytes: VALUE_BYTES_MAX as u64 + 1,
            bytes_max: VALUE_BYTES_MAX,
        }),
    );
    assert_eq!(
        answer(Expected::Hits, "VALUE a 0 1\r\nxyz\r\n"),
        Err(ReplyError::ValueNotEnded { bytes: 1 }),
    );
    for line in ["x".repeat(8193), "x".repeat(8193) + "\r\n"] {
        assert_eq!(
            answer(Expected::Text, &line),
            Err(ReplyError::LineTooLong { bytes_max: 8192 }),
        );
    }
}

#[test]
fn the_text_of_a_line_is_given_as_it_is() {
    let version = format!("VERSION {}\r\n", quorate_protocol::VERSION);
    assert_eq!(
        answer(Expected::Text, &version),
        Ok(vec![Answer::Text(version.trim_end().to_string())]),
    );
}

#[test]
fn no_bytes_at_all_break_the_reply_parser() {
    let kinds = [
        Expected::Stored,
        Expected::Number,
        Expected::Hits,
        Expected::Stats,
        Expected::Text,
    ];
    bolero::check!()
        .with_max_len(200)
        .with_iterations(20_000)
        .for_each(|input: &[u8]| {
            for expected in kinds {
                let prefix: &[u8] = match expected {
                    Expected::Hits => b"VALUE a 0 5\r\nabcde\r\nVALUE ",
                    Expected::Stats => b"STAT ",
                    _ => b"",
                };
                let bytes = [prefix, input].concat();
                let all = vec![expected; bytes.len()];
                let whole = answers(&all, &bytes, usize::MAX);
                assert_eq!(answers(&all, &bytes, 1), whole);
            }
        });
}
