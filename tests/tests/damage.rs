//! Whatever file of a stopped server is damaged: one of five heals from the others, one alone serves
//! what it had or says where the damage is and ends. Nothing else is ever served.
//!
//! What is damaged is drawn from a fixed seed. `QUORATE_DAMAGE_CASES` says how often each test does
//! it; `crates/wal/tests/wal/sweep.rs` does it in every way to a directory in memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use quorate_tests::{Cluster, Ended, Load, Plan, Process, Programs, Written, deadline, wait_until};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

/// How often something is damaged: each part twice, a bit of it and its end.
const CASES: u64 = 12;

fn plan(servers: u64) -> Plan {
    Plan::new(PROGRAMS, servers).patient().snapshots_often()
}

fn cases() -> u64 {
    let cases = std::env::var("QUORATE_DAMAGE_CASES").ok();
    let cases = cases.map(|cases| cases.parse().expect("QUORATE_DAMAGE_CASES is a number"));
    cases.unwrap_or(CASES)
}

/// What a file of a data directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Meta,
    ClosedSegment,
    OpenSegment,
    Reserve,
    NewestSnapshot,
    SnapshotBefore,
}

const PARTS: [Part; 6] = [
    Part::Meta,
    Part::ClosedSegment,
    Part::OpenSegment,
    Part::Reserve,
    Part::NewestSnapshot,
    Part::SnapshotBefore,
];

/// A file that was damaged.
#[derive(Debug)]
struct Damage {
    part: Part,
    file: PathBuf,
    /// Where the first byte is that is not as it was.
    at: u64,
    #[expect(dead_code, reason = "it is shown by a failed test")]
    is_cut: bool,
}

impl Damage {
    /// Turns over a bit of a file of this directory, or cuts it off. Gives what it held with it.
    fn strike(directory: &Path, case: u64) -> (Damage, Vec<u8>) {
        let mut random = StdRng::seed_from_u64(case);
        let count = PARTS.len() as u64;
        let part = PARTS[(case % count) as usize];
        let is_cut = (case / count) % 2 == 1;
        let file = pick(directory, part, &mut random);
        let sound = fs::read(&file).expect("it is ours");
        let mut content = sound.clone();
        let at = random.random_range(0..content.len());
        if is_cut {
            content.truncate(at);
        } else {
            content[at] ^= 1 << random.random_range(0..8);
        }
        fs::write(&file, content).expect("it is ours");
        let at = at as u64;
        let damage = Damage {
            part,
            file,
            at,
            is_cut,
        };
        (damage, sound)
    }

    /// Whether one of these lines says that this file is damaged, and where: at the damage or before.
    /// No two do.
    fn named_in(&self, lines: &[String]) -> bool {
        let file = self.file.display().to_string();
        let is_about = |line: &&String| line.contains(&file) && line.contains("corrupt at byte ");
        let named: Vec<&String> = lines.iter().filter(is_about).collect();
        let [line] = &named[..] else {
            assert!(named.is_empty(), "{self:?}: {lines:#?}");
            return false;
        };
        let (_, place) = line.split_once("at byte ").expect("it names the place");
        let place = place.split(':').next().and_then(|place| place.parse().ok());
        let place: u64 = place.unwrap_or_else(|| panic!("{line} has no number"));
        assert!(place <= self.at, "{self:?}: {line}");
        true
    }
}

/// A file of this kind.
fn pick(directory: &Path, part: Part, random: &mut StdRng) -> PathBuf {
    let names = names(directory);
    let ending = |ending: &str| {
        let names = names.iter().filter(|name| name.ends_with(ending)).cloned();
        names.collect::<Vec<String>>()
    };
    let (segments, snapshots) = (ending(".log"), ending(".snap"));
    // The oldest of three was about to go.
    let [.., before, newest] = &snapshots[..] else {
        panic!("there are two snapshots: {names:?}");
    };
    assert!(segments.len() > 2, "{names:?}");
    let (open, closed) = segments.split_last().expect("there are three");
    let name = match part {
        Part::Meta => ["meta.0", "meta.1"][random.random_range(0..2)],
        Part::ClosedSegment => closed[random.random_range(0..closed.len())].as_str(),
        Part::OpenSegment => open,
        Part::Reserve => "wal.next",
        Part::NewestSnapshot => newest,
        Part::SnapshotBefore => before,
    };
    directory.join(name)
}

/// The names of the files in a directory, in order.
fn names(directory: &Path) -> Vec<String> {
    let files = fs::read_dir(directory).expect("it is there");
    let names = files.map(|file| file.expect("it was listed").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name != "lock").collect();
    names.sort();
    names
}

/// The files of a directory that nobody uses.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = names(directory).into_iter();
    let contents = names.map(|name| {
        let content = fs::read(directory.join(&name)).expect("it is a file");
        (name, content)
    });
    contents.collect()
}

/// Has clients write until each server has taken snapshots, dropped log, and filled some segments.
fn fill(cluster: &Cluster, name: &str) -> Vec<Written> {
    let load = Load::start(cluster, name, 8);
    wait_until("snapshots and segments", deadline(), || {
        for id in cluster.ids() {
            let status = cluster.status(id)?;
            let begins_behind = status["log_begins_behind"].as_u64();
            let names = names(&cluster.data_directory(id));
            let count = |ending: &str| names.iter().filter(|name| name.ends_with(ending)).count();
            let is_full = count(".log") > 2 && count(".snap") >= 2 && count(".next") == 1;
            if begins_behind == Some(0) || !is_full {
                return Err(format!("{names:?}, {status}"));
            }
        }
        Ok(())
    });
    load.stop()
}

/// Restarts a server, and waits until it is whole or has ended; how it ended.
fn restart(cluster: &mut Cluster, id: u64) -> Option<Ended> {
    cluster.start(id);
    let has_ended = wait_until("the server to be whole, or its end", deadline(), || {
        if cluster.process(id).ended_with().is_some() {
            return Ok(true);
        }
        let status = cluster.status(id)?;
        let is_whole = status["recovering"] == false && status["leader"].is_u64();
        is_whole.then_some(false).ok_or_else(|| status.to_string())
    });
    has_ended.then(|| cluster.wait_for_end(id, deadline()))
}

/// What all servers must agree on once they have applied the same.
fn state(status: &Value) -> [&Value; 4] {
    ["last_applied", "items", "item_bytes", "state_differs_at"].map(|member| &status[member])
}

#[test]
fn one_of_five_heals_from_the_others_whatever_file_of_it_is_damaged() {
    let mut cluster = plan(5).start();
    cluster.wait_until_seated();
    let mut written = Vec::new();
    let mut named = BTreeMap::new();
    for case in 0..cases() {
        let victim = 1 + case % 5;
        // One that was healed may have little more than a snapshot.
        written.extend(fill(&cluster, &format!("case-{case}")));
        cluster.agreed_leader();
        cluster.wait_until_applied();
        cluster.kill(victim);
        let (damage, sound) = Damage::strike(&cluster.data_directory(victim), case);
        let before = cluster.log(victim).len();
        let ended = restart(&mut cluster, victim);
        assert!(ended.is_none(), "{damage:?}: {ended:#?}");
        let lines = cluster.log(victim).split_off(before);
        *named.entry(damage.part).or_insert(0) += u64::from(damage.named_in(&lines));
        let leader = cluster.agreed_leader();
        cluster.wait_until_applied();
        wait_until("equal states", deadline(), || {
            let (one, other) = (cluster.status(leader)?, cluster.status(victim)?);
            let is_equal = state(&one) == state(&other) && other["recovering"] == false;
            is_equal
                .then_some(())
                .ok_or_else(|| format!("{damage:?}: {one}, {other}"))
        });
        // Its disk is sound again too.
        cluster.kill(victim);
        let mut look = PROGRAMS.server();
        look.arg("--check").arg(cluster.data_directory(victim));
        let look = Process::start("the look", look).wait(deadline());
        let verdict = look.stdout.last().expect("it says something");
        assert!(verdict.contains("starts here"), "{damage:?}: {verdict}");
        // Nobody reads it while the newest is sound: it would count when that is damaged too.
        if damage.part == Part::SnapshotBefore && damage.file.exists() {
            fs::write(&damage.file, sound).expect("it is ours");
        }
        cluster.start(victim);
    }
    println!("named in the log: {named:?} of {} cases", cases());
    assert!(
        named[&Part::ClosedSegment] > 0 && named[&Part::NewestSnapshot] > 0,
        "{named:?}"
    );
    // Each has been damaged by now, and each serves what clients were told.
    for id in cluster.ids() {
        lead(&mut cluster, id);
        Written::verify(&written, &cluster);
    }
}

/// Lets this server lead.
fn lead(cluster: &mut Cluster, id: u64) {
    wait_until("a certain leader", deadline(), || {
        let leader = cluster.agreed_leader();
        if leader == id {
            return Ok(());
        }
        cluster.wait_until_applied();
        cluster.terminate(leader);
        cluster.start(leader);
        Err(format!("{leader} leads"))
    });
}

#[test]
fn one_alone_serves_what_it_had_or_names_the_damage_and_ends() {
    let mut cluster = plan(1).start();
    let written = fill(&cluster, "load");
    cluster.kill(1);
    let directory = cluster.data_directory(1);
    let sound = contents(&directory);
    let (mut served, mut refused) = (0, 0);
    for case in 0..cases() {
        let (damage, _) = Damage::strike(&directory, case);
        let damaged = contents(&directory);
        match restart(&mut cluster, 1) {
            Some(ended) => {
                let failed = ended.code().is_some_and(|code| code != 0);
                assert!(failed, "{damage:?}: {ended:#?}");
                assert!(damage.named_in(&ended.stderr), "{damage:?}: {ended:#?}");
                assert_eq!(contents(&directory), damaged, "{damage:?}");
                refused += 1;
            }
            None => {
                Written::verify(&written, &cluster);
                cluster.kill(1);
                served += 1;
            }
        }
        cluster.wipe(1);
        fs::create_dir(&directory).expect("it is ours");
        for (name, content) in &sound {
            fs::write(directory.join(name), content).expect("it is ours");
        }
    }
    assert!(
        served > 0 && refused > 0,
        "it served {served} times and ended {refused} times"
    );
}
