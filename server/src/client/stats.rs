//! What `stats` tells of the process and its connections; the evaluator adds what it knows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use command::Stats;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use protocol::StatLine;
use tokio::time::Instant;

use super::Clients;
use crate::listen::{BACKLOG, Pauses};

/// What is counted of connections and their bytes. Counted apart from each other: one thing may be
/// seen before another that was counted earlier.
#[derive(Debug)]
pub(crate) struct Counters {
    start: Instant,
    pub(super) open: AtomicUsize,
    /// All below since the start or the last `stats reset`.
    pub(super) accepted: Count,
    pub(super) rejected: Count,
    /// Bytes from and to clients.
    pub(super) read: Count,
    pub(super) written: Count,
    /// Items that were over the limit.
    pub(super) too_large: Count,
    /// Of the client port.
    pauses: OnceLock<Arc<Pauses>>,
}

/// A number that grows until it is reset.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Counters {
    pub(crate) fn new() -> Counters {
        Counters {
            start: Instant::now(),
            open: AtomicUsize::new(0),
            accepted: Count::default(),
            rejected: Count::default(),
            read: Count::default(),
            written: Count::default(),
            too_large: Count::default(),
            pauses: OnceLock::new(),
        }
    }

    /// The client port is listened on, with these pauses.
    pub(crate) fn watch_pauses(&self, pauses: Arc<Pauses>) {
        // It is begun once.
        let _ = self.pauses.set(pauses);
    }

    /// Client connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn reset(&self) {
        for count in [&self.accepted, &self.rejected, &self.read, &self.written] {
            count.reset();
        }
        self.too_large.reset();
        if let Some(pauses) = self.pauses.get() {
            pauses.count.reset();
            pauses.microseconds.reset();
        }
    }
}

/// The connections that are open, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<BTreeMap<u64, Arc<Activity>>>);

/// When a client was last heard.
#[derive(Debug)]
pub(crate) struct Activity {
    peer: SocketAddr,
    begun: Instant,
    /// Milliseconds after `begun`.
    heard_ms: AtomicU64,
}

impl Connections {
    pub(super) fn begun(&self, id: u64, peer: SocketAddr) -> Arc<Activity> {
        let activity = Arc::new(Activity {
            peer,
            begun: Instant::now(),
            heard_ms: AtomicU64::new(0),
        });
        self.all().insert(id, Arc::clone(&activity));
        activity
    }

    pub(super) fn ended(&self, id: u64) {
        self.all().remove(&id);
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Activity>>> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

impl Activity {
    pub(super) fn heard(&self, now: Instant) {
        let after = now.duration_since(self.begun).as_millis();
        let after = u64::try_from(after).unwrap_or(u64::MAX);
        self.heard_ms.store(after, Ordering::Relaxed);
    }

    fn quiet_for(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(heard)
    }
}

/// The lines that the server adds to the evaluator's. `stats reset` starts its counters anew.
pub(super) fn lines(clients: &Clients, stats: Stats) -> Vec<StatLine> {
    match stats {
        Stats::General => general(clients),
        Stats::Settings => settings(clients),
        Stats::Conns => connections(clients),
        Stats::Items | Stats::Slabs => Vec::new(),
        Stats::Reset => {
            clients.counters.reset();
            Vec::new()
        }
    }
}

fn general(clients: &Clients) -> Vec<StatLine> {
    let counters = &clients.counters;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let accepting = counters.open() < clients.connections_max;
    let pauses = counters.pauses.get();
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
    vec![
        line("pid", std::process::id()),
        line("uptime", counters.start.elapsed().as_secs()),
        line("time", now.map_or(0, |now| now.as_secs())),
        line("version", protocol::VERSION),
        line("libevent", "none"),
        line("pointer_size", usize::BITS),
        line("rusage_user", seconds(usage.map(|it| it.user_time()))),
        line("rusage_system", seconds(usage.map(|it| it.system_time()))),
        line("max_connections", clients.connections_max),
        line("curr_connections", counters.open()),
        line("total_connections", counters.accepted.get()),
        line("rejected_connections", counters.rejected.get()),
        // There is one for each connection that is open.
        line("connection_structures", counters.open()),
        line("store_too_large", counters.too_large.get()),
        line("auth_cmds", 0),
        line("auth_errors", 0),
        line("bytes_read", counters.read.get()),
        line("bytes_written", counters.written.get()),
        line("accepting_conns", u8::from(accepting)),
        line("listen_disabled_num", pauses.map_or(0, |it| it.count.get())),
        line(
            "time_in_listen_disabled_us",
            pauses.map_or(0, |it| it.microseconds.get()),
        ),
        line("threads", clients.settings.threads),
        // None gives way to another: each has its turn by what its socket has.
        line("conn_yields", 0),
    ]
}

/// As memcached writes a time that a processor has worked.
fn seconds(time: Option<TimeVal>) -> String {
    let time = time.unwrap_or_else(|| TimeVal::new(0, 0));
    format!("{}.{:06}", time.tv_sec(), time.tv_usec())
}

/// What tools look at, and what is true of this server: there is no LRU, no slab mover, no log of
/// commands.
fn settings(clients: &Clients) -> Vec<StatLine> {
    let threads = clients.settings.threads;
    vec![
        line("maxconns", clients.connections_max),
        line("tcpport", clients.client_port),
        line("udpport", 0),
        line("inter", &clients.bind),
        line("verbosity", 0),
        line("oldest", 0),
        line("domain_socket", "NULL"),
        line("umask", 700),
        line("shutdown_command", "no"),
        line("growth_factor", "1.00"),
        line("chunk_size", 48),
        line("num_threads", threads),
        line("num_threads_per_udp", 0),
        line("stat_key_prefix", ":"),
        line("detail_enabled", "no"),
        line("reqs_per_event", clients.limits.run_commands_max),
        line("tcp_backlog", BACKLOG),
        line("binding_protocol", "auto-negotiate"),
        line("auth_enabled_sasl", "no"),
        line("auth_enabled_ascii", "no"),
        line("maxconns_fast", "yes"),
        line("hashpower_init", 0),
        line("slab_reassign", "no"),
        line("slab_automove", 0),
        line("slab_automove_ratio", "0.80"),
        line("slab_automove_window", 30),
        line("slab_chunk_max", clients.settings.value_bytes_max),
        line("lru_crawler", "no"),
        line("lru_crawler_sleep", 0),
        line("lru_crawler_tocrawl", 0),
        line("tail_repair_time", 0),
        line("dump_enabled", "yes"),
        line("hash_algorithm", "foldhash"),
        line("lru_maintainer_thread", "no"),
        line("lru_segmented", "no"),
        line("hot_lru_pct", 0),
        line("warm_lru_pct", 0),
        line("hot_max_factor", "0.00"),
        line("warm_max_factor", "0.00"),
        line("temp_lru", "no"),
        line("temporary_ttl", 0),
        line("idle_timeout", 0),
        line("watcher_logbuf_size", 0),
        line("worker_logbuf_size", 0),
        line("read_buf_mem_limit", 0),
        line("track_sizes", "no"),
        line("inline_ascii_response", "no"),
        line("ssl_enabled", "no"),
        line("quorate_followers", clients.settings.followers),
        line(
            "quorate_memory_limit_mib",
            clients.settings.memory_limit_mib,
        ),
    ]
}

/// The connections, in the order in which they were made; 0 is where they come in.
fn connections(clients: &Clients) -> Vec<StatLine> {
    let listening = format!("tcp:{}:{}", clients.bind, clients.client_port);
    let mut lines = vec![
        ("0:addr".into(), listening.clone()),
        ("0:state".into(), "conn_listening".into()),
    ];
    for (id, activity) in clients.connections.all().iter() {
        let family = if activity.peer.is_ipv6() { "6" } else { "" };
        let peer = format!("tcp{family}:{}", activity.peer);
        let quiet = activity.quiet_for().as_secs();
        lines.push((format!("{id}:addr").into(), peer));
        lines.push((format!("{id}:listen_addr").into(), listening.clone()));
        lines.push((format!("{id}:state").into(), "conn_waiting".into()));
        lines.push((
            format!("{id}:secs_since_last_cmd").into(),
            quiet.to_string(),
        ));
    }
    lines
}

fn line(name: &'static str, value: impl ToString) -> StatLine {
    (name.into(), value.to_string())
}
