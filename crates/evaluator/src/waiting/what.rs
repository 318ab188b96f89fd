//! What a command whose outcome is owed waits for.

use std::time::Duration;

use command::{Outcome, Read, Stats, Write};
use raft::{ReadId, Timestamp};

use super::consumers::Consumer;
use super::forwarding::Forwarded;
use crate::answers::Answers;

#[derive(Debug)]
pub(crate) enum What {
    Write,
    /// A write that takes a message, and waits for one.
    Take(Box<Consumer>),
    Read(Read, ReadId),
    Stats(Stats),
    /// The leader has it.
    Forwarded(Forwarded),
    /// A command that is refused when what is before it has been answered.
    Refused,
}

impl What {
    /// What a write is that gets this number now.
    pub(super) fn of_write(write: &Write, number: u64, now: Timestamp) -> What {
        match (write.wait(), write) {
            (Some(seconds), Write::Topic(write)) => {
                let until = now + Duration::from_secs(u64::from(seconds));
                What::Take(Box::new(Consumer::new(number, until, write.clone())))
            }
            _ => What::Write,
        }
    }

    /// Whether it is in the log, or staged for it.
    pub(super) fn is_in_log(&self) -> bool {
        match self {
            What::Write => true,
            What::Take(consumer) => !consumer.is_parked,
            _ => false,
        }
    }

    /// Whether it waits for something that only others can bring about.
    pub(crate) fn is_parked(&self) -> bool {
        matches!(self, What::Take(consumer) if consumer.is_parked)
    }

    /// How many keys are looked up when this is answered.
    pub(crate) fn keys(&self) -> usize {
        match self {
            What::Read(Read::Get { keys }, _) => keys.len(),
            What::Read(Read::MetaGet(_) | Read::Inspect { .. }, _) => 1,
            What::Read(Read::Confirm | Read::Topics | Read::Peek { .. }, _)
            | What::Write
            | What::Take(_)
            | What::Stats(_)
            | What::Forwarded(_)
            | What::Refused => 0,
        }
    }

    /// Whether a command that is the first of its connection can be answered, when reads up to a
    /// round may be.
    pub(super) fn is_answerable(&self, readable: ReadId) -> bool {
        match self {
            What::Write | What::Take(_) | What::Forwarded(_) => false,
            What::Read(_, round) => *round <= readable,
            What::Stats(_) | What::Refused => true,
        }
    }

    pub(super) fn answer(self, answers: &mut Answers) -> Outcome {
        match self {
            What::Write | What::Take(_) => unreachable!("a write is answered when it is applied"),
            What::Read(read, _) => Outcome::Done(answers.read(&read)),
            What::Stats(stats) => Outcome::Done(answers.stats(stats)),
            What::Forwarded(_) => unreachable!("the leader answers what is forwarded to it"),
            What::Refused => answers.not_done(),
        }
    }
}
