//! What the meta commands leave behind that no reply of theirs shows at once.

use bytes::Bytes;
use command::{
    Direction, Exptime, Key, LogTime, MetaArithmetic, MetaDelete, MetaGet, MetaHit, MetaSet,
    Preamble, Read, Reply, StoreMode, Write,
};
use quorate_store::Store;

const START: u64 = 1_700_000_000;

struct Fixture {
    store: Store,
    index: u64,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture {
            store: Store::new(3),
            index: 0,
        }
    }

    fn at(&mut self, seconds: u64, write: Write) -> Reply {
        self.index += 1;
        let preamble = Preamble {
            log_time: LogTime((START + seconds) * 1000),
            item_bytes_max: 1 << 20,
            mark: None,
        };
        self.store.enter(self.index, &preamble);
        self.store.apply(0, &write)
    }

    fn unique(&self) -> Option<u64> {
        let keys = [key()].into_iter().collect();
        match self.store.read(&Read::Get { keys }) {
            Reply::Hits(hits) => hits.first().map(|hit| hit.unique),
            other => panic!("{other:?} is no retrieval's"),
        }
    }
}

fn key() -> Key {
    Key::new(Bytes::from_static(b"k")).expect("a key")
}

fn set(exptime: i32, value: &'static str) -> MetaSet {
    MetaSet {
        store: command::Store {
            mode: StoreMode::Set,
            key: key(),
            flags: 0,
            exptime: Exptime(exptime),
            value: Bytes::from_static(value.as_bytes()),
        },
        compare: None,
        invalidate: false,
        vivify: None,
        unique: None,
    }
}

fn raised(unique: u64) -> Write {
    Write::MetaSet(MetaSet {
        unique: Some(unique),
        ..set(0, "v")
    })
}

fn get() -> MetaGet {
    MetaGet {
        key: key(),
        peeks: false,
        touch: None,
        vivify: None,
        recache: None,
        unique: None,
    }
}

fn mark_stale() -> MetaDelete {
    MetaDelete {
        key: key(),
        compare: None,
        invalidate: true,
        clear: false,
        touch: None,
        unique: None,
    }
}

fn hit(reply: Reply) -> MetaHit {
    match reply {
        Reply::MetaHit(hit) => hit,
        other => panic!("{other:?} is no hit"),
    }
}

#[test]
fn a_unique_may_only_be_raised() {
    let mut it = Fixture::new();
    assert_eq!(it.at(0, raised((1 << 16) - 1)), Reply::LowUnique);
    assert_eq!(it.unique(), None, "nothing is stored");
    let high = 1 << 40;
    hit(it.at(0, raised(high)));
    assert_eq!(it.unique(), Some(high));
    assert_eq!(it.at(0, raised(high)), Reply::LowUnique);
    hit(it.at(0, Write::MetaSet(set(0, "w"))));
    assert_eq!(it.unique(), Some(high + 1));
    assert_eq!(it.at(0, raised(1 << 63)), Reply::LowUnique);
    let classic = Write::Store(set(0, "x").store);
    assert_eq!(it.at(0, classic), Reply::Stored);
    assert_eq!(it.unique(), Some(high + 2));
}

#[test]
fn a_flush_takes_an_item_whose_unique_was_raised() {
    let mut it = Fixture::new();
    hit(it.at(0, raised(1 << 40)));
    it.at(0, Write::FlushAll { delay: Exptime(3) });
    assert_eq!(it.unique(), Some(1 << 40));
    it.at(3, Write::Delete { key: key() });
    assert_eq!(it.unique(), None);
    hit(it.at(3, Write::MetaSet(set(0, "v"))));
    while it.store.tidy() {}
    assert_eq!(it.unique(), Some(4 << 16), "what was stored later stays");
}

#[test]
fn an_older_value_is_stored_as_a_stale_one_and_keeps_time_and_token() {
    let mut it = Fixture::new();
    hit(it.at(0, Write::MetaSet(set(100, "old"))));
    it.at(1, Write::MetaDelete(mark_stale()));
    assert!(hit(it.at(2, Write::MetaGet(get()))).won);
    let behind = MetaSet {
        compare: Some(1),
        invalidate: true,
        ..set(0, "new")
    };
    assert_eq!(hit(it.at(3, Write::MetaSet(behind))).left, Some(97));
    let seen = hit(it.at(4, Write::MetaGet(get())));
    assert_eq!(seen.data.value(), b"new");
    assert!(seen.stale && seen.token_sent && !seen.won, "{seen:?}");
    assert_eq!(seen.left, Some(96));
}

#[test]
fn an_item_is_stale_until_a_value_is_stored_or_written_anew() {
    let append = Write::Store(command::Store {
        mode: StoreMode::Append,
        ..set(0, "1").store
    });
    let grow = Write::Arithmetic {
        key: key(),
        direction: Direction::Increment,
        delta: 1000,
    };
    let in_place = Write::Arithmetic {
        key: key(),
        direction: Direction::Increment,
        delta: 1,
    };
    let touch = Write::Touch {
        key: key(),
        exptime: Exptime(50),
    };
    let store = Write::MetaSet(set(0, "7"));
    let cases = [
        (append, false),
        (grow, false),
        (store, false),
        (in_place, true),
        (touch, true),
    ];
    for (write, is_stale) in cases {
        let mut it = Fixture::new();
        hit(it.at(0, Write::MetaSet(set(0, "5"))));
        it.at(0, Write::MetaDelete(mark_stale()));
        it.at(0, write.clone());
        assert_eq!(it.store.owes_token(&key()), is_stale, "{write:?}");
    }
}

#[test]
fn an_item_made_by_a_miss_is_over_when_its_time_comes() {
    let mut it = Fixture::new();
    let vivify = |seconds| {
        Write::MetaGet(MetaGet {
            vivify: Some(Exptime(seconds)),
            ..get()
        })
    };
    let made = hit(it.at(0, vivify(30)));
    assert_eq!((made.left_before, made.left), (None, Some(30)));
    assert!(made.won && made.was_made && !made.token_sent);
    let second = hit(it.at(10, vivify(30)));
    assert_eq!(
        (second.left, second.won, second.token_sent),
        (Some(20), false, true)
    );
    assert!(hit(it.at(30, vivify(-1))).won, "the first is over");
    assert_eq!(it.unique(), None, "and the second is over at once");
    let counter = MetaArithmetic {
        key: key(),
        direction: Direction::Increment,
        delta: 1,
        compare: None,
        vivify: Some(Exptime(5)),
        initial: 7,
        touch: None,
        unique: None,
    };
    let made = hit(it.at(31, Write::MetaArithmetic(counter.clone())));
    assert_eq!((made.number, made.left), (Some(7), Some(5)));
    assert_eq!(
        hit(it.at(36, Write::MetaArithmetic(counter))).number,
        Some(7)
    );
}
