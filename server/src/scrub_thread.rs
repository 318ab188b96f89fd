//! The thread that reads again what lies on the disk, slowly, and has what has rotted replaced while
//! all that it held is still in memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{debug, warn};
use wal::{DirectoryDisk, Error, Scrub, Scrubbed};

use crate::snapshot_thread::step_back;
use crate::snapshots::Snapshots;

/// What the thread needs.
pub(crate) struct Scrubber {
    pub(crate) scrub: Scrub<DirectoryDisk>,
    /// In bytes per second; not 0.
    pub(crate) rate: u64,
    /// From the beginning of a pass to that of the next, if it has ended by then. The first begins so
    /// long after the start, which has read everything.
    pub(crate) interval: Duration,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) figures: Arc<Figures>,
}

impl Scrubber {
    /// Goes on as long as the process does. Nobody waits for it.
    pub(crate) fn run(mut self) {
        step_back("what is on disk is read again");
        let mut begun = Instant::now();
        loop {
            thread::sleep(self.interval.saturating_sub(begun.elapsed()));
            begun = Instant::now();
            match self.pass(begun) {
                Ok(bytes) => {
                    self.figures.pass_ended();
                    let took = begun.elapsed().as_secs_f64();
                    debug!("has read {bytes} bytes on disk again in {took:.2} s");
                }
                Err(error) => warn!("{error}; what is on disk is read again later"),
            }
        }
    }

    /// Reads everything once. Returns how many bytes that are.
    fn pass(&mut self, begun: Instant) -> Result<u64, Error> {
        let (rate, figures) = (self.rate as f64, &self.figures);
        let mut bytes = 0;
        loop {
            let looked = self.scrub.next_file(&mut |read| {
                bytes += read;
                figures.bytes.fetch_add(read, Ordering::Relaxed);
                let due = Duration::from_secs_f64(bytes as f64 / rate);
                thread::sleep(due.saturating_sub(begun.elapsed()));
            });
            match looked? {
                Scrubbed::Sound => {}
                Scrubbed::Misread(rotten) => {
                    warn!("{rotten}; when it was read again, it was as it was written");
                }
                Scrubbed::Rotten(rotten) => {
                    self.snapshots.replace(rotten);
                }
                Scrubbed::PassEnded => return Ok(bytes),
            }
        }
    }
}

/// What `/status` shows of it, all since the start.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    passes: AtomicU64,
    bytes: AtomicU64,
    hits: AtomicU64,
    ended: Mutex<Option<Instant>>,
}

impl Figures {
    pub(crate) fn passes(&self) -> u64 {
        self.passes.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Something was found that has rotted, by whoever has read it.
    pub(crate) fn found_rot(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    /// How often something was found that had rotted.
    pub(crate) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// How long ago the last pass ended.
    pub(crate) fn ended_ago(&self) -> Option<Duration> {
        self.ended().map(|ended| ended.elapsed())
    }

    fn pass_ended(&self) {
        *self.ended() = Some(Instant::now());
        self.passes.fetch_add(1, Ordering::Relaxed);
    }

    fn ended(&self) -> MutexGuard<'_, Option<Instant>> {
        self.ended.lock().expect("nothing panics while it is held")
    }
}
