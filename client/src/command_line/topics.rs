//! The commands on topics.

use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use command::TopicSettings;
use indicatif::{ProgressBar, ProgressStyle};

use super::print::{self, Printed};
use super::run::{UsageError, read};
use super::{Exit, Form, Value};
use crate::topic::bad_name;
use crate::{Client, Nacked, Outcome, PushOptions, Taken, Topic};

/// What it holds, or the outcome that is returned instead.
macro_rules! or_return {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(outcome) => return outcome,
        }
    };
}

/// Messages that are pushed in one go.
const BATCH_MESSAGES: usize = 256;
const BATCH_BYTES: usize = 256 << 10;

/// `tail` asks again after this long without a message.
const TAIL_WAIT: Duration = Duration::from_secs(30);

/// What `tail` takes comes back after so many seconds if it is killed before it has said that it was
/// shown.
const TAIL_TTR: u32 = 60;

#[derive(Clone, Debug, Subcommand)]
pub(super) enum OfTopic {
    /// Makes a topic
    Create {
        topic: OsString,
        #[command(flatten)]
        settings: Settings,
    },
    /// All topics in the order of their creation: name, and messages that are ready, reserved,
    /// delayed and dead
    List,
    /// The same of one topic
    Info { topic: OsString },
    /// Makes dead messages ready again
    Kick {
        topic: OsString,
        /// How many at most
        #[arg(default_value_t = 1)]
        count: u64,
    },
    /// Removes all messages of a topic
    Purge { topic: OsString },
    /// Removes a topic and its messages
    Drop { topic: OsString },
}

#[derive(Clone, Debug, Args)]
pub(super) struct Settings {
    /// The most messages; 0 is no limit
    #[arg(long, default_value_t = 0)]
    max_length: u64,
    /// The most bytes of all messages; 0 is no limit
    #[arg(long, default_value_t = 0)]
    max_bytes: u64,
    /// Seconds after which a message is gone; 0 is never
    #[arg(long, default_value_t = 0)]
    max_age: u32,
    /// Deliveries after which a message that comes back is dead; 0 is no limit
    #[arg(long, default_value_t = 0)]
    max_deliveries: u32,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Push {
    topic: OsString,
    /// The message. Without it, and without --file, each line of standard input is a message
    #[arg(allow_negative_numbers = true)]
    message: Option<OsString>,
    /// A file that holds the message
    #[arg(long, value_name = "FILE", conflicts_with = "message")]
    file: Option<std::path::PathBuf>,
    /// The lower number is taken first
    #[arg(long, default_value_t = 0)]
    priority: u32,
    /// Seconds until it can be taken
    #[arg(long, default_value_t = 0)]
    delay: u32,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Take {
    topic: OsString,
    /// Seconds to wait for a message
    #[arg(long, default_value_t = 0)]
    wait: u32,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Reserve {
    #[command(flatten)]
    take: Take,
    /// Seconds after which the message comes back unless it is acknowledged
    #[arg(long, default_value_t = 60)]
    ttr: u32,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Held {
    topic: OsString,
    /// As reserve has shown it
    id: u64,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Nack {
    #[command(flatten)]
    held: Held,
    /// Seconds until it can be taken again
    #[arg(long, default_value_t = 0)]
    delay: u32,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Extend {
    #[command(flatten)]
    held: Held,
    /// Seconds from now
    ttr: u32,
}

pub(super) async fn of_topic(client: &Client, command: &OfTopic) -> Outcome<Printed> {
    match command {
        OfTopic::List => client.topics().await.map(Printed::Topics),
        OfTopic::Create { topic, settings } => {
            let settings = TopicSettings {
                max_length: settings.max_length,
                max_bytes: settings.max_bytes,
                max_age: settings.max_age,
                max_deliveries: settings.max_deliveries,
            };
            let topic = or_return!(named(client, topic));
            let outcome = topic.create(settings).await;
            outcome.map(|is_new| word(is_new, "CREATED", "EXISTS"))
        }
        OfTopic::Info { topic } => {
            let topic = or_return!(named(client, topic));
            client.topics().await.map(|mut topics| {
                topics.retain(|found| found.topic.as_bytes() == topic.name());
                match topics.is_empty() {
                    true => Printed::miss("NOT_FOUND"),
                    false => Printed::Topics(topics),
                }
            })
        }
        OfTopic::Kick { topic, count } => {
            let topic = or_return!(named(client, topic));
            counted("KICKED", topic.kick(*count).await)
        }
        OfTopic::Purge { topic } => {
            let topic = or_return!(named(client, topic));
            counted("PURGED", topic.purge().await)
        }
        OfTopic::Drop { topic } => {
            let topic = or_return!(named(client, topic));
            let outcome = topic.remove().await;
            outcome.map(|was_there| word(was_there, "DROPPED", "NOT_FOUND"))
        }
    }
}

pub(super) async fn pop(client: &Client, args: &Take) -> Outcome<Printed> {
    let topic = or_return!(named(client, &args.topic));
    let outcome = topic.pop(seconds(args.wait)).await;
    outcome.map(|taken| shown(&topic, taken, false))
}

pub(super) async fn reserve(client: &Client, args: &Reserve) -> Outcome<Printed> {
    let topic = or_return!(named(client, &args.take.topic));
    let outcome = topic.reserve(args.ttr, seconds(args.take.wait)).await;
    outcome.map(|taken| shown(&topic, taken, true))
}

pub(super) async fn peek(client: &Client, topic: &OsString) -> Outcome<Printed> {
    let topic = or_return!(named(client, topic));
    topic.peek().await.map(|taken| shown(&topic, taken, false))
}

pub(super) async fn ack(client: &Client, args: &Held) -> Outcome<Printed> {
    let topic = or_return!(named(client, &args.topic));
    let outcome = topic.ack(args.id).await;
    outcome.map(|was_reserved| word(was_reserved, "ACKED", "NOT_FOUND"))
}

pub(super) async fn nack(client: &Client, args: &Nack) -> Outcome<Printed> {
    let topic = or_return!(named(client, &args.held.topic));
    let outcome = topic.nack(args.held.id, args.delay).await;
    outcome.map(|nacked| match nacked {
        Nacked::Released => Printed::ok("RELEASED"),
        Nacked::Buried => Printed::ok("BURIED"),
        Nacked::NotFound => Printed::miss("NOT_FOUND"),
    })
}

pub(super) async fn extend(client: &Client, args: &Extend) -> Outcome<Printed> {
    let topic = or_return!(named(client, &args.held.topic));
    let outcome = topic.extend(args.held.id, args.ttr).await;
    outcome.map(|was_reserved| word(was_reserved, "EXTENDED", "NOT_FOUND"))
}

/// Pushes one message, or each line of standard input.
pub(super) async fn push(
    client: &Client,
    args: &Push,
    form: Form,
) -> Result<Outcome<Printed>, UsageError> {
    let topic = match named(client, &args.topic) {
        Ok(topic) => topic,
        Err(outcome) => return Ok(outcome),
    };
    let options = PushOptions {
        priority: args.priority,
        delay: args.delay,
    };
    if args.message.is_none() && args.file.is_none() {
        return push_lines(&topic, options, form).await;
    }
    let value = Value {
        value: args.message.clone(),
        file: args.file.clone(),
    };
    let outcome = topic.push(read(&value)?, options).await;
    Ok(outcome.map(|id| id.map_or(Printed::miss("NOT_FOUND"), Printed::Number)))
}

async fn push_lines(
    topic: &Topic,
    options: PushOptions,
    form: Form,
) -> Result<Outcome<Printed>, UsageError> {
    let bar = match io::stderr().is_terminal() && form == Form::Text {
        true => ProgressBar::new_spinner().with_style(style()),
        false => ProgressBar::hidden(),
    };
    let mut lines = io::stdin().lock();
    let mut pushed = 0;
    loop {
        let batch = next_lines(&mut lines)?;
        if batch.is_empty() {
            bar.finish_and_clear();
            return Ok(Outcome::Done(Printed::Count("PUSHED", pushed)));
        }
        for outcome in topic.push_many(batch, options).await {
            match outcome {
                Outcome::Done(Some(_)) => pushed += 1,
                other => {
                    bar.finish_and_clear();
                    eprintln!("quorate-client: {pushed} messages were pushed before");
                    return Ok(other.map(|_| Printed::miss("NOT_FOUND")));
                }
            }
            bar.inc(1);
        }
    }
}

/// The next few lines, without their ends.
fn next_lines(lines: &mut impl BufRead) -> Result<Vec<Bytes>, UsageError> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    while batch.len() < BATCH_MESSAGES && bytes < BATCH_BYTES {
        let mut line = Vec::new();
        let count = lines.read_until(b'\n', &mut line);
        let count = count.map_err(|error| UsageError::Read {
            source_name: "standard input".to_owned(),
            error,
        })?;
        if count == 0 {
            break;
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        bytes += line.len();
        batch.push(Bytes::from(line));
    }
    Ok(batch)
}

fn style() -> ProgressStyle {
    let template = "{spinner} {pos} messages, {per_sec}, {elapsed}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Takes messages as they come and shows each, for as long as it runs. What is not shown comes back.
pub(super) async fn tail(client: &Client, topic: &OsString, form: Form) -> Exit {
    let topic = match named(client, topic) {
        Ok(topic) => topic,
        Err(outcome) => return print::outcome(outcome, form),
    };
    loop {
        let outcome = topic.reserve(TAIL_TTR, TAIL_WAIT).await;
        let message = match outcome {
            Outcome::Done(Taken::Empty) | Outcome::Unknown(_) => continue,
            Outcome::Done(Taken::Message(message)) => message,
            other => return print::outcome(other.map(|taken| shown(&topic, taken, false)), form),
        };
        if print::message(&topic, &message, form).is_err() {
            // Nobody reads it: it comes back.
            return Exit::Ok;
        }
        if let Outcome::NotDone(reason) = topic.ack(message.id).await {
            print::not_done(&reason, form);
            return Exit::Unreachable;
        }
    }
}

fn named(client: &Client, topic: &OsString) -> Result<Topic, Outcome<Printed>> {
    client.topic(topic.as_bytes()).map_err(bad_name)
}

fn shown(topic: &Topic, taken: Taken, with_id: bool) -> Printed {
    match taken {
        Taken::Message(message) => Printed::Message {
            topic: topic.name().to_vec(),
            message,
            with_id,
        },
        Taken::Empty => Printed::miss("EMPTY"),
        Taken::NotFound => Printed::miss("NOT_FOUND"),
    }
}

fn word(is_so: bool, yes: &'static str, no: &'static str) -> Printed {
    match is_so {
        true => Printed::ok(yes),
        false => Printed::miss(no),
    }
}

fn counted(word: &'static str, outcome: Outcome<Option<u64>>) -> Outcome<Printed> {
    outcome.map(|count| match count {
        Some(count) => Printed::Count(word, count),
        None => Printed::miss("NOT_FOUND"),
    })
}

fn seconds(wait: u32) -> Duration {
    Duration::from_secs(u64::from(wait))
}

/// A line at a time, flushed: whoever waits for messages sees them when they come.
pub(super) fn flushed(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.write_all(b"\n")?;
    to.flush()
}
