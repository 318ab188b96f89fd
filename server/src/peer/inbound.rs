//! One call of another server: its messages, to the evaluator.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use command::LogTime;
use evaluator::StateHash;
use raft::{Body, ServerId};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{debug, warn};
use wire::Frame;

use super::forward;
use super::frames::FrameReader;
use super::handshake::{HandshakeError, Purpose, answer};
use super::listener::Calls;
use super::{FromPeer, GROUP, HANDSHAKE, Peers};
use crate::places::Place;

/// Listens until the call ends, or another one of the same peer begins.
pub(super) async fn take(
    mut stream: TcpStream,
    address: SocketAddr,
    place: Place,
    peers: &Arc<Peers>,
    calls: &Arc<Calls>,
) {
    let identity = || Some(peers.view.now()?.identity.clone());
    let handshake = tokio::select! {
        handshake = timeout(HANDSHAKE, answer(&mut stream, identity)) => handshake,
        () = place.lost() => {
            debug!("a call from {address} gives way to others");
            return;
        }
    };
    let caller = match handshake {
        Ok(Ok(caller)) => caller,
        Ok(Err(HandshakeError::Refuses { from, refusal })) => {
            peers.refusals.refuses(from, refusal);
            return;
        }
        Ok(Err(error)) => {
            debug!("a call from {address} comes to nothing: {error}");
            return;
        }
        Err(_) => {
            debug!("a call from {address} stays silent");
            return;
        }
    };
    if !place.earn() {
        return;
    }
    if caller.purpose == Purpose::Snapshot {
        let (receiver, calls) = (Arc::clone(peers), Arc::clone(calls));
        peers.transfers.spawn(async move {
            calls.receiving.receive(stream, caller, &receiver).await;
            drop(place);
        });
        return;
    }
    let from = caller.hello.from;
    if caller.purpose == Purpose::Forward {
        let (taker, ended) = (Arc::clone(peers), calls.begin_forwards(from));
        peers.forwarding.spawn(async move {
            forward::take(stream, caller, ended, &taker).await;
            drop(place);
        });
        return;
    }
    let ended = calls.begin(from);
    tokio::select! {
        result = listen(stream, from, peers) => match result {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                warn!("ends the call of server {from}: {error}");
            }
            Err(error) => debug!("the call of server {from} ends: {error}"),
        },
        () = ended.cancelled() => {}
    }
}

/// Gives the evaluator each message. Ends well only when there is no evaluator any more.
async fn listen(stream: TcpStream, from: ServerId, peers: &Peers) -> io::Result<()> {
    let mut frames = FrameReader::new(stream);
    frames.take_long_frames();
    let invalid = |problem: String| io::Error::new(io::ErrorKind::InvalidData, problem);
    loop {
        let frame = frames.next().await?;
        let bytes = frame.len();
        let message = match wire::decode(frame.freeze()) {
            // The snapshot that it is about comes on a call of its own, and it comes behind it.
            Ok(Frame::Message(_, message)) if matches!(message.body, Body::InstallSnapshot(_)) => {
                return Err(invalid("a snapshot without its file".to_owned()));
            }
            Ok(Frame::Message(GROUP, message)) => message,
            Ok(Frame::Clock(wall_ms)) => {
                let room = peers.evaluator.reserve(bytes).await;
                let clock = FromPeer::Clock(from, LogTime(wall_ms));
                if !peers.evaluator.send(room, clock) {
                    return Ok(());
                }
                continue;
            }
            Ok(Frame::StateHash {
                function,
                index,
                hash,
            }) => {
                let room = peers.evaluator.reserve(bytes).await;
                let state = StateHash {
                    function,
                    index,
                    hash,
                };
                if !peers.evaluator.send(room, FromPeer::StateHash(from, state)) {
                    return Ok(());
                }
                continue;
            }
            // A group that this release does not know of.
            Ok(Frame::Message(..)) => continue,
            Ok(Frame::Hello(_) | Frame::Answer(_)) => {
                return Err(invalid("a handshake in the middle".to_owned()));
            }
            Ok(Frame::TransferHello(_) | Frame::ForwardHello(_)) => {
                return Err(invalid("a handshake in the middle".to_owned()));
            }
            Ok(Frame::Transfer(_)) => {
                return Err(invalid("a part of a snapshot among messages".to_owned()));
            }
            Ok(Frame::Forward(_)) => {
                return Err(invalid("forwarded commands among messages".to_owned()));
            }
            Err(error) => return Err(invalid(error.to_string())),
        };
        if message.sender.id != from {
            let id = message.sender.id;
            return Err(invalid(format!("it speaks in the name of server {id}")));
        }
        let room = peers.evaluator.reserve(bytes).await;
        if !peers.evaluator.send(room, FromPeer::Message(message)) {
            return Ok(());
        }
    }
}
