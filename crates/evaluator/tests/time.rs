//! Time in the log (rules 48 to 50), and what is counted.

mod cluster;

use command::{Command, Exptime, Outcome, Reply, Stats, StoreMode, Write};
use raft::ServerId;

use cluster::*;

#[test]
fn an_item_is_gone_a_second_after_its_time_at_the_latest_though_nothing_is_written() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    it.ask(leader, 1, vec![set_for("k", 2)]);
    it.run_ms(999);
    assert_eq!(value(&it.ask(leader, 1, vec![get("k")])[0]), Some("v"));
    it.run_ms(1001);
    assert_eq!(value(&it.ask(leader, 1, vec![get("k")])[0]), None);
    it.run_ms(60);
    for id in it.ids() {
        assert_eq!(it.status(id).store.items, 0, "server {id}");
    }
}

#[test]
fn ticks_are_proposed_only_when_something_is_due_and_once_a_second_at_most() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    it.ask(leader, 1, vec![set("forever", "v")]);
    let before = it.status(leader).last_log_index;
    it.run_ms(5000);
    assert_eq!(it.status(leader).last_log_index, before, "nothing is due");
    for number in 0..100 {
        let exptime = 1 + number % 3;
        it.send_batch(leader, 1, 0, vec![set_for(&number.to_string(), exptime)]);
    }
    it.settle();
    let before = it.status(leader).last_log_index;
    it.run_ms(10_000);
    assert_eq!(it.status(leader).last_log_index, before + 3);
    assert_eq!(it.status(leader).store.items, 1);
}

#[test]
fn no_tick_is_needed_when_something_is_written_after_the_second() {
    let mut it = Cluster::serving(1);
    let leader = it.leader().unwrap();
    it.ask(leader, 1, vec![set_for("k", 1)]);
    let second = it.now(leader).wall.seconds() + 1;
    while it.now(leader).wall.0 + 1 < second * 1000 {
        it.run_ms(1);
    }
    let before = it.status(leader).last_log_index;
    it.now_ms += 1;
    it.ask(leader, 1, vec![set("other", "v")]);
    it.run_ms(3000);
    assert_eq!(it.status(leader).last_log_index, before.next());
    assert_eq!(it.status(leader).store.items, 1);
}

#[test]
fn a_delayed_flush_happens_though_nothing_is_written() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    let flush_all = Command::Write(Write::FlushAll { delay: Exptime(3) });
    let outcomes = it.ask(leader, 1, vec![set("k", "v"), flush_all]);
    assert_eq!(outcomes, [stored(), Outcome::Done(Reply::Ok)]);
    it.run_ms(1500);
    assert_eq!(value(&it.ask(leader, 1, vec![get("k")])[0]), Some("v"));
    it.run_ms(1500);
    assert_eq!(value(&it.ask(leader, 1, vec![get("k")])[0]), None);
}

#[test]
fn a_new_leader_ticks_for_what_fell_due_meanwhile() {
    let mut it = Cluster::serving(3);
    let old = it.leader().unwrap();
    it.ask(old, 1, vec![set_for("k", 1)]);
    it.run_ms(60);
    for id in it.ids() {
        it.crash(id);
    }
    it.run_ms(5000);
    for id in it.ids() {
        it.start(id);
    }
    let leader = it.await_leader();
    it.run_ms(1);
    assert_eq!(value(&it.ask(leader, 1, vec![get("k")])[0]), None);
    assert_eq!(it.status(leader).store.items, 0);
}

#[test]
fn a_leader_whose_wall_clock_jumps_ahead_takes_ten_seconds_of_it() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    it.ask(leader, 1, vec![set_for("short", 5), set_for("long", 60)]);
    it.server(leader).wall_offset_ms = 3_600_000;
    it.run_ms(1000);
    let outcomes = it.ask(
        leader,
        1,
        vec![set("other", "v"), get("short"), get("long")],
    );
    assert_eq!(value(&outcomes[1]), None);
    assert_eq!(value(&outcomes[2]), Some("v"));
    it.run_ms(1000);
    it.ask(leader, 1, vec![set("other", "v")]);
    assert_eq!(it.status(leader).clock_held_back, 1, "complained of once");
    let outcomes = it.ask(leader, 1, vec![stats()]);
    assert_eq!(stat(&outcomes[0], "quorate_clock_held_back"), "1");
}

#[test]
fn a_new_leader_whose_clock_is_an_hour_off_a_majoritys_is_complained_of() {
    let mut it = Cluster::serving(5);
    let old = it.leader().unwrap();
    it.server(old).wall_offset_ms = 9_000_000;
    it.run_ms(2000);
    assert_eq!(it.status(old).clock_far_off_ms, Some(9_000_000));
    it.crash(old);
    let new = it.await_leader();
    it.run_ms(100);
    assert_eq!(
        it.status(new).clock_far_off_ms,
        None,
        "only the old one's is far off"
    );
    it.server(new).wall_offset_ms = -5_000_000;
    it.run_ms(100);
    assert_eq!(it.status(new).clock_far_off_ms, Some(-5_000_000));
    let outcomes = it.ask(new, 1, vec![stats()]);
    assert_eq!(stat(&outcomes[0], "quorate_clock_far_off_ms"), "-5000000");
    for id in it.others(new).into_iter().filter(|id| *id != old) {
        assert_eq!(
            it.status(id).clock_far_off_ms,
            None,
            "server {id} does not lead"
        );
    }
}

#[test]
fn time_in_the_log_does_not_go_back_with_a_leader_whose_clock_is_behind() {
    let mut it = Cluster::serving(3);
    let old = it.leader().unwrap();
    it.run_ms(5000);
    it.ask(old, 1, vec![set("k", "v")]);
    let before = it.status(old).log_time;
    for id in it.others(old) {
        it.server(id).wall_offset_ms = -4_000_000;
    }
    it.crash(old);
    let new = it.await_leader();
    it.ask(new, 1, vec![set("k", "w"), set_for("l", 1)]);
    assert_eq!(it.status(new).log_time, before);
    it.run_ms(3000);
    let log_index = it.status(new).last_log_index;
    it.run_ms(3000);
    assert_eq!(it.status(new).last_log_index, log_index, "no tick helps");
    assert_eq!(value(&it.ask(new, 1, vec![get("l")])[0]), Some("v"));
}

#[test]
fn a_server_that_waits_for_nothing_but_the_clock_is_not_woken_all_the_time() {
    let mut it = Cluster::serving(1);
    let id = ServerId(1);
    it.ask(id, 1, vec![set_for("k", 100)]);
    it.settle();
    let now = it.now(id).monotonic;
    let deadline = it.evaluator(id).next_deadline();
    assert!(deadline > now, "{deadline:?} at {now:?}");
}

fn delete(name: &str) -> Command {
    Command::Write(Write::Delete { key: key(name) })
}

fn gat(names: &[&str]) -> Command {
    Command::Write(Write::GetAndTouch {
        keys: names.iter().map(|name| key(name)).collect(),
        exptime: Exptime(100),
    })
}

fn touch(name: &str) -> Command {
    Command::Write(Write::Touch {
        key: key(name),
        exptime: Exptime(100),
    })
}

#[test]
fn stats_count_what_this_server_has_answered() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    it.ask(leader, 7, vec![Command::Stats(Stats::Reset)]);
    let batch = vec![
        set("n", "1"),
        incr("n"),
        incr("missing"),
        get("n"),
        get("missing"),
        store(StoreMode::Cas(1), "n", 0, "x"),
        store(StoreMode::Cas(1), "missing", 0, "x"),
        store(StoreMode::Add, "n", 0, "x"),
        touch("n"),
        touch("missing"),
        gat(&["n", "n", "missing"]),
        delete("n"),
        delete("n"),
        set("m", "12345"),
        Command::Write(Write::FlushAll {
            delay: Exptime(100),
        }),
        stats(),
    ];
    let outcomes = it.ask(leader, 1, batch);
    let expected = [
        ("cmd_get", 2),
        ("cmd_set", 5),
        ("cmd_touch", 5),
        ("cmd_flush", 1),
        ("get_hits", 1),
        ("get_misses", 1),
        ("incr_hits", 1),
        ("incr_misses", 1),
        ("decr_hits", 0),
        ("cas_badval", 1),
        ("cas_misses", 1),
        ("cas_hits", 0),
        ("touch_hits", 3),
        ("touch_misses", 2),
        ("delete_hits", 1),
        ("delete_misses", 1),
        ("curr_items", 1),
        ("total_items", 2),
        ("bytes", 1 + 5 + 93),
        ("quorate_quorum", 1),
    ];
    let last = outcomes.last().unwrap();
    for (name, count) in expected {
        assert_eq!(stat(last, name), count.to_string(), "{name}");
    }
    assert_eq!(stat(last, "quorate_role"), "Leader");
    assert_eq!(stat(last, "quorate_leader"), leader.to_string());
    assert_eq!(stat(last, "quorate_followers"), "redirect");

    let follower = it.others(leader)[0];
    it.run_ms(60);
    let outcomes = it.ask(follower, 1, vec![stats()]);
    assert_eq!(stat(&outcomes[0], "cmd_set"), "0");
    assert_eq!(stat(&outcomes[0], "curr_items"), "1");
}

#[test]
fn stats_reset_starts_the_counters_anew() {
    let mut it = Cluster::serving(1);
    let id = ServerId(1);
    let reset = Command::Stats(Stats::Reset);
    let outcomes = it.ask(id, 1, vec![set("k", "v"), get("k"), reset, stats()]);
    assert_eq!(outcomes[2], Outcome::Done(Reply::Ok));
    for (name, count) in [("cmd_get", "0"), ("total_items", "0"), ("curr_items", "1")] {
        assert_eq!(stat(&outcomes[3], name), count, "{name}");
    }
}

#[test]
fn arithmetic_on_what_is_no_number_counts_as_neither_hit_nor_miss() {
    let mut it = Cluster::serving(1);
    let outcomes = it.ask(ServerId(1), 1, vec![set("k", "word"), incr("k"), stats()]);
    assert_eq!(outcomes[1], Outcome::Done(Reply::NonNumeric));
    for name in ["incr_hits", "incr_misses"] {
        assert_eq!(stat(&outcomes[2], name), "0", "{name}");
    }
}
