//! Every bound of a connection.

use bytes::{Buf, Bytes, BytesMut};
use command::{Command, Hit, Key, KeyValue, Outcome, Read, Reply};
use quorate_protocol::{Limits, Parser, Request, Session};

/// The requests of these bytes, of which each piece is received by itself.
fn requests(limits: Limits, pieces: &[&[u8]]) -> Vec<Request> {
    let mut parser = Parser::new(limits);
    let mut buffer = BytesMut::new();
    let mut requests = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(parsed) = parser.next(&mut buffer) {
            requests.push(parsed.request);
        }
    }
    requests
}

#[test]
fn a_line_of_2048_bytes_is_waited_for_and_a_longer_one_is_not() {
    let longest = [b'x'; 2048];
    assert_eq!(
        requests(Limits::default(), &[&longest, b"\n"]),
        [Request::Answer("ERROR\r\n")],
    );
    let too_long = [b'x'; 2049];
    assert_eq!(
        requests(Limits::default(), &[&too_long, b"\nmn\r\n"]),
        [Request::Close],
    );
    let gat = [b"gat 0".as_slice(), &b" key".repeat(600)].concat();
    assert_eq!(requests(Limits::default(), &[&gat]), [Request::Close]);
}

/// How many commands are taken of those that wait.
fn taken(session: &mut Session) -> usize {
    std::iter::from_fn(|| session.next_run())
        .map(|run| run.commands.len())
        .sum()
}

/// The next few commands find a value of this length, and the replies are written.
fn answer(session: &mut Session, count: usize, bytes: usize) {
    let key = Key::new(Bytes::from_static(b"k")).expect("a key");
    let hit = Hit {
        flags: 0,
        unique: 1,
        data: KeyValue::new(&key, &vec![b'v'; bytes]),
    };
    let reply = Outcome::Done(Reply::Hits(vec![hit]));
    session.outcomes(std::iter::repeat_n(reply, count), |_| Vec::new());
    let written = session.output().remaining();
    session.written(written, 0);
}

#[test]
fn replies_that_are_not_shared_are_asked_for_as_far_as_they_are_small() {
    let mut session = Session::new(Limits {
        reply_ahead_bytes: 64_000,
        ..Limits::default()
    });
    let commands = b"get k\r\n".repeat(3000);
    session.receive_buffer().extend_from_slice(&commands);
    assert_eq!(taken(&mut session), 64, "nothing is known yet");
    answer(&mut session, 4, 3999);
    assert_eq!(taken(&mut session), 0, "60 are owed, and 16 may be");
    answer(&mut session, 60, 3999);
    assert_eq!(taken(&mut session), 16);
    answer(&mut session, 16, 60_000);
    assert_eq!(taken(&mut session), 8, "a few always may");
    answer(&mut session, 1, 10);
    assert_eq!(taken(&mut session), 1, "a large reply is remembered");
    for _ in 0..100 {
        answer(&mut session, 1, 10);
        taken(&mut session);
    }
    answer(&mut session, 1, 10);
    assert_eq!(taken(&mut session), 1, "1,024 are owed again");
}

#[test]
fn a_longer_line_that_is_received_with_its_end_is_read() {
    let line = [[b'x'; 3000].as_slice(), b"\r\nmn\r\n"].concat();
    assert_eq!(
        requests(Limits::default(), &[&line]),
        [Request::Answer("ERROR\r\n"), Request::Answer("MN\r\n")],
    );
}

#[test]
fn a_get_line_of_a_megabyte_is_waited_for_and_a_longer_one_is_not() {
    let line = |bytes: usize| {
        let mut line = b"get".to_vec();
        while line.len() + 251 <= bytes {
            line.extend_from_slice(b" ");
            line.extend_from_slice(&[b'k'; 250]);
        }
        line.resize(bytes, b' ');
        line
    };
    let longest = line(1 << 20);
    let (first, second) = longest.split_at(500_000);
    let found = requests(Limits::default(), &[first, second, b"\n"]);
    assert!(
        matches!(&found[..], [Request::Command { .. }]),
        "{}",
        found.len()
    );
    let too_long = line((1 << 20) + 1);
    assert_eq!(
        requests(Limits::default(), &[&too_long, b"\n"]),
        [Request::Close],
    );
    let with_its_end = [&too_long[..], b"\n"].concat();
    assert_eq!(
        requests(Limits::default(), &[&with_its_end]),
        [Request::Close],
    );
}

#[test]
fn an_item_may_be_as_large_as_the_limit_says() {
    let limits = Limits {
        item_bytes_max: 100,
        ..Limits::default()
    };
    let set = |key: usize, value: usize| {
        let key = "k".repeat(key);
        let block = "x".repeat(value);
        let input = format!("set {key} 0 0 {value}\r\n{block}\r\n");
        let [request] = &requests(limits, &[input.as_bytes()])[..] else {
            panic!("one request");
        };
        matches!(request, Request::Command { .. })
    };
    assert!(set(1, 43));
    assert!(!set(1, 44));
    assert!(set(44, 0));
    assert!(!set(45, 0));
}

#[test]
fn what_is_too_large_is_never_buffered() {
    let mut session = Session::new(Limits::default());
    let mut capacity_max = 0;
    session
        .receive_buffer()
        .extend_from_slice(b"set a 0 0 100000000\r\n");
    assert_eq!(session.next_run(), None);
    let packet = [b'x'; 16_000];
    for _ in 0..100_000_000 / packet.len() {
        assert!(session.wants_input());
        session.receive_buffer().extend_from_slice(&packet);
        assert_eq!(session.next_run(), None);
        capacity_max = capacity_max.max(session.receive_buffer().capacity());
    }
    session.receive_buffer().extend_from_slice(b"\r\nmn\r\n");
    assert_eq!(session.next_run(), None);
    assert!(!session.holds_partial_command());
    assert!(capacity_max <= 64 << 10, "{capacity_max} bytes");
    let output = session.output().chunk().escape_ascii().to_string();
    assert_eq!(output, r"SERVER_ERROR object too large for cache\r\nMN\r\n");
}

#[test]
fn announcing_a_value_takes_no_memory_for_it() {
    let mut session = Session::new(Limits::default());
    session
        .receive_buffer()
        .extend_from_slice(b"set a 0 0 1000000\r\n");
    assert_eq!(session.next_run(), None);
    let mut received = 0;
    let packet = [b'x'; 1000];
    while received < 1_000_000 {
        let capacity = session.receive_buffer().capacity();
        assert!(
            capacity <= 4 * received + (64 << 10),
            "{capacity} for {received}"
        );
        session.receive_buffer().extend_from_slice(&packet);
        assert_eq!(session.next_run(), None);
        received += packet.len();
    }
    session.receive_buffer().extend_from_slice(b"\r\n");
    drop(session.next_run().expect("the value is there"));
    let capacity = session.receive_buffer().capacity();
    assert!(capacity <= 64 << 10, "{capacity} bytes are left behind");
}

#[test]
fn a_run_holds_64_commands_or_256_kibibytes() {
    let mut session = Session::new(Limits::default());
    session
        .receive_buffer()
        .extend_from_slice(&b"get a\r\n".repeat(100));
    assert_eq!(session.next_run().expect("a run").commands.len(), 64);
    assert_eq!(session.next_run().expect("a run").commands.len(), 36);
    assert_eq!(session.next_run(), None);

    let set = [
        b"set a 0 0 100000\r\n".as_slice(),
        &[b'x'; 100_000],
        b"\r\n",
    ]
    .concat();
    session.receive_buffer().extend_from_slice(&set.repeat(4));
    let run = session.next_run().expect("a run");
    assert_eq!((run.commands.len(), run.bytes), (3, 3 * set.len()));
    assert_eq!(session.next_run().expect("a run").commands.len(), 1);
}

#[test]
fn a_run_counts_the_keys_of_a_get_and_the_place_that_each_other_takes() {
    let mut session = Session::new(Limits::default());
    session
        .receive_buffer()
        .extend_from_slice(b"get a b c\r\ngat 0 a b\r\ndelete a\r\n");
    let run = session.next_run().expect("a run");
    let lines = "gat 0 a b\r\ndelete a\r\n".len();
    assert_eq!(run.bytes, 3 * 2 + lines + 2 * size_of::<Key>());
}

#[test]
fn with_1024_replies_owed_nothing_more_is_parsed_or_wanted() {
    let mut session = Session::new(Limits::default());
    session
        .receive_buffer()
        .extend_from_slice(&b"get a\r\n".repeat(1030));
    session.receive_buffer().extend_from_slice(b"get");
    let mut commands = 0;
    while let Some(run) = session.next_run() {
        commands += run.commands.len();
    }
    assert_eq!(commands, 1024);
    assert!(!session.wants_input());
    assert!(
        !session.holds_partial_command(),
        "the client is not to blame"
    );
    let miss = || Outcome::Done(Reply::Hits(Vec::new()));
    session.outcomes([miss(), miss()], |_| Vec::new());
    assert_eq!(session.next_run().expect("a run").commands.len(), 2);
    assert!(!session.wants_input());
    session.outcomes(std::iter::repeat_with(miss).take(1024), |_| Vec::new());
    assert!(!session.wants_input(), "four commands are to be parsed");
    assert_eq!(session.next_run().expect("a run").commands.len(), 4);
    assert_eq!(session.next_run(), None);
    assert!(session.wants_input());
    assert!(session.holds_partial_command());
}

#[test]
fn with_8_mebibytes_unwritten_nothing_more_is_parsed_or_wanted() {
    let mut session = Session::new(Limits::default());
    session
        .receive_buffer()
        .extend_from_slice(&b"get a\r\n".repeat(9));
    assert_eq!(session.next_run().expect("a run").commands.len(), 9);
    assert_eq!(session.next_run(), None);
    let key = Key::new(Bytes::from_static(b"a")).expect("1 to 250 bytes");
    let hit = Hit {
        flags: 0,
        unique: 1,
        data: KeyValue::new(&key, &vec![b'x'; 1 << 20]),
    };
    let hit = || Outcome::Done(Reply::Hits(vec![hit.clone()]));
    session.outcomes(std::iter::repeat_with(hit).take(7), |_| Vec::new());
    assert!(session.wants_input());
    session.outcomes([hit(), hit()], |_| Vec::new());
    assert!(!session.wants_input());
    let unwritten = session.output().remaining();
    assert!(unwritten < 9 << 20, "the ninth reply is to wait");
    session.receive_buffer().extend_from_slice(b"mn\r\n");
    assert_eq!(session.next_run(), None);
    session.written(2 << 20, 0);
    assert_eq!(session.next_run(), None);
    let reply = "VALUE a 0 1048576\r\n".len() + (1 << 20) + "\r\nEND\r\n".len();
    assert_eq!(
        session.output().remaining(),
        9 * reply - (2 << 20) + "MN\r\n".len()
    );
    assert!(session.wants_input());
}

#[test]
fn the_reply_to_the_longest_get_line_is_encoded_as_it_is_written() {
    let limits = Limits::default();
    let mut session = Session::new(limits);
    let mut line = b"get".to_vec();
    while line.len() + b" k\r".len() <= limits.get_line_bytes_max {
        line.extend_from_slice(b" k");
    }
    line.extend_from_slice(b"\r\n");
    let mut run = None;
    for part in line.chunks(limits.read_bytes) {
        session.receive_buffer().extend_from_slice(part);
        run = session.next_run().or(run);
    }
    let run = run.expect("the line is within the limits");
    let [Command::Read(Read::Get { keys })] = &run.commands[..] else {
        panic!("one get");
    };
    let first = keys.iter().next().expect("it names keys");
    let key = Key::new(Bytes::copy_from_slice(first)).expect("it was one on the line");
    let hit = Hit {
        flags: 0,
        unique: 1,
        data: KeyValue::new(&key, &[b'x'; 4096]),
    };
    let hits = vec![hit; keys.len()];
    session.outcomes([Outcome::Done(Reply::Hits(hits))], |_| Vec::new());
    let bound = limits.unwritten_bytes_max + limits.item_bytes_max;
    let mut written = 0;
    while session.output().has_remaining() {
        let unwritten = session.output().remaining();
        assert!(
            unwritten <= bound,
            "{unwritten} bytes are unwritten, {bound} may be"
        );
        written += unwritten;
        assert!(!session.is_settled());
        session.written(unwritten, 0);
    }
    let hit = "VALUE k 0 4096\r\n".len() + 4096 + "\r\n".len();
    assert_eq!(written, keys.len() * hit + "END\r\n".len());
    assert!(session.is_settled());
    assert!(session.wants_input());
}

#[test]
fn lines_answered_on_the_spot_stop_at_the_bound_on_output_too() {
    let mut session = Session::new(Limits::default());
    session
        .receive_buffer()
        .extend_from_slice(&b"\n".repeat(300_000));
    assert_eq!(session.next_run(), None);
    let unwritten = session.output().remaining();
    assert!(
        (8 << 20..(8 << 20) + 100).contains(&unwritten),
        "{unwritten}"
    );
    assert!(!session.wants_input());
    session.written(unwritten, 0);
    assert_eq!(session.next_run(), None);
    assert!(session.wants_input());
}
