//! One cluster at a time in a test binary, however many threads run its tests: five servers are
//! what two cores can serve without one of them being taken for dead.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

static TAKEN: Mutex<bool> = Mutex::new(false);
static FREE: Condvar = Condvar::new();

/// The right to run servers; given up when it is dropped, on whatever thread.
#[derive(Debug)]
pub struct Turn(());

impl Turn {
    /// Waits until nobody else in this process runs servers.
    #[must_use]
    pub fn take() -> Turn {
        let mut taken = lock();
        while *taken {
            taken = FREE.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        *taken = true;
        Turn(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *lock() = false;
        FREE.notify_one();
    }
}

/// A flag cannot be left half-changed by a panic.
fn lock() -> MutexGuard<'static, bool> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}
