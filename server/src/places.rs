//! Room for a number of connections on a port that strangers may call: for one more, the oldest of
//! those gives way that have not earned their place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The places of one port.
#[derive(Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    unearned: Arc<Unearned>,
    last: u64,
}

/// A token for each place that may be taken away again, by its number: the oldest first.
#[derive(Debug, Default)]
struct Unearned(Mutex<BTreeMap<u64, CancellationToken>>);

impl Unearned {
    fn tokens(&self) -> MutexGuard<'_, BTreeMap<u64, CancellationToken>> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

/// The place of one connection, which is closed before this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    unearned: Arc<Unearned>,
    lost: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(crate) fn new(places_max: usize) -> Places {
        Places {
            free: Arc::new(Semaphore::new(places_max)),
            unearned: Arc::default(),
            last: 0,
        }
    }

    /// A place for one more connection: if none is free, as soon as the oldest that can be closed
    /// has gone.
    pub(crate) async fn take(&mut self) -> Place {
        if self.free.available_permits() == 0
            && let Some((_, oldest)) = self.unearned.tokens().pop_first()
        {
            oldest.cancel();
        }
        let permit = Arc::clone(&self.free).acquire_owned().await;
        self.last += 1;
        let lost = CancellationToken::new();
        self.unearned.tokens().insert(self.last, lost.clone());
        Place {
            number: self.last,
            unearned: Arc::clone(&self.unearned),
            lost,
            _permit: permit.expect("the semaphore is never closed"),
        }
    }
}

impl Place {
    /// Comes to an end when the connection has to go.
    pub(crate) fn lost(&self) -> WaitForCancellationFutureOwned {
        self.lost.clone().cancelled_owned()
    }

    /// Keeps the place for as long as the connection lasts; false if it is lost already.
    pub(crate) fn earn(&self) -> bool {
        self.unearned.tokens().remove(&self.number).is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.unearned.tokens().remove(&self.number);
    }
}
