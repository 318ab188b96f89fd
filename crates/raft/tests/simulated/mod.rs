//! Servers of the core on a simulated disk and a simulated network, with everything checked that
//! can be seen from outside after every step. Who is stepped when is the caller's business.

#![allow(dead_code, reason = "each test uses the part that it needs")]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quorate_raft::{
    Body, Campaign, Config, Entry, EntryKind, Fetch, Fetched, HardState, Index, Input, Instance,
    Message, Output, Position, Raft, ReadId, Recovered, Restart, Role, ServerId, Snapshot, Term,
    Timestamp, Write, WriteId, check_cluster,
};

/// A disk that knows what is synced: the durable part, and the writes that are not.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) instance: Instance,
    pub(crate) restart: Restart,
    hard_state: HardState,
    /// The entry before the first of `entries`.
    before: Position,
    entries: Vec<Entry>,
    /// The newest one, synced.
    snapshot: Option<Snapshot>,
    /// Marked so when something was lost.
    recovering: bool,
    pending: VecDeque<Write>,
}

impl Disk {
    pub(crate) fn new(instance: Instance) -> Disk {
        Disk {
            instance,
            restart: Restart(0),
            hard_state: HardState::default(),
            before: Position::default(),
            entries: Vec::new(),
            snapshot: None,
            recovering: false,
            pending: VecDeque::new(),
        }
    }

    /// Begins with a snapshot of another cluster's state, and with an empty log behind it.
    fn restore(&mut self, position: Position) {
        self.before = position;
        self.snapshot = Some(Snapshot {
            position,
            configuration: None,
        });
    }

    /// Syncs the oldest write.
    pub(crate) fn sync(&mut self) -> Option<WriteId> {
        let write = self.pending.pop_front()?;
        if let Some(position) = write.begin_behind {
            let held = self.snapshot.as_ref().map(|it| it.position.index);
            assert!(
                held >= Some(position.index),
                "the log is to begin behind {position:?}, the snapshot is of {held:?}"
            );
            self.entries.clear();
            self.before = position;
        }
        if let Some(from) = write.truncate_from {
            self.entries.retain(|entry| entry.index < from);
        }
        for entry in write.entries {
            let last = self.last().index;
            assert_eq!(entry.index, last.next(), "the disk holds {last} entries");
            self.entries.push(entry);
        }
        if let Some(hard_state) = write.hard_state {
            let old = self.hard_state;
            assert!(hard_state.term >= old.term, "{hard_state:?} after {old:?}");
            let kept = hard_state.term > old.term
                || old.voted_for.is_none()
                || old.voted_for == hard_state.voted_for;
            assert!(
                kept,
                "a vote changed within a term: {hard_state:?} after {old:?}"
            );
            self.hard_state = hard_state;
        }
        if write.recovered {
            assert!(self.recovering, "a sound disk recovers");
            self.recovering = false;
        }
        Some(write.id)
    }

    /// Of the oldest write only the first records reached the disk.
    fn tear(&mut self, mut records: usize) {
        let Some(write) = self.pending.front_mut() else {
            return;
        };
        for record in [write.begin_behind.is_some(), write.truncate_from.is_some()] {
            if record && records == 0 {
                return;
            }
            records -= usize::from(record);
        }
        if records <= write.entries.len() {
            write.entries.truncate(records);
            write.hard_state = None;
        }
        self.sync();
    }

    /// It holds what it held once: up to this entry, with this term and vote.
    pub(crate) fn damage(&mut self, last: Index, term: Term, voted_for: Option<ServerId>) {
        self.entries.retain(|entry| entry.index <= last);
        self.hard_state.term = term;
        self.hard_state.voted_for = voted_for;
        self.recovering = true;
    }

    /// What is synced.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry before those.
    pub(crate) fn before(&self) -> Position {
        self.before
    }

    /// The last entry that is synced.
    fn last(&self) -> Position {
        self.entries.last().map_or(self.before, Entry::position)
    }

    pub(crate) fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// A snapshot is synced; an older one than there is does not matter.
    pub(crate) fn keep(&mut self, snapshot: Snapshot) {
        let position = snapshot.position;
        if self
            .snapshot
            .as_ref()
            .is_none_or(|it| it.position.index < position.index)
        {
            self.snapshot = Some(snapshot);
        }
    }

    /// The entries up to there go; it must be synced, and in the snapshot.
    pub(crate) fn drop_until(&mut self, until: Index) -> Option<Position> {
        let held = self.snapshot.as_ref().map(|it| it.position.index);
        assert!(held >= Some(until), "{until} is dropped, {held:?} are held");
        let dropped = self.entries.iter().find(|entry| entry.index == until)?;
        self.before = dropped.position();
        self.entries.retain(|entry| entry.index > until);
        Some(self.before)
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What the log reads back, unsynced writes included.
    fn fetch(&self, fetch: Fetch) -> Fetched {
        let mut view = self.clone();
        while view.sync().is_some() {}
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in view.entries {
            bytes += entry.payload.len();
            if entry.index < fetch.from {
                bytes = 0;
            } else if entry.index > fetch.to || (bytes > fetch.bytes_max && !entries.is_empty()) {
                break;
            } else {
                entries.push(entry);
            }
        }
        Fetched { fetch, entries }
    }

    /// What a start finds. A log that ends before the snapshot, or has another entry there, is what
    /// an install was to replace when it was cut short.
    fn recover(&mut self) -> Recovered {
        let position = self.snapshot.as_ref().map(|it| it.position);
        let position = position.unwrap_or_default();
        let mut held = self.entries.iter().map(Entry::position);
        if position != self.before && !held.any(|it| it == position) {
            assert!(self.before.index < position.index, "{:?}", self.before);
            self.before = position;
            self.entries.clear();
        }
        let mut recovered = Recovered {
            recovering: self.recovering,
            hard_state: self.hard_state,
            before: self.before,
            snapshot: self.snapshot.clone(),
            last: self.before,
            ..Recovered::default()
        };
        for entry in &self.entries {
            if entry.term > recovered.last.term {
                recovered.term_starts.push(entry.position());
            }
            if entry.kind == EntryKind::Configuration {
                recovered.configurations.push(entry.clone());
            }
            recovered.last = entry.position();
        }
        recovered
    }
}

/// One server, running or not.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) id: ServerId,
    pub(crate) raft: Option<Raft>,
    pub(crate) disk: Disk,
    /// Its own monotonic clock.
    pub(crate) now: Timestamp,
    /// Writes are synced as soon as they are handed out.
    pub(crate) syncs_at_once: bool,
    pub(crate) fetches: VecDeque<Fetch>,
    /// The last entry that its state holds.
    applied: Index,
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) from: ServerId,
    pub(crate) to: ServerId,
    pub(crate) message: Message,
}

/// What a step of one server came to, as far as a caller may want to know.
#[derive(Debug, Default)]
pub(crate) struct Stepped {
    pub(crate) accepted: Option<Position>,
    pub(crate) write: Option<Write>,
    pub(crate) sent: Vec<Packet>,
    pub(crate) installed: Vec<Snapshot>,
    pub(crate) committed: Vec<Entry>,
    pub(crate) reads: Vec<(ReadId, Index)>,
    pub(crate) refused_reads: Vec<ReadId>,
    pub(crate) fetches: Vec<Fetch>,
    pub(crate) installs: Vec<ServerId>,
}

/// Settings that the tests vary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) append_bytes_max: usize,
    pub(crate) window_bytes_max: usize,
    pub(crate) cache_bytes_max: usize,
    pub(crate) catch_up_bytes_per_second: usize,
    pub(crate) deferral_ms: usize,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes {
            append_bytes_max: 1 << 20,
            window_bytes_max: 4 << 20,
            cache_bytes_max: 16 << 20,
            catch_up_bytes_per_second: 1 << 40,
            deferral_ms: 0,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
    pub(crate) network: Vec<Packet>,
    pub(crate) sizes: Sizes,
    seed: u64,
    instances: u64,
    /// Every committed entry that any server has handed out.
    pub(crate) committed: BTreeMap<Index, (Term, Bytes)>,
    /// Who led each term.
    pub(crate) leaders: BTreeMap<Term, ServerId>,
}

impl Cluster {
    pub(crate) fn new(servers: u64, seed: u64, sizes: Sizes) -> Cluster {
        let mut cluster = Cluster {
            servers: Vec::new(),
            network: Vec::new(),
            sizes,
            seed,
            instances: 0,
            committed: BTreeMap::new(),
            leaders: BTreeMap::new(),
        };
        for id in 1..=servers {
            let disk = cluster.fresh_disk();
            cluster.servers.push(Server {
                id: ServerId(id),
                raft: None,
                disk,
                now: Timestamp(0),
                syncs_at_once: true,
                fetches: VecDeque::new(),
                applied: Index(0),
            });
        }
        for id in 1..=servers {
            cluster.start(ServerId(id));
        }
        cluster
    }

    pub(crate) fn fresh_disk(&mut self) -> Disk {
        self.instances += 1;
        Disk::new(Instance(self.instances))
    }

    /// Gives a server a disk that begins with the state of another cluster after this entry.
    pub(crate) fn restore(&mut self, id: ServerId, position: Position) {
        let mut disk = self.fresh_disk();
        disk.restore(position);
        self.server_mut(id).disk = disk;
        let last = (position.term, Bytes::new());
        self.committed.insert(position.index, last);
    }

    pub(crate) fn server(&self, id: ServerId) -> &Server {
        &self.servers[id.0 as usize - 1]
    }

    pub(crate) fn server_mut(&mut self, id: ServerId) -> &mut Server {
        &mut self.servers[id.0 as usize - 1]
    }

    pub(crate) fn ids(&self) -> Vec<ServerId> {
        self.servers.iter().map(|server| server.id).collect()
    }

    /// Starts a server from what its disk holds.
    pub(crate) fn start(&mut self, id: ServerId) {
        let members = self.ids();
        let members = if members.len() < id.0 as usize {
            (1..=id.0).map(ServerId).collect()
        } else {
            members
        };
        let (sizes, seed) = (self.sizes, self.seed);
        let server = self.server_mut(id);
        server.disk.restart.0 += 1;
        let config = Config {
            id,
            members: members.iter().map(|id| (*id, Bytes::new())).collect(),
            instance: server.disk.instance,
            restart: server.disk.restart,
            election_timeout: Duration::from_millis(150)..Duration::from_millis(300),
            heartbeat: Duration::from_millis(50),
            seed: seed ^ (id.0 << 32) ^ server.disk.restart.0,
            append_bytes_max: sizes.append_bytes_max,
            window_bytes_max: sizes.window_bytes_max,
            cache_bytes_max: sizes.cache_bytes_max,
            catch_up_bytes_per_second: sizes.catch_up_bytes_per_second as u64,
            deferral: Duration::from_millis(sizes.deferral_ms as u64),
        };
        let recovered = server.disk.recover();
        server.applied = server
            .disk
            .snapshot
            .as_ref()
            .map_or(Index(0), |it| it.position.index);
        server.raft = Some(Raft::new(config, recovered, server.now));
    }

    /// The process ends; of the writes that are not synced the oldest `kept` survive, and of the
    /// one after them the first `torn` records.
    pub(crate) fn crash(&mut self, id: ServerId, kept: usize, torn: usize) {
        let server = self.server_mut(id);
        server.raft = None;
        server.fetches.clear();
        for _ in 0..kept {
            server.disk.sync();
        }
        server.disk.tear(torn);
        server.disk.pending.clear();
    }

    /// Steps a running server and takes its output. A snapshot that it is told of is on its disk.
    pub(crate) fn step(&mut self, id: ServerId, input: Input) -> Stepped {
        let server = self.server_mut(id);
        let now = server.now;
        let Some(raft) = &mut server.raft else {
            return Stepped::default();
        };
        match &input {
            Input::Snapshot(snapshot) => server.disk.keep(snapshot.clone()),
            Input::Message(message) => {
                if let Body::InstallSnapshot(request) = &message.body {
                    server.disk.keep(request.snapshot.clone());
                }
            }
            _ => {}
        }
        let ticks = matches!(input, Input::Tick);
        let accepted = raft.step(now, input);
        raft.check();
        let output = raft.take_output();
        raft.check();
        let next = raft.next_deadline();
        assert!(
            !ticks || next > now,
            "a tick at {now:?} leaves a deadline at {next:?}"
        );
        let mut stepped = self.take(id, output);
        stepped.accepted = accepted;
        if self.server(id).syncs_at_once {
            while let Some(write) = self.server_mut(id).disk.sync() {
                let after = self.step(id, Input::Persisted(write));
                stepped.sent.extend(after.sent);
                stepped.installed.extend(after.installed);
                stepped.committed.extend(after.committed);
                stepped.reads.extend(after.reads);
                stepped.refused_reads.extend(after.refused_reads);
                stepped.fetches.extend(after.fetches);
                stepped.installs.extend(after.installs);
            }
        }
        self.check();
        stepped
    }

    /// Answers the oldest fetch of a server.
    pub(crate) fn answer_fetch(&mut self, id: ServerId) -> Option<Stepped> {
        let server = self.server_mut(id);
        let fetch = server.fetches.pop_front()?;
        let fetched = server.disk.fetch(fetch);
        Some(self.step(id, Input::Fetched(fetched)))
    }

    /// Syncs the oldest write of a server and tells it.
    pub(crate) fn sync(&mut self, id: ServerId) -> Option<Stepped> {
        let write = self.server_mut(id).disk.sync()?;
        Some(self.step(id, Input::Persisted(write)))
    }

    fn take(&mut self, id: ServerId, output: Output) -> Stepped {
        if let Some(write) = &output.write {
            self.server_mut(id).disk.pending.push_back(write.clone());
        }
        self.server_mut(id)
            .fetches
            .extend(output.fetches.iter().copied());
        self.check_state(id, &output);
        let mut sent = Vec::new();
        for (to, message) in output.messages {
            self.check_vouched(id, to, &message);
            sent.push(Packet {
                from: id,
                to,
                message,
            });
        }
        self.network.extend(sent.iter().cloned());
        for entry in &output.committed {
            let ours = (entry.term, entry.payload.clone());
            let known = self
                .committed
                .entry(entry.index)
                .or_insert_with(|| ours.clone());
            assert_eq!(
                *known, ours,
                "server {id} applies another entry {}",
                entry.index
            );
        }
        Stepped {
            accepted: None,
            write: output.write,
            sent,
            installed: output.installed.into_iter().collect(),
            committed: output.committed,
            reads: output.reads,
            refused_reads: output.refused_reads,
            fetches: output.fetches,
            installs: output.installs,
        }
    }

    /// The state never goes back, entries come to it without a gap, and a snapshot takes its place
    /// only as it was somewhere after the same entries.
    fn check_state(&mut self, id: ServerId, output: &Output) {
        let mut applied = self.server(id).applied;
        if let Some(snapshot) = &output.installed {
            let Position { term, index } = snapshot.position;
            assert!(
                applied < index,
                "server {id} goes back from {applied} to {index}"
            );
            let known = self.committed.get(&index).map(|(term, _)| *term);
            assert_eq!(known, Some(term), "server {id} installs another {index}");
            applied = index;
        }
        for entry in &output.committed {
            assert_eq!(entry.index, applied.next(), "server {id} applies {applied}");
            applied = entry.index;
        }
        self.server_mut(id).applied = applied;
    }

    /// Nothing that is sent reveals what is not on disk (rules 1 to 4).
    fn check_vouched(&self, id: ServerId, to: ServerId, message: &Message) {
        let disk = &self.server(id).disk;
        let durable = disk.hard_state;
        let seated = message.sender.cluster.is_some();
        assert!(
            !seated || durable.seating.is_seated(),
            "server {id} says that it is seated, on disk it is {:?}",
            durable.seating,
        );
        let pre_vote = match &message.body {
            Body::RequestVote(request) => request.campaign == Campaign::PreVote,
            Body::RequestVoteReply(reply) => reply.campaign == Campaign::PreVote && reply.granted,
            _ => false,
        };
        let promised = if pre_vote {
            Term(message.term.0 - 1)
        } else {
            message.term
        };
        if pre_vote && matches!(message.body, Body::RequestVoteReply(_)) {
            return;
        }
        assert!(
            promised <= durable.term,
            "server {id} sends {message:?} but has {durable:?} on disk",
        );
        let matched = match &message.body {
            Body::RequestVote(request) if request.campaign != Campaign::PreVote => {
                let voted = durable.term > message.term || durable.voted_for == Some(id);
                assert!(voted, "server {id} stands without its own vote on disk");
                return;
            }
            Body::RequestVoteReply(reply) if reply.granted => {
                let voted = durable.term > message.term || durable.voted_for == Some(to);
                assert!(voted, "server {id} grants {to} a vote that is not on disk");
                return;
            }
            Body::AppendEntriesReply(quorate_raft::AppendEntriesReply::Matches { match_index }) => {
                *match_index
            }
            Body::HeartbeatReply(reply) => reply.match_index,
            _ => return,
        };
        let held = disk.last().index;
        assert!(
            matched <= held,
            "server {id} acknowledges {matched}, on disk are {held}"
        );
    }

    fn check(&mut self) {
        check_cluster(
            self.servers
                .iter()
                .filter_map(|server| server.raft.as_ref()),
        );
        for server in &self.servers {
            let Some(raft) = &server.raft else { continue };
            let status = raft.status();
            if matches!(status.role, Role::Leader | Role::Suspended) {
                let leader = self.leaders.entry(status.term).or_insert(server.id);
                assert_eq!(*leader, server.id, "two servers led term {}", status.term);
            }
        }
    }

    /// Delivers one message, if its receiver runs.
    pub(crate) fn deliver(&mut self, packet: Packet) -> Stepped {
        self.step(packet.to, Input::Message(packet.message))
    }

    /// The servers that lead and are not suspended.
    pub(crate) fn leaders_now(&self) -> Vec<ServerId> {
        let leaders = self.servers.iter().filter_map(|server| {
            let status = server.raft.as_ref()?.status();
            (status.role == Role::Leader).then_some(server.id)
        });
        leaders.collect()
    }
}
