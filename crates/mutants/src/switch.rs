//! The switch. It is the thread's, so that runs beside each other have mutants of their own; this
//! is the one place that keeps anything outside of the state that is handed around.

use std::cell::Cell;

use crate::Mutant;

thread_local! {
    static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Switches this mutant on in this thread, and all others off.
pub fn switch_on(mutant: Option<Mutant>) {
    ON.set(mutant);
}

/// Whether this mutant is switched on in this thread.
#[must_use]
pub fn is_on(mutant: Mutant) -> bool {
    ON.get() == Some(mutant)
}
