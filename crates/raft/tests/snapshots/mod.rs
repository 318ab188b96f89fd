//! What the random runs do with snapshots: taken, dropped behind, sent and lost at any moment.

use quorate_raft::{Index, Input, Instance, Message, Restart, ServerId, Snapshot};
use rand::RngExt;

use crate::simulated::{Packet, Server};
use crate::{Event, MS, World};

/// One process: a start of one data directory.
pub(crate) type Life = (Instance, Restart);

fn life_of(server: &Server) -> Life {
    (server.disk.instance, server.disk.restart)
}

/// A snapshot on its way.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) from: (ServerId, Life),
    to: (ServerId, Life),
    snapshot: Snapshot,
    /// What was to be said of it when it began, if that is not asked at the end.
    message: Option<Message>,
}

impl World {
    /// True while this is the same process as it was.
    pub(crate) fn runs(&self, id: ServerId, life: Life) -> bool {
        let server = self.cluster.server(id);
        server.raft.is_some() && life_of(server) == life
    }

    /// A snapshot of the state as it is now; it takes a while until it is on disk.
    pub(crate) fn snapshot(&mut self, id: ServerId) {
        if !self.chance(self.faults.snapshot) {
            return;
        }
        let server = self.cluster.server(id);
        let life = life_of(server);
        let Some(raft) = &server.raft else { return };
        let snapshot = raft.applied_snapshot();
        if snapshot.position.index > raft.status().snapshot.index {
            self.snapshots += 1;
            let after = self.random.random_range(0..200) * MS;
            self.schedule(after, Event::Told(id, life, Input::Snapshot(snapshot)));
        }
    }

    /// The oldest entries go, or all that the disk holds and the snapshot too; of which the server
    /// is told after a while.
    pub(crate) fn drop_log(&mut self, id: ServerId) {
        if !self.chance(self.faults.drop_log) {
            return;
        }
        let server = self.cluster.server(id);
        let life = life_of(server);
        let Some(raft) = &server.raft else { return };
        let (begin, end) = (server.disk.before().index.0, raft.status().snapshot.index.0);
        if begin >= end {
            return;
        }
        let until = self.random.random_range(begin + 1..=end);
        let until = Index(if self.random.random_bool(0.5) {
            end
        } else {
            until
        });
        // What a write that is under way replaces is no part of the snapshot.
        let applied = self.cluster.committed.get(&until).map(|(term, _)| *term);
        let disk = &mut self.cluster.server_mut(id).disk;
        let entry = disk.entries().iter().find(|entry| entry.index == until);
        if entry.map(|entry| entry.term) != applied {
            return;
        }
        if let Some(dropped) = disk.drop_until(until) {
            self.drops += 1;
            let after = self.random.random_range(0..20) * MS;
            self.schedule(after, Event::Told(id, life, Input::Dropped(dropped)));
        }
    }

    /// The newest snapshot of one server is sent to another.
    pub(crate) fn install(&mut self, from: ServerId, to: ServerId) {
        let (sender, receiver) = (self.cluster.server(from), self.cluster.server(to));
        let Some(snapshot) = sender.disk.snapshot().cloned() else {
            panic!("server {from} has no snapshot for {to}");
        };
        let raft = sender.raft.as_ref();
        let message = raft.and_then(|raft| raft.install_message(snapshot.clone()));
        let early = self.random.random_bool(0.3);
        let transfer = Box::new(Transfer {
            from: (from, life_of(sender)),
            to: (to, life_of(receiver)),
            snapshot,
            message: message.filter(|_| early),
        });
        let after = self.random.random_range(1..300) * MS;
        self.schedule(after, Event::Transferred(transfer));
    }

    pub(crate) fn transferred(&mut self, transfer: Transfer) {
        let Transfer {
            from: (from, life),
            to: (to, to_life),
            snapshot,
            message,
        } = transfer;
        if !self.runs(from, life) {
            return;
        }
        let raft = self.cluster.server(from).raft.as_ref();
        let message = message.or_else(|| raft.and_then(|raft| raft.install_message(snapshot)));
        let arrives = self.runs(to, to_life) && !self.chance(self.faults.lost_transfer);
        if let Some(message) = message.filter(|_| arrives) {
            self.send(Packet { from, to, message });
        }
        let after = self.random.random_range(0..20) * MS;
        self.schedule(after, Event::Told(from, life, Input::InstallEnded(to)));
    }
}
