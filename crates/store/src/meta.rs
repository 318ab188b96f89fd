//! What the meta commands do to the state beyond the classic ones: tokens that say who is to bring
//! another value, items that are stale, and uniques that the client chooses.
//!
//! An item that is stale, or nearly over, or was made empty by a miss, is to be brought anew by one
//! client. The first that asks is told that it won; the mark `token_sent` tells all others that
//! someone has, until a value is stored.

use command::{
    About, Deadline, Exptime, Key, KeyValue, Marks, MetaArithmetic, MetaDelete, MetaGet, MetaHit,
    MetaSet, Reply, StoreMode,
};

use mutants::Mutant;

use crate::item::{Item, over_at};
use crate::store::{Store, next_unique};

/// The largest unique that a client may give an item: the log's own ones stay below for good, and
/// so do those of all later changes of that item.
const RAISED_UNIQUE_MAX: u64 = (1 << 63) - 1;

impl Store {
    /// Whether an `mg` of this key is the one that has to be told that it won.
    #[must_use]
    pub fn owes_token(&self, key: &Key) -> bool {
        let item = self.find(self.map.hash(key.as_bytes()), key.as_bytes());
        item.is_some_and(|item| owes_token(item.about().marks))
    }

    /// `mg` as a read. It gives out no token: whoever sends it as a read has looked before.
    pub(crate) fn meta_read(&self, get: &MetaGet) -> Reply {
        let key = get.key.as_bytes();
        let Some(item) = self.find(self.map.hash(key), key) else {
            return Reply::NotFound;
        };
        let hit = self.meta_hit(item, u64::from(self.second()));
        if !get.peeks {
            item.data.access(self.second());
        }
        Reply::MetaHit(hit)
    }

    /// `me`.
    pub(crate) fn inspect(&self, key: &Key) -> Reply {
        let item = self.find(self.map.hash(key.as_bytes()), key.as_bytes());
        match item {
            Some(item) => Reply::MetaHit(self.meta_hit(item, u64::from(self.second()))),
            None => Reply::NotFound,
        }
    }

    /// `mg` that may change the item.
    pub(crate) fn meta_get(&mut self, changed: u64, get: &MetaGet) -> Reply {
        let hash = self.map.hash(get.key.as_bytes());
        let now = self.moment.log_time;
        let Some(item) = self.find(hash, get.key.as_bytes()) else {
            return match get.vivify {
                Some(exptime) => self.vivify(changed, hash, get, exptime),
                None => Reply::NotFound,
            };
        };
        let (old, data) = (item.about(), &item.data);
        let seen = self.seen(item, now.seconds());
        if !get.peeks {
            data.access(self.second());
        }
        let touched = match get.touch {
            Some(exptime) => over_at(exptime.deadline(now)),
            None => Some(old.over_at),
        };
        let is_nearly_over = get.recache.is_some_and(|recache| {
            let over_at = match recache.after_touch {
                true => touched.unwrap_or(0),
                false => old.over_at,
            };
            is_before(over_at, recache.below.deadline(now))
        });
        let won = owes_token(old.marks) || (is_nearly_over && !old.marks.token_sent);
        let data = match touched {
            None => {
                let data = data.clone();
                self.expired(hash, get.key.as_bytes());
                data
            }
            // Changed before it is shared with the reply, which would make it a copy.
            Some(over_at) => {
                if over_at != old.over_at || won {
                    self.change(hash, &get.key, |about| {
                        about.over_at = over_at;
                        about.marks.token_sent |= won;
                    });
                }
                let item = self.find(hash, get.key.as_bytes());
                item.expect("an item with time left is there").data.clone()
            }
        };
        Reply::MetaHit(MetaHit {
            left: self.left(touched),
            won,
            ..seen.hit(data)
        })
    }

    /// A miss of `mg` makes an empty item, for which others are told that someone is to bring its
    /// value.
    fn vivify(&mut self, changed: u64, hash: u64, get: &MetaGet, exptime: Exptime) -> Reply {
        let Some(unique) = chosen_unique(changed, None, get.unique) else {
            return Reply::LowUnique;
        };
        let over_at = over_at(exptime.deadline(self.moment.log_time));
        let about = About {
            unique,
            changed,
            flags: 0,
            over_at: over_at.unwrap_or(0),
            marks: Marks {
                stale: false,
                token_sent: true,
            },
        };
        let item = self.item(about, &get.key, b"");
        let mut hit = self.meta_hit(&item, self.moment.log_time.seconds());
        hit.left_before = None;
        hit.left = self.left(over_at);
        hit.token_sent = false;
        hit.won = true;
        hit.was_made = true;
        if !get.peeks {
            item.data.access(self.second());
        }
        if over_at.is_some() && !self.insert(hash, item) {
            return Reply::OutOfMemory;
        }
        self.counts.total_items += 1;
        Reply::MetaHit(hit)
    }

    pub(crate) fn meta_set(&mut self, changed: u64, set: &MetaSet) -> Reply {
        let store = &set.store;
        let hash = self.map.hash(store.key.as_bytes());
        let found = self.find(hash, store.key.as_bytes()).map(Item::about);
        let is_behind = match condition(set, found) {
            Ok(is_behind) => is_behind,
            Err(refused) => return refused,
        };
        let Some(unique) = chosen_unique(changed, found, set.unique) else {
            return Reply::LowUnique;
        };
        let extends = matches!(store.mode, StoreMode::Append | StoreMode::Prepend);
        if extends && found.is_some() {
            let Some(item) = self.extend(changed, unique, store) else {
                return Reply::NotStored;
            };
            let reply = self.keep(hash, item, true);
            self.count_stored(&reply);
            return reply;
        }
        let exptime = match set.vivify {
            Some(exptime) if extends => exptime,
            _ => store.exptime,
        };
        let mut deadline = over_at(exptime.deadline(self.moment.log_time));
        let mut marks = Marks::default();
        if let Some(old) = found.filter(|_| is_behind) {
            deadline = Some(old.over_at);
            marks = Marks {
                stale: true,
                ..old.marks
            };
        }
        let about = About {
            unique,
            changed,
            flags: store.flags,
            over_at: deadline.unwrap_or(0),
            marks,
        };
        let item = self.item(about, &store.key, &store.value);
        let reply = self.keep(hash, item, deadline.is_some());
        self.count_stored(&reply);
        reply
    }

    /// Puts an item in that was made, unless it is over already: then only the old one goes.
    fn keep(&mut self, hash: u64, item: Item, lives: bool) -> Reply {
        let hit = self.meta_hit(&item, self.moment.log_time.seconds());
        if !lives {
            self.expired(hash, hit.data.key());
        } else if !self.insert(hash, item) {
            return Reply::OutOfMemory;
        }
        Reply::MetaHit(hit)
    }

    /// Counts an item as stored, if it was: one that was changed in its place does not count.
    fn count_stored(&mut self, reply: &Reply) {
        self.counts.total_items += u64::from(*reply != Reply::OutOfMemory);
    }

    pub(crate) fn meta_delete(&mut self, changed: u64, delete: &MetaDelete) -> Reply {
        let key = delete.key.as_bytes();
        let hash = self.map.hash(key);
        let Some(old) = self.find(hash, key).map(Item::about) else {
            return Reply::NotFound;
        };
        if delete.compare.is_some_and(|unique| unique != old.unique) {
            return Reply::Exists;
        }
        if !delete.invalidate && !delete.clear {
            self.remove(hash, key);
            self.departed.forget(hash);
            return Reply::Deleted;
        }
        let Some(unique) = chosen_unique(changed, Some(old), delete.unique) else {
            return Reply::LowUnique;
        };
        let mut about = About {
            unique,
            changed,
            ..old
        };
        if delete.clear {
            about.flags = 0;
            about.marks = Marks::default();
        }
        if delete.invalidate {
            about.marks = Marks {
                stale: true,
                token_sent: false,
            };
            if let Some(exptime) = delete.touch {
                let Some(over_at) = over_at(exptime.deadline(self.moment.log_time)) else {
                    self.expired(hash, key);
                    return Reply::Deleted;
                };
                about.over_at = over_at;
            }
        }
        if delete.clear {
            let item = self.item(about, &delete.key, b"");
            if !self.insert(hash, item) {
                return Reply::OutOfMemory;
            }
        } else {
            self.change(hash, &delete.key, |it| *it = about);
        }
        Reply::Deleted
    }

    pub(crate) fn meta_arithmetic(&mut self, changed: u64, it: &MetaArithmetic) -> Reply {
        let key = it.key.as_bytes();
        let hash = self.map.hash(key);
        let found = self.find(hash, key).map(Item::about);
        let unique = match (found, it.compare, it.vivify) {
            (None, _, None) => return Reply::NotFound,
            (Some(old), Some(unique), _) if unique != old.unique => return Reply::Exists,
            _ => chosen_unique(changed, found, it.unique),
        };
        let Some(unique) = unique else {
            return Reply::LowUnique;
        };
        let now = self.moment.log_time;
        let (number, mut item, mut deadline) = match (found, it.vivify) {
            (None, Some(exptime)) => {
                let deadline = over_at(exptime.deadline(now));
                let about = About {
                    unique,
                    changed,
                    over_at: deadline.unwrap_or(0),
                    ..About::default()
                };
                let digits = it.initial.to_string();
                (
                    it.initial,
                    self.item(about, &it.key, digits.as_bytes()),
                    deadline,
                )
            }
            _ => match self.calculated(changed, unique, &it.key, it.direction, it.delta) {
                Some((number, item)) => {
                    let over_at = item.over_at();
                    (number, item, Some(over_at))
                }
                None => return Reply::NonNumeric,
            },
        };
        let left_before = self.left(deadline);
        if let Some(exptime) = it.touch {
            deadline = over_at(exptime.deadline(now));
            item.data.set_about(About {
                over_at: deadline.unwrap_or(0),
                ..item.about()
            });
        }
        let left = self.left(deadline);
        let mut reply = self.keep(hash, item, deadline.is_some());
        if found.is_none() {
            self.count_stored(&reply);
        }
        if let Reply::MetaHit(hit) = &mut reply {
            hit.was_made = found.is_none();
            (hit.left_before, hit.left, hit.number) = (left_before, left, Some(number));
        }
        reply
    }

    /// An item as it is shown in this second.
    fn meta_hit(&self, item: &Item, second: u64) -> MetaHit {
        self.seen(item, second).hit(item.data.clone())
    }

    fn seen(&self, item: &Item, second: u64) -> Seen {
        let about = item.about();
        let left = (about.over_at != 0).then(|| {
            let left = u64::from(about.over_at).saturating_sub(second);
            u32::try_from(left).unwrap_or(u32::MAX)
        });
        Seen {
            left,
            idle_seconds: self.second().saturating_sub(item.data.accessed()),
            was_fetched: item.data.is_fetched(),
            marks: about.marks,
        }
    }

    /// The seconds that are left until this one, 0 being never; none if it has passed.
    fn left(&self, over_at: Option<u32>) -> Option<u32> {
        let now = self.moment.log_time.seconds();
        match over_at {
            None => Some(0),
            Some(0) => None,
            Some(over_at) => u32::try_from(u64::from(over_at).saturating_sub(now)).ok(),
        }
    }
}

/// What is shown of an item besides the item itself.
struct Seen {
    left: Option<u32>,
    idle_seconds: u32,
    was_fetched: bool,
    marks: Marks,
}

impl Seen {
    fn hit(self, data: KeyValue) -> MetaHit {
        MetaHit {
            data,
            left_before: self.left,
            left: self.left,
            idle_seconds: self.idle_seconds,
            was_fetched: self.was_fetched,
            stale: self.marks.stale,
            won: false,
            token_sent: self.marks.token_sent,
            was_made: false,
            number: None,
        }
    }
}

fn owes_token(marks: Marks) -> bool {
    marks.stale && !marks.token_sent
}

/// Whether an item that is over at this second is so before this time.
fn is_before(over_at: u32, deadline: Deadline) -> bool {
    match deadline {
        Deadline::At(second) => over_at != 0 && u64::from(over_at) < second,
        Deadline::Never | Deadline::Past => false,
    }
}

/// Whether the value of `ms` is stored although it is behind the item's, and makes it stale; the
/// reply if nothing is stored.
fn condition(set: &MetaSet, found: Option<About>) -> Result<bool, Reply> {
    use StoreMode::{Add, Append, Cas, Prepend, Replace, Set};
    let Some(old) = found else {
        return match set.store.mode {
            Set | Replace if set.compare.is_some() => Err(Reply::NotFound),
            Replace => Err(Reply::NotStored),
            Append | Prepend if set.vivify.is_none() => Err(Reply::NotStored),
            Set | Add | Append | Prepend | Cas(_) => Ok(false),
        };
    };
    let differs = set.compare.is_some_and(|unique| unique != old.unique);
    let is_behind = set.compare.is_some_and(|unique| unique < old.unique);
    match set.store.mode {
        Add => Err(Reply::NotStored),
        Set | Replace if differs && is_behind && set.invalidate => Ok(true),
        _ if differs => Err(Reply::Exists),
        _ => Ok(false),
    }
}

/// The unique of a change: the one that it would have anyway, or a higher one that the client has
/// chosen; `None` if that is lower, or so high that the item's later ones could not be above it.
fn chosen_unique(changed: u64, old: Option<About>, chosen: Option<u64>) -> Option<u64> {
    let next = next_unique(changed, old);
    match chosen {
        None => Some(next),
        Some(chosen) => {
            let is_taken = (next..=RAISED_UNIQUE_MAX).contains(&chosen)
                || mutants::is_on(Mutant::LowUniqueTaken);
            is_taken.then_some(chosen)
        }
    }
}
