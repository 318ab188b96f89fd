//! All topics: their names, what falls due in which, and what they take together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use command::{Key, Read, Reply, TOPICS_MAX, TopicChange, TopicCounts, TopicSettings, TopicWrite};

use crate::messages::Page;
use crate::store::Store;
use crate::topic::{Circumstances, TOPIC_MEMORY_BYTES, Topic, TopicState};

#[derive(Debug, Default)]
pub(crate) struct Topics {
    /// In order of creation.
    by_number: BTreeMap<u64, Topic>,
    by_name: BTreeMap<Key, u64>,
    /// When something falls due next in each topic in which something does.
    due: BTreeSet<(u32, u64)>,
    /// What all of them take in memory, as it is counted.
    memory_bytes: u64,
    messages: u64,
    /// Topics that are watched, and have something to take or are gone.
    woken: Vec<Key>,
    /// What is gone, and not freed.
    garbage: Vec<Arc<Page>>,
}

impl Topics {
    /// The topics that these are the states of, in order of creation. Nothing of them is due.
    pub(crate) fn loaded(states: Vec<TopicState>) -> Topics {
        let mut topics = Topics::default();
        for state in states {
            topics.insert(Topic::loaded(state));
        }
        topics
    }

    fn insert(&mut self, topic: Topic) {
        let number = topic.state().number;
        self.by_name.insert(topic.state().name.clone(), number);
        self.memory_bytes += topic.memory_bytes();
        self.messages += topic.counts().total();
        if let Some(due) = topic.next_due() {
            self.due.insert((due, number));
        }
        self.by_number.insert(number, topic);
    }

    pub(crate) fn count(&self) -> usize {
        self.by_number.len()
    }

    /// Messages of all topics.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// What is replicated of them, in order of creation, as it is now.
    pub(crate) fn states(&self) -> Vec<TopicState> {
        let topics = self.by_number.values();
        topics.map(|topic| topic.state().clone()).collect()
    }

    /// The first second at which something falls due.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(second, _)| u64::from(*second))
    }

    /// The time in the log has come to this second.
    pub(crate) fn come_due(&mut self, second: u32) {
        while let Some((due, number)) = self.due.first().copied()
            && due <= second
        {
            self.with(number, |topic| topic.come_due(second));
        }
    }

    /// Carries out a command. `unique` is its place in the log; a message that would take more than
    /// `at.room` is refused.
    pub(crate) fn apply(&mut self, unique: u64, at: Circumstances, write: &TopicWrite) -> Reply {
        let number = self.by_name.get(&write.topic).copied();
        match (&write.change, number) {
            (TopicChange::Create(settings), None) => self.create(unique, at, write, *settings),
            (_, None) => Reply::NotFound,
            (TopicChange::Drop, Some(number)) => self.drop_topic(number, &write.topic),
            (change, Some(number)) => self
                .with(number, |topic| topic.change(at, change))
                .unwrap_or(Reply::NotFound),
        }
    }

    pub(crate) fn read(&self, read: &Read) -> Reply {
        match read {
            Read::Topics => Reply::Topics(self.list()),
            Read::Peek { topic } => {
                let number = self.by_name.get(topic);
                let topic = number.and_then(|number| self.by_number.get(number));
                topic.map_or(Reply::NotFound, Topic::peek)
            }
            other => unreachable!("{other:?} asks for no topic"),
        }
    }

    /// All topics, in order of creation.
    pub(crate) fn list(&self) -> Vec<TopicCounts> {
        let topics = self.by_number.values();
        let lines = topics.map(|topic| TopicCounts {
            topic: topic.state().name.clone(),
            counts: topic.counts(),
        });
        lines.collect()
    }

    /// Asks `take_woken` to name this topic when there is something to take, or it is gone; false if
    /// there is no such topic.
    pub(crate) fn watch(&mut self, name: &Key) -> bool {
        let number = self.by_name.get(name).copied();
        number
            .and_then(|number| self.with(number, Topic::watch))
            .is_some()
    }

    /// Those, each with how many messages can be taken; each once for a `watch`.
    pub(crate) fn take_woken(&mut self) -> Vec<(Key, u64)> {
        let woken = std::mem::take(&mut self.woken).into_iter();
        let ready = |name: &Key| {
            let topic = self.by_number.get(self.by_name.get(name)?)?;
            Some(topic.counts().ready)
        };
        // Of a topic that is gone there is none, which everybody is to learn.
        woken
            .map(|name| {
                let ready = ready(&name).unwrap_or(u64::MAX);
                (name, ready)
            })
            .collect()
    }

    /// What is gone and to be freed.
    pub(crate) fn take_garbage(&mut self) -> Vec<Arc<Page>> {
        std::mem::take(&mut self.garbage)
    }

    /// All of it, for whoever drops it piece by piece.
    pub(crate) fn into_pages(mut self) -> Vec<Arc<Page>> {
        let mut pages = self.garbage;
        for topic in std::mem::take(&mut self.by_number).into_values() {
            pages.extend(topic.into_pages());
        }
        pages
    }

    fn create(
        &mut self,
        number: u64,
        at: Circumstances,
        write: &TopicWrite,
        settings: TopicSettings,
    ) -> Reply {
        if self.by_number.len() >= TOPICS_MAX {
            return Reply::TooManyTopics;
        }
        if TOPIC_MEMORY_BYTES + write.topic.as_bytes().len() as u64 > at.room {
            return Reply::OutOfMemory;
        }
        self.insert(Topic::new(number, &write.topic, settings));
        Reply::Created
    }

    fn drop_topic(&mut self, number: u64, name: &Key) -> Reply {
        let Some(topic) = self.by_number.remove(&number) else {
            return Reply::NotFound;
        };
        self.memory_bytes -= topic.memory_bytes();
        self.messages -= topic.counts().total();
        if let Some(due) = topic.next_due() {
            self.due.remove(&(due, number));
        }
        if let Some((name, _)) = self.by_name.remove_entry(name)
            && topic.is_watched()
        {
            self.woken.push(name);
        }
        self.garbage.extend(topic.into_pages());
        Reply::Dropped
    }

    /// Lets something happen to a topic, and takes note of what is otherwise then.
    fn with<T>(&mut self, number: u64, happens: impl FnOnce(&mut Topic) -> T) -> Option<T> {
        let topic = self.by_number.get_mut(&number)?;
        let (due, memory_bytes) = (topic.next_due(), topic.memory_bytes());
        let messages = topic.counts().total();
        let result = happens(topic);
        self.memory_bytes = self.memory_bytes - memory_bytes + topic.memory_bytes();
        self.messages = self.messages - messages + topic.counts().total();
        if topic.take_woken() {
            self.woken.push(topic.state().name.clone());
        }
        self.garbage.append(&mut topic.take_garbage());
        let next = topic.next_due();
        if due != next {
            if let Some(due) = due {
                self.due.remove(&(due, number));
            }
            if let Some(next) = next {
                self.due.insert((next, number));
            }
        }
        Some(result)
    }
}

impl Store {
    /// All topics and their messages, counted, in order of creation.
    #[must_use]
    pub fn topics(&self) -> Vec<TopicCounts> {
        self.topics.list()
    }

    /// Asks `take_woken` to name this topic when there is something to take, or it is gone; false if
    /// there is no such topic. Of this process alone.
    pub fn watch_topic(&mut self, name: &Key) -> bool {
        self.topics.watch(name)
    }

    /// Those topics, each with how many messages can be taken: `u64::MAX` if it is gone. Each is
    /// named once for a `watch_topic`.
    pub fn take_woken_topics(&mut self) -> Vec<(Key, u64)> {
        self.topics.take_woken()
    }

    /// Carries out a change of a topic at this place of the log.
    pub(crate) fn topic(&mut self, unique: u64, write: &TopicWrite) -> Reply {
        let taken = self.tally.alive().bytes + self.topics.memory_bytes();
        let at = Circumstances {
            second: self.moment.second(),
            next_second: self.moment.next_second(),
            room: self.moment.memory_limit.room(taken),
        };
        self.topics.apply(unique, at, write)
    }
}
