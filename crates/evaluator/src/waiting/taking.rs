//! Commands as they come: each gets its number, its place in the queue of its connection, and what it
//! waits for.

use std::time::Duration;

use command::{Command, encoded_bytes};
use mutants::Mutant;
use raft::Timestamp;

use super::forwarding::Forwarded;
use super::staged::{Staged, through_log_if_stale};
use super::{ANSWER_WITHIN, Deadline, Origin, Owner, Pending, Slot, Takes, Waiting, What};
use crate::answers::Answers;

/// A batch that is being taken.
struct Taking {
    now: Timestamp,
    takes: Takes,
    /// One of its commands was refused, and so are those that follow.
    refuses: bool,
    forwards: Vec<Command>,
    /// How many seconds the last of these waits, and its number.
    waits: Option<(u32, u64)>,
}

impl Waiting {
    /// Takes the commands of a connection, to be answered in their order. Those that are not taken
    /// are refused as soon as what is before them has been answered, and with them all that follow
    /// up to their epoch (rule 54).
    pub(super) fn take(
        &mut self,
        now: Timestamp,
        (origin, epoch): (Origin, u64),
        commands: Vec<Command>,
        takes: Takes,
        answers: &mut Answers,
    ) {
        let slot = self.slot(origin);
        self.ends_wait(slot);
        let Some(connection) = self.slots[slot].as_mut() else {
            return;
        };
        connection.epoch = epoch;
        let refuses = connection
            .refused_epoch
            .is_some_and(|refused| epoch <= refused)
            && !mutants::is_on(Mutant::RefusedEpochServed);
        let mut batch = Taking {
            now,
            takes,
            refuses,
            forwards: Vec::new(),
            waits: None,
        };
        for command in commands {
            self.take_command(slot, command, &mut batch, answers);
        }
        if batch.refuses
            && let Some(connection) = self.slots[slot].as_mut()
        {
            connection.refused_epoch = Some(epoch);
        }
        self.forward(slot, batch.forwards);
        self.progress(slot, answers);
        let mut number = self.next_number.saturating_sub(1);
        if let Some((seconds, waits)) = batch.waits {
            let due = now + ANSWER_WITHIN + Duration::from_secs(u64::from(seconds));
            self.wait_elsewhere(due, slot, waits);
            number = waits.saturating_sub(1);
        }
        if self.owes(slot, number) && !mutants::is_on(Mutant::NoDeadline) {
            let due = now + ANSWER_WITHIN;
            self.deadlines.push_back(Deadline { due, slot, number });
        }
    }

    /// Takes one command of a connection.
    fn take_command(
        &mut self,
        slot: Slot,
        command: Command,
        batch: &mut Taking,
        answers: &Answers,
    ) {
        let number = self.next_number;
        self.next_number += 1;
        let marks_stale = self.staged_marks_stale || answers.last_applied < self.marks_stale_until;
        let takes = batch.takes;
        let command = match takes.forwards {
            true => command,
            false => through_log_if_stale(command, marks_stale, answers),
        };
        let taken = match &command {
            Command::Write(_) => takes.writes || takes.forwards,
            Command::Read(_) => takes.reads || takes.forwards,
            Command::Stats(_) => true,
        };
        let Some(connection) = self.slots[slot].as_mut() else {
            return;
        };
        let mut pushed_to = None;
        let what = match command {
            Command::Stats(stats) => What::Stats(stats),
            _ if batch.refuses || !taken => {
                batch.refuses = true;
                What::Refused
            }
            command if takes.forwards => {
                batch.waits = command.wait().map(|seconds| (seconds, number));
                let forwarded = Forwarded::new(connection.forwarded, &command);
                connection.forwarded += 1;
                batch.forwards.push(command);
                What::Forwarded(forwarded)
            }
            Command::Write(write) => {
                self.staged_bytes += encoded_bytes(&write);
                self.staged_marks_stale |= write.may_mark_stale();
                pushed_to = write.pushed_to().cloned();
                let what = What::of_write(&write, number, batch.now);
                self.staged.push(Staged {
                    owner: Owner { slot, number },
                    write: Some(write),
                });
                what
            }
            Command::Read(read) => {
                if connection.round < self.unasked.id {
                    connection.round = self.unasked.id;
                    self.unasked.slots.push(slot);
                }
                What::Read(read, self.unasked.id)
            }
        };
        self.owed.add(&what);
        connection.queue.push_back(Pending { number, what });
        if let Some(topic) = pushed_to {
            self.wake_first(&topic, batch.now);
        }
    }
}
