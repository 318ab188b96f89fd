//! The hunt for mutants: each known mistake must be shown by a seed that the correct code survives.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use mutants::Mutant;
use quorate_sim::{Failure, Run};

/// What became of one mutant.
enum Fate {
    Killed(Failure),
    /// No seed shows it.
    Survives,
    /// The seed that shows it fails without it as well.
    Wrong(Failure),
}

/// Tries seeds on each mutant; fails unless each is killed, or is one that a test kills.
pub(crate) fn hunt(seeds: u64, ms: u64, threads: usize, only: &[Mutant]) -> ExitCode {
    let began = Instant::now();
    let hunted = if only.is_empty() { Mutant::ALL } else { only };
    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(mutant) = hunted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let began = Instant::now();
                    let fate = fate(*mutant, seeds, ms);
                    let took = began.elapsed().as_secs_f64();
                    if !tell(*mutant, &fate, seeds, took)
                        && let Ok(mut survivors) = survivors.lock()
                    {
                        survivors.push(*mutant);
                    }
                }
            });
        }
    });
    let survivors = survivors.into_inner().unwrap_or_default();
    println!(
        "{} mutants, {} alive, {} s",
        hunted.len(),
        survivors.len(),
        began.elapsed().as_secs()
    );
    match survivors.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn fate(mutant: Mutant, seeds: u64, ms: u64) -> Fate {
    for seed in 0..seeds {
        let mut run = Run {
            seed,
            faulty_ms: ms,
            without: BTreeSet::new(),
            mutant: Some(mutant),
        };
        if let Err(failure) = run.go(false) {
            run.mutant = None;
            return match run.go(false) {
                Ok(_) => Fate::Killed(failure),
                Err(failure) => Fate::Wrong(failure),
            };
        }
    }
    Fate::Survives
}

fn tell(mutant: Mutant, fate: &Fate, seeds: u64, took: f64) -> bool {
    match fate {
        Fate::Killed(failure) => {
            let what = failure.what.lines().nth(1).unwrap_or(&failure.what);
            let what: String = what.chars().take(120).collect();
            println!(
                "{mutant:<28} seed {:<4} at {:>6} ms, {took:>5.1} s: {what}",
                failure.run.seed, failure.at_ms
            );
            true
        }
        Fate::Survives => {
            println!("{mutant:<28} SURVIVES {seeds} seeds, {took:.1} s");
            false
        }
        Fate::Wrong(failure) => {
            println!("{mutant:<28} the correct code fails too: {failure}");
            false
        }
    }
}
