//! What a server does when there are more connections than it may have.

use std::process::Command;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use quorate_tests::{Cluster, Plan, Programs, Text, deadline, wait_until};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

#[test]
fn a_connection_over_the_limit_is_told_so_and_a_place_that_is_free_again_is_given_away() {
    let cluster = Plan::new(PROGRAMS, 1)
        .setting("connections_max", "5")
        .start();
    let mut clients = settled_clients(&cluster, 5);
    for _ in 0..20 {
        let mut one_too_many = cluster.connect(1);
        one_too_many.expect("ERROR Too many open connections\r\n");
        one_too_many.expect_closed();
    }
    for client in &mut clients {
        client.exchange("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    }
    clients.pop();
    wait_until("a free place", deadline(), || {
        cluster
            .connect(1)
            .try_ask("mn\r\n")
            .map_err(|error| error.to_string())
            .and_then(|line| (line == "MN").then_some(()).ok_or(line))
    });
    let mut http = Vec::new();
    for _ in 0..5 {
        http.push(cluster.status(1).expect("HTTP has places of its own"));
    }
}

#[test]
fn a_server_that_is_out_of_files_goes_on_serving_those_it_has() {
    // 320 for itself and 24 for clients.
    let files_max = 344;
    let mut cluster = Plan::new(PROGRAMS, 3).patient().prepare();
    for id in cluster.ids() {
        let command = with_file_limit(cluster.server_command(id), files_max);
        cluster.start_as(id, command);
    }
    let leader = cluster.agreed_leader();
    let mut early = cluster.connect(leader);
    early.exchange("set k 0 0 1\r\na\r\n", "STORED\r\n");
    // More than it can have; those that it cannot take wait, or are told so.
    let crowd: Vec<Text> = (0..256).map(|_| cluster.connect(leader)).collect();
    for _ in 0..100 {
        early.exchange(
            "set k 0 0 1\r\nb\r\nget k\r\n",
            "STORED\r\nVALUE k 0 1\r\nb\r\nEND\r\n",
        );
    }
    // Its log and its peers have files of their own.
    let follower = cluster.others(leader)[0];
    cluster.kill(follower);
    early.exchange("set k 0 0 1\r\nc\r\n", "STORED\r\n");
    let command = with_file_limit(cluster.server_command(follower), files_max);
    cluster.start_as(follower, command);
    drop(crowd);
    wait_until("a new connection", deadline(), || {
        let mut text = cluster.connect(leader);
        match text.try_ask("incr no-such-key 1\r\n") {
            Ok(line) if line == "NOT_FOUND" => Ok(()),
            Ok(line) => Err(line),
            Err(error) => Err(error.to_string()),
        }
    });
    assert_eq!(
        cluster.agreed_leader(),
        leader,
        "nothing of it costs an election"
    );
    cluster.wait_until_applied();
}

#[test]
fn strangers_on_the_rpc_port_disturb_nobody() {
    let mut cluster = Plan::new(PROGRAMS, 3).patient().start();
    let leader = cluster.agreed_leader();
    let before = cluster.status(leader).expect("it answers");
    let mut random = StdRng::seed_from_u64(41);
    let mut strangers = Vec::new();
    for number in 0..300_usize {
        for id in cluster.ids() {
            let mut stranger = Text::connect(cluster.rpc_address(id));
            let mut bytes = vec![0; random.random_range(0..2_000)];
            random.fill_bytes(&mut bytes);
            if number % 3 == 0 {
                // A length that is believed costs memory: 4 GiB, or as much as a frame may have.
                bytes.splice(..0, [[0xff; 4], [0, 0, 0x40, 0]][number % 2]);
            }
            // It may be refused at any byte.
            drop(stranger.try_send(&bytes));
            // Half of them stay, and say nothing more.
            if number % 2 == 0 {
                strangers.push(stranger);
            }
        }
    }
    for id in cluster.ids() {
        let resident = cluster.resident_bytes(id);
        assert!(resident < 300 << 20, "server {id} has {resident} bytes");
    }
    // Who belongs to the cluster still finds a place.
    let follower = cluster.others(leader)[0];
    cluster.kill(follower);
    cluster.start(follower);
    assert_eq!(cluster.agreed_leader(), leader);
    cluster.wait_until_applied();
    let after = cluster.status(leader).expect("it answers");
    assert_eq!(after["term"], before["term"], "{after}");
}

#[test]
fn idle_http_connections_keep_nobody_from_the_status() {
    let cluster = Plan::new(PROGRAMS, 1).start();
    let mut idle: Vec<Text> = (0..300)
        .map(|_| Text::connect(cluster.http_address(1)))
        .collect();
    for (number, text) in idle.iter_mut().enumerate() {
        if number % 2 == 0 {
            drop(text.try_send("GET /status HTTP/1.1\r\nHost: "));
        }
    }
    for _ in 0..10 {
        cluster.status(1).expect("it answers within two seconds");
    }
}

/// This many clients that the only server has taken in.
fn settled_clients(cluster: &Cluster, count: usize) -> Vec<Text> {
    wait_until("free places", deadline(), || {
        // Earlier connections may not be gone yet.
        let mut clients = Vec::new();
        for _ in 0..count {
            let mut text = cluster.connect(1);
            match text.try_ask("mn\r\n") {
                Ok(line) if line == "MN" => clients.push(text),
                other => return Err(format!("{other:?}")),
            }
        }
        Ok(clients)
    })
}

/// The same program with at most this many open files, which it can't change.
fn with_file_limit(command: Command, files_max: usize) -> Command {
    let mut limited = Command::new("sh");
    limited
        .arg("-c")
        .arg(format!("ulimit -n {files_max} && exec \"$0\" \"$@\""))
        .arg(command.get_program())
        .args(command.get_args());
    for (variable, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(variable, value),
            None => limited.env_remove(variable),
        };
    }
    limited
}
