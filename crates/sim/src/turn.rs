//! A turn of a server, as the server's own threads take it: inputs in, outputs to the disk, the
//! peers and the clients.

use std::io::ErrorKind;
use std::time::Duration;

use bytes::{Buf, Bytes};
use command::Command;
use evaluator::{Input, Now, Output, StateHash};
use raft::{Body, Fetch, Fetched, GroupId, Index, Message, ServerId, Timestamp};
use rand::RngExt;
use wal::Rotten;
use wire::{Frame, Outgoing};

use crate::host::FromClient;
use crate::options::Fault;
use crate::world::{Event, MS, SECOND, World};

/// The longest usual turn.
const TURN_NS: u64 = 50_000;

/// Of what a slow machine takes.
const SLOW_TURN_NS: u64 = 5 * MS;

/// How often a peer is told what the clock shows.
const CLOCK_INTERVAL: u64 = SECOND;

/// How late a late frame is, at most.
const LATE_NS: u64 = SECOND;

/// How long clients are not listened to when what they say would wait anyway.
const CLIENTS_LEFT_NS: u64 = 200_000;

/// How long it takes to hash a state, at most.
const HASHING_NS: u64 = 50 * MS;

/// How long a log that waits for space waits before it tries again.
const RESERVE_INTERVAL_NS: u64 = 200 * MS;

impl World {
    /// Something came for this server: it takes a turn as soon as it can.
    pub(crate) fn wake(&mut self, id: ServerId) {
        let now = self.now;
        let Some(process) = &self.host(id).process else {
            return;
        };
        self.turn_at(id, now.max(process.busy_until));
    }

    /// A batch of a client came.
    pub(crate) fn wake_for_client(&mut self, id: ServerId) {
        let now = self.now;
        let Some(process) = &self.host(id).process else {
            return;
        };
        let leaves = process.evaluator.leaves_clients();
        let after = if leaves { CLIENTS_LEFT_NS } else { 0 };
        self.turn_at(id, (now + after).max(process.busy_until));
    }

    fn turn_at(&mut self, id: ServerId, at: u64) {
        let now = self.now;
        let Some(process) = &mut self.host_mut(id).process else {
            return;
        };
        let at = at.max(now);
        if at < process.turn_at {
            process.turn_at = at;
            self.schedule_at(at, Event::Turn(id));
        }
    }

    pub(crate) fn turn(&mut self, id: ServerId) {
        let world_now = self.now;
        let slow = self.options.has(Fault::SlowTurns) && self.random.random_range(0..20) == 0;
        let most = if slow && !self.healed {
            SLOW_TURN_NS
        } else {
            TURN_NS
        };
        let lasts = self.up_to(most);
        let host = self.host_mut(id);
        let now = host.now(world_now);
        let Some(process) = &mut host.process else {
            return;
        };
        if process.turn_at > world_now {
            return;
        }
        process.turn_at = u64::MAX;
        process.busy_until = world_now + lasts;
        let graces = process.pauses.begin(now.monotonic);
        process.graced |= graces;
        let in_grace = now.monotonic < process.pauses.until;
        process.take_inputs(now, in_grace);
        let throttled = !process.evaluator.takes_clients();
        let output = process.evaluator.take_output(now);
        self.coverage.graces += u64::from(graces);
        self.coverage.throttled += u64::from(throttled);
        self.hand_out(id, output);
        self.check(id);
        self.stop_if_done(id);
        self.plan_turn(id);
    }

    /// When the next turn is due if nothing comes.
    fn plan_turn(&mut self, id: ServerId) {
        let world_now = self.now;
        let host = self.host_mut(id);
        let now = host.now(world_now).monotonic;
        let Some(process) = &mut host.process else {
            return;
        };
        let in_grace = now < process.pauses.until;
        let mut due = match in_grace {
            true => process.pauses.until,
            false => process.evaluator.next_deadline(),
        };
        // The server's own loop never waits longer than this.
        due = due.min(now + crate::host::HEARTBEAT * 2).max(now);
        if process.has_inputs(in_grace) {
            due = now;
        }
        process.pauses.expected = due;
        let busy_until = process.busy_until;
        let at = host.world_time(due).max(busy_until).max(world_now + 1);
        self.turn_at(id, at);
    }

    fn hand_out(&mut self, id: ServerId, output: Output) {
        if let Some(write) = output.write {
            self.logs.handed(id, &write);
            if let Some(process) = &mut self.host_mut(id).process {
                process.writes.push(write);
            }
            self.start_sync(id);
        }
        for (to, message) in output.messages {
            self.send(id, to, &message);
        }
        if let Some(frozen) = output.frozen {
            self.freezes(id, frozen);
        }
        if let Some(job) = output.hash_job {
            let after = self.up_to(HASHING_NS);
            let hash = job.store.state_hash();
            self.schedule(after, Event::Hashed(id, job.index, hash));
        }
        if let Some(hash) = output.state_hash {
            self.tell_state_hash(id, hash);
        }
        for to in output.installs {
            let after = self.latency();
            self.schedule(after, Event::Transfer(id, to));
        }
        for (to, message) in output.forwards {
            self.sends_forward(id, to, &message);
        }
        assert!(
            output.overlong.is_empty(),
            "no reply of this world is large"
        );
        for fetch in output.fetches {
            self.coverage.fetches += 1;
            let after = self.up_to(2 * MS);
            self.schedule(after, Event::Fetched(id, fetch));
        }
        for outcomes in output.outcomes {
            let connection = outcomes.connection.0;
            let world_now = self.now;
            let host = self.host_mut(id);
            let now = host.now(world_now).monotonic;
            let Some(process) = &mut host.process else {
                return;
            };
            process.answers(connection, outcomes.outcomes.len(), now);
            if let Some(side) = process.connections.get_mut(&connection) {
                side.outcomes.push_back(outcomes.outcomes);
                self.serve(id, connection);
            }
        }
    }

    /// A server's state is hashed; none has found before that its state differs.
    pub(crate) fn hashed(&mut self, id: ServerId, index: Index, hash: u64) {
        self.coverage.state_hashes += 1;
        self.peer_input(id, Input::StateHashed(index, hash));
        self.check_state_agrees(id);
    }

    /// No server has found that its state is not that of a majority.
    pub(crate) fn check_state_agrees(&self, id: ServerId) {
        if let Some(process) = &self.host(id).process {
            let differs_at = process.evaluator.status().differs_at;
            assert!(
                differs_at.is_none(),
                "the state of server {id} differs at {differs_at:?}"
            );
        }
    }

    fn tell_state_hash(&mut self, from: ServerId, state: StateHash) {
        let Some(process) = &self.host(from).process else {
            return;
        };
        let links = process.links.iter();
        let versions: Vec<(ServerId, u8)> = links
            .filter_map(|(to, link)| Some((*to, link.version?)))
            .collect();
        for (to, version) in versions {
            let mut outgoing = Outgoing::new();
            outgoing.push_state_hash(version, state.function, state.index, state.hash);
            self.transmit_all(from, to, outgoing, true);
        }
    }

    fn send(&mut self, from: ServerId, to: ServerId, message: &Message) {
        self.logs
            .sends(from, to, message, self.options.append_bytes_max);
        let now = self.now;
        let host = self.host_mut(from);
        let wall = host.now(now).wall;
        let Some(process) = &mut host.process else {
            return;
        };
        let Some(link) = process.links.get_mut(&to) else {
            return;
        };
        let Some(version) = link.version else {
            return;
        };
        let mut outgoing = Outgoing::new();
        let urgent = !matches!(message.body, Body::AppendEntries(_));
        if urgent && link.tells_clock_at <= now {
            link.tells_clock_at = now + CLOCK_INTERVAL;
            outgoing.push_clock(version, wall.0);
        }
        outgoing.push_message(version, GroupId(0), message);
        self.transmit_all(from, to, outgoing, urgent);
    }

    fn transmit_all(&mut self, from: ServerId, to: ServerId, mut frames: Outgoing, urgent: bool) {
        let mut bytes = frames.copy_to_bytes(frames.remaining());
        while bytes.has_remaining() {
            let length = bytes.get_u32_le() as usize;
            let frame = bytes.split_to(length);
            self.transmit(from, to, &frame, urgent);
        }
    }

    /// Gives a frame to the network.
    fn transmit(&mut self, from: ServerId, to: ServerId, bytes: &Bytes, urgent: bool) {
        self.coverage.frames += 1;
        let mut copies = 1;
        let chance = |world: &mut World, per_mille: u32| {
            !world.healed && per_mille > 0 && world.random.random_range(0..1000) < per_mille
        };
        if chance(self, self.options.loss) {
            self.coverage.lost_frames += 1;
            return;
        }
        if chance(self, self.options.duplicates) {
            self.coverage.duplicated_frames += 1;
            copies = 2;
        }
        for _ in 0..copies {
            let mut after = 20_000 + self.latency();
            if chance(self, self.options.late) {
                self.coverage.late_frames += 1;
                after += self.up_to(LATE_NS);
            }
            after += self.waits_for_others((from, to), bytes.len() as u64, urgent);
            let bytes = bytes.clone();
            let sent_at = self.now;
            let frame = Event::Frame {
                from,
                to,
                bytes,
                sent_at,
            };
            self.schedule(after, frame);
        }
    }

    /// How long a slow link takes for a frame and for those before it. As with the server's own
    /// queues, what is urgent does not wait for entries.
    fn waits_for_others(&mut self, way: (ServerId, ServerId), bytes: u64, urgent: bool) -> u64 {
        if self.healed || !self.options.has(Fault::SlowLinks) {
            return 0;
        }
        let now = self.now;
        let takes = bytes * MS / self.options.link_bytes;
        let way = self.links.entry(way).or_default();
        let begins = if urgent {
            way.urgent_until
        } else {
            way.busy_until
        };
        let ends = begins.max(now) + takes;
        if urgent {
            way.urgent_until = ends;
            way.busy_until = way.busy_until.max(now) + takes;
        } else {
            way.busy_until = ends;
        }
        self.coverage.slow_frames += u64::from(ends - now > takes);
        ends - now
    }

    pub(crate) fn latency(&mut self) -> u64 {
        let most = self.options.latency_us * 1000;
        self.up_to(if self.healed { most.min(300_000) } else { most })
    }

    pub(crate) fn frame(&mut self, from: ServerId, to: ServerId, bytes: Bytes, sent_at: u64) {
        if self.cuts.contains(&(from, to)) {
            self.coverage.lost_frames += 1;
            return;
        }
        let way = self.links.get(&(from, to));
        if way.is_some_and(|way| sent_at <= way.lost_until) {
            self.coverage.cut_frames += 1;
            return;
        }
        let host = self.host(to);
        if host.process.is_none() {
            return;
        }
        if host.paused {
            let frame = Event::Frame {
                from,
                to,
                bytes,
                sent_at,
            };
            self.set_aside_frame(to, frame);
            return;
        }
        let decoded = wire::decode(bytes.clone());
        self.note(format_args!("{from} -> {to}: {decoded:?}"), &bytes);
        let input = match decoded {
            Ok(Frame::Message(_, message)) => {
                assert!(
                    message.sender.id == from,
                    "{from} speaks as {}",
                    message.sender.id
                );
                Input::Message(message)
            }
            Ok(Frame::Clock(wall_ms)) => Input::PeerClock(from, command::LogTime(wall_ms)),
            Ok(Frame::StateHash {
                function,
                index,
                hash,
            }) => {
                let state = StateHash {
                    function,
                    index,
                    hash,
                };
                Input::PeerStateHash(from, state)
            }
            Ok(Frame::Forward(piece)) => return self.forward_frame(from, to, &piece),
            other => panic!("our own frame is {other:?}"),
        };
        self.peer_input(to, input);
    }

    pub(crate) fn peer_input(&mut self, id: ServerId, input: Input) {
        if let Some(process) = &mut self.host_mut(id).process {
            process.peers.push_back(input);
        }
        self.wake(id);
    }

    /// The log writer takes what waits, if it does not sync.
    fn start_sync(&mut self, id: ServerId) {
        let now = self.now;
        let most = self.options.sync_us * 1000;
        let usual = 10_000 + self.up_to(if self.healed { most.min(500_000) } else { most });
        let host = self.host_mut(id);
        let after = usual.max(host.stalled_until.saturating_sub(now));
        let Some(process) = &mut host.process else {
            return;
        };
        if process.syncing || process.writes.is_empty() {
            return;
        }
        process.syncing = true;
        for write in std::mem::take(&mut process.writes) {
            let appended = process.wal.append(&write);
            appended.unwrap_or_else(|error| panic!("the log of server {id} fails: {error}"));
        }
        self.schedule(after, Event::Synced(id));
        self.perhaps_crash_unsynced(id, after);
    }

    pub(crate) fn synced(&mut self, id: ServerId) {
        let fails = std::mem::take(&mut self.host_mut(id).fails_sync);
        let at = self.random.random_range(1..=2);
        let host = self.host_mut(id);
        let Some(process) = &mut host.process else {
            return;
        };
        if fails {
            let operation = host.disk.operations() + at;
            host.disk.fail_at(operation, wal::Failure::Device);
        }
        let synced = process.wal.sync();
        let synced = match synced {
            Ok(id) => id,
            Err(wal::Error::NoSpace { .. }) => {
                // What was to fail was not reached.
                host.disk.fail_at(0, wal::Failure::Device);
                self.waits_for_space(id);
                return;
            }
            Err(error) => {
                assert!(fails, "the disk of server {id} fails by itself: {error}");
                self.coverage.failed_syncs += 1;
                self.note(format_args!("a sync of server {id} fails"), &[]);
                self.kill(id);
                return;
            }
        };
        process.syncing = false;
        process.persisted = Some(synced);
        self.logs.synced(id, synced);
        self.wake(id);
        self.drop_log(id);
        self.start_sync(id);
        self.prepare(id);
    }

    /// The log has come to its end, and there is no space for more of it: it tries again later.
    fn waits_for_space(&mut self, id: ServerId) {
        self.coverage.waits_for_space += 1;
        self.note(format_args!("the log of server {id} waits for space"), &[]);
        self.look_after_reserve(id);
        if let Some(process) = &mut self.host_mut(id).process {
            process.syncing = false;
            self.drop_log(id);
        }
        if let Some(process) = &mut self.host_mut(id).process {
            process.syncing = true;
            self.schedule(RESERVE_INTERVAL_NS, Event::Synced(id));
        }
    }

    /// The log gets its next segment ready, while nothing else is to do.
    pub(crate) fn prepare(&mut self, id: ServerId) {
        let Some(process) = &mut self.host_mut(id).process else {
            return;
        };
        if process.syncing {
            return;
        }
        for _ in 0..3 {
            match process.wal.prepare_next() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    // The failure that was meant for the sync.
                    self.coverage.failed_syncs += 1;
                    self.note(format_args!("server {id} can't prepare: {error}"), &[]);
                    self.kill(id);
                    return;
                }
            }
        }
        self.look_after_reserve(id);
    }

    /// The evaluator is told of a reserve that is lost or there again.
    fn look_after_reserve(&mut self, id: ServerId) {
        let Some(process) = &mut self.host_mut(id).process else {
            return;
        };
        let is_there = process.wal.has_reserve();
        if std::mem::replace(&mut process.has_reserve, is_there) != is_there {
            self.coverage.lost_reserves += u64::from(!is_there);
            self.note(
                format_args!("server {id} has a reserve: {is_there}"),
                &[u8::from(is_there)],
            );
            self.peer_input(id, Input::Reserve(is_there));
        }
    }

    pub(crate) fn fetched(&mut self, id: ServerId, fetch: Fetch) {
        if let Some(process) = &mut self.host_mut(id).process {
            match process.reader.read(&fetch) {
                Ok(entries) => process.fetched.push_back(Fetched { fetch, entries }),
                Err(error) => return self.is_not_read_back(id, fetch, error),
            }
        }
        self.wake(id);
    }

    /// What a follower needs is replaced by a snapshot; what the server needs itself is for its next
    /// start to recover.
    fn is_not_read_back(&mut self, id: ServerId, fetch: Fetch, error: wal::Error) {
        let host = self.host(id);
        let wrong = host.has_rotted || host.misreads;
        assert!(wrong, "server {id} can't read: {error}");
        self.coverage.corruptions += 1;
        self.note(format_args!("server {id} can't read: {error}"), &[]);
        if fetch.reader == raft::Reader::Apply {
            return self.kill(id);
        }
        let rotten = Rotten::of(error).expect("it names a segment");
        self.replace(id, rotten.part);
        let none = Fetched {
            fetch,
            entries: Vec::new(),
        };
        if let Some(process) = &mut self.host_mut(id).process {
            process.fetched.push_back(none);
        }
        self.wake(id);
    }
}

impl crate::host::Process {
    /// The evaluator gives a connection so many answers.
    fn answers(&mut self, connection: u64, count: usize, now: Timestamp) {
        let Some((owed, since)) = self.owed.get_mut(&connection) else {
            return;
        };
        assert!(
            count <= *owed,
            "connection {connection} is given {count} answers, and {owed} are owed"
        );
        *owed -= count;
        *since = now.max(*since);
        if *owed == 0 {
            self.owed.remove(&connection);
        }
    }

    /// As the server does: the disk, the peers, the clients, the time.
    fn take_inputs(&mut self, now: Now, in_grace: bool) {
        if let Some(id) = self.persisted.take() {
            self.evaluator.step(now, Input::Persisted(id));
        }
        for fetched in std::mem::take(&mut self.fetched) {
            self.evaluator.step(now, Input::Fetched(fetched));
        }
        for input in std::mem::take(&mut self.peers) {
            if let Input::Message(message) = &input {
                self.heard.insert(message.sender.id, now.monotonic);
            }
            self.evaluator.step(now, input);
        }
        while !in_grace
            && self.evaluator.takes_clients()
            && let Some(from) = self.clients.pop_front()
        {
            let input = match from {
                FromClient::Batch(batch) => {
                    let none = (0, now.monotonic);
                    let owed = self.owed.entry(batch.connection.0).or_insert(none);
                    owed.0 += batch.commands.len();
                    // Who waits for a message has so much more time.
                    let wait = batch.commands.last().and_then(Command::wait);
                    let wait = Duration::from_secs(u64::from(wait.unwrap_or(0)));
                    owed.1 = owed.1.max(now.monotonic + wait);
                    Input::Batch(batch)
                }
                FromClient::Disconnected(connection) => {
                    self.owed.remove(&connection.0);
                    Input::Disconnected(connection)
                }
                FromClient::StopWaiting(connection) => {
                    // A follower has to tell the leader, over a link that may lose it.
                    if self.evaluator.status().role == "Leader"
                        && let Some(owed) = self.owed.get_mut(&connection.0)
                    {
                        owed.1 = owed.1.min(now.monotonic);
                    }
                    Input::StopWaiting(connection)
                }
                FromClient::Forward(from, message) => Input::Forward(from, message),
                FromClient::FollowerGone(follower, stream) => Input::FollowerGone(follower, stream),
            };
            self.evaluator.step(now, input);
        }
        if !in_grace && self.evaluator.next_deadline() <= now.monotonic {
            self.evaluator.step(now, Input::Tick);
        }
    }
}

pub(crate) fn is_full(error: &wal::Error) -> bool {
    match error {
        wal::Error::Io { source, .. } => source.kind() == ErrorKind::StorageFull,
        wal::Error::NoSpace { .. } => true,
        _ => false,
    }
}
