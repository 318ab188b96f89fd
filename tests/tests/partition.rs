//! Links between servers that let nothing through, in one direction or in both.

use std::time::{Duration, Instant};

use quorate_tests::{Cluster, Load, Plan, Programs, Written, deadline, wait_until};
use serde_json::Value;

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

const NO_LEADER: &str = "SERVER_ERROR no leader";
const UNKNOWN: &str = "SERVER_ERROR outcome unknown";

/// Servers whose links can be cut.
fn linked(servers: u64) -> Cluster {
    let mut cluster = Plan::new(PROGRAMS, servers).start();
    cluster.restart_with_links();
    cluster
}

#[test]
fn a_leader_that_is_cut_off_serves_nothing_and_the_majority_goes_on() {
    let cluster = linked(5);
    let load = Load::start(&cluster, "load", 8);
    for round in 0..3 {
        load.wait_for_more(100);
        let old = cluster.agreed_leader();
        let mut at_old = cluster.connect(old);
        at_old.exchange("set k 0 0 3\r\nold\r\n", "STORED\r\n");
        // Alone, or with one other: a minority either way.
        let minority: Vec<u64> = match round % 2 {
            0 => vec![old],
            _ => vec![old, cluster.follower()],
        };
        cluster.isolate(&minority);
        let new = leader_beyond(&cluster, &minority);
        cluster
            .connect(new)
            .exchange("set k 0 0 3\r\nnew\r\n", "STORED\r\n");
        // From here on, the old value is wrong, whoever is asked.
        let soon = Instant::now() + Duration::from_secs(1);
        wait_until("the leader to give up", soon, || {
            match at_old.ask("get k\r\n").as_str() {
                NO_LEADER => Ok(()),
                line => panic!("a leader without followers answered {line}"),
            }
        });
        let answer = at_old.ask("set k 0 0 5\r\nwrong\r\n");
        assert!(answer == NO_LEADER || answer == UNKNOWN, "{answer}");
        load.wait_for_more(100);
        cluster.heal();
        cluster.agreed_leader();
        cluster.wait_until_applied();
        let hit = "VALUE k 0 3\r\nnew\r\nEND\r\n";
        cluster.connect_to_leader().exchange("get k\r\n", hit);
    }
    Written::verify(&load.stop(), &cluster);
}

#[test]
fn a_leader_that_cannot_hear_or_cannot_be_heard_is_replaced() {
    let cluster = linked(5);
    let load = Load::start(&cluster, "load", 8);
    for hears in [true, false] {
        load.wait_for_more(100);
        let old = cluster.agreed_leader();
        for other in cluster.others(old) {
            match hears {
                true => cluster.cut(old, other),
                false => cluster.cut(other, old),
            }
        }
        let new = leader_beyond(&cluster, &[old]);
        load.wait_for_more(100);
        wait_until("the leader to give up", deadline(), || {
            let status = cluster.status(old)?;
            let leads = status["role"] == "Leader" && status["quorum"] == true;
            (!leads).then_some(()).ok_or(status.to_string())
        });
        assert_eq!(
            leader_beyond(&cluster, &[old]),
            new,
            "one election is enough"
        );
        cluster.heal();
        cluster.agreed_leader();
    }
    cluster.wait_until_applied();
    Written::verify(&load.stop(), &cluster);
}

#[test]
fn a_follower_that_was_alone_comes_back_without_an_election() {
    let cluster = linked(3);
    let load = Load::start(&cluster, "load", 4);
    let leader = cluster.agreed_leader();
    let follower = cluster.follower();
    let before = cluster.status(leader).expect("it answers");
    cluster.isolate(&[follower]);
    // Time enough for many elections, if it could hold one.
    wait_until("tries in vain", deadline(), || {
        let status = cluster.status(follower)?;
        let alone = status["leader"].is_null();
        alone.then_some(()).ok_or(status.to_string())
    });
    load.wait_for_more(500);
    let alone = cluster.status(follower).expect("it answers");
    assert_eq!(alone["quorum"], false, "{alone}");
    assert_eq!(alone["term"], before["term"], "{alone}");
    cluster.heal();
    assert_eq!(cluster.agreed_leader(), leader);
    cluster.wait_until_applied();
    let after = cluster.status(leader).expect("it answers");
    assert_eq!(after["term"], before["term"], "{after}");
    Written::verify(&load.stop(), &cluster);
}

#[test]
fn a_follower_that_hears_only_another_follower_disturbs_nobody() {
    let cluster = linked(3);
    let load = Load::start(&cluster, "load", 4);
    let leader = cluster.agreed_leader();
    let deaf = cluster.follower();
    let before = cluster.status(leader).expect("it answers");
    for (from, to) in [(leader, deaf), (deaf, leader)] {
        cluster.cut(from, to);
    }
    wait_until("the leader to be missed", deadline(), || {
        let status = cluster.status(deaf)?;
        let alone = status["leader"].is_null();
        alone.then_some(()).ok_or(status.to_string())
    });
    load.wait_for_more(500);
    let during = cluster.status(leader).expect("it answers");
    for member in ["role", "term", "quorum"] {
        assert_eq!(during[member], before[member], "{during}");
    }
    cluster.heal();
    assert_eq!(cluster.agreed_leader(), leader);
    cluster.wait_until_applied();
    Written::verify(&load.stop(), &cluster);
}

#[test]
fn a_leader_that_does_not_notice_that_it_is_cut_off_serves_no_stale_read() {
    let mut cluster = linked(3);
    let old = make_unsuspecting_leader(&mut cluster);
    let mut at_old = cluster.connect(old);
    at_old.exchange(
        "set k 0 0 3\r\nold\r\nget k\r\n",
        "STORED\r\nVALUE k 0 3\r\nold\r\nEND\r\n",
    );
    cluster.isolate(&[old]);
    let new = leader_beyond(&cluster, &[old]);
    cluster
        .connect(new)
        .exchange("set k 0 0 3\r\nnew\r\n", "STORED\r\n");
    let status = cluster.status(old).expect("it answers");
    assert_eq!(
        status["role"], "Leader",
        "it was to notice nothing: {status}"
    );
    // No clock of its own tells it that these are not its to answer, only the silence of others.
    for _ in 0..2 {
        assert_eq!(at_old.ask("get k\r\n"), NO_LEADER);
    }
    assert_eq!(at_old.ask("set k 0 0 5\r\nwrong\r\n"), UNKNOWN);
    cluster.heal();
    assert_ne!(cluster.agreed_leader(), old);
    cluster.wait_until_applied();
    cluster
        .connect_to_leader()
        .exchange("get k\r\n", "VALUE k 0 3\r\nnew\r\nEND\r\n");
}

/// Makes a server of three the leader that would take a minute to miss its followers; its id.
fn make_unsuspecting_leader(cluster: &mut Cluster) -> u64 {
    for _ in 0..5 {
        let first = cluster.agreed_leader();
        let unsuspecting = cluster.follower();
        cluster.kill(unsuspecting);
        let mut command = cluster.server_command(unsuspecting);
        command.args(["--election-timeout-ms", "60000..120000"]);
        cluster.start_as(unsuspecting, command);
        cluster.agreed_leader();
        // It would never stand for election by itself, so that leadership is handed to it: there is
        // nobody else who has everything.
        let mut others = cluster.others(first).into_iter();
        let third = others.find(|id| *id != unsuspecting);
        cluster.kill(third.expect("there are three"));
        cluster.wait_until_applied();
        cluster.terminate(first);
        cluster.start_all();
        if cluster.agreed_leader() == unsuspecting {
            return unsuspecting;
        }
        cluster.kill(unsuspecting);
        cluster.start(unsuspecting);
    }
    panic!("leadership was never handed over");
}

/// The leader among the servers that are not `cut_off`, once there is one.
fn leader_beyond(cluster: &Cluster, cut_off: &[u64]) -> u64 {
    wait_until("a leader of the majority", deadline(), || {
        let mut seen = Vec::new();
        for id in cluster.ids().into_iter().filter(|id| !cut_off.contains(id)) {
            let status: Value = cluster.status(id)?;
            if status["role"] == "Leader" && status["quorum"] == true {
                return Ok(id);
            }
            seen.push(status.to_string());
        }
        Err(seen.join(", "))
    })
}
