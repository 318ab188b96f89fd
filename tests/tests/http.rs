//! The HTTP port, which answers whatever state its server is in.

use quorate_tests::{Cluster, Plan, Programs, Response, deadline, wait_until};
use serde_json::Value;

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

#[test]
fn the_status_has_the_promised_members_and_all_servers_agree_on_the_leader() {
    let mut cluster = Plan::new(PROGRAMS, 5).start();
    for _ in 0..2 {
        let leader = cluster.agreed_leader();
        cluster
            .connect(leader)
            .exchange("set k 0 0 1\r\nx\r\n", "STORED\r\n");
        cluster.wait_until_applied();
        let statuses: Vec<Value> = cluster
            .running()
            .into_iter()
            .map(|id| status(&cluster, id))
            .collect();
        for (id, status) in cluster.running().into_iter().zip(&statuses) {
            let role = if id == leader { "Leader" } else { "Follower" };
            assert_eq!(status["role"], role, "{status}");
            assert_eq!(status["id"], id, "{status}");
            assert_eq!(status["leader"], leader, "{status}");
            assert_eq!(status["quorum"], true, "{status}");
            assert_eq!(status["term"], statuses[0]["term"], "{status}");
        }
        cluster.kill(leader);
    }
}

#[test]
fn the_http_port_answers_before_there_is_a_leader_and_without_a_majority() {
    let mut cluster = Plan::new(PROGRAMS, 3).prepare();
    cluster.start(2);
    wait_until("the HTTP port", deadline(), || cluster.status(2).map(drop));
    let alone = status(&cluster, 2);
    assert_ne!(alone["role"], "Leader", "{alone}");
    assert_eq!(alone["leader"], Value::Null, "{alone}");
    assert_eq!(alone["quorum"], false, "{alone}");
    assert_eq!(get(&cluster, 2, "/healthz").status, 200);
    assert_eq!(get(&cluster, 2, "/readyz").status, 503);
    cluster.start_all();
    let leader = cluster.agreed_leader();
    for id in cluster.ids() {
        wait_until("readiness", deadline(), || {
            match get(&cluster, id, "/readyz").status {
                200 => Ok(()),
                status => Err(format!("{status}")),
            }
        });
    }
    let followers = cluster.others(leader);
    cluster.kill_together(&followers);
    wait_until("the loss to be noticed", deadline(), || {
        let status = status(&cluster, leader);
        let ready = get(&cluster, leader, "/readyz").status;
        if status["quorum"] == false && ready == 503 {
            Ok(())
        } else {
            Err(format!("{status}, ready: {ready}"))
        }
    });
    assert_eq!(get(&cluster, leader, "/healthz").status, 200);
}

#[test]
fn every_other_path_is_not_found() {
    let cluster = Plan::new(PROGRAMS, 1).start();
    for path in [
        "/nothing",
        "/status/",
        "/status/1",
        "//",
        "/STATUS",
        "/..%2fstatus",
    ] {
        assert_eq!(get(&cluster, 1, path).status, 404, "{path}");
    }
    let address = cluster.http_address(1);
    let response = Response::request(address, "DELETE", "/status").expect("it answers");
    assert_eq!(response.status, 405);
    let front = get(&cluster, 1, "/");
    assert_eq!(front.status, 200);
    assert!(front.body.contains("/status"), "{front:?}");
}

/// The status of a server, which must have what is promised, and types as promised.
fn status(cluster: &Cluster, id: u64) -> Value {
    let response = get(cluster, id, "/status");
    assert_eq!(response.status, 200);
    let kind = response.header("content-type");
    assert_eq!(kind, Some("application/json"));
    let status: Value = serde_json::from_str(&response.body).expect("it is JSON");
    let role = status["role"].as_str().unwrap_or_default();
    assert!(
        ["Leader", "Follower", "Candidate"].contains(&role),
        "{status}"
    );
    for number in [
        "term",
        "id",
        "commit_index",
        "last_applied",
        "last_log_index",
    ] {
        assert!(status[number].is_u64(), "{number} in {status}");
    }
    assert!(status.get("leader").is_some(), "{status}");
    assert!(
        status["leader"].is_u64() || status["leader"].is_null(),
        "{status}"
    );
    assert!(status["quorum"].is_boolean(), "{status}");
    status
}

fn get(cluster: &Cluster, id: u64, path: &str) -> Response {
    let response = Response::get(cluster.http_address(id), path);
    response.unwrap_or_else(|error| panic!("server {id}: {path}: {error}"))
}
