//! Snapshots: servers write them out while they go on, drop what they cover of their logs, load them
//! at start, and send them to those that are too far behind.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Buf;
use evaluator::{FrozenState, Input, LoadedState};
use raft::{GroupId, Index, Message, Position, ServerId};
use rand::RngExt;
use store::{Loader, Store};
use wal::{
    Disk, Error, MemoryDisk, Opened, Rotten, SnapshotReader, SnapshotReceiver, SnapshotSender,
    SnapshotWriter, Snapshots,
};
use wire::{Frame, Outgoing};

use crate::options::Fault;
use crate::world::{Event, MS, World};

/// How long it takes to write a snapshot out, at most.
const WRITING_NS: u64 = 100 * MS;

/// What is written, or sent, at a time, at most.
const PIECE_BYTES_MAX: usize = 16 << 10;

/// What a server does with snapshots.
#[derive(Debug, Default)]
pub(crate) struct SnapshotWork {
    /// Being written out.
    pub(crate) frozen: Option<FrozenState>,
    /// The log is to be dropped up to here.
    pub(crate) drops: Option<Index>,
    /// A segment that can't be read any more.
    pub(crate) rotten: Option<u64>,
    /// A snapshot up to here was written since the log writer has looked.
    covered: Option<Index>,
    /// The newest snapshot.
    pub(crate) last: Position,
    sending: BTreeMap<ServerId, SnapshotSender<MemoryDisk>>,
    /// From whom, and what.
    receiving: Option<(ServerId, SnapshotReceiver<MemoryDisk>)>,
}

impl SnapshotWork {
    pub(crate) fn new(opened: &Opened) -> SnapshotWork {
        let newest = opened.recovered.snapshot.as_ref();
        SnapshotWork {
            last: newest.map_or_else(Position::default, |newest| newest.position),
            ..SnapshotWork::default()
        }
    }
}

/// The state that a snapshot holds.
pub(crate) fn load(
    reader: Result<SnapshotReader<MemoryDisk>, Error>,
    seed: u64,
) -> Result<Store, Error> {
    let mut reader = reader?;
    let mut loader = Loader::new(seed);
    while let Some(piece) = reader.read()? {
        let pushed = loader.push(&piece);
        pushed.unwrap_or_else(|error| panic!("a snapshot holds no state: {error}"));
    }
    let store = loader.finish();
    Ok(store.unwrap_or_else(|error| panic!("a snapshot holds no state: {error}")))
}

impl World {
    /// A server has frozen its state, and begins to write it out.
    pub(crate) fn freezes(&mut self, id: ServerId, frozen: FrozenState) {
        let after = self.up_to(WRITING_NS);
        if let Some(process) = &mut self.host_mut(id).process {
            assert!(
                process.snapshot_work.frozen.is_none(),
                "server {id} writes two snapshots at once"
            );
            process.snapshot_work.frozen = Some(frozen);
            self.schedule(after, Event::Snapshot(id));
        }
    }

    /// All of it reaches the disk, or as much as the disk lets it.
    pub(crate) fn snapshot(&mut self, id: ServerId) {
        let piece = self.random.random_range(1..=PIECE_BYTES_MAX);
        let cuts_at = self.random.random_range(1..=12);
        let cuts = !self.healed
            && self.options.has(Fault::PowerCuts)
            && self.random.random_range(0..10) == 0;
        let Some(process) = &mut self.host_mut(id).process else {
            return;
        };
        let Some(frozen) = process.snapshot_work.frozen.take() else {
            return;
        };
        // While the log writes, whose power it is that goes is not told apart.
        let cuts = cuts && !process.syncing;
        let snapshots = process.wal.snapshots();
        let disk = self.host(id).disk.clone();
        if cuts {
            disk.cut_power_at(disk.operations() + cuts_at);
        }
        let position = frozen.snapshot.position;
        let expected = frozen.store.state_hash();
        let result = SnapshotWriter::create(&snapshots, frozen.cluster, frozen.snapshot).and_then(
            |mut writer| {
                frozen
                    .store
                    .write_out(piece, &mut |bytes: &[u8]| writer.write(bytes))?;
                writer.finish()
            },
        );
        // The error that came first may have been another one.
        if cuts && disk.list().is_err() {
            self.coverage.snapshots_cut += 1;
            self.power_cut(id);
            return;
        }
        if cuts {
            disk.cut_power_at(0);
        }
        match result {
            Ok(snapshot) => {
                self.coverage.snapshots += 1;
                self.note(
                    format_args!("server {id} has a snapshot of {position:?}"),
                    &position.index.0.to_le_bytes(),
                );
                self.check_snapshot(&snapshots, position, expected);
                self.peer_input(id, Input::SnapshotWritten(snapshot));
                self.has_snapshot(id, position);
            }
            Err(Error::NoSpace { .. }) => {
                self.coverage.out_of_space += 1;
                self.note(format_args!("server {id} has no space for a snapshot"), &[]);
                self.peer_input(id, Input::SnapshotFailed);
            }
            Err(error) => {
                let wrong = self.host(id).misreads && matches!(error, Error::Corrupt { .. });
                assert!(wrong, "server {id} writes no snapshot: {error}");
                self.kill(id);
            }
        }
    }

    /// What was written is the state, and anything but a faulty disk gives it back.
    fn check_snapshot(&self, snapshots: &Snapshots<MemoryDisk>, position: Position, expected: u64) {
        if let Ok(store) = load(SnapshotReader::open(snapshots, position), 1) {
            let hash = store.state_hash();
            assert!(
                hash == expected,
                "the snapshot of {position:?} has the state {hash:016x}, {expected:016x} was frozen",
            );
        }
    }

    /// The log is needed up to the snapshot before this one.
    fn has_snapshot(&mut self, id: ServerId, position: Position) {
        if let Some(process) = &mut self.host_mut(id).process {
            let work = &mut process.snapshot_work;
            let before = std::mem::replace(&mut work.last, position);
            if before.index > Index(0) && before.index < position.index {
                work.drops = Some(before.index);
            }
            work.covered = Some(position.index);
        }
        self.drop_log(id);
    }

    /// The log writer drops what it may, when it has nothing else to do.
    pub(crate) fn drop_log(&mut self, id: ServerId) {
        let keep_bytes = self.options.keep_bytes;
        let Some(process) = &mut self.host_mut(id).process else {
            return;
        };
        if process.syncing {
            return;
        }
        let work = &mut process.snapshot_work;
        let (drops, covered) = (work.drops.take(), work.covered.take());
        if let Some(segment) = work.rotten.take() {
            self.give_up(id, segment);
        }
        if let Some(index) = drops {
            self.drop_covered(id, index, keep_bytes);
        }
        if let Some(newest) = covered {
            self.drop_given_up(id, newest);
        }
    }

    fn drop_covered(&mut self, id: ServerId, index: Index, keep_bytes: u64) {
        let Some(process) = &mut self.host_mut(id).process else {
            return;
        };
        let dropped = process.wal.drop_until(index, keep_bytes);
        let dropped = dropped.unwrap_or_else(|error| panic!("server {id} drops no log: {error}"));
        if let Some(position) = dropped {
            self.coverage.drops += 1;
            self.note(
                format_args!("the log of server {id} begins behind {position:?}"),
                &[],
            );
            self.peer_input(id, Input::Dropped(position));
        }
    }

    /// A piece of a snapshot goes from one server to another, or the first one or the last.
    pub(crate) fn transfers(&mut self, from: ServerId, to: ServerId) {
        let blocked = self.cuts.contains(&(from, to)) || self.cuts.contains(&(to, from));
        let there = self.host(to).process.is_some() && !self.host(to).paused;
        let breaks = !self.healed && self.options.has(Fault::Resets) && self.up_to(50) == 0;
        if blocked || !there || breaks {
            self.transfer_ends(from, to);
            return;
        }
        match self.transfer_piece(from, to) {
            Ok(true) => {
                let after = 20_000 + self.latency();
                self.schedule(after, Event::Transfer(from, to));
            }
            Ok(false) => self.transfer_ends(from, to),
            Err(Error::NoSpace { .. }) => {
                self.coverage.out_of_space += 1;
                self.transfer_ends(from, to);
            }
            Err(Error::Misplaced { .. }) => self.transfer_ends(from, to),
            Err(error) => {
                // What was sent, or what was written and read back, is not what it was.
                let odd = |id| self.host(id).misreads || self.host(id).has_rotted;
                assert!(
                    odd(from) || odd(to),
                    "{from} sends {to} no snapshot: {error}"
                );
                self.note(format_args!("{from} sends {to} no snapshot: {error}"), &[]);
                if let Some(rotten) = self.rotten_snapshot(from) {
                    self.coverage.corruptions += 1;
                    self.replace(from, rotten.part);
                }
                self.transfer_ends(from, to);
            }
        }
    }

    /// What is wrong with the snapshot that a server sends, if anything is.
    fn rotten_snapshot(&self, id: ServerId) -> Option<Rotten> {
        let process = self.host(id).process.as_ref()?;
        let snapshots = process.wal.snapshots();
        let newest = snapshots.newest()?.position;
        let read = SnapshotReader::open(&snapshots, newest).and_then(|mut reader| {
            while reader.read()?.is_some() {}
            Ok(())
        });
        Rotten::of(read.err()?).ok()
    }

    /// Whether there is more of it.
    fn transfer_piece(&mut self, from: ServerId, to: ServerId) -> Result<bool, Error> {
        let bytes_max = self.random.random_range(1..=PIECE_BYTES_MAX);
        let Some(sender) = &mut self.host_mut(from).process else {
            return Ok(false);
        };
        let snapshots = sender.wal.snapshots();
        let sending = &mut sender.snapshot_work.sending;
        let identity = match sending.entry(to) {
            Entry::Occupied(sending) => sending.get().identity(),
            Entry::Vacant(vacant) => {
                let newest = snapshots.newest().expect("the core knows of one");
                let sending = SnapshotSender::open(&snapshots, newest.position)?;
                vacant.insert(sending).identity()
            }
        };
        let Some(receiver) = &mut self.host_mut(to).process else {
            return Ok(false);
        };
        let work = &mut receiver.snapshot_work;
        let goes_on = work
            .receiving
            .as_ref()
            .is_some_and(|(of, receiving)| *of == from && receiving.identity() == identity);
        if !goes_on {
            work.receiving = None;
            let receiving = SnapshotReceiver::open(&receiver.wal.snapshots(), identity)?;
            work.receiving = Some((from, receiving));
            self.coverage.transfers_begun += 1;
        }
        let offset = self.receiving(to).offset();
        let sender = self.host(from).process.as_ref().expect("it is there");
        let bytes = sender.snapshot_work.sending[&to].read(offset, bytes_max)?;
        if !bytes.is_empty() {
            self.receiving(to).write(offset, &bytes)?;
            return Ok(true);
        }
        self.received(from, to)?;
        Ok(false)
    }

    fn receiving(&mut self, to: ServerId) -> &mut SnapshotReceiver<MemoryDisk> {
        let process = self.host_mut(to).process.as_mut().expect("it is there");
        let receiving = process.snapshot_work.receiving.as_mut();
        &mut receiving.expect("it was opened").1
    }

    /// The whole snapshot is there: it is verified, made durable and loaded, and then the core has
    /// the last word.
    fn received(&mut self, from: ServerId, to: ServerId) -> Result<(), Error> {
        let seed = self.random.random();
        let process = self.host_mut(to).process.as_mut().expect("it is there");
        let receiving = process.snapshot_work.receiving.take();
        let (_, receiving) = receiving.expect("it was opened");
        let received = receiving.finish()?;
        let snapshot = received.snapshot().clone();
        let position = snapshot.position;
        let store = load(Ok(received), seed)?;
        self.has_snapshot_of_another(to, position);
        let sender = self.host(from).process.as_ref().expect("it is there");
        let Some(message) = sender.evaluator.install_message(snapshot) else {
            return Ok(());
        };
        self.logs
            .sends(from, to, &message, self.options.append_bytes_max);
        self.coverage.installs += 1;
        self.note(
            format_args!("{from} has sent {to} the snapshot of {position:?}"),
            &position.index.0.to_le_bytes(),
        );
        let loaded = LoadedState {
            position,
            store: Box::new(store),
        };
        self.peer_input(to, Input::Install(over_the_wire(&message), loaded));
        Ok(())
    }

    /// It counts for the log only if the core takes it.
    fn has_snapshot_of_another(&mut self, id: ServerId, position: Position) {
        if let Some(process) = &mut self.host_mut(id).process {
            let last = &mut process.snapshot_work.last;
            if position.index > last.index {
                *last = position;
            }
        }
    }

    fn transfer_ends(&mut self, from: ServerId, to: ServerId) {
        if let Some(process) = &mut self.host_mut(from).process {
            process.snapshot_work.sending.remove(&to);
        }
        self.peer_input(from, Input::InstallEnded(to));
    }
}

fn over_the_wire(message: &Message) -> Message {
    let mut outgoing = Outgoing::new();
    outgoing.push_message(*wire::VERSIONS.end(), GroupId(0), message);
    let mut bytes = outgoing.copy_to_bytes(outgoing.remaining());
    let length = bytes.get_u32_le() as usize;
    match wire::decode(bytes.split_to(length)) {
        Ok(Frame::Message(_, message)) => message,
        other => panic!("our own frame is {other:?}"),
    }
}
