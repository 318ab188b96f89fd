//! What a command costs a leader of five between the connection and the disk: the evaluator, the core
//! and the store together.

#[path = "../tests/cluster/mod.rs"]
mod cluster;

use command::Command;
use criterion::{Criterion, criterion_group, criterion_main};
use quorate_evaluator::{Batch, ConnectionId, Evaluator, Input, Now, Outcomes};
use raft::{
    AppendEntriesReply, Body, HeartbeatReply, Instance, Message, Restart, Sender, ServerId, Term,
};

use cluster::{Cluster, get, set};

/// The followers of a leader, which answer at once.
struct Followers {
    senders: Vec<Sender>,
    term: Term,
}

impl Followers {
    fn of(leader: &Evaluator, ids: &[ServerId]) -> Followers {
        let sender = |id: &ServerId| Sender {
            id: *id,
            cluster: leader.seating().cluster(),
            instance: Instance(100 + id.0),
            restart: Restart(1),
            recovering: false,
        };
        Followers {
            senders: ids.iter().map(sender).collect(),
            term: leader.raft().status().term,
        }
    }

    /// What this one says to that.
    fn reply(&self, to: ServerId, message: &Message) -> Message {
        let body = match &message.body {
            Body::AppendEntries(append) => {
                let match_index = append.prev.index + append.entries.len() as u64;
                Body::AppendEntriesReply(AppendEntriesReply::Matches { match_index })
            }
            Body::Heartbeat(heartbeat) => Body::HeartbeatReply(HeartbeatReply {
                round: heartbeat.round,
                match_index: heartbeat.leader_commit,
            }),
            other => panic!("{other:?} is sent to a follower that is level"),
        };
        Message {
            sender: self.senders[to.0 as usize - 1],
            term: self.term,
            body,
        }
    }
}

/// A command from its batch to its outcome, with the disk and the followers at no cost.
fn carry_out(
    leader: &mut Evaluator,
    followers: &Followers,
    now: Now,
    command: Command,
) -> Vec<Outcomes> {
    let batch = Batch {
        connection: ConnectionId(1),
        epoch: 0,
        commands: vec![command],
        is_local: false,
    };
    leader.step(now, Input::Batch(batch));
    let output = leader.take_output(now);
    if let Some(write) = output.write {
        leader.step(now, Input::Persisted(write.id));
    }
    for (to, message) in &output.messages {
        leader.step(now, Input::Message(followers.reply(*to, message)));
    }
    let outcomes = leader.take_output(now).outcomes;
    assert_eq!(outcomes.len(), 1);
    outcomes
}

fn turns(criterion: &mut Criterion) {
    let mut cluster = Cluster::serving(5);
    let id = cluster.leader().expect("there is one");
    let (ids, now) = (cluster.ids(), cluster.now(id));
    let leader = cluster.evaluator(id);
    let followers = Followers::of(leader, &ids);
    let value = "v".repeat(256);
    let commands = [
        ("set", set("key:000000000001", &value)),
        ("get", get("key:000000000001")),
    ];
    for (name, command) in commands {
        criterion.bench_function(&format!("evaluator/{name} on a leader"), |bencher| {
            bencher.iter(|| carry_out(leader, &followers, now, command.clone()));
        });
    }
}

criterion_group!(benches, turns);
criterion_main!(benches);
