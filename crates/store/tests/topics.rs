//! Topics: what each command does, against a model that keeps a list and is in no hurry, and as bytes
//! of a snapshot.

use std::convert::Infallible;

use bytes::Bytes;
use command::{
    Key, LogTime, MESSAGE_MEMORY_BYTES, MessageCounts, Preamble, Read, Reply, TOPICS_MAX, Take,
    TopicChange, TopicCounts, TopicSettings, TopicWrite, Write,
};
use proptest::prelude::*;
use quorate_store::{LoadError, Loader, Store, View, Viewer};

/// A second since 1970 at which all tests start.
const START: u64 = 1_700_000_000;

fn name(text: &str) -> Key {
    Key::new(Bytes::copy_from_slice(text.as_bytes())).expect("a short name")
}

fn change(topic: &str, change: TopicChange) -> Write {
    Write::Topic(TopicWrite {
        topic: name(topic),
        change,
    })
}

fn create(topic: &str, settings: TopicSettings) -> Write {
    change(topic, TopicChange::Create(settings))
}

fn push(topic: &str, message: &str) -> Write {
    push_with(topic, message, 0, 0)
}

fn push_with(topic: &str, message: &str, priority: u32, delay: u32) -> Write {
    let message = Bytes::copy_from_slice(message.as_bytes());
    let push = TopicChange::Push {
        message,
        priority,
        delay,
    };
    change(topic, push)
}

fn pop(topic: &str) -> Write {
    change(topic, TopicChange::Take(Take { ttr: None, wait: 0 }))
}

fn reserve(topic: &str, ttr: u32) -> Write {
    let ttr = Some(ttr);
    change(topic, TopicChange::Take(Take { ttr, wait: 0 }))
}

/// A store that is given one entry after another.
struct Fixture {
    store: Store,
    index: u64,
    memory_limit_bytes: u64,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture {
            store: Store::new(7),
            index: 0,
            memory_limit_bytes: 0,
        }
    }

    /// One with a topic `t`.
    fn with(settings: TopicSettings) -> Fixture {
        let mut it = Fixture::new();
        assert_eq!(it.at(0, &create("t", settings)), Reply::Created);
        it
    }

    /// One command so many seconds after the start.
    fn at(&mut self, seconds: u64, write: &Write) -> Reply {
        self.enter((START + seconds) * 1000);
        self.store.apply(0, write)
    }

    fn enter(&mut self, log_time_ms: u64) {
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
    fn counts(&self) -> (u64, u64, u64, u64) {
        let it = self.store.topics()[0].counts;
        (it.ready, it.reserved, it.delayed, it.dead)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Ok(()) = self.store.freeze().write_out(1 << 16, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok::<(), Infallible>(())
        });
        bytes
    }
}

fn load(bytes: &[u8]) -> Result<Store, LoadError> {
    let mut loader = Loader::new(9);
    loader.push(bytes)?;
    loader.finish()
}

/// Id, deliveries and bytes of a message.
fn message(reply: Reply) -> (u64, u32, String) {
    match reply {
        Reply::Message(message) => {
            let text = String::from_utf8_lossy(message.data.as_slice());
            (message.id, message.deliveries, text.into_owned())
        }
        other => panic!("{other:?} is no message"),
    }
}

fn owned(id: u64, deliveries: u32, text: &str) -> (u64, u32, String) {
    (id, deliveries, text.to_owned())
}

#[test]
fn messages_are_popped_in_the_order_in_which_they_were_pushed() {
    let mut it = Fixture::with(TopicSettings::default());
    for (id, text) in [(1, "one"), (2, "two"), (3, "three")] {
        assert_eq!(it.at(0, &push("t", text)), Reply::Pushed(id));
    }
    let peeked = it.store.read(&Read::Peek { topic: name("t") });
    assert_eq!(message(peeked), owned(1, 0, "one"));
    for (id, text) in [(1, "one"), (2, "two"), (3, "three")] {
        assert_eq!(message(it.at(1, &pop("t"))), owned(id, 0, text));
    }
    assert_eq!(it.at(1, &pop("t")), Reply::Empty);
    assert_eq!(it.at(1, &push("t", "four")), Reply::Pushed(4));
}

#[test]
fn the_lower_priority_number_is_taken_first() {
    let mut it = Fixture::with(TopicSettings::default());
    for (text, priority) in [("c", 7), ("a", 0), ("d", 7), ("b", 3), ("e", u32::MAX)] {
        it.at(0, &push_with("t", text, priority, 0));
    }
    let taken: Vec<String> = (0..5).map(|_| message(it.at(0, &pop("t"))).2).collect();
    assert_eq!(taken, ["a", "b", "c", "d", "e"]);
}

#[test]
fn a_topic_that_is_not_there_takes_and_gives_nothing() {
    let mut it = Fixture::new();
    let id = 1;
    for change_of in [
        push("t", "m"),
        pop("t"),
        reserve("t", 1),
        change("t", TopicChange::Ack { id }),
        change("t", TopicChange::Nack { id, delay: 0 }),
        change("t", TopicChange::Extend { id, ttr: 1 }),
        change("t", TopicChange::Kick { count: 1 }),
        change("t", TopicChange::Purge),
        change("t", TopicChange::Drop),
    ] {
        assert_eq!(it.at(0, &change_of), Reply::NotFound, "{change_of:?}");
    }
    let peeked = it.store.read(&Read::Peek { topic: name("t") });
    assert_eq!(peeked, Reply::NotFound);
    assert_eq!(it.store.read(&Read::Topics), Reply::Topics(Vec::new()));
}

#[test]
fn topics_are_listed_in_the_order_of_their_creation() {
    let mut it = Fixture::new();
    for topic in ["z", "a", "m"] {
        let created = create(topic, TopicSettings::default());
        assert_eq!(it.at(0, &created), Reply::Created);
        assert_eq!(it.at(0, &created), Reply::Exists);
    }
    it.at(0, &push("m", "x"));
    assert_eq!(it.at(0, &change("a", TopicChange::Drop)), Reply::Dropped);
    it.at(0, &create("a", TopicSettings::default()));
    let listed = it.store.topics();
    let names: Vec<&[u8]> = listed.iter().map(|line| line.topic.as_bytes()).collect();
    assert_eq!(names, [b"z", b"m", b"a"]);
    assert_eq!(listed[1].counts.ready, 1);
}

#[test]
fn a_reserved_message_comes_back_at_its_second_unless_it_is_acknowledged() {
    let mut it = Fixture::with(TopicSettings::default());
    it.at(0, &push("t", "a"));
    it.at(0, &push("t", "b"));
    assert_eq!(message(it.at(0, &reserve("t", 10))), owned(1, 1, "a"));
    assert_eq!(message(it.at(0, &reserve("t", 10))), owned(2, 1, "b"));
    assert_eq!(it.at(9, &pop("t")), Reply::Empty);
    assert_eq!(
        it.at(9, &change("t", TopicChange::Ack { id: 2 })),
        Reply::Acked
    );
    assert_eq!(
        it.at(9, &change("t", TopicChange::Ack { id: 2 })),
        Reply::NotFound
    );
    assert_eq!(it.store.next_due(), Some(START + 10));
    assert_eq!(message(it.at(10, &reserve("t", 5))), owned(1, 2, "a"));
    assert_eq!(it.counts(), (0, 1, 0, 0));
}

#[test]
fn nothing_comes_before_its_time_though_times_are_whole_seconds() {
    let mut it = Fixture::with(TopicSettings {
        max_age: 60,
        ..TopicSettings::default()
    });
    it.enter(START * 1000 + 999);
    it.store.apply(0, &push("t", "a"));
    it.store.apply(1, &push_with("t", "b", 0, 1));
    it.store.apply(2, &reserve("t", 1));
    it.enter(START * 1000 + 1998);
    assert_eq!(it.counts(), (0, 1, 1, 0));
    it.enter(START * 1000 + 2000);
    assert_eq!(it.counts(), (2, 0, 0, 0));
    it.enter(START * 1000 + 60_999);
    assert_eq!(it.counts(), (2, 0, 0, 0));
    it.enter(START * 1000 + 61_000);
    assert_eq!(it.counts(), (0, 0, 0, 0));
}

#[test]
fn a_reservation_can_be_made_longer_and_given_back() {
    let mut it = Fixture::with(TopicSettings::default());
    it.at(0, &push("t", "a"));
    it.at(0, &reserve("t", 2));
    let extend = |id| change("t", TopicChange::Extend { id, ttr: 10 });
    assert_eq!(it.at(1, &extend(1)), Reply::Extended);
    assert_eq!(it.at(1, &extend(9)), Reply::NotFound);
    assert_eq!(it.at(10, &pop("t")), Reply::Empty);
    let nack = |delay| change("t", TopicChange::Nack { id: 1, delay });
    assert_eq!(it.at(10, &nack(5)), Reply::Released);
    assert_eq!(it.counts(), (0, 0, 1, 0));
    assert_eq!(it.at(10, &nack(5)), Reply::NotFound);
    assert_eq!(it.at(14, &pop("t")), Reply::Empty);
    assert_eq!(message(it.at(15, &reserve("t", 1))), owned(1, 2, "a"));
    assert_eq!(it.at(15, &nack(0)), Reply::Released);
    assert_eq!(message(it.at(15, &pop("t"))), owned(1, 2, "a"));
}

#[test]
fn a_message_that_was_delivered_too_often_is_dead_until_it_is_kicked() {
    let mut it = Fixture::with(TopicSettings {
        max_deliveries: 2,
        ..TopicSettings::default()
    });
    it.at(0, &push("t", "a"));
    it.at(0, &push("t", "b"));
    let nack = |id| change("t", TopicChange::Nack { id, delay: 0 });
    it.at(0, &reserve("t", 1));
    assert_eq!(it.at(0, &nack(1)), Reply::Released);
    it.at(0, &reserve("t", 1));
    assert_eq!(it.at(0, &nack(1)), Reply::Buried);
    for second in [0, 1] {
        assert_eq!(message(it.at(second, &reserve("t", 1))).0, 2);
    }
    it.at(2, &pop("t"));
    assert_eq!(it.counts(), (0, 0, 0, 2));
    let kick = |count| change("t", TopicChange::Kick { count });
    assert_eq!(it.at(2, &kick(1)), Reply::Kicked(1));
    assert_eq!(message(it.at(2, &reserve("t", 1))), owned(1, 1, "a"));
    assert_eq!(it.at(2, &kick(100)), Reply::Kicked(1));
    assert_eq!(it.at(2, &kick(100)), Reply::Kicked(0));
    assert_eq!(message(it.at(2, &pop("t"))), owned(2, 0, "b"));
}

#[test]
fn a_delayed_message_is_ready_at_its_second_in_its_old_place() {
    let mut it = Fixture::with(TopicSettings::default());
    it.at(0, &push_with("t", "late", 0, 5));
    it.at(1, &push("t", "soon"));
    assert_eq!(it.counts(), (1, 0, 1, 0));
    assert_eq!(it.store.next_due(), Some(START + 5));
    it.at(5, &push("t", "last"));
    let taken: Vec<String> = (0..3).map(|_| message(it.at(5, &pop("t"))).2).collect();
    assert_eq!(taken, ["late", "soon", "last"]);
}

#[test]
fn a_full_topic_takes_nothing_until_something_is_taken() {
    let mut it = Fixture::with(TopicSettings {
        max_length: 2,
        ..TopicSettings::default()
    });
    it.at(0, &push("t", "a"));
    it.at(0, &push("t", "b"));
    assert_eq!(it.at(0, &push("t", "c")), Reply::TopicFull);
    it.at(0, &reserve("t", 9));
    assert_eq!(it.at(0, &push("t", "c")), Reply::TopicFull);
    it.at(0, &pop("t"));
    assert_eq!(it.at(0, &push("t", "c")), Reply::Pushed(3));
    let mut it = Fixture::with(TopicSettings {
        max_bytes: 5,
        ..TopicSettings::default()
    });
    assert_eq!(it.at(0, &push("t", "abc")), Reply::Pushed(1));
    assert_eq!(it.at(0, &push("t", "def")), Reply::TopicFull);
    assert_eq!(it.at(0, &push("t", "de")), Reply::Pushed(2));
    assert_eq!(it.at(0, &push("t", "")), Reply::Pushed(3));
}

#[test]
fn a_message_goes_when_it_is_too_old_unless_a_consumer_has_it() {
    let mut it = Fixture::with(TopicSettings {
        max_age: 10,
        max_deliveries: 1,
        ..TopicSettings::default()
    });
    it.at(0, &push("t", "had"));
    it.at(0, &push("t", "ready"));
    it.at(0, &push_with("t", "delayed", 0, 60));
    it.at(4, &push("t", "younger"));
    it.at(4, &reserve("t", 20));
    assert_eq!(it.store.next_due(), Some(START + 10));
    it.enter((START + 10) * 1000);
    assert_eq!(it.counts(), (1, 1, 0, 0));
    it.enter((START + 14) * 1000);
    assert_eq!(it.counts(), (0, 1, 0, 0));
    it.enter((START + 24) * 1000);
    assert_eq!(it.counts(), (0, 0, 0, 0));
    assert_eq!(it.store.next_due(), None);
}

#[test]
fn many_messages_of_any_state_grow_old_at_once() {
    let mut it = Fixture::with(TopicSettings {
        max_age: 10,
        ..TopicSettings::default()
    });
    it.enter(START * 1000);
    for number in 0..10_000u32 {
        let delay = if number % 3 == 0 { 60 } else { 0 };
        it.store.apply(0, &push_with("t", "m", number % 5, delay));
    }
    for _ in 0..10 {
        it.store.apply(0, &reserve("t", 60));
    }
    it.enter((START + 10) * 1000);
    assert_eq!(it.counts(), (0, 10, 0, 0));
    while it.store.tidy() {}
    it.enter((START + 60) * 1000);
    assert_eq!(it.counts(), (0, 0, 0, 0));
    let (taken, reply) = (it.store.counts().messages, it.at(60, &pop("t")));
    assert_eq!((taken, reply), (0, Reply::Empty));
}

#[test]
fn a_purged_topic_is_empty_and_its_ids_go_on() {
    let mut it = Fixture::with(TopicSettings::default());
    for _ in 0..200 {
        it.at(0, &push("t", "m"));
    }
    it.at(0, &reserve("t", 5));
    it.at(0, &push_with("t", "m", 0, 5));
    let before = it.store.counts().topic_bytes;
    assert_eq!(
        it.at(0, &change("t", TopicChange::Purge)),
        Reply::Purged(201)
    );
    assert_eq!(it.counts(), (0, 0, 0, 0));
    assert_eq!(it.store.next_due(), None);
    let freed = 201 * (MESSAGE_MEMORY_BYTES as u64 + 1);
    assert_eq!(before - it.store.counts().topic_bytes, freed);
    assert_eq!(it.at(0, &push("t", "m")), Reply::Pushed(202));
}

#[test]
fn a_flush_leaves_topics_as_they_are() {
    let mut it = Fixture::with(TopicSettings::default());
    it.at(0, &push("t", "m"));
    let delay = command::Exptime(0);
    assert_eq!(it.at(0, &Write::FlushAll { delay }), Reply::Ok);
    assert_eq!(message(it.at(0, &pop("t"))).2, "m");
}

#[test]
fn messages_count_against_the_memory_limit() {
    let mut it = Fixture::with(TopicSettings::default());
    it.memory_limit_bytes = it.store.counts().topic_bytes + 2 * (MESSAGE_MEMORY_BYTES as u64 + 1);
    assert_eq!(it.at(0, &push("t", "m")), Reply::Pushed(1));
    assert_eq!(it.at(0, &push("t", "m")), Reply::Pushed(2));
    assert_eq!(it.at(0, &push("t", "m")), Reply::OutOfMemory);
    assert_eq!(
        it.at(0, &create("another", TopicSettings::default())),
        Reply::OutOfMemory
    );
    let store = command::Store {
        mode: command::StoreMode::Set,
        key: name("k"),
        flags: 0,
        exptime: command::Exptime(0),
        value: Bytes::from_static(b"v"),
    };
    assert_eq!(it.at(0, &Write::Store(store)), Reply::OutOfMemory);
    it.at(0, &pop("t"));
    assert_eq!(it.at(0, &push("t", "m")), Reply::Pushed(3));
}

#[test]
fn there_is_a_largest_number_of_topics() {
    let mut it = Fixture::new();
    it.enter(START * 1000);
    let settings = TopicSettings::default();
    for number in 0..TOPICS_MAX {
        let place = number as u16;
        if place == 0 {
            it.enter(START * 1000);
        }
        let created = it
            .store
            .apply(place, &create(&number.to_string(), settings));
        assert_eq!(created, Reply::Created);
    }
    assert_eq!(it.at(0, &create("more", settings)), Reply::TooManyTopics);
    assert_eq!(it.at(0, &create("7", settings)), Reply::Exists);
    assert_eq!(it.at(0, &change("7", TopicChange::Drop)), Reply::Dropped);
    assert_eq!(it.at(0, &create("more", settings)), Reply::Created);
}

#[test]
fn who_watches_a_topic_is_told_once_when_there_is_something_to_take() {
    let mut it = Fixture::with(TopicSettings::default());
    assert!(!it.store.watch_topic(&name("none")));
    assert!(it.store.watch_topic(&name("t")));
    it.at(0, &push_with("t", "m", 0, 3));
    assert_eq!(it.store.take_woken_topics(), []);
    it.enter((START + 3) * 1000);
    assert_eq!(it.store.take_woken_topics(), [(name("t"), 1)]);
    it.at(3, &push("t", "m"));
    assert_eq!(it.store.take_woken_topics(), []);
    assert!(it.store.watch_topic(&name("t")));
    assert_eq!(it.store.take_woken_topics(), [(name("t"), 2)]);
    it.at(3, &pop("t"));
    it.at(3, &pop("t"));
    assert!(it.store.watch_topic(&name("t")));
    it.at(3, &change("t", TopicChange::Drop));
    assert_eq!(it.store.take_woken_topics(), [(name("t"), u64::MAX)]);
}

#[test]
fn a_snapshot_that_cannot_be_is_refused() {
    let mut it = Fixture::with(TopicSettings::default());
    it.at(0, &push("t", "m"));
    let bytes = it.bytes();
    assert!(load(&bytes).is_ok());
    for length in 0..bytes.len() {
        assert!(load(&bytes[..length]).is_err(), "{length} bytes");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert_eq!(load(&longer).err(), Some(LoadError::Trailing { bytes: 1 }));
    let message = bytes.len() - 1 - 29;
    let id = &mut bytes.clone();
    id[message] = 2;
    let expected = LoadError::Message { topic: 0, id: 2 };
    assert_eq!(load(id).err(), Some(expected));
    let state = &mut bytes.clone();
    state[message + 20] = 1;
    let expected = LoadError::Message { topic: 0, id: 1 };
    assert_eq!(load(state).err(), Some(expected));
    let next_id = &mut bytes.clone();
    next_id[message - 1 - 49 + 8] = 0;
    assert_eq!(load(next_id).err(), Some(LoadError::Topic { topic: 0 }));
}

#[test]
fn topics_are_these_bytes() {
    let mut it = Fixture::with(TopicSettings {
        max_length: 1000,
        max_bytes: 2000,
        max_age: 300,
        max_deliveries: 4,
    });
    it.at(0, &push("t", "gone"));
    it.at(0, &pop("t"));
    it.at(0, &push("t", "one"));
    it.at(0, &push_with("t", "", 7, 9));
    it.at(1, &reserve("t", 60));
    let bytes = it.bytes();
    let behind: String = bytes[62..]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let topics = "01000000";
    let topic = "0000010000000000040000000000000\
                 0e803000000000000d0070000000000002c01000004000000020000000000000\
                 00174";
    let first = "020000000000000000f1536500000000010000000\
                 13df1536503000000"
        .to_owned()
        + "6f6e65";
    let second = "030000000000000000f15365070000000000000002\
                  09f1536500000000";
    assert_eq!(behind, [topics, topic, &first, second].concat());
}

#[test]
fn a_viewer_shows_topics_and_messages() {
    let settings = TopicSettings {
        max_age: 60,
        ..TopicSettings::default()
    };
    let mut it = Fixture::with(settings);
    it.at(0, &push_with("t", "m", 4, 9));
    let mut seen = Vec::new();
    let mut viewer = Viewer::new();
    let shown = viewer.push(&it.bytes(), &mut |view| seen.push(format!("{view:?}")));
    shown.and_then(|()| viewer.finish()).expect("a state");
    let topic = View::Topic {
        name: b"t",
        settings,
        next_id: 2,
        messages: 1,
    };
    assert_eq!(seen[1], format!("{topic:?}"));
    assert!(seen[2].contains(r#"priority: 4, deliveries: 0, state: "delayed""#));
}

/// A message as the model has it.
#[derive(Clone, Debug)]
struct Modelled {
    id: u64,
    since: u64,
    priority: u32,
    deliveries: u32,
    text: String,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Ready,
    Reserved(u64),
    Delayed(u64),
    Dead,
}

/// One topic.
#[derive(Debug)]
struct Model {
    settings: TopicSettings,
    next_id: u64,
    messages: Vec<Modelled>,
    now: u64,
    /// The first second that begins now or later.
    next: u64,
}

impl Model {
    fn enter(&mut self, log_time_ms: u64) {
        self.now = log_time_ms / 1000;
        self.next = log_time_ms.div_ceil(1000);
        let (now, settings) = (self.now, self.settings);
        for message in &mut self.messages {
            match message.state {
                State::Reserved(until) if until <= now => {
                    let used_up = settings.max_deliveries > 0
                        && message.deliveries >= settings.max_deliveries;
                    message.state = if used_up { State::Dead } else { State::Ready };
                }
                State::Delayed(until) if until <= now => message.state = State::Ready,
                _ => {}
            }
        }
        self.drop_the_old();
    }

    fn drop_the_old(&mut self) {
        let (now, age) = (self.now, u64::from(self.settings.max_age));
        self.messages.retain(|message| {
            age == 0 || message.since + age > now || matches!(message.state, State::Reserved(_))
        });
    }

    fn first(&mut self) -> Option<usize> {
        let messages = self.messages.iter().enumerate();
        let ready = messages.filter(|(_, message)| message.state == State::Ready);
        let first = ready.min_by_key(|(_, message)| (message.priority, message.id));
        first.map(|(at, _)| at)
    }

    fn reserved(&mut self, id: u64) -> Option<&mut Modelled> {
        let mut messages = self.messages.iter_mut();
        messages.find(|message| message.id == id && matches!(message.state, State::Reserved(_)))
    }

    fn bytes(&self) -> u64 {
        let messages = self.messages.iter();
        messages.map(|message| message.text.len() as u64).sum()
    }

    fn apply(&mut self, change: &TopicChange) -> Reply {
        let (next, settings) = (self.next, self.settings);
        let reply = match change {
            TopicChange::Create(_) => Reply::Exists,
            TopicChange::Push {
                message,
                priority,
                delay,
            } => {
                let length = self.messages.len() as u64 + 1;
                let bytes = self.bytes() + message.len() as u64;
                if settings.max_length > 0 && length > settings.max_length
                    || settings.max_bytes > 0 && bytes > settings.max_bytes
                {
                    return Reply::TopicFull;
                }
                let id = self.next_id;
                self.next_id += 1;
                let state = match delay {
                    0 => State::Ready,
                    delay => State::Delayed(next + u64::from(*delay)),
                };
                self.messages.push(Modelled {
                    id,
                    since: next,
                    priority: *priority,
                    deliveries: 0,
                    text: String::from_utf8_lossy(message).into_owned(),
                    state,
                });
                Reply::Pushed(id)
            }
            TopicChange::Take(Take { ttr, .. }) => {
                let Some(at) = self.first() else {
                    return Reply::Empty;
                };
                let message = &mut self.messages[at];
                if let Some(ttr) = ttr {
                    message.deliveries += 1;
                    message.state = State::Reserved(next + u64::from(*ttr));
                }
                let reply = Reply::Message(command::Message {
                    id: message.id,
                    deliveries: message.deliveries,
                    data: command::MessageBytes::new(message.text.as_bytes()),
                });
                if ttr.is_none() {
                    self.messages.remove(at);
                }
                reply
            }
            TopicChange::Ack { id } => match self.reserved(*id).is_some() {
                true => {
                    self.messages.retain(|message| message.id != *id);
                    Reply::Acked
                }
                false => Reply::NotFound,
            },
            TopicChange::Nack { id, delay } => match self.reserved(*id) {
                None => Reply::NotFound,
                Some(message) => {
                    let used_up = settings.max_deliveries > 0
                        && message.deliveries >= settings.max_deliveries;
                    message.state = match delay {
                        _ if used_up => State::Dead,
                        0 => State::Ready,
                        delay => State::Delayed(next + u64::from(*delay)),
                    };
                    match used_up {
                        true => Reply::Buried,
                        false => Reply::Released,
                    }
                }
            },
            TopicChange::Extend { id, ttr } => match self.reserved(*id) {
                None => Reply::NotFound,
                Some(message) => {
                    message.state = State::Reserved(next + u64::from(*ttr));
                    Reply::Extended
                }
            },
            TopicChange::Kick { count } => {
                let messages = self.messages.iter_mut();
                let dead = messages.filter(|message| message.state == State::Dead);
                let kicked = dead.take(*count as usize).map(|message| {
                    message.state = State::Ready;
                    message.deliveries = 0;
                });
                Reply::Kicked(kicked.count() as u64)
            }
            TopicChange::Purge => {
                let purged = self.messages.len() as u64;
                self.messages.clear();
                Reply::Purged(purged)
            }
            TopicChange::Drop => unreachable!("the model is not dropped"),
        };
        self.drop_the_old();
        reply
    }

    fn counts(&self) -> MessageCounts {
        let mut counts = MessageCounts::default();
        for message in &self.messages {
            match message.state {
                State::Ready => counts.ready += 1,
                State::Reserved(_) => counts.reserved += 1,
                State::Delayed(_) => counts.delayed += 1,
                State::Dead => counts.dead += 1,
            }
        }
        counts
    }

    /// The first second at which a reader would see something else; a message that is reserved and
    /// grows old may be looked at in vain.
    fn next_due(&self) -> Option<u64> {
        let age = u64::from(self.settings.max_age);
        let due = self.messages.iter().flat_map(|message| {
            let until = match message.state {
                State::Reserved(until) | State::Delayed(until) => Some(until),
                _ => None,
            };
            let is_reserved = matches!(message.state, State::Reserved(_));
            let old = (age > 0 && !is_reserved).then_some(message.since + age);
            until.into_iter().chain(old)
        });
        due.min()
    }
}

fn any_change() -> impl Strategy<Value = TopicChange> {
    let id = || prop_oneof![8 => 1..40u64, 1 => Just(0), 1 => 60..200u64];
    let push = (
        "[a-z]{0,6}",
        prop_oneof![4 => Just(0), 1 => 0..3u32],
        0..4u32,
    );
    let push = push.prop_map(|(text, priority, delay)| TopicChange::Push {
        message: Bytes::from(text),
        priority,
        delay: delay.saturating_sub(2),
    });
    let take = proptest::option::of(1..5u32);
    prop_oneof![
        10 => push,
        5 => take.prop_map(|ttr| TopicChange::Take(Take { ttr, wait: 0 })),
        4 => id().prop_map(|id| TopicChange::Ack { id }),
        4 => (id(), 0..3u32).prop_map(|(id, delay)| TopicChange::Nack { id, delay }),
        2 => (id(), 1..9u32).prop_map(|(id, ttr)| TopicChange::Extend { id, ttr }),
        2 => (0..6u64).prop_map(|count| TopicChange::Kick { count }),
        1 => Just(TopicChange::Purge),
    ]
}

fn any_settings() -> impl Strategy<Value = TopicSettings> {
    let lengths = (
        prop_oneof![Just(0u64), 1..30u64],
        prop_oneof![Just(0u64), 1..90u64],
    );
    let times = (prop_oneof![Just(0u32), 1..12u32], 0..4u32);
    (lengths, times).prop_map(|((max_length, max_bytes), (max_age, max_deliveries))| {
        TopicSettings {
            max_length,
            max_bytes,
            max_age,
            max_deliveries,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn every_command_answers_as_the_model_does_and_so_does_a_loaded_state(
        settings in any_settings(),
        entries in proptest::collection::vec(
            (0..3000u64, proptest::collection::vec(any_change(), 0..25), 0..8u32),
            1..40,
        ),
    ) {
        let mut it = Fixture::with(settings);
        let mut model = Model { settings, next_id: 1, messages: Vec::new(), now: START, next: START };
        let mut clock = START * 1000;
        for (gap, changes, loads) in entries {
            clock += gap;
            it.enter(clock);
            model.enter(clock);
            for (place, it_changes) in (0..).zip(changes) {
                let expected = model.apply(&it_changes);
                let reply = it.store.apply(place, &change("t", it_changes.clone()));
                prop_assert_eq!(reply, expected, "{:?}", it_changes);
            }
            let listed = TopicCounts { topic: name("t"), counts: model.counts() };
            prop_assert_eq!(it.store.topics(), [listed]);
            prop_assert_eq!(it.store.counts().messages, model.messages.len() as u64);
            let expected = 1024 + 1 + model.bytes()
                + model.messages.len() as u64 * MESSAGE_MEMORY_BYTES as u64;
            prop_assert_eq!(it.store.counts().topic_bytes, expected);
            if let Some(due) = model.next_due() {
                prop_assert!(it.store.next_due().is_some_and(|found| found <= due));
            }
            if loads == 0 {
                let frozen = it.store.freeze();
                let loaded = load(&it.bytes()).expect("its own bytes are a state");
                prop_assert_eq!(loaded.state_hash(), it.store.state_hash());
                prop_assert_eq!(frozen.state_hash(), it.store.state_hash());
                prop_assert_eq!(loaded.counts().topic_bytes, it.store.counts().topic_bytes);
                it.store = loaded;
            }
            it.store.tidy();
        }
    }

    #[test]
    fn what_is_frozen_stays_as_it_is(
        before in proptest::collection::vec(any_change(), 0..60),
        after in proptest::collection::vec(any_change(), 0..60),
    ) {
        let mut it = Fixture::with(TopicSettings::default());
        for it_change in before {
            it.at(0, &change("t", it_change));
        }
        let (hash, frozen) = (it.store.state_hash(), it.store.freeze());
        for it_change in after {
            it.at(3, &change("t", it_change));
        }
        prop_assert_eq!(frozen.state_hash(), hash);
    }
}
