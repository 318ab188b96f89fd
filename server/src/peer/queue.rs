//! What waits to be sent to one peer. It is bounded in bytes: what does not fit is dropped, as a
//! network would, and counted. What asserts or asks for leadership bypasses entries, and of it the
//! newest is kept.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use raft::{Body, Message};
use tokio::sync::Notify;
use wire::Outgoing;

use super::GROUP;

/// Room for AppendEntries. More than the core has under way to one follower.
const ENTRIES_BYTES_MAX: usize = 16 << 20;

/// Room for all other messages.
const URGENT_MAX: usize = 1024;

/// The most of entries that is put in front of an urgent message that comes later.
const WRITE_BYTES_MAX: usize = 256 << 10;

/// What waited longer than this for a connection is not sent any more: another answer or round
/// has taken its place.
const URGENT_AGE_MAX: Duration = Duration::from_millis(100);

/// An AppendEntries without its entries, and an entry without its payload, roughly.
const MESSAGE_BYTES: usize = 128;
const ENTRY_BYTES: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    urgent: VecDeque<(Instant, Message)>,
    entries: VecDeque<Message>,
    /// Of `entries`.
    bytes: usize,
    dropped: u64,
}

impl Queue {
    /// Appends a message, or drops one.
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
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Messages dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.waiting().dropped
    }

    /// Drops what was meant for an earlier connection: the core sends it again once it is told
    /// of this one.
    pub(super) fn start(&self) {
        let mut waiting = self.waiting();
        waiting.entries.clear();
        waiting.bytes = 0;
        waiting
            .urgent
            .retain(|(since, _)| since.elapsed() < URGENT_AGE_MAX);
    }

    /// Moves what waits to `outgoing`, until that holds as much as is written at a time.
    pub(super) fn take(&self, version: u8, outgoing: &mut Outgoing) {
        let mut waiting = self.waiting();
        while let Some((_, message)) = waiting.urgent.pop_front() {
            outgoing.push_message(version, GROUP, &message);
        }
        while bytes::Buf::remaining(outgoing) < WRITE_BYTES_MAX {
            let Some(message) = waiting.entries.pop_front() else {
                return;
            };
            waiting.bytes -= entries_bytes(&message).unwrap_or(0);
            outgoing.push_message(version, GROUP, &message);
        }
    }

    /// Waits for a push since the last `take`.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting
            .lock()
            .expect("nothing panics while it is held")
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
    use bytes::{Buf, Bytes};
    use raft::{
        AppendEntries, Entry, EntryKind, Heartbeat, Index, Instance, Position, Restart, Sender,
        ServerId, Term,
    };
    use wire::Frame;

    use super::*;

    fn message(body: Body) -> Message {
        Message {
            sender: Sender {
                id: ServerId(1),
                cluster: None,
                instance: Instance(1),
                restart: Restart(1),
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
        queue.take(1, &mut outgoing);
        let mut bytes = outgoing.copy_to_bytes(outgoing.remaining());
        let mut messages = Vec::new();
        while bytes.has_remaining() {
            let length = bytes.get_u32_le() as usize;
            match wire::decode(bytes.split_to(length)) {
                Ok(Frame::Message(_, message)) => messages.push(message),
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
}
