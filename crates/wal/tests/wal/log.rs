//! What a log gives back to those who use it as they should, and whom it refuses.

use std::os::unix::fs::PermissionsExt;

use crc_fast::{CrcAlgorithm, checksum};
use quorate_wal::record::ENTRY_BYTES_MAX;
use quorate_wal::{DirectoryDisk, Disk, Error, Failure, MemoryDisk, Options, SEGMENT_BYTES, Wal};
use raft::{Fetch, HardState, Index, Position, Reader, Restart, ServerId, Term, WriteId};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use crate::support::hooked_disk::HookedDisk;
use crate::support::script::{Operation, script};
use crate::support::{Done, Model, observe, open, operate, options, read_all, write};

#[test]
fn an_empty_directory_becomes_an_empty_log() {
    let disk = MemoryDisk::new();
    let (_, opened, model) = open(disk.clone(), 1);
    assert_eq!(opened.restart, Restart(1));
    assert_eq!(opened.recovered.last, Position::default());
    assert_eq!(opened.torn, None);
    assert_eq!(model, Model::default());

    let (_, again, _) = open(disk.after_kill(), 2);
    assert_eq!(again.restart, Restart(2));
    assert_eq!(again.instance, opened.instance);
}

#[test]
fn two_directories_have_two_instance_numbers() {
    let (_, one, _) = open(MemoryDisk::new(), 1);
    let (_, other, _) = open(MemoryDisk::new(), 2);
    assert_ne!(one.instance, other.instance);
}

#[test]
fn what_a_start_finds_after_a_failed_sync_is_on_the_disk_from_then_on() {
    let disk = MemoryDisk::new();
    let (mut wal, _, _) = open(disk.clone(), 1);
    let first = write(1, 1, 0, &[&[1; 100]]);
    wal.append(&first).expect("the log takes it");
    wal.sync().expect("the disk is sound");
    wal.append(&write(2, 1, 1, &[&[2; 100]]))
        .expect("the log takes it");
    disk.fail_at(disk.operations() + 2, Failure::Device);
    assert!(matches!(wal.sync(), Err(Error::Io { .. })));
    // The kernel still has it, and takes it for written.
    let disk = disk.after_kill();
    let (_, _, found) = open(disk.clone(), 2);
    assert_eq!(found.last().index, Index(2));
    for seed in 0..20 {
        let (_, _, kept) = open(disk.after_power_cut(seed), 3);
        assert_eq!(kept, found, "seed {seed}");
    }
}

#[test]
fn a_reader_sees_what_is_synced_and_nothing_else() {
    let (mut wal, _, mut model) = open(MemoryDisk::new(), 7);
    for operation in script(6, 600) {
        if let Operation::Append(write) = &operation {
            model.apply(write);
        }
        let synced = operate(&mut wal, &operation).expect("the disk is sound");
        if let Done::Synced = synced {
            assert_eq!(read_all(&wal, Index(0), model.last().index), model.entries);
        }
    }
}

#[test]
fn a_fetch_stops_at_its_limits() {
    let (mut wal, _, _) = open(MemoryDisk::new(), 1);
    let payloads: Vec<&[u8]> = vec![&[1; 100]; 50];
    wal.append(&write(1, 1, 0, &payloads))
        .expect("the log takes it");
    assert_eq!(wal.sync().expect("the disk is sound"), WriteId(1));
    let reader = wal.reader();
    let read = |from, to, bytes_max| {
        let fetch = Fetch {
            reader: Reader::Follower(ServerId(2)),
            from: Index(from),
            to: Index(to),
            bytes_max,
        };
        let entries = reader.read(&fetch).expect("the disk is sound");
        entries
            .iter()
            .map(|entry| entry.index.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(read(3, 5, usize::MAX), [3, 4, 5]);
    assert_eq!(read(3, 50, 250), [3, 4]);
    assert_eq!(read(3, 50, 300), [3, 4, 5]);
    assert_eq!(read(3, 50, 0), [3], "the first comes however large it is");
    assert_eq!(read(50, 60, 1000), [50]);
    assert_eq!(read(51, 60, 1000), [0; 0]);
    assert_eq!(read(0, 60, 1000), [0; 0]);
}

/// All entries up to this one, however long they are.
fn until(to: Index) -> Fetch {
    Fetch {
        reader: Reader::Apply,
        from: Index(1),
        to,
        bytes_max: usize::MAX,
    }
}

#[test]
fn a_superseded_entry_is_not_given_to_a_reader() {
    let (mut wal, _, _) = open(MemoryDisk::new(), 1);
    wal.append(&write(1, 1, 0, &[b"a", b"b", b"c"]))
        .expect("the log takes it");
    wal.sync().expect("the disk is sound");
    let reader = wal.reader();
    let payloads = || {
        let entries = reader.read(&until(Index(9))).expect("the disk is sound");
        entries
            .iter()
            .map(|entry| entry.payload.to_vec())
            .collect::<Vec<_>>()
    };
    assert_eq!(payloads(), [b"a", b"b", b"c"]);

    // Entry 2 of term 1 is superseded by one of term 2, that by one of term 3, in one batch.
    for (id, term, from) in [(2, 2, 2), (3, 3, 2)] {
        let mut conflict = write(id, term, 1, &[b"d", b"e"]);
        conflict.truncate_from = Some(Index(from));
        wal.append(&conflict).expect("the log takes it");
        assert_eq!(payloads(), [b"a"]);
    }
    wal.append(&write(4, 3, 3, &[b"f"]))
        .expect("the log takes it");
    assert_eq!(wal.sync().expect("the disk is sound"), WriteId(4));
    assert_eq!(payloads(), [b"a", b"d", b"e", b"f"]);
}

#[test]
fn an_entry_that_is_superseded_while_it_is_read_is_not_given_out() {
    let (disk, running) = HookedDisk::overtaking(|mut wal| {
        let mut conflict = write(2, 2, 1, &[b"d", b"e"]);
        conflict.truncate_from = Some(Index(2));
        wal.append(&conflict).expect("the log takes it");
    });
    let (mut wal, _, _) = open(disk, 1);
    wal.append(&write(1, 1, 0, &[b"a", b"b", b"c"]))
        .expect("the log takes it");
    wal.sync().expect("the disk is sound");
    let reader = wal.reader();
    *running.lock().expect("no holder of this lock panics") = Some(wal);
    let entries = reader.read(&until(Index(3)));
    assert_eq!(entries.expect("the disk is sound").len(), 1);
}

#[test]
fn a_log_without_an_entry_keeps_its_vote() {
    let disk = MemoryDisk::new();
    let (mut wal, _, _) = open(disk.clone(), 1);
    let mut vote = write(1, 1, 0, &[]);
    vote.hard_state = Some(HardState {
        term: Term(4),
        voted_for: Some(ServerId(2)),
        ..HardState::default()
    });
    wal.append(&vote).expect("the log takes it");
    wal.sync().expect("the disk is sound");
    let (_, opened, _) = open(disk.after_power_cut(1), 2);
    assert_eq!(Some(opened.recovered.hard_state), vote.hard_state);
}

#[test]
fn an_entry_larger_than_a_segment_gets_a_segment_of_its_size() {
    let disk = MemoryDisk::new();
    let (mut wal, _, _) = open(disk.clone(), 1);
    let large = vec![0; ENTRY_BYTES_MAX];
    wal.append(&write(1, 1, 0, &[b"small", &large, b"small"]))
        .expect("the log takes it");
    wal.sync().expect("the disk is sound");
    let (_, opened, model) = open(disk.after_power_cut(1), 2);
    assert_eq!(opened.torn, None);
    assert_eq!(model.entries[1].payload, large);
}

#[test]
#[should_panic(expected = "an entry of 16777217 bytes")]
fn an_entry_over_the_limit_is_a_bug_of_the_caller() {
    let (mut wal, _, _) = open(MemoryDisk::new(), 1);
    let large = vec![0; ENTRY_BYTES_MAX + 1];
    let _ = wal.append(&write(1, 1, 0, &[&large]));
}

#[test]
fn preparing_comes_to_an_end() {
    let (mut wal, _, _) = open(MemoryDisk::new(), 1);
    let steps = (0..1000).take_while(|_| wal.prepare_next().expect("the disk is sound"));
    assert!(steps.count() < 1000, "it goes on for ever");
}

#[test]
fn a_directory_in_use_is_refused() {
    let disk = MemoryDisk::new();
    let _wal = open(disk.clone(), 1);
    let error = Wal::open(disk.clone(), options(2)).expect_err("it is in use");
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "memory/lock: locked: another process is using this data directory"
    );
}

#[test]
fn another_servers_directory_is_refused_and_left_alone() {
    let disk = MemoryDisk::new();
    open(disk.clone(), 1);
    let other = Options {
        server_id: ServerId(4),
        ..options(2)
    };
    let disk = disk.after_kill();
    let before = disk.operations();
    let error = Wal::open(disk.clone(), other).expect_err("it is server 3's");
    assert_eq!(
        error.to_string(),
        "memory: is the data directory of server 3, not of server 4"
    );
    assert_eq!(disk.operations(), before);
}

#[test]
fn a_directory_of_a_newer_format_is_refused_and_left_alone() {
    for name in ["meta.1", "wal-0000000000000001-0000000000000001.log"] {
        let disk = MemoryDisk::new();
        open(disk.clone(), 1);
        let mut content = disk.content(name).expect("every directory has it");
        content[12] = 2;
        let sum = checksum(CrcAlgorithm::Crc32Iscsi, &content[12..4096]) as u32;
        content[8..12].copy_from_slice(&sum.to_le_bytes());
        disk.put(name, &content);
        let error = Wal::open(disk.after_kill(), options(2)).expect_err("it is newer");
        assert_eq!(
            error.to_string(),
            format!("memory/{name}: has format version 2, and this release reads versions up to 1")
        );
        assert_eq!(disk.content(name), Some(content));
    }
}

#[test]
fn a_real_directory_writes_zeros_where_it_is_told_to_and_nowhere_else() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let disk = DirectoryDisk::open(directory.path()).expect("it is there");
    let file = disk.create("file").expect("it can be made");
    let bytes = 3 << 20;
    // Whole blocks, past the page cache: a step, a block, and what is no multiple of the zeros that
    // are kept. Then through it: not from the start of a block, not to the end of one, and nothing.
    let places = [
        (1 << 20, 1 << 20),
        (8192, 4096),
        (4096, 17 << 12),
        (4097, 70_000),
        (4096, 70_001),
        (4096, 0),
    ];
    for (offset, zeros) in places {
        let mut expected = vec![0xa5; bytes];
        disk.write_at(&file, &expected, 0).expect("there is room");
        expected[offset..offset + zeros].fill(0);
        disk.write_zeros_at(&file, zeros as u64, offset as u64)
            .expect("there is room");
        let mut found = vec![1; bytes];
        disk.read_at(&file, &mut found, 0).expect("it can be read");
        assert!(found == expected, "{zeros} zeros at {offset}");
    }
}

#[test]
fn a_real_directory_reads_past_the_page_cache_what_was_written() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let disk = DirectoryDisk::open(directory.path()).expect("it is there");
    let file = disk.create("file").expect("it can be made");
    let written: Vec<u8> = (0..3_u32 << 18).flat_map(u32::to_le_bytes).collect();
    let written = &written[..written.len() - 1000];
    // Whole blocks past the page cache, as blocks of a snapshot are, and the rest through it.
    let (whole, rest) = written.split_at(written.len() / 4096 * 4096);
    disk.write_at(&file, whole, 0).expect("there is room");
    disk.write_at(&file, rest, whole.len() as u64)
        .expect("there is room");
    disk.sync(&file).expect("the disk is sound");
    // Whole blocks, more of them than are read at a time, none, and what is none at either end.
    let places = [
        (0, 1 << 20),
        (4096, 4096),
        (8192, (2 << 20) + 4096),
        (4096, 0),
        (4096, 70_000),
        (1, 4096),
        (3 << 19, (3 << 19) - 1000),
        (0, written.len()),
    ];
    for (offset, length) in places {
        let mut found = vec![0xa5; length];
        disk.read_past_cache_at(&file, &mut found, offset as u64)
            .expect("it can be read");
        assert!(
            found == written[offset..offset + length],
            "{length} bytes at {offset}"
        );
    }
    for (offset, length) in [(0, written.len() + 1), (3 << 20, 4096), (4096, 3 << 20)] {
        let mut found = vec![0; length];
        let read = disk.read_past_cache_at(&file, &mut found, offset);
        let error = read.expect_err("the file ends before");
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    }
}

/// Whether the page cache has the start of a file; `None` where that can't be said. To ask may have the
/// kernel read it in, so a file can be asked for once.
fn is_cached(path: &std::path::Path) -> Option<bool> {
    let file = std::fs::File::open(path).expect("it is there");
    let mut block = [0; 4096];
    let buffers = &mut [std::io::IoSliceMut::new(&mut block)];
    match rustix::io::preadv2(file, buffers, 0, ReadWriteFlags::NOWAIT) {
        Ok(_) => Some(true),
        Err(Errno::AGAIN) => Some(false),
        Err(_) => None,
    }
}

#[test]
fn what_a_real_directory_reads_past_the_page_cache_is_not_in_it_then() {
    // Not in memory, as the directory for temporary files may be.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    let directory = directory.expect("there is room for a directory");
    let disk = DirectoryDisk::open(directory.path()).expect("it is there");
    let written = vec![0xa5; 1 << 20];
    let [unread, past, through] = ["unread", "past", "through"].map(|name| {
        let file = disk.create(name).expect("it can be made");
        disk.write_at(&file, &written, 0).expect("there is room");
        disk.sync(&file).expect("the disk is sound");
        disk.forget(name);
        (file, directory.path().join(name))
    });
    // A file system without such a way, or one that keeps all in memory, has nothing to show.
    let direct = rustix::fs::open(&unread.1, OFlags::DIRECT, Mode::empty());
    if direct.is_err() || is_cached(&unread.1) != Some(false) {
        return;
    }
    let mut found = vec![0; 1 << 20];
    disk.read_past_cache_at(&past.0, &mut found, 0)
        .expect("it can be read");
    assert!(found == written);
    assert_eq!(is_cached(&past.1), Some(false));
    disk.read_at(&through.0, &mut found, 0)
        .expect("it can be read");
    assert_eq!(is_cached(&through.1), Some(true));
}

#[test]
fn a_real_directory_works_as_the_one_in_memory() {
    let parent = tempfile::tempdir().expect("there is room for a directory");
    let path = parent.path().join("quorate-data").join("1");
    let mut model = Model::default();
    {
        let disk = DirectoryDisk::open(&path).expect("it can be made");
        let (mut wal, opened, _) = open(disk, 1);
        assert_eq!(opened.restart, Restart(1));
        for operation in script(3, 150) {
            if let Operation::Append(write) = &operation {
                model.apply(write);
            }
            operate(&mut wal, &operation).expect("the disk is sound");
        }
        wal.sync().expect("the disk is sound");

        let second = DirectoryDisk::open(&path).expect("it can be opened twice");
        let error = Wal::open(second, options(2)).expect_err("and locked only once");
        assert!(matches!(error, Error::Locked { .. }), "{error}");

        let reader = wal.reader();
        let to = model.last().index;
        let entries =
            std::thread::spawn(move || reader.read(&until(to)).expect("the disk is sound"));
        assert_eq!(entries.join().expect("it does not panic"), model.entries);
        wal.close().expect("the disk is sound");
    }
    let mode = |path: &std::path::Path| {
        let metadata = path.metadata().expect("it is there");
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode(&path), 0o700);
    let names = DirectoryDisk::open(&path).expect("it is there").list();
    for name in names.expect("it can be listed") {
        if !name.starts_with('.') {
            assert_eq!(mode(&path.join(&name)), 0o600, "{name}");
        }
    }
    let disk = DirectoryDisk::open(&path).expect("it is there");
    let (_, opened, found) = open(disk, 2);
    assert_eq!(opened.restart, Restart(2));
    assert_eq!(found, model);
}

#[test]
fn the_mark_is_moved_on_in_files_that_stay_open() {
    let disk = MemoryDisk::new();
    let (mut wal, _, _) = open(disk.clone(), 1);
    // From here on nobody can open them by name.
    for name in ["meta.0", "meta.1"] {
        disk.remove(name).expect("both are there");
    }
    let segment_bytes = usize::try_from(options(1).segment_bytes).expect("it fits");
    let payload = vec![b'v'; segment_bytes / 2];
    for id in 1..=8 {
        wal.append(&write(id, 1, id - 1, &[&payload]))
            .expect("the log takes it");
        wal.sync().expect("the disk is sound");
    }
    wal.close().expect("the disk is sound");
    let names = disk.list().expect("it can be listed");
    assert!(
        names.iter().filter(|name| name.ends_with(".log")).count() > 4,
        "each segment moves the mark on: {names:?}"
    );
    assert!(
        !names.iter().any(|name| name.starts_with("meta")),
        "{names:?}"
    );
}

#[test]
fn the_usual_segment_is_reserved_and_not_written_at_the_first_start() {
    let parent = tempfile::tempdir().expect("there is room for a directory");
    let disk = DirectoryDisk::open(parent.path()).expect("it can be opened");
    let options = Options {
        segment_bytes: SEGMENT_BYTES,
        ..options(1)
    };
    let (mut wal, opened) = Wal::open(disk, options).expect("an empty directory opens");
    wal.append(&write(1, 1, 0, &[b"first"]))
        .expect("the log takes it");
    wal.sync().expect("the disk is sound");
    assert_eq!(observe(&wal, &opened).last(), Position::default());
    let segment = parent
        .path()
        .join("wal-0000000000000001-0000000000000001.log");
    let length = segment.metadata().expect("it is there").len();
    assert_eq!(length, SEGMENT_BYTES);
}

#[test]
fn whole_blocks_and_parts_of_them_are_read_back_as_they_were_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = DirectoryDisk::open(directory.path()).expect("it can be opened");
    let file = disk.create("file").expect("it can be made");
    let mut expected = vec![0; 3 << 20];
    disk.allocate(&file, expected.len() as u64)
        .expect("there is room");
    let writes = [
        (0, 2 << 20),
        (100, 50),
        (4096, 4096),
        (4096, 4097),
        (8191, 4096),
        (1 << 20, 4096 + (1 << 20)),
        ((3 << 20) - 4096, 4096),
    ];
    for (write, (offset, length)) in (1..).zip(writes) {
        let bytes = vec![write; length];
        disk.write_at(&file, &bytes, offset as u64)
            .expect("it can be written");
        expected[offset..offset + length].copy_from_slice(&bytes);
        let mut found = vec![0; expected.len()];
        disk.read_at(&file, &mut found, 0).expect("it can be read");
        assert!(found == expected, "after {length} bytes at {offset}");
    }
    disk.sync(&file).expect("it can be synced");
    assert_eq!(disk.length(&file).expect("it is there"), 3 << 20);
}
