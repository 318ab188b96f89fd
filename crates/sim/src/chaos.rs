//! What goes wrong, and when.

use raft::ServerId;
use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use wal::Disk;

use crate::host::Host;
use crate::options::Fault;
use crate::world::{Event, MS, SECOND, World};

/// The longest pause, partition, stall and lack of space.
const PAUSE_NS: u64 = 2 * SECOND;
const CUT_NS: u64 = 3 * SECOND;
const STALL_NS: u64 = 2 * SECOND;
const FULL_NS: u64 = 3 * SECOND;

/// Wall clocks jump by up to this many milliseconds.
const JUMP_MS: i64 = 3_600_000;

/// The faults that strike by themselves.
const STRIKES: [Fault; 16] = [
    Fault::Resets,
    Fault::OneWay,
    Fault::Partitions,
    Fault::IsolatedLeader,
    Fault::Kills,
    Fault::PowerCuts,
    Fault::Storms,
    Fault::Pauses,
    Fault::Stops,
    Fault::Wipes,
    Fault::Stalls,
    Fault::FailedSyncs,
    Fault::FullDisks,
    Fault::Rot,
    Fault::Misreads,
    Fault::Jumps,
];

impl World {
    /// Something goes wrong, if this run has anything that does.
    pub(crate) fn chaos(&mut self) {
        if self.healed {
            return;
        }
        let after = MS + self.up_to(2 * self.options.chaos_ms * MS);
        self.schedule(after, Event::Chaos);
        let strikes = STRIKES.iter().filter(|fault| self.options.has(**fault));
        let strikes: Vec<Fault> = strikes.copied().collect();
        let Some(fault) = strikes.choose(&mut self.random).copied() else {
            return;
        };
        let ids = self.ids();
        let Some(id) = ids.choose(&mut self.random).copied() else {
            return;
        };
        match fault {
            Fault::Resets => self.reset(id),
            Fault::OneWay => self.cut_one_way(id),
            Fault::Partitions => self.partition(),
            Fault::IsolatedLeader => self.isolate_leader(),
            Fault::Kills => self.kill(self.any_or_leader(id)),
            Fault::PowerCuts => self.cut_some_power(id),
            Fault::Storms => self.storm(),
            Fault::Pauses => self.pause(self.any_or_leader(id)),
            Fault::Stops => self.stop(self.any_or_leader(id)),
            Fault::Wipes => self.wipe_if_allowed(id),
            Fault::Stalls => self.stall(id),
            Fault::FailedSyncs => self.host_mut(id).fails_sync = true,
            Fault::FullDisks => self.fill(id),
            Fault::Rot => self.rot_if_allowed(id),
            Fault::Misreads => self.misread(id),
            Fault::Jumps => self.jump(id),
            _ => {}
        }
    }

    fn leader(&self) -> Option<ServerId> {
        let leads = |id: &ServerId| {
            let process = self.host(*id).process.as_ref();
            process.is_some_and(|process| process.evaluator.status().role == "Leader")
        };
        self.ids().into_iter().find(leads)
    }

    /// Leaders are hit as often as all others together.
    fn any_or_leader(&self, id: ServerId) -> ServerId {
        let even = self.number.is_multiple_of(2);
        self.leader().filter(|_| even).unwrap_or(id)
    }

    fn reset(&mut self, id: ServerId) {
        self.coverage.resets += 1;
        let cuts = self.random.random_bool(0.5);
        for peer in self.ids() {
            if cuts {
                let now = self.now;
                self.links.entry((id, peer)).or_default().lost_until = now;
                self.links.entry((peer, id)).or_default().lost_until = now;
            }
            self.disconnect(id, peer);
            self.disconnect(peer, id);
        }
    }

    fn cut_one_way(&mut self, id: ServerId) {
        self.coverage.one_way_cuts += 1;
        for peer in self.ids() {
            if peer != id && self.random.random_bool(0.5) {
                let cut = match self.random.random_bool(0.5) {
                    true => (id, peer),
                    false => (peer, id),
                };
                self.cuts.insert(cut);
            }
        }
        self.mend_later();
    }

    fn partition(&mut self) {
        self.coverage.partitions += 1;
        let mut ids = self.ids();
        ids.shuffle(&mut self.random);
        let at = self.random.random_range(0..ids.len());
        let bridge = self.random.random_bool(0.3).then(|| ids[0]);
        let (one, other) = ids.split_at(at);
        for a in one {
            for b in other {
                // One server may still reach both sides.
                if bridge != Some(*a) && bridge != Some(*b) {
                    self.cuts.insert((*a, *b));
                    self.cuts.insert((*b, *a));
                }
            }
        }
        self.mend_later();
    }

    fn isolate_leader(&mut self) {
        let Some(leader) = self.leader() else {
            return;
        };
        self.coverage.isolated_leaders += 1;
        for peer in self.ids() {
            self.cuts.insert((leader, peer));
            self.cuts.insert((peer, leader));
        }
        self.mend_later();
    }

    fn mend_later(&mut self) {
        let cuts = format!("{:?}", self.cuts);
        self.note(format_args!("cut: {cuts}"), &[]);
        let after = 10 * MS + self.up_to(CUT_NS);
        self.schedule(after, Event::Mend);
    }

    pub(crate) fn mend(&mut self) {
        self.cuts.clear();
        self.note(format_args!("all links are whole"), &[]);
    }

    fn cut_some_power(&mut self, id: ServerId) {
        let count = match self.random.random_range(0..6) {
            0 => self.options.servers,
            1 => self.options.servers / 2 + 1,
            2 => self.options.servers / 2,
            _ => 1,
        };
        for at in 0..count {
            let other = ServerId((id.0 - 1 + at) % self.options.servers + 1);
            self.power_cut(other);
        }
    }

    /// All at once, and again as they start.
    fn storm(&mut self) {
        self.coverage.storms += 1;
        for id in self.ids() {
            for _ in 0..self.random.random_range(1..=3) {
                let after = self.up_to(300 * MS);
                let event = match self.options.has(Fault::PowerCuts) {
                    true => Event::PowerCut(id),
                    false => Event::Kill(id),
                };
                self.schedule(after, event);
            }
            self.kill(id);
        }
    }

    fn pause(&mut self, id: ServerId) {
        let after = MS + self.up_to(PAUSE_NS);
        let host = self.host_mut(id);
        if host.process.is_some() && !host.paused {
            host.paused = true;
            self.coverage.pauses += 1;
            self.note(format_args!("server {id} is paused"), &[]);
            self.schedule(after, Event::Resume(id));
        }
    }

    /// One server in a world, once all are up and know of its seat: what is on one disk alone may
    /// be lost with it.
    fn wipe_if_allowed(&mut self, id: ServerId) {
        if self.may_lose_a_disk() {
            self.wipe(id);
        }
    }

    fn may_lose_a_disk(&self) -> bool {
        let first = !self.hosts.iter().any(Host::is_hurt);
        let settled = self.hosts.iter().all(|host| self.has_settled_in(host));
        self.options.servers >= 3 && first && settled
    }

    /// It runs, and knows that all have their seats, as its disk does.
    fn has_settled_in(&self, host: &Host) -> bool {
        host.process.as_ref().is_some_and(|process| {
            let seating = process.evaluator.seating();
            let known = process.evaluator.configuration();
            seating.is_seated()
                && known.is_some_and(|it| it.members.iter().all(|it| it.seat.is_some()))
                && self.logs.durable(host.id).hard_state.seating == seating
        })
    }

    /// A minority is hurt at a time, this server among them, and all others know of their seats.
    fn may_be_hurt(&self, id: ServerId) -> bool {
        let others = self.hosts.iter().filter(|host| host.id != id);
        let hurt = others.clone().filter(|host| host.is_hurt()).count();
        let minority = (self.hosts.len() - 1) / 2;
        hurt < minority
            && !self.host(id).wiped
            && others
                .chain([self.host(id)])
                .all(|host| host.is_hurt() || self.has_settled_in(host))
    }

    /// Some bytes of a minority's disks become others, or files are cut short or go missing; half of
    /// the time the server is started again at once, and finds it.
    fn rot_if_allowed(&mut self, id: ServerId) {
        if !self.may_be_hurt(id) {
            return;
        }
        if self.random.random_range(0..3) == 0 {
            self.lose_file(id);
            return;
        }
        self.coverage.rotten_disks += 1;
        let names = self.host(id).disk.list().unwrap_or_default();
        for _ in 0..self.random.random_range(1..=3) {
            let Some(name) = names.choose(&mut self.random) else {
                return;
            };
            let content = self.host(id).disk.content(name).unwrap_or_default();
            // Where there is something, for the most part.
            let used = content.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            let most = if self.random.random_bool(0.9) {
                used
            } else {
                content.len()
            };
            let at = self.random.random_range(0..=most);
            // Sectors that become zeros look as if they had never been written.
            let mask = self.random.random_range(1..=u8::MAX);
            if content.get(at).is_some_and(|byte| byte ^ mask != 0) {
                self.note(
                    format_args!("byte {at} of {name} of server {id} rots by {mask:02x}"),
                    &[mask],
                );
                let host = self.host_mut(id);
                host.disk.rot(name, at, mask);
                host.rotten = true;
                host.has_rotted = true;
            }
        }
        if self.random.random_bool(0.5) {
            self.kill(id);
        }
    }

    /// A segment or a snapshot of a server that is down is cut short, or goes missing.
    fn lose_file(&mut self, id: ServerId) {
        self.kill(id);
        let mut names = self.host(id).disk.list().unwrap_or_default();
        names.retain(|name| name.ends_with(".log") || name.ends_with(".snap"));
        let Some(name) = names.choose(&mut self.random) else {
            return;
        };
        self.coverage.lost_files += 1;
        let content = self.host(id).disk.content(name).unwrap_or_default();
        let length = self.random.random_range(0..content.len().max(1));
        let goes = self.random.random_bool(0.5);
        let host = self.host_mut(id);
        match goes {
            true => {
                let _ = host.disk.remove(name);
                let _ = host.disk.sync_directory();
            }
            false => host.disk.put(name, &content[..length]),
        }
        host.rotten = true;
        host.has_rotted = true;
        let left = if goes { 0 } else { length };
        self.note(
            format_args!("of {name} of server {id} {left} bytes are left"),
            &left.to_le_bytes(),
        );
    }

    /// One of the next reads is wrong; half of the time it is one of the many at a start.
    fn misread(&mut self, id: ServerId) {
        self.coverage.misreads += 1;
        let reads = self.random.random_range(0..40);
        let offset = self.random.random_range(0..1 << 20);
        let mask = self.random.random_range(1..=u8::MAX);
        let host = self.host_mut(id);
        host.disk.misread(reads, offset, mask);
        host.misreads = true;
        self.note(format_args!("the disk of server {id} misreads"), &[]);
        if self.random.random_bool(0.5) {
            self.kill(id);
        }
    }

    fn fill(&mut self, id: ServerId) {
        self.coverage.full_disks += 1;
        self.host_mut(id).disk.set_full(true);
        self.note(format_args!("the disk of server {id} is full"), &[]);
        let after = self.up_to(FULL_NS);
        self.schedule(after, Event::Space(id));
    }

    pub(crate) fn space(&mut self, id: ServerId) {
        self.host_mut(id).disk.set_full(false);
        self.note(format_args!("the disk of server {id} has space"), &[]);
        self.prepare(id);
    }

    fn stall(&mut self, id: ServerId) {
        self.coverage.stalls += 1;
        let until = self.now + self.up_to(STALL_NS);
        self.host_mut(id).stalled_until = until;
        self.note(format_args!("the disk of server {id} stalls"), &[]);
    }

    fn jump(&mut self, id: ServerId) {
        self.coverage.jumps += 1;
        let by = self.random.random_range(-JUMP_MS..=JUMP_MS);
        let by = by / [1, 60, 3600][self.random.random_range(0..3)];
        self.host_mut(id).wall_offset_ms += by;
        self.note(
            format_args!("the clock of server {id} jumps by {by} ms"),
            &[],
        );
    }

    /// A write is under way; a crash right now would show whether anyone relies on it.
    pub(crate) fn perhaps_crash_unsynced(&mut self, id: ServerId, sync_ns: u64) {
        let strikes = !self.healed
            && self.options.has(Fault::Unsynced)
            && self.random.random_range(0..200) == 0;
        if strikes {
            let after = self.up_to(sync_ns);
            self.schedule(after, Event::PowerCut(id));
        }
    }
}
