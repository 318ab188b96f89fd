//! The end of a run: everything is healed, and the cluster has to make progress, to know all that
//! it acknowledged, and to agree.

use raft::ServerId;
use wal::Disk;

use crate::client::{Client, all_keys, read, set_marked};
use crate::options::Fault;
use crate::world::{Event, MS, SECOND, World};

/// A fresh write and a read of everything succeed within this time.
const PROGRESS_NS: u64 = 5 * SECOND;

/// All servers are equal within this time after that.
const AGREE_NS: u64 = 5 * SECOND;

/// Where the end of a run stands.
#[derive(Debug)]
pub(crate) struct Settling {
    /// The client that tries.
    client: usize,
    /// By when this must have succeeded.
    by: u64,
    wrote: bool,
    read: bool,
    /// Commands that were answered as done when the last one was sent.
    done_before: u64,
}

impl World {
    /// No more faults: all links are whole, all servers run.
    pub(crate) fn heal(&mut self) {
        self.note(format_args!("everything is healed"), &[]);
        self.healed = true;
        self.cuts.clear();
        for client in 0..self.clients.len() {
            self.client_leaves(client);
        }
        for id in self.ids() {
            self.resume(id);
            let host = self.host_mut(id);
            host.stalled_until = 0;
            host.fails_sync = false;
            host.disk.set_full(false);
            self.prepare(id);
            self.schedule(0, Event::Start(id));
        }
        self.clients.push(Client::new());
        self.settling = Some(Settling {
            client: self.clients.len() - 1,
            by: self.now + PROGRESS_NS,
            wrote: false,
            read: false,
            done_before: 0,
        });
        self.schedule(10 * MS, Event::Settle);
    }

    /// Tries a write, then a read of everything, then waits until all servers are equal.
    pub(crate) fn settle(&mut self) {
        self.schedule(10 * MS, Event::Settle);
        let now = self.now;
        let Some(settling) = &self.settling else {
            return;
        };
        let (client, wrote, read_all, by) =
            (settling.client, settling.wrote, settling.read, settling.by);
        // One that was told to stop before may only now do so.
        for id in self.ids() {
            if self.host(id).process.is_none() {
                self.schedule(0, Event::Start(id));
            }
        }
        if wrote && read_all {
            match self.disagreement().or_else(|| self.overdue()) {
                None => self.finish(),
                Some(why) => assert!(now <= by, "the servers do not agree: {why}"),
            }
            return;
        }
        assert!(
            now <= by,
            "no {} succeeds within 5 s after everything was healed: {}",
            if wrote { "read" } else { "write" },
            self.states(),
        );
        match &self.clients[client].connection {
            None => self.client_connects(client),
            Some(connection) if connection.waits.is_empty() => {
                let id = self.history.next();
                let request = match wrote {
                    false => set_marked("key0", id),
                    true => read(all_keys(&self.options), true),
                };
                let done = self.clients[client].done;
                if let Some(settling) = &mut self.settling {
                    settling.done_before = done;
                }
                self.client_sends(client, vec![request]);
            }
            Some(connection) if now > connection.sent_at + 2 * SECOND => {
                self.client_leaves(client);
            }
            Some(_) => {}
        }
    }

    /// The client that tries was told something.
    pub(crate) fn settling_hears(&mut self, client: usize) {
        let now = self.now;
        let done = self.clients[client].done;
        let connection = self.clients[client].connection.as_ref();
        let waits = connection.is_some_and(|connection| !connection.waits.is_empty());
        let Some(settling) = self.settling.as_mut().filter(|it| it.client == client) else {
            return;
        };
        if done > settling.done_before {
            settling.done_before = done;
            match settling.wrote {
                false => settling.wrote = true,
                true => {
                    settling.read = true;
                    settling.by = now + AGREE_NS;
                }
            }
        } else if !waits {
            // Refused: somewhere else, a little later.
            self.client_leaves(client);
        }
    }

    /// The servers that count: one that lost its disk is not let in again.
    fn counting(&self) -> Vec<ServerId> {
        let counting = self.hosts.iter().filter(|host| !host.wiped);
        counting.map(|host| host.id).collect()
    }

    fn disagreement(&self) -> Option<String> {
        let committed = self.logs.committed_index();
        for id in self.counting() {
            let Some(process) = &self.host(id).process else {
                return Some(format!("server {id} does not run"));
            };
            let status = process.evaluator.status();
            if status.last_applied != committed || status.last_log_index != committed {
                return Some(format!("committed is {committed}; {}", self.states()));
            }
            if process.evaluator.raft().status().recovering {
                return Some(format!("server {id} is recovering"));
            }
            if status.commands_owed > 0 {
                return Some(format!("server {id} owes {} answers", status.commands_owed));
            }
        }
        None
    }

    /// Something that should have fallen due by the leader's clock (rule 49).
    fn overdue(&self) -> Option<String> {
        if self.options.has(Fault::Jumps) {
            // A leader whose clock has jumped ahead is held back (rule 50).
            return None;
        }
        let due = self.witness.next_due()?;
        let leads = |host: &&crate::host::Host| {
            let process = host.process.as_ref();
            process.is_some_and(|process| {
                let status = process.evaluator.status();
                status.role == "Leader" && status.quorum
            })
        };
        let leader = self.hosts.iter().find(leads)?;
        let now = leader.now(self.now).wall.seconds();
        (due + 1 < now).then(|| format!("something is due at {due}, and it is {now}"))
    }

    fn finish(&mut self) {
        let committed = self.logs.committed_index();
        for id in self.counting() {
            self.check_state(id, committed);
            self.check_state_agrees(id);
        }
        for id in self.ids() {
            let host = self.host(id);
            let status = host.process.as_ref().map(|it| it.evaluator.status());
            if let Some(status) = status {
                self.count(status.raft);
                self.count_forwards(status.forwarding);
            }
            let names = self.host(id).disk.list().unwrap_or_default();
            let segments = names.iter().filter(|name| name.starts_with("wal-")).count();
            self.coverage.segments += (segments as u64).saturating_sub(1);
        }
        self.note(
            format_args!("all servers are equal at index {committed}"),
            &committed.0.to_le_bytes(),
        );
        self.ends();
    }

    fn states(&self) -> String {
        let mut states = String::new();
        for host in &self.hosts {
            let Some(process) = &host.process else {
                states += &format!("server {} is down; ", host.id);
                continue;
            };
            let status = process.evaluator.status();
            states += &format!(
                "server {}{} is a {} in term {}, applied {}, committed {}, log {}, synced {}; ",
                host.id,
                if host.wiped { " (wiped)" } else { "" },
                status.role,
                status.term,
                status.last_applied,
                status.commit_index,
                status.last_log_index,
                status.persisted_index,
            );
        }
        states
    }
}
