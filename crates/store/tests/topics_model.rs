//! Topics against a model that keeps a list and is in no hurry, and as bytes of a snapshot.

mod topic_support;

use bytes::Bytes;
use command::{
    MESSAGE_MEMORY_BYTES, MessageCounts, Reply, Take, TopicChange, TopicCounts, TopicSettings,
};
use proptest::prelude::*;
use topic_support::*;

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
