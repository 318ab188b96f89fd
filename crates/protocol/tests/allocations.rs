//! What a command costs in allocations on its way from the socket's bytes to the evaluator, and
//! from its outcome to the socket: nothing for each `set`, and its keys for each `get`.

use allocation_counter::measure;
use bytes::{Buf, Bytes};
use command::{Command, Hit, Key, KeyValue, Outcome, Reply, Write};
use quorate_protocol::{Limits, Run, Session};

/// Commands that arrive together: as many as fit one run.
const COMMANDS: usize = 64;

/// What a run costs however long it is: its list of commands, and the counter by which they share
/// what was received.
const A_RUN: u64 = 8;

/// A session that has carried out such commands before, so that its buffers are there.
fn warm(line: &[u8], outcome: &Outcome) -> Session {
    let mut session = Session::new(Limits::default());
    for _ in 0..3 {
        let run = received(&mut session, line);
        answer(&mut session, &run, outcome);
    }
    session
}

/// The run that these lines make.
fn received(session: &mut Session, line: &[u8]) -> Run {
    for _ in 0..COMMANDS {
        session.receive_buffer().extend_from_slice(line);
    }
    let run = session.next_run().expect("it has come whole");
    assert_eq!(run.commands.len(), COMMANDS);
    run
}

fn answer(session: &mut Session, run: &Run, outcome: &Outcome) {
    session.outcomes(run.commands.iter().map(|_| outcome.clone()), |_| Vec::new());
    let bytes = session.output().remaining();
    session.written(bytes, 0);
    assert!(session.is_settled());
}

#[test]
fn a_set_is_read_without_an_allocation_of_its_own() {
    let stored = Outcome::Done(Reply::Stored);
    let line = b"set key 1 0 100\r\n".to_vec();
    let line = [line, vec![b'v'; 100], b"\r\n".to_vec()].concat();
    let mut session = warm(&line, &stored);
    let counted = measure(|| {
        let run = received(&mut session, &line);
        let Some(Command::Write(Write::Store(store))) = run.commands.last() else {
            panic!("{run:?}");
        };
        assert_eq!(store.value.len(), 100);
    });
    assert!(counted.count_total <= A_RUN, "{counted:?}");
}

#[test]
fn a_get_is_read_with_one_allocation_for_its_keys() {
    let none = Outcome::Done(Reply::Hits(Vec::new()));
    let line = b"get key1 key2 key3\r\n";
    let mut session = warm(line, &none);
    let counted = measure(|| drop(received(&mut session, line)));
    // The keys, and the counter by which they are shared.
    let bound = 2 * COMMANDS as u64 + A_RUN;
    assert!(counted.count_total <= bound, "{counted:?}");
}

#[test]
fn a_reply_is_written_without_an_allocation_of_its_own() {
    let key = Key::new(Bytes::from_static(b"key")).expect("1 to 250 bytes");
    let hit = Hit {
        flags: 1,
        unique: 2,
        data: KeyValue::new(&key, &[b'v'; 100]),
    };
    let hits = Outcome::Done(Reply::Hits(vec![hit]));
    let stored = Outcome::Done(Reply::Stored);
    let replies: [(&[u8], Outcome); 2] = [(b"get key\r\n", hits), (b"delete key\r\n", stored)];
    for (line, outcome) in replies {
        let mut session = warm(line, &outcome);
        let run = received(&mut session, line);
        // As the evaluator hands them over.
        let outcomes: Vec<Outcome> = run.commands.iter().map(|_| outcome.clone()).collect();
        let counted = measure(|| {
            session.outcomes(outcomes, |_| Vec::new());
            let bytes = session.output().remaining();
            session.written(bytes, 0);
        });
        assert!(counted.count_total <= A_RUN, "{counted:?}");
    }
}
