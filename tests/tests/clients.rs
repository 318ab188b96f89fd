//! Many clients at once, and those that behave badly.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quorate_tests::{Plan, Programs, Text, deadline, wait_until};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

/// A test that has hundreds of threads needs little of each.
const STACK_BYTES: usize = 256 << 10;

/// A status is answered within a second, which five hundred busy threads of ours must not make more
/// of than this.
const STATUS_TIME_MAX: Duration = Duration::from_millis(1_500);

#[test]
fn five_hundred_clients_run_the_same_script_at_once() {
    let cluster = Plan::new(PROGRAMS, 3).patient().start();
    let leader = cluster.client_address(cluster.leader());
    let clients = 500;
    let barrier = Barrier::new(clients);
    let script = |client: usize| {
        let mut text = Text::connect(leader);
        text.set_timeout(Duration::from_secs(60));
        barrier.wait();
        for round in 0..10 {
            let key = format!("client-{client}");
            let value = format!("{client}\r\n{round}");
            let length = value.len();
            text.exchange(
                format!("set {key} {client} 0 {length}\r\n{value}\r\n"),
                "STORED\r\n",
            );
            text.exchange(
                format!("get {key}\r\n"),
                format!("VALUE {key} {client} {length}\r\n{value}\r\nEND\r\n"),
            );
            text.exchange(format!("add {key} 0 0 1\r\nx\r\n"), "NOT_STORED\r\n");
            let common = text.ask("incr common 1\r\n");
            assert!(
                common == "NOT_FOUND" || common.parse::<u64>().is_ok(),
                "{common}"
            );
            text.exchange(
                format!("delete {key}\r\nget {key}\r\n"),
                "DELETED\r\nEND\r\n",
            );
        }
        text.exchange("incr finished 1 noreply\r\nmn\r\n", "MN\r\n");
    };
    cluster
        .connect_to_leader()
        .exchange("set finished 0 0 1\r\n0\r\n", "STORED\r\n");
    thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|client| {
                thread::Builder::new()
                    .stack_size(STACK_BYTES)
                    .spawn_scoped(scope, move || script(client))
                    .expect("threads can be had")
            })
            .collect();
        // Whoever watches the servers meanwhile is answered, too.
        while !threads.iter().all(|thread| thread.is_finished()) {
            for id in cluster.ids() {
                let start = Instant::now();
                cluster.status(id).expect("it answers");
                assert!(start.elapsed() < STATUS_TIME_MAX, "{:?}", start.elapsed());
            }
        }
    });
    let mut text = cluster.connect_to_leader();
    text.exchange("incr finished 0\r\n", format!("{clients}\r\n"));
}

#[test]
fn of_concurrent_cas_exactly_one_wins_a_round() {
    let cluster = Plan::new(PROGRAMS, 3).patient().start();
    let leader = cluster.client_address(cluster.leader());
    let (clients, rounds) = (16, 50);
    let barrier = Barrier::new(clients);
    let wins: Vec<AtomicUsize> = (0..rounds).map(|_| AtomicUsize::new(0)).collect();
    Text::connect(leader).exchange("set x 0 0 5\r\nfirst\r\n", "STORED\r\n");
    let run = |client: usize| {
        let mut text = Text::connect(leader);
        for (round, wins) in wins.iter().enumerate() {
            let hit = text.ask("gets x\r\n");
            let unique = hit.rsplit(' ').next().expect("it has words").to_owned();
            text.line();
            text.expect("END\r\n");
            // Nobody swaps before all have seen the same unique, or reads before all have swapped.
            barrier.wait();
            let value = format!("{round} {client}");
            let length = value.len();
            match text
                .ask(format!("cas x 0 0 {length} {unique}\r\n{value}\r\n"))
                .as_str()
            {
                "STORED" => {
                    wins.fetch_add(1, Ordering::Relaxed);
                    text.exchange(
                        "get x\r\n",
                        format!("VALUE x 0 {length}\r\n{value}\r\nEND\r\n"),
                    );
                }
                line => assert_eq!(line, "EXISTS"),
            }
            barrier.wait();
        }
    };
    thread::scope(|scope| {
        for client in 0..clients {
            scope.spawn(move || run(client));
        }
    });
    let wins: Vec<usize> = wins.into_iter().map(AtomicUsize::into_inner).collect();
    assert_eq!(wins, vec![1; rounds]);
}

#[test]
fn a_client_that_never_reads_costs_the_others_nothing() {
    let cluster = Plan::new(PROGRAMS, 1).start();
    let mut other = cluster.connect_to_leader();
    let value = "v".repeat(500_000);
    other.exchange(
        format!("set big 0 0 {}\r\n{value}\r\n", value.len()),
        "STORED\r\n",
    );
    let before = cluster.resident_bytes(1);
    let mut deaf: Vec<Text> = (0..8)
        .map(|_| {
            let mut text = cluster.connect_to_leader();
            text.set_timeout(Duration::from_millis(500));
            // It asks for half a gigabyte; that the server does not take all of it in is right.
            drop(text.try_send("get big\r\n".repeat(1_000)));
            text
        })
        .collect();
    for number in 0..100 {
        other.exchange(format!("set k 0 0 3\r\n{number:03}\r\n"), "STORED\r\n");
        other.exchange(
            "get k\r\n",
            format!("VALUE k 0 3\r\n{number:03}\r\nEND\r\n"),
        );
    }
    // At most 8 MiB of replies wait for each, and as much again may be in the kernel's hands.
    let grown = cluster.resident_bytes(1).saturating_sub(before);
    assert!(
        grown < 200 << 20,
        "{grown} bytes for clients that do not read"
    );
    let hit = format!("VALUE big 0 {}\r\n{value}\r\nEND\r\n", value.len());
    for text in &mut deaf {
        text.set_timeout(Duration::from_secs(10));
        text.expect(&hit);
    }
    drop(deaf);
    wait_until("the connections to be given up", deadline(), || match stat(
        &mut other,
        "curr_connections",
    ) {
        count if count <= 2 => Ok(()),
        count => Err(format!("{count} connections")),
    });
}

#[test]
fn a_command_that_does_not_come_to_its_end_closes_the_connection() {
    let plan = Plan::new(PROGRAMS, 1).setting("incomplete_command_ms", "300");
    let cluster = plan.start();
    for beginning in ["get ke", "set k 0 0 100\r\nab", "set k 0 0 1\r\na"] {
        let mut text = cluster.connect_to_leader();
        text.exchange("mn\r\n", "MN\r\n");
        text.send(beginning);
        text.expect_closed();
    }
    // What is refused at once must still be sent to its end.
    let mut text = cluster.connect_to_leader();
    let too_large = "SERVER_ERROR object too large for cache\r\n";
    text.exchange("set big 0 0 2000000\r\nx", too_large);
    text.expect_closed();
    // Who asks nothing may stay for longer than the limit.
    let mut idle = cluster.connect_to_leader();
    idle.exchange("get k\r\n", "END\r\n");
    let mut text = cluster.connect_to_leader();
    text.send("get ke");
    text.expect_closed();
    idle.exchange("get k\r\n", "END\r\n");
}

/// A number of the server's `stats`.
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
