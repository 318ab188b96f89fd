//! A cluster of server processes on ports and in a directory of its own, and what can be done to
//! it from outside.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use cluster::Server;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::http::Response;
use crate::links::Links;
use crate::plan::Plan;
use crate::ports::Ports;
use crate::process::{Ended, Process};
use crate::text::Text;
use crate::turn::Turn;
use crate::wait::{deadline, wait_until};

/// How many of a server's last lines a failed test shows.
const LINES_SHOWN: usize = 60;

/// Server processes, some of which run. All are killed when it is dropped, and their data removed.
#[derive(Debug)]
pub struct Cluster {
    /// Those that were started and not ended by us; they may have ended by themselves.
    processes: BTreeMap<u64, Process>,
    /// What each server printed on standard error in its earlier lives.
    earlier: BTreeMap<u64, Vec<String>>,
    members: cluster::Cluster,
    plan: Plan,
    links: Option<Links>,
    directory: TempDir,
    _ports: Ports,
    _turn: Turn,
}

impl Cluster {
    /// Everything but the processes, once no other cluster is there.
    pub(crate) fn prepare(plan: Plan) -> Cluster {
        let turn = Turn::take();
        let ports = Ports::draw();
        let servers = (1..=plan.servers)
            .map(|id| server(id, ports.of_server(id)))
            .collect();
        let members = cluster::Cluster::new(servers).expect("ids and ports differ");
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let cluster = Cluster {
            processes: BTreeMap::new(),
            earlier: BTreeMap::new(),
            members,
            plan,
            links: None,
            directory,
            _ports: ports,
            _turn: turn,
        };
        let text = cluster.members.to_toml();
        fs::write(cluster.config(), text).expect("the temporary directory can be written to");
        cluster
    }

    /// The ids of all members.
    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        self.members
            .servers()
            .iter()
            .map(|server| server.id)
            .collect()
    }

    /// The ids of the servers that were started and not ended by the test.
    #[must_use]
    pub fn running(&self) -> Vec<u64> {
        self.processes.keys().copied().collect()
    }

    /// How many servers are a majority.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.members.servers().len() / 2 + 1
    }

    /// The ids of all members but `id`.
    #[must_use]
    pub fn others(&self, id: u64) -> Vec<u64> {
        self.ids()
            .into_iter()
            .filter(|other| *other != id)
            .collect()
    }

    /// What cluster.toml says of server `id`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn member(&self, id: u64) -> &Server {
        self.members.server(id).expect("the test knows its servers")
    }

    /// Where the cluster.toml of all servers is.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("cluster.toml")
    }

    /// The directory of everything here, for a test's own files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The data directory of server `id`.
    #[must_use]
    pub fn data_directory(&self, id: u64) -> PathBuf {
        self.directory.path().join(format!("server-{id}"))
    }

    /// Where server `id` listens for clients.
    #[must_use]
    pub fn client_address(&self, id: u64) -> SocketAddr {
        local(self.member(id).client_port)
    }

    /// Where all servers listen for clients.
    #[must_use]
    pub fn client_addresses(&self) -> Vec<SocketAddr> {
        let ids = self.ids();
        ids.into_iter().map(|id| self.client_address(id)).collect()
    }

    /// Where server `id` listens for other servers.
    #[must_use]
    pub fn rpc_address(&self, id: u64) -> SocketAddr {
        local(self.member(id).rpc_port)
    }

    /// Where server `id` listens for HTTP.
    #[must_use]
    pub fn http_address(&self, id: u64) -> SocketAddr {
        local(self.member(id).http_port)
    }

    /// The line with which a follower sends a client to server `id`.
    #[must_use]
    pub fn redirect_to(&self, id: u64) -> String {
        let server = self.member(id);
        format!("ERR_REDIRECT {} {}\r\n", server.host, server.client_port)
    }

    /// The command that runs server `id`, with the plan's settings.
    #[must_use]
    pub fn server_command(&self, id: u64) -> Command {
        let mut command = self.plan.programs.server();
        command
            .arg("--id")
            .arg(id.to_string())
            .arg("--config")
            .arg(self.config_of(id))
            .arg("--data-dir")
            .arg(self.data_directory(id))
            .arg("--die-with-parent");
        for (name, value) in &self.plan.settings {
            let setting = cluster::Setting::named(name).expect("the test knows the settings");
            command.arg(format!("--{}", setting.flag())).arg(value);
        }
        command
    }

    /// The cluster.toml of server `id`: that of all, unless there are links between them.
    fn config_of(&self, id: u64) -> PathBuf {
        match self.links {
            None => self.config(),
            Some(_) => self.directory().join(format!("cluster-{id}.toml")),
        }
    }

    /// Restarts all servers with a link between any two of them that can be cut. They must all have
    /// their seats by now: new servers agree only with those that have the same cluster.toml.
    ///
    /// # Panics
    /// When they do not come back.
    pub fn restart_with_links(&mut self) {
        self.wait_until_seated();
        let ids = self.ids();
        self.kill_together(&ids);
        let address = |id: &u64| (*id, self.rpc_address(*id));
        let links = Links::start(&ids.iter().map(address).collect::<Vec<_>>());
        for id in &ids {
            let seen_by_it = |mut other: Server| {
                if other.id != *id {
                    other.rpc_port = links.port(*id, other.id);
                }
                other
            };
            let servers = self.members.servers().iter().cloned().map(seen_by_it);
            let seen = cluster::Cluster::new(servers.collect()).expect("ids and ports differ");
            let path = self.directory().join(format!("cluster-{id}.toml"));
            fs::write(path, seen.to_toml()).expect("the temporary directory can be written to");
        }
        self.links = Some(links);
        self.start_all();
        self.agreed_leader();
    }

    /// Lets nothing that `from` sends reach `to`, nor answers to it.
    ///
    /// # Panics
    /// Without links.
    pub fn cut(&self, from: u64, to: u64) {
        self.links().cut(from, to);
    }

    /// Closes the connections that `from` made to `to`, wherever in a frame they are.
    ///
    /// # Panics
    /// Without links.
    pub fn reset(&self, from: u64, to: u64) {
        self.links().reset(from, to);
    }

    /// Lets nothing through between any of `one_side` and any other server.
    ///
    /// # Panics
    /// Without links.
    pub fn isolate(&self, one_side: &[u64]) {
        for inside in one_side {
            for outside in self.ids() {
                if !one_side.contains(&outside) {
                    self.cut(*inside, outside);
                    self.cut(outside, *inside);
                }
            }
        }
    }

    /// Lets everything through again.
    ///
    /// # Panics
    /// Without links.
    pub fn heal(&self) {
        self.links().heal();
    }

    fn links(&self) -> &Links {
        self.links.as_ref().expect("the test has started them")
    }

    /// Waits until every member has its seat in the cluster.
    ///
    /// # Panics
    /// When it does not come to that.
    pub fn wait_until_seated(&self) {
        wait_until("all seats", deadline(), || {
            let leader = self.find_leader()?;
            for id in self.ids() {
                let status = self.status(id)?;
                if status["seats_empty"] != 0 || status["cluster"].is_null() {
                    return Err(format!("leader {leader}, but {status}"));
                }
            }
            Ok(())
        });
    }

    /// Starts every server that does not run.
    pub fn start_all(&mut self) {
        for id in self.ids() {
            if !self.processes.contains_key(&id) {
                self.start(id);
            }
        }
    }

    /// Starts server `id`.
    ///
    /// # Panics
    /// When it runs.
    pub fn start(&mut self, id: u64) {
        let command = self.server_command(id);
        self.start_as(id, command);
    }

    /// Runs `command` as server `id`.
    ///
    /// # Panics
    /// When it runs.
    pub fn start_as(&mut self, id: u64, command: Command) {
        assert!(!self.processes.contains_key(&id), "server {id} runs");
        let process = Process::start(&format!("server {id}"), command);
        self.processes.insert(id, process);
    }

    /// Sends SIGKILL to server `id` and waits until it is gone.
    pub fn kill(&mut self, id: u64) {
        let ended = self.take(id).kill();
        self.remember(id, &ended);
    }

    /// Sends SIGKILL to all of `ids` before it waits for any of them.
    pub fn kill_together(&mut self, ids: &[u64]) {
        for id in ids {
            self.signal(*id, Signal::SIGKILL);
        }
        for id in ids {
            self.kill(*id);
        }
    }

    /// Sends SIGTERM to server `id` and waits for its end.
    pub fn terminate(&mut self, id: u64) -> Ended {
        self.signal(id, Signal::SIGTERM);
        self.wait_for_end(id, deadline())
    }

    /// Sends SIGTERM to all that run before it waits for any of them to end.
    pub fn terminate_together(&mut self) -> Vec<(u64, Ended)> {
        for id in self.running() {
            self.signal(id, Signal::SIGTERM);
        }
        let running = self.running().into_iter();
        running
            .map(|id| (id, self.wait_for_end(id, deadline())))
            .collect()
    }

    /// Waits until server `id` has ended by itself.
    pub fn wait_for_end(&mut self, id: u64, deadline: Instant) -> Ended {
        let ended = self.take(id).wait(deadline);
        self.remember(id, &ended);
        ended
    }

    /// Stops server `id` from doing anything, until `resume`.
    pub fn pause(&mut self, id: u64) {
        self.process(id).pause();
    }

    /// Lets a paused server go on.
    pub fn resume(&mut self, id: u64) {
        self.signal(id, Signal::SIGCONT);
    }

    /// Removes the data of server `id`, which does not run.
    ///
    /// # Panics
    /// When it runs, or its files cannot be removed.
    pub fn wipe(&mut self, id: u64) {
        assert!(!self.processes.contains_key(&id), "server {id} runs");
        fs::remove_dir_all(self.data_directory(id)).expect("the data are ours");
    }

    /// What server `id` has printed on standard error, in all its lives.
    #[must_use]
    pub fn log(&self, id: u64) -> Vec<String> {
        let mut lines = self.earlier.get(&id).cloned().unwrap_or_default();
        lines.extend(
            self.processes
                .get(&id)
                .map(Process::stderr)
                .unwrap_or_default(),
        );
        lines
    }

    /// What server `id` answers to `GET /status`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self, id: u64) -> Result<Value, String> {
        let response = Response::get(self.http_address(id), "/status");
        let response = response.map_err(|error| format!("server {id}: {error}"))?;
        serde_json::from_str(&response.body)
            .map_err(|error| format!("server {id}: {error} in {:?}", response.body))
    }

    /// Waits until a running server leads and has carried out a command; its id.
    ///
    /// # Panics
    /// When none does in time.
    pub fn leader(&self) -> u64 {
        wait_until("a leader that takes writes", deadline(), || {
            self.find_leader()
        })
    }

    /// The running server that leads now and carries out a command.
    ///
    /// # Errors
    /// What there is instead.
    pub fn find_leader(&self) -> Result<u64, String> {
        let mut seen = Vec::new();
        for id in self.running() {
            let status = match self.status(id) {
                Ok(status) => status,
                Err(error) => {
                    seen.push(error);
                    continue;
                }
            };
            if status["role"] != "Leader" || status["quorum"] != true {
                seen.push(format!(
                    "server {id}: {} of {}",
                    status["role"], status["leader"]
                ));
                continue;
            }
            // It goes through the log and changes nothing.
            match try_ask(self.client_address(id), "delete no-such-key\r\n") {
                Ok(line) if line == "NOT_FOUND" => return Ok(id),
                Ok(line) => seen.push(format!("server {id}: {line}")),
                Err(error) => seen.push(format!("server {id}: {error}")),
            }
        }
        Err(seen.join(", "))
    }

    /// Waits until all running servers are of one term and name one leader, which takes writes; its
    /// id.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn agreed_leader(&self) -> u64 {
        wait_until("one leader that all name", deadline(), || {
            let leader = self.find_leader()?;
            let term = self.status(leader)?["term"].clone();
            for id in self.running() {
                let status = self.status(id)?;
                if status["leader"] != leader || status["term"] != term {
                    return Err(format!("leader {leader} of term {term}, but {status}"));
                }
            }
            Ok(leader)
        })
    }

    /// Waits until all running servers have applied what the leader has committed.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn wait_until_applied(&self) {
        // A server shows where it is a few milliseconds later: the third look shows all that was
        // committed before the first.
        let mut looks = Vec::new();
        wait_until("equal logs", deadline(), || {
            let leader = self.find_leader()?;
            if looks.len() < 3 {
                looks.push(self.status(leader)?["commit_index"].clone());
            }
            let Some(committed) = looks.get(2) else {
                return Err("a look at the leader".to_owned());
            };
            for id in self.running() {
                let status = self.status(id)?;
                if status["last_applied"].as_u64() < committed.as_u64() {
                    return Err(format!("committed {committed}, but {status}"));
                }
            }
            Ok(())
        });
    }

    /// A connection to server `id`.
    #[must_use]
    pub fn connect(&self, id: u64) -> Text {
        Text::connect(self.client_address(id))
    }

    /// A connection to the leader, once there is one.
    #[must_use]
    pub fn connect_to_leader(&self) -> Text {
        self.connect(self.leader())
    }

    /// A running server that follows the leader; its id.
    ///
    /// # Panics
    /// When all others have been stopped.
    #[must_use]
    pub fn follower(&self) -> u64 {
        let leader = self.agreed_leader();
        let mut running = self.running().into_iter();
        running
            .find(|id| *id != leader)
            .expect("the leader is not alone")
    }

    /// The process id of server `id`.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self, id: u64) -> Pid {
        let process = self.processes.get(&id);
        process
            .unwrap_or_else(|| panic!("server {id} does not run"))
            .pid()
    }

    /// The memory that server `id` has, in bytes.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn resident_bytes(&self, id: u64) -> u64 {
        let path = format!("/proc/{}/status", self.pid(id));
        let status = fs::read_to_string(path).expect("the server runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next());
        1024 * kibibytes
            .and_then(|number| number.parse::<u64>().ok())
            .expect("Linux says so")
    }

    /// The process of server `id`.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process(&mut self, id: u64) -> &mut Process {
        self.processes
            .get_mut(&id)
            .unwrap_or_else(|| panic!("server {id} does not run"))
    }

    /// Prints each server's last lines.
    pub(crate) fn show_logs(&self) {
        for id in self.ids() {
            let lines = self.log(id);
            let last = lines.len().saturating_sub(LINES_SHOWN);
            eprintln!("--- server {id}, the last of {} lines", lines.len());
            for line in &lines[last..] {
                eprintln!("{line}");
            }
        }
    }

    fn signal(&mut self, id: u64, signal: Signal) {
        self.process(id).signal(signal);
    }

    fn take(&mut self, id: u64) -> Process {
        self.processes
            .remove(&id)
            .unwrap_or_else(|| panic!("server {id} does not run"))
    }

    fn remember(&mut self, id: u64, ended: &Ended) {
        self.earlier
            .entry(id)
            .or_default()
            .extend(ended.stderr.iter().cloned());
    }
}

impl Drop for Cluster {
    /// A failed test shows what its servers had to say.
    fn drop(&mut self) {
        if thread::panicking() {
            self.show_logs();
        }
    }
}

fn server(id: u64, first_port: u16) -> Server {
    Server {
        id,
        host: Ipv4Addr::LOCALHOST.to_string(),
        client_port: first_port,
        rpc_port: first_port + 1,
        http_port: first_port + 2,
        bind: None,
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn try_ask(address: SocketAddr, line: &str) -> Result<String, String> {
    Text::try_connect(address)
        .and_then(|mut text| text.try_ask(line))
        .map_err(|error| error.to_string())
}
