//! What rots on the disk of a server that runs is found, and replaced from what the server has in
//! memory, without a restart and without another server.

use std::fs;
use std::path::Path;

use quorate_tests::{
    Cluster, IN_THE_FIRST_RECORD, Load, Plan, Programs, Written, deadline, flip, wait_until,
};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

/// Everything is read again all the time.
fn plan(servers: u64) -> Plan {
    Plan::new(PROGRAMS, servers)
        .patient()
        .setting("log_segment_bytes", "32768")
        .setting("scrub_rate", "1000000000")
        .setting("scrub_interval_ms", "100")
}

/// Writes several segments, and gives what was written.
fn write_much(cluster: &Cluster) -> Vec<Written> {
    let mut text = cluster.connect_to_leader();
    let value = "v".repeat(10_000);
    for number in 0..16 {
        let set = format!("set big-{number} 0 0 10000\r\n{value}\r\n");
        text.exchange(set, "STORED\r\n");
    }
    let load = Load::start(cluster, "load", 4);
    load.wait_for_more(100);
    let written = load.stop();
    cluster.wait_until_applied();
    written
}

fn verify(written: &[Written], cluster: &Cluster) {
    Written::verify(written, cluster);
    let mut text = cluster.connect_to_leader();
    let value = "v".repeat(10_000);
    for number in 0..16 {
        let hit = format!("VALUE big-{number} 0 10000\r\n{value}\r\nEND\r\n");
        text.exchange(format!("get big-{number}\r\n"), hit);
    }
}

fn files(directory: &Path, ending: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("it is there");
    let names = entries.map(|entry| entry.expect("it can be read").file_name());
    let mut names: Vec<String> = names
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.ends_with(ending))
        .collect();
    names.sort();
    names
}

fn number(status: &serde_json::Value, member: &str) -> u64 {
    status[member].as_u64().unwrap_or(0)
}

/// Waits until a server has read everything twice and found nothing more.
fn wait_until_sound(cluster: &Cluster, id: u64) {
    let mut quiet_since = None;
    wait_until("passes without a hit", deadline(), || {
        let status = cluster.status(id)?;
        let (hits, passes) = (
            number(&status, "scrub_hits"),
            number(&status, "scrub_passes"),
        );
        let (hits_then, passes_then) = *quiet_since.get_or_insert((hits, passes));
        if hits > hits_then {
            quiet_since = None;
        } else if hits > 0 && passes >= passes_then + 2 {
            return Ok(());
        }
        Err(status.to_string())
    });
}

fn names_it(cluster: &Cluster, id: u64, name: &str) -> bool {
    let log = cluster.log(id);
    let says = |line: &String| {
        line.contains(&format!("{name}: corrupt at byte "))
            && line.contains("a snapshot of what this server has in memory takes its place")
    };
    log.iter().any(says)
}

/// Its first segment rots, or the one that it writes to.
#[test]
fn a_rotten_segment_is_gone_before_it_is_needed_though_there_is_no_other_server() {
    for is_last in [false, true] {
        let mut cluster = plan(1).start();
        let written = write_much(&cluster);
        let directory = cluster.data_directory(1);
        let segments = files(&directory, ".log");
        assert!(segments.len() > 2, "{segments:?}");
        let (name, offset) = match is_last {
            false => (&segments[0], IN_THE_FIRST_RECORD),
            true => (&segments[segments.len() - 1], 100),
        };
        flip(&directory.join(name), offset);
        wait_until("the segment to go", deadline(), || {
            let left = files(&directory, ".log");
            (!left.contains(name))
                .then_some(())
                .ok_or_else(|| format!("{left:?}"))
        });
        wait_until_sound(&cluster, 1);
        assert!(names_it(&cluster, 1, name), "{:#?}", cluster.log(1));
        let status = cluster.status(1).expect("it runs");
        assert!(number(&status, "log_begins_behind") > 0, "{status}");
        assert!(number(&status, "snapshot_index") > 0, "{status}");
        verify(&written, &cluster);
        cluster.kill(1);
        cluster.start(1);
        cluster.leader();
        verify(&written, &cluster);
        let status = cluster.status(1).expect("it runs");
        assert_eq!(
            (number(&status, "restart"), &status["recovering"]),
            (2, &false.into())
        );
    }
}

#[test]
fn a_follower_whose_log_rots_stays_a_whole_member() {
    let mut cluster = plan(3).start();
    let written = write_much(&cluster);
    let follower = cluster.follower();
    let directory = cluster.data_directory(follower);
    let name = files(&directory, ".log").remove(0);
    flip(&directory.join(&name), IN_THE_FIRST_RECORD);
    wait_until_sound(&cluster, follower);
    assert!(
        names_it(&cluster, follower, &name),
        "{:#?}",
        cluster.log(follower)
    );
    let status = cluster.status(follower).expect("it runs");
    assert_eq!(
        (number(&status, "restart"), &status["recovering"]),
        (1, &false.into())
    );
    // Nothing can be committed without it, and it starts with all that it has.
    cluster.kill(follower);
    cluster.start(follower);
    let spare = cluster.others(follower)[0];
    cluster.kill(spare);
    verify(&written, &cluster);
}

#[test]
fn a_rotten_snapshot_is_written_again() {
    let mut cluster = plan(1).setting("snapshot_entries", "10").start();
    let written = write_much(&cluster);
    let directory = cluster.data_directory(1);
    wait_until("snapshots", deadline(), || {
        let names = files(&directory, ".snap");
        let status = cluster.status(1)?;
        let rests = number(&status, "snapshot_index") + 10 > number(&status, "last_applied");
        (names.len() == 2 && rests)
            .then_some(())
            .ok_or_else(|| format!("{names:?}, {status}"))
    });
    let name = files(&directory, ".snap").remove(1);
    flip(&directory.join(&name), 5000);
    wait_until_sound(&cluster, 1);
    assert!(names_it(&cluster, 1, &name), "{:#?}", cluster.log(1));
    verify(&written, &cluster);
    cluster.kill(1);
    cluster.start(1);
    cluster.leader();
    let log = cluster.log(1);
    let without = |line: &String| line.contains("this server starts without it");
    assert!(!log.iter().any(without), "{log:#?}");
    verify(&written, &cluster);
}

/// A cluster of which nothing is read but what is needed, and a follower that is not running.
fn with_one_away(plan: Plan) -> (Cluster, u64, u64) {
    let mut cluster = plan.patient().setting("scrub_rate", "0").start();
    let leader = cluster.agreed_leader();
    let away = cluster.others(leader)[0];
    cluster.kill(away);
    (cluster, leader, away)
}

/// The one that was away comes back, and gets everything from a leader that names this file and
/// goes on.
fn comes_back(cluster: &mut Cluster, (leader, away): (u64, u64), name: &str, value: &str) {
    cluster.start(away);
    cluster.wait_until_applied();
    assert!(
        names_it(cluster, leader, name),
        "{name} {:#?}",
        cluster.log(leader)
    );
    for id in cluster.ids() {
        let status = cluster.status(id).expect("it runs");
        let starts = if id == away { 2 } else { 1 };
        assert_eq!(number(&status, "restart"), starts, "{status}");
        assert_eq!(status["recovering"], false, "{status}");
    }
    // Nothing is committed without it, and it may have to lead.
    cluster.kill(leader);
    let hit = format!("VALUE key 0 {}\r\n{value}\r\nEND\r\n", value.len());
    cluster.connect_to_leader().exchange("get key\r\n", hit);
}

#[test]
fn a_segment_that_rots_and_a_follower_needs_is_replaced_by_a_snapshot() {
    let plan = Plan::new(PROGRAMS, 3).setting("log_segment_bytes", "4194304");
    let (mut cluster, leader, away) = with_one_away(plan);
    // More than the leader keeps in memory.
    let value = "v".repeat(1_000_000);
    let set = format!("set key 0 0 1000000\r\n{value}\r\n");
    let mut text = cluster.connect_to_leader();
    for _ in 0..80 {
        text.exchange(&set, "STORED\r\n");
    }
    drop(text);
    let directory = cluster.data_directory(leader);
    let name = files(&directory, ".log").remove(1);
    flip(&directory.join(&name), 2_000_000);
    comes_back(&mut cluster, (leader, away), &name, &value);
}

#[test]
fn a_snapshot_that_rots_and_a_follower_needs_is_written_again() {
    let plan = Plan::new(PROGRAMS, 3)
        .setting("log_segment_bytes", "32768")
        .setting("log_kept_bytes", "0")
        .setting("snapshot_bytes", "1048576");
    let (mut cluster, leader, away) = with_one_away(plan);
    let value = "v".repeat(10_000);
    let set = format!("set key 0 0 10000\r\n{value}\r\n");
    let mut text = cluster.connect_to_leader();
    for _ in 0..200 {
        text.exchange(&set, "STORED\r\n");
    }
    // A snapshot so new that the next is not due before this test is over: what the start of a
    // server is waited for with is small.
    let hit = format!("{value}\r\nEND\r\n");
    let directory = cluster.data_directory(leader);
    wait_until(
        "a log that is dropped, and a new snapshot",
        deadline(),
        || {
            text.exchange(&set, "STORED\r\n");
            let line = text.ask("gets key\r\n");
            text.expect(&hit);
            let unique = line.rsplit(' ').next().and_then(|word| word.parse().ok());
            let last = unique.map_or(0, |unique: u64| unique >> 16);
            let status = cluster.status(leader)?;
            let is_new = number(&status, "snapshot_index") + 5 >= last;
            match is_new && number(&status, "log_begins_behind") > 10 {
                true => Ok(()),
                false => Err(status.to_string()),
            }
        },
    );
    drop(text);
    let newest = files(&directory, ".snap").pop();
    let name = newest.expect("there is a snapshot");
    flip(&directory.join(&name), 5000);
    comes_back(&mut cluster, (leader, away), &name, &value);
}

#[test]
fn nothing_is_read_again_at_a_rate_of_zero() {
    let plan = Plan::new(PROGRAMS, 1).setting("scrub_rate", "0");
    let cluster = plan.setting("scrub_interval_ms", "100").start();
    let written = write_much(&cluster);
    verify(&written, &cluster);
    let status = cluster.status(1).expect("it runs");
    assert_eq!(
        (
            &status["scrub_passes"],
            &status["scrub_ended_s_ago"],
            &status["scrub_bytes"]
        ),
        (&0.into(), &serde_json::Value::Null, &0.into())
    );
}
