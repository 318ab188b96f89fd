//! The struct, the dispatch, and the rules that hold in every role (§5.1): terms, what waits for a
//! sync, what is handed out. The roles' own rules are in `follower.rs`, `candidate.rs` and
//! `leader.rs`.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use mutants::Mutant;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::candidate::Tally;
use crate::follower::Following;
use crate::io::{
    Candidacy, Config, Counters, Fetch, Input, Output, Recovered, Role, Status, Write,
};
use crate::leader::Leadership;
use crate::log::{Log, entry_bytes};
use crate::message::{Body, Message, Sender};
use crate::recovering::Recovery;
use crate::seating::Configurations;
use crate::snapshot::Snapshots;
use crate::types::{
    Entry, EntryKind, HardState, Index, Position, ReadId, ServerId, Term, Timestamp, WriteId,
};

/// Terms grow one at a time, and in no life of a cluster as far as this: a message that names a
/// later one is not believed, so that there is always a next term.
const TERM_MAX: Term = Term(1 << 48);

/// A reluctant server waits for so many election timeouts before it stands.
const RELUCTANT_TIMEOUTS: u32 = 4;

/// One server of one Raft group.
#[derive(Debug)]
pub struct Raft {
    pub(crate) config: Config,
    pub(crate) now: Timestamp,
    random: StdRng,
    pub(crate) hard_state: HardState,
    /// The hard state differs from the one in the last write.
    hard_state_changed: bool,
    /// The write that holds the term, vote and cluster as they are: messages reveal these, and
    /// wait for it (rule 1).
    revealing_write: WriteId,
    /// The id of the next write.
    next_write: WriteId,
    persisted_write: WriteId,
    /// When each write that is not known to be synced was handed out.
    writes_under_way: VecDeque<(WriteId, Timestamp)>,
    pub(crate) log: Log,
    pub(crate) configurations: Configurations,
    /// `last_applied <= commit_index <= last log index`.
    pub(crate) commit_index: Index,
    pub(crate) last_applied: Index,
    /// Entries read back from the log to be applied next, in order.
    pub(crate) to_apply: Vec<Entry>,
    pub(crate) apply_fetching: bool,
    pub(crate) snapshots: Snapshots,
    pub(crate) recovery: Recovery,
    pub(crate) uncommitted_bytes: usize,
    pub(crate) role: RoleState,
    pub(crate) candidacy: Candidacy,
    pub(crate) following: Following,
    /// When this server takes matters into its own hands, unless it leads.
    pub(crate) election_deadline: Timestamp,
    pub(crate) counters: Counters,
    /// Messages that may leave at once.
    ready: Vec<(ServerId, Message)>,
    /// Messages that wait for a write, in the order in which they came to be.
    withheld: VecDeque<(WriteId, ServerId, Message)>,
    pub(crate) fetches: Vec<Fetch>,
    pub(crate) reads: Vec<(ReadId, Index)>,
    pub(crate) refused_reads: Vec<ReadId>,
}

/// # Panics
/// If the members are not those of the newest configuration in the log: a majority of others could
/// forget what was acknowledged.
fn assert_members(config: &Config, configurations: &Configurations) {
    if let Some(newest) = configurations.last() {
        let named: BTreeSet<ServerId> = config.members.iter().map(|(id, _)| *id).collect();
        let members = newest.configuration.members.iter();
        let ids = members.map(|member| member.id);
        let found: BTreeSet<ServerId> = ids.collect();
        assert!(
            named == found,
            "the members {named:?}, but the log names {found:?}"
        );
    }
}

/// The role, with what only that role has.
#[derive(Debug)]
pub(crate) enum RoleState {
    Follower,
    PreCandidate(Tally),
    Candidate(Tally),
    Leader(Leadership),
    /// A leader that has lost its majority: its late acknowledgements still count, and it stays
    /// one while it asks for pre-votes, until it knows of a later term (rule 29).
    Suspended(Leadership, Option<Tally>),
}

impl Raft {
    /// A server as it starts, with what its log held.
    ///
    /// # Panics
    /// If this server is not among the members, these are not those of the newest configuration in
    /// the log, the election timeout is no range, the heartbeat takes no time, or the log and the
    /// snapshot do not fit.
    #[must_use]
    pub fn new(config: Config, recovered: Recovered, now: Timestamp) -> Raft {
        assert!(
            config.members.iter().any(|(id, _)| *id == config.id),
            "server {} is no member",
            config.id,
        );
        assert!(
            config.election_timeout.start < config.election_timeout.end,
            "an election timeout of {:?}",
            config.election_timeout,
        );
        assert!(
            config.heartbeat > Duration::ZERO,
            "a heartbeat of {:?}",
            config.heartbeat,
        );
        let configurations = Configurations::new(&recovered);
        assert_members(&config, &configurations);
        let log = Log::new(&recovered);
        let snapshots = Snapshots::new(&recovered, &log);
        let applied = snapshots.position().index;
        let mut raft = Raft {
            now,
            random: StdRng::seed_from_u64(config.seed),
            hard_state: recovered.hard_state,
            hard_state_changed: false,
            revealing_write: WriteId(0),
            next_write: WriteId(1),
            persisted_write: WriteId(0),
            writes_under_way: VecDeque::new(),
            log,
            configurations,
            commit_index: applied,
            last_applied: applied,
            to_apply: Vec::new(),
            apply_fetching: false,
            snapshots,
            recovery: Recovery::new(recovered.recovering, now),
            uncommitted_bytes: 0,
            role: RoleState::Follower,
            candidacy: Candidacy::default(),
            following: Following::default(),
            election_deadline: now,
            counters: Counters::default(),
            ready: Vec::new(),
            withheld: VecDeque::new(),
            fetches: Vec::new(),
            reads: Vec::new(),
            refused_reads: Vec::new(),
            config,
        };
        if mutants::is_on(Mutant::VoteForgotten) {
            raft.hard_state.voted_for = None;
        }
        if mutants::is_on(Mutant::TermForgotten) {
            raft.hard_state.term = recovered.last.term;
            raft.hard_state.voted_for = None;
        }
        if mutants::is_on(Mutant::CommitAtRestart) {
            raft.commit_index = recovered.last.index;
        }
        if raft.config.members.len() > 1 {
            raft.restart_election_timer();
        }
        raft.believe_last_entry();
        raft.take_seat();
        raft
    }

    /// A crash can keep entries of a new term and lose the hard state of the same write. Nothing
    /// was promised in that term then, so it begins without a vote.
    fn believe_last_entry(&mut self) {
        let term = self.log.last().term;
        if term > self.hard_state.term {
            self.hard_state.term = term;
            self.hard_state.voted_for = None;
            self.reveal_hard_state();
        }
    }

    /// Takes in one thing that happened at `now`. Gives the place in the log of a proposal that was
    /// taken, and `None` for one that was not and for everything else.
    ///
    /// A caller that has waited takes in all messages that wait before it says `Tick` (rule 25).
    pub fn step(&mut self, now: Timestamp, input: Input) -> Option<Position> {
        self.now = self.now.max(now);
        match input {
            Input::Tick => self.tick(),
            Input::Message(message) => self.message(message),
            Input::Propose(payload) => return self.propose(payload),
            Input::Read(id) => self.read(id),
            Input::Persisted(id) => self.persisted(id),
            Input::Fetched(fetched) => self.fetched(fetched),
            Input::Connected(peer) => self.connected(peer),
            Input::Transfer => self.transfer(),
            Input::Candidacy(candidacy) => self.set_candidacy(candidacy),
            Input::Snapshot(snapshot) => self.note_snapshot(snapshot),
            Input::Dropped(position) => self.dropped(position),
            Input::InstallEnded(follower) => self.install_ended(follower),
        }
        None
    }

    /// What all inputs since the last call came to.
    pub fn take_output(&mut self) -> Output {
        self.acknowledge();
        self.send_entries();
        self.tell_successor();
        self.start_read_round();
        self.confirm_reads();
        let committed = self.take_committed();
        self.log
            .shrink(self.last_applied, self.config.cache_bytes_max);
        Output {
            write: self.take_write(),
            messages: std::mem::take(&mut self.ready),
            installed: self.snapshots.take_installed(),
            committed,
            reads: std::mem::take(&mut self.reads),
            refused_reads: std::mem::take(&mut self.refused_reads),
            fetches: std::mem::take(&mut self.fetches),
            installs: self.snapshots.take_asks(),
        }
    }

    /// When `Input::Tick` will next make something happen.
    #[must_use]
    pub fn next_deadline(&self) -> Timestamp {
        if self.last_applied < self.commit_index && !self.apply_fetching {
            return self.now;
        }
        match &self.role {
            RoleState::Leader(leadership) => self.leader_deadline(leadership),
            _ => self.election_deadline,
        }
    }

    /// The last entry that is known to be committed.
    #[must_use]
    pub fn commit_index(&self) -> Index {
        self.commit_index
    }

    /// What can be read off between two steps.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            role: self.role(),
            term: self.hard_state.term,
            leader: self.live_leader(),
            leader_until: self.leader_until(),
            recovering: self.is_recovering(),
            stranded: self.is_stranded(),
            serves: self.serves_writes(),
            transferring: self.transferring(),
            hard_state: self.hard_state,
            commit_index: self.commit_index,
            last_applied: self.last_applied,
            persisted_index: self.log.persisted_index(),
            last_log_index: self.log.last().index,
            before: self.log.before(),
            snapshot: self.snapshots.position(),
            unpersisted_bytes: self.log.unpersisted_bytes(),
            uncommitted_bytes: self.uncommitted_bytes,
            configuration: self
                .configurations
                .committed_or_last(self.commit_index_known()),
            counters: self.counters,
        }
    }

    fn role(&self) -> Role {
        match &self.role {
            RoleState::Follower => Role::Follower,
            RoleState::PreCandidate(_) => Role::PreCandidate,
            RoleState::Candidate(_) => Role::Candidate,
            RoleState::Leader(_) => Role::Leader,
            RoleState::Suspended(..) => Role::Suspended,
        }
    }

    fn tick(&mut self) {
        match &self.role {
            RoleState::Leader(_) => self.leader_tick(),
            _ if self.now >= self.election_deadline => self.election_timeout(),
            _ => {}
        }
    }

    fn message(&mut self, message: Message) {
        if message.term > TERM_MAX {
            self.counters.malformed += 1;
            return;
        }
        if !self.admit(&message) || !self.agree_on_term(&message) {
            return;
        }
        let from = message.sender;
        match message.body {
            Body::RequestVote(request) => self.request_vote(from, message.term, request),
            Body::RequestVoteReply(reply) => self.request_vote_reply(from, message.term, reply),
            Body::AppendEntries(request) => self.append_entries(from.id, request),
            Body::AppendEntriesReply(reply) => self.append_entries_reply(from, reply),
            Body::Heartbeat(request) => self.heartbeat(from.id, request),
            Body::HeartbeatReply(reply) => self.heartbeat_reply(from, reply),
            Body::TimeoutNow => self.timeout_now(from.id),
            Body::InstallSnapshot(request) => self.install_snapshot(from, request),
            Body::Healed(word) => self.healed(from.id, word),
        }
    }

    /// Brings this server's term and the message's together (§5.1). True if the message is to be
    /// handled: it is of this term now, or its own rules say what its term means.
    fn agree_on_term(&mut self, message: &Message) -> bool {
        match &message.body {
            // Stickiness comes before the term (rule 31), and a pre-vote's term is nobody's yet.
            Body::RequestVote(_) => return true,
            Body::RequestVoteReply(reply) if reply.is_pre_vote_grant() => return true,
            _ => {}
        }
        if message.term > self.hard_state.term {
            let asked = self.is_asking_for_pre_votes();
            self.become_follower(message.term);
            if asked {
                self.hasten_election_timer();
            }
        }
        if message.term == self.hard_state.term {
            return true;
        }
        self.counters.stale += 1;
        match &message.body {
            Body::RequestVoteReply(_) => return mutants::is_on(Mutant::VoteOfOlderTerm),
            Body::AppendEntriesReply(_) => return mutants::is_on(Mutant::AckOfOlderTerm),
            Body::HeartbeatReply(_) => return mutants::is_on(Mutant::HeartbeatReplyOfOlderTerm),
            Body::AppendEntries(_) if mutants::is_on(Mutant::AppendOfOlderTerm) => return true,
            Body::InstallSnapshot(_) if mutants::is_on(Mutant::InstallOfOlderTerm) => return true,
            Body::AppendEntries(_)
            | Body::Heartbeat(_)
            | Body::InstallSnapshot(_)
            | Body::Healed(_)
                if mutants::is_on(Mutant::StaleLeaderUntold) => {}
            // Whoever still leads an older term learns of this one (rule 30).
            Body::AppendEntries(_)
            | Body::Heartbeat(_)
            | Body::InstallSnapshot(_)
            | Body::Healed(_) => {
                self.send_stale_term(message.sender.id);
            }
            _ => {}
        }
        false
    }

    /// Follows, in `term` from now on. A vote is forgotten only with its term.
    pub(crate) fn become_follower(&mut self, term: Term) {
        assert!(
            term >= self.hard_state.term,
            "term {term} after term {}",
            self.hard_state.term
        );
        self.leave_role();
        if term > self.hard_state.term {
            self.hard_state.term = term;
            self.hard_state.voted_for = None;
            self.reveal_hard_state();
            self.following.enter_term();
        }
        self.role = RoleState::Follower;
    }

    /// The hard state changed in what messages reveal: later ones wait for the next write.
    pub(crate) fn reveal_hard_state(&mut self) {
        self.hard_state_changed = true;
        self.revealing_write = self.next_write;
    }

    /// The hard state changed in what only this server's own restart looks at.
    pub(crate) fn keep_hard_state(&mut self) {
        self.hard_state_changed = true;
    }

    /// True once nothing of term and vote waits for a sync.
    pub(crate) fn is_vote_persisted(&self) -> bool {
        self.revealing_write <= self.persisted_write
    }

    pub(crate) fn restart_election_timer(&mut self) {
        let timeout = self
            .random
            .random_range(self.config.election_timeout.clone());
        let patience = match self.candidacy {
            // One that is recovering gets in nobody's way, and the others wait for its word.
            Candidacy::Reluctant if !self.is_recovering() => RELUCTANT_TIMEOUTS,
            Candidacy::Reluctant | Candidacy::Willing | Candidacy::Barred => 1,
        };
        self.election_deadline = self.now + timeout * patience;
    }

    /// The timer after a refused pre-vote: one heartbeat, and up to one more so that two servers do
    /// not keep in step (rule 26).
    pub(crate) fn hasten_election_timer(&mut self) {
        let heartbeat = self.config.heartbeat;
        let soon = self.now + self.random_within(heartbeat..heartbeat * 2);
        self.election_deadline = self.election_deadline.min(soon);
    }

    pub(crate) fn random_within(&mut self, range: Range<Duration>) -> Duration {
        self.random.random_range(range)
    }

    pub(crate) fn random(&mut self) -> &mut StdRng {
        &mut self.random
    }

    pub(crate) fn sender(&self) -> Sender {
        let seating = self.hard_state.seating;
        Sender {
            id: self.config.id,
            cluster: if seating.is_seated() {
                seating.cluster()
            } else {
                None
            },
            instance: self.config.instance,
            restart: self.config.restart,
            recovering: self.is_recovering(),
        }
    }

    /// Sends in this server's term.
    pub(crate) fn send(&mut self, to: ServerId, body: Body) {
        self.send_in_term(to, self.hard_state.term, body);
    }

    /// Sends as soon as what the message reveals is on disk (rules 1 and 4): messages of one term
    /// and vote leave in order, and a later one never overtakes the write that it waits for.
    pub(crate) fn send_in_term(&mut self, to: ServerId, term: Term, body: Body) {
        let message = Message {
            sender: self.sender(),
            term,
            body,
        };
        let overtakes_sync = match &message.body {
            Body::RequestVote(_) => mutants::is_on(Mutant::CandidacyBeforeSync),
            Body::RequestVoteReply(_) => mutants::is_on(Mutant::VoteBeforeSync),
            _ => mutants::is_on(Mutant::TermBeforeSync),
        };
        if self.revealing_write <= self.persisted_write || overtakes_sync {
            self.ready.push((to, message));
        } else {
            // A disk that has stalled must not make these grow for ever.
            self.withheld
                .retain(|(_, peer, older)| *peer != to || !older.is_replaced_by(&message));
            self.withheld.push_back((self.revealing_write, to, message));
        }
    }

    fn persisted(&mut self, id: WriteId) {
        assert!(id < self.next_write, "write {id} was never handed out");
        if id <= self.persisted_write {
            return;
        }
        let vote_waited = !self.is_vote_persisted();
        self.persisted_write = id;
        while self
            .writes_under_way
            .front()
            .is_some_and(|(write, _)| *write <= id)
        {
            self.writes_under_way.pop_front();
        }
        self.log.persisted(id);
        self.recovery_persisted(id);
        while self
            .withheld
            .front()
            .is_some_and(|(needs, ..)| *needs <= id)
        {
            if let Some((_, to, message)) = self.withheld.pop_front() {
                self.ready.push((to, message));
            }
        }
        if vote_waited && self.is_vote_persisted() {
            self.own_vote_persisted();
        }
        self.advance_commit_index();
    }

    /// When the oldest write that is not known to be synced was handed out.
    pub(crate) fn oldest_write_at(&self) -> Option<Timestamp> {
        self.writes_under_way.front().map(|(_, at)| *at)
    }

    fn take_write(&mut self) -> Option<Write> {
        let hard_state = std::mem::take(&mut self.hard_state_changed).then_some(self.hard_state);
        let recovered = self.take_recovered(self.next_write);
        let write = self
            .log
            .take_write(self.next_write, hard_state, recovered)?;
        self.writes_under_way.push_back((write.id, self.now));
        self.next_write = self.next_write.next();
        Some(write)
    }

    pub(crate) fn append_to_log(&mut self, entry: Entry) {
        self.uncommitted_bytes += entry_bytes(&entry);
        if entry.kind == EntryKind::Configuration {
            self.configurations.append(&entry);
        }
        self.log.append(entry);
    }

    /// Takes back entries that another leader's replace. Never committed ones (rule 12).
    pub(crate) fn truncate_log(&mut self, from: Index) {
        assert!(
            from > self.commit_index,
            "entry {from} is to be replaced, but {} are committed",
            self.commit_index,
        );
        self.counters.truncations += 1;
        let bytes = self.log.truncate(from);
        self.uncommitted_bytes = self.uncommitted_bytes.saturating_sub(bytes);
        if !mutants::is_on(Mutant::ConfigurationKept) {
            self.configurations.truncate(from);
        }
    }

    pub(crate) fn set_commit_index(&mut self, index: Index) {
        let last = self.log.last().index;
        assert!(
            self.commit_index < index && index <= last,
            "commit {index} after {}, the last is {last}",
            self.commit_index,
        );
        let bytes = self.log.cached_bytes(self.commit_index.next(), index);
        self.uncommitted_bytes = self.uncommitted_bytes.saturating_sub(bytes);
        self.commit_index = index;
        self.take_seat();
    }
}
