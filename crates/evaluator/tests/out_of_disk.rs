//! A server whose log has no reserve on its disk takes no writes, and lets another lead (rule 9).

mod cluster;

use command::{Command, Outcome, Refusal};
use quorate_evaluator::Input;
use raft::ServerId;

use cluster::*;

fn out_of_disk() -> Outcome {
    Outcome::NotDone(Refusal::OutOfDisk)
}

fn fill(cluster: &mut Cluster, ids: &[ServerId]) {
    for id in ids {
        cluster.input(*id, Input::Reserve(false));
    }
}

#[test]
fn a_leader_without_a_reserve_hands_over_to_a_server_that_has_one() {
    let mut it = Cluster::serving(3);
    let old = it.await_leader();
    let others = it.others(old);
    fill(&mut it, &[old, others[0]]);
    it.run_ms(100);
    assert_eq!(it.leader(), Some(others[1]));
    assert_eq!(it.ask(others[1], 1, vec![set("k", "1")]), [stored()]);
    assert_eq!(it.ask(old, 1, vec![set("k", "2")]), [redirect(others[1])]);
    assert!(it.status(old).out_of_disk);
}

#[test]
fn without_a_reserve_anywhere_reads_go_on_and_writes_return_with_the_space() {
    let mut it = Cluster::serving(3);
    let leader = it.await_leader();
    assert_eq!(it.ask(leader, 1, vec![set("k", "1")]), [stored()]);
    let all = it.ids();
    fill(&mut it, &all);
    for _ in 0..50 {
        it.run_ms(50);
        assert_eq!(it.leader(), Some(leader), "nobody else is to lead either");
        assert_eq!(it.ask(leader, 2, vec![set("k", "2")]), [out_of_disk()]);
        it.disconnect(leader, 2);
        let read = it.ask(leader, 3, vec![get("k")]);
        assert_eq!(value(&read[0]), Some("1"));
    }
    it.input(leader, Input::Reserve(true));
    it.run_ms(200);
    assert_eq!(it.leader(), Some(leader));
    assert_eq!(it.ask(leader, 4, vec![set("k", "3")]), [stored()]);
}

#[test]
fn what_was_taken_before_the_reserve_was_lost_is_done_and_what_was_not_proposed_is_not() {
    let mut it = Cluster::serving(3);
    let leader = it.await_leader();
    let others = it.others(leader);
    it.stall_disks(&others);
    it.send_batch(leader, 1, 0, vec![set("k", "1")]);
    it.settle();
    it.send_batch(leader, 2, 0, vec![set("k", "2")]);
    let all = it.ids();
    fill(&mut it, &all);
    it.settle();
    assert_eq!(it.outcomes(leader, 2), [out_of_disk()]);
    assert_eq!(it.outcomes(leader, 1), []);
    it.heal();
    it.run_ms(10);
    assert_eq!(it.outcomes(leader, 1), [stored()]);
    let read = it.ask(leader, 3, vec![get("k")]);
    assert_eq!(value(&read[0]), Some("1"));
}

#[test]
fn items_expire_while_there_is_no_room_for_writes() {
    let mut it = Cluster::serving(1);
    let leader = it.await_leader();
    assert_eq!(it.ask(leader, 1, vec![set_for("k", 2)]), [stored()]);
    fill(&mut it, &[leader]);
    it.run_ms(1_000);
    let reads = |it: &mut Cluster| {
        let commands: Vec<Command> = vec![get("k")];
        let read = it.ask(leader, 1, commands);
        value(&read[0]).map(str::to_owned)
    };
    assert_eq!(reads(&mut it).as_deref(), Some("v"));
    it.run_ms(2_000);
    assert_eq!(reads(&mut it), None);
    assert_eq!(it.ask(leader, 1, vec![set("k", "1")]), [out_of_disk()]);
}
