//! When a state is frozen for a snapshot, what it shows, and what becomes of states that servers
//! receive (rules 43 to 45).

mod cluster;

use std::time::Duration;

use quorate_evaluator::{FrozenState, Input, Limits, LoadedState};
use raft::{Index, Message, Seating, ServerId};
use store::{Loader, Store};

use cluster::*;

/// A leader of three that takes a snapshot after so many entries. They come to all one by one.
fn serving(snapshot_entries: u64) -> (Cluster, ServerId) {
    let limits = Limits {
        snapshot_entries,
        deferral: Duration::ZERO,
        ..Limits::default()
    };
    let mut cluster = Cluster::with_limits(3, limits);
    let leader = cluster.await_leader();
    (cluster, leader)
}

fn write_some(cluster: &mut Cluster, leader: ServerId, count: u64) {
    for number in 0..count {
        let outcomes = cluster.ask(leader, 1, vec![set("k", &number.to_string())]);
        assert_eq!(outcomes, [stored()]);
    }
}

/// The newest state that a server has frozen.
fn take_frozen(cluster: &mut Cluster, id: ServerId) -> FrozenState {
    let frozen = cluster.server(id).frozen.pop();
    frozen.unwrap_or_else(|| panic!("server {id} has frozen nothing"))
}

fn loaded(frozen: &FrozenState) -> LoadedState {
    let mut loader = Loader::new(1);
    let written = frozen.store.write_out(100, &mut |piece| loader.push(piece));
    written.expect("it is a state");
    LoadedState {
        position: frozen.snapshot.position,
        store: Box::new(loader.finish().expect("it is a whole one")),
    }
}

#[test]
fn a_state_is_frozen_after_so_many_entries_and_shows_nothing_later() {
    let (mut it, leader) = serving(20);
    write_some(&mut it, leader, 30);
    let frozen = take_frozen(&mut it, leader);
    assert!(it.server(leader).frozen.is_empty());
    let hash = frozen.store.state_hash();
    assert_ne!(hash, it.evaluator(leader).state_hash());
    assert_eq!(loaded(&frozen).store.state_hash(), hash);
    // The configuration is in it (rule 40).
    assert!(frozen.snapshot.configuration.is_some());
    assert!(frozen.snapshot.position.index.0 <= 20);
}

#[test]
fn each_server_takes_its_first_snapshot_at_another_time_and_none_later_than_it_is_due() {
    let (mut it, leader) = serving(30);
    write_some(&mut it, leader, 40);
    let indexes = [1, 2, 3].map(|id| take_frozen(&mut it, ServerId(id)).snapshot.position.index.0);
    for (index, due) in indexes.into_iter().zip([10, 20, 30]) {
        assert!((due..due + 3).contains(&index), "{indexes:?}");
    }
}

#[test]
fn snapshots_behind_the_first_are_as_far_apart_as_they_are_due() {
    let (mut it, leader) = serving(30);
    write_some(&mut it, leader, 40);
    let id = ServerId(1);
    let first = take_frozen(&mut it, id).snapshot;
    it.deliver(id, Input::SnapshotWritten(first.clone()));
    it.settle();
    // 30 more were applied by then.
    let second = take_frozen(&mut it, id).snapshot;
    let apart = second.position.index - first.position.index;
    assert!((30..33).contains(&apart), "{apart} entries apart");
}

#[test]
fn the_next_state_is_frozen_when_the_one_before_is_written() {
    let (mut it, leader) = serving(10);
    write_some(&mut it, leader, 50);
    let first = take_frozen(&mut it, leader);
    assert!(it.server(leader).frozen.is_empty(), "one at a time");
    it.deliver(leader, Input::SnapshotWritten(first.snapshot.clone()));
    it.settle();
    let second = take_frozen(&mut it, leader);
    assert!(second.snapshot.position.index > first.snapshot.position.index);
}

#[test]
fn a_server_without_a_seat_freezes_nothing_until_it_has_one() {
    let limits = Limits {
        snapshot_entries: 1,
        ..Limits::default()
    };
    let mut it = Cluster::with_limits(3, limits);
    // It has no part in the first election, so its seat comes later than the first entries.
    let unseated = ServerId(3);
    it.isolate(unseated);
    let leader = it.await_leader();
    write_some(&mut it, leader, 10);
    it.heal();
    it.run_ms(1000);
    let Seating::Seated {
        cluster,
        configuration_index,
    } = it.evaluator(unseated).seating()
    else {
        panic!("it has no seat within a second");
    };
    assert!(configuration_index.0 > 10);
    let frozen = take_frozen(&mut it, unseated);
    assert_eq!(frozen.cluster, cluster);
    assert!(frozen.snapshot.position.index >= configuration_index);
}

#[test]
fn after_a_snapshot_for_which_there_was_no_space_the_next_waits_ten_seconds() {
    let (mut it, leader) = serving(10);
    write_some(&mut it, leader, 20);
    it.server(leader).frozen.clear();
    it.deliver(leader, Input::SnapshotFailed);
    write_some(&mut it, leader, 20);
    it.run_ms(9_000);
    assert!(it.server(leader).frozen.is_empty());
    it.run_ms(2_000);
    assert_eq!(it.server(leader).frozen.len(), 1);
}

#[test]
fn a_snapshot_that_is_wanted_is_taken_at_once_and_again_while_nothing_is_written() {
    let (mut it, leader) = serving(1000);
    write_some(&mut it, leader, 20);
    it.run_ms(100);
    assert!(it.server(leader).frozen.is_empty());
    let mut positions = Vec::new();
    for _ in 0..2 {
        it.deliver(leader, Input::SnapshotWanted(Index(0)));
        it.settle();
        let frozen = it.server(leader).frozen.pop().expect("it is wanted");
        assert_eq!(frozen.store.state_hash(), it.evaluator(leader).state_hash());
        positions.push(frozen.snapshot.position);
        it.deliver(leader, Input::SnapshotWritten(frozen.snapshot));
        it.run_ms(1000);
        assert!(it.server(leader).frozen.is_empty(), "one is enough");
    }
    assert_eq!(positions[0], positions[1]);
}

#[test]
fn a_snapshot_that_is_wanted_of_more_than_is_applied_waits_for_that() {
    let (mut it, leader) = serving(1000);
    write_some(&mut it, leader, 20);
    let applied = it.evaluator(leader).status().last_applied;
    it.deliver(leader, Input::SnapshotWanted(applied + 10));
    it.deliver(leader, Input::SnapshotWanted(applied));
    write_some(&mut it, leader, 5);
    assert!(it.server(leader).frozen.is_empty(), "it would not reach");
    write_some(&mut it, leader, 5);
    it.settle();
    let frozen = it.server(leader).frozen.pop().expect("all is applied");
    assert!(frozen.snapshot.position.index >= applied + 10);
}

#[test]
fn a_snapshot_that_is_wanted_while_one_is_written_is_taken_behind_it() {
    let (mut it, leader) = serving(20);
    write_some(&mut it, leader, 20);
    it.settle();
    let first = it.server(leader).frozen.pop().expect("20 were applied");
    it.deliver(leader, Input::SnapshotWanted(Index(1)));
    it.settle();
    assert!(it.server(leader).frozen.is_empty(), "one at a time");
    it.deliver(leader, Input::SnapshotWritten(first.snapshot));
    it.settle();
    assert!(it.server(leader).frozen.pop().is_some());
}

#[test]
fn a_received_state_that_is_older_than_the_present_one_is_given_back() {
    let (mut it, leader) = serving(10);
    write_some(&mut it, leader, 20);
    it.run_ms(100);
    let frozen = it
        .server(leader)
        .frozen
        .pop()
        .expect("10 entries were applied");
    let message: Option<Message> = it
        .evaluator(leader)
        .install_message(frozen.snapshot.clone());
    let message = message.expect("it leads");
    let follower = it.ids().into_iter().find(|id| *id != leader);
    let follower = follower.expect("there are three");
    let before = it.evaluator(follower).state_hash();
    it.deliver(follower, Input::Install(message, loaded(&frozen)));
    it.settle();
    assert_eq!(it.evaluator(follower).state_hash(), before);
    let retired = std::mem::take(&mut it.server(follower).retired);
    let retired: Vec<u64> = retired.iter().map(Store::state_hash).collect();
    assert_eq!(retired, [frozen.store.state_hash()]);
}
