//! The commands of an entry that change topics: what is encoded is decoded as it was, in these bytes.

use bytes::Bytes;
use proptest::prelude::*;
use quorate_command::{
    CodecError, Key, LogTime, PayloadEncoder, Preamble, Take, TopicChange, TopicSettings,
    TopicWrite, Write, decode, encoded_bytes,
};

const PREAMBLE: Preamble = Preamble {
    log_time: LogTime(1),
    item_bytes_max: 1 << 20,
    memory_limit_bytes: 0,
    mark: None,
};

/// version, log time, item bytes max, commands.
const HEADER_BYTES: usize = 15;

fn any_change() -> impl Strategy<Value = TopicChange> {
    let settings = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>());
    let settings =
        settings.prop_map(
            |(max_length, max_bytes, max_age, max_deliveries)| TopicSettings {
                max_length,
                max_bytes,
                max_age,
                max_deliveries,
            },
        );
    let message = proptest::collection::vec(any::<u8>(), 0..100);
    let push = (message, any::<u32>(), any::<u32>());
    prop_oneof![
        settings.prop_map(TopicChange::Create),
        push.prop_map(|(message, priority, delay)| TopicChange::Push {
            message: Bytes::from(message),
            priority,
            delay,
        }),
        any::<Option<u32>>().prop_map(|ttr| TopicChange::Take(Take { ttr, wait: 0 })),
        any::<u64>().prop_map(|id| TopicChange::Ack { id }),
        any::<(u64, u32)>().prop_map(|(id, delay)| TopicChange::Nack { id, delay }),
        any::<(u64, u32)>().prop_map(|(id, ttr)| TopicChange::Extend { id, ttr }),
        any::<u64>().prop_map(|count| TopicChange::Kick { count }),
        Just(TopicChange::Purge),
        Just(TopicChange::Drop),
    ]
}

fn any_write() -> impl Strategy<Value = Write> {
    let name = proptest::collection::vec(any::<u8>(), 1..=250);
    (name, any_change()).prop_map(|(name, change)| {
        let topic = Key::new(Bytes::from(name)).expect("1 to 250 bytes");
        Write::Topic(TopicWrite { topic, change })
    })
}

fn payload(writes: &[Write]) -> Bytes {
    let mut encoder = PayloadEncoder::new();
    for write in writes {
        encoder.push(write);
    }
    encoder.finish(&PREAMBLE)
}

fn decoded(payload: Bytes) -> Result<Vec<Write>, CodecError> {
    let (_, commands) = decode(payload)?;
    commands.collect()
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_as_it_was(
        writes in proptest::collection::vec(any_write(), 1..8),
    ) {
        let payload = payload(&writes);
        let bytes: usize = writes.iter().map(encoded_bytes).sum();
        prop_assert_eq!(payload.len(), HEADER_BYTES + bytes);
        prop_assert_eq!(decoded(payload.clone()), Ok(writes));
        for end in 0..payload.len() {
            prop_assert!(decoded(payload.slice(..end)).is_err());
        }
    }
}

#[test]
fn each_command_is_these_bytes() {
    let message = Bytes::from_static(b"hi");
    let settings = TopicSettings {
        max_length: 1,
        max_bytes: 2,
        max_age: 3,
        max_deliveries: 4,
    };
    let take = |ttr, wait| TopicChange::Take(Take { ttr, wait });
    let cases: [(TopicChange, &[u8]); 10] = [
        (
            TopicChange::Create(settings),
            b"\x40\x01t\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\x04\0\0\0",
        ),
        (
            TopicChange::Push {
                message,
                priority: 5,
                delay: 6,
            },
            b"\x41\x01t\x05\0\0\0\x06\0\0\0\x02\0\0\0hi",
        ),
        (take(None, 9), b"\x42\x01t"),
        (take(Some(7), 9), b"\x43\x01t\x07\0\0\0"),
        (TopicChange::Ack { id: 8 }, b"\x44\x01t\x08\0\0\0\0\0\0\0"),
        (
            TopicChange::Nack { id: 8, delay: 9 },
            b"\x45\x01t\x08\0\0\0\0\0\0\0\x09\0\0\0",
        ),
        (
            TopicChange::Extend { id: 8, ttr: 9 },
            b"\x46\x01t\x08\0\0\0\0\0\0\0\x09\0\0\0",
        ),
        (
            TopicChange::Kick { count: 3 },
            b"\x47\x01t\x03\0\0\0\0\0\0\0",
        ),
        (TopicChange::Purge, b"\x48\x01t"),
        (TopicChange::Drop, b"\x49\x01t"),
    ];
    for (change, expected) in cases {
        let topic = Key::new(Bytes::from_static(b"t")).expect("a name");
        let payload = payload(&[Write::Topic(TopicWrite { topic, change })]);
        assert_eq!(payload[HEADER_BYTES..], *expected);
    }
}
