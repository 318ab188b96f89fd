//! The memory limit of a cluster, and what is counted of memory and of what is gone.

mod cluster;

use command::{Command, Exptime, Outcome, Read, Refusal, Reply, Stats, StoreMode, Write};
use raft::ServerId;

use cluster::*;

fn out_of_memory() -> Outcome {
    Outcome::Done(Reply::OutOfMemory)
}

fn limit(mib: u32) -> Command {
    Command::Write(Write::MemoryLimit { mib })
}

fn stats_of(it: &mut Cluster, id: ServerId) -> Outcome {
    it.ask(id, 99, vec![stats()]).remove(0)
}

/// Starts all servers anew, with this setting.
fn restart_with(it: &mut Cluster, memory_limit_bytes: u64) -> ServerId {
    it.memory_limit_bytes = memory_limit_bytes;
    for id in it.ids() {
        it.crash(id);
    }
    for id in it.ids() {
        it.start(id);
    }
    it.await_leader()
}

fn assert_equal_states(it: &mut Cluster) {
    it.run_ms(500);
    let leader = it.leader().expect("there is one");
    let hash = it.evaluator(leader).state_hash();
    for id in it.ids() {
        assert_eq!(it.evaluator(id).state_hash(), hash, "server {id}");
    }
}

#[test]
fn the_leaders_memory_limit_is_that_of_all_servers_whatever_their_own_is() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    let follower = it.others(leader)[0];
    it.crash(follower);
    it.memory_limit_bytes = 100;
    it.start(follower);
    let outcomes = it.ask(leader, 1, vec![set("k", &"x".repeat(200))]);
    assert_eq!(outcomes, [stored()]);
    assert_equal_states(&mut it);

    let leader = restart_with(&mut it, 1000);
    let follower = it.others(leader)[0];
    it.crash(follower);
    it.memory_limit_bytes = 0;
    it.start(follower);
    let large = set("l", &"x".repeat(900));
    let outcomes = it.ask(leader, 1, vec![large, set("m", "v"), get("l")]);
    assert_eq!(outcomes[..2], [out_of_memory(), stored()]);
    assert_eq!(value(&outcomes[2]), None);
    assert_equal_states(&mut it);
    let shown = stats_of(&mut it, leader);
    assert_eq!(stat(&shown, "store_no_memory"), "1");
    assert_eq!(stat(&shown, "cmd_set"), "1");
    assert_eq!(stat(&shown, "limit_maxbytes"), "1000");
    let shown = stats_of(&mut it, follower);
    assert_eq!(stat(&shown, "limit_maxbytes"), "1000");
    assert_eq!(stat(&shown, "store_no_memory"), "0");
}

#[test]
fn a_limit_that_a_client_has_set_outlives_leaders_and_restarts_until_the_setting_changes() {
    let mut it = Cluster::serving(3);
    let leader = restart_with(&mut it, 1 << 20);
    let outcomes = it.ask(leader, 1, vec![limit(8), set("k", "v")]);
    assert_eq!(outcomes, [Outcome::Done(Reply::Ok), stored()]);
    let shows = |it: &mut Cluster, bytes: u64| {
        assert_equal_states(it);
        for id in it.ids() {
            let shown = stats_of(it, id);
            assert_eq!(stat(&shown, "limit_maxbytes"), bytes.to_string());
        }
    };
    shows(&mut it, 8 << 20);
    it.crash(leader);
    let next = it.await_leader();
    assert_eq!(it.ask(next, 1, vec![set("k", "v")]), [stored()]);
    it.start(leader);
    shows(&mut it, 8 << 20);
    let leader = restart_with(&mut it, 1 << 20);
    assert_eq!(it.ask(leader, 1, vec![set("k", "v")]), [stored()]);
    shows(&mut it, 8 << 20);
    let leader = restart_with(&mut it, 2 << 20);
    assert_eq!(it.ask(leader, 1, vec![set("k", "v")]), [stored()]);
    shows(&mut it, 2 << 20);
}

#[test]
fn reads_deletes_touches_and_flushes_go_on_when_memory_is_full() {
    let mut it = Cluster::serving(3);
    let leader = restart_with(&mut it, 200);
    let touch = Command::Write(Write::Touch {
        key: key("k"),
        exptime: Exptime(100),
    });
    let delete = Command::Write(Write::Delete { key: key("k") });
    let flush = Command::Write(Write::FlushAll { delay: Exptime(0) });
    let full = set("k", &"x".repeat(200 - 94));
    let outcomes = it.ask(
        leader,
        1,
        vec![
            full.clone(),
            set("l", ""),
            get("k"),
            touch,
            delete,
            full.clone(),
            store(StoreMode::Append, "k", 0, "y"),
            flush,
            full,
        ],
    );
    let done = |reply| Outcome::Done(reply);
    assert_eq!(outcomes[..2], [stored(), out_of_memory()]);
    assert!(value(&outcomes[2]).is_some());
    let rest = [
        done(Reply::Touched),
        done(Reply::Deleted),
        stored(),
        out_of_memory(),
        done(Reply::Ok),
        stored(),
    ];
    assert_eq!(outcomes[3..], rest);
}

#[test]
fn a_follower_refuses_to_set_the_limit() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    let follower = it.others(leader)[0];
    assert_eq!(it.ask(follower, 1, vec![limit(64)]), [redirect(leader)]);
}

#[test]
fn a_leader_confirms_that_it_leads_and_no_other_server_does() {
    let mut it = Cluster::serving(3);
    let leader = it.leader().unwrap();
    let confirm = || Command::Read(Read::Confirm);
    let outcomes = it.ask(leader, 1, vec![set("k", "v"), confirm()]);
    let last_applied = it.status(leader).last_applied.0;
    let confirmed = Outcome::Done(Reply::Confirmed { last_applied });
    assert_eq!(outcomes, [stored(), confirmed]);
    let follower = it.others(leader)[0];
    assert_eq!(it.ask(follower, 1, vec![confirm()]), [redirect(leader)]);
    it.isolate(leader);
    it.send_batch(leader, 1, 0, vec![confirm()]);
    it.run_ms(1000);
    let outcomes = it.outcomes(leader, 1);
    assert_eq!(outcomes, [Outcome::NotDone(Refusal::NoLeader)]);
}

#[test]
fn misses_are_told_apart_by_why_the_item_is_gone() {
    let mut it = Cluster::serving(1);
    let id = ServerId(1);
    let delete = |name| Command::Write(Write::Delete { key: key(name) });
    let gat = Command::Write(Write::GetAndTouch {
        keys: vec![key("over"), key("there")],
        exptime: Exptime(0),
    });
    let negative = store(StoreMode::Set, "negative", -1, "v");
    let sets = ["there", "deleted", "later"].map(|name| set(name, "v"));
    it.ask(id, 1, sets.to_vec());
    it.ask(id, 1, vec![set_for("over", 1), negative, delete("deleted")]);
    it.run_ms(2000);
    it.ask(id, 1, vec![get("over"), get("negative"), gat]);
    it.ask(id, 1, vec![get("there"), get("deleted"), get("never")]);
    let shown = stats_of(&mut it, id);
    // Its time came; the one that was stored as over never was there.
    assert_eq!(stat(&shown, "crawler_reclaimed"), "1");
    assert_eq!(stat(&shown, "expired_unfetched"), "1");
    for (name, count) in [("get_expired", "3"), ("get_flushed", "0")] {
        assert_eq!(stat(&shown, name), count, "{name}");
    }
    let flush = |delay| {
        let delay = Exptime(delay);
        Command::Write(Write::FlushAll { delay })
    };
    it.ask(id, 1, vec![flush(0), get("there"), get("later")]);
    it.ask(id, 1, vec![set("there", "v"), flush(2), get("there")]);
    it.run_ms(3000);
    it.ask(id, 1, vec![get("there")]);
    let shown = stats_of(&mut it, id);
    for (name, count) in [("get_expired", "3"), ("get_flushed", "3")] {
        assert_eq!(stat(&shown, name), count, "{name}");
    }
    let outcomes = it.ask(id, 1, vec![Command::Stats(Stats::Reset), stats()]);
    for name in ["get_expired", "get_flushed", "crawler_reclaimed"] {
        assert_eq!(stat(&outcomes[1], name), "0", "{name}");
    }
}

#[test]
fn items_and_slabs_are_those_of_one_class() {
    let mut it = Cluster::serving(1);
    let id = ServerId(1);
    let of = |it: &mut Cluster, stats| it.ask(id, 1, vec![Command::Stats(stats)]).remove(0);
    let slabs = of(&mut it, Stats::Slabs);
    assert_eq!(stat(&slabs, "active_slabs"), "0");
    assert_eq!(
        of(&mut it, Stats::Items),
        Outcome::Done(Reply::Stats(vec![]))
    );
    for number in 0..10_000 {
        it.ask(id, 1, vec![set(&format!("key{number:05}"), "twelve bytes")]);
    }
    let (items, slabs) = (of(&mut it, Stats::Items), of(&mut it, Stats::Slabs));
    let bytes = it.status(id).store.bytes.to_string();
    assert_eq!(stat(&items, "items:1:number"), "10000");
    assert_eq!(stat(&items, "items:1:mem_requested"), bytes);
    assert_eq!(stat(&slabs, "1:used_chunks"), "10000");
    assert_eq!(stat(&slabs, "total_malloced"), bytes);
    let general = stats_of(&mut it, id);
    assert_eq!(stat(&general, "bytes"), bytes);
    // Two to the power of so many places for ten thousand items, most of them in use.
    let power: u32 = stat(&general, "hash_power_level").parse().unwrap();
    assert!((14..18).contains(&power), "{power}");
    let table: u64 = stat(&general, "hash_bytes").parse().unwrap();
    assert!((300_000..5_000_000).contains(&table), "{table}");
}
