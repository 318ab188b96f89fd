//! Lists of all keys, from real servers.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use quorate_tests::{Cluster, Load, Plan, Programs, Shared, User, deadline, wait_until};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

/// Of the tests with a large list: more than the sockets between a server and its client hold.
static SHARED: Shared = Shared::new();
const KEYS: usize = 200_000;

fn key(number: usize) -> String {
    format!("{number:06}{}", "k".repeat(120))
}

fn cluster() -> User {
    SHARED.get_or_start(|| {
        let cluster = Plan::new(PROGRAMS, 3).patient().start();
        let mut text = cluster.connect_to_leader();
        for thousand in 0..KEYS / 1000 {
            let numbers = thousand * 1000..(thousand + 1) * 1000;
            let sets = numbers.map(|number| format!("set {} 0 0 1\r\nv\r\n", key(number)));
            text.exchange(sets.collect::<String>(), "STORED\r\n".repeat(1000));
        }
        cluster
    })
}

/// A list that is read as it is.
struct List {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl List {
    /// Asks for a list when no other test is given one.
    fn begin(cluster: &Cluster, line: &str) -> List {
        wait_until("the end of another list", deadline(), || {
            let mut list = List::ask(cluster, line);
            list.read(2);
            match &list.bytes[..2] {
                b"OK" => Ok(list),
                other => Err(String::from_utf8_lossy(other).into_owned()),
            }
        })
    }

    fn ask(cluster: &Cluster, line: &str) -> List {
        let leader = cluster.leader();
        let mut stream = TcpStream::connect(cluster.client_address(leader)).expect("it listens");
        let timeout = Some(Duration::from_secs(30));
        stream.set_read_timeout(timeout).expect("it is not zero");
        stream
            .write_all(format!("{line}\r\n").as_bytes())
            .expect("it reads");
        List {
            stream,
            bytes: Vec::new(),
        }
    }

    /// Reads until so many bytes are there.
    fn read(&mut self, bytes: usize) {
        let mut piece = vec![0; 64 << 10];
        while self.bytes.len() < bytes {
            let count = self.stream.read(&mut piece).expect("it goes on");
            assert!(count > 0, "it was closed after {}", self.bytes.len());
            self.bytes.extend_from_slice(&piece[..count]);
        }
    }

    /// Reads until this is the end; the lines before it.
    fn read_to_end(&mut self, end: &str) -> Vec<String> {
        while !self.bytes.ends_with(format!("\n{end}\r\n").as_bytes()) {
            self.read(self.bytes.len() + 1);
        }
        let text = String::from_utf8(std::mem::take(&mut self.bytes)).expect("text");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        assert_eq!(lines.pop().as_deref(), Some(end));
        lines
    }
}

#[test]
fn all_keys_of_one_moment_are_listed_while_clients_write() {
    let cluster = cluster();
    let load = Load::start(&cluster, "dump", 4);
    load.wait_for_more(100);
    let mut list = List::begin(&cluster, "lru_crawler mgdump all");
    list.read(1 << 20);
    // The server waits for this client, and for nobody else.
    load.wait_for_more(500);
    list.read(2 << 20);
    load.wait_for_more(500);
    let lines = list.read_to_end("EN");
    let written = load.stop().len();
    assert_eq!(lines[0], "OK");
    let mut listed: BTreeSet<&str> = BTreeSet::new();
    for line in &lines[1..] {
        let key = line.strip_prefix("mg ").expect("a line of mgdump");
        assert!(listed.insert(key), "{key} is listed twice");
    }
    for number in 0..KEYS {
        assert!(listed.contains(&*key(number)), "key {number} is missing");
    }
    let others = listed.len() - KEYS;
    assert!(
        (100..=written - 1000).contains(&others),
        "{others} of {written} keys that were written around the list are in it"
    );
    list.stream.write_all(b"mn\r\n").expect("it is open");
    list.read(4);
    assert_eq!(list.bytes, b"MN\r\n");
}

#[test]
fn there_is_one_list_at_a_time_and_a_client_that_leaves_ends_its_own() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    let list = List::begin(&cluster, "lru_crawler mgdump all");
    let busy = "BUSY currently processing crawler request\r\n";
    text.exchange("lru_crawler metadump all\r\n", busy);
    text.exchange("lru_crawler mgdump hash\r\nmn\r\n", format!("{busy}MN\r\n"));
    // This one takes nothing from others.
    let item = text.ask("stats cachedump 1 1\r\n");
    assert!(item.starts_with("ITEM "), "{item}");
    text.expect("END\r\n");
    drop(list);
    List::begin(&cluster, "lru_crawler metadump all");
}

#[test]
fn a_cachedump_ends_after_two_mebibytes() {
    let cluster = cluster();
    let mut list = List::ask(&cluster, "stats cachedump 1 0");
    let lines = list.read_to_end("END");
    let bytes: usize = lines.iter().map(|line| line.len() + 2).sum();
    assert!(
        (2 << 20..(2 << 20) + 1000).contains(&bytes),
        "{bytes} bytes"
    );
    let lines: BTreeSet<String> = lines.into_iter().collect();
    assert!(lines.iter().all(|line| line.starts_with("ITEM ")));
    assert!(lines.len() > 10_000, "{} keys", lines.len());
}

#[test]
fn the_lines_are_those_of_memcached() {
    let cluster = Plan::new(PROGRAMS, 3).start();
    let mut text = cluster.connect_to_leader();
    text.exchange("lru_crawler metadump all\r\n", "OK\r\nEND\r\n");
    text.exchange("lru_crawler mgdump all\r\n", "OK\r\nEN\r\n");
    text.exchange("set a%\u{e9} 7 0 3\r\nabc\r\n", "STORED\r\n");
    text.exchange("set gone 0 -1 1\r\nx\r\n", "STORED\r\n");
    let line = text.ask("gets a%\u{e9}\r\n");
    let unique = line.rsplit(' ').next().expect("a unique").to_owned();
    text.expect("abc\r\nEND\r\n");
    let mut list = List::ask(&cluster, "lru_crawler metadump all");
    let lines = list.read_to_end("END");
    assert_eq!(lines.len(), 2, "{lines:?}");
    let words: Vec<&str> = lines[1].split(' ').collect();
    let [key, exp, la, cas, fetch, cls, size, flags] = words[..] else {
        panic!("{:?}", lines[1]);
    };
    assert_eq!((key, exp), ("key=a%25%C3%A9", "exp=-1"));
    assert!(la.strip_prefix("la=").is_some_and(|it| it.len() == 10));
    assert_eq!(cas, format!("cas={unique}"));
    assert!(matches!(fetch, "fetch=yes" | "fetch=no"));
    assert_eq!((cls, flags), ("cls=1", "flags=7"));
    let size: Option<u64> = size.strip_prefix("size=").and_then(|it| it.parse().ok());
    assert!(size.is_some_and(|size| size > 7));
    text.exchange("lru_crawler mgdump 1\r\n", "OK\r\nmg a%\u{e9}\r\nEN\r\n");
    text.exchange(
        "stats cachedump 1 10\r\n",
        "ITEM a%\u{e9} [3 b; 0 s]\r\nEND\r\n",
    );

    let follower = cluster.follower();
    let redirect = cluster.redirect_to(cluster.leader());
    let mut text = cluster.connect(follower);
    for line in ["lru_crawler metadump all", "stats cachedump 1 0"] {
        assert_eq!(text.ask(format!("{line}\r\n")), redirect.trim_end());
    }
}
