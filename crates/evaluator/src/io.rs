//! The surface of the evaluator: what goes in, what comes out. `Evaluator::step` takes one `Input`,
//! `Evaluator::take_output` gives what all inputs of a turn came to.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use command::{Command, LogTime, Outcome};
use raft::{
    Fetch, Fetched, Index, Instance, Message, Position, Restart, ServerId, Snapshot, Timestamp,
    WriteId,
};
use serde::{Deserialize, Serialize};
use store::Store;

use crate::forward::{ForwardMessage, Stream};
use crate::snapshots::{FrozenState, LoadedState};
use crate::state_hashes::{HashJob, StateHash};

/// What is fixed while a server runs.
#[derive(Clone, Debug)]
pub struct Config {
    pub id: ServerId,
    pub members: Vec<Member>,
    pub instance: Instance,
    pub restart: Restart,
    pub election_timeout: Range<Duration>,
    pub heartbeat: Duration,
    pub seed: u64,
    /// The largest item that this server, as leader, lets append and prepend make.
    pub item_bytes_max: usize,
    /// What this server, as leader, says that all items may take together; 0 for no limit.
    pub memory_limit_bytes: u64,
    /// While it follows, it sends its clients' commands to the leader, rather than its clients.
    pub forwards: bool,
    pub limits: Limits,
}

/// How much may be under way, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most that one AppendEntries carries, but for a single larger entry.
    pub append_bytes_max: usize,
    /// The most that is under way to one follower without an answer.
    pub window_bytes_max: usize,
    /// How much of the applied log is kept in memory for followers that are a little behind.
    pub cache_bytes_max: usize,
    /// How fast a follower that lacks more than that is sent it, as long as a majority is level:
    /// as fast as a snapshot is written, which the log's syncs beside it hardly notice.
    pub catch_up_bytes_per_second: u64,
    /// How long entries may be kept from followers that a majority is there without. Zero for not at
    /// all.
    pub deferral: Duration,
    /// No more commands of clients are taken while more than this is not on this server's disk, or
    /// not committed. What is under way is to be committed within the time that a command has, or
    /// nobody knows what became of it; and twice the window keeps every follower busy.
    pub unsettled_bytes_max: usize,
    /// Nor while more than this waits to be proposed: the next turn encodes all of it, checks its
    /// sums and starts to send it to every peer. One batch may go beyond it.
    pub staged_bytes_max: usize,
    /// Nor while more commands than this are owed an answer: what a turn may have to carry out is
    /// bounded in time by it, however small the commands are.
    pub owed_commands_max: usize,
    /// Nor while they are to look up more keys than this: a line may name half a million.
    pub owed_keys_max: usize,
    /// Nor, by a server that forwards, while more than this is with the leader.
    pub forwarded_bytes_max: usize,
    /// A snapshot of the state is due when so many entries, or so many bytes of them, were applied
    /// since the last one was begun, and the first sooner, on each server at another time.
    pub snapshot_entries: u64,
    pub snapshot_bytes: u64,
    /// The states of all servers are hashed and compared this often, while something is written.
    pub state_hash_interval: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            append_bytes_max: 1 << 20,
            window_bytes_max: 8 << 20,
            cache_bytes_max: 16 << 20,
            catch_up_bytes_per_second: 20 << 20,
            deferral: Duration::from_millis(5),
            unsettled_bytes_max: 16 << 20,
            staged_bytes_max: 2 << 20,
            owed_commands_max: 16 << 10,
            owed_keys_max: 512 << 10,
            forwarded_bytes_max: 4 << 20,
            snapshot_entries: 1_000_000,
            snapshot_bytes: 256 << 20,
            state_hash_interval: Duration::from_secs(60),
        }
    }
}

/// A member as the cluster file names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: ServerId,
    /// What clients and peers are told.
    pub host: Arc<str>,
    pub client_port: u16,
    pub rpc_port: u16,
    pub http_port: u16,
}

/// Both clocks of this server, read once a turn (rule 48).
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For elections and deadlines; never goes back.
    pub monotonic: Timestamp,
    /// For the stamps that a leader puts into entries; may jump.
    pub wall: LogTime,
}

/// One client connection, or one HTTP request. The caller draws it and never uses it again. A little
/// is kept about each that has sent a batch, until `Input::Disconnected`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnectionId(pub u64);

/// Commands of one connection, in order.
#[derive(Clone, Debug)]
pub struct Batch {
    pub connection: ConnectionId,
    /// How many times this connection had been shown a refusal before these commands were
    /// received (`protocol::Session` counts). A refusal of a command of epoch e refuses every
    /// later command of the connection up to epoch e (rule 54).
    pub epoch: u64,
    pub commands: Vec<Command>,
    /// Never forwarded: an answer is to say that this server leads, and what it has applied.
    pub is_local: bool,
}

/// One thing that happened.
#[derive(Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    Batch(Batch),
    /// The connection is gone: what it waits for is done without an answer.
    Disconnected(ConnectionId),
    /// The client is waiting for a message, and will not wait any longer: it has closed its half of the
    /// connection.
    StopWaiting(ConnectionId),
    Message(Message),
    /// What this peer's wall clock shows.
    PeerClock(ServerId, LogTime),
    /// What `Output::hash_job` came to: the hash of the state behind this entry.
    StateHashed(Index, u64),
    /// The hash of a state of this peer.
    PeerStateHash(ServerId, StateHash),
    Persisted(WriteId),
    Fetched(Fetched),
    /// A connection to this peer was made.
    Connected(ServerId),
    /// Whether there is a connection to this peer for what is forwarded. What was given to one that is
    /// gone may not have got there.
    ForwardLink(ServerId, bool),
    /// A message about forwarded commands, of this peer. What comes from a follower is to be given
    /// in order with what clients send, and held back as that is.
    Forward(ServerId, ForwardMessage),
    /// The connection over which this follower has forwarded is gone, and no stream later than
    /// this one has come over it.
    FollowerGone(ServerId, Stream),
    /// Hand leadership over and take no more commands: the server is about to stop.
    Transfer,
    /// Whether the log has the reserve that it should have (rule 9), when that changes; it has before
    /// the first.
    Reserve(bool),
    /// What `Output::frozen` gave is a durable snapshot.
    SnapshotWritten(Snapshot),
    /// It will not be one: there was no space for it.
    SnapshotFailed,
    /// What the disk has of the log up to this entry, or of a snapshot, has rotted: a snapshot is due
    /// as soon as all that is applied.
    SnapshotWanted(Index),
    /// The log on disk begins behind this entry now.
    Dropped(Position),
    /// A leader's snapshot is whole and durable here, and loaded; the message is the one that came
    /// with it.
    Install(Message, LoadedState),
    /// The transfer of a snapshot to this server ended, well or not.
    InstallEnded(ServerId),
}

/// What a turn came to.
#[derive(Debug, Default)]
pub struct Output {
    pub write: Option<raft::Write>,
    pub messages: Vec<(ServerId, Message)>,
    pub fetches: Vec<Fetch>,
    pub outcomes: Vec<Outcomes>,
    /// What servers are to be told about forwarded commands, in order: `ForwardMessage` says over
    /// whose connection.
    pub forwards: Vec<(ServerId, ForwardMessage)>,
    /// Clients to be disconnected, since the leader can't give this server what they have asked
    /// for.
    pub overlong: Vec<ConnectionId>,
    /// The state, to be written out as a snapshot. One at a time.
    pub frozen: Option<FrozenState>,
    /// The state, to be hashed. One at a time.
    pub hash_job: Option<HashJob>,
    /// To be told to all peers; nothing depends on its getting there.
    pub state_hash: Option<StateHash>,
    /// Servers that need the newest snapshot; each once until its `Input::InstallEnded`.
    pub installs: Vec<ServerId>,
    /// States that are of no use any more. To drop one takes a while.
    pub retired: Vec<Store>,
}

/// Outcomes of a connection's next commands, in order, one for each. Those of one batch may come
/// in several of these, and those of several batches in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcomes {
    pub connection: ConnectionId,
    pub outcomes: Vec<Outcome>,
}
