//! The time in the log, and the two forms that memcached's times take.

use serde::{Deserialize, Serialize};

/// The time in the log: milliseconds since 1970 by the clocks of the leaders, never running
/// backwards. What depends on time depends on this alone (rules 48 and 49).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogTime(pub u64);

impl LogTime {
    /// Whole seconds since 1970, rounded down.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// A time as memcached's clients give it: 0 is never; 1 to 2,592,000 (30 days) are seconds from
/// now; more is seconds since 1970; less than 0 is already over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Exptime(pub i32);

/// When an item is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deadline {
    /// It is over already.
    Past,
    /// Over from this second since 1970 on.
    At(u64),
    Never,
}

/// The longest relative time, in seconds: 30 days.
pub const RELATIVE_SECONDS_MAX: i32 = 60 * 60 * 24 * 30;

impl Exptime {
    /// The deadline of an item that is given this time at `now` (rule 48).
    #[must_use]
    pub fn deadline(self, now: LogTime) -> Deadline {
        match self.0 {
            0 => Deadline::Never,
            ..0 => Deadline::Past,
            1..=RELATIVE_SECONDS_MAX => Deadline::At(now.seconds() + self.0.unsigned_abs() as u64),
            absolute => match u64::from(absolute.unsigned_abs()) {
                second if second <= now.seconds() => Deadline::Past,
                second => Deadline::At(second),
            },
        }
    }
}
