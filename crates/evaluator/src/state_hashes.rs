//! The states of all servers are compared now and then: a server whose own is another than that of
//! the others has been misled by its memory, its processor or a bug, and must not serve.
//!
//! Every entry with a mark makes each server freeze its state behind that entry and hash it, which
//! somebody does who has the time; what came of it is told to all. The next mark says which hash
//! a majority had, so that the leader is judged by the same majority as everyone.

use std::collections::BTreeMap;

use command::Mark;
use mutants::Mutant;
use raft::{Index, ServerId, Timestamp};
use store::{Frozen, STATE_HASH_FUNCTION};

use crate::io::Limits;

/// A state to be hashed (`Frozen::state_hash`), and the last entry in it: what
/// `Input::StateHashed` is to say.
#[derive(Debug)]
pub struct HashJob {
    pub index: Index,
    pub store: Frozen,
}

/// The hash of the state behind an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateHash {
    /// Which function it is: hashes of others are not compared.
    pub function: u8,
    pub index: Index,
    pub hash: u64,
}

#[derive(Debug, Default)]
pub(crate) struct StateHashes {
    /// The newest that is known of this server's own states, and of each other server's.
    own: Option<StateHash>,
    others: BTreeMap<ServerId, StateHash>,
    /// To be told to all.
    untold: Option<StateHash>,
    /// A state is being hashed.
    under_way: bool,
    /// Something was applied behind the last mark.
    changed: bool,
    /// This server, if it leads, marks no entry before.
    next_mark: Timestamp,
    /// Own hashes that were compared with those of a majority.
    compared: u64,
    /// The entry behind which this server's state was not that of the others.
    differs_at: Option<Index>,
}

impl StateHashes {
    /// The entry behind which this server's state was another than that of the others, if it was.
    pub(crate) fn differs_at(&self) -> Option<Index> {
        self.differs_at
    }

    /// The newest hash of this server's state.
    pub(crate) fn own(&self) -> Option<StateHash> {
        self.own
    }

    pub(crate) fn compared(&self) -> u64 {
        self.compared
    }

    /// An entry of commands was applied. True if its mark asks for the state to be hashed.
    pub(crate) fn applied(&mut self, mark: Option<&Mark>) -> bool {
        let Some(mark) = mark else {
            self.changed = true;
            return false;
        };
        self.changed = false;
        self.compare(mark);
        !self.under_way
    }

    fn compare(&mut self, mark: &Mark) {
        let same_place =
            |own: &StateHash| (own.function, own.index.0) == (mark.function, mark.index);
        let Some(own) = self.own.filter(same_place) else {
            return;
        };
        self.compared += 1;
        if own.hash != mark.hash && !mutants::is_on(Mutant::StateHashIgnored) {
            self.differs_at.get_or_insert(own.index);
        }
    }

    pub(crate) fn begun(&mut self) {
        self.under_way = true;
    }

    pub(crate) fn hashed(&mut self, index: Index, hash: u64) {
        let hash = StateHash {
            function: STATE_HASH_FUNCTION,
            index,
            hash,
        };
        self.under_way = false;
        self.own = Some(hash);
        self.untold = Some(hash);
    }

    pub(crate) fn heard(&mut self, from: ServerId, hash: StateHash) {
        self.others.insert(from, hash);
    }

    pub(crate) fn take_untold(&mut self) -> Option<StateHash> {
        self.untold.take()
    }

    /// The mark of the next entry that this server proposes, if it is time for one.
    pub(crate) fn mark(&mut self, now: Timestamp, limits: &Limits, members: usize) -> Option<Mark> {
        if !self.changed || now < self.next_mark {
            return None;
        }
        self.next_mark = now + limits.state_hash_interval;
        Some(self.agreed(members).unwrap_or(Mark {
            function: STATE_HASH_FUNCTION,
            index: 0,
            hash: 0,
        }))
    }

    /// The hash that a majority of the members have of the last state that this one has hashed. With
    /// fewer nobody can tell who is right.
    fn agreed(&self, members: usize) -> Option<Mark> {
        let own = self.own?;
        let others = self.others.values().copied();
        let same_place = others.filter(|it| (it.function, it.index) == (own.function, own.index));
        let mut votes: BTreeMap<u64, usize> = BTreeMap::from([(own.hash, 1)]);
        for it in same_place {
            *votes.entry(it.hash).or_default() += 1;
        }
        let agreed = votes.into_iter().find(|(_, votes)| *votes > members / 2);
        agreed.map(|(hash, _)| Mark {
            function: own.function,
            index: own.index.0,
            hash,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(own: u64, others: &[u64]) -> StateHashes {
        let mut hashes = StateHashes::default();
        hashes.hashed(Index(7), own);
        for (hash, id) in others.iter().zip(2..) {
            hashes.heard(ServerId(id), of(7, *hash));
        }
        hashes
    }

    fn of(index: u64, hash: u64) -> StateHash {
        StateHash {
            function: STATE_HASH_FUNCTION,
            index: Index(index),
            hash,
        }
    }

    fn agreed(hashes: &StateHashes, members: usize) -> Option<u64> {
        hashes.agreed(members).map(|mark| mark.hash)
    }

    #[test]
    fn a_majority_decides_also_about_the_leader() {
        assert_eq!(agreed(&hashes(1, &[1, 1, 1, 1]), 5), Some(1));
        assert_eq!(agreed(&hashes(1, &[2, 2, 2, 1]), 5), Some(2));
        assert_eq!(agreed(&hashes(1, &[]), 1), Some(1));
    }

    #[test]
    fn fewer_than_a_majority_decide_nothing() {
        assert_eq!(agreed(&hashes(1, &[1]), 5), None);
        assert_eq!(agreed(&hashes(1, &[2, 2]), 5), None);
        assert_eq!(agreed(&hashes(1, &[9]), 2), None);
        let mut late = hashes(1, &[1]);
        late.heard(ServerId(3), of(6, 1));
        let another_function = StateHash {
            function: STATE_HASH_FUNCTION + 1,
            ..of(7, 1)
        };
        late.heard(ServerId(4), another_function);
        assert_eq!(agreed(&late, 5), None);
    }
}
