//! Servers compare their states, and one whose own is not that of a majority serves no more
//! (rule 47).

mod cluster;

use std::time::Duration;

use quorate_evaluator::Limits;
use raft::ServerId;

use cluster::*;

const INTERVAL_MS: u64 = 1000;

fn serving(servers: u64) -> (Cluster, ServerId) {
    let limits = Limits {
        state_hash_interval: Duration::from_millis(INTERVAL_MS),
        ..Limits::default()
    };
    let mut cluster = Cluster::with_limits(servers, limits);
    let leader = cluster.await_leader();
    (cluster, leader)
}

/// Writes for some intervals, to whoever leads.
fn write_for(it: &mut Cluster, intervals: u64) {
    for number in 0..intervals * 10 {
        if let Some(leader) = it.leader().filter(|leader| it.status(*leader).serves) {
            it.send_batch(
                leader,
                1000 + number,
                0,
                vec![set("k", &number.to_string())],
            );
        }
        it.run_ms(INTERVAL_MS / 10);
    }
}

#[test]
fn equal_states_are_found_equal_on_all_servers() {
    let (mut it, leader) = serving(3);
    write_for(&mut it, 5);
    let hashes: Vec<_> = it
        .ids()
        .iter()
        .map(|id| it.status(*id).state_hash)
        .collect();
    let first = hashes[0].expect("it was hashed");
    assert!(hashes.iter().all(|hash| *hash == Some(first)), "{hashes:?}");
    assert!(first.index.0 > 20, "{first:?} is not of the last interval");
    for id in it.ids() {
        assert_eq!(it.status(id).differs_at, None);
        // Each mark but the first has brought a hash to be compared.
        assert!(it.status(id).state_hashes_compared >= 3);
    }
    assert_eq!(it.leader(), Some(leader));
}

#[test]
fn a_server_whose_state_differs_stops_serving_and_hands_over() {
    let (mut it, old) = serving(3);
    write_for(&mut it, 3);
    it.server(old).misled = true;
    write_for(&mut it, 3);
    assert!(it.status(old).differs_at.is_some());
    let new = it.leader().expect("another leads");
    assert_ne!(new, old);
    assert_eq!(it.ask(new, 1, vec![set("k", "new")]), [stored()]);
    assert_eq!(it.ask(old, 1, vec![get("k")]), [redirect(new)]);
    for id in it.others(old) {
        assert_eq!(it.status(id).differs_at, None);
    }
    // It never leads again, though there is nobody else.
    it.crash(new);
    let other = it.others(old).into_iter().find(|id| *id != new);
    it.crash(other.expect("there are three"));
    it.start(new);
    it.run_ms(3000);
    assert_eq!(it.leader(), Some(new));
}

#[test]
fn a_follower_whose_state_differs_never_leads_and_freezes_no_snapshot() {
    let limits = Limits {
        state_hash_interval: Duration::from_millis(INTERVAL_MS),
        snapshot_entries: 10,
        ..Limits::default()
    };
    let mut it = Cluster::with_limits(3, limits);
    let leader = it.await_leader();
    let follower = it.others(leader)[0];
    it.server(follower).misled = true;
    write_for(&mut it, 3);
    assert!(it.status(follower).differs_at.is_some());
    // The one that was under way.
    let frozen = it.server(follower).frozen.drain(..).count();
    assert_eq!(frozen, 1);
    it.input(follower, quorate_evaluator::Input::SnapshotFailed);
    it.run_ms(11_000);
    write_for(&mut it, 3);
    assert_eq!(it.server(follower).frozen.len(), 0);
    it.crash(leader);
    it.run_ms(3000);
    assert_eq!(
        it.leader(),
        it.others(leader).into_iter().find(|id| *id != follower)
    );
}

#[test]
fn while_no_majority_agrees_nobody_is_found_wrong() {
    let (mut it, leader) = serving(2);
    let follower = it.others(leader)[0];
    it.server(follower).misled = true;
    write_for(&mut it, 5);
    for id in it.ids() {
        assert_eq!(it.status(id).differs_at, None);
        assert_eq!(it.status(id).state_hashes_compared, 0);
    }
}

#[test]
fn without_writes_nothing_is_marked() {
    let (mut it, leader) = serving(3);
    write_for(&mut it, 3);
    let before = it.status(leader).last_log_index;
    it.run_ms(10 * INTERVAL_MS);
    assert_eq!(it.status(leader).last_log_index, before);
}
