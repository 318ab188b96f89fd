//! Both clocks of this server. Whatever is below the server is told the time by it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use command::LogTime;
use evaluator::Now;
use raft::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// The monotonic clock counts from when this was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock {
            start: Instant::now(),
        }
    }

    /// Both clocks, read now.
    pub(crate) fn now(&self) -> Now {
        Now {
            monotonic: self.monotonic(),
            wall: Clock::wall(),
        }
    }

    /// The wall clock.
    pub(crate) fn wall() -> LogTime {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        LogTime(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX))
    }

    /// How long a processor has worked for the calling thread.
    pub(crate) fn of_thread() -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        let seconds = Duration::from_secs(time.tv_sec.unsigned_abs());
        seconds + Duration::from_nanos(time.tv_nsec.unsigned_abs())
    }

    /// The time since this clock was made. It starts at 1 ns, so that 0 is before any of its times.
    pub(crate) fn monotonic(&self) -> Timestamp {
        Timestamp(1) + self.start.elapsed()
    }
}
