//! Backups: `quorate-client snapshot save` from a running cluster, and `--restore` into a new one.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::sys::signal::Signal;
use quorate_tests::{
    Cluster, Ended, Plan, Process, Programs, Response, Text, deadline, wait_until,
};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

fn save_from(servers: &[&str], file: &Path) -> Process {
    let mut command = PROGRAMS.client();
    command
        .args(servers)
        .args(["--timeout", "20s", "snapshot", "save"]);
    command.arg(file);
    Process::start("the client", command)
}

fn save(cluster: &Cluster, file: &Path) -> Ended {
    let config = cluster.config();
    let config = config.to_str().expect("it is ours");
    save_from(&["--config", config], file).wait(deadline())
}

fn restoring(cluster: &Cluster, id: u64, file: &Path) -> Command {
    let mut command = cluster.server_command(id);
    command.arg("--restore").arg(file);
    command
}

/// A cluster of three with some items of every kind, and what `gets` shows of them.
fn filled() -> (Cluster, Vec<String>) {
    let cluster = Plan::new(PROGRAMS, 3).patient().start();
    let mut text = cluster.connect_to_leader();
    // More than one block of a snapshot file.
    let value = "v\0".repeat(2_000);
    let sets = (0..100).map(|item| format!("set item-{item} {item} 0 4000\r\n{value}\r\n"));
    text.exchange(sets.collect::<String>(), "STORED\r\n".repeat(100));
    text.exchange("set n 1 0 2\r\n41\r\nincr n 1\r\n", "STORED\r\n42\r\n");
    text.exchange("set long 4294967295 10000 1\r\nx\r\n", "STORED\r\n");
    text.exchange(
        "set gone 0 0 1\r\nx\r\ndelete gone\r\n",
        "STORED\r\nDELETED\r\n",
    );
    let seen = seen(&mut text);
    (cluster, seen)
}

/// All that there is, with flags and uniques.
fn seen(text: &mut Text) -> Vec<String> {
    let mut keys = vec!["n".to_owned(), "long".into(), "gone".into()];
    keys.extend((0..100).map(|item| format!("item-{item}")));
    text.send(format!("gets {}\r\n", keys.join(" ")));
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != "END") {
        lines.push(text.line());
    }
    lines
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).expect("it is there");
    files
        .map(|file| file.expect("it was listed").path())
        .collect()
}

/// The cluster that server 1 knows.
fn cluster_id(cluster: &Cluster) -> serde_json::Value {
    cluster.status(1).expect("it runs")["cluster"].clone()
}

/// The unique of `n` in what was seen.
fn unique_of_n(seen: &[String]) -> u64 {
    let line = seen.iter().find(|line| line.starts_with("VALUE n "));
    let unique = line.and_then(|line| line.rsplit(' ').next());
    let unique = unique.and_then(|unique| unique.parse().ok());
    unique.expect("it has one")
}

/// Why a server did not start, or ended.
fn why(ended: &Ended) -> &str {
    assert_eq!(ended.code(), Some(1), "{ended:#?}");
    let mut lines = ended.stderr.iter();
    let line = lines.find(|line| line.starts_with("quorate-server: "));
    line.unwrap_or_else(|| panic!("no reason in {ended:#?}"))
}

#[test]
fn a_backup_has_everything_and_a_new_cluster_goes_on_from_it() {
    let (old, before) = filled();
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let file = directory.path().join("backup");
    let saved = save(&old, &file);
    assert_eq!(saved.code(), Some(0), "{saved:#?}");
    assert!(saved.stdout[0].starts_with("saved "), "{saved:#?}");
    let left = files(directory.path());
    assert_eq!(left, std::slice::from_ref(&file), "nothing else");
    let mut text = old.connect_to_leader();
    text.exchange("set later 0 0 1\r\nx\r\n", "STORED\r\n");
    let old_id = cluster_id(&old);
    drop((text, old));

    let mut new = Plan::new(PROGRAMS, 3).patient().prepare();
    for id in new.ids() {
        let command = restoring(&new, id, &file);
        new.start_as(id, command);
    }
    new.wait_until_seated();
    let mut text = new.connect_to_leader();
    assert!(seen(&mut text) == before, "something differs");
    text.exchange("get later\r\n", "END\r\n");
    assert_ne!(cluster_id(&new), old_id, "it has an id of its own");
    text.exchange("incr n 1\r\n", "43\r\n");
    let after = seen(&mut text);
    let uniques = (unique_of_n(&after), unique_of_n(&before));
    assert!(uniques.0 > uniques.1, "uniques go on growing: {uniques:?}");

    // Once is enough: the next starts are as usual, and another restore is refused.
    new.kill_together(&new.ids());
    let command = restoring(&new, 1, &file);
    let refused = Process::start("the server", command).wait(deadline());
    assert!(why(&refused).contains("is not empty"), "{refused:#?}");
    new.start_all();
    let mut text = new.connect_to_leader();
    assert!(
        seen(&mut text) == after,
        "something differs after a restart"
    );
}

#[test]
fn a_server_that_comes_empty_to_a_restored_cluster_is_given_everything() {
    let (old, before) = filled();
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let file = directory.path().join("backup");
    assert_eq!(save(&old, &file).code(), Some(0));
    drop(old);
    let mut new = Plan::new(PROGRAMS, 3).patient().prepare();
    for id in [1, 2] {
        let command = restoring(&new, id, &file);
        new.start_as(id, command);
    }
    let mut text = new.connect_to_leader();
    assert!(seen(&mut text) == before, "two are a majority");
    new.start(3);
    new.wait_until_seated();
    new.wait_until_applied();
    let items = |id| new.status(id).expect("it runs")["items"].clone();
    assert_eq!(items(3), items(1));
    // It is one of those that may lead from now on.
    new.kill(1);
    let mut text = new.connect_to_leader();
    assert!(seen(&mut text) == before, "something differs");
}

#[test]
fn servers_that_were_restored_from_different_backups_refuse_each_other() {
    let (old, _) = filled();
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
    assert_eq!(save(&old, &first).code(), Some(0));
    old.connect_to_leader().exchange("incr n 1\r\n", "43\r\n");
    assert_eq!(save(&old, &second).code(), Some(0));
    drop(old);
    let mut new = Plan::new(PROGRAMS, 3).patient().prepare();
    for (id, file) in [(1, &first), (2, &first), (3, &second)] {
        let command = restoring(&new, id, file);
        new.start_as(id, command);
    }
    let ended = new.wait_for_end(3, deadline());
    assert!(why(&ended).contains("another backup"), "{ended:#?}");
    new.connect_to_leader()
        .exchange("get n\r\n", "VALUE n 1 2\r\n42\r\nEND\r\n");
    // It has made no promises, and may begin anew.
    new.wipe(3);
    new.start(3);
    new.wait_until_seated();
    new.wait_until_applied();
}

#[test]
fn a_server_that_was_restored_alone_is_told_that_the_others_were_not() {
    let (old, _) = filled();
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let file = directory.path().join("backup");
    assert_eq!(save(&old, &file).code(), Some(0));
    drop(old);
    let mut new = Plan::new(PROGRAMS, 3).patient().prepare();
    let command = restoring(&new, 1, &file);
    new.start_as(1, command);
    new.start(2);
    new.start(3);
    let ended = new.wait_for_end(1, deadline());
    let said = why(&ended);
    assert!(
        said.contains("was not. If the cluster is to have"),
        "{said}"
    );
    assert!(said.contains("restore each from the same backup"), "{said}");
}

#[test]
fn a_damaged_or_shortened_backup_is_not_restored() {
    let (old, _) = filled();
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let file = directory.path().join("backup");
    assert_eq!(save(&old, &file).code(), Some(0));
    drop(old);
    let whole = fs::read(&file).expect("it was saved");
    let new = Plan::new(PROGRAMS, 1).prepare();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let bad = [
        &flipped[..],
        &whole[..whole.len() - 1],
        &whole[..5000],
        b"no backup",
    ];
    for bad in bad {
        fs::write(&file, bad).expect("it is ours");
        let ended = Process::start("the server", restoring(&new, 1, &file)).wait(deadline());
        assert!(why(&ended).contains("corrupt at byte"), "{ended:#?}");
        assert!(why(&ended).contains("use another copy"), "{ended:#?}");
        assert!(!new.data_directory(1).exists(), "nothing was made");
    }
}

#[test]
fn a_save_that_is_cut_short_leaves_no_file_and_the_old_one_as_it_was() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let directory = directory.path();
    let file = directory.join("backup");
    // A server that breaks off in the middle, and one that says nothing more.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let http = listener.local_addr().expect("it is bound").port();
    let server = thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().expect("somebody calls");
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let half = b"HTTP/1.0 200 OK\r\n\r\nQUORSNAP and then nothing";
            stream.write_all(half).expect("somebody listens");
        }
    });
    let address = format!("127.0.0.1:{}", http - 2);
    let broken = save_from(&["--servers", &address], &file).wait(deadline());
    assert_eq!(broken.code(), Some(3), "{broken:#?}");
    assert_eq!(
        files(directory),
        [""; 0].map(PathBuf::from),
        "nothing is left"
    );
    fs::write(&file, b"an older one").expect("it is ours");
    let broken = save_from(&["--servers", &address], &file).wait(deadline());
    assert_eq!(broken.code(), Some(3), "{broken:#?}");
    assert_eq!(files(directory), std::slice::from_ref(&file));
    assert_eq!(fs::read(&file).expect("it is there"), b"an older one");
    server.join().expect("it does not panic");

    // Whoever asks is interrupted.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let http = silent.local_addr().expect("it is bound").port();
    let address = format!("127.0.0.1:{}", http - 2);
    let mut client = save_from(&["--servers", &address], &directory.join("other"));
    wait_until("a draft", deadline(), || match files(directory).len() {
        2 => Ok(()),
        files => Err(format!("{files} files")),
    });
    client.signal(Signal::SIGTERM);
    let ended = client.wait(deadline());
    assert_eq!(ended.code(), Some(3), "{ended:#?}");
    assert_eq!(files(directory), [file]);
}

#[test]
fn one_backup_is_given_out_at_a_time_and_none_by_a_follower() {
    let (old, _) = filled();
    let follower = old.follower();
    let refused = Response::get(old.http_address(follower), "/snapshot").expect("it answers");
    assert_eq!(refused.status, 400, "{refused:?}");
    let leader = old.agreed_leader();
    let named: serde_json::Value = serde_json::from_str(&refused.body).expect("it is JSON");
    assert_eq!(named["leader"]["id"], leader, "{named}");
    // More than fits on the way to one that takes nothing.
    let mut text = old.connect_to_leader();
    let value = "x".repeat(1_000_000);
    for item in 0..24 {
        let set = format!("set large-{item} 0 0 1000000\r\n{value}\r\n");
        text.exchange(set, "STORED\r\n");
    }
    let mut slow = TcpStream::connect(old.http_address(leader)).expect("it listens");
    let request = b"GET /snapshot HTTP/1.0\r\n\r\n";
    slow.write_all(request).expect("it listens");
    let mut head = [0; 12];
    slow.read_exact(&mut head).expect("it answers");
    assert_eq!(&head, b"HTTP/1.0 200");
    let refused = Response::get(old.http_address(leader), "/snapshot").expect("it answers");
    assert_eq!(refused.status, 503, "{refused:?}");
    text.exchange("set n 1 0 1\r\n1\r\n", "STORED\r\n");
    drop(slow);
    let saved = save(&old, &old.directory().join("backup"));
    assert_eq!(saved.code(), Some(0), "{saved:#?}");
}
