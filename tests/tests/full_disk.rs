//! Disks without space: writes are refused before they enter the log, reads go on, a server with
//! room leads, and service returns with the space (rule 9).
//!
//! The disks are file systems of a few MiB in memory. To mount them takes rights, which a user
//! namespace gives; where the system allows none, nothing is tested, and the test says so.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::Command;

use quorate_tests::{Cluster, Plan, Programs, Text, deadline, wait_until};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

/// Set in a process that may mount.
const MAY_MOUNT: &str = "QUORATE_TEST_MAY_MOUNT";

const DISK: &str = "size=8m,mode=700";
const VALUE_BYTES: usize = 10_000;
/// More than fits on any of the disks.
const WRITES_MAX: usize = 2000;

/// Runs this test once more, in a process with mounts of its own. True in that process.
fn may_mount(test: &str) -> bool {
    if std::env::var_os(MAY_MOUNT).is_some() {
        return true;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount"]);
        command
    };
    let allowed = unshare()
        .args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        eprintln!("no mounts are allowed here: nothing is tested");
        return false;
    }
    let this = std::env::current_exe().expect("it runs");
    let mut again = unshare();
    again
        .arg(this)
        .args(["--exact", test, "--nocapture"])
        .env(MAY_MOUNT, "1");
    let ended = again.status().expect("it was there a moment ago");
    assert!(ended.success(), "{test} has failed in a process of its own");
    false
}

/// Three servers, each on a disk of its own.
fn start() -> Cluster {
    let plan = Plan::new(PROGRAMS, 3).patient();
    let mut cluster = plan.setting("log_segment_bytes", "1048576").prepare();
    for id in cluster.ids() {
        let directory = cluster.data_directory(id);
        fs::create_dir(&directory).expect("it is ours");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", DISK, "tmpfs"])
            .arg(&directory);
        assert!(mount.status().expect("it was there a moment ago").success());
    }
    cluster.start_all();
    cluster.wait_until_seated();
    cluster
}

/// Takes all the space that is left.
fn fill(directory: &Path) {
    let mut file = File::create(directory.join("something-else")).expect("a name takes no space");
    for piece in [64 << 10, 4 << 10, 1] {
        let bytes = vec![1; piece];
        let full = loop {
            if let Err(error) = file.write_all(&bytes) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull);
    }
}

fn empty(directory: &Path) {
    fs::remove_file(directory.join("something-else")).expect("it was written");
}

/// What was stored, in order, each with its number as its value.
#[derive(Default)]
struct Stored(Vec<usize>);

impl Stored {
    /// Stores one more. The line that refuses it, if it is.
    fn set(&mut self, text: &mut Text, number: usize) -> Option<String> {
        let set = format!("set k{number} 0 0 {VALUE_BYTES}\r\n{number:0VALUE_BYTES$}\r\n");
        let line = text.ask(set);
        if line == "STORED" {
            self.0.push(number);
            return None;
        }
        Some(line)
    }

    /// Stores more and more until that is refused.
    fn set_until_refused(&mut self, text: &mut Text) -> String {
        let first = self.0.last().map_or(0, |last| last + 1);
        let mut numbers = first..first + WRITES_MAX;
        numbers
            .find_map(|number| self.set(text, number))
            .expect("no disk is as large as that")
    }

    fn check(&self, text: &mut Text) {
        for number in &self.0 {
            let value =
                format!("VALUE k{number} 0 {VALUE_BYTES}\r\n{number:0VALUE_BYTES$}\r\nEND\r\n");
            text.exchange(format!("get k{number}\r\n"), value);
        }
    }
}

/// Who says that it leads. The harness's own question is a write.
fn who_leads(cluster: &Cluster) -> Result<u64, String> {
    let leads = |id: &u64| {
        let status = cluster.status(*id);
        status.is_ok_and(|status| status["role"] == "Leader" && status["quorum"] == true)
    };
    let mut leaders = cluster.ids().into_iter().filter(leads);
    leaders.next().ok_or_else(|| "no leader".to_owned())
}

fn wait_until_out_of_disk(cluster: &Cluster, id: u64) {
    wait_until("the end of the space", deadline(), || {
        let status = cluster.status(id)?;
        match status["out_of_disk"] == true {
            true => Ok(()),
            false => Err(format!("{status}")),
        }
    });
}

#[test]
fn writes_are_refused_where_there_is_no_space_and_go_on_where_there_is() {
    if !may_mount("writes_are_refused_where_there_is_no_space_and_go_on_where_there_is") {
        return;
    }
    let cluster = start();
    let mut stored = Stored::default();
    let first = cluster.leader();
    let mut text = Text::connect(cluster.client_address(first));
    assert_eq!(stored.set(&mut text, 0), None);

    // One disk is full: another server leads.
    fill(&cluster.data_directory(first));
    let refused = stored.set_until_refused(&mut text);
    // The moment between two leaders may be met.
    let for_certain = ["SERVER_ERROR out of disk", "SERVER_ERROR no leader"];
    let is_certain =
        for_certain.contains(&refused.as_str()) || refused.starts_with("ERR_REDIRECT ");
    assert!(is_certain, "{refused}");
    let next = wait_until("another leader", deadline(), || {
        let leader = who_leads(&cluster)?;
        if leader == first {
            return Err(format!("server {leader} leads"));
        }
        Ok(leader)
    });
    wait_until_out_of_disk(&cluster, first);
    let mut text = Text::connect(cluster.client_address(next));
    for number in stored.0.len()..stored.0.len() + 50 {
        assert_eq!(stored.set(&mut text, number), None);
    }

    // All are full: what is stored can be read, and nothing more is stored.
    for id in cluster.others(first) {
        fill(&cluster.data_directory(id));
    }
    wait_until("no space anywhere", deadline(), || {
        let mut text = Text::connect(cluster.client_address(who_leads(&cluster)?));
        match stored.set_until_refused(&mut text) {
            line if line == "SERVER_ERROR out of disk" => Ok(()),
            other => Err(other),
        }
    });
    let mut text = Text::connect(cluster.client_address(who_leads(&cluster).expect("it answers")));
    stored.check(&mut text);

    // There is space again.
    for id in cluster.ids() {
        empty(&cluster.data_directory(id));
    }
    let number = stored.0.len();
    wait_until("service", deadline(), || {
        let mut text = Text::connect(cluster.client_address(who_leads(&cluster)?));
        match stored.set(&mut text, number) {
            None => Ok(()),
            Some(line) => Err(line),
        }
    });
    stored.check(&mut cluster.connect_to_leader());
    for id in cluster.ids() {
        assert!(cluster.status(id).is_ok(), "server {id} has ended");
    }
}
