//! Carrying out the commands of a committed entry.

use bytes::Bytes;
use command::{CodecError, Outcome, Write, decode};
use mutants::Mutant;
use raft::Index;

use crate::evaluator::Evaluator;
use crate::state_hashes::HashJob;
use crate::waiting::Owner;

/// So many commands are decoded before the first of them is carried out, so that what they need is
/// read from memory together.
const WRITES_AHEAD: usize = 16;

impl Evaluator {
    /// One command at a time: reads of its owner's connection come right before it (rule 54).
    pub(crate) fn apply_commands(&mut self, index: u64, payload: Bytes, owners: &[Owner]) {
        let (mut preamble, commands) = decode(payload).unwrap_or_else(|it| unreadable(index, it));
        if mutants::is_on(Mutant::LocalTime) {
            preamble.log_time = self.now.wall;
        }
        if mutants::is_on(Mutant::LocalLimit) {
            preamble.item_bytes_max = self.item_bytes_max;
        }
        if mutants::is_on(Mutant::LocalMemoryLimit) {
            preamble.memory_limit_bytes = self.memory_limit_bytes;
        }
        self.answers.store.enter(index, &preamble);
        let mut owners = owners.iter();
        let mut commands =
            commands.map(|write| write.unwrap_or_else(|error| unreadable(index, error)));
        let mut writes = Vec::with_capacity(WRITES_AHEAD);
        let mut place = 0;
        loop {
            writes.extend(commands.by_ref().take(WRITES_AHEAD));
            if writes.is_empty() {
                break;
            }
            self.answers.store.warm(&writes);
            for write in writes.drain(..) {
                match owners.next() {
                    Some(owner) => self.apply_own(place, &write, *owner),
                    None => {
                        self.answers.store.apply(place, &write);
                    }
                }
                place += 1;
            }
        }
        if self.state_hashes.applied(preamble.mark.as_ref()) {
            self.state_hashes.begun();
            self.hash_job = Some(HashJob {
                index: Index(index),
                store: self.answers.store.freeze(),
            });
        }
        self.answers.differs_at = self.state_hashes.differs_at();
    }

    fn apply_own(&mut self, place: u16, write: &Write, owner: Owner) {
        let answers = &mut self.answers;
        let early = mutants::is_on(Mutant::ReadSeesLaterWrite);
        let early = early.then(|| answers.apply(place, write));
        let owed = self.waiting.before_write(owner, answers);
        let reply = early.unwrap_or_else(|| answers.apply(place, write));
        if owed {
            self.waiting.applied(owner, Outcome::Done(reply), answers);
        }
    }
}

/// To pass over a committed entry would make this server differ from the others for good.
fn unreadable<T>(index: u64, error: CodecError) -> T {
    panic!("committed entry {index} can't be read: {error}");
}
