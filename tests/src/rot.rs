//! Damage to a file of a server, as a disk does it.

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
