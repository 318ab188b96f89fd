//! What waits to be sent to one peer, and the connection that it goes to. It is bounded in bytes:
//! what does not fit is dropped, as a network would, and counted. What asserts or asks for
//! leadership bypasses entries, and of it the newest is kept.
//!
//! Whoever has something to say writes it himself, as long as the socket takes it at once: to wake
//! a task for it would cost more than the write. The connection's task goes on when it does not.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Buf;
use evaluator::StateHash;
use raft::{Body, Message};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;
use wire::Outgoing;

use super::GROUP;
use crate::clock::Clock;

/// Room for AppendEntries. More than the core has under way to one follower.
const ENTRIES_BYTES_MAX: usize = 16 << 20;

/// Room for all other messages.
const URGENT_MAX: usize = 1024;

/// The most of entries that is put in front of an urgent message that comes later.
const WRITE_BYTES_MAX: usize = 256 << 10;

/// A peer that is told anything urgent is told this often what the wall clock shows (rule 50).
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

/// The pieces of one vectored write.
const PIECES_MAX: usize = 64;

/// What waited longer than this for a connection is not sent any more: another answer or round
/// has taken its place.
const URGENT_AGE_MAX: Duration = Duration::from_millis(100);

/// An AppendEntries without its entries, and an entry without its payload, roughly.
const MESSAGE_BYTES: usize = 128;
const ENTRY_BYTES: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    /// Told when the connection's task has to go on writing.
    stuck: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    urgent: VecDeque<(Instant, Message)>,
    entries: VecDeque<Message>,
    /// Of `entries`.
    bytes: usize,
    dropped: u64,
    /// The newest hash of this server's state, if the peer is still to be told.
    state_hash: Option<StateHash>,
    /// When the peer was last told what the wall clock shows, on this connection.
    told_clock: Option<Instant>,
    link: Option<Link>,
}

/// A connection to the peer.
#[derive(Debug)]
struct Link {
    writer: Arc<OwnedWriteHalf>,
    /// The version that the handshake agreed upon.
    version: u8,
    /// Taken from what waits, and being written.
    outgoing: Outgoing,
    state: LinkState,
}

#[derive(Debug)]
enum LinkState {
    /// The socket takes bytes, as far as is known.
    Open,
    /// The connection's task is to go on.
    Stuck,
    /// A write went wrong; the connection's task is to be told.
    Broken(io::Error),
}

impl Queue {
    /// Appends a message, or drops one. It goes out with the next `send`.
    pub(crate) fn push(&self, message: Message) {
        let mut waiting = self.waiting();
        if let Some(bytes) = entries_bytes(&message) {
            if waiting.bytes + bytes > ENTRIES_BYTES_MAX {
                waiting.dropped += 1;
                return;
            }
            waiting.bytes += bytes;
            waiting.entries.push_back(message);
        } else {
            if waiting.urgent.len() >= URGENT_MAX {
                waiting.urgent.pop_front();
                waiting.dropped += 1;
            }
            waiting.urgent.push_back((Instant::now(), message));
        }
    }

    /// The peer is told of this with the next message.
    pub(crate) fn push_state_hash(&self, hash: StateHash) {
        self.waiting().state_hash = Some(hash);
    }

    /// Writes what waits, if there is a connection and it takes anything; what it does not take
    /// now is left to the connection's task. Never blocks.
    pub(crate) fn send(&self) {
        if self.waiting().write_once().is_some() {
            self.stuck.notify_one();
        }
    }

    /// Messages dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.waiting().dropped
    }

    /// Drops what was meant for an earlier connection: the core sends it again once it is told
    /// of this one.
    pub(super) fn start(&self) {
        let mut waiting = self.waiting();
        waiting.told_clock = None;
        waiting.entries.clear();
        waiting.bytes = 0;
        waiting
            .urgent
            .retain(|(since, _)| since.elapsed() < URGENT_AGE_MAX);
    }

    /// Writes whatever is pushed to this connection, whose peer speaks `version`, until it ends.
    pub(super) async fn drive(&self, writer: OwnedWriteHalf, version: u8) -> io::Error {
        let writer = Arc::new(writer);
        self.waiting().link = Some(Link {
            writer: Arc::clone(&writer),
            version,
            outgoing: Outgoing::new(),
            state: LinkState::Stuck,
        });
        // Also when this is dropped halfway.
        let _unlink = Unlink(self);
        loop {
            if let Err(error) = writer.writable().await {
                return error;
            }
            let stuck = self.waiting().resume();
            match stuck {
                Ok(true) => {}
                Ok(false) => self.stuck.notified().await,
                Err(error) => return error,
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting
            .lock()
            .expect("nothing panics while it is held")
    }
}

/// Forgets the connection when dropped.
struct Unlink<'a>(&'a Queue);

impl Drop for Unlink<'_> {
    fn drop(&mut self) {
        self.0.waiting().link = None;
    }
}

/// The connection's task has something to do.
struct Stuck;

impl Waiting {
    /// Writes once, if there is a connection that takes bytes.
    fn write_once(&mut self) -> Option<Stuck> {
        let mut link = self
            .link
            .take_if(|link| matches!(link.state, LinkState::Open))?;
        self.fill(link.version, &mut link.outgoing);
        link.state = match link.write() {
            Err(error) => LinkState::Broken(error),
            Ok(()) if link.outgoing.has_remaining() || self.waits() => LinkState::Stuck,
            Ok(()) => LinkState::Open,
        };
        let stuck = !matches!(link.state, LinkState::Open);
        self.link = Some(link);
        stuck.then_some(Stuck)
    }

    /// Goes on writing to a connection that may take bytes again; whether it is stuck once more.
    fn resume(&mut self) -> io::Result<bool> {
        let Some(link) = &mut self.link else {
            return Ok(false);
        };
        if let LinkState::Broken(error) = std::mem::replace(&mut link.state, LinkState::Open) {
            return Err(error);
        }
        Ok(self.write_once().is_some())
    }

    fn waits(&self) -> bool {
        !self.urgent.is_empty() || !self.entries.is_empty()
    }

    /// Moves what waits to `outgoing`, until that holds as much as is written at a time.
    fn fill(&mut self, version: u8, outgoing: &mut Outgoing) {
        let told_lately = |at: Instant| at.elapsed() < CLOCK_INTERVAL;
        if !self.urgent.is_empty() && !self.told_clock.is_some_and(told_lately) {
            outgoing.push_clock(version, Clock::wall().0);
            self.told_clock = Some(Instant::now());
        }
        if let Some(state) = self.state_hash.take() {
            outgoing.push_state_hash(version, state.function, state.index, state.hash);
        }
        while let Some((_, message)) = self.urgent.pop_front() {
            outgoing.push_message(version, GROUP, &message);
        }
        while outgoing.remaining() < WRITE_BYTES_MAX {
            let Some(message) = self.entries.pop_front() else {
                return;
            };
            self.bytes -= entries_bytes(&message).unwrap_or(0);
            outgoing.push_message(version, GROUP, &message);
        }
    }
}

impl Link {
    /// Writes what the socket takes of `outgoing`.
    fn write(&mut self) -> io::Result<()> {
        if !self.outgoing.has_remaining() {
            return Ok(());
        }
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        let count = self.outgoing.chunks_vectored(&mut pieces);
        match self.writer.try_write_vectored(&pieces[..count]) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                self.outgoing.advance(written);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What an AppendEntries takes; `None` for any other message.
fn entries_bytes(message: &Message) -> Option<usize> {
    let Body::AppendEntries(append) = &message.body else {
        return None;
    };
    let entries = append.entries.iter();
    let bytes = entries.map(|entry| ENTRY_BYTES + entry.payload.len());
    Some(MESSAGE_BYTES + bytes.sum::<usize>())
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::task::Poll;

    use bytes::{Bytes, BytesMut};
    use raft::{
        AppendEntries, Entry, EntryKind, Heartbeat, Index, Instance, Position, Restart, Sender,
        ServerId, Term,
    };
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use wire::Frame;

    use super::super::outbound::end;
    use super::*;

    fn message(body: Body) -> Message {
        Message {
            sender: Sender {
                id: ServerId(1),
                cluster: None,
                instance: Instance(1),
                restart: Restart(1),
                recovering: false,
            },
            term: Term(1),
            body,
        }
    }

    fn heartbeat(round: u64) -> Message {
        let leader_commit = Index(0);
        message(Body::Heartbeat(Heartbeat {
            leader_commit,
            round,
        }))
    }

    fn entry(bytes: usize) -> Message {
        message(Body::AppendEntries(AppendEntries {
            prev: Position::default(),
            entries: vec![Entry {
                term: Term(1),
                index: Index(1),
                kind: EntryKind::Command,
                payload: Bytes::from(vec![0; bytes]),
            }],
            leader_commit: Index(0),
        }))
    }

    fn take(queue: &Queue) -> Vec<Message> {
        let mut outgoing = Outgoing::new();
        queue.waiting().fill(1, &mut outgoing);
        messages(outgoing.copy_to_bytes(outgoing.remaining()))
    }

    fn messages(mut bytes: Bytes) -> Vec<Message> {
        let mut messages = Vec::new();
        while bytes.has_remaining() {
            let length = bytes.get_u32_le() as usize;
            match wire::decode(bytes.split_to(length)) {
                Ok(Frame::Message(_, message)) => messages.push(message),
                Ok(Frame::Clock(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        messages
    }

    #[test]
    fn heartbeats_overtake_entries() {
        let queue = Queue::default();
        queue.push(entry(10));
        queue.push(heartbeat(1));
        assert_eq!(take(&queue), [heartbeat(1), entry(10)]);
        assert_eq!(take(&queue), []);
    }

    #[test]
    fn a_write_holds_no_more_entries_than_a_heartbeat_can_wait_for() {
        let queue = Queue::default();
        for _ in 0..4 {
            queue.push(entry(WRITE_BYTES_MAX - 1000));
        }
        assert_eq!(take(&queue).len(), 2);
        queue.push(heartbeat(1));
        assert_eq!(take(&queue)[0], heartbeat(1));
    }

    #[test]
    fn entries_beyond_the_bound_are_dropped_and_counted() {
        let queue = Queue::default();
        for _ in 0..20 {
            queue.push(entry(1 << 20));
        }
        assert_eq!(queue.dropped(), 5);
        let taken: usize = std::iter::from_fn(|| Some(take(&queue).len()).filter(|n| *n > 0)).sum();
        assert_eq!(taken, 15);
        queue.push(entry(1 << 20));
        assert_eq!(take(&queue).len(), 1, "there is room again");
    }

    #[test]
    fn of_urgent_messages_the_oldest_are_dropped() {
        let queue = Queue::default();
        for round in 0..1026 {
            queue.push(heartbeat(round));
        }
        assert_eq!(queue.dropped(), 2);
        assert_eq!(take(&queue)[0], heartbeat(2));
    }

    #[test]
    fn a_connection_begins_without_entries_meant_for_the_one_before() {
        let queue = Queue::default();
        queue.push(entry(10));
        queue.push(heartbeat(1));
        queue.start();
        assert_eq!(take(&queue), [heartbeat(1)]);
    }

    #[tokio::test]
    async fn a_socket_that_takes_no_more_gets_the_rest_once_it_does() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (reader, writer) = TcpStream::connect(address)
            .await
            .expect("somebody listens")
            .into_split();
        let (mut peer, _) = listener.accept().await.expect("somebody called");
        let queue = Queue::default();
        let sent = 12;
        let speaker = async {
            let mut drive = Box::pin(queue.drive(writer, 1));
            poll_fn(|context| Poll::Ready(drive.as_mut().poll(context).is_pending())).await;
            for _ in 0..sent {
                queue.push(entry(1 << 20));
                queue.send();
            }
            drive.await
        };
        let listens = async {
            let mut received = BytesMut::new();
            let mut one = Outgoing::new();
            one.push_message(1, GROUP, &entry(1 << 20));
            while received.len() < sent * one.remaining() {
                let count = peer.read_buf(&mut received).await.expect("a connection");
                assert!(count > 0, "the end after {} bytes", received.len());
            }
            let received = messages(received.freeze());
            assert_eq!(received, vec![entry(1 << 20); sent]);
            drop(peer);
        };
        let ((), _) = tokio::join!(listens, async {
            tokio::select! {
                _ = speaker => {}
                _ = end(reader) => {}
            }
        });
        queue.push(heartbeat(1));
        queue.send();
        assert_eq!(take(&queue), [heartbeat(1)], "it waits for a connection");
    }
}
