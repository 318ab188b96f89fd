//! The checker of linearizability itself: histories that are right, histories that are wrong, and
//! many of either that chance has made.

use std::time::Duration;

use quorate_tests::{Action, Answer, Operation, Returned, Verdict, check};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// Far more than any history here takes.
const STEPS_MAX: u64 = 5_000_000;

/// Histories of each kind that chance makes.
const SEEDS: u64 = 300;

#[test]
fn no_operation_at_all_is_right() {
    assert_right(&[]);
}

#[test]
fn operations_one_after_the_other_are_right() {
    assert_right(&[
        op(0, 1, get(), miss()),
        op(2, 3, set("5"), Answer::Stored),
        op(4, 5, get(), told("5", 10)),
        op(6, 7, cas("7", 10), Answer::Stored),
        op(8, 9, cas("8", 10), Answer::Exists),
        op(10, 11, Action::Incr(2), Answer::Number(9)),
        op(12, 13, get(), told("9", 20)),
        op(14, 15, Action::Delete, Answer::Deleted),
        op(16, 17, Action::Delete, Answer::NotFound),
        op(18, 19, Action::Incr(2), Answer::NotFound),
        op(20, 21, cas("8", 20), Answer::NotFound),
        op(22, 23, set("text"), Answer::Stored),
        op(24, 25, Action::Incr(2), Answer::NotANumber),
    ]);
}

#[test]
fn a_read_that_overlaps_a_write_may_see_either() {
    for seen in [hit("1"), hit("2")] {
        assert_right(&[
            op(0, 1, set("1"), Answer::Stored),
            op(2, 5, set("2"), Answer::Stored),
            op(3, 4, get(), seen),
        ]);
    }
}

#[test]
fn a_stale_read_is_wrong() {
    let text = assert_wrong(&[
        op(0, 1, set("1"), Answer::Stored),
        op(2, 3, set("2"), Answer::Stored),
        op(4, 5, get(), hit("1")),
        op(6, 7, get(), hit("2")),
    ]);
    assert!(text.contains("> "), "{text}");
    assert!(text.contains("VALUE 1"), "{text}");
    assert!(!text.contains("VALUE 2"), "not of the prefix: {text}");
    assert!(text.contains("could hold: 2, unique above 0"), "{text}");
}

#[test]
fn an_acknowledged_write_that_is_gone_is_wrong() {
    assert_wrong(&[op(0, 1, set("1"), Answer::Stored), op(2, 3, get(), miss())]);
    assert_wrong(&[
        op(0, 1, set("1"), Answer::Stored),
        op(2, 9, Action::Incr(1), Answer::Number(2)),
        op(3, 8, Action::Incr(1), Answer::Number(2)),
    ]);
}

#[test]
fn a_value_that_nobody_wrote_is_wrong() {
    assert_wrong(&[
        op(0, 1, set("1"), Answer::Stored),
        unknown(0, set("2")),
        op(2, 3, get(), hit("3")),
    ]);
}

#[test]
fn reads_that_go_back_and_forth_are_wrong() {
    let writes = [
        op(0, 1, set("1"), Answer::Stored),
        op(2, 20, set("2"), Answer::Stored),
    ];
    let read = |at, value| op(at, at + 1, get(), hit(value));
    let forth = [read(3, "1"), read(5, "2"), read(7, "2")];
    assert_right(&[&writes[..], &forth].concat());
    let back = [read(3, "1"), read(5, "2"), read(7, "1")];
    assert_wrong(&[&writes[..], &back].concat());
}

#[test]
fn an_unknown_write_may_take_effect_late_or_never_but_once() {
    let start = [
        op(0, 1, set("1"), Answer::Stored),
        unknown(2, set("2")),
        op(3, 4, get(), hit("1")),
    ];
    assert_right(&start);
    let late = [op(50, 51, get(), hit("2"))];
    assert_right(&[&start[..], &late].concat());
    let twice = [
        op(50, 51, get(), hit("2")),
        op(52, 53, set("3"), Answer::Stored),
        op(54, 55, get(), hit("2")),
    ];
    assert_wrong(&[&start[..], &twice].concat());
}

#[test]
fn an_unknown_write_does_not_take_effect_before_it_is_asked_for() {
    assert_wrong(&[op(0, 1, get(), hit("2")), unknown(2, set("2"))]);
}

#[test]
fn an_unknown_increment_that_is_applied_twice_is_wrong() {
    let start = [
        op(0, 1, set("10"), Answer::Stored),
        unknown(2, Action::Incr(1)),
    ];
    let then = |number| [op(5, 6, Action::Incr(1), Answer::Number(number))];
    assert_right(&[&start[..], &then(11)].concat());
    assert_right(&[&start[..], &then(12)].concat());
    assert_wrong(&[&start[..], &then(13)].concat());
}

#[test]
fn a_unique_is_won_once() {
    let start = [
        op(0, 1, set("1"), Answer::Stored),
        op(2, 3, get(), told("1", 7)),
        op(4, 9, cas("2", 7), Answer::Stored),
    ];
    let second = |answer| [op(5, 8, cas("3", 7), answer)];
    assert_right(&[&start[..], &second(Answer::Exists)].concat());
    assert_wrong(&[&start[..], &second(Answer::Stored)].concat());
}

#[test]
fn a_unique_belongs_to_one_item_and_grows() {
    let start = [
        op(0, 1, set("1"), Answer::Stored),
        op(2, 3, get(), told("1", 7)),
    ];
    assert_wrong(&[&start[..], &[op(4, 5, get(), told("1", 8))]].concat());
    for (unique, right) in [(8, true), (7, false), (6, false)] {
        let next = [
            op(4, 5, set("2"), Answer::Stored),
            op(6, 7, get(), told("2", unique)),
        ];
        let history = [&start[..], &next].concat();
        match right {
            true => assert_right(&history),
            false => drop(assert_wrong(&history)),
        }
    }
}

#[test]
fn a_pipeline_takes_effect_in_its_order() {
    let pipeline = |first, second| {
        [first, second].map(|operation| Operation {
            pipeline: 1_000,
            ..operation
        })
    };
    let read_own = |answer| pipeline(op(0, 8, set("1"), Answer::Stored), op(0, 9, get(), answer));
    assert_right(&read_own(hit("1")));
    assert_wrong(&read_own(miss()));
    // Both lost: the second did not come about without the first, nor before it.
    let lost = pipeline(unknown(0, set("1")), unknown(0, set("2")));
    for (first, second, right) in [("1", "2", true), ("2", "2", true), ("2", "1", false)] {
        let reads = [op(1, 2, get(), hit(first)), op(3, 4, get(), hit(second))];
        let history = [&lost[..], &reads].concat();
        match right {
            true => assert_right(&history),
            false => drop(assert_wrong(&history)),
        }
    }
}

#[test]
fn a_search_that_takes_too_long_says_so() {
    let history: Vec<Operation> = (0..30)
        .map(|at| op(at, 100, set("1"), Answer::Stored))
        .collect();
    assert_eq!(check(&history, 1_000), Verdict::TooHard);
}

#[test]
fn histories_that_happened_are_right_and_changed_answers_are_found() {
    let mut changed = 0;
    let mut found = 0;
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut history = happened(&mut random, 60, 0.1);
        let verdict = check(&history, STEPS_MAX);
        assert_eq!(verdict, Verdict::Linearizable, "seed {seed}");
        if change_an_answer(&mut random, &mut history) {
            changed += 1;
            found += u64::from(check(&history, STEPS_MAX) != Verdict::Linearizable);
        }
    }
    // Some changes are of no consequence: what overlaps may have happened otherwise.
    assert!(4 * found >= 3 * changed, "{found} of {changed}");
    assert!(changed >= SEEDS / 2, "{changed} of {SEEDS}");
}

#[test]
fn the_checker_agrees_with_trying_every_order() {
    let mut wrong = 0;
    for seed in 0..20 * SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut history = happened(&mut random, 7, 0.3);
        if random.random_bool(0.7) {
            change_an_answer(&mut random, &mut history);
        }
        let right = explain(&mut history.iter().collect(), &mut Vec::new());
        let verdict = check(&history, STEPS_MAX);
        assert_eq!(
            verdict == Verdict::Linearizable,
            right,
            "seed {seed}: {history:#?}: {verdict:?}"
        );
        wrong += u64::from(!right);
    }
    assert!(wrong > SEEDS && wrong < 19 * SEEDS, "{wrong}");
}

#[test]
fn thousands_of_operations_with_many_unknown_are_judged_at_once() {
    let mut random = StdRng::seed_from_u64(7);
    let mut history = happened(&mut random, 10_000, 0.02);
    assert_eq!(check(&history, STEPS_MAX), Verdict::Linearizable);
    // What nobody can explain by all that is unknown is found as fast.
    let last = history.len() - 1;
    let end = Duration::from_secs(3_600);
    history[last] = op(0, 1, get(), hit("never written"));
    history[last].invoked = end;
    history[last].returned = Some(Returned {
        at: end,
        answer: hit("never written"),
    });
    assert_wrong(&history);
}

#[track_caller]
fn assert_right(history: &[Operation]) {
    assert_eq!(check(history, STEPS_MAX), Verdict::Linearizable);
}

#[track_caller]
fn assert_wrong(history: &[Operation]) -> String {
    match check(history, STEPS_MAX) {
        Verdict::NotLinearizable(text) => text,
        verdict => panic!("{verdict:?}"),
    }
}

/// An operation between these milliseconds, in a pipeline of its own.
fn op(invoked: u64, returned: u64, action: Action, answer: Answer) -> Operation {
    Operation {
        returned: Some(Returned {
            at: Duration::from_millis(returned),
            answer,
        }),
        ..unknown(invoked, action)
    }
}

fn unknown(invoked: u64, action: Action) -> Operation {
    Operation {
        client: 0,
        pipeline: invoked,
        action,
        invoked: Duration::from_millis(invoked),
        returned: None,
    }
}

fn get() -> Action {
    Action::Get
}

fn set(value: &str) -> Action {
    Action::Set(value.to_owned())
}

fn cas(value: &str, unique: u64) -> Action {
    Action::Cas {
        value: value.to_owned(),
        unique,
    }
}

fn hit(value: &str) -> Answer {
    Answer::Hit {
        value: value.to_owned(),
        unique: None,
    }
}

fn told(value: &str, unique: u64) -> Answer {
    Answer::Hit {
        value: value.to_owned(),
        unique: Some(unique),
    }
}

fn miss() -> Answer {
    Answer::Miss
}

/// A history that truly happened, in this order, with each operation's time stretched at random so
/// that about four overlap, and this share of the answers lost.
fn happened(random: &mut StdRng, count: u64, lost: f64) -> Vec<Operation> {
    let mut item: Option<(u64, u64)> = None;
    let mut told_unique = 0;
    let mut history = Vec::new();
    for number in 1..=count {
        let value = number * 1_000_000;
        let (action, answer) = match random.random_range(0..10) {
            0..3 => (
                get(),
                item.map_or(miss(), |(value, _)| hit(&value.to_string())),
            ),
            3 => {
                told_unique = item.map_or(told_unique, |(_, unique)| unique);
                let hit = |(value, unique): (u64, u64)| told(&value.to_string(), unique);
                (get(), item.map_or(miss(), hit))
            }
            4..6 => {
                item = Some((value, number));
                (set(&value.to_string()), Answer::Stored)
            }
            6 => {
                let answer = match item {
                    None => Answer::NotFound,
                    Some((_, unique)) if unique == told_unique => Answer::Stored,
                    Some(_) => Answer::Exists,
                };
                if answer == Answer::Stored {
                    item = Some((value, number));
                }
                (cas(&value.to_string(), told_unique), answer)
            }
            7 => {
                let answer = item.map_or(Answer::NotFound, |_| Answer::Deleted);
                item = None;
                (Action::Delete, answer)
            }
            _ => {
                let delta = *[1, 7].choose(random).expect("there are two");
                item = item.map(|(value, _)| (value + delta, number));
                let answer = item.map_or(Answer::NotFound, |(value, _)| Answer::Number(value));
                (Action::Incr(delta), answer)
            }
        };
        let happened = 10 * number;
        let stretch = |random: &mut StdRng| random.random_range(0..20);
        let invoked = happened.saturating_sub(stretch(random));
        let mut operation = op(invoked, happened + stretch(random), action, answer);
        operation.pipeline = number;
        let tells = matches!(
            operation.returned,
            Some(Returned {
                answer: Answer::Hit {
                    unique: Some(_),
                    ..
                },
                ..
            })
        );
        // A unique that is used was told, and before its use.
        if tells {
            operation.invoked = Duration::from_millis(happened);
            operation.returned.as_mut().expect("it tells").at = Duration::from_millis(happened);
        } else if random.random_bool(lost) {
            operation.returned = None;
        }
        if matches!(operation.action, Action::Cas { .. }) {
            operation.invoked = Duration::from_millis(happened);
        }
        history.push(operation);
    }
    history
}

/// Makes the answer of some operation another; `false` if none has one that would be another.
fn change_an_answer(random: &mut StdRng, history: &mut [Operation]) -> bool {
    let mut answered: Vec<&mut Operation> = history
        .iter_mut()
        .filter(|operation| {
            operation.returned.is_some() && !matches!(operation.action, Action::Set(_))
        })
        .collect();
    if answered.is_empty() {
        return false;
    }
    let chosen = random.random_range(0..answered.len());
    let deletes = answered[chosen].action == Action::Delete;
    let returned = answered[chosen].returned.as_mut().expect("it is answered");
    returned.answer = match &returned.answer {
        Answer::Hit { unique: None, .. } => miss(),
        Answer::Hit {
            value,
            unique: Some(unique),
        } => told(value, unique + 1_000_000),
        Answer::Miss => hit("1000000"),
        Answer::Number(number) => Answer::Number(number + 1),
        Answer::Stored => Answer::Exists,
        Answer::Exists => Answer::Stored,
        Answer::Deleted => Answer::NotFound,
        Answer::NotFound if deletes => Answer::Deleted,
        Answer::NotFound => Answer::NotANumber,
        Answer::NotANumber => Answer::NotFound,
    };
    true
}

/// Whether some order of those in `left` behind those in `done` explains all answers: by trying
/// them all.
fn explain<'a>(left: &mut Vec<&'a Operation>, done: &mut Vec<&'a Operation>) -> bool {
    if !replays(done) {
        return false;
    }
    if left.iter().all(|operation| operation.returned.is_none()) {
        return true;
    }
    let returns = left
        .iter()
        .filter_map(|operation| operation.returned.as_ref());
    let first_return = returns.map(|returned| returned.at).min();
    for next in 0..left.len() {
        if first_return.is_some_and(|first| left[next].invoked > first) {
            continue;
        }
        let operation = left.remove(next);
        done.push(operation);
        let explained = explain(left, done);
        done.pop();
        left.insert(next, operation);
        if explained {
            return true;
        }
    }
    false
}

/// Whether the answers of these are right, done in this order: written down once more, so that the
/// checker is not judged by itself.
fn replays(done: &[&Operation]) -> bool {
    // Value, place in the order of writes, and the unique that was told of that place.
    let mut value: Option<String> = None;
    let mut told: Option<u64> = None;
    let mut last_told = 0;
    for operation in done {
        let number = value.as_ref().and_then(|value| value.parse::<u64>().ok());
        let answer = operation.returned.as_ref().map(|returned| &returned.answer);
        let mut written = None;
        let right = match (&operation.action, &value) {
            (Action::Get, value) => {
                let seen = match answer {
                    None => value.clone(),
                    Some(Answer::Hit { value, unique }) => {
                        if let Some(unique) = *unique {
                            if told.map_or(unique <= last_told, |told| told != unique) {
                                return false;
                            }
                            (told, last_told) = (Some(unique), unique);
                        }
                        Some(value.clone())
                    }
                    Some(Answer::Miss) => None,
                    Some(_) => return false,
                };
                if seen != *value {
                    return false;
                }
                continue;
            }
            (Action::Set(new), _) => {
                written = Some(Some(new.clone()));
                Answer::Stored
            }
            (_, None) => Answer::NotFound,
            (Action::Cas { value: new, unique }, Some(_)) if told == Some(*unique) => {
                written = Some(Some(new.clone()));
                Answer::Stored
            }
            (Action::Cas { .. }, Some(_)) => Answer::Exists,
            (Action::Delete, Some(_)) => {
                written = Some(None);
                Answer::Deleted
            }
            (Action::Incr(delta), Some(_)) => match number {
                Some(number) => {
                    written = Some(Some((number + delta).to_string()));
                    Answer::Number(number + delta)
                }
                None => Answer::NotANumber,
            },
        };
        if let Some(written) = written {
            (value, told) = (written, None);
        }
        if answer.is_some_and(|answer| *answer != right) {
            return false;
        }
    }
    true
}
