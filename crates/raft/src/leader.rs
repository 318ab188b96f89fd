//! What a leader does: entries out, acknowledgements in, the commit rule, heartbeats, and standing
//! down when its majority is gone. Reads are in `read.rs`, handing over in `transfer.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use mutants::Mutant;
use rand::RngExt;

use crate::catch_up::CatchUp;
use crate::deferral::Deferral;
use crate::io::{Fetch, Reader};
use crate::log::entry_bytes;
use crate::message::{AppendEntries, AppendEntriesReply, Body, Heartbeat, HeartbeatReply, Sender};
use crate::progress::{Flow, Progress};
use crate::quorum;
use crate::raft::{Raft, RoleState};
use crate::read::Reads;
use crate::transfer::Transfer;
use crate::types::{
    ClusterId, Entry, EntryKind, Index, Instance, Position, Restart, ServerId, Timestamp,
};

/// How long the oldest write may wait for its sync before its leader hands over (rule 33).
pub(crate) const STALLED_DISK_AFTER: Duration = Duration::from_secs(1);

/// How long a leader that should not lead waits before it tries again to hand over.
pub(crate) const HANDOVER_INTERVAL: Duration = Duration::from_secs(1);

/// What a leader keeps for its term.
#[derive(Debug)]
pub(crate) struct Leadership {
    pub(crate) followers: BTreeMap<ServerId, Progress>,
    pub(crate) deferral: Deferral,
    /// The first entry of this term; reads and more wait for its commit (rule 21).
    pub(crate) first_index: Index,
    pub(crate) heartbeat_deadline: Timestamp,
    pub(crate) reads: Reads,
    pub(crate) transfer: Transfer,
}

impl Leadership {
    /// The data directory and the start that this follower answered from.
    pub(crate) fn incarnation(&self, id: ServerId) -> Option<(Instance, Restart)> {
        self.followers
            .get(&id)
            .and_then(|progress| progress.incarnation)
    }

    pub(crate) fn is_transferring(&self) -> bool {
        self.transfer.is_under_way()
    }
}

impl Raft {
    pub(crate) fn become_leader(&mut self, voters: &[(ServerId, Instance)]) {
        let next = self.log.last().index.next();
        let followers = self
            .peers()
            .into_iter()
            .map(|id| (id, Progress::new(next, self.now)));
        self.role = RoleState::Leader(Leadership {
            followers: followers.collect(),
            deferral: Deferral::default(),
            first_index: next,
            heartbeat_deadline: self.now,
            reads: Reads::default(),
            transfer: Transfer::default(),
        });
        self.counters.elections_won += 1;
        // A new cluster may begin with the state of a backup, and its log behind that.
        if self.configurations.last().is_none() {
            let cluster = ClusterId(self.random_nonzero());
            let configuration = self.first_configuration(cluster, voters);
            self.append_as_leader(EntryKind::Configuration, configuration.encode());
        } else if !mutants::is_on(Mutant::NoNoOp) {
            self.append_as_leader(EntryKind::NoOp, Bytes::new());
        }
        self.leader_tick();
    }

    /// Leaves the role that this server has, with what only that role had.
    pub(crate) fn leave_role(&mut self) {
        let role = std::mem::replace(&mut self.role, RoleState::Follower);
        match role {
            RoleState::Leader(leadership) => {
                self.refused_reads.extend(leadership.reads.into_ids());
                self.restart_election_timer();
            }
            RoleState::Suspended(..)
            | RoleState::Follower
            | RoleState::PreCandidate(_)
            | RoleState::Candidate(_) => {}
        }
    }

    /// True while proposals and reads can be served: this server leads, and an entry of its term is
    /// committed (rule 21).
    pub(crate) fn serves(&self) -> bool {
        match &self.role {
            RoleState::Leader(leadership) => {
                self.commit_index >= leadership.first_index
                    || mutants::is_on(Mutant::ServesBeforeCommit)
            }
            _ => false,
        }
    }

    /// True when what is proposed now will be applied once it is committed: `serves`, and what was
    /// committed before this term is applied. After a restart that can take a while.
    pub(crate) fn serves_writes(&self) -> bool {
        match &self.role {
            RoleState::Leader(leadership) => self.last_applied >= leadership.first_index,
            _ => false,
        }
    }

    /// A payload for the log; taken by a leader that is not about to stop being one.
    pub(crate) fn propose(&mut self, payload: Bytes) -> Option<Position> {
        match &self.role {
            RoleState::Leader(leadership)
                if !leadership.is_transferring()
                    || mutants::is_on(Mutant::TransferTakesProposals) =>
            {
                let position = self.append_as_leader(EntryKind::Command, payload);
                if mutants::is_on(Mutant::CommitAtAppend) {
                    self.set_commit_index(position.index);
                }
                Some(position)
            }
            _ => None,
        }
    }

    pub(crate) fn append_as_leader(&mut self, kind: EntryKind, payload: Bytes) -> Position {
        let position = Position {
            term: self.hard_state.term,
            index: self.log.last().index.next(),
        };
        let entry = Entry {
            term: position.term,
            index: position.index,
            kind,
            payload,
        };
        let (bytes, rate) = (entry_bytes(&entry), self.config.catch_up_bytes_per_second);
        if let RoleState::Leader(leadership) = &mut self.role {
            let followers = leadership.followers.values_mut();
            let behind = followers.filter_map(|progress| progress.catch_up.as_mut());
            behind.for_each(|catch_up| catch_up.appended(bytes, rate));
            leadership.deferral.appended(bytes);
        }
        self.append_to_log(entry);
        position
    }

    pub(crate) fn leader_deadline(&self, leadership: &Leadership) -> Timestamp {
        let mut deadline = leadership
            .heartbeat_deadline
            .min(self.quorum_deadline(leadership));
        if let Some(widen) = leadership.reads.widen_deadline() {
            deadline = deadline.min(widen);
        }
        if let Some(transfer) = self.transfer_deadline(leadership) {
            deadline = deadline.min(transfer);
        }
        deadline
            .min(self.pace_deadline(leadership))
            .min(leadership.deferral.deadline())
    }

    /// When this leader heard from a follower the last time; `None` if it does not lead, or knows none
    /// of this name.
    #[must_use]
    pub fn last_heard(&self, follower: ServerId) -> Option<Timestamp> {
        match &self.role {
            RoleState::Leader(leadership) => {
                let progress = leadership.followers.get(&follower)?;
                Some(progress.heard)
            }
            _ => None,
        }
    }

    /// When this leader will not have heard from a majority for T (rule 29).
    fn quorum_deadline(&self, leadership: &Leadership) -> Timestamp {
        let mut heard: Vec<Timestamp> = self
            .config
            .members
            .iter()
            .map(|(id, _)| match leadership.followers.get(id) {
                Some(progress) if self.follower_counts(*id, progress) => progress.heard,
                Some(_) => Timestamp(0),
                None => Timestamp::NEVER,
            })
            .collect();
        match quorum::reached_by_majority(&mut heard) {
            Some(heard) if !mutants::is_on(Mutant::NoCheckQuorum) => {
                heard + self.config.election_timeout.start
            }
            _ => Timestamp::NEVER,
        }
    }

    /// True if this follower's acknowledgements count towards a majority. Before it has answered
    /// in this term it gets the benefit of T, like a leader that has just been elected.
    fn follower_counts(&self, id: ServerId, progress: &Progress) -> bool {
        if progress.is_recovering() {
            return false;
        }
        match progress.incarnation {
            Some((instance, _)) => self.counts(id, Some(instance)),
            None => true,
        }
    }

    pub(crate) fn leader_tick(&mut self) {
        let RoleState::Leader(leadership) = &self.role else {
            return;
        };
        if self.now >= self.quorum_deadline(leadership) {
            self.suspend();
            return;
        }
        if self.now >= leadership.heartbeat_deadline {
            self.broadcast_heartbeat();
        }
        self.widen_read_round();
        self.deferral_tick();
        self.transfer_tick();
    }

    /// The majority is gone: this leader stops for good (rule 29).
    fn suspend(&mut self) {
        let role = std::mem::replace(&mut self.role, RoleState::Follower);
        let RoleState::Leader(mut leadership) = role else {
            self.role = role;
            return;
        };
        self.refused_reads
            .extend(std::mem::take(&mut leadership.reads).into_ids());
        self.counters.suspensions += 1;
        self.role = RoleState::Suspended(leadership, None);
        self.restart_election_timer();
    }

    fn broadcast_heartbeat(&mut self) {
        for peer in self.peers() {
            self.send_heartbeat(peer);
        }
        let next = self.now + self.config.heartbeat;
        if let RoleState::Leader(leadership) = &mut self.role {
            leadership.heartbeat_deadline = next;
        }
    }

    pub(crate) fn send_heartbeat(&mut self, to: ServerId) {
        let RoleState::Leader(leadership) = &self.role else {
            return;
        };
        let Some(progress) = leadership.followers.get(&to) else {
            return;
        };
        let leader_commit = self.commit_index.min(progress.match_index);
        let round = leadership.reads.round();
        self.send(
            to,
            Body::Heartbeat(Heartbeat {
                leader_commit,
                round,
            }),
        );
        self.tell_healed(to);
    }

    /// A connection to this peer was made: what was on its way is lost.
    pub(crate) fn connected(&mut self, peer: ServerId) {
        match &mut self.role {
            RoleState::Leader(leadership) => {
                if let Some(progress) = leadership.followers.get_mut(&peer) {
                    progress.probe(progress.next_index);
                    self.send_heartbeat(peer);
                }
            }
            RoleState::Follower
            | RoleState::PreCandidate(_)
            | RoleState::Candidate(_)
            | RoleState::Suspended(..) => self.ask_for_vote(peer),
        }
    }

    /// Sends each follower that is due as many entries as its window takes.
    pub(crate) fn send_entries(&mut self) {
        for follower in self.take_due() {
            while self.send_entries_to(follower) {}
        }
    }

    /// One message of entries. False when there is nothing to send, or no room for it.
    fn send_entries_to(&mut self, to: ServerId) -> bool {
        let RoleState::Leader(leadership) = &self.role else {
            return false;
        };
        let Some(progress) = leadership.followers.get(&to) else {
            return false;
        };
        if progress.next_index <= self.log.before().index {
            self.ask_for_install(to);
            return false;
        }
        let has_room = progress.has_room(self.config.window_bytes_max)
            || (mutants::is_on(Mutant::NoWindow) && progress.flow == Flow::Replicate);
        let (from, last) = (progress.next_index, self.log.last().index);
        let probes = matches!(progress.flow, Flow::Probe { .. });
        if progress.fetching || !has_room {
            let is_full = !has_room && !probes && from <= last;
            self.counters.full_windows += u64::from(is_full);
            return false;
        }
        if from > last && !probes {
            self.end_catch_up(to);
            return false;
        }
        if !probes && self.is_paced(leadership, progress) {
            self.counters.paced += 1;
            return false;
        }
        let bytes_max = if mutants::is_on(Mutant::NoAppendLimit) {
            usize::MAX
        } else {
            self.message_bytes_max(leadership, progress)
        };
        match self.log.cached(from, last, bytes_max) {
            Some(entries) => self.send_append_entries(to, from, entries),
            // Where the logs agree is found out first, then the log is read.
            None if probes => self.send_append_entries(to, from, Vec::new()),
            None => self.fetch_for(to, (from, self.log.cache_start().prev()), bytes_max),
        }
    }

    /// Everything was sent to this follower.
    fn end_catch_up(&mut self, id: ServerId) {
        if let Some(progress) = self.follower_mut(id) {
            progress.catch_up = None;
        }
    }

    fn fetch_for(&mut self, to: ServerId, (from, last): (Index, Index), bytes_max: usize) -> bool {
        self.counters.fetches += 1;
        self.fetches.push(Fetch {
            reader: Reader::Follower(to),
            from,
            to: last,
            bytes_max,
        });
        let now = self.now;
        if let Some(progress) = self.follower_mut(to) {
            progress.fetching = true;
            progress.catch_up.get_or_insert_with(|| CatchUp::begun(now));
        }
        false
    }

    /// Entries that a follower needs came back from the log.
    pub(crate) fn fetched_for_follower(&mut self, to: ServerId, entries: Vec<Entry>) {
        if !matches!(self.role, RoleState::Leader(_)) {
            return;
        }
        let Some(progress) = self.follower_mut(to) else {
            return;
        };
        // None are left when the log was dropped up to there, which this server will be told.
        if !progress.fetching || entries.is_empty() {
            return;
        }
        progress.fetching = false;
        let from = progress.next_index;
        let is_held = from > self.log.before().index;
        let wanted = is_held
            && entries.first().is_some_and(|entry| entry.index == from)
            && entries
                .iter()
                .all(|entry| self.log.position_at(entry.index) == Some(entry.position()));
        if wanted {
            self.send_append_entries(to, from, entries);
        }
    }

    fn send_append_entries(&mut self, to: ServerId, from: Index, entries: Vec<Entry>) -> bool {
        let prev = self.log.position_at(from.prev());
        let prev = prev.expect("the next entry of a follower is at most one behind the last");
        let bytes = entries.iter().map(entry_bytes).sum();
        let last = entries.last().map(|entry| entry.index);
        let leader_commit = self.commit_index;
        let request = AppendEntries {
            prev,
            entries,
            leader_commit,
        };
        self.send(to, Body::AppendEntries(request));
        let (rate, now) = (self.config.catch_up_bytes_per_second, self.now);
        if let Some(progress) = self.follower_mut(to) {
            progress.sent(last, bytes, now);
            if let Some(catch_up) = &mut progress.catch_up {
                catch_up.sent(bytes, rate, now);
            }
        }
        last.is_some()
    }

    pub(crate) fn follower_mut(&mut self, id: ServerId) -> Option<&mut Progress> {
        match &mut self.role {
            RoleState::Leader(leadership) | RoleState::Suspended(leadership, _) => {
                leadership.followers.get_mut(&id)
            }
            _ => None,
        }
    }

    /// A reply of this term. False if it is of an older start of its sender (rule 15).
    fn follower_heard(&mut self, from: Sender) -> bool {
        let (now, before) = (self.now, self.log.before().index);
        let Some(progress) = self.follower_mut(from.id) else {
            return false;
        };
        let known = progress.incarnation;
        if !progress.met(from.instance, from.restart, before) {
            self.counters.stale += 1;
            return false;
        }
        progress.heard = now;
        let is_new = known != progress.incarnation;
        if from.cluster.is_some() && !progress.knows_seat {
            progress.knows_seat = true;
            self.advance_commit_index();
        }
        self.follower_recovers(from, is_new);
        if mutants::is_on(Mutant::SuspendedResumes) {
            self.role = match std::mem::replace(&mut self.role, RoleState::Follower) {
                RoleState::Suspended(leadership, _) => RoleState::Leader(leadership),
                role => role,
            };
        }
        true
    }

    /// `AppendEntriesReply` of this term (§5.3).
    pub(crate) fn append_entries_reply(&mut self, from: Sender, reply: AppendEntriesReply) {
        if !self.follower_heard(from) {
            return;
        }
        match reply {
            AppendEntriesReply::Matches { match_index } => self.matches(from.id, match_index),
            AppendEntriesReply::Conflict { prev, hint } => self.conflict(from.id, prev, hint),
        }
        self.seat_newcomers();
    }

    fn matches(&mut self, from: ServerId, match_index: Index) {
        if match_index > self.log.last().index {
            self.counters.malformed += 1;
            return;
        }
        let now = self.now;
        if self
            .follower_mut(from)
            .is_some_and(|progress| progress.matches(match_index, now))
        {
            self.advance_commit_index();
        }
    }

    /// The logs differ at `prev`: goes back to the last entry on which they can agree (rule 18).
    fn conflict(&mut self, from: ServerId, prev: Position, hint: Position) {
        if prev.index > self.log.last().index {
            self.counters.malformed += 1;
            return;
        }
        let agreeable = self.log.last_agreeable(hint);
        let Some(progress) = self.follower_mut(from) else {
            return;
        };
        // An answer to a message before the last change of course says nothing (rule 19).
        let current = match progress.flow {
            Flow::Probe { .. } => prev.index.next() == progress.next_index,
            Flow::Replicate => prev.index > progress.match_index,
        };
        let contradicts = current && prev.index == progress.match_index && prev.index > Index(0);
        if contradicts {
            // It had acknowledged that very entry. With an older copy of its directory it would be
            // asked for ever for what it had then.
            progress.match_index = Index(0);
        }
        if current || mutants::is_on(Mutant::EveryConflictProbes) {
            progress.probe(agreeable.index.next());
        }
        self.counters.contradicted += u64::from(contradicts);
    }

    /// `HeartbeatReply` of this term.
    pub(crate) fn heartbeat_reply(&mut self, from: Sender, reply: HeartbeatReply) {
        if self.is_future_round(reply.round) {
            self.counters.malformed += 1;
            return;
        }
        if !self.follower_heard(from) {
            return;
        }
        let round = match &self.role {
            RoleState::Leader(it) if mutants::is_on(Mutant::ReadByEarlierRound) => it.reads.round(),
            _ => reply.round,
        };
        let (now, interval) = (self.now, self.config.heartbeat);
        if let Some(progress) = self.follower_mut(from.id) {
            if !progress.is_recovering() || mutants::is_on(Mutant::RecoveringConfirmsReads) {
                progress.round_acked = progress.round_acked.max(round);
            }
            let idle = progress.match_index >= reply.match_index;
            if idle && progress.idle_heartbeat(now, interval) {
                progress.probe(progress.next_index);
            }
        }
        if reply.match_index > Index(0) {
            self.matches(from.id, reply.match_index);
        }
        self.seat_newcomers();
    }

    /// True for a round that this leader has not begun.
    fn is_future_round(&self, round: u64) -> bool {
        match &self.role {
            RoleState::Leader(leadership) => round > leadership.reads.round(),
            _ => false,
        }
    }

    /// Commits what a majority has persisted, up to an entry of this leader's own term: an older
    /// entry can be on a majority and still be overwritten (§5.4.2, figure 8). This leader counts
    /// itself up to its own sync (rule 3).
    pub(crate) fn advance_commit_index(&mut self) {
        let (RoleState::Leader(leadership) | RoleState::Suspended(leadership, _)) = &self.role
        else {
            return;
        };
        if self.commit_index == self.log.last().index {
            return;
        }
        let own = if mutants::is_on(Mutant::LeaderCountsUnsynced) {
            self.log.last().index
        } else {
            self.log.persisted_index()
        };
        let mut matched: Vec<Index> = self
            .config
            .members
            .iter()
            .map(|(id, _)| match leadership.followers.get(id) {
                Some(progress) if self.may_hold_the_majority(*id, progress) => progress.match_index,
                None if self.counts(*id, Some(self.config.instance)) => own,
                Some(_) | None => Index(0),
            })
            .collect();
        let Some(index) = quorum::reached_by_majority(&mut matched) else {
            return;
        };
        let is_own = self.log.term_at(index) == Some(self.hard_state.term)
            || mutants::is_on(Mutant::CommitOlderTerm);
        if index > self.commit_index && is_own {
            self.set_commit_index(index);
            self.seat_newcomers();
        }
    }

    /// True if what this follower acknowledges counts for a commit: it has its seat, and knows so.
    /// One that does not know yet could neither vote nor campaign for what it holds, if it were
    /// among the only ones left that hold it. When a cluster begins nobody knows yet. And it is not
    /// recovering, for then it could have voted for another leader.
    pub(crate) fn may_hold_the_majority(&self, id: ServerId, progress: &Progress) -> bool {
        let known = progress.knows_seat
            || !self.hard_state.seating.is_seated()
            || mutants::is_on(Mutant::UnknownSeatCommits);
        let sound = !progress.is_recovering() || mutants::is_on(Mutant::RecoveringCommits);
        known && sound && self.counts(id, progress.incarnation.map(|(instance, _)| instance))
    }

    fn random_nonzero(&mut self) -> u64 {
        self.random().random_range(1..=u64::MAX)
    }
}
