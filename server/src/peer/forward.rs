//! What is forwarded: each server that forwards keeps a connection to each other one for it, on which
//! commands go one way and outcomes the other. It is not the connection of Raft's messages, so that
//! neither waits for the other, and so that a leader with too much to do simply reads no further:
//! what is not read fills the connection, then the follower's window, and then the follower leaves
//! its clients alone, as the leader does with its own (rule 59).

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Buf;
use evaluator::{ForwardMessage, Stream, TO_FOLLOWER_BYTES_MAX, TO_LEADER_BYTES_MAX};
use raft::ServerId;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use wire::{Frame, Joiner, Outgoing};

use super::frames::FrameReader;
use super::handshake::{Caller, Purpose};
use super::outbound::{Callee, PAUSE_MAX, PAUSE_MIN, connect};
use super::transfer_frames::{invalid, out_of_order};
use super::{FromPeer, Peers, SILENCE};
use crate::bell;
use crate::client::FromClient;

/// A connection on which more than this waits to be sent is given up. To a leader: several times
/// what is with it unless clients have given up waiting. To a follower: replies, whose values are the
/// store's own for as long as nobody has changed them, and far more than there are unless somebody
/// means harm.
pub(crate) const TO_LEADER_QUEUE_BYTES_MAX: usize = 16 << 20;
pub(crate) const TO_FOLLOWER_QUEUE_BYTES_MAX: usize = 4 << 30;

/// While more than this waits to be sent to a follower, it is not listened to.
const TO_FOLLOWER_AHEAD_BYTES: usize = 64 << 20;

/// So much is encoded at a time.
const WRITE_BYTES: usize = 256 << 10;

/// What waits to be sent to one peer in one direction.
#[derive(Debug)]
pub(crate) struct ForwardQueue {
    bytes_max: usize,
    waiting: Mutex<Waiting>,
    told: Notify,
    /// Less waits than did.
    taken: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<ForwardMessage>,
    bytes: usize,
    /// More than there is room for was to be sent.
    is_overfull: bool,
    /// Which connection it goes to, if there is one.
    link: Option<Link>,
    links: u64,
}

/// One connection of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link(u64);

impl ForwardQueue {
    pub(crate) fn new(bytes_max: usize) -> ForwardQueue {
        ForwardQueue {
            bytes_max,
            waiting: Mutex::default(),
            told: Notify::new(),
            taken: Notify::new(),
        }
    }

    /// Appends a message, if there is a connection for it.
    pub(crate) fn push(&self, message: ForwardMessage) {
        let mut waiting = self.waiting();
        if waiting.link.is_none() {
            return;
        }
        waiting.bytes += message.held_bytes();
        waiting.messages.push_back(message);
        if waiting.bytes > self.bytes_max {
            waiting.is_overfull = true;
            waiting.clear();
        }
        drop(waiting);
        self.told.notify_one();
    }

    /// A connection begins; what waits is not meant for it.
    fn begin(&self) -> Link {
        let mut waiting = self.waiting();
        waiting.clear();
        waiting.is_overfull = false;
        waiting.links += 1;
        let link = Link(waiting.links);
        waiting.link = Some(link);
        link
    }

    /// A connection has ended. Another one may have taken its place.
    fn end(&self, link: Link) {
        let mut waiting = self.waiting();
        if waiting.link == Some(link) {
            waiting.clear();
            waiting.link = None;
        }
    }

    /// Writes what is pushed, until the connection ends.
    async fn write(&self, link: Link, mut writer: OwnedWriteHalf, version: u8) -> io::Error {
        let mut outgoing = Outgoing::new();
        loop {
            while outgoing.remaining() < WRITE_BYTES {
                match self.take(link) {
                    Ok(Some(message)) => outgoing.push_forward(version, message.encode()),
                    Ok(None) => break,
                    Err(error) => return error,
                }
            }
            if !outgoing.has_remaining() {
                self.told.notified().await;
                continue;
            }
            match timeout(SILENCE, writer.write_buf(&mut outgoing)).await {
                Ok(Ok(0)) => return io::ErrorKind::WriteZero.into(),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error,
                Err(_) => return io::ErrorKind::TimedOut.into(),
            }
            // The thread is a clients' one.
            bell::ring_overdue();
        }
    }

    fn take(&self, link: Link) -> io::Result<Option<ForwardMessage>> {
        let mut waiting = self.waiting();
        if waiting.link != Some(link) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if waiting.is_overfull {
            return Err(io::Error::other("more waits than there is room for"));
        }
        let message = waiting.messages.pop_front();
        if let Some(message) = &message {
            waiting.bytes -= message.held_bytes();
        }
        drop(waiting);
        self.taken.notify_one();
        Ok(message)
    }

    /// Waits until no more than this waits to be sent.
    async fn drained_to(&self, bytes: usize) {
        while self.waiting().bytes > bytes {
            self.taken.notified().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting
            .lock()
            .expect("nothing panics while it is held")
    }
}

impl Waiting {
    fn clear(&mut self) {
        self.messages.clear();
        self.bytes = 0;
    }
}

/// Messages as they arrive.
struct Incoming {
    frames: FrameReader<OwnedReadHalf>,
    joiner: Joiner,
    bytes_max: usize,
}

impl Incoming {
    fn new(reader: OwnedReadHalf, bytes_max: usize) -> Incoming {
        let mut frames = FrameReader::new(reader);
        frames.take_long_frames();
        Incoming {
            frames,
            joiner: Joiner::new(bytes_max),
            bytes_max,
        }
    }

    /// The next message, and its length.
    async fn next(&mut self) -> io::Result<(ForwardMessage, usize)> {
        loop {
            let frame = self.frames.next().await?;
            let piece = match wire::decode(frame.freeze()) {
                Ok(Frame::Forward(piece)) => piece,
                Ok(_) => return Err(out_of_order()),
                Err(error) => return Err(invalid(&error.to_string())),
            };
            let joined = self.joiner.join(piece);
            let Some(bytes) = joined.map_err(|error| invalid(&error.to_string()))? else {
                continue;
            };
            let message = ForwardMessage::decode(&bytes, self.bytes_max);
            let message = message.map_err(|error| invalid(&error.to_string()))?;
            return Ok((message, bytes.len()));
        }
    }
}

/// As a follower: keeps a connection to this peer, sends it what is in `queue` and gives the
/// evaluator what comes back, for as long as the runtime lives.
pub(crate) async fn forward(callee: Callee, queue: Arc<ForwardQueue>, peers: Arc<Peers>) {
    let mut pause = PAUSE_MIN;
    loop {
        match connect(&callee, &peers, Purpose::Forward).await {
            Ok((stream, version)) => {
                debug!("forwards to server {} if it leads", callee.id);
                let link = queue.begin();
                tell(&peers, FromPeer::ForwardLink(callee.id, true)).await;
                let (reader, writer) = stream.into_split();
                let error = tokio::select! {
                    error = queue.write(link, writer, version) => error,
                    error = hear(reader, callee.id, &peers) => error,
                };
                queue.end(link);
                tell(&peers, FromPeer::ForwardLink(callee.id, false)).await;
                info!("nothing is forwarded to server {} now: {error}", callee.id);
                pause = PAUSE_MIN;
            }
            // The call for messages tells what is to be told.
            Err(error) => debug!("nothing is forwarded to server {}: {error}", callee.id),
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn tell(peers: &Peers, what: FromPeer) {
    let room = peers.forwards.reserve(0).await;
    peers.forwards.send(room, what);
}

/// Gives the evaluator what a leader says.
async fn hear(reader: OwnedReadHalf, from: ServerId, peers: &Peers) -> io::Error {
    let mut incoming = Incoming::new(reader, TO_FOLLOWER_BYTES_MAX);
    loop {
        let (message, bytes) = match incoming.next().await {
            Ok(next) => next,
            Err(error) => return error,
        };
        if message.is_to_leader() {
            return out_of_order();
        }
        let room = peers.forwards.reserve(bytes).await;
        if !peers.forwards.send(room, FromPeer::Forward(from, message)) {
            return io::ErrorKind::ConnectionAborted.into();
        }
    }
}

/// As a leader: takes what this follower forwards, until the connection ends or `ended` says that
/// the follower has made another one.
pub(super) async fn take(
    stream: TcpStream,
    caller: Caller,
    ended: CancellationToken,
    peers: &Peers,
) {
    let from = caller.hello.from;
    let Some(queue) = peers.followers.get(&from) else {
        return;
    };
    let _ = stream.set_nodelay(true);
    let link = queue.begin();
    let mut newest = Stream::default();
    let (reader, writer) = stream.into_split();
    let error = tokio::select! {
        error = queue.write(link, writer, caller.version) => error,
        error = listen(reader, from, &mut newest, (peers, queue)) => error,
        () = ended.cancelled() => io::ErrorKind::ConnectionAborted.into(),
    };
    queue.end(link);
    match error.kind() {
        io::ErrorKind::InvalidData => warn!("takes no more from server {from}: {error}"),
        _ => debug!("server {from} forwards nothing more: {error}"),
    }
    let room = peers.clients.reserve(0).await;
    let gone = FromClient::FollowerGone(from, newest);
    peers.clients.send(room, gone);
}

/// Gives the evaluator what a follower says, as it takes what clients say, and while the replies are
/// taken.
async fn listen(
    reader: OwnedReadHalf,
    from: ServerId,
    newest: &mut Stream,
    (peers, replies): (&Peers, &ForwardQueue),
) -> io::Error {
    let mut incoming = Incoming::new(reader, TO_LEADER_BYTES_MAX);
    loop {
        replies.drained_to(TO_FOLLOWER_AHEAD_BYTES).await;
        let (message, bytes) = match incoming.next().await {
            Ok(next) => next,
            Err(error) => return error,
        };
        if !message.is_to_leader() {
            return out_of_order();
        }
        let room = peers.clients.reserve(bytes).await;
        *newest = message.stream.max(*newest);
        if !peers.clients.send(room, FromClient::Forward(from, message)) {
            return io::ErrorKind::ConnectionAborted.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use evaluator::{ConnectionId, ForwardBody};
    use tokio::net::TcpListener;

    use super::*;

    fn message(number: u64) -> ForwardMessage {
        ForwardMessage {
            stream: Stream::default(),
            number,
            body: ForwardBody::Gone {
                connection: ConnectionId(number),
            },
        }
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let near = TcpStream::connect(address).await.expect("it listens");
        let (far, _) = listener.accept().await.expect("somebody called");
        (near, far)
    }

    #[tokio::test]
    async fn messages_arrive_in_order_and_none_that_was_meant_for_an_earlier_connection() {
        let queue = ForwardQueue::new(1 << 20);
        queue.push(message(1));
        let earlier = queue.begin();
        queue.push(message(2));
        queue.end(earlier);
        queue.push(message(3));
        let link = queue.begin();
        for number in 4..100 {
            queue.push(message(number));
        }
        let (near, far) = pair().await;
        let (_reader, writer) = near.into_split();
        let (reader, _writer) = far.into_split();
        let mut incoming = Incoming::new(reader, TO_LEADER_BYTES_MAX);
        let heard = async {
            for number in 4..100 {
                let (heard, _) = incoming.next().await.expect("it is written");
                assert_eq!(heard, message(number));
            }
        };
        tokio::select! {
            error = queue.write(link, writer, 1) => panic!("{error}"),
            () = heard => {}
        }
    }

    #[tokio::test]
    async fn who_waits_until_little_waits_goes_on_when_it_was_taken() {
        let queue = ForwardQueue::new(1 << 20);
        let link = queue.begin();
        for number in 0..10 {
            queue.push(message(number));
        }
        let each = message(0).held_bytes();
        let mut drained = Box::pin(queue.drained_to(3 * each));
        for left in (0..10).rev() {
            let is_drained = std::future::poll_fn(|context| {
                std::task::Poll::Ready(drained.as_mut().poll(context).is_ready())
            });
            assert_eq!(is_drained.await, left < 3, "{left} and one more wait");
            if left < 3 {
                break;
            }
            assert!(queue.take(link).expect("the link is there").is_some());
        }
    }

    #[tokio::test]
    async fn a_connection_is_given_up_when_too_much_waits_or_another_takes_its_place() {
        let queue = ForwardQueue::new(1000);
        let link = queue.begin();
        for number in 0..100 {
            queue.push(message(number));
        }
        let (near, _far) = pair().await;
        let (_reader, writer) = near.into_split();
        let error = queue.write(link, writer, 1).await;
        assert_eq!(error.kind(), io::ErrorKind::Other);

        let earlier = queue.begin();
        let later = queue.begin();
        let error = queue.take(earlier).expect_err("its place is taken");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        queue.end(earlier);
        queue.push(message(1));
        let taken = queue.take(later).expect("it is there");
        assert_eq!(taken, Some(message(1)));
    }
}
