//! A cluster of evaluators on a network and disks that a test holds in its hands: a message or a
//! sync takes no time, or for ever, or is lost.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of this"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use command::{
    Command, Direction, Exptime, ITEM_BYTES_MAX_DEFAULT, Key, LogTime, Outcome, Read, Refusal,
    Reply, Stats, StoreMode, Write,
};
use quorate_evaluator::{
    Batch, Config, ConnectionId, Evaluator, ForwardMessage, FrozenState, Input, Limits, Member,
    Now, Output, Status,
};
use raft::{
    Entry, EntryKind, Fetch, Fetched, HardState, Index, Instance, Message, Recovered, Restart,
    ServerId, Timestamp, WriteId,
};
use store::Store;

pub const ELECTION_TIMEOUT: Range<Duration> =
    Duration::from_millis(150)..Duration::from_millis(300);

/// The wall clocks' time when a cluster starts, in milliseconds since 1970.
pub const WALL_START_MS: u64 = 1_700_000_000_000;

pub struct Cluster {
    pub servers: Vec<Server>,
    /// Milliseconds since the start; servers' clocks begin at one second.
    pub now_ms: u64,
    /// Pairs between which messages are lost, in this direction.
    pub cut: BTreeSet<(ServerId, ServerId)>,
    /// Draws a message's fate, 0 to 99: below this it is lost.
    pub loss_percent: u64,
    /// Messages take up to this long, each its own time.
    pub delay_ms_max: u64,
    /// Messages under way, by when they arrive.
    delayed: BTreeMap<(u64, u64), (ServerId, Message)>,
    pub random: Random,
    pub limits: Limits,
    pub item_bytes_max: usize,
    pub memory_limit_bytes: u64,
    /// Followers forward what clients ask for.
    pub forwards: bool,
    /// What servers forward, or answer to it, is kept here (from, to), for a test to deliver.
    pub keeps_forwards: bool,
    pub kept: Vec<(ServerId, ServerId, ForwardMessage)>,
}

pub struct Server {
    pub id: ServerId,
    /// `None` while it is down.
    pub evaluator: Option<Evaluator>,
    pub wall_offset_ms: i64,
    /// Syncs do not complete.
    pub disk_stalled: bool,
    inbox: VecDeque<Input>,
    /// Written, not synced.
    writes: VecDeque<raft::Write>,
    /// What is on disk.
    hard_state: HardState,
    log: Vec<Entry>,
    fetches: VecDeque<Fetch>,
    restart: Restart,
    outcomes: BTreeMap<ConnectionId, Vec<Outcome>>,
    /// Heartbeats sent; a read round shows in them.
    pub heartbeats_sent: u64,
    /// The state is not what the log makes of it.
    pub misled: bool,
    /// States frozen for a snapshot, and those that were of no use any more.
    pub frozen: Vec<FrozenState>,
    pub retired: Vec<Store>,
    /// Connections that are to be closed.
    pub cut_off: Vec<u64>,
}

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

impl Cluster {
    pub fn new(servers: u64) -> Cluster {
        Cluster::with_limits(servers, Limits::default())
    }

    pub fn with_limits(servers: u64, limits: Limits) -> Cluster {
        let mut cluster = Cluster {
            servers: Vec::new(),
            now_ms: 0,
            cut: BTreeSet::new(),
            loss_percent: 0,
            delay_ms_max: 0,
            delayed: BTreeMap::new(),
            random: Random(1),
            limits,
            item_bytes_max: ITEM_BYTES_MAX_DEFAULT,
            memory_limit_bytes: 0,
            forwards: false,
            keeps_forwards: false,
            kept: Vec::new(),
        };
        for id in 1..=servers {
            cluster.servers.push(Server {
                id: ServerId(id),
                evaluator: None,
                wall_offset_ms: 0,
                disk_stalled: false,
                inbox: VecDeque::new(),
                writes: VecDeque::new(),
                hard_state: HardState::default(),
                log: Vec::new(),
                fetches: VecDeque::new(),
                restart: Restart(0),
                outcomes: BTreeMap::new(),
                heartbeats_sent: 0,
                misled: false,
                frozen: Vec::new(),
                retired: Vec::new(),
                cut_off: Vec::new(),
            });
        }
        for id in 1..=servers {
            cluster.start(ServerId(id));
        }
        cluster
    }

    /// A cluster that has a leader which serves, and all of whose servers are seated.
    pub fn serving(servers: u64) -> Cluster {
        let mut cluster = Cluster::new(servers);
        cluster.await_leader();
        cluster.await_seats();
        cluster
    }

    /// The same, whose followers forward; with the leader and a follower.
    pub fn forwarding(servers: u64, limits: Limits) -> (Cluster, ServerId, ServerId) {
        let mut cluster = Cluster::with_limits(servers, limits);
        for id in cluster.ids() {
            cluster.crash(id);
        }
        cluster.forwards = true;
        for id in cluster.ids() {
            cluster.start(id);
        }
        let leader = cluster.await_leader();
        cluster.await_seats();
        let follower = cluster.others(leader)[0];
        (cluster, leader, follower)
    }

    /// Delivers all that was kept, in order.
    pub fn deliver_kept(&mut self) {
        for (from, to, message) in std::mem::take(&mut self.kept) {
            self.deliver(to, Input::Forward(from, message));
        }
    }

    fn await_seats(&mut self) {
        for _ in 0..1000 {
            self.run_ms(1);
            let mut ids = self.ids().into_iter();
            if ids.all(|id| self.status(id).seats_filled == self.servers.len()) {
                return;
            }
        }
        panic!("a server is not seated within 1 s");
    }

    pub fn server(&mut self, id: ServerId) -> &mut Server {
        &mut self.servers[id.0 as usize - 1]
    }

    pub fn evaluator(&mut self, id: ServerId) -> &mut Evaluator {
        let server = self.server(id);
        server.evaluator.as_mut().expect("the server is up")
    }

    pub fn status(&mut self, id: ServerId) -> Status {
        self.evaluator(id).status()
    }

    pub fn start(&mut self, id: ServerId) {
        let members = (1..=self.servers.len() as u64).map(member).collect();
        let (limits, item_bytes_max) = (self.limits, self.item_bytes_max);
        let memory_limit_bytes = self.memory_limit_bytes;
        let forwards = self.forwards;
        let now = self.now(id);
        let server = self.server(id);
        assert!(server.evaluator.is_none(), "server {id} is up");
        server.restart.0 += 1;
        let config = Config {
            id,
            members,
            instance: Instance(100 + id.0),
            restart: server.restart,
            election_timeout: ELECTION_TIMEOUT,
            heartbeat: Duration::from_millis(50),
            seed: id.0 * 1000 + server.restart.0,
            item_bytes_max,
            memory_limit_bytes,
            forwards,
            limits,
        };
        server.evaluator = Some(Evaluator::new(
            config,
            server.recovered(),
            Store::new(id.0),
            now,
        ));
        server.disk_stalled = false;
        for peer in 1..=self.servers.len() as u64 {
            if peer != id.0 {
                let peer_id = ServerId(peer);
                let peer = self.server(peer_id);
                peer.inbox.push_back(Input::Connected(id));
                peer.inbox.push_back(Input::ForwardLink(id, true));
                self.input(id, Input::ForwardLink(peer_id, true));
            }
        }
    }

    /// What is not synced is lost, and so are the clients' connections.
    pub fn crash(&mut self, id: ServerId) {
        let server = self.server(id);
        server.evaluator = None;
        server.inbox.clear();
        server.writes.clear();
        server.fetches.clear();
        server.outcomes.clear();
        for peer in self.others(id) {
            self.input(peer, Input::ForwardLink(id, false));
        }
    }

    /// Both clocks of a server.
    pub fn now(&self, id: ServerId) -> Now {
        let server = &self.servers[id.0 as usize - 1];
        let wall = WALL_START_MS.saturating_add_signed(server.wall_offset_ms) + self.now_ms;
        Now {
            monotonic: Timestamp((1000 + self.now_ms) * 1_000_000),
            wall: LogTime(wall),
        }
    }

    /// Lets what is under way come to rest, without time passing.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.turns() {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// One turn of every server that has something to do; false if none has.
    pub fn turns(&mut self) -> bool {
        self.deliver_delayed();
        let mut busy = false;
        for at in 0..self.servers.len() {
            busy |= self.turn(ServerId(at as u64 + 1));
        }
        busy
    }

    fn turn(&mut self, id: ServerId) -> bool {
        let now = self.now(id);
        let server = self.server(id);
        server.sync();
        server.fetch();
        let inputs = std::mem::take(&mut server.inbox);
        let Some(evaluator) = server.evaluator.as_mut() else {
            return false;
        };
        let is_due = evaluator.next_deadline() <= now.monotonic;
        if inputs.is_empty() && !is_due {
            return false;
        }
        for input in inputs {
            evaluator.step(now, input);
        }
        if is_due {
            evaluator.step(now, Input::Tick);
        }
        let output = evaluator.take_output(now);
        self.hand_out(id, output);
        true
    }

    fn hand_out(&mut self, id: ServerId, output: Output) {
        let server = self.server(id);
        server.writes.extend(output.write);
        server.fetches.extend(output.fetches);
        server.frozen.extend(output.frozen);
        server.retired.extend(output.retired);
        let overlong = output.overlong.iter();
        server
            .cut_off
            .extend(overlong.map(|connection| connection.0));
        if let Some(job) = output.hash_job {
            let hash = job.store.state_hash() ^ u64::from(server.misled);
            server.inbox.push_back(Input::StateHashed(job.index, hash));
        }
        for outcomes in output.outcomes {
            let all = server.outcomes.entry(outcomes.connection).or_default();
            all.extend(outcomes.outcomes);
        }
        for (to, message) in output.messages {
            self.send(id, to, message);
        }
        for (to, message) in output.forwards {
            if self.keeps_forwards {
                self.kept.push((id, to, message));
            } else if !self.cut.contains(&(id, to)) {
                self.deliver(to, Input::Forward(id, message));
            }
        }
        if let Some(hash) = output.state_hash {
            for to in self.others(id) {
                if !self.cut.contains(&(id, to)) {
                    self.deliver(to, Input::PeerStateHash(id, hash));
                }
            }
        }
    }

    fn send(&mut self, from: ServerId, to: ServerId, message: Message) {
        if let raft::Body::Heartbeat(_) = message.body {
            self.server(from).heartbeats_sent += 1;
        }
        let lost = self.loss_percent > 0 && self.random.below(100) < self.loss_percent;
        if lost || self.cut.contains(&(from, to)) {
            return;
        }
        if self.delay_ms_max == 0 {
            let wall = self.now(from).wall;
            self.deliver(to, Input::PeerClock(from, wall));
            self.deliver(to, Input::Message(message));
        } else {
            let at = self.now_ms + self.random.below(self.delay_ms_max + 1);
            let tie = self.random.next();
            self.delayed.insert((at, tie), (to, message));
        }
    }

    pub fn deliver(&mut self, to: ServerId, input: Input) {
        let to = self.server(to);
        if to.evaluator.is_some() {
            to.inbox.push_back(input);
        }
    }

    fn deliver_delayed(&mut self) {
        while let Some(first) = self.delayed.first_entry()
            && first.key().0 <= self.now_ms
        {
            let (to, message) = first.remove();
            self.deliver(to, Input::Message(message));
        }
    }

    pub fn run_ms(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_ms += 1;
            self.settle();
        }
    }

    /// The one leader that serves, once there is one.
    pub fn await_leader(&mut self) -> ServerId {
        for _ in 0..5000 {
            self.run_ms(1);
            if let Some(leader) = self.leader()
                && self.probe(leader)
            {
                return leader;
            }
        }
        panic!("no leader within 5 s");
    }

    /// The server that leads in the highest term, with a majority.
    pub fn leader(&mut self) -> Option<ServerId> {
        let statuses = self.servers.iter().filter_map(|server| {
            let status = server.evaluator.as_ref()?.status();
            (status.role == "Leader" && status.quorum).then_some((status.term, status.id))
        });
        statuses.max().map(|(_, id)| id)
    }

    /// True if a read is answered at once.
    fn probe(&mut self, id: ServerId) -> bool {
        let connection = u64::MAX;
        self.send_batch(id, connection, 0, vec![get("probe")]);
        self.settle();
        let outcomes = self.outcomes(id, connection);
        self.disconnect(id, connection);
        self.settle();
        matches!(outcomes[..], [Outcome::Done(_)])
    }

    /// Hands a batch to a server; nothing happens before `settle` or `run_ms`.
    pub fn send_batch(
        &mut self,
        to: ServerId,
        connection: u64,
        epoch: u64,
        commands: Vec<Command>,
    ) {
        let batch = Batch {
            connection: ConnectionId(connection),
            epoch,
            commands,
            is_local: false,
        };
        self.server(to).inbox.push_back(Input::Batch(batch));
    }

    pub fn input(&mut self, to: ServerId, input: Input) {
        self.server(to).inbox.push_back(input);
    }

    pub fn disconnect(&mut self, from: ServerId, connection: u64) {
        self.input(from, Input::Disconnected(ConnectionId(connection)));
    }

    /// What a connection was told since the last call.
    pub fn outcomes(&mut self, at: ServerId, connection: u64) -> Vec<Outcome> {
        let outcomes = self.server(at).outcomes.remove(&ConnectionId(connection));
        outcomes.unwrap_or_default()
    }

    /// Sends a batch of epoch 0 and gives what has become of it when all has come to rest.
    pub fn ask(&mut self, to: ServerId, connection: u64, commands: Vec<Command>) -> Vec<Outcome> {
        self.send_batch(to, connection, 0, commands);
        self.settle();
        self.outcomes(to, connection)
    }

    /// Nothing gets from this server to others, or back.
    pub fn isolate(&mut self, id: ServerId) {
        for other in 1..=self.servers.len() as u64 {
            self.cut.insert((id, ServerId(other)));
            self.cut.insert((ServerId(other), id));
        }
    }

    pub fn heal(&mut self) {
        self.cut.clear();
        self.loss_percent = 0;
        self.delay_ms_max = 0;
        let ids: Vec<ServerId> = self.ids();
        for server in &mut self.servers {
            server.disk_stalled = false;
            let peers = ids.iter().filter(|id| **id != server.id);
            server.inbox.extend(peers.map(|id| Input::Connected(*id)));
        }
    }

    pub fn is_up(&self, id: ServerId) -> bool {
        self.servers[id.0 as usize - 1].evaluator.is_some()
    }

    pub fn ids(&self) -> Vec<ServerId> {
        self.servers.iter().map(|server| server.id).collect()
    }

    pub fn others(&self, than: ServerId) -> Vec<ServerId> {
        self.ids().into_iter().filter(|id| *id != than).collect()
    }

    pub fn stall_disks(&mut self, ids: &[ServerId]) {
        for id in ids {
            self.server(*id).disk_stalled = true;
        }
    }
}

impl Server {
    /// Completes the syncs of what was written.
    fn sync(&mut self) {
        if self.disk_stalled {
            return;
        }
        let mut synced: Option<WriteId> = None;
        while let Some(write) = self.writes.pop_front() {
            if let Some(from) = write.truncate_from {
                self.log.truncate(from.0 as usize - 1);
            }
            self.log.extend(write.entries);
            self.hard_state = write.hard_state.unwrap_or(self.hard_state);
            synced = Some(write.id);
        }
        if let Some(id) = synced {
            self.inbox.push_back(Input::Persisted(id));
        }
    }

    fn fetch(&mut self) {
        while let Some(fetch) = self.fetches.pop_front() {
            let last = (fetch.to.0 as usize).min(self.log.len());
            let entries = self.log.get(fetch.from.0 as usize - 1..last);
            let entries = entries.unwrap_or_default().iter().take(3).cloned();
            self.inbox.push_back(Input::Fetched(Fetched {
                fetch,
                entries: entries.collect(),
            }));
        }
    }

    fn recovered(&self) -> Recovered {
        let mut term_starts: Vec<raft::Position> = Vec::new();
        for entry in &self.log {
            if term_starts.last().is_none_or(|last| last.term < entry.term) {
                term_starts.push(entry.position());
            }
        }
        let configurations = self.log.iter();
        let configurations = configurations.filter(|it| it.kind == EntryKind::Configuration);
        Recovered {
            hard_state: self.hard_state,
            term_starts,
            last: self.log.last().map(Entry::position).unwrap_or_default(),
            configurations: configurations.cloned().collect(),
            ..Recovered::default()
        }
    }

    /// The commands' entry at an index of the log on disk.
    pub fn entry(&self, index: Index) -> &Entry {
        &self.log[index.0 as usize - 1]
    }
}

fn member(id: u64) -> Member {
    Member {
        id: ServerId(id),
        host: Arc::from(format!("host{id}")),
        client_port: 9000 + id as u16,
        rpc_port: 9100 + id as u16,
        http_port: 9200 + id as u16,
    }
}

pub fn key(key: &str) -> Key {
    Key::new(Bytes::copy_from_slice(key.as_bytes())).expect("a key of a test is short")
}

pub fn store(mode: StoreMode, name: &str, exptime: i32, value: &str) -> Command {
    Command::Write(Write::Store(command::Store {
        mode,
        key: key(name),
        flags: 0,
        exptime: Exptime(exptime),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }))
}

pub fn set(name: &str, value: &str) -> Command {
    store(StoreMode::Set, name, 0, value)
}

pub fn set_for(name: &str, exptime: i32) -> Command {
    store(StoreMode::Set, name, exptime, "v")
}

pub fn incr(name: &str) -> Command {
    Command::Write(Write::Arithmetic {
        key: key(name),
        direction: Direction::Increment,
        delta: 1,
    })
}

pub fn get(name: &str) -> Command {
    Command::Read(Read::Get {
        keys: [key(name)].into_iter().collect(),
    })
}

pub fn stats() -> Command {
    Command::Stats(Stats::General)
}

pub fn stored() -> Outcome {
    Outcome::Done(Reply::Stored)
}

pub fn no_leader() -> Outcome {
    Outcome::NotDone(Refusal::NoLeader)
}

pub fn redirect(to: ServerId) -> Outcome {
    Outcome::NotDone(Refusal::Redirect {
        host: Arc::from(format!("host{to}")),
        client_port: 9000 + to.0 as u16,
    })
}

/// The value that a `get` of one key was answered with.
pub fn value(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::Done(Reply::Hits(hits)) => {
            let hit = hits.first()?;
            Some(std::str::from_utf8(hit.value()).expect("tests store text"))
        }
        other => panic!("{other:?} is not the outcome of a get that was carried out"),
    }
}

pub fn is_stats(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done(Reply::Stats(_)))
}

/// The value of a line of `stats`.
pub fn stat(outcome: &Outcome, name: &str) -> String {
    let Outcome::Done(Reply::Stats(lines)) = outcome else {
        panic!("{outcome:?} is not of stats");
    };
    let line = lines.iter().find(|(found, _)| found == name);
    line.unwrap_or_else(|| panic!("no line {name}")).1.clone()
}
