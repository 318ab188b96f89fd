//! What a command whose outcome is owed waits for.

use command::{Outcome, Read, Stats};
use raft::ReadId;

use super::forwarding::Forwarded;
use crate::answers::Answers;

#[derive(Debug)]
pub(crate) enum What {
    Write,
    Read(Read, ReadId),
    Stats(Stats),
    /// The leader has it.
    Forwarded(Forwarded),
    /// A command that is refused when what is before it has been answered.
    Refused,
}

impl What {
    /// How many keys are looked up when this is answered.
    pub(crate) fn keys(&self) -> usize {
        match self {
            What::Read(Read::Get { keys }, _) => keys.len(),
            What::Read(Read::MetaGet(_) | Read::Inspect { .. }, _) => 1,
            What::Read(Read::Confirm, _)
            | What::Write
            | What::Stats(_)
            | What::Forwarded(_)
            | What::Refused => 0,
        }
    }

    /// Whether a command that is the first of its connection can be answered, when reads up to a
    /// round may be.
    pub(super) fn is_answerable(&self, readable: ReadId) -> bool {
        match self {
            What::Write | What::Forwarded(_) => false,
            What::Read(_, round) => *round <= readable,
            What::Stats(_) | What::Refused => true,
        }
    }

    pub(super) fn answer(self, answers: &mut Answers) -> Outcome {
        match self {
            What::Write => unreachable!("a write is answered when it is applied"),
            What::Read(read, _) => Outcome::Done(answers.read(&read)),
            What::Stats(stats) => Outcome::Done(answers.stats(stats)),
            What::Forwarded(_) => unreachable!("the leader answers what is forwarded to it"),
            What::Refused => answers.not_done(),
        }
    }
}
