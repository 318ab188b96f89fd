//! What the tests of the log share: a model of what a log must hold, and scripts of what a
//! consensus core might ask of it.

// Each test binary uses a part of it.
#![allow(dead_code)]

pub(crate) mod hooked_disk;

use bytes::Bytes;
use quorate_wal::{Disk, Error, Opened, Options, SEGMENT_BYTES_MIN, Wal};
use raft::{
    ClusterId, Entry, EntryKind, Fetch, HardState, Index, Position, Reader, Restart, Seating,
    ServerId, Term, Write, WriteId,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

pub(crate) const SERVER: ServerId = ServerId(3);

/// Small segments, so that a short script fills many.
pub(crate) fn options(seed: u64) -> Options {
    Options {
        server_id: SERVER,
        segment_bytes: SEGMENT_BYTES_MIN,
        seed,
    }
}

/// What a log must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) hard_state: HardState,
    pub(crate) entries: Vec<Entry>,
}

impl Model {
    pub(crate) fn last(&self) -> Position {
        self.entries
            .last()
            .map_or(Position::default(), Entry::position)
    }

    pub(crate) fn apply(&mut self, write: &Write) {
        if let Some(from) = write.truncate_from {
            self.entries.truncate(from.0 as usize - 1);
        }
        self.entries.extend(write.entries.iter().cloned());
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
    }
}

/// One thing that the writer of a log does.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Append(Write),
    Sync,
    Prepare,
}

/// A script of this many operations: entries of all kinds and many sizes, batches of one and of
/// several writes, votes, new terms, and conflicts that take entries back.
pub(crate) fn script(seed: u64, operations: usize) -> Vec<Operation> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut model = Model::default();
    let mut id = WriteId(0);
    let mut script = Vec::new();
    while script.len() < operations {
        let operation = match random.random_range(0..20) {
            0..11 => {
                id = id.next();
                let write = random_write(&mut random, &model, id);
                model.apply(&write);
                Operation::Append(write)
            }
            11..19 => Operation::Sync,
            _ => Operation::Prepare,
        };
        script.push(operation);
    }
    script
}

fn random_write(random: &mut StdRng, model: &Model, id: WriteId) -> Write {
    let mut write = Write {
        id,
        ..Write::default()
    };
    let mut last = model.last();
    let mut term = model.hard_state.term.max(Term(1));
    if random.random_range(0..12) == 0 {
        term = term.next();
        let back = random.random_range(0..last.index.0.clamp(1, 40));
        if back > 0 {
            let from = Index(last.index.0 - back + 1);
            write.truncate_from = Some(from);
            last.index = from.prev();
        }
    }
    for _ in 0..random.random_range(0..4) {
        last.index = last.index.next();
        let kind = match random.random_range(0..10) {
            0 => EntryKind::NoOp,
            1 => EntryKind::Configuration,
            _ => EntryKind::Command,
        };
        write.entries.push(Entry {
            term,
            index: last.index,
            kind,
            payload: random_payload(random),
        });
    }
    if term != model.hard_state.term || random.random_range(0..8) == 0 {
        let cluster = ClusterId(77);
        write.hard_state = Some(HardState {
            term,
            voted_for: Some(ServerId(random.random_range(1..6))),
            seating: match term.0 {
                1 => Seating::Unseated,
                2 => Seating::Met(cluster),
                _ => Seating::Seated {
                    cluster,
                    configuration_index: last.index,
                },
            },
        });
    }
    write
}

/// Mostly short; some have whole sectors of zeros, some are larger than a segment.
fn random_payload(random: &mut StdRng) -> Bytes {
    let length = match random.random_range(0..200) {
        0 => 10_000,
        1..10 => random.random_range(500..3000),
        10..30 => 0,
        _ => random.random_range(0..120),
    };
    let mut payload = vec![0; length];
    if random.random_range(0..4) > 0 {
        random.fill_bytes(&mut payload);
    } else if let Some(last) = payload.last_mut() {
        *last = 0xff;
    }
    payload.into()
}

/// Does one operation; `Some` if everything appended is durable.
pub(crate) fn operate<D: Disk>(
    wal: &mut Wal<D>,
    operation: &Operation,
) -> Result<Option<WriteId>, Error> {
    match operation {
        Operation::Append(write) => wal.append(write).map(|()| None),
        Operation::Sync => wal.sync().map(Some),
        Operation::Prepare => wal.prepare_next().map(|_| None),
    }
}

/// Everything that a log holds, as its reader and its recovery say.
pub(crate) fn observe<D: Disk>(wal: &Wal<D>, opened: &Opened) -> Model {
    let recovered = &opened.recovered;
    let model = Model {
        hard_state: recovered.hard_state,
        entries: read_all(wal, recovered.last.index),
    };
    assert_eq!(model.last(), recovered.last);
    let mut term = Term(0);
    let mut term_starts = Vec::new();
    for entry in &model.entries {
        if entry.term > term {
            term_starts.push(entry.position());
            term = entry.term;
        }
    }
    assert_eq!(term_starts, recovered.term_starts);
    let configurations: Vec<Entry> = model
        .entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::Configuration)
        .cloned()
        .collect();
    assert_eq!(configurations, recovered.configurations);
    model
}

/// All entries up to this one, in as many fetches as it takes.
pub(crate) fn read_all<D: Disk>(wal: &Wal<D>, to: Index) -> Vec<Entry> {
    let reader = wal.reader();
    let mut entries: Vec<Entry> = Vec::new();
    while (entries.len() as u64) < to.0 {
        let fetch = Fetch {
            reader: Reader::Apply,
            from: Index(entries.len() as u64 + 1),
            to,
            bytes_max: 64 << 10,
        };
        let read = reader.read(&fetch).expect("what was recovered can be read");
        assert!(!read.is_empty(), "{fetch:?} gives nothing");
        entries.extend(read);
    }
    entries
}

/// Opens the log in a directory that is sound.
pub(crate) fn open<D: Disk>(disk: D, seed: u64) -> (Wal<D>, Opened, Model) {
    let (wal, opened) = Wal::open(disk, options(seed)).expect("a sound directory opens");
    let model = observe(&wal, &opened);
    (wal, opened, model)
}

/// The write that appends these payloads in a term, behind `last`.
pub(crate) fn write(id: u64, term: u64, last: u64, payloads: &[&[u8]]) -> Write {
    let entries = (last + 1..).zip(payloads).map(|(index, payload)| Entry {
        term: Term(term),
        index: Index(index),
        kind: EntryKind::Command,
        payload: Bytes::copy_from_slice(payload),
    });
    Write {
        id: WriteId(id),
        entries: entries.collect(),
        ..Write::default()
    }
}

/// Seeds for what belongs together: far apart, so that no two sequences overlap.
pub(crate) fn mix(seed: u64, part: u64) -> u64 {
    StdRng::seed_from_u64(seed ^ part.rotate_left(32)).next_u64()
}

/// A start number that was never handed out before.
pub(crate) fn assert_grown(restart: Restart, before: Restart) {
    assert!(
        restart > before,
        "restart number {restart} after {before} was used"
    );
}
