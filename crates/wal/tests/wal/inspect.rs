//! What is found when a data directory is looked at is what a start finds, and nothing is changed.

use quorate_wal::{
    DirectoryDisk, Disk, Error, Finding, Holds, MemoryDisk, Seen, Verdict, Wal, inspect,
};
use raft::{Recovered, WriteId};

use crate::support;
use crate::support::script::{script, script_with_snapshots};
use crate::support::snapshots::{position, snapshot_at, write_snapshot};
use crate::support::{SERVER, healing_options, mix, open, operate, options};

/// What was seen.
#[derive(Debug, Default)]
struct Sight {
    records: u64,
    entries: u64,
    pieces: u64,
    /// The files, in the order in which they were reported.
    files: Vec<(String, Holds, Finding)>,
}

impl Sight {
    fn damaged(&self) -> Vec<&str> {
        let damaged = |finding: &Finding| matches!(finding, Finding::Damaged(_));
        let files = self.files.iter().filter(|(.., found)| damaged(found));
        files.map(|(name, ..)| name.as_str()).collect()
    }

    fn torn(&self) -> Option<quorate_wal::Torn> {
        self.files.iter().find_map(|(.., finding)| match finding {
            Finding::Torn(torn) => Some(torn.clone()),
            _ => None,
        })
    }
}

fn look(disk: &impl Disk) -> Result<(Sight, Verdict), Error> {
    let mut sight = Sight::default();
    let verdict = inspect(disk, &mut |seen| {
        match seen {
            Seen::Record { .. } => sight.records += 1,
            Seen::Piece { .. } => sight.pieces += 1,
            Seen::File(report) => {
                if let Holds::Segment { tally, .. } = &report.holds {
                    sight.entries += tally.entries;
                }
                let file = report.file.to_owned();
                sight.files.push((file, report.holds, report.finding));
            }
        }
        Ok(())
    })?;
    Ok((sight, verdict))
}

/// Looks at a copy of a directory, and checks that it stays as it is.
fn look_at(disk: &MemoryDisk) -> (Sight, Verdict) {
    let disk = disk.copy();
    let operations = disk.operations();
    let seen = look(&disk).expect("a directory in memory can be read");
    assert_eq!(disk.operations(), operations, "something was changed");
    seen
}

/// Everything that a start is told.
fn told(recovered: &Recovered) -> String {
    format!("{recovered:?}")
}

/// Checks that what is seen is what a start finds, with peers and without. True if it is damage.
fn compare(disk: &MemoryDisk, usual_restart: u64, what: &str) -> bool {
    let (sight, verdict) = look_at(disk);
    assert_eq!(sight.damaged().len(), verdict.damaged, "{what}");
    let lost = verdict.lost.as_ref().map(ToString::to_string);
    match (Wal::open(disk.copy(), healing_options(9)), &verdict.start) {
        (Ok((_, opened)), Ok(start)) => {
            assert_eq!(told(&opened.recovered), told(start), "{what}");
            assert_eq!(opened.lost.map(|error| error.to_string()), lost, "{what}");
            assert_eq!(sight.torn(), opened.torn, "{what}");
            let is_doubtful = opened.restart.0 != usual_restart;
            if is_doubtful || !opened.damaged.is_empty() || lost.is_some() {
                assert!(verdict.damaged > 0, "{what}: {sight:?}");
            }
        }
        (Err(found), Err(seen)) => {
            assert_eq!(found.to_string(), seen.to_string(), "{what}");
            assert!(verdict.damaged > 0, "{what}: {sight:?}");
        }
        (found, seen) => panic!("{what}: a start finds {found:?}, and seen is {seen:?}"),
    }
    let refused = Wal::open(disk.copy(), options(9)).err();
    let refusal = verdict.start.err().map(|error| error.to_string());
    assert_eq!(
        refused.map(|error| error.to_string()),
        lost.or(refusal),
        "{what}, without peers"
    );
    verdict.damaged > 0
}

/// A directory with some segments, with snapshots or without, and how often it was started.
fn sound(has_snapshots: bool) -> (MemoryDisk, u64) {
    let disk = MemoryDisk::new();
    let (mut wal, opened, _) = open(disk.clone(), 1);
    let operations = match has_snapshots {
        true => script_with_snapshots(14, 400),
        false => script(1, 120),
    };
    for operation in operations {
        operate(&mut wal, &operation).expect("the disk is sound");
    }
    wal.sync().expect("the disk is sound");
    wal.close().expect("the disk is sound");
    (disk.after_kill(), opened.restart.0)
}

#[test]
fn what_is_sound_is_seen_whole() {
    for has_snapshots in [false, true] {
        let (disk, restart) = sound(has_snapshots);
        assert!(!compare(&disk, restart + 1, "sound"));
        let (sight, verdict) = look_at(&disk);
        assert_eq!(verdict.server, SERVER);
        let start = verdict.start.expect("it is sound");
        assert_eq!(sight.pieces > 0, has_snapshots);
        assert!(
            sight.records > sight.entries && sight.entries >= start.last.index - start.before.index
        );
    }
}

#[test]
fn every_flipped_byte_is_seen_as_a_start_sees_it() {
    for has_snapshots in [false, true] {
        let (disk, restart) = sound(has_snapshots);
        let names = disk.list().expect("a directory in memory can be read");
        let (mut damaged, mut unread) = (0, 0);
        for name in &names {
            let content = disk.content(name).expect("it was listed");
            for offset in (0..content.len()).step_by(37) {
                let disk = disk.copy();
                disk.rot(name, offset, 1 << (mix(5, offset as u64) % 8));
                let what = format!("byte {offset} of {name}");
                match compare(&disk, restart + 1, &what) {
                    true => damaged += 1,
                    // The zeros behind the end, and files that no server reads.
                    false => unread += 1,
                }
                let is_covered = name.ends_with(".snap") || name.starts_with("meta.");
                if is_covered {
                    let (sight, _) = look_at(&disk);
                    assert_eq!(sight.damaged(), [name.as_str()], "{what}");
                }
            }
        }
        assert!(damaged > 500, "{damaged} of {} flips", damaged + unread);
    }
}

#[test]
fn every_shortened_or_missing_file_is_seen_as_a_start_sees_it() {
    for has_snapshots in [false, true] {
        let (disk, restart) = sound(has_snapshots);
        for name in disk.list().expect("a directory in memory can be read") {
            let content = disk.content(&name).expect("it was listed");
            for length in (0..content.len()).step_by(509) {
                let disk = disk.copy();
                disk.put(&name, &content[..length]);
                compare(&disk, restart + 1, &format!("{name} cut to {length}"));
            }
            let without = disk.copy();
            without.remove(&name).expect("it was listed");
            compare(&without, restart + 1, &format!("without {name}"));
        }
    }
}

#[test]
fn every_sector_that_cannot_be_read_is_seen_as_a_start_sees_it_and_the_rest_is_seen_too() {
    for has_snapshots in [false, true] {
        let (disk, restart) = sound(has_snapshots);
        let all = look_at(&disk).0.files.len();
        let (mut damaged, mut sectors) = (0, 0);
        for name in disk.list().expect("a directory in memory can be read") {
            let is_read = !["lock", "wal.next"].contains(&name.as_str());
            let content = disk.content(&name).expect("it was listed");
            for offset in (0..content.len()).step_by(512).filter(|_| is_read) {
                let disk = disk.copy();
                disk.wear_out(&name, offset);
                compare(&disk, restart + 1, &format!("byte {offset} of {name}"));
                let (sight, _) = look_at(&disk);
                sectors += 1;
                let named = sight.damaged();
                damaged += u32::from(named == [name.as_str()]);
                assert!(named.is_empty() || named == [name.as_str()], "{named:?}");
                assert_eq!(sight.files.len(), all, "byte {offset} of {name}");
            }
        }
        // The zeros behind the end record of a segment are read by nobody.
        assert!(damaged > sectors / 2, "{damaged} of {sectors}");
    }
}

#[test]
fn after_every_power_cut_nothing_is_damaged_and_a_torn_end_is_named() {
    let mut torn = 0;
    for seed in 0..60 {
        let disk = MemoryDisk::new();
        let (mut wal, _, _) = open(disk.clone(), seed);
        disk.cut_power_at(disk.operations() + 1 + mix(seed, 1) % 150);
        for operation in script_with_snapshots(seed, 200) {
            if operate(&mut wal, &operation).is_err() {
                break;
            }
        }
        let disk = disk.after_power_cut(seed);
        let (sight, verdict) = look_at(&disk);
        assert_eq!(sight.damaged(), [""; 0], "seed {seed}");
        torn += u32::from(sight.torn().is_some());
        let (_, opened) = Wal::open(disk, options(2)).expect("a power cut damages nothing");
        let start = verdict.start.expect("a power cut damages nothing");
        assert_eq!(told(&start), told(&opened.recovered), "seed {seed}");
        assert_eq!(sight.torn(), opened.torn, "seed {seed}");
    }
    assert!(torn > 3, "{torn} of 60 power cuts tore a batch");
}

#[test]
fn what_is_behind_a_damaged_segment_is_looked_at_too() {
    let (disk, _) = sound(false);
    let mut names = disk.list().expect("a directory in memory can be read");
    names.retain(|name| name.ends_with(".log"));
    names.sort();
    disk.rot(&names[0], 4200, 1);
    let (sight, _) = look_at(&disk);
    assert_eq!(sight.damaged(), [names[0].as_str()]);
    disk.rot(&names[2], 4200, 1);
    let (sight, verdict) = look_at(&disk);
    assert_eq!(sight.damaged(), [names[0].as_str(), names[2].as_str()]);
    let lost = verdict.lost.expect("a record is damaged").to_string();
    assert!(lost.contains(&names[0]), "{lost}");
    let start = verdict.start.expect("there may be others to recover from");
    assert!(start.recovering);
}

#[test]
fn a_snapshot_that_the_log_does_not_reach_back_to_is_told_from_one_that_can_be_used() {
    let disk = MemoryDisk::new();
    let (mut wal, ..) = open(disk.clone(), 1);
    for id in 1..=40 {
        let write = support::write(id, 1, id - 1, &[&[id as u8; 600]]);
        wal.append(&write).expect("the log takes it");
        wal.sync().expect("the disk is sound");
    }
    for index in [10, 30] {
        let snapshot = snapshot_at(position(1, index));
        write_snapshot(&wal.snapshots(), &snapshot).expect("the disk is sound");
    }
    drop(wal);
    let disk = disk.after_kill();
    let reached = |disk: &MemoryDisk| -> Vec<bool> {
        let files = look_at(disk).0.files.into_iter();
        let snapshots = files.filter_map(|(_, holds, _)| match holds {
            Holds::Snapshot { is_reached, .. } => Some(is_reached),
            _ => None,
        });
        snapshots.collect()
    };
    let (mut seen, mut cut_off) = (0, 0);
    let mut names = disk.list().expect("a directory in memory can be read");
    names.retain(|name| name.ends_with(".log"));
    // With each segment missing in turn: the newest snapshot, then the one before.
    for missing in names.into_iter().map(Some).chain([None]) {
        let disk = disk.copy();
        if let Some(name) = &missing {
            disk.remove(name).expect("it was listed");
        }
        let [newest, older] = reached(&disk)[..] else {
            panic!("two are kept");
        };
        let (_, verdict) = look_at(&disk);
        if verdict.lost.is_some() || verdict.start.is_err() {
            continue;
        }
        assert!(newest, "without {missing:?}");
        // What the line says is what a start finds that has nothing but the older one.
        let mut names = disk.list().expect("a directory in memory can be read");
        names.retain(|name| name.ends_with(".snap"));
        let name = names.iter().max().expect("two are kept");
        disk.remove(name).expect("it was listed");
        let falls_back = Wal::open(disk.copy(), options(9)).is_ok();
        assert_eq!(older, falls_back, "without {missing:?}");
        seen += 1;
        cut_off += u32::from(!older);
    }
    assert!(seen > 1 && cut_off > 0, "{cut_off} of {seen}");
}

#[test]
fn the_mark_of_a_recovering_server_is_seen_until_it_goes() {
    let (disk, _) = sound(true);
    let marked = |disk: &MemoryDisk| {
        let (sight, verdict) = look_at(disk);
        assert_eq!((verdict.damaged, verdict.lost.is_none()), (0, true));
        let marks = sight.files.iter().filter_map(|(_, holds, _)| match holds {
            Holds::Meta { recovering, .. } => Some(*recovering),
            _ => None,
        });
        let marks: Vec<bool> = marks.collect();
        let start = verdict.start.expect("it is not damaged");
        assert!(marks.contains(&start.recovering), "{marks:?}");
        assert_eq!(told(&start), {
            let (_, opened) = Wal::open(disk.copy(), healing_options(4)).expect("it is sound");
            told(&opened.recovered)
        });
        start.recovering
    };
    assert!(!marked(&disk));
    let mut names = disk.list().expect("a directory in memory can be read");
    names.retain(|name| name.ends_with(".log"));
    let name = names.iter().max().expect("there is a segment");
    disk.rot(name, 4200, 1);
    let (mut wal, opened) = Wal::open(disk.clone(), healing_options(3)).expect("it heals");
    let last = opened.recovered.last;
    assert!(marked(&disk));
    let mut write = support::write(1, last.term.0 + 9, last.index.0, &[b"given back"]);
    write.recovered = true;
    wal.append(&write).expect("the log takes it");
    wal.sync().expect("the disk is sound");
    assert!(!marked(&disk));
}

#[test]
fn whoever_looks_ends_it_with_an_error() {
    let (disk, _) = sound(false);
    let mut seen = 0;
    let ended = inspect(&disk, &mut |_| {
        seen += 1;
        match seen {
            5 => Err(Error::Failed),
            _ => Ok(()),
        }
    });
    assert!(matches!(ended, Err(Error::Failed)), "{ended:?}");
    assert_eq!(seen, 5);
}

#[test]
fn a_directory_that_is_used_or_no_servers_is_not_looked_at() {
    let disk = MemoryDisk::new();
    disk.put("notes.txt", b"buy milk");
    assert!(matches!(look(&disk), Err(Error::NoData { .. })));
    let disk = MemoryDisk::new();
    let (_wal, ..) = open(disk.clone(), 1);
    assert!(matches!(look(&disk), Err(Error::Locked { .. })));
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let used = DirectoryDisk::open(directory.path()).expect("it is there");
    let _wal = Wal::open(used, options(1)).expect("it is empty");
    let to_read = DirectoryDisk::open_to_read(directory.path()).expect("it is there");
    assert!(matches!(look(&to_read), Err(Error::Locked { .. })));
}

#[test]
fn a_directory_that_is_open_to_read_can_not_be_changed_and_is_seen_by_several() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let path = directory.path();
    let missing = DirectoryDisk::open_to_read(&path.join("missing"));
    assert!(matches!(missing, Err(Error::Io { .. })), "{missing:?}");
    let disk = DirectoryDisk::open(path).expect("it is there");
    let (mut wal, _) = Wal::open(disk, options(1)).expect("it is empty");
    let write = support::write(1, 1, 0, &[b"one", b"two"]);
    wal.append(&write).expect("the log takes it");
    assert_eq!(wal.sync().expect("the disk is sound"), WriteId(1));
    drop(wal);

    let disk = DirectoryDisk::open_to_read(path).expect("it is there");
    let (sight, verdict) = look(&disk).expect("nobody uses it");
    assert_eq!((sight.entries, verdict.damaged), (2, 0));
    let meta = disk.open("meta.0").expect("it is there");
    assert!(disk.write_at(&meta, &[0], 0).is_err());
    assert!(disk.create("meta.0").is_err());
    assert!(disk.remove("meta.0").is_err());
    assert!(disk.rename("meta.0", "meta.1").is_err());
    let second = DirectoryDisk::open_to_read(path).expect("it is there");
    assert!(look(&second).is_ok(), "whoever reads shares the lock");
    let server = DirectoryDisk::open(path).expect("it is there");
    let started = Wal::open(server, options(1));
    assert!(matches!(started, Err(Error::Locked { .. })), "{started:?}");
}
