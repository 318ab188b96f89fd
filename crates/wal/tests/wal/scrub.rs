//! What rots while a server runs is found and named, whatever is written, dropped and installed
//! meanwhile, and goes once a snapshot stands for it, not before (rule 64).

use std::sync::{Arc, Mutex};

use quorate_wal::{Disk, Error, MemoryDisk, Part, Rotten, Scrub, Scrubbed, Wal};
use raft::{Index, Snapshot};

use crate::support;
use crate::support::hooked_disk::{Act, HookedDisk};
use crate::support::script::script_with_snapshots;
use crate::support::snapshots::{position, snapshot_at, write_snapshot};
use crate::support::{
    Model, files_named, healing_options, observe, open, operate, options, used, write,
};

/// What one pass found, and how many bytes it has read.
fn pass<D: Disk>(scrub: &mut Scrub<D>) -> (Vec<Scrubbed>, u64) {
    let (mut found, mut bytes) = (Vec::new(), 0);
    loop {
        match scrub.next_file(&mut |read| bytes += read) {
            Ok(Scrubbed::PassEnded) => return (found, bytes),
            Ok(Scrubbed::Sound) => {}
            Ok(other) => found.push(other),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The parts that are rotten.
fn rotten<D: Disk>(scrub: &mut Scrub<D>) -> Vec<Part> {
    let found = pass(scrub).0.into_iter();
    found
        .map(|found| match found {
            Scrubbed::Rotten(Rotten { part, .. }) => part,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// A log of this many entries of term 1, six to a segment at most, and what it holds.
fn filled(entries: u64) -> (MemoryDisk, Wal<MemoryDisk>, Model) {
    let disk = MemoryDisk::new();
    let (mut wal, _, mut model) = open(disk.clone(), 1);
    for id in 1..=entries {
        let write = write(id, 1, id - 1, &[&[id as u8; 600]]);
        wal.append(&write).expect("the log takes it");
        wal.sync().expect("the disk is sound");
        model.apply(&write);
    }
    (disk, wal, model)
}

fn take_snapshot(wal: &Wal<MemoryDisk>, index: u64) -> Snapshot {
    let snapshot = snapshot_at(position(1, index));
    write_snapshot(&wal.snapshots(), &snapshot).expect("the disk is sound");
    snapshot
}

fn segment(at: usize) -> Part {
    Part::Segment(at as u64 + 1)
}

#[test]
fn nothing_is_found_in_a_sound_directory_whatever_was_written_to_it() {
    for seed in 0..30 {
        let disk = MemoryDisk::new();
        let (mut wal, ..) = open(disk.clone(), seed);
        let mut scrub = wal.scrub();
        for operation in script_with_snapshots(seed, 150) {
            operate(&mut wal, &operation).expect("the disk is sound");
            let (found, _) = pass(&mut scrub);
            assert!(found.is_empty(), "seed {seed}: {found:?}");
        }
        wal.sync().expect("the disk is sound");
        drop(wal);
        let (wal, ..) = open(disk.after_power_cut(seed), seed);
        let (found, _) = pass(&mut wal.scrub());
        assert!(found.is_empty(), "seed {seed}, after a start: {found:?}");
    }
}

#[test]
fn all_that_is_synced_and_both_snapshots_are_read_in_a_pass() {
    let (disk, wal, _) = filled(20);
    let mut scrub = wal.scrub();
    let segments = files_named(&disk, ".log");
    assert!(segments.len() > 2, "{segments:?}");
    let log: usize = segments.iter().map(|name| used(&disk, name)).sum();
    // Up to 7 bytes of padding are behind the last record of each.
    let near = |bytes: u64| (log as u64..=log as u64 + 8 * segments.len() as u64).contains(&bytes);
    let (_, bytes) = pass(&mut scrub);
    assert!(near(bytes), "{bytes} of {log}");
    let snapshots = [take_snapshot(&wal, 10), take_snapshot(&wal, 20)];
    let contents = snapshots.iter().map(support::snapshots::content_of);
    let contents: usize = contents.map(|content| content.len()).sum();
    let (_, bytes) = pass(&mut scrub);
    assert!(
        near(bytes - contents as u64),
        "{bytes} of {log} and {contents}"
    );
}

#[test]
fn every_flipped_bit_below_the_synced_end_is_found_and_named() {
    let (disk, wal, _) = filled(14);
    let snapshots = [take_snapshot(&wal, 5), take_snapshot(&wal, 9)];
    let mut scrub = wal.scrub();
    let parts = files_named(&disk, ".log").into_iter().enumerate();
    let parts = parts.map(|(at, name)| (name, segment(at)));
    let snapshots = files_named(&disk, ".snap").into_iter().zip(&snapshots);
    let snapshots = snapshots.map(|(name, it)| (name, Part::Snapshot(it.position)));
    for (name, part) in parts.chain(snapshots) {
        for offset in 0..used(&disk, &name) {
            let mask = 1 << (offset % 8);
            disk.rot(&name, offset, mask);
            let (found, _) = pass(&mut scrub);
            disk.rot(&name, offset, mask);
            let [Scrubbed::Rotten(rotten)] = &found[..] else {
                panic!("byte {offset} of {name}: {found:?}");
            };
            assert_eq!(rotten.part, part, "byte {offset} of {name}: {rotten}");
            let line = rotten.to_string();
            assert!(
                line.contains(&format!("{name}: corrupt at byte ")),
                "{line}"
            );
        }
    }
    assert_eq!(rotten(&mut scrub), []);
}

#[test]
fn a_file_that_is_cut_short_or_gone_is_found() {
    let (disk, wal, _) = filled(14);
    let snapshot = take_snapshot(&wal, 9);
    let mut scrub = wal.scrub();
    let segments = files_named(&disk, ".log");
    for (at, name) in segments.iter().enumerate() {
        let content = disk.content(name).expect("it was listed");
        for length in [0, 100, 4096, 5000, content.len() - 1] {
            disk.put(name, &content[..length]);
            assert_eq!(rotten(&mut scrub), [segment(at)], "{length} bytes");
        }
        disk.remove(name).expect("it was listed");
        assert_eq!(rotten(&mut scrub), [segment(at)], "{name} is gone");
        disk.put(name, &content);
    }
    let name = &files_named(&disk, ".snap")[0];
    let content = disk.content(name).expect("it was listed");
    disk.put(name, &content[..content.len() - 1]);
    assert_eq!(rotten(&mut scrub), [Part::Snapshot(snapshot.position)]);
}

#[test]
fn a_segment_in_place_of_which_its_past_is_back_is_found() {
    let (disk, mut wal, _) = filled(8);
    let names = files_named(&disk, ".log");
    let past: Vec<_> = names.iter().map(|name| disk.content(name)).collect();
    for id in 9..=30 {
        let write = write(id, 1, id - 1, &[&[id as u8; 600]]);
        wal.append(&write).expect("the log takes it");
        wal.sync().expect("the disk is sound");
    }
    let last = names.len() - 1;
    disk.put(&names[last], past[last].as_deref().expect("it was listed"));
    assert_eq!(rotten(&mut wal.scrub()), [segment(last)]);
}

#[test]
fn what_is_misread_once_is_told_and_is_not_taken_for_rotten() {
    let (disk, wal, _) = filled(14);
    take_snapshot(&wal, 9);
    let mut scrub = wal.scrub();
    for reads in 0..4 {
        disk.misread(reads, 5000 + reads as usize, 1);
        let (found, _) = pass(&mut scrub);
        disk.misread(0, 0, 0);
        assert!(
            matches!(&found[..], [] | [Scrubbed::Misread(_)]),
            "{found:?}"
        );
        assert_eq!(rotten(&mut scrub), []);
    }
    disk.misread(0, 5000, 1);
    assert!(matches!(&pass(&mut scrub).0[..], [Scrubbed::Misread(_)]));
}

#[test]
fn what_goes_while_it_is_read_is_not_taken_for_rotten() {
    for reads in 0.. {
        let (disk, wal, _) = filled(40);
        take_snapshot(&wal, 15);
        drop(wal);
        let left = Arc::new(Mutex::new(None));
        let hook = {
            let left = Arc::clone(&left);
            move |_: &MemoryDisk, act: Act| {
                if act == Act::Change {
                    return;
                }
                let due = {
                    let mut left = left.lock().expect("nobody panics with it");
                    match left.take() {
                        Some((0, wal)) => Some(wal),
                        other => {
                            *left = other.map(|(reads, wal)| (reads - 1, wal));
                            None
                        }
                    }
                };
                if let Some(wal) = due {
                    drop_all(wal);
                }
            }
        };
        let disk = disk.after_kill();
        let hooked = HookedDisk::new(disk.clone(), hook);
        let (wal, _) = Wal::open(hooked, options(2)).expect("it is sound");
        let mut scrub = wal.scrub();
        *left.lock().expect("nobody panics with it") = Some((reads, wal));
        assert_eq!(rotten(&mut scrub), [], "after {reads} reads");
        if left.lock().expect("nobody panics with it").is_some() {
            assert!(reads > 5, "a pass of {reads} reads");
            return;
        }
        assert!(files_named(&disk, ".log").len() < 3, "after {reads} reads");
    }
}

/// Takes two snapshots, and drops all of the log before.
fn drop_all(mut wal: Wal<HookedDisk>) {
    for index in [30, 40] {
        let snapshot = snapshot_at(position(1, index));
        write_snapshot(&wal.snapshots(), &snapshot).expect("the disk is sound");
    }
    let dropped = wal.drop_until(Index(40), 0).expect("the disk is sound");
    assert!(dropped.is_some());
}

/// Where one of four segments rots. The block in which the last ends is written again with what
/// follows, so that nothing rots there for long.
fn rots_at(at: usize) -> usize {
    if at == 3 { 50 } else { 4500 }
}

#[test]
fn a_rotten_segment_goes_once_a_snapshot_has_what_is_in_it_and_not_before() {
    for at in 0..4 {
        let (disk, mut wal, model) = filled(20);
        let names = files_named(&disk, ".log");
        assert_eq!(names.len(), 4, "{names:?}");
        take_snapshot(&wal, 3);
        disk.rot(&names[at], rots_at(at), 1);
        let mut scrub = wal.scrub();
        assert_eq!(rotten(&mut scrub), [segment(at)]);
        let up_to = wal.give_up_segment(at as u64 + 1);
        let up_to = up_to.expect("the disk is sound").expect("it is there");
        assert!(up_to.0 > 3 && (at < 3 || up_to.0 == 20), "{up_to}");
        let early = wal.drop_given_up(Index(3)).expect("the disk is sound");
        assert!(
            early.is_none_or(|before| before.index <= Index(3)),
            "{early:?}"
        );
        assert!(files_named(&disk, ".log").contains(&names[at]));
        assert_eq!(rotten(&mut scrub), [segment(at)]);

        let snapshot = take_snapshot(&wal, up_to.0);
        let dropped = wal.drop_given_up(up_to).expect("the disk is sound");
        assert_eq!(dropped, Some(snapshot.position));
        let left = files_named(&disk, ".log");
        assert!(
            !names[..=at].iter().any(|name| left.contains(name)),
            "{left:?}"
        );
        assert!(
            names[at + 1..].iter().all(|name| left.contains(name)),
            "{left:?}"
        );
        assert_eq!(rotten(&mut scrub), []);
        assert_eq!(wal.drop_given_up(up_to).expect("the disk is sound"), None);

        let last = write(21, 1, 20, &[b"it goes on"]);
        wal.append(&last).expect("the log takes it");
        wal.sync().expect("the disk is sound");
        let (_, _, found) = open(disk.after_power_cut(at as u64), 2);
        let mut expected = model.recovered_with(Some(&snapshot));
        expected.apply(&last);
        expected.drop_to(snapshot.position);
        assert_eq!(found, expected);
    }
}

#[test]
fn a_segment_that_is_gone_is_given_up_like_one_that_is_rotten() {
    let (disk, mut wal, _) = filled(20);
    let names = files_named(&disk, ".log");
    disk.remove(&names[1]).expect("it was listed");
    assert_eq!(rotten(&mut wal.scrub()), [segment(1)]);
    let up_to = wal.give_up_segment(2).expect("the disk is sound");
    let up_to = up_to.expect("the log does not know that it is gone");
    take_snapshot(&wal, up_to.0);
    let dropped = wal.drop_given_up(up_to).expect("the disk is sound");
    assert_eq!(dropped.map(|it| it.index), Some(up_to));
    assert_eq!(files_named(&disk, ".log"), names[2..]);
    assert_eq!(wal.give_up_segment(2).expect("the disk is sound"), None);
}

#[test]
fn without_space_for_the_next_segment_a_rotten_last_one_is_given_up_later() {
    let (disk, mut wal, _) = filled(20);
    disk.set_full(true);
    let refused = wal.give_up_segment(4);
    assert!(matches!(refused, Err(Error::NoSpace { .. })), "{refused:?}");
    disk.set_full(false);
    assert_eq!(
        wal.give_up_segment(4).expect("there is space"),
        Some(Index(20))
    );
    assert_eq!(files_named(&disk, ".log").len(), 5);
}

/// A start finds the rot, or that all that was ever synced is there without it.
#[test]
fn a_crash_at_any_moment_finds_the_rot_or_nothing_missing() {
    for at in [1, 3] {
        let mut cut = 1;
        loop {
            let (disk, mut wal, model) = filled(20);
            disk.rot(&files_named(&disk, ".log")[at], rots_at(at), 1);
            disk.cut_power_at(disk.operations() + cut);
            let result = wal.give_up_segment(at as u64 + 1).and_then(|up_to| {
                let up_to = up_to.expect("it is there");
                write_snapshot(&wal.snapshots(), &snapshot_at(position(1, up_to.0)))?;
                wal.drop_given_up(up_to)
            });
            let (wal, opened) = Wal::open(disk.after_power_cut(cut), healing_options(2))
                .expect("there are others to heal from");
            if opened.lost.is_none() {
                let found = observe(&wal, &opened);
                assert!(found.snapshot.is_some(), "{found} without what was rotten");
                assert_eq!(found.last(), model.last(), "cut at {cut}");
                assert!(!opened.recovered.recovering);
            }
            if result.is_ok() {
                assert!(opened.lost.is_none(), "{:?}", opened.lost);
                break;
            }
            cut += 1;
        }
        assert!(cut > 5, "{cut} operations");
    }
}

#[test]
fn a_rotten_snapshot_goes_with_the_next_one_or_is_written_again() {
    for (flipped, next) in [(5, 15), (10, 15), (5, 10), (10, 10)] {
        let (disk, wal, _) = filled(20);
        let snapshots = [take_snapshot(&wal, 5), take_snapshot(&wal, 10)];
        let at = usize::from(flipped == 10);
        disk.rot(&files_named(&disk, ".snap")[at], 4200, 1);
        let mut scrub = wal.scrub();
        let part = Part::Snapshot(snapshots[at].position);
        assert_eq!(rotten(&mut scrub), [part]);
        wal.snapshots().give_up(snapshots[at].position);
        assert_eq!(
            rotten(&mut scrub),
            [part],
            "it is there until there is another"
        );
        let snapshot = take_snapshot(&wal, next);
        assert_eq!(wal.snapshots().newest(), Some(snapshot.clone()));
        assert_eq!(rotten(&mut scrub), [], "{flipped} and {next}");
        let (_, opened, _) = open(disk.after_power_cut(1), 2);
        assert_eq!(opened.recovered.snapshot, Some(snapshot));
        assert_eq!(opened.damaged, []);
    }
}

#[test]
fn a_snapshot_that_a_start_could_not_use_is_not_complained_of_again() {
    let (disk, wal, _) = filled(20);
    take_snapshot(&wal, 5);
    take_snapshot(&wal, 10);
    disk.rot(&files_named(&disk, ".snap")[1], 4200, 1);
    drop(wal);
    let (wal, opened, _) = open(disk.after_kill(), 2);
    assert_eq!(opened.damaged.len(), 1);
    assert_eq!(rotten(&mut wal.scrub()), []);
}
