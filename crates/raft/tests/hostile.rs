//! Messages of any content: whatever peers send, a server does not end, unless it is asked to
//! replace what is committed (rule 12), and it stays sound inside.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use quorate_raft::{
    AppendEntries, AppendEntriesReply, Body, Campaign, Candidacy, ClusterId, Config, Configuration,
    Entry, EntryKind, Fetched, HardState, Healed, Heartbeat, HeartbeatReply, Index, Input,
    InstallSnapshot, Instance, Member, Message, Position, Raft, ReadId, Recovered, RequestVote,
    RequestVoteReply, Restart, Seating, Sender, ServerId, Snapshot, Term, Timestamp, WriteId,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const MEMBERS: u64 = 3;
const CLUSTER: ClusterId = ClusterId(7);

/// An entry that seats everyone.
fn configuration(cluster: ClusterId, at: Position) -> Entry {
    let members = (1..=MEMBERS).map(|id| Member {
        id: ServerId(id),
        seat: Some(Instance(id)),
        address: Bytes::new(),
    });
    let configuration = Configuration {
        cluster,
        members: members.collect(),
    };
    Entry {
        term: at.term,
        index: at.index,
        kind: EntryKind::Configuration,
        payload: configuration.encode(),
    }
}

/// Entries of three terms, the first of which seats everyone.
fn log() -> Vec<Entry> {
    let command = |index: u64| Entry {
        term: Term(index.div_ceil(3)),
        index: Index(index),
        kind: EntryKind::Command,
        payload: Bytes::from_static(b"command"),
    };
    let first = configuration(CLUSTER, command(1).position());
    std::iter::once(first).chain((2..=9).map(command)).collect()
}

/// With a snapshot of the first entries, if there are any.
fn recovered(log: &[Entry], held: usize) -> Recovered {
    let Some(last) = log.last() else {
        return Recovered::default();
    };
    Recovered {
        hard_state: HardState {
            term: last.term,
            voted_for: None,
            seating: Seating::Seated {
                cluster: CLUSTER,
                configuration_index: Index(1),
            },
        },
        term_starts: log.iter().step_by(3).map(Entry::position).collect(),
        last: last.position(),
        configurations: vec![log[0].clone()],
        snapshot: held.checked_sub(1).map(|held| Snapshot {
            position: log[held].position(),
            configuration: Some(log[0].clone()),
        }),
        ..Recovered::default()
    }
}

/// One server among peers that send anything.
struct Victim {
    raft: Raft,
    random: StdRng,
    now: Timestamp,
    log: Vec<Entry>,
    unsynced: Vec<WriteId>,
}

impl Victim {
    fn new(seed: u64) -> Victim {
        let random = StdRng::seed_from_u64(seed);
        let config = Config {
            id: ServerId(1),
            members: (1..=MEMBERS)
                .map(|id| (ServerId(id), Bytes::new()))
                .collect(),
            instance: Instance(1),
            restart: Restart(1),
            election_timeout: Duration::from_millis(150)..Duration::from_millis(300),
            heartbeat: Duration::from_millis(50),
            seed,
            append_bytes_max: 100,
            window_bytes_max: 300,
            cache_bytes_max: 200,
            catch_up_bytes_per_second: 1000,
            deferral: Duration::from_millis(5 * (seed % 2)),
        };
        let now = Timestamp(0);
        // Half of them begin in a cluster, half begin one.
        let log = if seed.is_multiple_of(2) {
            log()
        } else {
            Vec::new()
        };
        let held = (seed as usize / 2) % 6;
        let recovered = Recovered {
            recovering: seed % 5 == 4,
            ..recovered(&log, held)
        };
        Victim {
            raft: Raft::new(config, recovered, now),
            random,
            now,
            log,
            unsynced: Vec::new(),
        }
    }

    fn step(&mut self, input: Input) {
        let ticks = matches!(input, Input::Tick);
        self.raft.step(self.now, input);
        self.raft.check();
        let output = self.raft.take_output();
        self.raft.check();
        let next = self.raft.next_deadline();
        assert!(!ticks || next > self.now, "a deadline at {next:?} stays");
        if let Some(write) = output.write {
            if write.begin_behind.is_some() {
                self.log.clear();
            }
            if let Some(from) = write.truncate_from {
                self.log.retain(|entry| entry.index < from);
            }
            self.log.extend(write.entries);
            self.unsynced.push(write.id);
        }
        for fetch in output.fetches {
            let wanted = |entry: &&Entry| entry.index >= fetch.from && entry.index <= fetch.to;
            let entries = self.log.iter().filter(wanted).take(3).cloned().collect();
            self.step(Input::Fetched(Fetched { fetch, entries }));
        }
    }

    fn anything(&mut self) {
        match self.random.random_range(0..60) {
            0 => self.step(Input::Propose(Bytes::from_static(b"proposal"))),
            1 => self.step(Input::Read(ReadId(1))),
            2 => self.step(Input::Transfer),
            18 => self.step(Input::Candidacy(Candidacy::Reluctant)),
            19 => self.step(Input::Candidacy(Candidacy::Willing)),
            3 => self.step(Input::Connected(ServerId(2))),
            15 => self.step(Input::Snapshot(self.raft.applied_snapshot())),
            16 => self.drop_log(),
            17 => self.step(Input::InstallEnded(ServerId(3))),
            4 => {
                let deadline = self.raft.next_deadline();
                if deadline < Timestamp::NEVER {
                    self.now = self.now.max(deadline);
                }
                self.step(Input::Tick);
            }
            5..15 => {
                for write in std::mem::take(&mut self.unsynced) {
                    self.step(Input::Persisted(write));
                }
            }
            _ => {
                let message = self.message();
                self.step(Input::Message(message));
            }
        }
    }

    /// Of what is in the snapshot and on disk, up to anywhere.
    fn drop_log(&mut self) {
        let status = self.raft.status();
        let end = status.snapshot.index.0;
        let until = Index(self.random.random_range(0..=end));
        let found = self.log.iter().find(|entry| entry.index == until);
        if let Some(dropped) = found.map(Entry::position) {
            self.log.retain(|entry| entry.index > until);
            self.step(Input::Dropped(dropped));
        }
    }

    /// Mostly near what is true here, sometimes anything.
    fn number(&mut self, near: u64) -> u64 {
        match self.random.random_range(0..20) {
            0 => u64::MAX - self.random.random_range(0..3),
            1 => self.random.random(),
            2 => self.random.random_range(0..3),
            _ => (near + self.random.random_range(0..4)).saturating_sub(2),
        }
    }

    fn position(&mut self) -> Position {
        let status = self.raft.status();
        Position {
            term: Term(self.number(status.term.0)),
            index: Index(self.number(status.last_log_index.0)),
        }
    }

    fn message(&mut self) -> Message {
        let status = self.raft.status();
        let cluster = status.hard_state.seating.cluster();
        let from = self.random.random_range(2..=MEMBERS);
        let sender = Sender {
            id: ServerId(from),
            cluster: match self.random.random_range(0..1_000) {
                0 => Some(ClusterId(99)),
                1..200 => None,
                _ => cluster,
            },
            instance: Instance(if self.random.random_bool(0.95) {
                from
            } else {
                99
            }),
            restart: Restart(self.random.random_range(1..3)),
            recovering: self.random.random_bool(0.2),
        };
        Message {
            sender,
            term: match self.random.random_range(0..20) {
                0..16 => status.term,
                16..19 => status.term.next(),
                _ => Term(self.number(status.term.0)),
            },
            body: self.body(),
        }
    }

    fn body(&mut self) -> Body {
        let campaigns = [Campaign::PreVote, Campaign::Election, Campaign::Transfer];
        let campaign = campaigns[self.random.random_range(0..3)];
        let last = self.raft.status().last_log_index.0;
        match self.random.random_range(0..10) {
            8 => Body::Healed(Healed {
                restart: Restart(self.random.random_range(0..3)),
                index: Index(self.number(last)),
            }),
            7 => Body::InstallSnapshot(InstallSnapshot {
                snapshot: self.snapshot(),
            }),
            0 => Body::RequestVote(RequestVote {
                campaign,
                last_log: self.position(),
            }),
            1 => Body::RequestVoteReply(RequestVoteReply {
                campaign,
                granted: self.random.random_bool(0.9),
            }),
            2 | 3 => Body::AppendEntries(AppendEntries {
                prev: self.position(),
                entries: self.entries(),
                leader_commit: Index(self.number(last)),
            }),
            4 => Body::AppendEntriesReply(if self.random.random_bool(0.5) {
                AppendEntriesReply::Matches {
                    match_index: Index(self.number(last)),
                }
            } else {
                AppendEntriesReply::Conflict {
                    prev: self.position(),
                    hint: self.position(),
                }
            }),
            5 => Body::Heartbeat(Heartbeat {
                leader_commit: Index(self.number(last)),
                round: self.number(1),
            }),
            6 => Body::HeartbeatReply(HeartbeatReply {
                round: self.number(1),
                match_index: Index(self.number(last)),
            }),
            _ => Body::TimeoutNow,
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        let mut position = self.position();
        position.term = position.term.min(self.raft.status().term);
        let own = self.raft.applied_snapshot().configuration;
        let made = || configuration(CLUSTER, position);
        let configuration = match self.random.random_range(0..10) {
            0 => None,
            1 => Some(configuration(ClusterId(99), position)),
            2 => self.entries().pop(),
            3..6 => Some(made()),
            _ => Some(own.unwrap_or_else(made)),
        };
        Snapshot {
            position,
            configuration,
        }
    }

    fn entries(&mut self) -> Vec<Entry> {
        let mut at = self.position();
        let kinds = [
            EntryKind::NoOp,
            EntryKind::Command,
            EntryKind::Configuration,
        ];
        let mut entries = Vec::new();
        for _ in 0..self.random.random_range(0..4) {
            entries.push(Entry {
                term: at.term,
                index: at.index,
                kind: kinds[self.random.random_range(0..3)],
                payload: Bytes::from_static(b"anything"),
            });
            at.index = Index(at.index.0.wrapping_add(1));
        }
        entries
    }
}

#[test]
fn messages_of_any_content_end_no_server() {
    let (mut led, mut ended, mut malformed, mut installed) = (0, 0, 0, 0);
    for seed in 0..300 {
        let mut victim = Victim::new(seed);
        for _ in 0..2_000 {
            let done = catch_unwind(AssertUnwindSafe(|| victim.anything()));
            let Err(panic) = done else { continue };
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let replaces = said.is_some_and(|said| said.contains("is to be replaced, but"));
            assert!(replaces, "seed {seed}: {said:?}");
            ended += 1;
            break;
        }
        let counters = victim.raft.status().counters;
        led += counters.elections_won;
        malformed += counters.malformed;
        installed += counters.installed;
    }
    println!(
        "led {led} times, {ended} ended by rule 12, {malformed} malformed, {installed} installed"
    );
    assert!(
        led > 100 && malformed > 100 && installed > 100,
        "{led} terms, {malformed} malformed, {installed} installed"
    );
}
