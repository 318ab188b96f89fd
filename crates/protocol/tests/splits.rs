//! The same bytes give the same requests and the same replies, however they are split over
//! packets.

use bytes::Bytes;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use command::{
    Command, Hit, Key, KeyValue, Message, MessageBytes, MetaHit, Outcome, Read, Reply, TopicChange,
    TopicWrite, Write,
};
use proptest::prelude::*;
use quorate_protocol::{Limits, Parsed, Parser, Session};

/// Small ones, so that they are met often. Lines of all kinds have one limit: where an over-long
/// line is split does matter to memcached, and so to the parser, when it has two.
fn limits() -> Limits {
    Limits {
        item_bytes_max: 56 + 40,
        line_bytes_max: 400,
        get_line_bytes_max: 400,
        run_commands_max: 3,
        ..Limits::default()
    }
}

/// Hands `bytes` out in pieces of these lengths, round and round.
fn pieces<'a>(mut bytes: &'a [u8], lengths: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut lengths = lengths.iter().cycle();
    std::iter::from_fn(move || {
        let length = *lengths.next()?;
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

fn requests(bytes: &[u8], lengths: &[usize]) -> Vec<Parsed> {
    let mut parser = Parser::new(limits());
    let mut buffer = BytesMut::new();
    let mut requests = Vec::new();
    let mut received = 0;
    for piece in pieces(bytes, lengths) {
        buffer.extend_from_slice(piece);
        received += piece.len();
        while let Some(parsed) = parser.next(&mut buffer) {
            requests.push(parsed);
        }
        assert_eq!(
            parser.consumed_bytes() + buffer.len() as u64,
            received as u64
        );
    }
    requests
}

/// All commands and reply bytes of a connection whose evaluator answers at once.
fn conversation(bytes: &[u8], lengths: &[usize]) -> (Vec<Command>, Vec<u8>, bool) {
    let mut session = Session::new(limits());
    let mut commands = Vec::new();
    let mut replies = Vec::new();
    for piece in pieces(bytes, lengths) {
        session.receive_buffer().extend_from_slice(piece);
        while let Some(run) = session.next_run() {
            assert!(!run.commands.is_empty());
            assert_eq!(run.epoch, 0, "nothing is refused");
            session.outcomes(run.commands.iter().map(done), |_| Vec::new());
            commands.extend(run.commands);
        }
        while session.output().has_remaining() {
            let chunk = session.output().chunk().to_vec();
            session.written(chunk.len(), 0);
            replies.extend_from_slice(&chunk);
        }
        assert!(session.is_settled());
        assert!(session.wants_input() || session.should_close());
    }
    (commands, replies, session.should_close())
}

/// An outcome that the command can have and that depends on nothing else.
fn done(command: &Command) -> Outcome {
    Outcome::Done(match command {
        Command::Write(Write::Store(_)) => Reply::Stored,
        Command::Write(Write::Delete { .. }) => Reply::Deleted,
        Command::Write(Write::Arithmetic { delta, .. }) => Reply::Number(*delta),
        Command::Write(Write::Touch { .. }) => Reply::Touched,
        Command::Write(Write::GetAndTouch { keys, .. }) => {
            Reply::Hits(hits(keys.iter().map(Key::as_bytes)))
        }
        Command::Write(Write::FlushAll { .. } | Write::MemoryLimit { .. }) => Reply::Ok,
        Command::Write(Write::MetaDelete(_)) => Reply::Deleted,
        Command::Write(Write::MetaSet(set)) => meta_hit(&set.store.key),
        Command::Write(Write::MetaArithmetic(arithmetic)) => meta_hit(&arithmetic.key),
        Command::Write(Write::MetaGet(get)) | Command::Read(Read::MetaGet(get)) => {
            meta_hit(&get.key)
        }
        Command::Read(Read::Inspect { key }) => meta_hit(key),
        Command::Read(Read::Get { keys }) => Reply::Hits(hits(keys.iter())),
        Command::Read(Read::Confirm) => Reply::Confirmed { last_applied: 9 },
        Command::Read(Read::Topics) => Reply::Topics(Vec::new()),
        Command::Read(Read::Peek { .. }) => Reply::Empty,
        Command::Write(Write::Topic(TopicWrite {
            change: TopicChange::Take(_),
            topic,
        })) => Reply::Message(Message {
            id: 3,
            deliveries: 1,
            data: MessageBytes::new(topic.as_bytes()),
        }),
        Command::Write(Write::Topic(_)) => Reply::Pushed(5),
        Command::Stats(command::Stats::Reset) => Reply::Ok,
        Command::Stats(_) => Reply::Stats(Vec::new()),
    })
}

fn meta_hit(key: &Key) -> Reply {
    Reply::MetaHit(MetaHit {
        data: KeyValue::new(key, key.as_bytes()),
        left_before: None,
        left: Some(7),
        idle_seconds: 3,
        was_fetched: true,
        stale: true,
        won: false,
        token_sent: true,
        was_made: false,
        number: Some(9),
    })
}

fn hits<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Vec<Hit> {
    let hit = |key: &[u8]| Hit {
        flags: 1,
        unique: 2,
        data: KeyValue::new(&Key::new(Bytes::copy_from_slice(key)).expect("a key"), key),
    };
    keys.map(hit).collect()
}

fn check(bytes: &[u8], lengths: &[usize]) {
    let whole = requests(bytes, &[usize::MAX]);
    assert_eq!(requests(bytes, &[1]), whole, "byte by byte");
    assert_eq!(requests(bytes, lengths), whole, "split by {lengths:?}");
    let whole = conversation(bytes, &[usize::MAX]);
    assert_eq!(conversation(bytes, &[1]), whole, "byte by byte");
    assert_eq!(conversation(bytes, lengths), whole, "split by {lengths:?}");
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::sample::select(b"abc".to_vec()).prop_map(|byte| vec![byte]),
        2 => prop::collection::vec(0x21..=0xffu8, 1..20),
        1 => prop::collection::vec(any::<u8>(), 1..5),
        1 => Just(vec![b'k'; 251]),
    ]
}

fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0..60u32).prop_map(|number| number.to_string().into_bytes()),
        1 => any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        2 => Just(b"noreply".to_vec()),
        1 => key(),
    ]
}

/// A flag of a meta command with its token, or what resembles one.
fn flag() -> impl Strategy<Value = Vec<u8>> {
    let letters = b"bcfhklqstuvCDEFIJMNORTxPLz".to_vec();
    let token = prop_oneof![
        4 => Just(Vec::new()),
        2 => (0..60u32).prop_map(|number| number.to_string().into_bytes()),
        1 => prop::sample::select(b"SEAPRID+-".to_vec()).prop_map(|byte| vec![byte]),
        1 => word(),
        1 => Just(vec![b'o'; 33]),
    ];
    (prop::sample::select(letters), token).prop_map(|(letter, token)| {
        let mut flag = vec![letter];
        flag.extend(token);
        flag
    })
}

/// Keys in base64 stand among others: which they are depends on a flag.
fn meta_key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => key(),
        1 => prop::sample::select(vec!["YQ==", "Zm9v", "Zg=", "AAAA"])
            .prop_map(|key| key.as_bytes().to_vec()),
    ]
}

/// The words of a line with a data block, before and behind its length.
fn block_words() -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<Vec<u8>>)> {
    let name = |names: &[&'static str]| prop::sample::select(names.to_vec());
    let classic = ["set", "add", "append", "prepend", "replace", "cas"];
    let classic = (name(&classic), key(), word(), word(), words(word(), 3)).prop_map(
        |(name, key, flags, exptime, behind)| {
            (vec![name.as_bytes().to_vec(), key, flags, exptime], behind)
        },
    );
    let meta =
        (meta_key(), words(flag(), 5)).prop_map(|(key, flags)| (vec![b"ms".to_vec(), key], flags));
    let push = (key(), words(word(), 3))
        .prop_map(|(topic, settings)| (vec![b"push".to_vec(), topic], settings));
    prop_oneof![4 => classic, 3 => meta, 1 => push]
}

fn words(
    word: impl Strategy<Value = Vec<u8>>,
    count_max: usize,
) -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(word, 0..=count_max)
}

fn storage() -> impl Strategy<Value = Vec<u8>> {
    let value = prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n')], 0..60);
    // The announced length is usually right.
    let off = prop_oneof![8 => Just(0i64), 1 => -2..3i64];
    (block_words(), value, off).prop_map(|((mut words, behind), value, off)| {
        words.push((value.len() as i64 + off).to_string().into_bytes());
        words.extend(behind);
        [words.join(&b' '), b"\r\n".to_vec(), value, b"\r\n".to_vec()].concat()
    })
}

fn other_line() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(OTHERS.to_vec());
    let meta = prop::sample::select(vec!["mg", "mg", "md", "ma", "me"]);
    let end = || prop::sample::select(vec!["\r\n", "\n"]);
    let classic = (name, words(prop_oneof![key(), word()], 3), end());
    let meta = (meta, meta_key(), words(flag(), 5), end()).prop_map(|(name, key, flags, end)| {
        let words = std::iter::once(key).chain(flags).collect();
        (name, words, end)
    });
    prop_oneof![3 => classic, 1 => meta].prop_map(|(name, words, end): (_, Vec<Vec<u8>>, _)| {
        let words = std::iter::once(name.as_bytes().to_vec()).chain(words);
        let line = words.collect::<Vec<_>>().join(&b' ');
        [line, end.as_bytes().to_vec()].concat()
    })
}

/// The lines without a data block, and such as are no commands.
const OTHERS: [&str; 39] = [
    "get",
    "gets",
    "gat",
    "gats",
    "delete",
    "incr",
    "decr",
    "touch",
    "flush_all",
    "version",
    "verbosity",
    "stats",
    "mn",
    "mg",
    "me",
    "cache_memlimit",
    "slabs",
    "lru",
    "lru_crawler",
    "watch",
    "shutdown",
    "topic",
    "topics",
    "pop",
    "reserve",
    "ack",
    "nack",
    "extend",
    "peek",
    "kick",
    "purge",
    "drop",
    "foo",
    "",
    " get",
    "  ",
    "quit",
    "GET / HTTP/1.1",
    "get\0",
];

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let request = prop_oneof![3 => storage(), 3 => other_line(), 1 => key()];
    prop::collection::vec(request, 1..30).prop_map(|requests| requests.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn any_split_of_a_stream_gives_the_same_requests_and_replies(
        bytes in stream(),
        lengths in prop::collection::vec(1..50usize, 1..20),
    ) {
        check(&bytes, &lengths);
    }

    #[test]
    fn replies_are_the_same_however_few_may_wait_and_however_they_are_written(
        bytes in stream(),
        unwritten_bytes_max in 1..200usize,
        written in prop::collection::vec(1..100usize, 1..20),
        all_at_once in any::<bool>(),
    ) {
        let (commands, expected, closes) = conversation(&bytes, &[usize::MAX]);
        let mut session = Session::new(Limits { unwritten_bytes_max, ..limits() });
        session.receive_buffer().extend_from_slice(&bytes);
        let mut asked = Vec::new();
        let mut replies = Vec::new();
        let mut written = written.iter().cycle();
        loop {
            let mut outcomes = Vec::new();
            while let Some(run) = session.next_run() {
                outcomes.extend(run.commands.iter().map(done));
                asked.extend(run.commands);
                if !all_at_once {
                    break;
                }
            }
            let answered = outcomes.len();
            session.outcomes(outcomes, |_| Vec::new());
            // No item is larger than this, and no other reply either.
            prop_assert!(session.output().remaining() < unwritten_bytes_max + ITEM_REPLY_BYTES_MAX);
            let chunk = session.output().chunk();
            if chunk.is_empty() && answered > 0 {
                // They had no replies, and there may be more.
                continue;
            }
            if chunk.is_empty() {
                break;
            }
            let part = chunk.len().min(*written.next().expect("they never end"));
            replies.extend_from_slice(&chunk[..part]);
            prop_assert!(!session.is_settled() && !session.should_close());
            session.written(part, 0);
        }
        prop_assert_eq!(replies, expected);
        prop_assert_eq!(asked, commands);
        prop_assert!(session.is_settled());
        prop_assert_eq!(session.should_close(), closes);
    }
}

/// More than any hit or line takes in a reply here: a key of 250 bytes is its own value.
const ITEM_REPLY_BYTES_MAX: usize = 600;

/// Pieces that a stream of requests is made of: a fuzzer finds its way through bytes better when
/// one of them is a word.
const PIECES: &[&str] = &[
    "get",
    "gets",
    "gat",
    "gats",
    "set",
    "add",
    "replace",
    "append",
    "prepend",
    "cas",
    "delete",
    "incr",
    "decr",
    "touch",
    "flush_all",
    "version",
    "verbosity",
    "stats",
    "settings",
    "reset",
    "mn",
    "ms",
    "mg",
    "md",
    "ma",
    "me",
    "push",
    "pop",
    "b",
    "q",
    "k",
    "v",
    "O1",
    "T0",
    "N0",
    "R9",
    "I",
    "x",
    "C1",
    "E1",
    "MS",
    "MA",
    "MD",
    "YQ==",
    "slabs",
    "lru",
    "lru_crawler",
    "cache_memlimit",
    "watch",
    "shutdown",
    "noreply",
    "HTTP/1.1",
    "0",
    "1",
    "2",
    "3",
    "10",
    "40",
    "41",
    "-1",
    "+",
    "4294967296",
    "18446744073709551616",
    "2147483645",
    "2147483646",
    "a",
    "b",
    "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkk",
    " ",
    " ",
    " ",
    " ",
    "\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\t",
];

#[test]
fn no_bytes_at_all_break_the_parser() {
    bolero::check!()
        .with_max_len(400)
        .with_iterations(20_000)
        .with_test_time(Duration::from_secs(3))
        .for_each(|input: &[u8]| {
            let Some((split, input)) = input.split_first() else {
                return;
            };
            let mut bytes = Vec::new();
            for byte in input {
                match PIECES.get(usize::from(byte / 2)) {
                    Some(piece) => bytes.extend_from_slice(piece.as_bytes()),
                    None => bytes.push(*byte),
                }
            }
            check(&bytes, &[usize::from(split % 16) + 1, 7]);
        });
}
