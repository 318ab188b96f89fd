//! What the spawner shows: whole lines on standard output, written by a thread of their own, so
//! that a terminal that stands still holds up neither the servers nor their end.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cluster::Server;
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::plan::Plan;

/// How many lines wait for the terminal; further ones are left out and counted.
const LINES_WAITING_MAX: usize = 4096;

/// How long the last lines may take.
const LAST_LINES_TIME_MAX: Duration = Duration::from_secs(1);

/// The colours of servers 1, 2, …: cyan, green, yellow, magenta, blue, red.
const COLOURS: [u8; 6] = [36, 32, 33, 35, 34, 31];

/// Where lines go. Clones go to the same place.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    lines: Sender<String>,
    left_out: Arc<AtomicU64>,
    has_colours: bool,
}

/// The thread that writes the lines.
#[derive(Debug)]
pub(crate) struct Writer {
    thread: JoinHandle<()>,
    finished: oneshot::Receiver<()>,
}

impl Console {
    /// Colours are for terminals, and for those who have not said otherwise.
    pub(crate) fn start() -> io::Result<(Console, Writer)> {
        let (lines, waiting) = channel(LINES_WAITING_MAX);
        let (finish, finished) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("console".to_owned())
            .spawn(move || {
                let _finish = finish;
                write_lines(waiting);
            })?;
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let console = Console {
            lines,
            left_out: Arc::new(AtomicU64::new(0)),
            has_colours: io::stdout().is_terminal() && !no_color,
        };
        Ok((console, Writer { thread, finished }))
    }

    /// Shows a line of the spawner itself.
    pub(crate) fn line(&self, line: &str) {
        self.send(format!("{line}\n"));
    }

    /// Shows a line of a server's log.
    pub(crate) fn server_line(&self, id: u64, line: &str) {
        let (on, off) = self.colour_of(id);
        self.send(format!("{on}server {id} |{off} {line}\n"));
    }

    /// Shows what was started.
    pub(crate) fn table(&self, plan: &Plan, pids: &[u32]) {
        let mut table = String::new();
        let header = ["server", "client", "rpc", "http", "pid", "data directory"];
        let [server, client, rpc, http, pid, directory] = header;
        // Writing to a string can't fail.
        let _ = writeln!(
            table,
            "{server:<9} {client:>6} {rpc:>6} {http:>6} {pid:>8}  {directory}",
        );
        for (server, pid) in plan.servers.iter().zip(pids) {
            let (on, off) = self.colour_of(server.id);
            let _ = writeln!(
                table,
                "{on}server {:<2}{off} {:>6} {:>6} {:>6} {pid:>8}  {}",
                server.id,
                server.client_port,
                server.rpc_port,
                server.http_port,
                plan.directory(server.id).display(),
            );
        }
        table.push('\n');
        self.send(table);
    }

    /// Shows lines to try the cluster with, while this server leads it.
    pub(crate) fn lines_to_try(&self, plan: &Plan, leader: &Server) {
        self.send(lines_to_try(plan, leader));
    }

    fn colour_of(&self, id: u64) -> (String, &'static str) {
        if !self.has_colours {
            return (String::new(), "");
        }
        let colour = COLOURS[(id.saturating_sub(1) % COLOURS.len() as u64) as usize];
        (format!("\x1b[{colour}m"), "\x1b[0m")
    }

    fn send(&self, text: String) {
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        let text = match left_out {
            0 => text,
            _ => format!("({left_out} lines left out)\n{text}"),
        };
        if let Err(TrySendError::Full(_)) = self.lines.try_send(text) {
            self.left_out.fetch_add(left_out + 1, Ordering::Relaxed);
        }
    }
}

impl Writer {
    /// Waits until all is written that was sent, when every `Console` is gone; but not long for a
    /// terminal that stands still.
    pub(crate) async fn finish(self) {
        if timeout(LAST_LINES_TIME_MAX, self.finished).await.is_ok() {
            self.thread.join().expect("writing lines does not panic");
        }
    }
}

/// That nobody reads the lines any more is no reason to stop a cluster.
fn write_lines(mut lines: Receiver<String>) {
    while let Some(line) = lines.blocking_recv() {
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(line.as_bytes());
        let _ = stdout.flush();
    }
}

/// Lines that can be pasted into a shell.
fn lines_to_try(plan: &Plan, leader: &Server) -> String {
    let (host, port, http) = (&leader.host, leader.client_port, leader.http_port);
    let client = client_command();
    let servers = match plan.is_usual() {
        true => String::new(),
        false => format!(" --config {}", plan.config.display()),
    };
    format!(
        "\nTry it (nc knows no redirects: this is the port of the server that leads now):\n  \
         printf 'set greeting 0 0 5\\r\\nhello\\r\\nget greeting\\r\\nquit\\r\\n' | nc {host} {port}\n  \
         {client}{servers} set greeting hello\n  \
         {client}{servers} get greeting\n  \
         {client}{servers} status\n  \
         curl http://{host}:{http}/status\n\n",
    )
}

/// How `quorate-client` is run: the program beside this one, or through Cargo, which builds it.
fn client_command() -> String {
    let beside = std::env::current_exe().ok();
    let beside = beside.map(|program| program.with_file_name("quorate-client"));
    let Some(program) = beside.filter(|program| program.is_file()) else {
        return "cargo run --release --bin quorate-client --".to_owned();
    };
    let here = std::env::current_dir().unwrap_or_default();
    let short = program.strip_prefix(&here).unwrap_or(Path::new(&program));
    short.display().to_string()
}
