//! How servers begin and end, and how they reach each other.

use bytes::{Buf, Bytes};
use evaluator::{ForwardCounters, Input};
use raft::{Configuration, Entry, Recovered, Restart, Seating, ServerId};
use rand::RngExt;
use store::Store;
use wal::{MemoryDisk, Opened, Options as LogOptions, SnapshotReader, Wal};
use wire::{Answer, Frame, Hello, Outgoing};

use crate::host::Process;
use crate::options::Fault;
use crate::turn::is_full;
use crate::world::{Event, MS, SECOND, World};

/// How long a server that is told to stop waits for a successor.
const STOP_NS: u64 = 2 * SECOND;

/// A server that has started so lately has not settled in.
const YOUNG_NS: u64 = 200 * MS;

/// The core begins with the term, the vote and the seat that its disk has.
fn check_kept(id: ServerId, process: &Process, recovered: &Recovered) {
    let kept = process.evaluator.raft().status().hard_state;
    let mut expected = recovered.hard_state;
    if recovered.last.term > expected.term {
        // The snapshot has entries that the log lost, or never came to write, with their term. No
        // vote was given in it, or it would be on the disk.
        expected.term = recovered.last.term;
        expected.voted_for = None;
    }
    if let Some(seating) = known_seat(id, process, recovered) {
        expected.seating = seating;
    }
    assert!(
        kept == expected,
        "server {id} starts with {kept:?}, its disk says {:?}",
        recovered.hard_state,
    );
}

/// The seat that a configuration known to be committed gives this server, if the hard state on the
/// disk knows of no newer one: that of the snapshot, or the first one in the log, if it is of the
/// cluster that this server has met. The hard state may have been on its way to the disk, or is lost.
fn known_seat(id: ServerId, process: &Process, recovered: &Recovered) -> Option<Seating> {
    let of = |entry: &Entry| {
        let configuration = Configuration::decode(entry.payload.clone());
        configuration.expect("a server of ours has configurations of ours")
    };
    let seating = recovered.hard_state.seating;
    let snapshot = recovered.snapshot.as_ref();
    let in_snapshot = snapshot.and_then(|snapshot| snapshot.configuration.as_ref());
    let first = recovered.configurations.first();
    let first = first.filter(|entry| seating == Seating::Met(of(entry).cluster));
    let entry = in_snapshot.or(first)?;
    let configuration = of(entry);
    let has_newer = matches!(
        seating,
        Seating::Seated { configuration_index, .. } if configuration_index >= entry.index
    );
    let member = configuration
        .members
        .iter()
        .find(|member| member.id == id)?;
    let has_seat = member.seat == Some(process.opened.instance);
    (has_seat && !has_newer).then_some(Seating::Seated {
        cluster: configuration.cluster,
        configuration_index: entry.index,
    })
}

impl World {
    pub(crate) fn start(&mut self, id: ServerId) {
        let seed = self.random.random();
        let cuts_at = self.random.random_range(1..=12);
        let cuts = !self.healed
            && self.options.has(Fault::PowerCuts)
            && self.random.random_range(0..10) == 0;
        let segment_bytes = self.options.segment_bytes;
        let heals = self.options.servers > 2;
        let host = self.host_mut(id);
        if host.process.is_some() {
            return;
        }
        host.incarnation += 1;
        let options = LogOptions {
            server_id: id,
            segment_bytes,
            seed,
            heals,
        };
        if cuts {
            host.disk.cut_power_at(host.disk.operations() + cuts_at);
        }
        let opened = Wal::open(host.disk.clone(), options);
        if !host.disk.has_power() {
            // Whatever else went wrong before: nobody is left to act on it.
            assert!(cuts, "server {id} has lost its power by itself");
            self.note(format_args!("the power goes while server {id} starts"), &[]);
            self.lose_power(id);
            return self.start_later(id);
        }
        match opened {
            Ok(opened) => self.begin(id, opened, seed),
            Err(error) => self.does_not_start(id, &error),
        }
    }

    /// Runs the server that has found this on its disk.
    fn begin(&mut self, id: ServerId, opened: (Wal<MemoryDisk>, Opened), seed: u64) {
        let now = self.now;
        let host = self.host_mut(id);
        host.disk.cut_power_at(0);
        host.disk.misread(0, 0, 0);
        let lost = opened.1.lost.clone();
        if let Some(lost) = &lost {
            // What an earlier start has not read is read if the newest snapshot is misread.
            let is_found_late = host.has_rotted && host.misreads;
            assert!(
                host.rotten || is_found_late,
                "server {id} has lost something: {lost}"
            );
        }
        // A start that was cut short may have given up what was damaged, behind the mark.
        let marked = opened.1.recovered.recovering;
        let is_damaged = lost.is_some() || (marked && host.rotten);
        host.rotten = false;
        host.misreads = false;
        host.recovering = marked;
        let now_host = host.now(now);
        let item_limits = host.item_limits;
        let restart = opened.1.restart;
        assert!(
            restart > host.restart,
            "server {id} starts with the number {restart} after {}",
            host.restart,
        );
        host.restart = restart;
        self.coverage.restarts += u64::from(restart > Restart(1));
        self.coverage.torn_ends += u64::from(opened.1.torn.is_some());
        let snapshots = opened.0.snapshots();
        let store = match &opened.1.recovered.snapshot {
            Some(snapshot) => {
                crate::snapshots::load(SnapshotReader::open(&snapshots, snapshot.position), seed)
            }
            None => Ok(Store::new(seed)),
        };
        let store =
            store.unwrap_or_else(|error| panic!("server {id} can't load its snapshot: {error}"));
        self.coverage.loads += u64::from(opened.1.recovered.snapshot.is_some());
        let seeds = (seed, item_limits, store);
        let process = Process::new(id, opened, &self.options, seeds, (now, now_host));
        let entries = process.entries();
        let recovered = process.opened.recovered.clone();
        let last = entries.last().map_or(recovered.before, Entry::position);
        assert!(
            last == recovered.last,
            "{last:?} is the last entry, not {:?}",
            recovered.last
        );
        check_kept(id, &process, &recovered);
        self.note(
            format_args!(
                "server {id} starts, its log ends at {:?}, {:?}",
                recovered.last, recovered.hard_state
            ),
            &recovered.last.index.0.to_le_bytes(),
        );
        if is_damaged {
            self.coverage.corruptions += 1;
            self.coverage.recoveries += u64::from(marked);
            self.note(
                format_args!("server {id} has lost something: {lost:?}"),
                &[],
            );
            self.logs.damaged(id);
        }
        self.logs.recovered(id, &recovered, &entries);
        self.host_mut(id).process = Some(process);
        for peer in self.ids().into_iter().filter(|peer| *peer != id) {
            let after = self.up_to(20 * MS);
            self.schedule(after, Event::Connect(id, peer));
        }
        if self.options.scrubs {
            self.schedule(0, Event::Scrub(id));
        }
        self.wake(id);
    }

    /// Why a server may end before it has begun.
    fn does_not_start(&mut self, id: ServerId, error: &wal::Error) {
        let host = self.host_mut(id);
        let is_corrupt = matches!(error, wal::Error::Corrupt { .. });
        let is_damage = is_corrupt || matches!(error, wal::Error::Missing { .. });
        host.disk.cut_power_at(0);
        host.disk = host.disk.after_kill();
        let mut is_lost = false;
        if is_full(error) {
            self.coverage.out_of_space += 1;
        } else if is_corrupt && host.misreads {
            // One of its meta files is rotten, and the other was misread.
            host.misreads = false;
            self.coverage.corruptions += 1;
        } else {
            assert!(
                is_damage && host.rotten,
                "server {id} does not start: {error}"
            );
            // Nobody knows whose it is.
            let text = error.to_string();
            assert!(text.contains("meta."), "server {id} does not heal: {error}");
            self.coverage.corruptions += 1;
            is_lost = true;
        }
        self.note(format_args!("server {id} does not start: {error}"), &[]);
        if is_lost {
            self.replace_disk(id);
        } else {
            self.start_later(id);
        }
    }

    pub(crate) fn start_later(&mut self, id: ServerId) {
        let most = [5 * MS, 50 * MS, 500 * MS, 3 * SECOND][self.random.random_range(0..4)];
        let after = self.up_to(most);
        self.schedule(after, Event::Start(id));
    }

    /// Ends the process: what it has written is there, synced or not.
    pub(crate) fn kill(&mut self, id: ServerId) {
        if self.ended(id) {
            self.note(format_args!("server {id} is killed"), &[]);
            self.coverage.kills += 1;
            let host = self.host_mut(id);
            host.disk = host.disk.after_kill();
            // What a failure was planned for did not happen.
            host.disk.fail_at(0, wal::Failure::Device);
            self.start_later(id);
        }
    }

    pub(crate) fn power_cut(&mut self, id: ServerId) {
        let at = self.random.random_range(1..=3);
        let host = self.host_mut(id);
        if let Some(process) = &mut host.process
            && process.syncing
        {
            // The write is under way.
            host.disk.cut_power_at(host.disk.operations() + at);
            let _ = process.wal.sync();
            self.coverage.crashes_unsynced += 1;
        }
        if self.ended(id) {
            self.note(format_args!("server {id} loses its power"), &[]);
            self.coverage.power_cuts += 1;
            self.lose_power(id);
            self.start_later(id);
        }
    }

    fn lose_power(&mut self, id: ServerId) {
        let seed = self.random.random();
        let host = self.host_mut(id);
        host.disk = host.disk.after_power_cut(seed);
    }

    /// Its disk is lost with it.
    pub(crate) fn wipe(&mut self, id: ServerId) {
        if self.ended(id) {
            self.note(format_args!("server {id} loses its disk"), &[]);
            self.coverage.wipes += 1;
            self.replace_disk(id);
        }
    }

    /// An empty disk in place of what it had.
    fn replace_disk(&mut self, id: ServerId) {
        let host = self.host_mut(id);
        host.disk = MemoryDisk::new();
        host.wiped = true;
        host.recovering = false;
        host.restart = Restart(0);
        self.logs.wiped(id);
        self.start_later(id);
    }

    /// The process is gone, with all its connections. False if there was none.
    fn ended(&mut self, id: ServerId) -> bool {
        let now = self.now;
        let host = self.host_mut(id);
        host.fails_sync = false;
        let Some(process) = host.process.take() else {
            return false;
        };
        host.incarnation += 1;
        let young = now - process.started_at < YOUNG_NS;
        let status = process.evaluator.status();
        self.count(status.raft);
        self.count_forwards(status.forwarding);
        self.coverage.crashes_young += u64::from(young);
        self.forget_waiting(id);
        for peer in self.ids() {
            self.disconnect(peer, id);
            self.forwards_end(id, peer);
        }
        for client in 0..self.clients.len() {
            let connection = self.clients[client].connection.as_ref();
            if connection.is_some_and(|connection| connection.server == id) {
                self.lose_connection(client);
            }
        }
        true
    }

    pub(crate) fn count_forwards(&mut self, counters: ForwardCounters) {
        self.coverage.forwarded += counters.commands;
        self.coverage.forwards_refused += counters.refused;
        self.coverage.forwards_broken += counters.broken;
        self.coverage.forwards_repeated += counters.repeated;
        self.coverage.forwards_gaps += counters.gaps;
        self.coverage.forwards_late += counters.late;
    }

    pub(crate) fn count(&mut self, counters: raft::Counters) {
        self.coverage.elections += counters.elections;
        self.coverage.suspensions += counters.suspensions;
        self.coverage.truncations += counters.truncations;
        self.coverage.full_windows += counters.full_windows;
        self.coverage.paced += counters.paced;
        self.coverage.deferred += counters.deferred;
        self.coverage.installed += counters.installed;
        self.coverage.healed += counters.healed;
        self.coverage.stale_messages += counters.stale;
        assert!(
            counters.malformed == 0,
            "{} messages that no server sends",
            counters.malformed
        );
    }

    /// Tells a server to hand over and to stop.
    pub(crate) fn stop(&mut self, id: ServerId) {
        let by = self.now + STOP_NS;
        let Some(process) = &mut self.host_mut(id).process else {
            return;
        };
        if process.stops_by.is_none() {
            process.stops_by = Some(by);
            let leads = process.evaluator.status().role == "Leader";
            self.coverage.stops += 1;
            self.coverage.transfers += u64::from(leads);
            self.note(format_args!("server {id} is told to stop"), &[]);
            self.peer_input(id, Input::Transfer);
        }
    }

    pub(crate) fn stop_if_done(&mut self, id: ServerId) {
        let now = self.now;
        let Some(process) = &self.host(id).process else {
            return;
        };
        let Some(by) = process.stops_by else {
            return;
        };
        if !process.evaluator.may_stop() && now < by {
            return;
        }
        self.finish_log(id);
        if self.ended(id) {
            self.note(format_args!("server {id} has stopped"), &[]);
            let host = self.host_mut(id);
            host.disk = host.disk.after_kill();
            host.disk.fail_at(0, wal::Failure::Device);
            self.start_later(id);
        }
    }

    /// The log writer gets what it was given onto the disk before it ends.
    fn finish_log(&mut self, id: ServerId) {
        let Some(process) = &mut self.host_mut(id).process else {
            return;
        };
        let writes = std::mem::take(&mut process.writes);
        let wal = &mut process.wal;
        let appended = writes.iter().try_for_each(|write| wal.append(write));
        match appended.and_then(|()| wal.sync()) {
            Ok(synced) => self.logs.synced(id, synced),
            // What it has not said that it has goes with it.
            Err(wal::Error::NoSpace { .. }) => self.coverage.waits_for_space += 1,
            Err(error) => panic!("the log of server {id} fails: {error}"),
        }
    }

    /// `from` calls `to`, with the handshake of both.
    pub(crate) fn connect(&mut self, from: ServerId, to: ServerId) {
        let now = self.now;
        let Some(process) = &self.host(from).process else {
            return;
        };
        if process
            .links
            .get(&to)
            .is_none_or(|link| link.version.is_some())
        {
            return;
        }
        let blocked = self.cuts.contains(&(from, to)) || self.cuts.contains(&(to, from));
        let theirs = self.host(to).process.as_ref();
        let answers = theirs.filter(|_| !blocked && !self.host(to).paused);
        let Some(theirs) = answers else {
            let after = 20 * MS + self.up_to(200 * MS);
            self.schedule(after, Event::Connect(from, to));
            return;
        };
        let (caller, callee) = (process.identity(from), theirs.identity(to));
        let hello = sent_hello(&caller.hello(to));
        let answer = sent_answer(&Answer {
            verdict: callee.check(&hello),
            hello: callee.hello(from),
        });
        let agreed = answer.verdict.and_then(|_| caller.check(&answer.hello));
        self.note(format_args!("{from} calls {to}: {agreed:?}"), &[]);
        let Ok(version) = agreed else {
            self.coverage.refused_handshakes += 1;
            self.schedule(SECOND, Event::Connect(from, to));
            return;
        };
        let process = self.host_mut(from).process.as_mut();
        if let Some(link) = process.and_then(|process| process.links.get_mut(&to)) {
            link.version = Some(version);
            link.tells_clock_at = now;
        }
        self.peer_input(from, Input::Connected(to));
        self.peer_input(from, Input::ForwardLink(to, true));
        // What an earlier connection still brings may come behind what this one does.
        for way in [(from, to), (to, from)] {
            self.links.entry(way).or_default().forwards_until = now;
        }
    }

    /// The connection that `from` has made to `to` is gone; it tries again.
    pub(crate) fn disconnect(&mut self, from: ServerId, to: ServerId) {
        let Some(process) = &mut self.host_mut(from).process else {
            return;
        };
        let Some(link) = process.links.get_mut(&to) else {
            return;
        };
        if link.version.take().is_some() {
            let after = self.up_to(50 * MS);
            self.schedule(after, Event::Connect(from, to));
            self.peer_input(from, Input::ForwardLink(to, false));
            self.forwards_end(from, to);
        }
    }
}

fn sent_hello(hello: &Hello) -> Hello {
    let mut outgoing = Outgoing::new();
    outgoing.push_hello(hello);
    match received(outgoing) {
        Frame::Hello(hello) => hello,
        other => panic!("a hello arrives as {other:?}"),
    }
}

fn sent_answer(answer: &Answer) -> Answer {
    let mut outgoing = Outgoing::new();
    outgoing.push_answer(answer);
    match received(outgoing) {
        Frame::Answer(answer) => answer,
        other => panic!("an answer arrives as {other:?}"),
    }
}

fn received(mut outgoing: Outgoing) -> Frame {
    let mut bytes: Bytes = outgoing.copy_to_bytes(outgoing.remaining());
    let length = bytes.get_u32_le() as usize;
    let frame = wire::decode(bytes.split_to(length));
    frame.unwrap_or_else(|error| panic!("our own frame can't be read: {error}"))
}
