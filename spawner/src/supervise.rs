//! The cluster from its start to its end: who is started, who is told to stop, and what is said
//! about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cluster::Server;
use thiserror::Error;
use tokio::process::Child;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;

use crate::console::Console;
use crate::plan::{Arguments, Plan, PlanError};
use crate::process::{self, Ended, Order};
use crate::ready::{self, Ready};

/// A cluster that takes longer than this to be ready is worth a line.
const READY_TIME_USUAL: Duration = Duration::from_secs(10);

/// Why there is no cluster, or none any more.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("server {id} could not be started: {error}")]
    Start { id: u64, error: io::Error },
    #[error("all servers have ended")]
    AllEnded,
    #[error("{0}")]
    System(#[from] io::Error),
}

/// What ends a process that is not told otherwise.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

/// Runs a cluster until it is told to stop.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Error> {
    let plan = Plan::prepare(arguments)?;
    // One thread, the process's main one: a server is told that its parent has ended when the
    // thread that started it has.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (console, writer) = Console::start()?;
        let result = run_cluster(&plan, arguments, console).await;
        writer.finish().await;
        result
    })
}

async fn run_cluster(plan: &Plan, arguments: &Arguments, console: Console) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let children = start_all(plan, arguments)?;
    let pids: Vec<u32> = children.iter().filter_map(Child::id).collect();
    console.table(plan, &pids);
    let (orders, order) = watch::channel(Order::Run);
    let mut servers = JoinSet::new();
    for (server, child) in plan.servers.iter().zip(children) {
        servers.spawn(process::attend(
            server.id,
            child,
            order.clone(),
            console.clone(),
        ));
    }
    let running = attend_until_told(&mut servers, &mut signals, plan, &console).await;
    if running.is_ok() {
        console.line("stopping");
        stop_all(&mut servers, &mut signals, &orders, &console).await;
    }
    running
}

fn start_all(plan: &Plan, arguments: &Arguments) -> Result<Vec<Child>, Error> {
    let program: PathBuf = std::env::current_exe()?;
    let start = |id| {
        let started = process::start(&program, plan, arguments, id);
        started.map_err(|error| Error::Start { id, error })
    };
    plan.servers.iter().map(|server| start(server.id)).collect()
}

/// Says when the cluster is ready and which servers end, until a signal comes.
async fn attend_until_told(
    servers: &mut JoinSet<Ended>,
    signals: &mut Signals,
    plan: &Plan,
    console: &Console,
) -> Result<(), Error> {
    let mut is_ready = false;
    let waiting = ready::wait(plan);
    tokio::pin!(waiting);
    let patience = sleep(READY_TIME_USUAL);
    tokio::pin!(patience);
    loop {
        tokio::select! {
            () = signals.next() => return Ok(()),
            ready = &mut waiting, if !is_ready => {
                is_ready = true;
                let leader = plan.servers.iter().find(|server| server.id == ready.leader.id);
                console.line(&ready_line(leader, &ready));
                if let Some(leader) = leader {
                    console.lines_to_try(plan, leader);
                }
            }
            () = &mut patience, if !is_ready && !patience.is_elapsed() => {
                let seconds = READY_TIME_USUAL.as_secs();
                console.line(&format!("no write has succeeded for {seconds} s, still waiting"));
            }
            Some(ended) = servers.join_next() => {
                let Ended { id, status, .. } = attended(ended);
                match status {
                    Ok(status) => console.line(&format!("server {id} has ended: {status}")),
                    Err(error) => console.line(&format!("server {id} is lost: {error}")),
                }
                if servers.is_empty() {
                    return Err(Error::AllEnded);
                }
            }
        }
    }
}

/// Stops all servers; at a second signal, at once.
async fn stop_all(
    servers: &mut JoinSet<Ended>,
    signals: &mut Signals,
    orders: &watch::Sender<Order>,
    console: &Console,
) {
    orders.send_replace(Order::Stop);
    loop {
        tokio::select! {
            ended = servers.join_next() => match ended.map(attended) {
                None => return,
                Some(Ended { id, status: Ok(status), order: Order::Stop }) if !status.success() => {
                    console.line(&format!("server {id} has ended: {status}"));
                }
                Some(_) => {}
            },
            () = signals.next() => {
                orders.send_replace(Order::Kill);
            }
        }
    }
}

fn attended(ended: Result<Ended, JoinError>) -> Ended {
    ended.expect("attending a server does not panic and is not cancelled")
}

fn ready_line(leader: Option<&Server>, ready: &Ready) -> String {
    let (id, term) = (ready.leader.id, ready.leader.term);
    let milliseconds = ready.write.as_secs_f64() * 1e3;
    let at = leader.map_or(String::new(), |server| {
        format!(" at {}:{}", server.host, server.client_port)
    });
    format!("ready: server {id}{at} leads term {term}, a write took {milliseconds:.1} ms")
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one of them.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
