//! Leaders come and go: followers redirect, what was acknowledged stays, and what cannot be done is
//! said in time.

use std::time::{Duration, Instant};

use client::{Address, Client, ItemOptions, Outcome};
use quorate_tests::{
    Cluster, Fate, Load, Plan, Programs, Response, Text, Written, assert_took_less, deadline,
    wait_until,
};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

const NO_LEADER: &str = "SERVER_ERROR no leader";
const UNKNOWN: &str = "SERVER_ERROR outcome unknown";

/// A command that a server has accepted is answered within a second; a machine with two cores and
/// five servers takes its time to wake this process up for the answer.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(1_500);

#[test]
fn a_follower_redirects_every_data_command_and_reads_no_value_as_a_command() {
    let cluster = Plan::new(PROGRAMS, 3).patient().start();
    let leader = cluster.agreed_leader();
    let redirect = cluster.redirect_to(leader);
    for follower in cluster.others(leader) {
        let mut text = cluster.connect(follower);
        for command in [
            "get k",
            "gets k l",
            "gat 0 k",
            "gats 0 k",
            "delete k",
            "incr k 1",
            "decr k 1",
            "touch k 0",
            "flush_all",
        ] {
            text.exchange(format!("{command}\r\n"), &redirect);
        }
        for command in ["set", "add", "replace", "append", "prepend"] {
            // The value would store an item, and then end the connection.
            let value = "set k 0 0 1\r\nx\r\nquit\r\n";
            let block = format!("{command} k 0 0 {}\r\n{value}\r\nmn\r\n", value.len());
            text.exchange(block, format!("{redirect}MN\r\n"));
        }
        text.exchange(
            "cas k 0 0 4 1\r\nquit\r\nmn\r\n",
            format!("{redirect}MN\r\n"),
        );
        // Without a line for the first, which asked for none, and with one for all after it.
        let pipeline =
            "set k 0 0 1 noreply\r\nx\r\nget k\r\nset k 0 0 1\r\ny\r\nversion\r\nget k\r\n";
        text.send(pipeline);
        text.expect(&redirect);
        text.expect(&redirect);
        assert!(text.line().starts_with("VERSION "));
        text.expect(&redirect);
        text.exchange("set k 0 0 1 noreply\r\nx\r\nmn\r\n", "MN\r\n");
        text.exchange(
            "foo\r\nincr k x\r\n",
            "ERROR\r\nCLIENT_ERROR invalid numeric delta argument\r\n",
        );
        // What is too large would be too large for the leader, too.
        let value = "v".repeat(2 << 20);
        text.send(format!("set k 0 0 {}\r\n{value}\r\nmn\r\n", value.len()));
        text.expect("SERVER_ERROR object too large for cache\r\nMN\r\n");
    }
    cluster.connect(leader).exchange("get k\r\n", "END\r\n");
}

#[test]
fn the_client_library_follows_a_redirect_and_finds_the_next_leader() {
    let mut cluster = Plan::new(PROGRAMS, 3).start();
    let runtime = tokio::runtime::Runtime::new().expect("threads can be had");
    let leader = cluster.agreed_leader();
    let follower = cluster.follower();
    let address = |id: u64| {
        let member = cluster.member(id);
        Address::new(&*member.host, member.client_port)
    };
    let all = cluster.ids().into_iter().map(address).collect();
    // The only server that it knows is none that leads.
    let client = Client::new(vec![address(follower)]);
    let set = |client: &Client, value: &'static str| {
        runtime.block_on(client.set("key", value, ItemOptions::default()))
    };
    assert!(matches!(set(&client, "one"), Outcome::Done(())));
    assert_eq!(client.leader(), Some(address(leader)));
    let client = Client::new(all).with_timeout(Duration::from_secs(30));
    assert!(matches!(set(&client, "two"), Outcome::Done(())));
    cluster.kill(leader);
    // A write that was under way might be unknown, this one was certainly not.
    let outcome = set(&client, "three");
    assert!(matches!(outcome, Outcome::Done(())), "{outcome:?}");
    let found = runtime.block_on(client.get("key")).done().flatten();
    assert_eq!(found.as_ref().map(|hit| hit.value()), Some(&b"three"[..]));
}

#[test]
fn two_leaders_killed_in_a_row_under_load_lose_nothing_acknowledged() {
    let mut cluster = Plan::new(PROGRAMS, 5).start();
    let load = Load::start(&cluster, "load", 8);
    load.wait_for_more(200);
    let first = cluster.leader();
    cluster.kill(first);
    load.wait_for_more(200);
    let second = cluster.leader();
    cluster.kill(second);
    load.wait_for_more(200);
    let written = load.stop();
    Written::verify(&written, &cluster);
    // Those that were killed come back on the same ports and follow.
    cluster.start_all();
    let leader = cluster.agreed_leader();
    cluster.wait_until_applied();
    for id in [first, second] {
        if id != leader {
            cluster
                .connect(id)
                .exchange("get k\r\n", cluster.redirect_to(leader));
        }
    }
    Written::verify(&written, &cluster);
}

#[test]
fn a_leader_that_is_told_to_stop_leaves_no_outcome_unknown() {
    let mut cluster = Plan::new(PROGRAMS, 5).start();
    let load = Load::start(&cluster, "load", 8);
    for _ in 0..3 {
        load.wait_for_more(200);
        let leader = cluster.agreed_leader();
        let start = Instant::now();
        let ended = cluster.terminate(leader);
        assert_eq!(ended.code(), Some(0), "{:?}", ended.stderr);
        assert_took_less(start, Duration::from_secs(5));
        load.wait_for_more(200);
        cluster.start(leader);
    }
    let written = load.stop();
    assert_eq!(Written::count(&written, &Fate::Unknown), 0);
    assert_eq!(Written::count(&written, &Fate::Lost), 0);
    Written::verify(&written, &cluster);
}

#[test]
fn a_pipeline_is_done_up_to_one_command_and_refused_from_there_on() {
    let mut cluster = Plan::new(PROGRAMS, 3).start();
    let commands = 5_000;
    for round in 0..4 {
        let leader = cluster.agreed_leader();
        let mut text = cluster.connect(leader);
        let sets = (0..commands).map(|number| format!("set p{round}-{number} 0 0 1\r\nx\r\n"));
        text.send(sets.collect::<String>());
        // Once in the middle of it, by chance.
        assert_eq!(text.line(), "STORED");
        if round % 2 == 0 {
            assert_eq!(cluster.terminate(leader).code(), Some(0));
        } else {
            cluster.pause(leader);
            new_leader(&cluster, leader);
            cluster.resume(leader);
        }
        let mut written = vec![pipelined(round, 0, Fate::Done)];
        while written.len() < commands {
            let fate = match text.line().as_str() {
                "STORED" => Fate::Done,
                UNKNOWN => Fate::Unknown,
                NO_LEADER => Fate::NotDone,
                line if line.starts_with("ERR_REDIRECT ") => Fate::NotDone,
                line => Fate::Unexpected(line.to_owned()),
            };
            written.push(pipelined(round, written.len(), fate));
        }
        // Each is followed by its like or worse.
        let order = [Fate::Done, Fate::Unknown, Fate::NotDone];
        let place = |set: &Written| order.iter().position(|fate| *fate == set.fate);
        assert!(written.is_sorted_by_key(place), "{written:#?}");
        let unknown = Written::count(&written, &Fate::Unknown);
        assert!(
            round % 2 == 1 || unknown == 0,
            "{unknown} unknown though it stopped in order"
        );
        cluster.start_all();
        cluster.agreed_leader();
        Written::verify(&written, &cluster);
    }
}

#[test]
fn servers_may_be_started_in_any_order() {
    let mut cluster = Plan::new(PROGRAMS, 5).prepare();
    for id in [4, 2] {
        cluster.start(id);
    }
    // Two of five can do nothing but say so.
    for id in [4, 2] {
        let mut text = wait_until("the client port", deadline(), || {
            Text::try_connect(cluster.client_address(id)).map_err(|error| error.to_string())
        });
        for _ in 0..20 {
            text.exchange("set k 0 0 1\r\nx\r\n", format!("{NO_LEADER}\r\n"));
            text.exchange("get k\r\n", format!("{NO_LEADER}\r\n"));
        }
        let response = Response::get(cluster.http_address(id), "/readyz").expect("it answers");
        assert_eq!(response.status, 503);
    }
    cluster.start(5);
    cluster
        .connect_to_leader()
        .exchange("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    for id in [1, 3] {
        cluster.start(id);
        cluster.agreed_leader();
    }
    cluster.wait_until_applied();
    cluster
        .connect_to_leader()
        .exchange("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n");
}

#[test]
fn a_new_cluster_has_a_leader_within_two_seconds() {
    let mut cluster = Plan::new(PROGRAMS, 5).prepare();
    let start = Instant::now();
    cluster.start_all();
    cluster.leader();
    assert_took_less(start, Duration::from_secs(2));
}

#[test]
fn a_cluster_of_any_size_has_a_leader_when_its_servers_are_started_one_after_the_other() {
    for servers in [1, 2, 4, 8, 19] {
        let mut cluster = Plan::new(PROGRAMS, servers).prepare();
        for id in cluster.ids() {
            cluster.start(id);
        }
        cluster
            .connect_to_leader()
            .exchange("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    }
}

#[test]
fn without_a_majority_nothing_is_acknowledged_and_with_it_service_goes_on() {
    let mut cluster = Plan::new(PROGRAMS, 5).start();
    let load = Load::start(&cluster, "load", 8);
    load.wait_for_more(200);
    let leader = cluster.agreed_leader();
    let mut at_leader = cluster.connect(leader);
    let victims: Vec<u64> = cluster.others(leader).into_iter().take(3).collect();
    cluster.kill_together(&victims);
    // What it is asked from now on can't get a majority.
    let mut refusals = Vec::new();
    while refusals.last().is_none_or(|line| line != NO_LEADER) {
        assert!(refusals.len() < 3, "{refusals:?}");
        refusals.push(asked_in_time(&mut at_leader, "set lost 0 0 1\r\nx\r\n"));
    }
    let last = refusals.len() - 1;
    assert!(
        refusals[..last].iter().all(|line| line == UNKNOWN),
        "{refusals:?}"
    );
    let done = load.done();
    for id in cluster.running() {
        let mut text = cluster.connect(id);
        // A follower points to the leader for as long as it has heard from it lately.
        let soon = Instant::now() + Duration::from_secs(1);
        wait_until("no more redirects", soon, || {
            match text.ask("get k\r\n").as_str() {
                NO_LEADER => Ok(()),
                line => Err(line.to_owned()),
            }
        });
        for _ in 0..20 {
            for command in ["get k\r\n", "set lost 0 0 1\r\nx\r\n", "incr k 1\r\n"] {
                assert_eq!(asked_in_time(&mut text, command), NO_LEADER, "server {id}");
            }
        }
        let status = cluster.status(id).expect("it answers");
        assert_eq!(status["quorum"], false, "{status}");
        let response = Response::get(cluster.http_address(id), "/healthz").expect("it answers");
        assert_eq!(response.status, 200);
    }
    assert_eq!(load.done(), done, "acknowledged without a majority");
    cluster.start(victims[0]);
    load.wait_for_more(200);
    let written = load.stop();
    assert!(Written::count(&written, &Fate::NotDone) > 0);
    for set in &written {
        assert!(set.took < ANSWER_TIME_MAX, "{set:?}");
    }
    Written::verify(&written, &cluster);
}

#[test]
fn without_a_majority_a_leader_that_is_gone_is_not_pointed_to() {
    let mut cluster = Plan::new(PROGRAMS, 3).start();
    let leader = cluster.agreed_leader();
    let survivor = cluster.follower();
    let mut text = cluster.connect(survivor);
    text.exchange("get k\r\n", cluster.redirect_to(leader));
    let others = cluster.others(survivor);
    cluster.kill_together(&others);
    wait_until("no more redirects", deadline(), || {
        match text.ask("get k\r\n").as_str() {
            NO_LEADER => Ok(()),
            line => Err(line.to_owned()),
        }
    });
    cluster.start_all();
    let leader = cluster.agreed_leader();
    cluster.connect(leader).exchange("get k\r\n", "END\r\n");
}

#[test]
fn a_leader_that_was_paused_serves_no_read_of_its_own_time() {
    let mut cluster = Plan::new(PROGRAMS, 3).start();
    for round in 0..5 {
        let paused = cluster.agreed_leader();
        let mut old = cluster.connect(paused);
        old.exchange("set k 0 0 3\r\nold\r\n", "STORED\r\n");
        cluster.pause(paused);
        // It finds these when it wakes up.
        old.send("get k\r\nset k 0 0 5\r\nnever\r\n");
        let leader = new_leader(&cluster, paused);
        let mut new = cluster.connect(leader);
        new.exchange("set k 0 0 3\r\nnew\r\n", "STORED\r\n");
        cluster.resume(paused);
        let redirect = cluster.redirect_to(leader);
        let answers = [old.line(), old.line()];
        for answer in &answers {
            let refused =
                answer == NO_LEADER || *answer == redirect.trim_end() || answer == UNKNOWN;
            assert!(refused, "round {round}: {answers:?}");
        }
        new.exchange("get k\r\n", "VALUE k 0 3\r\nnew\r\nEND\r\n");
    }
}

/// What became of one command of a pipeline.
fn pipelined(round: usize, number: usize, fate: Fate) -> Written {
    Written {
        key: format!("p{round}-{number}"),
        value: "x".to_owned(),
        fate,
        took: Duration::ZERO,
    }
}

/// The leader once it is another than `old`, which does not answer.
fn new_leader(cluster: &Cluster, old: u64) -> u64 {
    wait_until("another leader", deadline(), || {
        for id in cluster.others(old) {
            let status = cluster.status(id)?;
            if status["role"] == "Leader" && status["quorum"] == true {
                return Ok(id);
            }
        }
        Err("none yet".to_owned())
    })
}

/// The one line that answers `command`, which is there within a second.
fn asked_in_time(text: &mut Text, command: &str) -> String {
    let start = Instant::now();
    let line = text.ask(command);
    assert!(
        start.elapsed() < ANSWER_TIME_MAX,
        "{line} after {:?}",
        start.elapsed()
    );
    line
}
