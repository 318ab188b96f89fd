//! Handing leadership over (diss. 3.10): when the server is about to stop, or its disk has stalled.

use crate::leader::{Leadership, STALLED_DISK_AFTER};
use crate::message::Body;
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
    target: ServerId,
    /// Given up then, and leadership goes on (rule 33).
    deadline: Timestamp,
    /// The target was told.
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

    /// Begins to hand over to the most caught-up server that answers; nothing when there is none.
    pub(crate) fn transfer(&mut self) {
        let (now, timeout) = (self.now, self.config.election_timeout.start);
        let RoleState::Leader(leadership) = &self.role else {
            return;
        };
        if leadership.is_transferring() {
            return;
        }
        let target = leadership
            .followers
            .iter()
            .filter(|(id, progress)| {
                self.counts(**id, progress.incarnation.map(|(instance, _)| instance))
                    && now < progress.heard + timeout
            })
            .max_by_key(|(_, progress)| progress.match_index)
            .map(|(id, _)| *id);
        if let (Some(target), RoleState::Leader(leadership)) = (target, &mut self.role) {
            let deadline = now + timeout;
            leadership.transfer.under_way = Some(UnderWay {
                target,
                deadline,
                told: false,
            });
            self.tell_target();
        }
    }

    /// The target stands for election once it has every entry, and everything is committed: all
    /// that was proposed is answered.
    pub(crate) fn tell_target(&mut self) {
        let last = self.log.last().index;
        let all_committed = self.commit_index == last;
        let RoleState::Leader(leadership) = &mut self.role else {
            return;
        };
        let Some(under_way) = &mut leadership.transfer.under_way else {
            return;
        };
        let target = under_way.target;
        let level = leadership
            .followers
            .get(&target)
            .is_some_and(|it| it.match_index == last);
        if all_committed && level && !under_way.told {
            under_way.told = true;
            self.send(target, Body::TimeoutNow);
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
