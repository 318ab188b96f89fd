//! Damage to a file of a server, as a disk does it, and a lie that no checksum tells.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Turns one bit over, durably.
///
/// # Panics
/// If there is no such byte.
pub fn flip(file: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(file);
    let file = file.expect("it is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)
        .expect("it is that long");
    file.write_all_at(&[byte[0] ^ 4], offset)
        .expect("it is ours");
    file.sync_all().expect("it is ours");
}

/// Where a segment has its salt, where its records begin, and how long their headers are.
const SALT: usize = 80;
const RECORDS: usize = 4096;
const HEADER: usize = 48;

/// A byte of the first record of every segment that has one, however the entries came to be in it.
pub const IN_THE_FIRST_RECORD: u64 = (RECORDS + HEADER) as u64;

/// Writes other bytes of the same length over these in the payload of an entry, with checksums that
/// say that this is what was written.
///
/// # Panics
/// If no record of the segment has them.
pub fn forge(segment: &Path, from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len(), "of the same length");
    let mut bytes = std::fs::read(segment).expect("it is there");
    let number = |bytes: &[u8], at: usize| {
        let four = bytes[at..at + 4].try_into().expect("these are four");
        u32::from_le_bytes(four)
    };
    let salt = number(&bytes, SALT);
    let mut start = RECORDS;
    loop {
        // No header straddles a sector.
        if start % 512 > 512 - HEADER {
            start = start.next_multiple_of(512);
        }
        let payload = start + HEADER;
        let end = payload + number(&bytes, start + 4) as usize;
        assert!(end > payload, "no record has these bytes");
        let found = bytes[payload..end]
            .windows(from.len())
            .position(|window| window == from);
        if let Some(at) = found {
            bytes[payload + at..][..to.len()].copy_from_slice(to);
            let checksum = crc32c(salt, &bytes[payload..end]).to_le_bytes();
            bytes[start + 16..start + 20].copy_from_slice(&checksum);
            let checksum = crc32c(salt, &bytes[start + 4..payload]).to_le_bytes();
            bytes[start..start + 4].copy_from_slice(&checksum);
            std::fs::write(segment, bytes).expect("it is ours");
            return;
        }
        start = end.next_multiple_of(8);
    }
}

fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    let mut crc = seed;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}
