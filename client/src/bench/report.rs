//! What a run of the benchmark comes to, as text and as JSON, and its progress while it runs.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{BenchArgs, Errors, PROGRESS_PERIOD, Tally, Target};
use crate::Address;

/// The figures of one run. Latencies are in microseconds, from the sending of a batch to the reply, or
/// at a given rate from the time when a command was to be sent.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The server that the run started at.
    server: Option<String>,
    connections: u32,
    pipeline: u32,
    value_bytes: u32,
    keys: u32,
    /// The exponent of Zipf's law, if keys are chosen by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    zipf: Option<f64>,
    meta: bool,
    threads: u32,
    seed: u64,
    /// Commands that were to be sent in a second, and how many of them never were.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u32>,
    unsent: u64,
    warm_up_seconds: f64,
    seconds: f64,
    commands: u64,
    commands_per_second: f64,
    sets: Operation,
    gets: Operation,
    misses: u64,
    /// The longest time in which no command was carried out, in milliseconds.
    longest_pause_ms: f64,
    errors: Errors,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
}

/// One kind of command.
#[derive(Debug, Serialize)]
struct Operation {
    count: u64,
    per_second: f64,
    mean_us: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
}

impl Report {
    pub(super) fn new(
        args: &BenchArgs,
        server: Option<Address>,
        elapsed: Duration,
        tally: &Tally,
        target: &Target,
    ) -> Self {
        let pause = Duration::from_nanos(target.pause.load(Ordering::Relaxed));
        Self {
            server: server.map(|server| server.to_string()),
            connections: args.connections,
            pipeline: args.pipeline,
            value_bytes: args.value_size,
            keys: args.keys,
            zipf: args.zipf,
            meta: args.meta,
            rate: args.rate,
            unsent: tally.unsent,
            warm_up_seconds: args.warm_up().as_secs_f64(),
            threads: args.threads.min(args.connections),
            seed: args.seed,
            seconds: elapsed.as_secs_f64(),
            commands: tally.done,
            commands_per_second: rate(tally.done, elapsed),
            sets: Operation::new(&tally.sets, elapsed),
            gets: Operation::new(&tally.gets, elapsed),
            misses: tally.misses,
            longest_pause_ms: pause.as_secs_f64() * 1e3,
            errors: tally.errors,
            refusal: tally.refusal.clone(),
        }
    }

    /// Whether any command was carried out.
    pub(crate) fn has_figures(&self) -> bool {
        self.commands > 0
    }

    /// Whether servers refused commands for another reason than leadership.
    pub(crate) fn was_refused(&self) -> bool {
        self.errors.refused > 0
    }
}

impl Operation {
    fn new(latencies: &Histogram<u64>, elapsed: Duration) -> Self {
        let us = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        let at = |quantile| us(latencies.value_at_quantile(quantile));
        Self {
            count: latencies.len(),
            per_second: rate(latencies.len(), elapsed),
            mean_us: latencies.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: us(latencies.max()),
        }
    }
}

fn rate(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = self.server.as_deref().unwrap_or("?");
        writeln!(
            f,
            "{server}: {} connections, pipeline {}, values of {} bytes, {} keys, {} thread(s)",
            self.connections, self.pipeline, self.value_bytes, self.keys, self.threads,
        )?;
        writeln!(
            f,
            "{} commands in {:.2} s: {:.0} a second; longest pause {:.1} ms",
            self.commands, self.seconds, self.commands_per_second, self.longest_pause_ms,
        )?;
        writeln!(
            f,
            "\n{:5} {:>10} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "", "count", "a second", "mean µs", "p50", "p90", "p99", "p99.9", "max",
        )?;
        for (name, operation) in [("set", &self.sets), ("get", &self.gets)] {
            if operation.count > 0 {
                operation.write(name, f)?;
            }
        }
        if let Some(rate) = self.rate {
            let unsent = self.unsent;
            writeln!(f, "\n{rate} a second were due; {unsent} were never sent")?;
        }
        if self.misses > 0 {
            writeln!(f, "\n{} gets found nothing", self.misses)?;
        }
        self.write_errors(f)
    }
}

impl Operation {
    fn write(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{name:5} {:>10} {:>10.0}", self.count, self.per_second)?;
        let latencies = [
            self.mean_us,
            self.p50_us,
            self.p90_us,
            self.p99_us,
            self.p999_us,
            self.max_us,
        ];
        for latency in latencies {
            write!(f, " {latency:>9.0}")?;
        }
        writeln!(f)
    }
}

impl Report {
    fn write_errors(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = &self.errors;
        let kinds = [
            (errors.redirected, "commands redirected"),
            (errors.no_leader, "commands refused for want of a leader"),
            (errors.unknown, "commands with an unknown outcome"),
            (errors.refused, "commands refused"),
            (errors.unanswered, "commands never answered"),
            (errors.closed, "connections closed"),
            (errors.timed_out, "connections gone silent"),
            (errors.unreachable, "connections that could not be made"),
            (errors.malformed, "connections that sent what is no reply"),
        ];
        let mut kinds = kinds.iter().filter(|(count, _)| *count > 0).peekable();
        if kinds.peek().is_none() {
            return writeln!(f, "\nno errors");
        }
        writeln!(f)?;
        for (count, kind) in kinds {
            writeln!(f, "{count:>10} {kind}")?;
        }
        match &self.refusal {
            Some(line) => writeln!(f, "refused with: {line}"),
            None => Ok(()),
        }
    }
}

/// Shows a bar on standard error until all threads have finished, which is when the other end of
/// `finished` is dropped.
pub(super) fn show_progress(args: &BenchArgs, target: &Target, finished: &Receiver<()>) {
    let whole = args.warm_up() + args.duration;
    let length = args.ops.unwrap_or(whole.as_millis() as u64);
    let bar = ProgressBar::new(length);
    let style = ProgressStyle::with_template("{wide_bar} {msg}");
    bar.set_style(style.expect("a fixed template"));
    let (mut done_before, mut before) = (0, Instant::now());
    let mut millis = 0;
    while finished.recv_timeout(PROGRESS_PERIOD) == Err(RecvTimeoutError::Timeout) {
        let done = target.done.load(Ordering::Relaxed);
        let elapsed = before.elapsed();
        // The count starts anew when the run does.
        if done < done_before {
            millis = 0;
        }
        millis += elapsed.as_millis() as u64;
        let rate = rate(done.saturating_sub(done_before), elapsed);
        bar.set_position(if args.ops.is_some() { done } else { millis }.min(length));
        bar.set_message(format!("{rate:.0}/s"));
        (done_before, before) = (done, Instant::now());
    }
    bar.finish_and_clear();
}
