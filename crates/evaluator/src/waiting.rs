//! The replies owed: of each connection its commands in order, with what each waits for. Outcomes
//! leave a connection's queue at its front only, so they are in order whatever happens (rule 54).
//!
//! A connection is a client's, or one of a follower's clients' (`forwarding.rs`).

mod consumers;
mod forwarding;
mod staged;
mod taking;
mod what;

pub(crate) use what::What;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use command::{Outcome, Reply, Write};
use mutants::Mutant;
use raft::{Entry, Index, Position, ReadId, Restart, ServerId, Timestamp};

use crate::answers::Answers;
use crate::forward::Stream;
use crate::io::{Batch, ConnectionId, Outcomes};
use crate::owed::Owed;
use consumers::Consumers;
use forwarding::Forwarding;
use staged::{Staged, cancel};

/// A command is answered, one way or another, this long after it was taken at the latest
/// (rule 53: within a second, and the rest is for the way to the socket).
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_millis(900);

/// When so many keys were looked up in a turn, further reads are answered in the next one: a client
/// may ask for hundreds of thousands in one line, and peers are not kept waiting for all of them.
const KEYS_EACH_TURN: usize = 16 << 10;

/// Reads of so many connections, and so many reads in all, are looked up together before they are
/// answered one after the other.
const SLOTS_AHEAD: usize = 16;
const READS_AHEAD: usize = 256;

/// A queue that is empty and has room for more commands than this gives its memory back.
const QUEUE_KEPT_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct Waiting {
    slots: Vec<Option<Connection>>,
    free: Vec<Slot>,
    by_id: BTreeMap<Origin, Slot>,
    /// How many of these are of followers' clients.
    followers_connections: usize,
    /// What is in all queues.
    owed: Owed,
    /// The number of the next command, from 1. All commands taken are numbered as they come, so that one
    /// is never mistaken for another, whatever became of its connection.
    next_number: u64,
    /// Writes taken and not proposed, numbers ascending.
    staged: Vec<Staged>,
    staged_bytes: usize,
    /// Whether one of these may mark an item as stale, one of those taken last, and the last entry
    /// that was proposed with such a one.
    staged_marks_stale: bool,
    taken_marks_stale: bool,
    marks_stale_until: Index,
    /// All writes with a lower number were proposed, or are not owed an answer any more.
    proposed_below: u64,
    /// Entries of this leadership that are not applied, indexes ascending.
    proposals: VecDeque<Proposal>,
    /// Connections whose writes could not be proposed in this turn.
    rejected: Vec<Slot>,
    /// Reads taken and not asked for yet.
    unasked: Round,
    /// Reads asked for, ids ascending.
    asked: VecDeque<Round>,
    /// Confirmed and not applied that far, ids ascending.
    confirmed: VecDeque<(ReadId, Index)>,
    /// Connections with reads that may be answered, and were left for the next turn.
    left: Vec<Slot>,
    /// How many keys are still looked up in this turn.
    keys_left: usize,
    /// Reads of this round and before may be answered when their turn comes.
    readable: ReadId,
    deadlines: VecDeque<Deadline>,
    /// Connections with outcomes to hand out.
    ready: Vec<Slot>,
    forwarding: Forwarding,
    consumers: Consumers,
}

/// Whose a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    Client(ConnectionId),
    /// A client of this server, which numbers its connections itself.
    Follower(ServerId, ConnectionId),
}

/// A place in `Waiting::slots`. It is used again when its connection is gone.
type Slot = usize;

#[derive(Debug)]
struct Connection {
    origin: Origin,
    /// Numbers ascend.
    queue: VecDeque<Pending>,
    /// Of its last batch.
    epoch: u64,
    /// Commands up to this epoch are refused.
    refused_epoch: Option<u64>,
    /// The last round that one of its reads has joined.
    round: ReadId,
    outcomes: Vec<Outcome>,
    /// The number of the next of its commands that is forwarded, and the last stream that has one.
    forwarded: u64,
    stream: Option<Stream>,
    /// Of a follower's client, the number of the command to which the first of `outcomes` belongs.
    answered: u64,
}

/// A command whose outcome is owed.
#[derive(Debug)]
struct Pending {
    number: u64,
    what: What,
}

/// Who is owed the outcome of a write: whoever has that number at the slot, if anyone still does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    slot: Slot,
    number: u64,
}

/// An entry, and the owner of each of its commands.
#[derive(Debug)]
struct Proposal {
    position: Position,
    owners: Vec<Owner>,
}

/// Reads that came in one turn.
#[derive(Debug)]
struct Round {
    id: ReadId,
    slots: Vec<Slot>,
}

/// The commands of a batch, up to this number, are answered by then.
#[derive(Debug)]
struct Deadline {
    due: Timestamp,
    slot: Slot,
    number: u64,
}

/// Which commands are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Takes {
    pub(crate) writes: bool,
    pub(crate) reads: bool,
    /// This server forwards, and takes none itself.
    pub(crate) forwards: bool,
}

impl Waiting {
    /// For a server that has been started so often.
    pub(crate) fn new(restart: Restart) -> Waiting {
        Waiting {
            slots: Vec::new(),
            free: Vec::new(),
            by_id: BTreeMap::new(),
            followers_connections: 0,
            owed: Owed::default(),
            next_number: 1,
            staged: Vec::new(),
            staged_bytes: 0,
            staged_marks_stale: false,
            taken_marks_stale: false,
            marks_stale_until: Index(0),
            proposed_below: 0,
            proposals: VecDeque::new(),
            rejected: Vec::new(),
            unasked: Round {
                id: ReadId(1),
                slots: Vec::new(),
            },
            left: Vec::new(),
            keys_left: 0,
            asked: VecDeque::new(),
            confirmed: VecDeque::new(),
            readable: ReadId(0),
            deadlines: VecDeque::new(),
            ready: Vec::new(),
            forwarding: Forwarding::new(restart),
            consumers: Consumers::default(),
        }
    }

    /// Takes a client's batch.
    pub(crate) fn accept(
        &mut self,
        now: Timestamp,
        batch: Batch,
        takes: Takes,
        answers: &mut Answers,
    ) {
        let from = (Origin::Client(batch.connection), batch.epoch);
        let forwards = takes.forwards && !batch.is_local;
        let takes = Takes { forwards, ..takes };
        self.take(now, from, batch.commands, takes, answers);
    }

    /// Forgets a connection. What it has proposed goes its way.
    pub(crate) fn disconnected(&mut self, origin: Origin) {
        let Some(slot) = self.by_id.remove(&origin) else {
            return;
        };
        if let Some(connection) = self.slots[slot].take() {
            for pending in &connection.queue {
                self.owed.remove(&pending.what);
                if let What::Take(consumer) = &pending.what {
                    self.consumers.gone(consumer, slot, pending.number);
                    if !mutants::is_on(Mutant::GoneConsumerTakes) {
                        self.staged_bytes -= cancel(&mut self.staged, pending.number);
                    }
                }
            }
            if let (Origin::Client(id), Some(stream)) = (origin, connection.stream) {
                self.forwarding.gone(id, stream);
            }
        }
        self.followers_connections -= usize::from(matches!(origin, Origin::Follower(..)));
        self.free.push(slot);
    }

    /// The place of a connection, its first if it is not known.
    fn slot(&mut self, origin: Origin) -> Slot {
        if let Some(slot) = self.by_id.get(&origin) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.by_id.insert(origin, slot);
        self.followers_connections += usize::from(matches!(origin, Origin::Follower(..)));
        self.slots[slot] = Some(Connection {
            origin,
            queue: VecDeque::new(),
            epoch: 0,
            refused_epoch: None,
            round: ReadId(0),
            outcomes: Vec::new(),
            forwarded: 0,
            stream: None,
            answered: 0,
        });
        slot
    }

    pub(crate) fn owed(&self) -> Owed {
        self.owed
    }

    /// Clients of this server.
    pub(crate) fn connections(&self) -> usize {
        self.by_id.len() - self.followers_connections
    }

    /// Whether reads that may be answered wait for the next turn.
    pub(crate) fn has_reads_left(&self) -> bool {
        !self.left.is_empty()
    }

    pub(crate) fn has_reads_under_way(&self) -> bool {
        !self.asked.is_empty()
    }

    pub(crate) fn staged(&self) -> usize {
        self.staged.len()
    }

    pub(crate) fn staged_bytes(&self) -> usize {
        self.staged_bytes
    }

    pub(crate) fn has_proposals(&self) -> bool {
        !self.proposals.is_empty()
    }

    /// The writes taken since the last call, each with its owner; those refused meanwhile are not
    /// among them, so that they are certainly not done.
    pub(crate) fn take_staged(&mut self) -> impl Iterator<Item = (Owner, Write)> + use<> {
        self.staged_bytes = 0;
        self.taken_marks_stale = std::mem::take(&mut self.staged_marks_stale);
        let staged = std::mem::take(&mut self.staged).into_iter();
        staged.filter_map(|staged| Some((staged.owner, staged.write?)))
    }

    /// An entry was proposed; each of its commands belongs to the owner at its place.
    pub(crate) fn proposed(&mut self, position: Position, owners: Vec<Owner>) {
        if let Some(last) = owners.last() {
            self.proposed_below = last.number + 1;
        }
        if self.taken_marks_stale {
            self.marks_stale_until = position.index;
        }
        self.proposals.push_back(Proposal { position, owners });
    }

    /// Writes in proposed entries that are not committed, as far as this index is.
    pub(crate) fn under_way(&self, commit_index: Index) -> usize {
        let entries = self.proposals.iter().rev();
        entries
            .take_while(|proposal| proposal.position.index > commit_index)
            .map(|proposal| proposal.owners.len())
            .sum()
    }

    /// An entry was not taken: its owners' connections are refused at the end of the turn.
    pub(crate) fn rejected(&mut self, owners: &[Owner]) {
        let owed = owners
            .iter()
            .filter(|owner| self.owes(owner.slot, owner.number));
        let slots: Vec<Slot> = owed.map(|owner| owner.slot).collect();
        self.rejected.extend(slots);
    }

    /// Refuses what was rejected in this turn.
    pub(crate) fn refuse_rejected(&mut self, answers: &mut Answers) {
        for slot in std::mem::take(&mut self.rejected) {
            self.refuse(slot, u64::MAX, answers);
        }
    }

    /// Refuses every connection that has a write which is not proposed.
    pub(crate) fn refuse_staged(&mut self, answers: &mut Answers) {
        let owners: Vec<Owner> = self.take_staged().map(|(owner, _)| owner).collect();
        self.rejected(&owners);
        self.refuse_rejected(answers);
    }

    /// The round of the reads taken since the last call, if there are any.
    pub(crate) fn ask(&mut self) -> Option<ReadId> {
        if self.unasked.slots.is_empty() {
            return None;
        }
        let id = self.unasked.id;
        let next = Round {
            id: ReadId(id.0 + 1),
            slots: Vec::new(),
        };
        let round = std::mem::replace(&mut self.unasked, next);
        self.asked.push_back(round);
        Some(id)
    }

    /// Leadership was confirmed for this round, and so for those before it: their reads may be
    /// answered from a state at or after `index` (rule 35).
    pub(crate) fn confirmed(&mut self, id: ReadId, index: Index) {
        self.confirmed.push_back((id, index));
    }

    /// Answers the reads that are confirmed and whose index is applied.
    pub(crate) fn answer_reads(&mut self, answers: &mut Answers) {
        self.keys_left = KEYS_EACH_TURN;
        for slot in std::mem::take(&mut self.left) {
            self.progress(slot, answers);
        }
        let applied = answers.last_applied;
        while let Some((id, _)) = self.confirmed.pop_front_if(|(_, index)| {
            *index <= applied || mutants::is_on(Mutant::ReadBeforeApplied)
        }) {
            self.readable = self.readable.max(id);
        }
        let readable = self.readable;
        while let Some(round) = self.asked.pop_front_if(|round| round.id <= readable) {
            for slots in round.slots.chunks(SLOTS_AHEAD) {
                if self.keys_left > 0 {
                    self.warm(slots, answers);
                }
                for slot in slots {
                    self.progress(*slot, answers);
                }
            }
        }
    }

    /// Has the processor read what the reads of these connections are about.
    fn warm(&self, slots: &[Slot], answers: &Answers) {
        let connections = slots.iter().filter_map(|slot| self.slots[*slot].as_ref());
        let reads = connections.flat_map(|connection| {
            connection.queue.iter().map_while(|it| match &it.what {
                What::Read(read, round) if *round <= self.readable => Some(read),
                _ => None,
            })
        });
        answers.store.warm_reads(reads.take(READS_AHEAD));
    }

    /// The owners of this entry's commands, if this server has proposed it in this leadership. If
    /// it has proposed another one in its place, that and all after it are certainly not done
    /// (rule 52).
    ///
    /// # Panics
    /// If an entry was passed over.
    pub(crate) fn take_owners(&mut self, entry: &Entry, answers: &mut Answers) -> Vec<Owner> {
        let Some(proposal) = self.proposals.front() else {
            return Vec::new();
        };
        let position = proposal.position;
        assert!(
            entry.index <= position.index,
            "entry {} comes after {}, which was proposed",
            entry.index,
            position.index,
        );
        if entry.index < position.index {
            return Vec::new();
        }
        if entry.term != position.term && !mutants::is_on(Mutant::ReplacedIsAnswered) {
            self.superseded(answers);
            return Vec::new();
        }
        let proposal = self.proposals.pop_front();
        proposal.map_or(Vec::new(), |proposal| proposal.owners)
    }

    fn superseded(&mut self, answers: &mut Answers) {
        let proposals = std::mem::take(&mut self.proposals);
        let owners: Vec<Owner> = proposals.into_iter().flat_map(|it| it.owners).collect();
        let from = owners.first().map_or(u64::MAX, |owner| owner.number);
        for owner in owners {
            if self.owes(owner.slot, owner.number) {
                self.refuse(owner.slot, from, answers);
            }
        }
    }

    /// Answers what is owed before this write, from the state as it is just before it: the entry
    /// was proposed after those reads came, so its commit has confirmed leadership (rule 35).
    /// True if the outcome of the write is owed; `applied` is to follow then.
    pub(crate) fn before_write(&mut self, owner: Owner, answers: &mut Answers) -> bool {
        let Some(connection) = self.slots[owner.slot].as_mut() else {
            return false;
        };
        let is_write = |pending: &&Pending| pending.what.is_in_log();
        let first = connection.queue.iter().find(is_write);
        if first.is_none_or(|first| first.number != owner.number) {
            return false;
        }
        while let Some(pending) = connection
            .queue
            .pop_front_if(|pending| pending.number < owner.number)
        {
            self.owed.remove(&pending.what);
            let outcome = pending.what.answer(answers);
            connection.give(owner.slot, outcome, &mut self.ready);
        }
        true
    }

    /// The outcome of a write that `before_write` has made the first of its connection.
    pub(crate) fn applied(&mut self, owner: Owner, outcome: Outcome, answers: &mut Answers) {
        let Some(connection) = self.slots[owner.slot].as_mut() else {
            return;
        };
        let Some(pending) = connection.queue.pop_front() else {
            return;
        };
        self.owed.remove(&pending.what);
        if let What::Take(consumer) = pending.what {
            let found_nothing = outcome == Outcome::Done(Reply::Empty);
            if self.consumer_applied(owner.slot, consumer, found_nothing, answers.now) {
                return;
            }
        }
        if let Some(connection) = self.slots[owner.slot].as_mut() {
            connection.give(owner.slot, outcome, &mut self.ready);
        }
        self.progress(owner.slot, answers);
    }

    /// Answers what can be at the front of a connection's queue.
    fn progress(&mut self, slot: Slot, answers: &mut Answers) {
        let readable = self.readable;
        let Some(connection) = self.slots[slot].as_mut() else {
            return;
        };
        while let Some(pending) = connection
            .queue
            .pop_front_if(|pending| pending.what.is_answerable(readable))
        {
            let keys = pending.what.keys();
            if keys > 0 && self.keys_left == 0 {
                connection.queue.push_front(pending);
                self.left.push(slot);
                break;
            }
            self.keys_left = self.keys_left.saturating_sub(keys);
            self.owed.remove(&pending.what);
            let outcome = pending.what.answer(answers);
            connection.give(slot, outcome, &mut self.ready);
        }
        connection.shrink();
    }

    /// Refuses all that a connection is owed, and with it what follows up to the same epoch: a
    /// command that is in the log may still be applied, unless its number is `superseded_from` or
    /// higher; any other certainly will not.
    fn refuse(&mut self, slot: Slot, superseded_from: u64, answers: &mut Answers) {
        let Some(connection) = self.slots[slot].as_mut() else {
            return;
        };
        let mut in_log = self.proposed_below.min(superseded_from);
        if mutants::is_on(Mutant::ProposedIsRefused) {
            in_log = 0;
        }
        while let Some(pending) = connection.queue.pop_front() {
            self.owed.remove(&pending.what);
            let is_read = matches!(pending.what, What::Read(..));
            if is_read && mutants::is_on(Mutant::ReadForgotten) {
                continue;
            }
            let is_in_log = pending.what.is_in_log() && pending.number < in_log;
            let outcome = match &pending.what {
                What::Stats(stats) => Outcome::Done(answers.stats(*stats)),
                What::Forwarded(forwarded)
                    if forwarded.is_write && !mutants::is_on(Mutant::ForwardedIsRefused) =>
                {
                    answers.unknown()
                }
                What::Write | What::Take(_) if is_in_log => answers.unknown(),
                What::Write | What::Take(_) => {
                    self.staged_bytes -= cancel(&mut self.staged, pending.number);
                    answers.not_done()
                }
                What::Read(..) | What::Forwarded(_) | What::Refused => answers.not_done(),
            };
            if let What::Take(consumer) = &pending.what {
                self.consumers.gone(consumer, slot, pending.number);
            }
            if !matches!(outcome, Outcome::Done(_)) {
                connection.refused_epoch = Some(connection.epoch);
            }
            connection.give(slot, outcome, &mut self.ready);
        }
        connection.shrink();
    }

    /// Leadership, or the majority, is lost: refuses all that is owed, and forgets what was
    /// proposed and asked for.
    pub(crate) fn refuse_all(&mut self, answers: &mut Answers) {
        for slot in 0..self.slots.len() {
            self.refuse(slot, u64::MAX, answers);
        }
        self.staged.clear();
        self.staged_bytes = 0;
        self.staged_marks_stale = false;
        self.marks_stale_until = Index(0);
        self.rejected.clear();
        self.proposals.clear();
        self.unasked.slots.clear();
        self.asked.clear();
        self.left.clear();
        self.confirmed.clear();
        self.forget_consumers();
        assert_eq!(self.owed, Owed::default(), "this is still owed");
    }

    /// Refuses the connections that have waited too long (rule 53).
    pub(crate) fn refuse_overdue(&mut self, now: Timestamp, answers: &mut Answers) {
        self.refuse_late(now, answers);
        while let Some(deadline) = self.deadlines.front() {
            let (slot, due) = (deadline.slot, deadline.due);
            let owed = self.owes(slot, deadline.number);
            if owed && now < due {
                return;
            }
            self.deadlines.pop_front();
            if owed {
                self.refuse(slot, u64::MAX, answers);
            }
        }
    }

    /// When `refuse_overdue` will next refuse something, if nothing changes until then.
    pub(crate) fn next_deadline(&self) -> Timestamp {
        let first = self.deadlines.front();
        let first = first.map_or(Timestamp::NEVER, |deadline| deadline.due);
        first.min(self.consumers.next_deadline())
    }

    /// Whether the command with this number, or one before it, is still owed to who has the slot.
    fn owes(&self, slot: Slot, number: u64) -> bool {
        let connection = self.slots[slot].as_ref();
        let first = connection.and_then(|connection| connection.queue.front());
        first.is_some_and(|first| first.number <= number)
    }

    /// The outcomes since the last call; those of followers' clients are among the messages.
    pub(crate) fn take_outcomes(&mut self) -> Vec<Outcomes> {
        let mut all = Vec::with_capacity(self.ready.len());
        for slot in std::mem::take(&mut self.ready) {
            let Some(connection) = self.slots[slot].as_mut() else {
                continue;
            };
            if connection.outcomes.is_empty() {
                continue;
            }
            match connection.origin {
                Origin::Client(id) => all.push(Outcomes {
                    connection: id,
                    outcomes: std::mem::take(&mut connection.outcomes),
                }),
                Origin::Follower(from, id) => self.answer_follower(slot, from, id),
            }
        }
        all
    }
}

impl Connection {
    fn give(&mut self, slot: Slot, outcome: Outcome, ready: &mut Vec<Slot>) {
        if self.outcomes.is_empty() {
            ready.push(slot);
        }
        self.outcomes.push(outcome);
    }

    fn shrink(&mut self) {
        if self.queue.is_empty() && self.queue.capacity() > QUEUE_KEPT_MAX {
            self.queue = VecDeque::new();
        }
    }
}
