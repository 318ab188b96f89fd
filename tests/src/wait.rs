//! Waiting for a condition: the only place where the harness and the tests let time pass.

use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(5);

/// Far more than anything here takes on a quiet machine: who waits for longer waits for what will
/// not happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// When a test gives up on what it waits for and nobody promised a time for.
#[must_use]
pub fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// Holds what has happened since `start` to a time that is promised.
///
/// # Panics
/// With the time that it took, if that is as long or longer.
#[track_caller]
pub fn assert_took_less(start: Instant, promised: Duration) {
    let took = start.elapsed();
    assert!(
        took < promised,
        "it took {took:?}, {promised:?} are promised"
    );
}

/// Lets a moment pass, for those who would otherwise ask again without rest.
pub(crate) fn moment() {
    thread::sleep(INTERVAL);
}

/// Lets this much time pass, where the time itself is what is meant: how long a fault lasts.
pub(crate) fn let_pass(duration: Duration) {
    thread::sleep(duration);
}

/// Looks at `condition` until it is `Ok`.
///
/// # Panics
/// With what was waited for and what was seen last, after `deadline`.
pub fn wait_until<T>(
    what: &str,
    deadline: Instant,
    mut condition: impl FnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        let seen = match condition() {
            Ok(found) => return found,
            Err(seen) => seen,
        };
        assert!(
            Instant::now() < deadline,
            "waited {:?} for {what}; seen last: {seen}",
            start.elapsed()
        );
        moment();
    }
}
