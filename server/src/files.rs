//! How many files and sockets this process may have open, and what they are kept for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::error::Error;

/// Kept for everything but clients. At most 64 HTTP connections, 64 calls of other servers, 36
/// calls to them, 64 clients that are being turned away and 12 files of the log are open at a time,
/// and for snapshots 18 calls with two files each, and 6 files beside, and 3 that are read again; the
/// rest is for listeners, timers, signals and whatever a library opens.
const RESERVE: u64 = 320;

/// A limit that leaves room for fewer clients than this is taken for a mistake, unless no more are
/// wanted.
const CONNECTIONS_MIN: usize = 16;

/// Whether the limit on open files can be raised far enough to serve anybody.
///
/// # Errors
/// `FileLimit` if it can't.
pub(crate) fn check_limit(connections_max: usize) -> Result<(), Error> {
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let connections = connections_max.min(CONNECTIONS_MIN);
    if connections_below(limit, connections) < connections {
        return Err(Error::FileLimit {
            limit,
            reserve: RESERVE,
            connections,
        });
    }
    Ok(())
}

/// Raises the limit on open files as far as it goes, and gives how many client connections fit
/// under it: at most `connections_max`.
pub(crate) fn raise_limit(connections_max: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = connections_max as u64 + RESERVE;
    let current = limit.current.unwrap_or(u64::MAX);
    let reachable = wanted.min(limit.maximum.unwrap_or(u64::MAX));
    let files = if current >= reachable {
        current
    } else {
        let raised = Rlimit {
            current: Some(reachable),
            maximum: limit.maximum,
        };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => reachable,
            Err(_) => current,
        }
    };
    let connections = connections_below(files, connections_max);
    if connections < connections_max {
        warn!(
            "connections_max is {connections_max}, but a limit of {files} open files leaves room \
             for {connections}"
        );
    }
    connections
}

/// The connections that fit under a limit of so many files.
fn connections_below(files: u64, connections_max: usize) -> usize {
    let room = files.saturating_sub(RESERVE);
    usize::try_from(room).map_or(connections_max, |room| room.min(connections_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_get_the_files_that_the_log_and_the_peers_need() {
        assert_eq!(connections_below(u64::MAX, 10_000), 10_000);
        assert_eq!(connections_below(10_320, 10_000), 10_000);
        assert_eq!(connections_below(1024, 10_000), 704);
        assert_eq!(connections_below(321, 10_000), 1);
        assert_eq!(connections_below(320, 10_000), 0);
        assert_eq!(connections_below(100, 10_000), 0);
    }
}
