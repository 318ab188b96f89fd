//! What must hold, judged by one who sees everything: all servers' logs, what each simulated disk
//! knows to be synced, and what clients were told.

mod history;
mod logs;
mod promises;
mod witness;

pub(crate) use history::{History, OpId};
pub(crate) use logs::Logs;
pub(crate) use witness::{MARKED_SECOND, Sent, Witness, key, marked_key};

/// A place in the life of the replicated state: after an entry was entered (step 0), or after its
/// command at place `step - 1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u64);

/// Commands in an entry, and one.
const STEPS: u64 = 1 << 17;

impl Place {
    pub(crate) fn entered(index: u64) -> Place {
        Place(index * STEPS)
    }

    pub(crate) fn after(index: u64, place: u16) -> Place {
        Place(index * STEPS + 1 + u64::from(place))
    }

    /// The place before this one.
    pub(crate) fn before(self) -> Place {
        Place(self.0.saturating_sub(1))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0 / STEPS, self.0 % STEPS)
    }
}
