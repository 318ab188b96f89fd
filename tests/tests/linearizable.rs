//! A counter that only grows, asked of all servers while leaders come and go: whoever has learned of
//! a value, nobody may be answered an older one afterwards.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use quorate_tests::{Cluster, Plan, Programs, Text, deadline, wait_until};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

/// How long one of these clients waits for an answer: longer than a server may take, and not for
/// ever, since a paused one gives none.
const PATIENCE: Duration = Duration::from_millis(1_500);

#[test]
fn no_answer_is_older_than_one_before_it_whatever_happens_to_leaders() {
    let mut cluster = Plan::new(PROGRAMS, 5).start();
    cluster.restart_with_links();
    cluster
        .connect_to_leader()
        .exchange("set c 0 0 1\r\n0\r\n", "STORED\r\n");
    let watch = Watch::start(&cluster);
    for round in 0..9 {
        watch.wait_for_more(50);
        let leader = cluster.agreed_leader();
        match round % 3 {
            0 => {
                cluster.isolate(&[leader]);
                watch.wait_for_more(50);
                cluster.heal();
            }
            1 => {
                cluster.pause(leader);
                watch.wait_for_more(50);
                cluster.resume(leader);
            }
            _ => {
                cluster.kill(leader);
                watch.wait_for_more(50);
                cluster.start(leader);
            }
        }
    }
    watch.stop();
}

/// Clients that increment the counter and clients that read it.
struct Watch {
    state: Arc<State>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    stop: AtomicBool,
    /// The largest value that any client was told, ever.
    known: AtomicU64,
    reads: AtomicU64,
}

impl Watch {
    fn start(cluster: &Cluster) -> Watch {
        let state = Arc::new(State::default());
        let addresses = cluster.client_addresses();
        let mut clients = Vec::new();
        for command in ["incr c 1\r\n", "incr c 1\r\n", "get c\r\n", "get c\r\n"] {
            // One for each server, so that one that does not answer holds up none of the others.
            for address in addresses.clone() {
                let state = Arc::clone(&state);
                clients.push(thread::spawn(move || state.run(address, command)));
            }
        }
        Watch { state, clients }
    }

    /// Waits until this many more reads have been answered.
    fn wait_for_more(&self, count: u64) {
        let wanted = self.state.reads.load(Ordering::SeqCst) + count;
        wait_until("answered reads", deadline(), || {
            let reads = self.state.reads.load(Ordering::SeqCst);
            let failed = self.clients.iter().any(JoinHandle::is_finished);
            match reads >= wanted || failed {
                true => Ok(()),
                false => Err(format!("{reads} of {wanted}")),
            }
        });
    }

    fn stop(self) {
        self.state.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            if let Err(panic) = client.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl State {
    fn run(&self, server: SocketAddr, command: &str) {
        let mut connection = None;
        while !self.stop.load(Ordering::SeqCst) {
            let Some(text) = connection.as_mut() else {
                connection = Text::try_connect(server).ok();
                match &mut connection {
                    Some(text) => text.set_timeout(PATIENCE),
                    None => thread::park_timeout(Duration::from_millis(20)),
                }
                continue;
            };
            let known = self.known.load(Ordering::SeqCst);
            match ask(text, command) {
                Ok(Some(value)) => {
                    let read = command.starts_with("get");
                    let least = if read { known } else { known + 1 };
                    assert!(
                        value >= least,
                        "{server} answered {value} after {known}: {command}"
                    );
                    self.known.fetch_max(value, Ordering::SeqCst);
                    self.reads.fetch_add(u64::from(read), Ordering::SeqCst);
                }
                // Refused: not now, not here.
                Ok(None) => thread::park_timeout(Duration::from_millis(5)),
                Err(_) => connection = None,
            }
        }
    }
}

/// The counter as the server answers it; `None` if it refuses.
fn ask(text: &mut Text, command: &str) -> std::io::Result<Option<u64>> {
    let line = text.try_ask(command)?;
    if line.starts_with("ERR_REDIRECT ") || line.starts_with("SERVER_ERROR ") {
        return Ok(None);
    }
    let number = match line.starts_with("VALUE ") {
        true => {
            let value = text.try_line()?;
            assert_eq!(text.try_line()?, "END");
            value
        }
        false => line,
    };
    let number = number.trim_end().parse();
    Ok(Some(number.unwrap_or_else(|_| {
        panic!("{command} was answered no number")
    })))
}
