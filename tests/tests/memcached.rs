//! memcached's text through real servers: what each classic command answers, however its bytes
//! arrive; every bound and every error line.

use std::io::ErrorKind;

use quorate_tests::{Plan, Programs, Shared, Text, User, deadline, wait_until};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

/// Of all tests here that leave each other's keys alone.
static SHARED: Shared = Shared::new();

/// The largest item by default: key, value and 56 bytes.
const ITEM_BYTES_MAX: usize = 1 << 20;
const ITEM_OVERHEAD: usize = 56;

const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format\r\n";
const BAD_CHUNK: &str = "CLIENT_ERROR bad data chunk\r\n";
const BAD_EXPTIME: &str = "CLIENT_ERROR invalid exptime argument\r\n";
const BAD_DELTA: &str = "CLIENT_ERROR invalid numeric delta argument\r\n";
const NO_NUMBER: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
const TOO_LARGE: &str = "SERVER_ERROR object too large for cache\r\n";

fn cluster() -> User {
    SHARED.get_or_start(|| Plan::new(PROGRAMS, 3).patient().start())
}

#[test]
fn storage_commands_answer_as_memcached_does() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    text.exchange_all(&[
        ("get s\r\n", "END\r\n"),
        ("replace s 0 0 1\r\na\r\n", "NOT_STORED\r\n"),
        ("append s 0 0 1\r\na\r\n", "NOT_STORED\r\n"),
        ("prepend s 0 0 1\r\na\r\n", "NOT_STORED\r\n"),
        ("add s 5 0 3\r\nabc\r\n", "STORED\r\n"),
        ("add s 6 0 3\r\nxyz\r\n", "NOT_STORED\r\n"),
        ("get s\r\n", "VALUE s 5 3\r\nabc\r\nEND\r\n"),
        ("append s 9 0 2\r\nde\r\n", "STORED\r\n"),
        ("prepend s 9 0 2\r\n__\r\n", "STORED\r\n"),
        ("get s\r\n", "VALUE s 5 7\r\n__abcde\r\nEND\r\n"),
        ("replace s 4294967295 0 0\r\n\r\n", "STORED\r\n"),
        ("get s\r\n", "VALUE s 4294967295 0\r\n\r\nEND\r\n"),
        ("set s 0 0 1\r\n1\r\n", "STORED\r\n"),
        (
            "get s t s\r\n",
            "VALUE s 0 1\r\n1\r\nVALUE s 0 1\r\n1\r\nEND\r\n",
        ),
        ("set s 0 -1 1\r\n2\r\n", "STORED\r\n"),
        ("get s\r\n", "END\r\n"),
        ("add s 0 0 1\r\n3\r\n", "STORED\r\n"),
        ("delete s\r\n", "DELETED\r\n"),
        ("delete s\r\n", "NOT_FOUND\r\n"),
        ("delete s 0\r\n", "NOT_FOUND\r\n"),
    ]);
}

#[test]
fn cas_answers_as_memcached_does() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    text.exchange("cas c 0 0 1 1\r\na\r\n", "NOT_FOUND\r\n");
    text.exchange("set c 0 0 1\r\na\r\n", "STORED\r\n");
    let first = unique_of(&mut text, "c");
    text.exchange(format!("cas c 7 0 1 {first}\r\nb\r\n"), "STORED\r\n");
    text.exchange(format!("cas c 0 0 1 {first}\r\nc\r\n"), "EXISTS\r\n");
    text.exchange("get c\r\n", "VALUE c 7 1\r\nb\r\nEND\r\n");
    let second = unique_of(&mut text, "c");
    assert!(second > first, "{second} after {first}");
    text.exchange("touch c 0\r\n", "TOUCHED\r\n");
    assert_eq!(unique_of(&mut text, "c"), second, "a touch is no new value");
    text.exchange("cas c 0 0 1 18446744073709551615\r\nd\r\n", "EXISTS\r\n");
    text.exchange("cas c 0 0 1\r\nd\r\nmn\r\n", format!("{BAD_FORMAT}MN\r\n"));
    text.exchange("cas c 0 0 1 -1\r\nd\r\n", BAD_FORMAT);
    text.exchange("cas c 0 0 1 18446744073709551616\r\nd\r\n", BAD_FORMAT);
}

#[test]
fn arithmetic_answers_as_memcached_does() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    text.exchange_all(&[
        ("incr n 1\r\n", "NOT_FOUND\r\n"),
        ("decr n 1\r\n", "NOT_FOUND\r\n"),
        ("incr n xx\r\n", BAD_DELTA),
        ("set n 3 0 2\r\n10\r\n", "STORED\r\n"),
        ("incr n 5\r\n", "15\r\n"),
        ("decr n 6\r\n", "9\r\n"),
        ("decr n 100\r\n", "0\r\n"),
        (
            "incr n 18446744073709551615\r\n",
            "18446744073709551615\r\n",
        ),
        ("incr n 1\r\n", "0\r\n"),
        ("incr n -1\r\n", BAD_DELTA),
        ("incr n 18446744073709551616\r\n", BAD_DELTA),
        ("set n 0 0 3\r\nabc\r\n", "STORED\r\n"),
        ("incr n 1\r\n", NO_NUMBER),
        ("decr n 1\r\n", NO_NUMBER),
        ("get n\r\n", "VALUE n 0 3\r\nabc\r\nEND\r\n"),
        ("set n 0 0 1\r\n9\r\n", "STORED\r\n"),
        ("incr n 1\r\n", "10\r\n"),
        ("get n\r\n", "VALUE n 0 2\r\n10\r\nEND\r\n"),
    ]);
}

#[test]
fn touching_answers_as_memcached_does() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    text.exchange_all(&[
        ("touch t 0\r\n", "NOT_FOUND\r\n"),
        ("gat 0 t\r\n", "END\r\n"),
        ("set t 2 0 1\r\na\r\n", "STORED\r\n"),
        ("touch t 100\r\n", "TOUCHED\r\n"),
        ("gat 0 t u\r\n", "VALUE t 2 1\r\na\r\nEND\r\n"),
        ("touch t xx\r\n", BAD_EXPTIME),
        ("gat xx t\r\n", BAD_EXPTIME),
        ("gat 10\r\n", BAD_FORMAT),
        ("gat -1 t\r\n", "VALUE t 2 1\r\na\r\nEND\r\n"),
        ("get t\r\n", "END\r\n"),
        ("set t 0 0 1\r\na\r\n", "STORED\r\n"),
        ("touch t -1\r\n", "TOUCHED\r\n"),
        ("get t\r\n", "END\r\n"),
    ]);
    text.exchange("set t 0 0 1\r\na\r\n", "STORED\r\n");
    let unique = unique_of(&mut text, "t");
    let hit = format!("VALUE t 0 1 {unique}\r\na\r\nEND\r\n");
    text.exchange("gats 0 t\r\n", hit);
}

#[test]
fn what_is_no_data_command_answers_as_memcached_does() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    let version = text.ask("version\r\n");
    let digits = version.strip_prefix("VERSION 1.6.45-quorate-");
    assert!(digits.is_some_and(|rest| !rest.is_empty()), "{version}");
    text.exchange_all(&[
        ("verbosity 1\r\n", "OK\r\n"),
        ("verbosity\r\n", BAD_FORMAT),
        ("mn\r\n", "MN\r\n"),
        ("stats reset\r\n", "RESET\r\n"),
        ("stats foo\r\n", "ERROR\r\n"),
        ("foo\r\n", "ERROR\r\n"),
        ("GET a\r\n", "ERROR\r\n"),
        ("set\ta 0 0 1\r\n", "ERROR\r\n"),
        ("\r\n", BAD_FORMAT),
    ]);
    text.send("stats\r\n");
    let mut names = Vec::new();
    loop {
        let line = text.line();
        if line == "END" {
            break;
        }
        let name = line
            .strip_prefix("STAT ")
            .and_then(|rest| rest.split(' ').next());
        names.push(name.unwrap_or_else(|| panic!("{line:?}")).to_owned());
    }
    for name in [
        "pid",
        "uptime",
        "version",
        "curr_items",
        "cmd_get",
        "quorate_recovering",
        "quorate_followers",
    ] {
        assert!(
            names.iter().any(|other| other == name),
            "no {name} in {names:?}"
        );
    }
    text.exchange("quit\r\nversion\r\n", "");
    text.expect_closed();
}

#[test]
fn flush_all_empties_the_store_and_what_comes_after_it_stays() {
    let cluster = Plan::new(PROGRAMS, 1).start();
    let mut text = cluster.connect_to_leader();
    text.exchange_all(&[
        (
            "set a 0 0 1\r\n1\r\nset b 0 0 1\r\n2\r\n",
            "STORED\r\nSTORED\r\n",
        ),
        ("flush_all xx\r\n", BAD_EXPTIME),
        ("flush_all\r\nget a b\r\n", "OK\r\nEND\r\n"),
        (
            "set a 0 0 1\r\n3\r\nget a\r\n",
            "STORED\r\nVALUE a 0 1\r\n3\r\nEND\r\n",
        ),
        (
            "flush_all 100\r\nget a\r\n",
            "OK\r\nVALUE a 0 1\r\n3\r\nEND\r\n",
        ),
        ("flush_all noreply\r\nget a\r\n", "END\r\n"),
        ("set a 0 0 1\r\n4\r\nflush_all 1\r\n", "STORED\r\nOK\r\n"),
    ]);
    wait_until("the delayed flush", deadline(), || {
        match text.ask("get a\r\n").as_str() {
            "END" => Ok(()),
            line => Err(format!("{line}, {}, {}", text.line(), text.line())),
        }
    });
}

#[test]
fn an_expired_item_is_gone_for_get_and_gets_and_stays_gone() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    for (get, key) in [("get", "e1"), ("gets", "e2")] {
        text.exchange(format!("set {key} 0 2 1\r\na\r\n"), "STORED\r\n");
        assert!(text.ask(format!("{get} {key}\r\n")).starts_with("VALUE"));
        assert_eq!(text.line(), "a");
        text.expect("END\r\n");
        wait_until("the expiry", deadline(), || {
            match text.ask(format!("{get} {key}\r\n")).as_str() {
                "END" => Ok(()),
                line => Err(format!("{line}, {}, {}", text.line(), text.line())),
            }
        });
        text.exchange(format!("get {key}\r\ngets {key}\r\n"), "END\r\nEND\r\n");
        text.exchange(format!("replace {key} 0 0 1\r\nb\r\n"), "NOT_STORED\r\n");
        text.exchange(format!("add {key} 0 0 1\r\nb\r\n"), "STORED\r\n");
    }
}

#[test]
fn the_bytes_of_a_command_may_come_in_any_pieces() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    let sent = "delete p noreply\r\nset p 1 0 9\r\nab\r\ncd\r\ne\r\nget p\r\nincr p 1\r\n\
        append p 0 0 2\r\n\r\n\r\nget p q\r\nfoo\r\ndelete p\r\n";
    let expected = format!(
        "STORED\r\nVALUE p 1 9\r\nab\r\ncd\r\ne\r\nEND\r\n{NO_NUMBER}STORED\r\n\
         VALUE p 1 11\r\nab\r\ncd\r\ne\r\n\r\nEND\r\nERROR\r\nDELETED\r\n"
    );
    // Slowly, each byte a packet.
    for byte in sent.as_bytes() {
        text.send([*byte]);
    }
    text.expect(&expected);
    // In two packets, cut everywhere.
    for cut in 1..sent.len() {
        let (first, second) = sent.split_at(cut);
        text.send(first);
        text.send(second);
        text.expect(&expected);
    }
}

#[test]
fn thousands_of_commands_in_one_write_are_answered_in_order() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    let (mut sent, mut expected) = (String::new(), String::new());
    for number in 0..2_000 {
        let key = number % 100;
        sent.push_str(&format!(
            "set m{key} 0 0 6\r\n{number:06}\r\nget m{key}\r\n"
        ));
        expected.push_str(&format!(
            "STORED\r\nVALUE m{key} 0 6\r\n{number:06}\r\nEND\r\n"
        ));
    }
    text.exchange(sent, expected);
}

#[test]
fn a_value_may_hold_any_bytes() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    let all_bytes: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let values: [&[u8]; 5] = [
        b"\r\n",
        b"\r\nEND\r\n",
        b"1\r\nset b2 0 0 1\r\nx\r\nquit\r\n",
        b"\0\0\0",
        &all_bytes,
    ];
    for value in values {
        let length = value.len();
        let block = [
            format!("set b1 0 0 {length}\r\n").as_bytes(),
            value,
            b"\r\n",
        ]
        .concat();
        text.exchange(block, "STORED\r\n");
        let hit = [
            format!("VALUE b1 0 {length}\r\n").as_bytes(),
            value,
            b"\r\nEND\r\n",
        ]
        .concat();
        text.exchange("get b1 b2\r\n", hit);
    }
}

#[test]
fn a_key_may_have_250_bytes_of_any_kind_but_no_more_and_no_nul() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    let longest = "k".repeat(250);
    text.exchange(format!("set {longest} 0 0 1\r\na\r\n"), "STORED\r\n");
    text.exchange(
        format!("get {longest}\r\n"),
        format!("VALUE {longest} 0 1\r\na\r\nEND\r\n"),
    );
    let too_long = "k".repeat(251);
    text.exchange(
        format!("set {too_long} 0 0 1\r\na\r\nmn\r\n"),
        format!("{BAD_FORMAT}MN\r\n"),
    );
    for command in ["get", "gets", "delete", "gat 0"] {
        text.exchange(format!("{command} {too_long}\r\n"), BAD_FORMAT);
    }
    text.exchange(format!("get {longest} {too_long}\r\n"), BAD_FORMAT);
    text.exchange(format!("incr {too_long} 1\r\n"), BAD_FORMAT);
    text.exchange(format!("touch {too_long} 1\r\n"), BAD_FORMAT);
    text.exchange(b"get a\0b\r\n", BAD_FORMAT);
    text.exchange(
        b"set a\0b 0 0 1\r\nx\r\nmn\r\n",
        format!("{BAD_FORMAT}MN\r\n"),
    );
    let odd = "\u{1}\u{7f}\t\u{fc}\u{1f600}";
    text.exchange(format!("set {odd} 0 0 1\r\na\r\n"), "STORED\r\n");
    text.exchange(
        format!("get {odd}\r\n"),
        format!("VALUE {odd} 0 1\r\na\r\nEND\r\n"),
    );
}

#[test]
fn a_value_over_the_limit_is_refused_and_changes_nothing() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    let longest = "v".repeat(ITEM_BYTES_MAX - ITEM_OVERHEAD - 1);
    let length = longest.len();
    text.exchange(format!("set l 0 0 {length}\r\n{longest}\r\n"), "STORED\r\n");
    for command in ["set", "add", "replace"] {
        let block = format!("{command} l 0 0 {}\r\nv{longest}\r\nmn\r\n", length + 1);
        text.exchange(block, format!("{TOO_LARGE}MN\r\n"));
    }
    text.exchange("append l 0 0 1\r\nx\r\n", "NOT_STORED\r\n");
    text.exchange("prepend l 0 0 1\r\nx\r\n", "NOT_STORED\r\n");
    let noreply = format!("set l 0 0 {} noreply\r\nv{longest}\r\nmn\r\n", length + 1);
    text.exchange(noreply, "MN\r\n");
    text.exchange(
        "get l\r\n",
        format!("VALUE l 0 {length}\r\n{longest}\r\nEND\r\n"),
    );
    text.exchange("delete l\r\n", "DELETED\r\n");
}

#[test]
fn a_malformed_storage_command_never_has_its_value_read_as_a_command() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    text.exchange("set d 0 0 3\r\nold\r\n", "STORED\r\n");
    text.exchange_all(&[
        (
            "set d 0 0 3\r\nabcdef\r\n",
            &format!("{BAD_CHUNK}ERROR\r\n"),
        ),
        (
            "set d 0 0 5\r\nabc\r\nversion\r\n",
            &format!("{BAD_CHUNK}ERROR\r\n"),
        ),
        (
            "set d -1 0 4\r\nquit\r\nmn\r\n",
            &format!("{BAD_FORMAT}MN\r\n"),
        ),
        (
            "set d 0 xx 4\r\nquit\r\nmn\r\n",
            &format!("{BAD_FORMAT}MN\r\n"),
        ),
        (
            "cas d 0 0 4 x\r\nquit\r\nmn\r\n",
            &format!("{BAD_FORMAT}MN\r\n"),
        ),
        ("set d 0 0 -1\r\nmn\r\n", &format!("{BAD_FORMAT}MN\r\n")),
        (
            "set d 0 0 4294967296\r\nmn\r\n",
            &format!("{BAD_FORMAT}MN\r\n"),
        ),
        ("set d 0 0\r\nmn\r\n", &format!("{BAD_FORMAT}MN\r\n")),
        ("set d\r\nmn\r\n", &format!("{BAD_FORMAT}MN\r\n")),
        (
            "delete d foo\r\n",
            "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n",
        ),
        ("get\r\n", BAD_FORMAT),
        ("get d\r\n", "VALUE d 0 3\r\nold\r\nEND\r\n"),
    ]);
}

#[test]
fn a_line_without_end_closes_the_connection() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    text.exchange("mn\r\n", "MN\r\n");
    text.send("x".repeat(2_049));
    text.expect_closed();
    // The keys of a get may be as many as fit a mebibyte.
    let mut text = cluster.connect_to_leader();
    let keys = " no-such-key".repeat(11_000);
    text.exchange(format!("get{keys}\r\n"), "END\r\n");
    // The server may close it before it has been given all of it.
    match text.try_send("get".to_owned() + &" no-such-key".repeat(100_000)) {
        Ok(()) => {}
        Err(error) => assert!(
            matches!(
                error.kind(),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            ),
            "{error}"
        ),
    }
    text.expect_closed();
}

#[test]
fn a_request_of_a_browser_closes_the_connection() {
    let cluster = cluster();
    for request in ["GET / HTTP/1.1", "POST /x HTTP/1.0"] {
        let mut text = cluster.connect_to_leader();
        text.send(format!("{request}\r\nset h 0 0 1\r\nx\r\n"));
        text.expect_closed();
    }
    cluster
        .connect_to_leader()
        .exchange("PUT x\r\nget h\r\n", "ERROR\r\nEND\r\n");
}

#[test]
fn a_command_sees_what_came_before_it_on_its_connection_and_nothing_after() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    text.exchange(
        "set o 0 0 1 noreply\r\n0\r\nget o\r\n",
        "VALUE o 0 1\r\n0\r\nEND\r\n",
    );
    for number in 1..200 {
        let (old, new) = ((number - 1) % 10, number % 10);
        text.exchange(
            format!("get o\r\nset o 0 0 1\r\n{new}\r\n"),
            format!("VALUE o 0 1\r\n{old}\r\nEND\r\nSTORED\r\n"),
        );
        text.exchange(
            format!(
                "set o 0 0 1 noreply\r\nx\r\nget o\r\nset o 0 0 1 noreply\r\n{new}\r\nget o\r\n"
            ),
            format!("VALUE o 0 1\r\nx\r\nEND\r\nVALUE o 0 1\r\n{new}\r\nEND\r\n"),
        );
    }
}

#[test]
fn who_sends_no_more_is_still_answered() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    // As `printf … | nc` does.
    text.send("set f 0 0 1\r\nx\r\nget f\r\n");
    text.finish();
    text.expect("STORED\r\nVALUE f 0 1\r\nx\r\nEND\r\n");
    text.expect_closed();
    // What has no end is no command.
    let mut text = cluster.connect_to_leader();
    text.send("mn\r\nset f 0 0 5\r\nab");
    text.finish();
    text.expect("MN\r\n");
    text.expect_closed();
    cluster
        .connect_to_leader()
        .exchange("get f\r\n", "VALUE f 0 1\r\nx\r\nEND\r\n");
}

#[test]
fn large_values_may_be_pipelined_in_both_directions() {
    let cluster = cluster();
    let leader = cluster.client_address(cluster.leader());
    let value = "v".repeat(1_000_000);
    let (keys, rounds) = (20, 3);
    let set = |key: usize| format!("set L{key} 0 0 {}\r\n{value}\r\n", value.len());
    let hit = |key: usize| format!("VALUE L{key} 0 {}\r\n{value}\r\n", value.len());
    let sets: String = (0..keys).map(set).collect();
    let mut text = Text::connect(leader);
    text.exchange(sets, "STORED\r\n".repeat(keys));
    let names: Vec<String> = (0..keys).map(|key| format!("L{key}")).collect();
    let get = format!("get {}\r\n", names.join(" "));
    let hits: String = (0..keys).map(hit).collect();
    text.send(get.repeat(rounds));
    for _ in 0..rounds {
        text.expect(&hits);
        text.expect("END\r\n");
    }
    let deletes: String = names
        .iter()
        .map(|key| format!("delete {key}\r\n"))
        .collect();
    text.exchange(deletes, "DELETED\r\n".repeat(keys));
}

#[test]
fn the_limit_of_a_value_can_be_set() {
    for limit in [1_024, 3 << 20] {
        let plan = Plan::new(PROGRAMS, 1);
        let cluster = plan.setting("value_bytes_max", &limit.to_string()).start();
        let mut text = cluster.connect_to_leader();
        let value = "v".repeat(limit - ITEM_OVERHEAD - 1);
        let length = value.len();
        text.exchange(format!("set k 0 0 {length}\r\n{value}\r\n"), "STORED\r\n");
        text.exchange(
            format!("set k 0 0 {}\r\nv{value}\r\n", length + 1),
            TOO_LARGE,
        );
        text.exchange("append k 0 0 1\r\nx\r\n", "NOT_STORED\r\n");
        text.exchange(
            "get k\r\n",
            format!("VALUE k 0 {length}\r\n{value}\r\nEND\r\n"),
        );
    }
}

#[test]
fn noreply_silences_every_command_that_takes_it() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    text.send("set r 0 0 1 noreply\r\n1\r\nadd r 0 0 1 noreply\r\n2\r\n");
    text.send("append r 0 0 1 noreply\r\n0\r\nprepend r 0 0 1 noreply\r\n2\r\n");
    text.send("incr r 5 noreply\r\ndecr r 1 noreply\r\ntouch r 0 noreply\r\n");
    text.send("cas r 0 0 1 1 noreply\r\nx\r\nverbosity 1 noreply\r\n");
    text.exchange("get r\r\n", "VALUE r 0 3\r\n214\r\nEND\r\n");
    text.exchange(
        "replace r 0 0 1 noreply\r\n7\r\nget r\r\n",
        "VALUE r 0 1\r\n7\r\nEND\r\n",
    );
    text.exchange("delete r noreply\r\nget r\r\n", "END\r\n");
}

/// The unique of an item that is there, by `gets`.
fn unique_of(text: &mut Text, key: &str) -> u64 {
    let line = text.ask(format!("gets {key}\r\n"));
    let unique = line.rsplit(' ').next().and_then(|word| word.parse().ok());
    text.line();
    text.expect("END\r\n");
    unique.unwrap_or_else(|| panic!("no unique in {line:?}"))
}
