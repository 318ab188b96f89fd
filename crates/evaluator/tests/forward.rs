//! What followers send to the leader for their clients (rule 56).

mod cluster;

use command::{Outcome, Reply};
use quorate_evaluator::{
    Batch, ConnectionId, ForwardBody, ForwardMessage, Input, Limits, REPLY_BYTES_MAX, Stream,
};
use raft::{Restart, ServerId};

use cluster::*;

/// What an increment was answered that stands alone.
fn number(outcomes: &[Outcome]) -> u64 {
    match outcomes {
        [Outcome::Done(Reply::Number(number))] => *number,
        other => panic!("{other:?} is no number"),
    }
}

/// A cluster with a counter `n` that is 0.
fn counting() -> (Cluster, ServerId, ServerId) {
    let (mut it, leader, follower) = Cluster::forwarding(3, Limits::default());
    assert_eq!(it.ask(leader, 99, vec![set("n", "0")]), [stored()]);
    (it, leader, follower)
}

fn counter(it: &mut Cluster, leader: ServerId) -> u64 {
    let outcomes = it.ask(leader, 98, vec![get("n")]);
    let value = value(&outcomes[0]).expect("it was set");
    value.parse().expect("it counts")
}

/// The follower is told that its stream is over.
fn is_broken(message: &ForwardMessage) -> bool {
    matches!(message.body, ForwardBody::Broken)
}

#[test]
fn a_client_of_a_follower_is_answered_as_by_the_leader() {
    let (mut it, leader, follower) = Cluster::forwarding(3, Limits::default());
    let commands = vec![set("k", "0"), get("k"), stats(), incr("k"), get("k")];
    let outcomes = it.ask(follower, 1, commands);
    assert_eq!(outcomes[0], stored());
    assert_eq!(value(&outcomes[1]), Some("0"));
    assert_eq!(stat(&outcomes[2], "quorate_role"), "Follower");
    assert_eq!(stat(&outcomes[2], "quorate_followers"), "forward");
    assert_eq!(outcomes[3], Outcome::Done(Reply::Number(1)));
    assert_eq!(value(&outcomes[4]), Some("1"));
    assert_eq!(value(&it.ask(leader, 1, vec![get("k")])[0]), Some("1"));
}

#[test]
fn a_read_through_a_follower_sees_what_was_acknowledged_elsewhere() {
    let (mut it, leader, follower) = counting();
    for number in 1..20 {
        let other = it.others(leader)[1];
        it.ask(other, 1, vec![set("k", &number.to_string())]);
        let outcomes = it.ask(follower, 1, vec![get("k")]);
        assert_eq!(value(&outcomes[0]), Some(number.to_string().as_str()));
    }
}

#[test]
fn a_follower_that_knows_no_leader_or_has_no_way_to_it_never_redirects() {
    let (mut it, leader, follower) = Cluster::forwarding(3, Limits::default());
    it.input(follower, Input::ForwardLink(leader, false));
    let outcomes = it.ask(follower, 1, vec![set("k", "v"), stats(), get("k")]);
    assert_eq!((&outcomes[0], &outcomes[2]), (&no_leader(), &no_leader()));
    it.input(follower, Input::ForwardLink(leader, true));
    it.settle();
    assert_eq!(it.ask(follower, 2, vec![set("k", "v")]), [stored()]);
    it.isolate(follower);
    it.run_ms(151);
    assert_eq!(it.ask(follower, 3, vec![get("k")]), [no_leader()]);
}

#[test]
fn what_is_for_one_server_alone_is_not_forwarded() {
    let (mut it, leader, follower) = counting();
    let ask = |it: &mut Cluster, id| {
        let batch = Batch {
            connection: ConnectionId(1),
            epoch: 0,
            commands: vec![get("n")],
            is_local: true,
        };
        it.input(id, Input::Batch(batch));
        it.settle();
        it.outcomes(id, 1)
    };
    assert_eq!(ask(&mut it, follower), [no_leader()]);
    assert_eq!(value(&ask(&mut it, leader)[0]), Some("0"));
}

#[test]
fn a_message_that_comes_again_is_not_carried_out_again() {
    let (mut it, leader, follower) = counting();
    it.keeps_forwards = true;
    it.ask(follower, 1, vec![incr("n")]);
    it.disconnect(follower, 1);
    it.settle();
    let kept = it.kept.clone();
    assert_eq!(kept.len(), 2, "the command, and that nobody waits");
    it.deliver_kept();
    it.kept = kept.clone();
    it.deliver_kept();
    it.settle();
    it.kept = kept;
    it.deliver_kept();
    it.settle();
    assert_eq!(counter(&mut it, leader), 1);
    assert_eq!(it.status(leader).forwarding.repeated, 4);
}

#[test]
fn what_comes_behind_a_missing_message_is_not_carried_out() {
    let (mut it, leader, follower) = counting();
    it.keeps_forwards = true;
    it.ask(follower, 1, vec![incr("n")]);
    it.ask(follower, 1, vec![incr("n"), get("n")]);
    it.ask(follower, 2, vec![get("n")]);
    it.kept.remove(0);
    it.deliver_kept();
    it.settle();
    assert!(it.kept.iter().all(|(_, _, message)| is_broken(message)));
    it.deliver_kept();
    it.settle();
    let unknown = Outcome::Unknown;
    let outcomes = it.outcomes(follower, 1);
    assert_eq!(outcomes, [unknown.clone(), unknown, no_leader()]);
    assert_eq!(it.outcomes(follower, 2), [no_leader()]);
    assert_eq!(counter(&mut it, leader), 0);
    it.keeps_forwards = false;
    let again = it.ask(follower, 3, vec![incr("n")]);
    assert_eq!(number(&again), 1, "another stream has begun");
}

#[test]
fn a_broken_connection_leaves_writes_unknown_and_reads_undone() {
    let (mut it, leader, follower) = counting();
    it.keeps_forwards = true;
    it.ask(follower, 1, vec![get("n"), incr("n"), stats(), get("n")]);
    it.input(follower, Input::ForwardLink(leader, false));
    it.settle();
    let outcomes = it.outcomes(follower, 1);
    assert_eq!(outcomes[..2], [no_leader(), Outcome::Unknown]);
    assert!(is_stats(&outcomes[2]));
    assert_eq!(outcomes[3], no_leader());
    it.deliver_kept();
    it.settle();
    assert_eq!(counter(&mut it, leader), 1, "it had got there");
    it.input(follower, Input::ForwardLink(leader, true));
    it.settle();
    it.keeps_forwards = false;
    it.deliver_kept();
    it.settle();
    assert_eq!(it.outcomes(follower, 1), [], "an outcome is given once");
    let same_epoch = it.ask(follower, 1, vec![incr("n")]);
    assert_eq!(same_epoch, [no_leader()], "the refusal was not shown yet");
    it.send_batch(follower, 1, 1, vec![incr("n")]);
    it.settle();
    assert_eq!(number(&it.outcomes(follower, 1)), 2);
}

#[test]
fn what_is_left_of_an_older_stream_comes_too_late() {
    let (mut it, leader, follower) = counting();
    it.keeps_forwards = true;
    it.ask(follower, 1, vec![incr("n")]);
    let old = std::mem::take(&mut it.kept);
    it.input(follower, Input::ForwardLink(leader, false));
    it.input(follower, Input::ForwardLink(leader, true));
    it.settle();
    it.keeps_forwards = false;
    it.send_batch(follower, 1, 1, vec![incr("n")]);
    it.settle();
    assert_eq!(
        it.outcomes(follower, 1),
        [Outcome::Unknown, Outcome::Done(Reply::Number(1))]
    );
    it.kept = old;
    it.deliver_kept();
    it.settle();
    assert_eq!(counter(&mut it, leader), 1);
    assert_eq!(it.status(leader).forwarding.late, 1);
}

#[test]
fn a_forwarded_command_is_never_forwarded_again() {
    let (mut it, leader, follower) = counting();
    let other = it.others(leader)[1];
    it.keeps_forwards = true;
    it.ask(follower, 1, vec![incr("n"), get("n")]);
    let (_, _, message) = it.kept.remove(0);
    it.deliver(other, Input::Forward(follower, message));
    it.settle();
    let [(from, to, answer)] = &it.kept[..] else {
        panic!("{:?} is more than an answer", it.kept);
    };
    assert_eq!((*from, *to), (other, follower));
    let ForwardBody::Outcomes { outcomes, .. } = &answer.body else {
        panic!("{answer:?} has no outcomes");
    };
    assert_eq!(outcomes[..], [no_leader(), no_leader()]);
    assert_eq!(counter(&mut it, leader), 0);
}

#[test]
fn a_leader_carries_out_nothing_that_was_meant_for_another_term() {
    let (mut it, leader, follower) = counting();
    it.keeps_forwards = true;
    it.ask(follower, 1, vec![incr("n")]);
    for (_, _, message) in &mut it.kept {
        if let ForwardBody::Commands(commands) = &mut message.body {
            commands.term.0 -= 1;
        }
    }
    it.deliver_kept();
    it.keeps_forwards = false;
    it.settle();
    it.deliver_kept();
    it.settle();
    assert_eq!(it.outcomes(follower, 1), [no_leader()]);
    assert_eq!(counter(&mut it, leader), 0);
}

#[test]
fn another_leader_refuses_all_that_was_sent_to_the_one_before() {
    let (mut it, leader, follower) = counting();
    it.keeps_forwards = true;
    it.ask(follower, 1, vec![incr("n"), get("n")]);
    it.isolate(leader);
    for _ in 0..880 {
        it.run_ms(1);
        if it.leader().is_some_and(|newest| newest != leader) {
            break;
        }
    }
    it.run_ms(1);
    let outcomes = it.outcomes(follower, 1);
    assert_eq!(outcomes, [Outcome::Unknown, no_leader()], "at once");
    it.heal();
    it.deliver_kept();
    it.keeps_forwards = false;
    it.run_ms(500);
    let leader = it.leader().unwrap();
    assert_eq!(counter(&mut it, leader), 0, "nobody leads in that term");
}

#[test]
fn a_forwarded_command_is_answered_within_900_ms_and_a_late_outcome_is_nobodys() {
    let (mut it, leader, follower) = counting();
    it.keeps_forwards = true;
    it.ask(follower, 1, vec![incr("n")]);
    it.deliver_kept();
    it.run_ms(899);
    assert_eq!(it.outcomes(follower, 1), []);
    it.run_ms(1);
    assert_eq!(it.outcomes(follower, 1), [Outcome::Unknown]);
    it.send_batch(follower, 1, 1, vec![get("n")]);
    it.settle();
    it.keeps_forwards = false;
    it.deliver_kept();
    it.settle();
    let outcomes = it.outcomes(follower, 1);
    assert_eq!(outcomes.len(), 1, "{outcomes:?}");
    assert_eq!(value(&outcomes[0]), Some("1"));
    assert_eq!(counter(&mut it, leader), 1);
}

#[test]
fn a_refusal_of_the_leader_refuses_what_follows_up_to_its_epoch() {
    let (mut it, leader, follower) = counting();
    let followers = it.others(leader);
    it.stall_disks(&followers);
    it.ask(follower, 1, vec![set("k", "1")]);
    it.run_ms(900);
    assert_eq!(it.outcomes(follower, 1), [Outcome::Unknown]);
    it.heal();
    it.settle();
    let outcomes = it.ask(follower, 1, vec![set("k", "2"), get("k")]);
    assert_eq!(outcomes, [no_leader(), no_leader()]);
    it.send_batch(follower, 1, 1, vec![get("k")]);
    it.settle();
    assert_eq!(value(&it.outcomes(follower, 1)[0]), Some("1"));
}

#[test]
fn the_leader_forgets_the_connections_of_a_follower_that_is_gone() {
    let (mut it, leader, follower) = counting();
    let followers = it.others(leader);
    it.stall_disks(&followers);
    for connection in 1..=10 {
        it.ask(follower, connection, vec![incr("n")]);
    }
    assert_eq!(it.status(leader).commands_owed, 10);
    it.disconnect(follower, 1);
    it.settle();
    assert_eq!(it.status(leader).commands_owed, 9, "nobody waits for one");
    let stream = Stream {
        restart: Restart(u64::MAX),
        number: 0,
    };
    it.input(leader, Input::FollowerGone(follower, stream));
    it.settle();
    assert_eq!(it.status(leader).commands_owed, 0);
}

#[test]
fn a_follower_leaves_clients_alone_while_much_is_with_the_leader() {
    let limits = Limits {
        forwarded_bytes_max: 10_000,
        ..Limits::default()
    };
    let (mut it, leader, follower) = Cluster::forwarding(3, limits);
    let followers = it.others(leader);
    it.stall_disks(&followers);
    let value = "v".repeat(4_000);
    for connection in 1..=2 {
        it.ask(follower, connection, vec![set("k", &value)]);
        assert!(it.evaluator(follower).takes_clients());
    }
    it.ask(follower, 3, vec![set("k", &value)]);
    assert!(!it.evaluator(follower).takes_clients());
    it.heal();
    it.settle();
    assert!(it.evaluator(follower).takes_clients());
}

#[test]
fn a_reply_that_is_too_large_to_be_sent_ends_the_connection() {
    let (mut it, leader, follower) = Cluster::forwarding(3, Limits::default());
    let value = "v".repeat(1 << 20);
    assert_eq!(it.ask(leader, 1, vec![set("k", &value)]), [stored()]);
    let times = |count: usize| {
        let keys = std::iter::repeat_n(key("k"), count);
        command::Command::Read(command::Read::Get {
            keys: keys.collect(),
        })
    };
    let many = REPLY_BYTES_MAX >> 20;
    let outcomes = it.ask(follower, 1, vec![times(many - 1), get("k")]);
    assert_eq!(outcomes.len(), 2);
    assert_eq!(it.ask(follower, 2, vec![times(many), get("k")]), []);
    assert_eq!(it.server(follower).cut_off, [2]);
    assert_eq!(it.status(follower).commands_owed, 0);
    assert_eq!(it.ask(follower, 3, vec![set("k", "v")]), [stored()]);
}

#[test]
fn a_stopping_follower_forwards_nothing_more() {
    let (mut it, _, follower) = counting();
    it.keeps_forwards = true;
    it.ask(follower, 1, vec![incr("n")]);
    it.input(follower, Input::Transfer);
    it.settle();
    assert!(!it.evaluator(follower).may_stop());
    assert_eq!(it.ask(follower, 2, vec![incr("n")]), [no_leader()]);
    it.keeps_forwards = false;
    it.deliver_kept();
    it.settle();
    assert_eq!(number(&it.outcomes(follower, 1)), 1);
    assert!(it.evaluator(follower).may_stop());
}
