//! Who is sent entries at once: as few followers as make a majority with this leader. What an entry
//! costs a follower (a message, a turn, a sync, an answer) is spent for its commit there. The others
//! get several entries in one message a little later, for the same safety at a part of that price,
//! and no later than they are needed.

use std::time::Duration;

use mutants::Mutant;

use crate::leader::Leadership;
use crate::progress::{Flow, Progress};
use crate::raft::{Raft, RoleState};
use crate::types::{ServerId, Timestamp};

/// Once so much has been appended, nothing more is kept from anybody: the others are to go on writing
/// small pieces too.
const DEFERRED_BYTES_MAX: usize = 256 << 10;

/// Answers that take no longer are all alike.
const PROMPT_ANSWER: Duration = Duration::from_millis(1);

/// Whom a leader keeps waiting, and until when.
#[derive(Debug, Default)]
pub(crate) struct Deferral {
    /// Sent everything at once; empty while all are.
    prompt: Vec<ServerId>,
    /// When the others are sent what they lack; `None` while they lack nothing.
    until: Option<Timestamp>,
    /// That time has come.
    is_over: bool,
    /// Appended since they were last sent all.
    bytes: usize,
}

impl Deferral {
    /// When something is due.
    pub(crate) fn deadline(&self) -> Timestamp {
        match self.until {
            Some(until) if !mutants::is_on(Mutant::DeferredForGood) => until,
            _ => Timestamp::NEVER,
        }
    }

    /// The log has grown by so many bytes.
    pub(crate) fn appended(&mut self, bytes: usize) {
        self.bytes += bytes;
    }
}

impl Raft {
    /// Notes that the others have waited long enough.
    pub(crate) fn deferral_tick(&mut self) {
        let now = self.now;
        if let RoleState::Leader(leadership) = &mut self.role {
            let deferral = &mut leadership.deferral;
            if now >= deferral.deadline() {
                deferral.until = None;
                deferral.is_over = true;
            }
        }
    }

    /// The followers that are to be sent now what they lack.
    pub(crate) fn take_due(&mut self) -> Vec<ServerId> {
        let peers = self.peers();
        let RoleState::Leader(leadership) = &self.role else {
            return Vec::new();
        };
        let stalled = |at| self.now.since(at) >= self.config.deferral;
        if self.config.deferral.is_zero()
            || leadership.is_transferring()
            // Without this leader's disk a majority takes one more of them.
            || self.oldest_write_at().is_some_and(stalled)
        {
            return peers;
        }
        let deferral = &leadership.deferral;
        let is_sound = |id| {
            let follower = leadership.followers.get(id);
            follower.is_some_and(|it| self.may_be_chosen(*id, it))
        };
        if deferral.is_over
            || deferral.bytes >= DEFERRED_BYTES_MAX
            || deferral.prompt.is_empty()
            || !deferral.prompt.iter().all(is_sound)
        {
            let prompt = self.nearest(leadership);
            if let RoleState::Leader(leadership) = &mut self.role {
                leadership.deferral = Deferral {
                    prompt,
                    ..Deferral::default()
                };
            }
            return peers;
        }
        let last = self.log.last().index;
        let may_wait = |id: &ServerId, progress: &Progress| {
            // One that does not know of its seat can't take a leader's place without it.
            progress.flow == Flow::Replicate
                && progress.catch_up.is_none()
                && progress.knows_seat
                && !deferral.prompt.contains(id)
        };
        let followers = leadership.followers.iter();
        let (waiting, due): (Vec<_>, Vec<_>) = followers.partition(|(id, it)| may_wait(id, it));
        let due = due.into_iter().map(|(id, _)| *id).collect();
        let window_bytes_max = self.config.window_bytes_max;
        let is_kept_back = waiting
            .iter()
            .any(|(_, it)| it.next_index <= last && it.has_room(window_bytes_max));
        let until = self.now + self.config.deferral;
        if is_kept_back && let RoleState::Leader(leadership) = &mut self.role {
            self.counters.deferred += u64::from(leadership.deferral.until.is_none());
            leadership.deferral.until.get_or_insert(until);
        }
        due
    }

    /// Whether this follower acknowledges entries as they come, and that counts.
    fn may_be_chosen(&self, id: ServerId, progress: &Progress) -> bool {
        progress.flow == Flow::Replicate
            && progress.catch_up.is_none()
            && self.may_hold_the_majority(id, progress)
    }

    /// As many followers as make a majority with this leader: those that acknowledge soonest. One that
    /// was chosen before stays, unless another takes less than half of its time. None if there are not
    /// as many.
    fn nearest(&self, leadership: &Leadership) -> Vec<ServerId> {
        let followers = leadership.followers.iter();
        let mut ranked: Vec<_> = followers
            .filter(|(id, progress)| self.may_be_chosen(**id, progress))
            .map(|(id, progress)| {
                let was_chosen = leadership.deferral.prompt.contains(id);
                let time = progress.answer_time(self.now) / if was_chosen { 2 } else { 1 };
                (time.max(PROMPT_ANSWER), !was_chosen, *id)
            })
            .collect();
        let needed = self.majority() - 1;
        if ranked.len() < needed {
            return Vec::new();
        }
        ranked.sort_unstable();
        ranked.truncate(needed);
        ranked.into_iter().map(|(.., id)| id).collect()
    }
}
