//! The thread that has the time: it writes frozen states out as snapshots, hashes them, and drops
//! what would take a turn of the evaluator too long to drop.

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use evaluator::{FrozenState, HashJob, Input};
use raft::Snapshot;
use rustix::process::setpriority_process;
use store::{Garbage, Store};
use tracing::{debug, info, warn};
use wal::{DirectoryDisk, Error, SNAPSHOT_PIECE_BYTES_MAX, SnapshotWriter};

use crate::fatal;
use crate::snapshots::{FromSnapshots, Snapshots, Taken};

/// How fast a snapshot is written. Each sync of the log has the disk write down what it was given
/// before: beside five writers that go as fast as they can it takes eleven times as long, beside
/// five at this rate no longer than beside none.
const BYTES_PER_SECOND: u64 = 32 << 20;

/// The thread's place behind all others of this process, as `nice` counts: where processors are
/// short, about a tenth of what another thread gets.
const NICE: i32 = 10;

/// Between two parts of what is freed, about a thousand items each: a million take a second.
const DISCARD_INTERVAL: Duration = Duration::from_millis(1);

/// What the evaluator leaves to the thread.
#[derive(Debug)]
pub(crate) enum Work {
    /// One at a time: the evaluator gives the next when it has heard of this one.
    Write(FrozenState),
    Hash(HashJob),
    Drop(Vec<Store>),
}

/// Does what comes in, until there is no evaluator any more.
pub(crate) fn run(work: &Receiver<Work>, snapshots: &Snapshots) {
    step_back("snapshots are written");
    while let Ok(work) = work.recv() {
        match work {
            Work::Write(frozen) => take(frozen, snapshots),
            Work::Hash(HashJob { index, store }) => {
                let hashed = Input::StateHashed(index, store.state_hash());
                discard(store.into_garbage());
                snapshots.tell(FromSnapshots::Input(hashed));
            }
            Work::Drop(stores) => stores
                .into_iter()
                .for_each(|store| discard(store.into_garbage())),
        }
    }
}

/// Puts the calling thread behind all others. Without that, all goes on a little less smoothly.
pub(crate) fn step_back(what: &str) {
    // On Linux it is the calling thread's alone.
    if let Err(error) = setpriority_process(None, NICE) {
        debug!("{what} with the same priority as all else: {error}");
    }
}

/// Writes one snapshot. For want of space there will be none; after any other error it is not known
/// what is on disk, and the process ends (rule 7).
fn take(frozen: FrozenState, snapshots: &Snapshots) {
    let begun = Instant::now();
    match write(frozen, &snapshots.files) {
        Ok((snapshot, bytes)) => {
            let took = begun.elapsed();
            let index = snapshot.position.index;
            info!(
                "took a snapshot up to index {index}: {bytes} bytes in {:.2} s",
                took.as_secs_f64()
            );
            snapshots.written(snapshot, Taken { index, bytes, took });
        }
        Err(error @ Error::NoSpace { .. }) => {
            warn!("{error}; it is tried again later");
            snapshots.tell(FromSnapshots::Input(Input::SnapshotFailed));
        }
        Err(error) => fatal::end(&error),
    }
}

/// The snapshot, once it is durable and was read back, and the length of its content.
fn write(
    frozen: FrozenState,
    files: &wal::Snapshots<DirectoryDisk>,
) -> Result<(Snapshot, u64), Error> {
    let mut writer = SnapshotWriter::create(files, frozen.cluster, frozen.snapshot)?;
    let begun = Instant::now();
    let mut bytes = 0;
    frozen
        .store
        .write_out(SNAPSHOT_PIECE_BYTES_MAX, &mut |piece: &[u8]| {
            let due = Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND as f64);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            bytes += piece.len() as u64;
            writer.write(piece)
        })?;
    // The evaluator copies what it changes as long as this is there.
    discard(frozen.store.into_garbage());
    Ok((writer.finish()?, bytes))
}

/// Frees what nobody needs any more, a little at a time: what one thread frees, another's next
/// allocation may have to sort, and all that need memory wait meanwhile.
pub(crate) fn discard(mut garbage: Garbage) {
    while !garbage.is_empty() {
        garbage.shrink();
        std::thread::sleep(DISCARD_INTERVAL);
    }
}
