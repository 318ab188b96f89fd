//! The servers' logs side by side: log matching, state-machine safety, leader completeness, one
//! leader a term, and that what is committed is on the disks of a majority.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, VecDeque};
use std::hash::Hasher;

use raft::{Entry, HardState, Index, Position, Recovered, ServerId, Term, Write, WriteId};

/// What a server's log holds, and what of it its disk has synced.
#[derive(Debug, Default)]
pub(crate) struct ServerLog {
    /// As handed to the log.
    current: Vec<Linked>,
    durable: Durable,
    /// Handed over, and not synced.
    unsynced: VecDeque<Write>,
    pub(crate) commit_index: Index,
    /// What this server's disk held before it was wiped or damaged.
    lost: Vec<Durable>,
    /// What it has acknowledged from this disk: entries, each with all before it. Those that have
    /// turned out to be superseded are left out.
    acknowledged: BTreeMap<Index, Link>,
    /// The start that comes will find less than was synced.
    damaged: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Durable {
    links: Vec<Link>,
    pub(crate) hard_state: HardState,
    /// It is marked as recovering.
    marked: bool,
}

/// An entry and all before it, as one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    term: Term,
    chain: u64,
}

#[derive(Clone, Debug)]
struct Linked {
    link: Link,
    entry: Entry,
}

/// All servers' logs, and the one that they have committed.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    pub(crate) servers: BTreeMap<ServerId, ServerLog>,
    /// What follows from the position of an entry: all that is before it (log matching, §5.3).
    chains: BTreeMap<(Index, Term), u64>,
    committed: Vec<Linked>,
    /// The term of the server that first knew an index to be committed, both ascending.
    commit_terms: Vec<(Term, Index)>,
    leaders: BTreeMap<Term, ServerId>,
}

impl Logs {
    pub(crate) fn new(servers: impl Iterator<Item = ServerId>) -> Logs {
        Logs {
            servers: servers.map(|id| (id, ServerLog::default())).collect(),
            ..Logs::default()
        }
    }

    /// What all servers have before they begin, and no disk has as a log.
    pub(crate) fn begin_with(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let linked = linked(self.committed.last(), &entry);
            self.chains
                .insert((entry.index, entry.term), linked.link.chain);
            self.committed.push(linked);
        }
        let last = self.committed.last();
        self.commit_terms
            .extend(last.map(|last| (last.link.term, last.entry.index)));
    }

    fn server(&mut self, id: ServerId) -> &mut ServerLog {
        self.servers.get_mut(&id).expect("a server of this cluster")
    }

    pub(crate) fn committed_index(&self) -> Index {
        Index(self.committed.len() as u64)
    }

    pub(crate) fn durable(&self, id: ServerId) -> &Durable {
        &self.servers[&id].durable
    }

    /// A server hands a write to its log.
    pub(crate) fn handed(&mut self, id: ServerId, write: &Write) {
        let server = self.servers.get_mut(&id).expect("a server of this cluster");
        if let Some(position) = write.begin_behind {
            assert!(
                position.index > server.commit_index,
                "server {id} begins its log behind {position:?}, and has committed {}",
                server.commit_index,
            );
            server.current = committed_up_to(&self.committed, position).to_vec();
        }
        if let Some(from) = write.truncate_from {
            assert!(
                from > server.commit_index,
                "server {id} truncates from {from}, and has committed {}",
                server.commit_index,
            );
            server.current.truncate(from.prev().0 as usize);
        }
        for entry in &write.entries {
            let last = server.current.len() as u64;
            assert!(
                entry.index == Index(last + 1),
                "server {id} appends {} behind {last}",
                entry.index,
            );
            let linked = linked(server.current.last(), entry);
            let chain = linked.link.chain;
            let known = *self
                .chains
                .entry((entry.index, entry.term))
                .or_insert(chain);
            assert!(
                known == chain,
                "log matching: server {id} has another log up to index {} of term {}",
                entry.index,
                entry.term,
            );
            server.current.push(linked);
        }
        server.unsynced.push_back(write.clone());
    }

    /// A server's disk has synced all writes up to this one.
    pub(crate) fn synced(&mut self, id: ServerId, write: WriteId) {
        let server = self.servers.get_mut(&id).expect("a server of this cluster");
        while let Some(first) = server.unsynced.pop_front_if(|first| first.id <= write) {
            server.durable.apply(&first, &self.committed);
        }
    }

    /// A server has started, and its log says that this is durable.
    pub(crate) fn recovered(&mut self, id: ServerId, recovered: &Recovered, entries: &[Entry]) {
        let server = self.servers.get_mut(&id).expect("a server of this cluster");
        let found = server.recovers(id, recovered, entries, &self.committed);
        server.unsynced.clear();
        for it in found.iter().filter(|_| server.damaged) {
            let known = self.chains.get(&(it.entry.index, it.link.term));
            assert!(
                known == Some(&it.link.chain),
                "server {id} starts with an entry {} that was never there",
                it.entry.index,
            );
        }
        server.durable = Durable {
            links: found.iter().map(|it| it.link).collect(),
            hard_state: recovered.hard_state,
            marked: recovered.recovering,
        };
        server.current = found;
        server.damaged = false;
        server.commit_index = Index(0);
        self.holds_acknowledged(id, recovered.recovering, entries, recovered.before);
    }

    /// The disk of a server has lost something, as its next start finds.
    pub(crate) fn damaged(&mut self, id: ServerId) {
        let server = self.server(id);
        server.lost.push(server.durable.clone());
        server.damaged = true;
    }

    pub(crate) fn is_marked(&self, id: ServerId) -> bool {
        self.servers[&id].durable.marked
    }

    /// A server says that it has everything on its disk up to here.
    pub(crate) fn note_acknowledged(&mut self, id: ServerId, index: Index) {
        let server = self.server(id);
        let at = (index.0 as usize).checked_sub(1);
        if let Some(link) = at.and_then(|at| server.durable.links.get(at).copied()) {
            server.acknowledged.insert(index, link);
        }
    }

    /// A server whose disk holds this has all that it has ever acknowledged and that was committed,
    /// or it is marked: else it could help to elect a leader without that (rule 63).
    fn holds_acknowledged(
        &mut self,
        id: ServerId,
        marked: bool,
        entries: &[Entry],
        before: Position,
    ) {
        let committed = &self.committed;
        let is_committed = |index: &Index, link: &mut Link| {
            let at = index.prev().0 as usize;
            committed.get(at).is_none_or(|it| it.link == *link)
        };
        let server = self.servers.get_mut(&id).expect("a server of this cluster");
        server.acknowledged.retain(is_committed);
        let known = server.acknowledged.iter().rev();
        let mut known = known.filter(|(index, _)| index.0 <= committed.len() as u64);
        if let Some((index, link)) = known.next()
            && !marked
        {
            let mut chain = committed_up_to(committed, before).last().map(|it| it.link);
            let mut held = *index <= before.index;
            for entry in entries {
                chain = Some(link_behind(chain.map_or(0, |it| it.chain), entry));
                held |= entry.index == *index && chain == Some(*link);
            }
            assert!(
                held,
                "server {id} has acknowledged index {index} of term {}, its disk has lost it, and it \
                 is not marked",
                link.term,
            );
        }
    }

    /// A server's disk is gone.
    pub(crate) fn wiped(&mut self, id: ServerId) {
        let server = self.server(id);
        let lost = std::mem::take(&mut server.durable);
        server.current.clear();
        server.unsynced.clear();
        server.acknowledged.clear();
        server.lost.push(lost);
    }

    /// The commit index of a server that is in `term`, and whether it leads; the entries that
    /// nobody had committed.
    pub(crate) fn commits(
        &mut self,
        id: ServerId,
        (term, leads): (Term, bool),
        index: Index,
    ) -> Vec<Entry> {
        let server = &self.servers[&id];
        assert!(
            index >= server.commit_index,
            "server {id} takes its commit index back from {} to {index}",
            server.commit_index,
        );
        if index == server.commit_index {
            return Vec::new();
        }
        let known = self.committed.len();
        let common = known.min(index.0 as usize);
        if common > 0 {
            let (ours, theirs) = (&server.current.get(common - 1), &self.committed[common - 1]);
            assert!(
                ours.is_some_and(|ours| ours.link == theirs.link),
                "state machine safety: server {id} commits another entry at or below index {common}",
            );
        }
        let new = server.current.get(known..index.0 as usize);
        let new: Vec<Linked> = new.map(<[Linked]>::to_vec).unwrap_or_default();
        self.server(id).commit_index = index;
        if leads {
            self.note_acknowledged(id, index);
        }
        if let Some(last) = new.last() {
            self.on_a_majority(id, last);
            assert!(
                !leads || last.link.term == term,
                "the leader of term {term} commits index {} of term {} by counting (figure 8)",
                last.entry.index,
                last.link.term,
            );
            match self.commit_terms.last_mut() {
                Some(last) if last.0 >= term => last.1 = last.1.max(index),
                _ => self.commit_terms.push((term, index)),
            }
        }
        self.committed.extend(new.iter().cloned());
        new.into_iter().map(|it| it.entry).collect()
    }

    /// This entry is on the synced part of a majority's disks, those that were wiped or damaged
    /// since among them, but none that is recovering.
    fn on_a_majority(&self, id: ServerId, last: &Linked) {
        let at = last.entry.index.prev().0 as usize;
        let has = |durable: &Durable| durable.links.get(at) == Some(&last.link);
        let servers = self.servers.values();
        let count = servers
            .filter(|server| {
                let sound = has(&server.durable) && !server.durable.marked;
                sound || server.lost.iter().any(has)
            })
            .count();
        assert!(
            count > self.servers.len() / 2,
            "server {id} commits index {} of term {}, which {count} of {} disks have synced",
            last.entry.index,
            last.link.term,
            self.servers.len(),
        );
    }

    /// A server leads this term.
    pub(crate) fn leads(&mut self, id: ServerId, term: Term) -> bool {
        if let Some(leader) = self.leaders.get(&term) {
            assert!(
                *leader == id,
                "servers {leader} and {id} both lead term {term}"
            );
            return false;
        }
        self.leaders.insert(term, id);
        let before = self.commit_terms.iter().rev();
        if let Some((committed_in, index)) = before.clone().find(|(it, _)| *it < term) {
            let at = index.prev().0 as usize;
            let ours = self.servers[&id].current.get(at).map(|it| it.link);
            assert!(
                ours == Some(self.committed[at].link),
                "leader completeness: server {id} leads term {term} without index {index}, \
                 committed in term {committed_in}",
            );
        }
        true
    }

    /// Whether the synced part of a server's log is, up to here, the log that it had in this term.
    pub(crate) fn has_synced(&self, id: ServerId, term: Term, index: Index) -> bool {
        let server = &self.servers[&id];
        let Some(at) = (index.0 as usize).checked_sub(1) else {
            return true;
        };
        let durable = server.durable.links.get(at);
        let handed = server.unsynced.iter().rev();
        let newest = handed.filter_map(|write| write.hard_state).next();
        let newest = newest.unwrap_or(server.durable.hard_state);
        // What was said in an older term and waited for the disk says nothing of what a leader of
        // a later one has superseded since: what is not synced yet, and what a synced truncation
        // has taken away.
        let is_old = term < newest.term;
        let Some(durable) = durable else {
            return term < server.durable.hard_state.term;
        };
        is_old || server.current.get(at).is_some_and(|it| it.link == *durable)
    }

    /// What a power cut would leave of a server's disk now is what was synced, or that and the
    /// first part of what was not.
    pub(crate) fn would_recover(&mut self, id: ServerId, recovered: &Recovered, entries: &[Entry]) {
        self.servers[&id].recovers(id, recovered, entries, &self.committed);
        self.holds_acknowledged(id, recovered.recovering, entries, recovered.before);
    }
}

impl Durable {
    /// Does what a write says.
    fn apply(&mut self, write: &Write, committed: &[Linked]) {
        if let Some(position) = write.begin_behind {
            let links = committed_up_to(committed, position).iter();
            self.links = links.map(|it| it.link).collect();
        }
        if let Some(from) = write.truncate_from {
            self.links.truncate(from.prev().0 as usize);
        }
        for entry in &write.entries {
            self.links.push(self.next(entry));
        }
        self.marked &= !write.recovered;
        let Some(new) = write.hard_state else {
            return;
        };
        let old = self.hard_state;
        assert!(new.term >= old.term, "{new:?} is synced after {old:?}");
        assert!(
            new.term > old.term || old.voted_for.is_none() || new.voted_for == old.voted_for,
            "a second vote in a term: {new:?} is synced after {old:?}",
        );
        self.hard_state = new;
    }

    fn next(&self, entry: &Entry) -> Link {
        link_behind(self.links.last().map_or(0, |last| last.chain), entry)
    }

    fn is(&self, links: &[Link], hard_state: HardState) -> bool {
        self.links.len() == links.len()
            && self.links.last() == links.last()
            && self.hard_state == hard_state
    }

    /// Does what a write says, record by record, until this is what `is_it` looks for.
    fn reaches(
        &mut self,
        write: &Write,
        committed: &[Linked],
        is_it: impl Fn(&Durable) -> bool,
    ) -> bool {
        if write.begin_behind.is_some() {
            // The new log has its name when all of the write is in it.
            self.apply(write, committed);
            return is_it(self);
        }
        if let Some(from) = write.truncate_from {
            self.links.truncate(from.prev().0 as usize);
            if is_it(self) {
                return true;
            }
        }
        for entry in &write.entries {
            self.links.push(self.next(entry));
            if is_it(self) {
                return true;
            }
        }
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        is_it(self)
    }
}

impl ServerLog {
    /// The log that a start finds, with what is in snapshots alone before it: it must be what was
    /// synced, or that and the first part of what was not.
    fn recovers(
        &self,
        id: ServerId,
        recovered: &Recovered,
        entries: &[Entry],
        committed: &[Linked],
    ) -> Vec<Linked> {
        let mut found = committed_up_to(committed, recovered.before).to_vec();
        for entry in entries {
            found.push(linked(found.last(), entry));
        }
        let links: Vec<Link> = found.iter().map(|it| it.link).collect();
        let snapshot = recovered.snapshot.as_ref();
        let snapshot = snapshot.map_or_else(Position::default, |it| it.position);
        let covered = committed_up_to(committed, snapshot);
        // A log that does not hold what the snapshot holds is given up.
        let is_it = |durable: &Durable| {
            let at = covered.len().checked_sub(1);
            let kept = at.is_none_or(|at| durable.links.get(at) == Some(&covered[at].link));
            match kept {
                true => durable.is(&links, recovered.hard_state),
                false => {
                    links.len() == covered.len()
                        && links.last() == covered.last().map(|it| &it.link)
                        && durable.hard_state == recovered.hard_state
                }
            }
        };
        if self.damaged {
            // What there is was in this log once, or is in no other (log matching).
            return found;
        }
        let mut expected = self.durable.clone();
        let mut unsynced = self.unsynced.iter();
        let matches =
            is_it(&expected) || unsynced.any(|write| expected.reaches(write, committed, is_it));
        assert!(
            matches,
            "server {id} starts with {} entries, the last of term {:?}, a snapshot of {snapshot:?}, \
             and {:?}; synced were {} entries, the last of term {:?}, and {:?}",
            links.len(),
            links.last().map(|link| link.term),
            recovered.hard_state,
            self.durable.links.len(),
            self.durable.links.last().map(|link| link.term),
            self.durable.hard_state,
        );
        found
    }
}

/// What was committed up to here.
fn committed_up_to(committed: &[Linked], position: Position) -> &[Linked] {
    let found = committed.get(..position.index.0 as usize);
    let found = found.unwrap_or_else(|| panic!("{position:?} is in a snapshot, and not committed"));
    let term = found.last().map_or(Term(0), |last| last.link.term);
    assert!(
        term == position.term,
        "{position:?} is in a snapshot, and an entry of term {term} is committed there",
    );
    found
}

fn linked(last: Option<&Linked>, entry: &Entry) -> Linked {
    Linked {
        link: link_behind(last.map_or(0, |last| last.link.chain), entry),
        entry: entry.clone(),
    }
}

fn link_behind(chain: u64, entry: &Entry) -> Link {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(chain);
    hasher.write_u64(entry.term.0);
    hasher.write_u8(entry.kind as u8);
    hasher.write(&entry.payload);
    Link {
        term: entry.term,
        chain: hasher.finish(),
    }
}
