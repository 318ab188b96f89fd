//! Snapshot files: what they hold, on the way to another server too; what is found when they are
//! not as they were written; and that a full disk ends no more than one of them (rules 7, 43, 44).

use std::path::Path;

use quorate_wal::{
    DirectoryDisk, Disk, Error, Failure, MemoryDisk, SNAPSHOT_PIECE_BYTES_MAX, SnapshotReader,
    SnapshotReceiver, SnapshotSender, SnapshotWriter, Snapshots, Wal,
};
use raft::{ClusterId, Position, Snapshot};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::snapshots::{
    CLUSTER, content_of, position, read_snapshot, receive_snapshot, sender, snapshot_at,
    write_snapshot,
};
use crate::support::{mix, open, options, write};

/// A directory of a server that has applied what these tests write.
fn directory() -> (MemoryDisk, Wal<MemoryDisk>) {
    let disk = MemoryDisk::new();
    let (wal, _, _) = open(disk.clone(), 1);
    (disk, wal)
}

fn random_content(seed: u64, length: usize) -> Vec<u8> {
    let mut content = vec![0; length];
    StdRng::seed_from_u64(seed).fill_bytes(&mut content);
    content
}

/// Writes a snapshot with this content, cut into pieces of this length.
fn write_content<D: Disk>(
    snapshots: &Snapshots<D>,
    snapshot: &Snapshot,
    content: &[u8],
    piece_bytes: usize,
) -> Result<(), Error> {
    let mut writer = SnapshotWriter::create(snapshots, CLUSTER, snapshot.clone())?;
    for piece in content.chunks(piece_bytes) {
        writer.write(piece)?;
    }
    writer.finish().map(|_| ())
}

fn name_of(position: Position) -> String {
    format!(
        "snap-{:016x}-{:016x}.snap",
        position.index.0, position.term.0
    )
}

fn snapshot_files(disk: &MemoryDisk) -> Vec<String> {
    let mut names = disk.list().expect("the disk is sound");
    names.retain(|name| name.starts_with("snap"));
    names.sort();
    names
}

#[test]
fn a_snapshot_of_any_length_is_read_back_in_pieces() {
    let (disk, wal) = directory();
    let snapshots = wal.snapshots();
    let piece = SNAPSHOT_PIECE_BYTES_MAX;
    for (index, length) in (1..).zip([0, 1, piece - 1, piece, piece + 1, 3 * piece, 700_000]) {
        let content = random_content(index, length);
        let snapshot = snapshot_at(position(2, index));
        write_content(&snapshots, &snapshot, &content, 10_007).expect("the disk is sound");
        assert_eq!(snapshots.newest().as_ref(), Some(&snapshot));
        let mut reader = SnapshotReader::open(&snapshots, snapshot.position).expect("it is there");
        assert_eq!(reader.snapshot(), &snapshot);
        assert_eq!(reader.cluster(), CLUSTER);
        let mut pieces = Vec::new();
        while let Some(piece) = reader.read().expect("it is sound") {
            pieces.push(piece);
        }
        assert!(
            pieces
                .iter()
                .all(|piece| piece.len() <= SNAPSHOT_PIECE_BYTES_MAX)
        );
        assert!(pieces.concat() == content, "{length} bytes");
        assert!(reader.read().expect("it is at its end").is_none());
        let bytes = disk
            .content(&name_of(snapshot.position))
            .map(|bytes| bytes.len() as u64);
        assert_eq!(bytes, Some(reader.file_bytes()));
    }
}

#[test]
fn two_servers_write_the_same_file_however_they_cut_it_into_pieces() {
    let snapshot = snapshot_at(position(3, 40));
    let content = random_content(5, 600_000);
    let files = [(1, 600_000), (2, 999), (3, 1 << 18)].map(|(seed, piece_bytes)| {
        let disk = MemoryDisk::new();
        let (wal, _, _) = open(disk.clone(), seed);
        write_content(&wal.snapshots(), &snapshot, &content, piece_bytes)
            .expect("the disk is sound");
        disk.content(&name_of(snapshot.position))
            .expect("it is there")
    });
    assert!(files[0] == files[1] && files[1] == files[2]);
}

#[test]
fn a_large_configuration_is_in_the_header() {
    let (_, wal) = directory();
    let mut snapshot = snapshot_at(position(3, 40));
    let configuration = snapshot.configuration.as_mut().expect("it has one");
    configuration.payload = random_content(1, 50_000).into();
    write_content(&wal.snapshots(), &snapshot, b"content", 10).expect("the disk is sound");
    let reader = SnapshotReader::open(&wal.snapshots(), snapshot.position);
    assert_eq!(reader.expect("it is there").snapshot(), &snapshot);
}

#[test]
fn the_newest_snapshot_and_the_one_before_are_kept() {
    let (disk, wal) = directory();
    let positions = [10, 20, 30, 40].map(|index| position(2, index));
    for (at, position) in positions.into_iter().enumerate() {
        write_snapshot(&wal.snapshots(), &snapshot_at(position)).expect("the disk is sound");
        let kept: Vec<String> = positions[at.saturating_sub(1)..=at]
            .iter()
            .map(|position| name_of(*position))
            .collect();
        assert_eq!(snapshot_files(&disk), kept);
    }
    drop(wal);
    let (wal, opened, _) = open(disk.after_kill(), 2);
    assert_eq!(opened.recovered.snapshot, Some(snapshot_at(positions[3])));
    write_snapshot(&wal.snapshots(), &snapshot_at(position(2, 50))).expect("the disk is sound");
    assert_eq!(
        snapshot_files(&disk.after_kill()),
        [name_of(positions[3]), name_of(position(2, 50))]
    );
}

#[test]
fn an_unfinished_snapshot_is_none_and_is_removed() {
    let (disk, wal) = directory();
    let create = || {
        let snapshot = snapshot_at(position(1, 5));
        SnapshotWriter::create(&wal.snapshots(), CLUSTER, snapshot).expect("the disk is sound")
    };
    let mut writer = create();
    writer.write(&[1; 1000]).expect("the disk is sound");
    assert_eq!(snapshot_files(&disk).len(), 1);
    drop(writer);
    assert_eq!(snapshot_files(&disk).len(), 0);

    // Nobody is left to remove it.
    std::mem::forget(create());
    let disk = disk.after_kill();
    assert_eq!(snapshot_files(&disk).len(), 1);
    let (_, opened, _) = open(disk.clone(), 2);
    assert_eq!(opened.recovered.snapshot, None);
    assert_eq!(snapshot_files(&disk).len(), 0);
}

/// A directory that holds one snapshot, and its file's name and content.
fn with_snapshot(length: usize) -> (MemoryDisk, Snapshot, Vec<u8>) {
    let (disk, wal) = directory();
    let snapshot = snapshot_at(position(2, 9));
    let content = random_content(3, length);
    write_content(&wal.snapshots(), &snapshot, &content, length.max(1)).expect("it is sound");
    let file = disk.content(&name_of(snapshot.position));
    (disk, snapshot, file.expect("it is there"))
}

/// Where reading the snapshot complains.
fn complaint(disk: &MemoryDisk, snapshots: &Snapshots<MemoryDisk>, at: Position) -> Option<u64> {
    match read_snapshot(snapshots, at) {
        Ok(_) => None,
        Err(Error::Corrupt { file, offset, .. }) => {
            assert_eq!(file, disk.path().join(name_of(at)));
            Some(offset)
        }
        Err(error) => panic!("{error}"),
    }
}

/// Puts each of these files in place of a sound one, and sees that it is found.
fn each_is_found(length: usize, spoilt: impl Fn(&[u8]) -> Vec<(usize, Vec<u8>)>) {
    let (disk, snapshot, sound) = with_snapshot(length);
    let disk = disk.after_kill();
    let (wal, _) = Wal::open(disk.clone(), options(2)).expect("it is sound");
    let snapshots = wal.snapshots();
    assert_eq!(complaint(&disk, &snapshots, snapshot.position), None);
    for (at, file) in spoilt(&sound) {
        disk.put(&name_of(snapshot.position), &file);
        let place = complaint(&disk, &snapshots, snapshot.position);
        let place = place.unwrap_or_else(|| panic!("what is wrong at {at} was not found"));
        assert!(
            place <= at as u64,
            "what is wrong at {at} is sought at {place}"
        );
    }
}

#[test]
fn every_flipped_bit_is_found() {
    each_is_found(300, |sound| {
        let bits = (0..sound.len()).flat_map(|at| (0..8).map(move |bit| (at, bit)));
        bits.map(|(at, bit)| {
            let mut file = sound.to_vec();
            file[at] ^= 1 << bit;
            (at, file)
        })
        .collect()
    });
    // Of a longer one every bit of what is not content, and some of the content's.
    each_is_found(600_000, |sound| {
        let is_content = |at: &usize| (4096..sound.len() - 48).contains(at);
        (0..sound.len())
            .filter(|at| !is_content(at) || (at - 4096) % (1 << 18) < 16 || at % 9973 == 0)
            .step_by(7)
            .map(|at| {
                let mut file = sound.to_vec();
                file[at] ^= 1 << (mix(4, at as u64) % 8);
                (at, file)
            })
            .collect()
    });
}

#[test]
fn every_truncation_and_every_extra_byte_is_found() {
    each_is_found(300, |sound| {
        let shorter = (0..sound.len()).map(|length| (sound.len(), sound[..length].to_vec()));
        let longer = [1, 8, 48, 5000].into_iter().flat_map(|extra| {
            [0, 0xff].map(|byte| {
                let mut file = sound.to_vec();
                file.resize(sound.len() + extra, byte);
                (sound.len(), file)
            })
        });
        shorter.chain(longer).collect()
    });
    each_is_found(600_000, |sound| {
        let shorter = (0..sound.len()).rev().step_by(4093);
        shorter
            .map(|length| (sound.len(), sound[..length].to_vec()))
            .collect()
    });
}

#[test]
fn a_block_that_is_swapped_repeated_or_lost_is_found() {
    const BLOCK: usize = 1 << 18;
    each_is_found(4 * SNAPSHOT_PIECE_BYTES_MAX, |sound| {
        let (header, rest) = sound.split_at(4096);
        let (blocks, footer) = rest.split_at(4 * BLOCK);
        let blocks: Vec<&[u8]> = blocks.chunks(BLOCK).collect();
        let file = |order: &[usize]| {
            let blocks = order.iter().map(|at| blocks[*at]);
            let parts = [header].into_iter().chain(blocks).chain([footer]);
            (sound.len(), parts.collect::<Vec<_>>().concat())
        };
        vec![
            file(&[1, 0, 2, 3]),
            file(&[0, 1, 1, 3]),
            file(&[0, 1, 1, 2, 3]),
            file(&[0, 2, 3]),
            file(&[0, 1, 2]),
            file(&[]),
            file(&[0, 1, 2, 3, 3]),
        ]
    });
}

#[test]
fn the_footer_of_another_snapshot_is_found() {
    let (_, _, other) = with_snapshot(301);
    each_is_found(300, |sound| {
        let mut file = sound[..sound.len() - 48].to_vec();
        file.extend_from_slice(&other[other.len() - 48..]);
        vec![(sound.len(), file)]
    });
}

#[test]
fn a_full_disk_ends_the_snapshot_and_nothing_else() {
    let snapshot = snapshot_at(position(1, 7));
    let content = random_content(9, 600_000);
    let total = {
        let (disk, wal) = directory();
        let before = disk.operations();
        write_content(&wal.snapshots(), &snapshot, &content, 100_000).expect("there is room");
        disk.operations() - before
    };
    assert_eq!(
        total, 8,
        "create, header, two blocks, the last, sync, rename, sync"
    );
    for failing in 1..=total {
        let (disk, mut wal) = directory();
        disk.fail_at(disk.operations() + failing, Failure::Full);
        let result = write_content(&wal.snapshots(), &snapshot, &content, 100_000);
        let error = result.expect_err("there is no room");
        if failing < total {
            assert!(matches!(error, Error::NoSpace { .. }), "{failing}: {error}");
        } else {
            // What else was to be made durable in the directory is not known.
            assert!(matches!(error, Error::Io { .. }), "{failing}: {error}");
            continue;
        }
        assert_eq!(wal.snapshots().newest(), None);
        assert_eq!(snapshot_files(&disk), [""; 0], "operation {failing}");
        wal.append(&write(1, 1, 0, &[b"a"]))
            .expect("the log takes it");
        wal.sync().expect("the log goes on");
        // The next one finds room.
        write_content(&wal.snapshots(), &snapshot, &content, 100_000).expect("there is room");
        assert_eq!(wal.snapshots().newest().as_ref(), Some(&snapshot));
    }
}

#[test]
fn a_failing_disk_is_no_full_one() {
    let snapshot = snapshot_at(position(1, 7));
    for failing in 1..=6 {
        let (disk, wal) = directory();
        disk.fail_at(disk.operations() + failing, Failure::Device);
        let error = write_snapshot(&wal.snapshots(), &snapshot).expect_err("the disk fails");
        assert!(matches!(error, Error::Io { .. }), "{failing}: {error}");
        assert_eq!(wal.snapshots().newest(), None);
    }
}

#[test]
fn a_snapshot_that_is_not_read_back_as_it_was_written_does_not_count() {
    let snapshot = snapshot_at(position(1, 7));
    // Its header or what follows.
    for (older, read) in [(false, 0), (false, 1), (true, 0), (true, 1)] {
        let (disk, wal) = directory();
        let before = snapshot_at(position(1, 3));
        let oldest = snapshot_at(position(1, 2));
        if older {
            write_snapshot(&wal.snapshots(), &oldest).expect("the disk is sound");
            write_snapshot(&wal.snapshots(), &before).expect("the disk is sound");
        }
        disk.misread(read, 100, 1);
        let error = write_snapshot(&wal.snapshots(), &snapshot).expect_err("it is misread");
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert_eq!(wal.snapshots().newest(), older.then_some(before));
        // Nothing was removed for it.
        assert_eq!(snapshot_files(&disk).len(), if older { 3 } else { 1 });
    }
}

#[test]
fn a_snapshot_is_received_as_it_was_sent() {
    let (disk, wal) = directory();
    let snapshot = snapshot_at(position(4, 11));
    receive_snapshot(&wal.snapshots(), &snapshot).expect("the disk is sound");
    assert_eq!(wal.snapshots().newest().as_ref(), Some(&snapshot));
    let sent = sender(&snapshot);
    let file = disk
        .content(&name_of(snapshot.position))
        .expect("it is there");
    assert_eq!(sent.read(0, usize::MAX).expect("it is sound"), file);
    assert_eq!(sent.identity().file_bytes, file.len() as u64);
    let (_, opened, model) = open(disk.after_power_cut(1), 2);
    assert_eq!(opened.recovered.snapshot, Some(snapshot.clone()));
    assert_eq!(model.before, snapshot.position, "the log was behind it");
}

/// A snapshot of three blocks and a bit, on another server.
fn large_sender() -> (SnapshotSender<MemoryDisk>, Vec<u8>) {
    let (disk, wal) = directory();
    let snapshot = snapshot_at(position(4, 11));
    write_content(
        &wal.snapshots(),
        &snapshot,
        &random_content(4, 800_000),
        4096,
    )
    .expect("the disk is sound");
    let sender = SnapshotSender::open(&wal.snapshots(), snapshot.position).expect("it is there");
    let file = disk
        .content(&name_of(snapshot.position))
        .expect("it is there");
    (sender, file)
}

#[test]
fn a_transfer_goes_on_where_it_stopped_after_a_kill_or_a_power_cut() {
    let (sender, file) = large_sender();
    for stop in (1..file.len()).step_by(60_013) {
        for seed in 0..4 {
            let (disk, wal) = directory();
            let mut receiver =
                SnapshotReceiver::open(&wal.snapshots(), sender.identity()).expect("there is room");
            for piece in file[..stop].chunks(30_000) {
                receiver
                    .write(receiver.offset(), piece)
                    .expect("there is room");
            }
            assert_eq!(receiver.offset(), stop as u64);
            std::mem::forget(receiver);
            let disk = if seed == 0 {
                disk.after_kill()
            } else {
                disk.after_power_cut(seed)
            };
            let (wal, _, _) = open(disk.clone(), 2);
            let mut receiver =
                SnapshotReceiver::open(&wal.snapshots(), sender.identity()).expect("there is room");
            let offset = receiver.offset() as usize;
            assert!(offset <= stop, "{offset} of {stop} bytes");
            if seed == 0 {
                assert!(
                    offset + (2 << 18) > stop,
                    "only {offset} of {stop} bytes stayed"
                );
            }
            receiver
                .write(offset as u64, &file[offset..])
                .expect("there is room");
            receiver.finish().expect("it is whole");
            let found = disk.content(&name_of(sender.identity().position));
            assert!(found.as_ref() == Some(&file), "stopped at {stop}");
        }
    }
}

#[test]
fn a_snapshot_that_arrives_behind_two_newer_ones_can_still_be_read() {
    let (disk, wal) = directory();
    let snapshots = wal.snapshots();
    let [late, first, second] = [40, 50, 60].map(|index| snapshot_at(position(2, index)));
    let sender = sender(&late);
    let open = SnapshotReceiver::open(&snapshots, sender.identity());
    let mut receiver = open.expect("there is room");
    let bytes = sender.read(0, 1 << 20).expect("that disk is sound");
    receiver.write(0, &bytes).expect("there is room");
    for newer in [&first, &second] {
        write_snapshot(&snapshots, newer).expect("there is room");
    }
    let mut reader = receiver.finish().expect("it is whole");
    assert_eq!(*reader.snapshot(), late);
    let mut content = Vec::new();
    while let Some(piece) = reader.read().expect("it is open") {
        content.extend_from_slice(&piece);
    }
    assert_eq!(content, content_of(&late));
    // It is no use to anybody else.
    assert_eq!(disk.content(&name_of(late.position)), None);
    assert_eq!(snapshots.newest(), Some(second));
}

#[test]
fn bytes_that_are_not_the_next_ones_are_refused() {
    let (_, wal) = directory();
    let (sender, file) = large_sender();
    let open = || SnapshotReceiver::open(&wal.snapshots(), sender.identity());
    let mut receiver = open().expect("there is room");
    receiver.write(0, &file[..1000]).expect("there is room");
    for offset in [0, 999, 1001, u64::MAX] {
        let error = receiver
            .write(offset, b"x")
            .expect_err("it is not the next");
        assert!(
            matches!(error, Error::Misplaced { expected: 1000, .. }),
            "{error}"
        );
    }
    let error = receiver.write(1000, &file).expect_err("it is too much");
    assert!(matches!(error, Error::Misplaced { .. }), "{error}");
    let error = receiver.finish().expect_err("it is not whole");
    assert!(matches!(error, Error::Misplaced { .. }), "{error}");
}

#[test]
fn a_received_file_that_is_not_what_was_announced_is_removed() {
    let (sender, file) = large_sender();
    let sound = sender.identity();
    let mut rotten = file.clone();
    rotten[300_000] ^= 4;
    let mut other = sound;
    other.checksum ^= 1;
    let mut stranger = sound;
    stranger.cluster = ClusterId(78);
    for (identity, file) in [(sound, &rotten), (other, &file), (stranger, &file)] {
        let (disk, wal) = directory();
        let mut receiver =
            SnapshotReceiver::open(&wal.snapshots(), identity).expect("there is room");
        receiver.write(0, file).expect("there is room");
        let error = receiver.finish().expect_err("it is another one");
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert_eq!(snapshot_files(&disk), [""; 0]);
        assert_eq!(wal.snapshots().newest(), None);
    }
}

#[test]
fn a_full_disk_ends_a_transfer_and_nothing_else() {
    let (sender, file) = large_sender();
    let receive = |wal: &Wal<MemoryDisk>| -> Result<(), Error> {
        let mut receiver = SnapshotReceiver::open(&wal.snapshots(), sender.identity())?;
        receiver.write(0, &file)?;
        receiver.finish().map(|_| ())
    };
    let total = {
        let (disk, wal) = directory();
        let before = disk.operations();
        receive(&wal).expect("there is room");
        disk.operations() - before
    };
    for failing in 1..total {
        let (disk, mut wal) = directory();
        disk.fail_at(disk.operations() + failing, Failure::Full);
        let error = receive(&wal).expect_err("there is no room");
        assert!(matches!(error, Error::NoSpace { .. }), "{failing}: {error}");
        assert_eq!(snapshot_files(&disk), [""; 0], "operation {failing}");
        wal.append(&write(1, 1, 0, &[b"a"]))
            .expect("the log takes it");
        wal.sync().expect("the log goes on");
        receive(&wal).expect("there is room again");
    }
}

#[test]
fn what_was_received_of_another_or_an_older_snapshot_is_removed() {
    let (disk, wal) = directory();
    let senders = [9, 20].map(|index| sender(&snapshot_at(position(2, index))));
    for sender in &senders {
        let receiver = SnapshotReceiver::open(&wal.snapshots(), sender.identity());
        drop(receiver.expect("there is room"));
        assert_eq!(snapshot_files(&disk).len(), 1);
    }
    let (_, opened, _) = open(disk.after_kill(), 2);
    assert_eq!(opened.recovered.snapshot, None);
    assert_eq!(snapshot_files(&disk.after_kill()).len(), 1);
    let disk = disk.after_kill();
    let (wal, _, _) = open(disk.clone(), 2);
    write_snapshot(&wal.snapshots(), &snapshot_at(position(2, 20))).expect("the disk is sound");
    let disk = disk.after_kill();
    open(disk.clone(), 3);
    assert_eq!(snapshot_files(&disk), [name_of(position(2, 20))]);
}

#[test]
fn a_real_directory_takes_snapshots_as_the_one_in_memory() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let disk = DirectoryDisk::open(directory.path()).expect("it can be opened");
    let (wal, _) = Wal::open(disk, options(1)).expect("an empty directory opens");
    let snapshot = snapshot_at(position(4, 11));
    let content = random_content(4, 800_000);
    write_content(&wal.snapshots(), &snapshot, &content, 5000).expect("there is room");
    let found = read_snapshot(&wal.snapshots(), snapshot.position).expect("it is sound");
    assert!(found == content);
    let (_, expected) = large_sender();
    let path = directory.path().join(name_of(snapshot.position));
    assert!(std::fs::read(path).expect("it is there") == expected);

    let other = tempfile::tempdir().expect("there is room for a directory");
    let disk = DirectoryDisk::open(other.path()).expect("it can be opened");
    let (receiving, _) = Wal::open(disk, options(2)).expect("an empty directory opens");
    let sender = SnapshotSender::open(&wal.snapshots(), snapshot.position).expect("it is there");
    let mut receiver =
        SnapshotReceiver::open(&receiving.snapshots(), sender.identity()).expect("there is room");
    while receiver.offset() < sender.identity().file_bytes {
        let bytes = sender.read(receiver.offset(), 77_777).expect("it is sound");
        receiver
            .write(receiver.offset(), &bytes)
            .expect("there is room");
    }
    let finished = receiver.finish().expect("it is whole");
    assert_eq!(*finished.snapshot(), snapshot);
}

fn fixture() -> (std::path::PathBuf, Snapshot) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let snapshot = snapshot_at(position(2, 12));
    let path = fixtures
        .join("snapshot-v1")
        .join(name_of(snapshot.position));
    (path, snapshot)
}

#[test]
fn version_1_is_read_and_still_written_so() {
    let (path, snapshot) = fixture();
    let file = std::fs::read(&path).expect("the fixture is there");
    // Without meta files it would be nobody's.
    let disk = MemoryDisk::new();
    drop(open(disk.clone(), 1));
    let disk = disk.after_kill();
    disk.put(&name_of(snapshot.position), &file);
    let (wal, opened, _) = open(disk, 2);
    assert_eq!(opened.recovered.snapshot.as_ref(), Some(&snapshot));
    let found = read_snapshot(&wal.snapshots(), snapshot.position).expect("it is sound");
    assert!(found == content_of(&snapshot));
    let written = sender(&snapshot).read(0, usize::MAX).expect("it is sound");
    assert!(written == file);
}

/// Run by hand when there is a version to keep, by its whole name, since there is another one:
/// `snapshots::write_the_fixture`.
#[test]
#[ignore = "writes the fixture of the newest version"]
fn write_the_fixture() {
    let (path, snapshot) = fixture();
    let file = sender(&snapshot).read(0, usize::MAX).expect("it is sound");
    std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("it can be made");
    std::fs::write(path, file).expect("it can be written");
}

#[test]
fn any_bytes_in_place_of_a_snapshot_are_an_error_or_the_snapshot() {
    let (disk, snapshot, sound) = with_snapshot(5000);
    let disk = disk.after_kill();
    let (wal, _) = Wal::open(disk.clone(), options(2)).expect("it is sound");
    let snapshots = wal.snapshots();
    bolero::check!()
        .with_type::<(u16, Vec<u8>, bool)>()
        .for_each(|(offset, bytes, cut)| {
            let mut file = sound.clone();
            let offset = usize::from(*offset) % file.len();
            for (to, from) in file.iter_mut().skip(offset).zip(bytes) {
                *to = *from;
            }
            if *cut {
                file.truncate(offset + bytes.len());
            }
            disk.put(&name_of(snapshot.position), &file);
            let found = complaint(&disk, &snapshots, snapshot.position);
            assert_eq!(found.is_none(), file == sound);
        });
}
