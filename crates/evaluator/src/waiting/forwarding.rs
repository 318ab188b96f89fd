//! Forwarded commands, at the follower that sends them and at the leader that carries them out
//! (rule 56). To the leader each connection of a follower is one more connection; what it can't do
//! for it is refused, and never forwarded again.
//!
//! A follower sends to the leader that it knows, over one connection, as one stream
//! (`forward.rs`). Another leader or term, a broken connection, a message that is missing: the stream
//! is over, and with it all that is owed on it, since nobody here knows how far the leader came. Its
//! writes are of unknown outcome then; what follows goes into another stream.

use std::collections::{BTreeMap, BTreeSet};

use command::{Command, Outcome, Read, Reply, TopicChange, TopicWrite, Write};
use mutants::Mutant;
use raft::{Restart, ServerId, Term, Timestamp};

use super::{Origin, Slot, Takes, Waiting, What};
use crate::answers::Answers;
use crate::forward::{
    ForwardBody, ForwardMessage, ForwardedCommands, OUTCOMES_BYTES_MAX, REPLY_BYTES_MAX, Stream,
    outcome_bytes,
};
use crate::io::ConnectionId;
use crate::status::ForwardCounters;

#[derive(Debug)]
pub(crate) struct Forwarding {
    restart: Restart,
    /// Streams that this server has begun, as follower.
    streams: u64,
    heading: Option<Heading>,
    /// Peers to whom there is a connection for it.
    links: BTreeSet<ServerId>,
    /// Those that have sent something to this server.
    followers: BTreeMap<ServerId, Follower>,
    /// To be handed out.
    messages: Vec<(ServerId, ForwardMessage)>,
    /// Clients whose replies are too large.
    overlong: Vec<ConnectionId>,
    counters: ForwardCounters,
}

/// Where a follower sends its clients' commands.
#[derive(Debug)]
struct Heading {
    leader: ServerId,
    term: Term,
    stream: Stream,
    /// The numbers of the next message there and the next one back.
    sent: u64,
    heard: u64,
}

/// A follower, as the server has it that is to carry out its commands.
#[derive(Debug, Default)]
struct Follower {
    /// The newest that it has begun; older ones are over.
    stream: Stream,
    /// A message of the stream is missing, or its connection is gone.
    is_broken: bool,
    sent: u64,
    heard: u64,
}

/// A command that was forwarded.
#[derive(Debug)]
pub(crate) struct Forwarded {
    /// Among those of its connection.
    number: u64,
    pub(crate) is_write: bool,
    wants: Wants,
    pub(crate) bytes: usize,
}

/// What a command is answered with when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    Hits,
    Confirmation,
    /// A message that is taken or shown.
    Message,
    Topics,
    /// Anything else.
    Reply,
}

impl Forwarded {
    pub(super) fn new(number: u64, command: &Command) -> Forwarded {
        Forwarded {
            number,
            is_write: matches!(command, Command::Write(_)),
            wants: match command {
                Command::Read(Read::Get { .. }) | Command::Write(Write::GetAndTouch { .. }) => {
                    Wants::Hits
                }
                Command::Read(Read::Confirm) => Wants::Confirmation,
                Command::Read(Read::Topics) => Wants::Topics,
                Command::Read(Read::Peek { .. })
                | Command::Write(Write::Topic(TopicWrite {
                    change: TopicChange::Take(_),
                    ..
                })) => Wants::Message,
                _ => Wants::Reply,
            },
            bytes: crate::forward::command_bytes(command),
        }
    }

    /// Whether this can be the outcome: what comes from outside is not believed.
    fn fits(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Done(Reply::Stats(_)) => false,
            Outcome::Done(Reply::Hits(_)) => self.wants == Wants::Hits,
            Outcome::Done(Reply::Confirmed { .. }) => self.wants == Wants::Confirmation,
            Outcome::Done(Reply::Message(_)) => self.wants == Wants::Message,
            Outcome::Done(Reply::Topics(_)) => self.wants == Wants::Topics,
            Outcome::Done(Reply::Empty | Reply::NotFound) => {
                matches!(self.wants, Wants::Reply | Wants::Message)
            }
            Outcome::Done(_) => self.wants == Wants::Reply,
            Outcome::Unknown => self.is_write,
            Outcome::NotDone(_) => true,
        }
    }
}

impl Forwarding {
    pub(super) fn new(restart: Restart) -> Forwarding {
        Forwarding {
            restart,
            streams: 0,
            heading: None,
            links: BTreeSet::new(),
            followers: BTreeMap::new(),
            messages: Vec::new(),
            overlong: Vec::new(),
            counters: ForwardCounters::default(),
        }
    }

    /// Those that have sent something to this server.
    pub(super) fn followers(&self) -> impl Iterator<Item = ServerId> {
        self.followers.keys().copied()
    }

    /// The stream that commands go into.
    pub(super) fn stream(&self) -> Option<Stream> {
        self.heading.as_ref().map(|heading| heading.stream)
    }

    /// Sends the leader commands of a connection, of which the first has this number.
    pub(super) fn send(
        &mut self,
        connection: ConnectionId,
        epoch: u64,
        first: u64,
        commands: Vec<Command>,
    ) {
        let Some(heading) = &mut self.heading else {
            return;
        };
        self.counters.commands += commands.len() as u64;
        let term = heading.term;
        let message = heading.message(ForwardBody::Commands(ForwardedCommands {
            connection,
            term,
            epoch,
            first,
            commands,
        }));
        self.messages.push((heading.leader, message));
    }

    /// A connection is gone that has sent something in this stream.
    pub(super) fn gone(&mut self, connection: ConnectionId, stream: Stream) {
        self.say(stream, ForwardBody::Gone { connection });
    }

    /// A connection that has sent something in this stream is to wait no longer.
    fn stop_waiting(&mut self, connection: ConnectionId, stream: Stream) {
        self.say(stream, ForwardBody::StopWaiting { connection });
    }

    /// Tells the leader, if the stream is not over.
    fn say(&mut self, stream: Stream, body: ForwardBody) {
        if let Some(heading) = &mut self.heading
            && heading.stream == stream
        {
            let message = heading.message(body);
            self.messages.push((heading.leader, message));
        }
    }

    /// Gives a follower the outcomes of a connection's commands, of which the first has this number.
    pub(super) fn answer(
        &mut self,
        to: ServerId,
        connection: ConnectionId,
        mut first: u64,
        outcomes: Vec<Outcome>,
    ) {
        let Some(follower) = self.followers.get_mut(&to) else {
            return;
        };
        let mut part = Vec::new();
        let mut bytes = 0;
        let mut overlong = false;
        for outcome in outcomes {
            let more = outcome_bytes(&outcome);
            if more > REPLY_BYTES_MAX {
                overlong = true;
                break;
            }
            if bytes > 0 && bytes + more > OUTCOMES_BYTES_MAX {
                let outcomes = std::mem::take(&mut part);
                let count = outcomes.len() as u64;
                let body = ForwardBody::Outcomes {
                    connection,
                    first,
                    outcomes,
                };
                self.messages.push((to, follower.message(body)));
                first += count;
                bytes = 0;
            }
            bytes += more;
            part.push(outcome);
        }
        if !part.is_empty() {
            let body = ForwardBody::Outcomes {
                connection,
                first,
                outcomes: part,
            };
            self.messages.push((to, follower.message(body)));
        }
        if overlong {
            let body = ForwardBody::Overlong { connection };
            self.messages.push((to, follower.message(body)));
        }
    }

    /// Whether a message from a follower is the next one of its stream. What comes after one that
    /// is missing makes the stream broken, and the follower is told.
    fn is_next(&mut self, from: ServerId, stream: Stream, number: u64) -> bool {
        let Some(follower) = self.followers.get_mut(&from) else {
            return false;
        };
        if stream < follower.stream {
            self.counters.late += 1;
            return false;
        }
        let is_gap = number > follower.heard && !mutants::is_on(Mutant::ForwardGapIgnored);
        if follower.is_broken || is_gap {
            self.counters.gaps += u64::from(!follower.is_broken);
            follower.is_broken = true;
            let broken = follower.message(ForwardBody::Broken);
            self.messages.push((from, broken));
            return false;
        }
        if number < follower.heard && !mutants::is_on(Mutant::ForwardRepeated) {
            self.counters.repeated += 1;
            return false;
        }
        follower.heard = number + 1;
        true
    }
}

impl Heading {
    fn message(&mut self, body: ForwardBody) -> ForwardMessage {
        let number = self.sent;
        self.sent += 1;
        ForwardMessage {
            stream: self.stream,
            number,
            body,
        }
    }
}

impl Follower {
    fn message(&mut self, body: ForwardBody) -> ForwardMessage {
        let number = self.sent;
        self.sent += 1;
        ForwardMessage {
            stream: self.stream,
            number,
            body,
        }
    }
}

/// The follower's part.
impl Waiting {
    /// Sends on commands of a connection, the last of which has just got its number.
    pub(super) fn forward(&mut self, slot: Slot, commands: Vec<Command>) {
        let Some(connection) = self.slots[slot].as_mut().filter(|_| !commands.is_empty()) else {
            return;
        };
        connection.stream = self.forwarding.stream();
        let (Origin::Client(id) | Origin::Follower(_, id)) = connection.origin;
        let first = connection.forwarded - commands.len() as u64;
        self.forwarding.send(id, connection.epoch, first, commands);
    }

    /// Tells the leader that a connection's last command is to wait no longer.
    pub(super) fn stop_forwarded(&mut self, slot: Slot) {
        if let Some(connection) = self.slots[slot].as_ref()
            && let (Origin::Client(id), Some(stream)) = (connection.origin, connection.stream)
        {
            self.forwarding.stop_waiting(id, stream);
        }
    }

    /// Whether commands may be forwarded to this leader.
    pub(crate) fn heads_for(&self, leader: Option<ServerId>) -> bool {
        let heading = self.forwarding.heading.as_ref();
        heading.is_some_and(|heading| Some(heading.leader) == leader)
    }

    /// A connection to this peer was made, or is gone.
    pub(crate) fn linked(&mut self, peer: ServerId, is_there: bool, answers: &mut Answers) {
        match is_there {
            true => self.forwarding.links.insert(peer),
            false => self.forwarding.links.remove(&peer),
        };
        if self.heads_for(Some(peer)) {
            self.break_off(answers);
        }
    }

    /// Takes note of whom commands would be forwarded to: nobody, or the leader of this term, if it
    /// is known. While none is, what is under way may still be answered.
    pub(crate) fn head_for(
        &mut self,
        course: Option<(Term, Option<ServerId>)>,
        answers: &mut Answers,
    ) {
        let stays = self.forwarding.heading.as_ref().is_some_and(|heading| {
            course.is_some_and(|(term, leader)| {
                term == heading.term && leader.is_none_or(|leader| leader == heading.leader)
            })
        });
        if stays {
            return;
        }
        self.break_off(answers);
        let forwarding = &mut self.forwarding;
        if let Some((term, Some(leader))) = course
            && forwarding.links.contains(&leader)
        {
            forwarding.streams += 1;
            forwarding.heading = Some(Heading {
                leader,
                term,
                stream: Stream {
                    restart: forwarding.restart,
                    number: forwarding.streams,
                },
                sent: 0,
                heard: 0,
            });
        }
    }

    /// The stream is over: all that is owed on it is refused.
    fn break_off(&mut self, answers: &mut Answers) {
        if self.forwarding.heading.take().is_none() {
            return;
        }
        self.forwarding.counters.broken += u64::from(self.owed.forwarded > 0);
        for slot in 0..self.slots.len() {
            let first = self.slots[slot].as_ref().and_then(|it| it.queue.front());
            if first.is_some_and(|first| matches!(first.what, What::Forwarded(_))) {
                self.refuse(slot, u64::MAX, answers);
            }
        }
        let owed = self.owed.forwarded;
        assert_eq!(owed, 0, "forwarded commands are owed an answer by nobody");
    }

    /// A message from the leader.
    pub(crate) fn leader_says(
        &mut self,
        from: ServerId,
        message: ForwardMessage,
        answers: &mut Answers,
    ) {
        let heading = self.forwarding.heading.as_mut();
        let heading = heading.filter(|it| it.leader == from && it.stream == message.stream);
        let Some(heading) = heading else {
            return;
        };
        if message.number < heading.heard {
            return;
        }
        if message.number > heading.heard {
            self.break_off(answers);
            return;
        }
        heading.heard += 1;
        match message.body {
            ForwardBody::Outcomes {
                connection,
                first,
                outcomes,
            } => {
                for (number, outcome) in (first..).zip(outcomes) {
                    self.forwarded_outcome(connection, number, outcome, answers);
                }
            }
            ForwardBody::Overlong { connection } => {
                self.forwarding.overlong.push(connection);
                self.disconnected(Origin::Client(connection));
            }
            ForwardBody::Broken
            | ForwardBody::Commands(_)
            | ForwardBody::Gone { .. }
            | ForwardBody::StopWaiting { .. } => {
                self.break_off(answers);
            }
        }
    }

    /// The outcome of a forwarded command, unless it was refused meanwhile.
    fn forwarded_outcome(
        &mut self,
        connection: ConnectionId,
        number: u64,
        outcome: Outcome,
        answers: &mut Answers,
    ) {
        let Some(slot) = self.by_id.get(&Origin::Client(connection)).copied() else {
            return;
        };
        let Some(connection) = self.slots[slot].as_mut() else {
            return;
        };
        let first = connection.queue.front().map(|first| &first.what);
        let Some(What::Forwarded(forwarded)) = first else {
            return;
        };
        if number < forwarded.number && !mutants::is_on(Mutant::ForwardedMisattributed) {
            return;
        }
        if number > forwarded.number || !forwarded.fits(&outcome) {
            self.break_off(answers);
            return;
        }
        if let Some(pending) = connection.queue.pop_front() {
            self.owed.remove(&pending.what);
        }
        if !matches!(outcome, Outcome::Done(_)) {
            self.forwarding.counters.refused += 1;
            connection.refused_epoch = Some(connection.epoch);
        }
        let outcome = answers.passes_on(outcome);
        connection.give(slot, outcome, &mut self.ready);
        self.progress(slot, answers);
    }

    /// Messages to be sent, since the last call.
    pub(crate) fn take_forwards(&mut self) -> Vec<(ServerId, ForwardMessage)> {
        std::mem::take(&mut self.forwarding.messages)
    }

    /// Clients to be disconnected, since the last call.
    pub(crate) fn take_overlong(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.forwarding.overlong)
    }

    pub(crate) fn forward_counters(&self) -> ForwardCounters {
        self.forwarding.counters
    }
}

/// The leader's part.
impl Waiting {
    /// A message from a follower; `leads` is the term in which this server leads, and `takes` what
    /// it takes then.
    pub(crate) fn follower_says(
        &mut self,
        now: Timestamp,
        (from, message): (ServerId, ForwardMessage),
        (leads, takes): (Option<Term>, Takes),
        answers: &mut Answers,
    ) {
        let follower = self.forwarding.followers.entry(from).or_default();
        if message.stream > follower.stream {
            *follower = Follower {
                stream: message.stream,
                ..Follower::default()
            };
            self.forget(from);
        }
        if !self
            .forwarding
            .is_next(from, message.stream, message.number)
        {
            if self.forwarding.followers[&from].is_broken {
                self.forget(from);
            }
            return;
        }
        match message.body {
            ForwardBody::Commands(forwarded) => {
                let right_term =
                    leads == Some(forwarded.term) || mutants::is_on(Mutant::ForwardOfOtherTerm);
                // Whatever this server does for its own clients, it forwards for no other server.
                let forwards = takes.forwards && mutants::is_on(Mutant::ForwardedAgain);
                let takes = Takes {
                    writes: takes.writes && right_term,
                    reads: takes.reads && right_term,
                    forwards,
                };
                let origin = Origin::Follower(from, forwarded.connection);
                let (epoch, first) = (forwarded.epoch, forwarded.first);
                if !self.begins_at(origin, first) {
                    self.break_from(from);
                    return;
                }
                self.take(now, (origin, epoch), forwarded.commands, takes, answers);
            }
            ForwardBody::Gone { connection } => {
                self.disconnected(Origin::Follower(from, connection));
            }
            ForwardBody::StopWaiting { connection } => {
                self.stop_waiting(Origin::Follower(from, connection));
            }
            ForwardBody::Outcomes { .. } | ForwardBody::Overlong { .. } | ForwardBody::Broken => {
                self.break_from(from);
            }
        }
    }

    /// The connection is gone over which this follower has sent what it has sent, up to this stream.
    pub(crate) fn follower_gone(&mut self, from: ServerId, stream: Stream) {
        if let Some(follower) = self.forwarding.followers.get_mut(&from)
            && follower.stream <= stream
        {
            follower.is_broken = true;
            self.forget(from);
        }
    }

    /// Whether this is the number of a connection's next command; of its first, it may be any.
    fn begins_at(&mut self, origin: Origin, first: u64) -> bool {
        let is_new = !self.by_id.contains_key(&origin);
        let slot = self.slot(origin);
        self.slots[slot].as_mut().is_some_and(|connection| {
            if is_new {
                connection.answered = first;
            }
            let owed = connection.queue.len() + connection.outcomes.len();
            connection.answered + owed as u64 == first || mutants::is_on(Mutant::ForwardGapIgnored)
        })
    }

    fn break_from(&mut self, from: ServerId) {
        if let Some(follower) = self.forwarding.followers.get_mut(&from) {
            self.forwarding.counters.gaps += 1;
            follower.is_broken = true;
            let broken = follower.message(ForwardBody::Broken);
            self.forwarding.messages.push((from, broken));
        }
        self.forget(from);
    }

    /// Forgets all connections of a follower.
    fn forget(&mut self, from: ServerId) {
        if mutants::is_on(Mutant::ForwardsRemembered) {
            return;
        }
        let all = Origin::Follower(from, ConnectionId(0))
            ..=Origin::Follower(from, ConnectionId(u64::MAX));
        let theirs: Vec<Origin> = self.by_id.range(all).map(|(origin, _)| *origin).collect();
        for origin in theirs {
            self.disconnected(origin);
        }
    }

    /// Hands out what is to go back to a follower.
    pub(super) fn answer_follower(&mut self, slot: Slot, from: ServerId, id: ConnectionId) {
        if let Some(connection) = self.slots[slot].as_mut() {
            let outcomes = std::mem::take(&mut connection.outcomes);
            let first = connection.answered;
            connection.answered += outcomes.len() as u64;
            self.forwarding.answer(from, id, first, outcomes);
        }
    }
}
