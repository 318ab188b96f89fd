//! A server from start to end: the one place that knows all threads, tasks and channels.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cluster::{Followers, Settings};
use evaluator::{Config, Evaluator, Member};
use raft::{Configuration, Recovered, Seating, ServerId};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use wal::Opened;
use wire::Identity;

use crate::arguments::Service;
use crate::bell::{self, Bell, Sender};
use crate::client::{self, Clients, Connections, Counters, Dumps, Held};
use crate::clock::Clock;
use crate::error::Error;
use crate::evaluator_thread::{Channels, Control, EvaluatorThread};
use crate::http::{Asker, Backups, LimitedListener, Site, Source, router};
use crate::listen::{Acceptor, Bound, bind};
use crate::log_writer_thread::{self, LogWriter};
use crate::peer::{self, Callee, ForwardQueue, Peers, Queue, Refusals};
use crate::published::{self, Publisher, View};
use crate::recovery::{self, Recovery};
use crate::scrub_thread::{self, Scrubber};
use crate::signals::Signals;
use crate::snapshots::{Figures, Snapshots};
use crate::turns::Turns;
use crate::{files, room, snapshot_thread};

/// Room for what clients and peers have said and the evaluator has not taken. What clients have
/// there waits behind what is under way: little enough that both are done within a second.
const CLIENTS_BYTES_MAX: usize = 8 << 20;
const PEERS_BYTES_MAX: usize = 64 << 20;
const FORWARDS_BYTES_MAX: usize = 64 << 20;

/// The parts of a stop, together less than the 5 s that a stop may take: leadership is handed
/// over, connections get their last replies, the log gets what it was given.
const HAND_OVER: Duration = Duration::from_secs(2);
const LAST_REPLIES: Duration = Duration::from_secs(1);
const LAST_WRITES: Duration = Duration::from_secs(1);

/// Serves until a signal says stop.
///
/// # Errors
/// Why it does not start, or can't go on.
pub(crate) fn serve(service: Service) -> Result<(), Error> {
    let clients = clients_runtime(service.settings.threads)?;
    // Of their own, so that no work for clients keeps heartbeats waiting.
    let peers = runtime("quorate-rpc", 1)?;
    let transfers = runtime("quorate-transfer", 1)?;
    // The same for what asks how the server is: it is to be told when clients are the trouble.
    let http = runtime("quorate-http", 1)?;
    let others = Others {
        rpc: peers.handle().clone(),
        transfers: transfers.handle().clone(),
        http: http.handle().clone(),
    };
    let result = clients.block_on(run(service, &others));
    // What is still under way is nobody's any more.
    clients.shutdown_background();
    peers.shutdown_background();
    transfers.shutdown_background();
    http.shutdown_background();
    result
}

/// The threads that have nothing to do with clients.
struct Others {
    /// What servers say to each other.
    rpc: Handle,
    /// Snapshots that they send each other.
    transfers: Handle,
    http: Handle,
}

/// Its threads have many clients each that have become ready together. None of them leaves by
/// `block_in_place`, with something that it has not rung yet.
fn clients_runtime(threads: usize) -> Result<Runtime, Error> {
    let mut builder = Builder::new_multi_thread();
    builder.on_thread_park(bell::ring_gathered);
    build(builder, "quorate-io", threads)
}

fn runtime(name: &str, threads: usize) -> Result<Runtime, Error> {
    build(Builder::new_multi_thread(), name, threads)
}

fn build(mut builder: Builder, name: &str, threads: usize) -> Result<Runtime, Error> {
    builder
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(Error::system("start threads"))
}

async fn run(service: Service, runtimes: &Others) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let connections_max = files::raise_limit(service.settings.connections_max);
    let server = &service.server;
    let host = server.bind();
    let client_port = bind(host, server.client_port, "client_port")?;
    let rpc_port = bind(host, server.rpc_port, "rpc_port")?;
    let http_port = bind(host, server.http_port, "http_port")?;
    let exposed = [
        ("client_port", !client_port.is_loopback()),
        ("rpc_port", !rpc_port.is_loopback()),
        ("http_port", !http_port.is_loopback()),
    ];
    let http_port = listen_within(&runtimes.http, http_port)?;

    let clock = Clock::new();
    let (publisher, view) = published::channel(clock, server.clone());
    let peers = others(&service);
    let counters = Arc::new(Counters::new());
    let figures = Arc::new(Figures::default());
    let scrubs = Arc::new(scrub_thread::Figures::default());
    let asker = Arc::new(Asker::default());
    let servers = service.cluster.servers().to_vec();
    let backups = Arc::new(Backups::new(servers, Arc::clone(&asker)));
    let site = Site {
        view: view.clone(),
        clients: Arc::clone(&counters),
        queues: queues(&peers),
        snapshots: Arc::clone(&figures),
        scrubs: Arc::clone(&scrubs),
        backups,
        asker: Arc::clone(&asker),
        item_bytes_max: service.settings.value_bytes_max,
    };
    let listener = LimitedListener::new(Acceptor::new(http_port, "an HTTP connection"));
    runtimes
        .http
        .spawn(axum::serve(listener, router(site)).into_future());
    tell_start(&service);
    tell_exposed(&exposed);
    let recovering = recovery::begin(&service)?;
    let recovery = tokio::select! {
        recovery = recovering => recovery.expect("the thread that reads the log sends a result")?,
        () = signals.stop() => {
            info!("stops before its log was read");
            return Ok(());
        }
    };
    check_members(&service, &recovery.opened.recovered)?;
    let parts = Parts {
        service,
        view,
        publisher,
        counters,
        figures,
        scrubs,
        asker,
        peers,
        connections_max,
        ports: (client_port, rpc_port),
    };
    let lost = recovery::lost(&recovery.opened);
    let mut view = parts.view.clone();
    let mut running = parts.start(recovery, runtimes)?;
    let result = tokio::select! {
        () = signals.stop() => Ok(()),
        () = view.stranded() => Err(Error::Stranded { lost }),
        Some(error) = running.fatal.recv() => Err(error),
    };
    running.stop().await;
    result
}

fn tell_start(service: &Service) {
    let server = &service.server;
    info!(
        "server {} starts: clients on {}:{}, process {}",
        server.id,
        server.host,
        server.client_port,
        std::process::id()
    );
}

/// A queue for each other member.
fn others(service: &Service) -> Vec<(Callee, Arc<Queue>)> {
    let servers = service.cluster.servers();
    let others = servers.iter().filter(|other| other.id != service.server.id);
    others
        .map(|other| {
            let callee = Callee {
                id: ServerId(other.id),
                host: other.host.clone(),
                rpc_port: other.rpc_port,
                others: servers.len() - 1,
            };
            (callee, Arc::new(Queue::default()))
        })
        .collect()
}

/// Listens on behalf of this runtime's tasks.
fn listen_within(runtime: &Handle, port: Bound) -> Result<TcpListener, Error> {
    let _within = runtime.enter();
    port.listen()
}

fn queues(peers: &[(Callee, Arc<Queue>)]) -> BTreeMap<ServerId, Arc<Queue>> {
    let queues = peers.iter();
    queues
        .map(|(callee, queue)| (callee.id, Arc::clone(queue)))
        .collect()
}

/// A queue for each peer, for what is forwarded to it, or for what goes back.
fn forward_queues(
    peers: &[(Callee, Arc<Queue>)],
    bytes_max: usize,
) -> BTreeMap<ServerId, Arc<ForwardQueue>> {
    let queues = peers.iter();
    queues
        .map(|(callee, _)| (callee.id, Arc::new(ForwardQueue::new(bytes_max))))
        .collect()
}

/// The members of a cluster are fixed by its log, and by what the snapshot has of it; cluster.toml
/// names those of a new one (rule 41).
fn check_members(service: &Service, recovered: &Recovered) -> Result<(), Error> {
    let snapshot = recovered.snapshot.as_ref();
    let dropped = snapshot.and_then(|snapshot| snapshot.configuration.as_ref());
    let known = recovered.configurations.iter().chain(dropped);
    let newest = known.max_by_key(|entry| entry.index);
    let Some(newest) = newest.and_then(|entry| Configuration::decode(entry.payload.clone())) else {
        return Ok(());
    };
    let found: Vec<ServerId> = newest.members.iter().map(|member| member.id).collect();
    let servers = service.cluster.servers().iter();
    let mut named: Vec<ServerId> = servers.map(|server| ServerId(server.id)).collect();
    named.sort_unstable();
    if found == named {
        return Ok(());
    }
    Err(Error::OtherMembers {
        directory: service.data_dir.clone(),
        found,
        named,
    })
}

/// Starts a thread.
pub(crate) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<thread::JoinHandle<()>, Error> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(Error::system("start a thread"))
}

/// What is there before the log is read.
struct Parts {
    service: Service,
    view: View,
    publisher: Publisher,
    counters: Arc<Counters>,
    figures: Arc<Figures>,
    scrubs: Arc<scrub_thread::Figures>,
    asker: Arc<Asker>,
    peers: Vec<(Callee, Arc<Queue>)>,
    connections_max: usize,
    /// The client port and the RPC port.
    ports: (Bound, Bound),
}

/// What a stop needs.
struct Running {
    view: View,
    control: Sender<Control>,
    fatal: mpsc::UnboundedReceiver<Error>,
    stop_accepting: CancellationToken,
    stop_connections: CancellationToken,
    connections: TaskTracker,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Parts {
    /// Starts the threads and the tasks, and listens.
    fn start(self, recovery: Recovery, runtimes: &Others) -> Result<Running, Error> {
        let Recovery {
            wal,
            opened,
            store,
            loaded,
        } = recovery;
        recovery::tell(&opened);
        self.figures.set(loaded.unwrap_or_default());
        let settings = &self.service.settings;
        let clock = self.view.clock;
        let config = config(&self.service, &opened, recovery::random()?);
        let evaluator = Evaluator::new(config, opened.recovered.clone(), store, clock.now());
        let (bell, log_bell) = (Bell::default(), Bell::default());
        let (to_clients, clients) = room::channel(CLIENTS_BYTES_MAX, &bell.soft().gathered());
        let (to_peers, peers) = room::channel(PEERS_BYTES_MAX, &bell);
        let (to_forwards, forwards) = room::channel(FORWARDS_BYTES_MAX, &bell.soft());
        let leaders = forward_queues(&self.peers, peer::TO_LEADER_QUEUE_BYTES_MAX);
        let followers = forward_queues(&self.peers, peer::TO_FOLLOWER_QUEUE_BYTES_MAX);
        let (control, from_control) = bell::unbounded(&bell);
        let (to_persisted, persisted) = bell::unbounded(&bell);
        let (writes, from_writes) = bell::unbounded(&log_bell);
        let (fetches, from_fetches) = crossbeam_channel::unbounded();
        // Who reads the log back reads on while what he has read is carried out.
        let (to_fetched, fetched) = bell::unbounded(&bell.waking());
        let (to_evaluator, from_snapshots) = bell::unbounded(&bell);
        let (drops, from_drops) = bell::unbounded(&log_bell);
        let (work, from_work) = crossbeam_channel::unbounded();
        let (installs, from_installs) = mpsc::unbounded_channel();
        let snapshots = Arc::new(Snapshots::new(
            wal.snapshots(),
            opened.recovered.snapshot.as_ref(),
            to_evaluator.clone(),
            drops.clone(),
            self.figures,
            Arc::clone(&self.scrubs),
        ));
        let channels = Channels {
            bell,
            useless: drops,
            control: from_control,
            persisted,
            fetched,
            peers,
            forwards,
            clients,
            writes,
            fetches,
            snapshots: from_snapshots,
            work,
            installs,
            queues: queues(&self.peers),
            leaders: leaders.clone(),
            followers: followers.clone(),
            publisher: self.publisher,
        };
        let evaluator_thread = EvaluatorThread::new(
            evaluator,
            channels,
            clock,
            identity(&self.service, &opened),
            settings.election_timeout.start,
            settings.heartbeat,
        );
        let turns = Turns::new(evaluator_thread);
        let log = LogWriter {
            writes: from_writes,
            persisted: to_persisted,
            drops: from_drops,
            kept_bytes: settings.log_kept_bytes,
            dropped: to_evaluator,
        };
        let reader = wal.reader();
        let writer = Arc::clone(&snapshots);
        let replacer = Arc::clone(&snapshots);
        let scrubber = Scrubber {
            scrub: wal.scrub(),
            rate: settings.scrub_rate,
            interval: settings.scrub_interval,
            snapshots: Arc::clone(&snapshots),
            figures: self.scrubs,
        };
        let threads = vec![
            spawn("quorate-evaluator", move || turns.run())?,
            spawn("quorate-log", move || log.write(wal, &log_bell))?,
            spawn("quorate-log-read", move || {
                log_writer_thread::read_back(&reader, &from_fetches, &to_fetched, &replacer);
            })?,
        ];
        // Nobody waits for its end: the next start removes a snapshot that is not finished.
        spawn("quorate-snapshot", move || {
            snapshot_thread::run(&from_work, &writer);
        })?;
        if scrubber.rate > 0 {
            spawn("quorate-scrub", move || scrubber.run())?;
        }

        let (to_fatal, fatal) = mpsc::unbounded_channel();
        let shared = Peers {
            evaluator: to_peers,
            forwards: to_forwards,
            clients: to_clients.clone(),
            followers,
            forwarding: Handle::current(),
            view: self.view.clone(),
            snapshots,
            transfers: runtimes.transfers.clone(),
            refusals: Refusals::default(),
            fatal: to_fatal,
        };
        let shared = Arc::new(shared);
        if settings.followers == Followers::Forward {
            for (callee, _) in &self.peers {
                let (callee, queue) = (callee.clone(), Arc::clone(&leaders[&callee.id]));
                tokio::spawn(peer::forward(callee, queue, Arc::clone(&shared)));
            }
        }
        let (client_port, rpc_port) = self.ports;
        let acceptor = Acceptor::new(listen_within(&runtimes.rpc, rpc_port)?, "a server's call");
        let pace = peer::Pace::new(settings.snapshot_send_rate);
        start_peers(shared, self.peers, acceptor, pace, from_installs, runtimes);

        let running = Running {
            view: self.view,
            control,
            fatal,
            stop_accepting: CancellationToken::new(),
            stop_connections: CancellationToken::new(),
            connections: TaskTracker::new(),
            threads,
        };
        let forwards = settings.followers == Followers::Forward;
        let view = forwards.then(|| running.view.clone());
        self.asker.begin(Source {
            evaluator: to_clients.clone(),
            control: running.control.clone(),
        });
        let acceptor = Acceptor::new(client_port.listen()?, "a client");
        self.counters.watch_pauses(acceptor.pauses());
        let clients = Clients {
            evaluator: to_clients,
            limits: limits(settings),
            incomplete_command: settings.incomplete_command,
            connections_max: self.connections_max,
            settings: settings.clone(),
            bind: self.service.server.bind().to_owned(),
            client_port: self.service.server.client_port,
            counters: self.counters,
            dumps: Dumps::new(running.control.clone()),
            connections: Connections::default(),
            held: Arc::new(Held::new(view)),
        };
        tokio::spawn(client::serve(
            acceptor,
            Arc::new(clients),
            running.connections.clone(),
            running.stop_accepting.clone(),
            running.stop_connections.clone(),
        ));
        Ok(running)
    }
}

/// Takes the calls of the other servers, calls them, and sends snapshots to those that `installs`
/// names.
fn start_peers(
    shared: Arc<Peers>,
    peers: Vec<(Callee, Arc<Queue>)>,
    acceptor: Acceptor,
    pace: peer::Pace,
    installs: mpsc::UnboundedReceiver<ServerId>,
    runtimes: &Others,
) {
    let callees = peers.iter().map(|(callee, _)| (callee.id, callee.clone()));
    let sending = peer::Sending {
        peers: Arc::clone(&shared),
        callees: callees.collect(),
        pace,
    };
    let sending = peer::send_snapshots(installs, Arc::new(sending));
    runtimes.transfers.spawn(sending);
    let rpc = &runtimes.rpc;
    rpc.spawn(peer::serve(acceptor, Arc::clone(&shared)));
    for (callee, queue) in peers {
        rpc.spawn(peer::call(callee, queue, Arc::clone(&shared)));
    }
}

impl Running {
    /// Hands leadership over, answers what was taken, and lets the log finish.
    async fn stop(mut self) {
        info!("stops");
        let led = self.view.leads();
        // The thread ends only when it is told to.
        let _ = self.control.send(Control::Transfer);
        if tokio::time::timeout(HAND_OVER, self.view.may_stop())
            .await
            .is_err()
        {
            warn!("nobody has taken over");
        }
        self.stop_connections.cancel();
        self.connections.close();
        let all_gone = async {
            if led {
                // Other servers have sent clients here that are still on their way.
                tokio::time::sleep(client::QUIET).await;
            }
            self.connections.wait().await;
        };
        if tokio::time::timeout(LAST_REPLIES, all_gone).await.is_err() {
            info!("closes {} connections in use", self.connections.len());
        }
        self.stop_accepting.cancel();
        let _ = self.control.send(Control::Stop);
        let (done, ended) = oneshot::channel();
        let threads = self.threads;
        // A disk that is stuck may keep the log's thread for ever: it is not waited for that long.
        let joined = spawn("quorate-stop", move || {
            for thread in threads {
                let _ = thread.join();
            }
            let _ = done.send(());
        });
        if joined.is_err() || tokio::time::timeout(LAST_WRITES, ended).await.is_err() {
            warn!("the disk does not answer");
        }
        info!("has stopped");
    }
}

/// A connection whose replies may be another server's is owed about so much of them.
const REPLY_AHEAD_BYTES: usize = 16 << 20;

fn limits(settings: &Settings) -> protocol::Limits {
    protocol::Limits {
        item_bytes_max: settings.value_bytes_max,
        reply_ahead_bytes: match settings.followers {
            Followers::Redirect => usize::MAX,
            Followers::Forward => REPLY_AHEAD_BYTES,
        },
        ..protocol::Limits::default()
    }
}

fn config(service: &Service, opened: &Opened, seed: u64) -> Config {
    let servers = service.cluster.servers().iter();
    Config {
        id: ServerId(service.server.id),
        members: servers
            .map(|server| Member {
                id: ServerId(server.id),
                host: server.host.as_str().into(),
                client_port: server.client_port,
                rpc_port: server.rpc_port,
                http_port: server.http_port,
            })
            .collect(),
        instance: opened.instance,
        restart: opened.restart,
        election_timeout: service.settings.election_timeout.clone(),
        heartbeat: service.settings.heartbeat,
        seed,
        item_bytes_max: service.settings.value_bytes_max,
        memory_limit_bytes: service.settings.memory_limit_mib << 20,
        forwards: service.settings.followers == Followers::Forward,
        limits: evaluator::Limits {
            snapshot_entries: service.settings.snapshot_entries,
            snapshot_bytes: service.settings.snapshot_bytes,
            state_hash_interval: service.settings.state_hash_interval,
            ..evaluator::Limits::default()
        },
    }
}

/// This server, before the evaluator has published anything.
fn identity(service: &Service, opened: &Opened) -> Identity {
    let servers = service.cluster.servers().iter();
    Identity {
        id: ServerId(service.server.id),
        instance: opened.instance,
        restart: opened.restart,
        seating: Seating::Unseated,
        members: servers.map(|server| (ServerId(server.id), None)).collect(),
        members_hash: service.cluster.members_hash(),
        backup: opened.backup.map_or(0, |backup| backup.0),
    }
}

/// Whoever reaches these ports may do anything with them.
fn tell_exposed(ports: &[(&str, bool)]) {
    for (field, is_exposed) in ports {
        if *is_exposed {
            warn!("{field} can be reached from other machines, without a password or encryption");
        }
    }
}
