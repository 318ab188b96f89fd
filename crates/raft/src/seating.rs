//! Who is who (rule 41): members and their seats, an unseated server's way into its cluster, and
//! which messages are let in at all.

use std::sync::Arc;

use mutants::Mutant;

use crate::io::{Candidacy, Recovered};
use crate::members::{Configuration, Member};
use crate::message::{Body, Message, Sender};
use crate::quorum;
use crate::raft::{Raft, RoleState};
use crate::types::{ClusterId, Entry, EntryKind, Index, Instance, Seating, ServerId, Snapshot};

/// The configuration entries of the log, in order, and before them the one that is in the newest
/// snapshot that this server began with or installed (rule 40).
#[derive(Debug, Default)]
pub(crate) struct Configurations {
    entries: Vec<Known>,
}

/// A configuration entry with what it says.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) index: Index,
    pub(crate) configuration: Arc<Configuration>,
    entry: Entry,
}

impl Configurations {
    pub(crate) fn new(recovered: &Recovered) -> Configurations {
        let mut configurations = Configurations::default();
        if let Some(snapshot) = &recovered.snapshot {
            configurations.begin_behind(snapshot);
        }
        let base = configurations.entries.last().map(|known| known.index);
        for entry in &recovered.configurations {
            if base.is_none_or(|base| entry.index > base) {
                configurations.append(entry);
            }
        }
        configurations
    }

    /// All are superseded by what this snapshot holds.
    pub(crate) fn begin_behind(&mut self, snapshot: &Snapshot) {
        self.entries.clear();
        if let Some(entry) = &snapshot.configuration
            && !mutants::is_on(Mutant::SnapshotWithoutConfiguration)
        {
            self.append(entry);
        }
    }

    /// # Panics
    /// If the payload is no configuration: leaders write nothing else, and both the disk's and the
    /// frames' checksums have been looked at.
    pub(crate) fn append(&mut self, entry: &Entry) {
        let configuration = Configuration::decode(entry.payload.clone());
        let configuration = configuration.expect("a configuration entry holds a configuration");
        self.entries.push(Known {
            index: entry.index,
            configuration: Arc::new(configuration),
            entry: entry.clone(),
        });
    }

    pub(crate) fn truncate(&mut self, from: Index) {
        self.entries.retain(|known| known.index < from);
    }

    /// The newest one.
    pub(crate) fn last(&self) -> Option<&Known> {
        self.entries.last()
    }

    /// The newest at or below `committed`.
    pub(crate) fn committed(&self, committed: Index) -> Option<&Known> {
        self.entries
            .iter()
            .rev()
            .find(|known| known.index <= committed)
    }

    /// The entry that the newest at or below `committed` came with.
    pub(crate) fn committed_entry(&self, committed: Index) -> Option<&Entry> {
        self.committed(committed).map(|known| &known.entry)
    }

    /// The newest at or below `committed`; when there is none, the first, whose seats are those of
    /// the servers that can commit it.
    pub(crate) fn effective(&self, committed: Index) -> Option<&Arc<Configuration>> {
        let found = self.committed(committed).or(self.entries.first());
        found.map(|known| &known.configuration)
    }

    pub(crate) fn committed_or_last(&self, committed: Index) -> Option<Arc<Configuration>> {
        let found = self.committed(committed).or(self.entries.last());
        found.map(|known| Arc::clone(&known.configuration))
    }
}

impl Raft {
    /// The highest index that this server has ever known to be committed, as far as seats go.
    pub(crate) fn commit_index_known(&self) -> Index {
        match self.hard_state.seating {
            Seating::Seated {
                configuration_index,
                ..
            } => configuration_index.max(self.commit_index),
            Seating::Unseated | Seating::Met(_) => self.commit_index,
        }
    }

    /// The other members.
    pub(crate) fn peers(&self) -> Vec<ServerId> {
        let others = self.config.members.iter().map(|(id, _)| *id);
        others.filter(|id| *id != self.config.id).collect()
    }

    /// True if this member's acknowledgements count: the data directory that gives them has its
    /// seat.
    pub(crate) fn counts(&self, id: ServerId, instance: Option<Instance>) -> bool {
        let seats = self.configurations.effective(self.commit_index_known());
        instance.is_some() && seats.and_then(|seats| seats.seat(id)) == instance
    }

    pub(crate) fn majority(&self) -> usize {
        quorum::majority(self.config.members.len())
    }

    /// Lets a message in, or not; an unseated server that meets a seated one remembers it.
    pub(crate) fn admit(&mut self, message: &Message) -> bool {
        let from = &message.sender;
        if from.id == self.config.id || !self.config.members.iter().any(|(id, _)| *id == from.id) {
            self.counters.from_strangers += 1;
            return false;
        }
        let ours = self.hard_state.seating.cluster();
        let foreign = from.cluster.is_some() && ours.is_some() && from.cluster != ours;
        let seats = self.configurations.committed(self.commit_index_known());
        let seat = seats.and_then(|known| known.configuration.seat(from.id));
        let wiped = seat.is_some_and(|seat| seat != from.instance)
            && !mutants::is_on(Mutant::WipedDiskAdmitted);
        if foreign || wiped {
            self.counters.from_impostors += 1;
            return false;
        }
        // Servers that start a cluster of their own do not lead one that exists; the answer shows
        // them that it does.
        let leads = matches!(
            message.body,
            Body::AppendEntries(_)
                | Body::Heartbeat(_)
                | Body::InstallSnapshot(_)
                | Body::TimeoutNow
                | Body::Healed(_)
        );
        if leads && ours.is_some() && from.cluster.is_none() && seat.is_none() {
            self.counters.from_impostors += 1;
            self.send_stale_term(from.id);
            return false;
        }
        if let (Seating::Unseated, Some(cluster)) = (self.hard_state.seating, from.cluster) {
            self.meet(cluster);
        }
        self.note_recovery_of(from);
        true
    }

    fn meet(&mut self, cluster: ClusterId) {
        self.hard_state.seating = Seating::Met(cluster);
        self.reveal_hard_state();
        if !matches!(self.role, RoleState::Follower) {
            self.become_follower(self.hard_state.term);
            self.restart_election_timer();
        }
        self.take_seat();
    }

    /// Notices a committed configuration that gives this server its seat, or a newer one.
    ///
    /// A server that is in the cluster of its own first configuration knows that this entry is
    /// committed: the cluster's id was drawn for it, and nobody is seated before it is.
    pub(crate) fn take_seat(&mut self) {
        let known = self.commit_index_known();
        let met = match self.hard_state.seating {
            Seating::Met(cluster) => Some(cluster),
            Seating::Unseated | Seating::Seated { .. } => None,
        };
        let first = self.configurations.entries.first();
        let first = first.filter(|first| Some(first.configuration.cluster) == met);
        let known = first.map_or(known, |first| known.max(first.index));
        let Some(known) = self.configurations.committed(known) else {
            return;
        };
        let configuration = &known.configuration;
        if configuration.seat(self.config.id) != Some(self.config.instance) {
            return;
        }
        let seating = Seating::Seated {
            cluster: configuration.cluster,
            configuration_index: known.index,
        };
        if seating == self.hard_state.seating {
            return;
        }
        let was_seated = self.hard_state.seating.is_seated();
        self.hard_state.seating = seating;
        if was_seated {
            self.keep_hard_state()
        } else {
            self.reveal_hard_state()
        }
    }

    /// True if this server may vote for that one, as far as seats go, and if it may vote at all.
    pub(crate) fn may_vote_for(&self, candidate: &Sender) -> bool {
        if self.is_recovering() && !mutants::is_on(Mutant::RecoveringVotes) {
            return false;
        }
        match self.hard_state.seating {
            Seating::Unseated => candidate.cluster.is_none(),
            Seating::Met(_) => mutants::is_on(Mutant::MetServerVotes),
            Seating::Seated { cluster, .. } => {
                candidate.cluster == Some(cluster) || mutants::is_on(Mutant::SeatedVotesForUnseated)
            }
        }
    }

    /// True if this server may stand for election: it is seated, or has met nobody who is; it has all
    /// that it has promised; and no committed configuration waits to be applied (rule 32).
    pub(crate) fn may_campaign(&self) -> bool {
        if self.is_recovering() && !mutants::is_on(Mutant::RecoveringCampaigns) {
            return false;
        }
        let seated = !matches!(self.hard_state.seating, Seating::Met(_));
        let committed = self.configurations.committed(self.commit_index);
        let applied = committed.is_none_or(|known| known.index <= self.last_applied);
        let barred = self.candidacy == Candidacy::Barred;
        seated && !barred && (applied || mutants::is_on(Mutant::CampaignUnapplied))
    }

    /// The first configuration of a new cluster: the seats are the voters' (rule 41).
    pub(crate) fn first_configuration(
        &self,
        cluster: ClusterId,
        voters: &[(ServerId, Instance)],
    ) -> Configuration {
        let mut members: Vec<Member> = self
            .config
            .members
            .iter()
            .map(|(id, address)| {
                let voter = voters.iter().find(|(voter, _)| voter == id);
                Member {
                    id: *id,
                    seat: voter.map(|(_, instance)| *instance),
                    address: address.clone(),
                }
            })
            .collect();
        members.sort_by_key(|member| member.id);
        Configuration { cluster, members }
    }

    /// Seats the members that this leader has seen and that have none, one entry at a time and
    /// only behind an entry of its own term (rule 39).
    pub(crate) fn seat_newcomers(&mut self) {
        let RoleState::Leader(leadership) = &self.role else {
            return;
        };
        let Some(last) = self.configurations.last() else {
            return;
        };
        let committed = last.index <= self.commit_index || mutants::is_on(Mutant::SeatBeforeCommit);
        let are_seated = last
            .configuration
            .members
            .iter()
            .all(|it| it.seat.is_some());
        if are_seated || !self.serves() || !committed || leadership.is_transferring() {
            return;
        }
        let mut configuration = Configuration::clone(&last.configuration);
        for member in configuration
            .members
            .iter_mut()
            .filter(|member| member.seat.is_none())
        {
            member.seat = leadership
                .incarnation(member.id)
                .map(|(instance, _)| instance);
        }
        if configuration != *last.configuration {
            self.append_as_leader(EntryKind::Configuration, configuration.encode());
        }
    }
}
