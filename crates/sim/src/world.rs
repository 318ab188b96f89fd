//! The simulated world: everything that happens is an event in one queue, and all chance comes from
//! one seed, so that a run is the same every time.

use std::cmp::Reverse;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt::Arguments;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use evaluator::{Status, Stream};
use protocol::Limits;
use raft::{Entry, Fetch, Index, Restart, ServerId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use wal::{MemoryDisk, Wal};

use crate::check::{History, Logs, OpId, Witness};
use crate::client::Client;
use crate::coverage::Coverage;
use crate::host::{Host, ItemLimits, Way, read_all};
use crate::options::{Fault, Options};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1000 * MS;

/// A server that owes answers gives one within this time (rule 53), give or take a slow turn.
const ANSWER_WITHIN: Duration = Duration::from_millis(1000);

/// A leader with a majority has heard from it within this time: an election timeout, a heartbeat
/// that was on its way, and a slow turn.
const HEARD_WITHIN: Duration = Duration::from_millis(450);

/// No more happens in a simulated second, about twenty times as much as in the busiest one seen:
/// messages that give rise to ever more messages end in this and not in an endless run.
const EVENTS_PER_SECOND_MAX: u64 = 2_000_000;

/// Something that will happen.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Turn(ServerId),
    /// The write that is under way at this server's disk is synced.
    Synced(ServerId),
    /// This server's snapshot is written out.
    Snapshot(ServerId),
    /// This server reads one of its files again.
    Scrub(ServerId),
    /// The first server sends the second a piece of a snapshot.
    Transfer(ServerId, ServerId),
    Fetched(ServerId, Fetch),
    Frame {
        from: ServerId,
        to: ServerId,
        bytes: Bytes,
        sent_at: u64,
    },
    /// The first server notices that the connection of the second is gone, over which that had
    /// forwarded.
    FollowerGone(ServerId, ServerId, Stream),
    /// The first server tries to reach the second.
    Connect(ServerId, ServerId),
    /// Bytes of a client reach its server, and with them the beginnings and the ends of these
    /// operations.
    ToServer {
        server: ServerId,
        connection: u64,
        bytes: Bytes,
        begins: Vec<OpId>,
        ends: Vec<OpId>,
    },
    /// Bytes of a server, written at event `written`, reach a client.
    ToClient {
        client: usize,
        connection: u64,
        bytes: Bytes,
        written: u64,
    },
    /// A client's socket takes more replies.
    Writable {
        server: ServerId,
        connection: u64,
    },
    /// A client has closed its half of its connection.
    Ended {
        server: ServerId,
        connection: u64,
    },
    /// A client has closed its connection.
    Left {
        server: ServerId,
        connection: u64,
    },
    /// A server has hashed its state behind this entry.
    Hashed(ServerId, Index, u64),
    Client(usize),
    Start(ServerId),
    Kill(ServerId),
    PowerCut(ServerId),
    Resume(ServerId),
    /// Cuts end.
    Mend,
    /// A full disk has space again.
    Space(ServerId),
    Chaos,
    Heal,
    /// The healed cluster is looked at.
    Settle,
}

impl Event {
    /// The server to which it happens, in one of its lives.
    fn server(&self) -> Option<ServerId> {
        match self {
            Event::Turn(id) | Event::Synced(id) | Event::Fetched(id, _) => Some(*id),
            Event::Snapshot(id) | Event::Scrub(id) | Event::Hashed(id, ..) => Some(*id),
            Event::FollowerGone(id, ..) => Some(*id),
            Event::Connect(from, _) | Event::Transfer(from, _) => Some(*from),
            Event::ToServer { server, .. }
            | Event::Writable { server, .. }
            | Event::Ended { server, .. }
            | Event::Left { server, .. } => Some(*server),
            Event::Frame { .. }
            | Event::ToClient { .. }
            | Event::Client(_)
            | Event::Start(_)
            // Whichever life it is in.
            | Event::Kill(_)
            | Event::PowerCut(_)
            | Event::Resume(_)
            | Event::Mend
            | Event::Space(_)
            | Event::Chaos
            | Event::Heal
            | Event::Settle => None,
        }
    }
}

/// When an event happens, its number, and the life of the server that it is meant for.
type Due = (u64, u64, u64);

/// A whole simulated cluster with its clients.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) random: StdRng,
    /// Nanoseconds since the beginning.
    pub(crate) now: u64,
    queue: BinaryHeap<Reverse<Due>>,
    events: BTreeMap<u64, Event>,
    /// Events that have happened, with this one.
    pub(crate) number: u64,
    /// Of the next event that is planned.
    next_number: u64,
    /// The present second, and the events before it.
    second: (u64, u64),
    pub(crate) hosts: Vec<Host>,
    pub(crate) clients: Vec<Client>,
    pub(crate) next_connection: u64,
    /// Whom frames do not reach, from where.
    pub(crate) cuts: BTreeSet<(ServerId, ServerId)>,
    /// The ways of frames that are slow, or have lost any.
    pub(crate) links: BTreeMap<(ServerId, ServerId), Way>,
    /// What waits for servers that are paused.
    waiting: BTreeMap<ServerId, Vec<(u64, Event)>>,
    pub(crate) healed: bool,
    pub(crate) logs: Logs,
    pub(crate) witness: Witness,
    pub(crate) history: History,
    pub(crate) coverage: Coverage,
    /// Of all that happened.
    digest: DefaultHasher,
    traces: bool,
    /// The world's time, for whoever reports a failure.
    clock: Arc<AtomicU64>,
    pub(crate) settling: Option<crate::settle::Settling>,
    over: bool,
    /// The known mistake in the servers' code.
    #[cfg(feature = "mutants")]
    pub(crate) mutant: Option<mutants::Mutant>,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub coverage: Coverage,
    /// Of everything that happened: equal for equal seeds.
    pub digest: u64,
}

impl World {
    pub(crate) fn new(options: Options, traces: bool, clock: Arc<AtomicU64>) -> World {
        let mut random = StdRng::seed_from_u64(options.seed ^ 0x5157_4f52);
        let ids = (1..=options.servers).map(ServerId);
        let hosts = ids.clone().map(|id| Host {
            id,
            disk: MemoryDisk::new(),
            rate: random.random_range(100 - options.drift_percent..=100 + options.drift_percent),
            wall_offset_ms: if options.has(Fault::Offsets) {
                random.random_range(-20_000..=20_000)
            } else {
                0
            },
            process: None,
            incarnation: 0,
            paused: false,
            stalled_until: 0,
            fails_sync: false,
            wiped: false,
            rotten: false,
            has_rotted: false,
            recovering: false,
            misreads: false,
            restart: Restart(0),
            item_limits: ItemLimits::draw(&options, &mut random),
        });
        let hosts = hosts.collect();
        let clients = (0..options.clients).map(|_| Client::new()).collect();
        let mut world = World {
            random,
            now: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            number: 0,
            next_number: 1,
            second: (0, 0),
            hosts,
            clients,
            next_connection: 1,
            cuts: BTreeSet::new(),
            links: BTreeMap::new(),
            waiting: BTreeMap::new(),
            healed: false,
            logs: Logs::new(ids.clone()),
            witness: Witness::new(),
            history: History::default(),
            coverage: Coverage::default(),
            digest: DefaultHasher::new(),
            traces,
            clock,
            settling: None,
            over: false,
            #[cfg(feature = "mutants")]
            mutant: None,
            options,
        };
        if world.options.restored {
            world.begin_with_backup();
        }
        for id in ids {
            let after = world.random.random_range(0..200 * MS);
            world.schedule(after, Event::Start(id));
        }
        for client in 0..world.clients.len() {
            let after = world.random.random_range(0..SECOND);
            world.schedule(after, Event::Client(client));
        }
        world.schedule(500 * MS, Event::Chaos);
        let faulty = world.options.faulty_ms * MS;
        world.schedule(faulty, Event::Heal);
        world
    }

    /// Runs to the end.
    pub(crate) fn run(mut self) -> Finished {
        while !self.over {
            let Some(Reverse((at, number, life))) = self.queue.pop() else {
                panic!("nothing will ever happen again");
            };
            self.now = at;
            self.clock.store(at, Ordering::Relaxed);
            if let Some(event) = self.events.remove(&number) {
                self.happens(event, life);
            }
        }
        Finished {
            coverage: self.coverage,
            digest: self.digest.finish(),
        }
    }

    pub(crate) fn ends(&mut self) {
        self.over = true;
    }

    pub(crate) fn schedule(&mut self, after: u64, event: Event) {
        self.schedule_at(self.now.saturating_add(after), event);
    }

    pub(crate) fn schedule_at(&mut self, at: u64, event: Event) {
        let life = event.server().map_or(0, |id| self.host(id).incarnation);
        let number = self.next_number;
        self.next_number += 1;
        self.queue.push(Reverse((at.max(self.now), number, life)));
        self.events.insert(number, event);
    }

    pub(crate) fn host(&self, id: ServerId) -> &Host {
        &self.hosts[id.0 as usize - 1]
    }

    pub(crate) fn host_mut(&mut self, id: ServerId) -> &mut Host {
        &mut self.hosts[id.0 as usize - 1]
    }

    pub(crate) fn ids(&self) -> Vec<ServerId> {
        self.hosts.iter().map(|host| host.id).collect()
    }

    /// Up to this long.
    pub(crate) fn up_to(&mut self, most: u64) -> u64 {
        self.random.random_range(0..=most)
    }

    /// Notes down what happens, in the digest always.
    pub(crate) fn note(&mut self, what: Arguments<'_>, content: &[u8]) {
        self.digest.write_u64(self.now);
        self.digest.write(content);
        if self.traces {
            println!("{:>12.6} {what}", self.now as f64 / 1e9);
        }
    }

    fn happens(&mut self, event: Event, life: u64) {
        self.coverage.events += 1;
        self.number += 1;
        self.check_busyness();
        if let Some(id) = event.server() {
            let host = self.host(id);
            if host.incarnation != life || host.process.is_none() {
                return;
            }
            if host.paused {
                self.waiting.entry(id).or_default().push((life, event));
                return;
            }
        }
        match event {
            Event::Turn(id) => self.turn(id),
            Event::Synced(id) => self.synced(id),
            Event::Snapshot(id) => self.snapshot(id),
            Event::Scrub(id) => self.scrub(id),
            Event::Hashed(id, index, hash) => self.hashed(id, index, hash),
            Event::Transfer(from, to) => self.transfers(from, to),
            Event::Fetched(id, fetch) => self.fetched(id, fetch),
            Event::Frame {
                from,
                to,
                bytes,
                sent_at,
            } => self.frame(from, to, bytes, sent_at),
            Event::Connect(from, to) => self.connect(from, to),
            Event::FollowerGone(id, follower, stream) => self.follower_gone(id, follower, stream),
            Event::ToServer {
                server,
                connection,
                bytes,
                begins,
                ends,
            } => self.server_receives(server, connection, &bytes, (&begins, &ends)),
            Event::ToClient {
                client,
                connection,
                bytes,
                written,
            } => self.client_hears(client, connection, &bytes, written),
            Event::Writable { server, connection } => self.writable(server, connection),
            Event::Ended { server, connection } => self.half_closed(server, connection),
            Event::Left { server, connection } => self.left(server, connection),
            Event::Client(client) => self.client_acts(client),
            Event::Start(id) => self.start(id),
            Event::Kill(id) => self.kill(id),
            Event::PowerCut(id) => self.power_cut(id),
            Event::Resume(id) => self.resume(id),
            Event::Mend => self.mend(),
            Event::Space(id) => self.space(id),
            Event::Chaos => self.chaos(),
            Event::Heal => self.heal(),
            Event::Settle => self.settle(),
        }
    }

    fn check_busyness(&mut self) {
        let second = self.now / SECOND;
        if self.second.0 < second {
            self.second = (second, self.number);
        }
        let events = self.number - self.second.1;
        assert!(
            events <= EVENTS_PER_SECOND_MAX,
            "{events} events in one second"
        );
    }

    /// A server that was paused goes on, with all that has waited for it.
    pub(crate) fn resume(&mut self, id: ServerId) {
        if !std::mem::take(&mut self.host_mut(id).paused) {
            return;
        }
        self.note(format_args!("server {id} goes on"), &[]);
        for (life, event) in self.waiting.remove(&id).unwrap_or_default() {
            self.happens(event, life);
        }
    }

    /// What waits for a server that ended while it was paused is gone.
    pub(crate) fn forget_waiting(&mut self, id: ServerId) {
        self.waiting.remove(&id);
        self.host_mut(id).paused = false;
    }

    /// Delivers a frame that was kept while its receiver was paused, or sets it aside.
    pub(crate) fn set_aside_frame(&mut self, to: ServerId, event: Event) {
        let life = self.host(to).incarnation;
        self.waiting.entry(to).or_default().push((life, event));
    }

    /// After each turn: what all can see of a server is held against all others.
    pub(crate) fn check(&mut self, id: ServerId) {
        let Some(process) = &self.host(id).process else {
            return;
        };
        process.evaluator.raft().check();
        let status = process.evaluator.status();
        assert!(
            status.last_applied <= status.commit_index
                && status.commit_index <= status.last_log_index,
            "server {id} has applied {}, committed {}, and its log ends at {}",
            status.last_applied,
            status.commit_index,
            status.last_log_index,
        );
        let leads = status.role == "Leader";
        let begins = leads && self.logs.leads(id, status.term);
        if begins {
            let wall = self.host(id).now(self.now).wall;
            self.witness.leads(status.term, wall.0, self.now);
        }
        let new = self
            .logs
            .commits(id, (status.term, leads), status.commit_index);
        self.witnesses(&new);
        self.check_recovery(id);
        self.check_bounds(id, &status);
        if begins {
            self.coverage.leaders += 1;
            let now = self.host(id).now(self.now).monotonic;
            if let Some(process) = &mut self.host_mut(id).process {
                process.leads_since = now;
            }
            self.note(
                format_args!("server {id} leads term {}", status.term),
                &status.term.0.to_le_bytes(),
            );
        }
        self.check_majority(id, &status);
        // To walk over all shards of a store takes longer than a turn.
        if self.random.random_range(0..128) == 0 {
            self.check_state(id, status.last_applied);
        }
        if self.random.random_range(0..2000) == 0 {
            self.check_disk(id);
        }
        if self.random.random_range(0..64) == 0 {
            let processes = self.hosts.iter().filter_map(|host| host.process.as_ref());
            raft::check_cluster(processes.map(|process| process.evaluator.raft()));
        }
    }

    /// A server that was recovering and is not any more has everything on its disk.
    fn check_recovery(&mut self, id: ServerId) {
        let host = self.host(id);
        let Some(process) = host.process.as_ref().filter(|_| host.recovering) else {
            return;
        };
        let status = process.evaluator.raft().status();
        assert!(
            !status.stranded,
            "server {id} sees no majority of sound ones"
        );
        if !status.recovering {
            self.host_mut(id).recovering = false;
            self.note(format_args!("server {id} has recovered"), &[]);
            self.check_disk(id);
        }
    }

    /// A server could lose its power at this moment, and start again with all that it has promised.
    fn check_disk(&mut self, id: ServerId) {
        let seed = self.random.random();
        let segment_bytes = self.options.segment_bytes;
        let host = self.host(id);
        // They may rightly be told that their disk is not to be trusted.
        if host.rotten || host.misreads {
            return;
        }
        let options = wal::Options {
            server_id: id,
            segment_bytes,
            seed,
            heals: self.options.servers > 2,
        };
        let disk = host.disk.after_power_cut(seed);
        // What a start needs may be the space of a segment.
        disk.set_full(false);
        let opened = Wal::open(disk, options);
        let (wal, opened) =
            opened.unwrap_or_else(|error| panic!("server {id} would not start again: {error}"));
        let recovered = &opened.recovered;
        let entries = read_all(&wal.reader(), recovered);
        self.logs.would_recover(id, recovered, &entries);
        self.coverage.disks_checked += 1;
    }

    /// The witness sees entries that were committed: with the code as it should be, whatever
    /// mistake the servers have.
    fn witnesses(&mut self, entries: &[Entry]) {
        #[cfg(feature = "mutants")]
        mutants::switch_on(None);
        for entry in entries {
            self.witness
                .apply(entry, self.now, &mut self.history, &mut self.coverage);
        }
        #[cfg(feature = "mutants")]
        mutants::switch_on(self.mutant);
    }

    /// No more is under way than the limits say, and nobody waits for ever (rules 53 and 59).
    fn check_bounds(&mut self, id: ServerId, status: &Status) {
        let commands_max = self.options.owed_commands_max + Limits::default().run_commands_max;
        if status.forwards || (status.role == "Leader" && status.quorum) {
            assert!(
                status.commands_owed <= commands_max,
                "server {id} owes {} answers, and {} are the most",
                status.commands_owed,
                self.options.owed_commands_max,
            );
        }
        let world_now = self.now;
        let host = self.host_mut(id);
        let now = host.now(world_now).monotonic;
        let Some(process) = &mut host.process else {
            return;
        };
        let graced = std::mem::take(&mut process.graced);
        for (connection, (owed, since)) in &mut process.owed {
            if graced {
                // Whoever waits for a message may have longer anyway.
                *since = now.max(*since);
            }
            let waits = now.since(*since);
            assert!(
                waits <= ANSWER_WITHIN,
                "server {id} owes connection {connection} {owed} answers and has given none for {} \
                 ms",
                waits.as_millis(),
            );
        }
    }

    /// A leader that says it has its majority has heard from one lately (rule 29).
    fn check_majority(&self, id: ServerId, status: &Status) {
        let host = self.host(id);
        let Some(process) = &host.process else {
            return;
        };
        if !(status.role == "Leader" && status.quorum) {
            return;
        }
        let now = host.now(self.now).monotonic;
        // After a pause it first takes in what peers have sent (rule 51).
        if now < process.pauses.until {
            return;
        }
        let heard = process.heard.values();
        let lately = heard.filter(|at| now.since(**at) <= HEARD_WITHIN).count();
        let since = now.since(process.leads_since);
        assert!(
            since <= HEARD_WITHIN || lately + 1 > self.hosts.len() / 2,
            "server {id} believes that it leads a majority, and has heard from {lately} of {} \
             servers lately",
            self.hosts.len(),
        );
    }

    /// The state of a server is the one that the committed log says.
    pub(crate) fn check_state(&self, id: ServerId, applied: Index) {
        let Some(process) = &self.host(id).process else {
            return;
        };
        let Some(expected) = self.witness.hash(applied) else {
            return;
        };
        let hash = process.evaluator.state_hash();
        assert!(
            hash == expected,
            "server {id} has the state {hash:016x} at index {applied}, the log says {expected:016x}",
        );
    }
}
