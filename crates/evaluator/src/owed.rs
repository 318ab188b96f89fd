//! How much is owed: what the bounds on it are held against.

use crate::waiting::What;

/// The commands whose outcomes are owed, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owed {
    pub(crate) commands: usize,
    /// Those that reads among them look up.
    pub(crate) keys: usize,
}

impl Owed {
    pub(crate) fn add(&mut self, what: &What) {
        self.commands += 1;
        self.keys += what.keys();
    }

    pub(crate) fn remove(&mut self, what: &What) {
        self.commands -= 1;
        self.keys -= what.keys();
    }
}
