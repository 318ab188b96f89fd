//! What nobody will look at any more, and is to be dropped piece by piece: to free a million items
//! at once keeps a processor, and every thread that needs memory, busy for too long.

use std::sync::Arc;

use crate::expiry::Expiry;
use crate::map::{Group, Shard, Shards};
use crate::messages::Page;

/// The most items, and messages, that are dropped at once, give or take a shard.
const DROP_ITEMS_MAX: usize = 1024;

/// A state, or a part of one, that is no longer needed. What it shares with others stays.
#[derive(Debug, Default)]
pub struct Garbage {
    groups: Vec<Arc<Group>>,
    shards: Vec<Arc<Shard>>,
    expiries: Vec<Expiry>,
    pages: Vec<Arc<Page>>,
}

impl Garbage {
    pub(crate) fn of_groups(groups: Vec<Arc<Group>>) -> Garbage {
        Garbage {
            groups,
            ..Garbage::default()
        }
    }

    pub(crate) fn add_items(&mut self, items: Shards) {
        self.groups.extend(items.into_groups());
    }

    pub(crate) fn add_expiry(&mut self, expiry: Expiry) {
        self.expiries.push(expiry);
    }

    pub(crate) fn add_pages(&mut self, mut pages: Vec<Arc<Page>>) {
        self.pages.append(&mut pages);
    }

    /// Takes on what another has.
    pub(crate) fn append(&mut self, mut other: Garbage) {
        self.groups.append(&mut other.groups);
        self.shards.append(&mut other.shards);
        self.expiries.append(&mut other.expiries);
        self.pages.append(&mut other.pages);
    }

    /// Whether there is nothing to drop.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
            && self.shards.is_empty()
            && self.expiries.is_empty()
            && self.pages.is_empty()
    }

    /// Drops about a thousand items: whole shards, as long as they are small.
    pub fn shrink(&mut self) {
        let mut dropped = 0;
        while dropped < DROP_ITEMS_MAX {
            if let Some(shard) = self.shards.pop() {
                dropped += Arc::into_inner(shard).map_or(1, |shard| shard.len());
            } else if let Some(group) = self.groups.pop() {
                let shards = Arc::into_inner(group).into_iter().flatten().flatten();
                self.shards.extend(shards);
            } else {
                break;
            }
        }
        let mut dropped = 0;
        while dropped < DROP_ITEMS_MAX
            && let Some(mut expiry) = self.expiries.pop()
        {
            dropped += expiry.shrink(DROP_ITEMS_MAX);
            if !expiry.is_empty() {
                self.expiries.push(expiry);
            }
        }
        let mut dropped = 0;
        while dropped < DROP_ITEMS_MAX
            && let Some(page) = self.pages.pop()
        {
            dropped += Arc::into_inner(page).map_or(1, |page| page.len());
        }
    }
}
