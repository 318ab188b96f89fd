//! The switch. It is the thread's, so that runs beside each other have mutants of their own; this
//! is the one place that keeps anything outside of the state that is handed around.

use std::cell::Cell;

use crate::Mutant;

/// The mutant that is on in every thread from the start, by its name: for tests, which are run as
/// they are.
pub const VARIABLE: &str = "QUORATE_MUTANT";

thread_local! {
    static ON: Cell<Option<Mutant>> = Cell::new(from_environment());
}

/// # Panics
/// If the variable names none: a test that passes would prove nothing.
fn from_environment() -> Option<Mutant> {
    let name = std::env::var(VARIABLE).ok()?;
    Some(
        name.parse()
            .unwrap_or_else(|error| panic!("{VARIABLE}: {error}")),
    )
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
