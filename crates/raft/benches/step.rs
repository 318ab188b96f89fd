//! What an entry costs in the core: on a leader of five from the proposal to its commit, and on a
//! follower from the leader's message to its answer.

use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use quorate_raft::{
    AppendEntries, AppendEntriesReply, Body, Config, Entry, EntryKind, Input, Instance, Message,
    Raft, Recovered, Restart, Role, Sender, ServerId, Timestamp,
};

const SERVERS: u64 = 5;

/// 16 commands with values of 256 bytes.
const PAYLOAD: &[u8] = &[b'p'; 5000];

fn server(id: u64) -> Raft {
    let members = (1..=SERVERS).map(|id| (ServerId(id), Bytes::new()));
    let config = Config {
        id: ServerId(id),
        members: members.collect(),
        instance: Instance(id),
        restart: Restart(1),
        election_timeout: Duration::from_millis(150)..Duration::from_millis(300),
        heartbeat: Duration::from_millis(50),
        seed: id,
        append_bytes_max: 1 << 20,
        window_bytes_max: 8 << 20,
        cache_bytes_max: 1 << 20,
        catch_up_bytes_per_second: 20 << 20,
        deferral: Duration::from_millis(5),
    };
    Raft::new(config, Recovered::default(), Timestamp(0))
}

/// A second in the life of five servers whose disks and network take no time: enough to elect a
/// leader and to seat all. Gives them, and what time it is then.
fn cluster() -> (Vec<Raft>, Timestamp) {
    let mut servers: Vec<Raft> = (1..=SERVERS).map(server).collect();
    let mut now = Timestamp(0);
    for _ in 0..1000 {
        now = now + Duration::from_millis(1);
        for raft in &mut servers {
            raft.step(now, Input::Tick);
        }
        loop {
            let messages: Vec<_> = servers.iter_mut().flat_map(|it| turn(it, now)).collect();
            if messages.is_empty() {
                break;
            }
            for (to, message) in messages {
                servers[to.0 as usize - 1].step(now, Input::Message(message));
            }
        }
    }
    (servers, now)
}

/// Writes what there is to write, and gives what is to be sent.
fn turn(raft: &mut Raft, now: Timestamp) -> Vec<(ServerId, Message)> {
    let output = raft.take_output();
    let mut messages = output.messages;
    if let Some(write) = output.write {
        raft.step(now, Input::Persisted(write.id));
        messages.extend(raft.take_output().messages);
    }
    messages
}

fn sender(id: ServerId, leader: &Raft) -> Sender {
    Sender {
        id,
        cluster: leader.status().hard_state.seating.cluster(),
        instance: Instance(id.0),
        restart: Restart(1),
        recovering: false,
    }
}

/// A leader proposes an entry, has it on its own disk, and hears from those to whom it was sent.
fn leader(criterion: &mut Criterion) {
    let (mut servers, now) = cluster();
    servers.retain(|raft| raft.status().role == Role::Leader);
    let mut leader = servers.pop().expect("there is a leader within a second");
    let term = leader.status().term;
    let senders: Vec<Sender> = (1..=SERVERS)
        .map(|id| sender(ServerId(id), &leader))
        .collect();
    let payload = Bytes::from_static(PAYLOAD);
    criterion.bench_function("raft/leader commits 5 KB", |bencher| {
        bencher.iter(|| {
            leader.step(now, Input::Propose(payload.clone()));
            let output = leader.take_output();
            let write = output.write.expect("there is an entry to write");
            leader.step(now, Input::Persisted(write.id));
            for (to, message) in &output.messages {
                if let Body::AppendEntries(append) = &message.body {
                    let match_index = append.prev.index + append.entries.len() as u64;
                    let reply = AppendEntriesReply::Matches { match_index };
                    let message = Message {
                        sender: senders[to.0 as usize - 1],
                        term,
                        body: Body::AppendEntriesReply(reply),
                    };
                    leader.step(now, Input::Message(message));
                }
            }
            let committed = leader.take_output().committed;
            assert_eq!(committed.len(), 1);
        });
    });
}

/// A follower takes an entry, has it on its disk, and answers. It learns that the entry before is
/// committed.
fn follower(criterion: &mut Criterion) {
    let (mut servers, now) = cluster();
    servers.retain(|raft| raft.status().role == Role::Follower);
    let mut follower = servers.pop().expect("there are four");
    let status = follower.status();
    let leader = status.leader.expect("it follows");
    let sender = sender(leader, &follower);
    let (term, mut prev) = (status.term, follower.applied_snapshot().position);
    assert_eq!(prev.index, status.last_log_index);
    let payload = Bytes::from_static(PAYLOAD);
    criterion.bench_function("raft/follower takes 5 KB", |bencher| {
        bencher.iter(|| {
            let entry = Entry {
                term,
                index: prev.index.next(),
                kind: EntryKind::Command,
                payload: payload.clone(),
            };
            let append = AppendEntries {
                prev,
                leader_commit: prev.index,
                entries: vec![entry],
            };
            prev.index = prev.index.next();
            prev.term = term;
            let message = Message {
                sender,
                term,
                body: Body::AppendEntries(append),
            };
            follower.step(now, Input::Message(message));
            let messages = turn(&mut follower, now);
            assert_eq!(messages.len(), 1);
        });
    });
}

criterion_group!(benches, leader, follower);
criterion_main!(benches);
