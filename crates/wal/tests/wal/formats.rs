//! The format on disk: directories of released versions are read, and bytes that are none of
//! ours harm nobody.

use std::path::{Path, PathBuf};

use bolero::check;
use quorate_wal::record::{HEADER_BYTES, Header, Invalid, Kind};
use quorate_wal::{Disk, MemoryDisk, Wal};
use raft::{
    ClusterId, EntryKind, HardState, Index, Instance, Position, Restart, Seating, ServerId, Term,
};

use crate::support;
use crate::support::{Model, open, options, write};

fn fixture(version: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    tests.join("fixtures").join(version)
}

/// What the fixtures hold: every kind of record but the reserved ones, over two segments.
fn fixture_model() -> Model {
    let mut model = Model::default();
    fill(&mut |write| model.apply(write));
    model
}

fn fill(take: &mut dyn FnMut(&raft::Write)) {
    let mut first = write(1, 1, 0, &[b"", b"a configuration", b"a command"]);
    first.entries[0].kind = EntryKind::NoOp;
    first.entries[1].kind = EntryKind::Configuration;
    first.hard_state = Some(HardState {
        term: Term(1),
        voted_for: Some(ServerId(2)),
        seating: Seating::Met(ClusterId(0x1234)),
    });
    take(&first);
    let mut conflict = write(2, 2, 2, &[&[0; 1500], &[0xab; 3000]]);
    conflict.truncate_from = Some(Index(3));
    conflict.hard_state = Some(HardState {
        term: Term(2),
        voted_for: None,
        seating: Seating::Seated {
            cluster: ClusterId(0x1234),
            configuration_index: Index(2),
        },
    });
    take(&conflict);
    take(&write(3, 2, 4, &[b"in the second segment"]));
}

#[test]
fn version_1_is_read() {
    let disk = MemoryDisk::new();
    for file in std::fs::read_dir(fixture("v1")).expect("the fixture is there") {
        let file = file.expect("the fixture can be listed");
        let content = std::fs::read(file.path()).expect("the fixture can be read");
        disk.put(&file.file_name().to_string_lossy(), &content);
    }
    let (_, opened, model) = open(disk, 1);
    assert_eq!(model, fixture_model());
    assert_eq!(opened.instance, Instance(0x86cc_7763_2227_24a2));
    assert_eq!(opened.restart, Restart(2));
    assert_eq!(opened.torn, None);
}

/// What is in the fixtures, written as this version does.
fn filled_disk() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let (mut wal, _, _) = open(disk.clone(), 42);
    fill(&mut |write| {
        wal.append(write).expect("the log takes it");
        wal.sync().expect("the disk is sound");
    });
    disk
}

/// Run by hand when there is a version to keep, by its whole name, since there is another one:
/// `formats::write_the_fixture`.
#[test]
#[ignore = "writes the fixture of the newest version"]
fn write_the_fixture() {
    let disk = filled_disk();
    let directory = fixture("v1");
    std::fs::create_dir_all(&directory).expect("it can be made");
    for name in disk.list().expect("the disk is sound") {
        let content = disk.content(&name).expect("it was listed");
        std::fs::write(directory.join(name), content).expect("it can be written");
    }
}

#[test]
fn any_bytes_are_a_header_that_encodes_to_them_or_none() {
    check!()
        .with_type::<([u8; 32], [u8; 16], u32)>()
        .for_each(|(front, back, salt)| {
            let mut bytes = [0; HEADER_BYTES];
            bytes[..32].copy_from_slice(front);
            bytes[32..].copy_from_slice(back);
            // Random bytes nearly never pass the checksum, so half of them get the right one.
            if salt % 2 == 0
                && let Err(Invalid::Checksum { found, .. }) = Header::decode(&bytes, *salt)
            {
                bytes[..4].copy_from_slice(&found.to_le_bytes());
            }
            if let Ok(header) = Header::decode(&bytes, *salt) {
                assert_eq!(header.encode(*salt), bytes);
            }
        });
}

#[test]
fn every_header_is_read_as_it_was_written_and_not_with_another_salt() {
    check!()
        .with_type::<(u8, bool, u16, u32, u32, u64, u64, u64, u32)>()
        .for_each(
            |(kind, last, zero_parts, length, sum, batch, term, index, salt)| {
                let header = Header {
                    kind: match kind % 8 {
                        0 => Kind::Entry(EntryKind::NoOp),
                        1 => Kind::Entry(EntryKind::Command),
                        2 => Kind::Entry(EntryKind::Configuration),
                        3 => Kind::HardState,
                        4 => Kind::Truncate,
                        5 => Kind::SegmentEnd,
                        6 => Kind::Recovering,
                        _ => Kind::Recovered,
                    },
                    last: *last,
                    zero_parts: *zero_parts,
                    payload_bytes: length % (16 << 20),
                    payload_checksum: *sum,
                    batch: *batch,
                    position: Position {
                        term: Term(*term),
                        index: Index(*index),
                    },
                };
                let bytes = header.encode(*salt);
                assert_eq!(Header::decode(&bytes, *salt), Ok(header));
                let other = Header::decode(&bytes, salt.wrapping_add(1));
                assert!(matches!(other, Err(Invalid::Checksum { .. })), "{other:?}");
            },
        );
}

#[test]
fn any_bytes_in_place_of_a_file_are_an_error_or_a_log() {
    let sound = filled_disk();
    let mut names = sound.list().expect("the disk is sound");
    names.sort();
    check!()
        .with_type::<(u8, u16, Vec<u8>, bool)>()
        .for_each(|(file, offset, bytes, cut)| {
            let disk = sound.copy();
            let name = &names[usize::from(*file) % names.len()];
            let mut content = disk.content(name).expect("it was listed");
            let offset = usize::from(*offset) % content.len();
            for (to, from) in content.iter_mut().skip(offset).zip(bytes) {
                *to = *from;
            }
            if *cut {
                content.truncate(offset + bytes.len());
            }
            disk.put(name, &content);
            // Whatever it is, it is no panic, and what opens opens again.
            if let Ok((wal, opened)) = Wal::open(disk.clone(), options(1)) {
                let model = support::observe(&wal, &opened);
                assert_eq!(open(disk.after_power_cut(1), 2).2, model);
            }
        });
}
