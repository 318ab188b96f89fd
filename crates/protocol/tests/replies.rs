//! Outcomes in, bytes out: every reply line, and the order of replies on a connection.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use command::{Command, Hit, Key, KeyValue, Outcome, Refusal, Reply, Stats};
use quorate_protocol::{Limits, Output, Session, Shape, StatLine, write_reply};

fn hit(key: &'static str, flags: u32, unique: u64, value: &'static [u8]) -> Hit {
    let key = Key::new(Bytes::from_static(key.as_bytes())).expect("1 to 250 bytes");
    Hit {
        flags,
        unique,
        data: KeyValue::new(&key, value),
    }
}

fn stat(name: &'static str, value: &str) -> StatLine {
    (Cow::Borrowed(name), value.to_string())
}

fn redirect() -> Outcome {
    Outcome::NotDone(Refusal::Redirect {
        host: Arc::from("127.0.0.1"),
        client_port: 9010,
    })
}

/// All that is in the output, which is empty afterwards.
fn taken(output: &mut Output) -> String {
    let bytes = output.copy_to_bytes(output.remaining());
    bytes.escape_ascii().to_string()
}

#[test]
fn every_outcome_has_its_line() {
    let hits = vec![
        hit("a", 5, 77, b"x\r\ny"),
        hit("b", u32::MAX, u64::MAX, b""),
    ];
    let done = Outcome::Done;
    let cases = [
        (done(Reply::Stored), Shape::Line, r"STORED\r\n"),
        (done(Reply::NotStored), Shape::Line, r"NOT_STORED\r\n"),
        (done(Reply::Exists), Shape::Line, r"EXISTS\r\n"),
        (done(Reply::NotFound), Shape::Line, r"NOT_FOUND\r\n"),
        (done(Reply::Deleted), Shape::Line, r"DELETED\r\n"),
        (done(Reply::Touched), Shape::Line, r"TOUCHED\r\n"),
        (done(Reply::Ok), Shape::Line, r"OK\r\n"),
        (done(Reply::Ok), Shape::Stats(Stats::Reset), r"RESET\r\n"),
        (done(Reply::Number(0)), Shape::Line, r"0\r\n"),
        (
            done(Reply::Number(u64::MAX)),
            Shape::Line,
            r"18446744073709551615\r\n",
        ),
        (
            done(Reply::NonNumeric),
            Shape::Line,
            r"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
        ),
        (done(Reply::Hits(Vec::new())), Shape::Values, r"END\r\n"),
        (
            done(Reply::Hits(hits.clone())),
            Shape::Values,
            r"VALUE a 5 4\r\nx\r\ny\r\nVALUE b 4294967295 0\r\n\r\nEND\r\n",
        ),
        (
            done(Reply::Hits(hits)),
            Shape::ValuesWithUnique,
            concat!(
                r"VALUE a 5 4 77\r\nx\r\ny\r\n",
                r"VALUE b 4294967295 0 18446744073709551615\r\n\r\nEND\r\n",
            ),
        ),
        (
            done(Reply::Stats(vec![stat("cmd_get", "1")])),
            Shape::Stats(Stats::General),
            r"STAT cmd_get 1\r\nSTAT pid 7\r\nEND\r\n",
        ),
        (redirect(), Shape::Line, r"ERR_REDIRECT 127.0.0.1 9010\r\n"),
        (
            redirect(),
            Shape::Values,
            r"ERR_REDIRECT 127.0.0.1 9010\r\n",
        ),
        (
            Outcome::NotDone(Refusal::NoLeader),
            Shape::Line,
            r"SERVER_ERROR no leader\r\n",
        ),
        (
            Outcome::NotDone(Refusal::NoLeader),
            Shape::ValuesWithUnique,
            r"SERVER_ERROR no leader\r\n",
        ),
        (
            Outcome::Unknown,
            Shape::Line,
            r"SERVER_ERROR outcome unknown\r\n",
        ),
        (done(Reply::Stored), Shape::Silent, ""),
        (done(Reply::NonNumeric), Shape::Silent, ""),
        (redirect(), Shape::Silent, ""),
        (Outcome::Unknown, Shape::Silent, ""),
    ];
    let mut output = Output::new();
    for (outcome, shape, expected) in cases {
        write_reply(&outcome, &shape, &[stat("pid", "7")], &mut output);
        assert_eq!(taken(&mut output), expected, "{outcome:?} as {shape:?}");
    }
}

fn session_that_received(bytes: &[u8]) -> Session {
    let mut session = Session::new(Limits::default());
    session.receive_buffer().extend_from_slice(bytes);
    session
}

/// What was appended since the last call, as if the socket had taken it.
fn written(session: &mut Session) -> String {
    let mut bytes = Vec::new();
    while session.output().has_remaining() {
        let chunk = session.output().chunk().to_vec();
        session.written(chunk.len(), 0);
        bytes.extend_from_slice(&chunk);
    }
    bytes.escape_ascii().to_string()
}

fn outcomes(session: &mut Session, outcomes: Vec<Outcome>) {
    session.outcomes(outcomes, |stats| vec![stat("asked", &format!("{stats:?}"))]);
}

#[test]
fn replies_come_in_the_order_of_the_requests_whoever_answers_them() {
    let mut session = session_that_received(
        b"mn\r\nset a 0 0 1\r\nx\r\nmn\r\nfoo\r\nget a\r\ndelete a noreply\r\nmn\r\nincr b 1\r\n",
    );
    let run = session.next_run().expect("a run");
    assert_eq!(run.commands.len(), 4);
    assert_eq!(session.next_run(), None);
    assert_eq!(written(&mut session), r"MN\r\n");
    outcomes(&mut session, vec![Outcome::Done(Reply::Stored)]);
    assert_eq!(written(&mut session), r"STORED\r\nMN\r\nERROR\r\n");
    let hits = vec![hit("a", 0, 1, b"x")];
    outcomes(
        &mut session,
        vec![
            Outcome::Done(Reply::Hits(hits)),
            Outcome::Done(Reply::Deleted),
        ],
    );
    assert_eq!(written(&mut session), r"VALUE a 0 1\r\nx\r\nEND\r\nMN\r\n",);
    assert!(!session.is_settled());
    outcomes(&mut session, vec![Outcome::Done(Reply::NotFound)]);
    assert_eq!(written(&mut session), r"NOT_FOUND\r\n");
    assert!(session.is_settled());
}

#[test]
fn the_server_adds_its_own_lines_to_stats() {
    let mut session = session_that_received(b"stats\r\nstats settings\r\nstats reset\r\n");
    session.next_run().expect("a run");
    outcomes(
        &mut session,
        vec![
            Outcome::Done(Reply::Stats(vec![stat("a", "b c")])),
            Outcome::Done(Reply::Stats(Vec::new())),
            Outcome::Done(Reply::Ok),
        ],
    );
    assert_eq!(
        written(&mut session),
        concat!(
            r"STAT a b c\r\nSTAT asked General\r\nEND\r\n",
            r"STAT asked Settings\r\nEND\r\nRESET\r\n",
        ),
    );
}

#[test]
fn quit_closes_once_what_was_asked_before_is_answered() {
    let mut session = session_that_received(b"get a\r\nmn\r\nquit\r\nget b\r\nmn\r\n");
    let run = session.next_run().expect("a run");
    assert_eq!(run.commands.len(), 1);
    assert_eq!(session.next_run(), None);
    assert!(!session.should_close());
    assert!(!session.wants_input());
    outcomes(&mut session, vec![Outcome::Done(Reply::Hits(Vec::new()))]);
    assert!(!session.should_close(), "the reply is unwritten");
    assert_eq!(written(&mut session), r"END\r\nMN\r\n");
    assert!(session.should_close());
    assert!(session.is_settled());
    assert_eq!(session.next_run(), None);
}

#[test]
fn what_is_asked_behind_a_long_reply_comes_behind_it() {
    let limits = Limits {
        unwritten_bytes_max: 30,
        ..Limits::default()
    };
    let mut session = Session::new(limits);
    session
        .receive_buffer()
        .extend_from_slice(b"gets a a a\r\nmn\r\nset a 0 0 1\r\nx\r\nget a\r\nstats\r\nquit\r\n");
    assert_eq!(session.next_run().expect("a run").commands.len(), 4);
    let hits = |count| Outcome::Done(Reply::Hits(vec![hit("a", 0, 1, b"x"); count]));
    let stats = Outcome::Done(Reply::Stats(Vec::new()));
    outcomes(&mut session, vec![hits(3), redirect(), hits(1), stats]);
    let first_two = 2 * "VALUE a 0 1 1\r\nx\r\n".len();
    assert_eq!(session.output().remaining(), first_two);
    assert!(!session.owes_refusal(), "it comes later");
    session.written(first_two, 0);
    assert!(session.owes_refusal());
    assert!(!session.is_settled());
    assert!(!session.should_close());
    assert!(!session.wants_input());
    assert_eq!(
        written(&mut session),
        concat!(
            r"VALUE a 0 1 1\r\nx\r\nEND\r\nMN\r\nERR_REDIRECT 127.0.0.1 9010\r\n",
            r"VALUE a 0 1\r\nx\r\nEND\r\nSTAT asked General\r\nEND\r\n",
        ),
    );
    assert!(!session.owes_refusal());
    assert!(session.is_settled());
    assert!(session.should_close());
}

#[test]
fn an_incomplete_command_shows_whatever_part_of_it_is_there() {
    let mut session = Session::new(Limits::default());
    let mut at = |bytes: &[u8]| {
        session.receive_buffer().extend_from_slice(bytes);
        while session.next_run().is_some() {}
        session.holds_partial_command()
    };
    assert!(!at(b""));
    assert!(at(b"g"));
    assert!(!at(b"et a\r\n"));
    assert!(at(b"set a 0 0 1\r\n"));
    assert!(at(b"x\r"));
    assert!(!at(b"\n"));
    assert!(at(b"set a 0 0 2000000\r\n"), "its block is passed over");
    assert!(at(&vec![b'x'; 2_000_000]));
    assert!(!at(b"\r\n"));
    assert!(!at(b"mn\r\n"));
    assert!(at(b"mn\r\nm"));
}

#[test]
fn commands_leave_in_the_order_in_which_they_came() {
    let mut session = session_that_received(
        b"set k 0 0 1 noreply\r\n1\r\nget k\r\ndelete k noreply\r\nget k\r\n",
    );
    let run = session.next_run().expect("there are four commands");
    let reads = run.commands.iter();
    let reads: Vec<bool> = reads.map(|it| matches!(it, Command::Read(_))).collect();
    assert_eq!(reads, [false, true, false, true]);
}
