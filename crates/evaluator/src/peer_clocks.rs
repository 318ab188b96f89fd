//! The wall clocks of the other servers, as they say they are: a leader whose own is far from
//! those of a majority is the one to be complained of (rule 50).

use std::collections::BTreeMap;

use command::LogTime;
use raft::ServerId;

/// A clock this far off, in milliseconds, is complained of.
const FAR_MS: i64 = 3_600_000;

/// How far this server's clock is ahead of each peer's, in milliseconds; negative if it is behind.
#[derive(Debug, Default)]
pub(crate) struct PeerClocks(BTreeMap<ServerId, i64>);

impl PeerClocks {
    /// A member of the cluster says what its clock shows. The message's way counts too, which is
    /// nothing beside an hour.
    pub(crate) fn heard(&mut self, from: ServerId, theirs: LogTime, ours: LogTime) {
        let ahead = i128::from(ours.0) - i128::from(theirs.0);
        let far = if ahead < 0 { i64::MIN } else { i64::MAX };
        self.0.insert(from, i64::try_from(ahead).unwrap_or(far));
    }

    /// How far this server's clock is ahead, if it is far ahead of the clocks of a majority of this
    /// many members, or far behind them: by how much at least, of those.
    pub(crate) fn far_off_ms(&self, members: usize) -> Option<i64> {
        let majority = members / 2 + 1;
        let nearest = |far: Vec<i64>| {
            let enough = far.len() >= majority;
            far.into_iter()
                .min_by_key(|ms| ms.unsigned_abs())
                .filter(|_| enough)
        };
        let ahead = self.0.values().copied().filter(|ms| *ms >= FAR_MS);
        let behind = self.0.values().copied().filter(|ms| *ms <= -FAR_MS);
        nearest(ahead.collect()).or_else(|| nearest(behind.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn clocks(ours: u64, theirs: &[u64]) -> PeerClocks {
        let mut clocks = PeerClocks::default();
        for (wall, id) in theirs.iter().zip(2..) {
            clocks.heard(ServerId(id), LogTime(*wall), LogTime(ours));
        }
        clocks
    }

    #[test]
    fn an_hour_off_the_clocks_of_a_majority_is_far() {
        let now = 1000 * HOUR;
        let off = |theirs: &[u64]| clocks(now, theirs).far_off_ms(5);
        assert_eq!(off(&[now, now, now, now]), None);
        assert_eq!(off(&[now - HOUR, now - HOUR, now, now]), None);
        assert_eq!(
            off(&[now - HOUR, now - 2 * HOUR, now, now - HOUR]),
            Some(3_600_000)
        );
        assert_eq!(
            off(&[now + HOUR, now + HOUR + 1, now + 2 * HOUR]),
            Some(-3_600_000)
        );
        assert_eq!(off(&[now + HOUR, now + HOUR, now - HOUR, now - HOUR]), None);
        assert_eq!(
            off(&[now - HOUR + 1; 4]),
            None,
            "a millisecond less than an hour"
        );
    }

    #[test]
    fn any_clock_a_peer_claims_to_have_is_only_compared() {
        assert_eq!(
            clocks(0, &[u64::MAX, u64::MAX]).far_off_ms(3),
            Some(i64::MIN)
        );
        assert_eq!(clocks(u64::MAX, &[0, 0]).far_off_ms(3), Some(i64::MAX));
        assert_eq!(clocks(5, &[]).far_off_ms(1), None);
    }
}
