//! This server's call to one peer: made again whenever it ends, and all that is said in it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use raft::ServerId;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::handshake::{self, HandshakeError, Purpose};
use super::{FromPeer, HANDSHAKE, Peers, Queue};

/// How long is waited before a call is made again, at first and at most.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(20);
pub(super) const PAUSE_MAX: Duration = Duration::from_millis(200);

/// How long the kernel tries to make a connection, and to get something through one. A call that
/// is cut off is made again rather than waited for: once the network heals, a new one is there at
/// once, while an old one waits ever longer before it tries again.
const CONNECT: Duration = Duration::from_secs(1);
const UNACKNOWLEDGED_MS: u32 = 2_000;

/// A peer that can't be reached for this long is told of once.
const UNREACHABLE: Duration = Duration::from_secs(5);

/// Where a peer is called.
#[derive(Clone, Debug)]
pub(crate) struct Callee {
    pub(crate) id: ServerId,
    pub(crate) host: String,
    pub(crate) rpc_port: u16,
    /// How many peers there are in all.
    pub(crate) others: usize,
}

/// Calls the peer and says what is in `queue`, for as long as the runtime lives.
pub(crate) async fn call(callee: Callee, queue: Arc<Queue>, peers: Arc<Peers>) {
    let mut pause = PAUSE_MIN;
    let mut silent_since = Instant::now();
    let mut told = false;
    loop {
        match connect(&callee, &peers, Purpose::Messages).await {
            Ok((stream, version)) => {
                info!("connected to server {}", callee.id);
                peers.refusals.settled(callee.id);
                queue.start();
                let room = peers.evaluator.reserve(0).await;
                peers.evaluator.send(room, FromPeer::Connected(callee.id));
                let error = talk(stream, version, &queue).await;
                info!("the connection to server {} is lost: {error}", callee.id);
                pause = PAUSE_MIN;
                silent_since = Instant::now();
                told = false;
            }
            Err(HandshakeError::Refused { refusal, by }) => {
                let refused = peers
                    .refusals
                    .refused(callee.id, refusal, &by, callee.others);
                if let Err(error) = refused {
                    // Nobody listens any more once the server ends for another reason.
                    let _ = peers.fatal.send(error);
                }
                pause = PAUSE_MAX;
            }
            Err(HandshakeError::Refuses { from, refusal }) => {
                peers.refusals.refuses(from, refusal);
                pause = PAUSE_MAX;
            }
            Err(error) => {
                debug!("no connection to server {}: {error}", callee.id);
                if silent_since.elapsed() > UNREACHABLE && !told {
                    told = true;
                    warn!("server {} can't be reached: {error}", callee.id);
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// A connection with the handshake done, and the version to speak on it.
pub(super) async fn connect(
    callee: &Callee,
    peers: &Peers,
    purpose: Purpose,
) -> Result<(TcpStream, u8), HandshakeError> {
    let address = (callee.host.as_str(), callee.rpc_port);
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let connection = timeout(CONNECT, TcpStream::connect(address)).await;
    let mut stream = connection.map_err(late)??;
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MS)
        .map_err(io::Error::from)?;
    let published = peers.view.now().ok_or(HandshakeError::Order)?;
    let identity = &published.identity;
    let handshake = handshake::call(&mut stream, identity, callee.id, purpose);
    let version = timeout(HANDSHAKE, handshake).await.map_err(late)??;
    Ok((stream, version))
}

/// Says what comes into the queue, until the connection ends.
async fn talk(stream: TcpStream, version: u8, queue: &Queue) -> io::Error {
    let (reader, writer) = stream.into_split();
    tokio::select! {
        error = queue.drive(writer, version) => error,
        error = end(reader) => error,
    }
}

/// Waits for the peer to hang up: it has nothing to say here.
pub(super) async fn end(mut reader: OwnedReadHalf) -> io::Error {
    match reader.read(&mut [0; 16]).await {
        Ok(0) => io::ErrorKind::UnexpectedEof.into(),
        Ok(_) => io::ErrorKind::InvalidData.into(),
        Err(error) => error,
    }
}
