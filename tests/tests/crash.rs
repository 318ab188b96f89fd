//! What is left after a crash: everything that was acknowledged, or a line that says what is wrong.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quorate_tests::{
    Cluster, Load, Plan, Programs, Response, Text, Written, assert_took_less, deadline, wait_until,
};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

/// What a disk writes wholly or not at all.
const SECTOR_BYTES: u64 = 512;

#[test]
fn all_servers_killed_at_once_come_back_with_all_that_was_acknowledged() {
    let mut cluster = Plan::new(PROGRAMS, 5).start();
    let mut written = Vec::new();
    for round in 0..3 {
        let load = Load::start(&cluster, &format!("round-{round}"), 8);
        load.wait_for_more(200);
        cluster.kill_together(&cluster.ids());
        written.extend(load.stop());
        // At once, on the same ports.
        cluster.start_all();
        Written::verify(&written, &cluster);
    }
    cluster.agreed_leader();
    cluster.wait_until_applied();
}

#[test]
fn a_storm_of_restarts_ends_in_a_leader_within_two_seconds() {
    let mut cluster = Plan::new(PROGRAMS, 5).start();
    for _ in 0..5 {
        let ids = cluster.ids();
        cluster.kill_together(&ids);
        cluster.start_all();
        // Once more, wherever they are by now.
        cluster.kill_together(&ids);
        cluster.start_all();
        let start = Instant::now();
        cluster.leader();
        assert_took_less(start, Duration::from_secs(2));
    }
}

#[test]
fn a_follower_that_was_away_for_long_gets_what_memory_no_longer_holds() {
    let mut cluster = Plan::new(PROGRAMS, 3).patient().start();
    let (leader, away) = (cluster.agreed_leader(), cluster.follower());
    let mut text = cluster.connect(leader);
    // More than a segment of the log, to one item, so that only the log grows.
    let (count, bytes) = (160, 500_000);
    let write = |text: &mut Text| {
        for number in 0..count {
            let value = char::from(b'a' + number % 26).to_string().repeat(bytes);
            text.exchange(format!("set big 0 0 {bytes}\r\n{value}\r\n"), "STORED\r\n");
        }
    };
    write(&mut text);
    let before = cluster.resident_bytes(leader);
    cluster.pause(away);
    write(&mut text);
    let grown = cluster.resident_bytes(leader).saturating_sub(before);
    assert!(
        grown < 64 << 20,
        "the leader keeps {grown} bytes for one that is away"
    );
    cluster.resume(away);
    cluster.agreed_leader();
    cluster.wait_until_applied();
    // It is needed now, and has the whole of it after a restart, too.
    let other = cluster.others(away).into_iter().find(|id| *id != leader);
    cluster.kill(other.expect("there are three"));
    cluster.kill(away);
    cluster.start(away);
    let value = char::from(b'a' + (count - 1) % 26)
        .to_string()
        .repeat(bytes);
    let hit = format!("VALUE big 0 {bytes}\r\n{value}\r\nEND\r\n");
    cluster.connect_to_leader().exchange("get big\r\n", hit);
}

#[test]
fn values_flags_uniques_and_expiry_survive_a_restart_of_all() {
    let mut cluster = Plan::new(PROGRAMS, 3).patient().start();
    let mut text = cluster.connect_to_leader();
    let value = "\r\nEND\r\n\0".repeat(50_000);
    text.exchange(
        format!("set big 7 0 {}\r\n{value}\r\n", value.len()),
        "STORED\r\n",
    );
    text.exchange("set n 1 0 2\r\n41\r\nincr n 1\r\n", "STORED\r\n42\r\n");
    text.exchange(
        "set gone 0 0 1\r\nx\r\ndelete gone\r\n",
        "STORED\r\nDELETED\r\n",
    );
    text.exchange("set short 0 1 1\r\nx\r\n", "STORED\r\n");
    let (unique, _, _) = (text.ask("gets n\r\n"), text.line(), text.line());
    assert_end_in_order(&mut cluster);
    cluster.start_all();
    let mut text = cluster.connect_to_leader();
    text.exchange("gets n\r\n", format!("{unique}\r\n42\r\nEND\r\n"));
    text.exchange(
        "get big\r\n",
        format!("VALUE big 7 {}\r\n{value}\r\nEND\r\n", value.len()),
    );
    text.exchange("get gone\r\n", "END\r\n");
    wait_until("the expiry", deadline(), || {
        match text.ask("get short\r\n").as_str() {
            "END" => Ok(()),
            line => Err(format!("{line}, {}, {}", text.line(), text.line())),
        }
    });
    text.exchange("set n 0 0 1\r\n1\r\n", "STORED\r\n");
    let later = text.ask("gets n\r\n");
    let number = |hit: &str| {
        hit.rsplit(' ')
            .next()
            .and_then(|word| word.parse::<u64>().ok())
    };
    assert!(number(&later) > number(&unique), "{later} after {unique}");
}

#[test]
fn servers_that_are_told_to_stop_at_whatever_moment_end_in_order() {
    let mut cluster = Plan::new(PROGRAMS, 5).prepare();
    // Before there is anything to listen to, while there is no leader, and under load.
    cluster.start(1);
    wait_until("the signals to be heard", deadline(), || {
        match cluster.log(1).len() {
            0 => Err("no line yet".to_owned()),
            _ => Ok(()),
        }
    });
    assert_end_in_order(&mut cluster);
    cluster.start(1);
    wait_until("the HTTP port", deadline(), || cluster.status(1).map(drop));
    assert_end_in_order(&mut cluster);
    cluster.start_all();
    cluster.leader();
    let load = Load::start(&cluster, "load", 8);
    load.wait_for_more(200);
    assert_end_in_order(&mut cluster);
    let written = load.stop();
    cluster.start_all();
    Written::verify(&written, &cluster);
}

/// Tells all that run to stop, which they do in less than five seconds and with status 0.
fn assert_end_in_order(cluster: &mut Cluster) {
    let start = Instant::now();
    for (id, ended) in cluster.terminate_together() {
        assert_eq!(ended.code(), Some(0), "server {id}: {:#?}", ended.stderr);
    }
    assert_took_less(start, Duration::from_secs(5));
}

#[test]
fn clusters_of_any_size_serve_and_survive_what_they_must() {
    for servers in [1, 2, 3, 4] {
        let mut cluster = Plan::new(PROGRAMS, servers).start();
        let mut text = cluster.connect_to_leader();
        text.exchange("set k 0 0 1\r\nx\r\n", "STORED\r\n");
        cluster.agreed_leader();
        // As many as can be spared, the leader among them.
        let spare = cluster.ids().len() - cluster.majority();
        for _ in 0..spare {
            let leader = cluster.leader();
            cluster.kill(leader);
        }
        cluster
            .connect_to_leader()
            .exchange("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n");
        let running = cluster.running();
        cluster.kill_together(&running);
        cluster.start_all();
        cluster
            .connect_to_leader()
            .exchange("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n");
    }
}

#[test]
fn a_follower_whose_log_has_a_torn_end_gets_it_again() {
    let mut cluster = Plan::new(PROGRAMS, 3).patient().start();
    let (leader, follower) = (cluster.agreed_leader(), cluster.follower());
    let value = write_last(&cluster, leader, follower);
    cluster.kill(follower);
    let (segment, end) = end_of_log(&cluster.data_directory(follower));
    let from = end.saturating_sub(20_000) / SECTOR_BYTES * SECTOR_BYTES;
    overwrite(
        &segment,
        from,
        &vec![0; usize::try_from(end - from).expect("it is small")],
    );
    cluster.start(follower);
    cluster.agreed_leader();
    cluster.wait_until_applied();
    // Without it there is no majority now.
    let other = cluster
        .others(follower)
        .into_iter()
        .find(|id| *id != leader);
    cluster.kill(other.expect("there are three"));
    let hit = format!("VALUE last 0 {}\r\n{value}\r\nEND\r\n", value.len());
    cluster.connect_to_leader().exchange("get last\r\n", hit);
}

#[test]
fn a_server_with_a_damaged_log_heals_by_itself_and_votes_again() {
    let mut cluster = Plan::new(PROGRAMS, 5).patient().start();
    let (leader, follower) = (cluster.agreed_leader(), cluster.follower());
    let (segment, at) = damage(&mut cluster, leader, follower);
    // The others are away: it is up, and says that it is no help.
    cluster.kill_together(&cluster.running());
    cluster.start(follower);
    wait_until("the server to be up", deadline(), || {
        let status = cluster.status(follower)?;
        let is_up = status["recovering"] == true;
        is_up.then_some(()).ok_or_else(|| status.to_string())
    });
    let ready = Response::get(cluster.http_address(follower), "/readyz").expect("it answers");
    assert_eq!(ready.status, 503, "{ready:?}");
    wait_until("a line that says so", deadline(), || {
        let lines = cluster.log(follower);
        let says = lines.iter().any(|line| line.contains("recovering: "));
        says.then_some(()).ok_or_else(|| lines.join("\n"))
    });
    assert_one_place(&cluster.log(follower), &segment, at);
    for id in cluster.others(follower) {
        cluster.start(id);
    }
    cluster.agreed_leader();
    wait_until("the server to be whole", deadline(), || {
        let status = cluster.status(follower)?;
        let is_whole = status["recovering"] == false;
        is_whole.then_some(()).ok_or_else(|| status.to_string())
    });
    cluster.wait_until_applied();
    // Two can be spared now: without this one there is no majority.
    let spare: Vec<u64> = cluster.others(follower).into_iter().take(2).collect();
    cluster.kill_together(&spare);
    cluster
        .connect_to_leader()
        .exchange("add k 0 0 1\r\nx\r\n", "STORED\r\n");
}

#[test]
fn a_server_alone_with_a_damaged_log_refuses_with_one_line_that_names_the_place() {
    let mut cluster = Plan::new(PROGRAMS, 1).start();
    let (segment, at) = damage(&mut cluster, 1, 1);
    let before = fs::read(&segment).expect("it can be read");
    cluster.start(1);
    let ended = cluster.wait_for_end(1, deadline());
    let failed = ended.code().is_some_and(|code| code != 0);
    assert!(failed, "{:?}", ended.status);
    assert_one_place(&ended.stderr, &segment, at);
    assert!(fs::read(&segment).expect("it can be read") == before);
}

#[test]
fn servers_without_a_sound_majority_end_with_one_line_each() {
    let mut cluster = Plan::new(PROGRAMS, 3).patient().start();
    let leader = cluster.agreed_leader();
    let hurt: Vec<u64> = cluster.others(leader);
    for id in &hurt {
        damage(&mut cluster, leader, *id);
    }
    cluster.kill_together(&cluster.running());
    cluster.start_all();
    for id in hurt {
        let ended = cluster.wait_for_end(id, deadline());
        let failed = ended.code().is_some_and(|code| code != 0);
        assert!(failed, "{:?}", ended.status);
        let why = ended
            .stderr
            .iter()
            .filter(|line| line.contains("no majority is left"));
        assert_eq!(why.count(), 1, "{:#?}", ended.stderr);
        // Behind the damage there may be the last copy of something.
        let files = fs::read_dir(cluster.data_directory(id)).expect("it is there");
        let names = files.map(|file| file.expect("it is listed").file_name());
        let kept = names.filter(|name| name.to_string_lossy().starts_with("lost."));
        assert!(kept.count() > 2, "of server {id}");
    }
}

/// Ends this server, and turns over a byte amid its log that is known to have been synced; the
/// segment and the place.
fn damage(cluster: &mut Cluster, leader: u64, id: u64) -> (PathBuf, u64) {
    write_last(cluster, leader, id);
    let (segment, middle) = end_of_log(&cluster.data_directory(id));
    write_last(cluster, leader, id);
    cluster.kill(id);
    // Within the value written first, which the second proves to have been synced.
    let at = middle - 1_000;
    overwrite(&segment, at, b"!");
    (segment, at)
}

/// One line names the segment, and a place in it that is not behind this one.
fn assert_one_place(lines: &[String], segment: &Path, at: u64) {
    let segment = segment.display().to_string();
    let named = lines
        .iter()
        .filter(|line| line.contains(&segment) && line.contains("corrupt"));
    let named: Vec<&String> = named.collect();
    assert_eq!(named.len(), 1, "{lines:#?}");
    let (_, place) = named[0].split_once("at byte ").expect("it names the place");
    let place: u64 = place
        .split(':')
        .next()
        .and_then(|place| place.parse().ok())
        .expect("it is a number");
    assert!(place <= at, "{place} is behind {at}");
}

/// Writes a large value and waits until it is at the end of both logs; the value.
fn write_last(cluster: &Cluster, leader: u64, follower: u64) -> String {
    let value = "torn or not ".repeat(10_000);
    let set = format!("set last 0 0 {}\r\n{value}\r\n", value.len());
    cluster.connect(leader).exchange(set, "STORED\r\n");
    wait_until("equal logs", deadline(), || {
        let (leader, follower) = (cluster.status(leader)?, cluster.status(follower)?);
        let same = ["last_log_index", "last_applied"]
            .iter()
            .all(|member| leader[member] == follower[member]);
        same.then_some(())
            .ok_or_else(|| format!("{leader}, {follower}"))
    });
    value
}

/// The last segment of a log and where its last byte that is not zero ends.
fn end_of_log(directory: &Path) -> (PathBuf, u64) {
    let entries = fs::read_dir(directory).expect("it is there");
    let mut segments: Vec<PathBuf> = entries
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("wal-") && name.ends_with(".log")
        })
        .collect();
    segments.sort();
    let last = segments.pop().expect("there is a log");
    let bytes = fs::read(&last).expect("it can be read");
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .expect("something was written");
    (last, end as u64 + 1)
}

fn overwrite(file: &Path, at: u64, bytes: &[u8]) {
    let file = fs::File::options()
        .write(true)
        .open(file)
        .expect("it is ours");
    file.write_all_at(bytes, at).expect("it is ours");
}
