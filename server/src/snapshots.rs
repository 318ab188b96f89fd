//! What the threads and tasks that deal with snapshots share: the files, whom they tell of what,
//! and how far the log may be dropped.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use evaluator::Input;
use raft::{Index, Position, Snapshot};
use wal::DirectoryDisk;

use crate::bell::Sender;

/// One server's snapshots.
#[derive(Debug)]
pub(crate) struct Snapshots {
    pub(crate) files: wal::Snapshots<DirectoryDisk>,
    evaluator: Sender<Input>,
    /// The log writer drops what is not behind these.
    drops: Sender<Index>,
    figures: Arc<Figures>,
    /// The newest that was written here.
    newest: Mutex<Position>,
}

impl Snapshots {
    /// `newest` is the snapshot that this server has started from.
    pub(crate) fn new(
        files: wal::Snapshots<DirectoryDisk>,
        newest: Option<&Snapshot>,
        evaluator: Sender<Input>,
        drops: Sender<Index>,
        figures: Arc<Figures>,
    ) -> Snapshots {
        let newest = newest.map_or_else(Position::default, |newest| newest.position);
        Snapshots {
            files,
            evaluator,
            drops,
            figures,
            newest: Mutex::new(newest),
        }
    }

    /// A snapshot of this server's own state is durable. The core is told first: it must know of it
    /// when it is told of what was dropped for it. The log stays as far back as the snapshot before
    /// this one, to which a start falls back.
    pub(crate) fn written(&self, snapshot: Snapshot, figures: Taken) {
        self.figures.set(figures);
        let index = snapshot.position.index;
        let mut newest = self.newest();
        let before = std::mem::replace(&mut *newest, snapshot.position).index;
        drop(newest);
        self.tell(Input::SnapshotWritten(snapshot));
        if before < index {
            // The log writer ends only with the process, or after the evaluator.
            let _ = self.drops.send(before);
        }
    }

    pub(crate) fn tell(&self, input: Input) {
        // The evaluator ends only with the process.
        let _ = self.evaluator.send(input);
    }

    fn newest(&self) -> MutexGuard<'_, Position> {
        self.newest.lock().expect("nothing panics while it is held")
    }
}

/// What `/status` shows of the newest snapshot.
#[derive(Debug, Default)]
pub(crate) struct Figures(Mutex<Taken>);

/// One snapshot, written or loaded.
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

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().expect("nothing panics while it is held")
    }
}
