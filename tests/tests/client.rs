//! `quorate-client`, the command: what it prints and what it exits with.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use quorate_tests::{Cluster, Ended, Plan, Ports, Process, Programs, Shared, User, deadline};
use serde_json::{Value, json};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

/// Of all tests here that leave each other's keys alone.
static SHARED: Shared = Shared::new();

fn cluster() -> User {
    SHARED.get_or_start(|| Plan::new(PROGRAMS, 3).patient().start())
}

/// Runs the client against `cluster`, with these arguments and this on its standard input.
fn run_with_input(cluster: &Cluster, arguments: &[&str], input: &[u8]) -> Ended {
    let mut command = PROGRAMS.client();
    command
        .arg("--config")
        .arg(cluster.config())
        .args(["--timeout", "20s"]);
    command.args(arguments);
    Process::start_with_input("the client", command, input).wait(deadline())
}

fn run(cluster: &Cluster, arguments: &[&str]) -> Ended {
    run_with_input(cluster, arguments, b"")
}

/// The arguments, and the lines and the exit status that they must come to.
#[track_caller]
fn assert_prints(cluster: &Cluster, arguments: &[&str], lines: &[&str], code: i32) {
    let ended = run(cluster, arguments);
    assert_eq!(ended.stdout, lines, "{arguments:?}: {ended:#?}");
    assert_eq!(ended.code(), Some(code), "{arguments:?}: {ended:#?}");
}

#[test]
fn every_command_prints_its_reply_and_exits_with_0_or_with_1_for_a_miss() {
    let cluster = cluster();
    let prints = |arguments: &[&str], lines: &[&str], code: i32| {
        assert_prints(&cluster, arguments, lines, code);
    };
    prints(&["get", "a"], &[], 1);
    prints(&["replace", "a", "0"], &["NOT_STORED"], 1);
    prints(&["append", "a", "0"], &["NOT_STORED"], 1);
    prints(&["prepend", "a", "0"], &["NOT_STORED"], 1);
    prints(&["set", "a", "1", "--flags", "7"], &["STORED"], 0);
    prints(&["add", "a", "2"], &["NOT_STORED"], 1);
    prints(&["add", "a2", "2"], &["STORED"], 0);
    prints(&["append", "a", "0"], &["STORED"], 0);
    prints(&["get", "a"], &["10"], 0);
    prints(&["get", "a", "a2"], &["10", "2"], 0);
    prints(&["get", "a", "no-such-key"], &["10"], 1);
    prints(&["incr", "a", "5"], &["15"], 0);
    prints(&["decr", "a"], &["14"], 0);
    prints(&["incr", "no-such-key"], &["NOT_FOUND"], 1);
    prints(&["touch", "a", "0"], &["TOUCHED"], 0);
    prints(&["touch", "no-such-key", "0"], &["NOT_FOUND"], 1);
    prints(&["gat", "0", "a"], &["14"], 0);
    let gets = run(&cluster, &["gets", "a"]).stdout;
    let unique = gets[0].split(' ').next().expect("it has words").to_owned();
    assert_eq!(gets, [format!("{unique} 7"), "14".to_owned()]);
    prints(&["gats", "0", "a"], &[&gets[0], &gets[1]], 0);
    prints(&["cas", "a", &unique, "x"], &["STORED"], 0);
    prints(&["cas", "a", &unique, "y"], &["EXISTS"], 1);
    prints(&["cas", "no-such-key", &unique, "y"], &["NOT_FOUND"], 1);
    prints(&["incr", "a"], &[], 1);
    prints(&["delete", "a"], &["DELETED"], 0);
    prints(&["delete", "a"], &["NOT_FOUND"], 1);
    assert_eq!(run(&cluster, &["verbosity", "1"]).stdout, ["OK"]);
    let version = run(&cluster, &["version"]).stdout;
    assert!(version[0].starts_with("1.6.45-quorate-"), "{version:?}");
    let stats = run(&cluster, &["stats"]).stdout;
    assert!(
        stats.iter().any(|line| line.starts_with("curr_items ")),
        "{stats:?}"
    );
}

#[test]
fn a_value_comes_from_an_argument_a_file_or_standard_input() {
    let cluster = cluster();
    assert_prints(&cluster, &["set", "v1", "an argument"], &["STORED"], 0);
    let file = cluster.directory().join("value");
    fs::write(&file, "a file\r\n\0 with two\r\nlines").expect("it is ours");
    let path = file.display().to_string();
    assert_prints(&cluster, &["set", "v2", "--file", &path], &["STORED"], 0);
    let ended = run_with_input(&cluster, &["set", "v3", "-"], b"standard input\n");
    assert_eq!(
        (ended.code(), ended.stdout),
        (Some(0), vec!["STORED".to_owned()])
    );
    let mut text = cluster.connect_to_leader();
    text.exchange("get v1\r\n", "VALUE v1 0 11\r\nan argument\r\nEND\r\n");
    text.exchange(
        "get v2\r\n",
        "VALUE v2 0 25\r\na file\r\n\0 with two\r\nlines\r\nEND\r\n",
    );
    text.exchange("get v3\r\n", "VALUE v3 0 15\r\nstandard input\n\r\nEND\r\n");
}

#[test]
fn the_output_may_be_json() {
    let cluster = cluster();
    let shows = |arguments: &[&str], code: i32| -> Value {
        let ended = run(&cluster, &[&["-o", "json"], arguments].concat());
        assert_eq!(ended.code(), Some(code), "{ended:#?}");
        assert_eq!(ended.stdout.len(), 1, "{ended:#?}");
        serde_json::from_str(&ended.stdout[0]).expect("it is JSON")
    };
    let stored = shows(&["set", "j", "value", "--flags", "3"], 0);
    assert_eq!(stored, json!({"outcome": "done", "reply": "STORED"}));
    let got = shows(&["get", "j", "k"], 1);
    assert_eq!(got["outcome"], "done");
    assert_eq!(got["items"][0]["key"], "j");
    assert_eq!(got["items"][0]["value"], "value");
    assert_eq!(got["items"][0]["flags"], 3);
    assert_eq!(got["missing"][0]["key"], "k");
    let refused = shows(&["incr", "j"], 1);
    assert_eq!(refused["outcome"], "not done");
    let status = shows(&["status"], 0);
    let leads = |row: &&Value| row["status"]["role"] == "Leader";
    let rows = status.as_array().expect("a row for each server");
    assert_eq!(
        (rows.len(), rows.iter().filter(leads).count()),
        (3, 1),
        "{status}"
    );
}

#[test]
fn the_status_is_a_table_of_all_servers() {
    let mut cluster = Plan::new(PROGRAMS, 3).start();
    let leader = cluster.agreed_leader();
    let dead = cluster.follower();
    cluster.kill(dead);
    let ended = run(&cluster, &["status"]);
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    for id in cluster.ids() {
        let address = cluster.client_address(id).to_string();
        let row = ended.stdout.iter().find(|line| line.contains(&address));
        let row = row.unwrap_or_else(|| panic!("no {address} in {ended:#?}"));
        let state = if id == leader {
            "Leader"
        } else if id == dead {
            "unreachable"
        } else {
            "Follower"
        };
        assert!(row.contains(state), "no {state} in {row}");
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let cluster = cluster();
    let too_long = "k".repeat(251);
    for arguments in [
        &["no-such-command"][..],
        &["get"],
        &["set", "k"],
        &["set", "k", "v", "--flags", "x"],
        &["get", "a key"],
        &["get", &too_long],
        &["set", "k", "--file", "/no/such/file"],
        &["--servers", "nowhere", "get", "k"],
    ] {
        let ended = run(&cluster, arguments);
        assert_eq!(ended.code(), Some(2), "{arguments:?}: {ended:#?}");
        assert!(!ended.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn nobody_there_or_no_leader_exits_with_3() {
    let ports = Ports::draw();
    let mut command = PROGRAMS.client();
    command.args([
        "--servers",
        &format!("127.0.0.1:{}", ports.base()),
        "--timeout",
        "500ms",
    ]);
    command.args(["set", "k", "v"]);
    let ended = Process::start("the client", command).wait(deadline());
    assert_eq!(ended.code(), Some(3), "{ended:#?}");

    let mut cluster = Plan::new(PROGRAMS, 3).start();
    let leader = cluster.agreed_leader();
    let followers = cluster.others(leader);
    cluster.kill_together(&followers);
    let mut command = PROGRAMS.client();
    command
        .arg("--config")
        .arg(cluster.config())
        .args(["--timeout", "5s", "get", "k"]);
    let ended = Process::start("the client", command).wait(deadline());
    assert_eq!(ended.code(), Some(3), "{ended:#?}");
    let reason = "quorate-client: not done: no leader";
    assert_eq!(ended.stderr, [reason], "not that the others are not there");
}

#[test]
fn an_unknown_outcome_exits_with_4() {
    // A server that takes a command and then breaks the connection.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    let server = thread::spawn(move || {
        use std::io::Read;
        let (mut stream, _) = listener.accept().expect("the client comes");
        let mut command = [0; 20];
        stream
            .read_exact(&mut command)
            .expect("it sends its command");
    });
    let mut command = PROGRAMS.client();
    command.args([
        "--servers",
        &address,
        "--timeout",
        "5s",
        "set",
        "k",
        "value",
    ]);
    let ended = Process::start("the client", command).wait(deadline());
    assert_eq!(ended.code(), Some(4), "{ended:#?}");
    server.join().expect("it was asked");
}

#[test]
fn topics_are_made_filled_and_emptied() {
    let cluster = cluster();
    let prints = |arguments: &[&str], lines: &[&str], code: i32| {
        assert_prints(&cluster, arguments, lines, code);
    };
    prints(&["pop", "my jobs"], &["NOT_FOUND"], 1);
    prints(&["push", "my jobs", "x"], &["NOT_FOUND"], 1);
    prints(
        &["topic", "create", "my jobs", "--max-deliveries", "1"],
        &["CREATED"],
        0,
    );
    prints(&["topic", "create", "my jobs"], &["EXISTS"], 1);
    prints(&["push", "my jobs", "one"], &["1"], 0);
    prints(
        &[
            "push",
            "my jobs",
            "urgent",
            "--priority",
            "0",
            "--delay",
            "600",
        ],
        &["2"],
        0,
    );
    let lines = run_with_input(&cluster, &["push", "my jobs"], b"two\n\nthree");
    assert_eq!(lines.stdout, ["PUSHED 3"], "{lines:#?}");
    prints(&["peek", "my jobs"], &["one"], 0);
    prints(&["reserve", "my jobs", "--ttr", "600"], &["1 1", "one"], 0);
    prints(&["extend", "my jobs", "1", "600"], &["EXTENDED"], 0);
    prints(&["nack", "my jobs", "1"], &["BURIED"], 0);
    prints(&["ack", "my jobs", "1"], &["NOT_FOUND"], 1);
    prints(&["pop", "my jobs"], &["two"], 0);
    prints(&["pop", "my jobs", "--wait", "20"], &[], 0);
    let shown = run(&cluster, &["topic", "info", "my jobs"])
        .stdout
        .join("\n");
    let row = shown.lines().last().expect("a row").split_whitespace();
    assert_eq!(row.collect::<Vec<_>>(), ["my", "jobs", "1", "0", "1", "1"]);
    prints(&["topic", "kick", "my jobs"], &["KICKED 1"], 0);
    let reserved = run(&cluster, &["reserve", "my jobs", "--output", "json"]);
    let reserved: Value = serde_json::from_str(&reserved.stdout[0]).expect("JSON");
    let expected = json!({
        "outcome": "done",
        "message": { "topic": "my jobs", "id": 1, "deliveries": 1, "message": "one" },
    });
    assert_eq!(reserved, expected);
    prints(&["ack", "my jobs", "1"], &["ACKED"], 0);
    prints(&["topic", "purge", "my jobs"], &["PURGED 2"], 0);
    prints(&["pop", "my jobs"], &["EMPTY"], 1);
    prints(&["topic", "drop", "my jobs"], &["DROPPED"], 0);
    prints(&["topic", "info", "my jobs"], &["NOT_FOUND"], 1);
}

#[test]
fn a_topic_that_is_full_refuses_and_says_how_many_came_before() {
    let cluster = cluster();
    assert_prints(
        &cluster,
        &["topic", "create", "small", "--max-length", "2"],
        &["CREATED"],
        0,
    );
    let ended = run_with_input(&cluster, &["push", "small"], b"1\n2\n3\n4\n");
    assert_eq!(ended.code(), Some(1), "{ended:#?}");
    assert!(ended.stderr.join("\n").contains("topic full"), "{ended:#?}");
    assert!(ended.stderr.join("\n").contains("2 messages"), "{ended:#?}");
}
