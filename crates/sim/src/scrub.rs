//! Servers read again what is on their disks, and replace what has rotted while they go on.

use evaluator::Input;
use raft::{Index, ServerId};
use wal::{Error, Part, Scrubbed};

use crate::world::{Event, MS, World};

/// From one file to the next, at most.
const SCRUB_NS: u64 = 100 * MS;

impl World {
    /// A server reads the next of its files, and goes on like that as long as it runs.
    pub(crate) fn scrub(&mut self, id: ServerId) {
        let after = self.up_to(SCRUB_NS);
        self.schedule(after, Event::Scrub(id));
        let Some(process) = &mut self.host_mut(id).process else {
            return;
        };
        let looked = process.scrub.next_file(&mut |_| ());
        let looked = looked.unwrap_or_else(|error| panic!("server {id} lists no files: {error}"));
        let (what, rotten) = match looked {
            Scrubbed::Sound | Scrubbed::PassEnded => return,
            Scrubbed::Misread(rotten) => ("misreads", rotten),
            Scrubbed::Rotten(rotten) => ("has on its disk", rotten),
        };
        let host = self.host(id);
        assert!(
            host.has_rotted || host.misreads,
            "server {id} finds what nobody did: {rotten}"
        );
        self.note(format_args!("server {id} {what}: {rotten}"), &[]);
        if what == "misreads" {
            return;
        }
        self.coverage.scrub_hits += 1;
        self.replace(id, rotten.part);
    }

    /// A server has a snapshot take the place of what it can't read any more.
    pub(crate) fn replace(&mut self, id: ServerId, rotten: Part) {
        let Some(process) = &mut self.host_mut(id).process else {
            return;
        };
        match rotten {
            Part::Segment(sequence) => {
                process.snapshot_work.rotten = Some(sequence);
                self.drop_log(id);
            }
            Part::Snapshot(position) => {
                process.wal.snapshots().give_up(position);
                self.peer_input(id, Input::SnapshotWanted(Index(0)));
            }
        }
    }

    /// The log writer has a rotten segment go as soon as a snapshot has what is in it.
    pub(crate) fn give_up(&mut self, id: ServerId, segment: u64) {
        let Some(process) = &mut self.host_mut(id).process else {
            return;
        };
        match process.wal.give_up_segment(segment) {
            Ok(Some(index)) => self.peer_input(id, Input::SnapshotWanted(index)),
            Ok(None) => {}
            Err(Error::NoSpace { .. }) => self.coverage.out_of_space += 1,
            Err(error) => panic!("server {id} does not give up segment {segment}: {error}"),
        }
    }

    /// A snapshot up to this entry is durable, and the core knows of it.
    pub(crate) fn drop_given_up(&mut self, id: ServerId, newest: Index) {
        let Some(process) = &mut self.host_mut(id).process else {
            return;
        };
        let dropped = process.wal.drop_given_up(newest);
        let dropped = dropped.unwrap_or_else(|error| panic!("server {id} drops no log: {error}"));
        if let Some(position) = dropped {
            self.coverage.rotten_logs_replaced += 1;
            self.note(
                format_args!("the rotten log of server {id} begins behind {position:?}"),
                &[],
            );
            self.peer_input(id, Input::Dropped(position));
        }
    }
}
