//! Handing leadership over (diss. 3.10): when the server is about to stop, its disk has stalled or
//! is full, or its state can't be trusted.

use mutants::Mutant;

use crate::io::Candidacy;
use crate::leader::{HANDOVER_INTERVAL, Leadership, STALLED_DISK_AFTER};
use crate::message::Body;
use crate::progress::Progress;
use crate::raft::{Raft, RoleState};
use crate::types::{ServerId, Timestamp};

/// A leader's wish to be followed by another.
#[derive(Debug, Default)]
pub(crate) struct Transfer {
    under_way: Option<UnderWay>,
    /// A leader that should not lead hands over again only from here on.
    next_try: Timestamp,
}

#[derive(Debug)]
struct UnderWay {
    /// Given up then, and leadership goes on (rule 33).
    deadline: Timestamp,
    /// The servers that were told to stand.
    told: Vec<ServerId>,
    /// Another may be told from here on: who was told may not have heard it, or may not stand, as
    /// one that has just come back may not for a moment.
    next_to_tell: Timestamp,
}

impl Transfer {
    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }
}

impl Raft {
    pub(crate) fn transferring(&self) -> bool {
        matches!(&self.role, RoleState::Leader(leadership) if leadership.is_transferring())
    }

    /// Begins to hand over; nothing when there is nobody who could take over.
    pub(crate) fn transfer(&mut self) {
        let now = self.now;
        let deadline = now + self.config.election_timeout.start;
        let somebody = self.successors().next().is_some();
        if let RoleState::Leader(leadership) = &mut self.role
            && somebody
            && !leadership.is_transferring()
        {
            leadership.transfer.under_way = Some(UnderWay {
                deadline,
                told: Vec::new(),
                next_to_tell: now,
            });
            self.tell_successor();
        }
    }

    /// The followers that answer and can be elected.
    fn successors(&self) -> impl Iterator<Item = (ServerId, &Progress)> {
        let followers = match &self.role {
            RoleState::Leader(leadership) => Some(&leadership.followers),
            _ => None,
        };
        let timeout = self.config.election_timeout.start;
        followers
            .into_iter()
            .flatten()
            .map(|(id, progress)| (*id, progress))
            .filter(move |(id, progress)| {
                self.may_hold_the_majority(*id, progress) && self.now < progress.heard + timeout
            })
    }

    /// Once everything is committed, and so all that was proposed is answered, the first server
    /// that has every entry on its disk is told to stand for election; another one if that has not
    /// come to anything within a heartbeat interval.
    pub(crate) fn tell_successor(&mut self) {
        let RoleState::Leader(leadership) = &self.role else {
            return;
        };
        let Some(under_way) = &leadership.transfer.under_way else {
            return;
        };
        let last = self.log.last().index;
        let all_committed =
            self.commit_index >= last || mutants::is_on(Mutant::TransferUncommitted);
        if self.now < under_way.next_to_tell || !all_committed {
            return;
        }
        let level = self.successors().filter(|(_, it)| it.match_index == last);
        let untold = level.filter(|(id, _)| !under_way.told.contains(id));
        let successor = untold.max_by_key(|(_, it)| it.heard).map(|(id, _)| id);
        let next_to_tell = self.now + self.config.heartbeat;
        if let (Some(successor), RoleState::Leader(leadership)) = (successor, &mut self.role) {
            if let Some(under_way) = &mut leadership.transfer.under_way {
                under_way.told.push(successor);
                under_way.next_to_tell = next_to_tell;
            }
            self.send(successor, Body::TimeoutNow);
        }
    }

    pub(crate) fn transfer_deadline(&self, leadership: &Leadership) -> Option<Timestamp> {
        match &leadership.transfer.under_way {
            // Once the time to tell another has passed, it waits for one that is level.
            Some(under_way) if self.now < under_way.next_to_tell => {
                Some(under_way.deadline.min(under_way.next_to_tell))
            }
            Some(under_way) => Some(under_way.deadline),
            None => self.handover_deadline(leadership),
        }
    }

    /// When this server should hand over by itself: at once if it is not willing to lead, and when
    /// its disk has kept it waiting for too long.
    fn handover_deadline(&self, leadership: &Leadership) -> Option<Timestamp> {
        let next_try = leadership.transfer.next_try;
        if !self.is_willing() {
            return Some(next_try);
        }
        let oldest = self.oldest_write_at();
        oldest.map(|at| (at + STALLED_DISK_AFTER).max(next_try))
    }

    /// True unless another server should lead rather than this one.
    pub(crate) fn is_willing(&self) -> bool {
        self.candidacy == Candidacy::Willing || mutants::is_on(Mutant::CandidacyIgnored)
    }

    pub(crate) fn set_candidacy(&mut self, candidacy: Candidacy) {
        if std::mem::replace(&mut self.candidacy, candidacy) == candidacy {
            return;
        }
        match self.role {
            RoleState::Leader(_) => self.transfer_tick(),
            _ if self.config.members.len() > 1 => self.restart_election_timer(),
            _ => {}
        }
    }

    pub(crate) fn transfer_tick(&mut self) {
        let now = self.now;
        let RoleState::Leader(leadership) = &self.role else {
            return;
        };
        let handover_deadline = self.handover_deadline(leadership);
        let RoleState::Leader(leadership) = &mut self.role else {
            return;
        };
        let transfer = &mut leadership.transfer;
        transfer.under_way.take_if(|it| it.deadline <= now);
        let is_due = handover_deadline.is_some_and(|deadline| deadline <= now);
        if is_due && !transfer.is_under_way() {
            transfer.next_try = now + HANDOVER_INTERVAL;
            self.transfer();
        }
    }
}
