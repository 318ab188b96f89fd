//! Meta commands: what only reads is no entry, and of all who meet a stale item one wins, whatever
//! is under way.

mod cluster;

use command::{Command, MetaDelete, MetaGet, MetaHit, Outcome, Read, Reply, Write};
use raft::ServerId;

use cluster::*;

fn mg(name: &str) -> Command {
    Command::Read(Read::MetaGet(MetaGet {
        key: key(name),
        peeks: false,
        touch: None,
        vivify: None,
        recache: None,
        unique: None,
    }))
}

fn mark_stale(name: &str) -> Command {
    Command::Write(Write::MetaDelete(MetaDelete {
        key: key(name),
        compare: None,
        invalidate: true,
        clear: false,
        touch: None,
        unique: None,
    }))
}

fn hit(outcome: &Outcome) -> &MetaHit {
    match outcome {
        Outcome::Done(Reply::MetaHit(hit)) => hit,
        other => panic!("{other:?} is no hit"),
    }
}

/// Stale, won, sent to another.
fn marks(outcome: &Outcome) -> (bool, bool, bool) {
    let hit = hit(outcome);
    (hit.stale, hit.won, hit.token_sent)
}

const FRESH: (bool, bool, bool) = (false, false, false);
const WON: (bool, bool, bool) = (true, true, false);
const LOST: (bool, bool, bool) = (true, false, true);

fn last_log_index(it: &mut Cluster, id: ServerId) -> u64 {
    it.status(id).last_log_index.0
}

#[test]
fn an_mg_that_changes_nothing_is_no_entry() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    it.ask(leader, 1, vec![set("k", "v")]);
    let before = last_log_index(&mut it, leader);
    let outcomes = it.ask(leader, 1, vec![mg("k"), mg("other"), mg("k")]);
    assert_eq!(marks(&outcomes[0]), FRESH);
    assert_eq!(outcomes[1], Outcome::Done(Reply::NotFound));
    assert_eq!(hit(&outcomes[2]).data.value(), b"v");
    assert_eq!(last_log_index(&mut it, leader), before);
}

#[test]
fn of_all_connections_that_meet_a_stale_item_one_wins_and_all_servers_know_it() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    it.ask(leader, 1, vec![set("k", "v"), mark_stale("k")]);
    for connection in 1..=20 {
        it.send_batch(leader, connection, 0, vec![mg("k")]);
    }
    it.settle();
    let told: Vec<_> = (1..=20)
        .map(|connection| marks(&it.outcomes(leader, connection)[0]))
        .collect();
    assert_eq!(told.iter().filter(|marks| **marks == WON).count(), 1);
    assert_eq!(told.iter().filter(|marks| **marks == LOST).count(), 19);
    let before = last_log_index(&mut it, leader);
    assert_eq!(marks(&it.ask(leader, 1, vec![mg("k")])[0]), LOST);
    assert_eq!(last_log_index(&mut it, leader), before, "all is given out");
    it.run_ms(60);
    let hashes: Vec<u64> = it
        .ids()
        .into_iter()
        .map(|id| it.evaluator(id).state_hash())
        .collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}

#[test]
fn a_pipeline_wins_what_it_has_made_stale_itself() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    let batch = vec![
        set("k", "old"),
        mg("k"),
        mark_stale("k"),
        mg("k"),
        mg("k"),
        set("k", "new"),
        mg("k"),
    ];
    let outcomes = it.ask(leader, 1, batch);
    assert_eq!(marks(&outcomes[1]), FRESH);
    assert_eq!(marks(&outcomes[3]), WON);
    assert_eq!(marks(&outcomes[4]), LOST);
    assert_eq!(marks(&outcomes[6]), FRESH);
}

#[test]
fn an_item_that_becomes_stale_while_an_mg_comes_is_won_as_well() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    it.ask(leader, 1, vec![set("k", "v")]);
    // The entry is proposed, and not applied, when the second is taken.
    it.stall_disks(&it.ids());
    it.send_batch(leader, 1, 0, vec![mark_stale("k")]);
    it.settle();
    it.send_batch(leader, 2, 0, vec![mg("k")]);
    it.settle();
    it.heal();
    it.settle();
    assert_eq!(marks(&it.outcomes(leader, 2)[0]), WON);
}
