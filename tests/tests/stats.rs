//! What `stats` tells of a real server: every line that clients and exporters read, with a true
//! figure behind it.

use std::collections::BTreeMap;

use quorate_tests::{Cluster, Plan, Programs, Text, deadline, wait_until};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

/// Lines of `stats` that are numbers.
const GENERAL: &str = "pid uptime time pointer_size max_connections curr_connections \
    total_connections rejected_connections connection_structures cmd_get cmd_set cmd_flush \
    cmd_touch cmd_meta get_hits get_misses get_expired get_flushed delete_misses delete_hits \
    incr_misses incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval touch_hits \
    touch_misses store_too_large store_no_memory auth_cmds auth_errors bytes_read bytes_written \
    limit_maxbytes accepting_conns listen_disabled_num time_in_listen_disabled_us threads \
    conn_yields hash_power_level hash_bytes hash_is_expanding bytes curr_items total_items \
    expired_unfetched evicted_unfetched evicted_active evictions reclaimed crawler_reclaimed \
    lrutail_reflocked malloc_fails rusage_user rusage_system";

const SETTINGS: &str = "maxbytes maxconns tcpport udpport inter verbosity oldest evictions \
    domain_socket umask growth_factor chunk_size num_threads stat_key_prefix detail_enabled \
    reqs_per_event cas_enabled tcp_backlog binding_protocol auth_enabled_sasl item_size_max \
    maxconns_fast hashpower_init slab_reassign slab_automove flush_enabled dump_enabled \
    client_flags_size";

const ITEMS: &str = "number age mem_requested evicted evicted_nonzero evicted_time outofmemory \
    tailrepairs reclaimed expired_unfetched evicted_unfetched";

const SLABS: &str = "chunk_size chunks_per_page total_pages total_chunks used_chunks free_chunks \
    get_hits cmd_set delete_hits incr_hits decr_hits cas_hits cas_badval touch_hits";

/// The lines of a kind of `stats`.
fn stats(text: &mut Text, line: &str) -> BTreeMap<String, String> {
    text.send(format!("{line}\r\n"));
    let mut lines = BTreeMap::new();
    loop {
        let line = text.line();
        if line == "END" {
            return lines;
        }
        let mut words = line.splitn(3, ' ');
        assert_eq!(words.next(), Some("STAT"), "{line:?}");
        let (Some(name), Some(value)) = (words.next(), words.next()) else {
            panic!("{line:?} has no name or no value");
        };
        let again = lines.insert(name.to_owned(), value.to_owned());
        assert_eq!(again, None, "{name} is there twice");
    }
}

fn number(lines: &BTreeMap<String, String>, name: &str) -> u64 {
    let value = lines.get(name).unwrap_or_else(|| panic!("no {name}"));
    let number = value.parse();
    number.unwrap_or_else(|_| panic!("{name} is {value}"))
}

fn single() -> (Cluster, Text) {
    let cluster = Plan::new(PROGRAMS, 1).start();
    let text = connect(&cluster);
    (cluster, text)
}

/// A connection, once it is the only one: looking for the leader makes others.
fn connect(cluster: &Cluster) -> Text {
    let mut text = cluster.connect_to_leader();
    wait_until("ends of connections", deadline(), || {
        match number(&stats(&mut text, "stats"), "curr_connections") {
            1 => Ok(()),
            open => Err(format!("{open} are open")),
        }
    });
    text
}

#[test]
fn every_line_that_tools_read_is_there() {
    let (_cluster, mut text) = single();
    text.exchange("set k 0 0 1\r\nv\r\n", "STORED\r\n");
    let general = stats(&mut text, "stats");
    for name in GENERAL.split_whitespace() {
        let value = general.get(name).unwrap_or_else(|| panic!("no {name}"));
        assert!(value.parse::<f64>().is_ok(), "{name} is {value}");
    }
    assert!(general["version"].starts_with("1.6.45-quorate-"));
    let (seconds, micros) = general["rusage_user"].split_once('.').expect("a point");
    assert!(seconds.parse::<u64>().is_ok() && micros.len() == 6);
    let settings = stats(&mut text, "stats settings");
    for name in SETTINGS.split_whitespace() {
        assert!(settings.contains_key(name), "no {name} in {settings:?}");
    }
    assert_eq!(settings["evictions"], "off");
    assert_eq!(number(&settings, "item_size_max"), 1 << 20);
    let items = stats(&mut text, "stats items");
    for name in ITEMS.split_whitespace() {
        number(&items, &format!("items:1:{name}"));
    }
    let slabs = stats(&mut text, "stats slabs");
    for name in SLABS.split_whitespace() {
        number(&slabs, &format!("1:{name}"));
    }
    assert_eq!(number(&slabs, "active_slabs"), 1);
    assert_eq!(number(&slabs, "total_malloced"), number(&general, "bytes"));
}

#[test]
fn bytes_and_connections_are_counted_and_a_reset_begins_anew() {
    let (cluster, mut text) = single();
    let before = stats(&mut text, "stats");
    let value = "v".repeat(100_000);
    text.exchange(format!("set k 0 0 100000\r\n{value}\r\n"), "STORED\r\n");
    let hit = format!("VALUE k 0 100000\r\n{value}\r\nEND\r\n");
    text.exchange("get k k\r\n", format!("{}{hit}", &hit[..hit.len() - 5]));
    let large = "v".repeat(2 << 20);
    text.send(format!("set k 0 0 {}\r\n{large}\r\n", large.len()));
    text.expect("SERVER_ERROR object too large for cache\r\n");
    text.send(format!("set k 0 0 {} noreply\r\n{large}\r\n", large.len()));
    let mut other = cluster.connect(1);
    other.exchange("mn\r\n", "MN\r\n");
    let after = stats(&mut text, "stats");
    let grown = |name: &str| number(&after, name) - number(&before, name);
    let sent = 100_000 + 2 * large.len() as u64;
    assert!((sent..sent + 1000).contains(&grown("bytes_read")));
    let received = 200_000;
    assert!((received..received + 20_000).contains(&grown("bytes_written")));
    assert_eq!(grown("store_too_large"), 2);
    assert_eq!(grown("cmd_set"), 1);
    assert_eq!(grown("get_hits"), 2);
    assert_eq!(grown("total_connections"), 1);
    assert_eq!(grown("curr_connections"), 1);

    other.exchange("stats reset\r\n", "RESET\r\n");
    let anew = stats(&mut text, "stats");
    for name in ["store_too_large", "cmd_set", "get_hits", "total_items"] {
        assert_eq!(number(&anew, name), 0, "{name}");
    }
    assert!(number(&anew, "bytes_read") < 1000);
    assert_eq!(number(&anew, "total_connections"), 0);
    assert_eq!(number(&anew, "curr_items"), 1);
    assert_eq!(
        number(&anew, "curr_connections"),
        number(&after, "curr_connections")
    );
}

#[test]
fn connections_are_listed_and_so_is_where_they_come_in() {
    let (cluster, mut text) = single();
    let states = |text: &mut Text| {
        let lines = stats(text, "stats conns");
        let states = lines.iter().filter(|(name, _)| name.ends_with(":state"));
        let states: Vec<String> = states.map(|(_, state)| state.clone()).collect();
        states
    };
    assert_eq!(states(&mut text)[0], "conn_listening");
    let others: Vec<Text> = (0..3).map(|_| cluster.connect(1)).collect();
    let open = |text: &mut Text| states(text).len();
    wait_until("connections", deadline(), || match open(&mut text) {
        5.. => Ok(()),
        open => Err(format!("{open} are listed")),
    });
    let lines = stats(&mut text, "stats conns");
    let here = format!("tcp:{}", cluster.client_address(1));
    assert_eq!(lines["0:addr"], here);
    let listen = lines
        .iter()
        .find(|(name, _)| name.ends_with(":listen_addr"));
    assert_eq!(listen.expect("one is open").1, &here);
    drop(others);
    wait_until("ends of connections", deadline(), || {
        match open(&mut text) {
            2 => Ok(()),
            open => Err(format!("{open} are listed")),
        }
    });
}

#[test]
fn a_connection_too_many_is_counted() {
    let cluster = Plan::new(PROGRAMS, 1)
        .setting("connections_max", "3")
        .start();
    let mut text = connect(&cluster);
    let mut more: Vec<Text> = (0..2).map(|_| cluster.connect(1)).collect();
    for text in &mut more {
        text.exchange("mn\r\n", "MN\r\n");
    }
    assert_eq!(number(&stats(&mut text, "stats"), "accepting_conns"), 0);
    let mut refused = cluster.connect(1);
    refused.expect("ERROR Too many open connections\r\n");
    let lines = stats(&mut text, "stats");
    assert!(number(&lines, "rejected_connections") >= 1);
    assert_eq!(number(&lines, "max_connections"), 3);
}
