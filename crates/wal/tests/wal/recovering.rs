//! Whatever of a data directory rots, is shortened or goes missing: a server with peers keeps what
//! is in front of it, and is marked as recovering before it gives up anything; one without refuses,
//! and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;

use quorate_wal::{DirectoryDisk, Disk, Error, MemoryDisk, Opened, Problem, Wal};
use raft::{Entry, Index, Restart, Seating, Write, WriteId};

use crate::support;
use crate::support::script::{Operation, script, script_with_snapshots};
use crate::support::{
    Model, assert_grown, files_named, healing_options, mix, observe, operate, options, used,
};

/// A data directory in which everything is synced, and all that it held in its life.
struct Sound {
    disk: MemoryDisk,
    /// After each sync.
    history: Vec<Model>,
    restart: Restart,
}

fn sound(seed: u64, operations: &[Operation]) -> Sound {
    let disk = MemoryDisk::new();
    let (mut wal, opened, mut model) = support::open(disk.clone(), seed);
    let mut history = vec![model.clone()];
    for operation in operations {
        operate(&mut wal, operation).expect("the disk is sound");
        match operation {
            Operation::Append(write) => model.apply(write),
            Operation::Sync => history.push(model.clone()),
            _ => {}
        }
    }
    wal.sync().expect("the disk is sound");
    history.push(model);
    wal.close().expect("the disk is sound");
    Sound {
        disk: disk.after_kill(),
        history,
        restart: opened.restart,
    }
}

/// The files that hold something, each with where that ends.
fn files(disk: &MemoryDisk) -> Vec<(String, usize)> {
    let names = [files_named(disk, ".snap"), files_named(disk, ".log")].concat();
    let files = names.into_iter();
    files
        .map(|name| (name.clone(), used(disk, &name)))
        .collect()
}

fn contents(disk: &MemoryDisk) -> BTreeMap<String, Vec<u8>> {
    let names = disk.list().expect("the disk is sound").into_iter();
    let contents = names.map(|name| {
        let mut content = disk.content(&name).expect("it was listed");
        // As far as it can be read.
        let file = disk.open(&name).expect("it was listed");
        for (block, at) in content.chunks_mut(4096).zip((0..).step_by(4096)) {
            if disk.read_at(&file, block, at).is_err() {
                block.fill(0);
            }
        }
        (name, content)
    });
    // Nobody reads the one that is being prepared.
    contents.filter(|(name, _)| name != "wal.next").collect()
}

/// The first number in a name: a segment's first entry, or the last of a snapshot.
fn index_in(name: &str) -> Option<u64> {
    let stem = name.split_once('.')?.0;
    let index = match stem.strip_prefix("snap-") {
        Some(position) => position.split_once('-')?.0,
        None => stem.strip_prefix("wal-")?.split_once('-')?.1,
    };
    u64::from_str_radix(index, 16).ok()
}

/// Every file that there was is there as it was, under its name or set aside, but for segments of
/// which a snapshot has everything.
fn assert_all_is_kept(before: &BTreeMap<String, Vec<u8>>, disk: &MemoryDisk) {
    let after = contents(disk);
    let snapshots = after.keys().filter(|name| name.starts_with("snap-"));
    let covered = snapshots.filter_map(|name| index_in(name)).max();
    for (name, content) in before {
        let behind = before.keys().find(|other| *other > name);
        let next = behind.filter(|_| name.starts_with("wal-"));
        if next.and_then(|next| index_in(next)) <= covered.map(|index| index + 1) && next.is_some()
        {
            continue;
        }
        let is_kept = after.iter().any(|(kept, now)| {
            let aside = kept.strip_prefix("lost.").and_then(|it| it.split_once('.'));
            let is_of_it = kept == name || aside.is_some_and(|(_, of)| of == name);
            is_of_it && now == content
        });
        assert!(is_kept, "{name} is gone; left are {:?}", after.keys());
    }
}

/// True if the log held this at some time, but for what a start knows of the cluster by itself.
fn was(model: &Model, history: &[Model]) -> bool {
    history.iter().any(|past| {
        let (found, was) = (model.hard_state, past.hard_state);
        let is_met = was.seating == Seating::Unseated && matches!(found.seating, Seating::Met(_));
        found.term == was.term
            && found.voted_for == was.voted_for
            && (found.seating == was.seating || is_met)
            && model.entries == past.entries
    })
}

/// True if all of these entries were in the log together at some time, or there are none.
fn were_together(entries: &[Entry], history: &[Model]) -> bool {
    let Some(first) = entries.first() else {
        return true;
    };
    history.iter().any(|past| {
        let at = past.entries.iter().position(|entry| entry == first);
        let held = at.and_then(|at| past.entries.get(at..at + entries.len()));
        held == Some(entries)
    })
}

/// The file and the offset that this names.
fn place(error: &Error) -> (String, u64) {
    match error {
        Error::Corrupt { file, offset, .. } => {
            let name = file.file_name().expect("it names a file");
            (name.to_string_lossy().into_owned(), *offset)
        }
        Error::Missing { file } => {
            let name = file.file_name().expect("it names a file");
            (name.to_string_lossy().into_owned(), 0)
        }
        Error::Distrusted { .. } => (String::new(), 0),
        other => panic!("{other}"),
    }
}

/// Opens a damaged directory, without peers and with them. `None` if nothing that counts was hurt.
fn open_damaged(disk: &MemoryDisk, restart: Restart) -> Option<(Wal<MemoryDisk>, Opened, Model)> {
    let alone = disk.copy();
    let before = contents(&alone);
    let refused = Wal::open(alone.clone(), options(3));
    let Err(error) = refused else {
        let (_, opened) = Wal::open(disk.clone(), healing_options(3)).expect("it opens alone");
        assert!(!opened.recovered.recovering && opened.lost.is_none());
        return None;
    };
    assert_eq!(contents(&alone), before, "{error}");
    let (wal, opened) = Wal::open(disk.clone(), healing_options(3))
        .unwrap_or_else(|error| panic!("it does not heal: {error}"));
    assert_all_is_kept(&before, disk);
    let lost = opened.lost.as_ref().expect("it says what is lost");
    assert_eq!(place(lost), place(&error));
    assert!(opened.recovered.recovering, "{lost}");
    assert_grown(opened.restart, restart);
    let model = observe(&wal, &opened);
    Some((wal, opened, model))
}

/// The mark outlives the next start, entries are taken, and the mark goes when they are synced.
fn recovers(disk: &MemoryDisk, wal: Wal<MemoryDisk>, model: &Model) {
    drop(wal);
    let disk = disk.after_power_cut(4);
    let again = Wal::open(disk.clone(), healing_options(5));
    let (mut wal, opened) = again.expect("it was mended");
    assert!(opened.recovered.recovering && opened.lost.is_none());
    assert_eq!(&observe(&wal, &opened), model);
    let last = model.last();
    let term = last.term.0.max(model.hard_state.term.0) + 1;
    let mut write = support::write(1, term, last.index.0, &[b"given", b"back"]);
    write.recovered = true;
    wal.append(&write).expect("the log takes it");
    wal.sync().expect("the disk is sound");
    let disk = disk.after_power_cut(6);
    let (wal, opened) = Wal::open(disk.clone(), options(7)).expect("it has recovered");
    assert!(!opened.recovered.recovering);
    let left: Vec<String> = contents(&disk).into_keys().collect();
    assert!(
        !left.iter().any(|name| name.starts_with("lost.")),
        "{left:?}"
    );
    assert_eq!(observe(&wal, &opened).last().index.0, last.index.0 + 2);
}

#[test]
fn every_damaged_byte_of_a_log_leaves_what_is_in_front_of_it_and_a_mark() {
    let sound = sound(1, &script(1, 120));
    let segments = files(&sound.disk);
    assert!(segments.len() > 2, "{segments:?}");
    let mut kept = 0;
    for (name, end) in &segments {
        for offset in (0..*end).step_by(3) {
            let disk = sound.disk.copy();
            disk.rot(name, offset, 1 << (mix(1, offset as u64) % 8));
            let opened = open_damaged(&disk, sound.restart);
            let (wal, opened, model) =
                opened.unwrap_or_else(|| panic!("byte {offset} of {name} was taken as it is"));
            let (file, at) = place(opened.lost.as_ref().expect("it is lost"));
            assert!(file == *name && at <= offset as u64, "{file} at {at}");
            assert!(
                was(&model, &sound.history),
                "byte {offset} of {name}: {model}"
            );
            kept += u32::from(model.last().index > Index(0));
            if offset % 60 == 0 {
                recovers(&disk, wal, &model);
            }
        }
    }
    assert!(kept > 1000, "{kept} times something was left");
}

#[test]
fn a_sector_that_cannot_be_read_is_damage_and_those_in_front_of_its_block_are_kept() {
    let sound = sound(1, &script(1, 120));
    let mut kept = 0;
    for (name, end) in &files(&sound.disk) {
        for offset in (0..*end).step_by(512) {
            let disk = sound.disk.copy();
            disk.wear_out(name, offset);
            let opened = open_damaged(&disk, sound.restart);
            let (wal, opened, model) =
                opened.unwrap_or_else(|| panic!("byte {offset} of {name} was not missed"));
            let lost = opened.lost.as_ref().expect("it is lost");
            let block = offset as u64 / 4096 * 4096;
            assert_eq!(place(lost), (name.clone(), block), "{lost}");
            assert!(
                lost.to_string().contains("the disk gives an error"),
                "{lost}"
            );
            assert!(was(&model, &sound.history), "{offset} of {name}: {model}");
            kept += u32::from(model.last().index > Index(0));
            recovers(&disk, wal, &model);
        }
    }
    assert!(kept > 20, "{kept} times something was left");
}

#[test]
fn behind_a_newest_snapshot_that_cannot_be_read_is_the_one_before_it() {
    let sound = sound(14, &script_with_snapshots(14, 400));
    let (_, whole) = Wal::open(sound.disk.copy(), options(3)).expect("it is sound");
    let newest = whole.recovered.snapshot.expect("some were written");
    let snapshots = files_named(&sound.disk, ".snap");
    let [older, name] = &snapshots[..] else {
        panic!("two are kept: {snapshots:?}");
    };
    let content = sound.disk.content(name).expect("it was listed");
    for offset in (0..content.len()).step_by(512) {
        let disk = sound.disk.copy();
        disk.wear_out(name, offset);
        let (wal, opened) = Wal::open(disk.clone(), options(3)).expect("there is another");
        let found = opened
            .recovered
            .snapshot
            .as_ref()
            .expect("there is another");
        assert!(found.position.index < newest.position.index);
        assert_eq!(opened.damaged.len(), 1);
        assert_eq!(opened.damaged[0].file, disk.path().join(name));
        assert_eq!(opened.damaged[0].problem, Problem::Unreadable);
        let model = observe(&wal, &opened);
        assert!(were_together(&model.entries, &sound.history), "{model}");
    }
    // Without either it recovers, or says so if it is alone.
    let disk = sound.disk.copy();
    disk.wear_out(name, 0);
    disk.wear_out(older, 0);
    let (wal, opened, model) = open_damaged(&disk, sound.restart).expect("neither can be used");
    let lost = opened.lost.as_ref().expect("it is lost");
    assert_eq!(place(lost), (name.clone(), 0));
    recovers(&disk, wal, &model);
}

#[test]
fn one_meta_file_that_cannot_be_read_is_written_again_and_two_are_nobodys() {
    let sound = sound(1, &script(1, 20));
    for name in ["meta.0", "meta.1"] {
        let disk = sound.disk.copy();
        disk.wear_out(name, 600);
        let (wal, opened) = Wal::open(disk.clone(), options(3)).expect("there is the other");
        assert_grown(opened.restart, sound.restart);
        drop(wal);
        let (_, opened) = Wal::open(disk.after_kill(), options(4)).expect("it is written again");
        assert!(!opened.recovered.recovering);
    }
    sound.disk.wear_out("meta.0", 0);
    sound.disk.wear_out("meta.1", 0);
    let refused = Wal::open(sound.disk.clone(), healing_options(3));
    let refused = refused.expect_err("it is nobody's").to_string();
    assert!(
        refused.contains("meta.") && refused.contains("error"),
        "{refused}"
    );
}

/// Permissions, open files and the like may be better the next time.
#[test]
fn a_file_that_cannot_be_opened_is_not_taken_for_damaged() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let path = directory.path().join("data");
    let open = || DirectoryDisk::open(&path).expect("it is ours");
    let (mut wal, _) = Wal::open(open(), healing_options(1)).expect("it is empty");
    wal.append(&support::write(1, 1, 0, &[b"one"]))
        .expect("the log takes it");
    wal.sync().expect("the disk is sound");
    drop(wal);
    let names = open().list().expect("it is ours");
    let segment = names.iter().find(|name| name.ends_with(".log"));
    let segment = path.join(segment.expect("there is one"));
    let elsewhere = directory.path().join("elsewhere");
    fs::rename(&segment, &elsewhere).expect("it is ours");
    // A link is not followed.
    symlink(&elsewhere, &segment).expect("it is ours");
    let refused = Wal::open(open(), healing_options(2)).expect_err("it is a link");
    assert!(matches!(refused, Error::Io { .. }), "{refused}");
    fs::rename(&elsewhere, &segment).expect("it is ours");
    let (_, opened) = Wal::open(open(), options(2)).expect("nothing was done about it");
    assert_eq!(opened.recovered.last.index, Index(1));
}

#[test]
fn a_shortened_or_missing_segment_leaves_what_is_in_front_of_it_and_a_mark() {
    let sound = sound(2, &script(2, 120));
    for (at, (name, _)) in files(&sound.disk).iter().enumerate() {
        let content = sound.disk.content(name).expect("it was listed");
        for length in (0..content.len()).step_by(577) {
            let disk = sound.disk.copy();
            disk.put(name, &content[..length]);
            let (wal, _, model) = open_damaged(&disk, sound.restart).expect("it is too short");
            assert!(
                was(&model, &sound.history),
                "{name} cut to {length}: {model}"
            );
            assert_eq!(model.last().index > Index(0), at > 0, "{name}: {model}");
            recovers(&disk, wal, &model);
        }
        let disk = sound.disk.copy();
        disk.remove(name).expect("it is there");
        disk.sync_directory().expect("the disk is sound");
        let (wal, _, model) = open_damaged(&disk, sound.restart).expect("it is missing");
        assert!(was(&model, &sound.history), "{name} is missing: {model}");
        recovers(&disk, wal, &model);
    }
}

#[test]
fn damage_beside_snapshots_leaves_a_log_or_a_snapshot_that_can_be_used() {
    let (mut marked, mut from_snapshot, mut from_nothing) = (0, 0, 0);
    for seed in [14, 15, 16] {
        let sound = sound(seed, &script_with_snapshots(seed, 400));
        for (name, end) in files(&sound.disk) {
            for step in 0..150 {
                let disk = sound.disk.copy();
                let offset = (mix(seed, step) % (end as u64)) as usize;
                let content = disk.content(&name).expect("it was listed");
                match step % 3 {
                    0 => disk.put(&name, &content[..offset]),
                    _ => disk.rot(&name, offset, 1 << (mix(5, step) % 8)),
                }
                let Some((wal, opened, model)) = open_damaged(&disk, sound.restart) else {
                    assert!(name.ends_with(".snap"), "byte {offset} of {name}");
                    continue;
                };
                assert!(were_together(&model.entries, &sound.history), "{model}");
                marked += 1;
                let snapshot = opened.recovered.snapshot.is_some();
                from_snapshot += u32::from(snapshot && model.entries.is_empty());
                from_nothing += u32::from(!snapshot && model.entries.is_empty());
                if step % 10 == 0 {
                    recovers(&disk, wal, &model);
                }
            }
        }
        // All snapshots at once.
        let disk = sound.disk.copy();
        for (name, _) in files(&disk) {
            if name.ends_with(".snap") {
                disk.rot(&name, 20, 1);
            }
        }
        if let Some((wal, _, model)) = open_damaged(&disk, sound.restart) {
            assert_eq!(model.last().index, Index(0), "{model}");
            recovers(&disk, wal, &model);
            from_nothing += 1;
        }
    }
    assert!(
        marked > 500 && from_snapshot > 50 && from_nothing > 0,
        "{marked} marked, {from_snapshot} begin with a snapshot, {from_nothing} with nothing"
    );
}

/// As an operator does it whose server has a state that is not that of the others.
#[test]
fn a_server_whose_snapshots_were_deleted_begins_with_what_is_left_and_heals() {
    let (mut from_nothing, mut whole) = (0, 0);
    for seed in 14..20 {
        let sound = sound(seed, &script_with_snapshots(seed, 400));
        let disk = sound.disk.copy();
        for (name, _) in files(&disk) {
            if name.ends_with(".snap") {
                disk.remove(&name).expect("it is there");
            }
        }
        disk.sync_directory().expect("the disk is sound");
        match open_damaged(&disk, sound.restart) {
            Some((wal, opened, model)) => {
                let lost = opened.lost.as_ref().expect("it says what is lost");
                assert!(matches!(**lost, Error::Missing { .. }), "{lost}");
                assert!(opened.recovered.snapshot.is_none());
                assert_eq!(model.last().index, Index(0), "{model}");
                recovers(&disk, wal, &model);
                from_nothing += 1;
            }
            None => whole += 1,
        }
    }
    assert!(
        from_nothing > 3,
        "{from_nothing} began with nothing, {whole} with all of the log"
    );
}

/// The power goes at each operation of a start that gives something up, and of the start after.
#[test]
fn a_crash_at_any_moment_of_a_recovery_leaves_the_mark_or_the_damage() {
    let sound = sound(1, &script_with_snapshots(14, 400));
    let mut crashes = 0;
    for (at, (name, end)) in files(&sound.disk).into_iter().enumerate() {
        let damaged = sound.disk.copy();
        damaged.rot(&name, end / 2, 0x10);
        let Some((_, _, expected)) = open_damaged(&damaged.copy(), sound.restart) else {
            continue;
        };
        let before = contents(&damaged);
        for operation in 1.. {
            let disk = damaged.copy();
            disk.cut_power_at(disk.operations() + operation);
            if Wal::open(disk.clone(), healing_options(8)).is_ok() {
                break;
            }
            crashes += 1;
            for seed in 0..4 {
                let disk = disk.after_power_cut(mix(seed, at as u64 + operation));
                // And once more.
                disk.cut_power_at(1 + mix(seed, operation) % 12);
                let _ = Wal::open(disk.clone(), healing_options(9));
                let disk = disk.after_power_cut(mix(seed, 77));
                assert_all_is_kept(&before, &disk);
                let opened = Wal::open(disk.clone(), healing_options(10));
                let (wal, opened) = opened.unwrap_or_else(|error| {
                    panic!("{name}, crashed at {operation}, does not heal: {error}")
                });
                assert!(
                    opened.recovered.recovering,
                    "{name}, crashed at {operation}, is not marked"
                );
                assert_all_is_kept(&before, &disk);
                assert_grown(opened.restart, sound.restart);
                let model = observe(&wal, &opened);
                assert!(were_together(&model.entries, &sound.history), "{model}");
                assert!(model.last() <= expected.last(), "{model} is not {expected}");
                recovers(&disk, wal, &model);
            }
        }
    }
    assert!(crashes > 20, "{crashes} crashes");
}

#[test]
fn a_directory_that_is_distrusted_is_set_aside_and_begun_anew() {
    for seed in [1, 14] {
        let sound = sound(seed, &script_with_snapshots(seed, 400));
        let disk = sound.disk.copy();
        let (mut wal, _) = Wal::open(disk.clone(), options(2)).expect("it is whole");
        wal.distrust().expect("the disk is sound");
        let disk = disk.after_power_cut(3);
        for operation in (1..).step_by(3) {
            let crashed = disk.copy();
            crashed.cut_power_at(crashed.operations() + operation);
            let opened = Wal::open(crashed.clone(), healing_options(4));
            let is_over = opened.is_ok();
            let crashed = crashed.after_power_cut(operation);
            let before = contents(&disk);
            assert_all_is_kept(&before, &crashed);
            let opened = Wal::open(crashed.clone(), healing_options(5));
            let (wal, opened) = opened.expect("there are others to heal from");
            assert!(opened.recovered.recovering);
            let model = observe(&wal, &opened);
            assert_eq!(model.last().index, Index(0), "{model}");
            assert_all_is_kept(&before, &crashed);
            recovers(&crashed, wal, &model);
            if is_over {
                break;
            }
        }
        let (wal, opened, model) = open_damaged(&disk, sound.restart).expect("it is marked");
        let lost = opened.lost.as_ref().expect("it says why");
        assert!(matches!(**lost, Error::Distrusted { .. }), "{lost}");
        recovers(&disk, wal, &model);
    }
}

#[test]
fn what_sixteen_starts_have_found_is_kept_and_no_more() {
    let sound = sound(1, &script(1, 120));
    let mut disk = sound.disk.copy();
    let before = contents(&disk);
    for start in 1..=20 {
        let mut newest = files_named(&disk, ".log").into_iter();
        let newest = newest.rfind(|name| name.starts_with("wal-"));
        let newest = newest.expect("there is a log");
        disk.remove(&newest).expect("it is there");
        disk.sync_directory().expect("the disk is sound");
        let opened = Wal::open(disk.clone(), healing_options(start));
        let (_, opened) = opened.expect("there are others to heal from");
        assert!(opened.lost.is_some(), "start {start}");
        disk = disk.after_kill();
        let names = contents(&disk).into_keys();
        let starts = names.filter_map(|name| {
            let (start, _) = name.strip_prefix("lost.")?.split_once('.')?;
            Some(start.to_owned())
        });
        let starts: BTreeSet<String> = starts.collect();
        assert_eq!(starts.len() as u64, start.min(16));
    }
    // What counts most, that of the first start, is still there.
    let (_, meta) = before.first_key_value().expect("there are files");
    assert!(contents(&disk).values().any(|content| content == meta));
}

#[test]
fn the_mark_is_in_both_meta_files_and_goes_only_behind_what_it_waits_for() {
    let sound = sound(1, &script(1, 60));
    let (name, end) = files(&sound.disk).pop().expect("there is a segment");
    let disk = sound.disk.copy();
    disk.rot(&name, end - 9, 1);
    let (wal, _, model) = open_damaged(&disk, sound.restart).expect("it is found");
    drop(wal);
    for meta in ["meta.0", "meta.1"] {
        let disk = disk.after_power_cut(1);
        disk.rot(meta, 100, 1);
        let (_, opened) = Wal::open(disk, healing_options(2)).expect("one is left");
        assert!(opened.recovered.recovering);
    }
    let error = Wal::open(disk.after_power_cut(1), options(2)).expect_err("it has no peers");
    assert!(matches!(error, Error::Recovering { .. }), "{error}");

    // The power goes at each operation of the sync that says that it has recovered.
    let mut cleared = 0;
    for operation in 1..20 {
        let disk = disk.after_power_cut(1);
        let (mut wal, _) = Wal::open(disk.clone(), healing_options(2)).expect("it was mended");
        let last = model.last();
        let mut write = support::write(1, last.term.0 + 1, last.index.0, &[&[7; 3000]]);
        write.recovered = true;
        wal.append(&write).expect("the log takes it");
        disk.cut_power_at(disk.operations() + operation);
        let is_synced = wal.sync().is_ok();
        for seed in 0..8 {
            let disk = disk.after_power_cut(mix(seed, operation));
            let (wal, opened) = Wal::open(disk, healing_options(3)).expect("it is sound");
            let found = observe(&wal, &opened).last().index;
            let is_cleared = !opened.recovered.recovering;
            assert!(is_cleared || !is_synced, "the mark is back");
            assert!(!is_cleared || found == last.index.next(), "it has {found}");
            cleared += u32::from(is_cleared);
        }
    }
    assert!(cleared > 8, "{cleared}");
}

#[test]
fn a_directory_of_which_nobody_knows_whose_it_is_is_refused_and_left_alone() {
    let sound = sound(1, &script(1, 60));
    for damage in 0..3 {
        let disk = sound.disk.copy();
        for meta in ["meta.0", "meta.1"] {
            let content = disk.content(meta).expect("it is there");
            match damage {
                0 => disk.rot(meta, 40, 1),
                1 => disk.put(meta, &content[..100]),
                _ => disk.remove(meta).expect("it is there"),
            }
        }
        let before = contents(&disk);
        let error = Wal::open(disk.clone(), healing_options(1)).expect_err("whose is it?");
        let (file, _) = place(&error);
        assert!(file.starts_with("meta."), "{error}");
        assert_eq!(contents(&disk), before);
    }
}

/// What the newest meta file knew is not known any more when both go.
#[test]
fn the_newest_segment_is_missed_though_the_newest_meta_file_is_rotten() {
    for operations in [0, 60, 120] {
        let sound = sound(3, &script(3, operations));
        let (name, _) = files(&sound.disk).pop().expect("there is a segment");
        for meta in ["meta.0", "meta.1"] {
            for is_gone in [false, true] {
                let disk = sound.disk.copy();
                disk.remove(&name).expect("it is there");
                match is_gone {
                    true => disk.remove(meta).expect("it is there"),
                    false => disk.rot(meta, 100, 1),
                }
                disk.sync_directory().expect("the disk is sound");
                if is_gone && operations > 0 {
                    // Two files are gone without a trace: more than one can tell from a crash.
                    continue;
                }
                let opened = open_damaged(&disk, sound.restart);
                let (wal, _, model) = opened.expect("a segment is missing");
                recovers(&disk, wal, &model);
            }
        }
    }
}

#[test]
fn a_server_that_lost_its_seat_with_its_log_founds_no_other_cluster() {
    let disk = MemoryDisk::new();
    let (mut wal, _, model) = support::open(disk.clone(), 1);
    let cluster = raft::ClusterId(7);
    let mut hard_state = model.hard_state;
    hard_state.seating = Seating::Met(cluster);
    let write = Write {
        id: WriteId(1),
        hard_state: Some(hard_state),
        ..Write::default()
    };
    wal.append(&write).expect("the log takes it");
    wal.sync().expect("the disk is sound");
    wal.close().expect("the disk is sound");
    let disk = disk.after_kill();
    let (name, _) = files(&disk).pop().expect("there is a segment");
    disk.rot(&name, 40, 1);
    for seed in 1..3 {
        let disk = disk.after_kill();
        let (_, opened) = Wal::open(disk, healing_options(seed)).expect("it heals");
        let recovered = opened.recovered;
        assert!(recovered.recovering);
        assert_eq!(recovered.hard_state.seating, Seating::Met(cluster));
    }
}
