//! How many files and sockets this process may have open, and what they are kept for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Kept for the log, peers, HTTP and whatever a library opens.
const RESERVE: u64 = 256;

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

/// The connections that fit under a limit of so many files. Even a very low limit leaves half of
/// it to clients.
fn connections_below(files: u64, connections_max: usize) -> usize {
    let room = files.saturating_sub(RESERVE).max(files / 2);
    usize::try_from(room).map_or(connections_max, |room| room.min(connections_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_get_the_files_that_the_log_and_the_peers_need() {
        assert_eq!(connections_below(u64::MAX, 10_000), 10_000);
        assert_eq!(connections_below(10_256, 10_000), 10_000);
        assert_eq!(connections_below(1024, 10_000), 768);
        assert_eq!(connections_below(100, 10_000), 50);
    }
}
