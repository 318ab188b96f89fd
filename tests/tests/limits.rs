//! What a server does when there are more connections than it may have.

use std::process::Command;

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
    let files_max = 128;
    let mut cluster = Plan::new(PROGRAMS, 3).patient().prepare();
    for id in cluster.ids() {
        let command = with_file_limit(cluster.server_command(id), files_max);
        cluster.start_as(id, command);
    }
    let leader = cluster.agreed_leader();
    let mut early = cluster.connect(leader);
    early.exchange("set k 0 0 1\r\na\r\n", "STORED\r\n");
    // More than it can have; those that it cannot take wait, or are told so.
    let crowd: Vec<Text> = (0..2 * files_max)
        .map(|_| cluster.connect(leader))
        .collect();
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
