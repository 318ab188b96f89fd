//! The whole surface of the core: what goes in, what comes out. `Raft::step` takes one `Input`,
//! `Raft::take_output` gives what all inputs since the last one came to.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::members::Configuration;
use crate::message::Message;
use crate::types::{
    Entry, HardState, Index, Instance, Position, ReadId, Restart, ServerId, Snapshot, Term,
    Timestamp, WriteId,
};

/// What is fixed while a server runs.
#[derive(Clone, Debug)]
pub struct Config {
    pub id: ServerId,
    /// The members that a new cluster starts with, each with an address that is opaque here.
    pub members: Vec<(ServerId, Bytes)>,
    pub instance: Instance,
    /// Larger than at any start before, and already durable (rule 15).
    pub restart: Restart,
    /// T to 2T; each election draws its own (§5.2).
    pub election_timeout: Range<Duration>,
    /// At most a third of T (rule 26).
    pub heartbeat: Duration,
    /// Seeds the core's only random source.
    pub seed: u64,
    /// The most that one AppendEntries carries, but for a single larger entry.
    pub append_bytes_max: usize,
    /// No further entries go to a follower while this much is under way to it without an answer.
    pub window_bytes_max: usize,
    /// How much of the applied log is kept in memory for followers that are a little behind.
    pub cache_bytes_max: usize,
    /// A follower that lacks more than that is sent so much of it a second, and twice what is
    /// appended meanwhile, until it is level: as long as a majority is level without it.
    pub catch_up_bytes_per_second: u64,
    /// How long entries may be kept from followers that a majority is there without, so that several
    /// go in one message. Zero: everybody is sent them at once.
    pub deferral: Duration,
}

/// What the log held at start (`wal` reads it back).
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Something that this server had promised may be missing here: entries, and votes. What there
    /// is, is as it was at some time.
    pub recovering: bool,
    pub hard_state: HardState,
    /// The entry before the first that the log holds; 0, 0 while it holds all of them.
    pub before: Position,
    /// The newest snapshot; at or behind `before`, and not behind `last`.
    pub snapshot: Option<Snapshot>,
    /// Every change of term in the log: the first entry of each, in order.
    pub term_starts: Vec<Position>,
    /// The last entry; `before` in an empty log.
    pub last: Position,
    /// All configuration entries of the log that were not superseded, in order.
    pub configurations: Vec<Entry>,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// What a peer sent; `InstallSnapshot` when the snapshot is whole and durable here, and its state
    /// at hand.
    Message(Message),
    /// A payload for the log. `Raft::step` answers where it went, or `None` if it is not taken.
    Propose(Bytes),
    /// Reads that arrived before this call and wait for a confirmation of leadership.
    Read(ReadId),
    /// This write and all before it are on disk.
    Persisted(WriteId),
    /// Answers a `Fetch`.
    Fetched(Fetched),
    /// A connection to this peer was made: what was under way before is lost.
    Connected(ServerId),
    /// Hand leadership to the most caught-up server (diss. 3.10). Nothing on a follower.
    Transfer,
    /// How this server stands for election from now on; `Candidacy::Willing` before the first.
    Candidacy(Candidacy),
    /// A snapshot of this server's own state is durable: what `Raft::applied_snapshot` said when the
    /// state was frozen. One that is older than another is passed over.
    Snapshot(Snapshot),
    /// The log begins behind this entry now; what is before it is in a snapshot alone, of which this
    /// core was told before.
    Dropped(Position),
    /// The transfer of a snapshot to this follower ended, well or not. It is said of every one that
    /// `Output::installs` asked for, also when this server leads no more.
    InstallEnded(ServerId),
}

/// All of it may be acted on at once, one part not waiting for another. A message that vouches
/// for something on disk appears only after `Input::Persisted` has covered it.
#[derive(Debug, Default)]
pub struct Output {
    pub write: Option<Write>,
    pub messages: Vec<(ServerId, Message)>,
    /// The state is that of this snapshot from now on: before `committed` is applied. One that is not
    /// named here with the output of the turn that took its message in is not installed.
    pub installed: Option<Snapshot>,
    /// In order, without gaps but where a snapshot is installed; each entry once in the life of
    /// this `Raft`.
    pub committed: Vec<Entry>,
    /// Reads whose leadership is confirmed: to be answered from a state at or after the index.
    pub reads: Vec<(ReadId, Index)>,
    /// Reads that will not be confirmed: leadership or the majority was lost.
    pub refused_reads: Vec<ReadId>,
    /// Entries wanted back from the log.
    pub fetches: Vec<Fetch>,
    /// Followers that need the newest snapshot; each once until its `Input::InstallEnded`.
    pub installs: Vec<ServerId>,
}

/// One write for the log: all of it, then one sync. In this order: begin anew, truncate, entries,
/// hard state; and after the sync that this server has recovered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// One more than that of the write before.
    pub id: WriteId,
    pub hard_state: Option<HardState>,
    /// The log is given up and begins behind this entry, which is in a snapshot.
    pub begin_behind: Option<Position>,
    /// Entries from here on were superseded, and are gone once this is written.
    pub truncate_from: Option<Index>,
    /// Consecutive; the first is one behind what the log then holds.
    pub entries: Vec<Entry>,
    /// This server is recovering no more, once all of this and before is synced.
    pub recovered: bool,
}

/// Who wants entries back from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reader {
    /// The store: they are committed and not applied.
    Apply,
    /// A follower that is behind what memory holds.
    Follower(ServerId),
}

/// Entries wanted back from the log. At most one is open for each reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub reader: Reader,
    /// The first wanted.
    pub from: Index,
    /// The last wanted.
    pub to: Index,
    /// Stop before the entry that would exceed this, but for the first.
    pub bytes_max: usize,
}

/// What the log held there: consecutive entries from `fetch.from`; at least one, unless `from`
/// was superseded or dropped meanwhile.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub fetch: Fetch,
    pub entries: Vec<Entry>,
}

/// How a server stands for election. One that leads and is not willing hands over, and tries again
/// every second while nobody takes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Candidacy {
    /// When nobody leads.
    #[default]
    Willing,
    /// When nobody has led for four times as long: every other server should lead rather than this
    /// one, and this one rather than none.
    Reluctant,
    /// Never.
    Barred,
}

/// A server's role. `Suspended` is a leader that has lost its majority (rule 29).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Follower,
    PreCandidate,
    Candidate,
    Leader,
    Suspended,
}

/// What can be read off the core between two steps.
#[derive(Clone, Debug)]
pub struct Status {
    pub role: Role,
    pub term: Term,
    /// The leader of `term`, if it is known and was heard from within T; this server itself only
    /// while it leads and has a majority.
    pub leader: Option<ServerId>,
    /// `leader` is not to be believed from then on, if it is not heard from again.
    pub leader_until: Timestamp,
    /// Grants no votes and counts towards no majority, until what it may have lost is there again.
    pub recovering: bool,
    /// Recovering, and for `STRANDED_AFTER` so many others said that they are, too, that there is no
    /// majority to recover from: that does not change by itself.
    pub stranded: bool,
    /// A leader whose no-op is committed, and handed out to be applied with all before it: what is
    /// proposed now will be carried out once it is committed (rule 21).
    pub serves: bool,
    /// Handing leadership over: proposals are not taken, reads are.
    pub transferring: bool,
    pub hard_state: HardState,
    /// `last_applied <= commit_index <= last_log_index`, `persisted_index <= last_log_index`.
    pub commit_index: Index,
    /// The last entry that `Output::committed` gave.
    pub last_applied: Index,
    pub persisted_index: Index,
    pub last_log_index: Index,
    /// The entry before the first that the log holds; 0, 0 while it holds all of them.
    pub before: Position,
    /// What the newest snapshot of this server holds up to; 0, 0 when it has none.
    pub snapshot: Position,
    /// Bytes of entries handed to the log and not known to be synced.
    pub unpersisted_bytes: usize,
    /// Bytes of entries in the log and not known to be committed.
    pub uncommitted_bytes: usize,
    /// The newest configuration known to be committed, or else the newest in the log.
    pub configuration: Option<Arc<Configuration>>,
    pub counters: Counters,
}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Campaigns for a vote, pre-votes not counted.
    pub elections: u64,
    pub elections_won: u64,
    pub suspensions: u64,
    /// Entries taken back because a new leader had others.
    pub truncations: u64,
    /// Entries asked back from the log for a follower.
    pub fetches: u64,
    /// Turns in which a follower's window did not take all entries that there were for it.
    pub full_windows: u64,
    /// Turns in which a follower that catches up was sent nothing, for the sake of the others.
    pub paced: u64,
    /// How often followers that a majority was there without were to wait for their entries.
    pub deferred: u64,
    /// Snapshots asked to be sent to a follower.
    pub installs: u64,
    /// Snapshots of a leader that took the place of this server's state.
    pub installed: u64,
    /// Times when this server was recovering and had everything again.
    pub healed: u64,
    /// Messages from ids that are no members.
    pub from_strangers: u64,
    /// Messages from another cluster, or from a data directory that does not have the seat.
    pub from_impostors: u64,
    /// Followers that turned out to lack what they had acknowledged since their last start: nobody
    /// knows what else they have forgotten.
    pub contradicted: u64,
    /// Messages of older terms or of an older start of their sender.
    pub stale: u64,
    /// Messages that no server sends that keeps to the protocol.
    pub malformed: u64,
}
