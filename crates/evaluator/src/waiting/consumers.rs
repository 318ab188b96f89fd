//! Consumers that wait for a message. A `pop` or `reserve` that waits goes through the log as any
//! other. If it finds nothing it is *parked*: nothing of it is in the log any more, and it is carried
//! out again when there may be something to take. So a consumer that goes away takes nothing, a
//! leader that is deposed may say that it was not carried out, and no message is given out but at one
//! place of the log.
//!
//! Of those that wait for the same topic the first comes first. A push wakes the first of them at
//! once: it stands right behind the push in the same entry. What becomes ready otherwise is noticed by
//! the store when it is applied.
//!
//! A follower that has not been heard from for a second stands still, and gets nothing for its clients:
//! they may be gone.
//!
//! A command that waits is the last of its connection: the session sends nothing behind it. One that
//! has something behind it all the same does not wait.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use command::{Key, Outcome, Reply, TopicWrite, Write, encoded_bytes};
use mutants::Mutant;
use raft::{ServerId, Timestamp};

use super::{ANSWER_WITHIN, Deadline, Origin, Owner, Pending, Slot, Staged, Waiting, What};
use crate::answers::Answers;

/// A follower that was not heard from for so long gets no message for its clients.
const SILENT_AFTER: Duration = Duration::from_secs(1);

/// A command that waits for a message.
#[derive(Debug)]
pub(crate) struct Consumer {
    /// The number that it had first: its place among those that wait.
    since: u64,
    until: Timestamp,
    write: TopicWrite,
    /// It found nothing to take, and is not in the log.
    pub(super) is_parked: bool,
}

impl Consumer {
    pub(super) fn new(number: u64, until: Timestamp, write: TopicWrite) -> Consumer {
        Consumer {
            since: number,
            until,
            write,
            is_parked: false,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Consumers {
    /// Those that are parked, by topic, in the order in which they came.
    parked: BTreeMap<Key, BTreeMap<u64, Slot>>,
    /// When they have waited long enough, and the number that they have meanwhile.
    ends: BTreeSet<(Timestamp, Slot, u64)>,
    /// By when those are answered that wait at another server.
    late: BTreeSet<(Timestamp, Slot, u64)>,
    /// Of each connection the newest of these: there is one at most.
    late_of: BTreeMap<Slot, (Timestamp, u64)>,
    /// Topics for which somebody may wait, and that the store is to watch.
    unwatched: BTreeSet<Key>,
    /// Followers whose clients wait, and that were not heard from lately.
    silent: BTreeSet<ServerId>,
}

impl Consumers {
    /// Whether somebody waits for this topic.
    fn waits_for(&self, topic: &Key) -> bool {
        self.parked.contains_key(topic)
    }

    fn park(&mut self, consumer: &Consumer, slot: Slot, number: u64) {
        let topic = &consumer.write.topic;
        let line = self.parked.entry(topic.clone()).or_default();
        line.insert(consumer.since, slot);
        self.ends.insert((consumer.until, slot, number));
        self.unwatched.insert(topic.clone());
    }

    /// A parked one is parked no more.
    fn leave(&mut self, consumer: &Consumer, slot: Slot, number: u64) {
        let topic = &consumer.write.topic;
        if let Some(line) = self.parked.get_mut(topic) {
            line.remove(&consumer.since);
            if line.is_empty() {
                self.parked.remove(topic);
            }
        }
        self.ends.remove(&(consumer.until, slot, number));
    }

    /// A command is refused, or nobody wants to know any more what becomes of it.
    pub(super) fn gone(&mut self, consumer: &Consumer, slot: Slot, number: u64) {
        match consumer.is_parked {
            true => self.leave(consumer, slot, number),
            false => self.not_taken(consumer),
        }
    }

    /// Whoever else waits for the same may have to be woken in its place.
    fn not_taken(&mut self, consumer: &Consumer) {
        if self.waits_for(&consumer.write.topic) {
            self.unwatched.insert(consumer.write.topic.clone());
        }
    }

    pub(super) fn next_deadline(&self) -> Timestamp {
        let end = self.ends.first().map(|(end, ..)| *end);
        let late = self.late.first().map(|(late, ..)| *late);
        end.into_iter()
            .chain(late)
            .min()
            .unwrap_or(Timestamp::NEVER)
    }
}

impl Waiting {
    /// A command that waits is with another server, which answers it by then.
    pub(super) fn wait_elsewhere(&mut self, due: Timestamp, slot: Slot, number: u64) {
        if let Some((old_due, old)) = self.consumers.late_of.insert(slot, (due, number)) {
            self.consumers.late.remove(&(old_due, slot, old));
        }
        self.consumers.late.insert((due, slot, number));
    }

    /// A command that waits was carried out, and taken off its queue. True if it goes on waiting: it
    /// has found nothing, has not waited long enough, and nothing stands behind it.
    pub(super) fn consumer_applied(
        &mut self,
        slot: Slot,
        mut consumer: Box<Consumer>,
        found_nothing: bool,
        now: Timestamp,
    ) -> bool {
        let connection = self.slots[slot].as_mut();
        let connection = connection.filter(|connection| connection.queue.is_empty());
        let (Some(connection), true) = (connection, found_nothing && now < consumer.until) else {
            self.consumers.not_taken(&consumer);
            return false;
        };
        let number = self.next_number;
        self.next_number += 1;
        consumer.is_parked = true;
        self.consumers.park(&consumer, slot, number);
        let what = What::Take(consumer);
        connection.queue.push_back(Pending { number, what });
        true
    }

    /// More comes from a connection: what it waits for is answered first.
    pub(super) fn ends_wait(&mut self, slot: Slot) {
        let last = self.slots[slot].as_ref().and_then(|it| it.queue.back());
        if let Some(What::Take(consumer)) = last.map(|last| &last.what)
            && consumer.is_parked
        {
            self.stop_waiting_at(slot);
        }
    }

    pub(super) fn forget_consumers(&mut self) {
        self.consumers = Consumers::default();
    }

    /// A message is about to be pushed behind all that is staged: who waits first is to get it.
    pub(super) fn wake_first(&mut self, topic: &Key, now: Timestamp) {
        if self.consumers.waits_for(topic) {
            self.wake(topic, 1, now);
        }
    }

    /// So many of those that wait for this topic are carried out again.
    fn wake(&mut self, topic: &Key, count: u64, now: Timestamp) {
        for _ in 0..count {
            let line = self.consumers.parked.get(topic).into_iter().flatten();
            let mut slots = line.map(|(_, slot)| *slot);
            let Some(slot) = slots.find(|slot| self.is_heard(*slot)) else {
                return;
            };
            let number = self.next_number;
            self.next_number += 1;
            let connection = self.slots[slot].as_mut();
            let parked = connection.and_then(|connection| connection.queue.back_mut());
            let Some(Pending {
                number: old,
                what: What::Take(consumer),
            }) = parked
            else {
                unreachable!("nobody is parked at slot {slot}");
            };
            self.consumers.leave(consumer, slot, *old);
            *old = number;
            consumer.is_parked = false;
            let write = Write::Topic(consumer.write.clone());
            self.owed.commands += 1;
            self.staged_bytes += encoded_bytes(&write);
            self.staged.push(Staged {
                owner: Owner { slot, number },
                write: Some(write),
            });
            let due = now + ANSWER_WITHIN;
            self.deadlines.push_back(Deadline { due, slot, number });
        }
    }

    /// Whether whoever has this slot may still be there, as far as his server is.
    fn is_heard(&self, slot: Slot) -> bool {
        let origin = self.slots[slot]
            .as_ref()
            .map(|connection| connection.origin);
        match origin {
            Some(Origin::Follower(follower, _)) => !self.consumers.silent.contains(&follower),
            _ => true,
        }
    }

    /// Wakes whoever can be served, now that this turn's entries are applied, and answers who has
    /// waited long enough. `heard` says when a follower was heard from the last time.
    pub(crate) fn tend_consumers(
        &mut self,
        now: Timestamp,
        heard: impl Fn(ServerId) -> Option<Timestamp>,
        answers: &mut Answers,
    ) {
        if !self.consumers.parked.is_empty() {
            let followers = self.forwarding.followers();
            let is_silent = |follower: &ServerId| {
                heard(*follower).is_some_and(|heard| now.since(heard) > SILENT_AFTER)
            };
            let silent: BTreeSet<ServerId> = followers.filter(is_silent).collect();
            if !self.consumers.silent.is_subset(&silent) {
                // What they were passed over for may still be there.
                let topics = self.consumers.parked.keys().cloned();
                self.consumers.unwatched.extend(topics);
            }
            self.consumers.silent = silent;
        }
        if mutants::is_on(Mutant::ConsumersForgotten) {
            return self.end_waits(now);
        }
        for topic in std::mem::take(&mut self.consumers.unwatched) {
            if self.consumers.waits_for(&topic) && !answers.store.watch_topic(&topic) {
                // They are to learn that it is gone.
                self.wake(&topic, u64::MAX, now);
            }
        }
        for (topic, ready) in answers.store.take_woken_topics() {
            self.wake(&topic, ready, now);
            if ready == 0 {
                // Somebody else was faster.
                self.consumers.unwatched.insert(topic);
            }
        }
        self.end_waits(now);
    }

    fn end_waits(&mut self, now: Timestamp) {
        while let Some((_, slot, _)) = self
            .consumers
            .ends
            .first()
            .copied()
            .filter(|(end, ..)| *end <= now)
        {
            self.stop_waiting_at(slot);
        }
    }

    /// The client will not wait any longer: it is answered that there is nothing, at once or when its
    /// command was carried out and has found nothing.
    pub(crate) fn stop_waiting(&mut self, origin: Origin) {
        let Some(slot) = self.by_id.get(&origin).copied() else {
            return;
        };
        let last = self.slots[slot].as_mut().and_then(|it| it.queue.back_mut());
        match last.map(|last| &mut last.what) {
            Some(What::Take(consumer)) if consumer.is_parked => self.stop_waiting_at(slot),
            Some(What::Take(consumer)) => consumer.until = Timestamp(0),
            Some(What::Forwarded(_)) => self.stop_forwarded(slot),
            _ => {}
        }
    }

    fn stop_waiting_at(&mut self, slot: Slot) {
        let Some(connection) = self.slots[slot].as_mut() else {
            return;
        };
        let Some(Pending {
            number,
            what: What::Take(consumer),
        }) = connection.queue.pop_back()
        else {
            unreachable!("nobody is parked at slot {slot}");
        };
        self.consumers.leave(&consumer, slot, number);
        connection.give(slot, Outcome::Done(Reply::Empty), &mut self.ready);
    }

    /// This server is about to stop: whoever waits here is to wait elsewhere, and whoever waits at the
    /// leader is to wait no longer.
    pub(crate) fn refuse_parked(&mut self, answers: &mut Answers) {
        while let Some((_, slot, _)) = self.consumers.ends.first().copied() {
            self.refuse(slot, u64::MAX, answers);
        }
        let late: Vec<Slot> = self
            .consumers
            .late
            .iter()
            .map(|(_, slot, _)| *slot)
            .collect();
        for slot in late {
            self.stop_forwarded(slot);
        }
    }

    /// Refuses those whose answer from another server is overdue.
    pub(super) fn refuse_late(&mut self, now: Timestamp, answers: &mut Answers) {
        while let Some((late, slot, number)) = self.consumers.late.first().copied()
            && (late <= now || !self.owes(slot, number))
        {
            self.consumers.late.pop_first();
            self.consumers.late_of.remove(&slot);
            if self.owes(slot, number) {
                self.refuse(slot, u64::MAX, answers);
            }
        }
    }
}
