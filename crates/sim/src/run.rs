//! Runs of many seeds, and what is made of a failure: its seed, its time, and a shorter run that
//! fails in the same way.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use mutants::Mutant;

use crate::options::{Fault, Options};
use crate::world::{Finished, MS, World};

/// Of so many seeds one is run twice, to see that it is the same run.
const TWICE_INTERVAL: u64 = 100;

/// What is asked of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub seed: u64,
    /// Simulated time with faults.
    pub faulty_ms: u64,
    /// Faults that are left out though the seed draws them.
    pub without: BTreeSet<Fault>,
    /// The known mistake that is in the code. Only a build with the feature `mutants` has any.
    pub mutant: Option<Mutant>,
}

/// A run that showed a bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub run: Run,
    /// The simulated time of the failure.
    pub at_ms: u64,
    /// What did not hold.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = Options::draw(self.run.seed, self.run.faulty_ms, &self.run.without);
        write!(
            f,
            "seed {} fails at {} ms: {}\n  {options}\n  quorate-sim replay {} --ms {}",
            self.run.seed, self.at_ms, self.what, self.run.seed, self.run.faulty_ms,
        )?;
        for fault in &self.run.without {
            write!(f, " --without {}", fault.name())?;
        }
        if let Some(mutant) = self.run.mutant {
            write!(f, " --mutant {mutant}")?;
        }
        Ok(())
    }
}

thread_local! {
    /// The message of the last panic of this thread.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

static HOOK: Once = Once::new();

/// Keeps the message of a panic in a run, in place of printing it.
fn keep_panics() {
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            PANIC.with(|panic| *panic.borrow_mut() = info.to_string());
        }));
    });
}

impl Run {
    /// Runs it, and if it holds once more: it must be the same.
    ///
    /// # Errors
    /// What did not hold.
    pub fn go_twice(&self) -> Result<Finished, Failure> {
        let first = self.go(false)?;
        let second = self.go(false)?;
        if first == second {
            return Ok(first);
        }
        Err(Failure {
            run: self.clone(),
            at_ms: self.faulty_ms,
            what: format!(
                "the same seed gave two runs, {:016x} and {:016x}",
                first.digest, second.digest
            ),
        })
    }

    /// Runs it.
    ///
    /// # Errors
    /// What did not hold.
    pub fn go(&self, traces: bool) -> Result<Finished, Failure> {
        keep_panics();
        #[cfg(feature = "mutants")]
        mutants::switch_on(self.mutant);
        let clock = Arc::new(AtomicU64::new(0));
        let options = Options::draw(self.seed, self.faulty_ms, &self.without);
        if traces {
            println!("{options}");
        }
        let result = catch_unwind(AssertUnwindSafe(|| {
            #[cfg_attr(not(feature = "mutants"), allow(unused_mut, reason = "it has none"))]
            let mut world = World::new(options, traces, Arc::clone(&clock));
            #[cfg(feature = "mutants")]
            {
                world.mutant = self.mutant;
            }
            world.run()
        }));
        result.map_err(|_| Failure {
            run: self.clone(),
            at_ms: clock.load(Ordering::Relaxed) / MS,
            what: PANIC.with(|panic| panic.borrow().clone()),
        })
    }
}

impl Failure {
    /// The shortest run of the same seed with the fewest faults that still fails at the same place
    /// in the code. Without a fault everything else happens otherwise, too, so what is left of them
    /// is not all needed.
    #[must_use]
    pub fn shortened(&self) -> Failure {
        let mut best = self.clone();
        best.cut();
        for fault in Fault::ALL {
            let mut run = best.run.clone();
            let options = Options::draw(run.seed, run.faulty_ms, &run.without);
            if options.has(fault) && run.without.insert(fault) {
                best.replace_by(&run);
            }
        }
        best.cut();
        best
    }

    /// Takes away time with faults: what comes behind the failure, then halves.
    fn cut(&mut self) {
        let mut ms = self.run.faulty_ms.min(self.at_ms + 1);
        while ms >= 100 {
            let run = Run {
                faulty_ms: ms,
                ..self.run.clone()
            };
            self.replace_by(&run);
            ms /= 2;
        }
    }

    /// Takes the failure of this run, if it is the same.
    fn replace_by(&mut self, run: &Run) {
        let place = |failure: &Failure| failure.what.lines().next().map(str::to_owned);
        if let Err(failure) = run.go(false)
            && place(&failure) == place(self)
        {
            *self = failure;
        }
    }
}

/// Runs seeds on several threads, each with what `each` makes of it, until `each` says false.
pub fn run_all(
    seeds: std::ops::Range<u64>,
    threads: usize,
    faulty_ms: u64,
    each: impl FnMut(u64, Result<Finished, Failure>) -> bool + Send,
) {
    let next = AtomicU64::new(seeds.start);
    let each = Mutex::new(each);
    let end = seeds.end;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let run = Run {
                        seed,
                        faulty_ms,
                        without: BTreeSet::new(),
                        mutant: None,
                    };
                    let result = match seed.is_multiple_of(TWICE_INTERVAL) {
                        true => run.go_twice(),
                        false => run.go(false),
                    };
                    let mut each = each.lock().unwrap_or_else(PoisonError::into_inner);
                    if !each(seed, result) {
                        next.store(end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}
