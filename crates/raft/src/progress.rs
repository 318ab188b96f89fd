//! One follower as the leader sees it: how far its log is known to match, what is on its way, and
//! when it was last heard.

use std::collections::VecDeque;
use std::time::Duration;

use mutants::Mutant;

use crate::catch_up::CatchUp;
use crate::types::{Index, Instance, Restart, Timestamp};

/// How many heartbeats without any progress a leader waits before it takes what was on its way
/// for lost; doubled each time, up to this.
const PATIENCE_MAX: u32 = 64;
const PATIENCE_MIN: u32 = 2;

#[derive(Debug)]
pub(crate) struct Progress {
    /// Synced on that follower and equal to the leader's log up to here. Grows, but for a restart
    /// of the follower, which puts it back to 0 (rule 15).
    pub(crate) match_index: Index,
    /// The next entry to send; above `match_index`.
    pub(crate) next_index: Index,
    pub(crate) flow: Flow,
    /// Last index and bytes of every message of entries on its way, and when it was sent.
    in_flight: VecDeque<(Index, usize, Timestamp)>,
    in_flight_bytes: usize,
    /// Entries were asked back from the log for it.
    pub(crate) fetching: bool,
    /// From the first entries that were asked back for it until it is level.
    pub(crate) catch_up: Option<CatchUp>,
    /// The data directory and the start that the above belongs to.
    pub(crate) incarnation: Option<(Instance, Restart)>,
    /// It has said that it is seated: it can vote and campaign.
    pub(crate) knows_seat: bool,
    pub(crate) health: Health,
    /// When it last answered in this term; when the term began before that.
    pub(crate) heard: Timestamp,
    /// The newest heartbeat round that it answered.
    pub(crate) round_acked: u64,
    /// Heartbeats answered since the last progress while something was on its way, and when the
    /// last of them was counted.
    idle_heartbeats: u32,
    idle_counted: Timestamp,
    patience: u32,
    /// How long messages of entries took lately until they were acknowledged.
    answers_in: Duration,
}

/// Whether a follower has what it has promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Sound,
    /// It is whole again with this entry, which was appended after it had started; `None` when the
    /// leader did not lead any more.
    Recovering(Option<Index>),
}

/// How entries flow to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It is not known where the logs agree: one message at a time.
    Probe { sent: bool },
    /// They agree up to `next_index`: as many messages as the window takes.
    Replicate,
}

impl Progress {
    pub(crate) fn new(next_index: Index, now: Timestamp) -> Progress {
        Progress {
            match_index: Index(0),
            next_index,
            flow: Flow::Probe { sent: false },
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            fetching: false,
            catch_up: None,
            incarnation: None,
            knows_seat: false,
            health: Health::Sound,
            heard: now,
            round_acked: 0,
            idle_heartbeats: 0,
            idle_counted: Timestamp(0),
            patience: PATIENCE_MIN,
            answers_in: Duration::ZERO,
        }
    }

    /// How long this follower takes to acknowledge entries, as far as is known now.
    pub(crate) fn answer_time(&self, now: Timestamp) -> Duration {
        let oldest = self.in_flight.front();
        let waited = oldest.map_or(Duration::ZERO, |(.., sent)| now.since(*sent));
        self.answers_in.max(waited)
    }

    /// Room for another message.
    pub(crate) fn has_room(&self, window_bytes_max: usize) -> bool {
        match self.flow {
            Flow::Probe { sent } => !sent,
            Flow::Replicate => self.in_flight_bytes < window_bytes_max,
        }
    }

    /// Entries up to `last`, or a probe without any, are on their way.
    pub(crate) fn sent(&mut self, last: Option<Index>, bytes: usize, now: Timestamp) {
        if let Some(last) = last {
            self.in_flight.push_back((last, bytes, now));
            self.in_flight_bytes += bytes;
        }
        match (&mut self.flow, last) {
            (Flow::Probe { sent }, _) => *sent = true,
            (Flow::Replicate, Some(last)) => self.next_index = last.next(),
            (Flow::Replicate, None) => {}
        }
    }

    /// It matches up to `index`, synced. True if that changed anything (rule 19).
    pub(crate) fn matches(&mut self, index: Index, now: Timestamp) -> bool {
        let found = matches!(self.flow, Flow::Probe { .. }) && index.next() >= self.next_index;
        if index <= self.match_index && !found {
            return false;
        }
        self.match_index = self.match_index.max(index);
        self.next_index = self.next_index.max(self.match_index.next());
        if found && let Some((last, ..)) = self.in_flight.back() {
            // The probe's entries have arrived with it, synced or not.
            self.next_index = self.next_index.max(last.next());
        }
        let matched = self.match_index;
        while let Some((_, bytes, sent)) = self.in_flight.pop_front_if(|it| it.0 <= matched) {
            self.in_flight_bytes -= bytes;
            self.answers_in = (self.answers_in * 3 + now.since(sent)) / 4;
        }
        if found {
            self.flow = Flow::Replicate;
        }
        self.idle_heartbeats = 0;
        self.patience = PATIENCE_MIN;
        true
    }

    /// Starts again from `next`: what was on its way is taken for lost.
    pub(crate) fn probe(&mut self, next: Index) {
        self.next_index = next.max(self.match_index.next());
        self.flow = Flow::Probe { sent: false };
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.fetching = false;
        self.idle_heartbeats = 0;
    }

    /// Another start or data directory of the follower than before answers: nothing that the one
    /// before acknowledged counts (rule 15). False if this one is older than the known.
    /// What it has is asked anew, no further back than behind `before`, where the log begins: what
    /// was known to be missing may have come in a snapshot meanwhile.
    pub(crate) fn met(&mut self, instance: Instance, restart: Restart, before: Index) -> bool {
        match self.incarnation {
            Some(_) if mutants::is_on(Mutant::RestartIgnored) => true,
            Some((known, start)) if known == instance && restart < start => false,
            Some(known) if known == (instance, restart) => true,
            Some(_) => {
                self.incarnation = Some((instance, restart));
                self.knows_seat = false;
                self.health = Health::Sound;
                self.match_index = Index(0);
                self.round_acked = 0;
                self.probe(self.next_index.max(before.next()));
                true
            }
            None => {
                self.incarnation = Some((instance, restart));
                true
            }
        }
    }

    /// A heartbeat was answered and nothing had come further. True when what is on its way is to
    /// be taken for lost: patience doubles each time, so that a slow link is not flooded.
    /// Read rounds send heartbeats in quick succession: one an interval counts.
    pub(crate) fn idle_heartbeat(&mut self, now: Timestamp, interval: Duration) -> bool {
        let waits = self.fetching
            || matches!(self.flow, Flow::Probe { sent: true })
            || !self.in_flight.is_empty();
        if !waits || now < self.idle_counted + interval {
            return false;
        }
        self.idle_counted = now;
        self.idle_heartbeats += 1;
        if self.idle_heartbeats < self.patience {
            return false;
        }
        self.patience = (self.patience * 2).min(PATIENCE_MAX);
        true
    }

    pub(crate) fn is_recovering(&self) -> bool {
        matches!(self.health, Health::Recovering(_))
    }

    pub(crate) fn check(&self) {
        assert!(
            !self.is_recovering() || self.round_acked == 0,
            "one that is recovering has confirmed round {}",
            self.round_acked,
        );
        assert!(
            self.match_index < self.next_index,
            "match {} but next {}",
            self.match_index,
            self.next_index,
        );
        let bytes: usize = self.in_flight.iter().map(|(_, bytes, _)| bytes).sum();
        assert!(
            bytes == self.in_flight_bytes,
            "{bytes} bytes on their way, counted {}",
            self.in_flight_bytes,
        );
    }
}
