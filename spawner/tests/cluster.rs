//! The spawner with its servers, as processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use client::{Address, Client, ItemOptions, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout};

/// How long anything in a test may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many servers a test starts.
const SERVERS: u16 = 3;

/// A running spawner.
struct Spawner {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    base_port: u16,
}

impl Spawner {
    fn start(data_dir: &Path, base_port: u16) -> Spawner {
        let mut child = command(data_dir, SERVERS, base_port).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        Spawner {
            child,
            lines: BufReader::new(stdout).lines(),
            base_port,
        }
    }

    /// Reads on until a line has this in it.
    async fn line_with(&mut self, text: &str) -> String {
        let found = async {
            loop {
                let line = self.lines.next_line().await.unwrap();
                let line = line.unwrap_or_else(|| panic!("it ended without {text:?}"));
                if line.contains(text) {
                    return line;
                }
            }
        };
        let too_long = format!("no line with {text:?}");
        timeout(PATIENCE, found).await.expect(&too_long)
    }

    fn signal(&self, signal: Signal) {
        kill(pid(self.child.id().unwrap()), signal).unwrap();
    }

    /// Reads on until its end: the lines and the status.
    async fn end(mut self) -> (Vec<String>, ExitStatus) {
        let ending = async {
            let mut rest = Vec::new();
            while let Some(line) = self.lines.next_line().await.unwrap() {
                rest.push(line);
            }
            (rest, self.child.wait().await.unwrap())
        };
        timeout(PATIENCE, ending).await.expect("it does not end")
    }

    fn client(&self) -> Client {
        let port = |server: u16| self.base_port + 10 * server;
        let servers = (0..SERVERS).map(|server| Address::new("127.0.0.1", port(server)));
        Client::new(servers.collect()).with_timeout(PATIENCE)
    }

    /// The process of server 2, as the table shows it.
    async fn server_2(&mut self) -> u32 {
        let row = self.line_with("server 2").await;
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words[2], (self.base_port + 10).to_string());
        words[5].parse().unwrap()
    }
}

fn command(data_dir: &Path, servers: u16, base_port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate-spawner"));
    command
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--servers", &servers.to_string()])
        .args(["--base-port", &base_port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn pid(pid: u32) -> Pid {
    Pid::from_raw(pid.try_into().unwrap())
}

/// Ports that nobody uses, for the test with this number, from 0 to 6.
fn base_port(test: u16) -> u16 {
    let process = (std::process::id() % 16) as u16;
    let is_free = |base_port: &u16| {
        let ports = (0..SERVERS).flat_map(|server| (0..3).map(move |port| 10 * server + port));
        let mut ports = ports.map(|port| base_port + port);
        ports.all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
    };
    let blocks = (0..16).map(|round| 24_000 + (process + round) % 16 * 350 + 50 * test);
    let mut blocks = blocks.into_iter();
    blocks.find(is_free).expect("some ports are free")
}

/// A spawner that can't start: what it says on standard error.
async fn refusal(mut command: Command) -> String {
    let output = command.stderr(Stdio::piped()).output();
    let output = timeout(PATIENCE, output).await.expect("it runs").unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[tokio::test]
async fn a_cluster_starts_serves_stops_and_starts_again_with_its_data() {
    let directory = TempDir::new().unwrap();
    let data_dir = directory.path().join("data");
    let base_port = base_port(0);
    for (round, stop) in [Signal::SIGTERM, Signal::SIGINT].into_iter().enumerate() {
        let mut spawner = Spawner::start(&data_dir, base_port);
        let ready = spawner.line_with("ready: server ").await;
        assert!(
            ready.contains(" leads term ") && ready.contains(" a write took "),
            "{ready}"
        );
        let client = spawner.client();
        match round {
            0 => {
                let stored = client.set("k", "value", ItemOptions::default()).await;
                assert!(matches!(stored, Outcome::Done(())), "{stored:?}");
            }
            _ => {
                let found = client.get("k").await.done().flatten();
                assert_eq!(found.expect("it was stored").value(), b"value");
            }
        }
        spawner.signal(stop);
        let (rest, status) = spawner.end().await;
        assert!(status.success(), "{status}: {rest:#?}");
        assert!(
            !rest.iter().any(|line| line.starts_with("ready: ")),
            "{rest:#?}"
        );
        assert!(
            !rest.iter().any(|line| line.contains("has ended")),
            "{rest:#?}"
        );
        // Colours are for terminals.
        assert!(!rest.iter().any(|line| line.contains('\x1b')), "{rest:#?}");
    }
}

#[tokio::test]
async fn a_server_that_is_killed_is_named_and_the_others_go_on() {
    let directory = TempDir::new().unwrap();
    let mut spawner = Spawner::start(directory.path(), base_port(1));
    let server = spawner.server_2().await;
    spawner.line_with("ready: server ").await;
    kill(pid(server), Signal::SIGKILL).unwrap();
    let line = spawner.line_with("server 2 has ended").await;
    assert!(line.contains("SIGKILL"), "{line}");
    let client = spawner.client();
    // The one that was killed may have led, and then the fate of a write is open at first.
    let stored = async {
        let mut outcome = client.set("k", "value", ItemOptions::default()).await;
        while !matches!(outcome, Outcome::Done(())) {
            outcome = client.set("k", "value", ItemOptions::default()).await;
        }
    };
    timeout(PATIENCE, stored)
        .await
        .expect("two of three are a majority");
    spawner.signal(Signal::SIGTERM);
    let (rest, status) = spawner.end().await;
    assert!(status.success(), "{status}: {rest:#?}");
}

#[tokio::test]
async fn a_second_signal_ends_a_server_that_does_not_stop() {
    let directory = TempDir::new().unwrap();
    let mut spawner = Spawner::start(directory.path(), base_port(6));
    let server = spawner.server_2().await;
    spawner.line_with("ready: server ").await;
    kill(pid(server), Signal::SIGSTOP).unwrap();
    let asked = Instant::now();
    spawner.signal(Signal::SIGTERM);
    spawner.line_with("stopping").await;
    spawner.signal(Signal::SIGTERM);
    let (rest, status) = spawner.end().await;
    assert!(status.success(), "{status}: {rest:#?}");
    // The first signal alone would have given the server 5 s.
    assert!(asked.elapsed() < Duration::from_secs(4), "{rest:#?}");
}

#[tokio::test]
async fn no_server_outlives_a_spawner_that_is_killed() {
    let directory = TempDir::new().unwrap();
    let mut spawner = Spawner::start(directory.path(), base_port(2));
    let base_port = spawner.base_port;
    spawner.line_with("ready: server ").await;
    spawner.signal(Signal::SIGKILL);
    let gone = async {
        for server in 0..SERVERS {
            while TcpStream::connect(("127.0.0.1", base_port + 10 * server))
                .await
                .is_ok()
            {
                tokio::task::yield_now().await;
            }
        }
    };
    timeout(PATIENCE, gone).await.expect("the servers end");
    let (_, status) = spawner.end().await;
    assert!(!status.success());
}

#[tokio::test]
async fn a_data_directory_of_another_cluster_is_refused() {
    let directory = TempDir::new().unwrap();
    let base_port = base_port(3);
    let mut spawner = Spawner::start(directory.path(), base_port);
    spawner.line_with("server 1").await;
    spawner.signal(Signal::SIGTERM);
    spawner.end().await;
    let said = refusal(command(directory.path(), 5, base_port)).await;
    assert!(
        said.contains("a cluster of 3 server(s), not of 5"),
        "{said}"
    );
    let said = refusal(command(directory.path(), SERVERS, base_port + 1)).await;
    assert!(
        said.contains(&format!("add --base-port {base_port}")),
        "{said}"
    );
    std::fs::write(directory.path().join("cluster.toml"), "server = 3\n").unwrap();
    let said = refusal(command(directory.path(), SERVERS, base_port)).await;
    assert!(said.contains("cluster.toml"), "{said}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let directory = TempDir::new().unwrap();
    let base_port = base_port(4);
    let port = base_port + 11;
    let _used = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let said = refusal(command(directory.path(), SERVERS, base_port)).await;
    assert!(said.contains(&format!("port {port}")), "{said}");
    assert!(said.contains("server 2's RPC port"), "{said}");
    // Nothing was made, so that another base port can be chosen.
    assert!(!directory.path().join("cluster.toml").exists());
}

#[tokio::test]
async fn wrong_usage_exits_with_2() {
    let directory = TempDir::new().unwrap();
    for (servers, base_port) in [(0, 9000), (20, 9000), (3, 0)] {
        let mut command = command(directory.path(), servers, base_port);
        let output = command.stderr(Stdio::piped()).output();
        let output = timeout(PATIENCE, output).await.expect("it runs").unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}
