//! A turn of an evaluator: its channels are drained, it steps, and what that comes to is handed
//! out. It never waits on a send. One thread at a time takes a turn (`turns.rs` says which).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use command::TopicCounts;
use crossbeam_channel::Receiver;
use evaluator::{ConnectionId, Evaluator, FrozenState, Input, Now, Outcomes, Output};
use raft::{Fetch, Fetched, Index, Seating, ServerId, Timestamp, Write, WriteId};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};
use wire::Identity;

use crate::bell::{Bell, Sender};
use crate::client::{Delivery, FromClient, Recipient};
use crate::clock::Clock;
use crate::peer::{ForwardQueue, FromPeer, Queue};
use crate::published::{self, Published, Publisher};
use crate::room::Reserved;
use crate::snapshot_thread::Work;
use crate::snapshots::{FromSnapshots, Useless};

/// The most messages of peers in one turn. More than all peers have under way.
const PEER_MESSAGES_MAX: usize = 4096;

/// The most batches of clients in one turn, so that peers are not kept waiting.
const BATCHES_MAX: usize = 1024;

/// How long clients are not listened to when what they say would wait anyway.
const CLIENTS_LEFT: Duration = Duration::from_micros(200);

/// A turn that keeps a processor busy for longer is told of, to those who look for such things.
const LONG_TURN: Duration = Duration::from_millis(1);

/// What the server asks of the thread.
#[derive(Debug)]
pub(crate) enum Control {
    /// Hand leadership over; `Published::may_stop` says when that is done.
    Transfer,
    /// Give the state as it is, once it has taken in this entry; `None` if there is none to be had.
    Freeze(Index, oneshot::Sender<Option<FrozenState>>),
    /// Give the topics as they are.
    Topics(oneshot::Sender<Vec<TopicCounts>>),
    /// End.
    Stop,
}

/// Where inputs come from and outputs go.
#[derive(Debug)]
pub(crate) struct Channels {
    /// Of all that this thread receives from.
    pub(crate) bell: Bell,
    pub(crate) control: Receiver<Control>,
    /// Never full: one place at most for each write under way, and the log writer reports only the
    /// last of those that it synced together.
    pub(crate) persisted: Receiver<WriteId>,
    /// At most one for each peer, and one for the store.
    pub(crate) fetched: Receiver<Fetched>,
    /// What became of snapshots: a few for each that is taken or transferred.
    pub(crate) snapshots: Receiver<FromSnapshots>,
    pub(crate) peers: Receiver<Reserved<FromPeer>>,
    /// What leaders say of forwarded commands.
    pub(crate) forwards: Receiver<Reserved<FromPeer>>,
    pub(crate) clients: Receiver<Reserved<FromClient>>,
    /// Bounded by what the core has unpersisted: clients are left alone above a limit, and a
    /// leader sends no more than its window.
    pub(crate) writes: Sender<Write>,
    /// What of the log is to be given up.
    pub(crate) useless: Sender<Useless>,
    pub(crate) fetches: crossbeam_channel::Sender<Fetch>,
    /// One state at a time, and what was installed or came to nothing.
    pub(crate) work: crossbeam_channel::Sender<Work>,
    /// Followers that need a snapshot, each once until the end of its transfer.
    pub(crate) installs: UnboundedSender<ServerId>,
    pub(crate) queues: BTreeMap<ServerId, Arc<Queue>>,
    /// What is forwarded to peers, and what goes back to them.
    pub(crate) leaders: BTreeMap<ServerId, Arc<ForwardQueue>>,
    pub(crate) followers: BTreeMap<ServerId, Arc<ForwardQueue>>,
    pub(crate) publisher: Publisher,
}

/// The thread's state.
pub(crate) struct EvaluatorThread {
    evaluator: Evaluator,
    channels: Channels,
    clock: Clock,
    /// This server as it was at start; seating and members are those of the moment.
    identity: Arc<Identity>,
    /// Those that have sent a batch.
    connections: HashMap<ConnectionId, Recipient>,
    /// What is to be delivered once the turn is over.
    deliveries: Vec<Delivery>,
    /// Those that wait for a state, and the entry that it is to have taken in: one at most for each
    /// connection and backup.
    freezes: Vec<(Index, oneshot::Sender<Option<FrozenState>>)>,
    pauses: Pauses,
    last: Option<Arc<Published>>,
    /// There is something new that is not worth publishing at once.
    unpublished: bool,
    stops: bool,
}

/// Notices when this process was not run for a while (rule 51).
#[derive(Debug)]
struct Pauses {
    /// A gap as long as this is a pause.
    pause: Duration,
    /// For so long after a pause, only peers and the disk are listened to: what the peers have
    /// sent meanwhile has to come in before any timeout is judged.
    grace: Duration,
    /// When the next turn is meant to begin at the latest.
    expected: Timestamp,
    /// The end of the grace.
    until: Timestamp,
}

impl EvaluatorThread {
    /// A thread's state, for `run`. `election_timeout` is T, `heartbeat` the interval.
    pub(crate) fn new(
        evaluator: Evaluator,
        channels: Channels,
        clock: Clock,
        identity: Identity,
        election_timeout: Duration,
        heartbeat: Duration,
    ) -> EvaluatorThread {
        let mut thread = EvaluatorThread {
            evaluator,
            channels,
            clock,
            identity: Arc::new(identity),
            connections: HashMap::new(),
            deliveries: Vec::new(),
            freezes: Vec::new(),
            pauses: Pauses {
                pause: election_timeout,
                grace: heartbeat,
                expected: clock.monotonic(),
                until: Timestamp(0),
            },
            last: None,
            unpublished: false,
            stops: false,
        };
        thread.publish(clock.monotonic());
        thread
    }

    /// Of all that a turn receives from.
    pub(crate) fn bell(&self) -> &Bell {
        &self.channels.bell
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Told to end.
    pub(crate) fn stops(&self) -> bool {
        self.stops
    }

    /// Whether a turn, taken now, is short enough for a thread that others wait for: the state has
    /// little to do for clients, and none of them waits with more.
    pub(crate) fn is_light(&self) -> bool {
        self.channels.clients.is_empty() && self.evaluator.is_light()
    }

    /// What the last turns had for clients, for `client::deliver`.
    pub(crate) fn take_deliveries(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.deliveries)
    }

    /// Takes a turn; when the next one is due if nothing comes until then.
    pub(crate) fn turn(&mut self) -> Timestamp {
        let watch = tracing::enabled!(tracing::Level::DEBUG).then(Clock::of_thread);
        let due = self.take_turn();
        if let Some(begun) = watch {
            let took = Clock::of_thread().saturating_sub(begun);
            if took > LONG_TURN {
                debug!("a turn kept a processor busy for {} us", took.as_micros());
            }
        }
        due
    }

    fn take_turn(&mut self) -> Timestamp {
        let now = self.clock.now();
        if let Some(gap) = self.pauses.begin(now.monotonic) {
            warn!("this process was not run for {} ms", gap.as_millis());
        }
        self.take_inputs(now);
        let output = self.evaluator.take_output(now);
        self.hand_out(output);
        self.give_states();
        self.publish(now.monotonic);
        let due = self.next_turn(now.monotonic).max(now.monotonic);
        self.pauses.expected = due;
        due
    }

    /// Steps through what waits: the disk, then the peers, then the clients, then the time.
    fn take_inputs(&mut self, now: Now) {
        let in_grace = self.pauses.in_grace(now.monotonic);
        self.take_persisted(now);
        self.take_peers(now);
        if !in_grace {
            self.take_clients(now);
        }
        if !in_grace && self.evaluator.next_deadline() <= now.monotonic {
            self.evaluator.step(now, Input::Tick);
        }
        while let Ok(control) = self.channels.control.try_recv() {
            match control {
                Control::Transfer => self.evaluator.step(now, Input::Transfer),
                Control::Freeze(last_applied, asker) => self.freezes.push((last_applied, asker)),
                Control::Topics(asker) => {
                    // Whoever asked may be gone.
                    let _ = asker.send(self.evaluator.topics());
                }
                Control::Stop => self.stops = true,
            }
        }
    }

    fn take_persisted(&mut self, now: Now) {
        if let Some(id) = self.channels.persisted.try_iter().last() {
            self.evaluator.step(now, Input::Persisted(id));
        }
        while let Ok(fetched) = self.channels.fetched.try_recv() {
            self.evaluator.step(now, Input::Fetched(fetched));
        }
        while let Ok(from_snapshots) = self.channels.snapshots.try_recv() {
            match from_snapshots {
                FromSnapshots::Input(input) => self.evaluator.step(now, input),
                FromSnapshots::Message(snapshot, answer) => {
                    // Who asked may be gone.
                    let _ = answer.send(self.evaluator.install_message(snapshot));
                }
            }
        }
    }

    fn take_peers(&mut self, now: Now) {
        let peers = self.channels.peers.try_iter().take(PEER_MESSAGES_MAX);
        let forwards = self.channels.forwards.try_iter().take(PEER_MESSAGES_MAX);
        for reserved in peers.chain(forwards) {
            let input = match reserved.value {
                FromPeer::Message(message) => Input::Message(message),
                FromPeer::Clock(peer, wall) => Input::PeerClock(peer, wall),
                FromPeer::StateHash(peer, hash) => Input::PeerStateHash(peer, hash),
                FromPeer::Connected(peer) => Input::Connected(peer),
                FromPeer::ForwardLink(peer, is_there) => Input::ForwardLink(peer, is_there),
                FromPeer::Forward(peer, message) => Input::Forward(peer, message),
            };
            self.evaluator.step(now, input);
        }
    }

    fn take_clients(&mut self, now: Now) {
        for _ in 0..BATCHES_MAX {
            if !self.evaluator.takes_clients() {
                return;
            }
            let Ok(reserved) = self.channels.clients.try_recv() else {
                return;
            };
            match reserved.value {
                FromClient::Batch { batch, outcomes } => {
                    if let Some(outcomes) = outcomes {
                        self.connections.insert(batch.connection, outcomes);
                    }
                    self.evaluator.step(now, Input::Batch(batch));
                }
                FromClient::Disconnected(connection) => {
                    self.connections.remove(&connection);
                    self.evaluator.step(now, Input::Disconnected(connection));
                }
                FromClient::StopWaiting(connection) => {
                    self.evaluator.step(now, Input::StopWaiting(connection));
                }
                FromClient::Forward(follower, message) => {
                    self.evaluator.step(now, Input::Forward(follower, message));
                }
                FromClient::FollowerGone(follower, stream) => {
                    let gone = Input::FollowerGone(follower, stream);
                    self.evaluator.step(now, gone);
                }
            }
        }
    }

    /// Gives the state to those that have asked for it, if it has come as far as they want.
    fn give_states(&mut self) {
        let applied = self.evaluator.last_applied();
        let is_due = |(from, asker): &mut (Index, oneshot::Sender<_>)| {
            // Whoever asked may be gone.
            *from <= applied || asker.is_closed()
        };
        for (_, asker) in self.freezes.extract_if(.., is_due) {
            let _ = asker.send(self.evaluator.freeze_now());
        }
    }

    /// Whether something waits that the next turn would take in.
    fn has_inputs(&self, in_grace: bool) -> bool {
        let channels = &self.channels;
        let takes_clients = !in_grace && self.evaluator.takes_clients();
        !(channels.persisted.is_empty()
            && channels.fetched.is_empty()
            && channels.snapshots.is_empty()
            && channels.peers.is_empty()
            && channels.forwards.is_empty()
            && channels.control.is_empty())
            || takes_clients && !channels.clients.is_empty()
    }

    /// Starts everything that the turn came to.
    fn hand_out(&mut self, output: Output) {
        if let Some(write) = output.write {
            // The log writer ends only with the process, or after this thread.
            let _ = self.channels.writes.send(write);
        }
        let sends = !output.messages.is_empty();
        for (to, message) in output.messages {
            match self.channels.queues.get(&to) {
                Some(queue) => queue.push(message),
                None => debug!("a message for server {to}, which has no queue"),
            }
        }
        if sends {
            self.channels.queues.values().for_each(|queue| queue.send());
        }
        for (to, message) in output.forwards {
            let queues = match message.is_to_leader() {
                true => &self.channels.leaders,
                false => &self.channels.followers,
            };
            if let Some(queue) = queues.get(&to) {
                queue.push(message);
            }
        }
        for fetch in output.fetches {
            let _ = self.channels.fetches.send(fetch);
        }
        for follower in output.installs {
            let _ = self.channels.installs.send(follower);
        }
        if let Some(job) = output.hash_job {
            let _ = self.channels.work.send(Work::Hash(job));
        }
        if let Some(hash) = output.state_hash {
            let queues = self.channels.queues.values();
            queues.for_each(|queue| queue.push_state_hash(hash));
        }
        if let Some(frozen) = output.frozen {
            let _ = self.channels.work.send(Work::Write(frozen));
        }
        if !output.retired.is_empty() {
            let _ = self.channels.work.send(Work::Drop(output.retired));
        }
        for Outcomes {
            connection,
            outcomes,
        } in output.outcomes
        {
            // The connection may be gone, and `Disconnected` on its way.
            let recipient = self.connections.get(&connection);
            let delivery = recipient.and_then(|recipient| recipient.put(outcomes));
            self.deliveries.extend(delivery);
        }
        for connection in output.overlong {
            // It closes when it finds that nothing more will come.
            self.connections.remove(&connection);
        }
    }

    fn next_turn(&self, now: Timestamp) -> Timestamp {
        let in_grace = self.pauses.in_grace(now);
        if self.has_inputs(in_grace) {
            return now;
        }
        let deadline = match in_grace {
            true => self.pauses.until,
            false => self.evaluator.next_deadline(),
        };
        let mut until = deadline.min(now + published::INTERVAL);
        if let Some(last) = self.last.as_ref().filter(|_| self.unpublished) {
            until = until.min(last.at + published::INTERVAL_BUSY);
        }
        let leaves_clients = self.evaluator.leaves_clients();
        if leaves_clients {
            until = until.min(now + CLIENTS_LEFT);
        }
        let heeds_clients = self.channels.bell.heed_soft(!leaves_clients);
        let none_waits = self.channels.clients.is_empty() && self.channels.forwards.is_empty();
        match heeds_clients && !none_waits {
            true => now,
            false => until,
        }
    }

    /// Shows the others what they act on, if it has changed or is old.
    fn publish(&mut self, now: Timestamp) {
        let status = self.evaluator.status();
        let may_stop = self.evaluator.may_stop();
        let seating = self.evaluator.seating();
        if let Some(last) = &self.last {
            let old = &last.status;
            let is_same = standing(old) == standing(&status)
                && last.may_stop == may_stop
                && last.identity.seating == seating;
            let has_moved = progress(old) != progress(&status);
            let interval = match has_moved {
                true => published::INTERVAL_BUSY,
                false => published::INTERVAL,
            };
            self.unpublished = has_moved;
            if is_same && now.since(last.at) < interval {
                return;
            }
            tell_changes(old, &status);
            if old.differs_at.is_none() && status.differs_at.is_some() {
                // The log writer ends only with the process, or after this thread.
                let _ = self.channels.useless.send(Useless::All);
            }
        }
        if self.identity.seating != seating {
            tell_seating(self.identity.seating, seating);
            self.identity = Arc::new(self.identity_now(seating));
        }
        self.unpublished = false;
        let published = Arc::new(Published {
            at: now,
            status,
            identity: Arc::clone(&self.identity),
            may_stop,
        });
        self.last = Some(Arc::clone(&published));
        self.channels.publisher.send_replace(Some(published));
    }

    fn identity_now(&self, seating: Seating) -> Identity {
        let mut identity = (*self.identity).clone();
        identity.seating = seating;
        if let Some(configuration) = self
            .evaluator
            .configuration()
            .filter(|_| seating.is_seated())
        {
            let members = configuration.members.iter();
            identity.members = members.map(|member| (member.id, member.seat)).collect();
        }
        identity
    }
}

/// What others act on at once.
fn standing(status: &evaluator::Status) -> impl PartialEq {
    let leading = (status.role, status.term, status.leader, status.quorum);
    let health = (status.recovering, status.stranded, status.out_of_disk);
    (leading, status.serves, health, status.differs_at)
}

/// How far a server has come.
fn progress(status: &evaluator::Status) -> impl PartialEq {
    let indexes = (
        status.commit_index,
        status.last_applied,
        status.last_log_index,
        status.persisted_index,
        status.before,
    );
    let snapshots = (status.raft.installed, status.raft.installs);
    let hash = status.state_hash.map(|hash| hash.index);
    (
        indexes,
        snapshots,
        hash,
        status.seats_filled,
        status.commands_owed,
    )
}

/// Logs what an operator wants to know of the difference.
fn tell_changes(old: &evaluator::Status, new: &evaluator::Status) {
    let leads = |status: &evaluator::Status| status.leader == Some(status.id);
    let term = new.term;
    if leads(new) && (!leads(old) || old.term != term) {
        info!("leads in term {term}");
    } else if leads(old) && !leads(new) && old.term == term {
        warn!("has lost its majority in term {term}");
    } else if leads(old) && !leads(new) {
        info!("leads no more, the term is {term}");
    }
    if let (None, Some(index)) = (old.differs_at, new.differs_at) {
        error!(
            "the state behind entry {index} is not that of a majority of the servers: this server \
             serves no more. See to its memory, and start it again: it will get everything from the \
             others"
        );
    }
    if old.recovering && !new.recovering {
        info!("has got back all that its disk had lost, and votes again");
    }
    if new.raft.contradicted > old.raft.contradicted {
        warn!(
            "a follower lacks what it has acknowledged, and is sent it again: has its data \
             directory been replaced by an older copy?"
        );
    }
    if new.clock_held_back > old.clock_held_back {
        warn!(
            "its wall clock jumped ahead: items expire by at most 10 s of the jump in term {term}"
        );
    }
    if let (None, Some(ms)) = (old.clock_far_off_ms, new.clock_far_off_ms) {
        let way = if ms < 0 { "behind" } else { "ahead of" };
        let minutes = ms.unsigned_abs() / 60_000;
        warn!(
            "its wall clock is {minutes} minutes {way} those of a majority, and items expire by it"
        );
    }
    match new.leader {
        Some(leader) if leader != new.id && (old.leader, old.term) != (new.leader, term) => {
            info!("follows server {leader} in term {term}");
        }
        None if old.leader.is_some() && !leads(old) => info!("knows no leader in term {term}"),
        _ => {}
    }
    if new.role == "Candidate" && (old.role != "Candidate" || old.term != term) {
        debug!("campaigns in term {term}");
    }
}

fn tell_seating(old: Seating, new: Seating) {
    match (new.cluster(), new.is_seated()) {
        (Some(cluster), true) if !old.is_seated() => info!("has its seat in cluster {cluster}"),
        (Some(cluster), false) => info!("has met cluster {cluster}"),
        _ => {}
    }
}

impl Pauses {
    /// A turn begins; the length of the pause that lies before it, if there is one.
    fn begin(&mut self, now: Timestamp) -> Option<Duration> {
        let gap = now.since(self.expected);
        self.expected = now;
        if gap <= self.pause {
            return None;
        }
        self.until = now + self.grace;
        Some(gap)
    }

    fn in_grace(&self, now: Timestamp) -> bool {
        now < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp(1) + Duration::from_millis(ms)
    }

    #[test]
    fn after_a_pause_nothing_is_judged_for_a_while() {
        let mut pauses = Pauses {
            pause: Duration::from_millis(150),
            grace: Duration::from_millis(50),
            expected: at(0),
            until: Timestamp(0),
        };
        assert_eq!(pauses.begin(at(100)), None);
        assert_eq!(pauses.begin(at(250)), None);
        assert!(!pauses.in_grace(at(250)));
        assert_eq!(pauses.begin(at(1250)), Some(Duration::from_secs(1)));
        assert!(pauses.in_grace(at(1299)));
        assert!(!pauses.in_grace(at(1300)));
        assert_eq!(pauses.begin(at(1300)), None);
    }

    #[test]
    fn a_wait_that_was_meant_to_be_long_is_no_pause() {
        let mut pauses = Pauses {
            pause: Duration::from_millis(150),
            grace: Duration::from_millis(50),
            expected: at(0),
            until: Timestamp(0),
        };
        pauses.expected = at(1000);
        assert_eq!(pauses.begin(at(1100)), None);
    }
}
