//! What a snapshot costs: run by hand on a machine that does nothing else,
//! `cargo run --release -p quorate-store --example snapshot`, with the number of items (1,000,000
//! unless said).
#![allow(
    clippy::disallowed_methods,
    reason = "this measures, which no test and no library does"
)]

use std::convert::Infallible;
use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use command::{Exptime, Key, LogTime, Preamble, StoreMode, Write};
use quorate_store::{Loader, Store};

const PIECE_BYTES: usize = 128 * 1024;

/// Commands of one entry right after a freeze.
const ENTRIES: [u64; 5] = [1, 10, 100, 1000, 8000];

fn main() -> Result<(), Box<dyn Error>> {
    let items = match std::env::args().nth(1) {
        Some(items) => items.parse()?,
        None => 1_000_000,
    };
    for exptime in [0, 1_000_000] {
        println!("{items} items of 16 + 100 bytes, exptime {exptime}");
        measure(items, exptime)?;
    }
    Ok(())
}

fn measure(items: u64, exptime: i32) -> Result<(), Box<dyn Error>> {
    let mut store = Store::new(7);
    let mut index = 0;
    let took = timed(|| {
        for number in 0..items {
            if number % 1000 == 0 {
                enter(&mut store, &mut index);
            }
            let key = scattered(number, items);
            store.apply((number % 1000) as u16, &set(key, exptime));
        }
    });
    println!("  set                    {:8.1} ns each", each(took, items));

    writes_after_freeze(&mut store, &mut index, items, exptime);

    let mut bytes = Vec::new();
    let frozen = store.freeze();
    for _ in 0..3 {
        bytes.clear();
        let took = timed(|| {
            let mut pieces = 0;
            let Ok(()) = frozen.write_out(PIECE_BYTES, &mut |piece| {
                pieces += black_box(piece.len());
                Ok::<(), Infallible>(())
            });
        });
        println!("  write out              {:8.1} ms", ms(took));
    }
    let Ok(()) = frozen.write_out(PIECE_BYTES, &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok::<(), Infallible>(())
    });
    println!(
        "  bytes                  {:8.1} MB",
        bytes.len() as f64 / 1e6
    );
    let took = timed(|| drop(frozen));
    println!("  drop of the frozen     {:8.3} ms", ms(took));
    let took = timed(|| {
        black_box(store.state_hash());
    });
    println!("  state hash             {:8.1} ms", ms(took));
    let took = timed(|| drop(store));
    println!("  drop of the store      {:8.1} ms", ms(took));

    for seed in 0..3 {
        let mut loader = Loader::new(seed);
        let begun = Instant::now();
        for piece in bytes.chunks(PIECE_BYTES) {
            loader.push(piece)?;
        }
        let pushed = begun.elapsed();
        let loaded = loader.finish()?;
        println!(
            "  load                   {:8.1} ms, of which finish {:.1} ms",
            ms(begun.elapsed()),
            ms(begun.elapsed() - pushed)
        );
        drop(loaded);
    }
    Ok(())
}

/// What an entry takes that comes right after a freeze, and the same without one: the median of a
/// few.
fn writes_after_freeze(store: &mut Store, index: &mut u64, items: u64, exptime: i32) {
    for commands in ENTRIES {
        let (mut freezes, mut withs, mut withouts) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..9 {
            let writes: Vec<Write> = (0..commands)
                .map(|number| set(scattered(number * 7919 + round * 104_729, items), exptime))
                .collect();
            let mut frozen = None;
            freezes.push(timed(|| frozen = Some(store.freeze())));
            withs.push(entry(store, index, &writes));
            drop(frozen);
            withouts.push(entry(store, index, &writes));
        }
        println!(
            "  {commands:4} sets after a freeze  {:8.3} ms; without {:.3} ms; freeze {:.4} ms",
            ms(median(withs)),
            ms(median(withouts)),
            ms(median(freezes))
        );
    }
    let mut worsts = Vec::new();
    for _ in 0..9 {
        let (frozen, mut worst) = (store.freeze(), Duration::ZERO);
        for number in 0..1000 {
            enter(store, index);
            let write = set(scattered(number * 7919, items), exptime);
            worst = worst.max(timed(|| {
                black_box(store.apply(0, &write));
            }));
        }
        drop(frozen);
        worsts.push(worst);
    }
    println!("  worst of 1000 after one {:7.3} ms", ms(median(worsts)));
}

fn entry(store: &mut Store, index: &mut u64, writes: &[Write]) -> Duration {
    enter(store, index);
    timed(|| {
        for (place, write) in (0..).zip(writes) {
            black_box(store.apply(place, write));
        }
    })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn enter(store: &mut Store, index: &mut u64) {
    *index += 1;
    let preamble = Preamble {
        log_time: LogTime(1_700_000_000_000),
        item_bytes_max: 1 << 20,
        memory_limit_bytes: 0,
        mark: None,
    };
    store.enter(*index, &preamble);
}

/// A key in no order of memory.
fn scattered(number: u64, items: u64) -> u64 {
    number.wrapping_mul(618_033_989) % items
}

fn set(number: u64, exptime: i32) -> Write {
    let key = Bytes::from(format!("key:{number:012}"));
    let exptime = match exptime {
        0 => 0,
        most => 1 + (number % most as u64) as i32,
    };
    Write::Store(command::Store {
        mode: StoreMode::Set,
        key: Key::new(key).expect("a key of 16 bytes"),
        flags: 0,
        exptime: Exptime(exptime),
        value: Bytes::from_static(&[b'v'; 100]),
    })
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

fn each(took: Duration, count: u64) -> f64 {
    took.as_secs_f64() * 1e9 / count as f64
}
