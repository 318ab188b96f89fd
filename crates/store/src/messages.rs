//! The messages of a topic by their ids, in pages that are shared until they change: a copy of all of
//! them costs a counter for each page.

use std::collections::BTreeMap;
use std::sync::Arc;

use command::MessageBytes;

use crate::order::{PAGE_IDS, page_of};

/// What can be done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// A consumer has it.
    Reserved,
    /// It is ready later.
    Delayed,
    /// It was delivered as often as it may be.
    Dead,
}

/// A message.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) data: MessageBytes,
    /// The second in which it was pushed.
    pub(crate) since: u32,
    pub(crate) priority: u32,
    /// How often it was reserved.
    pub(crate) deliveries: u32,
    /// The second at which a reserved one comes back, or a delayed one is ready; else 0.
    pub(crate) until: u32,
    pub(crate) state: State,
    /// Its id within its page.
    place: u8,
}

/// Messages whose ids are next to each other, ids ascending.
pub(crate) type Page = Vec<Held>;

/// A page that has room for more messages than this, four times as many as it has, gives it back.
const ROOM_KEPT: usize = 8;

#[derive(Clone, Debug, Default)]
pub(crate) struct Messages {
    /// None of them is empty.
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Held {
    /// One that is pushed now.
    pub(crate) fn new(data: MessageBytes, since: u32, priority: u32) -> Held {
        Held {
            data,
            since,
            priority,
            deliveries: 0,
            until: 0,
            state: State::Ready,
            place: 0,
        }
    }

    /// As a bit of its page.
    pub(crate) fn bit(&self) -> u64 {
        1 << self.place
    }

    pub(crate) fn id(&self, page: u64) -> u64 {
        page * PAGE_IDS + u64::from(self.place)
    }
}

impl Messages {
    /// Adds a message whose id is larger than all others.
    pub(crate) fn push(&mut self, id: u64, mut held: Held) {
        held.place = (id % PAGE_IDS) as u8;
        let page = Arc::make_mut(self.pages.entry(page_of(id)).or_default());
        let last = page.last().map(|last| last.place);
        assert!(last < Some(held.place), "message {id} after {last:?}");
        page.push(held);
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Held> {
        let page = self.pages.get(&page_of(id))?;
        find(page, id).map(|at| &page[at])
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Held> {
        let page = self.pages.get_mut(&page_of(id))?;
        let at = find(page, id)?;
        Some(&mut Arc::make_mut(page)[at])
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<Held> {
        let shared = self.pages.get_mut(&page_of(id))?;
        let at = find(shared, id)?;
        if shared.len() == 1 {
            let page = self.pages.remove(&page_of(id))?;
            return match Arc::try_unwrap(page) {
                Ok(mut page) => page.pop(),
                Err(shared) => shared.first().cloned(),
            };
        }
        let page = Arc::make_mut(shared);
        let held = page.remove(at);
        if page.capacity() > ROOM_KEPT && page.len() * 4 < page.capacity() {
            page.shrink_to(page.len() * 2);
        }
        Some(held)
    }

    /// How many there are. Looks at all pages.
    pub(crate) fn count(&self) -> u64 {
        self.pages.values().map(|page| page.len() as u64).sum()
    }

    /// The messages of a page, to be changed.
    pub(crate) fn page_mut(&mut self, page: u64) -> impl Iterator<Item = &mut Held> {
        let page = self.pages.get_mut(&page).map(Arc::make_mut);
        page.into_iter().flatten()
    }

    /// Takes out a page, if `is_it` holds for all its messages.
    pub(crate) fn take_page(
        &mut self,
        page: u64,
        is_it: impl FnMut(&Held) -> bool,
    ) -> Option<Arc<Page>> {
        let held = self.pages.get(&page)?;
        held.iter().all(is_it).then(|| self.pages.remove(&page))?
    }

    /// All pages, for whoever drops them piece by piece.
    pub(crate) fn into_pages(self) -> impl Iterator<Item = Arc<Page>> {
        self.pages.into_values()
    }

    /// The messages from this id on, ids ascending.
    pub(crate) fn from(&self, id: u64) -> impl Iterator<Item = (u64, &Held)> {
        let pages = self.pages.range(page_of(id)..);
        let all = pages.flat_map(|(page, held)| held.iter().map(|held| (held.id(*page), held)));
        all.skip_while(move |(other, _)| *other < id)
    }
}

fn find(page: &Page, id: u64) -> Option<usize> {
    let place = (id % PAGE_IDS) as u8;
    page.binary_search_by_key(&place, |held| held.place).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_message_takes_32_bytes() {
        assert_eq!(size_of::<Held>(), 32);
    }
}
