//! The order of one connection's commands, and what one turn makes of many (rules 35, 36, 38, 54).

mod cluster;

use std::time::Duration;

use command::{Command, Outcome, Read, Reply, Write};
use quorate_evaluator::{Batch, ConnectionId, Input, Limits};
use raft::EntryKind;

use cluster::*;

#[test]
fn a_single_server_serves() {
    let mut it = Cluster::serving(1);
    let leader = it.leader().unwrap();
    let outcomes = it.ask(leader, 1, vec![set("k", "v"), get("k"), get("other")]);
    assert_eq!(outcomes[0], stored());
    assert_eq!(value(&outcomes[1]), Some("v"));
    assert_eq!(value(&outcomes[2]), None);
}

#[test]
fn all_servers_apply_what_the_leader_acknowledges() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    for number in 0..20 {
        let outcomes = it.ask(leader, 1, vec![set("k", &number.to_string()), incr("k")]);
        assert_eq!(
            outcomes,
            [stored(), Outcome::Done(Reply::Number(number + 1))]
        );
    }
    it.run_ms(60);
    let hashes: Vec<u64> = it
        .ids()
        .into_iter()
        .map(|id| it.evaluator(id).state_hash())
        .collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
    let indexes = it.ids().into_iter().map(|id| it.status(id).last_applied);
    assert!(
        indexes
            .collect::<Vec<_>>()
            .windows(2)
            .all(|two| two[0] == two[1])
    );
}

#[test]
fn all_writes_of_a_turn_are_one_entry() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    let before = it.status(leader).last_log_index;
    for connection in 1..=50 {
        let key = format!("key{connection}");
        it.send_batch(leader, connection, 0, vec![set(&key, "0"), incr(&key)]);
    }
    it.settle();
    for connection in 1..=50 {
        let outcomes = it.outcomes(leader, connection);
        assert_eq!(outcomes, [stored(), Outcome::Done(Reply::Number(1))]);
    }
    assert_eq!(it.status(leader).last_log_index, before.next());
}

#[test]
fn more_than_a_mebibyte_of_writes_is_a_second_entry() {
    let mut it = Cluster::serving(1);
    let leader = it.leader().unwrap();
    let before = it.status(leader).last_log_index;
    let large = "x".repeat(400 << 10);
    let batch = (0..3).map(|number| set(&number.to_string(), &large));
    let outcomes = it.ask(leader, 1, batch.collect());
    assert_eq!(outcomes, vec![stored(); 3]);
    assert_eq!(it.status(leader).last_log_index, before + 2);
    let huge = "x".repeat(3 << 20);
    assert_eq!(it.ask(leader, 1, vec![set("huge", &huge)]), [stored()]);
    assert_eq!(it.status(leader).last_log_index, before + 3);
}

#[test]
fn more_than_65535_writes_are_a_second_entry() {
    let mut it = Cluster::serving(1);
    let leader = it.leader().unwrap();
    let before = it.status(leader).last_log_index;
    let batch = (0..65_536).map(|_| Command::Write(Write::Delete { key: key("k") }));
    let outcomes = it.ask(leader, 1, batch.collect());
    assert_eq!(outcomes.len(), 65_536);
    assert_eq!(it.status(leader).last_log_index, before + 2);
}

#[test]
fn a_get_before_a_set_in_one_batch_answers_the_old_value() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    it.ask(leader, 1, vec![set("k", "old")]);
    let outcomes = it.ask(leader, 1, vec![get("k"), set("k", "new")]);
    assert_eq!(value(&outcomes[0]), Some("old"));
    assert_eq!(outcomes[1], stored());
}

#[test]
fn a_get_after_a_set_in_one_batch_answers_the_new_value() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    it.ask(leader, 1, vec![set("k", "old")]);
    let outcomes = it.ask(leader, 1, vec![set("k", "new"), get("k")]);
    assert_eq!(value(&outcomes[1]), Some("new"));
}

#[test]
fn a_get_between_two_writes_of_one_entry_sees_the_first_only() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    let before = it.status(leader).last_log_index;
    let batch = vec![
        get("k"),
        set("k", "1"),
        get("k"),
        incr("k"),
        get("k"),
        set("k", "9"),
        get("k"),
    ];
    let outcomes = it.ask(leader, 1, batch);
    assert_eq!(it.status(leader).last_log_index, before.next());
    let values: Vec<_> = [0, 2, 4, 6].map(|at| value(&outcomes[at])).to_vec();
    assert_eq!(values, [None, Some("1"), Some("2"), Some("9")]);
}

#[test]
fn a_read_does_not_wait_for_a_write_behind_it() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    it.ask(leader, 1, vec![set("k", "old")]);
    let all = it.ids();
    it.stall_disks(&all);
    let outcomes = it.ask(leader, 1, vec![get("k"), set("k", "new"), get("k")]);
    assert_eq!(outcomes.len(), 1, "part of a batch is answered");
    assert_eq!(value(&outcomes[0]), Some("old"));
    it.heal();
    it.settle();
    let outcomes = it.outcomes(leader, 1);
    assert_eq!(outcomes[0], stored());
    assert_eq!(value(&outcomes[1]), Some("new"));
}

#[test]
fn a_read_of_another_connection_does_not_wait_for_the_disk() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    it.ask(leader, 1, vec![set("k", "old")]);
    let all = it.ids();
    it.stall_disks(&all);
    assert_eq!(it.ask(leader, 1, vec![set("k", "new")]), []);
    let outcomes = it.ask(leader, 2, vec![get("k")]);
    assert_eq!(value(&outcomes[0]), Some("old"));
}

#[test]
fn stats_wait_for_the_commands_before_them() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    let all = it.ids();
    it.stall_disks(&all);
    assert_eq!(it.ask(leader, 1, vec![set("k", "v"), stats()]), []);
    it.heal();
    it.settle();
    let outcomes = it.outcomes(leader, 1);
    assert_eq!(outcomes[0], stored());
    assert_eq!(stat(&outcomes[1], "curr_items"), "1");
}

#[test]
fn outcomes_of_several_batches_come_in_the_order_of_their_commands() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    it.ask(leader, 1, vec![set("n", "0")]);
    for _ in 0..10 {
        it.send_batch(leader, 1, 0, vec![incr("n"), get("n")]);
        it.turns();
    }
    it.settle();
    let outcomes = it.outcomes(leader, 1);
    for (number, two) in (1..).zip(outcomes.chunks(2)) {
        assert_eq!(two[0], Outcome::Done(Reply::Number(number)));
        assert_eq!(value(&two[1]), Some(number.to_string().as_str()));
    }
    assert_eq!(outcomes.len(), 20);
}

#[test]
fn all_reads_of_a_turn_share_one_round() {
    let mut it = Cluster::serving(5);
    let leader = it.leader().unwrap();
    let before = it.server(leader).heartbeats_sent;
    for connection in 1..=100 {
        it.send_batch(leader, connection, 0, vec![get("k"), get("k")]);
    }
    it.settle();
    for connection in 1..=100 {
        assert_eq!(it.outcomes(leader, connection).len(), 2);
    }
    let sent = it.server(leader).heartbeats_sent - before;
    assert!(sent <= 4, "{sent} heartbeats for 200 reads");
}

#[test]
fn a_read_writes_nothing_to_the_log() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    let before = it.status(leader).last_log_index;
    for _ in 0..10 {
        it.ask(leader, 1, vec![get("k")]);
    }
    assert_eq!(it.status(leader).last_log_index, before);
}

#[test]
fn a_connection_that_is_gone_leaves_nothing_behind_but_its_writes() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    for connection in 1..100 {
        it.send_batch(
            leader,
            connection,
            0,
            vec![get("k"), set("k", "v"), get("k")],
        );
        it.disconnect(leader, connection);
    }
    it.settle();
    assert_eq!(it.outcomes(leader, 99), []);
    let status = it.status(leader);
    assert_eq!((status.connections, status.commands_owed), (0, 0));
    assert_eq!(value(&it.ask(leader, 100, vec![get("k")])[0]), Some("v"));
}

#[test]
fn an_append_is_judged_by_the_leaders_limit() {
    let mut it = Cluster::new(3);
    it.item_bytes_max = 100;
    for id in it.ids() {
        it.crash(id);
        it.start(id);
    }
    let leader = it.await_leader();
    let append = |value| store(command::StoreMode::Append, "k", 0, value);
    it.ask(leader, 1, vec![set("k", "v")]);
    let outcomes = it.ask(
        leader,
        1,
        vec![append("1234567890"), append(&"x".repeat(50))],
    );
    assert_eq!(outcomes, [stored(), Outcome::Done(Reply::NotStored)]);
}

#[test]
fn a_server_with_another_limit_comes_to_the_same_state() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    let follower = it.others(leader)[0];
    it.crash(follower);
    it.item_bytes_max = 100;
    it.start(follower);
    let append = store(command::StoreMode::Append, "k", 0, &"x".repeat(200));
    let outcomes = it.ask(leader, 1, vec![set("k", "v"), append]);
    assert_eq!(outcomes, [stored(), stored()]);
    it.run_ms(500);
    let hash = it.evaluator(leader).state_hash();
    assert_eq!(it.evaluator(follower).state_hash(), hash);
}

#[test]
fn clients_are_left_alone_while_too_much_is_unsettled() {
    let limits = Limits {
        unsettled_bytes_max: 10_000,
        ..Limits::default()
    };
    let mut it = Cluster::with_limits(3, limits);
    let leader = it.await_leader();
    let followers = it.others(leader);
    assert!(it.evaluator(leader).takes_clients());
    it.stall_disks(&followers);
    it.ask(leader, 1, vec![set("k", &"x".repeat(20_000))]);
    assert!(!it.evaluator(leader).takes_clients(), "uncommitted");
    it.heal();
    it.settle();
    assert!(it.evaluator(leader).takes_clients());
    it.stall_disks(&[leader]);
    it.ask(leader, 1, vec![set("k", &"x".repeat(20_000))]);
    assert!(!it.evaluator(leader).takes_clients(), "not on this disk");
    it.heal();
    it.settle();
    assert!(it.evaluator(leader).takes_clients());
    it.isolate(leader);
    it.ask(leader, 1, vec![set("k", &"x".repeat(20_000))]);
    assert!(!it.evaluator(leader).takes_clients());
    it.run_ms(400);
    assert!(it.evaluator(leader).takes_clients(), "it only refuses");
}

#[test]
fn writes_are_gathered_while_more_are_under_way_but_not_for_long() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    let followers = it.others(leader);
    it.stall_disks(&followers);
    let before = it.status(leader).last_log_index;
    let entries = |it: &mut Cluster| it.status(leader).last_log_index - before;
    it.ask(leader, 1, vec![incr("n"); 4]);
    assert_eq!(entries(&mut it), 1, "nothing was under way");
    it.ask(leader, 2, vec![incr("n"); 3]);
    assert_eq!(entries(&mut it), 1, "fewer than are under way");
    it.ask(leader, 3, vec![incr("n")]);
    assert_eq!(entries(&mut it), 2, "as many as are under way");
    it.ask(leader, 2, vec![incr("n"); 3]);
    it.run_ms(1);
    assert_eq!(entries(&mut it), 2);
    it.run_ms(1);
    assert_eq!(entries(&mut it), 3, "two milliseconds are enough");
    it.ask(leader, 2, vec![set("k", &"x".repeat(128 << 10))]);
    assert_eq!(entries(&mut it), 4, "large enough for an entry");
    it.ask(leader, 4, vec![incr("n")]);
    assert_eq!(entries(&mut it), 4);
    it.heal();
    it.settle();
    assert_eq!(entries(&mut it), 5, "nothing is under way any more");
}

/// A thread that is woken for nothing is in the way of those that the write needs.
#[test]
fn nothing_is_due_while_a_write_is_under_way_and_none_waits() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    let followers = it.others(leader);
    it.stall_disks(&followers);
    it.ask(leader, 1, vec![incr("n")]);
    let soon = it.now(leader).monotonic + Duration::from_millis(4);
    assert!(it.evaluator(leader).next_deadline() > soon);
    it.ask(leader, 2, vec![set_for("soon", 1)]);
    it.heal();
    it.settle();
    it.run_ms(2500);
    let hits = it.ask(leader, 3, vec![get("soon")]);
    assert_eq!(
        value(&hits[0]),
        None,
        "what falls due is proposed all the same"
    );
}

#[test]
fn clients_are_left_alone_while_much_waits_for_the_turns_proposal() {
    let mut it = Cluster::serving(3);
    let leader = it.await_leader();
    let now = it.now(leader);
    let megabyte = set("k", &"x".repeat(1 << 20));
    let stage = |it: &mut Cluster, connection| {
        let batch = Batch {
            connection: ConnectionId(connection),
            epoch: 0,
            commands: vec![megabyte.clone()],
            is_local: false,
        };
        it.evaluator(leader).step(now, Input::Batch(batch));
        it.evaluator(leader).takes_clients()
    };
    assert!(stage(&mut it, 1));
    assert!(!stage(&mut it, 2), "the second is beyond 2 MiB by its key");
    it.settle();
    for connection in [1, 2] {
        assert_eq!(it.outcomes(leader, connection), [stored()]);
    }
    assert!(it.evaluator(leader).takes_clients());
}

#[test]
fn a_turn_is_light_while_little_is_owed_staged_or_under_way() {
    let mut it = Cluster::serving(3);
    let leader = it.await_leader();
    let keys = |count| Read::Get {
        keys: std::iter::repeat_n(key("k"), count).collect(),
    };
    assert!(it.evaluator(leader).is_light());
    it.isolate(leader);
    it.ask(leader, 1, vec![Command::Read(keys(1024))]);
    assert!(it.evaluator(leader).is_light());
    it.ask(leader, 2, vec![Command::Read(keys(1))]);
    assert!(!it.evaluator(leader).is_light(), "1025 keys are owed");
    it.disconnect(leader, 2);
    it.settle();
    assert!(it.evaluator(leader).is_light());
    it.ask(leader, 3, vec![set("k", &"x".repeat(256 << 10))]);
    assert!(!it.evaluator(leader).is_light(), "256 KiB are uncommitted");
    it.heal();
    it.settle();
    assert!(it.evaluator(leader).is_light());
    it.isolate(leader);
    it.ask(leader, 4, vec![incr("n"); 1024]);
    assert!(it.evaluator(leader).is_light());
    it.ask(leader, 4, vec![incr("n")]);
    assert!(!it.evaluator(leader).is_light(), "1025 answers are owed");
}

#[test]
fn clients_are_left_alone_while_many_commands_are_owed_an_answer() {
    let limits = Limits {
        owed_commands_max: 10,
        ..Limits::default()
    };
    let mut it = Cluster::with_limits(3, limits);
    let leader = it.await_leader();
    let followers = it.others(leader);
    it.stall_disks(&followers);
    it.ask(leader, 1, vec![incr("n"); 10]);
    assert!(it.evaluator(leader).takes_clients());
    it.ask(leader, 1, vec![incr("n")]);
    assert!(!it.evaluator(leader).takes_clients());
    it.heal();
    it.settle();
    assert!(it.evaluator(leader).takes_clients());
}

#[test]
fn clients_are_left_alone_while_many_keys_are_still_to_be_looked_up() {
    let limits = Limits {
        owed_keys_max: 10,
        ..Limits::default()
    };
    let mut it = Cluster::with_limits(3, limits);
    let leader = it.await_leader();
    it.isolate(leader);
    let read = |keys| {
        Command::Read(Read::Get {
            keys: std::iter::repeat_n(key("k"), keys).collect(),
        })
    };
    it.ask(leader, 1, vec![read(6), read(4)]);
    assert!(it.evaluator(leader).takes_clients());
    it.ask(leader, 2, vec![read(1)]);
    assert!(!it.evaluator(leader).takes_clients());
    it.disconnect(leader, 2);
    it.settle();
    assert!(it.evaluator(leader).takes_clients());
    it.ask(leader, 3, vec![read(1)]);
    assert!(!it.evaluator(leader).takes_clients());
    it.heal();
    it.settle();
    assert!(it.evaluator(leader).takes_clients());
}

#[test]
fn a_turn_looks_up_a_bounded_number_of_keys_and_the_next_ones_go_on() {
    let mut it = Cluster::serving(1);
    let leader = it.leader().unwrap();
    it.ask(leader, 1, vec![set("k", "v")]);
    let keys = std::iter::repeat_n(key("k"), 10_000).collect();
    let many = Command::Read(Read::Get { keys });
    it.send_batch(leader, 1, 0, vec![many.clone(), many, get("k")]);
    it.send_batch(leader, 2, 0, vec![get("k")]);
    let mut answered = Vec::new();
    while it.turns() {
        answered.push(it.outcomes(leader, 1).len());
    }
    let in_turns: Vec<usize> = answered.into_iter().filter(|count| *count > 0).collect();
    assert_eq!(in_turns, [2, 1]);
    assert_eq!(value(&it.outcomes(leader, 2)[0]), Some("v"));
}

/// A single server that was started again, and leads before it has applied its 2.5 MiB.
fn leads_again_with_much_to_apply() -> (Cluster, raft::ServerId) {
    let mut it = Cluster::serving(1);
    let leader = it.leader().expect("it serves");
    for number in 0..40 {
        let large = "v".repeat(64 << 10);
        it.ask(leader, 1, vec![set(&number.to_string(), &large)]);
    }
    it.crash(leader);
    it.start(leader);
    it.now_ms += 1000;
    while it.leader().is_none() {
        assert!(it.turns(), "it stands for election");
    }
    (it, leader)
}

#[test]
fn a_leader_proposes_nothing_before_it_has_applied_what_was_committed_before() {
    let (mut it, leader) = leads_again_with_much_to_apply();
    it.send_batch(leader, 1, 0, vec![set("late", "v"), get("39")]);
    let no_op = it.status(leader).last_log_index;
    let mut turns = 0;
    while !it.status(leader).serves {
        assert_eq!(it.status(leader).last_log_index, no_op);
        assert!(it.turns());
        turns += 1;
    }
    assert!(turns >= 10, "2.5 MiB were applied in {turns} turns");
    it.settle();
    let outcomes = it.outcomes(leader, 1);
    assert_eq!(outcomes[0], stored());
    assert!(value(&outcomes[1]).is_some());
}

#[test]
fn a_read_waits_until_what_was_committed_before_it_is_applied() {
    let (mut it, leader) = leads_again_with_much_to_apply();
    it.send_batch(leader, 1, 0, vec![get("39")]);
    while !it.status(leader).serves {
        assert_eq!(it.outcomes(leader, 1), []);
        assert!(it.turns());
    }
    it.settle();
    assert!(value(&it.outcomes(leader, 1)[0]).is_some());
}

#[test]
fn the_first_entry_names_the_members_and_commands_follow_it() {
    let mut it = Cluster::serving(1);
    let leader = it.leader().unwrap();
    it.ask(leader, 1, vec![set("k", "v")]);
    let last = it.status(leader).last_log_index;
    let server = it.server(leader);
    assert_eq!(server.entry(raft::Index(1)).kind, EntryKind::Configuration);
    assert_eq!(server.entry(last).kind, EntryKind::Command);
    let status = it.status(leader);
    assert_eq!((status.seats_filled, status.seats_empty), (1, 0));
    assert!(status.cluster.is_some());
}
