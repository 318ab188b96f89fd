//! `quorate-client` as a program: what it prints, and what it exits with.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;

use fake::{Do, Fake, fake_http, free_port, in_time};
use quorate_client::Address;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What a run of the program came to.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    code: i32,
    stdout: String,
}

fn ran(code: i32, stdout: &str) -> Ran {
    let stdout = stdout.to_owned();
    Ran { code, stdout }
}

async fn run(server: &Address, arguments: &[&str]) -> Ran {
    run_with(server, arguments, b"").await
}

async fn run_with(server: &Address, arguments: &[&str], stdin: &[u8]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_quorate-client"))
        .env("QUORATE_SERVERS", server.to_string())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // Those that read nothing may have ended already.
    let _ = input.write_all(stdin).await;
    drop(input);
    let output = in_time(child.wait_with_output()).await.unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
    }
}

/// A small memcached with the items `hit` and `raw`.
async fn store() -> Fake {
    Fake::start(|_, line| {
        Do::say(match line {
            "gets hit" => "VALUE hit 5 5 77\r\nva\r\nl\r\nEND",
            "gets hit gone" => "VALUE hit 5 5 77\r\nvalue\r\nEND",
            "gets gone" => "END",
            "delete gone" | "incr gone 1" => "NOT_FOUND",
            "incr n 2" => "3",
            "add hit 0 0 1" => "NOT_STORED",
            "cas hit 0 0 1 7" => "EXISTS",
            "touch hit -1" => "TOUCHED",
            "flush_all 0" => "OK",
            "version" => "VERSION 1.6.45-quorate",
            "stats" => "STAT pid 12\r\nEND",
            line if line.starts_with("set ") => "STORED",
            other => panic!("{other:?}"),
        })
    })
    .await
}

#[tokio::test]
async fn what_is_done_exits_with_0_and_what_is_not_there_with_1() {
    let server = store().await.address;
    let server = &server;
    assert_eq!(run(server, &["get", "hit"]).await, ran(0, "va\r\nl"));
    assert_eq!(run(server, &["gets", "hit"]).await, ran(0, "77 5\nva\r\nl"));
    assert_eq!(
        run(server, &["get", "hit", "gone"]).await,
        ran(1, "value\n")
    );
    assert_eq!(run(server, &["get", "gone"]).await, ran(1, ""));
    assert_eq!(run(server, &["set", "k", "v"]).await, ran(0, "STORED\n"));
    assert_eq!(
        run(server, &["add", "hit", "v"]).await,
        ran(1, "NOT_STORED\n")
    );
    assert_eq!(
        run(server, &["cas", "hit", "7", "v"]).await,
        ran(1, "EXISTS\n")
    );
    assert_eq!(
        run(server, &["delete", "gone"]).await,
        ran(1, "NOT_FOUND\n")
    );
    assert_eq!(run(server, &["incr", "gone"]).await, ran(1, "NOT_FOUND\n"));
    assert_eq!(run(server, &["incr", "n", "2"]).await, ran(0, "3\n"));
    assert_eq!(
        run(server, &["touch", "hit", "-1"]).await,
        ran(0, "TOUCHED\n")
    );
    assert_eq!(run(server, &["flush_all"]).await, ran(0, "OK\n"));
    assert_eq!(run(server, &["version"]).await, ran(0, "1.6.45-quorate\n"));
    assert_eq!(run(server, &["stats"]).await, ran(0, "pid 12\n"));
}

#[tokio::test]
async fn json_says_the_same() {
    let server = store().await.address;
    let json = async |arguments: &[&str]| {
        let arguments = [&["-o", "json"], arguments].concat();
        let Ran { code, stdout } = run(&server, &arguments).await;
        (
            code,
            serde_json::from_str::<serde_json::Value>(&stdout).unwrap(),
        )
    };
    let (code, shown) = json(&["get", "hit", "gone"]).await;
    assert_eq!(code, 1);
    assert_eq!(shown["outcome"], "done");
    assert_eq!(shown["items"][0]["value"], "value");
    assert_eq!(shown["items"][0]["unique"], 77);
    assert_eq!(shown["missing"][0]["key"], "gone");
    let (code, shown) = json(&["incr", "n", "2"]).await;
    assert_eq!((code, &shown["number"]), (0, &3.into()));
    let (code, shown) = json(&["delete", "gone"]).await;
    assert_eq!((code, &shown["reply"]), (1, &"NOT_FOUND".into()));
    let (_, shown) = json(&["stats"]).await;
    assert_eq!(shown["stats"]["pid"], "12");
    let long = run(&server, &["-o", "json", "get", "hit"]).await;
    assert_eq!(run(&server, &["get", "hit", "--json"]).await, long);
    let both = run(&server, &["-o", "text", "get", "hit", "--json"]).await;
    assert_eq!(both, long);
}

#[tokio::test]
async fn a_value_comes_from_the_argument_a_file_or_standard_input() {
    let server = Fake::saying("STORED").await;
    let mut file = std::env::temp_dir();
    file.push(format!("quorate-client-value-{}", std::process::id()));
    std::fs::File::create(&file)
        .unwrap()
        .write_all(&[0, 255, b'\r', b'\n'])
        .unwrap();
    let path = file.to_str().unwrap();
    let address = &server.address;
    assert_eq!(run(address, &["set", "argument", "abc"]).await.code, 0);
    let from_file = [
        "set",
        "file",
        "--file",
        path,
        "--flags",
        "7",
        "--exptime",
        "-1",
    ];
    assert_eq!(run(address, &from_file).await.code, 0);
    let many = vec![b'x'; 100_000];
    assert_eq!(
        run_with(address, &["append", "input", "-"], &many)
            .await
            .code,
        0
    );
    let large = std::fs::File::create(&file).unwrap();
    large.set_len((128 << 20) + 1).unwrap();
    assert_eq!(run(address, &["set", "k", "--file", path]).await.code, 2);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(
        server.heard(),
        [
            "set argument 0 0 3",
            "set file 7 -1 4",
            "append input 0 0 100000"
        ],
    );
    assert_eq!(run(address, &["set", "k", "--file", path]).await.code, 2);
}

#[tokio::test]
async fn wrong_usage_exits_with_2() {
    let server = store().await.address;
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["set", "k"],
        &["set", "k", "v", "--file", "f"],
        &["get"],
        &["get", "a b"],
        &["--servers", "nowhere", "get", "hit"],
        &["--config", "/nonexistent/cluster.toml", "get", "hit"],
        &["--timeout", "soon", "get", "hit"],
        &["bench", "--ratio", "0:0"],
        &["bench", "--zipf", "-1"],
        &["bench", "--rate", "100", "--pipeline", "2"],
        &["bench", "--rate", "100", "--ops", "2"],
        &["bench", "--value-size", "65537", "--pipeline", "1024"],
        &["bench", "--nats", "127.0.0.1:4222", "--rate", "100"],
    ] {
        assert_eq!(run(&server, arguments).await, ran(2, ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn no_server_or_no_leader_exits_with_3() {
    let nobody = Address::new("127.0.0.1", free_port().await);
    let hasty = ["--timeout", "200ms", "set", "k", "v"];
    assert_eq!(run(&nobody, &hasty).await, ran(3, ""));
    let server = Fake::saying("SERVER_ERROR no leader").await;
    assert_eq!(run(&server.address, &hasty).await, ran(3, ""));
}

#[tokio::test]
async fn an_unknown_outcome_exits_with_4() {
    let server = Fake::saying("SERVER_ERROR outcome unknown").await;
    assert_eq!(run(&server.address, &["set", "k", "v"]).await, ran(4, ""));
    let Ran { code, stdout } = run(&server.address, &["-o", "json", "set", "k", "v"]).await;
    let shown: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &shown["outcome"]), (4, &"unknown".into()));
}

#[tokio::test]
async fn a_refusal_exits_with_1() {
    let server = Fake::saying("SERVER_ERROR object too large for cache").await;
    assert_eq!(run(&server.address, &["set", "k", "v"]).await, ran(1, ""));
}

#[tokio::test]
async fn status_shows_every_server_and_says_which_can_not_be_reached() {
    let leader = fake_http(concat!(
        r#"{"role":"Leader","term":3,"id":1,"leader":1,"quorum":true,"#,
        r#""commit_index":9,"last_applied":8,"last_log_index":9}"#,
    ))
    .await;
    let dead = free_port().await;
    let toml = format!(
        "[[server]]\nid = 1\nhost = \"127.0.0.1\"\nclient_port = 1\nrpc_port = 2\nhttp_port = {}\n\
         [[server]]\nid = 2\nhost = \"127.0.0.1\"\nclient_port = 3\nrpc_port = 4\nhttp_port = {dead}\n",
        leader.port,
    );
    let mut file = std::env::temp_dir();
    file.push(format!(
        "quorate-client-cluster-{}.toml",
        std::process::id()
    ));
    std::fs::write(&file, toml).unwrap();
    let config = ["--config", file.to_str().unwrap(), "status"];
    let Ran { code, stdout } = run(&leader, &config).await;
    assert_eq!(code, 0);
    let lines: Vec<&str> = stdout.lines().collect();
    let one = lines
        .iter()
        .find(|line| line.contains("127.0.0.1:1 "))
        .unwrap();
    assert!(
        one.contains("Leader") && one.contains(" 9 ") && one.contains(" 8 "),
        "{one}"
    );
    let two = lines
        .iter()
        .find(|line| line.contains("127.0.0.1:3 "))
        .unwrap();
    assert!(two.contains("unreachable"), "{two}");
    let json = run(&leader, &[&config[..], &["-o", "json"]].concat()).await;
    let shown: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(shown[0]["status"]["term"], 3);
    assert_eq!(
        (&shown[1]["id"], &shown[1]["reachable"]),
        (&2.into(), &false.into())
    );
    std::fs::remove_file(&file).unwrap();
}

/// The benchmark's figures, as JSON.
async fn bench(server: &Address, arguments: &[&str]) -> (i32, serde_json::Value) {
    let arguments = [&["-o", "json", "bench", "--keys", "50"], arguments].concat();
    let Ran { code, stdout } = run(server, &arguments).await;
    (code, serde_json::from_str(&stdout).unwrap())
}

#[tokio::test]
async fn a_benchmark_counts_what_it_sends() {
    let server = Fake::start(|_, line| match line.split(' ').next() {
        Some("set") => Do::say("STORED"),
        Some("get") => {
            let key = line.split(' ').nth(1).unwrap();
            Do::say(&format!("VALUE {key} 0 3\r\nabc\r\nEND"))
        }
        _ => Do::say("END"),
    })
    .await;
    let load = [
        "--value-size",
        "3",
        "--pipeline",
        "7",
        "-c",
        "3",
        "--ops",
        "100",
    ];
    let (code, shown) = bench(&server.address, &[&load[..], &["--ratio", "1:1"]].concat()).await;
    assert_eq!(code, 0);
    let count = |kind: &str| shown[kind]["count"].as_u64().unwrap();
    assert_eq!(shown["commands"], 100);
    assert_eq!(count("sets") + count("gets"), 100);
    assert_eq!(
        (&shown["misses"], &shown["errors"]["closed"]),
        (&0.into(), &0.into())
    );
    // One to find the leader, each key once, and the load.
    assert_eq!(server.heard().len(), 1 + 50 + 100);
    let (_, again) = bench(&server.address, &[&load[..], &["--ratio", "1:1"]].concat()).await;
    assert_eq!(
        again["sets"]["count"], shown["sets"]["count"],
        "the seed is the same"
    );
}

#[tokio::test]
async fn a_benchmark_at_a_rate_sends_each_command_when_it_is_due() {
    let server = Fake::start(|_, line| match line.split(' ').next() {
        Some("ms") => Do::say("HD"),
        Some("mg") => Do::say("VA 3\r\nabc"),
        _ => Do::say("END"),
    })
    .await;
    let load = ["--value-size", "3", "-c", "4", "--meta", "--zipf", "0.99"];
    let times = ["--rate", "500", "--warm-up", "100ms", "-t", "200ms"];
    let (code, shown) = bench(&server.address, &[&load[..], &times].concat()).await;
    assert_eq!(code, 0);
    assert_eq!(shown["rate"], 500);
    let unsent = shown["unsent"].as_u64().unwrap();
    let count = |kind: &str| shown[kind]["count"].as_u64().unwrap();
    // Due from 100 to 300 ms, one each 2 ms, both ends included.
    assert!(count("sets") + count("gets") + unsent >= 101, "{shown}");
    // To find the leader, each key once, and what was due from 0 to 300 ms.
    assert_eq!(server.heard().len() as u64, 1 + 50 + 151 - unsent);
    let mut keys = [0; 50];
    for line in server.heard().iter().skip(51) {
        let key = line.split(' ').nth(1).unwrap().trim_start_matches("bench-");
        keys[key.parse::<usize>().unwrap()] += 1;
    }
    let (most, rest) = keys.split_at(10);
    let sum = |keys: &[u64]| keys.iter().sum::<u64>();
    assert!(
        sum(most) > sum(rest),
        "few keys are asked for most: {keys:?}"
    );
}

#[tokio::test]
async fn a_benchmark_of_nats_puts_and_gets_on_subjects_of_its_connections() {
    let nats = Fake::start(|_, line| {
        let words: Vec<&str> = line.split(' ').collect();
        let hit = "NATS/1.0\r\nNats-Stream: KV_bench\r\n\r\nabc";
        match words[..] {
            ["CONNECT", _] => Do::say(r#"INFO {"server_id":"N"}"#),
            ["SUB", _, "1"] => Do::say("PING"),
            ["PUB", subject, inbox, "3"] if subject.starts_with("$KV.bench.bench-") => Do::say(
                &format!("MSG {inbox} 1 30\r\n{{\"stream\":\"KV_bench\", \"seq\":1}}"),
            ),
            ["PUB", subject, inbox, "0"] if subject.contains("KV_bench.$KV.bench.bench-") => {
                Do::say(&format!("HMSG {inbox} 1 35 {}\r\n{hit}", hit.len()))
            }
            // A value.
            ["abc"] | [""] => Do::Say(String::new()),
            _ => Do::say("-ERR 'Unknown Protocol Operation'"),
        }
    })
    .await;
    let address = nats.address.to_string();
    let load = ["--nats", &address, "-d", "3", "-c", "3", "--ops", "40"];
    let mixed = ["--pipeline", "4", "--ratio", "1:1"];
    let nobody = Address::new("127.0.0.1", free_port().await);
    let (code, shown) = bench(&nobody, &[&load[..], &mixed].concat()).await;
    assert_eq!(code, 0);
    let count = |kind: &str| shown[kind]["count"].as_u64().unwrap();
    assert_eq!(
        (count("sets") + count("gets"), &shown["misses"]),
        (40, &0.into())
    );
    assert_eq!(shown["refusal"], serde_json::Value::Null, "{shown}");
    let heard = nats.heard();
    let words = |verb: &str, at: usize| {
        let lines = heard.iter().filter(|line| line.starts_with(verb));
        let words = lines.filter_map(|line| line.split(' ').nth(at));
        words.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    assert_eq!(words("SUB", 1).len(), 3, "one for each connection");
    assert_eq!(words("SUB", 1), words("PUB", 2));
}

#[tokio::test]
async fn a_benchmark_of_nats_has_answers_to_a_lost_connection_go_nowhere() {
    let nats = Fake::start(|number, line| {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            // The first connection is lost with its first put.
            ["PUB", ..] if number == 2 => Do::Close,
            ["PUB", _, inbox, _] => Do::say(&format!(
                "MSG {inbox} 1 30\r\n{{\"stream\":\"KV_bench\", \"seq\":1}}"
            )),
            _ => Do::Say(String::new()),
        }
    })
    .await;
    let address = nats.address.to_string();
    let load = ["--nats", &address, "-c", "1", "-w", "set", "--ops", "3"];
    let (_, shown) = bench(&nats.address, &load).await;
    assert_eq!(
        (&shown["commands"], &shown["errors"]["closed"]),
        (&2.into(), &1.into())
    );
    let heard = nats.heard();
    let subjects = heard.iter().filter(|line| line.starts_with("SUB"));
    let subjects: BTreeSet<_> = subjects.filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(subjects.len(), 2, "{heard:?}");
}

#[tokio::test]
async fn at_a_rate_latency_counts_from_when_a_command_was_due() {
    let server = Fake::start(|number, line| match (number, line.starts_with("set")) {
        (_, false) => Do::say("END"),
        // The first eight are answered with the ninth.
        (0..9, true) => Do::Say(String::new()),
        (9, true) => Do::Say("STORED\r\n".repeat(9)),
        (_, true) => Do::say("STORED"),
    })
    .await;
    let load = ["-w", "set", "-c", "1", "--rate", "100", "-t", "995ms"];
    let (code, shown) = bench(&server.address, &load).await;
    assert_eq!(code, 0);
    let number = |name: &str| shown[name].as_u64().unwrap();
    assert_eq!(number("commands") + number("unsent"), 100);
    let longest = shown["sets"]["max_us"].as_f64().unwrap();
    assert!(
        longest >= 80_000.0,
        "the first waited for the ninth: {shown}"
    );
}

#[tokio::test]
async fn a_benchmark_follows_the_leader_and_counts_what_was_refused() {
    let leader = Fake::saying("STORED").await;
    let to = leader.address.clone();
    let deposed = Fake::start(
        move |number, line| match (number, line.starts_with("set")) {
            (_, false) => Do::say("END"),
            (0..10, true) => Do::say("STORED"),
            (10, true) => Do::say("SERVER_ERROR outcome unknown"),
            (11, true) => Do::say("SERVER_ERROR no leader"),
            (12, true) => Do::Close,
            (_, true) => Do::redirect(&to),
        },
    )
    .await;
    let load = ["-w", "set", "-c", "1", "--ops", "40"];
    let (code, shown) = bench(&deposed.address, &load).await;
    assert_eq!(code, 0);
    let errors = &shown["errors"];
    assert_eq!(errors["unknown"], 1);
    assert_eq!(errors["no_leader"], 1);
    assert_eq!(errors["closed"], 1);
    assert_eq!(errors["unanswered"], 1);
    assert_eq!(errors["redirected"], 1);
    assert_eq!(shown["commands"], 36);
    assert_eq!(leader.heard().len(), 27);
}

#[tokio::test]
async fn a_benchmark_without_a_server_exits_with_3() {
    let nobody = Address::new("127.0.0.1", free_port().await);
    let arguments = ["--timeout", "200ms", "bench", "--duration", "1s"];
    assert_eq!(run(&nobody, &arguments).await, ran(3, ""));
}
