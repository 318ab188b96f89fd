//! What is answered when a command can't be carried out, or nobody knows (rules 29, 33, 52 to 54).

mod cluster;

use bytes::Bytes;
use command::Outcome;
use quorate_evaluator::Input;
use raft::{AppendEntries, Body, Entry, EntryKind, Message, Restart, Sender, ServerId, Term};

use cluster::*;

#[test]
fn a_follower_redirects_to_the_leader() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    for follower in it.others(leader) {
        let outcomes = it.ask(follower, 1, vec![set("k", "v"), get("k"), stats()]);
        assert_eq!(outcomes[..2], [redirect(leader), redirect(leader)]);
        assert!(is_stats(&outcomes[2]), "stats are never refused");
        assert_eq!(stat(&outcomes[2], "quorate_role"), "Follower");
    }
}

#[test]
fn a_server_that_knows_no_leader_says_so() {
    let mut it = Cluster::new(3);
    let outcomes = it.ask(ServerId(1), 1, vec![set("k", "v"), stats(), get("k")]);
    assert_eq!(outcomes[0], no_leader());
    assert!(is_stats(&outcomes[1]));
    assert_eq!(outcomes[2], no_leader());
    assert_eq!(it.status(ServerId(1)).leader, None);
}

#[test]
fn a_follower_cut_off_from_its_leader_ceases_to_redirect() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    let follower = it.others(leader)[0];
    it.isolate(follower);
    it.run_ms(151);
    assert_eq!(it.ask(follower, 1, vec![get("k")]), [no_leader()]);
    assert!(!it.status(follower).quorum);
}

#[test]
fn a_write_that_is_not_committed_within_900_ms_is_unknown_and_may_be_applied_later() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    let followers = it.others(leader);
    it.stall_disks(&followers);
    assert_eq!(it.ask(leader, 1, vec![set("k", "v")]), []);
    it.run_ms(899);
    assert_eq!(it.outcomes(leader, 1), []);
    it.run_ms(1);
    assert_eq!(it.outcomes(leader, 1), [Outcome::Unknown]);
    assert_eq!(it.leader(), Some(leader), "it still leads");
    it.heal();
    it.settle();
    assert_eq!(it.outcomes(leader, 1), [], "an outcome is given once");
    assert_eq!(value(&it.ask(leader, 2, vec![get("k")])[0]), Some("v"));
}

#[test]
fn what_follows_an_unknown_write_is_refused_with_it() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    let followers = it.others(leader);
    it.stall_disks(&followers);
    it.ask(leader, 1, vec![set("a", "1"), get("a")]);
    it.run_ms(500);
    it.ask(leader, 1, vec![set("b", "2"), get("b"), stats()]);
    it.run_ms(400);
    let outcomes = it.outcomes(leader, 1);
    assert_eq!(outcomes[0], Outcome::Unknown);
    assert_eq!(outcomes[1], no_leader());
    assert_eq!(outcomes[2], Outcome::Unknown, "it is in the log");
    assert_eq!(outcomes[3], no_leader());
    assert!(is_stats(&outcomes[4]));
}

#[test]
fn other_connections_are_not_refused_with_one() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    let followers = it.others(leader);
    it.stall_disks(&followers);
    it.ask(leader, 1, vec![set("a", "1")]);
    it.run_ms(100);
    it.ask(leader, 2, vec![set("b", "2")]);
    it.run_ms(800);
    assert_eq!(it.outcomes(leader, 1), [Outcome::Unknown]);
    it.heal();
    it.settle();
    assert_eq!(it.outcomes(leader, 2), [stored()]);
}

#[test]
fn after_a_refusal_all_up_to_its_epoch_is_refused_and_the_next_epoch_served() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    let followers = it.others(leader);
    it.stall_disks(&followers);
    it.ask(leader, 1, vec![set("a", "1")]);
    it.run_ms(900);
    assert_eq!(it.outcomes(leader, 1), [Outcome::Unknown]);
    it.heal();
    it.settle();
    let outcomes = it.ask(leader, 1, vec![set("b", "2"), stats(), get("b")]);
    assert_eq!(outcomes[0], no_leader(), "this server is the leader");
    assert!(is_stats(&outcomes[1]));
    assert_eq!(outcomes[2], no_leader());
    it.send_batch(leader, 1, 1, vec![get("b"), set("b", "3")]);
    it.settle();
    let outcomes = it.outcomes(leader, 1);
    assert_eq!(value(&outcomes[0]), None, "the refused write is not done");
    assert_eq!(outcomes[1], stored());
}

#[test]
fn a_refused_follower_batch_does_not_lift_the_refusal_when_it_becomes_leader() {
    let mut it = Cluster::serving(3);
    let old = it.leader().unwrap();
    let others = it.others(old);
    for id in &others {
        assert_eq!(it.ask(*id, 1, vec![set("k", "1")]), [redirect(old)]);
    }
    it.crash(old);
    let leader = it.await_leader();
    assert_eq!(it.ask(leader, 1, vec![set("k", "2")]), [no_leader()]);
    it.send_batch(leader, 1, 1, vec![get("k"), set("k", "3")]);
    it.settle();
    let outcomes = it.outcomes(leader, 1);
    assert_eq!((value(&outcomes[0]), &outcomes[1]), (None, &stored()));
}

#[test]
fn a_leader_that_loses_its_majority_refuses_all_at_once() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    it.run_ms(60);
    it.isolate(leader);
    it.ask(leader, 1, vec![get("k"), set("k", "v"), get("k")]);
    it.ask(leader, 2, vec![set("k", "v"), get("k")]);
    assert_eq!(it.outcomes(leader, 1), []);
    it.run_ms(150);
    let refused = [no_leader(), Outcome::Unknown, no_leader()];
    assert_eq!(it.outcomes(leader, 1), refused);
    assert_eq!(it.outcomes(leader, 2), [Outcome::Unknown, no_leader()]);
    let status = it.status(leader);
    assert_eq!((status.role, status.quorum), ("Leader", false));
    assert_eq!(it.ask(leader, 3, vec![set("k", "v")]), [no_leader()]);
}

#[test]
fn a_deposed_leader_serves_no_read() {
    let mut it = Cluster::serving(3);
    let old = it.leader().unwrap();
    it.ask(old, 1, vec![set("k", "old")]);
    it.isolate(old);
    let mut others = it.others(old);
    it.run_ms(1000);
    others.retain(|id| it.status(*id).role == "Leader");
    let new = others[0];
    assert_eq!(it.ask(new, 1, vec![set("k", "new")]), [stored()]);
    it.send_batch(old, 1, 1, vec![get("k")]);
    it.run_ms(1000);
    assert_eq!(it.outcomes(old, 1), [no_leader()]);
}

#[test]
fn a_write_that_another_leaders_entry_replaces_is_never_acknowledged() {
    let mut it = Cluster::serving(3);
    let old = it.leader().unwrap();
    it.isolate(old);
    it.ask(old, 1, vec![set("k", "lost")]);
    it.run_ms(1000);
    assert_eq!(it.outcomes(old, 1), [Outcome::Unknown]);
    let new = it.await_leader();
    assert_ne!(new, old);
    for number in 0..5 {
        it.ask(new, 1, vec![set("other", &number.to_string())]);
    }
    it.heal();
    it.run_ms(500);
    assert_eq!(it.outcomes(old, 1), []);
    let leader = it.leader().unwrap();
    assert_eq!(value(&it.ask(leader, 9, vec![get("k")])[0]), None);
    let hashes = it.ids().into_iter().map(|id| it.evaluator(id).state_hash());
    let hashes: Vec<u64> = hashes.collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
}

/// The loss of leadership and what replaces the write are learnt in one turn.
#[test]
fn a_write_in_whose_place_another_entry_is_committed_is_certainly_not_done() {
    let mut it = Cluster::serving(3);
    let old = it.leader().unwrap();
    let new = it.others(old)[0];
    it.isolate(old);
    it.ask(old, 1, vec![set("k", "lost"), get("k")]);
    let status = it.status(old);
    let prev = it
        .server(old)
        .entry(status.last_log_index.prev())
        .position();
    let seat = it
        .evaluator(old)
        .configuration()
        .and_then(|it| it.seat(new));
    let term = Term(status.term.0 + 1);
    let no_op = Entry {
        term,
        index: prev.index.next(),
        kind: EntryKind::NoOp,
        payload: Bytes::new(),
    };
    let message = Message {
        sender: Sender {
            id: new,
            cluster: status.cluster,
            instance: seat.expect("all are seated"),
            restart: Restart(1),
            recovering: false,
        },
        term,
        body: Body::AppendEntries(AppendEntries {
            prev,
            leader_commit: no_op.index,
            entries: vec![no_op],
        }),
    };
    it.input(old, Input::Message(message));
    it.settle();
    assert_eq!(it.outcomes(old, 1), [redirect(new), redirect(new)]);
}

#[test]
fn a_leader_that_learns_of_another_refuses_what_it_owes_and_redirects() {
    let mut it = Cluster::serving(3);
    let old = it.leader().unwrap();
    let others = it.others(old);
    // Only its own messages are lost: it hears of the next term, and of its leader.
    for other in &others {
        it.cut.insert((old, *other));
    }
    it.ask(old, 1, vec![set("k", "v"), get("k")]);
    it.run_ms(1000);
    let outcomes = it.outcomes(old, 1);
    assert_eq!(outcomes[0], Outcome::Unknown);
    assert!(matches!(outcomes[1], Outcome::NotDone(_)));
    let new = it.leader().unwrap();
    assert_ne!(new, old);
    assert_eq!(it.ask(old, 2, vec![get("k")]), [redirect(new)]);
}

/// A single server that leads, and whose first entry is not on disk.
fn leader_that_does_not_serve() -> Cluster {
    let mut it = Cluster::new(1);
    it.run_ms(1);
    it.crash(ServerId(1));
    it.start(ServerId(1));
    for _ in 0..1000 {
        it.turns();
        if it.status(ServerId(1)).role == "Leader" {
            it.stall_disks(&[ServerId(1)]);
            it.settle();
            return it;
        }
    }
    panic!("a single server leads at once");
}

#[test]
fn commands_wait_for_the_first_entry_of_a_term() {
    let mut it = leader_that_does_not_serve();
    let id = ServerId(1);
    it.ask(id, 1, vec![get("k"), set("k", "v"), get("k")]);
    it.run_ms(500);
    assert_eq!(it.outcomes(id, 1), []);
    it.heal();
    it.settle();
    let outcomes = it.outcomes(id, 1);
    assert_eq!(value(&outcomes[0]), None);
    assert_eq!(outcomes[1], stored());
    assert_eq!(value(&outcomes[2]), Some("v"));
}

#[test]
fn a_write_that_waited_900_ms_to_be_proposed_is_certainly_not_done() {
    let mut it = leader_that_does_not_serve();
    let id = ServerId(1);
    it.ask(id, 1, vec![set("a", "1"), get("a")]);
    it.run_ms(10);
    it.ask(id, 2, vec![set("b", "2")]);
    it.run_ms(890);
    assert_eq!(it.outcomes(id, 1), [no_leader(), no_leader()]);
    it.heal();
    it.settle();
    assert_eq!(it.outcomes(id, 2), [stored()]);
    let outcomes = it.ask(id, 3, vec![get("a"), get("b")]);
    assert_eq!(value(&outcomes[0]), None);
    assert_eq!(value(&outcomes[1]), Some("2"));
}

#[test]
fn a_write_that_is_refused_before_it_is_proposed_takes_no_room_any_more() {
    let mut it = leader_that_does_not_serve();
    let id = ServerId(1);
    for connection in 1..=2 {
        assert!(it.evaluator(id).takes_clients());
        it.ask(id, connection, vec![set("k", &"x".repeat(1 << 20))]);
    }
    assert!(!it.evaluator(id).takes_clients(), "2 MiB and more wait");
    it.run_ms(900);
    assert_eq!(it.outcomes(id, 1), [no_leader()]);
    assert!(it.evaluator(id).takes_clients());
}

#[test]
fn a_leader_that_is_told_to_stop_answers_what_it_has_and_hands_over() {
    let mut it = Cluster::serving(3);
    let old = it.leader().unwrap();
    assert!(!it.evaluator(old).may_stop());
    for connection in 1..=10 {
        it.send_batch(old, connection, 0, vec![set("k", "v"), get("k")]);
    }
    it.input(old, Input::Transfer);
    it.send_batch(old, 11, 0, vec![set("k", "late")]);
    it.settle();
    for connection in 1..=10 {
        let outcomes = it.outcomes(old, connection);
        assert_eq!(outcomes[0], stored());
        assert_eq!(value(&outcomes[1]), Some("v"));
    }
    let late = it.outcomes(old, 11);
    assert!(matches!(late[..], [Outcome::NotDone(_)]), "{late:?}");
    it.run_ms(10);
    assert!(it.evaluator(old).may_stop());
    let new = it.leader().unwrap();
    assert_ne!(new, old);
    assert_eq!(it.ask(old, 12, vec![set("k", "w")]), [redirect(new)]);
}

#[test]
fn a_leader_that_hands_over_takes_no_write_and_leads_on_if_nobody_takes_over() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    let followers = it.others(leader);
    it.stall_disks(&followers);
    it.ask(leader, 1, vec![set("a", "1")]);
    it.input(leader, Input::Transfer);
    assert_eq!(it.ask(leader, 2, vec![set("b", "2")]), [no_leader()]);
    it.run_ms(200);
    assert!(!it.evaluator(leader).may_stop(), "a write is owed");
    it.heal();
    it.settle();
    assert_eq!(it.outcomes(leader, 1), [stored()]);
    it.run_ms(1);
    assert!(it.evaluator(leader).may_stop());
    it.send_batch(leader, 2, 1, vec![set("b", "2")]);
    it.settle();
    assert!(matches!(it.outcomes(leader, 2)[..], [Outcome::NotDone(_)]));
}

#[test]
fn a_follower_and_a_single_server_that_are_told_to_stop_may_stop_at_once() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    let follower = it.others(leader)[0];
    it.input(follower, Input::Transfer);
    it.settle();
    assert!(it.evaluator(follower).may_stop());
    assert_eq!(it.ask(follower, 1, vec![get("k")]), [redirect(leader)]);

    let mut it = Cluster::serving(1);
    let id = ServerId(1);
    it.send_batch(id, 1, 0, vec![set("k", "v")]);
    it.input(id, Input::Transfer);
    it.settle();
    assert_eq!(it.outcomes(id, 1), [stored()]);
    assert!(it.evaluator(id).may_stop());
}

#[test]
fn nobody_is_owed_anything_after_a_second_whatever_happens() {
    for fault in 0..4 {
        let mut it = Cluster::serving(3);
        let leader = it.leader().unwrap();
        let all = it.ids();
        match fault {
            0 => it.isolate(leader),
            1 => it.stall_disks(&all),
            2 => it.stall_disks(&[leader]),
            _ => it.input(leader, Input::Transfer),
        }
        for id in all {
            it.send_batch(id, 1, 0, vec![get("k"), set("k", "v"), get("k"), stats()]);
        }
        it.settle();
        it.run_ms(900);
        for id in it.ids() {
            assert_eq!(it.outcomes(id, 1).len(), 4, "fault {fault}, server {id}");
            assert_eq!(it.status(id).commands_owed, 0);
        }
    }
}
