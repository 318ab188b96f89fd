//! `quorate-client`: its arguments, and what it exits with.

mod print;
mod run;
mod servers;
mod snapshot;
mod topics;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{Address, bench};

/// Talks to a quorate cluster: finds its leader, follows redirects, and says of each command
/// whether it was done, was not done, or may have been.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "quorate-client",
    version,
    after_help = "\
Exit status: 0 done; 1 no such item, not stored, or refused; 2 wrong usage; 3 no server or no leader
in time, certainly not done; 4 outcome unknown: it may have been done.

Keys and values may hold any bytes that memcached's text protocol allows. As text a value is written
as it is. In JSON, keys and values that are valid UTF-8 are strings (`key`, `value`); others are in
base64 (`key_base64`, `value_base64`)."
)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Clone, Debug, Args)]
struct Global {
    /// Servers of the cluster, any of which may be asked for the leader
    #[arg(
        long,
        short,
        global = true,
        env = "QUORATE_SERVERS",
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        default_value = "127.0.0.1:9000,127.0.0.1:9010,127.0.0.1:9020,127.0.0.1:9030,127.0.0.1:9040"
    )]
    servers: Vec<Address>,
    /// The cluster's cluster.toml, instead of --servers
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How long a command may take, as 5s or 500ms
    #[arg(long, global = true, default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,
    /// The form of the output
    #[arg(long, short, global = true, value_enum, default_value_t = Form::Text)]
    output: Form,
    /// JSON, whatever --output says
    #[arg(long, global = true)]
    json: bool,
}

impl Global {
    fn form(&self) -> Form {
        match self.json {
            true => Form::Json,
            false => self.output,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
}

#[derive(Clone, Debug, Subcommand)]
enum Subcommands {
    /// The values of items; of several keys each value is followed by a line end
    Get(Keys),
    /// As get, with a line `<unique> <flags>` before each value
    Gets(Keys),
    /// As get, and gives the items this time
    Gat(KeysAndTime),
    /// As gets, and gives the items this time
    Gats(KeysAndTime),
    /// Stores an item
    Set(Item),
    /// Stores an item if there is none
    Add(Item),
    /// Stores an item if there is one
    Replace(Item),
    /// Puts a value behind that of an item
    Append(Addition),
    /// Puts a value before that of an item
    Prepend(Addition),
    /// Stores an item if it still has this unique
    Cas(Swap),
    /// Deletes an item
    Delete {
        key: OsString,
    },
    /// Adds to the number in an item, modulo 2^64
    Incr(Delta),
    /// Subtracts from the number in an item, down to 0
    Decr(Delta),
    /// Gives an item another time
    Touch {
        key: OsString,
        /// Seconds from now, or since 1970; 0 is never, less is at once
        #[arg(allow_negative_numbers = true)]
        exptime: i32,
    },
    /// Empties the store
    #[command(name = "flush_all", alias = "flush-all")]
    FlushAll {
        /// Seconds from now
        #[arg(default_value_t = 0, allow_negative_numbers = true)]
        delay: i32,
    },
    /// The version of one server, any that answers: name one with --servers
    Version,
    /// Sets how much a memcached logs; without effect on a server of quorate
    Verbosity {
        level: u32,
    },
    /// The statistics of one server, any that answers: name one with --servers
    Stats {
        #[arg(value_enum, default_value_t = Which::General)]
        which: Which,
    },
    /// Topics, which are message queues
    #[command(subcommand)]
    Topic(topics::OfTopic),
    /// Puts a message into a topic, and prints its id; or each line of standard input, and prints how
    /// many
    Push(topics::Push),
    /// Takes the first message of a topic for good
    Pop(topics::Take),
    /// Takes the first message of a topic, until it is acknowledged or its time to run is over; before
    /// it comes a line `<id> <deliveries>`
    Reserve(topics::Reserve),
    /// A reserved message is done with
    Ack(topics::Held),
    /// Gives a reserved message back
    Nack(topics::Nack),
    /// Gives a reserved message more time
    Extend(topics::Extend),
    /// Shows the first message of a topic, and leaves it there
    Peek {
        topic: OsString,
    },
    /// Takes messages of a topic as they come, and shows each on a line of its own, until it is ended
    Tail {
        topic: OsString,
    },
    /// A table of all servers, from the HTTP port of each: with --servers that is taken to be the
    /// client port + 2
    Status,
    /// Backups of the whole state
    #[command(subcommand)]
    Snapshot(Snapshot),
    Bench(bench::BenchArgs),
}

#[derive(Clone, Debug, Subcommand)]
enum Snapshot {
    /// Saves the state of the running cluster, through the leader's HTTP port: every command that
    /// was answered before is in it. With --servers the HTTP port of each is taken to be its client
    /// port + 2. A regular file of that name is replaced when the new one is whole, and its mode
    /// kept; a link to one is followed; anything else is refused
    Save { file: PathBuf },
}

#[derive(Clone, Debug, Args)]
struct Keys {
    #[arg(required = true)]
    keys: Vec<OsString>,
}

#[derive(Clone, Debug, Args)]
struct KeysAndTime {
    /// Seconds from now, or since 1970; 0 is never, less is at once
    #[arg(allow_negative_numbers = true)]
    exptime: i32,
    #[arg(required = true)]
    keys: Vec<OsString>,
}

#[derive(Clone, Debug, Args)]
struct Value {
    /// The value; `-` is standard input
    #[arg(required_unless_present = "file", allow_negative_numbers = true)]
    value: Option<OsString>,
    /// A file that holds the value
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    file: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
struct Options {
    /// A number that comes back with the value
    #[arg(long, default_value_t = 0)]
    flags: u32,
    /// Seconds from now, or since 1970; 0 is never, less is at once
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    exptime: i32,
}

#[derive(Clone, Debug, Args)]
struct Item {
    key: OsString,
    #[command(flatten)]
    value: Value,
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Debug, Args)]
struct Addition {
    key: OsString,
    #[command(flatten)]
    value: Value,
}

#[derive(Clone, Debug, Args)]
struct Swap {
    key: OsString,
    /// As gets has shown it
    unique: u64,
    #[command(flatten)]
    value: Value,
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Debug, Args)]
struct Delta {
    key: OsString,
    #[arg(default_value_t = 1)]
    delta: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    General,
    Settings,
    Items,
    Slabs,
    Reset,
}

/// What the program exits with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Ok = 0,
    /// No such item, not stored, or refused.
    Miss = 1,
    Usage = 2,
    /// No server or no leader in time: certainly not done.
    Unreachable = 3,
    /// It may have been done.
    Unknown = 4,
}

/// Runs `quorate-client` with these arguments, the program's name not among them.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let name = OsString::from("quorate-client");
    let arguments = std::iter::once(name).chain(arguments);
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help for those who asked goes to standard output and is no failure.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    ExitCode::from(dispatch(&arguments) as u8)
}

fn dispatch(arguments: &Arguments) -> Exit {
    let servers = match servers::given(&arguments.global) {
        Ok(servers) => servers,
        Err(error) => {
            eprintln!("quorate-client: {error}");
            return Exit::Usage;
        }
    };
    if let Subcommands::Bench(args) = &arguments.command {
        let addresses = servers.into_iter().map(|server| server.client).collect();
        return run_bench(args, addresses, &arguments.global);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(run::run(arguments, servers)),
        Err(error) => {
            eprintln!("quorate-client: {error}");
            Exit::Usage
        }
    }
}

fn run_bench(args: &bench::BenchArgs, servers: Vec<Address>, global: &Global) -> Exit {
    let progress = io::stderr().is_terminal() && global.form() == Form::Text;
    match bench::run(args, servers, global.timeout, progress) {
        Ok(report) => {
            match global.form() {
                Form::Text => print::text(&report),
                Form::Json => print::json(&report),
            }
            match report.has_figures() {
                true => Exit::Ok,
                false if report.was_refused() => Exit::Miss,
                false => Exit::Unreachable,
            }
        }
        Err(error) => {
            eprintln!("quorate-client: {error}");
            match error {
                bench::BenchError::NotDone(_) => Exit::Unreachable,
                bench::BenchError::Preload(_) => Exit::Miss,
                bench::BenchError::BatchTooLong { .. }
                | bench::BenchError::MixedAtRate
                | bench::BenchError::Runtime(_) => Exit::Usage,
            }
        }
    }
}

/// `10s`, `500ms`, `2m`, or a bare number of seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..) {
        Some("ms") => 0.001,
        Some("s" | "") => 1.0,
        Some("m") => 60.0,
        _ => return Err("the unit is none of ms, s and m".to_owned()),
    };
    let number: f64 = digits.parse().map_err(|_| "no number".to_owned())?;
    match Duration::try_from_secs_f64(number * unit) {
        Ok(duration) if duration > Duration::ZERO => Ok(duration),
        _ => Err("not a time above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_contradict_each_other_nowhere() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_duration_has_a_unit_or_is_in_seconds() {
        assert_eq!(parse_duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "s", "0", "-1s", "1h", "1 s", "nan", "inf", "1e99m"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }
}
