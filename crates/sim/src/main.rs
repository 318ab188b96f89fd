//! `quorate-sim`: runs seeds, replays one, shortens a failure.

#[cfg(feature = "mutants")]
mod built_tests;
#[cfg(feature = "mutants")]
mod hunt;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use quorate_sim::{Coverage, Failure, Fault, Run, run_all};

/// Runs simulated clusters under faults.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs many seeds; the first failure is shortened and ends it.
    Run {
        /// How many seeds.
        #[arg(long, default_value_t = 2000)]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Simulated milliseconds with faults, in each run.
        #[arg(long, default_value_t = 20_000)]
        ms: u64,
        #[arg(long, default_value_t = 2)]
        threads: usize,
        /// Go on after a failure.
        #[arg(long)]
        keep_going: bool,
    },
    /// Runs seeds with each known mistake in the code, until one of them shows it.
    #[cfg(feature = "mutants")]
    Mutants {
        /// How many seeds are tried for each.
        #[arg(long, default_value_t = 300)]
        seeds: u64,
        /// Simulated milliseconds with faults, in each run.
        #[arg(long, default_value_t = 10_000)]
        ms: u64,
        #[arg(long, default_value_t = 2)]
        threads: usize,
        /// These alone.
        only: Vec<mutants::Mutant>,
    },
    /// Runs one seed.
    Replay {
        seed: u64,
        #[arg(long, default_value_t = 20_000)]
        ms: u64,
        /// Leaves a fault out.
        #[arg(long, value_parser = fault)]
        without: Vec<Fault>,
        /// Puts a known mistake into the code.
        #[cfg(feature = "mutants")]
        #[arg(long)]
        mutant: Option<mutants::Mutant>,
        /// Prints everything that happens.
        #[arg(long)]
        trace: bool,
        /// Shortens a failure.
        #[arg(long)]
        shorten: bool,
    },
}

fn fault(name: &str) -> Result<Fault, String> {
    Fault::named(name).ok_or_else(|| {
        let names: Vec<String> = Fault::ALL.iter().map(|fault| fault.name()).collect();
        format!("there are {}", names.join(", "))
    })
}

fn main() -> ExitCode {
    if cfg!(panic = "abort") {
        eprintln!("a failed run can't be caught in this build: use `cargo run --profile sim`");
        return ExitCode::from(2);
    }
    match Arguments::parse().command {
        Command::Run {
            seeds,
            from,
            ms,
            threads,
            keep_going,
        } => run(from..from + seeds, ms, threads, keep_going),
        Command::Replay {
            seed,
            ms,
            without,
            #[cfg(feature = "mutants")]
            mutant,
            trace,
            shorten,
        } => {
            #[cfg(not(feature = "mutants"))]
            let mutant = None;
            let run = Run {
                seed,
                faulty_ms: ms,
                without: without.into_iter().collect::<BTreeSet<Fault>>(),
                mutant,
            };
            replay(&run, trace, shorten)
        }
        #[cfg(feature = "mutants")]
        Command::Mutants {
            seeds,
            ms,
            threads,
            only,
        } => hunt::hunt(seeds, ms, threads, &only),
    }
}

fn run(seeds: std::ops::Range<u64>, ms: u64, threads: usize, keep_going: bool) -> ExitCode {
    let began = Instant::now();
    let total = seeds.end - seeds.start;
    let mut coverage = Coverage::default();
    let mut failures: Vec<Failure> = Vec::new();
    let mut runs = 0;
    let mut told = Instant::now();
    run_all(seeds, threads, ms, |_, result| {
        runs += 1;
        match result {
            Ok(finished) => coverage.add(&finished.coverage),
            Err(failure) => {
                println!("{failure}");
                failures.push(failure);
            }
        }
        if told.elapsed().as_secs() >= 10 {
            told = Instant::now();
            println!("{runs} of {total} seeds in {} s", began.elapsed().as_secs());
        }
        keep_going || failures.is_empty()
    });
    print!("{coverage}");
    println!(
        "{runs} seeds, {} failures, {} s",
        failures.len(),
        began.elapsed().as_secs()
    );
    let gaps = coverage.gaps();
    if let Some(failure) = failures.first() {
        println!("shortened: {}", failure.shortened());
        return ExitCode::FAILURE;
    }
    if !gaps.is_empty() {
        println!("never reached: {}", gaps.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn replay(run: &Run, trace: bool, shorten: bool) -> ExitCode {
    match run.go(trace) {
        Ok(finished) => {
            print!("{}", finished.coverage);
            println!("no failure, digest {:016x}", finished.digest);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            if shorten {
                println!("shortened: {}", failure.shortened());
            }
            ExitCode::FAILURE
        }
    }
}
