//! How fast a follower is sent what it lacks when that is much: everything that it is sent it
//! writes to its disk and carries out, and whoever shares a disk, a network or a processor with it
//! waits meanwhile. As long as a majority is level without it, nobody needs it to be faster.

use std::time::Duration;

use crate::leader::Leadership;
use crate::progress::Progress;
use crate::raft::Raft;
use crate::types::Timestamp;

/// What a message might carry goes out in so many, each in its time.
const PARTS: usize = 32;

/// A follower that lacks more than memory holds, until it is level again.
#[derive(Debug)]
pub(crate) struct CatchUp {
    /// When what it was sent has had its time.
    paid_at: Timestamp,
}

impl CatchUp {
    pub(crate) fn begun(now: Timestamp) -> CatchUp {
        CatchUp { paid_at: now }
    }

    /// So many bytes are on their way to it.
    pub(crate) fn sent(&mut self, bytes: usize, rate: u64, now: Timestamp) {
        self.paid_at = self.paid_at.max(now) + time_for(bytes, rate);
    }

    /// The log has grown by so many bytes. It may be sent twice as many beside the rest, or under
    /// a heavy load it would never be level.
    pub(crate) fn appended(&mut self, bytes: usize, rate: u64) {
        let earlier = time_for(bytes, rate).as_nanos() as u64 * 2;
        self.paid_at = Timestamp(self.paid_at.0.saturating_sub(earlier));
    }
}

/// How long so many bytes take at so many a second.
fn time_for(bytes: usize, rate: u64) -> Duration {
    let nanos = bytes as u128 * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX >> 2))
}

impl Raft {
    /// Whether this follower is to be sent nothing for a while.
    pub(crate) fn is_paced(&self, leadership: &Leadership, follower: &Progress) -> bool {
        let catch_up = follower.catch_up.as_ref();
        catch_up.is_some_and(|it| self.now < it.paid_at) && self.is_majority_level(leadership)
    }

    /// The most that one message to this follower carries. What it writes and carries out at once
    /// keeps a disk and a processor that it shares from all others for as long.
    pub(crate) fn message_bytes_max(&self, leadership: &Leadership, follower: &Progress) -> usize {
        let bytes_max = self.config.append_bytes_max;
        match follower.catch_up {
            Some(_) if self.is_majority_level(leadership) => bytes_max / PARTS,
            _ => bytes_max,
        }
    }

    /// When the first follower that waits may be sent more.
    pub(crate) fn pace_deadline(&self, leadership: &Leadership) -> Timestamp {
        let followers = leadership.followers.values();
        let behind = followers.filter_map(|progress| progress.catch_up.as_ref());
        let times = behind.map(|catch_up| catch_up.paid_at);
        let times = times.filter(|paid_at| *paid_at > self.now);
        times.min().unwrap_or(Timestamp::NEVER)
    }

    /// Whether entries are committed without those that catch up.
    fn is_majority_level(&self, leadership: &Leadership) -> bool {
        let members = self.config.members.iter();
        let level = members.filter(|(id, _)| match leadership.followers.get(id) {
            Some(progress) => {
                progress.catch_up.is_none()
                    && self.now.since(progress.heard) < self.config.election_timeout.start
                    && self.may_hold_the_majority(*id, progress)
            }
            None => true,
        });
        level.count() >= self.majority()
    }
}
