//! What must hold in one server, and between servers, after every step. Tests and the simulation
//! call both; a failure is a bug of ours.

use crate::io::Role;
use crate::raft::{Raft, RoleState};
use crate::types::Index;

impl Raft {
    /// Panics unless everything holds that must hold inside one server.
    ///
    /// # Panics
    /// If an invariant is broken.
    pub fn check(&self) {
        let last = self.log.last();
        assert!(
            self.last_applied <= self.commit_index,
            "applied {} but committed only {}",
            self.last_applied,
            self.commit_index,
        );
        assert!(
            self.commit_index <= last.index,
            "committed {} but the last entry is {}",
            self.commit_index,
            last.index,
        );
        assert!(
            last.term <= self.hard_state.term,
            "the last entry is of term {}, the server in {}",
            last.term,
            self.hard_state.term,
        );
        self.log.check();
        assert!(
            !self.is_recovering() || matches!(self.role, RoleState::Follower),
            "recovering, and a {:?}",
            self.status().role,
        );
        let (before, snapshot) = (self.log.before(), self.snapshots.position());
        assert!(
            before.index <= snapshot.index
                && snapshot.index <= self.last_applied
                && self.log.position_at(snapshot.index) == Some(snapshot),
            "the log is behind {before:?}, the snapshot of {snapshot:?}, {} are applied",
            self.last_applied,
        );
        let configuration = self.snapshots.newest().map(|it| it.configuration.as_ref());
        assert!(
            configuration
                .is_none_or(|it| it == self.configurations.committed_entry(snapshot.index)),
            "the snapshot holds the configuration {configuration:?}, the log {:?}",
            self.configurations.committed_entry(snapshot.index),
        );
        if let RoleState::Leader(leadership) | RoleState::Suspended(leadership, _) = &self.role {
            assert!(
                self.hard_state.voted_for == Some(self.config.id),
                "leads term {} but voted for {:?}",
                self.hard_state.term,
                self.hard_state.voted_for,
            );
            assert!(
                self.is_vote_persisted() || self.hard_state.seating.is_seated(),
                "leads term {} before its vote is on disk",
                self.hard_state.term,
            );
            for progress in leadership.followers.values() {
                progress.check();
                self.check_health(progress.health, last.index);
                assert!(
                    progress.match_index <= last.index,
                    "a follower matches up to {}, the leader has {}",
                    progress.match_index,
                    last.index,
                );
            }
        }
    }
}

/// Panics unless everything holds that must hold between servers: one leader a term (§5.2), one
/// term for each committed index that both logs hold (§5.4), and one configuration in the snapshots
/// of an index (rule 40).
///
/// # Panics
/// If an invariant is broken.
pub fn check_cluster<'a>(servers: impl IntoIterator<Item = &'a Raft>) {
    let servers: Vec<&Raft> = servers.into_iter().collect();
    for (position, one) in servers.iter().enumerate() {
        for other in servers.iter().skip(position + 1) {
            check_pair(one, other);
        }
    }
}

fn check_pair(one: &Raft, other: &Raft) {
    let leads = |raft: &Raft| matches!(raft.status().role, Role::Leader | Role::Suspended);
    assert!(
        !(leads(one) && leads(other) && one.hard_state.term == other.hard_state.term),
        "servers {} and {} both lead term {}",
        one.config.id,
        other.config.id,
        one.hard_state.term,
    );
    if let (Some(ours), Some(theirs)) = (one.snapshots.newest(), other.snapshots.newest()) {
        assert!(
            ours == theirs || ours.position.index != theirs.position.index,
            "servers {} and {} have snapshots {ours:?} and {theirs:?}",
            one.config.id,
            other.config.id,
        );
    }
    let begin = one.log.before().index.max(other.log.before().index);
    let mut index = one.commit_index.min(other.commit_index);
    while index >= begin && index > Index(0) {
        let (ours, theirs) = (one.log.term_at(index), other.log.term_at(index));
        assert!(
            ours == theirs,
            "servers {} and {} committed index {index} in terms {ours:?} and {theirs:?}",
            one.config.id,
            other.config.id,
        );
        // One term's entries are its one leader's: equal terms here are equal terms below, down
        // to where the term begins.
        let below = one.log.term_start(index).prev();
        index = if index > begin {
            below.max(begin)
        } else {
            below
        };
    }
}
