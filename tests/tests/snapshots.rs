//! Servers that keep snapshots in place of old log: what they start from, and that taking one
//! disturbs nobody.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_tests::{Cluster, Fate, Load, Plan, Programs, Text, Written, deadline, wait_until};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

fn plan(servers: u64) -> Plan {
    Plan::new(PROGRAMS, servers).patient().snapshots_often()
}

#[test]
fn servers_start_from_their_snapshots_when_the_log_before_is_gone() {
    let mut cluster = plan(3).start();
    let mut text = cluster.connect_to_leader();
    let value = "\r\nEND\r\n\0".repeat(50_000);
    let set = format!("set big 7 0 {}\r\n{value}\r\n", value.len());
    text.exchange(set, "STORED\r\n");
    text.exchange("set n 1 0 2\r\n41\r\nincr n 1\r\n", "STORED\r\n42\r\n");
    text.exchange("set gone 0 0 1\r\nx\r\n", "STORED\r\n");
    text.exchange("delete gone\r\n", "DELETED\r\n");
    text.exchange("set long 2 10000 1\r\nx\r\n", "STORED\r\n");
    text.exchange("set short 0 1 1\r\nx\r\n", "STORED\r\n");
    let before = uniques(&mut text, &["n", "long"]);

    let mut written = Vec::new();
    for round in 0..2 {
        let load = Load::start(&cluster, &format!("round-{round}"), 8);
        wait_for_drops(&cluster);
        load.wait_for_more(300);
        cluster.kill_together(&cluster.ids());
        written.extend(load.stop());
        for id in cluster.ids() {
            let files = files(&cluster.data_directory(id));
            let first = |name: &String| name.starts_with("wal-0000000000000001-");
            assert!(!files.iter().any(first), "server {id} has {files:?}");
            let snapshots = files.iter().filter(|name| name.ends_with(".snap"));
            // The oldest goes when the newest has its name: the kill may come in between.
            let count = snapshots.count();
            assert!((2..=3).contains(&count), "server {id} has {files:?}");
        }
        cluster.start_all();
        Written::verify(&written, &cluster);
        for id in cluster.ids() {
            let status = cluster.status(id).expect("it runs");
            assert!(number(&status, "log_begins_behind") > 0, "{status}");
        }
    }
    for id in cluster.ids() {
        let log = cluster.log(id);
        let starts = log
            .iter()
            .filter(|line| line.contains("starts from the snapshot"));
        assert_eq!(starts.count(), 2, "{log:#?}");
    }

    let mut text = cluster.connect_to_leader();
    assert_eq!(uniques(&mut text, &["n", "long"]), before);
    let hit = format!("VALUE big 7 {}\r\n{value}\r\nEND\r\n", value.len());
    text.exchange("get big\r\n", hit);
    text.exchange("get gone short\r\n", "END\r\n");
    text.exchange("get long\r\n", "VALUE long 2 1\r\nx\r\nEND\r\n");
    text.exchange("incr n 1\r\n", "43\r\n");
    let later = uniques(&mut text, &["n"]);
    assert!(later[0] > before[0], "{later:?} after {before:?}");
}

#[test]
fn a_damaged_snapshot_is_named_and_the_one_before_it_serves() {
    let mut cluster = plan(1).start();
    let load = Load::start(&cluster, "load", 8);
    wait_for_drops(&cluster);
    cluster.kill(1);
    let written = load.stop();
    let directory = cluster.data_directory(1);
    let mut snapshots = files(&directory);
    snapshots.retain(|name| name.ends_with(".snap"));
    let newest = directory.join(snapshots.last().expect("it has taken some"));
    flip_in_the_middle(&newest);
    cluster.start(1);
    Written::verify(&written, &cluster);
    let named = cluster.log(1);
    let named = named.iter().filter(|line| line.contains(".snap: corrupt"));
    let named: Vec<&String> = named.collect();
    assert_eq!(named.len(), 1, "{named:#?}");
    assert!(
        named[0].contains(&newest.display().to_string()),
        "{named:?}"
    );
}

/// As a server's log tells its operator to do when its state is not that of the others.
#[test]
fn a_server_whose_snapshots_were_deleted_gets_everything_from_the_others() {
    let mut cluster = plan(3).start();
    let load = Load::start(&cluster, "load", 8);
    wait_for_drops(&cluster);
    let written = load.stop();
    let follower = cluster.follower();
    cluster.terminate(follower);
    let directory = cluster.data_directory(follower);
    for name in files(&directory) {
        if name.ends_with(".snap") {
            fs::remove_file(directory.join(name)).expect("it is ours");
        }
    }
    cluster.start(follower);
    wait_until("the server to be whole", deadline(), || {
        let status = cluster.status(follower)?;
        let is_whole = status["recovering"] == false && number(&status, "last_applied") > 0;
        is_whole.then_some(()).ok_or_else(|| status.to_string())
    });
    let log = cluster.log(follower);
    let says = |line: &&String| line.contains("recovering: ") && line.contains("missing");
    assert_eq!(log.iter().filter(says).count(), 1, "{log:#?}");
    cluster.wait_until_applied();
    // Nothing can be committed without it.
    let spare = cluster.others(follower)[0];
    cluster.kill(spare);
    Written::verify(&written, &cluster);
}

#[test]
fn snapshots_under_load_cost_neither_an_election_nor_an_answer() {
    let cluster = plan(3).start();
    let leader = cluster.agreed_leader();
    let term = number(&cluster.status(leader).expect("it runs"), "term");
    let load = Load::start(&cluster, "load", 8);
    for _ in 0..10 {
        let before = snapshot_indexes(&cluster);
        wait_until("newer snapshots of all", deadline(), || {
            let after = snapshot_indexes(&cluster);
            let newer = before
                .iter()
                .zip(&after)
                .all(|(before, after)| before < after);
            newer.then_some(()).ok_or_else(|| format!("{after:?}"))
        });
    }
    let written = load.stop();
    let status = cluster.status(leader).expect("it runs");
    assert_eq!(
        (number(&status, "term"), &status["role"]),
        (term, &"Leader".into())
    );
    for set in &written {
        let told = matches!(set.fate, Fate::Done | Fate::NotDone);
        assert!(told, "{set:?}");
        assert!(set.took < Duration::from_secs(1), "{set:?}");
    }
    Written::verify(&written, &cluster);
}

#[test]
fn a_follower_that_needs_what_was_dropped_gets_a_snapshot_and_is_level() {
    let mut cluster = plan(3).start();
    let (leader, away) = (cluster.agreed_leader(), cluster.follower());
    let term = number(&cluster.status(leader).expect("it runs"), "term");
    let load = Load::start(&cluster, "load", 8);
    load.wait_for_more(100);
    leave_behind(&mut cluster, away);
    // The others go on, while it catches up and afterwards.
    cluster.start(away);
    wait_for_install(&cluster, away);
    load.wait_for_more(500);
    let written = load.stop();
    cluster.wait_until_applied();
    let status = cluster.status(leader).expect("it runs");
    assert_eq!(number(&status, "term"), term, "{status}");
    for set in &written {
        assert!(set.took < Duration::from_secs(1), "{set:?}");
        assert!(!matches!(set.fate, Fate::Unknown), "{set:?}");
    }
    // It has all of it by itself, on its disk too.
    lead(&mut cluster, away);
    Written::verify(&written, &cluster);
    cluster.kill_together(&cluster.ids());
    cluster.start_all();
    lead(&mut cluster, away);
    Written::verify(&written, &cluster);
}

#[test]
fn a_transfer_goes_on_where_it_stopped_when_the_follower_is_killed() {
    let mut cluster = slow_transfers().start();
    let (written, values) = write_much(&mut cluster);
    let away = cluster.follower();
    leave_behind_with_load(&mut cluster, away);
    cluster.start(away);
    wait_for_bytes(&cluster, away, 700_000);
    cluster.kill(away);
    cluster.start(away);
    wait_for_install(&cluster, away);
    let log = cluster.log(away);
    let goes_on = log.iter().filter(|line| line.contains("goes on at byte"));
    assert_eq!(goes_on.count(), 1, "{log:#?}");
    cluster.wait_until_applied();
    lead(&mut cluster, away);
    verify(&cluster, &written, &values);
}

#[test]
fn a_follower_whose_leader_is_killed_amid_a_transfer_gets_the_next_ones_snapshot() {
    let mut cluster = slow_transfers().start();
    let (written, values) = write_much(&mut cluster);
    let (leader, away) = (cluster.agreed_leader(), cluster.follower());
    leave_behind_with_load(&mut cluster, away);
    cluster.start(away);
    wait_for_bytes(&cluster, away, 100_000);
    cluster.kill(leader);
    wait_for_install(&cluster, away);
    cluster.start(leader);
    cluster.wait_until_applied();
    lead(&mut cluster, away);
    verify(&cluster, &written, &values);
}

/// Snapshots take some seconds to be sent.
fn slow_transfers() -> Plan {
    plan(3).setting("snapshot_send_rate", "500000")
}

/// Some items that make a snapshot long, and some that do not.
fn write_much(cluster: &mut Cluster) -> (Vec<Written>, Vec<String>) {
    let values: Vec<String> = (b'a'..=b'h')
        .map(|letter| char::from(letter).to_string().repeat(250_000))
        .collect();
    let mut text = cluster.connect_to_leader();
    for (number, value) in values.iter().enumerate() {
        let set = format!("set big-{number} 0 0 {}\r\n{value}\r\n", value.len());
        text.exchange(set, "STORED\r\n");
    }
    let load = Load::start(cluster, "much", 8);
    load.wait_for_more(400);
    (load.stop(), values)
}

fn verify(cluster: &Cluster, written: &[Written], values: &[String]) {
    Written::verify(written, cluster);
    let mut text = cluster.connect_to_leader();
    for (number, value) in values.iter().enumerate() {
        let hit = format!("VALUE big-{number} 0 {}\r\n{value}\r\nEND\r\n", value.len());
        text.exchange(format!("get big-{number}\r\n"), hit);
    }
}

/// Kills a server, and waits until a load has the others drop what it needs.
fn leave_behind(cluster: &mut Cluster, away: u64) {
    let last = number(&cluster.status(away).expect("it runs"), "last_log_index");
    cluster.kill(away);
    wait_until("log that was dropped", deadline(), || {
        for id in cluster.running() {
            let status = cluster.status(id)?;
            if number(&status, "log_begins_behind") <= last {
                return Err(format!("{away} has {last}, {status}"));
            }
        }
        Ok(())
    });
}

/// The same, with a load that ends then.
fn leave_behind_with_load(cluster: &mut Cluster, away: u64) {
    let load = Load::start(cluster, "behind", 8);
    leave_behind(cluster, away);
    let written = load.stop();
    Written::verify(&written, cluster);
}

fn wait_for_bytes(cluster: &Cluster, id: u64, bytes: u64) {
    wait_until("some of a snapshot", deadline(), || {
        let status = cluster.status(id)?;
        let arrived = number(&status, "snapshot_received_bytes");
        (arrived >= bytes)
            .then_some(())
            .ok_or_else(|| status.to_string())
    });
}

fn wait_for_install(cluster: &Cluster, id: u64) {
    wait_until("a snapshot of a leader", deadline(), || {
        let status = cluster.status(id)?;
        let installed = number(&status, "snapshots_installed") > 0;
        installed.then_some(()).ok_or_else(|| status.to_string())
    });
}

/// Lets this server lead, which has all that the others have.
fn lead(cluster: &mut Cluster, id: u64) {
    wait_until("a certain leader", deadline(), || {
        let leader = cluster.agreed_leader();
        if leader == id {
            return Ok(());
        }
        cluster.kill(leader);
        cluster.leader();
        cluster.start(leader);
        cluster.agreed_leader();
        cluster.wait_until_applied();
        Err(format!("{leader} leads"))
    });
}

/// Waits until every server has dropped log that snapshots cover.
fn wait_for_drops(cluster: &Cluster) {
    let before: Vec<u64> = log_beginnings(cluster);
    wait_until("log that was dropped", deadline(), || {
        let after = log_beginnings(cluster);
        let all = before
            .iter()
            .zip(&after)
            .all(|(before, after)| before < after);
        all.then_some(())
            .ok_or_else(|| format!("{before:?} and {after:?}"))
    });
}

fn log_beginnings(cluster: &Cluster) -> Vec<u64> {
    numbers(cluster, "log_begins_behind")
}

fn snapshot_indexes(cluster: &Cluster) -> Vec<u64> {
    numbers(cluster, "snapshot_index")
}

fn numbers(cluster: &Cluster, member: &str) -> Vec<u64> {
    let ids = cluster.ids().into_iter();
    ids.map(|id| {
        cluster
            .status(id)
            .map_or(0, |status| number(&status, member))
    })
    .collect()
}

fn number(status: &serde_json::Value, member: &str) -> u64 {
    status[member].as_u64().unwrap_or(0)
}

/// The unique of each of these items, whose values are one line each.
fn uniques(text: &mut Text, keys: &[&str]) -> Vec<u64> {
    let unique = |key: &&str| {
        let hit = text.ask(format!("gets {key}\r\n"));
        let (_value, end) = (text.line(), text.line());
        assert_eq!(end, "END", "{hit}");
        let unique = hit.rsplit(' ').next();
        unique.and_then(|it| it.parse().ok()).expect("a unique")
    };
    keys.iter().map(unique).collect()
}

/// The names of the files in a directory, in order.
fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("it is there");
    let names = entries.map(|entry| entry.expect("it can be read").file_name());
    let mut names: Vec<String> = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn flip_in_the_middle(file: &PathBuf) {
    let open = fs::File::options().read(true).write(true).open(file);
    let file = open.expect("it is ours");
    let at = file.metadata().expect("it is open").len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it is ours");
    file.write_all_at(&[byte[0] ^ 1], at).expect("it is ours");
}
