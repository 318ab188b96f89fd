//! A server whose disk has lost something that it may have promised: entries that it acknowledged,
//! and votes. It follows, and its word counts for nothing, until it is whole again.
//!
//! When is it? A leader that first hears of such a start appends an entry. Once that is committed by
//! a majority of others that are sound, and the recovering server has the log up to there on its
//! disk, it has lost nothing that matters:
//!
//! - Every entry that it helped to commit is on a majority but for itself and others that are
//!   recovering; no leader was elected since without asking one of these; so the leader has it,
//!   before the new entry.
//! - A vote that it has forgotten was given before it started, so to a candidate whose log ends before
//!   the new entry. If that vote was of a later term than the leader's, its candidate needs one of
//!   those that have acknowledged the entry, and all of these refuse it; and none of them had voted in
//!   the later term before, or it would not have acknowledged. If it was of the leader's term, the
//!   server does not vote for anyone else in that any more, since its own log has an entry of that
//!   term, which no other candidate of the term has.
//!
//! An entry from before the start would not do: it may have been committed already, by servers that
//! have elected a leader of a later term since with the help of the forgotten vote. A word to an
//! earlier start is no word to this one, which may have lost more.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use mutants::Mutant;

use crate::message::{Body, Healed, Sender};
use crate::progress::Health;
use crate::raft::{Raft, RoleState};
use crate::types::{EntryKind, Index, ServerId, Timestamp, WriteId};

/// For how long there must have been no leader, and how lately the others must have said that they
/// are recovering, before nobody is waited for any more.
pub const STRANDED_AFTER: Duration = Duration::from_secs(5);

/// How far this server has recovered, and what it knows of others that are recovering.
#[derive(Debug)]
pub(crate) struct Recovery {
    state: State,
    /// When each peer last said that it is recovering, unless it has said that it is not since.
    others: BTreeMap<ServerId, Timestamp>,
    /// When this server started, or a leader was last heard.
    alone_since: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sound,
    Recovering,
    /// Everything is on disk, and the next write says so.
    Whole,
    /// That is said with this write.
    Noted(WriteId),
}

impl Recovery {
    pub(crate) fn new(recovering: bool, now: Timestamp) -> Recovery {
        Recovery {
            state: if recovering {
                State::Recovering
            } else {
                State::Sound
            },
            others: BTreeMap::new(),
            alone_since: now,
        }
    }
}

impl Raft {
    /// True until it is on disk that it is not.
    pub(crate) fn is_recovering(&self) -> bool {
        self.recovery.state != State::Sound
    }

    /// The leader says when this server is whole again.
    pub(crate) fn healed(&mut self, from: ServerId, word: Healed) {
        if !self.leader_heard(from) {
            return;
        }
        if self.recovery.state != State::Recovering {
            return;
        }
        if word.restart != self.config.restart && !mutants::is_on(Mutant::HealedByOldWord) {
            self.counters.stale += 1;
            return;
        }
        let is_whole = self.persisted_match() >= word.index;
        if is_whole || mutants::is_on(Mutant::HealedBeforeSync) {
            self.recovery.state = State::Whole;
        }
    }

    /// Whether the next write is to say that this server has recovered.
    pub(crate) fn take_recovered(&mut self, write: WriteId) -> bool {
        let is_whole = self.recovery.state == State::Whole;
        if is_whole {
            self.recovery.state = State::Noted(write);
        }
        is_whole
    }

    /// Writes up to this one are synced.
    pub(crate) fn recovery_persisted(&mut self, id: WriteId) {
        if matches!(self.recovery.state, State::Noted(write) if write <= id) {
            self.recovery.state = State::Sound;
            self.counters.healed += 1;
        }
    }

    /// A follower has answered this leader, for the first time from this start or not. One that was
    /// recovering and is not any more never says again that it is: what arrives late says nothing.
    pub(crate) fn follower_recovers(&mut self, from: Sender, is_new: bool) {
        if from.recovering && is_new {
            let leads = matches!(self.role, RoleState::Leader(_));
            let last = self.log.last().index;
            let whole_with = if leads && !mutants::is_on(Mutant::HealedByOldEntry) {
                Some(self.append_as_leader(EntryKind::NoOp, Bytes::new()).index)
            } else {
                leads.then_some(last)
            };
            if let Some(progress) = self.follower_mut(from.id) {
                progress.health = Health::Recovering(whole_with);
            }
        } else if !from.recovering
            && let Some(progress) = self.follower_mut(from.id)
            && progress.is_recovering()
        {
            progress.health = Health::Sound;
            self.advance_commit_index();
        }
    }

    /// Tells a follower that is recovering when it is whole again, once that can be said: what it
    /// acknowledges itself does not count for that.
    pub(crate) fn tell_healed(&mut self, to: ServerId) {
        let RoleState::Leader(leadership) = &self.role else {
            return;
        };
        let Some(progress) = leadership.followers.get(&to) else {
            return;
        };
        let (Health::Recovering(Some(index)), Some((_, restart))) =
            (progress.health, progress.incarnation)
        else {
            return;
        };
        let has_it = progress.match_index >= index || mutants::is_on(Mutant::HealedBeforeSync);
        if self.commit_index >= index && has_it {
            self.send(to, Body::Healed(Healed { restart, index }));
        }
    }

    /// Notes what a peer says of itself.
    pub(crate) fn note_recovery_of(&mut self, peer: &Sender) {
        if peer.recovering {
            self.recovery.others.insert(peer.id, self.now);
        } else {
            self.recovery.others.remove(&peer.id);
        }
    }

    /// Nobody leads: if this server is recovering, the others are to know.
    pub(crate) fn tell_of_recovery(&mut self) {
        if self.is_recovering() {
            for peer in self.peers() {
                self.send_stale_term(peer);
            }
        }
    }

    /// A leader is there, so a majority is sound.
    pub(crate) fn not_alone(&mut self) {
        self.recovery.alone_since = self.now;
    }

    /// True if there is no majority left to recover from, as far as can be told.
    pub(crate) fn is_stranded(&self) -> bool {
        let recovery = &self.recovery;
        let lately = |at: &&Timestamp| self.now.since(**at) <= STRANDED_AFTER;
        let others = recovery.others.values().filter(lately).count();
        let sound = self.config.members.len().saturating_sub(others + 1);
        self.is_recovering()
            && sound < self.majority()
            && self.now.since(recovery.alone_since) >= STRANDED_AFTER
    }

    /// The entry that a recovering follower is whole with.
    pub(crate) fn check_health(&self, health: Health, last: Index) {
        if let Health::Recovering(Some(index)) = health {
            assert!(
                index <= last,
                "a follower is whole with entry {index}, the last is {last}",
            );
        }
    }
}
