//! The store against a model that knows no index, no shard and no hurry.

mod support;

use std::collections::BTreeMap;

use bytes::Bytes;
use command::{
    Deadline, Direction, Exptime, Hit, Key, KeyValue, LogTime, Preamble, Read, Reply, StoreMode,
    Write,
};
use proptest::prelude::*;
use quorate_store::Store;
use support::{all_keys, any_key, any_value, any_write};

#[derive(Clone, Debug)]
struct Item {
    value: Vec<u8>,
    flags: u32,
    unique: u64,
    deadline: Deadline,
}

/// Items as they are, and the flushes that wait for their time.
#[derive(Default)]
struct Model {
    items: BTreeMap<Key, Item>,
    now: u64,
    /// Second, and the keys with uniques that existed a second before, once that has come.
    flush: Option<(u64, Option<u64>)>,
}

impl Model {
    fn enter(&mut self, index: u64, log_time: LogTime) {
        self.now = self.now.max(log_time.0);
        let second = self.now / 1000;
        if let Some((at, below)) = &mut self.flush {
            if second + 1 >= *at && below.is_none() {
                *below = Some(index << 16);
            }
            if second >= *at {
                let below = below.unwrap_or(u64::MAX);
                self.items.retain(|_, item| item.unique >= below);
                self.flush = None;
            }
        }
        self.drop_what_is_over();
    }

    fn drop_what_is_over(&mut self) {
        let second = self.now / 1000;
        self.items.retain(|_, item| match item.deadline {
            Deadline::Past => false,
            Deadline::At(at) => at > second,
            Deadline::Never => true,
        });
    }

    fn get(&self, key: &Key) -> Option<Hit> {
        self.items.get(key).map(|item| Hit {
            flags: item.flags,
            unique: item.unique,
            data: KeyValue::new(key, &item.value),
        })
    }

    /// Items, and bytes.
    fn counts(&self) -> (u64, u64) {
        let items = self.items.iter();
        let bytes = items.map(|(key, item)| key.as_bytes().len() + item.value.len() + 93);
        (self.items.len() as u64, bytes.sum::<usize>() as u64)
    }

    fn apply(&mut self, unique: u64, write: &Write) -> Reply {
        let now = LogTime(self.now);
        let reply = match write {
            Write::Store(store) => self.store(unique, store),
            Write::Delete { key } => match self.items.remove(key) {
                Some(_) => Reply::Deleted,
                None => Reply::NotFound,
            },
            Write::Arithmetic {
                key,
                direction,
                delta,
            } => self.arithmetic(unique, key, *direction, *delta),
            Write::Touch { key, exptime } => match self.items.get_mut(key) {
                Some(item) => {
                    item.deadline = exptime.deadline(now);
                    Reply::Touched
                }
                None => Reply::NotFound,
            },
            Write::GetAndTouch { keys, exptime } => {
                let mut hits = Vec::new();
                for key in keys {
                    hits.extend(self.get(key));
                    if let Some(item) = self.items.get_mut(key) {
                        item.deadline = exptime.deadline(now);
                    }
                    self.drop_what_is_over();
                }
                Reply::Hits(hits)
            }
            Write::FlushAll { delay } => {
                self.flush = None;
                match delay.deadline(now) {
                    Deadline::At(at) => {
                        let begun = self.now / 1000 + 1 >= at;
                        self.flush = Some((at, begun.then_some(unique)));
                    }
                    _ => self.items.clear(),
                }
                Reply::Ok
            }
            Write::MemoryLimit { .. } => Reply::Ok,
            other => unreachable!("{other:?} is none of the model's commands"),
        };
        self.drop_what_is_over();
        reply
    }

    fn store(&mut self, unique: u64, store: &command::Store) -> Reply {
        let old = self.items.get(&store.key).cloned();
        let deadline = store.exptime.deadline(LogTime(self.now));
        let whole = |value: &[u8]| Item {
            value: value.to_vec(),
            flags: store.flags,
            unique,
            deadline,
        };
        let item = match (store.mode, old) {
            (StoreMode::Set, _) | (StoreMode::Add, None) | (StoreMode::Replace, Some(_)) => {
                whole(&store.value)
            }
            (StoreMode::Append, Some(old)) => Item {
                value: [&old.value, &store.value[..]].concat(),
                unique,
                ..old
            },
            (StoreMode::Prepend, Some(old)) => Item {
                value: [&store.value[..], &old.value].concat(),
                unique,
                ..old
            },
            (StoreMode::Cas(_), None) => return Reply::NotFound,
            (StoreMode::Cas(wanted), Some(old)) if old.unique == wanted => whole(&store.value),
            (StoreMode::Cas(_), Some(_)) => return Reply::Exists,
            _ => return Reply::NotStored,
        };
        self.items.insert(store.key.clone(), item);
        Reply::Stored
    }

    fn arithmetic(&mut self, unique: u64, key: &Key, direction: Direction, delta: u64) -> Reply {
        let Some(item) = self.items.get_mut(key) else {
            return Reply::NotFound;
        };
        let text = String::from_utf8_lossy(&item.value);
        let first = text.split_whitespace().next().unwrap_or_default();
        let Ok(number) = first.parse::<u64>() else {
            return Reply::NonNumeric;
        };
        let number = match direction {
            Direction::Increment => number.wrapping_add(delta),
            Direction::Decrement => number.saturating_sub(delta),
        };
        let width = item.value.len();
        item.value = format!("{number:<width$}").into_bytes();
        item.unique = unique;
        Reply::Number(number)
    }
}

/// What happens next; uniques of cas are drawn when it does.
#[derive(Clone, Debug)]
enum Step {
    /// An entry so many milliseconds later, or earlier, by the leader's clock.
    Entry(i64, Vec<Write>),
    /// `cas` with the item's unique.
    Cas(Key, Bytes),
    Tidy,
}

fn any_step() -> impl Strategy<Value = Step> {
    let writes = proptest::collection::vec(any_write(), 0..6);
    let gap = prop_oneof![-2000..0i64, 0..300i64, 300..3000i64];
    prop_oneof![
        8 => (gap, writes).prop_map(|(gap, writes)| Step::Entry(gap, writes)),
        1 => (any_key(), any_value()).prop_map(|(key, value)| Step::Cas(key, value)),
        1 => Just(Step::Tidy),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn every_command_answers_as_the_model_does(
        steps in proptest::collection::vec(any_step(), 1..60),
        seed: u64,
    ) {
        let mut store = Store::new(seed);
        let mut model = Model::default();
        let mut clock: i64 = 1_700_000_000_000;
        let mut index = 0;
        for step in steps {
            let writes = match step {
                Step::Tidy => {
                    store.tidy();
                    continue;
                }
                Step::Entry(gap, writes) => {
                    clock += gap;
                    writes
                }
                Step::Cas(key, value) => {
                    let mode = StoreMode::Cas(model.items.get(&key).map_or(0, |item| item.unique));
                    let exptime = Exptime(3);
                    vec![Write::Store(command::Store { mode, key, flags: 1, exptime, value })]
                }
            };
            index += 1;
            let log_time = LogTime(clock as u64);
            store.enter(index, &Preamble { log_time, item_bytes_max: 1 << 20, memory_limit_bytes: 0, mark: None });
            model.enter(index, log_time);
            for (place, write) in (0u16..).zip(&writes) {
                let unique = (index << 16) + u64::from(place);
                prop_assert_eq!(store.apply(place, write), model.apply(unique, write), "{:?}", write);
            }
            let hits: Vec<Hit> = all_keys().iter().filter_map(|key| model.get(key)).collect();
            let all = Read::Get { keys: all_keys().into_iter().collect() };
            prop_assert_eq!(store.read(&all), Reply::Hits(hits));
            prop_assert_eq!(store.log_time(), LogTime(model.now));
            prop_assert_eq!((store.counts().items, store.counts().bytes), model.counts());
        }
        while store.tidy() {}
        prop_assert_eq!((store.counts().items, store.counts().bytes), model.counts());
        prop_assert_eq!(store.counts().gone_items, 0);
        let next = model.items.values().filter_map(|item| match item.deadline {
            Deadline::At(second) => Some(second),
            _ => None,
        });
        let flush = model.flush.map(|(at, below)| if below.is_none() { at - 1 } else { at });
        prop_assert_eq!(store.next_due(), next.chain(flush).min());
    }
}
