//! Consumers that wait for a message: first come, first served, and whoever goes away, or is sent
//! away, takes none.

mod cluster;

use bytes::Bytes;
use command::{
    Command, Outcome, Read, Reply, Take, TopicChange, TopicCounts, TopicSettings, TopicWrite, Write,
};
use quorate_evaluator::{ConnectionId, Input, Limits};
use raft::ServerId;

use cluster::*;

fn change(change: TopicChange) -> Command {
    let topic = key("t");
    Command::Write(Write::Topic(TopicWrite { topic, change }))
}

fn create() -> Command {
    change(TopicChange::Create(TopicSettings::default()))
}

fn push(text: &str) -> Command {
    push_later(text, 0)
}

fn push_later(text: &str, delay: u32) -> Command {
    change(TopicChange::Push {
        message: Bytes::copy_from_slice(text.as_bytes()),
        priority: 0,
        delay,
    })
}

fn take(ttr: Option<u32>, wait: u32) -> Command {
    change(TopicChange::Take(Take { ttr, wait }))
}

fn pop_within(wait: u32) -> Command {
    take(None, wait)
}

fn pop() -> Command {
    take(None, 0)
}

/// The messages in outcomes.
fn messages(outcomes: &[Outcome]) -> Vec<String> {
    let text = |outcome: &Outcome| match outcome {
        Outcome::Done(Reply::Message(message)) => {
            String::from_utf8_lossy(message.data.as_slice()).into_owned()
        }
        other => panic!("{other:?} is no message"),
    };
    outcomes.iter().map(text).collect()
}

const EMPTY: Outcome = Outcome::Done(Reply::Empty);

/// Ready messages of the topic, as the leader has it.
fn ready(it: &mut Cluster, leader: ServerId) -> u64 {
    let outcomes = it.ask(leader, 999, vec![Command::Read(Read::Topics)]);
    match &outcomes[..] {
        [Outcome::Done(Reply::Topics(topics))] => match &topics[..] {
            [TopicCounts { counts, .. }] => counts.ready,
            other => panic!("{other:?} is not one topic"),
        },
        other => panic!("{other:?} is no list"),
    }
}

/// A cluster with an empty topic, and its leader.
fn with_topic() -> (Cluster, ServerId) {
    let mut it = Cluster::serving(3);
    let leader = it.leader().expect("it serves");
    let created = it.ask(leader, 998, vec![create()]);
    assert_eq!(created, [Outcome::Done(Reply::Created)]);
    (it, leader)
}

#[test]
fn of_those_that_wait_the_first_gets_the_first_message() {
    let (mut it, leader) = with_topic();
    for connection in [5, 3, 4] {
        assert_eq!(it.ask(leader, connection, vec![pop_within(60)]), []);
    }
    it.run_ms(5000);
    it.ask(leader, 9, vec![push("a"), push("b")]);
    assert_eq!(messages(&it.outcomes(leader, 5)), ["a"]);
    assert_eq!(messages(&it.outcomes(leader, 3)), ["b"]);
    assert_eq!(it.outcomes(leader, 4), []);
    it.ask(leader, 9, vec![push("c")]);
    assert_eq!(messages(&it.outcomes(leader, 4)), ["c"]);
    assert_eq!(ready(&mut it, leader), 0);
}

#[test]
fn who_waits_goes_before_a_pop_that_stands_behind_the_push() {
    let (mut it, leader) = with_topic();
    assert_eq!(it.ask(leader, 1, vec![pop_within(60)]), []);
    let outcomes = it.ask(leader, 2, vec![push("a"), pop()]);
    assert_eq!(outcomes[1], EMPTY);
    assert_eq!(messages(&it.outcomes(leader, 1)), ["a"]);
}

#[test]
fn a_wait_ends_when_it_is_over_and_not_before() {
    let (mut it, leader) = with_topic();
    assert_eq!(it.ask(leader, 1, vec![pop_within(2)]), []);
    it.run_ms(1999);
    assert_eq!(it.outcomes(leader, 1), []);
    it.run_ms(1);
    assert_eq!(it.outcomes(leader, 1), [EMPTY]);
    it.ask(leader, 9, vec![push("a")]);
    assert_eq!(it.outcomes(leader, 1), []);
    assert_eq!(ready(&mut it, leader), 1);
}

#[test]
fn who_does_not_wait_or_finds_something_is_answered_at_once() {
    let (mut it, leader) = with_topic();
    assert_eq!(it.ask(leader, 1, vec![pop()]), [EMPTY]);
    it.ask(leader, 9, vec![push("a"), push("b")]);
    assert_eq!(messages(&it.ask(leader, 1, vec![pop_within(60)])), ["a"]);
    let reserved = it.ask(leader, 1, vec![take(Some(10), 60)]);
    assert_eq!(messages(&reserved), ["b"]);
}

#[test]
fn a_consumer_that_goes_away_takes_no_message() {
    let (mut it, leader) = with_topic();
    for connection in [1, 2] {
        it.ask(leader, connection, vec![pop_within(60)]);
    }
    it.disconnect(leader, 1);
    it.settle();
    it.ask(leader, 9, vec![push("a")]);
    assert_eq!(messages(&it.outcomes(leader, 2)), ["a"]);
    it.ask(leader, 3, vec![pop_within(60)]);
    it.disconnect(leader, 3);
    it.ask(leader, 9, vec![push("b")]);
    assert_eq!(ready(&mut it, leader), 1);
}

#[test]
fn a_consumer_that_goes_away_before_its_turn_is_proposed_leaves_the_message_to_the_next() {
    let (mut it, leader) = with_topic();
    for connection in [1, 2] {
        it.ask(leader, connection, vec![pop_within(60)]);
    }
    it.send_batch(leader, 9, 0, vec![push("a")]);
    it.disconnect(leader, 1);
    it.settle();
    assert_eq!(messages(&it.outcomes(leader, 2)), ["a"]);
}

#[test]
fn what_becomes_ready_by_itself_wakes_who_waits() {
    let (mut it, leader) = with_topic();
    it.ask(leader, 9, vec![push_later("a", 2)]);
    it.ask(leader, 1, vec![take(Some(3), 60)]);
    assert_eq!(it.outcomes(leader, 1), []);
    it.run_ms(3100);
    assert_eq!(messages(&it.outcomes(leader, 1)), ["a"]);
    it.ask(leader, 2, vec![pop_within(60)]);
    it.run_ms(2000);
    assert_eq!(it.outcomes(leader, 2), []);
    it.run_ms(3100);
    assert_eq!(messages(&it.outcomes(leader, 2)), ["a"]);
}

#[test]
fn what_somebody_else_takes_first_is_waited_for_again() {
    let (mut it, leader) = with_topic();
    it.ask(leader, 9, vec![push_later("a", 2)]);
    it.ask(leader, 1, vec![pop_within(60)]);
    // A pop in the entry that makes it ready is faster than who has to be woken first.
    it.run_ms(1990);
    let mut taken = Vec::new();
    while taken.is_empty() && it.now_ms < 60_000 {
        it.send_batch(leader, 2, 0, vec![pop()]);
        it.run_ms(1);
        taken = it.outcomes(leader, 2);
        taken.retain(|outcome| *outcome != EMPTY);
        taken.extend(it.outcomes(leader, 1));
    }
    assert_eq!(messages(&taken), ["a"]);
    it.ask(leader, 3, vec![pop_within(60)]);
    for text in ["b", "c"] {
        it.ask(leader, 9, vec![push_later(text, 1)]);
        it.run_ms(1100);
    }
    let mut rest = it.outcomes(leader, 1);
    rest.extend(it.outcomes(leader, 3));
    let served = messages(&rest);
    assert_eq!(served[0], "b");
}

#[test]
fn a_dropped_topic_sends_who_waits_away() {
    let (mut it, leader) = with_topic();
    for connection in [1, 2] {
        it.ask(leader, connection, vec![pop_within(60)]);
    }
    it.ask(leader, 9, vec![change(TopicChange::Drop)]);
    for connection in [1, 2] {
        let outcomes = it.outcomes(leader, connection);
        assert_eq!(outcomes, [Outcome::Done(Reply::NotFound)]);
    }
}

#[test]
fn a_deposed_leader_says_of_those_that_wait_that_they_took_nothing() {
    let (mut it, leader) = with_topic();
    it.ask(leader, 1, vec![pop_within(60)]);
    it.isolate(leader);
    it.run_ms(1000);
    assert_eq!(it.outcomes(leader, 1), [no_leader()]);
    it.heal();
    let leader = it.await_leader();
    it.ask(leader, 9, vec![push("a")]);
    assert_eq!(ready(&mut it, leader), 1);
}

#[test]
fn a_wait_that_was_woken_and_is_not_committed_is_of_unknown_outcome() {
    let (mut it, leader) = with_topic();
    it.ask(leader, 1, vec![pop_within(60)]);
    let others = it.others(leader);
    it.stall_disks(&others);
    it.ask(leader, 9, vec![push("a")]);
    it.run_ms(901);
    assert_eq!(it.outcomes(leader, 1), [Outcome::Unknown]);
}

#[test]
fn a_server_that_stops_sends_away_who_waits() {
    let (mut it, leader) = with_topic();
    it.ask(leader, 1, vec![pop_within(60)]);
    it.input(leader, Input::Transfer);
    it.settle();
    assert!(matches!(it.outcomes(leader, 1)[..], [Outcome::NotDone(_)]));
}

#[test]
fn a_follower_that_stops_has_its_clients_answered() {
    let (mut it, leader, follower) = Cluster::forwarding(3, Limits::default());
    it.ask(leader, 998, vec![create()]);
    it.ask(follower, 1, vec![pop_within(60)]);
    it.input(follower, Input::Transfer);
    it.settle();
    assert_eq!(it.outcomes(follower, 1), [EMPTY]);
    assert!(it.evaluator(follower).may_stop());
}

#[test]
fn those_that_wait_are_no_load() {
    let mut it = Cluster::with_limits(
        3,
        Limits {
            owed_commands_max: 8,
            ..Limits::default()
        },
    );
    let leader = it.await_leader();
    it.run_ms(1000);
    it.ask(leader, 998, vec![create()]);
    for connection in 1..=100 {
        it.ask(leader, connection, vec![pop_within(60)]);
    }
    assert!(it.evaluator(leader).takes_clients());
    assert_eq!(it.status(leader).commands_owed, 0);
    let before = it.status(leader).last_log_index;
    it.run_ms(3000);
    assert_eq!(it.status(leader).last_log_index, before, "nobody polls");
    for number in 0..100 {
        it.ask(leader, 999, vec![push(&number.to_string())]);
    }
    for connection in 1..=100u64 {
        let expected = (connection - 1).to_string();
        assert_eq!(messages(&it.outcomes(leader, connection)), [expected]);
    }
}

#[test]
fn a_client_of_a_follower_waits_at_the_leader() {
    let (mut it, leader, follower) = Cluster::forwarding(3, Limits::default());
    it.ask(leader, 998, vec![create()]);
    for connection in [1, 2, 3] {
        it.ask(follower, connection, vec![pop_within(10)]);
    }
    it.run_ms(5000);
    assert_eq!(it.outcomes(follower, 1), []);
    it.ask(follower, 9, vec![push("a")]);
    assert_eq!(messages(&it.outcomes(follower, 1)), ["a"]);
    it.disconnect(follower, 2);
    it.settle();
    it.ask(leader, 9, vec![push("b")]);
    assert_eq!(messages(&it.outcomes(follower, 3)), ["b"]);
    it.ask(follower, 4, vec![pop_within(3)]);
    it.run_ms(2999);
    assert_eq!(it.outcomes(follower, 4), []);
    it.run_ms(2);
    assert_eq!(it.outcomes(follower, 4), [EMPTY]);
}

#[test]
fn a_follower_that_is_not_heard_from_gets_nothing_for_its_clients() {
    let (mut it, leader, follower) = Cluster::forwarding(3, Limits::default());
    it.ask(leader, 998, vec![create()]);
    it.ask(follower, 1, vec![pop_within(60)]);
    it.ask(leader, 2, vec![pop_within(60)]);
    it.isolate(follower);
    it.run_ms(1100);
    it.ask(leader, 9, vec![push("a")]);
    assert_eq!(messages(&it.outcomes(leader, 2)), ["a"]);
    it.ask(leader, 9, vec![push("b")]);
    assert_eq!(ready(&mut it, leader), 1);
    it.heal();
    it.run_ms(300);
    assert_eq!(messages(&it.outcomes(follower, 1)), ["b"]);
}

#[test]
fn a_wait_at_a_leader_that_is_gone_ends_in_time() {
    let (mut it, leader, follower) = Cluster::forwarding(3, Limits::default());
    it.ask(leader, 998, vec![create()]);
    it.ask(follower, 1, vec![pop_within(2)]);
    it.keeps_forwards = true;
    it.run_ms(2899);
    assert_eq!(it.outcomes(follower, 1), []);
    it.run_ms(2);
    assert_eq!(it.outcomes(follower, 1), [Outcome::Unknown]);
}

#[test]
fn who_will_not_wait_any_longer_is_answered_at_once() {
    let (mut it, leader, follower) = Cluster::forwarding(3, Limits::default());
    it.ask(leader, 998, vec![create()]);
    for server in [leader, follower] {
        it.ask(server, 1, vec![pop_within(60)]);
        it.input(server, Input::StopWaiting(ConnectionId(1)));
        it.settle();
        assert_eq!(it.outcomes(server, 1), [EMPTY]);
        // Before it was known that there is nothing.
        it.send_batch(server, 1, 0, vec![pop_within(60)]);
        it.input(server, Input::StopWaiting(ConnectionId(1)));
        it.settle();
        assert_eq!(it.outcomes(server, 1), [EMPTY]);
    }
    it.ask(leader, 9, vec![push("a")]);
    assert_eq!(ready(&mut it, leader), 1);
    it.input(leader, Input::StopWaiting(ConnectionId(77)));
    it.ask(leader, 2, vec![get("k")]);
    it.input(leader, Input::StopWaiting(ConnectionId(2)));
    it.settle();
    assert_eq!(it.outcomes(leader, 2), []);
}

#[test]
fn one_that_has_something_behind_it_does_not_wait() {
    let (mut it, leader) = with_topic();
    let outcomes = it.ask(leader, 1, vec![pop_within(60), push("a")]);
    assert_eq!(outcomes, [EMPTY, Outcome::Done(Reply::Pushed(1))]);
    it.ask(leader, 1, vec![pop(), pop_within(60)]);
    let outcomes = it.ask(leader, 1, vec![push("b")]);
    assert_eq!(outcomes, [EMPTY, Outcome::Done(Reply::Pushed(2))]);
    assert_eq!(ready(&mut it, leader), 1);
}
