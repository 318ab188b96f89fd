//! `quorate-spawner`: one command, a whole cluster, and nothing left of it afterwards.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate_tests::{Ports, Process, Programs, Text, Turn, deadline, wait_until};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

/// A spawner with a cluster, and what its table says.
struct Spawned {
    process: Process,
    rows: Vec<Row>,
}

/// A line of the table.
#[derive(Clone, Debug)]
struct Row {
    client_port: u16,
    pid: Pid,
    directory: String,
}

fn command(ports: &Ports, directory: &Path) -> Command {
    let mut command = PROGRAMS.spawner();
    command
        .arg("--base-port")
        .arg(ports.base().to_string())
        .arg("--data-dir")
        .arg(directory);
    command
}

/// Starts a spawner and waits until it says that the cluster is ready.
fn spawn(command: Command, servers: usize) -> Spawned {
    let process = Process::start("the spawner", command);
    process.wait_for_stdout("line that says ready", deadline(), |line| {
        line.starts_with("ready") || line.starts_with("Ready")
    });
    let rows: Vec<Row> = process
        .stdout()
        .iter()
        .filter_map(|line| row(line))
        .collect();
    assert_eq!(rows.len(), servers, "{:#?}", process.stdout());
    Spawned { process, rows }
}

/// `server 1 9000 9001 9002 <pid> <directory>`; `None` for a line that is no row.
fn row(line: &str) -> Option<Row> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["server", _, client_port, _, _, pid, directory] = words[..] else {
        return None;
    };
    Some(Row {
        client_port: client_port.parse().ok()?,
        pid: Pid::from_raw(pid.parse().ok()?),
        directory: directory.to_owned(),
    })
}

/// What a client that follows redirects is answered.
fn ask(ports: &Ports, servers: u64, command: &str) -> String {
    wait_until("an answer of the leader", deadline(), || {
        let mut lines = Vec::new();
        for id in 1..=servers {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.of_server(id)));
            let answer = Text::try_connect(address).and_then(|mut text| text.try_ask(command));
            match answer {
                Ok(line) if !line.starts_with("ERR_REDIRECT") && !line.ends_with("no leader") => {
                    return Ok(line);
                }
                other => lines.push(format!("{other:?}")),
            }
        }
        Err(lines.join(", "))
    })
}

/// Nothing of the cluster is left: no process of its servers, nobody on their ports.
fn assert_gone(ports: &Ports, rows: &[Row]) {
    wait_until("the end of all servers", deadline(), || {
        let processes = rows.iter().filter(|row| is_running(row.pid));
        let processes: Vec<Pid> = processes.map(|row| row.pid).collect();
        // Connections that were open leave their ports waiting, which is no listener. The last
        // thread of a process may hold one for a moment after its first has ended.
        let servers = 1..=rows.len() as u64;
        let used = servers
            .flat_map(|id| ports.of_server(id)..ports.of_server(id) + 3)
            .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_err());
        let used: Vec<u16> = used.collect();
        match processes.is_empty() && used.is_empty() {
            true => Ok(()),
            false => Err(format!("processes {processes:?}, ports {used:?}")),
        }
    });
}

/// Whether there is such a process, and not just its exit status.
fn is_running(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    kill(pid, None::<Signal>).is_ok() && state != Some('Z')
}

#[test]
fn a_cluster_of_five_starts_serves_stops_and_starts_again_with_its_data() {
    let (_turn, ports) = (Turn::take(), Ports::draw());
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let data = directory.path().join("data");

    let mut spawned = spawn(command(&ports, &data), 5);
    for (id, row) in (1..).zip(&spawned.rows) {
        assert_eq!(row.client_port, ports.of_server(id));
        assert!(Path::new(&row.directory).is_dir(), "{row:?}");
    }
    assert_eq!(ask(&ports, 5, "set k 0 0 5\r\nvalue\r\n"), "STORED");
    let of_servers = |id: u64| {
        let prefix = format!("server {id} |");
        spawned
            .process
            .stdout()
            .iter()
            .any(|line| line.starts_with(&prefix))
    };
    assert!((1..=5).all(of_servers), "{:#?}", spawned.process.stdout());
    spawned.process.signal(Signal::SIGTERM);
    let ended = spawned.process.wait(deadline());
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    assert_gone(&ports, &spawned.rows);

    // Ctrl-C in a terminal reaches the spawner and its servers at once; here it alone.
    let mut spawned = spawn(command(&ports, &data), 5);
    assert_eq!(ask(&ports, 5, "get k\r\n"), "VALUE k 0 5");
    spawned.process.signal(Signal::SIGINT);
    let ended = spawned.process.wait(deadline());
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    assert_gone(&ports, &spawned.rows);
}

#[test]
fn a_spawner_that_is_killed_leaves_no_server() {
    let (_turn, ports) = (Turn::take(), Ports::draw());
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let mut command = command(&ports, &directory.path().join("data"));
    command.args(["--servers", "3"]);
    let spawned = spawn(command, 3);
    assert_eq!(ask(&ports, 3, "set k 0 0 5\r\nvalue\r\n"), "STORED");
    let ended = spawned.process.kill();
    assert_eq!(ended.signal(), Some(9));
    assert_gone(&ports, &spawned.rows);
}

#[test]
fn with_followers_that_forward_every_server_serves() {
    let (_turn, ports) = (Turn::take(), Ports::draw());
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let mut command = command(&ports, &directory.path().join("data"));
    command.args(["--servers", "3", "--followers", "forward"]);
    let spawned = spawn(command, 3);
    for row in &spawned.rows {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, row.client_port));
        wait_until("a reply of any server", deadline(), || {
            let mut text = Text::try_connect(address).map_err(|error| error.to_string())?;
            let line = text.try_ask("set k 0 0 1\r\nx\r\n");
            let line = line.map_err(|error| error.to_string())?;
            (line == "STORED").then_some(()).ok_or(line)
        });
    }
}

#[test]
fn what_cannot_work_is_said_in_one_line_before_anything_is_started() {
    let (_turn, ports) = (Turn::take(), Ports::draw());
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let data = directory.path().join("data");
    let refused = |command: Command, word: &str| {
        let ended = Process::start("the spawner", command).wait(deadline());
        assert!(ended.code().is_some_and(|code| code != 0), "{ended:#?}");
        assert_eq!(ended.stderr.len(), 1, "{ended:#?}");
        assert!(ended.stderr[0].contains(word), "{ended:#?}");
    };
    let port = ports.of_server(3) + 1;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("it is ours");
    refused(command(&ports, &data), &port.to_string());
    drop(taken);
    assert!(!data.exists(), "nothing was made");
    fs::write(&data, "a file").expect("it is ours");
    refused(command(&ports, &data), &data.display().to_string());
}
