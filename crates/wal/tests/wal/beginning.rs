//! Where a log begins: what is dropped for a snapshot, what is given up for one, and what a start
//! makes of a log and snapshots that do not fit (rules 43, 44).

use quorate_wal::{Disk, Error, MemoryDisk, Wal};
use raft::{Fetch, HardState, Index, Position, Reader, Seating, ServerId, Snapshot, Term, Write};

use crate::support::hooked_disk::HookedDisk;
use crate::support::snapshots::{CLUSTER, position, read_snapshot, snapshot_at, write_snapshot};
use crate::support::{files_named, open, options, read_all, write};

/// A log of this many entries of term 1, a few to a segment.
fn filled(disk: &MemoryDisk, entries: u64) -> Wal<MemoryDisk> {
    let (mut wal, _, _) = open(disk.clone(), 1);
    let mut first = write(1, 1, 0, &[&[1; 1000]]);
    first.hard_state = Some(HardState {
        term: Term(1),
        voted_for: Some(ServerId(2)),
        seating: Seating::Met(CLUSTER),
    });
    append(&mut wal, &first);
    for id in 2..=entries {
        append(&mut wal, &write(id, 1, id - 1, &[&[id as u8; 1000]]));
    }
    wal
}

fn append<D: Disk>(wal: &mut Wal<D>, write: &Write) {
    wal.append(write).expect("the log takes it");
    wal.sync().expect("the disk is sound");
}

fn take_snapshot<D: Disk>(wal: &Wal<D>, position: Position) -> Snapshot {
    let snapshot = snapshot_at(position);
    write_snapshot(&wal.snapshots(), &snapshot).expect("the disk is sound");
    snapshot
}

fn snapshot_name(position: Position) -> String {
    format!(
        "snap-{:016x}-{:016x}.snap",
        position.index.0, position.term.0
    )
}

fn fetch(from: u64, to: u64) -> Fetch {
    Fetch {
        reader: Reader::Follower(ServerId(2)),
        from: Index(from),
        to: Index(to),
        bytes_max: usize::MAX,
    }
}

#[test]
fn what_a_snapshot_covers_is_dropped_by_whole_segments() {
    let disk = MemoryDisk::new();
    let mut wal = filled(&disk, 40);
    let snapshot = take_snapshot(&wal, position(1, 30));
    let before = wal.drop_until(Index(30), 0).expect("the disk is sound");
    let before = before.expect("there are segments before that");
    assert!(
        before.term == Term(1) && before.index <= Index(30),
        "{before:?}"
    );
    assert!(
        before.index > Index(20),
        "a segment has no more than 10 of them: {before:?}"
    );

    let reader = wal.reader();
    for from in [1, before.index.0] {
        let entries = reader.read(&fetch(from, 40)).expect("the disk is sound");
        assert_eq!(entries, [], "from {from}");
    }
    let entries = reader.read(&fetch(before.index.0 + 1, 40));
    assert_eq!(
        entries.expect("the disk is sound").len() as u64,
        40 - before.index.0
    );
    assert_eq!(
        wal.drop_until(Index(30), 0).expect("the disk is sound"),
        None
    );

    append(&mut wal, &write(41, 1, 40, &[b"it goes on"]));
    for seed in 0..8 {
        let (_, opened, found) = open(disk.after_power_cut(seed), 2);
        assert_eq!(found.before, before);
        assert_eq!(found.last(), position(1, 41));
        assert_eq!(opened.recovered.snapshot.as_ref(), Some(&snapshot));
        assert_eq!(found.hard_state.voted_for, Some(ServerId(2)));
        assert_eq!(found.hard_state.seating, Seating::Met(CLUSTER));
        assert_eq!(opened.recovered.term_starts, []);
    }
}

#[test]
fn as_many_bytes_of_log_are_kept_as_are_asked_for() {
    for kept_bytes in [0, 8192, 8193, 20_000, 1 << 20] {
        let disk = MemoryDisk::new();
        let mut wal = filled(&disk, 40);
        take_snapshot(&wal, position(1, 40));
        let all = files_named(&disk, ".log").len();
        wal.drop_until(Index(40), kept_bytes)
            .expect("the disk is sound");
        let kept: usize = files_named(&disk, ".log").len();
        let bytes: u64 = kept as u64 * 8192;
        assert!(
            bytes >= kept_bytes.min(all as u64 * 8192),
            "{kept} for {kept_bytes}"
        );
        assert!(bytes <= kept_bytes + 2 * 8192, "{kept} for {kept_bytes}");
        assert!(kept >= 1);
    }
}

#[test]
#[should_panic(expected = "entries up to 5 are to go, and snapshots cover those up to 4")]
fn to_drop_what_no_snapshot_covers_is_a_bug_of_the_caller() {
    let mut wal = filled(&MemoryDisk::new(), 8);
    take_snapshot(&wal, position(1, 4));
    let _ = wal.drop_until(Index(5), 0);
}

#[test]
fn entries_that_were_superseded_before_the_drop_do_not_come_back() {
    let mut superseded = 0;
    for kept in 0..25 {
        let disk = MemoryDisk::new();
        let mut wal = filled(&disk, 21);
        let mut conflict = write(22, 2, 5, &[&[9; 1000]]);
        conflict.truncate_from = Some(Index(6));
        append(&mut wal, &conflict);
        for id in 23..60 {
            append(&mut wal, &write(id, 2, id - 17, &[&[9; 1000]]));
        }
        take_snapshot(&wal, position(2, 40));
        let before = wal
            .drop_until(Index(40), kept * 8192)
            .expect("the disk is sound");
        let before = before.unwrap_or_default();
        let (recovered, _, found) = open(disk.after_power_cut(kept), 2);
        assert_eq!((found.before, found.last()), (before, position(2, 43)));
        let (before, last) = (before.index, Index(43));
        assert_eq!(
            read_all(&recovered, before, last),
            read_all(&wal, before, last)
        );
        // The log's first segment says that an entry of term 1 is before it.
        superseded += u32::from(before == Index(5) && files_named(&disk, ".log").len() < 14);
    }
    assert!(superseded > 0, "no drop met a superseded entry");
}

#[test]
fn a_reader_that_is_overtaken_by_a_drop_gets_nothing() {
    let (disk, running) = HookedDisk::overtaking(|mut wal| {
        wal.drop_until(Index(12), 0).expect("the disk is sound");
    });
    let (mut wal, _, _) = open(disk, 1);
    for id in 1..=20 {
        append(&mut wal, &write(id, 1, id - 1, &[&[1; 1000]]));
    }
    take_snapshot(&wal, position(1, 12));
    let reader = wal.reader();
    *running.lock().expect("no holder of this lock panics") = Some(wal);
    // The drop comes while the first of three segments is read.
    let entries = reader.read(&fetch(1, 12)).expect("it is no error");
    assert_eq!(entries, []);
}

/// The write that begins the log behind this snapshot, with one entry and a vote.
fn install(id: u64, at: Position) -> Write {
    Write {
        begin_behind: Some(at),
        hard_state: Some(HardState {
            term: at.term,
            voted_for: Some(ServerId(4)),
            seating: Seating::Met(CLUSTER),
        }),
        ..write(id, at.term.0, at.index.0, &[b"behind the snapshot"])
    }
}

#[test]
fn a_log_begins_anew_behind_a_snapshot() {
    let disk = MemoryDisk::new();
    let mut wal = filled(&disk, 20);
    let at = position(3, 100);
    take_snapshot(&wal, at);
    // What was appended before in the same batch goes too, but for the vote.
    let mut vote = write(21, 1, 20, &[b"given up"]);
    vote.hard_state = Some(HardState {
        term: Term(2),
        voted_for: Some(ServerId(5)),
        seating: Seating::Met(CLUSTER),
    });
    wal.append(&vote).expect("the log takes it");
    let mut begin = install(22, at);
    begin.hard_state = None;
    wal.append(&begin).expect("the log takes it");
    let reader = wal.reader();
    assert_eq!(reader.read(&fetch(1, 101)).expect("the disk is sound"), []);
    assert_eq!(
        wal.drop_until(Index(100), 0).expect("the disk is sound"),
        None
    );
    wal.sync().expect("the disk is sound");
    assert_eq!(files_named(&disk, ".log").len(), 1);
    assert_eq!(reader.read(&fetch(1, 101)).expect("the disk is sound"), []);
    let entries = reader.read(&fetch(101, 101)).expect("the disk is sound");
    assert_eq!(entries, begin.entries);
    append(&mut wal, &write(23, 3, 101, &[&[1; 6000], &[2; 6000]]));

    let (_, opened, found) = open(disk.after_power_cut(3), 2);
    assert_eq!((found.before, found.last()), (at, position(3, 103)));
    assert_eq!(Some(found.hard_state), vote.hard_state);
    assert_eq!(opened.torn, None);
    let (_, _, again) = open(disk.after_power_cut(4), 3);
    assert_eq!(again, found);
}

#[test]
fn a_log_is_given_up_for_a_snapshot_that_it_does_not_reach_or_contradicts() {
    for at in [position(1, 9), position(3, 4), position(1, 100)] {
        let disk = MemoryDisk::new();
        let wal = filled(&disk, 8);
        take_snapshot(&wal, at);
        let disk = disk.after_power_cut(1);
        let (mut wal, opened, found) = open(disk.clone(), 2);
        assert_eq!((found.before, found.last()), (at, at));
        assert_eq!(opened.recovered.snapshot, Some(snapshot_at(at)));
        assert_eq!(found.hard_state.voted_for, Some(ServerId(2)));
        assert_eq!(files_named(&disk, ".log").len(), 1);
        append(&mut wal, &write(1, 3, at.index.0, &[b"next"]));
        let (_, _, found) = open(disk.after_power_cut(2), 3);
        assert_eq!(
            (found.before, found.last()),
            (at, position(3, at.index.0 + 1))
        );
    }
    // It holds that entry, and what is behind it stays.
    let disk = MemoryDisk::new();
    take_snapshot(&filled(&disk, 8), position(1, 5));
    let (_, opened, found) = open(disk.after_power_cut(1), 2);
    assert_eq!(
        (found.before, found.last()),
        (Position::default(), position(1, 8))
    );
    assert_eq!(opened.recovered.snapshot, Some(snapshot_at(position(1, 5))));
}

/// A log with two snapshots, which was dropped up to the older one or the newer one.
fn with_two_snapshots(dropped: u64) -> (MemoryDisk, Position, [Position; 2]) {
    let disk = MemoryDisk::new();
    let mut wal = filled(&disk, 60);
    let both = [position(1, 25), position(1, 50)];
    for at in both {
        take_snapshot(&wal, at);
    }
    let before = wal
        .drop_until(Index(dropped), 0)
        .expect("the disk is sound");
    (
        disk.after_power_cut(1),
        before.expect("something went"),
        both,
    )
}

#[test]
fn a_damaged_snapshot_is_replaced_by_the_one_before_if_the_log_reaches_back_to_it() {
    let (disk, before, [older, newer]) = with_two_snapshots(25);
    disk.rot(&snapshot_name(newer), 20, 1);
    let (wal, opened, found) = open(disk.clone(), 2);
    assert_eq!(opened.recovered.snapshot, Some(snapshot_at(older)));
    assert_eq!((found.before, found.last()), (before, position(1, 60)));
    let [damaged] = &opened.damaged[..] else {
        panic!("one is damaged, not {:?}", opened.damaged);
    };
    assert_eq!(damaged.file, disk.path().join(snapshot_name(newer)));
    read_snapshot(&wal.snapshots(), newer).expect_err("it stays as it is");
    // The next one has the place of the damaged one.
    take_snapshot(&wal, position(1, 55));
    let names = disk.list().expect("the disk is sound");
    assert!(!names.contains(&snapshot_name(newer)), "{names:?}");
    assert!(names.contains(&snapshot_name(older)), "{names:?}");
}

#[test]
fn a_damaged_snapshot_without_a_way_back_is_an_error_that_names_it() {
    for both_are_damaged in [false, true] {
        let (disk, _, [older, newer]) = with_two_snapshots(50);
        disk.rot(&snapshot_name(newer), 4096 + 20, 1);
        if both_are_damaged {
            disk.rot(&snapshot_name(older), 20, 1);
        }
        let before = disk.operations();
        match Wal::open(disk.clone(), options(2)) {
            Err(Error::Corrupt { file, offset, .. }) => {
                assert_eq!(file, disk.path().join(snapshot_name(newer)));
                assert_eq!(offset, 4096);
            }
            other => panic!("{other:?}"),
        }
        // But for the last batch, which is written again, nothing was done.
        assert!(disk.operations() <= before + 3);
        assert!(disk.content(&snapshot_name(newer)).is_some());
    }
}

#[test]
fn all_snapshots_damaged_are_no_harm_to_a_log_that_holds_everything() {
    let disk = MemoryDisk::new();
    let wal = filled(&disk, 20);
    let at = position(1, 10);
    take_snapshot(&wal, at);
    disk.rot(&snapshot_name(at), 20, 1);
    let (_, opened, found) = open(disk.after_power_cut(1), 2);
    assert_eq!(opened.recovered.snapshot, None);
    assert_eq!(
        (found.before, found.last()),
        (Position::default(), position(1, 20))
    );
    assert_eq!(opened.damaged.len(), 1);
}

#[test]
fn a_gap_between_the_snapshot_and_the_log_is_found() {
    // A snapshot is lost, and the log begins behind the other one.
    let (disk, _, [_, newer]) = with_two_snapshots(50);
    disk.remove(&snapshot_name(newer)).expect("it is there");
    let error = Wal::open(disk.copy(), options(2)).expect_err("there is a gap");
    assert!(matches!(&error, Error::Missing { file } if file.to_string_lossy().contains("wal-")));

    // A segment behind the snapshot is lost.
    let (disk, _, _) = with_two_snapshots(25);
    let names = files_named(&disk, ".log");
    for lost in &names {
        let disk = disk.copy();
        disk.remove(lost).expect("it is there");
        match Wal::open(disk, options(2)) {
            // It may be one that the snapshot covers.
            Ok((_, opened)) => {
                assert!(opened.recovered.before.index <= Index(50), "without {lost}");
                assert_eq!(opened.recovered.last, position(1, 60), "without {lost}");
            }
            Err(Error::Missing { file }) => {
                let sequence = &lost[..20];
                assert!(
                    file.to_string_lossy().contains(sequence),
                    "{file:?} for {lost}"
                );
            }
            Err(error) => panic!("without {lost}: {error}"),
        }
    }
    // Without any snapshot every segment from the first on has to be there.
    let disk = MemoryDisk::new();
    filled(&disk, 20);
    disk.remove(&files_named(&disk, ".log")[0])
        .expect("it is there");
    let error = Wal::open(disk.copy(), options(2)).expect_err("the first is missing");
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}

#[test]
fn a_snapshot_of_another_cluster_is_none_of_ours() {
    let disk = MemoryDisk::new();
    let mut wal = filled(&disk, 8);
    let mut seated = write(9, 2, 8, &[]);
    seated.hard_state = Some(HardState {
        term: Term(2),
        voted_for: None,
        seating: Seating::Met(raft::ClusterId(5)),
    });
    append(&mut wal, &seated);
    take_snapshot(&wal, position(2, 8));
    let (_, opened) = Wal::open(disk.after_power_cut(1), options(2)).expect("the log is whole");
    assert_eq!(opened.recovered.snapshot, None);
    assert_eq!(opened.damaged.len(), 1);
}
