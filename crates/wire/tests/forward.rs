//! Messages about forwarded commands, in pieces.

use bytes::{Buf, Bytes};
use quorate_wire::{Error, Frame, Joiner, Outgoing, Piece, decode};

const VERSION: u8 = 1;

/// The largest message that these tests join.
const BYTES_MAX: usize = 1 << 20;

fn encode(message: &Bytes) -> Bytes {
    let mut outgoing = Outgoing::new();
    outgoing.push_forward(VERSION, message.clone());
    outgoing.copy_to_bytes(outgoing.remaining())
}

fn pieces(mut bytes: Bytes) -> Vec<Piece> {
    let mut pieces = Vec::new();
    while bytes.has_remaining() {
        let length = bytes.get_u32_le() as usize;
        match decode(bytes.split_to(length)) {
            Ok(Frame::Forward(piece)) => pieces.push(piece),
            other => panic!("a piece arrives as {other:?}"),
        }
    }
    pieces
}

#[test]
fn a_short_message_is_one_frame_as_version_1_wrote_it() {
    let bytes = encode(&Bytes::from_static(b"abc"));
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = "/tests/fixtures/v1/forward_whole.hex";
    let golden = std::fs::read_to_string([env!("CARGO_MANIFEST_DIR"), path].concat());
    assert_eq!(golden.unwrap_or_default().trim_end(), hex);
}

#[test]
fn messages_of_any_length_arrive_whole() {
    let mut joiner = Joiner::new(BYTES_MAX);
    for length in [
        0,
        1,
        1000,
        (256 << 10) - 1,
        256 << 10,
        (256 << 10) + 1,
        BYTES_MAX,
    ] {
        let message: Bytes = (0..length).map(|at| at as u8).collect();
        let mut pieces = pieces(encode(&message));
        let last = pieces.pop().expect("there is one at least");
        for piece in pieces {
            assert_eq!(joiner.join(piece), Ok(None));
        }
        assert_eq!(joiner.join(last), Ok(Some(message)), "{length} bytes");
    }
}

#[test]
fn a_message_that_is_too_long_is_refused_before_it_has_come() {
    let message = Bytes::from(vec![7; BYTES_MAX + 1]);
    let mut joiner = Joiner::new(BYTES_MAX);
    let joined = pieces(encode(&message)).into_iter();
    let errors: Vec<Error> = joined
        .filter_map(|piece| joiner.join(piece).err())
        .collect();
    let bytes_max = BYTES_MAX;
    assert_eq!(errors, [Error::Overlong { bytes_max }]);
}

#[test]
fn a_piece_says_whether_it_is_the_last() {
    let frame = |body: &'static [u8]| {
        let head = [VERSION, 10, 0, 0, 0, 0];
        decode(Bytes::from([&head[..], body].concat()))
    };
    let piece = |is_last, bytes| {
        let bytes = Bytes::from_static(bytes);
        Ok(Frame::Forward(Piece { is_last, bytes }))
    };
    assert_eq!(frame(b"\x00ab"), piece(false, b"ab"));
    assert_eq!(frame(b"\x01"), piece(true, b""));
    assert_eq!(frame(b"\x02ab"), Err(Error::Field));
    assert_eq!(frame(b""), Err(Error::Short));
}
