//! Scripts of what a consensus core and its evaluator might ask of a log.

use bytes::Bytes;
use raft::{
    Entry, EntryKind, HardState, Index, Position, Seating, ServerId, Snapshot, Term, Write, WriteId,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::snapshots::{CLUSTER, snapshot_at};
use super::{Model, entries};

/// One thing that is done to a log.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Append(Write),
    Sync,
    Prepare,
    /// Writes this snapshot, of the server's own state.
    Snapshot(Snapshot),
    /// Receives this snapshot. The next write begins the log behind it.
    Receive(Snapshot),
    /// Drops the log up to here, and keeps this many bytes.
    Drop(Index, u64),
}

/// A script of this many operations: entries of all kinds and many sizes, batches of one and of
/// several writes, votes, new terms, and conflicts that take entries back.
pub(crate) fn script(seed: u64, operations: usize) -> Vec<Operation> {
    Author::new(seed, Model::default()).script(operations, false)
}

/// The same with snapshots: own ones, of entries that may not be synced yet, and others' in place
/// of the log; and with what they cover dropped.
pub(crate) fn script_with_snapshots(seed: u64, operations: usize) -> Vec<Operation> {
    script_behind(Model::default(), seed, operations)
}

/// The same for a log that holds something already.
pub(crate) fn script_behind(model: Model, seed: u64, operations: usize) -> Vec<Operation> {
    Author::new(seed, model).script(operations, true)
}

/// Who writes a script.
struct Author {
    random: StdRng,
    model: Model,
    id: WriteId,
    /// The newest last: what it covers is committed.
    snapshots: Vec<Snapshot>,
}

impl Author {
    fn new(seed: u64, model: Model) -> Author {
        Author {
            random: StdRng::seed_from_u64(seed),
            id: WriteId(0),
            snapshots: model.snapshot.iter().cloned().collect(),
            model,
        }
    }

    fn script(mut self, operations: usize, with_snapshots: bool) -> Vec<Operation> {
        let mut script = Vec::new();
        while script.len() < operations {
            if with_snapshots && self.random.random_range(0..12) == 0 {
                self.snapshot(&mut script);
                continue;
            }
            let operation = match self.random.random_range(0..20) {
                0..11 => self.write(),
                11..19 => Operation::Sync,
                _ => Operation::Prepare,
            };
            script.push(operation);
        }
        script
    }

    fn write(&mut self) -> Operation {
        self.id = self.id.next();
        let committed = self.committed();
        let write = random_write(&mut self.random, &self.model, committed, self.id);
        self.model.apply(&write);
        Operation::Append(write)
    }

    fn committed(&self) -> Index {
        let newest = self.snapshots.last();
        newest.map_or(Index(0), |newest| newest.position.index)
    }

    fn snapshot(&mut self, script: &mut Vec<Operation>) {
        match self.random.random_range(0..8) {
            0..3 => {
                let (from, to) = (self.committed().0, self.model.last().index.0);
                if from < to {
                    let index = Index(self.random.random_range(from + 1..=to));
                    let position = self.model.position_at(index);
                    let snapshot = self.take(position.expect("it is in the log"));
                    script.push(Operation::Snapshot(snapshot));
                }
            }
            3..7 => {
                // Up to the newest snapshot, or to the one before.
                let back = self.random.random_range(0..2);
                if let Some(snapshot) = self.snapshots.iter().rev().nth(back) {
                    let kept_bytes = self.random.random_range(0..3) * 9000;
                    script.push(Operation::Drop(snapshot.position.index, kept_bytes));
                }
            }
            _ => self.install(script),
        }
    }

    /// A snapshot from the leader of a later term replaces the log, which ends before it or holds
    /// another entry there.
    fn install(&mut self, script: &mut Vec<Operation>) {
        let (committed, last) = (self.committed().0, self.model.last().index.0);
        let index = self.random.random_range(committed + 1..last + 30);
        let term = self.model.hard_state.term.max(Term(1)).next();
        let position = Position {
            term,
            index: Index(index),
        };
        let snapshot = self.take(position);
        script.push(Operation::Receive(snapshot));
        self.id = self.id.next();
        let mut write = Write {
            id: self.id,
            hard_state: Some(HardState {
                term,
                ..self.model.hard_state
            }),
            begin_behind: Some(position),
            ..Write::default()
        };
        if self.random.random_range(0..2) == 0 {
            write.entries = entries(term.0, index, &[b"behind it"]);
        }
        self.model.apply(&write);
        script.push(Operation::Append(write));
    }

    fn take(&mut self, position: Position) -> Snapshot {
        let snapshot = snapshot_at(position);
        self.snapshots.push(snapshot.clone());
        snapshot
    }
}

fn random_write(random: &mut StdRng, model: &Model, committed: Index, id: WriteId) -> Write {
    let mut write = Write {
        id,
        ..Write::default()
    };
    let mut last = model.last();
    let mut term = model.hard_state.term.max(last.term).max(Term(1));
    if random.random_range(0..12) == 0 {
        term = term.next();
        let open = last.index - committed;
        let back = random.random_range(0..open.clamp(1, 40));
        if back > 0 {
            let from = Index(last.index.0 - back + 1);
            write.truncate_from = Some(from);
            last.index = from.prev();
        }
    }
    for _ in 0..random.random_range(0..4) {
        last.index = last.index.next();
        let kind = match random.random_range(0..10) {
            0 => EntryKind::NoOp,
            1 => EntryKind::Configuration,
            _ => EntryKind::Command,
        };
        write.entries.push(Entry {
            term,
            index: last.index,
            kind,
            payload: random_payload(random),
        });
    }
    if term != model.hard_state.term || random.random_range(0..8) == 0 {
        let cluster = CLUSTER;
        write.hard_state = Some(HardState {
            term,
            voted_for: Some(ServerId(random.random_range(1..6))),
            seating: match term.0 {
                1 => Seating::Unseated,
                2 => Seating::Met(cluster),
                _ => Seating::Seated {
                    cluster,
                    configuration_index: last.index,
                },
            },
        });
    }
    write
}

/// Mostly short; some have whole sectors of zeros, some are larger than a segment.
fn random_payload(random: &mut StdRng) -> Bytes {
    let length = match random.random_range(0..200) {
        0 => 10_000,
        1..10 => random.random_range(500..3000),
        10..30 => 0,
        _ => random.random_range(0..120),
    };
    let mut payload = vec![0; length];
    if random.random_range(0..4) > 0 {
        random.fill_bytes(&mut payload);
    } else if let Some(last) = payload.last_mut() {
        *last = 0xff;
    }
    payload.into()
}
