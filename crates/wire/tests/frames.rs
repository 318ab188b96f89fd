//! Frames there and back: any message survives, no bytes do harm, and what a released version
//! wrote is read for ever.

use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use proptest::prelude::*;
use quorate_wire::{
    Answer, Error, FRAME_BYTES_MAX, Failure, Frame, HANDSHAKE_FRAME_BYTES_MAX, Hello, LENGTH_BYTES,
    Offer, Outgoing, Refusal, Transfer, decode,
};
use raft::{
    AppendEntries, AppendEntriesReply, Body, Campaign, ClusterId, Entry, EntryKind, GroupId,
    Healed, Heartbeat, HeartbeatReply, Index, InstallSnapshot, Instance, Message, Position,
    RequestVote, RequestVoteReply, Restart, Sender, ServerId, Snapshot, Term,
};

const VERSION: u8 = 1;

fn sender() -> Sender {
    Sender {
        id: ServerId(3),
        cluster: Some(ClusterId(0x1122_3344_5566_7788)),
        instance: Instance(0x99aa_bbcc_ddee_ff00),
        restart: Restart(7),
        recovering: false,
    }
}

fn message(body: Body) -> Message {
    Message {
        sender: sender(),
        term: Term(5),
        body,
    }
}

fn position(term: u64, index: u64) -> Position {
    Position {
        term: Term(term),
        index: Index(index),
    }
}

fn append(payloads: Vec<Bytes>) -> Body {
    let entries = payloads
        .into_iter()
        .zip(10..)
        .map(|(payload, index)| Entry {
            term: Term(5),
            index: Index(index),
            kind: EntryKind::Command,
            payload,
        });
    Body::AppendEntries(AppendEntries {
        prev: position(4, 9),
        entries: entries.collect(),
        leader_commit: Index(8),
    })
}

fn install(position: Position, configuration: Option<(Position, Bytes)>) -> Body {
    let configuration = configuration.map(|(at, payload)| Entry {
        term: at.term,
        index: at.index,
        kind: EntryKind::Configuration,
        payload,
    });
    let snapshot = Snapshot {
        position,
        configuration,
    };
    Body::InstallSnapshot(InstallSnapshot { snapshot })
}

fn hello() -> Hello {
    Hello {
        versions: (1, 1),
        from: ServerId(1),
        to: ServerId(2),
        cluster: Some(ClusterId(0xabcd)),
        instance: Instance(0x1234),
        restart: Restart(3),
        members_hash: 0x5678,
        backup: 0,
    }
}

fn answer(verdict: Result<u8, Refusal>) -> Frame {
    let hello = hello();
    Frame::Answer(Answer { verdict, hello })
}

/// One of each kind, by the name of its fixture.
fn samples() -> Vec<(&'static str, Frame)> {
    let group = GroupId(0);
    let vote = RequestVote {
        campaign: Campaign::Election,
        last_log: position(4, 77),
    };
    let granted = RequestVoteReply {
        campaign: Campaign::PreVote,
        granted: true,
    };
    let match_index = Index(12);
    let matches = AppendEntriesReply::Matches { match_index };
    let conflict = AppendEntriesReply::Conflict {
        prev: position(4, 9),
        hint: position(3, 6),
    };
    let leader_commit = Index(8);
    let heartbeat = Heartbeat {
        leader_commit,
        round: 41,
    };
    let heartbeat_reply = HeartbeatReply {
        round: 41,
        match_index,
    };
    let bodies = [
        ("request_vote", Body::RequestVote(vote)),
        ("request_vote_reply", Body::RequestVoteReply(granted)),
        (
            "append_entries",
            append(vec![Bytes::from_static(b"one"), Bytes::new()]),
        ),
        (
            "append_entries_reply_matches",
            Body::AppendEntriesReply(matches),
        ),
        (
            "append_entries_reply_conflict",
            Body::AppendEntriesReply(conflict),
        ),
        ("heartbeat", Body::Heartbeat(heartbeat)),
        ("heartbeat_reply", Body::HeartbeatReply(heartbeat_reply)),
        ("timeout_now", Body::TimeoutNow),
        (
            "healed",
            Body::Healed(Healed {
                restart: Restart(7),
                index: Index(9),
            }),
        ),
        (
            "install_snapshot",
            install(
                position(4, 9),
                Some((position(1, 2), Bytes::from_static(b"members"))),
            ),
        ),
        (
            "install_snapshot_without_configuration",
            install(position(4, 9), None),
        ),
    ];
    let cluster = ClusterId(0xabcd);
    let seated = Instance(0x4321);
    let mut samples: Vec<(&'static str, Frame)> = bodies
        .into_iter()
        .map(|(name, body)| (name, Frame::Message(group, message(body))))
        .collect();
    samples.extend([
        ("clock", Frame::Clock(1_795_243_977_411)),
        (
            "state_hash",
            Frame::StateHash {
                function: 1,
                index: Index(77_000),
                hash: 0xfedc_ba98_7654_3210,
            },
        ),
        ("hello", Frame::Hello(hello())),
        ("answer_accepted", answer(Ok(VERSION))),
        (
            "answer_other_cluster",
            answer(Err(Refusal::OtherCluster { cluster })),
        ),
        (
            "answer_seat_taken",
            answer(Err(Refusal::SeatTaken { seated })),
        ),
        ("answer_version", answer(Err(Refusal::Version))),
        ("answer_wrong_server", answer(Err(Refusal::WrongServer))),
        ("answer_unknown_server", answer(Err(Refusal::UnknownServer))),
        ("answer_other_members", answer(Err(Refusal::OtherMembers))),
        (
            "answer_unnamed",
            answer(Err(Refusal::Unnamed { code: 200 })),
        ),
    ]);
    samples.push(("transfer_hello", Frame::TransferHello(hello())));
    samples.push(("forward_hello", Frame::ForwardHello(hello())));
    samples.extend(transfers());
    samples
}

fn transfers() -> [(&'static str, Frame); 7] {
    let offer = Offer {
        cluster: ClusterId(0xabcd),
        position: position(4, 9),
        file_bytes: 70_000,
        checksum: 0x1122_3344_5566_7788,
    };
    let piece = Transfer::Piece {
        offset: 4096,
        bytes: Bytes::from_static(b"abc"),
    };
    let no_space = Transfer::Failed(Failure::NoSpace);
    [
        ("transfer_offer", Transfer::Offer(offer)),
        ("transfer_next", Transfer::Next { offset: 4096 }),
        ("transfer_piece", piece),
        ("transfer_checking", Transfer::Checking),
        ("transfer_loaded", Transfer::Loaded),
        (
            "transfer_failed_damaged",
            Transfer::Failed(Failure::Damaged),
        ),
        ("transfer_failed_no_space", no_space),
    ]
    .map(|(name, transfer)| (name, Frame::Transfer(transfer)))
}

fn push(outgoing: &mut Outgoing, frame: &Frame) {
    match frame {
        Frame::Hello(hello) => outgoing.push_hello(hello),
        Frame::Answer(answer) => outgoing.push_answer(answer),
        Frame::Message(group, message) => outgoing.push_message(VERSION, *group, message),
        Frame::Clock(wall_ms) => outgoing.push_clock(VERSION, *wall_ms),
        Frame::StateHash {
            function,
            index,
            hash,
        } => outgoing.push_state_hash(VERSION, *function, *index, *hash),
        Frame::TransferHello(hello) => outgoing.push_transfer_hello(hello),
        Frame::Transfer(transfer) => outgoing.push_transfer(VERSION, transfer),
        Frame::ForwardHello(hello) => outgoing.push_forward_hello(hello),
        Frame::Forward(piece) => outgoing.push_forward(VERSION, piece.bytes.clone()),
    }
}

/// A frame with its length field.
fn encode(frame: &Frame) -> Bytes {
    let mut outgoing = Outgoing::new();
    push(&mut outgoing, frame);
    outgoing.copy_to_bytes(outgoing.remaining())
}

/// Splits bytes at the length fields and decodes each piece.
fn decode_all(mut bytes: Bytes) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let length = usize::try_from(bytes.get_u32_le()).expect("64 bits");
        frames.push(decode(bytes.split_to(length)).expect("it was encoded as a frame"));
    }
    frames
}

#[test]
fn each_kind_of_frame_survives_and_is_written_as_version_1_was() {
    for (name, frame) in samples() {
        let bytes = encode(&frame);
        assert_eq!(decode_all(bytes.clone()), [frame], "{name}");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = format!(
            "{}/tests/fixtures/v1/{name}.hex",
            env!("CARGO_MANIFEST_DIR")
        );
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(golden.trim_end(), hex, "{path}");
    }
}

fn is_of_handshake(frame: &Frame) -> bool {
    matches!(
        frame,
        Frame::Hello(_) | Frame::TransferHello(_) | Frame::ForwardHello(_) | Frame::Answer(_)
    )
}

#[test]
fn a_handshake_fits_its_limit() {
    for (name, frame) in samples() {
        if is_of_handshake(&frame) {
            assert!(encode(&frame).len() <= HANDSHAKE_FRAME_BYTES_MAX, "{name}");
        }
    }
}

#[test]
fn no_frame_can_be_cut_or_lengthened() {
    for (name, frame) in samples() {
        let bytes = encode(&frame).slice(LENGTH_BYTES..);
        for length in 0..bytes.len() {
            assert!(
                decode(bytes.slice(..length)).is_err(),
                "{name} cut to {length}"
            );
        }
        let mut longer = BytesMut::from(&bytes[..]);
        longer.extend_from_slice(b"x");
        // A later release may append fields to the handshake.
        let may_be_longer = is_of_handshake(&frame);
        assert_eq!(decode(longer.freeze()).is_ok(), may_be_longer, "{name}");
    }
}

#[test]
fn versions_and_kinds_that_nobody_agreed_upon_are_refused() {
    let frame = |name: &str| {
        let found = samples().into_iter().find(|(other, _)| *other == name);
        BytesMut::from(&encode(&found.unwrap().1)[LENGTH_BYTES..])
    };
    let mut later = frame("heartbeat");
    later[0] = 2;
    assert_eq!(decode(later.freeze()), Err(Error::Version { found: 2 }));
    let mut of_handshake = frame("heartbeat");
    of_handshake[0] = 0;
    assert_eq!(
        decode(of_handshake.freeze()),
        Err(Error::Version { found: 0 })
    );
    let mut hello = frame("hello");
    hello[0] = 1;
    assert_eq!(decode(hello.freeze()), Err(Error::Version { found: 1 }));
    let mut kind = frame("heartbeat");
    kind[1] = 11;
    assert_eq!(decode(kind.freeze()), Err(Error::Kind { found: 11 }));
    let mut magic = frame("hello");
    magic[6] = b'q';
    assert_eq!(decode(magic.freeze()), Err(Error::Magic));
}

#[test]
fn numbers_that_no_log_can_reach_are_refused() {
    let mut far = message(Body::TimeoutNow);
    far.term = Term(u64::MAX);
    let bytes = encode(&Frame::Message(GroupId(0), far)).slice(LENGTH_BYTES..);
    assert_eq!(decode(bytes), Err(Error::Field));
    let far = message(Body::AppendEntries(AppendEntries {
        prev: position(1, 1 << 62),
        entries: Vec::new(),
        leader_commit: Index(0),
    }));
    let bytes = encode(&Frame::Message(GroupId(0), far)).slice(LENGTH_BYTES..);
    assert_eq!(decode(bytes), Err(Error::Field));
}

#[test]
fn a_large_payload_is_shared_on_both_sides() {
    let payload = Bytes::from(vec![7; 1 << 20]);
    let frame = Frame::Message(GroupId(0), message(append(vec![payload.clone(); 3])));
    let mut outgoing = Outgoing::new();
    push(&mut outgoing, &frame);
    let mut slices = [IoSlice::new(&[]); 8];
    assert_eq!(outgoing.chunks_vectored(&mut slices), 4);
    for slice in &slices[1..4] {
        assert_eq!(slice.as_ptr(), payload.as_ptr());
    }

    let bytes = encode(&frame).slice(LENGTH_BYTES..);
    let range = bytes.as_ptr_range();
    let Ok(Frame::Message(_, message)) = decode(bytes) else {
        panic!("it was encoded as a message");
    };
    let Body::AppendEntries(append) = message.body else {
        panic!("it was encoded as AppendEntries");
    };
    for entry in append.entries {
        assert!(range.contains(&entry.payload.as_ptr()));
    }
}

#[test]
fn the_largest_frame_is_possible() {
    let payload = Bytes::from(vec![7; FRAME_BYTES_MAX - 6 - 69 - 13]);
    let frame = Frame::Message(GroupId(0), message(append(vec![payload])));
    let bytes = encode(&frame);
    assert_eq!(bytes.len(), LENGTH_BYTES + FRAME_BYTES_MAX);
    assert_eq!(decode_all(bytes), [frame]);
}

#[test]
#[should_panic = "a frame of 4194305 bytes, at most 4194304 are possible"]
fn a_larger_frame_is_never_sent() {
    let payload = Bytes::from(vec![7; FRAME_BYTES_MAX - 6 - 69 - 13 + 1]);
    encode(&Frame::Message(GroupId(0), message(append(vec![payload]))));
}

/// A number below the limit, with the small ones more often than a uniform draw has them.
fn number() -> impl Strategy<Value = u64> {
    (0u32..62, any::<u64>()).prop_map(|(bits, number)| number & ((1 << bits) - 1))
}

fn any_position() -> impl Strategy<Value = Position> {
    (number(), number()).prop_map(|(term, index)| position(term, index))
}

fn any_sender() -> impl Strategy<Value = Sender> {
    (
        1u64..,
        prop::option::of(1u64..),
        1u64..,
        any::<u64>(),
        any::<bool>(),
    )
        .prop_map(|(id, cluster, instance, restart, recovering)| Sender {
            id: ServerId(id),
            cluster: cluster.map(ClusterId),
            instance: Instance(instance),
            restart: Restart(restart),
            recovering,
        })
}

fn any_entries() -> impl Strategy<Value = Vec<(u64, u8, Bytes)>> {
    let small = prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    let large = (16_000usize..40_000, any::<u8>()).prop_map(|(n, byte)| vec![byte; n].into());
    let payload = prop_oneof![4 => small, 1 => large];
    prop::collection::vec((number(), 0u8..=2, payload), 0..8)
}

fn any_append() -> impl Strategy<Value = Body> {
    (any_position(), number(), any_entries()).prop_map(|(prev, commit, entries)| {
        let mut index = prev.index;
        let entries = entries.into_iter().map(|(term, kind, payload)| {
            index = index.next();
            Entry {
                term: Term(term),
                index,
                kind: EntryKind::from_code(kind).expect("0 to 2 are kinds"),
                payload,
            }
        });
        Body::AppendEntries(AppendEntries {
            prev,
            entries: entries.collect(),
            leader_commit: Index(commit),
        })
    })
}

fn any_install() -> impl Strategy<Value = Body> {
    let payload = prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    let at = (number(), 1u64..1 << 62).prop_map(|(term, index)| position(term, index));
    (any_position(), prop::option::of((at, payload)))
        .prop_map(|(position, configuration)| install(position, configuration))
}

fn any_body() -> impl Strategy<Value = Body> {
    let campaign = || {
        prop_oneof![
            Just(Campaign::PreVote),
            Just(Campaign::Election),
            Just(Campaign::Transfer)
        ]
    };
    prop_oneof![
        (campaign(), any_position()).prop_map(|(campaign, last_log)| {
            Body::RequestVote(RequestVote { campaign, last_log })
        }),
        (campaign(), any::<bool>()).prop_map(|(campaign, granted)| {
            Body::RequestVoteReply(RequestVoteReply { campaign, granted })
        }),
        number().prop_map(|index| {
            let match_index = Index(index);
            Body::AppendEntriesReply(AppendEntriesReply::Matches { match_index })
        }),
        (any_position(), any_position()).prop_map(|(prev, hint)| {
            Body::AppendEntriesReply(AppendEntriesReply::Conflict { prev, hint })
        }),
        (number(), any::<u64>()).prop_map(|(index, round)| {
            let leader_commit = Index(index);
            Body::Heartbeat(Heartbeat {
                leader_commit,
                round,
            })
        }),
        (number(), any::<u64>()).prop_map(|(index, round)| {
            let match_index = Index(index);
            Body::HeartbeatReply(HeartbeatReply { round, match_index })
        }),
        Just(Body::TimeoutNow),
        (any::<u64>(), number()).prop_map(|(restart, index)| {
            Body::Healed(Healed {
                restart: Restart(restart),
                index: Index(index),
            })
        }),
        any_append(),
        any_install(),
    ]
}

fn any_message() -> impl Strategy<Value = Frame> {
    (any::<u32>(), any_sender(), number(), any_body()).prop_map(|(group, sender, term, body)| {
        let term = Term(term);
        Frame::Message(GroupId(group), Message { sender, term, body })
    })
}

proptest! {
    #[test]
    fn any_messages_survive_a_socket_that_takes_a_few_bytes_at_a_time(
        frames in prop::collection::vec(any_message(), 0..6),
        takes in prop::collection::vec(1usize..9_000, 1..20),
    ) {
        let mut outgoing = Outgoing::new();
        let mut written = BytesMut::new();
        let mut takes = takes.iter().cycle();
        for frame in &frames {
            push(&mut outgoing, frame);
            take(&mut outgoing, &mut written, *takes.next().unwrap());
        }
        while outgoing.has_remaining() {
            take(&mut outgoing, &mut written, *takes.next().unwrap());
        }
        prop_assert_eq!(decode_all(written.freeze()), frames);
    }
}

/// Moves up to `limit` bytes, as one vectored write would.
fn take(outgoing: &mut Outgoing, written: &mut BytesMut, limit: usize) {
    let mut slices = [IoSlice::new(&[]); 3];
    let count = outgoing.chunks_vectored(&mut slices);
    let mut taken = 0;
    for slice in &slices[..count] {
        let length = slice.len().min(limit - taken);
        written.extend_from_slice(&slice[..length]);
        taken += length;
    }
    outgoing.advance(taken);
}

#[test]
fn hostile_bytes_are_refused_or_mean_what_they_say() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Ok(frame @ (Frame::Message(..) | Frame::Transfer(_))) =
            decode(Bytes::copy_from_slice(bytes))
        {
            let again = encode(&frame).slice(LENGTH_BYTES..);
            assert_eq!(decode(again), Ok(frame));
        }
    });
}

#[test]
fn hostile_changes_to_a_frame_are_refused_or_mean_what_they_say() {
    let samples: Vec<Bytes> = samples()
        .iter()
        .map(|(_, frame)| encode(frame).slice(LENGTH_BYTES..))
        .collect();
    bolero::check!()
        .with_type::<(u8, Vec<(u16, u8)>)>()
        .for_each(|(sample, changes)| {
            let mut bytes = BytesMut::from(&samples[usize::from(*sample) % samples.len()][..]);
            for (place, byte) in changes {
                let place = usize::from(*place) % bytes.len();
                bytes[place] = *byte;
            }
            if let Ok(frame @ (Frame::Message(..) | Frame::Transfer(_))) = decode(bytes.freeze()) {
                let again = encode(&frame).slice(LENGTH_BYTES..);
                assert_eq!(decode(again), Ok(frame));
            }
        });
}
