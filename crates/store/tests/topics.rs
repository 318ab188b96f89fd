//! What each command does to a topic.

mod topic_support;

use bytes::Bytes;
use command::{MESSAGE_MEMORY_BYTES, Read, Reply, TOPICS_MAX, TopicChange, TopicSettings, Write};
use quorate_store::{LoadError, View, Viewer};
use topic_support::*;

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
