//! Whether a key's history is linearizable: whether its operations can have taken effect one after
//! the other, each between its invocation and its return, so that every answer is right.
//!
//! The search is that of Wing and Gong with Lowe's memoization, just in time: it goes through the
//! history from return to return and keeps every *configuration* that is still possible, which is
//! what the key holds and which operations under way have taken effect. When an operation returns,
//! each configuration in which it has not taken effect is continued, in every way, by operations
//! under way up to it and no further, since whatever would come after it can as well come later.
//! If no configuration is left, the history is wrong, and what has been invoked by then is the
//! smallest prefix that shows it.
//!
//! Operations of unknown outcome are under way for ever. What would grow with every subset of them
//! is held down so:
//!
//! 1. Of two configurations that differ only in that one has used more of them, the other can do
//!    all that this one can: only the smaller is kept.
//! 2. Two that do the same are used in the order of their invocation.
//! 3. Values that nobody was ever shown are not told apart.
//! 4. One that changes nothing is not used.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::history::Operation;
use crate::plausible::{Plausible, Unseen, prepare};
use crate::register::Register;

/// How much a failure shows of what came before the operation that cannot be explained.
const ROWS_SHOWN: usize = 30;

/// What can be said of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// No order explains all answers. The text says which answer was the first that none explains,
    /// what the key could hold until then, and what was done before, line by line.
    NotLinearizable(String),
    /// Neither was found in as many steps as were allowed.
    TooHard,
}

/// Judges the operations on one key, which is not there at first, in `steps_max` steps at most.
///
/// Operations of one pipeline must be in the order in which they were sent; otherwise any order
/// will do.
///
/// # Panics
/// When an operation returns before it is invoked.
#[must_use]
pub fn check(operations: &[Operation], steps_max: u64) -> Verdict {
    for operation in operations {
        let in_order = operation
            .returned_at()
            .is_none_or(|at| operation.invoked <= at);
        assert!(in_order, "it returned before it was invoked: {operation}");
    }
    let (operations, unseen) = prepare(operations);
    let mut search = Search::new(&operations, &unseen, steps_max);
    for event in events(&operations) {
        match event {
            Event::Invoked(operation) => search.invoked(operation),
            Event::Returned(operation) => match search.returned(operation) {
                Ok(()) if search.configurations.is_empty() => {
                    return Verdict::NotLinearizable(search.failure(operation));
                }
                Ok(()) => {}
                Err(OutOfSteps) => return Verdict::TooHard,
            },
        }
    }
    Verdict::Linearizable
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Invoked(usize),
    Returned(usize),
}

/// All that happens, in order. What happens at one instant overlaps.
fn events(operations: &[Plausible]) -> Vec<Event> {
    let mut events = Vec::new();
    for (number, plausible) in operations.iter().enumerate() {
        let operation = plausible.operation;
        events.push((operation.invoked, 0, Event::Invoked(number)));
        if let Some(at) = operation.returned_at() {
            events.push((at, 1, Event::Returned(number)));
        }
    }
    events.sort_by_key(|(at, kind, _)| (*at, *kind));
    events.into_iter().map(|(_, _, event)| event).collect()
}

/// There have been as many steps as were allowed.
struct OutOfSteps;

/// Numbers of operations.
type Set = BTreeSet<usize>;

/// One way in which everything up to now can have happened.
#[derive(Clone, Debug)]
struct Configuration {
    register: Register,
    /// Operations that have taken effect and will return.
    early: Set,
    /// Operations that have taken effect and never return, but for those that have taken effect
    /// in every configuration.
    used: Set,
}

/// Configurations of which none can do all that another can.
#[derive(Debug, Default)]
struct Minimal(BTreeMap<(Register, Set), Vec<Set>>);

impl Minimal {
    /// `false` if another can do all that this one can.
    fn add(&mut self, configuration: &Configuration) -> bool {
        let key = (configuration.register.clone(), configuration.early.clone());
        let others = self.0.entry(key).or_default();
        if others
            .iter()
            .any(|other| other.is_subset(&configuration.used))
        {
            return false;
        }
        others.retain(|other| !configuration.used.is_subset(other));
        others.push(configuration.used.clone());
        true
    }

    fn into_configurations(self) -> Vec<Configuration> {
        let mut configurations = Vec::new();
        for ((register, early), all_used) in self.0 {
            for used in all_used {
                configurations.push(Configuration {
                    register: register.clone(),
                    early: early.clone(),
                    used,
                });
            }
        }
        configurations
    }
}

struct Search<'a> {
    operations: &'a [Plausible<'a>],
    unseen: &'a Unseen,
    /// What is possible after the last return.
    configurations: Vec<Configuration>,
    /// What was possible before it.
    before: Vec<Configuration>,
    /// Invoked, and to return.
    open: Vec<usize>,
    /// Invoked, and never to return, but for those that have surely taken effect. In the order of
    /// their invocation.
    unknown: Vec<usize>,
    /// Has taken effect in every configuration.
    settled: Vec<bool>,
    steps_left: u64,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Plausible<'a>], unseen: &'a Unseen, steps_max: u64) -> Search<'a> {
        Search {
            operations,
            unseen,
            configurations: vec![Configuration {
                register: Register::default(),
                early: Set::new(),
                used: Set::new(),
            }],
            before: Vec::new(),
            open: Vec::new(),
            unknown: Vec::new(),
            settled: vec![false; operations.len()],
            steps_left: steps_max,
        }
    }

    fn invoked(&mut self, operation: usize) {
        match self.operations[operation].operation.returned {
            Some(_) => self.open.push(operation),
            None => self.unknown.push(operation),
        }
    }

    /// Keeps what is possible now that `target` must have taken effect: nothing, if nothing is.
    fn returned(&mut self, target: usize) -> Result<(), OutOfSteps> {
        let mut found = Minimal::default();
        let mut seen = Minimal::default();
        // Those that have used fewer first, so that the others need not be looked at.
        let mut waiting: BTreeMap<usize, Vec<Configuration>> = BTreeMap::new();
        for mut configuration in self.configurations.iter().cloned() {
            if configuration.early.remove(&target) {
                found.add(&configuration);
            } else {
                let level = waiting.entry(configuration.used.len()).or_default();
                level.push(configuration);
            }
        }
        while let Some(mut level) = waiting.first_entry() {
            let Some(configuration) = level.get_mut().pop() else {
                level.remove();
                continue;
            };
            if !seen.add(&configuration) {
                continue;
            }
            for (operation, mut next) in self.steps(&configuration) {
                self.steps_left = self.steps_left.checked_sub(1).ok_or(OutOfSteps)?;
                if operation == target {
                    next.early.remove(&target);
                    found.add(&next);
                } else {
                    waiting.entry(next.used.len()).or_default().push(next);
                }
            }
        }
        self.before = std::mem::replace(&mut self.configurations, found.into_configurations());
        self.settled[target] = true;
        self.open.retain(|open| *open != target);
        self.settle();
        Ok(())
    }

    /// What can take effect next, and what is then.
    fn steps(&self, configuration: &Configuration) -> Vec<(usize, Configuration)> {
        let mut steps = Vec::new();
        for operation in &self.open {
            if !configuration.early.contains(operation)
                && let Some(next) = self.step(configuration, *operation)
            {
                steps.push((*operation, next));
            }
        }
        let mut tried = BTreeSet::new();
        for operation in &self.unknown {
            if !configuration.used.contains(operation)
                && tried.insert(self.operations[*operation].class)
                && let Some(next) = self.step(configuration, *operation)
                && next.register != configuration.register
            {
                steps.push((*operation, next));
            }
        }
        steps
    }

    /// What is when `operation` takes effect next, if it can, and with it whatever of unknown
    /// outcome must have done so before.
    fn step(&self, configuration: &Configuration, operation: usize) -> Option<Configuration> {
        let plausible = &self.operations[operation];
        let answer = plausible.operation.answer();
        let register = configuration.register.after(&plausible.action, answer)?;
        let mut next = Configuration {
            register: register.without_unseen(self.unseen),
            ..configuration.clone()
        };
        match answer {
            Some(_) => next.early.insert(operation),
            None => next.used.insert(operation),
        };
        let mut earlier = plausible.follows;
        while let Some(before) = earlier {
            let before_it = &self.operations[before];
            let is_done = self.settled[before] || configuration.early.contains(&before);
            if before_it.operation.returned.is_some() {
                return is_done.then_some(next);
            }
            if !is_done && plausible.brings_earlier() {
                next.used.insert(before);
            }
            earlier = before_it.follows;
        }
        Some(next)
    }

    /// Forgets the operations of unknown outcome that have taken effect in all configurations.
    fn settle(&mut self) {
        let Some(first) = self.configurations.first() else {
            return;
        };
        let mut everywhere = first.used.clone();
        for other in &self.configurations {
            everywhere.retain(|operation| other.used.contains(operation));
        }
        for configuration in &mut self.configurations {
            configuration.used.retain(|used| !everywhere.contains(used));
        }
        self.unknown.retain(|unknown| !everywhere.contains(unknown));
        for operation in everywhere {
            self.settled[operation] = true;
        }
    }

    /// Why no configuration is left after the return of `target`.
    fn failure(&self, target: usize) -> String {
        let operation = self.operations[target].operation;
        let end = operation.returned_at().unwrap_or(Duration::MAX);
        let mut prefix: Vec<&Operation> = self.operations.iter().map(|p| p.operation).collect();
        prefix.retain(|other| other.invoked <= end && *other != operation);
        prefix.sort_by_key(|other| other.returned_at().unwrap_or(other.invoked));
        let shown = operation.answer().and_then(|answer| answer.shown());
        let of_interest = |other: &Operation| {
            let stored = other.action.stored();
            let tells = other.answer().and_then(|answer| answer.shown());
            let is_source = shown.is_some() && (stored == shown.as_deref() || tells == shown);
            other.writes() && (is_source || other.returned.is_none())
        };
        // Reads of one value in a row are one line.
        let rows = prefix.chunk_by(|one, next| {
            let read = |other: &Operation| match other.writes() {
                true => None,
                false => Some(other.answer()?.shown()),
            };
            read(one).is_some() && read(one) == read(next)
        });
        let rows: Vec<&[&Operation]> = rows.collect();
        let mut lines = Vec::new();
        let recent = rows.len().saturating_sub(ROWS_SHOWN);
        let mut left_out = 0;
        for (number, row) in rows.into_iter().enumerate() {
            if number < recent && !of_interest(row[0]) {
                left_out += row.len();
                continue;
            }
            if left_out > 0 {
                lines.push(format!("  ... {left_out} operations"));
                left_out = 0;
            }
            lines.push(format!("  {}", row[0]));
            if let [_, between @ .., last] = row {
                if !between.is_empty() {
                    lines.push(format!("  ... {} such reads up to", between.len()));
                }
                lines.push(format!("  {last}"));
            }
        }
        let possible: BTreeSet<String> = self
            .before
            .iter()
            .map(|before| before.register.describe(self.unseen))
            .collect();
        let possible: Vec<String> = possible.into_iter().collect();
        format!(
            "no order of the operations explains the last answer; times in seconds, by return\n\
             {}\n> {operation}\nat the return before, the key could hold: {}",
            lines.join("\n"),
            possible.join("; or ")
        )
    }
}
