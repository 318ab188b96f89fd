//! `quorate-client bench`: a load generator for a cluster, or for another server to compare with.
//! Closed loop: each connection sends a batch of `--pipeline` commands when it has the replies to the
//! one before. Open loop: with `--rate` commands are sent at their time, whatever the server does, and
//! latency counts from that time, so that what a slow server keeps waiting is not left out. It shares
//! its machine with what it measures, so it spends little: requests are encoded beforehand, replies
//! only told apart, and each thread has its own runtime, counters and share of the connections.

mod nats;
mod pace;
mod protocol;
mod report;
mod text;
mod worker;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use rand::{RngExt, rngs::StdRng};
use rand_distr::{Distribution, Zipf};
use serde::Serialize;
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

pub(crate) use report::Report;

use crate::command_line::parse_duration;
use crate::{Address, Client, NotDone};
use pace::Pace;
use protocol::{KEYS_MAX, Requests, Said};
use text::Family;
use worker::{PreloadError, Worker};

/// The most bytes of sets that one connection has under way.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// The longest latency that is told from longer ones, in nanoseconds.
const LATENCY_MAX: u64 = 60_000_000_000;

/// How often the progress bar moves.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

/// Measures a cluster (or another server to compare with): throughput and latencies.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchArgs {
    /// Measure this server, which need not be quorate's, instead of the cluster
    #[arg(long, value_name = "HOST:PORT")]
    memcached: Option<Address>,
    /// Measure this redis instead of the cluster
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["memcached", "meta"])]
    redis: Option<Address>,
    /// Follow SETs that are sent together with a WAIT for so many of redis's replicas
    #[arg(long, value_name = "COUNT", requires = "redis", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=9))]
    replicas: u8,
    /// Measure the key-value bucket `bench` of this NATS server instead of the cluster
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["memcached", "meta", "redis"])]
    nats: Option<Address>,
    /// Connections at a time
    #[arg(long, short, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Commands that each connection sends before it waits for their replies
    #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pipeline: u32,
    /// Bytes of each value
    #[arg(long, short = 'd', default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=16 << 20))]
    value_size: u32,
    /// How many different keys
    #[arg(long, short, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(KEYS_MAX)))]
    keys: u32,
    /// Choose keys by Zipf's law with this exponent, as 0.99: few keys often, most of them seldom;
    /// without it each is as likely as any other
    #[arg(long, value_name = "EXPONENT", value_parser = parse_exponent)]
    zipf: Option<f64>,
    /// Send ms and mg in place of set and get
    #[arg(long)]
    meta: bool,
    /// So many commands a second, on all connections together, each at its time whether those before
    /// it are answered or not; latency counts from that time. Without it a connection sends when it
    /// has its replies
    #[arg(long, conflicts_with_all = ["pipeline", "ops"], value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// Go on for so long before anything is counted, as 2s
    #[arg(long, value_name = "DURATION", conflicts_with = "ops", value_parser = parse_duration)]
    warm_up: Option<Duration>,
    /// What is sent; mixed is one set to nine gets
    #[arg(long, short, value_enum, default_value_t = Workload::Mixed)]
    workload: Workload,
    /// How many sets to how many gets, as 1:9, instead of a workload
    #[arg(long, value_name = "SETS:GETS", conflicts_with = "workload", value_parser = Ratio::parse)]
    ratio: Option<Ratio>,
    /// How long, as 10s, 500ms or 2m
    #[arg(long, short = 't', default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// How many commands, instead of how long
    #[arg(long, conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    ops: Option<u64>,
    /// Threads that the connections are shared among
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// The keys and the order of commands follow from this number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave out writing all keys once, which comes before a run with gets
    #[arg(long)]
    no_preload: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    Set,
    Get,
    Mixed,
}

/// How many sets to how many gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ratio {
    sets: u32,
    gets: u32,
}

/// What each worker does.
#[derive(Debug)]
struct Plan {
    requests: Requests,
    keys: Keys,
    pipeline: u32,
    ratio: Ratio,
    seed: u64,
}

/// Which keys.
#[derive(Debug)]
enum Keys {
    Uniform(u32),
    Zipf(Zipf<f64>),
}

/// Where all workers send, and how far they are together.
#[derive(Debug)]
struct Target {
    servers: Vec<Address>,
    /// The server that leads, as far as is known.
    leader: Mutex<Option<Address>>,
    next: AtomicUsize,
    start: Instant,
    /// Commands carried out.
    done: AtomicU64,
    /// When the last of them was, and the longest time between two, in nanoseconds since `start`.
    last: AtomicU64,
    pause: AtomicU64,
}

/// What one thread has counted.
#[derive(Debug)]
struct Tally {
    /// Nanoseconds from the sending of a batch to the reply.
    sets: Histogram<u64>,
    gets: Histogram<u64>,
    /// Gets that found nothing.
    misses: u64,
    /// Commands that were carried out.
    done: u64,
    /// Commands that were due and never sent, since the server was too slow.
    unsent: u64,
    errors: Errors,
    /// One line that a server refused a command with.
    refusal: Option<String>,
}

/// What went wrong, by kind.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Errors {
    /// Commands that a follower redirected.
    redirected: u64,
    /// Commands answered with `no leader`.
    no_leader: u64,
    /// Commands answered with `outcome unknown`.
    unknown: u64,
    /// Commands refused with any other error line.
    refused: u64,
    /// Commands that were sent and never answered.
    unanswered: u64,
    /// Connections that broke, went silent, or could not be made; replies that were none.
    closed: u64,
    timed_out: u64,
    unreachable: u64,
    malformed: u64,
}

/// Why there are no figures.
#[derive(Debug, Error)]
pub(crate) enum BenchError {
    #[error(transparent)]
    NotDone(#[from] NotDone),
    #[error("preload: {0}")]
    Preload(#[from] PreloadFailed),
    #[error("{pipeline} values of {value_bytes} bytes are more than {BATCH_BYTES_MAX} bytes")]
    BatchTooLong { pipeline: u32, value_bytes: u32 },
    /// Gets overtake sets there, and what is under way is told apart by its order.
    #[error("at a rate NATS is sent sets or gets alone: -w set or -w get")]
    MixedAtRate,
    #[error("no runtime: {0}")]
    Runtime(#[from] std::io::Error),
}

/// The preload failed.
#[derive(Debug, Error)]
#[error(transparent)]
pub(crate) struct PreloadFailed(#[from] PreloadError);

/// Runs the load that `args` ask for against these servers. `progress` shows a bar.
pub(crate) fn run(
    args: &BenchArgs,
    servers: Vec<Address>,
    timeout: Duration,
    progress: bool,
) -> Result<Report, BenchError> {
    let (pipeline, value_bytes) = (args.pipeline, args.value_size);
    if pipeline as usize * value_bytes as usize > BATCH_BYTES_MAX {
        return Err(BenchError::BatchTooLong {
            pipeline,
            value_bytes,
        });
    }
    let Ratio { sets, gets } = args.ratio();
    if args.nats.is_some() && args.rate.is_some() && sets > 0 && gets > 0 {
        return Err(BenchError::MixedAtRate);
    }
    let servers = match &args.memcached {
        Some(server) => vec![server.clone()],
        None => servers,
    };
    let (servers, leader) = match args.redis.as_ref().or(args.nats.as_ref()) {
        Some(other) => (vec![other.clone()], Some(other.clone())),
        None => (servers.clone(), find_leader(servers, timeout)?),
    };
    let target = Arc::new(Target::new(servers, leader.clone()));
    let (elapsed, tally) = run_threads(args, &target, progress)?;
    Ok(Report::new(args, leader, elapsed, &tally, &target))
}

fn find_leader(servers: Vec<Address>, timeout: Duration) -> Result<Option<Address>, BenchError> {
    let runtime = current_thread()?;
    let client = runtime.block_on(Client::connect(servers, timeout))?;
    Ok(client.leader())
}

fn current_thread() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// The time the run took and what it counted, all threads together.
fn run_threads(
    args: &BenchArgs,
    target: &Arc<Target>,
    progress: bool,
) -> Result<(Duration, Tally), BenchError> {
    let threads = args.threads.min(args.connections);
    // All of them before any thread, since the threads wait for each other.
    let runtimes: Vec<Runtime> = (0..threads)
        .map(|_| current_thread())
        .collect::<Result<_, _>>()?;
    let barrier = Barrier::new(threads as usize);
    let failed = AtomicBool::new(false);
    let (finished, all_finished) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let spawn = |(number, runtime)| {
            let finished = finished.clone();
            let (barrier, failed) = (&barrier, &failed);
            scope.spawn(move || {
                let _finished = finished;
                run_thread(number, &runtime, args, target, barrier, failed)
            })
        };
        let handles: Vec<_> = (0..).zip(runtimes).map(spawn).collect();
        drop(finished);
        if progress {
            report::show_progress(args, target, &all_finished);
        }
        let mut total = (Duration::ZERO, Tally::new());
        let mut result = Ok(());
        for handle in handles {
            match handle
                .join()
                .expect("a thread that panics ends the process's use")
            {
                Ok((elapsed, tally)) => {
                    total.0 = total.0.max(elapsed);
                    total.1.add(&tally);
                }
                Err(error) => result = Err(error),
            }
        }
        result.map(|()| total)
    })
}

/// One thread's share of the connections, keys and commands.
fn run_thread(
    number: u32,
    runtime: &Runtime,
    args: &BenchArgs,
    target: &Arc<Target>,
    barrier: &Barrier,
    failed: &AtomicBool,
) -> Result<(Duration, Tally), BenchError> {
    let threads = args.threads.min(args.connections);
    let _timers_of_workers = runtime.enter();
    let plan = Rc::new(args.plan());
    let tally = Rc::new(RefCell::new(Tally::new()));
    let connections = (number..args.connections).step_by(threads as usize);
    let mut workers: Vec<Worker> = connections
        .map(|worker| {
            let (plan, tally) = (Rc::clone(&plan), Rc::clone(&tally));
            let budget = args
                .ops
                .map(|ops| share(ops, worker.into(), args.connections.into()));
            Worker::new(worker.into(), plan, Arc::clone(target), tally, budget)
        })
        .collect();
    let local = LocalSet::new();
    if args.preloads() {
        let preloaded = local.block_on(runtime, preload(&mut workers, number, args));
        failed.fetch_or(preloaded.is_err(), Ordering::Relaxed);
        barrier.wait();
        preloaded.map_err(PreloadFailed)?;
    } else {
        barrier.wait();
    }
    if failed.load(Ordering::Relaxed) {
        return Ok((Duration::ZERO, Tally::new()));
    }
    *tally.borrow_mut() = Tally::new();
    target.restart(args.warm_up());
    let start = tokio::time::Instant::now();
    let counts_from = start + args.warm_up();
    let end = counts_from + args.duration;
    if let Some(rate) = args.rate {
        // Threads take turns as connections do.
        let interval = 1.0 / f64::from(rate);
        let share = f64::from(args.connections) / workers.len() as f64;
        let begin = start + Duration::from_secs_f64(interval * f64::from(number));
        let pace = Pace::new((begin, end), interval * share, workers.len());
        let unsent = local.block_on(runtime, load_at_pace(workers, counts_from, &pace))?;
        tally.borrow_mut().unsent = unsent;
    } else {
        let end = args.ops.is_none().then_some(end);
        local.block_on(runtime, load(workers, counts_from, end));
    }
    // At a rate the last replies come behind the end.
    let elapsed = match args.rate {
        Some(_) => counts_from.elapsed().max(args.duration),
        None => counts_from.elapsed(),
    };
    let tally = Rc::into_inner(tally).expect("the workers are gone");
    Ok((elapsed, tally.into_inner()))
}

/// All workers write their share of the keys.
async fn preload(
    workers: &mut Vec<Worker>,
    thread: u32,
    args: &BenchArgs,
) -> Result<(), PreloadError> {
    let step = args.connections as usize;
    let threads = args.threads.min(args.connections) as usize;
    let spawn = |(i, mut worker): (usize, Worker)| {
        let first = thread as usize + i * threads;
        let keys = (0..args.keys).skip(first).step_by(step);
        tokio::task::spawn_local(async move {
            let result = worker.preload(keys).await;
            (worker, result)
        })
    };
    let tasks: Vec<_> = workers.drain(..).enumerate().map(spawn).collect();
    let mut all = Ok(());
    for task in tasks {
        let (worker, result) = task.await.expect("no worker panics or is aborted");
        workers.push(worker);
        all = all.and(result);
    }
    all
}

async fn load(
    workers: Vec<Worker>,
    counts_from: tokio::time::Instant,
    end: Option<tokio::time::Instant>,
) {
    let spawn = |mut worker: Worker| {
        tokio::task::spawn_local(async move {
            worker.load(counts_from, end).await;
        })
    };
    let tasks: Vec<_> = workers.into_iter().map(spawn).collect();
    for task in tasks {
        task.await.expect("no worker panics or is aborted");
    }
}

/// How many commands were due and never sent.
async fn load_at_pace(
    workers: Vec<Worker>,
    counts_from: tokio::time::Instant,
    pace: &Rc<Pace>,
) -> std::io::Result<u64> {
    let spawn = |(number, mut worker): (usize, Worker)| {
        let pace = Rc::clone(pace);
        tokio::task::spawn_local(
            async move { worker.load_at_pace(counts_from, number, &pace).await },
        )
    };
    let tasks: Vec<_> = workers.into_iter().enumerate().map(spawn).collect();
    pace.run().await?;
    let mut unsent = 0;
    for task in tasks {
        unsent += task.await.expect("no worker panics or is aborted");
    }
    Ok(unsent)
}

/// The share of one of `of` in `whole`; all shares together are the whole.
fn share(whole: u64, number: u64, of: u64) -> u64 {
    whole / of + u64::from(number < whole % of)
}

impl BenchArgs {
    fn ratio(&self) -> Ratio {
        let (sets, gets) = match (self.ratio, self.workload) {
            (Some(ratio), _) => return ratio,
            (None, Workload::Set) => (1, 0),
            (None, Workload::Get) => (0, 1),
            (None, Workload::Mixed) => (1, 9),
        };
        Ratio { sets, gets }
    }

    fn warm_up(&self) -> Duration {
        self.warm_up.unwrap_or_default()
    }

    fn preloads(&self) -> bool {
        self.ratio().gets > 0 && !self.no_preload
    }

    fn plan(&self) -> Plan {
        let (replicas, value_bytes) = (self.replicas, self.value_size as usize);
        let requests = match (&self.redis, &self.nats, self.meta) {
            (Some(_), _, _) => Requests::text(Family::Redis { replicas }, value_bytes),
            (None, Some(_), _) => Requests::nats(value_bytes),
            (None, None, true) => Requests::text(Family::Meta, value_bytes),
            (None, None, false) => Requests::text(Family::Classic, value_bytes),
        };
        Plan {
            requests,
            keys: Keys::new(self.keys, self.zipf),
            pipeline: self.pipeline,
            ratio: self.ratio(),
            seed: self.seed,
        }
    }
}

/// An exponent of Zipf's law.
fn parse_exponent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(exponent) if (0.0..=10.0).contains(&exponent) => Ok(exponent),
        _ => Err("not a number from 0 to 10".to_owned()),
    }
}

impl Keys {
    fn new(count: u32, exponent: Option<f64>) -> Keys {
        let zipf = exponent.map(|exponent| Zipf::new(f64::from(count), exponent));
        match zipf {
            Some(zipf) => Keys::Zipf(zipf.expect("at least one key, and no negative exponent")),
            None => Keys::Uniform(count),
        }
    }

    /// The number of a key, from 0.
    fn draw(&self, random: &mut StdRng) -> u32 {
        match self {
            Keys::Uniform(count) => random.random_range(0..*count),
            Keys::Zipf(zipf) => zipf.sample(random) as u32 - 1,
        }
    }
}

impl Ratio {
    fn parse(text: &str) -> Result<Ratio, String> {
        let parse = |number: &str| number.parse::<u16>().ok().map(u32::from);
        let (sets, gets) = text.split_once(':').unwrap_or_default();
        match (parse(sets), parse(gets)) {
            (Some(sets), Some(gets)) if sets + gets > 0 => Ok(Ratio { sets, gets }),
            _ => Err("not of the form sets:gets, as 1:9".to_owned()),
        }
    }

    fn is_set(self, random: &mut StdRng) -> bool {
        match (self.sets, self.gets) {
            (_, 0) => true,
            (0, _) => false,
            (sets, gets) => random.random_range(0..sets + gets) < sets,
        }
    }
}

impl Target {
    fn new(servers: Vec<Address>, leader: Option<Address>) -> Self {
        Self {
            servers,
            leader: Mutex::new(leader),
            next: AtomicUsize::new(0),
            start: Instant::now(),
            done: AtomicU64::new(0),
            last: AtomicU64::new(0),
            pause: AtomicU64::new(0),
        }
    }

    /// The leader, or the next server to ask.
    fn address(&self) -> Address {
        let next = self.next.load(Ordering::Relaxed) % self.servers.len();
        self.lock()
            .clone()
            .unwrap_or_else(|| self.servers[next].clone())
    }

    fn follow(&self, leader: Address) {
        *self.lock() = Some(leader);
    }

    /// This server does not lead: another one is asked next.
    fn forget(&self, address: &Address) {
        let mut leader = self.lock();
        let next = self.next.load(Ordering::Relaxed) % self.servers.len();
        match &*leader {
            Some(known) if known == address => *leader = None,
            Some(_) => return,
            None => {}
        }
        if self.servers[next] == *address {
            self.next.store(next + 1, Ordering::Relaxed);
        }
    }

    /// Commands were carried out.
    fn progress(&self, now: Instant, commands: u64) {
        if commands == 0 {
            return;
        }
        self.done.fetch_add(commands, Ordering::Relaxed);
        let now = now.saturating_duration_since(self.start).as_nanos() as u64;
        if now < self.last.load(Ordering::Relaxed) {
            return;
        }
        let last = self.last.swap(now, Ordering::Relaxed);
        let pause = now.saturating_sub(last);
        if pause > self.pause.load(Ordering::Relaxed) {
            self.pause.fetch_max(pause, Ordering::Relaxed);
        }
    }

    /// The run starts: what was before, and what is in the next `warm_up`, does not count.
    fn restart(&self, warm_up: Duration) {
        let now = (self.start.elapsed() + warm_up).as_nanos() as u64;
        self.last.store(now, Ordering::Relaxed);
        self.pause.store(0, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Address>> {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    fn new() -> Self {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_MAX, 3).expect("fixed bounds");
        Self {
            sets: histogram(),
            gets: histogram(),
            misses: 0,
            done: 0,
            unsent: 0,
            errors: Errors::default(),
            refusal: None,
        }
    }

    fn count(&mut self, said: &Said, nanoseconds: u64) {
        match said {
            Said::Stored => self.sets.saturating_record(nanoseconds),
            Said::Hit => self.gets.saturating_record(nanoseconds),
            Said::Miss => {
                self.misses += 1;
                self.gets.saturating_record(nanoseconds);
            }
            Said::Redirect(_) => self.errors.redirected += 1,
            Said::NoLeader => self.errors.no_leader += 1,
            Said::Unknown => self.errors.unknown += 1,
            Said::Refused(line) => {
                self.errors.refused += 1;
                self.refusal.get_or_insert_with(|| line.clone());
            }
        }
        self.done += u64::from(said.is_done());
    }

    fn add(&mut self, other: &Tally) {
        self.sets.add(&other.sets).expect("the same bounds");
        self.gets.add(&other.gets).expect("the same bounds");
        self.misses += other.misses;
        self.done += other.done;
        self.unsent += other.unsent;
        self.errors.add(&other.errors);
        if self.refusal.is_none() {
            self.refusal.clone_from(&other.refusal);
        }
    }
}

impl Errors {
    fn add(&mut self, other: &Errors) {
        self.redirected += other.redirected;
        self.no_leader += other.no_leader;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        self.closed += other.closed;
        self.timed_out += other.timed_out;
        self.unreachable += other.unreachable;
        self.malformed += other.malformed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_whole() {
        for (whole, of) in [(10, 3), (2, 4), (0, 1), (12, 4)] {
            let shares: u64 = (0..of).map(|number| share(whole, number, of)).sum();
            assert_eq!(shares, whole);
        }
    }

    #[test]
    fn a_ratio_needs_at_least_one_command() {
        assert_eq!(Ratio::parse("1:9"), Ok(Ratio { sets: 1, gets: 9 }));
        for text in ["0:0", "1", "1:", ":1", "-1:2", "a:b", "1:2:3"] {
            assert!(Ratio::parse(text).is_err(), "{text}");
        }
    }
}
