//! The memory limit of real servers.

use quorate_tests::{Cluster, Plan, Programs, Text, deadline, wait_until};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

const OUT_OF_MEMORY: &str = "SERVER_ERROR out of memory storing object";

/// A value of 100 kB.
const VALUE_BYTES: usize = 100_000;

/// Sets one key after the other until there is no room; how many were stored.
fn fill(text: &mut Text, from: usize) -> usize {
    let value = "v".repeat(VALUE_BYTES);
    for number in from.. {
        match &*text.ask(format!("set k{number} 0 0 {VALUE_BYTES}\r\n{value}\r\n")) {
            "STORED" => {}
            OUT_OF_MEMORY => return number - from,
            other => panic!("{other}"),
        }
    }
    unreachable!("numbers do not end");
}

fn stat(text: &mut Text, name: &str) -> u64 {
    text.send("stats\r\n");
    let mut found = None;
    loop {
        let line = text.line();
        if line == "END" {
            return found.unwrap_or_else(|| panic!("no {name}"));
        }
        if let Some(value) = line.strip_prefix(&format!("STAT {name} ")) {
            found = value.parse().ok();
        }
    }
}

/// Waits until this is the limit of all servers.
fn wait_for_limit(cluster: &Cluster, mib: u64) {
    for id in cluster.ids() {
        let mut text = cluster.connect(id);
        wait_until("the limit", deadline(), || {
            match stat(&mut text, "limit_maxbytes") {
                bytes if bytes == mib << 20 => Ok(()),
                bytes => Err(format!("server {id} holds to {bytes} bytes")),
            }
        });
    }
}

#[test]
fn what_goes_over_the_limit_is_refused_until_there_is_room() {
    let cluster = Plan::new(PROGRAMS, 3)
        .patient()
        .setting("memory_limit_mib", "8")
        .start();
    let mut text = cluster.connect_to_leader();
    let stored = fill(&mut text, 0);
    let fits = (8 << 20) / VALUE_BYTES;
    assert!((fits - 1..=fits).contains(&stored), "{stored} fit");
    wait_for_limit(&cluster, 8);
    assert!(stat(&mut text, "bytes") <= 8 << 20);
    assert_eq!(stat(&mut text, "store_no_memory"), 1);

    text.exchange("get k0x\r\n", "END\r\n");
    text.exchange("set n 0 0 1\r\n9\r\nincr n 1\r\n", "STORED\r\n10\r\n");
    text.exchange("touch k0 100\r\n", "TOUCHED\r\n");
    let value = "w".repeat(VALUE_BYTES);
    for command in ["add new", "append k0", "prepend k0", "set k1", "replace k2"] {
        let bytes = if command == "set k1" || command == "replace k2" {
            2 * VALUE_BYTES
        } else {
            VALUE_BYTES
        };
        let value = value.repeat(bytes / VALUE_BYTES);
        text.exchange(
            format!("{command} 0 0 {bytes}\r\n{value}\r\n"),
            format!("{OUT_OF_MEMORY}\r\n"),
        );
    }
    let kept = "v".repeat(VALUE_BYTES);
    text.exchange(
        "get k1\r\n",
        format!("VALUE k1 0 {VALUE_BYTES}\r\n{kept}\r\nEND\r\n"),
    );
    text.exchange("delete k0\r\ndelete k1\r\n", "DELETED\r\nDELETED\r\n");
    assert_eq!(fill(&mut text, stored), 2);
    text.exchange("flush_all\r\n", "OK\r\n");
    let again = fill(&mut text, 0);
    assert!((fits - 1..=fits).contains(&again), "{again} fit");
}

#[test]
fn a_client_sets_the_limit_of_all_servers_for_good() {
    let mut cluster = Plan::new(PROGRAMS, 3).patient().start();
    let mut text = cluster.connect_to_leader();
    text.exchange("cache_memlimit 8\r\n", "OK\r\n");
    let small = "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n";
    text.exchange("cache_memlimit 7\r\n", small);
    let stored = fill(&mut text, 0);
    wait_for_limit(&cluster, 8);
    text.exchange("cache_memlimit 10 noreply\r\nmn\r\n", "MN\r\n");
    assert!(fill(&mut text, stored) > 0);
    wait_for_limit(&cluster, 10);
    cluster.terminate_together();
    cluster.start_all();
    cluster.leader();
    wait_for_limit(&cluster, 10);
    let mut text = cluster.connect_to_leader();
    assert_eq!(fill(&mut text, 1000), 0);

    let follower = cluster.follower();
    let redirect = cluster.redirect_to(cluster.leader());
    let mut text = cluster.connect(follower);
    let answer = text.ask("cache_memlimit 100\r\n");
    assert_eq!(answer, redirect.trim_end());
}
