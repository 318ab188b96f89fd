//! One machine: its disk, its clocks, and the server on it while that runs.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::BytesMut;
use command::{LogTime, Outcome};
use evaluator::{
    Batch, Config, ConnectionId, Evaluator, ForwardMessage, Input, Limits, Member, Now, Stream,
};
use protocol::Session;
use raft::{Fetch, Fetched, Reader, Restart, Seating, ServerId, Timestamp, WriteId};
use rand::RngExt;
use rand::rngs::StdRng;
use store::Store;
use wal::{MemoryDisk, Opened, Wal};
use wire::Identity;

use crate::options::{Fault, Options};
use crate::snapshots::SnapshotWork;

/// What the wall clocks show when the world begins, in milliseconds since 1970.
pub(crate) const WALL_START_MS: u64 = 1_700_000_000_000;

/// What the monotonic clocks show then.
const MONOTONIC_START: Duration = Duration::from_secs(1);

/// An entry of many commands takes a millisecond, and the longest log a second or two.
const CATCH_UP_BYTES_PER_SECOND: u64 = 16 << 20;

pub(crate) const ELECTION_TIMEOUT: std::ops::Range<Duration> =
    Duration::from_millis(150)..Duration::from_millis(300);
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(50);

/// One machine.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) id: ServerId,
    pub(crate) disk: MemoryDisk,
    /// Nanoseconds of its clocks for each hundred of the world.
    pub(crate) rate: u64,
    pub(crate) wall_offset_ms: i64,
    pub(crate) process: Option<Process>,
    /// Starts so far.
    pub(crate) incarnation: u64,
    pub(crate) paused: bool,
    /// Its disk takes this long, at least, for each sync until then.
    pub(crate) stalled_until: u64,
    /// The next sync fails.
    pub(crate) fails_sync: bool,
    /// Its disk was lost once.
    pub(crate) wiped: bool,
    /// Bytes on its disk have become others, or are gone, since its last start has looked.
    pub(crate) rotten: bool,
    /// The same at any time: a start does not read all.
    pub(crate) has_rotted: bool,
    /// It is marked so.
    pub(crate) recovering: bool,
    /// Its disk may give back other bytes than it holds.
    pub(crate) misreads: bool,
    /// Of the last start from this disk.
    pub(crate) restart: Restart,
    /// What it holds to, and all others, while it leads.
    pub(crate) item_limits: ItemLimits,
}

/// A host's own settings about items.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ItemLimits {
    /// The largest that `append` may make.
    item_bytes_max: usize,
    /// What all may take together; 0 for no limit.
    memory_limit_bytes: u64,
}

impl ItemLimits {
    /// Each host draws its own: what holds then changes with the leader.
    pub(crate) fn draw(options: &Options, random: &mut StdRng) -> ItemLimits {
        if !options.has(Fault::Small) {
            return ItemLimits {
                item_bytes_max: command::ITEM_BYTES_MAX_DEFAULT,
                memory_limit_bytes: 0,
            };
        }
        ItemLimits {
            item_bytes_max: random.random_range(200..2000),
            memory_limit_bytes: match random.random_range(0..2) {
                0 => 0,
                _ => random.random_range(300..6000),
            },
        }
    }
}

impl Host {
    /// Something of what it has acknowledged may be on the others' disks alone.
    pub(crate) fn is_hurt(&self) -> bool {
        self.wiped || self.rotten || self.recovering
    }

    pub(crate) fn now(&self, world: u64) -> Now {
        let passed = self.passed(world);
        let wall = WALL_START_MS.saturating_add_signed(self.wall_offset_ms) + passed / 1_000_000;
        Now {
            monotonic: Timestamp(MONOTONIC_START.as_nanos() as u64 + passed),
            wall: LogTime(wall),
        }
    }

    fn passed(&self, world: u64) -> u64 {
        (u128::from(world) * u128::from(self.rate) / 100) as u64
    }

    /// When the world's time is this much of the host's monotonic clock.
    pub(crate) fn world_time(&self, at: Timestamp) -> u64 {
        let passed = u128::from(at.0.saturating_sub(MONOTONIC_START.as_nanos() as u64));
        let world = (passed * 100).div_ceil(u128::from(self.rate));
        u64::try_from(world).unwrap_or(u64::MAX)
    }
}

/// The way of frames from one server to another.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Way {
    /// What was sent up to then was lost with a connection.
    pub(crate) lost_until: u64,
    /// A slow one is busy until then, with what is urgent and with all.
    pub(crate) urgent_until: u64,
    pub(crate) busy_until: u64,
    /// What is forwarded arrives in order, the last of it then.
    pub(crate) forwards_until: u64,
}

/// What a client's connection gives the evaluator.
#[derive(Debug)]
pub(crate) enum FromClient {
    Batch(Batch),
    Disconnected(ConnectionId),
    /// The client has sent all it ever will, and waits for no message any longer.
    StopWaiting(ConnectionId),
    /// What a follower forwards waits its turn with them.
    Forward(ServerId, ForwardMessage),
    FollowerGone(ServerId, Stream),
}

/// A connection from this server to another.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    /// The version that the handshake agreed upon, while there is a connection.
    pub(crate) version: Option<u8>,
    /// When the peer is to be told the next time what the clock shows.
    pub(crate) tells_clock_at: u64,
}

/// A client's connection, as the server has it.
#[derive(Debug)]
pub(crate) struct ServerSide {
    pub(crate) session: Session,
    /// Received by the kernel, and not read.
    pub(crate) unread: BytesMut,
    pub(crate) outcomes: VecDeque<Vec<Outcome>>,
    /// The evaluator knows of it.
    pub(crate) known: bool,
    /// The kernel takes no more replies for the moment.
    pub(crate) is_full: bool,
    /// The client has sent all it ever will; and all of that was read.
    pub(crate) ended: bool,
    pub(crate) end_seen: bool,
}

/// A server that runs.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) evaluator: Evaluator,
    pub(crate) wal: Wal<MemoryDisk>,
    pub(crate) reader: wal::Reader<MemoryDisk>,
    pub(crate) scrub: wal::Scrub<MemoryDisk>,
    /// Handed out, and not given to the log yet.
    pub(crate) writes: Vec<raft::Write>,
    pub(crate) syncing: bool,
    /// Whether the log has its reserve, as the evaluator was told last.
    pub(crate) has_reserve: bool,
    pub(crate) peers: VecDeque<Input>,
    pub(crate) persisted: Option<WriteId>,
    pub(crate) fetched: VecDeque<Fetched>,
    pub(crate) clients: VecDeque<FromClient>,
    pub(crate) connections: BTreeMap<u64, ServerSide>,
    pub(crate) links: BTreeMap<ServerId, Link>,
    /// The newest stream of each follower that has forwarded something to this server.
    pub(crate) streams: BTreeMap<ServerId, Stream>,
    /// When its next turn is.
    pub(crate) turn_at: u64,
    /// Its turns end by then.
    pub(crate) busy_until: u64,
    pub(crate) pauses: Pauses,
    pub(crate) started_at: u64,
    pub(crate) snapshot_work: SnapshotWork,
    /// Told to stop, and when it stops waiting for a successor.
    pub(crate) stops_by: Option<u64>,
    pub(crate) opened: Opened,
    /// When a peer's last message was taken in.
    pub(crate) heard: BTreeMap<ServerId, Timestamp>,
    /// Since when it leads; the beginning if it does not.
    pub(crate) leads_since: Timestamp,
    /// How many answers the evaluator owes to a connection, and since when it has given it none.
    pub(crate) owed: BTreeMap<u64, (usize, Timestamp)>,
    /// This turn followed a pause.
    pub(crate) graced: bool,
    members: Vec<ServerId>,
}

/// Notices when a server was not run for a while, as the server's own loop does (rule 51).
#[derive(Debug)]
pub(crate) struct Pauses {
    pub(crate) expected: Timestamp,
    pub(crate) until: Timestamp,
}

impl Pauses {
    /// Whether the turn that begins now follows a pause.
    pub(crate) fn begin(&mut self, now: Timestamp) -> bool {
        let gap = now.since(self.expected);
        self.expected = now;
        let paused = gap > ELECTION_TIMEOUT.start;
        if paused {
            self.until = now + HEARTBEAT;
        }
        paused
    }
}

impl Process {
    pub(crate) fn new(
        id: ServerId,
        (wal, opened): (Wal<MemoryDisk>, Opened),
        options: &Options,
        (seed, item_limits, store): (u64, ItemLimits, Store),
        (started_at, now): (u64, Now),
    ) -> Process {
        let members: Vec<ServerId> = (1..=options.servers).map(ServerId).collect();
        let config = Config {
            id,
            members: members.iter().copied().map(member).collect(),
            instance: opened.instance,
            restart: opened.restart,
            election_timeout: ELECTION_TIMEOUT,
            heartbeat: HEARTBEAT,
            seed,
            item_bytes_max: item_limits.item_bytes_max,
            memory_limit_bytes: item_limits.memory_limit_bytes,
            forwards: options.forwards.has(id.0),
            limits: Limits {
                append_bytes_max: options.append_bytes_max,
                window_bytes_max: options.window_bytes_max,
                cache_bytes_max: options.cache_bytes_max,
                catch_up_bytes_per_second: CATCH_UP_BYTES_PER_SECOND,
                deferral: Duration::from_millis(options.deferral_ms),
                unsettled_bytes_max: options.unsettled_bytes_max,
                owed_commands_max: options.owed_commands_max,
                forwarded_bytes_max: options.unsettled_bytes_max,
                snapshot_entries: options.snapshot_entries,
                state_hash_interval: Duration::from_millis(options.state_hash_ms),
                ..Limits::default()
            },
        };
        let peers = members.iter().filter(|peer| **peer != id);
        Process {
            evaluator: Evaluator::new(config, opened.recovered.clone(), store, now),
            reader: wal.reader(),
            scrub: wal.scrub(),
            wal,
            writes: Vec::new(),
            syncing: false,
            has_reserve: true,
            peers: VecDeque::new(),
            persisted: None,
            fetched: VecDeque::new(),
            clients: VecDeque::new(),
            connections: BTreeMap::new(),
            links: peers.map(|peer| (*peer, Link::default())).collect(),
            streams: BTreeMap::new(),
            turn_at: u64::MAX,
            busy_until: 0,
            pauses: Pauses {
                expected: now.monotonic,
                until: Timestamp(0),
            },
            started_at,
            snapshot_work: SnapshotWork::new(&opened),
            stops_by: None,
            opened,
            heard: BTreeMap::new(),
            leads_since: now.monotonic,
            owed: BTreeMap::new(),
            graced: false,
            members,
        }
    }

    /// All entries of its log.
    pub(crate) fn entries(&self) -> Vec<raft::Entry> {
        read_all(&self.reader, &self.opened.recovered)
    }

    /// What it presents to others.
    pub(crate) fn identity(&self, id: ServerId) -> Identity {
        let seating: Seating = self.evaluator.seating();
        let configuration = self.evaluator.configuration();
        Identity {
            id,
            instance: self.opened.instance,
            restart: self.opened.restart,
            seating,
            members: match configuration.filter(|_| seating.is_seated()) {
                Some(configuration) => {
                    let members = configuration.members.iter();
                    members.map(|member| (member.id, member.seat)).collect()
                }
                None => self.members.iter().map(|id| (*id, None)).collect(),
            },
            members_hash: 1,
            backup: self.opened.backup.map_or(0, |backup| backup.0),
        }
    }

    /// Whether the evaluator would take something in now.
    pub(crate) fn has_inputs(&self, in_grace: bool) -> bool {
        self.persisted.is_some()
            || !self.fetched.is_empty()
            || !self.peers.is_empty()
            || (!in_grace && !self.clients.is_empty() && self.evaluator.takes_clients())
    }
}

/// The entries of the log that were recovered, which must be there.
pub(crate) fn read_all(
    reader: &wal::Reader<MemoryDisk>,
    recovered: &raft::Recovered,
) -> Vec<raft::Entry> {
    let mut entries: Vec<raft::Entry> = Vec::new();
    let (mut from, to) = (recovered.before.index.next(), recovered.last.index);
    while from <= to {
        let fetch = Fetch {
            reader: Reader::Apply,
            from,
            to,
            bytes_max: 1 << 20,
        };
        let read = reader.read(&fetch);
        let read = read.unwrap_or_else(|error| panic!("what was recovered is there: {error}"));
        let last = read.last();
        let last = last.unwrap_or_else(|| panic!("entry {from} of {to} can't be read back"));
        from = last.index.next();
        entries.extend(read);
    }
    entries
}

fn member(id: ServerId) -> Member {
    let port = 9000 + 10 * (id.0 as u16 - 1);
    Member {
        id,
        host: format!("host{id}").into(),
        client_port: port,
        rpc_port: port + 1,
        http_port: port + 2,
    }
}
