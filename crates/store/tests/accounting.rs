//! What a store counts as its memory is what the process grows by, within a tenth. The only test of
//! its binary, so that nothing else grows meanwhile.

use std::fs;

use bytes::Bytes;
use command::{Exptime, Key, LogTime, Preamble, StoreMode, Write};
use quorate_store::Store;

const ITEMS: u64 = 400_000;
const KEY_BYTES: u64 = 16;
const VALUE: [u8; 100] = [b'x'; 100];

/// The memory that this process has of the machine, in bytes.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kibibytes = kibibytes.and_then(|number| number.trim().parse::<u64>().ok());
    kibibytes.expect("a number of KiB") * 1024
}

/// A store with so many items of the same time, what it counts for them, and what the process has
/// grown by.
fn filled(exptime: Exptime) -> (Store, u64, u64) {
    let mut store = Store::new(5);
    let before = resident_bytes();
    for number in 0..ITEMS {
        let preamble = Preamble {
            log_time: LogTime(1_700_000_000_000 + number),
            item_bytes_max: 1 << 20,
            memory_limit_bytes: 0,
            mark: None,
        };
        store.enter(number + 1, &preamble);
        let key = Key::new(Bytes::from(format!("key-{number:012}"))).expect("16 bytes");
        let write = Write::Store(command::Store {
            mode: StoreMode::Set,
            key,
            flags: 0,
            exptime,
            value: Bytes::from_static(&VALUE),
        });
        store.apply(0, &write);
    }
    let grown = resident_bytes() - before;
    let counted = store.counts().bytes;
    (store, counted, grown)
}

#[test]
fn what_is_counted_is_what_a_process_grows_by() {
    let (_without, counted, grown) = filled(Exptime(0));
    let ratio = counted as f64 / grown as f64;
    assert!(
        (0.9..1.1).contains(&ratio),
        "{counted} counted, {grown} grown"
    );
    let beyond = grown / ITEMS - KEY_BYTES - VALUE.len() as u64;
    assert!(beyond <= 100, "{beyond} bytes beyond key and value");
    let (_with, counted, grown) = filled(Exptime(100_000));
    let ratio = counted as f64 / grown as f64;
    assert!(
        (0.9..1.1).contains(&ratio),
        "{counted} counted with a time, {grown} grown"
    );
}
