//! Majorities.

use mutants::Mutant;

/// How many of `members` are a majority.
pub(crate) fn majority(members: usize) -> usize {
    if mutants::is_on(Mutant::HalfIsMajority) {
        return (members / 2).max(1);
    }
    members / 2 + 1
}

/// The greatest value that a majority has reached. `values` holds one for each member.
pub(crate) fn reached_by_majority<T: Copy + Ord>(values: &mut [T]) -> Option<T> {
    values.sort_unstable_by(|a, b| b.cmp(a));
    values.get(majority(values.len()) - 1).copied()
}
