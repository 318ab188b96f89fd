//! Handing leadership over (diss. 3.10): when the server is about to stop, or its disk has stalled.

use mutants::Mutant;

use crate::leader::{Leadership, STALLED_DISK_AFTER};
use crate::message::Body;
use crate::progress::Progress;
use crate::raft::{Raft, RoleState};
use crate::types::{ServerId, Timestamp};

/// A leader's wish to be followed by another.
#[derive(Debug, Default)]
pub(crate) struct Transfer {
    under_way: Option<UnderWay>,
    /// A stalled disk hands over again only from here on.
    next_for_disk: Timestamp,
}

#[derive(Debug)]
struct UnderWay {
    /// Given up then, and leadership goes on (rule 33).
    deadline: Timestamp,
    /// A server was told to stand.
    told: bool,
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
        let deadline = self.now + self.config.election_timeout.start;
        let somebody = self.successors().next().is_some();
        if let RoleState::Leader(leadership) = &mut self.role
            && somebody
            && !leadership.is_transferring()
        {
            leadership.transfer.under_way = Some(UnderWay {
                deadline,
                told: false,
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
    /// that has every entry on its disk is told to stand for election.
    pub(crate) fn tell_successor(&mut self) {
        let RoleState::Leader(leadership) = &self.role else {
            return;
        };
        let waits = matches!(
            leadership.transfer.under_way,
            Some(UnderWay { told: false, .. })
        );
        let last = self.log.last().index;
        let all_committed =
            self.commit_index >= last || mutants::is_on(Mutant::TransferUncommitted);
        if !waits || !all_committed {
            return;
        }
        let level = self.successors().filter(|(_, it)| it.match_index == last);
        let successor = level.max_by_key(|(_, it)| it.heard).map(|(id, _)| id);
        if let (Some(successor), RoleState::Leader(leadership)) = (successor, &mut self.role) {
            if let Some(under_way) = &mut leadership.transfer.under_way {
                under_way.told = true;
            }
            self.send(successor, Body::TimeoutNow);
        }
    }

    pub(crate) fn transfer_deadline(&self, leadership: &Leadership) -> Option<Timestamp> {
        match &leadership.transfer.under_way {
            Some(under_way) => Some(under_way.deadline),
            None => self
                .oldest_write_at()
                .map(|at| (at + STALLED_DISK_AFTER).max(leadership.transfer.next_for_disk)),
        }
    }

    pub(crate) fn transfer_tick(&mut self) {
        let now = self.now;
        let RoleState::Leader(leadership) = &self.role else {
            return;
        };
        if self
            .transfer_deadline(leadership)
            .is_none_or(|deadline| now < deadline)
        {
            return;
        }
        let RoleState::Leader(leadership) = &mut self.role else {
            return;
        };
        if leadership.transfer.under_way.take().is_none() {
            leadership.transfer.next_for_disk = now + STALLED_DISK_AFTER;
            self.transfer();
        }
    }
}
