//! Whole frames out of a stream of bytes.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::codec::{Decoder, LengthDelimitedCodec};

/// The room that is made for one read.
const READ_BYTES: usize = 64 << 10;

/// Frames as they arrive.
#[derive(Debug)]
pub(super) struct FrameReader<R> {
    reader: R,
    received: BytesMut,
    decoder: FrameDecoder,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Takes frames up to the length of a handshake's.
    pub(super) fn new(reader: R) -> FrameReader<R> {
        FrameReader {
            reader,
            received: BytesMut::new(),
            decoder: FrameDecoder::new(),
        }
    }

    /// Takes frames of any length that is possible, from a peer that is known.
    pub(super) fn take_long_frames(&mut self) {
        self.decoder.take_long_frames();
    }

    /// What the frames come from, to be written to.
    pub(super) fn stream(&mut self) -> &mut R {
        &mut self.reader
    }

    /// The next frame, without its length field. A part of a frame at the end of the stream is
    /// dropped (rule 61).
    ///
    /// # Errors
    /// The reader's, `UnexpectedEof` at the end of the stream, `InvalidData` when a frame is too
    /// long.
    pub(super) async fn next(&mut self) -> io::Result<BytesMut> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.received)? {
                return Ok(frame);
            }
            if self.received.capacity() - self.received.len() < READ_BYTES / 4 {
                self.received.reserve(READ_BYTES);
            }
            if self.reader.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// tokio-util's codec, but for one thing: that takes room for a whole frame as soon as its length
/// has arrived, and a length costs nothing to claim. Here room grows with what has arrived.
#[derive(Debug)]
struct FrameDecoder {
    codec: LengthDelimitedCodec,
}

impl FrameDecoder {
    fn new() -> FrameDecoder {
        let codec = LengthDelimitedCodec::builder()
            .little_endian()
            .length_field_length(wire::LENGTH_BYTES)
            .max_frame_length(wire::HANDSHAKE_FRAME_BYTES_MAX)
            .new_codec();
        FrameDecoder { codec }
    }

    fn take_long_frames(&mut self) {
        self.codec.set_max_frame_length(wire::FRAME_BYTES_MAX);
    }
}

impl Decoder for FrameDecoder {
    type Item = BytesMut;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<BytesMut>> {
        let Some(length) = bytes.first_chunk::<{ wire::LENGTH_BYTES }>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        let is_possible = length <= self.codec.max_frame_length();
        if is_possible && bytes.len() < wire::LENGTH_BYTES + length {
            return Ok(None);
        }
        self.codec.decode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize) -> BytesMut {
        let mut bytes = BytesMut::from(&u32::try_from(length).unwrap().to_le_bytes()[..]);
        bytes.resize(wire::LENGTH_BYTES + length, 7);
        bytes
    }

    #[test]
    fn frames_come_whole_however_they_arrive() {
        let sent = [frame(3), frame(0), frame(1000)].concat();
        let mut decoder = FrameDecoder::new();
        let mut received = BytesMut::new();
        let mut lengths = Vec::new();
        for byte in sent {
            received.extend_from_slice(&[byte]);
            while let Some(frame) = decoder.decode(&mut received).unwrap() {
                lengths.push(frame.len());
            }
        }
        assert_eq!(lengths, [3, 0, 1000]);
    }

    #[test]
    fn a_claimed_length_takes_no_memory() {
        let mut decoder = FrameDecoder::new();
        decoder.take_long_frames();
        let mut received = frame(wire::FRAME_BYTES_MAX);
        received.truncate(100);
        let mut received = BytesMut::from(&received[..]);
        assert!(decoder.decode(&mut received).unwrap().is_none());
        assert!(received.capacity() < 1000, "{}", received.capacity());
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_at_its_length() {
        let length = u32::try_from(wire::HANDSHAKE_FRAME_BYTES_MAX).unwrap() + 1;
        let mut received = BytesMut::from(&length.to_le_bytes()[..]);
        assert!(FrameDecoder::new().decode(&mut received.clone()).is_err());
        let mut decoder = FrameDecoder::new();
        decoder.take_long_frames();
        assert!(decoder.decode(&mut received).unwrap().is_none());
        let length = u32::try_from(wire::FRAME_BYTES_MAX).unwrap() + 1;
        let mut received = BytesMut::from(&length.to_le_bytes()[..]);
        assert!(decoder.decode(&mut received).is_err());
    }
}
