//! A server that can't work says why in one line, and ends with a status that is not 0.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use quorate_tests::{Ended, Plan, Process, Programs, deadline};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

/// Runs `command` to its end, which must be a failure with one line on standard error that holds
/// all of `words`.
#[track_caller]
fn assert_refused(command: Command, words: &[&str]) {
    let ended = Process::start("the server", command).wait(deadline());
    assert_one_line(&ended, words);
}

/// `ended` with a failure, and the last line it logged is the only one that tells why.
#[track_caller]
fn assert_one_line(ended: &Ended, words: &[&str]) {
    assert!(ended.code().is_some_and(|code| code != 0), "{ended:#?}");
    let why: Vec<&String> = ended
        .stderr
        .iter()
        .filter(|line| line.starts_with("quorate-server: "))
        .collect();
    assert_eq!(why.len(), 1, "{ended:#?}");
    for word in words {
        assert!(why[0].contains(word), "no {word:?} in {:?}", why[0]);
    }
    let panicked = ended.stderr.iter().any(|line| line.contains("panicked"));
    assert!(!panicked, "{ended:#?}");
}

#[test]
fn an_unknown_id_is_refused() {
    let cluster = Plan::new(PROGRAMS, 1).prepare();
    let mut command = PROGRAMS.server();
    command
        .args(["--id", "7", "--config"])
        .arg(cluster.config());
    command.arg("--data-dir").arg(cluster.data_directory(7));
    assert_refused(command, &["7", "cluster.toml"]);
    assert!(!cluster.data_directory(7).exists(), "nothing was made");
}

#[test]
fn a_broken_configuration_is_refused_with_its_place() {
    let cluster = Plan::new(PROGRAMS, 2).prepare();
    let right = fs::read_to_string(cluster.config()).expect("it was written");
    let port = cluster.member(1).client_port;
    let broken = [
        ("[[server]\n".to_owned(), "line 1"),
        (String::new(), "no [[server]]"),
        (right.replace("client_port", "clientport"), "clientport"),
        (right.replace("id = 2", "id = 1"), "id 1"),
        (
            right.replace(&cluster.member(2).http_port.to_string(), &port.to_string()),
            "both",
        ),
        (format!("{right}\n[settings]\nheartbeat = 1\n"), "heartbeat"),
        (
            format!("{right}\n[settings]\nheartbeat_ms = \"fast\"\n"),
            "heartbeat_ms",
        ),
        (
            format!("{right}\n[settings]\nheartbeat_ms = 149\n"),
            "heartbeat_ms",
        ),
    ];
    for (text, word) in broken {
        fs::write(cluster.config(), text).expect("it is ours");
        assert_refused(cluster.server_command(1), &[word]);
    }
    fs::remove_file(cluster.config()).expect("it is ours");
    assert_refused(cluster.server_command(1), &["cluster.toml", "No such file"]);
    fs::write(cluster.config(), &right).expect("it is ours");
    let mut command = cluster.server_command(1);
    command.env("QUORATE_HEARTBEAT_MS", "-1");
    assert_refused(command, &["QUORATE_HEARTBEAT_MS"]);
    let mut command = cluster.server_command(1);
    command.args(["--value-bytes-max", "1"]);
    assert_refused(command, &["--value-bytes-max"]);
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    let cluster = Plan::new(PROGRAMS, 1).prepare();
    for arguments in [&["--id", "one"][..], &["--no-such-flag"], &["stray"]] {
        let mut command = cluster.server_command(1);
        command.args(arguments);
        let ended = Process::start("the server", command).wait(deadline());
        assert_eq!(ended.code(), Some(2), "{ended:#?}");
        assert!(!ended.stderr.is_empty());
    }
}

#[test]
fn the_configuration_in_effect_can_be_printed() {
    let cluster = Plan::new(PROGRAMS, 1)
        .setting("heartbeat_ms", "40")
        .prepare();
    let mut command = cluster.server_command(1);
    command
        .arg("--print-config")
        .env("QUORATE_CONNECTIONS_MAX", "77");
    command.env("QUORATE_HEARTBEAT_MS", "41");
    let ended = Process::start("the server", command).wait(deadline());
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    let shown = ended.stdout.join("\n");
    let parsed = cluster::Cluster::parse(&shown).expect("it is a cluster.toml");
    assert_eq!(parsed.servers(), [cluster.member(1).clone()]);
    for line in [
        "heartbeat_ms = 40 # flag",
        "connections_max = 77 # environment",
        "election_timeout_ms = \"150..300\" # default",
    ] {
        assert!(shown.contains(line), "no {line:?} in {shown}");
    }
}

#[test]
fn a_port_in_use_is_refused() {
    let cluster = Plan::new(PROGRAMS, 1).prepare();
    let member = cluster.member(1);
    for port in [member.client_port, member.rpc_port, member.http_port] {
        let _taken = TcpListener::bind(("127.0.0.1", port)).expect("it is ours");
        assert_refused(cluster.server_command(1), &[&port.to_string(), "in use"]);
    }
}

#[test]
fn a_data_directory_that_cannot_be_used_is_refused() {
    let cluster = Plan::new(PROGRAMS, 1).prepare();
    let directory = cluster.data_directory(1);
    fs::write(&directory, "a file").expect("it is ours");
    assert_refused(
        cluster.server_command(1),
        &[&directory.display().to_string()],
    );
    fs::remove_file(&directory).expect("it is ours");
    fs::create_dir(&directory).expect("it is ours");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o000)).expect("it is ours");
    // Permissions do not hold root up.
    if fs::read_dir(&directory).is_err() {
        assert_refused(
            cluster.server_command(1),
            &[&directory.display().to_string(), "denied"],
        );
    }
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).expect("it is ours");
    // A lock that is no file keeps whoever it may be from locking the directory.
    fs::create_dir(directory.join("lock")).expect("it is ours");
    assert_refused(
        cluster.server_command(1),
        &[&directory.display().to_string()],
    );
}

#[test]
fn a_data_directory_in_use_is_refused() {
    let cluster = Plan::new(PROGRAMS, 1).start();
    // The same server on other ports.
    let config = cluster.directory().join("other.toml");
    let text = fs::read_to_string(cluster.config()).expect("it was written");
    let mut moved = text.clone();
    let member = cluster.member(1);
    for port in [member.client_port, member.rpc_port, member.http_port] {
        moved = moved.replace(&port.to_string(), &(port + 10).to_string());
    }
    fs::write(&config, moved).expect("it is ours");
    let mut command = PROGRAMS.server();
    command.args(["--id", "1", "--config"]).arg(config);
    command.arg("--data-dir").arg(cluster.data_directory(1));
    assert_refused(
        command,
        &[&cluster.data_directory(1).display().to_string(), "locked"],
    );
    cluster
        .connect_to_leader()
        .exchange("set k 0 0 1\r\nx\r\n", "STORED\r\n");
}

#[test]
fn the_data_directory_of_another_server_is_refused() {
    let mut cluster = Plan::new(PROGRAMS, 3).start();
    cluster.agreed_leader();
    cluster.kill_together(&[1, 2]);
    cluster.wipe(1);
    fs::rename(cluster.data_directory(2), cluster.data_directory(1)).expect("both are ours");
    let directory = cluster.data_directory(1).display().to_string();
    assert_refused(cluster.server_command(1), &[&directory, "server 2"]);
}

#[test]
fn the_data_directory_of_another_cluster_is_refused() {
    // One server of a cluster of its own gets the place of a member.
    let mut other = Plan::new(PROGRAMS, 1).start();
    other
        .connect_to_leader()
        .exchange("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    other.kill(1);
    let stolen = tempfile::tempdir().expect("a temporary directory can be made");
    copy_directory(&other.data_directory(1), &stolen.path().join("data"));
    drop(other);

    let mut cluster = Plan::new(PROGRAMS, 3).start();
    cluster.agreed_leader();
    cluster.kill(1);
    cluster.wipe(1);
    copy_directory(&stolen.path().join("data"), &cluster.data_directory(1));
    cluster.start(1);
    let ended = cluster.wait_for_end(1, deadline());
    assert_one_line(&ended, &["cluster"]);
    cluster.connect_to_leader().exchange("get k\r\n", "END\r\n");
}

#[test]
fn a_seated_server_whose_data_were_wiped_is_refused_and_the_others_go_on() {
    let mut cluster = Plan::new(PROGRAMS, 3).start();
    cluster.wait_until_seated();
    cluster
        .connect_to_leader()
        .exchange("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    let wiped = cluster.follower();
    cluster.kill(wiped);
    cluster.wipe(wiped);
    cluster.start(wiped);
    let ended = cluster.wait_for_end(wiped, deadline());
    assert_one_line(&ended, &["refuse", "wiped"]);
    cluster
        .connect_to_leader()
        .exchange("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n");
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("it is ours");
    for entry in fs::read_dir(from).expect("it is ours") {
        let entry = entry.expect("it can be read");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("it is ours");
    }
}
