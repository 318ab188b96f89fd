//! One topic: messages that are taken in order, by priority and then by id. A message is *ready*, or
//! *reserved* until a second, or *delayed* until a second, or *dead*. Which it is, is exact at every
//! place in the log: all that falls due up to a second does so before the first command of the entry
//! that brings that second.

use std::sync::Arc;

use command::{
    Key, MESSAGE_MEMORY_BYTES, Message, MessageBytes, MessageCounts, Reply, Take, TopicChange,
    TopicSettings,
};
use mutants::Mutant;

use crate::messages::{Held, Messages, Page, State};
use crate::order::{Order, page_of};

/// What a topic takes in memory beside its messages, as it is counted.
pub(crate) const TOPIC_MEMORY_BYTES: u64 = 1024;

/// What is replicated of a topic.
#[derive(Clone, Debug)]
pub(crate) struct TopicState {
    /// The place in the log of its creation, as a unique: topics are listed by it.
    pub(crate) number: u64,
    pub(crate) name: Key,
    pub(crate) settings: TopicSettings,
    /// All messages have lower ones.
    pub(crate) next_id: u64,
    pub(crate) messages: Messages,
}

/// A topic, with what its messages are found by.
#[derive(Debug)]
pub(crate) struct Topic {
    state: TopicState,
    /// By priority.
    ready: Order,
    /// By the second at which they come back.
    reserved: Order,
    /// By the second at which they are ready.
    delayed: Order,
    /// In no order but that of their ids.
    dead: Order,
    counts: MessageCounts,
    /// Of the messages alone.
    bytes: u64,
    /// Every message with a lower id is as old as the topic allows, and there only because it is
    /// reserved.
    aged_below: u64,
    /// Somebody wants to know when there may be something to take. Of this server alone.
    is_watched: bool,
    /// What is gone, and not freed.
    garbage: Vec<Arc<Page>>,
}

/// What a change of a topic is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    /// Of the time in the log: what is due is judged by it.
    pub(crate) second: u32,
    /// The first that begins now or later: times are counted from it, so that no message is ready,
    /// comes back or is gone before its time.
    pub(crate) next_second: u32,
    /// How much memory a message may take, as it is counted.
    pub(crate) room: u64,
}

impl Topic {
    pub(crate) fn new(number: u64, name: &Key, settings: TopicSettings) -> Topic {
        let copy = bytes::Bytes::copy_from_slice(name.as_bytes());
        Topic::loaded(TopicState {
            number,
            name: Key::new(copy).expect("it was a name"),
            settings,
            next_id: 1,
            messages: Messages::default(),
        })
    }

    /// The topic that this is the state of. Nothing of it is due.
    pub(crate) fn loaded(state: TopicState) -> Topic {
        let mut topic = Topic {
            state,
            ready: Order::default(),
            reserved: Order::default(),
            delayed: Order::default(),
            dead: Order::default(),
            counts: MessageCounts::default(),
            bytes: 0,
            aged_below: 0,
            is_watched: false,
            garbage: Vec::new(),
        };
        let messages = topic.state.messages.clone();
        for (id, held) in messages.from(0) {
            topic.bytes += held.data.as_slice().len() as u64;
            topic.line_up(id, held.state, held.priority, held.until);
        }
        topic
    }

    pub(crate) fn state(&self) -> &TopicState {
        &self.state
    }

    pub(crate) fn counts(&self) -> MessageCounts {
        self.counts
    }

    /// What the topic takes in memory, counted alike on all servers.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let name = self.state.name.as_bytes().len() as u64;
        let messages = self.counts.total() * MESSAGE_MEMORY_BYTES as u64;
        TOPIC_MEMORY_BYTES + name + messages + self.bytes
    }

    /// Asks `take_woken` to say when there is something to take, or the topic is gone.
    pub(crate) fn watch(&mut self) {
        self.is_watched = true;
    }

    /// Whether that is the case; once.
    pub(crate) fn take_woken(&mut self) -> bool {
        let is_woken = self.is_watched && self.counts.ready > 0;
        self.is_watched &= !is_woken;
        is_woken
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// All of it, for whoever drops it piece by piece.
    pub(crate) fn into_pages(mut self) -> Vec<Arc<Page>> {
        let mut pages = self.take_garbage();
        pages.extend(self.state.messages.into_pages());
        pages
    }

    pub(crate) fn take_garbage(&mut self) -> Vec<Arc<Page>> {
        std::mem::take(&mut self.garbage)
    }

    /// The first second at which something falls due.
    pub(crate) fn next_due(&self) -> Option<u32> {
        let comes_back = self.reserved.first_number();
        let is_ready = self.delayed.first_number();
        let is_old = self.oldest().map(|(_, over)| over);
        let due = comes_back.into_iter().chain(is_ready).chain(is_old);
        due.min()
    }

    /// The first message that was not found to be too old, and the second from which on it is.
    fn oldest(&self) -> Option<(u64, u32)> {
        let age_max = self.state.settings.max_age;
        if age_max == 0 {
            return None;
        }
        let (id, held) = self.state.messages.from(self.aged_below).next()?;
        Some((id, held.since.saturating_add(age_max)))
    }

    /// Whatever falls due up to this second does so.
    pub(crate) fn come_due(&mut self, second: u32) {
        while let Some((page, bits)) = self.reserved.pop_until(second) {
            self.counts.reserved -= u64::from(bits.count_ones());
            if mutants::is_on(Mutant::ReservationNeverEnds) {
                continue;
            }
            self.come_back(page, bits, second);
        }
        while let Some((page, bits)) = self.delayed.pop_until(second) {
            self.counts.delayed -= u64::from(bits.count_ones());
            self.come_back(page, bits, second);
        }
        self.age(second);
    }

    /// These messages of a page, which are in no order, are ready; or dead, if they were delivered as
    /// often as they may be; or gone, if they are too old.
    fn come_back(&mut self, page: u64, bits: u64, second: u32) {
        let settings = self.state.settings;
        let mut run = Run::default();
        let mut too_old = Vec::new();
        let messages = self.state.messages.page_mut(page);
        for held in messages.filter(|held| held.bit() & bits != 0) {
            let was_reserved = held.state == State::Reserved;
            let is_dead = was_reserved && settings.is_used_up(held.deliveries);
            held.until = 0;
            held.state = match is_dead {
                true => State::Dead,
                false => State::Ready,
            };
            if settings.is_too_old(held.since, second) {
                too_old.push(held.id(page));
            }
            let (state, number) = (held.state, held.number());
            if let Some(run) = run.add(state, number, held.bit()) {
                run.line_up(page, &mut self.ready, &mut self.dead, &mut self.counts);
            }
        }
        run.line_up(page, &mut self.ready, &mut self.dead, &mut self.counts);
        for id in too_old {
            self.remove(id);
        }
    }

    /// Removes what is too old, unless it is reserved.
    fn age(&mut self, second: u32) {
        let settings = self.state.settings;
        while let Some((id, over)) = self.oldest()
            && over <= second
        {
            let page = page_of(id);
            let whole = self.state.messages.take_page(page, |held| {
                held.state != State::Reserved && settings.is_too_old(held.since, second)
            });
            if let Some(messages) = whole {
                self.aged_below = messages.last().map_or(id, |last| last.id(page)) + 1;
                self.forget_page(page, &messages);
                self.garbage.push(messages);
                continue;
            }
            self.aged_below = id + 1;
            let is_reserved = |held: &Held| held.state == State::Reserved;
            if !self.state.messages.get(id).is_some_and(is_reserved) {
                self.remove(id);
            }
        }
    }

    /// A page was taken out.
    fn forget_page(&mut self, page: u64, messages: &Page) {
        let mut run = Run::default();
        for held in messages {
            self.bytes -= held.data.as_slice().len() as u64;
            if let Some(run) = run.add(held.state, held.number(), held.bit()) {
                self.forget_run(page, run);
            }
        }
        self.forget_run(page, run);
    }

    fn forget_run(&mut self, page: u64, run: Run) {
        let Some(state) = run.state else {
            return;
        };
        let (order, count) = self.order(state);
        order.remove_all(run.number, page, run.bits);
        *count -= u64::from(run.bits.count_ones());
    }

    pub(crate) fn change(&mut self, at: Circumstances, change: &TopicChange) -> Reply {
        match change {
            TopicChange::Create(_) => Reply::Exists,
            TopicChange::Push {
                message,
                priority,
                delay,
            } => self.push(at, message, *priority, *delay),
            TopicChange::Take(Take { ttr, .. }) => self.take(at, *ttr),
            TopicChange::Ack { id } => self.ack(*id),
            TopicChange::Nack { id, delay } => self.nack(at, *id, *delay),
            TopicChange::Extend { id, ttr } => self.extend(at, *id, *ttr),
            TopicChange::Kick { count } => self.kick(at, *count),
            TopicChange::Purge => self.purge(),
            TopicChange::Drop => unreachable!("a topic does not drop itself"),
        }
    }

    fn push(&mut self, at: Circumstances, message: &[u8], priority: u32, delay: u32) -> Reply {
        let settings = self.state.settings;
        let bytes = message.len() as u64;
        let is_over = |limit: u64, what: u64| limit > 0 && what > limit;
        if is_over(settings.max_length, self.counts.total() + 1)
            || is_over(settings.max_bytes, self.bytes + bytes)
        {
            return Reply::TopicFull;
        }
        if bytes + MESSAGE_MEMORY_BYTES as u64 > at.room {
            return Reply::OutOfMemory;
        }
        let id = self.state.next_id;
        self.state.next_id += 1;
        self.bytes += bytes;
        let mut held = Held::new(MessageBytes::new(message), at.next_second, priority);
        if delay > 0 {
            held.state = State::Delayed;
            held.until = at.next_second.saturating_add(delay);
        }
        self.line_up(id, held.state, priority, held.until);
        self.state.messages.push(id, held);
        Reply::Pushed(id)
    }

    fn take(&mut self, at: Circumstances, ttr: Option<u32>) -> Reply {
        let Some(id) = self.ready.first() else {
            return Reply::Empty;
        };
        let Some(ttr) = ttr else {
            if mutants::is_on(Mutant::TakenStays)
                && let Some(held) = self.state.messages.get(id)
            {
                return Reply::Message(message(id, held));
            }
            let held = self.remove(id);
            let held = held.unwrap_or_else(|| panic!("message {id} is ready and not there"));
            return Reply::Message(message(id, &held));
        };
        let held = self.leave(id, State::Ready);
        let held = held.unwrap_or_else(|| panic!("message {id} is ready and not there"));
        held.deliveries = held.deliveries.saturating_add(1);
        held.state = State::Reserved;
        held.until = at.next_second.saturating_add(ttr);
        let (until, message) = (held.until, message(id, held));
        self.line_up(id, State::Reserved, 0, until);
        Reply::Message(message)
    }

    /// The message that `pop` would take.
    pub(crate) fn peek(&self) -> Reply {
        let first = self.ready.first();
        let held = first.and_then(|id| Some((id, self.state.messages.get(id)?)));
        held.map_or(Reply::Empty, |(id, held)| Reply::Message(message(id, held)))
    }

    fn ack(&mut self, id: u64) -> Reply {
        match self.is_reserved(id) {
            true => {
                self.remove(id);
                Reply::Acked
            }
            false => Reply::NotFound,
        }
    }

    fn nack(&mut self, at: Circumstances, id: u64, delay: u32) -> Reply {
        let settings = self.state.settings;
        let Some(held) = self.leave(id, State::Reserved) else {
            return Reply::NotFound;
        };
        (held.state, held.until) = match delay {
            _ if settings.is_used_up(held.deliveries) => (State::Dead, 0),
            0 => (State::Ready, 0),
            delay => (State::Delayed, at.next_second.saturating_add(delay)),
        };
        let (state, since) = (held.state, held.since);
        let (priority, until) = (held.priority, held.until);
        self.line_up(id, state, priority, until);
        if settings.is_too_old(since, at.second) {
            self.remove(id);
        }
        match state {
            State::Dead => Reply::Buried,
            _ => Reply::Released,
        }
    }

    fn extend(&mut self, at: Circumstances, id: u64, ttr: u32) -> Reply {
        let Some(held) = self.leave(id, State::Reserved) else {
            return Reply::NotFound;
        };
        held.until = at.next_second.saturating_add(ttr);
        let until = held.until;
        self.line_up(id, State::Reserved, 0, until);
        Reply::Extended
    }

    fn kick(&mut self, at: Circumstances, count: u64) -> Reply {
        let mut left = count;
        while left > 0
            && let Some((page, all)) = self.dead.pop_until(0)
        {
            let bits = lowest(all, left);
            self.dead.insert_all(0, page, all & !bits);
            let kicked = u64::from(bits.count_ones());
            self.counts.dead -= kicked;
            left -= kicked;
            let messages = self.state.messages.page_mut(page);
            for held in messages.filter(|held| held.bit() & bits != 0) {
                held.deliveries = 0;
            }
            self.come_back(page, bits, at.second);
        }
        Reply::Kicked(count - left)
    }

    fn purge(&mut self) -> Reply {
        let purged = self.counts.total();
        let messages = std::mem::take(&mut self.state.messages);
        self.garbage.extend(messages.into_pages());
        for order in [
            &mut self.ready,
            &mut self.reserved,
            &mut self.delayed,
            &mut self.dead,
        ] {
            *order = Order::default();
        }
        self.counts = MessageCounts::default();
        self.bytes = 0;
        Reply::Purged(purged)
    }

    fn is_reserved(&self, id: u64) -> bool {
        let held = self.state.messages.get(id);
        held.is_some_and(|held| held.state == State::Reserved)
    }

    /// Takes a message out, whatever it is.
    fn remove(&mut self, id: u64) -> Option<Held> {
        let held = self.state.messages.remove(id)?;
        let number = held.number();
        let (order, count) = self.order(held.state);
        order.remove(number, id);
        *count -= 1;
        self.bytes -= held.data.as_slice().len() as u64;
        Some(held)
    }

    /// The message, if it is in this state, out of the order of those that are; it is to be lined up
    /// again.
    fn leave(&mut self, id: u64, state: State) -> Option<&mut Held> {
        let held = self.state.messages.get(id)?;
        if held.state != state {
            return None;
        }
        let number = held.number();
        let (order, count) = self.order(state);
        order.remove(number, id);
        *count -= 1;
        self.state.messages.get_mut(id)
    }

    fn line_up(&mut self, id: u64, state: State, priority: u32, until: u32) {
        let number = number(state, priority, until);
        let (order, count) = self.order(state);
        order.insert(number, id);
        *count += 1;
    }

    /// The messages that are in this state, and how many there are.
    fn order(&mut self, state: State) -> (&mut Order, &mut u64) {
        match state {
            State::Ready => (&mut self.ready, &mut self.counts.ready),
            State::Reserved => (&mut self.reserved, &mut self.counts.reserved),
            State::Delayed => (&mut self.delayed, &mut self.counts.delayed),
            State::Dead => (&mut self.dead, &mut self.counts.dead),
        }
    }
}

impl Held {
    fn number(&self) -> u32 {
        number(self.state, self.priority, self.until)
    }
}

/// What messages in this state are ordered by.
fn number(state: State, priority: u32, until: u32) -> u32 {
    match state {
        State::Ready if mutants::is_on(Mutant::PriorityIgnored) => 0,
        State::Ready => priority,
        State::Reserved | State::Delayed => until,
        State::Dead => 0,
    }
}

fn message(id: u64, held: &Held) -> Message {
    Message {
        id,
        deliveries: held.deliveries,
        data: held.data.clone(),
    }
}

/// So many of these bits, the lowest.
fn lowest(mut bits: u64, count: u64) -> u64 {
    while u64::from(bits.count_ones()) > count {
        bits &= !(1 << (63 - bits.leading_zeros()));
    }
    bits
}

/// What settings say of a message.
pub(crate) trait Judges {
    /// Whether a message that was delivered so often may not be again.
    fn is_used_up(&self, deliveries: u32) -> bool;

    /// Whether a message that was pushed then is gone now, unless it is reserved.
    fn is_too_old(&self, since: u32, second: u32) -> bool;
}

impl Judges for TopicSettings {
    fn is_used_up(&self, deliveries: u32) -> bool {
        self.max_deliveries > 0 && deliveries >= self.max_deliveries
    }

    fn is_too_old(&self, since: u32, second: u32) -> bool {
        self.max_age > 0 && since.saturating_add(self.max_age) <= second
    }
}

/// Messages of a page, one behind the other, in the same state and with the same number.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    state: Option<State>,
    number: u32,
    bits: u64,
}

impl Run {
    /// One more; the run before it, if that is of another kind.
    fn add(&mut self, state: State, number: u32, bit: u64) -> Option<Run> {
        if self.state == Some(state) && self.number == number {
            self.bits |= bit;
            return None;
        }
        let next = Run {
            state: Some(state),
            number,
            bits: bit,
        };
        Some(std::mem::replace(self, next))
    }

    fn line_up(self, page: u64, ready: &mut Order, dead: &mut Order, counts: &mut MessageCounts) {
        let (order, count) = match self.state {
            Some(State::Dead) => (dead, &mut counts.dead),
            _ => (ready, &mut counts.ready),
        };
        order.insert_all(self.number, page, self.bits);
        *count += u64::from(self.bits.count_ones());
    }
}
