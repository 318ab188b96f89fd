//! A turn: inputs in, one proposal, one look at what Raft says, outcomes out.

use std::time::Duration;

use bytes::Bytes;
use command::{PayloadEncoder, Preamble, TopicCounts};
use mutants::Mutant;
use raft::{
    Candidacy, Entry, EntryKind, Index, Message, Raft, ReadId, Recovered, Seating, ServerId,
    Snapshot, Term, Timestamp,
};
use store::Store;

use crate::answers::Answers;
use crate::forward::ForwardMessage;
use crate::io::{Config, Input, Limits, Now, Output};
use crate::log_time::LogClock;
use crate::peer_clocks::PeerClocks;
use crate::snapshots::{FrozenState, LoadedState, Snapshots};
use crate::state_hashes::{HashJob, StateHashes};
use crate::status::Status;
use crate::waiting::{Origin, Owner, Takes, Waiting};

/// While more writes are under way than wait, those that wait are kept for one entry, since an
/// entry costs every server a frame, a sync and a turn; but no longer than this, and no more.
const GATHER_TIME_MAX: Duration = Duration::from_millis(2);
const GATHER_BYTES_MAX: usize = 128 << 10;

/// From so many commands under way on, clients are not listened to all the time.
const LEAVES_CLIENTS_MIN: usize = 16;

/// A turn is light while so many commands are owed an answer, so many keys are to be looked up for
/// them, and so much is on its way to the disks or the peers or waits to be proposed, at most. It
/// takes about a millisecond then, which is what a follower's heartbeat may be kept waiting.
const LIGHT_OWED_MAX: usize = 1024;
const LIGHT_BYTES_MAX: usize = 256 << 10;

/// One server's part of one Raft group.
#[derive(Debug)]
pub struct Evaluator {
    raft: Raft,
    pub(crate) answers: Answers,
    pub(crate) waiting: Waiting,
    clock: LogClock,
    peer_clocks: PeerClocks,
    encoder: PayloadEncoder,
    snapshots: Snapshots,
    pub(crate) state_hashes: StateHashes,
    /// A state that an entry of this turn has asked to be hashed.
    pub(crate) hash_job: Option<HashJob>,
    /// To be handed out and dropped.
    retired: Vec<Store>,
    pub(crate) item_bytes_max: u32,
    pub(crate) memory_limit_bytes: u64,
    id: ServerId,
    /// As follower, this server forwards commands.
    forwards: bool,
    limits: Limits,
    pub(crate) now: Now,
    /// When the last entry of commands was proposed.
    proposed_at: Timestamp,
    /// The term in which this server leads and has its majority, as of the end of the last turn.
    leads: Option<Term>,
    /// The server is about to stop: no more writes are taken.
    stopping: bool,
    /// There is memory to be freed.
    untidy: bool,
}

impl Evaluator {
    /// A server as it starts, with what its log held, and the state of its newest snapshot: an
    /// empty store if it has none. The store fills as the log is read back and known to be
    /// committed.
    ///
    /// # Panics
    /// As `Raft::new` does: if this server is not among the members, or the election timeout is no
    /// range.
    #[must_use]
    pub fn new(config: Config, recovered: Recovered, store: Store, now: Now) -> Evaluator {
        let raft = Raft::new(raft_config(&config), recovered, now.monotonic);
        Evaluator {
            answers: Answers::new(&config, raft.status(), store),
            raft,
            waiting: Waiting::new(config.restart),
            clock: LogClock::new(now),
            peer_clocks: PeerClocks::default(),
            encoder: PayloadEncoder::new(),
            snapshots: Snapshots::new(&config),
            state_hashes: StateHashes::default(),
            hash_job: None,
            retired: Vec::new(),
            item_bytes_max: u32::try_from(config.item_bytes_max).unwrap_or(u32::MAX),
            memory_limit_bytes: config.memory_limit_bytes,
            id: config.id,
            forwards: config.forwards,
            limits: config.limits,
            now,
            proposed_at: Timestamp(0),
            leads: None,
            stopping: false,
            untidy: false,
        }
    }

    /// Takes in one thing that happened. A caller that has waited takes in all messages that wait
    /// before it says `Tick` (rule 25).
    pub fn step(&mut self, now: Now, input: Input) {
        self.at(now);
        let input = match input {
            Input::Batch(batch) => {
                let takes = self.takes();
                let answers = &mut self.answers;
                self.waiting.accept(now.monotonic, batch, takes, answers);
                return;
            }
            Input::Disconnected(connection) => {
                self.waiting.disconnected(Origin::Client(connection));
                return;
            }
            Input::StopWaiting(connection) => {
                if !mutants::is_on(Mutant::StopWaitingIgnored) {
                    self.waiting.stop_waiting(Origin::Client(connection));
                }
                return;
            }
            Input::Forward(from, message) => {
                self.forward(from, message);
                return;
            }
            Input::ForwardLink(peer, is_there) => {
                self.waiting.linked(peer, is_there, &mut self.answers);
                return;
            }
            Input::FollowerGone(follower, stream) => {
                self.waiting.follower_gone(follower, stream);
                return;
            }
            Input::Transfer => {
                self.transfer();
                return;
            }
            Input::Reserve(is_there) => {
                self.reserve(is_there);
                return;
            }
            Input::PeerClock(peer, wall) => {
                self.peer_clocks.heard(peer, wall, now.wall);
                let members = self.answers.members_count();
                self.answers.clock_far_off_ms = self.peer_clocks.far_off_ms(members);
                return;
            }
            Input::StateHashed(index, hash) => {
                self.state_hashes.hashed(index, hash);
                return;
            }
            Input::PeerStateHash(peer, hash) => {
                self.state_hashes.heard(peer, hash);
                return;
            }
            Input::SnapshotWritten(snapshot) => {
                self.snapshots.written();
                raft::Input::Snapshot(snapshot)
            }
            Input::SnapshotFailed => {
                self.snapshots.failed(now.monotonic);
                return;
            }
            Input::SnapshotWanted(index) => {
                self.snapshots.wanted(index);
                return;
            }
            Input::Install(message, loaded) => {
                self.snapshots.loaded(loaded);
                raft::Input::Message(message)
            }
            Input::Dropped(position) => raft::Input::Dropped(position),
            Input::InstallEnded(follower) => raft::Input::InstallEnded(follower),
            Input::Tick => raft::Input::Tick,
            Input::Message(message) => raft::Input::Message(message),
            Input::Persisted(id) => raft::Input::Persisted(id),
            Input::Fetched(fetched) => raft::Input::Fetched(fetched),
            Input::Connected(peer) => raft::Input::Connected(peer),
        };
        self.raft.step(now.monotonic, input);
    }

    /// What all inputs since the last call came to.
    ///
    /// # Panics
    /// If a committed entry holds what this release can't read: to pass it over would make this
    /// server differ from the others for good.
    pub fn take_output(&mut self, now: Now) -> Output {
        self.at(now);
        if self.gathers_until().is_none() {
            self.propose();
        }
        self.ask_to_read();
        let output = self.raft.take_output();
        self.answers.view = self.raft.status();
        self.install(output.installed.as_ref());
        for entry in output.committed {
            self.apply(entry);
        }
        if self.answers.differs_at.is_some() {
            self.tell_candidacy();
        }
        let frozen = self.freeze();
        for (id, index) in output.reads {
            self.waiting.confirmed(id, index);
        }
        self.waiting.answer_reads(&mut self.answers);
        self.note_leadership(&output.refused_reads);
        self.note_heading();
        let heard = |follower| self.raft.last_heard(follower);
        self.waiting
            .tend_consumers(now.monotonic, heard, &mut self.answers);
        self.waiting
            .refuse_overdue(now.monotonic, &mut self.answers);
        self.untidy = self.answers.store.tidy();
        let outcomes = self.waiting.take_outcomes();
        Output {
            write: output.write,
            messages: output.messages,
            fetches: output.fetches,
            outcomes,
            forwards: self.waiting.take_forwards(),
            overlong: self.waiting.take_overlong(),
            frozen,
            hash_job: self.hash_job.take(),
            state_hash: self.state_hashes.take_untold(),
            installs: output.installs,
            retired: std::mem::take(&mut self.retired),
        }
    }

    /// What a server is to be told that has received this snapshot from this one; `None` if this
    /// server does not lead. Asked for when the transfer ends.
    #[must_use]
    pub fn install_message(&self, snapshot: Snapshot) -> Option<Message> {
        self.raft.install_message(snapshot)
    }

    /// When `Input::Tick` and a turn will next make something happen; a time that has passed if
    /// there is more to do at once.
    #[must_use]
    pub fn next_deadline(&self) -> Timestamp {
        if self.untidy || self.waiting.has_reads_left() {
            return self.now.monotonic;
        }
        let raft = self.raft.next_deadline();
        raft.min(self.waiting.next_deadline())
            .min(self.proposal_deadline())
    }

    /// Whether batches of clients are to be given to `step`: false while this server leads and too
    /// much is under way to the disks or the peers, waits to be proposed, or too many answers are
    /// owed (rule 59). This is the only throttle. A server that does not lead refuses, which takes
    /// no room; or it forwards, and is bounded by what is with the leader.
    #[must_use]
    pub fn takes_clients(&self) -> bool {
        let owed = self.waiting.owed();
        let fits = self.unsettled_bytes() <= self.limits.unsettled_bytes_max
            && self.waiting.staged_bytes() <= self.limits.staged_bytes_max
            && owed.commands <= self.limits.owed_commands_max
            && owed.keys <= self.limits.owed_keys_max;
        let fits = match self.leads {
            Some(_) => fits,
            None => {
                owed.forwarded_bytes <= self.limits.forwarded_bytes_max
                    && owed.commands <= self.limits.owed_commands_max
            }
        };
        fits || mutants::is_on(Mutant::NoBackpressure)
    }

    /// Whether a turn is short now, even for a thread that has other things to do, as long as
    /// clients ask for nothing more: little is owed, staged or under way.
    #[must_use]
    pub fn is_light(&self) -> bool {
        let owed = self.waiting.owed();
        let bytes = self.unsettled_bytes().max(self.waiting.staged_bytes());
        owed.commands.max(owed.keys) <= LIGHT_OWED_MAX && bytes <= LIGHT_BYTES_MAX
    }

    /// What is not on this server's disk, or not committed.
    fn unsettled_bytes(&self) -> usize {
        let view = &self.answers.view;
        view.unpersisted_bytes.max(view.uncommitted_bytes)
    }

    /// Whether what clients send next may just as well be given to `step` together, a fraction of a
    /// millisecond later: many commands are under way already, and writes are being gathered or a
    /// round of reads is. To be woken for each costs more than carrying it out.
    #[must_use]
    pub fn leaves_clients(&self) -> bool {
        self.waiting.owed().commands >= LEAVES_CLIENTS_MIN
            && (self.gathers_until().is_some() || self.waiting.has_reads_under_way())
    }

    /// True when a server that was told to hand over (`Input::Transfer`) may end: it does not lead
    /// any more, or nobody takes over, and all that it has taken is answered.
    #[must_use]
    pub fn may_stop(&self) -> bool {
        let hands_over = self.answers.leads() && self.answers.view.transferring;
        self.stopping
            && !hands_over
            && self.waiting.owed().commands == 0
            && !self.waiting.has_proposals()
    }

    /// What `/status` shows.
    #[must_use]
    pub fn status(&self) -> Status {
        let owed = self.waiting.owed().commands;
        Status {
            state_hash: self.state_hashes.own(),
            state_hashes_compared: self.state_hashes.compared(),
            forwarding: self.waiting.forward_counters(),
            ..self.answers.status(owed, self.waiting.connections())
        }
    }

    /// All topics and their messages, counted, in order of creation, as far as this server has applied
    /// the log.
    #[must_use]
    pub fn topics(&self) -> Vec<TopicCounts> {
        self.answers.store.topics()
    }

    /// How far this server has come into its cluster: what it presents to the others (rule 41).
    #[must_use]
    pub fn seating(&self) -> Seating {
        self.answers.view.hard_state.seating
    }

    /// The members and their seats: of the newest configuration known to be committed, which there
    /// is once this server is seated, or else of the newest in the log.
    #[must_use]
    pub fn configuration(&self) -> Option<&raft::Configuration> {
        self.answers.view.configuration.as_deref()
    }

    /// The consensus core, for `Raft::check` and `check_cluster`.
    #[must_use]
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The store's hash, which is the same on all servers that have applied as much. Walks over
    /// all items.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        self.answers.store.state_hash()
    }

    fn at(&mut self, now: Now) {
        self.now = now;
        self.answers.now = now.monotonic;
        self.answers.store.set_clock(now.wall);
    }

    /// A leader takes commands as soon as it leads. Until the first entry of its term is committed
    /// they wait (rule 21), within the time that they have anyway.
    fn takes(&self) -> Takes {
        let leads = self.leads.is_some();
        let leader = self.answers.leader();
        Takes {
            writes: leads && self.hands_nothing_over() && !self.answers.out_of_disk,
            reads: leads,
            forwards: !leads && !self.stopping && self.waiting.heads_for(leader),
        }
    }

    /// A follower's word, or the leader's.
    fn forward(&mut self, from: ServerId, message: ForwardMessage) {
        let (now, takes) = (self.now.monotonic, self.takes());
        let answers = &mut self.answers;
        if message.is_to_leader() {
            let leads = (self.leads, takes);
            self.waiting
                .follower_says(now, (from, message), leads, answers);
        } else {
            self.waiting.leader_says(from, message, answers);
        }
    }

    fn hands_nothing_over(&self) -> bool {
        !self.stopping && !self.answers.view.transferring
    }

    fn may_propose(&self) -> bool {
        let serves = self.answers.view.serves || mutants::is_on(Mutant::ProposedBeforeApplied);
        self.leads.is_some() && self.hands_nothing_over() && serves
    }

    /// Until when writes are kept for one entry with those that come next.
    fn gathers_until(&self) -> Option<Timestamp> {
        let until = self.proposed_at + GATHER_TIME_MAX;
        let gathers = self.now.monotonic < until
            && self.waiting.staged() < self.waiting.under_way(self.raft.commit_index())
            && self.waiting.staged_bytes() < GATHER_BYTES_MAX;
        gathers.then_some(until)
    }

    /// Hands leadership over. What was taken before is proposed first, so that it is answered.
    fn transfer(&mut self) {
        self.propose();
        self.stopping = true;
        self.waiting.refuse_parked(&mut self.answers);
        self.raft.step(self.now.monotonic, raft::Input::Transfer);
        self.answers.view = self.raft.status();
    }

    /// Without a reserve no more writes are taken, and another server is to lead. The core's own
    /// entries, and those that make items expire, are small: what the log has left is for them.
    fn reserve(&mut self, is_there: bool) {
        self.answers.out_of_disk = !is_there && !mutants::is_on(Mutant::OutOfDiskIgnored);
        if self.answers.out_of_disk {
            self.waiting.refuse_staged(&mut self.answers);
        }
        self.tell_candidacy();
    }

    fn tell_candidacy(&mut self) {
        let candidacy = if self.answers.differs_at.is_some() {
            Candidacy::Barred
        } else if self.answers.out_of_disk {
            Candidacy::Reluctant
        } else {
            Candidacy::Willing
        };
        self.raft
            .step(self.now.monotonic, raft::Input::Candidacy(candidacy));
        self.answers.view = self.raft.status();
    }

    /// Proposes the writes of this turn; if there are none and something is due, an entry without
    /// commands (rule 49).
    fn propose(&mut self) {
        if !self.may_propose() {
            return;
        }
        let mut owners = Vec::new();
        for (owner, write) in self.waiting.take_staged() {
            if !self.encoder.fits(&write) {
                self.propose_entry(std::mem::take(&mut owners));
            }
            self.encoder.push(&write);
            owners.push(owner);
        }
        if !owners.is_empty() || self.is_due() {
            self.propose_entry(owners);
        }
    }

    /// Proposes what the encoder holds.
    fn propose_entry(&mut self, owners: Vec<Owner>) {
        let log_time = self.clock.stamp(self.now, self.answers.store.log_time());
        let members = self.answers.members_count();
        let mark = self
            .state_hashes
            .mark(self.now.monotonic, &self.limits, members);
        let payload = self.encoder.finish(&Preamble {
            log_time,
            item_bytes_max: self.item_bytes_max,
            memory_limit_bytes: self.memory_limit_bytes,
            mark,
        });
        if mutants::is_on(Mutant::ProposedTwice) {
            let proposal = raft::Input::Propose(payload.clone());
            self.raft.step(self.now.monotonic, proposal);
        }
        let proposal = raft::Input::Propose(payload);
        match self.raft.step(self.now.monotonic, proposal) {
            Some(position) => {
                self.proposed_at = self.now.monotonic;
                self.clock.stamped(self.now, log_time);
                self.answers.clock_held_back = self.clock.held_back();
                self.waiting.proposed(position, owners);
            }
            None => self.waiting.rejected(&owners),
        }
    }

    /// Whether the leader's clock has passed a second at which something falls due, and nothing
    /// with a stamp as late was proposed.
    fn is_due(&self) -> bool {
        let due = self.awaited_second();
        due.is_some_and(|due| self.clock.until(self.now, due).is_zero())
    }

    /// The second at which something falls due, unless an entry that is to make it happen was
    /// proposed.
    fn awaited_second(&self) -> Option<u64> {
        let due = self.answers.store.next_due()?;
        let is_awaited = due > self.clock.last().seconds() && !mutants::is_on(Mutant::NoTicks);
        is_awaited.then_some(due)
    }

    /// When there will be something to propose.
    fn proposal_deadline(&self) -> Timestamp {
        if !self.may_propose() {
            return Timestamp::NEVER;
        }
        let due = match self.awaited_second() {
            Some(due) => self.now.monotonic + self.clock.until(self.now, due),
            None => Timestamp::NEVER,
        };
        let staged = self.waiting.staged() > 0;
        match self.gathers_until() {
            Some(until) if staged => until,
            Some(until) => due.max(until),
            None if staged => self.now.monotonic,
            None => due,
        }
    }

    fn ask_to_read(&mut self) {
        if self.leads.is_some()
            && let Some(round) = self.waiting.ask()
        {
            let read = raft::Input::Read(round);
            self.raft.step(self.now.monotonic, read);
        }
    }

    /// Puts a state that was received in the place of this one, if the core has taken its snapshot
    /// (rule 45); any other is of no use.
    fn install(&mut self, installed: Option<&Snapshot>) {
        let mut is_there = installed.is_none();
        for LoadedState {
            position,
            mut store,
        } in self.snapshots.take_loaded()
        {
            if !is_there && installed.is_some_and(|installed| installed.position == position) {
                is_there = true;
                self.answers.install(&mut store, position.index);
                self.snapshots.installed();
            }
            self.retired.push(*store);
        }
        assert!(is_there, "{installed:?} has no state");
    }

    /// The state as it is, if a snapshot of it is due. A server without a seat takes none: it may
    /// have come to another cluster than its own (rule 41).
    fn freeze(&mut self) -> Option<FrozenState> {
        let (applied, now) = (self.answers.last_applied, self.now.monotonic);
        if !self.snapshots.is_due(&self.limits, applied, now) {
            return None;
        }
        let frozen = self.freeze_now()?;
        self.snapshots.begun(applied);
        Some(frozen)
    }

    /// The last entry that the state has taken in.
    #[must_use]
    pub fn last_applied(&self) -> Index {
        self.answers.last_applied
    }

    /// The state as it is, for whoever wants a copy; `None` while this server has no seat, or if its
    /// state is known to be another than the others'. It has every command that was acknowledged
    /// before a `Read::Confirm` was asked for that has been answered with `last_applied` or less.
    pub fn freeze_now(&mut self) -> Option<FrozenState> {
        if self.answers.differs_at.is_some() {
            return None;
        }
        let Seating::Seated { cluster, .. } = self.seating() else {
            return None;
        };
        Some(FrozenState {
            cluster,
            snapshot: self.raft.applied_snapshot(),
            store: self.answers.store.freeze(),
        })
    }

    fn apply(&mut self, entry: Entry) {
        self.snapshots.applied(entry.payload.len());
        let owners = self.waiting.take_owners(&entry, &mut self.answers);
        self.answers.last_begun = entry.index;
        match entry.kind {
            EntryKind::NoOp | EntryKind::Configuration => {}
            EntryKind::Command => self.apply_commands(entry.index.0, entry.payload, &owners),
        }
        self.answers.last_applied = entry.index;
    }

    /// Takes note of where commands are forwarded to, while this server follows.
    fn note_heading(&mut self) {
        let view = &self.answers.view;
        let course = (view.term, view.leader.filter(|leader| *leader != self.id));
        let forwards = self.forwards && self.leads.is_none();
        self.waiting
            .head_for(forwards.then_some(course), &mut self.answers);
    }

    /// Takes note of whether this server leads. When it does not any more, nobody waits for it.
    fn note_leadership(&mut self, refused_reads: &[ReadId]) {
        let view = &self.answers.view;
        let leads = self.answers.leads().then_some(view.term);
        assert!(
            refused_reads.is_empty() || leads != self.leads || leads.is_none(),
            "reads are refused in term {} without a loss of leadership",
            view.term,
        );
        if leads != self.leads {
            if self.leads.is_some() {
                self.waiting.refuse_all(&mut self.answers);
            }
            if leads.is_some() {
                self.clock.begin(self.now);
            }
            self.leads = leads;
        }
        self.waiting.refuse_rejected(&mut self.answers);
        if !self.takes().writes {
            self.waiting.refuse_staged(&mut self.answers);
        }
    }
}

fn raft_config(config: &Config) -> raft::Config {
    let members = config.members.iter().map(|member| {
        let address = format!(
            "{} {} {} {}",
            member.host, member.client_port, member.rpc_port, member.http_port
        );
        (member.id, Bytes::from(address))
    });
    raft::Config {
        id: config.id,
        members: members.collect(),
        instance: config.instance,
        restart: config.restart,
        election_timeout: config.election_timeout.clone(),
        heartbeat: config.heartbeat,
        seed: config.seed,
        append_bytes_max: config.limits.append_bytes_max,
        window_bytes_max: config.limits.window_bytes_max,
        cache_bytes_max: config.limits.cache_bytes_max,
        catch_up_bytes_per_second: config.limits.catch_up_bytes_per_second,
        deferral: config.limits.deferral,
    }
}
