//! Elections: pre-votes, votes, and who is counted.

use std::collections::BTreeMap;
use std::time::Duration;

use mutants::Mutant;

use crate::message::{Body, Campaign, RequestVote, RequestVoteReply, Sender};
use crate::raft::{Raft, RoleState};
use crate::types::{Instance, Seating, ServerId, Term};

/// The votes of one campaign: each voter once, with the data directory that voted (rule 24).
#[derive(Debug)]
pub(crate) struct Tally {
    campaign: Campaign,
    granted: BTreeMap<ServerId, Instance>,
}

impl RequestVoteReply {
    /// Its term is the one that the candidate would campaign in, which nobody is in yet (rule 27).
    pub(crate) fn is_pre_vote_grant(self) -> bool {
        self.granted && self.campaign == Campaign::PreVote
    }
}

impl Raft {
    /// Nobody has led for too long. While the vote is on its way to the disk another campaign
    /// would only wait for it too, and with a slow disk none would ever be won.
    pub(crate) fn election_timeout(&mut self) {
        if self.may_campaign() && self.is_vote_persisted() {
            self.campaign(Campaign::PreVote);
        } else {
            self.restart_election_timer();
            self.tell_of_recovery();
        }
    }

    /// Asks all members for their vote, or whether they would give it.
    pub(crate) fn campaign(&mut self, campaign: Campaign) {
        self.forget_leader();
        let granted = BTreeMap::from([(self.config.id, self.config.instance)]);
        let tally = Tally { campaign, granted };
        self.restart_election_timer();
        if let (Campaign::PreVote, RoleState::Suspended(_, asks)) = (campaign, &mut self.role) {
            *asks = Some(tally);
        } else if campaign == Campaign::PreVote {
            self.leave_role();
            self.role = RoleState::PreCandidate(tally);
        } else {
            self.leave_role();
            self.following.enter_term();
            self.hard_state.term = self.hard_state.term.next();
            self.hard_state.voted_for = Some(self.config.id);
            self.reveal_hard_state();
            self.counters.elections += 1;
            self.role = RoleState::Candidate(tally);
        }
        for peer in self.peers() {
            self.ask_for_vote(peer);
        }
        self.count_votes();
    }

    /// True between the question whether it would win and the campaign.
    pub(crate) fn is_asking_for_pre_votes(&self) -> bool {
        matches!(
            self.role,
            RoleState::PreCandidate(_) | RoleState::Suspended(_, Some(_))
        )
    }

    /// Asks this peer, if a campaign is under way.
    pub(crate) fn ask_for_vote(&mut self, peer: ServerId) {
        let (campaign, term) = match &self.role {
            RoleState::PreCandidate(tally) | RoleState::Suspended(_, Some(tally)) => {
                (tally.campaign, self.hard_state.term.next())
            }
            RoleState::Candidate(tally) => (tally.campaign, self.hard_state.term),
            _ => return,
        };
        let request = RequestVote {
            campaign,
            last_log: self.log.last(),
        };
        self.send_in_term(peer, term, Body::RequestVote(request));
    }

    /// `RequestVote`, of any term (§5.2, §5.4.1).
    pub(crate) fn request_vote(&mut self, from: Sender, term: Term, request: RequestVote) {
        let up_to_date = request.last_log >= self.log.last()
            || mutants::is_on(Mutant::NoUpToDate)
            || (mutants::is_on(Mutant::UpToDateByLength)
                && request.last_log.index >= self.log.last().index);
        let campaign = request.campaign;
        if campaign == Campaign::PreVote {
            let granted = term > self.hard_state.term
                && up_to_date
                && (self.live_leader().is_none() || mutants::is_on(Mutant::PreVoteWithLiveLeader))
                && self.may_vote_for(&from);
            if granted && mutants::is_on(Mutant::PreVoteRaisesTerm) {
                self.become_follower(term);
            }
            if !up_to_date && self.live_leader().is_none() {
                self.stand_instead();
            }
            let reply = RequestVoteReply { campaign, granted };
            let term = if granted { term } else { self.hard_state.term };
            self.send_in_term(from.id, term, Body::RequestVoteReply(reply));
            return;
        }
        // A live leader is not disturbed, but by its own wish (rule 31).
        if campaign == Campaign::Election
            && self.live_leader().is_some()
            && !mutants::is_on(Mutant::LiveLeaderDisturbed)
        {
            return;
        }
        if term > self.hard_state.term && self.may_vote_for(&from) {
            self.become_follower(term);
        }
        let free = self
            .hard_state
            .voted_for
            .is_none_or(|voted_for| voted_for == from.id)
            || mutants::is_on(Mutant::GrantTwice);
        let granted =
            term == self.hard_state.term && free && up_to_date && self.may_vote_for(&from);
        if granted {
            if self.hard_state.voted_for.is_none() {
                self.hard_state.voted_for = Some(from.id);
                self.reveal_hard_state();
            }
            self.restart_election_timer();
        }
        if mutants::is_on(Mutant::TimerResetByRefusal) {
            self.restart_election_timer();
        }
        let reply = RequestVoteReply { campaign, granted };
        self.send(from.id, Body::RequestVoteReply(reply));
    }

    /// Somebody asks for votes whom this server can't vote for, with the log that it has itself, and
    /// nobody leads: it asks soon.
    fn stand_instead(&mut self) {
        let heartbeat = self.config.heartbeat;
        // Rather this one, which should not lead, than nobody; but not before one that should.
        let soon = match self.is_willing() {
            true => Duration::ZERO..heartbeat,
            false => heartbeat * 2..heartbeat * 4,
        };
        if matches!(self.role, RoleState::Follower) {
            let soon = self.random_within(soon);
            self.election_deadline = self.election_deadline.min(self.now + soon);
        }
    }

    /// `RequestVoteReply` of this term, or a grant of a pre-vote.
    pub(crate) fn request_vote_reply(&mut self, from: Sender, term: Term, reply: RequestVoteReply) {
        let (tally, asked) = match &mut self.role {
            RoleState::PreCandidate(tally) | RoleState::Suspended(_, Some(tally)) => {
                (tally, self.hard_state.term.next())
            }
            RoleState::Candidate(tally) => (tally, self.hard_state.term),
            _ => return,
        };
        let of_this_term = term == asked || mutants::is_on(Mutant::VoteOfOlderTerm);
        if reply.campaign != tally.campaign || (reply.granted && !of_this_term) {
            self.counters.stale += 1;
            return;
        }
        if !reply.granted {
            if reply.campaign == Campaign::PreVote {
                self.hasten_election_timer();
            }
            return;
        }
        // An unseated server is elected by unseated ones, a seated one by seated ones (rule 41).
        let cluster = match self.hard_state.seating {
            Seating::Seated { cluster, .. } => Some(cluster),
            Seating::Unseated | Seating::Met(_) => None,
        };
        if from.cluster == cluster || mutants::is_on(Mutant::MixedVotes) {
            let mut voter = from.id;
            if mutants::is_on(Mutant::DuplicateVotes) && tally.granted.contains_key(&voter) {
                voter = ServerId(voter.0 | 1 << 32);
            }
            tally.granted.insert(voter, from.instance);
            self.count_votes();
        }
    }

    /// This server's own vote counts once it is on disk, like everyone's; its campaign begins
    /// then, as only then the others are asked.
    pub(crate) fn own_vote_persisted(&mut self) {
        if matches!(self.role, RoleState::Candidate(_)) {
            self.restart_election_timer();
            self.count_votes();
        }
    }

    fn count_votes(&mut self) {
        let majority = self.majority();
        match &self.role {
            RoleState::PreCandidate(tally) | RoleState::Suspended(_, Some(tally))
                if tally.granted.len() >= majority =>
            {
                self.campaign(Campaign::Election);
            }
            RoleState::Candidate(tally)
                if tally.granted.len() >= majority && self.is_vote_persisted() =>
            {
                let voters: Vec<_> = tally.granted.iter().map(|(id, at)| (*id, *at)).collect();
                self.become_leader(&voters);
            }
            _ => {}
        }
    }
}
