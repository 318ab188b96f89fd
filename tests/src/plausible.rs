//! A history as the search takes it: without what tells nothing, and with what is the same said to
//! be the same.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};

use crate::history::{Action, Operation};
use crate::register::number;

/// An operation that may have taken effect.
#[derive(Debug)]
pub(crate) struct Plausible<'a> {
    pub(crate) operation: &'a Operation,
    /// What it does; a value that nobody was shown may stand for another such.
    pub(crate) action: Action,
    /// Operations of unknown outcome that have the same class can take each other's place.
    pub(crate) class: usize,
    /// The operation before it in its pipeline.
    pub(crate) follows: Option<usize>,
}

impl Plausible<'_> {
    /// Whether it does the same whatever those of unknown outcome before it in its pipeline have
    /// done, so that they can take effect together with it. Of the others it is not asked that
    /// those before them have taken effect: what two configurations can do would depend on more
    /// than what each has used, for a rare gain.
    pub(crate) fn brings_earlier(&self) -> bool {
        let is_unknown = self.operation.returned.is_none();
        is_unknown && matches!(self.action, Action::Set(_) | Action::Delete)
    }
}

/// What may have taken effect, in the order of invocation, and what was never shown of it.
pub(crate) fn prepare(operations: &[Operation]) -> (Vec<Plausible<'_>>, Unseen) {
    let mut kept: Vec<&Operation> = operations
        .iter()
        .filter(|operation| operation.writes() || operation.returned.is_some())
        .collect();
    kept.sort_by_key(|operation| operation.invoked);
    let follows = order_in_pipelines(&kept);
    let leads: BTreeSet<usize> = follows.iter().filter_map(|follows| *follows).collect();
    let unseen = Unseen::new(&kept);
    let mut classes = HashMap::new();
    let mut prepared = Vec::new();
    for (number, operation) in kept.into_iter().enumerate() {
        let action = match operation.returned {
            Some(_) => operation.action.clone(),
            None => unseen.without_its_value(&operation.action),
        };
        let is_alone = follows[number].is_none() && !leads.contains(&number);
        let class = match is_alone {
            true => *classes.entry(action.clone()).or_insert(number),
            false => number,
        };
        prepared.push(Plausible {
            operation,
            action,
            class,
            follows: follows[number],
        });
    }
    (prepared, unseen)
}

/// For each operation the one before it in its pipeline.
fn order_in_pipelines(operations: &[&Operation]) -> Vec<Option<usize>> {
    let mut last_of = HashMap::new();
    let numbered = operations.iter().enumerate();
    numbered
        .map(|(number, operation)| last_of.insert(operation.pipeline, number))
        .collect()
}

/// Values that no answer shows, be it after increments. Nothing that is answered tells one such
/// number from another, nor one such text.
#[derive(Debug)]
pub(crate) struct Unseen {
    shown: BTreeSet<String>,
    shown_numbers: BTreeSet<u64>,
    /// What all increments together add; `None` if that is more than there are numbers.
    increments: Option<u64>,
    /// What stands for all such numbers, and for all such texts.
    number: OnceCell<String>,
    text: OnceCell<String>,
}

impl Unseen {
    fn new(operations: &[&Operation]) -> Unseen {
        let answers = operations.iter().filter_map(|operation| operation.answer());
        let shown: BTreeSet<String> = answers.filter_map(|answer| answer.shown()).collect();
        let mut deltas = operations.iter().map(|operation| match operation.action {
            Action::Incr(delta) => delta,
            _ => 0,
        });
        Unseen {
            shown_numbers: shown.iter().filter_map(|value| number(value)).collect(),
            shown,
            increments: deltas.try_fold(0_u64, u64::checked_add),
            number: OnceCell::new(),
            text: OnceCell::new(),
        }
    }

    /// `value`, or what stands for it and all others that nobody was or will be shown.
    pub(crate) fn stand_in<'a>(&'a self, value: &'a str) -> &'a str {
        let number = number(value);
        let is_shown = match number {
            // Where it wraps around, everything counts as shown.
            Some(number) => match self.increments.and_then(|sum| number.checked_add(sum)) {
                Some(largest) => self.shown_numbers.range(number..=largest).next().is_some(),
                None => true,
            },
            None => self.shown.contains(value),
        };
        let stand_in = match number {
            _ if is_shown => return value,
            Some(_) => &self.number,
            None => &self.text,
        };
        stand_in.get_or_init(|| value.to_owned())
    }

    /// Whether `value` stands for others.
    pub(crate) fn is_stand_in(&self, value: &str) -> bool {
        [&self.number, &self.text]
            .map(OnceCell::get)
            .iter()
            .any(|known| known.is_some_and(|known| known == value))
    }

    /// The same action with the one value that stands for all of its kind that were never shown.
    fn without_its_value(&self, action: &Action) -> Action {
        match action {
            Action::Set(value) => Action::Set(self.stand_in(value).to_owned()),
            Action::Cas { value, unique } => Action::Cas {
                value: self.stand_in(value).to_owned(),
                unique: *unique,
            },
            other => other.clone(),
        }
    }
}
