//! Every reply is linearizable, whatever happens to servers and to the links between them.

use std::collections::BTreeMap;
use std::env;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use quorate_tests::{
    Cluster, Nemesis, Operation, Plan, Programs, Text, Verdict, Workload, check, deadline,
    wait_until,
};
use rand::TryRng;
use rand::rngs::SysRng;

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

/// How long one of these clients waits for an answer: longer than a server may take, and not for
/// ever, since a paused one gives none.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// How long things go wrong, unless `QUORATE_CHAOS_SECONDS` says otherwise.
const CHAOS_SECONDS: u64 = 20;

/// How long they do so before all is healed and what clients were told is judged.
const ROUND_SECONDS: u64 = 20;

/// Clients that follow redirects; one more for each server stays there.
const CLIENTS: usize = 6;

/// A run in which less was done proves nothing: answered operations for each second, and seconds
/// for each fault.
const ANSWERED_PER_SECOND_MIN: u64 = 100;
const SECONDS_PER_FAULT_MAX: u64 = 4;

/// Steps of the checker for one key. A few thousand operations take a few tens of thousands.
const STEPS_MAX: u64 = 20_000_000;

#[test]
fn every_answer_fits_one_order_whatever_happens_to_servers_and_links() {
    let seconds = from_environment("QUORATE_CHAOS_SECONDS").unwrap_or(CHAOS_SECONDS);
    let seed = from_environment("QUORATE_CHAOS_SEED");
    let seed = seed.unwrap_or_else(|| {
        SysRng
            .try_next_u32()
            .expect("Linux gives random bytes")
            .into()
    });
    println!("QUORATE_CHAOS_SEED={seed} strikes in the same order again");
    let mut cluster = Plan::new(PROGRAMS, 5).start();
    cluster.restart_with_links();
    let mut nemesis = Nemesis::new(seed);
    let (mut answered, mut judged, mut unknown) = (0, 0, 0);
    for round in 0..seconds.div_ceil(ROUND_SECONDS) {
        let round_seconds = ROUND_SECONDS.min(seconds - round * ROUND_SECONDS);
        let workload = Workload::start(&cluster, &format!("k{round}"), CLIENTS, seed + round);
        let duration = Duration::from_secs(round_seconds);
        nemesis.run(&mut cluster, &workload, duration);
        answered += workload.acknowledged();
        let histories = workload.stop(&mut cluster);
        wait_until_equal(&cluster);
        let operations = histories.values().flatten();
        judged += operations.clone().count();
        unknown += operations
            .filter(|operation| operation.returned.is_none())
            .count();
        judge(&histories);
    }
    let summary = nemesis.summary();
    println!("{answered} answers, {judged} operations judged, {unknown} unknown; {summary}");
    let least = seconds * ANSWERED_PER_SECOND_MIN;
    assert!(
        answered >= least,
        "void: {answered} answers of {least}, {summary}"
    );
    let least = seconds / SECONDS_PER_FAULT_MAX;
    assert!(
        nemesis.faults() >= least,
        "void: not {least} faults, {summary}"
    );
}

/// A number from an environment variable, if it is set.
fn from_environment(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

/// Waits until all servers have applied all that any of them has.
fn wait_until_equal(cluster: &Cluster) {
    cluster.agreed_leader();
    wait_until("equal servers", deadline(), || {
        let mut applied = Vec::new();
        for id in cluster.ids() {
            let status = cluster.status(id)?;
            for member in ["last_applied", "commit_index", "last_log_index"] {
                applied.push(status[member].as_u64());
            }
        }
        let is_equal = applied
            .iter()
            .all(|index| index.is_some() && *index == applied[0]);
        is_equal.then_some(()).ok_or_else(|| format!("{applied:?}"))
    });
}

/// Holds the cluster to what clients were told.
fn judge(histories: &BTreeMap<String, Vec<Operation>>) {
    for (key, history) in histories {
        match check(history, STEPS_MAX) {
            Verdict::Linearizable => {}
            Verdict::NotLinearizable(why) => panic!("{key} is not linearizable: {why}"),
            Verdict::TooHard => panic!("void: {key} took more than {STEPS_MAX} steps to judge"),
        }
    }
}

/// A counter that only grows, asked of all servers while leaders come and go: whoever has learned
/// of a value, nobody may be answered an older one afterwards.
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
