//! Ids of messages in an order: by a number (a priority, or a second), and by id where that is the
//! same. Ids next to each other with the same number share a place, so that a million messages of
//! one priority take a few thousand places.

use std::collections::BTreeMap;

/// So many ids share a place, and a page of messages.
pub(crate) const PAGE_IDS: u64 = 64;

/// Some ids, each with a number.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// By number and page, the ids of the page as bits; none is 0.
    places: BTreeMap<(u32, u64), u64>,
}

/// The page that an id is on.
pub(crate) fn page_of(id: u64) -> u64 {
    id / PAGE_IDS
}

/// An id as a bit of its page.
pub(crate) fn bit_of(id: u64) -> u64 {
    1 << (id % PAGE_IDS)
}

impl Order {
    pub(crate) fn insert(&mut self, number: u32, id: u64) {
        self.insert_all(number, page_of(id), bit_of(id));
    }

    /// Takes in all ids of a page that have their bit set.
    pub(crate) fn insert_all(&mut self, number: u32, page: u64, bits: u64) {
        if bits != 0 {
            *self.places.entry((number, page)).or_default() |= bits;
        }
    }

    pub(crate) fn remove(&mut self, number: u32, id: u64) {
        self.remove_all(number, page_of(id), bit_of(id));
    }

    pub(crate) fn remove_all(&mut self, number: u32, page: u64, bits: u64) {
        if let Some(place) = self.places.get_mut(&(number, page)) {
            *place &= !bits;
            if *place == 0 {
                self.places.remove(&(number, page));
            }
        }
    }

    /// The first id.
    pub(crate) fn first(&self) -> Option<u64> {
        let ((_, page), bits) = self.places.first_key_value()?;
        Some(page * PAGE_IDS + u64::from(bits.trailing_zeros()))
    }

    /// The number of the first id.
    pub(crate) fn first_number(&self) -> Option<u32> {
        self.places
            .first_key_value()
            .map(|((number, _), _)| *number)
    }

    /// Takes the first few ids off that share a place, if their number is no larger than this: the
    /// page, and the bits.
    pub(crate) fn pop_until(&mut self, number_max: u32) -> Option<(u64, u64)> {
        let first = self.places.first_entry()?;
        let (number, page) = *first.key();
        (number <= number_max).then(|| (page, first.remove()))
    }
}
