//! The timestamps that a leader puts into entries (rules 48 to 50).

use std::time::Duration;

use command::LogTime;
use mutants::Mutant;

use crate::io::Now;

/// How far the wall clock may get ahead of the monotonic one within a leadership. What expires by a
/// clock that jumps is lost for good, so a jump is followed no further than this.
pub(crate) const WALL_AHEAD_MAX: Duration = Duration::from_secs(10);

/// What a leader's stamps come from.
#[derive(Debug)]
pub(crate) struct LogClock {
    /// Both clocks when the leadership began.
    begun: Now,
    /// The last stamp; none is lower than the one before.
    last: LogTime,
    /// The wall clock was held back in this leadership.
    is_held_back: bool,
    /// Leaderships in which the wall clock was held back.
    held_back: u64,
}

impl LogClock {
    pub(crate) fn new(now: Now) -> LogClock {
        LogClock {
            begun: now,
            last: LogTime(0),
            is_held_back: false,
            held_back: 0,
        }
    }

    /// A leadership begins.
    pub(crate) fn begin(&mut self, now: Now) {
        self.begun = now;
        self.last = LogTime(0);
        self.is_held_back = false;
    }

    /// The stamp of the next entry, given the time in the log so far.
    pub(crate) fn stamp(&self, now: Now, log_time: LogTime) -> LogTime {
        if mutants::is_on(Mutant::TimeGoesBack) {
            return self.wall(now);
        }
        self.wall(now).max(self.last).max(log_time)
    }

    /// An entry was proposed with this stamp.
    pub(crate) fn stamped(&mut self, now: Now, stamp: LogTime) {
        self.last = stamp;
        if self.wall(now) < now.wall && !self.is_held_back {
            self.is_held_back = true;
            self.held_back += 1;
        }
    }

    /// How long it takes until the clock that stamps come from reaches this second.
    pub(crate) fn until(&self, now: Now, second: u64) -> Duration {
        let wall = self.wall(now);
        Duration::from_millis(second.saturating_mul(1000).saturating_sub(wall.0))
    }

    /// The last stamp of this leadership; 0 if there was none.
    pub(crate) fn last(&self) -> LogTime {
        self.last
    }

    /// In how many leaderships the wall clock was held back.
    pub(crate) fn held_back(&self) -> u64 {
        self.held_back
    }

    /// The wall clock, held back if it has got too far ahead.
    fn wall(&self, now: Now) -> LogTime {
        let elapsed = now.monotonic.since(self.begun.monotonic) + WALL_AHEAD_MAX;
        let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let wall_max = LogTime(self.begun.wall.0.saturating_add(elapsed));
        if mutants::is_on(Mutant::ClockJumpFollowed) {
            return now.wall;
        }
        now.wall.min(wall_max)
    }
}

#[cfg(test)]
mod tests {
    use raft::Timestamp;

    use super::*;

    fn stamp(clock: &mut LogClock, now: Now, log_time: u64) -> LogTime {
        let stamp = clock.stamp(now, LogTime(log_time));
        clock.stamped(now, stamp);
        stamp
    }

    fn now(monotonic_ms: u64, wall_ms: u64) -> Now {
        Now {
            monotonic: Timestamp(monotonic_ms * 1_000_000),
            wall: LogTime(wall_ms),
        }
    }

    #[test]
    fn stamps_follow_the_wall_clock() {
        let mut clock = LogClock::new(now(0, 5000));
        clock.begin(now(1000, 6000));
        assert_eq!(stamp(&mut clock, now(1500, 6500), 0), LogTime(6500));
        assert_eq!(stamp(&mut clock, now(9000, 14_001), 0), LogTime(14_001));
        assert_eq!(clock.held_back(), 0);
    }

    #[test]
    fn stamps_never_go_back() {
        let mut clock = LogClock::new(now(0, 5000));
        assert_eq!(stamp(&mut clock, now(1, 6000), 0), LogTime(6000));
        assert_eq!(stamp(&mut clock, now(2, 100), 0), LogTime(6000));
        assert_eq!(stamp(&mut clock, now(3, 100), 7000), LogTime(7000));
        assert_eq!(stamp(&mut clock, now(4, 100), 0), LogTime(7000));
    }

    #[test]
    fn a_wall_clock_that_jumps_is_held_back_and_counted_once_in_a_leadership() {
        let mut clock = LogClock::new(now(0, 1000));
        let hour = 3_600_000;
        assert_eq!(stamp(&mut clock, now(500, 1500 + hour), 0), LogTime(11_500));
        assert_eq!(stamp(&mut clock, now(900, 1900 + hour), 0), LogTime(11_900));
        assert_eq!(clock.held_back(), 1);
        clock.begin(now(1000, 2000 + hour));
        let stamp = stamp(&mut clock, now(1000, 2000 + hour), 0);
        assert_eq!(stamp, LogTime(2000 + hour));
        assert_eq!(clock.held_back(), 1);
    }
}
