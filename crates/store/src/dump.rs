//! The keys of a frozen state, a bounded number at a time, for those that list them. What was
//! walked over is let go of, so that a dump that takes long holds less and less.

use std::sync::Arc;

use crate::garbage::Garbage;
use crate::item::Item;
use crate::map::{Group, Shards};
use crate::moment::Moment;

/// What is left to be listed of a state. Items come in an order that means nothing, and differs
/// from server to server.
#[derive(Debug)]
pub struct Dump {
    /// The last one is walked over.
    groups: Vec<Arc<Group>>,
    /// Of that group the next shard, and of that the next item.
    shard: usize,
    item: usize,
    moment: Moment,
}

/// An item, for those who list items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    pub key: &'a [u8],
    pub value_bytes: usize,
    pub flags: u32,
    pub unique: u64,
    /// Over from this second since 1970 on.
    pub over_at: Option<u32>,
    /// The second since 1970 at which it was last asked for, and whether it ever was.
    pub last_access: u64,
    pub fetched: bool,
    /// What it counts for in `stats`.
    pub bytes: usize,
}

impl Dump {
    pub(crate) fn new(shards: Shards, moment: Moment) -> Dump {
        Dump {
            groups: shards.into_groups().collect(),
            shard: 0,
            item: 0,
            moment,
        }
    }

    /// Looks at so many more items at most, and gives those that are alive to `sink`. False when
    /// there are no more.
    pub fn list(&mut self, items_max: usize, sink: &mut impl FnMut(Listed<'_>)) -> bool {
        let mut left = items_max;
        while let Some(group) = self.groups.last_mut() {
            let Some(shard) = group.get(self.shard) else {
                self.groups.pop();
                self.shard = 0;
                continue;
            };
            let items = shard.iter().flat_map(|shard| shard.iter());
            let mut seen = 0;
            for item in items.skip(self.item).take(left) {
                seen += 1;
                if self.moment.is_alive(item) {
                    sink(listed(item));
                }
            }
            left -= seen;
            if left == 0 {
                self.item += seen;
                return true;
            }
            self.shard += 1;
            self.item = 0;
            // If the store has gone on without these items, this frees them.
            if let Some(group) = Arc::get_mut(group) {
                group[self.shard - 1] = None;
            }
        }
        false
    }

    /// All of it, for whoever drops it piece by piece.
    #[must_use]
    pub fn into_garbage(self) -> Garbage {
        Garbage::of_groups(self.groups)
    }
}

fn listed(item: &Item) -> Listed<'_> {
    let about = item.about();
    Listed {
        key: item.key(),
        value_bytes: item.value().len(),
        flags: about.flags,
        unique: about.unique,
        over_at: Some(about.over_at).filter(|second| *second != 0),
        last_access: u64::from(item.data.accessed()),
        fetched: item.data.is_fetched(),
        bytes: item.bytes(),
    }
}
