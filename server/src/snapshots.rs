//! What the threads and tasks that deal with snapshots share: the files, whom they tell of what,
//! and how far the log may be dropped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use evaluator::Input;
use raft::{Index, Message, Position, Snapshot};
use tokio::sync::oneshot;
use tracing::warn;
use wal::{DirectoryDisk, Part, Rotten};

use crate::bell::Sender;
use crate::scrub_thread;

/// One server's snapshots.
#[derive(Debug)]
pub(crate) struct Snapshots {
    pub(crate) files: wal::Snapshots<DirectoryDisk>,
    evaluator: Sender<FromSnapshots>,
    /// What the log writer is to drop.
    drops: Sender<Useless>,
    pub(crate) figures: Arc<Figures>,
    scrubs: Arc<scrub_thread::Figures>,
    log: Mutex<Log>,
}

/// How far the log is needed.
#[derive(Debug, Default)]
struct Log {
    /// The newest snapshot, written here or received.
    newest: Position,
    /// What is behind these is needed by followers that get a snapshot up to there, by a number of
    /// no meaning.
    held: BTreeMap<u64, Index>,
    last_held: u64,
}

/// What the evaluator is told.
#[derive(Debug)]
pub(crate) enum FromSnapshots {
    Input(Input),
    /// What is a follower to be told that has received this?
    Message(Snapshot, oneshot::Sender<Option<Message>>),
}

/// What the log does without.
#[derive(Debug)]
pub(crate) enum Useless {
    /// There is a snapshot up to `newest`. What is not behind `until` is not needed to fall back to
    /// the one before it either.
    Covered { until: Option<Index>, newest: Index },
    /// The segment with this sequence, once a snapshot has what is in it.
    Rotten(u64),
}

impl Snapshots {
    /// `newest` is the snapshot that this server has started from.
    pub(crate) fn new(
        files: wal::Snapshots<DirectoryDisk>,
        newest: Option<&Snapshot>,
        evaluator: Sender<FromSnapshots>,
        drops: Sender<Useless>,
        figures: Arc<Figures>,
        scrubs: Arc<scrub_thread::Figures>,
    ) -> Snapshots {
        let newest = newest.map_or_else(Position::default, |newest| newest.position);
        Snapshots {
            files,
            evaluator,
            drops,
            figures,
            scrubs,
            log: Mutex::new(Log {
                newest,
                ..Log::default()
            }),
        }
    }

    /// A snapshot of this server's own state is durable. The core is told first: it must know of it
    /// when it is told of what was dropped for it. The log stays as far back as the snapshot before
    /// this one, to which a start falls back.
    pub(crate) fn written(&self, snapshot: Snapshot, figures: Taken) {
        self.figures.set(figures);
        let index = snapshot.position.index;
        let (before, until) = {
            let mut log = self.log();
            let before = std::mem::replace(&mut log.newest, snapshot.position).index;
            let held = log.held.values().min();
            (before, held.map_or(before, |held| before.min(*held)))
        };
        self.tell(FromSnapshots::Input(Input::SnapshotWritten(snapshot)));
        self.tell_log(Useless::Covered {
            until: (before < index).then_some(until),
            newest: index,
        });
    }

    /// This part of what is on disk can't be read any more: a new snapshot is to take its place.
    pub(crate) fn replace(&self, rotten: Rotten) {
        warn!("{rotten}; a snapshot of what this server has in memory takes its place");
        self.scrubs.found_rot();
        match rotten.part {
            Part::Segment(sequence) => self.tell_log(Useless::Rotten(sequence)),
            Part::Snapshot(position) => {
                self.files.give_up(position);
                let any = Input::SnapshotWanted(Index(0));
                self.tell(FromSnapshots::Input(any));
            }
        }
    }

    fn tell_log(&self, useless: Useless) {
        // The log writer ends only with the process, or after the evaluator.
        let _ = self.drops.send(useless);
    }

    /// A leader's snapshot is durable here, whatever the core makes of it.
    pub(crate) fn received(&self, position: Position, figures: Taken) {
        self.figures.set(figures);
        let mut log = self.log();
        if position.index > log.newest.index {
            log.newest = position;
        }
    }

    /// From now on the log is not dropped beyond this entry.
    pub(crate) fn hold(self: &Arc<Snapshots>, index: Index) -> Held {
        let mut log = self.log();
        log.last_held += 1;
        let number = log.last_held;
        log.held.insert(number, index);
        Held {
            snapshots: Arc::clone(self),
            number,
        }
    }

    pub(crate) fn tell(&self, what: FromSnapshots) {
        // The evaluator ends only with the process.
        let _ = self.evaluator.send(what);
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().expect("nothing panics while it is held")
    }
}

/// Holds a part of the log until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    snapshots: Arc<Snapshots>,
    number: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.snapshots.log().held.remove(&self.number);
    }
}

/// What `/status` shows of snapshots.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    newest: Mutex<Taken>,
    received_bytes: AtomicU64,
}

/// One snapshot, written, received or loaded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) index: Index,
    /// Of its content.
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
}

impl Figures {
    pub(crate) fn set(&self, taken: Taken) {
        *self.taken() = taken;
    }

    pub(crate) fn get(&self) -> Taken {
        *self.taken()
    }

    /// So much has arrived of a snapshot that is on its way; 0 if none is.
    pub(crate) fn receiving(&self, bytes: u64) {
        self.received_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.newest.lock().expect("nothing panics while it is held")
    }
}
