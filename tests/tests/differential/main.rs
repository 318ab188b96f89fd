//! The same bytes to a real memcached and to a cluster of one server: the replies must be the same,
//! but for the known differences (`differences`). Skipped where there is no memcached.
//!
//! The scripts are random and always the same. More of them:
//! `QUORATE_DIFFERENTIAL_SCRIPTS=100000 cargo test --test differential`; others:
//! `QUORATE_DIFFERENTIAL_FIRST=<number>`.

mod commands;
mod conversation;
mod differences;
mod memcached;
mod meta;
mod meta_differences;
mod replies;
mod script;
mod shorten;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use quorate_tests::{Plan, Programs};

use crate::conversation::{Replies, converse};
use crate::differences::{CLASSIC, Difference, Leaves};
use crate::memcached::Memcached;
use crate::meta_differences::META;
use crate::script::Script;

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

/// Scripts by default: about 8,000 commands.
const SCRIPTS: u64 = 400;

/// How long a server may be silent. Ten times the second within which quorate answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same while a failure is made shorter, and silence may be what is looked for.
const IMPATIENCE: Duration = Duration::from_secs(1);

/// The first step to which the replies are not what they should be.
struct Mismatch {
    step: usize,
    known: Option<&'static str>,
    theirs: String,
    ours: String,
}

#[test]
fn classic_commands_are_answered_as_memcached_answers_them() {
    compare_scripts(commands::script, CLASSIC);
}

#[test]
fn meta_commands_are_answered_as_memcached_answers_them() {
    compare_scripts(meta::script, META);
}

#[test]
fn the_page_has_the_table_of_differences() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/memcached.md");
    let page = fs::read_to_string(page).expect("the page is there");
    let table = differences::to_markdown();
    assert!(
        page.contains(&table),
        "docs/memcached.md should have\n{table}"
    );
}

/// Compares the replies to all scripts, if there is a memcached to compare with. All of `expected`
/// must be met: a difference that is no more is no line of the table.
fn compare_scripts(script: impl Fn(u64) -> Script, expected: &[Difference]) {
    let memcached = match Memcached::start() {
        Ok(memcached) => memcached,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let cluster = Plan::new(PROGRAMS, 1).patient().start();
    let addresses = [memcached.address, cluster.client_address(1)];
    let mut met = BTreeSet::new();
    let first = from_environment("QUORATE_DIFFERENTIAL_FIRST", 0);
    let count = from_environment("QUORATE_DIFFERENTIAL_SCRIPTS", SCRIPTS);
    for number in first..first + count {
        let script = script(number);
        if compare(addresses, &script, PATIENCE).is_err() {
            fail(addresses, number, script);
        }
        for step in &script.steps {
            met.extend(differences::of(&step.sent()).map(|difference| difference.name));
        }
    }
    for difference in expected {
        assert!(
            met.contains(difference.name),
            "{} was not met",
            difference.name
        );
    }
}

/// Shows the shortest script that goes wrong as this one does.
fn fail(addresses: [SocketAddr; 2], number: u64, script: Script) -> ! {
    let fails = |script: &Script| compare(addresses, script, IMPATIENCE).is_err();
    let script = shorten::shortest(script, fails);
    let shown = script.to_shell();
    match compare(addresses, &script, IMPATIENCE) {
        Err(mismatch) => panic!(
            "script {number}, shortened:\n{shown}\nstep {}, where {}, is answered\n\
             by memcached: {}\nby quorate:   {}",
            mismatch.step,
            mismatch.known.unwrap_or("no difference is known"),
            mismatch.theirs,
            mismatch.ours
        ),
        Ok(()) => panic!("script {number} went wrong, and now it does not:\n{shown}"),
    }
}

fn compare(
    [theirs, ours]: [SocketAddr; 2],
    script: &Script,
    patience: Duration,
) -> Result<(), Mismatch> {
    let theirs = converse(theirs, script, patience);
    let ours = converse(ours, script, patience);
    let mut count_alike = true;
    for (place, step) in script.steps.iter().enumerate() {
        let sent = step.sent();
        let replies = [theirs.steps.get(place), ours.steps.get(place)];
        count_alike &= differences::leaves(&sent) == Leaves::Nothing;
        let agree = match replies {
            [Some(_), Some(_)] if sent.line() == b"stats" && !count_alike => true,
            [Some(theirs), Some(ours)] => differences::agree(&sent, theirs, ours),
            _ => theirs.end == ours.end && theirs.rest == ours.rest,
        };
        if !agree {
            return Err(Mismatch {
                step: place + 1,
                known: differences::of(&sent).map(|difference| difference.name),
                theirs: shown(&theirs, place),
                ours: shown(&ours, place),
            });
        }
    }
    Ok(())
}

/// The reply to a step, or what came instead.
fn shown(replies: &Replies, step: usize) -> String {
    match replies.steps.get(step) {
        Some(reply) => reply.escape_ascii().to_string(),
        None => format!("{} ({:?})", replies.rest.escape_ascii(), replies.end),
    }
}

fn from_environment(name: &str, default: u64) -> u64 {
    let value = env::var(name).ok();
    value.map_or(default, |value| {
        value
            .parse()
            .unwrap_or_else(|error| panic!("{name}={value}: {error}"))
    })
}
