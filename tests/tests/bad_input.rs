//! What no client should send, or do: the exact error line or the closed connection, the connection
//! next to it undisturbed, memory bounded. `limits.rs` has what is too many, `clients.rs` those who
//! do not read, `memcached.rs` the errors that a client makes in good faith.

use std::io::ErrorKind;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use quorate_tests::{Cluster, Plan, Programs, Shared, Text, User};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

/// Of all tests here that leave each other's keys alone.
static SHARED: Shared = Shared::new();

const ERROR: &str = "ERROR\r\n";
const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format\r\n";
const BAD_CHUNK: &str = "CLIENT_ERROR bad data chunk\r\n";
const BAD_EXPTIME: &str = "CLIENT_ERROR invalid exptime argument\r\n";
const BAD_DELTA: &str = "CLIENT_ERROR invalid numeric delta argument\r\n";
const TOO_LARGE: &str = "SERVER_ERROR object too large for cache\r\n";

/// The longest line that is waited for, without its end, in bytes.
const LINE_BYTES_MAX: usize = 2_048;

/// The same for `get` and `gets`.
const GET_LINE_BYTES_MAX: usize = 1 << 20;

/// More memory than a server takes that keeps to its bounds, in bytes.
const RESIDENT_BYTES_MAX: u64 = 300 << 20;

fn cluster() -> User {
    SHARED.get_or_start(|| Plan::new(PROGRAMS, 3).patient().start())
}

/// A client that does nothing wrong, and must not notice what others do.
struct Neighbour {
    text: Text,
    key: String,
    turns: usize,
}

impl Neighbour {
    fn of(cluster: &Cluster, key: &str) -> Neighbour {
        Neighbour {
            text: cluster.connect_to_leader(),
            key: key.to_owned(),
            turns: 0,
        }
    }

    /// Writes and reads, with others' bytes between the two.
    #[track_caller]
    fn is_undisturbed(&mut self) {
        self.turns += 1;
        let (key, value) = (&self.key, self.turns.to_string());
        let (set, get) = (
            format!("set {key} 7 0 {}\r\n{value}\r\n", value.len()),
            format!("get {key}\r\n"),
        );
        self.text.exchange(set, "STORED\r\n");
        let hit = format!("VALUE {key} 7 {}\r\n{value}\r\nEND\r\n", value.len());
        self.text.exchange(get, hit);
    }
}

/// Sends what the server may refuse to read to its end.
fn send_anyway(text: &mut Text, bytes: impl AsRef<[u8]>) {
    if let Err(error) = text.try_send(bytes) {
        assert!(
            matches!(
                error.kind(),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            ),
            "{error}"
        );
    }
}

#[test]
fn a_line_that_is_too_long_closes_its_connection_at_the_byte_over_the_limit() {
    let cluster = cluster();
    let mut neighbour = Neighbour::of(&cluster, "line");
    let begin = [
        "x",
        "set k 0 0 ",
        "mg ",
        "gat 0 k ",
        "delete ",
        "\0",
        "\u{fc}",
        "GET ",
    ];
    for begin in begin {
        let longest = begin.to_owned() + &"k".repeat(LINE_BYTES_MAX - begin.len());
        // As long as may be, and its end comes later: `ERROR`, or whatever is wrong with it.
        let mut text = cluster.connect_to_leader();
        text.send(&longest);
        let answer = text.ask("\n");
        assert!(answer.contains("ERROR"), "{answer:?} after {begin}");
        // One byte more.
        let mut text = cluster.connect_to_leader();
        text.exchange("mn\r\n", "MN\r\n");
        send_anyway(&mut text, longest + "k");
        text.expect_closed();
        neighbour.is_undisturbed();
    }
    for name in ["get", "gets"] {
        let mut text = cluster.connect_to_leader();
        // A key less than fits: the line has a name and an end besides.
        let keys = " no-such-key".repeat(GET_LINE_BYTES_MAX / 12 - 1);
        text.exchange(format!("{name}{keys}\r\n"), "END\r\n");
        send_anyway(&mut text, format!("{name}{keys}{keys}"));
        text.expect_closed();
        neighbour.is_undisturbed();
    }
}

#[test]
fn words_that_are_too_long_are_refused_each_with_its_line() {
    let cluster = cluster();
    let mut neighbour = Neighbour::of(&cluster, "words");
    let mut text = cluster.connect_to_leader();
    for length in [251, 1_000, 1_900] {
        let key = "k".repeat(length);
        let digits = "9".repeat(length);
        let cases = [
            (format!("get {key}\r\n"), BAD_FORMAT),
            (format!("gets a {key} b\r\n"), BAD_FORMAT),
            (format!("gat 0 {key}\r\n"), BAD_FORMAT),
            (format!("delete {key}\r\n"), BAD_FORMAT),
            (format!("touch {key} 0\r\n"), BAD_FORMAT),
            (format!("incr {key} 1\r\n"), BAD_FORMAT),
            (format!("set {key} 0 0 1\r\nx\r\n"), BAD_FORMAT),
            (format!("cas {key} 0 0 1 1\r\nx\r\n"), BAD_FORMAT),
            (format!("set w {digits} 0 1\r\nx\r\n"), BAD_FORMAT),
            (format!("set w 0 {digits} 1\r\nx\r\n"), BAD_FORMAT),
            (format!("cas w 0 0 1 {digits}\r\nx\r\n"), BAD_FORMAT),
            (format!("incr w {digits}\r\n"), BAD_DELTA),
            (format!("touch w {digits}\r\n"), BAD_EXPTIME),
            (format!("gat {digits} w\r\n"), BAD_EXPTIME),
            (format!("flush_all {digits}\r\n"), BAD_EXPTIME),
            (format!("{key}\r\n"), ERROR),
            (format!("stats {key}\r\n"), ERROR),
        ];
        for (line, expected) in cases {
            // Nothing is left over of any of them.
            text.exchange(line + "mn\r\n", expected.to_owned() + "MN\r\n");
        }
        neighbour.is_undisturbed();
    }
    // No length can be read, so the block is a line.
    let digits = "9".repeat(1_000);
    let unreadable = format!("set w 0 0 {digits}\r\nx\r\nmn\r\n");
    text.exchange(unreadable, format!("{BAD_FORMAT}{ERROR}MN\r\n"));
    // As many words as fit a line.
    let words = " 1".repeat(1_000);
    text.exchange(format!("incr none{words}\r\n"), "NOT_FOUND\r\n");
    text.exchange(format!("set w 0 0 1{words}\r\nx\r\n"), "STORED\r\n");
    neighbour.is_undisturbed();
}

#[test]
fn numbers_below_and_above_what_they_may_be_are_refused_and_change_nothing() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    text.exchange("set n 1 0 2\r\n10\r\n", "STORED\r\n");
    let bad = [
        "-1",
        "18446744073709551616",
        "1e3",
        "0x10",
        "1.5",
        "--1",
        "+",
        "\u{661}",
    ];
    for bad in bad {
        let cases = [
            (format!("set n {bad} 0 1\r\nx\r\n"), BAD_FORMAT),
            (format!("cas n 0 0 1 {bad}\r\nx\r\n"), BAD_FORMAT),
            (format!("incr n {bad}\r\n"), BAD_DELTA),
            (format!("decr n {bad}\r\n"), BAD_DELTA),
            (format!("verbosity {bad}\r\n"), BAD_FORMAT),
        ];
        for (line, expected) in cases {
            text.exchange(line + "mn\r\n", expected.to_owned() + "MN\r\n");
        }
    }
    for bad in [
        "9223372036854775808",
        "-9223372036854775809",
        "1e3",
        "x",
        "-",
    ] {
        let cases = [
            (format!("set n 0 {bad} 1\r\nx\r\n"), BAD_FORMAT),
            (format!("touch n {bad}\r\n"), BAD_EXPTIME),
            (format!("gat {bad} n\r\n"), BAD_EXPTIME),
            (format!("flush_all {bad}\r\n"), BAD_EXPTIME),
        ];
        for (line, expected) in cases {
            text.exchange(line + "mn\r\n", expected.to_owned() + "MN\r\n");
        }
    }
    for bad in ["-1", "-2147483648", "2147483646", "4294967297", "x", "1x"] {
        let line = format!("set n 0 0 {bad}\r\nmn\r\n");
        text.exchange(line, format!("{BAD_FORMAT}MN\r\n"));
    }
    text.exchange("get n\r\n", "VALUE n 1 2\r\n10\r\nEND\r\n");
}

#[test]
fn a_data_block_that_is_missing_is_waited_for_and_never_made_up() {
    let cluster = cluster();
    let mut neighbour = Neighbour::of(&cluster, "missing");
    // The lines behind it are taken for it, as long as it has room.
    let mut text = cluster.connect_to_leader();
    text.exchange("set d 0 0 3\r\nold\r\n", "STORED\r\n");
    text.exchange("set d 0 0 8\r\nmn\r\nmn\r\n\r\nmn\r\n", "STORED\r\nMN\r\n");
    text.exchange(
        "set d 0 0 9\r\nmn\r\nmn\r\nmn\r\nmn\r\n",
        format!("{BAD_CHUNK}{BAD_FORMAT}MN\r\n"),
    );
    let kept = "VALUE d 0 8\r\nmn\r\nmn\r\n\r\nEND\r\n";
    text.exchange("get d\r\n", kept);
    // It never comes: who announced it is gone, at every byte of it.
    let whole = "set d 9 0 10\r\n0123456789\r\n";
    for end in 1..whole.len() {
        let mut text = cluster.connect_to_leader();
        text.send(&whole[..end]);
        text.finish();
        text.expect_closed();
    }
    text.exchange("get d\r\n", kept);
    neighbour.is_undisturbed();
    // What is too large is not kept while it comes, and may be missing as well.
    let mut announced = Vec::new();
    for _ in 0..50 {
        let mut text = cluster.connect_to_leader();
        text.send("set d 0 0 2147483645\r\n");
        text.expect(TOO_LARGE);
        text.send("x".repeat(100_000));
        announced.push(text);
    }
    neighbour.is_undisturbed();
    text.exchange("get d\r\n", kept);
}

#[test]
fn a_nul_is_an_error_anywhere_but_in_a_value() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    let cases = [
        ("\0\r\n", ERROR),
        ("ge\0t a\r\n", ERROR),
        ("get\0a\r\n", ERROR),
        ("get \0\r\n", BAD_FORMAT),
        ("get z\0 a\r\n", BAD_FORMAT),
        ("gat 0 a\0\r\n", BAD_FORMAT),
        ("delete \0a\r\n", BAD_FORMAT),
        ("incr z\0 1\r\n", BAD_FORMAT),
        ("incr z 1\0\r\n", BAD_DELTA),
        ("touch z 0\0\r\n", BAD_EXPTIME),
        ("set z\0 0 0 1\r\nx\r\n", BAD_FORMAT),
        ("set z 0\0 0 1\r\nx\r\n", BAD_FORMAT),
        ("set z 0 \0 1\r\nx\r\n", BAD_FORMAT),
        ("set z 0 0 1\0\r\n", BAD_FORMAT),
        ("set z 0 0 1\r\nx\0\r\n", BAD_CHUNK),
        ("get z\r\n", "END\r\n"),
        ("set z 0 0 3\r\n\0\0\0\r\n", "STORED\r\n"),
        ("get z\r\n", "VALUE z 0 3\r\n\0\0\0\r\nEND\r\n"),
    ];
    for (line, expected) in cases {
        // What `x\0\r\n` leaves behind is an empty line.
        let rest = if expected == BAD_CHUNK {
            BAD_FORMAT
        } else {
            ""
        };
        text.exchange(format!("{line}mn\r\n"), format!("{expected}{rest}MN\r\n"));
    }
}

#[test]
fn nothing_of_a_browsers_request_is_carried_out() {
    let cluster = cluster();
    let mut neighbour = Neighbour::of(&cluster, "browser");
    neighbour.is_undisturbed();
    let body = "delete browser\r\nset forged 0 0 1\r\nx\r\nflush_all\r\n";
    let heads = [
        "GET / HTTP/1.1\r\nHost: localhost:11211\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 52\r\n\r\n",
        "PUT /key HTTP/1.0\r\n\r\n",
        "OPTIONS * HTTP/2.0\r\n\r\n",
        "\x16 HTTP/1.1\r\n",
    ];
    for head in heads {
        let whole = format!("{head}{body}");
        // In one write, and byte by byte.
        let mut text = cluster.connect_to_leader();
        send_anyway(&mut text, &whole);
        text.expect_closed();
        let mut text = cluster.connect_to_leader();
        for byte in whole.as_bytes() {
            send_anyway(&mut text, [*byte]);
        }
        text.expect_closed();
        let hit = format!("VALUE browser 7 1\r\n{}\r\nEND\r\n", neighbour.turns);
        neighbour.text.exchange("get browser forged\r\n", hit);
    }
}

#[test]
fn a_command_that_comes_a_byte_at_a_time_disturbs_nobody_and_is_carried_out() {
    let cluster = cluster();
    let mut neighbour = Neighbour::of(&cluster, "slow");
    let mut slow = cluster.connect_to_leader();
    let sent = "set b 3 0 8\r\nab\r\ncd\r\n\r\nappend b 0 0 1\r\ne\r\nget b\r\nfoo\r\n";
    for byte in sent.as_bytes() {
        slow.send([*byte]);
        // Meanwhile the other one has its whole turn.
        neighbour.is_undisturbed();
    }
    slow.expect(format!(
        "STORED\r\nSTORED\r\nVALUE b 3 9\r\nab\r\ncd\r\ne\r\nEND\r\n{ERROR}"
    ));
}

#[test]
fn thousands_that_send_nothing_cost_little_and_are_served_when_they_do() {
    const IDLE: usize = 3_000;
    // Each has a file here and one at the server.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("Linux says");
    let wanted = (IDLE as u64 + 500).min(hard).max(soft);
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).expect("it is not over the hard limit");
    let idle = IDLE.min(usize::try_from(wanted).expect("64 bits") - 500);
    let cluster = Plan::new(PROGRAMS, 3).patient().start();
    let leader = cluster.agreed_leader();
    let mut neighbour = Neighbour::of(&cluster, "idle");
    neighbour.is_undisturbed();
    let before = cluster.resident_bytes(leader);
    let mut crowd: Vec<Text> = Vec::new();
    for number in 0..idle {
        let mut text = cluster.connect(leader);
        // Some have begun, and go no further.
        match number % 3 {
            0 => {}
            1 => text.send("get idl"),
            _ => text.send("set idle 0 0 1000000\r\n"),
        }
        crowd.push(text);
    }
    neighbour.is_undisturbed();
    let grown = cluster.resident_bytes(leader).saturating_sub(before);
    let bound = 64 * 1024 * idle as u64;
    assert!(grown < bound, "{grown} bytes more for {idle} connections");
    for (number, text) in crowd.iter_mut().enumerate() {
        if number % 3 == 0 {
            text.exchange("mn\r\n", "MN\r\n");
        }
    }
    neighbour.is_undisturbed();
    assert_eq!(cluster.agreed_leader(), leader, "it costs no election");
}

#[test]
fn a_connection_that_ends_at_any_byte_leaves_whole_commands_behind() {
    let cluster = cluster();
    let mut reader = cluster.connect_to_leader();
    let commands = [
        "set e1 0 0 1\r\nx\r\n",
        "set e2 0 0 4\r\n\r\n\r\n\r\n",
        "set e3 0 0 1 noreply\r\nx\r\n",
    ];
    let whole = commands.concat();
    for end in 0..=whole.len() {
        reader.exchange(
            "delete e1 noreply\r\ndelete e2 noreply\r\ndelete e3 noreply\r\nmn\r\n",
            "MN\r\n",
        );
        let mut text = cluster.connect_to_leader();
        text.send(&whole[..end]);
        text.finish();
        let mut stored = 0;
        let mut rest = end;
        for command in commands {
            match rest.checked_sub(command.len()) {
                Some(left) => (rest, stored) = (left, stored + 1),
                None => break,
            }
        }
        text.expect("STORED\r\n".repeat(stored.min(2)));
        text.expect_closed();
        let hits = [
            "VALUE e1 0 1\r\nx\r\n",
            "VALUE e2 0 4\r\n\r\n\r\n\r\n",
            "VALUE e3 0 1\r\nx\r\n",
        ];
        let hits = hits[..stored].concat();
        reader.exchange("get e1 e2 e3\r\n", format!("{hits}END\r\n"));
    }
}

#[test]
fn noise_is_answered_or_closed_and_never_heard_by_others() {
    let cluster = cluster();
    let leader = cluster.leader();
    let mut neighbour = Neighbour::of(&cluster, "noise");
    let mut random = StdRng::seed_from_u64(57);
    for number in 0..300_usize {
        let mut text = cluster.connect(leader);
        let mut bytes = vec![0; random.random_range(1..4_000)];
        random.fill_bytes(&mut bytes);
        if number % 2 == 0 {
            // More ends of lines, and no key of the neighbour's.
            for byte in &mut bytes {
                *byte = b" \r\n019azgets\0"[usize::from(*byte) % 13];
            }
        }
        send_anyway(&mut text, &bytes);
        if number % 3 == 0 {
            neighbour.is_undisturbed();
        }
    }
    neighbour.is_undisturbed();
    let resident = cluster.resident_bytes(leader);
    assert!(resident < RESIDENT_BYTES_MAX, "{resident} bytes");
}
