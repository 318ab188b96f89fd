//! Refusals on one connection (rule 54): what is refused after a refusal, and until when.
//!
//! A `Wire` is a connection with its kernel buffer and an evaluator reduced to what this is about:
//! it leads or it does not, and having refused a command of epoch e it refuses all that follow up
//! to epoch e.

use std::collections::VecDeque;

use bytes::Buf;
use command::{Command, Outcome, Read, Refusal, Reply, Write};
use proptest::prelude::*;
use quorate_protocol::{Limits, Session};

struct Wire {
    session: Session,
    /// Sent by the client and not yet read by the session.
    unread: VecDeque<u8>,
    /// What the evaluator has, with epochs.
    asked: VecDeque<(u64, Command)>,
    /// The evaluator refuses up to this epoch.
    refused: Option<u64>,
    leads: bool,
    /// What the client has received.
    replies: Vec<u8>,
}

impl Wire {
    fn new(leads: bool) -> Wire {
        Wire::with_limits(leads, Limits::default())
    }

    fn with_limits(leads: bool, limits: Limits) -> Wire {
        Wire {
            session: Session::new(limits),
            unread: VecDeque::new(),
            asked: VecDeque::new(),
            refused: None,
            leads,
            replies: Vec::new(),
        }
    }

    fn send(&mut self, bytes: &str) {
        self.unread.extend(bytes.as_bytes());
    }

    /// Reads up to that many bytes, and parses.
    fn read(&mut self, bytes_max: usize) {
        let bytes = bytes_max.min(self.unread.len());
        let bytes: Vec<u8> = self.unread.drain(..bytes).collect();
        self.session.receive_buffer().extend_from_slice(&bytes);
        while let Some(run) = self.session.next_run() {
            let last = self.asked.back().map_or(0, |(epoch, _)| *epoch);
            assert!(run.epoch >= last, "epoch {} after {last}", run.epoch);
            let commands = run.commands.into_iter();
            self.asked
                .extend(commands.map(|command| (run.epoch, command)));
        }
    }

    fn read_all(&mut self) {
        self.read(usize::MAX);
    }

    /// The evaluator gives the outcomes of up to that many commands.
    fn answer(&mut self, commands_max: usize) {
        for _ in 0..commands_max {
            let Some((epoch, command)) = self.asked.pop_front() else {
                return;
            };
            let outcome = match command {
                Command::Stats(_) => Outcome::Done(Reply::Stats(Vec::new())),
                command => self.evaluate(epoch, &command),
            };
            self.session.outcomes([outcome], |_| Vec::new());
        }
    }

    fn answer_all(&mut self) {
        self.answer(usize::MAX);
    }

    fn evaluate(&mut self, epoch: u64, command: &Command) -> Outcome {
        if !self.leads || self.refused >= Some(epoch) {
            self.refused = self.refused.max(Some(epoch));
            return Outcome::NotDone(Refusal::NoLeader);
        }
        Outcome::Done(match command {
            Command::Write(Write::Store(_)) => Reply::Stored,
            Command::Read(Read::Get { .. }) => Reply::Hits(Vec::new()),
            other => panic!("{other:?} is not used here"),
        })
    }

    /// The next command's outcome is unknown.
    fn answer_unknown(&mut self) {
        let (epoch, _) = self.asked.pop_front().expect("a command was asked");
        self.refused = Some(epoch);
        self.session.outcomes([Outcome::Unknown], |_| Vec::new());
    }

    /// The socket takes up to that many bytes.
    fn write(&mut self, bytes_max: usize) {
        let unread = match self.session.owes_refusal() {
            true => self.unread.len() as u64,
            false => 0,
        };
        let mut output = vec![0; self.session.output().remaining().min(bytes_max)];
        let mut filled = 0;
        let mut slices = [std::io::IoSlice::new(&[]); 64];
        let count = self.session.output().chunks_vectored(&mut slices);
        for slice in slices.iter().take(count) {
            let part = slice.len().min(output.len() - filled);
            output[filled..filled + part].copy_from_slice(&slice[..part]);
            filled += part;
        }
        self.session.written(filled, unread);
        self.replies.extend_from_slice(&output[..filled]);
    }

    fn write_all(&mut self) {
        while self.session.output().has_remaining() {
            self.write(usize::MAX);
        }
    }

    /// What the client received since the last call, in short: `+` done, `-` refused, `?` unknown,
    /// `=` not of the data.
    fn received(&mut self) -> String {
        let replies = std::mem::take(&mut self.replies);
        let replies = String::from_utf8(replies).expect("text");
        let marks = replies.lines().map(|line| match line {
            "STORED" | "END" => '+',
            "SERVER_ERROR no leader" => '-',
            "SERVER_ERROR outcome unknown" => '?',
            "MN" | "ERROR" => '=',
            other => panic!("{other}"),
        });
        marks.collect()
    }

    /// All steps until nothing is left to do.
    fn settle(&mut self) -> String {
        loop {
            self.read_all();
            self.answer_all();
            if !self.session.output().has_remaining() {
                return self.received();
            }
            self.write_all();
        }
    }
}

const SET: &str = "set a 0 0 1\r\nx\r\n";
const SILENT_SET: &str = "set a 0 0 1 noreply\r\nx\r\n";
const GET: &str = "get a\r\n";

#[test]
fn a_command_sent_after_a_refusal_was_seen_is_judged_for_itself() {
    let mut wire = Wire::new(false);
    wire.send(SET);
    assert_eq!(wire.settle(), "-");
    wire.leads = true;
    wire.send(SET);
    assert_eq!(wire.settle(), "+");
    wire.send(GET);
    assert_eq!(wire.settle(), "+");
}

#[test]
fn nothing_grows_while_nothing_is_refused() {
    let mut wire = Wire::new(true);
    for _ in 0..3 {
        wire.send(SET);
        wire.send("mn\r\nfoo\r\n");
        wire.send(SILENT_SET);
        wire.read_all();
        assert!(wire.asked.iter().all(|(epoch, _)| *epoch == 0));
        assert!(!wire.session.owes_refusal());
        assert_eq!(wire.settle(), "+==");
    }
}

#[test]
fn a_command_read_while_a_refusal_is_unwritten_is_refused_too() {
    let mut wire = Wire::new(false);
    wire.send(SET);
    wire.read_all();
    wire.answer_all();
    wire.leads = true;
    wire.send(GET);
    wire.read_all();
    wire.answer_all();
    wire.write_all();
    assert_eq!(wire.received(), "--");
    wire.send(GET);
    assert_eq!(wire.settle(), "+");
}

#[test]
fn the_tail_of_a_pipeline_that_is_still_in_the_kernel_is_refused_too() {
    let mut wire = Wire::new(false);
    wire.send(SET);
    wire.send(SET);
    wire.send(GET);
    wire.read(SET.len());
    wire.answer_all();
    wire.leads = true;
    wire.write_all();
    assert_eq!(wire.received(), "-");
    assert_eq!(wire.settle(), "--");
    wire.send(SET);
    assert_eq!(wire.settle(), "+");
}

#[test]
fn a_command_of_which_a_part_lay_in_the_kernel_is_refused_too() {
    for part in 1..SET.len() {
        let mut wire = Wire::new(false);
        wire.send(SET);
        wire.read_all();
        wire.send(&SET[..part]);
        wire.answer_all();
        wire.leads = true;
        wire.write_all();
        wire.send(&SET[part..]);
        assert_eq!(wire.settle(), "--", "{part} bytes");
    }
}

#[test]
fn a_command_that_arrives_after_the_write_is_not_refused_for_it() {
    let mut wire = Wire::new(false);
    wire.send(SET);
    wire.read_all();
    wire.answer_all();
    wire.leads = true;
    wire.write_all();
    wire.send(SET);
    assert_eq!(wire.settle(), "-+");
}

#[test]
fn one_before_the_boundary_holds_back_those_behind_it() {
    let mut wire = Wire::new(false);
    wire.send(SET);
    wire.send(SET);
    wire.read(SET.len());
    wire.answer_all();
    wire.leads = true;
    // The boundary is behind the second command; the third comes after it, and is received before
    // the refusal of the second is written.
    wire.write_all();
    wire.send(SET);
    wire.read_all();
    assert_eq!(
        wire.asked
            .iter()
            .map(|(epoch, _)| *epoch)
            .collect::<Vec<_>>(),
        [0, 0]
    );
    assert_eq!(wire.settle(), "---");
    wire.send(SET);
    assert_eq!(wire.settle(), "+");
}

#[test]
fn a_refusal_counts_as_shown_when_its_last_byte_is_written() {
    let mut wire = Wire::new(false);
    wire.send(SET);
    wire.read_all();
    wire.answer_all();
    wire.leads = true;
    wire.write("SERVER_ERROR no leader\r".len());
    wire.send(SET);
    wire.write_all();
    assert_eq!(wire.settle(), "--");
    wire.send(SET);
    assert_eq!(wire.settle(), "+");
}

#[test]
fn a_silent_refusal_that_has_no_room_behind_a_visible_one_counts_as_shown_with_it() {
    let limits = Limits {
        unwritten_bytes_max: 1,
        ..Limits::default()
    };
    let mut wire = Wire::with_limits(false, limits);
    wire.send(SET);
    wire.send(SILENT_SET);
    assert_eq!(wire.settle(), "-");
    wire.leads = true;
    wire.send(SET);
    assert_eq!(wire.settle(), "+");
}

#[test]
fn a_second_refusal_of_which_a_byte_is_unwritten_still_refuses() {
    let mut wire = Wire::new(false);
    wire.send(&[SET, SET].concat());
    wire.read_all();
    wire.answer(1);
    wire.write_all();
    wire.answer(1);
    wire.write("SERVER_ERROR no leader\r".len());
    wire.leads = true;
    wire.send(SET);
    wire.read_all();
    wire.write_all();
    assert_eq!(wire.settle(), "---");
    wire.send(SET);
    assert_eq!(wire.settle(), "+");
}

#[test]
fn after_a_refused_noreply_command_all_is_refused_until_a_refusal_is_seen() {
    let mut wire = Wire::new(false);
    wire.send(SILENT_SET);
    assert_eq!(wire.settle(), "");
    wire.leads = true;
    wire.send(SILENT_SET);
    assert_eq!(wire.settle(), "");
    wire.send("mn\r\n");
    assert_eq!(wire.settle(), "=");
    wire.send(GET);
    assert_eq!(wire.settle(), "-");
    wire.send(GET);
    assert_eq!(wire.settle(), "+");
}

#[test]
fn a_noreply_command_refused_after_the_refusal_was_written_asks_for_another() {
    let mut wire = Wire::new(false);
    wire.send(SET);
    wire.send(SILENT_SET);
    wire.read_all();
    wire.answer(1);
    wire.write_all();
    wire.leads = true;
    wire.answer_all();
    assert_eq!(wire.received(), "-");
    wire.send(SET);
    assert_eq!(wire.settle(), "-");
    wire.send(SET);
    assert_eq!(wire.settle(), "+");
}

#[test]
fn a_noreply_command_refused_before_the_refusal_was_written_is_covered_by_it() {
    for pipeline in [[SET, SILENT_SET], [SILENT_SET, SET]] {
        let mut wire = Wire::new(false);
        wire.send(&pipeline.concat());
        assert_eq!(wire.settle(), "-");
        wire.leads = true;
        wire.send(SILENT_SET);
        wire.send(GET);
        assert_eq!(wire.settle(), "+");
    }
}

#[test]
fn what_is_not_of_the_data_is_answered_and_changes_nothing() {
    let mut wire = Wire::new(false);
    wire.send(&["mn\r\n", SET, "mn\r\nfoo\r\n", GET, "mn\r\n"].concat());
    wire.read_all();
    wire.answer(1);
    wire.leads = true;
    wire.write_all();
    assert_eq!(wire.received(), "=-==");
    // `get` is unanswered: whatever comes now is before its refusal.
    wire.send(&["mn\r\n", SET, "mn\r\n"].concat());
    wire.read_all();
    assert_eq!(wire.settle(), "-==-=");
    wire.send(&["mn\r\n", SET, "mn\r\n"].concat());
    assert_eq!(wire.settle(), "=+=");
}

#[test]
fn stats_neither_hold_an_epoch_back_nor_are_refused() {
    let mut wire = Wire::new(false);
    wire.send(&[SET, "stats\r\n"].concat());
    wire.read_all();
    wire.answer(1);
    wire.write_all();
    wire.leads = true;
    wire.send(SET);
    wire.read_all();
    assert_eq!(wire.asked.back().map(|(epoch, _)| *epoch), Some(1));
    assert_eq!(wire.settle(), "-++", "`stats` ends with END as `get` does");
}

#[test]
fn an_unknown_outcome_amid_a_pipeline_refuses_what_follows() {
    let mut wire = Wire::new(true);
    wire.send(&[SET, SET, GET, SILENT_SET, SET].concat());
    wire.read_all();
    wire.answer(1);
    wire.answer_unknown();
    wire.answer_all();
    wire.write_all();
    assert_eq!(wire.received(), "+?--");
    wire.send(SET);
    assert_eq!(wire.settle(), "+");
}

#[test]
fn a_second_refusal_starts_all_over() {
    let mut wire = Wire::new(false);
    for round in 0..3 {
        wire.leads = false;
        wire.send(&[SET, GET].concat());
        wire.read_all();
        assert!(wire.asked.iter().all(|(epoch, _)| *epoch == round));
        assert_eq!(wire.settle(), "--");
        wire.leads = true;
        wire.send(&[SET, GET].concat());
        assert_eq!(wire.settle(), "++");
    }
}

/// What happened to one data command of a random run, in steps of that run.
#[derive(Debug)]
struct Fate {
    silent: bool,
    /// When the kernel had its first byte.
    received: usize,
    /// When it was answered, and whether with a refusal.
    answered: Option<(usize, bool)>,
    /// When the last byte of its reply was written.
    written: Option<usize>,
}

#[derive(Clone, Debug)]
enum Step {
    Send { silent: bool },
    SendSplit { at: usize },
    SendMn,
    Read(usize),
    Answer(usize),
    AnswerUnknown,
    Write(usize),
    Lead(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<bool>().prop_map(|silent| Step::Send { silent }),
        2 => (1..SET.len()).prop_map(|at| Step::SendSplit { at }),
        1 => Just(Step::SendMn),
        4 => prop_oneof![1..40usize, Just(usize::MAX)].prop_map(Step::Read),
        4 => prop_oneof![1..4usize, Just(usize::MAX)].prop_map(Step::Answer),
        1 => Just(Step::AnswerUnknown),
        4 => prop_oneof![1..60usize, Just(usize::MAX)].prop_map(Step::Write),
        2 => any::<bool>().prop_map(Step::Lead),
    ]
}

/// Bounds that replies meet often, and the usual one.
fn limits() -> impl Strategy<Value = Limits> {
    prop::sample::select(vec![1, 30, 100, 8 << 20]).prop_map(|unwritten_bytes_max| Limits {
        unwritten_bytes_max,
        ..Limits::default()
    })
}

/// A random run, and what became of each data command.
fn fates(limits: Limits, steps: &[Step]) -> Vec<Fate> {
    let mut wire = Wire::with_limits(true, limits);
    let mut fates: Vec<Fate> = Vec::new();
    let mut answered = 0;
    let mut rest = None;
    // The data commands that are answered with a line, and how many of these lines are written.
    let mut visible = Vec::new();
    let mut lines = 0;
    for (now, step) in steps.iter().enumerate() {
        if !matches!(
            step,
            Step::Read(_) | Step::Answer(_) | Step::Write(_) | Step::Lead(_)
        ) {
            wire.send(rest.take().unwrap_or_default());
        }
        let fate = |silent| Fate {
            silent,
            received: now,
            answered: None,
            written: None,
        };
        match step {
            Step::Send { silent } => {
                wire.send(if *silent { SILENT_SET } else { SET });
                fates.push(fate(*silent));
            }
            Step::SendSplit { at } => {
                wire.send(&SET[..*at]);
                rest = Some(&SET[*at..]);
                fates.push(fate(false));
            }
            Step::SendMn => wire.send("mn\r\n"),
            Step::Read(bytes) => wire.read(*bytes),
            Step::Lead(leads) => wire.leads = *leads,
            Step::Answer(_) | Step::AnswerUnknown => {
                let unknown = matches!(step, Step::AnswerUnknown);
                let count = if let Step::Answer(count) = step {
                    *count
                } else {
                    1
                };
                for _ in 0..count.min(wire.asked.len()) {
                    let (epoch, _) = wire.asked[0];
                    let is_refused = !wire.leads || wire.refused >= Some(epoch);
                    if unknown && !is_refused {
                        wire.answer_unknown();
                    } else {
                        wire.answer(1);
                    }
                    fates[answered].answered = Some((now, is_refused || unknown));
                    if !fates[answered].silent {
                        visible.push(answered);
                    }
                    answered += 1;
                }
            }
            Step::Write(bytes) => {
                wire.write(*bytes);
                let complete = wire.replies.split_inclusive(|byte| *byte == b'\n');
                let complete = complete.filter(|line| line.ends_with(b"\n"));
                let before = lines;
                lines = complete.filter(|line| *line != b"MN\r\n").count();
                for command in &visible[before..lines] {
                    fates[*command].written = Some(now);
                }
            }
        }
    }
    fates
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// The two promises, looked up in what happened and not in epochs.
    #[test]
    fn no_pipeline_loses_a_command_in_its_middle(
        limits in limits(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let fates = fates(limits, &steps);
        for (place, refused) in fates.iter().enumerate() {
            let Some((refused_at, true)) = refused.answered else {
                continue;
            };
            // The write of the refusal; for a silent one, that of the next visible refusal which
            // was not yet written then.
            let shown_at = match refused.silent {
                false => refused.written,
                true => fates
                    .iter()
                    .filter(|fate| matches!(fate.answered, Some((_, true))))
                    .filter_map(|fate| fate.written)
                    .filter(|written| *written > refused_at)
                    .min(),
            };
            for later in fates.iter().skip(place + 1) {
                let came_before = shown_at.is_none_or(|shown| later.received < shown);
                if let (true, Some((_, was_refused))) = (came_before, later.answered) {
                    prop_assert!(was_refused, "{refused:?} and then {later:?}");
                }
            }
        }
    }

    /// However it went, a client that has read all its replies is served again, after at most one
    /// refusal for what was silent.
    #[test]
    fn refusals_end(
        limits in limits(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut wire = Wire::with_limits(true, limits);
        for step in &steps {
            match step {
                Step::Send { silent } => wire.send(if *silent { SILENT_SET } else { SET }),
                Step::SendSplit { .. } | Step::SendMn => wire.send("mn\r\n"),
                Step::Read(bytes) => wire.read(*bytes),
                Step::Answer(count) => wire.answer(*count),
                Step::AnswerUnknown => {}
                Step::Write(bytes) => wire.write(*bytes),
                Step::Lead(leads) => wire.leads = *leads,
            }
        }
        wire.leads = true;
        wire.settle();
        wire.send(SET);
        let first = wire.settle();
        prop_assert!(first == "+" || first == "-", "{first}");
        wire.send(SET);
        prop_assert_eq!(wire.settle(), "+");
        prop_assert!(wire.session.is_settled());
    }
}
