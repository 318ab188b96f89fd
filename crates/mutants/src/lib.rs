//! Mutants: known mistakes, each one condition in the code of the crate that it is about, which
//! the simulator switches on one at a time to show that it would find them.
//!
//! Without the feature `switch` there are none: [`is_on`] is a constant, and nothing of a mutant
//! is left in the program. Only builds of the simulator and of some tests have the feature, and the
//! simulator's program is in a target folder of its own:
//!
//! ```text
//! cargo build -p quorate-sim --features mutants --target-dir target/mutants
//! ```
//!
//! No manifest of the workspace may have it on by default, nor among the features that another crate
//! asks of this one: Cargo builds a crate once for all that use it, so that `cargo build
//! --workspace` would put the mutants into the server. `tests/tests/layout.rs` looks at that.

mod mutant;
#[cfg(feature = "switch")]
mod switch;

pub use mutant::{Mutant, UnknownMutant};
#[cfg(feature = "switch")]
pub use switch::{VARIABLE, is_on, switch_on};

/// Whether this mutant is switched on: never, in this build.
#[cfg(not(feature = "switch"))]
#[inline(always)]
#[must_use]
pub const fn is_on(_: Mutant) -> bool {
    false
}
