//! A cluster that several tests of a binary use, at the same time if they run at the same time.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use crate::cluster::Cluster;

/// The cluster, while some test has it. It is stopped with its last user, and started again for
/// the next.
#[derive(Debug)]
pub struct Shared {
    running: Mutex<Weak<Cluster>>,
}

impl Shared {
    /// Nothing runs.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is for statics")]
    pub const fn new() -> Shared {
        Shared {
            running: Mutex::new(Weak::new()),
        }
    }

    /// The cluster that runs, or the one that `start` starts.
    #[must_use]
    pub fn get_or_start(&self, start: impl FnOnce() -> Cluster) -> User {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = running.upgrade() {
            return User(cluster);
        }
        let cluster = Arc::new(start());
        *running = Arc::downgrade(&cluster);
        User(cluster)
    }
}

/// One test's hold on the cluster, which is to be kept for as long as it is used.
#[derive(Debug)]
pub struct User(Arc<Cluster>);

impl Deref for User {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.0
    }
}

impl Drop for User {
    /// A failed test shows what its servers had to say, whether or not others still use them.
    fn drop(&mut self) {
        if thread::panicking() && Arc::strong_count(&self.0) > 1 {
            self.0.show_logs();
        }
    }
}
