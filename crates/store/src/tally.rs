//! How many items are alive and what they take, exactly, at every place in the log and on every
//! server: whatever else decides by it decides the same everywhere. Items leave the map a little
//! later than they die; here they leave at once, a second's or a flush's with one step.

use std::collections::BTreeMap;

use crate::item::Item;

/// Items, and the bytes that they count for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

/// The items that are alive.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    alive: Part,
    /// While a flush is marked: the first change that it leaves, and those of the living that it
    /// will leave.
    left: Option<(u64, Part)>,
}

#[derive(Debug, Default)]
struct Part {
    all: Sum,
    /// Of these, those with a deadline, by the second at which they are over.
    over: BTreeMap<u32, Sum>,
}

impl Tally {
    pub(crate) fn alive(&self) -> Sum {
        self.alive.all
    }

    /// An item is there, and alive.
    pub(crate) fn add(&mut self, item: &Item) {
        let parts = self.parts(item.about().changed);
        parts.for_each(|part| part.add(item));
    }

    /// An item that was alive is not there any more, or is about to be changed.
    pub(crate) fn remove(&mut self, item: &Item) {
        let parts = self.parts(item.about().changed);
        parts.for_each(|part| part.remove(item));
    }

    /// All items are gone, and no flush is marked.
    pub(crate) fn clear(&mut self) {
        *self = Tally::default();
    }

    /// A flush that is to come will take what was last changed before this. No living item was
    /// changed then or later.
    pub(crate) fn mark(&mut self, below: u64) {
        self.left = Some((below, Part::default()));
    }

    /// The flush that was marked will not come.
    pub(crate) fn unmark(&mut self) {
        self.left = None;
    }

    /// The flush that was marked has come.
    pub(crate) fn flush(&mut self) {
        let left = self.left.take();
        self.alive = left.map(|(_, part)| part).unwrap_or_default();
    }

    /// What is over at this second or before is not alive.
    pub(crate) fn expire(&mut self, second: u64) {
        self.parts(u64::MAX).for_each(|part| part.expire(second));
    }

    /// The parts that an item that was changed then counts in.
    fn parts(&mut self, changed: u64) -> impl Iterator<Item = &mut Part> {
        let left = self.left.as_mut();
        let left = left.filter(|(below, _)| changed >= *below);
        std::iter::once(&mut self.alive).chain(left.map(|(_, part)| part))
    }
}

impl Part {
    fn add(&mut self, item: &Item) {
        self.all.add(item);
        if item.over_at() != 0 {
            self.over.entry(item.over_at()).or_default().add(item);
        }
    }

    fn remove(&mut self, item: &Item) {
        self.all.remove(Sum::of(item));
        if item.over_at() != 0
            && let Some(sum) = self.over.get_mut(&item.over_at())
        {
            sum.remove(Sum::of(item));
            if sum.items == 0 {
                self.over.remove(&item.over_at());
            }
        }
    }

    fn expire(&mut self, second: u64) {
        while let Some(first) = self.over.first_entry()
            && u64::from(*first.key()) <= second
        {
            self.all.remove(first.remove());
        }
    }
}

impl Sum {
    fn of(item: &Item) -> Sum {
        Sum {
            items: 1,
            bytes: item.bytes() as u64,
        }
    }

    fn add(&mut self, item: &Item) {
        self.items += 1;
        self.bytes += item.bytes() as u64;
    }

    fn remove(&mut self, other: Sum) {
        assert!(
            other.items <= self.items && other.bytes <= self.bytes,
            "{other:?} are to go, of {self:?}"
        );
        self.items -= other.items;
        self.bytes -= other.bytes;
    }
}
