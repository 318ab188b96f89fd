//! ReadIndex rounds (§8, diss. 6.4): a read is answered from a state that is at least as new as
//! what was committed when it arrived, once a majority has confirmed that this server still leads.

use std::collections::VecDeque;

use mutants::Mutant;

use crate::raft::{Raft, RoleState};
use crate::types::{Index, ReadId, ServerId, Timestamp};

/// The reads of a leader, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// The newest round that was begun; heartbeats carry it.
    round: u64,
    /// Reads of `round`, which is under way; empty when none is.
    asked: VecDeque<Waiting>,
    /// Reads that came after it was begun: they are the next round's (rule 36).
    unasked: VecDeque<Waiting>,
    /// When the members that were not asked at first are asked as well.
    widen_at: Option<Timestamp>,
}

/// Reads that came together.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    id: ReadId,
    /// The commit index when they came; unknown until an entry of this term is committed.
    index: Option<Index>,
    /// The last entry when they came: the commit of a later one confirms leadership too (rule 35).
    last: Index,
}

impl Reads {
    pub(crate) fn round(&self) -> u64 {
        self.round
    }

    pub(crate) fn widen_deadline(&self) -> Option<Timestamp> {
        self.widen_at
    }

    /// All that wait.
    pub(crate) fn into_ids(self) -> impl Iterator<Item = ReadId> {
        self.asked
            .into_iter()
            .chain(self.unasked)
            .map(|waiting| waiting.id)
    }
}

impl Raft {
    /// Reads for the next round; refused at once by a server that does not lead.
    pub(crate) fn read(&mut self, id: ReadId) {
        let index = self.serves().then_some(self.commit_index);
        let last = self.log.last().index;
        match &mut self.role {
            RoleState::Leader(leadership) => {
                let reads = &mut leadership.reads;
                let waiting = Waiting { id, index, last };
                if mutants::is_on(Mutant::ReadJoinsRound) && !reads.asked.is_empty() {
                    reads.asked.push_back(waiting);
                } else {
                    reads.unasked.push_back(waiting);
                }
            }
            _ => self.refused_reads.push(id),
        }
    }

    /// Begins a round for all reads that wait, unless one is under way. Only as many members are
    /// asked as make a majority, those heard last; the others follow if these stay silent.
    pub(crate) fn start_read_round(&mut self) {
        if !self.serves() {
            return;
        }
        let (commit_index, now) = (self.commit_index, self.now);
        let widen_at = now + self.config.heartbeat / 5;
        let targets = self.read_round_targets();
        let RoleState::Leader(leadership) = &mut self.role else {
            return;
        };
        let reads = &mut leadership.reads;
        if !reads.asked.is_empty() || reads.unasked.is_empty() {
            return;
        }
        reads.round += 1;
        reads.asked = std::mem::take(&mut reads.unasked);
        for waiting in &mut reads.asked {
            waiting.index.get_or_insert(commit_index);
        }
        reads.widen_at = Some(widen_at);
        for target in targets {
            self.send_heartbeat(target);
        }
    }

    fn read_round_targets(&self) -> Vec<ServerId> {
        let RoleState::Leader(leadership) = &self.role else {
            return Vec::new();
        };
        if leadership.reads.unasked.is_empty() || !leadership.reads.asked.is_empty() {
            return Vec::new();
        }
        let mut heard: Vec<(Timestamp, ServerId)> = leadership
            .followers
            .iter()
            .filter(|(id, progress)| {
                let sound =
                    !progress.is_recovering() || mutants::is_on(Mutant::RecoveringConfirmsReads);
                sound && self.counts(**id, progress.incarnation.map(|(instance, _)| instance))
            })
            .map(|(id, progress)| (progress.heard, *id))
            .collect();
        heard.sort_unstable_by(|a, b| b.cmp(a));
        heard
            .into_iter()
            .take(self.majority() - 1)
            .map(|(_, id)| id)
            .collect()
    }

    /// Asks everyone about a round that is taking long.
    pub(crate) fn widen_read_round(&mut self) {
        let now = self.now;
        let RoleState::Leader(leadership) = &mut self.role else {
            return;
        };
        if leadership.reads.widen_at.is_none_or(|at| now < at) {
            return;
        }
        leadership.reads.widen_at = None;
        let round = leadership.reads.round;
        let silent: Vec<ServerId> = leadership
            .followers
            .iter()
            .filter(|(_, progress)| progress.round_acked < round)
            .map(|(id, _)| *id)
            .collect();
        for peer in silent {
            self.send_heartbeat(peer);
        }
    }

    /// Hands out the reads whose leadership is confirmed: by their round, or by the commit of an
    /// entry that came after them.
    pub(crate) fn confirm_reads(&mut self) {
        let round_confirmed = self.is_round_confirmed();
        let commit_index = self.commit_index;
        let serves = self.serves();
        let RoleState::Leader(leadership) = &mut self.role else {
            return;
        };
        if !serves {
            return;
        }
        let reads = &mut leadership.reads;
        let mut confirmed = Vec::new();
        while let Some(waiting) = reads.asked.pop_front_if(|waiting| {
            let any_commit = mutants::is_on(Mutant::ReadByEarlierCommit)
                && waiting.index.is_some_and(|index| index < commit_index);
            round_confirmed || waiting.last < commit_index || any_commit
        }) {
            confirmed.push((waiting.id, waiting.index.unwrap_or(commit_index)));
        }
        if reads.asked.is_empty() {
            reads.widen_at = None;
            while let Some(waiting) = reads
                .unasked
                .pop_front_if(|waiting| waiting.last < commit_index)
            {
                confirmed.push((waiting.id, waiting.index.unwrap_or(commit_index)));
            }
        }
        if !confirmed.is_empty() {
            self.reads.extend(confirmed);
            // What came meanwhile need not wait for another turn.
            self.start_read_round();
        }
    }

    fn is_round_confirmed(&self) -> bool {
        let RoleState::Leader(leadership) = &self.role else {
            return false;
        };
        let round = leadership.reads.round;
        let acked = leadership.followers.iter().filter(|(id, progress)| {
            progress.round_acked >= round
                && self.counts(**id, progress.incarnation.map(|(instance, _)| instance))
        });
        acked.count() + 1 >= self.majority() || mutants::is_on(Mutant::ReadWithoutRound)
    }
}
