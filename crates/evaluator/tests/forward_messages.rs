//! The bytes of what servers say about forwarded commands.

use std::sync::Arc;

use bytes::Bytes;
use command::{
    About, Command, Direction, Exptime, Hit, Key, KeyValue, Marks, MetaArithmetic, MetaDelete,
    MetaGet, MetaHit, MetaSet, Outcome, Read, Recache, Refusal, Reply, Stats, Store, StoreMode,
    Write,
};
use quorate_evaluator::{
    ConnectionId, ForwardBody, ForwardMessage, ForwardedCommands, Stream, TO_FOLLOWER_BYTES_MAX,
    TO_LEADER_BYTES_MAX,
};
use raft::{Restart, Term};

fn key(name: &'static str) -> Key {
    Key::new(Bytes::from_static(name.as_bytes())).expect("it is short")
}

fn store(mode: StoreMode) -> Command {
    Command::Write(Write::Store(Store {
        mode,
        key: key("key"),
        flags: 7,
        exptime: Exptime(-1),
        value: Bytes::from_static(b"value"),
    }))
}

fn message(body: ForwardBody) -> ForwardMessage {
    ForwardMessage {
        stream: Stream {
            restart: Restart(3),
            number: 300,
        },
        number: 5,
        body,
    }
}

fn commands(commands: Vec<Command>) -> ForwardMessage {
    message(ForwardBody::Commands(ForwardedCommands {
        connection: ConnectionId(70_000),
        term: Term(4),
        epoch: 1,
        first: 9,
        commands,
    }))
}

fn outcomes(outcomes: Vec<Outcome>) -> ForwardMessage {
    message(ForwardBody::Outcomes {
        connection: ConnectionId(70_000),
        first: 9,
        outcomes,
    })
}

fn hit() -> Hit {
    Hit {
        flags: 7,
        unique: 1 << 20,
        data: KeyValue::new(&key("key"), b"value"),
    }
}

fn meta_commands() -> Vec<Command> {
    let get = MetaGet {
        key: key("key"),
        peeks: true,
        touch: Some(Exptime(30)),
        vivify: None,
        recache: Some(Recache {
            below: Exptime(60),
            after_touch: true,
        }),
        unique: Some(1 << 40),
    };
    let Command::Write(Write::Store(store)) = store(StoreMode::Append) else {
        panic!("it is a store");
    };
    let set = MetaSet {
        store,
        compare: Some(7),
        invalidate: true,
        vivify: Some(Exptime(0)),
        unique: None,
    };
    let delete = MetaDelete {
        key: key("key"),
        compare: None,
        invalidate: false,
        clear: true,
        touch: None,
        unique: Some(8),
    };
    let arithmetic = MetaArithmetic {
        key: key("key"),
        direction: Direction::Increment,
        delta: 3,
        compare: None,
        vivify: Some(Exptime(60)),
        initial: 9,
        touch: None,
        unique: None,
    };
    vec![
        Command::Read(Read::MetaGet(get.clone())),
        Command::Read(Read::Inspect { key: key("key") }),
        Command::Write(Write::MetaGet(get)),
        Command::Write(Write::MetaSet(set)),
        Command::Write(Write::MetaDelete(delete)),
        Command::Write(Write::MetaArithmetic(arithmetic)),
    ]
}

fn meta_hit() -> MetaHit {
    let mut data = KeyValue::new(&key("key"), b"value");
    data.set_about(About {
        unique: 1 << 40,
        changed: 1 << 39,
        flags: 7,
        over_at: 2_000_000_000,
        marks: Marks {
            stale: true,
            token_sent: false,
        },
    });
    MetaHit {
        data,
        left_before: None,
        left: Some(30),
        idle_seconds: 2,
        was_fetched: true,
        stale: true,
        won: true,
        token_sent: false,
        was_made: false,
        number: Some(5),
    }
}

fn samples() -> Vec<(&'static str, ForwardMessage)> {
    let arithmetic = Command::Write(Write::Arithmetic {
        key: key("key"),
        direction: Direction::Decrement,
        delta: u64::MAX,
    });
    let redirect = Refusal::Redirect {
        host: Arc::from("host"),
        client_port: 9000,
    };
    let connection = ConnectionId(70_000);
    vec![
        (
            "stores",
            commands(vec![
                store(StoreMode::Set),
                store(StoreMode::Add),
                store(StoreMode::Replace),
                store(StoreMode::Append),
                store(StoreMode::Prepend),
                store(StoreMode::Cas(1 << 40)),
            ]),
        ),
        (
            "writes",
            commands(vec![
                Command::Write(Write::Delete { key: key("key") }),
                arithmetic,
                Command::Write(Write::Touch {
                    key: key("key"),
                    exptime: Exptime(60),
                }),
                Command::Write(Write::GetAndTouch {
                    keys: vec![key("a"), key("b")],
                    exptime: Exptime(60),
                }),
                Command::Write(Write::FlushAll { delay: Exptime(0) }),
            ]),
        ),
        (
            "reads",
            commands(vec![
                Command::Read(Read::Get {
                    keys: [key("a"), key("bc")].into_iter().collect(),
                }),
                Command::Stats(Stats::Reset),
            ]),
        ),
        ("meta_commands", commands(meta_commands())),
        (
            "meta_replies",
            outcomes(vec![
                Outcome::Done(Reply::MetaHit(meta_hit())),
                Outcome::Done(Reply::LowUnique),
            ]),
        ),
        ("gone", message(ForwardBody::Gone { connection })),
        (
            "replies",
            outcomes(vec![
                Outcome::Done(Reply::Stored),
                Outcome::Done(Reply::NotStored),
                Outcome::Done(Reply::Exists),
                Outcome::Done(Reply::NotFound),
                Outcome::Done(Reply::Deleted),
                Outcome::Done(Reply::Touched),
                Outcome::Done(Reply::Number(u64::MAX)),
                Outcome::Done(Reply::NonNumeric),
                Outcome::Done(Reply::Ok),
            ]),
        ),
        (
            "hits",
            outcomes(vec![Outcome::Done(Reply::Hits(vec![hit(), hit()]))]),
        ),
        (
            "refusals",
            outcomes(vec![
                Outcome::NotDone(redirect),
                Outcome::NotDone(Refusal::NoLeader),
                Outcome::NotDone(Refusal::OutOfDisk),
                Outcome::Unknown,
            ]),
        ),
        ("overlong", message(ForwardBody::Overlong { connection })),
        ("broken", message(ForwardBody::Broken)),
    ]
}

fn decode(bytes: &[u8]) -> Option<ForwardMessage> {
    ForwardMessage::decode(bytes, TO_FOLLOWER_BYTES_MAX).ok()
}

#[test]
fn each_message_survives_and_is_written_as_version_1_was() {
    for (name, message) in samples() {
        let bytes = message.encode();
        assert_eq!(decode(&bytes), Some(message), "{name}");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = format!(
            "{}/tests/fixtures/forward/v1/{name}.hex",
            env!("CARGO_MANIFEST_DIR")
        );
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(golden.trim_end(), hex, "{path}");
    }
}

#[test]
fn what_the_state_says_of_an_item_goes_with_it() {
    let message = outcomes(vec![Outcome::Done(Reply::MetaHit(meta_hit()))]);
    let decoded = decode(&message.encode()).map(|message| message.body);
    let Some(ForwardBody::Outcomes { outcomes, .. }) = decoded else {
        panic!("it was encoded as outcomes");
    };
    let [Outcome::Done(Reply::MetaHit(hit))] = &outcomes[..] else {
        panic!("{outcomes:?} is no hit");
    };
    assert_eq!(hit.data.about(), meta_hit().data.about());
}

#[test]
fn no_message_can_be_cut_or_lengthened() {
    for (name, message) in samples() {
        let bytes = message.encode();
        for length in 0..bytes.len() {
            let cut = decode(&bytes[..length]);
            assert_eq!(cut, None, "{name} cut to {length}");
        }
        assert_eq!(decode(&[&bytes[..], b"x"].concat()), None, "{name}");
    }
}

#[test]
fn keys_and_values_that_are_none_are_refused() {
    let long = |length: u8| [&[length][..], &vec![b'k'; usize::from(length)]].concat();
    let good = commands(vec![Command::Write(Write::Delete { key: key("key") })]).encode();
    assert!(good.ends_with(b"\x03key"));
    let head = &good[..good.len() - 4];
    let with = |key: &[u8]| decode(&[head, key].concat());
    assert!(with(&long(250)).is_some());
    assert_eq!(with(&[251, 251, 0]), None);
    assert_eq!(with(&[0]), None);

    let good = commands(vec![Command::Read(Read::Get {
        keys: [key("a"), key("bc")].into_iter().collect(),
    })]);
    let good = good.encode();
    assert!(good.ends_with(b"\x05\x01a\x02bc"));
    let head = &good[..good.len() - 6];
    let with = |keys: &[u8]| decode(&[head, keys].concat());
    assert!(with(b"\x02\x01a").is_some());
    assert_eq!(with(b"\x02\x02a"), None, "a key that is not all there");
    assert_eq!(with(b"\x03\x01a\x00"), None, "a key of no bytes");

    let good = outcomes(vec![Outcome::Done(Reply::Hits(vec![hit()]))]).encode();
    assert!(good.ends_with(b"\x03\x08keyvalue"));
    let head = &good[..good.len() - 10];
    let with = |data: &[u8]| decode(&[head, data].concat());
    assert!(with(b"\x01\x01k").is_some());
    for bad in [&b"\x00\x00"[..], b"\x00\x01k", b"\x02\x01k", b"\xfb\x01k"] {
        assert_eq!(with(bad), None, "{bad:?}");
    }
}

#[test]
fn numbers_that_no_stream_can_reach_are_refused() {
    let mut far = commands(Vec::new());
    far.number = 1 << 62;
    assert_eq!(decode(&far.encode()), None);
    let far = message(ForwardBody::Outcomes {
        connection: ConnectionId(1),
        first: u64::MAX,
        outcomes: Vec::new(),
    });
    assert_eq!(decode(&far.encode()), None);
}

#[test]
fn the_largest_batch_of_a_client_fits_and_more_is_refused() {
    let value = |bytes: usize| {
        Command::Write(Write::Store(Store {
            mode: StoreMode::Set,
            key: key("key"),
            flags: 0,
            exptime: Exptime(0),
            value: Bytes::from(vec![7; bytes]),
        }))
    };
    // As much as a run may hold, and the largest value that can be configured behind it.
    let mut batch: Vec<Command> = (0..63).map(|_| value(4 << 10)).collect();
    batch.push(value(3 << 20));
    let message = commands(batch);
    let bytes = message.encode();
    let decoded = ForwardMessage::decode(&bytes, TO_LEADER_BYTES_MAX);
    assert_eq!(decoded, Ok(message));
    let bytes_max = bytes.len() - 1;
    assert!(ForwardMessage::decode(&bytes, bytes_max).is_err());
    // A line of the greatest length, full of the shortest keys.
    let keys = std::iter::repeat_n(key("k"), 1 << 19);
    let touch = commands(vec![Command::Write(Write::GetAndTouch {
        keys: keys.collect(),
        exptime: Exptime(0),
    })]);
    assert_eq!(decode(&touch.encode()), Some(touch));
}

#[test]
fn hostile_bytes_are_refused_or_mean_what_they_say() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Some(message) = decode(bytes) {
            assert_eq!(decode(&message.encode()), Some(message));
        }
    });
}

#[test]
fn hostile_changes_to_a_message_are_refused_or_mean_what_they_say() {
    let samples: Vec<Bytes> = samples()
        .iter()
        .map(|(_, message)| message.encode())
        .collect();
    bolero::check!()
        .with_type::<(u8, Vec<(u16, u8)>)>()
        .for_each(|(sample, changes)| {
            let mut bytes = samples[usize::from(*sample) % samples.len()].to_vec();
            for (place, byte) in changes {
                let place = usize::from(*place) % bytes.len();
                bytes[place] = *byte;
            }
            if let Some(message) = decode(&bytes) {
                assert_eq!(decode(&message.encode()), Some(message));
            }
        });
}
