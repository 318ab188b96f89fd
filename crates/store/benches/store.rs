//! What it costs to carry out a command among few items and among many, most of which no cache has.

use bytes::Bytes;
use command::{Exptime, Key, LogTime, Preamble, Read, Reply, StoreMode, Write};
use criterion::{Criterion, criterion_group, criterion_main};
use quorate_store::Store;

const ITEMS: [u64; 2] = [10_000, 1_000_000];

/// So many different commands are carried out in turns, at most.
const COMMANDS_MAX: u64 = 100_000;

const PREAMBLE: Preamble = Preamble {
    log_time: LogTime(1_700_000_000_000),
    item_bytes_max: 1 << 20,
    memory_limit_bytes: 0,
    mark: None,
};

fn key(number: u64) -> Key {
    Key::new(Bytes::from(format!("key:{number:012}"))).expect("a key of 16 bytes")
}

fn set(number: u64) -> Write {
    Write::Store(command::Store {
        mode: StoreMode::Set,
        key: key(number),
        flags: 0,
        exptime: Exptime(0),
        value: Bytes::from_static(&[b'v'; 256]),
    })
}

fn get(number: u64) -> Read {
    Read::Get {
        keys: [key(number)].into_iter().collect(),
    }
}

/// Numbers of items in no order of memory.
fn scattered(items: u64) -> impl Iterator<Item = u64> {
    (0..items.min(COMMANDS_MAX)).map(move |number| number.wrapping_mul(618_033_989) % items)
}

/// A store with so many items, and the index of the next entry.
fn filled(items: u64) -> (Store, u64) {
    let mut store = Store::new(7);
    for number in 0..items {
        store.enter(number + 1, &PREAMBLE);
        assert_eq!(store.apply(0, &set(number)), Reply::Stored);
    }
    (store, items + 1)
}

fn commands(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store");
    for items in ITEMS {
        let (mut store, mut index) = filled(items);
        let sets: Vec<Write> = scattered(items).map(set).collect();
        let mut next = sets.iter().cycle();
        group.bench_function(format!("set among {items}"), |bencher| {
            bencher.iter(|| {
                let write = next.next().expect("they go round");
                store.enter(index, &PREAMBLE);
                index += 1;
                store.apply(0, write)
            });
        });
        let gets: Vec<Read> = scattered(items).map(get).collect();
        let mut next = gets.iter().cycle();
        group.bench_function(format!("get among {items}"), |bencher| {
            bencher.iter(|| store.read(next.next().expect("they go round")));
        });
    }
    group.finish();
}

criterion_group!(benches, commands);
criterion_main!(benches);
