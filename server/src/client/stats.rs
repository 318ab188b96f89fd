//! What `stats` tells of the process and its connections; the evaluator adds what it knows.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use command::Stats;
use protocol::StatLine;

use super::Clients;

/// Connections since the start. Counted apart from each other: one may be seen before another that
/// was counted earlier.
#[derive(Debug)]
pub(crate) struct Counters {
    start: Instant,
    pub(super) open: AtomicUsize,
    pub(super) accepted: AtomicU64,
    pub(super) rejected: AtomicU64,
}

impl Counters {
    pub(crate) fn new() -> Counters {
        Counters {
            start: Instant::now(),
            open: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        }
    }

    /// Client connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// The lines that the server adds to the evaluator's.
pub(super) fn lines(clients: &Clients, stats: Stats) -> Vec<StatLine> {
    match stats {
        Stats::General => general(clients),
        Stats::Settings => settings(clients),
        Stats::Items | Stats::Slabs | Stats::Reset => Vec::new(),
    }
}

fn general(clients: &Clients) -> Vec<StatLine> {
    let counters = &clients.counters;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let accepting = counters.open() < clients.connections_max;
    vec![
        line("pid", std::process::id()),
        line("uptime", counters.start.elapsed().as_secs()),
        line("time", now.map_or(0, |now| now.as_secs())),
        line("version", protocol::VERSION),
        line("pointer_size", usize::BITS),
        line("max_connections", clients.connections_max),
        line("curr_connections", counters.open()),
        line(
            "total_connections",
            counters.accepted.load(Ordering::Relaxed),
        ),
        line(
            "rejected_connections",
            counters.rejected.load(Ordering::Relaxed),
        ),
        line("accepting_conns", u8::from(accepting)),
        line("threads", clients.settings.threads),
    ]
}

fn settings(clients: &Clients) -> Vec<StatLine> {
    vec![
        line("maxconns", clients.connections_max),
        line("tcpport", clients.client_port),
        line("udpport", 0),
        line("num_threads", clients.settings.threads),
        line("auth_enabled_ascii", "no"),
    ]
}

fn line(name: &'static str, value: impl ToString) -> StatLine {
    (name.into(), value.to_string())
}
