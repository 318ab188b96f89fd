//! What rots below the synced end of the log is found and named, and never taken for a torn end;
//! a torn end is never taken for rot.

use quorate_wal::{Disk, Error, MemoryDisk, Options, Problem, SEGMENT_BYTES_MIN, Wal};
use raft::{Fetch, Index, Reader, Restart, WriteId};

use crate::support;
use crate::support::script::{Operation, script, script_with_snapshots};
use crate::support::{
    Model, assert_grown, files_named, mix, open, operate, options, segments, used, write,
};

/// A small directory in which everything is synced, and what it holds.
struct Sound {
    disk: MemoryDisk,
    model: Model,
    restart: Restart,
    /// The segments in order, each with where its last record ends.
    segments: Vec<(String, usize)>,
}

fn sound(seed: u64, operations: usize, is_closed: bool) -> Sound {
    let disk = MemoryDisk::new();
    let (mut wal, opened, mut model) = open(disk.clone(), seed);
    let mut written = WriteId(0);
    for operation in script(seed, operations) {
        if let Operation::Append(write) = &operation {
            model.apply(write);
            written = write.id;
        }
        operate(&mut wal, &operation).expect("the disk is sound");
    }
    // The last batch is known: three entries of random bytes.
    wal.sync().expect("the disk is sound");
    let bytes: Vec<u8> = (0..700).map(|at| mix(seed, at) as u8 | 1).collect();
    let term = model.last().term.0.max(1);
    let payloads: [&[u8]; 3] = [&bytes, b"short", &bytes];
    let write = write(written.0 + 1, term, model.last().index.0, &payloads);
    model.apply(&write);
    wal.append(&write).expect("the log takes it");
    wal.sync().expect("the disk is sound");
    if is_closed {
        wal.close().expect("the disk is sound");
    }
    let segments = segments(&disk);
    Sound {
        disk,
        model,
        restart: opened.restart,
        segments,
    }
}

/// The file and the offset that opening this directory complains of; `None` if it opens, and
/// then it holds what the sound one held.
fn complaint(disk: &MemoryDisk, sound: &Sound) -> Option<(String, u64)> {
    match Wal::open(disk.clone(), options(1)) {
        Ok((wal, opened)) => {
            assert_eq!(support::observe(&wal, &opened), sound.model);
            assert_grown(opened.restart, sound.restart);
            None
        }
        Err(Error::Corrupt { file, offset, .. }) => {
            let name = file.file_name().expect("it names a file");
            Some((name.to_string_lossy().into_owned(), offset))
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_flipped_bit_below_the_end_is_found_in_its_file() {
    let sound = sound(1, 120, false);
    assert!(sound.segments.len() > 2, "{:?}", sound.segments);
    for (name, end) in &sound.segments {
        for offset in 0..*end {
            let disk = sound.disk.copy();
            disk.rot(name, offset, 1 << (mix(1, offset as u64) % 8));
            let (found, place) = complaint(&disk, &sound)
                .unwrap_or_else(|| panic!("byte {offset} of {name} was taken as it is"));
            assert!(
                found == *name && place <= offset as u64,
                "byte {offset} of {name} rotted, and {found} is accused at byte {place}",
            );
        }
    }
}

#[test]
fn every_rotten_byte_beside_snapshots_is_found_in_its_file_or_healed_by_the_snapshot_before() {
    let disk = MemoryDisk::new();
    let (mut wal, _, _) = open(disk.clone(), 1);
    for operation in script_with_snapshots(14, 400) {
        operate(&mut wal, &operation).expect("the disk is sound");
    }
    wal.close().expect("the disk is sound");
    let (_, opened, sound) = open(disk.after_kill(), 2);
    let newest = opened.recovered.snapshot.expect("some were written");
    let disk = disk.after_kill();
    let names = [files_named(&disk, ".log"), files_named(&disk, ".snap")].concat();
    let (mut healed, mut found) = (0, 0);
    for name in &names {
        for offset in (0..used(&disk, name)).step_by(3) {
            let disk = disk.copy();
            disk.rot(name, offset, 1 << (mix(5, offset as u64) % 8));
            match Wal::open(disk.clone(), options(1)) {
                Ok((wal, opened)) => {
                    assert!(
                        name.ends_with(".snap"),
                        "byte {offset} of {name} was taken as it is"
                    );
                    let model = support::observe(&wal, &opened);
                    assert_eq!(
                        (&model.entries, model.before),
                        (&sound.entries, sound.before)
                    );
                    assert_eq!(model.hard_state, sound.hard_state);
                    let is_newest = opened.recovered.snapshot.as_ref() == Some(&newest);
                    assert_eq!(is_newest, opened.damaged.is_empty());
                    healed += u32::from(!is_newest);
                }
                Err(Error::Corrupt {
                    file,
                    offset: place,
                    ..
                }) => {
                    assert_eq!(file, disk.path().join(name));
                    assert!(
                        place <= offset as u64,
                        "byte {offset} of {name}, found at {place}"
                    );
                    found += 1;
                }
                Err(error) => panic!("byte {offset} of {name}: {error}"),
            }
        }
    }
    assert!(
        healed + found > 1000,
        "{healed} healed, {found} found in {names:?}"
    );
}

#[test]
fn a_read_that_goes_wrong_once_costs_nothing() {
    let sound = sound(7, 120, false);
    for attempt in 0..320 {
        let disk = sound.disk.copy();
        let (read, bit) = (attempt % 16, mix(8, attempt) % 8);
        disk.misread(read, mix(7, attempt) as usize, 1 << bit);
        let (wal, opened) = Wal::open(disk.clone(), options(1)).expect("it is read again");
        disk.misread(0, 0, 0);
        assert_eq!(support::observe(&wal, &opened), sound.model, "read {read}");
    }
}

#[test]
fn what_a_start_writes_again_is_what_it_has_checked() {
    let options = Options {
        segment_bytes: 4 << 20,
        ..options(1)
    };
    let disk = MemoryDisk::new();
    let (mut wal, _) = Wal::open(disk.clone(), options).expect("the disk is sound");
    // The last batch lies across the border between two reads of 1 MiB.
    for index in 0..4 {
        let payload = vec![7; 300 << 10];
        wal.append(&write(index + 1, 1, index, &[&payload]))
            .expect("the log takes it");
        wal.sync().expect("the disk is sound");
    }
    drop(wal);
    for attempt in 0..200 {
        let disk = disk.after_kill();
        disk.misread(attempt % 20, mix(7, attempt) as usize, 1 << (attempt % 8));
        let (wal, _) = Wal::open(disk.clone(), options).expect("it is read again");
        drop(wal);
        let (_, opened) = Wal::open(disk.after_kill(), options).expect("the disk is sound");
        assert!(opened.lost.is_none(), "read {}: {opened:?}", attempt % 20);
        assert_eq!(opened.recovered.last.index, Index(4));
    }
}

#[test]
fn what_memory_keeps_of_a_read_that_went_wrong_is_forgotten_before_it_is_read_again() {
    let disk = MemoryDisk::new();
    let (mut wal, _, _) = open(disk.clone(), 1);
    for operation in script_with_snapshots(14, 400) {
        operate(&mut wal, &operation).expect("the disk is sound");
    }
    wal.close().expect("the disk is sound");
    let disk = disk.after_kill();
    let (_, opened, sound) = open(disk.copy(), 2);
    let restart = opened.restart;
    for attempt in 0..400 {
        let disk = disk.copy();
        let (read, bit) = (attempt % 40, mix(8, attempt) % 8);
        disk.misread_and_keep(read, mix(7, attempt) as usize, 1 << bit);
        let (wal, opened) = Wal::open(disk.clone(), options(2)).expect("it is read again");
        disk.misread(0, 0, 0);
        assert_eq!(
            opened.restart, restart,
            "both meta files count, read {read}"
        );
        assert!(opened.damaged.is_empty(), "read {read}: {opened:?}");
        assert_eq!(support::observe(&wal, &opened), sound, "read {read}");
    }
}

#[test]
fn a_flipped_bit_behind_the_end_changes_nothing_or_is_found() {
    let sound = sound(1, 60, true);
    for (name, end) in &sound.segments {
        for offset in (*end..SEGMENT_BYTES_MIN as usize).step_by(5) {
            let disk = sound.disk.copy();
            disk.rot(name, offset, 1 << (mix(2, offset as u64) % 8));
            if let Some((found, _)) = complaint(&disk, &sound) {
                assert_eq!(found, *name);
            }
        }
    }
}

#[test]
fn a_lost_sector_below_the_mark_or_with_a_later_batch_behind_it_is_found() {
    for is_closed in [false, true] {
        let sound = sound(4, 60, is_closed);
        for (at, (name, end)) in sound.segments.iter().enumerate() {
            // Without the mark, a sector of the last batch can't be told from a torn write.
            let is_last = at + 1 == sound.segments.len();
            let checked = if is_last && !is_closed {
                end - 1700
            } else {
                *end
            };
            for sector in 0..checked.div_ceil(512) {
                let disk = sound.disk.copy();
                let mut content = disk.content(name).expect("it was listed");
                let lost = &mut content[sector * 512..(sector + 1) * 512];
                if lost.iter().all(|byte| *byte == 0) {
                    continue;
                }
                lost.fill(0);
                disk.put(name, &content);
                let (found, _) = complaint(&disk, &sound)
                    .unwrap_or_else(|| panic!("sector {sector} of {name} was not missed"));
                assert_eq!(found, *name);
            }
        }
    }
}

#[test]
fn a_batch_behind_a_lost_one_proves_that_it_was_synced() {
    let disk = MemoryDisk::new();
    let (mut wal, _, _) = open(disk.clone(), 1);
    let mut ends = Vec::new();
    for id in 1..=4 {
        let batch = write(id, 1, id - 1, &[&[id as u8; 600]]);
        wal.append(&batch).expect("the log takes it");
        wal.sync().expect("the disk is sound");
        ends.extend(segments(&disk).pop().map(|(_, end)| end));
    }
    let [(name, _)] = &segments(&disk)[..] else {
        panic!("all four batches fit in the first segment");
    };
    // The first two of four batches are lost: as if their writes never reached the disk.
    let content = disk.content(name).expect("it was listed");
    for (lost, error) in [(1, true), (2, true), (3, false)] {
        let disk = disk.after_power_cut(1);
        let mut content = content.clone();
        content[ends[lost - 1]..ends[lost]].fill(0);
        disk.put(name, &content);
        let result = Wal::open(disk, options(1));
        match (result, error) {
            (
                Err(Error::Corrupt {
                    offset, problem, ..
                }),
                true,
            ) => {
                assert_eq!(offset, ends[lost - 1].next_multiple_of(8) as u64);
                assert_eq!(problem, Problem::Lost);
            }
            (Ok((_, opened)), false) => assert_eq!(opened.recovered.last.index, Index(3)),
            (result, _) => panic!("batch {lost} was lost: {result:?}"),
        }
    }
}

#[test]
fn a_segment_from_a_diverged_copy_of_the_directory_is_found() {
    let disk = MemoryDisk::new();
    open(disk.clone(), 1);
    let copies = [2, 3].map(|seed| {
        let disk = disk.after_power_cut(1);
        let (mut wal, _, _) = open(disk.clone(), seed);
        for id in 1..=8 {
            let batch = write(id, 1, id - 1, &[&[seed as u8; 600]]);
            wal.append(&batch).expect("the log takes it");
            wal.sync().expect("the disk is sound");
        }
        disk.after_power_cut(2)
    });
    let [one, other] = &copies;
    let (name, _) = segments(one).pop().expect("there are segments");
    let content = other.content(&name).expect("both have the same segments");
    one.put(&name, &content);
    let error = Wal::open(one.clone(), options(4)).expect_err("it belongs to the other");
    let text = error.to_string();
    assert!(text.contains("sum of all checksums before"), "{text}");
}

#[test]
fn every_segment_has_a_salt_of_its_own() {
    let sound = sound(1, 120, true);
    let mut salts: Vec<Vec<u8>> = sound
        .segments
        .iter()
        .map(|(name, _)| sound.disk.content(name).expect("it was listed")[80..84].to_vec())
        .collect();
    let segments = salts.len();
    salts.sort();
    salts.dedup();
    assert_eq!(salts.len(), segments);
}

#[test]
fn a_rotten_meta_file_never_lets_a_restart_number_be_used_twice() {
    let disk = MemoryDisk::new();
    for _ in 0..3 {
        open(disk.after_kill(), 1);
    }
    let (_, newest, _) = open(disk.after_kill(), 1);
    for name in ["meta.0", "meta.1"] {
        let disk = disk.copy();
        disk.rot(name, 100, 1);
        let (_, opened, _) = open(disk, 2);
        assert_grown(opened.restart, newest.restart);
    }
}

#[test]
fn meta_files_that_are_misread_one_start_after_the_other_repeat_no_restart_number() {
    let disk = MemoryDisk::new();
    for _ in 0..3 {
        open(disk.after_kill(), 1);
    }
    let (_, newest, _) = open(disk.after_kill(), 1);
    // The first reads of a start are those of the two files.
    for reads in [[0, 0], [0, 1], [1, 0], [1, 1]] {
        let disk = disk.copy();
        let mut last = newest.restart;
        for read in reads.into_iter().cycle().take(6) {
            let disk = disk.after_kill();
            disk.misread(read, 100, 1);
            let (_, opened) = Wal::open(disk, options(1)).expect("one file can be read");
            assert_grown(opened.restart, last);
            last = opened.restart;
        }
    }
}

#[test]
fn a_shortened_or_missing_segment_is_found() {
    let sound = sound(1, 60, true);
    for (name, _) in &sound.segments {
        let content = sound.disk.content(name).expect("it was listed");
        for length in (0..content.len()).step_by(13) {
            let disk = sound.disk.copy();
            disk.put(name, &content[..length]);
            let (found, _) = complaint(&disk, &sound).expect("it is too short");
            assert_eq!(found, *name);
        }
        let disk = sound.disk.copy();
        disk.remove(name).expect("it is there");
        let error = Wal::open(disk, options(1)).expect_err("a segment is missing");
        assert!(matches!(error, Error::Missing { .. }), "{error}");
    }
}

#[test]
fn a_segment_of_another_directory_is_found() {
    let sound = sound(1, 60, true);
    let other = self::sound(2, 60, true);
    let (name, _) = &sound.segments[0];
    let content = other.disk.content(name).expect("each has a first segment");
    let disk = sound.disk.copy();
    disk.put(name, &content);
    let (found, _) = complaint(&disk, &sound).expect("it is another directory's");
    assert_eq!(found, *name);
}

#[test]
fn one_rotten_meta_file_costs_a_restart_number_and_two_cost_the_directory() {
    let sound = sound(1, 60, true);
    for name in ["meta.0", "meta.1"] {
        for offset in (0..4096).step_by(3) {
            let disk = sound.disk.copy();
            disk.rot(name, offset, 1 << (mix(3, offset as u64) % 8));
            assert_eq!(complaint(&disk, &sound), None);
        }
    }
    let disk = sound.disk.copy();
    disk.rot("meta.0", 40, 1);
    disk.rot("meta.1", 40, 1);
    let (found, _) = complaint(&disk, &sound).expect("neither can be read");
    assert!(found.starts_with("meta."), "{found}");

    let disk = sound.disk.copy();
    disk.remove("meta.0").expect("it is there");
    disk.remove("meta.1").expect("it is there");
    let error = Wal::open(disk, options(1)).expect_err("nobody knows whose log it is");
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}

#[test]
fn one_rotten_bit_of_a_value_is_found_by_the_reader() {
    let sound = sound(1, 60, false);
    let (wal, opened, _) = open(sound.disk.after_kill(), 5);
    let (name, end) = sound.segments.last().expect("there is a segment");
    sound.disk.rot(name, end - 1, 0x10);
    let last = opened.recovered.last.index;
    let fetch = Fetch {
        reader: Reader::Apply,
        from: last,
        to: last,
        bytes_max: usize::MAX,
    };
    let error = wal.reader().read(&fetch).expect_err("its value is rotten");
    let expected = matches!(
        error,
        Error::Corrupt {
            problem: Problem::Checksum { .. },
            ..
        }
    );
    assert!(expected, "{error}");
}

#[test]
fn rot_under_a_running_server_is_found_by_its_reader() {
    let sound = sound(1, 60, false);
    let (wal, opened, _) = open(sound.disk.after_kill(), 5);
    for (name, end) in &sound.segments {
        for offset in 4096..*end {
            sound.disk.rot(name, offset, 0x10);
        }
    }
    let fetch = Fetch {
        reader: Reader::Apply,
        from: Index(1),
        to: opened.recovered.last.index,
        bytes_max: usize::MAX,
    };
    let error = wal
        .reader()
        .read(&fetch)
        .expect_err("all records are rotten");
    assert!(
        matches!(error, Error::Corrupt { offset: 4096.., .. }),
        "{error}"
    );
}

#[test]
fn a_torn_batch_is_cut_off_and_said_so() {
    let sound = sound(1, 60, false);
    let (name, end) = sound.segments.last().expect("there are segments");
    let whole = sound.disk.copy();
    let (mut wal, _, model) = open(whole.clone(), 5);
    let term = model.last().term.0;
    let batch = write(1, term, model.last().index.0, &[&[9; 400], &[8; 900]]);
    wal.append(&batch).expect("the log takes it");
    wal.sync().expect("the disk is sound");
    let (_, written_end) = segments(&whole).pop().expect("there are segments");
    let content = whole.content(name).expect("it is still the last segment");

    // Each sector of it but the first may not have reached the disk, or alone have reached it.
    let aligned_end = end.next_multiple_of(8);
    for sector in aligned_end / 512 + 1..written_end.div_ceil(512) {
        for alone in [false, true] {
            let disk = sound.disk.copy();
            let mut torn = content.clone();
            for (at, byte) in torn.iter_mut().enumerate().skip(aligned_end) {
                if (at / 512 == sector) != alone {
                    *byte = 0;
                }
            }
            disk.put(name, &torn);
            let (_, opened, found) = open(disk.clone(), 6);
            assert_eq!(found, sound.model);
            let torn = opened.torn.expect("it is torn");
            assert_eq!(torn.file, disk.path().join(name));
            assert_eq!(torn.offset, aligned_end as u64);
            let erased = disk.content(name).expect("it is there");
            assert!(erased[aligned_end..].iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn an_error_names_the_file_and_the_offset_in_one_line() {
    let error = Error::Corrupt {
        file: "data/wal-0000000000000001-0000000000000001.log".into(),
        offset: 4144,
        problem: Problem::Checksum {
            expected: 0x1234_5678,
            found: 0xdead_beef,
        },
    };
    assert_eq!(
        error.to_string(),
        "data/wal-0000000000000001-0000000000000001.log: corrupt at byte 4144: the checksum is \
         deadbeef and should be 12345678",
    );
}
