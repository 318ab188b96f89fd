//! What `/status` and `stats` show of this group.

use std::borrow::Cow;

use command::{LogTime, MetaGet, Outcome, Read, Reply, StoreMode, Write};
use raft::{ClusterId, Index, Position, Role, ServerId, Term};
use store::{Counts, TableSize};

use crate::state_hashes::StateHash;

/// What can be read off the evaluator between two turns.
#[derive(Clone, Debug)]
pub struct Status {
    pub id: ServerId,
    /// `Leader`, `Follower` or `Candidate`. A leader that has lost its majority is a `Leader`
    /// without `quorum` (rule 29), also while it asks for pre-votes; anyone else who asks for
    /// them is a `Candidate`.
    pub role: &'static str,
    pub term: Term,
    /// The leader of `term`, if it was heard from lately; this server only while it has a
    /// majority.
    pub leader: Option<ServerId>,
    /// A leader that has a majority is known.
    pub quorum: bool,
    /// This server leads, and carries out what it is asked: it has applied what was committed
    /// before it was elected.
    pub serves: bool,
    /// Its disk has lost what it may have promised, and what it says counts for nothing until that is
    /// there again; and so many have that no majority is left (`raft::Status`).
    pub recovering: bool,
    pub stranded: bool,
    /// `last_applied <= commit_index <= last_log_index`, `persisted_index <= last_log_index`.
    pub commit_index: Index,
    /// The last entry that the store has taken in.
    pub last_applied: Index,
    pub last_log_index: Index,
    pub persisted_index: Index,
    /// The entry before the first that the log holds.
    pub before: Position,
    /// The cluster that this server knows to exist.
    pub cluster: Option<ClusterId>,
    /// Members whose data directory is known, and those whose is not (rule 41).
    pub seats_filled: usize,
    pub seats_empty: usize,
    /// Commands taken and not answered.
    pub commands_owed: usize,
    pub connections: usize,
    pub unpersisted_bytes: usize,
    pub uncommitted_bytes: usize,
    pub store: Counts,
    pub log_time: LogTime,
    /// The disk has no room for a reserve: as leader, this server takes no writes (rule 9).
    pub out_of_disk: bool,
    /// The newest hash of this server's state: equal on all servers at equal indexes.
    pub state_hash: Option<StateHash>,
    /// How many of them were compared with those of a majority.
    pub state_hashes_compared: u64,
    /// The entry behind which this server's state was not that of a majority, if it ever was: it
    /// serves no more, and leads no more, until it is started anew.
    pub differs_at: Option<Index>,
    /// Leaderships of this server in which its wall clock ran away and was held back (rule 50).
    pub clock_held_back: u64,
    /// How many milliseconds the wall clock of this server, if it leads, is ahead of those of a
    /// majority, if that is an hour or more; negative if it is behind (rule 50).
    pub clock_far_off_ms: Option<i64>,
    /// As follower, this server forwards commands.
    pub forwards: bool,
    pub forwarding: ForwardCounters,
    pub counters: Counters,
    pub raft: raft::Counters,
}

/// What this server has forwarded, and what was forwarded to it, since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardCounters {
    /// Commands sent to leaders, and those that these have refused.
    pub commands: u64,
    pub refused: u64,
    /// Streams that broke off with commands under way.
    pub broken: u64,
    /// Messages of followers that came again, behind a missing one, or in a stream of old.
    pub repeated: u64,
    pub gaps: u64,
    pub late: u64,
}

/// The word for a role.
pub(crate) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Leader | Role::Suspended => "Leader",
        Role::Follower => "Follower",
        Role::PreCandidate | Role::Candidate => "Candidate",
    }
}

/// What this server, as leader, has answered since its start or the last `stats reset`
/// (docs/memcached.md, stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub cmd_get: u64,
    pub cmd_set: u64,
    pub cmd_flush: u64,
    pub cmd_touch: u64,
    /// `mg ms md ma me`.
    pub cmd_meta: u64,
    pub get_hits: u64,
    pub get_misses: u64,
    /// Of the misses, those of keys whose time was over, and those that a flush took, as far as
    /// that is remembered.
    pub get_expired: u64,
    pub get_flushed: u64,
    pub delete_hits: u64,
    pub delete_misses: u64,
    pub incr_hits: u64,
    pub incr_misses: u64,
    pub decr_hits: u64,
    pub decr_misses: u64,
    pub cas_hits: u64,
    pub cas_misses: u64,
    /// `cas` with another unique.
    pub cas_badval: u64,
    pub touch_hits: u64,
    pub touch_misses: u64,
    /// Refused for the memory limit.
    pub store_no_memory: u64,
    /// Commands that were not carried out, and those of which nobody knows.
    pub refused: u64,
    pub unknown: u64,
}

impl Counters {
    pub(crate) fn read(&mut self, read: &Read, reply: &Reply) {
        match read {
            Read::Get { keys } => {
                let (hits, misses) = hits_and_misses(keys.len(), reply);
                self.cmd_get += hits + misses;
                self.get_hits += hits;
                self.get_misses += misses;
            }
            Read::MetaGet(get) => self.meta_get(get, reply),
            Read::Inspect { .. } => self.cmd_meta += 1,
            Read::Confirm | Read::Topics | Read::Peek { .. } => {}
        }
    }

    pub(crate) fn write(&mut self, write: &Write, reply: &Reply) {
        use command::Direction::{Decrement, Increment};
        let found = *reply != Reply::NotFound;
        self.store_no_memory += u64::from(*reply == Reply::OutOfMemory);
        match write {
            Write::Store(store) => self.store(store.mode, reply),
            Write::Delete { .. } => count(found, &mut self.delete_hits, &mut self.delete_misses),
            // As memcached has it: neither hit nor miss.
            Write::Arithmetic { .. } if *reply == Reply::NonNumeric => {}
            Write::Arithmetic { direction, .. } => match direction {
                Increment => count(found, &mut self.incr_hits, &mut self.incr_misses),
                Decrement => count(found, &mut self.decr_hits, &mut self.decr_misses),
            },
            Write::Touch { .. } => {
                self.cmd_touch += 1;
                count(found, &mut self.touch_hits, &mut self.touch_misses);
            }
            Write::GetAndTouch { keys, .. } => {
                let (hits, misses) = hits_and_misses(keys.len(), reply);
                self.cmd_touch += hits + misses;
                self.touch_hits += hits;
                self.touch_misses += misses;
            }
            Write::FlushAll { .. } => self.cmd_flush += 1,
            Write::MemoryLimit { .. } => {}
            Write::Topic(_) => {}
            Write::MetaGet(get) => self.meta_get(get, reply),
            Write::MetaSet(set) => {
                self.cmd_meta += 1;
                if *reply == Reply::OutOfMemory {
                    return;
                }
                self.cmd_set += 1;
                // With any other mode memcached takes `C` for a condition, and no `cas`.
                let is_cas = matches!(set.store.mode, StoreMode::Set | StoreMode::Replace);
                if is_cas && set.compare.is_some() {
                    self.cas(reply);
                }
            }
            // What stays is no deletion.
            Write::MetaDelete(delete)
                if *reply == Reply::Deleted && (delete.invalidate || delete.clear) =>
            {
                self.cmd_meta += 1;
            }
            Write::MetaDelete(_) => {
                self.cmd_meta += 1;
                let found = found && *reply != Reply::Exists;
                count(found, &mut self.delete_hits, &mut self.delete_misses);
            }
            Write::MetaArithmetic(_) if matches!(reply, Reply::NonNumeric | Reply::Exists) => {
                self.cmd_meta += 1;
            }
            Write::MetaArithmetic(arithmetic) => {
                self.cmd_meta += 1;
                // An item that the command has made is neither.
                let found = match reply {
                    Reply::MetaHit(hit) if hit.was_made => return,
                    reply => matches!(reply, Reply::MetaHit(_)),
                };
                match arithmetic.direction {
                    Increment => count(found, &mut self.incr_hits, &mut self.incr_misses),
                    Decrement => count(found, &mut self.decr_hits, &mut self.decr_misses),
                }
            }
        }
    }

    fn store(&mut self, mode: StoreMode, reply: &Reply) {
        if *reply == Reply::OutOfMemory {
            return;
        }
        self.cmd_set += 1;
        if let StoreMode::Cas(_) = mode {
            self.cas(reply);
        }
    }

    fn cas(&mut self, reply: &Reply) {
        match reply {
            Reply::NotFound => self.cas_misses += 1,
            Reply::Exists => self.cas_badval += 1,
            _ => self.cas_hits += 1,
        }
    }

    /// A hit on an item that the command has made itself is a miss.
    fn meta_get(&mut self, get: &MetaGet, reply: &Reply) {
        self.cmd_meta += 1;
        let found = match reply {
            Reply::MetaHit(hit) => !hit.was_made,
            _ => false,
        };
        if get.touch.is_some() {
            self.cmd_touch += 1;
            count(found, &mut self.touch_hits, &mut self.touch_misses);
        } else {
            self.cmd_get += 1;
            count(found, &mut self.get_hits, &mut self.get_misses);
        }
    }

    pub(crate) fn outcome(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Done(_) => {}
            Outcome::NotDone(_) => self.refused += 1,
            Outcome::Unknown => self.unknown += 1,
        }
    }
}

fn count(found: bool, hits: &mut u64, misses: &mut u64) {
    *if found { hits } else { misses } += 1;
}

fn hits_and_misses(keys: usize, reply: &Reply) -> (u64, u64) {
    let hits = match reply {
        Reply::Hits(hits) => hits.len(),
        _ => 0,
    };
    (hits as u64, (keys - hits) as u64)
}

type Line = (Cow<'static, str>, String);

fn line(name: &'static str, value: impl ToString) -> Line {
    (Cow::Borrowed(name), value.to_string())
}

/// What `stats` shows of the store's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// 0 if there is no limit.
    pub(crate) limit_bytes: u64,
    pub(crate) table: TableSize,
}

/// The lines of `stats` that tell of the data and of the group; the server adds those about its
/// process and its connections.
pub(crate) fn general(status: &Status, counts: Counts, memory: Memory) -> Vec<Line> {
    let it = &status.counters;
    let followers = if status.forwards {
        "forward"
    } else {
        "redirect"
    };
    vec![
        line("cmd_get", it.cmd_get),
        line("cmd_set", it.cmd_set),
        line("cmd_flush", it.cmd_flush),
        line("cmd_touch", it.cmd_touch),
        line("cmd_meta", it.cmd_meta),
        line("get_hits", it.get_hits),
        line("get_misses", it.get_misses),
        line("get_expired", it.get_expired),
        line("get_flushed", it.get_flushed),
        line("delete_misses", it.delete_misses),
        line("delete_hits", it.delete_hits),
        line("incr_misses", it.incr_misses),
        line("incr_hits", it.incr_hits),
        line("decr_misses", it.decr_misses),
        line("decr_hits", it.decr_hits),
        line("cas_misses", it.cas_misses),
        line("cas_hits", it.cas_hits),
        line("cas_badval", it.cas_badval),
        line("touch_hits", it.touch_hits),
        line("touch_misses", it.touch_misses),
        line("store_no_memory", it.store_no_memory),
        line("limit_maxbytes", memory.limit_bytes),
        line("hash_power_level", memory.table.buckets.max(1).ilog2()),
        line("hash_bytes", memory.table.bytes),
        line("hash_is_expanding", 0),
        line("slab_reassign_running", 0),
        line("slabs_moved", 0),
        line("lru_crawler_running", 0),
        line("lru_crawler_starts", 0),
        line("malloc_fails", 0),
        line("bytes", counts.bytes),
        line("curr_items", counts.items),
        line("total_items", counts.total_items),
        line("slab_global_page_pool", 0),
        line("expired_unfetched", counts.expired_unfetched),
        line("evicted_unfetched", 0),
        line("evicted_active", 0),
        line("evictions", 0),
        line("reclaimed", counts.reclaimed_items),
        line("crawler_reclaimed", counts.expired_items),
        line("crawler_items_checked", counts.expired_items),
        line("lrutail_reflocked", 0),
        line("moves_to_cold", 0),
        line("moves_to_warm", 0),
        line("moves_within_lru", 0),
        line("direct_reclaims", 0),
        line("quorate_topics", counts.topics),
        line("quorate_messages", counts.messages),
        line("quorate_topic_bytes", counts.topic_bytes),
        line("quorate_gone_items", counts.gone_items),
        line("quorate_role", status.role),
        line("quorate_quorum", u8::from(status.quorum)),
        line("quorate_term", status.term),
        line("quorate_id", status.id),
        // 0 is no server's id.
        line("quorate_leader", status.leader.map_or(0, |id| id.0)),
        line("quorate_commit_index", status.commit_index),
        line("quorate_last_applied", status.last_applied),
        line("quorate_last_log_index", status.last_log_index),
        line("quorate_persisted_index", status.persisted_index),
        line("quorate_log_time_ms", status.log_time.0),
        line("quorate_elections", status.raft.elections),
        line("quorate_refused", it.refused),
        line("quorate_outcome_unknown", it.unknown),
        line("quorate_out_of_disk", u8::from(status.out_of_disk)),
        line(
            "quorate_state_differs_at",
            status.differs_at.unwrap_or_default(),
        ),
        line("quorate_clock_held_back", status.clock_held_back),
        line(
            "quorate_clock_far_off_ms",
            status.clock_far_off_ms.unwrap_or(0),
        ),
        line("quorate_recovering", u8::from(status.recovering)),
        line("quorate_followers", followers),
    ]
}

/// The lines of `stats settings` that the evaluator knows.
pub(crate) fn settings(item_bytes_max: usize, memory: Memory) -> Vec<Line> {
    vec![
        line("maxbytes", memory.limit_bytes),
        line("evictions", "off"),
        line("cas_enabled", "yes"),
        line("item_size_max", item_bytes_max),
        line("flush_enabled", "yes"),
        line("client_flags_size", 4),
    ]
}

/// The lines of `stats items`: all items are of one made-up class. There is no order of use, so none
/// of them is known to be the oldest.
pub(crate) fn items(counts: Counts, counters: &Counters) -> Vec<Line> {
    if counts.items == 0 {
        return Vec::new();
    }
    vec![
        line("items:1:number", counts.items),
        line("items:1:number_hot", 0),
        line("items:1:number_warm", 0),
        line("items:1:number_cold", counts.items),
        line("items:1:age_hot", 0),
        line("items:1:age_warm", 0),
        line("items:1:age", 0),
        line("items:1:mem_requested", counts.bytes),
        line("items:1:evicted", 0),
        line("items:1:evicted_nonzero", 0),
        line("items:1:evicted_time", 0),
        line("items:1:outofmemory", counters.store_no_memory),
        line("items:1:tailrepairs", 0),
        line("items:1:reclaimed", counts.reclaimed_items),
        line("items:1:expired_unfetched", counts.expired_unfetched),
        line("items:1:evicted_unfetched", 0),
        line("items:1:evicted_active", 0),
        line("items:1:crawler_reclaimed", counts.expired_items),
        line("items:1:crawler_items_checked", counts.expired_items),
        line("items:1:lrutail_reflocked", 0),
        line("items:1:moves_to_cold", 0),
        line("items:1:moves_to_warm", 0),
        line("items:1:moves_within_lru", 0),
        line("items:1:direct_reclaims", 0),
        line("items:1:hits_to_hot", 0),
        line("items:1:hits_to_warm", 0),
        line("items:1:hits_to_cold", counters.get_hits),
        line("items:1:hits_to_temp", 0),
    ]
}

/// A page of memcached's.
const PAGE_BYTES: u64 = 1 << 20;

/// The lines of `stats slabs`: the class of `items`, with a chunk for each item, as large as an item
/// is on an average, and as many of them on a page as there would be.
pub(crate) fn slabs(counts: Counts, counters: &Counters) -> Vec<Line> {
    let mut lines = Vec::new();
    if counts.items > 0 {
        let chunk_bytes = counts.bytes.div_ceil(counts.items);
        let page_chunks = (PAGE_BYTES / chunk_bytes).max(1);
        lines = vec![
            line("1:chunk_size", chunk_bytes),
            line("1:chunks_per_page", page_chunks),
            line("1:total_pages", counts.items.div_ceil(page_chunks)),
            line("1:total_chunks", counts.items),
            line("1:used_chunks", counts.items),
            line("1:free_chunks", 0),
            line("1:free_chunks_end", 0),
            line("1:mem_requested", counts.bytes),
            line("1:get_hits", counters.get_hits),
            line("1:cmd_set", counters.cmd_set),
            line("1:delete_hits", counters.delete_hits),
            line("1:incr_hits", counters.incr_hits),
            line("1:decr_hits", counters.decr_hits),
            line("1:cas_hits", counters.cas_hits),
            line("1:cas_badval", counters.cas_badval),
            line("1:touch_hits", counters.touch_hits),
        ];
    }
    lines.push(line("active_slabs", u8::from(counts.items > 0)));
    lines.push(line("total_malloced", counts.bytes));
    lines
}
