//! What clients asked and were told. With the log as witness this is judged in the time of one
//! pass: an acknowledged write lies behind everything that was acknowledged before it was sent, a
//! read shows a state at or behind that, commands of a connection take effect in their order, and
//! what was refused for certain is not in the log.

use std::collections::BTreeMap;

use command::{Command, Outcome, Read, Reply, Take, TopicChange, TopicWrite, Write};
use protocol::client::{Answer, ErrorLine};

use super::witness::{Sent, mark};
use super::{Place, Witness};
use crate::coverage::Coverage;

/// The mark of an operation.
pub(crate) type OpId = u64;

/// One command of a client.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) connection: u64,
    pub(crate) what: Sent,
    pub(crate) noreply: bool,
    /// Everything up to here had been acknowledged when this was sent.
    floor: Place,
    /// When its first byte lay in the server's socket, and when its last one did.
    begun: Option<u64>,
    received: Option<u64>,
    /// Where the log has it, and what it came to.
    placed: Option<(Place, Reply)>,
    answered: Option<Answered>,
}

/// What a client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    Done,
    NotDone,
    Unknown,
    Error,
}

/// What is known of a connection's order.
#[derive(Debug, Default)]
struct Order {
    /// Commands sent and not accounted for, in order.
    open: Vec<OpId>,
    /// All its commands that took effect did so up to here.
    floor: Place,
    /// When the last visible refusal was written.
    refused_at: Option<u64>,
    /// The last of its commands that the log has.
    placed: Option<OpId>,
}

#[derive(Debug, Default)]
pub(crate) struct History {
    asked: Vec<Asked>,
    orders: BTreeMap<u64, Order>,
    /// Commands on topics in the log that have no mark: where they are, what each came to, and whether
    /// somebody was told of it.
    unmarked: BTreeMap<String, Vec<(Place, Reply, bool)>>,
    /// Everything up to here is acknowledged.
    acknowledged: Place,
}

impl History {
    /// Everything up to here was acknowledged before the world began.
    pub(crate) fn begin_at(&mut self, place: Place) {
        self.acknowledged = place;
    }

    /// The number of the next operation, which its bytes are to carry.
    pub(crate) fn next(&self) -> OpId {
        self.asked.len() as u64
    }

    /// A client sends this.
    pub(crate) fn asks(&mut self, connection: u64, what: Sent, noreply: bool) -> OpId {
        let id = self.next();
        self.asked.push(Asked {
            connection,
            what,
            noreply,
            floor: self.acknowledged,
            begun: None,
            received: None,
            placed: None,
            answered: None,
        });
        self.orders.entry(connection).or_default().open.push(id);
        id
    }

    /// What an operation is.
    pub(crate) fn what(&self, id: OpId) -> &Sent {
        &self.asked[id as usize].what
    }

    fn op(&mut self, id: OpId) -> &mut Asked {
        &mut self.asked[id as usize]
    }

    /// The server's socket has some of it, as of this event.
    pub(crate) fn begins(&mut self, id: OpId, event: u64) {
        self.op(id).begun = Some(event);
    }

    /// The server's socket has all of it, as of this event.
    pub(crate) fn received(&mut self, id: OpId, event: u64) {
        self.op(id).received = Some(event);
    }

    /// The committed log has a command.
    pub(crate) fn placed(&mut self, place: Place, write: &Write, reply: Reply) {
        let Some(id) = mark(write).filter(|id| *id < self.next()) else {
            if let Write::Topic(write) = write {
                let places = self.unmarked.entry(shown(write)).or_default();
                places.push((place, reply, false));
            }
            return;
        };
        let op = self.op(id);
        let sent = matches!(&op.what, Sent::Command(Command::Write(sent)) if sent == write);
        assert!(
            sent,
            "{place}: operation {id} was {:?}, the log has {write:?}",
            op.what
        );
        if let Some((first, _)) = &op.placed {
            panic!("operation {id} is in the log at {first} and again at {place}: {write:?}");
        }
        assert!(
            !matches!(op.answered, Some(Answered::NotDone | Answered::Error)),
            "operation {id} was refused for certain, and is in the log at {place}: {write:?}",
        );
        op.placed = Some((place, reply));
        let connection = op.connection;
        let order = self.orders.entry(connection).or_default();
        // Whatever its client was told, or was not.
        assert!(
            order.placed.is_none_or(|last| last < id),
            "operation {id} takes effect at {place}, and {:?}, which came behind it in its \
             connection, before it: {write:?}",
            order.placed,
        );
        order.placed = Some(id);
    }

    /// A client is told what became of an operation, by bytes that were written at event
    /// `written`.
    pub(crate) fn answered(
        &mut self,
        id: OpId,
        answer: &Answer,
        written: u64,
        witness: &Witness,
        coverage: &mut Coverage,
    ) {
        let connection = self.op(id).connection;
        let meta_line = self.meta_line(id, answer);
        let told = match answer {
            _ if meta_line.is_some() => Answered::Done,
            Answer::Outcome(Outcome::Done(_)) | Answer::Text(_) => Answered::Done,
            Answer::Outcome(Outcome::NotDone(_)) => Answered::NotDone,
            Answer::Outcome(Outcome::Unknown) => Answered::Unknown,
            Answer::Error(_) => Answered::Error,
        };
        self.op(id).answered = Some(told);
        let open = self.account_for(connection, id);
        if let Some(line) = meta_line {
            coverage.done += 1;
            coverage.metas += 1;
            self.no_gap(id, &open, written);
            self.meta_done(id, &line, witness);
            return;
        }
        match (told, answer) {
            (Answered::Done, Answer::Outcome(Outcome::Done(reply))) => {
                coverage.done += 1;
                self.no_gap(id, &open, written);
                self.done(id, reply, witness, coverage);
            }
            (Answered::Done | Answered::Error, _) => self.error(id),
            (Answered::NotDone, _) => {
                coverage.not_done += 1;
                self.not_done(id);
                self.refused(connection, written);
            }
            (Answered::Unknown, _) => {
                coverage.unknown += 1;
                self.refused(connection, written);
            }
        }
    }

    /// Takes an operation and those before it out of what is open in its connection; those before
    /// it, which had no reply.
    fn account_for(&mut self, connection: u64, id: OpId) -> Vec<OpId> {
        let order = self.orders.entry(connection).or_default();
        let end = order.open.iter().position(|open| *open == id);
        let end = end.unwrap_or_else(|| panic!("operation {id} is answered twice"));
        let mut open: Vec<OpId> = order.open.drain(..=end).collect();
        open.pop();
        open
    }

    /// Something is done: then so is everything before it in its connection that was not told
    /// otherwise, and it had not been received when a refusal was written (rule 54).
    fn no_gap(&mut self, id: OpId, before: &[OpId], written: u64) {
        let op = &self.asked[id as usize];
        let connection = op.connection;
        let is_data = !matches!(&op.what, Sent::Command(Command::Stats(_)) | Sent::Malformed);
        let order = &self.orders[&connection];
        if let (true, Some(refused_at), Some(received)) = (is_data, order.refused_at, op.received) {
            assert!(
                received > refused_at,
                "operation {id} is done (told at {written}), though it was received at {received} \
                 and a refusal of its connection was written at {refused_at}",
            );
        }
        for earlier in before {
            let op = &self.asked[*earlier as usize];
            assert!(op.noreply, "operation {id} is answered before {earlier}");
            let order = self.orders.entry(connection).or_default();
            // A refusal, or an unknown outcome, that was still to be written speaks of it too: it
            // may be in the log at any later place, or never.
            if op
                .begun
                .is_some_and(|begun| Some(begun) <= order.refused_at)
            {
                continue;
            }
            let marked =
                matches!(&op.what, Sent::Command(Command::Write(write)) if mark(write).is_some());
            if let Some((place, _)) = &op.placed {
                assert!(
                    *place > order.floor,
                    "{earlier} takes effect at {place}, and what came before it in its connection \
                     at {}",
                    order.floor,
                );
                order.floor = *place;
            } else {
                assert!(
                    !marked,
                    "operation {id} is done, and {earlier}, which came before it without a reply, \
                     is not in the log",
                );
            }
        }
    }

    /// What a meta command is answered when it is carried out, as a line.
    fn meta_line(&self, id: OpId, answer: &Answer) -> Option<String> {
        let is_meta = match &self.asked[id as usize].what {
            Sent::Command(Command::Write(write)) => write.meta_key().is_some(),
            Sent::Command(Command::Read(read)) => matches!(read, Read::MetaGet(_)),
            _ => false,
        };
        match answer {
            Answer::Text(line) if is_meta => Some(line.clone()),
            Answer::Error(ErrorLine::Server(text)) if is_meta => {
                Some(format!("SERVER_ERROR {text}"))
            }
            _ => None,
        }
    }

    fn meta_done(&mut self, id: OpId, line: &str, witness: &Witness) {
        let op = &self.asked[id as usize];
        let place = match &op.what {
            Sent::Command(Command::Read(Read::MetaGet(get))) => {
                let (from, to) = self.may_show(op, witness);
                let place = witness.first_meta_place(&get.key, line, from, to);
                place.unwrap_or_else(|| {
                    panic!(
                        "operation {id}, a read of {:?}, is answered {line}: no state from {from} \
                         to {to} is like that",
                        get.key
                    )
                })
            }
            Sent::Command(Command::Write(write)) if mark(write).is_some() => {
                let (place, expected) = self.took_effect(id, op);
                let expected = meta_line(id, write, expected);
                assert!(
                    line == expected,
                    "operation {id} at {place}, {write:?}, is answered {line}, not {expected}",
                );
                place
            }
            _ => return,
        };
        self.acknowledges(id, place);
    }

    /// The states that a read that is answered now may have seen.
    fn may_show(&self, op: &Asked, witness: &Witness) -> (Place, Place) {
        let order = &self.orders[&op.connection];
        let later = order.open.iter();
        let later = later.filter_map(|id| self.asked[*id as usize].placed.as_ref());
        let to = later.map(|(place, _)| place.before()).min();
        let to = to.unwrap_or(witness.place()).min(witness.place());
        (op.floor.max(order.floor), to)
    }

    /// Where an acknowledged write is in the log, and what it came to.
    fn took_effect<'a>(&self, id: OpId, op: &'a Asked) -> (Place, &'a Reply) {
        let Some((place, expected)) = &op.placed else {
            panic!(
                "operation {id} is acknowledged, and not in the log: {:?}",
                op.what
            );
        };
        let floor = op.floor.max(self.orders[&op.connection].floor);
        assert!(
            *place > floor,
            "operation {id} took effect at {place}, and everything up to {floor} was acknowledged \
             before it was sent: {:?}",
            op.what,
        );
        (*place, expected)
    }

    fn acknowledges(&mut self, id: OpId, place: Place) {
        let connection = self.asked[id as usize].connection;
        self.acknowledged = self.acknowledged.max(place);
        let floor = &mut self.orders.entry(connection).or_default().floor;
        *floor = (*floor).max(place);
    }

    fn done(&mut self, id: OpId, reply: &Reply, witness: &Witness, coverage: &mut Coverage) {
        let op = &self.asked[id as usize];
        let place = match &op.what {
            Sent::Command(Command::Read(Read::Get { keys })) => {
                let Reply::Hits(hits) = reply else {
                    panic!("operation {id} is a read, and is answered {reply:?}");
                };
                coverage.hits += hits.len() as u64;
                coverage.misses += (keys.len() - hits.len()) as u64;
                let (from, to) = self.may_show(op, witness);
                // The unique of a plain `get` is not shown.
                let with_unique = hits.iter().any(|hit| hit.unique != 0);
                let place = witness.first_place(keys, hits, with_unique, from, to);
                place.unwrap_or_else(|| {
                    panic!(
                        "operation {id}, a read of {keys:?}, found {hits:?}: no state from {from} \
                         to {to} is like that"
                    )
                })
            }
            Sent::Command(Command::Write(Write::Topic(write)))
                if !matches!(write.change, TopicChange::Push { .. }) =>
            {
                let shown = shown(write);
                coverage.topics += 1;
                coverage.taken += u64::from(matches!(reply, Reply::Message(_)));
                self.claim(id, &shown, reply)
            }
            Sent::Command(Command::Write(write)) if mark(write).is_some() => {
                coverage.topics += u64::from(matches!(write, Write::Topic(_)));
                let (place, expected) = self.took_effect(id, op);
                assert!(
                    same(reply, expected),
                    "operation {id} at {place}, {write:?}, came to {expected:?}, and is answered \
                     {reply:?}",
                );
                place
            }
            _ => return,
        };
        self.acknowledges(id, place);
    }

    /// The first place in the log, behind all that was acknowledged before this operation was sent,
    /// where a command like it came to this: it took effect there or later. There must be as many of
    /// these as operations that were told of one: no message is taken by two.
    fn claim(&mut self, id: OpId, shown: &str, reply: &Reply) -> Place {
        let op = &self.asked[id as usize];
        let floor = op.floor.max(self.orders[&op.connection].floor);
        let places = self.unmarked.entry(shown.to_owned()).or_default();
        let fits = |(place, expected, _): &&mut (Place, Reply, bool)| {
            *place > floor && same(reply, expected)
        };
        let mut fitting = places.iter_mut().filter(fits).peekable();
        let first = fitting.peek().map(|(place, ..)| *place);
        let untold = fitting.find(|(.., is_told)| !*is_told);
        let (Some(first), Some((.., is_told))) = (first, untold) else {
            panic!(
                "operation {id}, {shown}, is answered {reply:?}, and the log has nothing behind \
                 {floor} that came to this and nobody else was told of"
            );
        };
        *is_told = true;
        first
    }

    fn refused(&mut self, connection: u64, written: u64) {
        let order = self.orders.entry(connection).or_default();
        order.refused_at = Some(written);
    }

    fn not_done(&self, id: OpId) {
        let op = &self.asked[id as usize];
        if let Some((place, _)) = &op.placed {
            panic!(
                "operation {id} is refused for certain, and is in the log at {place}: {:?}",
                op.what
            );
        }
    }

    fn error(&self, id: OpId) {
        let op = &self.asked[id as usize];
        assert!(
            matches!(op.what, Sent::Malformed),
            "operation {id} is answered with an error line: {:?}",
            op.what,
        );
    }
}

/// What a meta command with the flags `c O k` is answered.
fn meta_line(id: OpId, write: &Write, reply: &Reply) -> String {
    let key = write.meta_key().map(|key| key.as_bytes().escape_ascii());
    let key = key.expect("a meta command has a key");
    match reply {
        Reply::MetaHit(hit) => format!("HD c{} O{id} k{key}", hit.data.about().unique),
        Reply::Deleted => format!("HD O{id} k{key}"),
        Reply::NotStored => format!("NS O{id} k{key}"),
        Reply::Exists => format!("EX O{id} k{key}"),
        Reply::NotFound => format!("NF O{id} k{key}"),
        Reply::OutOfMemory => "SERVER_ERROR out of memory storing object".to_owned(),
        other => panic!("operation {id} came to {other:?}"),
    }
}

/// A command on a topic as the log has it, which says nothing of waiting.
fn shown(write: &TopicWrite) -> String {
    let mut write = write.clone();
    if let TopicChange::Take(Take { wait, .. }) = &mut write.change {
        *wait = 0;
    }
    format!("{write:?}")
}

/// Whether a reply as its client reads it is this one: the unique is shown only where it was asked
/// for.
fn same(told: &Reply, expected: &Reply) -> bool {
    match (told, expected) {
        (Reply::Hits(told), Reply::Hits(expected)) => {
            told.len() == expected.len()
                && told.iter().zip(expected).all(|(told, expected)| {
                    told.data == expected.data
                        && told.flags == expected.flags
                        && (told.unique == 0 || told.unique == expected.unique)
                })
        }
        // How often it was delivered is shown where it was reserved.
        (Reply::Message(told), Reply::Message(expected)) => {
            (told.id, &told.data) == (expected.id, &expected.data)
                && (told.deliveries == 0 || told.deliveries == expected.deliveries)
        }
        _ => told == expected,
    }
}
