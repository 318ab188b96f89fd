//! One connection's order and refusals, without its socket (rule 54).
//!
//! Received bytes go in, runs of commands for the evaluator come out; outcomes go in, reply bytes
//! come out. Every request has its slot in one queue, so replies leave in the order in which the
//! requests came, whoever answered them.
//!
//! One line can ask for gigabytes. So replies enter the output only while fewer than
//! `unwritten_bytes_max` bytes are in it, a `get` hit by hit; the others wait as outcomes, whose
//! values are shared with the store, and follow when bytes were written. To all of the below it is
//! as if these outcomes had not come yet.
//!
//! # Refusals and epochs
//!
//! Once a data command is refused (a redirect, `no leader`, `outcome unknown`), every later data
//! command that was received before that refusal was written is refused too: else a pipeline
//! would lose one in the middle. The evaluator refuses, the session says how far. It gives each
//! command an *epoch*; the evaluator, having refused a command of epoch e, refuses all that follow
//! on this connection up to epoch e. So all depends on when the epoch grows:
//!
//! 1. A refusal is *visible* when it has a line; that of a `noreply` command has none.
//! 2. When a write has taken the last byte of a visible refusal, the session notes the *boundary*:
//!    the bytes received so far and those that lay unread in the socket just before the write.
//!    What the client sends once it has read the refusal comes after the boundary, and everything
//!    that had been received before the write begins before it.
//! 3. A data command gets the next epoch when there is a boundary, the command begins at it or
//!    behind it, and no earlier data command is unanswered or its reply unwritten.
//! 4. Such an earlier command would be one of the old epoch: it will be refused as well, and the
//!    new command has been received before that second refusal is written. This is also why a
//!    command that begins before the boundary holds back those behind it.
//! 5. A silent refusal takes an earlier boundary back: what follows is refused until the client
//!    is shown a refusal again. One that is appended and not yet written is still to be shown and
//!    counts.
//!
//! `version`, `mn`, error lines and `stats` are no data commands: they are answered as usual and
//! neither hold an epoch back nor start one.
//!
//! For example, on a server that has ceased to lead:
//!
//! 1. The client sends `set a`, `set b noreply`, `get c` in one packet and `get d` in a second.
//!    The first packet is read: three commands of epoch 0 go out.
//! 2. The outcomes come: all refused. Two lines are appended (`set b` has none).
//! 3. `get d` arrives and lies unread. The write takes both lines; the boundary is behind
//!    `get d`, which is read then, gets epoch 0 and is refused: the client had sent it when it
//!    still believed in `set a`.
//! 4. The refusal of `get d` is written; the boundary is the end of the stream. The client, having
//!    read three refusals for three commands that want replies, sends `set a` again. It gets
//!    epoch 1 and is carried out if this server leads by then.

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::{Buf, BytesMut};
use command::{Command, Outcome, Stats};
use mutants::Mutant;

use crate::due::Due;
use crate::dump::BUSY;
use crate::reply::{write_hit, write_hits_end, write_reply};
use crate::request::{Request, Shape};
use crate::{Dump, DumpItem, Limits, Output, Parsed, Parser};

/// So many replies may always be owed.
const REPLIES_AHEAD_MIN: usize = 8;

/// So many, where their bytes are bounded, before it is known how large they are.
const REPLIES_UNKNOWN_MAX: usize = 64;

/// Name and value of a line of `stats`.
pub type StatLine = (Cow<'static, str>, String);

/// Commands of one connection, in order, for the evaluator. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Never less than that of an earlier run.
    pub epoch: u64,
    pub commands: Vec<Command>,
    /// What the commands take to hold, in bytes (see [`Parsed::bytes`]).
    pub bytes: usize,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    parser: Parser,
    /// Received and not yet parsed.
    received: BytesMut,
    /// Requests whose replies are owed, in order. The first is always a command: what is answered
    /// here is due as soon as nothing is owed before it.
    slots: VecDeque<Slot>,
    /// What is to be appended before anything of the slots is. Empty unless the output is full, and
    /// therefore nothing is parsed meanwhile.
    due: VecDeque<Due>,
    /// Of the hits in it.
    due_bytes: usize,
    output: Output,
    refusals: Refusals,
    /// How large a reply is to be expected, in bytes of keys and values: as the latest large one,
    /// which counts for less with each that follows.
    reply_bytes: usize,
    /// The parser has asked for more bytes than there are, amid a request.
    awaits_rest: bool,
    /// Nothing is appended to the output any more.
    closing: bool,
}

/// A request whose reply is owed.
#[derive(Debug)]
enum Slot {
    /// The evaluator has it.
    Command(Shape),
    Answer(&'static str),
    Close,
}

/// The epoch, and what it takes for it to grow.
#[derive(Debug, Default)]
struct Refusals {
    /// Of the next data command, unless step 3 of the module's description makes it grow.
    epoch: u64,
    /// Data commands that the evaluator has.
    unanswered: usize,
    /// The place in the output behind the last reply to a data command.
    replies_end: u64,
    /// The place in the output behind the last visible refusal, while that is unwritten.
    unwritten_end: Option<u64>,
    /// Data commands that begin before this place in the input belong to `epoch`; `None` when no
    /// visible refusal of this epoch has been written.
    boundary: Option<u64>,
}

impl Session {
    #[must_use]
    pub fn new(limits: Limits) -> Session {
        Session {
            limits,
            parser: Parser::new(limits),
            received: BytesMut::new(),
            slots: VecDeque::new(),
            due: VecDeque::new(),
            due_bytes: 0,
            output: Output::new(),
            refusals: Refusals::default(),
            reply_bytes: match limits.reply_ahead_bytes {
                usize::MAX => 0,
                bytes => bytes / REPLIES_UNKNOWN_MAX,
            },
            awaits_rest: false,
            closing: false,
        }
    }

    /// The buffer to whose end received bytes are added, with room for at least a few. It grows no
    /// faster than what it holds, so that no one takes a megabyte by announcing it.
    pub fn receive_buffer(&mut self) -> &mut BytesMut {
        if self.received.is_empty() && self.received.capacity() > 4 * self.limits.read_bytes {
            // What a large value has left behind.
            self.received = BytesMut::new();
        }
        let awaited = self.parser.awaited_bytes();
        let missing = awaited.saturating_sub(self.received.len());
        let spare = self.received.capacity() - self.received.len();
        let wanted = missing.min(self.received.len());
        if spare < wanted.max(self.limits.read_bytes / 8) {
            self.received.reserve(wanted.max(self.limits.read_bytes));
        }
        &mut self.received
    }

    /// Whether more bytes may be added to the receive buffer: no bound on replies is reached, and
    /// `next_run` has parsed what was received as far as it goes (call it until it gives `None`,
    /// after each read, and again when outcomes came or bytes were written).
    #[must_use]
    pub fn wants_input(&self) -> bool {
        !self.is_blocked() && (self.received.is_empty() || self.awaits_rest)
    }

    /// The next commands for the evaluator. `None` when nothing that has been received can be
    /// parsed now: it is not all there, or too many replies are owed or unwritten, or the
    /// connection is to be closed. What needs no evaluator is answered in passing.
    pub fn next_run(&mut self) -> Option<Run> {
        let mut run = Run {
            epoch: self.refusals.epoch,
            commands: Vec::new(),
            bytes: 0,
        };
        while run.commands.len() < self.limits.run_commands_max
            && run.bytes < self.limits.run_bytes_max
            && !self.is_blocked()
        {
            let Some(parsed) = self.parser.next(&mut self.received) else {
                self.awaits_rest = !self.received.is_empty() || self.parser.is_inside_data_block();
                break;
            };
            self.awaits_rest = false;
            self.request(parsed, &mut run);
        }
        (!run.commands.is_empty()).then_some(run)
    }

    /// Takes the outcomes of the next commands that the evaluator has, in order, and appends the
    /// replies, as far as the output has room: `written` appends the rest. `server_stats` gives the
    /// lines that the server has to add to a kind of `stats`.
    ///
    /// # Panics
    ///
    /// When there are more outcomes than commands, or one that its command can't have.
    pub fn outcomes(
        &mut self,
        outcomes: impl IntoIterator<Item = Outcome>,
        mut server_stats: impl FnMut(Stats) -> Vec<StatLine>,
    ) {
        for outcome in outcomes {
            let Some(Slot::Command(shape)) = self.slots.pop_front() else {
                panic!("an outcome for no command: {outcome:?}");
            };
            let server_stats = match &shape {
                Shape::Stats(stats) => server_stats(*stats),
                _ => Vec::new(),
            };
            let due = Due::new(outcome, shape, server_stats);
            if self.limits.reply_ahead_bytes < usize::MAX {
                let faded = self.reply_bytes - self.reply_bytes / 8;
                self.reply_bytes = faded.max(due.hits_bytes());
            }
            self.reply(due);
            self.append_answers();
        }
    }

    /// The list of keys that is to be appended next, item by item, if there is one and the output
    /// has little left to write. It is to be one of a state that has come to this index of the log.
    /// Until it is ended nothing more is parsed.
    #[must_use]
    pub fn dump(&self) -> Option<(Dump, u64)> {
        match self.due.front() {
            Some(Due::Dump(dumped)) if self.output.remaining() < self.limits.dump_ahead_bytes => {
                Some((dumped.dump, dumped.last_applied))
            }
            _ => None,
        }
    }

    /// Whether a list of keys is owed and not ended.
    #[must_use]
    pub fn owes_dump(&self) -> bool {
        matches!(self.due.front(), Some(Due::Dump(_)))
    }

    /// Begins the list; once, and before its items.
    pub fn begin_dump(&mut self) {
        if let Some(Due::Dump(dumped)) = self.due.front_mut()
            && !dumped.is_begun
        {
            dumped.is_begun = true;
            dumped.dump.begin(&mut self.output);
        }
    }

    /// Appends an item to the list. False if it takes no more.
    pub fn dump_item(&mut self, item: &DumpItem<'_>) -> bool {
        let Some(Due::Dump(dumped)) = self.due.front_mut() else {
            return false;
        };
        if dumped.is_full() {
            return false;
        }
        let before = self.output.appended_bytes();
        dumped.items += u64::from(dumped.dump.write(item, &mut self.output));
        dumped.bytes += self.output.appended_bytes() - before;
        !dumped.is_full()
    }

    /// Ends the list.
    pub fn end_dump(&mut self) {
        if let Some(Due::Dump(dumped)) = self.due.front() {
            dumped.dump.end(&mut self.output);
            self.dump_ended();
        }
    }

    /// Answers that another list is being made.
    pub fn refuse_dump(&mut self) {
        if self.owes_dump() {
            self.output.append(BUSY.as_bytes());
            self.dump_ended();
        }
    }

    fn dump_ended(&mut self) {
        self.due.pop_front();
        let appended = self.output.appended_bytes();
        self.refusals.answered(false, false, appended);
        self.append_due();
    }

    /// How many storage commands were refused so far since their item would have been too large.
    #[must_use]
    pub fn too_large(&self) -> u64 {
        self.parser.too_large()
    }

    /// What is to be written to the socket.
    #[must_use]
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// What the replies take that are known and not written, in bytes: much less than this where
    /// their values are the store's own.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.output.remaining() + self.due_bytes
    }

    /// Whether the output holds a refusal, so that the next write must be preceded by a look at
    /// how many bytes lie unread in the socket (`written` wants to know).
    #[must_use]
    pub fn owes_refusal(&self) -> bool {
        self.refusals.unwritten_end.is_some()
    }

    /// Notes that the socket has taken the first `bytes` of the output, and appends what had no
    /// room before: the output is empty only when no reply is known. `unread_bytes` had been
    /// received by the kernel, and not by the session, just before the write; it only matters when
    /// `owes_refusal` held then. Too large a number refuses more than need be, too small a one
    /// less.
    pub fn written(&mut self, bytes: usize, unread_bytes: u64) {
        self.output.advance(bytes);
        let written = self.output.written_bytes();
        // First, so that the refusal which was just written still counts for a silent one behind
        // it (step 5).
        self.append_due();
        let mut received = self.parser.consumed_bytes() + self.received.len() as u64;
        if !mutants::is_on(Mutant::UnreadIsLater) {
            received += unread_bytes;
        }
        self.refusals.written(written, received);
    }

    /// Whether part of a request has been received and its rest is awaited. Never while the session
    /// itself holds the client up.
    #[must_use]
    pub fn holds_partial_command(&self) -> bool {
        self.awaits_rest && !self.is_blocked()
    }

    /// Whether every request that was parsed is answered and the answer written.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.slots.is_empty() && self.due.is_empty() && !self.output.has_remaining()
    }

    /// Whether the connection is to be closed now: the client said `quit`, or sent what must not
    /// be read on, and all that was owed before is written.
    #[must_use]
    pub fn should_close(&self) -> bool {
        self.closing && !self.output.has_remaining()
    }

    /// Whether the evaluator has a command that may wait for a message. Until that is answered nothing
    /// more is parsed; what is received meanwhile only tells whether the client is still there.
    #[must_use]
    pub fn awaits_message(&self) -> bool {
        let last = self.slots.back();
        matches!(last, Some(Slot::Command(Shape::Message(shape))) if shape.waits)
    }

    /// Whether nothing may be parsed now.
    fn is_blocked(&self) -> bool {
        self.closing
            || matches!(
                self.slots.back(),
                Some(Slot::Close | Slot::Command(Shape::Dump(_)))
            )
            || self.awaits_message()
            || matches!(self.due.back(), Some(Due::Dump(_)))
            || self.slots.len() >= self.in_flight_max()
            || self.is_full()
    }

    /// How many replies may be owed.
    fn in_flight_max(&self) -> usize {
        let ahead = self.limits.reply_ahead_bytes / self.reply_bytes.max(1);
        ahead
            .max(REPLIES_AHEAD_MIN)
            .min(self.limits.in_flight_requests_max)
    }

    /// Whether nothing may be appended to the output now.
    fn is_full(&self) -> bool {
        self.output.remaining() >= self.limits.unwritten_bytes_max
            && !mutants::is_on(Mutant::NoReplyBound)
    }

    fn request(&mut self, parsed: Parsed, run: &mut Run) {
        match parsed.request {
            Request::Command {
                shape: Shape::Dump(dump),
                ..
            } if dump.is_exclusive() && !self.is_settled() => {
                self.slots.push_back(Slot::Answer(dump.not_alone()));
                self.append_answers();
            }
            Request::Command { command, shape } => {
                if !matches!(shape, Shape::Stats(_)) {
                    let written = self.output.written_bytes();
                    let epoch = self.refusals.asked(parsed.start, written);
                    // It grows only when no data command is unanswered, so all that the run holds
                    // already is `stats`, to which epochs do not matter.
                    run.epoch = epoch;
                }
                run.commands.push(command);
                run.bytes += parsed.bytes;
                self.slots.push_back(Slot::Command(shape));
                if mutants::is_on(Mutant::ReadOvertakesSilent) {
                    self.overtake_silent(run);
                }
            }
            Request::Answer("") => {}
            Request::Answer(answer) => {
                self.slots.push_back(Slot::Answer(answer));
                self.append_answers();
            }
            Request::Close => {
                self.slots.push_back(Slot::Close);
                self.append_answers();
            }
        }
    }

    /// `Mutant::ReadOvertakesSilent`: the command that came last, if it reads, goes before a
    /// `noreply` one right in front of it.
    fn overtake_silent(&mut self, run: &mut Run) {
        if let [.., Slot::Command(Shape::Silent), Slot::Command(_)] = self.slots.make_contiguous()
            && let [.., before, last @ Command::Read(_)] = &mut run.commands[..]
        {
            std::mem::swap(before, last);
            let slots = self.slots.len();
            self.slots.swap(slots - 2, slots - 1);
        }
    }

    /// Appends the answers before which nothing is owed any more.
    fn append_answers(&mut self) {
        while let Some(slot) = self.slots.front() {
            let due = match slot {
                Slot::Command(_) => return,
                Slot::Answer(answer) => Due::Answer(answer),
                Slot::Close => Due::Close,
            };
            self.slots.pop_front();
            self.reply(due);
        }
    }

    /// Appends what is due, behind all that was due before.
    fn reply(&mut self, mut due: Due) {
        if !self.due.is_empty() || !self.append(&mut due) {
            self.due_bytes += due.hits_bytes();
            self.due.push_back(due);
        }
    }

    /// Appends what is due as far as the output has room.
    fn append_due(&mut self) {
        while let Some(mut due) = self.due.pop_front() {
            self.due_bytes -= due.hits_bytes();
            if !self.append(&mut due) {
                self.due_bytes += due.hits_bytes();
                self.due.push_front(due);
                return;
            }
        }
        // A long queue is rare: its room is not kept.
        self.due = VecDeque::new();
    }

    /// Appends this as far as the output has room. Whether it is all appended.
    fn append(&mut self, due: &mut Due) -> bool {
        if self.is_full() {
            return false;
        }
        match due {
            Due::Answer(answer) => self.output.append(answer.as_bytes()),
            Due::Close => self.closing = true,
            // The server ends it.
            Due::Dump(_) => return false,
            Due::Reply {
                outcome,
                shape,
                server_stats,
            } => {
                write_reply(outcome, shape, server_stats, &mut self.output);
                if !matches!(shape, Shape::Stats(_)) {
                    let is_refusal = !matches!(outcome, Outcome::Done(_));
                    let is_silent = *shape == Shape::Silent;
                    let appended = self.output.appended_bytes();
                    self.refusals.answered(is_refusal, is_silent, appended);
                }
            }
            Due::Hits { rest, with_unique } => {
                for hit in rest {
                    write_hit(&hit, *with_unique, &mut self.output);
                    if self.is_full() {
                        return false;
                    }
                }
                write_hits_end(&mut self.output);
                let appended = self.output.appended_bytes();
                self.refusals.answered(false, false, appended);
            }
        }
        true
    }
}

impl Refusals {
    /// The epoch of a data command that begins at this place in the input, when this much of the
    /// output is written.
    fn asked(&mut self, start: u64, written: u64) -> u64 {
        let is_behind_a_boundary = self.boundary.is_some_and(|boundary| start >= boundary);
        let is_alone = self.unanswered == 0 && self.replies_end <= written;
        if is_behind_a_boundary && (is_alone || mutants::is_on(Mutant::EpochBeginsEarly)) {
            self.epoch += 1;
            self.boundary = None;
        }
        self.unanswered += 1;
        self.epoch
    }

    /// A data command has its outcome, and the reply is appended, up to this place in the output.
    fn answered(&mut self, is_refusal: bool, is_silent: bool, appended: u64) {
        assert!(
            self.unanswered > 0,
            "a reply up to {appended} for no data command"
        );
        self.unanswered -= 1;
        match (is_refusal, is_silent) {
            (_, false) => {
                self.replies_end = appended;
                if is_refusal {
                    self.unwritten_end = Some(appended);
                }
            }
            (true, true) if mutants::is_on(Mutant::SilentRefusalForgotten) => {}
            (true, true) => self.boundary = None,
            (false, true) => {}
        }
    }

    /// The output is written up to this place; just before the write `received` bytes had arrived
    /// in all.
    fn written(&mut self, written: u64, received: u64) {
        if self.unwritten_end.is_some_and(|end| end <= written) {
            self.unwritten_end = None;
            self.boundary = Some(received);
        }
    }
}
