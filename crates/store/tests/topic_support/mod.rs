//! Changes of topics, and a store that is given one after the other.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of this"
)]

use std::convert::Infallible;

use bytes::Bytes;
use command::{Key, LogTime, Preamble, Reply, Take, TopicChange, TopicSettings, TopicWrite, Write};
use quorate_store::{LoadError, Loader, Store};

/// A second since 1970 at which all tests start.
pub const START: u64 = 1_700_000_000;

pub fn name(text: &str) -> Key {
    Key::new(Bytes::copy_from_slice(text.as_bytes())).expect("a short name")
}

pub fn change(topic: &str, change: TopicChange) -> Write {
    Write::Topic(TopicWrite {
        topic: name(topic),
        change,
    })
}

pub fn create(topic: &str, settings: TopicSettings) -> Write {
    change(topic, TopicChange::Create(settings))
}

pub fn push(topic: &str, message: &str) -> Write {
    push_with(topic, message, 0, 0)
}

pub fn push_with(topic: &str, message: &str, priority: u32, delay: u32) -> Write {
    let message = Bytes::copy_from_slice(message.as_bytes());
    let push = TopicChange::Push {
        message,
        priority,
        delay,
    };
    change(topic, push)
}

pub fn pop(topic: &str) -> Write {
    change(topic, TopicChange::Take(Take { ttr: None, wait: 0 }))
}

pub fn reserve(topic: &str, ttr: u32) -> Write {
    let ttr = Some(ttr);
    change(topic, TopicChange::Take(Take { ttr, wait: 0 }))
}

/// A store that is given one entry after another.
pub struct Fixture {
    pub store: Store,
    index: u64,
    pub memory_limit_bytes: u64,
}

impl Fixture {
    pub fn new() -> Fixture {
        Fixture {
            store: Store::new(7),
            index: 0,
            memory_limit_bytes: 0,
        }
    }

    /// One with a topic `t`.
    pub fn with(settings: TopicSettings) -> Fixture {
        let mut it = Fixture::new();
        assert_eq!(it.at(0, &create("t", settings)), Reply::Created);
        it
    }

    /// One command so many seconds after the start.
    pub fn at(&mut self, seconds: u64, write: &Write) -> Reply {
        self.enter((START + seconds) * 1000);
        self.store.apply(0, write)
    }

    pub fn enter(&mut self, log_time_ms: u64) {
        self.index += 1;
        let preamble = Preamble {
            log_time: LogTime(log_time_ms),
            item_bytes_max: 1 << 20,
            memory_limit_bytes: self.memory_limit_bytes,
            mark: None,
        };
        self.store.enter(self.index, &preamble);
    }

    /// Ready, reserved, delayed and dead messages of the first topic.
    pub fn counts(&self) -> (u64, u64, u64, u64) {
        let it = self.store.topics()[0].counts;
        (it.ready, it.reserved, it.delayed, it.dead)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Ok(()) = self.store.freeze().write_out(1 << 16, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok::<(), Infallible>(())
        });
        bytes
    }
}

pub fn load(bytes: &[u8]) -> Result<Store, LoadError> {
    let mut loader = Loader::new(9);
    loader.push(bytes)?;
    loader.finish()
}

/// A topic with a message in each state, and an empty one.
pub fn topic_changes() -> Vec<Write> {
    let push = |delay| TopicChange::Push {
        message: Bytes::from_static(b"message"),
        priority: 3,
        delay,
    };
    let settings = TopicSettings {
        max_age: 500,
        max_deliveries: 1,
        ..TopicSettings::default()
    };
    let take = TopicChange::Take(Take {
        ttr: Some(60),
        wait: 0,
    });
    let first = [
        TopicChange::Create(settings),
        push(0),
        push(0),
        push(0),
        push(9),
        take.clone(),
        take,
        TopicChange::Nack { id: 1, delay: 0 },
    ];
    let first = first.map(|change| ("jobs", change));
    let second = ("other", TopicChange::Create(TopicSettings::default()));
    let changes = first.into_iter().chain([second]);
    changes
        .map(|(topic, change)| {
            let topic = Key::new(Bytes::from_static(topic.as_bytes())).expect("a short name");
            Write::Topic(TopicWrite { topic, change })
        })
        .collect()
}
