//! `--followers forward`: any memcached client works against any server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quorate_tests::{
    Cluster, Fate, Load, Plan, Programs, Response, Text, Written, assert_took_less, deadline,
    wait_until,
};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

const NO_LEADER: &str = "SERVER_ERROR no leader";
const UNKNOWN: &str = "SERVER_ERROR outcome unknown";

/// What is promised is a second; a machine with two cores and five servers takes its time to wake
/// this process up.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(1_500);

fn plan(servers: u64) -> Plan {
    Plan::new(PROGRAMS, servers).setting("followers", "forward")
}

/// A connection to this server, once it can send commands to the leader.
fn connect(cluster: &Cluster, id: u64) -> Text {
    connect_to(cluster.client_address(id))
}

fn connect_to(address: SocketAddr) -> Text {
    wait_until("a leader to forward to", deadline(), || {
        let mut text = Text::try_connect(address).map_err(|error| error.to_string())?;
        match text.try_ask("get none\r\n") {
            Ok(line) if line == "END" => Ok(text),
            Ok(line) => Err(line),
            Err(error) => Err(error.to_string()),
        }
    })
}

#[test]
fn every_command_works_through_a_follower() {
    let cluster = plan(3).patient().start();
    let leader = cluster.agreed_leader();
    for follower in cluster.others(leader) {
        let mut text = connect(&cluster, follower);
        for (sent, expected) in [
            ("flush_all\r\n", "OK\r\n"),
            ("set k 7 0 1\r\n5\r\n", "STORED\r\n"),
            ("add k 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
            ("add l 0 0 0\r\n\r\n", "STORED\r\n"),
            ("replace m 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
            ("append k 0 0 1\r\n0\r\n", "STORED\r\n"),
            ("prepend k 0 0 1\r\n1\r\n", "STORED\r\n"),
            ("get k\r\n", "VALUE k 7 3\r\n150\r\nEND\r\n"),
            (
                "get k none l\r\n",
                "VALUE k 7 3\r\n150\r\nVALUE l 0 0\r\n\r\nEND\r\n",
            ),
            ("incr k 3\r\n", "153\r\n"),
            ("decr k 200\r\n", "0\r\n"),
            (
                "incr l 1\r\n",
                "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
            ),
            ("incr none 1\r\n", "NOT_FOUND\r\n"),
            ("cas k 0 0 1 1\r\nx\r\n", "EXISTS\r\n"),
            ("cas none 0 0 1 1\r\nx\r\n", "NOT_FOUND\r\n"),
            ("touch l 100\r\n", "TOUCHED\r\n"),
            ("gat 100 l\r\n", "VALUE l 0 0\r\n\r\nEND\r\n"),
            ("touch l -1\r\n", "TOUCHED\r\n"),
            ("get l\r\n", "END\r\n"),
            ("delete k\r\n", "DELETED\r\n"),
            ("delete k\r\n", "NOT_FOUND\r\n"),
            ("get\r\n", "CLIENT_ERROR bad command line format\r\n"),
            ("bogus\r\n", "ERROR\r\n"),
            ("mn\r\n", "MN\r\n"),
            ("ms m 2 F5\r\nab\r\n", "HD\r\n"),
            ("mg m v f s k Oq\r\n", "VA 2 f5 s2 km Oq\r\nab\r\n"),
            ("md m I\r\n", "HD\r\n"),
            ("mg m v\r\n", "VA 2 X W\r\nab\r\n"),
            ("mg m v\r\n", "VA 2 Z X\r\nab\r\n"),
            ("ma n N0 J7 v\r\n", "VA 1\r\n7\r\n"),
            ("ma n v\r\n", "VA 1\r\n8\r\n"),
            ("mg none\r\n", "EN\r\n"),
            ("md n q\r\nmn\r\n", "MN\r\n"),
            (
                "set k 0 0 1 noreply\r\nx\r\nget k\r\n",
                "VALUE k 0 1\r\nx\r\nEND\r\n",
            ),
        ] {
            text.exchange(sent, expected);
        }
        let line = text.ask("gets k\r\n");
        let unique = line
            .rsplit(' ')
            .next()
            .expect("a line has a word")
            .to_owned();
        text.expect("x\r\nEND\r\n");
        text.exchange(format!("cas k 0 0 1 {unique}\r\ny\r\n"), "STORED\r\n");
        assert!(text.ask("version\r\n").starts_with("VERSION "));
        text.send("stats\r\n");
        let stats: Vec<String> =
            std::iter::from_fn(|| Some(text.line()).filter(|it| it != "END")).collect();
        assert!(stats.contains(&"STAT quorate_followers forward".to_owned()));
        assert!(stats.contains(&"STAT quorate_role Follower".to_owned()));
        cluster
            .connect(leader)
            .exchange("get k\r\n", "VALUE k 0 1\r\ny\r\nEND\r\n");
        text.send("quit\r\n");
        text.expect_closed();
        // Its own state may be behind what its clients have seen.
        let snapshot = Response::get(cluster.http_address(follower), "/snapshot");
        assert_eq!(snapshot.expect("it answers").status, 400);
    }
}

#[test]
fn a_pipeline_is_answered_in_its_order_whoever_answers() {
    let cluster = plan(3).patient().start();
    let leader = cluster.agreed_leader();
    let mut text = connect(&cluster, cluster.others(leader)[0]);
    let (mut sent, mut expected) = (String::new(), String::new());
    for number in 0..5_000 {
        let value = number.to_string();
        let bytes = value.len();
        sent.push_str(&format!("set k 0 0 {bytes}\r\n{value}\r\nget k\r\nmn\r\n"));
        expected.push_str(&format!(
            "STORED\r\nVALUE k 0 {bytes}\r\n{value}\r\nEND\r\nMN\r\n"
        ));
        sent.push_str("append k 0 0 1 noreply\r\nx\r\nbogus\r\nget k\r\n");
        expected.push_str(&format!(
            "ERROR\r\nVALUE k 0 {}\r\n{value}x\r\nEND\r\n",
            bytes + 1
        ));
    }
    thread::scope(|scope| {
        let address = cluster.client_address(cluster.others(leader)[1]);
        // The other follower has a pipeline as well.
        scope.spawn(move || {
            let mut text = Text::connect(address);
            for _ in 0..100 {
                text.exchange("get none\r\n", "END\r\n");
            }
        });
        text.exchange(sent, expected);
    });
}

#[test]
fn a_list_of_keys_from_a_follower_has_all_that_was_acknowledged_before() {
    let cluster = plan(3).patient().start();
    let leader = cluster.agreed_leader();
    let mut writer = cluster.connect(leader);
    let others = cluster.others(leader).into_iter();
    let mut followers: Vec<Text> = others.map(|id| connect(&cluster, id)).collect();
    let mut keys = Vec::new();
    for number in 0..30 {
        let key = format!("key-{number:02}");
        writer.exchange(format!("set {key} 0 0 1\r\nx\r\n"), "STORED\r\n");
        keys.push(key);
        for text in &mut followers {
            text.send("lru_crawler mgdump all\r\n");
            let lines = std::iter::from_fn(|| Some(text.line()).filter(|line| line != "EN"));
            let mut lines: Vec<String> = lines.collect();
            assert_eq!(lines.remove(0), "OK");
            lines.sort_unstable();
            let listed = lines.iter().map(|line| line.trim_start_matches("mg "));
            assert!(listed.eq(&keys), "{lines:?} instead of {keys:?}");
        }
    }
    let text = &mut followers[0];
    let item = "ITEM own [1 b; 0 s]\r\nEND\r\n";
    text.exchange("flush_all\r\n", "OK\r\n");
    text.exchange(
        "set own 0 0 1\r\nx\r\nstats cachedump 1 0\r\nget own\r\n",
        format!("STORED\r\n{item}VALUE own 0 1\r\nx\r\nEND\r\n"),
    );
}

#[test]
fn large_values_go_both_ways() {
    let cluster = plan(3).patient().start();
    let leader = cluster.agreed_leader();
    let mut text = connect(&cluster, cluster.others(leader)[0]);
    let bytes = (1 << 20) - 100;
    let mut keys = String::new();
    let mut expected = String::new();
    for number in 0..16_u8 {
        let value = String::from_utf8(vec![b'a' + number; bytes]).expect("letters");
        text.exchange(
            format!("set k{number} 0 0 {bytes}\r\n{value}\r\n"),
            "STORED\r\n",
        );
        keys.push_str(&format!(" k{number}"));
        expected.push_str(&format!("VALUE k{number} 0 {bytes}\r\n{value}\r\n"));
    }
    text.exchange(format!("get{keys}\r\n"), format!("{expected}END\r\n"));
    // More than a follower is given at a time.
    text.send(format!("get{}\r\n", keys.repeat(5)));
    text.expect_closed();
    let mut text = connect(&cluster, cluster.others(leader)[0]);
    text.exchange("delete k0\r\n", "DELETED\r\n");
}

/// A client that has sent this many `get`s of a megabyte before it reads is owed more than a follower
/// holds for its clients.
const LARGE_GETS: usize = 600;

#[test]
fn a_pipeline_of_large_values_is_read_to_its_end_and_disturbs_nobody() {
    let cluster = plan(3).patient().start();
    let leader = cluster.agreed_leader();
    let follower = cluster.others(leader)[0];
    let bytes = 1_000_000;
    let value = "v".repeat(bytes);
    let mut beside = connect(&cluster, follower);
    beside.exchange(format!("set k 0 0 {bytes}\r\n{value}\r\n"), "STORED\r\n");
    let expected = format!("VALUE k 0 {bytes}\r\n{value}\r\nEND\r\n");
    for id in [follower, leader] {
        let mut text = connect(&cluster, id);
        text.send("get k\r\n".repeat(LARGE_GETS));
        for number in 0..LARGE_GETS {
            text.expect(&expected);
            if number % 50 == 0 {
                beside.exchange("set other 0 0 1\r\nx\r\n", "STORED\r\n");
            }
        }
        text.exchange("mn\r\n", "MN\r\n");
    }
}

#[test]
fn five_hundred_clients_share_one_follower() {
    let cluster = plan(3).patient().start();
    let leader = cluster.agreed_leader();
    let follower = cluster.others(leader)[0];
    connect(&cluster, follower).exchange("set n 0 0 1\r\n0\r\n", "STORED\r\n");
    let mut clients: Vec<Text> = (0..500).map(|_| cluster.connect(follower)).collect();
    for round in 0..4 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(format!(
                "set k{number} 0 0 1\r\n{round}\r\nincr n 1\r\nget k{number}\r\n"
            ));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            client.expect("STORED\r\n");
            let count: usize = client.line().parse().expect("a number");
            assert!(
                (round * 500 + 1..=round * 500 + 500).contains(&count),
                "{count}"
            );
            client.expect(format!("VALUE k{number} 0 1\r\n{round}\r\nEND\r\n"));
        }
    }
    cluster
        .connect(leader)
        .exchange("get n\r\n", "VALUE n 0 4\r\n2000\r\nEND\r\n");
}

/// What a client of a follower was told of its increments.
#[derive(Debug, Default)]
struct Told {
    numbers: Vec<u64>,
    unknown: u64,
    refused: u64,
}

impl Told {
    /// Sends pipelines of increments until told to stop.
    fn count(address: SocketAddr, stop: &AtomicBool) -> Told {
        let mut told = Told::default();
        while !stop.load(Ordering::Relaxed) {
            let mut text = connect_to(address);
            let mut is_refused = false;
            while !is_refused && !stop.load(Ordering::Relaxed) {
                is_refused = told.pipeline(&mut text);
            }
        }
        told
    }

    /// Whether any was refused.
    fn pipeline(&mut self, text: &mut Text) -> bool {
        const LENGTH: usize = 20;
        text.send("incr n 1\r\n".repeat(LENGTH));
        let mut is_refused = false;
        for _ in 0..LENGTH {
            let start = Instant::now();
            let line = text.line();
            assert_took_less(start, ANSWER_TIME_MAX);
            match line.as_str() {
                UNKNOWN => self.unknown += 1,
                NO_LEADER => self.refused += 1,
                number => {
                    assert!(!is_refused, "{number} is done behind a refusal");
                    self.numbers.push(number.parse().expect("a number"));
                    continue;
                }
            }
            is_refused = true;
        }
        is_refused
    }
}

#[test]
fn increments_through_followers_are_done_once_or_not_at_all_when_leaders_are_killed() {
    let mut cluster = plan(5).start();
    cluster
        .connect_to_leader()
        .exchange("set n 0 0 1\r\n0\r\n", "STORED\r\n");
    let mut told = Vec::new();
    for _ in 0..2 {
        let leader = cluster.agreed_leader();
        let stop = Arc::new(AtomicBool::new(false));
        let survivors = cluster.running().into_iter().filter(|id| *id != leader);
        let survivors: Vec<u64> = survivors.collect();
        let clients = survivors.iter().flat_map(|id| [*id, *id]).map(|id| {
            let (address, stop) = (cluster.client_address(id), Arc::clone(&stop));
            thread::spawn(move || Told::count(address, &stop))
        });
        let clients: Vec<_> = clients.collect();
        let number_of = |id| -> u64 {
            let mut text = connect(&cluster, id);
            text.send("get n\r\n");
            text.line();
            let number = text.line();
            number.trim_end().parse().expect("a number")
        };
        let before = number_of(survivors[0]);
        wait_until("increments", deadline(), || match number_of(survivors[0]) {
            number if number > before + 500 => Ok(()),
            number => Err(format!("{number} from {before} on")),
        });
        // Amid their pipelines.
        cluster.kill(leader);
        for id in &survivors {
            drop(connect(&cluster, *id));
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            told.push(client.join().expect("clients do not panic"));
        }
    }
    let mut leader = cluster.connect_to_leader();
    leader.send("get n\r\n");
    leader.line();
    let total: u64 = leader.line().parse().expect("a number");
    let mut numbers: Vec<u64> = told.iter().flat_map(|it| it.numbers.clone()).collect();
    let acknowledged = numbers.len() as u64;
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len() as u64, acknowledged, "one number twice");
    let unknown: u64 = told.iter().map(|it| it.unknown).sum();
    let refused: u64 = told.iter().map(|it| it.refused).sum();
    assert!(
        (acknowledged..=acknowledged + unknown).contains(&total),
        "{acknowledged} acknowledged, {unknown} unknown, {refused} refused, {total} counted"
    );
}

#[test]
fn writes_through_all_servers_survive_kills_and_stops() {
    let mut cluster = plan(5).start();
    let load = Load::start(&cluster, "load", 8);
    load.wait_for_more(200);
    let first = cluster.leader();
    cluster.kill(first);
    load.wait_for_more(200);
    let second = cluster.leader();
    assert_eq!(cluster.terminate(second).code(), Some(0));
    load.wait_for_more(200);
    cluster.start_all();
    load.wait_for_more(200);
    let written = load.stop();
    for set in &written {
        assert!(set.took < ANSWER_TIME_MAX, "{set:?}");
    }
    assert!(Written::count(&written, &Fate::Done) >= 800);
    cluster.agreed_leader();
    Written::verify(&written, &cluster);
}

#[test]
fn a_follower_that_was_paused_tells_its_clients_the_truth() {
    let mut cluster = plan(3).start();
    let leader = cluster.agreed_leader();
    let [paused, other] = cluster.others(leader)[..] else {
        panic!("there are three servers");
    };
    let mut text = connect(&cluster, paused);
    text.exchange("set k 0 0 1\r\na\r\n", "STORED\r\n");
    cluster.pause(paused);
    text.send("get k\r\nset k 0 0 1\r\nb\r\n");
    // The others' clients notice nothing.
    let mut neighbour = connect(&cluster, other);
    for _ in 0..50 {
        neighbour.exchange("set k 0 0 1\r\nc\r\n", "STORED\r\n");
    }
    cluster.resume(paused);
    let first = text.line();
    let value = match first.as_str() {
        "VALUE k 0 1" => {
            assert_eq!(
                text.line(),
                "c",
                "what was acknowledged before it was asked"
            );
            text.expect("END\r\n");
            text.line()
        }
        NO_LEADER => text.line(),
        other => panic!("a read is answered {other:?}"),
    };
    let found = connect(&cluster, other).ask("get k\r\n");
    assert_eq!(found, "VALUE k 0 1");
    let mut now = connect(&cluster, paused);
    now.send("get k\r\n");
    now.line();
    let now = now.line();
    match value.as_str() {
        "STORED" => assert_eq!(now, "b"),
        NO_LEADER => assert_eq!(now, "c"),
        UNKNOWN => assert!(now == "b" || now == "c", "{now:?}"),
        other => panic!("a write is answered {other:?}"),
    }
}

#[test]
fn a_leader_that_is_gone_is_noticed_within_the_second_that_a_command_may_take() {
    let mut cluster = plan(3).start();
    let leader = cluster.agreed_leader();
    let follower = cluster.others(leader)[0];
    let mut text = connect(&cluster, follower);
    cluster.pause(leader);
    let start = Instant::now();
    let line = text.ask("set k 0 0 1\r\nx\r\n");
    assert_took_less(start, ANSWER_TIME_MAX);
    assert!(
        [UNKNOWN, NO_LEADER, "STORED"].contains(&line.as_str()),
        "{line}"
    );
    // Another leader is found, and the same connection serves again.
    wait_until("another leader", deadline(), || {
        let line = text.ask("set k 0 0 1\r\ny\r\n");
        (line == "STORED").then_some(()).ok_or(line)
    });
    cluster.resume(leader);
    connect(&cluster, leader).exchange("get k\r\n", "VALUE k 0 1\r\ny\r\nEND\r\n");
}
