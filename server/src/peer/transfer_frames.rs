//! Frames of a call that is about a snapshot: in turns, each within a time.

use std::io;

use bytes::Buf;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::{Frame, Outgoing, Transfer};

use super::SILENCE;
use super::frames::FrameReader;

/// The next frame.
///
/// # Errors
/// `TimedOut` after a silence, `InvalidData` when it is none, the stream's.
pub(super) async fn hear(frames: &mut FrameReader<TcpStream>) -> io::Result<Frame> {
    let frame = timeout(SILENCE, frames.next()).await;
    let frame = frame.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    wire::decode(frame.freeze()).map_err(|error| invalid(&error.to_string()))
}

/// Writes one step of a transfer.
///
/// # Errors
/// As `write`.
pub(super) async fn say(
    stream: &mut TcpStream,
    version: u8,
    transfer: &Transfer,
) -> io::Result<()> {
    let mut outgoing = Outgoing::new();
    outgoing.push_transfer(version, transfer);
    write(stream, &mut outgoing).await
}

/// Writes all of it.
///
/// # Errors
/// `TimedOut` if nobody takes it, the stream's.
pub(super) async fn write(stream: &mut TcpStream, outgoing: &mut Outgoing) -> io::Result<()> {
    while outgoing.has_remaining() {
        let written = timeout(SILENCE, stream.write_buf(outgoing)).await;
        if written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

pub(super) fn invalid(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

pub(super) fn out_of_order() -> io::Error {
    invalid("a frame that does not belong there")
}
