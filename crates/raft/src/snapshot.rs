//! Snapshots as the core sees them: which one this server has, where its log begins, which followers
//! need one, and how one that a leader has sent takes the place of state and log (§7). The bytes, the
//! files and their way over the network are others' work.

use std::collections::{BTreeMap, BTreeSet};

use mutants::Mutant;

use crate::io::Recovered;
use crate::log::Log;
use crate::members::Configuration;
use crate::message::{Body, InstallSnapshot, Message, Sender};
use crate::raft::{Raft, RoleState};
use crate::types::{EntryKind, Index, Position, ServerId, Snapshot, Term, Timestamp};

/// Entries are counted one at a time, and in no life of a cluster as far as this: a snapshot that
/// claims to be behind a later one is not believed, so that there is always a next index.
const INDEX_MAX: Index = Index(1 << 56);

/// What a server keeps of snapshots.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    /// The newest that is durable here and that this server has taken or installed.
    newest: Option<Snapshot>,
    /// To be told with the next output.
    installed: Option<Snapshot>,
    /// Followers to which a transfer was asked for that has not ended, whoever leads meanwhile.
    under_way: BTreeSet<ServerId>,
    /// A transfer that has ended is not asked for again before this.
    not_before: BTreeMap<ServerId, Timestamp>,
    /// To be asked for with the next output.
    asks: Vec<ServerId>,
}

impl Snapshots {
    /// # Panics
    /// If the log does not begin at or before the snapshot, or has another entry there.
    pub(crate) fn new(recovered: &Recovered, log: &Log) -> Snapshots {
        let snapshots = Snapshots {
            newest: recovered.snapshot.clone(),
            ..Snapshots::default()
        };
        let position = snapshots.position();
        assert!(
            log.position_at(position.index) == Some(position),
            "the snapshot is of {position:?}, the log behind {:?} up to {:?}",
            log.before(),
            log.last(),
        );
        snapshots
    }

    pub(crate) fn newest(&self) -> Option<&Snapshot> {
        self.newest.as_ref()
    }

    /// Where the newest is; 0, 0 when there is none.
    pub(crate) fn position(&self) -> Position {
        let newest = self.newest.as_ref();
        newest.map_or_else(Position::default, |it| it.position)
    }

    pub(crate) fn take_installed(&mut self) -> Option<Snapshot> {
        self.installed.take()
    }

    pub(crate) fn take_asks(&mut self) -> Vec<ServerId> {
        std::mem::take(&mut self.asks)
    }
}

impl Raft {
    /// What a snapshot of the state has to say of itself, once all that `Output::committed` has
    /// handed out is applied to that state.
    #[must_use]
    pub fn applied_snapshot(&self) -> Snapshot {
        let position = self.log.position_at(self.last_applied);
        let configuration = self.configurations.committed_entry(self.last_applied);
        Snapshot {
            position: position.expect("the log goes back to what is applied last"),
            configuration: configuration.cloned(),
        }
    }

    /// What a follower is to be told that has received this snapshot from this server; `None` if
    /// this server does not lead, or its leading is not on disk yet (rule 1). A message of an older
    /// term is of no use any more, so this is asked for when the transfer ends.
    #[must_use]
    pub fn install_message(&self, snapshot: Snapshot) -> Option<Message> {
        let leads = matches!(self.role, RoleState::Leader(_)) && self.is_vote_persisted();
        leads.then(|| Message {
            sender: self.sender(),
            term: self.hard_state.term,
            body: Body::InstallSnapshot(InstallSnapshot { snapshot }),
        })
    }

    /// A snapshot of this server's own state is durable.
    pub(crate) fn note_snapshot(&mut self, snapshot: Snapshot) {
        let position = snapshot.position;
        if position.index <= self.snapshots.position().index {
            return;
        }
        assert!(
            position.index <= self.last_applied
                && self.log.position_at(position.index) == Some(position),
            "a snapshot of {position:?}, but {} are applied",
            self.last_applied,
        );
        self.snapshots.newest = Some(snapshot);
    }

    /// The log on disk begins behind this entry now.
    pub(crate) fn dropped(&mut self, position: Position) {
        let old = self.log.before().index;
        // The log that this was said of may have been given up since.
        if position.index <= old {
            return;
        }
        assert!(
            position.index <= self.snapshots.position().index
                && position.index <= self.last_applied,
            "{position:?} was dropped, {} are in a snapshot and {} applied",
            self.snapshots.position().index,
            self.last_applied,
        );
        self.log.drop_until(position);
        let RoleState::Leader(leadership) = &mut self.role else {
            return;
        };
        // Whether they have what is missing is asked, before a whole snapshot is sent.
        for progress in leadership.followers.values_mut() {
            if progress.next_index > old && progress.next_index <= position.index {
                progress.probe(position.index.next());
            }
        }
    }

    /// This follower has said that it needs what the log no longer holds: it gets the snapshot, from
    /// one transfer at a time (rule 46).
    pub(crate) fn ask_for_install(&mut self, to: ServerId) {
        let snapshots = &mut self.snapshots;
        let waits = snapshots
            .not_before
            .get(&to)
            .is_some_and(|at| self.now < *at);
        if waits || !snapshots.under_way.insert(to) {
            return;
        }
        snapshots.asks.push(to);
        self.counters.installs += 1;
    }

    /// The transfer to this follower ended: whether it has brought anything is asked of it.
    pub(crate) fn install_ended(&mut self, follower: ServerId) {
        if !self.snapshots.under_way.remove(&follower) {
            return;
        }
        let again = self.now + self.config.heartbeat;
        self.snapshots.not_before.insert(follower, again);
        let before = self.log.before().index;
        if let Some(progress) = self.follower_mut(follower)
            && progress.next_index <= before
        {
            progress.probe(before.next());
        }
    }

    /// `InstallSnapshot` of this term: the snapshot is whole and durable here.
    pub(crate) fn install_snapshot(&mut self, from: Sender, request: InstallSnapshot) {
        let snapshot = request.snapshot;
        if self.following.is_another_than(from.id) || !self.is_believable(&from, &snapshot) {
            self.counters.malformed += 1;
            return;
        }
        if !self.leader_heard(from.id) {
            return;
        }
        let position = snapshot.position;
        self.following.answer_owed = true;
        // All that is committed is the leader's as well, and a snapshot holds nothing else.
        self.following.matched = self.following.matched.max(position.index);
        if position.index <= self.commit_index && !mutants::is_on(Mutant::InstallBelowCommit) {
            return;
        }
        let found = self.log.term_at(position.index);
        let holds = found == Some(position.term)
            || (mutants::is_on(Mutant::InstallKeepsConflict) && found.is_some());
        if holds {
            let bytes = self
                .log
                .cached_bytes(self.commit_index.next(), position.index);
            self.uncommitted_bytes = self.uncommitted_bytes.saturating_sub(bytes);
        } else {
            self.begin_behind(&snapshot);
        }
        self.commit_index = position.index;
        self.last_applied = position.index;
        self.to_apply.clear();
        self.snapshots.newest = Some(snapshot.clone());
        self.snapshots.installed = Some(snapshot);
        self.counters.installed += 1;
        self.take_seat();
    }

    /// Gives up the whole log. Never what is committed in it (rule 12).
    fn begin_behind(&mut self, snapshot: &Snapshot) {
        let (position, known) = (snapshot.position, self.commit_index_known());
        assert!(
            known < position.index || mutants::is_on(Mutant::InstallBelowCommit),
            "entry {} is to be replaced, but {known} are committed",
            position.index,
        );
        self.log.begin_behind(position);
        self.configurations.begin_behind(snapshot);
        self.uncommitted_bytes = 0;
    }

    /// True for a snapshot that the leader of this term may have: of entries that can be, with the
    /// configuration of its cluster, and in no conflict with what it has sent before.
    fn is_believable(&self, from: &Sender, snapshot: &Snapshot) -> bool {
        let Position { term, index } = snapshot.position;
        let possible = Index(0) < index
            && index <= INDEX_MAX
            && Term(0) < term
            && term <= self.hard_state.term;
        let found = self.log.term_at(index);
        let agrees = if index <= self.following.matched.max(self.commit_index) {
            index < self.log.before().index || found == Some(term)
        } else {
            self.log.term_at(self.commit_index) <= Some(term)
        };
        let configuration = snapshot.configuration.as_ref().filter(|entry| {
            entry.kind == EntryKind::Configuration
                && Index(0) < entry.index
                && entry.index <= index
                && entry.term <= term
        });
        let decoded = configuration.and_then(|entry| Configuration::decode(entry.payload.clone()));
        // What a cluster began with, a backup of another one, is from before its first configuration.
        let of_cluster = match &snapshot.configuration {
            None => true,
            Some(_) => decoded.is_some_and(|it| Some(it.cluster) == from.cluster),
        };
        let known = self.configurations.committed_entry(index);
        let is_new = index > self.commit_index && found == Some(term);
        let is_known = if is_new || configuration.is_none() {
            configuration == known
        } else {
            true
        };
        possible && agrees && of_cluster && is_known
    }
}
