//! Every bit of a data directory is flipped in turn, and every file is cut off at every byte: a
//! server of five starts with what it had, or marked as recovering with what was in front of the
//! damage, or not at all with a line that names the place. It never serves anything else.
//!
//! The directory is small, so that it takes seconds. `QUORATE_SWEEP_KIB=1024` makes it one of 1 MiB,
//! which takes an hour and more of two processors, so that `QUORATE_SWEEP_PART=3/8` does the third
//! eighth of it; the settings of the C library's allocator save a third.
//!
//! ```text
//! export MALLOC_TRIM_THRESHOLD_=1000000000 MALLOC_MMAP_THRESHOLD_=100000000
//! for part in 1 2 3 4 5 6 7 8; do
//!     QUORATE_SWEEP_KIB=1024 QUORATE_SWEEP_PART=$part/8 \
//!         cargo test --profile sim -p quorate-wal --test wal -- sweep:: --nocapture
//! done
//! ```

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use quorate_wal::{Error, MemoryDisk, Opened, Options, SnapshotReader, Wal};
use raft::Seating;

use crate::support::sweep::{Listed, Part, Subject};
use crate::support::{Model, assert_grown, mix, observe_log};

/// What the directory's size is to be unless `QUORATE_SWEEP_KIB` says otherwise: three segments of the
/// least length make it four times that.
const DIRECTORY_KIB: usize = 12;
/// How many bytes of a file a thread takes at a time.
const STRETCH_BYTES: usize = 128;

/// What is done to one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Damage {
    /// This bit of the byte at this offset is turned over.
    Flipped(usize, u8),
    /// The file ends before this offset.
    CutOff(usize),
}

/// What a start made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// It has what it had: nothing is kept at that place.
    Untouched,
    /// It has what it had, and found something behind the end of the log, which it erased.
    Erased,
    /// It has what it had, from the other meta file or the snapshot before.
    Spared,
    /// It kept what is in front of the damage, and is marked as recovering.
    Recovering,
    /// It said where the damage is, in one line, and did not start.
    Refused,
}

/// How often there was which outcome, of flips and of cuts.
type Tally = BTreeMap<(Part, bool, Outcome), u64>;

#[test]
fn every_flipped_bit_and_every_cut_is_healed_or_refused_and_nothing_else_is_served() {
    let kib = std::env::var("QUORATE_SWEEP_KIB").ok();
    let kib = kib.map(|kib| kib.parse().expect("QUORATE_SWEEP_KIB is a number"));
    let subject = Subject::new(kib.unwrap_or(DIRECTORY_KIB) << 10);
    let tally = sweep(&subject, kib.is_some());
    print(&subject, &tally);
    for part in [
        Part::Meta,
        Part::ClosedSegment,
        Part::OpenSegment,
        Part::Reserve,
        Part::NewestSnapshot,
        Part::SnapshotBefore,
    ] {
        let came_to = |outcome| {
            let flips = tally.get(&(part, true, outcome)).copied();
            flips.unwrap_or(0) > 0 && tally.contains_key(&(part, false, outcome))
        };
        let expected = match part {
            Part::Meta | Part::NewestSnapshot => Outcome::Spared,
            Part::ClosedSegment | Part::OpenSegment => Outcome::Recovering,
            Part::Reserve | Part::SnapshotBefore => Outcome::Untouched,
        };
        assert!(
            came_to(expected),
            "no damage to a {part:?} was {expected:?}"
        );
    }
    let refused = tally
        .keys()
        .any(|(.., outcome)| *outcome == Outcome::Refused);
    assert!(
        !refused,
        "damage to one file keeps a server of five from starting"
    );
}

/// Which of how many parts of the work is to be done; all parts together are the whole.
fn part() -> (usize, usize) {
    let Ok(part) = std::env::var("QUORATE_SWEEP_PART") else {
        return (1, 1);
    };
    let (number, of) = part.split_once('/').expect("QUORATE_SWEEP_PART is as 3/8");
    let (number, of) = (number.parse().expect(&part), of.parse().expect(&part));
    assert!((1..=of).contains(&number), "{part}");
    (number, of)
}

/// Damages the directory in every way, on all processors.
fn sweep(subject: &Subject, tells: bool) -> Tally {
    let stretches: Vec<(&Listed, usize)> = subject
        .files
        .iter()
        .flat_map(|file| {
            (0..file.bytes)
                .step_by(STRETCH_BYTES)
                .map(move |at| (file, at))
        })
        .skip(part().0 - 1)
        .step_by(part().1)
        .collect();
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut tally = Tally::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((file, from)) = stretches.get(at) else {
                return tally;
            };
            damage_stretch(subject, file, *from, &mut tally);
            let percent = |at: usize| at * 100 / stretches.len();
            if tells && percent(at) != percent(at + 1) {
                let seconds = began.elapsed().as_secs();
                eprintln!("{} % after {seconds} s, in {}", percent(at + 1), file.name);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut tally = Tally::new();
        for worker in workers {
            let part = worker.join().expect("the failure was told");
            for (what, count) in part {
                *tally.entry(what).or_default() += count;
            }
        }
        tally
    })
}

/// Every bit of a stretch of a file, and every length that ends in it.
fn damage_stretch(subject: &Subject, file: &Listed, from: usize, tally: &mut Tally) {
    let disk = subject.disk.copy();
    let content = disk.content(&file.name).expect("it was listed");
    let mut judge = |disk: &MemoryDisk, damage: Damage| {
        let judged = catch_unwind(AssertUnwindSafe(|| judge(subject, disk, file, damage)));
        let Ok(outcome) = judged else {
            panic!("{damage:?} in {} is not healed", file.name);
        };
        let is_flip = matches!(damage, Damage::Flipped(..));
        *tally.entry((file.part, is_flip, outcome)).or_default() += 1;
    };
    let stretch = from..file.bytes.min(from + STRETCH_BYTES);
    for offset in stretch.clone() {
        for bit in 0..8 {
            disk.rot(&file.name, offset, 1 << bit);
            judge(&disk, Damage::Flipped(offset, bit));
            disk.rot(&file.name, offset, 1 << bit);
        }
    }
    for length in stretch {
        disk.put(&file.name, &content[..length]);
        judge(&disk, Damage::CutOff(length));
    }
}

/// Starts with this damaged disk, and checks what it gives back.
fn judge(subject: &Subject, damaged: &MemoryDisk, file: &Listed, damage: Damage) -> Outcome {
    let disk = damaged.copy();
    let opened = Wal::open(disk.clone(), subject.options);
    let (wal, opened) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            assert_names(&error, file, damage);
            return Outcome::Refused;
        }
    };
    assert_grown(opened.restart, subject.restart);
    let (outcome, expected) = match &opened.lost {
        Some(lost) => {
            assert_names(lost, file, damage);
            (Outcome::Recovering, kept(subject, file, damage, &opened))
        }
        None => spared(subject, file, &opened),
    };
    let recovered = &opened.recovered;
    assert_eq!(recovered.recovering, outcome == Outcome::Recovering);
    assert_eq!(recovered.hard_state, expected.hard_state);
    assert_eq!(recovered.before, expected.before);
    assert_eq!(recovered.last, expected.last());
    assert_eq!(recovered.snapshot, expected.snapshot);
    // The rest costs as much again: what the damage is far from is read for some.
    let (Damage::Flipped(at, _) | Damage::CutOff(at)) = damage;
    let is_sampled = at % 8 == 3 && !matches!(damage, Damage::Flipped(_, 1..));
    if is_sampled || matches!(file.part, Part::ClosedSegment | Part::OpenSegment) {
        let served = observe_log(&wal, &opened);
        assert!(served == expected, "{served}, not {expected}");
    }
    if is_sampled || file.part == Part::NewestSnapshot {
        assert_snapshot_served(subject, &wal, &expected);
    }
    if is_sampled {
        assert_alone_is_refused(subject, damaged, opened.lost.as_deref());
        drop(wal);
        assert_durable(subject, &disk, &opened, &expected);
    }
    outcome
}

/// The newest snapshot has what was written into it.
fn assert_snapshot_served(subject: &Subject, wal: &Wal<MemoryDisk>, model: &Model) {
    let Some(snapshot) = &model.snapshot else {
        return;
    };
    let mut reader = SnapshotReader::open(&wal.snapshots(), snapshot.position)
        .expect("what was recovered can be read");
    let mut content = subject.content_of(snapshot);
    while let Some(piece) = reader.read().expect("what was recovered can be read") {
        let (expected, rest) = content.split_at(piece.len());
        assert!(piece == expected, "{snapshot:?}");
        content = rest;
    }
    assert!(content.is_empty(), "{snapshot:?}");
}

/// The error is one line that names the damaged file, and a place at or before the damage.
fn assert_names(error: &Error, file: &Listed, damage: Damage) {
    let line = error.to_string();
    assert!(!line.contains('\n'), "{line}");
    let Error::Corrupt {
        file: named,
        offset,
        ..
    } = error
    else {
        panic!("{line}");
    };
    let (Damage::Flipped(at, _) | Damage::CutOff(at)) = damage;
    assert!(
        named.ends_with(&file.name) && *offset <= at as u64,
        "{line}"
    );
}

/// What a recovering server must have: what it was told in front of the damage, not less, not more.
fn kept(subject: &Subject, file: &Listed, damage: Damage, opened: &Opened) -> Model {
    let from = match damage {
        Damage::Flipped(offset, _) => offset,
        // One that has not its length is not used at all.
        Damage::CutOff(_) => 0,
    };
    let (mut expected, hard_states) = subject.kept(&file.name, from);
    let found = opened.recovered.hard_state;
    let is_expected = hard_states.iter().any(|was| {
        let is_met = was.seating == Seating::Unseated && matches!(found.seating, Seating::Met(_));
        (found.term, found.voted_for) == (was.term, was.voted_for)
            && (found.seating == was.seating || is_met)
    });
    assert!(is_expected, "{found:?}, not {hard_states:?}");
    expected.hard_state = found;
    expected
}

/// What a server must have of which nothing is lost: everything, at most with the snapshot before.
fn spared(subject: &Subject, file: &Listed, opened: &Opened) -> (Outcome, Model) {
    let [older, _] = &subject.snapshots;
    let mut expected = subject.sound.clone();
    let mut outcome = Outcome::Untouched;
    if let [damaged] = &opened.damaged[..] {
        assert!(
            damaged.file.ends_with(&file.name) && file.part == Part::NewestSnapshot,
            "{damaged:?}"
        );
        expected.snapshot = Some(older.clone());
        outcome = Outcome::Spared;
    } else if opened.restart.0 > subject.restart.0 + 1 {
        // It does not know whether there was one more.
        assert_eq!(file.part, Part::Meta);
        outcome = Outcome::Spared;
    } else if let Some(torn) = &opened.torn {
        assert!(torn.file.ends_with(&file.name) && file.part == Part::OpenSegment);
        outcome = Outcome::Erased;
    }
    (outcome, expected)
}

/// Without peers the same damage ends the start, and nothing was changed; or it is none.
fn assert_alone_is_refused(subject: &Subject, damaged: &MemoryDisk, lost: Option<&Error>) {
    let disk = damaged.copy();
    let before = disk.operations();
    let options = Options {
        heals: false,
        ..subject.options
    };
    match (Wal::open(disk.clone(), options), lost) {
        (Ok(_), None) => {}
        (Err(error), Some(lost)) => {
            assert_eq!(error.to_string(), lost.to_string());
            // The directory is synced, since the process before may have come to less.
            assert!(disk.operations() <= before + 1);
        }
        (other, lost) => panic!("{other:?}, and with peers {lost:?}"),
    }
}

/// The power goes behind the start: the next one finds the same, and still knows what is lost.
fn assert_durable(subject: &Subject, disk: &MemoryDisk, opened: &Opened, model: &Model) {
    let disk = disk.after_power_cut(mix(opened.restart.0, 3));
    let again = Wal::open(disk, subject.options);
    let (wal, again) = again.expect("it was mended");
    assert_grown(again.restart, opened.restart);
    assert!(again.lost.is_none() && again.torn.is_none());
    assert_eq!(again.recovered.recovering, opened.recovered.recovering);
    assert!(observe_log(&wal, &again) == *model);
}

/// One line for each kind of file.
fn print(subject: &Subject, tally: &Tally) {
    let outcomes = [
        Outcome::Untouched,
        Outcome::Erased,
        Outcome::Spared,
        Outcome::Recovering,
        Outcome::Refused,
    ];
    let mut lines: BTreeMap<(Part, bool), [u64; 5]> = BTreeMap::new();
    for ((part, is_flip, outcome), count) in tally {
        let line = lines.entry((*part, !*is_flip)).or_default();
        line[*outcome as usize] += count;
    }
    let bytes: usize = subject.files.iter().map(|file| file.bytes).sum();
    println!("{bytes} bytes in {} files", subject.files.len());
    let heads = outcomes.map(|outcome| format!("{outcome:?}"));
    println!(
        "{:<16}{:<9}{:>11}{:>11}{:>11}{:>11}{:>11}",
        "", "", heads[0], heads[1], heads[2], heads[3], heads[4]
    );
    for ((part, is_cut), counts) in lines {
        let part = format!("{part:?}");
        let damage = if is_cut { "cut off" } else { "flipped" };
        let [a, b, c, d, e] = counts;
        println!("{part:<16}{damage:<9}{a:>11}{b:>11}{c:>11}{d:>11}{e:>11}");
    }
}
