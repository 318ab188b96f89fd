//! Real processes of the server, on ports and in folders of their own.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::{StdRng, SysRng};
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long anything may take before a test fails. Far more than it takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A folder with a `cluster.toml` of so many servers, and their data.
pub(crate) struct Cluster {
    pub(crate) folder: TempDir,
    /// Client, RPC and HTTP port of each server.
    pub(crate) ports: Vec<[u16; 3]>,
    /// Keeps others away from the ports.
    _keeper: TcpListener,
}

/// Ports in a block: three for each of six servers, and one that is kept.
const BLOCK: u16 = 20;

/// The first block's first port, and the end of the last: outside the range from which the kernel
/// draws the ports of outgoing connections.
const PORTS: std::ops::Range<u16> = 4_000..8_800;

/// The first port of a block of free ones, and a listener on its last: two tests that run at the
/// same time never have the same block.
fn draw_block() -> (u16, TcpListener) {
    let listen = |port| TcpListener::bind(("127.0.0.1", port)).ok();
    let mut random = StdRng::try_from_rng(&mut SysRng).expect("Linux gives random bytes");
    for _ in 0..1000 {
        let blocks = (PORTS.end - PORTS.start) / BLOCK;
        let base = PORTS.start + BLOCK * random.random_range(0..blocks);
        let Some(keeper) = listen(base + BLOCK - 1) else {
            continue;
        };
        if (base..base + BLOCK - 1).all(|port| listen(port).is_some()) {
            return (base, keeper);
        }
    }
    panic!("no {BLOCK} free ports in a row in {PORTS:?}");
}

impl Cluster {
    pub(crate) fn new(servers: usize) -> Cluster {
        let (base, keeper) = draw_block();
        let ports = (0..servers).map(|at| {
            let first = base + 3 * u16::try_from(at).expect("there are few servers");
            [first, first + 1, first + 2]
        });
        let cluster = Cluster {
            folder: TempDir::new().expect("a folder can be made"),
            ports: ports.collect(),
            _keeper: keeper,
        };
        let mut text = String::new();
        for (id, [client, rpc, http]) in (1..).zip(&cluster.ports) {
            text += &format!(
                "[[server]]\nid = {id}\nhost = \"127.0.0.1\"\nclient_port = {client}\n\
                 rpc_port = {rpc}\nhttp_port = {http}\n"
            );
        }
        fs::write(cluster.config(), text).expect("the folder can be written");
        cluster
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("cluster.toml")
    }

    pub(crate) fn data_dir(&self, id: usize) -> PathBuf {
        self.folder.path().join(format!("data-{id}"))
    }

    /// The command that runs a server, with more arguments.
    pub(crate) fn command(&self, id: usize, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate-server"));
        command
            .arg("--id")
            .arg(id.to_string())
            .arg("--config")
            .arg(self.config())
            .arg("--data-dir")
            .arg(self.data_dir(id))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// The same with a limit on open files that the server can't raise.
    pub(crate) fn command_with_files(&self, id: usize, files_max: usize) -> Command {
        let server = self.command(id, &[]);
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("ulimit -n {files_max} && exec \"$0\" \"$@\""))
            .arg(server.get_program())
            .args(server.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(&self, id: usize, arguments: &[&str]) -> Process {
        self.start_with(id, &mut self.command(id, arguments))
    }

    /// Starts a server of which `Process::stop_and_hear` tells what it said.
    pub(crate) fn start_heard(&self, id: usize) -> Process {
        let child = self.command(id, &[]).stdout(Stdio::null()).spawn();
        Process {
            child: child.expect("the server can be run"),
            ports: self.ports[id - 1],
        }
    }

    /// Starts a server with a command of one's own.
    pub(crate) fn start_with(&self, id: usize, command: &mut Command) -> Process {
        // A log that nobody reads must not fill a pipe.
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Process {
            child: child.expect("the server can be run"),
            ports: self.ports[id - 1],
        }
    }

    /// Runs a server that ends by itself: its exit code and what it says on standard error.
    pub(crate) fn refusal(&self, id: usize, arguments: &[&str]) -> (i32, String) {
        let child = self.command(id, arguments).spawn();
        end(child.expect("the server can be run"))
    }
}

/// Waits for the end of a process whose output is piped.
pub(crate) fn end(mut child: Child) -> (i32, String) {
    let status = wait(&mut child);
    let mut said = String::new();
    let stderr = child.stderr.take().expect("it is piped");
    BufReader::new(stderr)
        .read_to_string(&mut said)
        .expect("it is text");
    (status.code().expect("no signal ended it"), said)
}

/// The exit status of a process that ends in time.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let mut status = None;
    within_deadline("the process ends", || {
        status = child.try_wait().expect("it is our child");
        status.is_some()
    });
    status.expect("it has ended")
}

/// Tries again until it holds.
pub(crate) fn within_deadline(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running server; killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    ports: [u16; 3],
}

impl Process {
    /// Connects as a client as soon as the port listens.
    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.ports[0])
    }

    /// Connects as another server would.
    pub(crate) fn connect_rpc(&self) -> TcpStream {
        connect(self.ports[1])
    }

    /// Connects as a browser would.
    pub(crate) fn connect_http(&self) -> TcpStream {
        connect(self.ports[2])
    }

    /// Sends bytes on a connection of their own and says that there will be no more: all that is
    /// answered.
    pub(crate) fn ask(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).expect("the server reads");
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("it is connected");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the server closes");
        String::from_utf8(answer).expect("it is text")
    }

    /// Status code and body of an HTTP request.
    pub(crate) fn http(&self, path: &str) -> (u16, String) {
        let mut stream = connect(self.ports[2]);
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .expect("the server reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it is text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("there is a head");
        let code = head.split(' ').nth(1).expect("there is a code");
        (code.parse().expect("it is a number"), body.to_owned())
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        let (code, body) = self.http("/status");
        assert_eq!(code, 200);
        serde_json::from_str(&body).expect("it is JSON")
    }

    /// Waits until this server knows a leader, and gives its id.
    pub(crate) fn leader(&self) -> u64 {
        let mut leader = None;
        within_deadline("a leader is known", || {
            leader = self.status()["leader"].as_u64();
            leader.is_some()
        });
        leader.expect("it was waited for")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is our child");
    }

    /// Asks it to stop: what it has said on standard error.
    pub(crate) fn stop_and_hear(mut self) -> String {
        self.signal(Signal::TERM);
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().expect("it is piped");
        stderr.read_to_string(&mut said).expect("it is text");
        said
    }

    /// Asks it to stop: the exit code, and how long it took.
    pub(crate) fn stop(mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        self.signal(Signal::TERM);
        let status = wait(&mut self.child);
        (status.code(), start.elapsed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(port: u16) -> TcpStream {
    let mut stream = None;
    within_deadline("the port listens", || {
        stream = TcpStream::connect(("127.0.0.1", port)).ok();
        stream.is_some()
    });
    let stream = stream.expect("it was waited for");
    stream
        .set_read_timeout(Some(DEADLINE))
        .expect("it is connected");
    stream
}

/// The next line, without its end; empty at the end of the stream.
pub(crate) fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}
