//! What clients ask of topics.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use command::{Command, Key, Message, Read, Take, TopicChange, TopicSettings, TopicWrite, Write};
use protocol::Output;
use protocol::client::write_request;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::check::{OpId, Sent, key};
use crate::client::Request;
use crate::options::Options;

/// The topics of a world.
const TOPICS: u64 = 2;

/// A client remembers so many messages that it has reserved.
const RESERVED_MAX: usize = 4;

/// What a client has reserved last.
#[derive(Debug, Default)]
pub(crate) struct Reserved(VecDeque<(Key, u64)>);

impl Reserved {
    /// It was given this message, of some topic.
    pub(crate) fn learns(&mut self, topic: &Key, message: &Message) {
        if message.deliveries > 0 {
            self.0.push_back((topic.clone(), message.id));
            if self.0.len() > RESERVED_MAX {
                self.0.pop_front();
            }
        }
    }

    /// Draws a command on a topic, with this number.
    pub(crate) fn draw(&self, id: OpId, options: &Options, random: &mut StdRng) -> Request {
        let topic = key(&format!("topic{}", random.random_range(0..TOPICS)));
        let noreply = random.random_range(0..100) < options.noreply;
        let change = match random.random_range(0..24) {
            0..2 => TopicChange::Create(settings(random)),
            2..10 => return push(topic, id, noreply, random),
            10..13 => take(None, 0),
            13 => take(None, 1),
            14 => take(None, 2),
            15..18 => take(Some(random.random_range(1..=2)), 0),
            18 => take(Some(1), 1),
            19 => take(Some(1), 2),
            20..22 => return self.settle(topic, random),
            22 => return read(random),
            _ => match random.random_range(0..8) {
                0 => TopicChange::Drop,
                1 => TopicChange::Purge,
                _ => TopicChange::Kick { count: 2 },
            },
        };
        request(Write::Topic(TopicWrite { topic, change }))
    }

    /// Does something about a message that it has, or has had.
    fn settle(&self, topic: Key, random: &mut StdRng) -> Request {
        let known = match self.0.len() {
            0 => None,
            count => self.0.get(random.random_range(0..count)),
        };
        let (topic, id) = known.cloned().unwrap_or((topic, 1));
        let change = match random.random_range(0..4) {
            0..2 => TopicChange::Ack { id },
            2 => TopicChange::Nack {
                id,
                delay: random.random_range(0..2),
            },
            _ => TopicChange::Extend { id, ttr: 1 },
        };
        request(Write::Topic(TopicWrite { topic, change }))
    }
}

fn settings(random: &mut StdRng) -> TopicSettings {
    let some = |random: &mut StdRng, most: u32| match random.random_range(0..3) {
        0 => random.random_range(1..=most),
        _ => 0,
    };
    TopicSettings {
        max_length: u64::from(some(random, 30)),
        max_bytes: u64::from(some(random, 2000)),
        max_age: some(random, 4),
        max_deliveries: some(random, 3),
    }
}

fn take(ttr: Option<u32>, wait: u32) -> TopicChange {
    TopicChange::Take(Take { ttr, wait })
}

fn push(topic: Key, id: OpId, noreply: bool, random: &mut StdRng) -> Request {
    let change = TopicChange::Push {
        message: Bytes::from(format!("#{id}.")),
        priority: random.random_range(0..8u32).saturating_sub(5),
        delay: random.random_range(0..6u32).saturating_sub(4),
    };
    let mut request = request(Write::Topic(TopicWrite { topic, change }));
    if noreply {
        // Behind the line, before the message.
        let end = request.text.iter().position(|byte| *byte == b'\r');
        let end = end.expect("a line ends");
        request.text.splice(end..end, *b" noreply");
        request.noreply = true;
    }
    request
}

fn read(random: &mut StdRng) -> Request {
    let read = match random.random_range(0..2) {
        0 => Read::Topics,
        _ => Read::Peek {
            topic: key("topic0"),
        },
    };
    sent(Command::Read(read))
}

fn request(write: Write) -> Request {
    sent(Command::Write(write))
}

fn sent(command: Command) -> Request {
    let mut output = Output::new();
    let expected = write_request(&command, &mut output);
    Request {
        expected: expected.expect("a topic can be named"),
        sent: Sent::Command(command),
        noreply: false,
        text: output.copy_to_bytes(output.remaining()).to_vec(),
    }
}
