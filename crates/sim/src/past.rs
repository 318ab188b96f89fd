//! Clusters that begin with a backup: all servers are restored from one, of a cluster that is no
//! more. To those who judge, its log is the beginning of what is committed.

use std::convert::Infallible;

use bytes::Bytes;
use command::{
    Exptime, ITEM_BYTES_MAX_DEFAULT, LogTime, PayloadEncoder, Preamble, Store, StoreMode, Write,
};
use raft::{ClusterId, Configuration, Entry, EntryKind, Index, Instance, Member, Snapshot, Term};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use wal::{Backup, MemoryDisk, Options as LogOptions, SnapshotEncoder, restore};

use crate::client::all_keys;
use crate::coverage::Coverage;
use crate::host::WALL_START_MS;
use crate::options::{Fault, Options};
use crate::world::World;

/// The cluster that the backup is of.
const CLUSTER: ClusterId = ClusterId(0x0bac_0000);

const ENTRIES_MAX: u64 = 200;

/// How long before the beginning of the world the backup was made, at most.
const AGE_MS_MAX: u64 = 100_000;

const FILE: &str = "backup";

impl World {
    /// Restores all servers from a backup, each with a crash now and then.
    pub(crate) fn begin_with_backup(&mut self) {
        let mut random = StdRng::seed_from_u64(self.options.seed ^ 0x6261_636b);
        let entries = log(&self.options, &mut random);
        let last = entries.last().expect("it has an entry").position();
        self.witness.leads(last.term, WALL_START_MS, 0);
        for entry in &entries {
            // What was done there is nothing that this run has reached.
            let mut coverage = Coverage::default();
            self.witness
                .apply(entry, 0, &mut self.history, &mut coverage);
        }
        self.history.begin_at(self.witness.place());
        let snapshot = Snapshot {
            position: last,
            configuration: entries.first().cloned(),
        };
        self.logs.begin_with(entries);
        let backup = self.backup(snapshot);
        for at in 0..self.hosts.len() {
            self.restore(at, &backup, &mut random);
        }
    }

    /// The state that there is, in a file on a disk.
    fn backup(&mut self, snapshot: Snapshot) -> MemoryDisk {
        let mut bytes = Vec::new();
        let mut sink = |part: &[u8]| {
            bytes.extend_from_slice(part);
            Ok::<(), Infallible>(())
        };
        let Ok(mut encoder) = SnapshotEncoder::begin(CLUSTER, snapshot, &mut sink);
        let Ok(()) = self
            .witness
            .freeze()
            .write_out(1 << 10, &mut |piece| encoder.write(piece, &mut sink));
        let Ok(()) = encoder.finish(&mut sink);
        let disk = MemoryDisk::new();
        disk.put(FILE, &bytes);
        disk
    }

    fn restore(&mut self, at: usize, backup: &MemoryDisk, random: &mut StdRng) {
        let cuts = self.options.has(Fault::PowerCuts);
        let host = &mut self.hosts[at];
        let options = LogOptions {
            server_id: host.id,
            segment_bytes: self.options.segment_bytes,
            seed: random.random(),
            heals: self.options.servers > 2,
        };
        loop {
            if cuts && random.random_bool(0.5) {
                let operations = random.random_range(1..=20);
                host.disk.cut_power_at(host.disk.operations() + operations);
            }
            let read = Backup::open_on(backup.clone(), FILE).expect("it was just written");
            let restored = restore(&host.disk, &options, read);
            let has_power = host.disk.has_power();
            host.disk.cut_power_at(0);
            match restored {
                _ if !has_power => {
                    self.coverage.restores_cut += 1;
                    host.disk = host.disk.after_power_cut(random.random());
                }
                // The power went when all was done.
                Ok(_) | Err(wal::Error::NotEmpty { .. }) => break,
                Err(error) => panic!("server {} is not restored: {error}", host.id),
            }
        }
        host.disk = host.disk.after_kill();
        self.coverage.restores += 1;
    }
}

/// A log of one term that begins with its configuration, as every log does.
fn log(options: &Options, random: &mut StdRng) -> Vec<Entry> {
    let term = Term(random.random_range(1..=10));
    let entry = |index, kind, payload| Entry {
        index: Index(index),
        term,
        kind,
        payload,
    };
    let members = (1..=options.servers + 1).map(|id| Member {
        id: raft::ServerId(id),
        seat: Some(Instance(1000 + id)),
        address: Bytes::from_static(b"elsewhere"),
    });
    let configuration = Configuration {
        cluster: CLUSTER,
        members: members.collect(),
    };
    let first = entry(1, EntryKind::Configuration, configuration.encode());
    let count = random.random_range(1..=ENTRIES_MAX);
    let begun_ms = WALL_START_MS - random.random_range(0..AGE_MS_MAX);
    let keys = all_keys(options);
    let commands = (0..count).map(|number| {
        let mut encoder = PayloadEncoder::new();
        for _ in 0..random.random_range(1..=3) {
            encoder.push(&Write::Store(Store {
                mode: StoreMode::Set,
                key: keys[random.random_range(0..keys.len())].clone(),
                flags: random.random_range(0..3),
                // Some are over before the restored cluster begins.
                exptime: Exptime([0, 0, 50, 105][random.random_range(0..4)]),
                value: Bytes::from(random.random_range(0..1_000_000).to_string()),
            }));
        }
        let payload = encoder.finish(&Preamble {
            log_time: LogTime(begun_ms + number),
            item_bytes_max: ITEM_BYTES_MAX_DEFAULT as u32,
            memory_limit_bytes: 0,
            mark: None,
        });
        entry(2 + number, EntryKind::Command, payload)
    });
    let commands: Vec<Entry> = commands.collect();
    std::iter::once(first).chain(commands).collect()
}
