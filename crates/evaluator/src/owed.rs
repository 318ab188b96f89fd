//! How much is owed: what the bounds on it are held against.

use crate::waiting::What;

/// The commands whose outcomes are owed, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owed {
    pub(crate) commands: usize,
    /// Those that reads among them look up.
    pub(crate) keys: usize,
    /// Those that the leader is to carry out, and what they take, in bytes.
    pub(crate) forwarded: usize,
    pub(crate) forwarded_bytes: usize,
}

impl Owed {
    pub(crate) fn add(&mut self, what: &What) {
        // Who waits for a message costs nothing meanwhile.
        if what.is_parked() {
            return;
        }
        self.commands += 1;
        self.keys += what.keys();
        if let What::Forwarded(forwarded) = what {
            self.forwarded += 1;
            self.forwarded_bytes += forwarded.bytes;
        }
    }

    pub(crate) fn remove(&mut self, what: &What) {
        if what.is_parked() {
            return;
        }
        self.commands -= 1;
        self.keys -= what.keys();
        if let What::Forwarded(forwarded) = what {
            self.forwarded -= 1;
            self.forwarded_bytes -= forwarded.bytes;
        }
    }
}
