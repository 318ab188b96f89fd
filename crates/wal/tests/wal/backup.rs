//! A directory begins with a backup wholly or not at all.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};

use quorate_wal::{
    Backup, BackupId, Disk, Error, MemoryDisk, SnapshotEncoder, SnapshotReader, Wal, inspect,
    restore,
};
use raft::{ClusterId, HardState, Index, Position, Seating, ServerId, Snapshot, Term, WriteId};

use crate::support;
use crate::support::snapshots::{CLUSTER, content_of, position, snapshot_at};
use crate::support::{healing_options, options};

/// A backup in a directory of its own.
struct File {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

fn backup_of(snapshot: &Snapshot) -> File {
    let mut bytes = Vec::new();
    let mut sink = |part: &[u8]| {
        bytes.extend_from_slice(part);
        Ok::<(), Infallible>(())
    };
    let Ok(mut encoder) = SnapshotEncoder::begin(CLUSTER, snapshot.clone(), &mut sink);
    let Ok(()) = encoder.write(&content_of(snapshot), &mut sink);
    let Ok(()) = encoder.finish(&mut sink);
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let path = directory.path().join("backup");
    fs::write(&path, bytes).expect("it is ours");
    File {
        _directory: directory,
        path,
    }
}

fn open(path: &Path) -> Backup {
    Backup::open(path).expect("it is whole")
}

/// What a start finds: the position that the log begins behind and ends at, and the backup.
fn start(disk: &MemoryDisk) -> Result<(Position, Option<BackupId>), Error> {
    let (wal, opened) = Wal::open(disk.clone(), options(7))?;
    let recovered = &opened.recovered;
    assert_eq!(recovered.before, recovered.last);
    assert_eq!(recovered.hard_state, HardState::default());
    assert!(recovered.configurations.is_empty());
    if let Some(snapshot) = &recovered.snapshot {
        assert_eq!(snapshot.position, recovered.last);
        assert_eq!(
            snapshot.configuration, None,
            "those members are another cluster's"
        );
        let reader = SnapshotReader::open(&wal.snapshots(), snapshot.position);
        let mut reader = reader.expect("it was found");
        let mut content = Vec::new();
        while let Some(piece) = reader.read().expect("it was verified") {
            content.extend_from_slice(&piece);
        }
        assert!(content == content_of(snapshot));
    }
    Ok((recovered.last, opened.backup))
}

#[test]
fn what_is_restored_is_what_a_start_begins_with_and_belongs_to_the_cluster_that_it_becomes() {
    let snapshot = snapshot_at(position(5, 1234));
    let file = backup_of(&snapshot);
    let disk = MemoryDisk::new();
    let id = restore(&disk, &options(1), open(&file.path)).expect("it is empty");
    assert_eq!(open(&file.path).verify().expect("it is whole"), id);
    let disk = disk.after_kill();
    let (mut wal, opened) = Wal::open(disk.clone(), options(2)).expect("it was restored");
    assert_eq!(opened.backup, Some(id));
    let seated = HardState {
        term: Term(6),
        voted_for: Some(ServerId(1)),
        seating: Seating::Seated {
            cluster: ClusterId(99),
            configuration_index: Index(1235),
        },
    };
    let mut write = support::write(1, 6, 1234, &[b"first"]);
    write.hard_state = Some(seated);
    wal.append(&write).expect("the log takes it");
    assert_eq!(wal.sync().expect("the disk is sound"), WriteId(1));
    drop(wal);
    let disk = disk.after_kill();
    let (_, opened) = Wal::open(disk.clone(), options(3)).expect("it is the new cluster's");
    assert_eq!(
        opened.recovered.snapshot.map(|it| it.position),
        Some(position(5, 1234))
    );
    assert_eq!(opened.recovered.last, position(6, 1235));
    assert_eq!(opened.backup, Some(id), "it is known for ever");
    let verdict = inspect(&disk.after_kill(), &mut |_| Ok(())).expect("it can be read");
    assert_eq!(verdict.damaged, 0);
}

#[test]
fn a_directory_that_holds_anything_is_not_restored_into() {
    let file = backup_of(&snapshot_at(position(5, 1234)));
    let used = MemoryDisk::new();
    drop(Wal::open(used.clone(), options(1)).expect("it is empty"));
    let restored = MemoryDisk::new();
    restore(&restored, &options(1), open(&file.path)).expect("it is empty");
    let foreign = MemoryDisk::new();
    foreign.put("notes.txt", b"buy milk");
    for disk in [used, restored, foreign] {
        let disk = disk.after_kill();
        let operations = disk.operations();
        let refused = restore(&disk, &options(1), open(&file.path));
        assert!(
            matches!(refused, Err(Error::NotEmpty { .. })),
            "{refused:?}"
        );
        assert_eq!(disk.operations(), operations, "nothing was changed");
    }
}

#[test]
fn snapshots_that_no_restore_has_left_are_not_removed() {
    let file = backup_of(&snapshot_at(position(5, 1234)));
    let of_a_cluster = MemoryDisk::new();
    let (wal, _) = Wal::open(of_a_cluster.clone(), options(1)).expect("it is empty");
    let snapshot = snapshot_at(position(4, 777));
    support::snapshots::write_snapshot(&wal.snapshots(), &snapshot).expect("the disk is sound");
    drop(wal);
    let restored = |rotten: usize| {
        let disk = MemoryDisk::new();
        restore(&disk, &options(1), open(&file.path)).expect("it is empty");
        let names = disk.list().expect("a directory in memory can be read");
        names.iter().for_each(|name| disk.rot(name, rotten, 1));
        disk
    };
    let received = MemoryDisk::new();
    let stem = "snap-00000000000004d2-0000000000000005";
    let part = format!("{stem}-0000000000001000-0123456789abcdef.part");
    received.put(&part, b"half of it");
    // In the first block, behind the header, nobody looks: it is of no cluster, and goes.
    for (disk, is_refused) in [
        (of_a_cluster, true),
        (restored(20), true),
        (received, true),
        (restored(4200), false),
    ] {
        let disk = disk.after_kill();
        for name in disk.list().expect("a directory in memory can be read") {
            if !name.starts_with("snap-") {
                disk.remove(&name).expect("it was listed");
            }
        }
        let operations = disk.operations();
        let names = disk.list().expect("a directory in memory can be read");
        match restore(&disk, &options(1), open(&file.path)) {
            Err(Error::NotEmpty { found, .. }) if is_refused => {
                assert_eq!(names, [found]);
                assert_eq!(disk.operations(), operations, "nothing was changed");
            }
            Ok(_) if !is_refused => {}
            other => panic!("{names:?}: {other:?}"),
        }
    }
}

#[test]
fn a_power_cut_at_any_moment_leaves_all_or_nothing_and_a_second_try_succeeds() {
    let first = backup_of(&snapshot_at(position(5, 1234)));
    let second = backup_of(&snapshot_at(position(4, 777)));
    let (mut whole, mut none) = (0, 0);
    for operation in 1..100 {
        let disk = MemoryDisk::new();
        disk.cut_power_at(operation);
        let result = restore(&disk, &options(1), open(&first.path));
        for seed in 0..4 {
            let disk = disk.after_power_cut(seed);
            match start(&disk.copy()) {
                Ok((last, Some(_))) => {
                    assert_eq!(last, position(5, 1234));
                    whole += 1;
                    continue;
                }
                Ok((last, None)) => assert_eq!(last, Position::default()),
                // It is not said whose it is.
                Err(Error::Missing { .. }) => {}
                Err(error) => panic!("operation {operation}: {error}"),
            }
            none += 1;
            assert!(
                result.is_err(),
                "operation {operation}: it was said to be done"
            );
            restore(&disk, &options(2), open(&second.path)).expect("it is as good as empty");
            let (last, backup) = start(&disk.after_kill()).expect("it was restored");
            assert_eq!(last, position(4, 777), "the newer one is gone");
            assert!(backup.is_some());
        }
        if result.is_ok() {
            assert!(none > 10 && whole >= 4, "{none} none, {whole} whole");
            return;
        }
    }
    panic!("it takes more than 100 operations");
}

#[test]
fn a_restored_directory_whose_snapshot_is_lost_is_not_taken_for_an_empty_one() {
    let file = backup_of(&snapshot_at(position(5, 1234)));
    for is_rotten in [false, true] {
        for starts in [0, 1] {
            let disk = MemoryDisk::new();
            let id = restore(&disk, &options(1), open(&file.path)).expect("it is empty");
            let mut disk = disk.after_kill();
            for seed in 0..starts {
                Wal::open(disk.clone(), options(seed)).expect("it was restored");
                disk = disk.after_kill();
            }
            let names = disk.list().expect("a directory in memory can be read");
            let name = names.iter().find(|name| name.ends_with(".snap"));
            let name = name.expect("it was restored");
            match is_rotten {
                true => disk.rot(name, 300, 1),
                false => disk.remove(name).expect("it is there"),
            }
            disk.sync_directory().expect("the disk is sound");
            let seen = inspect(&disk.copy(), &mut |_| Ok(())).expect("it can be read");
            assert_eq!(seen.damaged, 1);
            let operations = disk.operations();
            let error = Wal::open(disk.copy(), options(5)).expect_err("its state is gone");
            match is_rotten {
                true => assert!(matches!(error, Error::Corrupt { .. }), "{error}"),
                false => assert!(matches!(error, Error::Missing { .. }), "{error}"),
            }
            assert_eq!(disk.operations(), operations, "nothing was changed");

            // With peers it recovers, and goes on to know what it began with.
            let (_, opened) = Wal::open(disk.clone(), healing_options(5)).expect("it heals");
            assert!(opened.recovered.recovering && opened.lost.is_some());
            assert_eq!(opened.recovered.last, Position::default());
            let disk = disk.after_power_cut(6);
            for meta in ["meta.0", "meta.1"] {
                let bytes = disk.content(meta).expect("there are both");
                assert_eq!(bytes[56..64], 1_u64.to_le_bytes(), "the mark");
                assert_eq!(bytes[88..92], [0; 4], "reserved");
                assert_eq!(bytes[92..100], id.0.to_le_bytes(), "the backup");
            }
            let (_, opened) = Wal::open(disk, healing_options(7)).expect("it was mended");
            assert!(opened.recovered.recovering && opened.lost.is_none());
            assert_eq!(opened.backup, Some(id));
        }
    }
}

#[test]
fn a_backup_with_any_byte_wrong_is_not_restored() {
    let file = backup_of(&snapshot_at(position(5, 1234)));
    let whole = fs::read(&file.path).expect("it is ours");
    for offset in (0..whole.len()).step_by(23) {
        let mut bytes = whole.clone();
        bytes[offset] ^= 1 << (offset % 8);
        fs::write(&file.path, &bytes).expect("it is ours");
        let disk = MemoryDisk::new();
        let restored =
            Backup::open(&file.path).and_then(|backup| restore(&disk, &options(1), backup));
        assert!(
            matches!(restored, Err(Error::Corrupt { .. })),
            "{offset}: {restored:?}"
        );
        assert!(disk.content("meta.0").is_none(), "byte {offset}");
    }
    fs::remove_file(&file.path).expect("it is ours");
    assert!(matches!(Backup::open(&file.path), Err(Error::Io { .. })));
}

#[test]
fn what_an_encoder_gives_out_is_the_file_that_a_server_writes() {
    let snapshot = snapshot_at(position(5, 1234));
    let disk = MemoryDisk::new();
    let (wal, _) = Wal::open(disk.clone(), options(1)).expect("it is empty");
    support::snapshots::write_snapshot(&wal.snapshots(), &snapshot).expect("the disk is sound");
    let names = disk.list().expect("a directory in memory can be read");
    let name = names
        .iter()
        .find(|name| name.ends_with(".snap"))
        .expect("it was written");
    let backup = fs::read(backup_of(&snapshot).path).expect("it is ours");
    assert!(disk.content(name) == Some(backup));
}
