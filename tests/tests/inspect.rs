//! `quorate-server --check` and `--dump` on the directories of real servers.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use quorate_tests::{Ended, Plan, Process, Programs, deadline, flip, wait_until};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

fn look(option: &str, directory: &Path) -> Ended {
    let mut command = PROGRAMS.server();
    command.arg(option).arg(directory);
    Process::start("the look", command).wait(deadline())
}

fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(directory).expect("it is there");
    let files = files.map(|file| {
        let path = file.expect("it was listed").path();
        let name = path.file_name().expect("it is a file").to_string_lossy();
        let content = fs::read(&path).expect("it is a file");
        (name.into_owned(), content)
    });
    files.collect()
}

#[test]
fn a_stopped_servers_directory_is_checked_and_left_as_it_is() {
    let mut cluster = Plan::new(PROGRAMS, 1).patient().start();
    let directory = cluster.data_directory(1);
    let mut text = cluster.connect_to_leader();
    text.exchange("set greeting 5 0 6\r\nsecret\r\n", "STORED\r\n");

    let running = look("--check", &directory);
    assert_eq!(running.code(), Some(2), "{running:#?}");
    assert_eq!(running.stderr.len(), 1, "{running:#?}");
    assert!(running.stderr[0].contains("lock: locked"), "{running:#?}");

    cluster.terminate(1);
    let before = contents(&directory);
    let sound = look("--check", &directory);
    assert_eq!(sound.code(), Some(0), "{sound:#?}");
    assert!(sound.stderr.is_empty(), "{sound:#?}");
    let (verdict, files) = sound.stdout.split_last().expect("it says something");
    assert!(
        verdict.starts_with("sound: server 1 starts here"),
        "{verdict}"
    );
    for name in before.keys().filter(|name| *name != "lock") {
        let lines = files
            .iter()
            .filter(|line| line.starts_with(&format!("{name}: ")));
        assert_eq!(lines.count(), 1, "{name} in {files:#?}");
    }
    assert!(files.iter().all(|line| line.ends_with("ok")), "{files:#?}");

    let log = before
        .keys()
        .find(|name| name.ends_with(".log"))
        .expect("there is a log");
    let at = before[log].windows(6).position(|bytes| bytes == b"secret");
    let at = at.expect("the value is in the log") as u64;
    flip(&directory.join(log), at);
    let damaged = look("--check", &directory);
    assert_eq!(damaged.code(), Some(1), "{damaged:#?}");
    let line = damaged
        .stdout
        .iter()
        .find(|line| line.starts_with(log))
        .expect("it has a line");
    assert!(line.contains("corrupt at byte"), "{line}");
    let (verdict, _) = damaged.stdout.split_last().expect("it says something");
    assert!(
        verdict.starts_with("damaged: 1 file is not as written, and what was acknowledged may be"),
        "{verdict}"
    );
    assert!(
        verdict.contains(&format!("{log}: corrupt at byte")),
        "{verdict}"
    );
    assert!(verdict.ends_with("and else not at all"), "{verdict}");
    flip(&directory.join(log), at);
    assert_eq!(contents(&directory), before);

    flip(&directory.join("meta.0"), 20);
    let meta = look("--check", &directory);
    assert_eq!(meta.code(), Some(1), "{meta:#?}");
    assert!(
        meta.stdout[0].starts_with("meta.0: corrupt at byte 0"),
        "{meta:#?}"
    );
    let (verdict, _) = meta.stdout.split_last().expect("it says something");
    assert!(verdict.contains("server 1 starts here"), "{verdict}");
    cluster.start(1);
    let mut text = cluster.connect_to_leader();
    text.exchange(
        "get greeting\r\n",
        "VALUE greeting 5 6\r\nsecret\r\nEND\r\n",
    );
}

#[test]
fn the_directory_of_a_server_that_is_recovering_is_not_called_sound() {
    let mut cluster = Plan::new(PROGRAMS, 3).patient().start();
    let follower = cluster.follower();
    let mut text = cluster.connect_to_leader();
    text.exchange("set greeting 5 0 6\r\nsecret\r\n", "STORED\r\n");
    cluster.wait_until_applied();
    cluster.kill_together(&cluster.ids());
    let directory = cluster.data_directory(follower);
    let files = contents(&directory);
    let log = files.keys().find(|name| name.ends_with(".log"));
    let log = log.expect("there is a log");
    let at = files[log].windows(6).position(|bytes| bytes == b"secret");
    flip(
        &directory.join(log),
        at.expect("the value is in the log") as u64,
    );
    let before = contents(&directory);
    let damaged = look("--check", &directory);
    assert_eq!(damaged.code(), Some(1), "{damaged:#?}");
    let verdict = damaged.stdout.last().expect("it says something");
    assert!(
        verdict.contains("with two others or more to recover from server"),
        "{verdict}"
    );
    assert_eq!(contents(&directory), before);

    // Alone it is no help, and finds nobody to give back what is lost.
    cluster.start(follower);
    wait_until("the server to be up", deadline(), || {
        let status = cluster.status(follower)?;
        let is_up = status["recovering"] == true;
        is_up.then_some(()).ok_or_else(|| status.to_string())
    });
    cluster.terminate(follower);
    let before = contents(&directory);
    let marked = look("--check", &directory);
    assert_eq!(marked.code(), Some(1), "{marked:#?}");
    let (verdict, files) = marked.stdout.split_last().expect("it says something");
    assert!(verdict.starts_with("recovering: "), "{verdict}");
    assert!(files.iter().all(|line| line.ends_with("ok")), "{files:#?}");
    let says = |line: &&String| line.starts_with("meta.") && line.contains(", recovering, ");
    assert_eq!(files.iter().filter(says).count(), 2, "{files:#?}");
    assert_eq!(contents(&directory), before);

    cluster.start_all();
    wait_until("the server to be whole", deadline(), || {
        let status = cluster.status(follower)?;
        let is_whole = status["recovering"] == false;
        is_whole.then_some(()).ok_or_else(|| status.to_string())
    });
    cluster.terminate(follower);
    let healed = look("--check", &directory);
    assert_eq!(healed.code(), Some(0), "{healed:#?}");
}

#[test]
fn what_is_no_servers_directory_is_not_checked() {
    let cluster = Plan::new(PROGRAMS, 1).prepare();
    let missing = cluster.directory().join("missing");
    let empty = cluster.directory().join("empty");
    fs::create_dir(&empty).expect("it is ours");
    for option in ["--check", "--dump"] {
        for directory in [&missing, &empty] {
            let ended = look(option, directory);
            assert_eq!(ended.code(), Some(2), "{ended:#?}");
            assert_eq!(ended.stderr.len(), 1, "{ended:#?}");
            assert!(ended.stdout.is_empty(), "{ended:#?}");
        }
    }
    assert!(!missing.exists(), "nothing was made");
    assert!(contents(&empty).is_empty(), "nothing was made");
    let mut command = cluster.server_command(1);
    command.arg("--check").arg(&empty);
    let ended = Process::start("the look", command).wait(deadline());
    assert_eq!(
        ended.code(),
        Some(2),
        "a server and a look at once: {ended:#?}"
    );
}

#[test]
fn a_dump_names_every_record_and_key_and_no_value() {
    let mut cluster = Plan::new(PROGRAMS, 1).patient().start();
    let mut text = cluster.connect_to_leader();
    text.exchange("set greet\"ing 5 0 6\r\nsecret\r\n", "STORED\r\n");
    text.exchange("append greet\"ing 0 0 6\r\nsecret\r\n", "STORED\r\n");
    text.exchange("delete greet\"ing\r\n", "DELETED\r\n");
    text.exchange("incr n 1\r\n", "NOT_FOUND\r\n");
    text.exchange("gat 100 a b\r\n", "END\r\n");
    cluster.terminate(1);
    let directory = cluster.data_directory(1);
    let dump = look("--dump", &directory);
    assert_eq!(dump.code(), Some(0), "{dump:#?}");
    let all = dump.stdout.join("\n");
    assert!(!all.contains("secret"), "{all}");
    for part in [
        " hard_state voted_for=none seating=unseated",
        " term=1 index=1 configuration cluster=",
        " set key=\"greet\\\"ing\" flags=5 exptime=0 value_bytes=6",
        " append key=\"greet\\\"ing\" flags=0 exptime=0 value_bytes=6",
        " delete key=\"greet\\\"ing\"",
        " incr key=\"n\" delta=1",
        " gat exptime=100 key=\"a\" key=\"b\"",
        " commands=1 bytes=",
        "sound: server 1 starts here",
    ] {
        assert!(all.contains(part), "no {part:?} in {all}");
    }
    let check = look("--check", &directory);
    for line in &check.stdout {
        assert!(dump.stdout.contains(line), "no {line:?} in {all}");
    }

    // Whoever reads may stop reading.
    let mut command = PROGRAMS.server();
    command.arg("--dump").arg(&directory);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it is a program");
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    drop(output.lines().next());
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!(ended.stderr, b"", "{ended:?}");
}

#[test]
fn a_dump_lists_the_items_of_snapshots_without_their_values() {
    let plan = Plan::new(PROGRAMS, 1).patient();
    let mut cluster = plan.setting("snapshot_entries", "20").start();
    let mut text = cluster.connect_to_leader();
    text.exchange("set greet\"ing 5 0 6\r\nsecret\r\n", "STORED\r\n");
    text.exchange("ms stale 6 T2100000000 F2\r\nsecret\r\n", "HD\r\n");
    text.exchange("md stale I\r\n", "HD\r\n");
    text.exchange("cache_memlimit 100\r\n", "OK\r\n");
    for _ in 0..40 {
        text.exchange("set other 0 0 1\r\nx\r\n", "STORED\r\n");
    }
    wait_until("a snapshot", deadline(), || {
        // Not what they hold: one may go meanwhile.
        let files = fs::read_dir(cluster.data_directory(1)).expect("it is there");
        let names = files.map(|file| file.expect("it can be read").file_name());
        let names: Vec<_> = names.collect();
        let is_snapshot = |name: &OsString| name.to_string_lossy().ends_with(".snap");
        match names.iter().any(is_snapshot) {
            true => Ok(()),
            false => Err(format!("{names:?}")),
        }
    });
    cluster.terminate(1);
    let dump = look("--dump", &cluster.data_directory(1));
    assert_eq!(dump.code(), Some(0), "{dump:#?}");
    let all = dump.stdout.join("\n");
    assert!(!all.contains("secret"), "{all}");
    for part in [
        ".snap state items=3 topics=0 log_time_ms=",
        " memory_limit_bytes=104857600",
        ".snap item key=\"greet\\\"ing\" flags=5 over_at=0 value_bytes=6 unique=",
        ".snap item key=\"stale\" flags=2 over_at=2100000000 value_bytes=6 unique=",
        " stale\n",
        ".snap item key=\"other\" flags=0 over_at=0 value_bytes=1 unique=",
    ] {
        assert!(all.contains(part), "no {part:?} in {all}");
    }
}

#[test]
fn a_dump_stops_at_damage_and_says_where() {
    let mut cluster = Plan::new(PROGRAMS, 1).patient().start();
    let mut text = cluster.connect_to_leader();
    for key in ["first", "second", "third"] {
        text.exchange(format!("set {key} 0 0 6\r\nsecret\r\n"), "STORED\r\n");
    }
    cluster.terminate(1);
    let directory = cluster.data_directory(1);
    let files = contents(&directory);
    let log = files
        .keys()
        .find(|name| name.ends_with(".log"))
        .expect("there is a log");
    let at = files[log].windows(6).position(|bytes| bytes == b"second");
    flip(
        &directory.join(log),
        at.expect("the key is in the log") as u64,
    );
    let dump = look("--dump", &directory);
    assert_eq!(dump.code(), Some(1), "{dump:#?}");
    let all = dump.stdout.join("\n");
    assert!(
        all.contains("key=\"first\"") && !all.contains("key=\"third\""),
        "{all}"
    );
    assert!(all.contains(": corrupt at byte"), "{all}");
}
