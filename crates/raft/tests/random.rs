//! Random faults on a simulated network and disk: whatever is lost, late, doubled, cut or crashed,
//! nothing acknowledged is lost, no read is stale, and once all is well again the cluster serves.

mod simulated;
mod snapshots;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use bytes::Bytes;
use quorate_raft::{
    Candidacy, Counters, Index, Input, Position, ReadId, Role, ServerId, Timestamp,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use simulated::{Cluster, Packet, Server, Sizes, Stepped};
use snapshots::{Life, Transfer};

const MS: u64 = 1_000_000;

/// How often each fault happens; drawn for each seed, and each absent from half of them.
#[derive(Clone, Copy, Debug)]
struct Faults {
    /// Of each message, in a thousand.
    lost: u32,
    doubled: u32,
    /// Delayed by up to a second: old messages find what new ones do not.
    late: u32,
    /// Of each step of 10 ms, in ten thousand.
    crash: u32,
    cut: u32,
    /// The longest sync.
    sync_ms: u64,
    /// Crashes hit servers while a write waits for its sync.
    crash_unsynced: bool,
    /// All servers crash at once, and again while they start.
    storm: u32,
    /// A server is not stepped for up to two seconds, while messages for it wait.
    pause: u32,
    /// A leader is asked to hand over.
    transfer: u32,
    /// A server becomes willing to lead, or less so.
    candidacy: u32,
    /// A server of a minority loses its disk, once all are seated.
    wipe: u32,
    /// A server begins to write a snapshot, drops what its log need not hold, loses a transfer that
    /// it sends.
    snapshot: u32,
    drop_log: u32,
    lost_transfer: u32,
    /// How much faster or slower each clock goes, in percent.
    drift: u64,
}

impl Faults {
    fn draw(random: &mut StdRng) -> Faults {
        let mut sometimes = |most: u32| {
            if random.random_bool(0.5) {
                random.random_range(1..=most)
            } else {
                0
            }
        };
        Faults {
            lost: sometimes(200),
            doubled: sometimes(200),
            late: sometimes(50),
            crash: sometimes(200),
            cut: sometimes(200),
            sync_ms: u64::from(sometimes(40)),
            crash_unsynced: sometimes(1) > 0,
            storm: sometimes(20),
            pause: sometimes(100),
            transfer: sometimes(100),
            candidacy: sometimes(100),
            wipe: sometimes(100),
            snapshot: sometimes(1_000),
            drop_log: sometimes(1_000),
            lost_transfer: sometimes(5_000),
            drift: u64::from(sometimes(10)),
        }
    }

    fn none() -> Faults {
        Faults {
            lost: 0,
            doubled: 0,
            late: 0,
            crash: 0,
            cut: 0,
            sync_ms: 0,
            crash_unsynced: false,
            storm: 0,
            pause: 0,
            transfer: 0,
            candidacy: 0,
            wipe: 0,
            snapshot: 100,
            drop_log: 100,
            lost_transfer: 0,
            drift: 0,
        }
    }
}

#[derive(Debug)]
enum Event {
    Deliver(Packet),
    Sync(ServerId),
    Fetch(ServerId),
    /// What one process is told of its snapshots.
    Told(ServerId, Life, Input),
    /// A snapshot has reached another server, in the life of both processes.
    Transferred(Box<Transfer>),
    Start(ServerId),
    Resume(ServerId),
    /// Every 10 ms: clocks, clients and faults.
    Step,
}

struct World {
    random: StdRng,
    cluster: Cluster,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    pending: BTreeMap<u64, Event>,
    sequence: u64,
    faults: Faults,
    cuts: Vec<(ServerId, ServerId)>,
    /// The percentage of time that passes on each server's clock.
    clocks: BTreeMap<ServerId, u64>,
    /// What waits for servers that are not stepped.
    paused: BTreeMap<ServerId, Vec<Event>>,
    /// Servers that came back with an empty disk after all were seated: they count for nothing.
    wiped: BTreeSet<ServerId>,
    /// Proposals that their leader has not seen committed, with their payload.
    proposed: BTreeMap<(ServerId, Position), Bytes>,
    acknowledged: BTreeMap<Index, Bytes>,
    /// The highest acknowledged index when each read was asked for.
    reads: BTreeMap<(ServerId, ReadId), Index>,
    reads_done: u64,
    crashes: u64,
    pauses: u64,
    transfers: u64,
    snapshots: u64,
    drops: u64,
    /// What the servers that crashed had counted.
    counted: Counters,
    number: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = StdRng::seed_from_u64(seed);
        let servers = [1, 2, 3, 3, 5, 5, 7][random.random_range(0..7)];
        let small = random.random_bool(0.5);
        let sizes = if small {
            Sizes {
                append_bytes_max: 100,
                window_bytes_max: 200,
                cache_bytes_max: 100,
                catch_up_bytes_per_second: 10_000,
                deferral_ms: 5,
            }
        } else {
            Sizes::default()
        };
        let mut cluster = Cluster::new(servers, seed, sizes);
        for server in &mut cluster.servers {
            server.syncs_at_once = false;
        }
        let faults = Faults::draw(&mut random);
        let clocks = cluster.ids().into_iter();
        let clocks = clocks.map(|id| {
            (
                id,
                random.random_range(100 - faults.drift..=100 + faults.drift),
            )
        });
        let clocks = clocks.collect();
        let mut world = World {
            random,
            cluster,
            now: 0,
            events: BinaryHeap::new(),
            pending: BTreeMap::new(),
            sequence: 0,
            faults,
            cuts: Vec::new(),
            clocks,
            paused: BTreeMap::new(),
            wiped: BTreeSet::new(),
            proposed: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            reads: BTreeMap::new(),
            reads_done: 0,
            crashes: 0,
            pauses: 0,
            transfers: 0,
            snapshots: 0,
            drops: 0,
            counted: Counters::default(),
            number: 0,
        };
        world.schedule(0, Event::Step);
        world
    }

    fn schedule(&mut self, after: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((self.now + after, self.sequence)));
        self.pending.insert(self.sequence, event);
    }

    fn run(&mut self, until: u64) {
        while self.now < until {
            let Some(Reverse((at, sequence))) = self.events.pop() else {
                return;
            };
            self.now = self.now.max(at);
            for server in &mut self.cluster.servers {
                server.now = Timestamp(self.now * self.clocks[&server.id] / 100);
            }
            if let Some(event) = self.pending.remove(&sequence) {
                self.happen(event);
            }
        }
    }

    fn happen(&mut self, event: Event) {
        let of = match &event {
            Event::Deliver(packet) => Some(packet.to),
            Event::Sync(id) | Event::Fetch(id) | Event::Told(id, ..) => Some(*id),
            Event::Transferred(transfer) => Some(transfer.from.0),
            Event::Start(_) | Event::Resume(_) | Event::Step => None,
        };
        if let Some(waiting) = of.and_then(|id| self.paused.get_mut(&id)) {
            waiting.push(event);
            return;
        }
        match event {
            Event::Deliver(packet) => self.deliver(packet),
            Event::Sync(id) => {
                if let Some(stepped) = self.cluster.sync(id) {
                    self.stepped(id, stepped);
                }
            }
            Event::Fetch(id) => {
                if let Some(stepped) = self.cluster.answer_fetch(id) {
                    self.stepped(id, stepped);
                }
            }
            Event::Told(id, life, input) => {
                if self.runs(id, life) {
                    self.input(id, input);
                }
            }
            Event::Transferred(transfer) => self.transferred(*transfer),
            Event::Start(id) => self.start(id),
            Event::Resume(id) => self.resume(id),
            Event::Step => self.step(),
        }
    }

    /// What has waited is taken in before the clock is looked at (rule 25).
    fn resume(&mut self, id: ServerId) {
        for event in self.paused.remove(&id).unwrap_or_default() {
            self.happen(event);
        }
    }

    fn deliver(&mut self, packet: Packet) {
        if !self.cuts.contains(&(packet.from, packet.to)) {
            let id = packet.to;
            let stepped = self.cluster.deliver(packet);
            self.stepped(id, stepped);
        }
    }

    fn start(&mut self, id: ServerId) {
        if self.cluster.server(id).raft.is_none() {
            self.cluster.start(id);
            self.input(id, Input::Tick);
        }
    }

    fn step(&mut self) {
        for id in self.cluster.ids() {
            if self.paused.contains_key(&id) {
                continue;
            }
            let server = self.cluster.server(id);
            let due = server.raft.as_ref().map(|raft| raft.next_deadline());
            if due.is_some_and(|due| due <= server.now) {
                self.input(id, Input::Tick);
            }
            self.client(id);
            self.snapshot(id);
            self.drop_log(id);
            self.crash(id);
            self.pause(id);
        }
        self.storm();
        self.wipe();
        self.cut();
        self.schedule(10 * MS, Event::Step);
    }

    fn chance(&mut self, of_ten_thousand: u32) -> bool {
        self.random
            .random_ratio(of_ten_thousand.min(10_000), 10_000)
    }

    /// Every server is asked, whether it leads or not: one that was deposed must not answer.
    fn client(&mut self, id: ServerId) {
        if self.random.random_bool(0.3) {
            self.number += 1;
            let payload = Bytes::from(format!("command {}", self.number));
            let stepped = self.cluster.step(id, Input::Propose(payload.clone()));
            if let Some(position) = stepped.accepted {
                self.proposed.insert((id, position), payload);
            }
            self.stepped(id, stepped);
        }
        if self.random.random_bool(0.3) && self.cluster.server(id).raft.is_some() {
            self.number += 1;
            let read = ReadId(self.number);
            let floor = self.acknowledged.keys().last().copied().unwrap_or_default();
            self.reads.insert((id, read), floor);
            self.input(id, Input::Read(read));
        }
        if self.chance(self.faults.transfer) {
            self.input(id, Input::Transfer);
            let raft = self.cluster.server(id).raft.as_ref();
            self.transfers += u64::from(raft.is_some_and(|raft| raft.status().transferring));
        }
        if self.chance(self.faults.candidacy) {
            let all = [Candidacy::Willing, Candidacy::Reluctant, Candidacy::Barred];
            let candidacy = all[self.random.random_range(0..3)];
            self.input(id, Input::Candidacy(candidacy));
        }
    }

    fn crash(&mut self, id: ServerId) {
        let server = self.cluster.server(id);
        if server.raft.is_none() {
            return;
        }
        let biased = self.faults.crash_unsynced && server.disk.has_pending();
        let chance = self.faults.crash * if biased { 20 } else { 1 };
        if self.chance(chance) {
            self.crash_now(id, 2_000);
        }
    }

    /// It starts again within so many milliseconds.
    fn crash_now(&mut self, id: ServerId, down_ms_max: u64) {
        let Some(raft) = &self.cluster.server(id).raft else {
            return;
        };
        add(&mut self.counted, raft.status().counters);
        self.crashes += 1;
        let kept = self.random.random_range(0..3);
        let torn = self.random.random_range(0..3);
        self.cluster.crash(id, kept, torn);
        self.paused.remove(&id);
        self.proposed.retain(|(leader, _), _| *leader != id);
        self.reads.retain(|(leader, _), _| *leader != id);
        let after = self.random.random_range(1..down_ms_max) * MS;
        self.schedule(after, Event::Start(id));
    }

    fn storm(&mut self) {
        if self.chance(self.faults.storm) {
            for id in self.cluster.ids() {
                self.crash_now(id, 500);
            }
        }
    }

    fn pause(&mut self, id: ServerId) {
        if self.chance(self.faults.pause) && self.cluster.server(id).raft.is_some() {
            self.pauses += 1;
            self.paused.insert(id, Vec::new());
            let after = self.random.random_range(10..2_000) * MS;
            self.schedule(after, Event::Resume(id));
        }
    }

    /// A server loses its disk, if the others are a majority that knows of each of its seats.
    fn wipe(&mut self) {
        let servers = self.cluster.servers.len();
        let seated = |server: &Server| {
            let status = server.raft.as_ref().map(|raft| raft.status());
            status.is_some_and(|status| status.hard_state.seating.is_seated())
        };
        let all_seated = self
            .cluster
            .servers
            .iter()
            .all(|server| self.wiped.contains(&server.id) || seated(server));
        let minority = (servers - 1) / 2;
        if self.wiped.len() < minority && all_seated && self.chance(self.faults.wipe) {
            let id = ServerId(self.random.random_range(1..=servers as u64));
            if self.wiped.insert(id) {
                self.crash_now(id, 2_000);
                self.cluster.server_mut(id).disk = self.cluster.fresh_disk();
            }
        }
    }

    /// A server with another disk than the one that has its seat leads and elects nobody.
    fn check_wiped(&self) {
        for id in &self.wiped {
            let Some(raft) = &self.cluster.server(*id).raft else {
                continue;
            };
            let status = raft.status();
            assert!(
                status.role != Role::Leader && !status.hard_state.seating.is_seated(),
                "server {id} was wiped: {status:?}",
            );
        }
    }

    fn cut(&mut self) {
        if self.random.random_ratio(self.faults.cut, 10_000) {
            let ids = self.cluster.ids();
            for from in &ids {
                for to in &ids {
                    if self.random.random_bool(0.3) {
                        self.cuts.push((*from, *to));
                    }
                }
            }
        } else if self.random.random_bool(0.01) {
            self.cuts.clear();
        }
    }

    fn input(&mut self, id: ServerId, input: Input) {
        let stepped = self.cluster.step(id, input);
        self.stepped(id, stepped);
    }

    fn stepped(&mut self, id: ServerId, stepped: Stepped) {
        for packet in std::mem::take(&mut self.cluster.network) {
            self.send(packet);
        }
        if self.cluster.server(id).disk.has_pending() {
            let after = self.random.random_range(0..=self.faults.sync_ms * MS);
            self.schedule(after, Event::Sync(id));
        }
        if !self.cluster.server(id).fetches.is_empty() {
            self.schedule(MS, Event::Fetch(id));
        }
        for follower in stepped.installs {
            self.install(id, follower);
        }
        for entry in stepped.committed {
            if let Some(payload) = self.proposed.remove(&(id, entry.position())) {
                assert_eq!(payload, entry.payload, "entry {} is another", entry.index);
                self.acknowledged.insert(entry.index, payload);
            }
        }
        for (read, index) in stepped.reads {
            let floor = self
                .reads
                .remove(&(id, read))
                .expect("each read is answered once");
            assert!(
                index >= floor,
                "a read at {index} came after {floor} was acknowledged"
            );
            self.reads_done += 1;
        }
        for read in stepped.refused_reads {
            self.reads
                .remove(&(id, read))
                .expect("each read is answered once");
        }
        self.check_wiped();
    }

    fn send(&mut self, packet: Packet) {
        if self.random.random_ratio(self.faults.lost, 1000) {
            return;
        }
        if self.random.random_ratio(self.faults.doubled, 1000) {
            let after = self.random.random_range(0..20 * MS);
            self.schedule(after, Event::Deliver(packet.clone()));
        }
        let longest = if self.random.random_ratio(self.faults.late, 1000) {
            1000
        } else {
            5
        };
        let after = self.random.random_range(0..longest * MS);
        self.schedule(after, Event::Deliver(packet));
    }

    fn counters(&self) -> Counters {
        let mut total = self.counted;
        for raft in self
            .cluster
            .servers
            .iter()
            .filter_map(|server| server.raft.as_ref())
        {
            add(&mut total, raft.status().counters);
        }
        total
    }

    /// All faults end; the cluster must serve again, and all servers must hold the same.
    fn heal(&mut self) {
        self.faults = Faults::none();
        self.cuts.clear();
        for id in self.cluster.ids() {
            self.resume(id);
            if self.cluster.server(id).raft.is_none() {
                self.cluster.start(id);
            }
            self.input(id, Input::Candidacy(Candidacy::Willing));
        }
        let acknowledged = self.acknowledged.len();
        let reads = self.reads_done;
        self.run(self.now + 5_000 * MS);
        assert!(
            self.acknowledged.len() > acknowledged,
            "no write succeeds: {:#?}",
            self.cluster
        );
        assert!(self.reads_done > reads, "no read succeeds");
        for (index, payload) in &self.acknowledged {
            let held = self
                .cluster
                .committed
                .get(index)
                .map(|(_, payload)| payload);
            assert_eq!(held, Some(payload), "the acknowledged entry {index}");
        }

        let sound = self.cluster.servers.iter();
        let sound = sound.filter(|server| !self.wiped.contains(&server.id));
        let applied: Vec<_> = sound
            .filter_map(|server| server.raft.as_ref().map(|raft| raft.status().last_applied))
            .collect();
        let most = applied.iter().max().copied().unwrap_or_default();
        for index in &applied {
            assert!(most - *index < 100, "servers applied {applied:?}");
        }
    }
}

/// What runs have reached: a test whose faults never happen proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reached {
    acknowledged: usize,
    reads: u64,
    crashes: u64,
    pauses: u64,
    transfers: u64,
    wiped: u64,
    snapshots: u64,
    drops: u64,
    counters: Counters,
}

fn run_seed(seed: u64) -> Reached {
    let mut world = World::new(seed);
    world.run(10_000 * MS);
    world.heal();
    Reached {
        acknowledged: world.acknowledged.len(),
        reads: world.reads_done,
        crashes: world.crashes,
        pauses: world.pauses,
        transfers: world.transfers,
        snapshots: world.snapshots,
        drops: world.drops,
        wiped: world.wiped.len() as u64,
        counters: world.counters(),
    }
}

fn add(total: &mut Counters, more: Counters) {
    total.elections += more.elections;
    total.elections_won += more.elections_won;
    total.suspensions += more.suspensions;
    total.truncations += more.truncations;
    total.fetches += more.fetches;
    total.installs += more.installs;
    total.installed += more.installed;
    total.from_strangers += more.from_strangers;
    total.from_impostors += more.from_impostors;
    total.stale += more.stale;
    total.malformed += more.malformed;
}

#[test]
fn nothing_acknowledged_is_lost_whatever_happens() {
    let seeds: u64 = std::env::var("QUORATE_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(60);
    let first: u64 = std::env::var("QUORATE_SEED")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let mut total = Reached::default();
    for seed in first..first + seeds {
        let done = std::panic::catch_unwind(|| run_seed(seed));
        let Ok(reached) = done else {
            panic!("seed {seed} failed: QUORATE_SEED={seed} QUORATE_SEEDS=1 replays it");
        };
        total.acknowledged += reached.acknowledged;
        total.reads += reached.reads;
        total.crashes += reached.crashes;
        total.pauses += reached.pauses;
        total.transfers += reached.transfers;
        total.wiped += reached.wiped;
        total.snapshots += reached.snapshots;
        total.drops += reached.drops;
        add(&mut total.counters, reached.counters);
    }
    println!("{total:?}");
    if seeds >= 60 {
        let Counters {
            elections_won,
            suspensions,
            truncations,
            fetches,
            installs,
            installed,
            stale,
            malformed,
            ..
        } = total.counters;
        assert_eq!(malformed, 0, "servers sent what they must not: {total:?}");
        let events = [
            elections_won,
            suspensions,
            truncations,
            fetches,
            installs,
            installed,
            stale,
            total.snapshots,
            total.drops,
            total.crashes,
            total.pauses,
            total.transfers,
            total.wiped,
        ];
        for reached in events
            .into_iter()
            .chain([total.acknowledged as u64, total.reads])
        {
            assert!(reached >= 10, "the runs reached too little: {total:?}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..3 {
        assert_eq!(run_seed(seed), run_seed(seed));
    }
}
