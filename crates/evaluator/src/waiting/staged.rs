//! Writes that were taken and are not proposed.

use command::{Command, Read, Write, encoded_bytes};
use mutants::Mutant;

use super::Owner;
use crate::answers::Answers;

#[derive(Debug)]
pub(super) struct Staged {
    pub(super) owner: Owner,
    /// `None` once it was refused.
    pub(super) write: Option<Write>,
}

/// Takes a write back that is not proposed; its length.
pub(super) fn cancel(staged: &mut [Staged], number: u64) -> usize {
    let at = staged.binary_search_by_key(&number, |staged| staged.owner.number);
    let write = at.ok().and_then(|at| staged[at].write.take());
    write.map_or(0, |write| encoded_bytes(&write))
}

/// An `mg` is a read unless it may have to give out an item's token: then it changes the item. What
/// is stale is known once all that earlier leaders have committed is applied, and all that may mark
/// an item as stale.
pub(super) fn through_log_if_stale(
    command: Command,
    marks_stale: bool,
    answers: &Answers,
) -> Command {
    match command {
        Command::Read(Read::MetaGet(get))
            if marks_stale && !mutants::is_on(Mutant::StaleIsRead)
                || !answers.view.serves
                || answers.store.owes_token(&get.key) =>
        {
            Command::Write(Write::MetaGet(get))
        }
        other => other,
    }
}
