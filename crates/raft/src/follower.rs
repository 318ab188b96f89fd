//! What a follower does: entries, heartbeats, acknowledgements that wait for the disk, and the
//! knowledge of who leads.

use mutants::Mutant;

use crate::members::Configuration;
use crate::message::{AppendEntries, AppendEntriesReply, Body, Heartbeat, HeartbeatReply};
use crate::raft::{Raft, RoleState};
use crate::types::{Entry, EntryKind, Index, Position, ServerId, Timestamp};

/// What a server knows of the leader of its term.
#[derive(Debug, Default)]
pub(crate) struct Following {
    /// The leader of this term, and when it was last heard.
    leader: Option<(ServerId, Timestamp)>,
    /// This log is known to equal the leader's up to here; 0 until the first match in the term.
    pub(crate) matched: Index,
    /// The last match that the leader was told.
    acknowledged: Index,
    /// An answer is owed, even if it says no more than the last.
    pub(crate) answer_owed: bool,
}

impl Following {
    /// Nothing of an older term holds in the new one.
    pub(crate) fn enter_term(&mut self) {
        *self = Following::default();
    }

    /// True if another server than this one is known to lead.
    pub(crate) fn is_another_than(&self, id: ServerId) -> bool {
        self.leader.is_some_and(|(leader, _)| leader != id)
    }
}

impl Raft {
    /// The leader of this term if it was heard within T, or this server if it leads (rule 29: a
    /// suspended one does not).
    pub(crate) fn live_leader(&self) -> Option<ServerId> {
        match (&self.role, self.following.leader) {
            (RoleState::Leader(_), _) => Some(self.config.id),
            (RoleState::Suspended(..), _) => None,
            (_, Some((id, heard))) if self.now < heard + self.config.election_timeout.start => {
                Some(id)
            }
            _ => None,
        }
    }

    /// When `live_leader` will be none, if nothing else happens.
    pub(crate) fn leader_until(&self) -> Timestamp {
        match (&self.role, self.following.leader) {
            (RoleState::Leader(_), _) => Timestamp::NEVER,
            (_, Some((_, heard))) => heard + self.config.election_timeout.start,
            (_, None) => Timestamp(0),
        }
    }

    /// A message that only the leader of this term sends. False if this server leads the term
    /// itself: then the other is no server of ours.
    pub(crate) fn leader_heard(&mut self, from: ServerId) -> bool {
        if matches!(self.role, RoleState::Leader(_) | RoleState::Suspended(..)) {
            self.counters.stale += 1;
            return false;
        }
        if !matches!(self.role, RoleState::Follower) {
            self.become_follower(self.hard_state.term);
        }
        self.following.leader = Some((from, self.now));
        self.not_alone();
        self.restart_election_timer();
        true
    }

    /// A leader has lost its term's leadership, or stands down: nobody is known to lead.
    pub(crate) fn forget_leader(&mut self) {
        self.following.leader = None;
    }

    /// `AppendEntries` of this term (§5.3).
    pub(crate) fn append_entries(&mut self, from: ServerId, request: AppendEntries) {
        if !self.leader_heard(from) {
            return;
        }
        let AppendEntries {
            prev,
            entries,
            leader_commit,
        } = request;
        if mutants::is_on(Mutant::VoteReset) {
            self.hard_state.voted_for = None;
        }
        let Some((prev, entries)) = self.without_dropped(prev, entries) else {
            self.counters.malformed += 1;
            return;
        };
        let found = self.log.term_at(prev.index);
        let agrees =
            found == Some(prev.term) || (mutants::is_on(Mutant::PrevByIndex) && found.is_some());
        if !agrees {
            let hint = self.log.last_agreeable(prev);
            self.send(
                from,
                Body::AppendEntriesReply(AppendEntriesReply::Conflict { prev, hint }),
            );
            return;
        }
        if !self.is_well_formed(prev, &entries) {
            self.counters.malformed += 1;
            return;
        }
        let end = prev.index + entries.len() as u64;
        for entry in entries {
            match self.log.term_at(entry.index) {
                // A message that comes late or twice must not shorten the log (rule 11).
                Some(term) if term == entry.term && !mutants::is_on(Mutant::TruncateAlways) => {}
                Some(_) if mutants::is_on(Mutant::KeepConflicting) => {}
                Some(_) => {
                    self.truncate_log(entry.index);
                    self.append_to_log(entry);
                }
                None => self.append_to_log(entry),
            }
        }
        let last = self.log.last().index;
        let matched = if mutants::is_on(Mutant::MatchLast) {
            last
        } else {
            end
        };
        self.following.matched = self.following.matched.max(matched);
        self.following.answer_owed = true;
        let covered = if mutants::is_on(Mutant::CommitUnbounded) {
            last
        } else {
            end
        };
        self.follow_commit(leader_commit.min(covered));
    }

    /// The part of these entries, and the entry before them, of which this log still knows. What is
    /// before it is committed, so the leader has the same there. `None` if they are no entries that
    /// follow each other.
    fn without_dropped(
        &self,
        prev: Position,
        mut entries: Vec<Entry>,
    ) -> Option<(Position, Vec<Entry>)> {
        let before = self.log.before();
        let dropped = usize::try_from(before.index - prev.index).ok()?;
        if dropped == 0 {
            return Some((prev, entries));
        }
        let indices = (1..).map(|number| prev.index + number);
        if !entries
            .iter()
            .zip(indices)
            .all(|(it, index)| it.index == index)
        {
            return None;
        }
        match entries.get(dropped - 1).map(Entry::position) {
            Some(prev) => Some((prev, entries.split_off(dropped))),
            None => Some((before, Vec::new())),
        }
    }

    /// True for entries that the leader of this term may have sent: consecutive, readable, and in
    /// no conflict with what it has sent before.
    fn is_well_formed(&self, prev: Position, entries: &[Entry]) -> bool {
        let mut last = prev;
        for entry in entries {
            let fits = entry.index == last.index.next()
                && entry.term >= last.term
                && entry.term <= self.hard_state.term;
            let agrees = entry.index > self.following.matched
                || self.log.term_at(entry.index) == Some(entry.term);
            let readable = entry.kind != EntryKind::Configuration
                || Configuration::decode(entry.payload.clone()).is_some();
            if !(fits && agrees && readable) {
                return false;
            }
            last = entry.position();
        }
        true
    }

    /// What is committed and known to be the same here (rule 13).
    fn follow_commit(&mut self, index: Index) {
        if index > self.commit_index {
            self.set_commit_index(index);
        }
    }

    /// `Heartbeat` of this term: answered at once, whatever the disk does (rule 4).
    pub(crate) fn heartbeat(&mut self, from: ServerId, request: Heartbeat) {
        if !self.leader_heard(from) {
            return;
        }
        self.follow_commit(request.leader_commit.min(self.following.matched));
        let reply = HeartbeatReply {
            round: request.round,
            match_index: self.persisted_match(),
        };
        self.send(from, Body::HeartbeatReply(reply));
    }

    /// How far this log is known to equal the leader's and is on disk (rule 2).
    pub(crate) fn persisted_match(&self) -> Index {
        if mutants::is_on(Mutant::AckBeforeSync) {
            return self.following.matched;
        }
        self.following.matched.min(self.log.persisted_index())
    }

    /// Tells the leader of what has reached the disk since it was last told.
    pub(crate) fn acknowledge(&mut self) {
        let Some((leader, _)) = self.following.leader else {
            return;
        };
        if !matches!(self.role, RoleState::Follower) {
            return;
        }
        let match_index = self.persisted_match();
        let complete = match_index == self.following.matched;
        if match_index > self.following.acknowledged || (self.following.answer_owed && complete) {
            let reply = AppendEntriesReply::Matches { match_index };
            self.send(leader, Body::AppendEntriesReply(reply));
            self.following.acknowledged = match_index;
            self.following.answer_owed &= !complete;
        }
    }

    /// Tells a leader of an older term which one it is now (rule 30).
    pub(crate) fn send_stale_term(&mut self, to: ServerId) {
        let reply = HeartbeatReply {
            round: 0,
            match_index: Index(0),
        };
        self.send(to, Body::HeartbeatReply(reply));
    }

    /// The leader wants this server to take over at once (diss. 3.10).
    pub(crate) fn timeout_now(&mut self, from: ServerId) {
        let from_leader = self
            .following
            .leader
            .is_some_and(|(leader, _)| leader == from);
        if from_leader && self.is_willing() && self.may_campaign() {
            self.campaign(crate::message::Campaign::Transfer);
        }
    }
}
