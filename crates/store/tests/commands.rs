//! What each command answers and leaves behind (docs/memcached.md), and what time does.

use bytes::Bytes;
use command::{Direction, Exptime, Key, LogTime, Preamble, Read, Reply, StoreMode, Write};
use quorate_store::Store;

/// A second since 1970 at which all tests start.
const START: u64 = 1_700_000_000;

/// A store that is given one entry after another.
struct Fixture {
    store: Store,
    index: u64,
    log_time: LogTime,
    item_bytes_max: u32,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture {
            store: Store::new(7),
            index: 0,
            log_time: LogTime(START * 1000),
            item_bytes_max: 1 << 20,
        }
    }

    /// Begins an entry so many seconds after the start.
    fn at(&mut self, seconds: u64) -> &mut Fixture {
        self.log_time = LogTime((START + seconds) * 1000);
        self.entry(&[]);
        self
    }

    fn entry(&mut self, writes: &[Write]) -> Vec<Reply> {
        self.index += 1;
        let preamble = Preamble {
            log_time: self.log_time,
            item_bytes_max: self.item_bytes_max,
            memory_limit_bytes: 0,
            mark: None,
        };
        self.store.enter(self.index, &preamble);
        let apply = |(place, write)| self.store.apply(place, write);
        (0..).zip(writes).map(apply).collect()
    }

    fn write(&mut self, write: Write) -> Reply {
        self.entry(&[write]).remove(0)
    }

    fn store(&mut self, mode: StoreMode, key: &str, exptime: i32, value: &str) -> Reply {
        self.write(store(mode, key, exptime, value))
    }

    fn set(&mut self, key: &str, value: &str) {
        assert_eq!(self.store(StoreMode::Set, key, 0, value), Reply::Stored);
    }

    fn set_for(&mut self, key: &str, exptime: i32) {
        assert_eq!(self.store(StoreMode::Set, key, exptime, "v"), Reply::Stored);
    }

    /// The value, if there is an item.
    fn get(&self, key: &str) -> Option<String> {
        let (value, ..) = self.gets(key)?;
        Some(value)
    }

    /// Value, flags and unique.
    fn gets(&self, key: &str) -> Option<(String, u32, u64)> {
        let keys = [self::key(key)].into_iter().collect();
        let Reply::Hits(hits) = self.store.read(&Read::Get { keys }) else {
            panic!("a get answers hits");
        };
        let hit = hits.into_iter().next()?;
        let value = String::from_utf8(hit.value().to_vec()).expect("tests store text");
        Some((value, hit.flags, hit.unique))
    }

    fn unique(&self, key: &str) -> u64 {
        self.gets(key).expect("an item").2
    }
}

fn key(key: &str) -> Key {
    Key::new(Bytes::copy_from_slice(key.as_bytes())).expect("a key of a test is short")
}

fn store(mode: StoreMode, name: &str, exptime: i32, value: &str) -> Write {
    Write::Store(command::Store {
        mode,
        key: key(name),
        flags: 5,
        exptime: Exptime(exptime),
        value: Bytes::copy_from_slice(value.as_bytes()),
    })
}

fn set(name: &str, value: &str) -> Write {
    store(StoreMode::Set, name, 0, value)
}

fn incr(name: &str, delta: u64) -> Write {
    Write::Arithmetic {
        key: key(name),
        direction: Direction::Increment,
        delta,
    }
}

fn decr(name: &str, delta: u64) -> Write {
    Write::Arithmetic {
        key: key(name),
        direction: Direction::Decrement,
        delta,
    }
}

fn touch(name: &str, exptime: i32) -> Write {
    Write::Touch {
        key: key(name),
        exptime: Exptime(exptime),
    }
}

fn gat(names: &[&str], exptime: i32) -> Write {
    Write::GetAndTouch {
        keys: names.iter().map(|name| key(name)).collect(),
        exptime: Exptime(exptime),
    }
}

fn flush_all(delay: i32) -> Write {
    Write::FlushAll {
        delay: Exptime(delay),
    }
}

fn hits(reply: Reply) -> usize {
    match reply {
        Reply::Hits(hits) => hits.len(),
        other => panic!("{other:?} is no retrieval's"),
    }
}

#[test]
fn what_is_set_is_read_back_with_its_flags() {
    let mut it = Fixture::new();
    it.set("k", "v\r\n");
    let (value, flags, _) = it.gets("k").unwrap();
    assert_eq!((value.as_str(), flags), ("v\r\n", 5));
    assert_eq!(it.get("other"), None);
}

#[test]
fn add_stores_only_what_is_missing_and_replace_only_what_is_there() {
    let mut it = Fixture::new();
    assert_eq!(it.store(StoreMode::Replace, "k", 0, "a"), Reply::NotStored);
    assert_eq!(it.store(StoreMode::Add, "k", 0, "b"), Reply::Stored);
    assert_eq!(it.store(StoreMode::Add, "k", 0, "c"), Reply::NotStored);
    assert_eq!(it.get("k").unwrap(), "b");
    assert_eq!(it.store(StoreMode::Replace, "k", 0, "d"), Reply::Stored);
    assert_eq!(it.get("k").unwrap(), "d");
}

#[test]
fn append_and_prepend_keep_flags_and_time_and_give_a_new_unique() {
    let mut it = Fixture::new();
    assert_eq!(it.store(StoreMode::Append, "k", 0, "x"), Reply::NotStored);
    assert_eq!(it.store(StoreMode::Prepend, "k", 0, "x"), Reply::NotStored);
    it.set_for("k", 10);
    let before = it.unique("k");
    let append = Write::Store(command::Store {
        mode: StoreMode::Append,
        key: key("k"),
        flags: 77,
        exptime: Exptime(1000),
        value: Bytes::from_static(b">"),
    });
    assert_eq!(it.write(append), Reply::Stored);
    assert_eq!(it.store(StoreMode::Prepend, "k", 0, "<"), Reply::Stored);
    let (value, flags, unique) = it.gets("k").unwrap();
    assert_eq!((value.as_str(), flags), ("<v>", 5));
    assert!(unique > before);
    it.at(10);
    assert_eq!(it.get("k"), None);
}

#[test]
fn an_append_over_the_leaders_limit_is_not_stored() {
    let mut it = Fixture::new();
    it.set("k", "12345");
    it.item_bytes_max = 1 + 5 + 56 + 2;
    assert_eq!(it.store(StoreMode::Append, "k", 0, "678"), Reply::NotStored);
    assert_eq!(
        it.store(StoreMode::Prepend, "k", 0, "678"),
        Reply::NotStored
    );
    assert_eq!(it.get("k").unwrap(), "12345");
    assert_eq!(it.store(StoreMode::Append, "k", 0, "67"), Reply::Stored);
}

#[test]
fn cas_stores_only_over_the_unique_it_names() {
    let mut it = Fixture::new();
    assert_eq!(it.store(StoreMode::Cas(1), "k", 0, "a"), Reply::NotFound);
    it.set("k", "a");
    let unique = it.unique("k");
    assert_eq!(
        it.store(StoreMode::Cas(unique + 1), "k", 0, "b"),
        Reply::Exists
    );
    assert_eq!(it.store(StoreMode::Cas(unique), "k", 0, "c"), Reply::Stored);
    assert_eq!(it.store(StoreMode::Cas(unique), "k", 0, "d"), Reply::Exists);
    assert_eq!(it.get("k").unwrap(), "c");
}

#[test]
fn a_unique_is_the_index_and_the_place_of_the_change() {
    let mut it = Fixture::new();
    it.entry(&[set("a", "1"), set("b", "1"), incr("a", 1)]);
    assert_eq!(it.unique("a"), (1 << 16) + 2);
    assert_eq!(it.unique("b"), (1 << 16) + 1);
    it.entry(&[touch("a", 100), gat(&["b"], 100)]);
    assert_eq!(it.unique("a"), (1 << 16) + 2);
    assert_eq!(it.unique("b"), (1 << 16) + 1);
}

#[test]
fn delete_says_whether_there_was_an_item() {
    let mut it = Fixture::new();
    let delete = Write::Delete { key: key("k") };
    assert_eq!(it.write(delete.clone()), Reply::NotFound);
    it.set("k", "v");
    assert_eq!(it.write(delete.clone()), Reply::Deleted);
    assert_eq!(it.get("k"), None);
    assert_eq!(it.write(delete), Reply::NotFound);
}

#[test]
fn incr_and_decr_keep_flags_and_time_and_pad_a_shorter_result() {
    let mut it = Fixture::new();
    assert_eq!(it.write(incr("k", 1)), Reply::NotFound);
    assert_eq!(it.store(StoreMode::Set, "k", 10, "10"), Reply::Stored);
    let before = it.unique("k");
    assert_eq!(it.write(decr("k", 1)), Reply::Number(9));
    let (value, flags, unique) = it.gets("k").unwrap();
    assert_eq!((value.as_str(), flags), ("9 ", 5));
    assert!(unique > before);
    assert_eq!(it.write(incr("k", 995)), Reply::Number(1004));
    assert_eq!(it.get("k").unwrap(), "1004");
    it.at(10);
    assert_eq!(it.get("k"), None);
}

#[test]
fn a_value_that_is_no_number_stays_as_it_is() {
    let mut it = Fixture::new();
    it.set("k", "abc");
    let before = it.gets("k");
    assert_eq!(it.write(incr("k", 1)), Reply::NonNumeric);
    assert_eq!(it.write(decr("k", 1)), Reply::NonNumeric);
    assert_eq!(it.gets("k"), before);
}

#[test]
fn an_item_is_over_from_its_second_on() {
    let mut it = Fixture::new();
    it.log_time = LogTime(START * 1000 + 999);
    it.set_for("k", 2);
    it.set_for("absolute", START as i32 + 2);
    it.at(1);
    assert!(it.get("k").is_some() && it.get("absolute").is_some());
    it.at(2);
    assert_eq!((it.get("k"), it.get("absolute")), (None, None));
    assert_eq!(it.store(StoreMode::Add, "k", 0, "v"), Reply::Stored);
}

#[test]
fn a_time_that_is_past_stores_nothing_and_takes_the_old_value_along() {
    let mut it = Fixture::new();
    for exptime in [-1, i32::MIN, START as i32] {
        it.set("k", "old");
        assert_eq!(it.store(StoreMode::Set, "k", exptime, "new"), Reply::Stored);
        assert_eq!(it.get("k"), None);
        assert_eq!(it.store(StoreMode::Add, "k", exptime, "new"), Reply::Stored);
        assert_eq!(it.store(StoreMode::Add, "k", 0, "new"), Reply::Stored);
        let unique = it.unique("k");
        assert_eq!(
            it.store(StoreMode::Cas(unique), "k", exptime, "v"),
            Reply::Stored
        );
        assert_eq!(it.get("k"), None);
    }
    assert_eq!(it.store.counts().items, 0);
}

#[test]
fn touch_changes_only_the_time() {
    let mut it = Fixture::new();
    assert_eq!(it.write(touch("k", 10)), Reply::NotFound);
    it.set_for("k", 5);
    it.set("forever", "v");
    assert_eq!(it.write(touch("k", 10)), Reply::Touched);
    assert_eq!(it.write(touch("forever", 5)), Reply::Touched);
    it.at(5);
    assert!(it.get("k").is_some());
    assert_eq!(it.get("forever"), None);
    assert_eq!(it.write(touch("k", 0)), Reply::Touched);
    it.at(1000);
    assert!(it.get("k").is_some());
    assert_eq!(it.write(touch("k", -1)), Reply::Touched);
    assert_eq!(it.get("k"), None);
}

#[test]
fn gat_answers_the_value_even_when_the_time_is_past() {
    let mut it = Fixture::new();
    it.set("a", "1");
    it.set("b", "2");
    assert_eq!(hits(it.write(gat(&["a", "missing", "b", "a"], 10))), 3);
    assert_eq!(hits(it.write(gat(&["a", "a"], -1))), 1);
    assert_eq!(it.get("a"), None);
    it.at(10);
    assert_eq!(it.get("b"), None);
}

#[test]
fn a_key_asked_for_twice_is_answered_twice() {
    let mut it = Fixture::new();
    it.set("k", "v");
    let keys = [key("k"), key("x"), key("k")].into_iter().collect();
    assert_eq!(hits(it.store.read(&Read::Get { keys })), 2);
}

#[test]
fn flush_all_takes_what_was_stored_before_it_in_the_same_entry() {
    let mut it = Fixture::new();
    for delay in [0, -1, START as i32 - 5] {
        let replies = it.entry(&[set("a", "1"), flush_all(delay), set("b", "2")]);
        assert_eq!(replies[1], Reply::Ok);
        assert_eq!(it.get("a"), None);
        assert_eq!(it.get("b").unwrap(), "2");
    }
}

#[test]
fn a_delayed_flush_takes_what_existed_a_second_before_it() {
    for absolute in [false, true] {
        let mut it = Fixture::new();
        it.set("before", "1");
        let delay = if absolute { START as i32 + 5 } else { 5 };
        assert_eq!(it.write(flush_all(delay)), Reply::Ok);
        it.at(3).set("still before", "2");
        it.at(4).set("after", "3");
        assert!(it.get("before").is_some() && it.get("still before").is_some());
        it.log_time = LogTime((START + 4) * 1000 + 999);
        it.write(touch("before", 100));
        assert!(it.get("before").is_some());
        it.at(5);
        assert_eq!((it.get("before"), it.get("still before")), (None, None));
        assert_eq!(it.get("after").unwrap(), "3");
        it.at(100);
        assert_eq!(it.get("after").unwrap(), "3");
    }
}

#[test]
fn a_delay_of_one_second_takes_what_exists_at_the_command() {
    let mut it = Fixture::new();
    it.entry(&[set("a", "1"), flush_all(1), set("b", "2")]);
    assert!(it.get("a").is_some() && it.get("b").is_some());
    it.at(1);
    assert_eq!(it.get("a"), None);
    assert!(it.get("b").is_some());
}

#[test]
fn an_entry_past_both_seconds_of_a_flush_takes_everything_before_it() {
    let mut it = Fixture::new();
    it.write(flush_all(5));
    it.at(3).set("a", "1");
    it.log_time = LogTime((START + 50) * 1000);
    it.entry(&[set("b", "2")]);
    assert_eq!(it.get("a"), None);
    assert_eq!(it.get("b").unwrap(), "2");
}

#[test]
fn another_flush_replaces_the_one_that_waits() {
    let mut it = Fixture::new();
    it.set("k", "v");
    it.write(flush_all(5));
    it.at(4).write(flush_all(100));
    it.at(50);
    assert!(it.get("k").is_some());
    it.write(flush_all(0));
    it.set("k", "w");
    it.at(200);
    assert_eq!(it.get("k").unwrap(), "w");
}

#[test]
fn flushed_items_that_are_not_yet_freed_are_gone_for_every_command() {
    let mut it = Fixture::new();
    for name in ["a", "b", "c", "d", "e"] {
        it.set_for(name, 1000);
    }
    it.write(flush_all(5));
    it.at(5);
    assert_eq!(it.store(StoreMode::Replace, "a", 0, "v"), Reply::NotStored);
    assert_eq!(it.store(StoreMode::Append, "b", 0, "v"), Reply::NotStored);
    assert_eq!(it.write(touch("c", 10)), Reply::NotFound);
    assert_eq!(it.write(incr("d", 1)), Reply::NotFound);
    assert_eq!(it.store(StoreMode::Add, "e", 0, "w"), Reply::Stored);
    assert_eq!(it.store.counts().items, 1);
    while it.store.tidy() {}
    assert_eq!(it.get("e").unwrap(), "w");
    assert_eq!(it.store.counts().items, 1);
    assert_eq!(it.store.next_due(), None);
}

#[test]
fn time_in_the_log_never_goes_back() {
    let mut it = Fixture::new();
    it.at(100).set_for("k", 10);
    it.at(50);
    assert_eq!(it.store.log_time(), LogTime((START + 100) * 1000));
    it.set_for("l", 10);
    it.at(109);
    assert!(it.get("k").is_some() && it.get("l").is_some());
    it.at(110);
    assert_eq!((it.get("k"), it.get("l")), (None, None));
}

#[test]
fn next_due_is_the_next_second_at_which_something_happens() {
    let mut it = Fixture::new();
    it.set("k", "v");
    assert_eq!(it.store.next_due(), None);
    it.set_for("k", 20);
    it.set_for("l", 10);
    assert_eq!(it.store.next_due(), Some(START + 10));
    it.write(touch("l", 30));
    assert_eq!(it.store.next_due(), Some(START + 20));
    it.write(flush_all(5));
    assert_eq!(it.store.next_due(), Some(START + 4));
    it.at(4);
    assert_eq!(it.store.next_due(), Some(START + 5));
    it.at(5);
    while it.store.tidy() {}
    assert_eq!(it.store.next_due(), None);
}

#[test]
fn a_crowd_that_is_over_is_gone_at_once_and_freed_little_by_little() {
    let mut it = Fixture::new();
    let names: Vec<String> = (0..5000).map(|number| format!("key{number}")).collect();
    for name in &names {
        it.set_for(name, 10);
    }
    it.at(10);
    assert!(names.iter().all(|name| it.get(name).is_none()));
    assert_eq!((it.store.counts().items, it.store.counts().bytes), (0, 0));
    let left = it.store.counts().gone_items;
    assert!(left > 0, "an entry frees a bounded number of items");
    assert!(it.store.tidy());
    assert!(it.store.counts().gone_items < left);
    while it.store.tidy() {}
    assert_eq!(it.store.counts().gone_items, 0);
    assert_eq!(it.store.counts().expired_items, 5000);
}

#[test]
fn counts_follow_what_is_stored() {
    let mut it = Fixture::new();
    it.set("key", "12345");
    it.set("key", "123456");
    it.set("k", "");
    let counts = it.store.counts();
    assert_eq!((counts.items, counts.total_items), (2, 3));
    assert_eq!(counts.bytes, (3 + 6 + 93) + (1 + 93));
    it.store(StoreMode::Add, "k", 0, "refused");
    assert_eq!(it.store.counts(), counts);
    it.write(flush_all(0));
    assert_eq!((it.store.counts().items, it.store.counts().bytes), (0, 0));
}

#[test]
fn an_item_that_is_touched_again_and_again_has_one_deadline() {
    let mut it = Fixture::new();
    it.set("k", "v");
    for exptime in 1..1000 {
        it.write(touch("k", exptime));
    }
    assert_eq!(it.store.next_due(), Some(START + 999));
    it.write(touch("k", 0));
    assert_eq!(it.store.next_due(), None);
}

#[test]
fn stores_with_different_seeds_agree_on_everything_that_shows() {
    let mut one = Fixture::new();
    let mut two = Fixture::new();
    two.store = Store::new(12345);
    for it in [&mut one, &mut two] {
        for number in 0..1000 {
            it.set_for(&format!("key{number}"), number % 7);
        }
        it.at(3);
    }
    assert_eq!(one.store.state_hash(), two.store.state_hash());
    one.write(touch("key0", 5));
    two.entry(&[]);
    assert_ne!(one.store.state_hash(), two.store.state_hash());
}

#[test]
fn a_reply_keeps_its_value_when_the_item_changes() {
    let mut it = Fixture::new();
    it.set("k", "old");
    let Reply::Hits(hits) = it.write(gat(&["k"], 0)) else {
        panic!("gat answers hits");
    };
    it.set("k", "new");
    assert_eq!(hits[0].value(), b"old");
}
