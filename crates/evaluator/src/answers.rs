//! What commands are answered from: the store, what Raft says about the cluster, the counters.

use command::{Hit, Key, Outcome, Read, Refusal, Reply, Stats, Write};
use mutants::Mutant;
use raft::{Index, Role, ServerId, Timestamp};
use store::{Counts, Gone, Store};

use crate::io::{Config, Member};
use crate::status::{self, Counters, ForwardCounters, Memory, Status};

#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) store: Store,
    /// Raft's status at the end of the last turn, or later.
    pub(crate) view: raft::Status,
    /// The time, for how long the leader in `view` is believed.
    pub(crate) now: Timestamp,
    /// The last entry that `store` has taken in.
    pub(crate) last_applied: Index,
    /// The last entry of which it has taken in anything; `last_applied`, or the next.
    pub(crate) last_begun: Index,
    /// The log has no reserve.
    pub(crate) out_of_disk: bool,
    /// A copy of `StateHashes::differs_at`.
    pub(crate) differs_at: Option<Index>,
    /// A copy of `LogClock::held_back`.
    pub(crate) clock_held_back: u64,
    /// `PeerClocks::far_off_ms`, as of when a peer's clock was last heard of.
    pub(crate) clock_far_off_ms: Option<i64>,
    id: ServerId,
    members: Vec<Member>,
    item_bytes_max: usize,
    /// This server, as follower, forwards what its clients ask for.
    forwards: bool,
    counters: Counters,
    /// What the store had counted at the last `stats reset`.
    counts_before: Counts,
}

impl Answers {
    pub(crate) fn new(config: &Config, view: raft::Status, store: Store) -> Answers {
        Answers {
            store,
            now: Timestamp(0),
            last_applied: view.last_applied,
            last_begun: view.last_applied,
            view,
            out_of_disk: false,
            differs_at: None,
            clock_held_back: 0,
            clock_far_off_ms: None,
            id: config.id,
            members: config.members.clone(),
            item_bytes_max: config.item_bytes_max,
            forwards: config.forwards,
            counters: Counters::default(),
            counts_before: Counts::default(),
        }
    }

    /// This server leads and has a majority, and its state can be believed. Whether it serves yet is
    /// another question.
    pub(crate) fn leads(&self) -> bool {
        self.view.role == Role::Leader && self.differs_at.is_none()
    }

    /// The leader, if it was heard from lately; this server itself while it has its majority.
    pub(crate) fn leader(&self) -> Option<ServerId> {
        let believed =
            self.now < self.view.leader_until || mutants::is_on(Mutant::RedirectToSilent);
        self.view.leader.filter(|_| believed)
    }

    /// Carries out a command that this server proposed.
    pub(crate) fn apply(&mut self, place: u16, write: &Write) -> Reply {
        let reply = self.store.apply(place, write);
        self.counters.write(write, &reply);
        if let (Write::GetAndTouch { keys, .. }, Reply::Hits(hits)) = (write, &reply) {
            self.count_gone(keys.iter().map(Key::as_bytes), keys.len(), hits);
        }
        if let (Write::MetaGet(get), Reply::NotFound) = (write, &reply) {
            self.count_gone([get.key.as_bytes()].into_iter(), 1, &[]);
        }
        reply
    }

    pub(crate) fn read(&mut self, read: &Read) -> Reply {
        let reply = match read {
            // What was acknowledged may be in the first part of the entry that is under way.
            Read::Confirm => Reply::Confirmed {
                last_applied: self.last_begun.0,
            },
            read => self.store.read(read),
        };
        self.counters.read(read, &reply);
        if let (Read::Get { keys }, Reply::Hits(hits)) = (read, &reply) {
            self.count_gone(keys.iter(), keys.len(), hits);
        }
        if let (Read::MetaGet(get), Reply::NotFound) = (read, &reply) {
            self.count_gone([get.key.as_bytes()].into_iter(), 1, &[]);
        }
        reply
    }

    /// Counts why those of the keys are gone that were no hits.
    fn count_gone<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]>, count: usize, hits: &[Hit]) {
        if hits.len() == count {
            return;
        }
        let mut hits = hits.iter().peekable();
        for key in keys {
            if hits.next_if(|hit| hit.key() == key).is_some() {
                continue;
            }
            match self.store.why_gone(key) {
                Some(Gone::Expired) => self.counters.get_expired += 1,
                Some(Gone::Flushed) => self.counters.get_flushed += 1,
                None => {}
            }
        }
    }

    pub(crate) fn stats(&mut self, stats: Stats) -> Reply {
        let counts = self.store.counts();
        let memory = Memory {
            limit_bytes: self.store.memory_limit_bytes().unwrap_or(0),
            table: self.store.table_size(),
        };
        Reply::Stats(match stats {
            Stats::General => {
                let since = self.since_reset(counts);
                status::general(&self.status(0, 0), since, memory)
            }
            Stats::Settings => status::settings(self.item_bytes_max, memory),
            Stats::Items => status::items(self.since_reset(counts), &self.counters),
            Stats::Slabs => status::slabs(counts, &self.counters),
            Stats::Conns => Vec::new(),
            Stats::Reset => {
                self.counters = Counters::default();
                self.counts_before = counts;
                return Reply::Ok;
            }
        })
    }

    /// What there is, and what has happened since the last `stats reset`.
    fn since_reset(&self, counts: Counts) -> Counts {
        let before = &self.counts_before;
        Counts {
            total_items: counts.total_items - before.total_items,
            expired_items: counts.expired_items - before.expired_items,
            expired_unfetched: counts.expired_unfetched - before.expired_unfetched,
            reclaimed_items: counts.reclaimed_items - before.reclaimed_items,
            ..counts
        }
    }

    /// The fate of a command that is not carried out, as things are.
    pub(crate) fn not_done(&mut self) -> Outcome {
        let outcome = Outcome::NotDone(self.refusal());
        self.counters.outcome(&outcome);
        outcome
    }

    /// The fate of a command that is in the log and not known to be committed.
    pub(crate) fn unknown(&mut self) -> Outcome {
        self.counters.outcome(&Outcome::Unknown);
        Outcome::Unknown
    }

    /// What the leader says of a forwarded command. A client knows nothing of redirects in this
    /// mode, and where this server could not send the command, it is not sent again (rule 56).
    pub(crate) fn passes_on(&mut self, outcome: Outcome) -> Outcome {
        let outcome = match outcome {
            Outcome::NotDone(Refusal::Redirect { .. }) => Outcome::NotDone(Refusal::NoLeader),
            outcome => outcome,
        };
        self.counters.outcome(&outcome);
        outcome
    }

    fn refusal(&self) -> Refusal {
        if self.leads() && self.out_of_disk {
            return Refusal::OutOfDisk;
        }
        if self.forwards {
            return Refusal::NoLeader;
        }
        let leader = self.leader().filter(|leader| *leader != self.id);
        let leader = leader.and_then(|id| self.members.iter().find(|member| member.id == id));
        match leader {
            Some(leader) => Refusal::Redirect {
                host: leader.host.clone(),
                client_port: leader.client_port,
            },
            None => Refusal::NoLeader,
        }
    }

    /// Puts this state, which is that after the entry at `index`, in the place of the store, and the
    /// other way round.
    pub(crate) fn install(&mut self, store: &mut Store, index: Index) {
        std::mem::swap(&mut self.store, store);
        self.last_applied = index;
        self.last_begun = index;
        // A loaded store has stored nothing itself.
        self.counts_before = self.store.counts();
    }

    pub(crate) fn members_count(&self) -> usize {
        let configuration = self.view.configuration.as_ref();
        configuration.map_or(self.members.len(), |it| it.members.len())
    }

    pub(crate) fn status(&self, commands_owed: usize, connections: usize) -> Status {
        let view = &self.view;
        let seats_filled = view.configuration.as_ref().map_or(0, |configuration| {
            let members = configuration.members.iter();
            members.filter(|member| member.seat.is_some()).count()
        });
        Status {
            id: self.id,
            role: status::role_word(view.role),
            term: view.term,
            leader: self.leader(),
            quorum: self.leader().is_some(),
            serves: self.leads() && view.serves,
            recovering: view.recovering,
            stranded: view.stranded,
            commit_index: view.commit_index,
            last_applied: self.last_applied,
            last_log_index: view.last_log_index,
            persisted_index: view.persisted_index,
            before: view.before,
            cluster: view.hard_state.seating.cluster(),
            seats_filled,
            seats_empty: self.members_count() - seats_filled,
            commands_owed,
            connections,
            unpersisted_bytes: view.unpersisted_bytes,
            uncommitted_bytes: view.uncommitted_bytes,
            store: self.store.counts(),
            log_time: self.store.log_time(),
            out_of_disk: self.out_of_disk,
            state_hash: None,
            state_hashes_compared: 0,
            differs_at: self.differs_at,
            clock_held_back: self.clock_held_back,
            clock_far_off_ms: self.clock_far_off_ms.filter(|_| self.leads()),
            forwards: self.forwards,
            forwarding: ForwardCounters::default(),
            counters: self.counters,
            raft: view.counters,
        }
    }
}
