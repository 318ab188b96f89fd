//! A little of what `quorate-sim run` does at length.

use std::collections::BTreeSet;

use quorate_sim::{Coverage, Fault, Finished, Run, run_all};

fn run(seed: u64, faulty_ms: u64) -> Finished {
    let run = Run {
        seed,
        faulty_ms,
        without: BTreeSet::new(),
        mutant: None,
    };
    run.go(false).unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let runs: Vec<Finished> = (0..6).map(|seed| run(seed, 2000)).collect();
    for (seed, first) in (0..).zip(&runs) {
        assert_eq!(&run(seed, 2000), first, "seed {seed}");
    }
    let digests: BTreeSet<u64> = runs.iter().map(|run| run.digest).collect();
    assert_eq!(digests.len(), runs.len(), "seeds differ");
}

#[test]
fn clusters_hold_under_faults() {
    let mut coverage = Coverage::default();
    let mut failures = Vec::new();
    run_all(0..40, 2, 3000, |_, result| {
        match result {
            Ok(finished) => coverage.add(&finished.coverage),
            Err(failure) => failures.push(failure.to_string()),
        }
        true
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(coverage.done > 1000, "too little was done:\n{coverage}");
    assert!(coverage.elections > 20, "too few elections:\n{coverage}");
}

#[test]
fn every_fault_is_known_by_its_name() {
    for fault in Fault::ALL {
        assert_eq!(Fault::named(&fault.name()), Some(fault));
    }
    assert_eq!(Fault::named("no-such-fault"), None);
}
