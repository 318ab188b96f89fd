//! When a snapshot of the state is due, and the state that waits to take the place of this one.

use std::time::Duration;

use mutants::Mutant;
use raft::{ClusterId, Index, Position, Snapshot, Timestamp};
use store::{Frozen, Store};

use crate::io::{Config, Limits};

/// After a snapshot that came to nothing, for want of space, the next is not tried sooner.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The state after an entry, to be written out by somebody who has the time. Later commands do not
/// show in it; while it is there, the store copies what it changes.
#[derive(Debug)]
pub struct FrozenState {
    /// Whose state it is.
    pub cluster: ClusterId,
    /// What is to be said of it: `Input::SnapshotWritten` once it is durable.
    pub snapshot: Snapshot,
    pub store: Frozen,
}

/// The state that a received snapshot holds.
#[derive(Debug)]
pub struct LoadedState {
    /// Of the snapshot.
    pub position: Position,
    pub store: Box<Store>,
}

#[derive(Debug)]
pub(crate) struct Snapshots {
    /// The part of what is due between two snapshots that is due before the next one, as a
    /// fraction.
    part: (u64, u64),
    /// Entries applied since the newest snapshot was begun or installed, and their bytes.
    entries: u64,
    bytes: u64,
    /// One that reaches this entry is needed, however little was applied.
    wanted: Option<Index>,
    /// One was handed out, and nothing was heard of it.
    under_way: bool,
    /// None is begun before.
    not_before: Timestamp,
    /// What was received in this turn, until the core has decided.
    loaded: Vec<LoadedState>,
}

impl Snapshots {
    /// The servers of a cluster apply the same entries, and would all take their snapshots at the
    /// same time. So the first one after a start comes sooner, on each of them at another time.
    ///
    /// # Panics
    /// If this server is not among the members.
    pub(crate) fn new(config: &Config) -> Snapshots {
        let members = &config.members;
        let is_member = members.iter().any(|member| member.id == config.id);
        assert!(is_member, "server {} is no member", config.id);
        let before = members.iter().filter(|member| member.id < config.id);
        let part = (before.count() as u64 + 1, members.len() as u64);
        Snapshots {
            part,
            entries: 0,
            bytes: 0,
            under_way: false,
            not_before: Timestamp(0),
            wanted: None,
            loaded: Vec::new(),
        }
    }

    /// An entry was applied.
    pub(crate) fn applied(&mut self, bytes: usize) {
        self.entries += 1;
        self.bytes += bytes as u64;
    }

    /// The next one is to reach this entry, and is not to wait longer than for that.
    pub(crate) fn wanted(&mut self, index: Index) {
        // There is no snapshot of nothing.
        let index = index.max(Index(1));
        if !mutants::is_on(Mutant::WantedIgnored) {
            self.wanted = self.wanted.max(Some(index));
        }
    }

    /// Whether one is to be begun now, of the state behind `applied`.
    pub(crate) fn is_due(&self, limits: &Limits, applied: Index, now: Timestamp) -> bool {
        let (part, of) = self.part;
        let entries = limits.snapshot_entries * part / of;
        let bytes = limits.snapshot_bytes * part / of;
        let much = self.entries >= entries.max(1) || self.bytes >= bytes;
        let wanted = self.wanted.is_some_and(|wanted| wanted <= applied);
        (much || wanted) && !self.under_way && now >= self.not_before
    }

    pub(crate) fn begun(&mut self, applied: Index) {
        self.part = (1, 1);
        self.entries = 0;
        self.bytes = 0;
        self.wanted = self.wanted.filter(|wanted| *wanted > applied);
        self.under_way = true;
    }

    pub(crate) fn written(&mut self) {
        self.under_way = false;
    }

    pub(crate) fn failed(&mut self, now: Timestamp) {
        self.under_way = false;
        self.not_before = now + AGAIN_AFTER;
        // What that one was to cover is still to be covered.
        self.entries = u64::MAX / 2;
    }

    /// A received state waits.
    pub(crate) fn loaded(&mut self, loaded: LoadedState) {
        self.loaded.push(loaded);
    }

    /// The states that wait, when the core has decided.
    pub(crate) fn take_loaded(&mut self) -> Vec<LoadedState> {
        std::mem::take(&mut self.loaded)
    }

    pub(crate) fn installed(&mut self) {
        self.entries = 0;
        self.bytes = 0;
    }
}
