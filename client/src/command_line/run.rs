//! Carries out one subcommand and says how it went.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use bytes::Bytes;
use command::{Exptime, Hit, Key, Stats};
use thiserror::Error;

use super::print::{self, Printed};
use super::servers::Server;
use super::{
    Addition, Arguments, Delta, Exit, Form, Item, Options, Snapshot, Subcommands, Swap, Value,
    Which,
};
use super::{snapshot, topics};
use crate::{Client, ItemOptions, KeyError, Outcome, Stored, Swapped, key};

/// The longest value that is read from a file or standard input, in bytes.
const VALUE_BYTES_MAX: u64 = 128 << 20;

/// The command can't be sent as it was given.
#[derive(Debug, Error)]
pub(super) enum UsageError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("{source_name}: {error}")]
    Read {
        source_name: String,
        error: io::Error,
    },
    #[error("{source_name}: longer than {VALUE_BYTES_MAX} bytes")]
    TooLong { source_name: String },
}

pub(super) async fn run(arguments: &Arguments, servers: Vec<Server>) -> Exit {
    let global = &arguments.global;
    if matches!(arguments.command, Subcommands::Status) {
        return print::status(&servers, global.timeout, global.form()).await;
    }
    if let Subcommands::Snapshot(Snapshot::Save { file }) = &arguments.command {
        return snapshot::run(file, &servers, global).await;
    }
    let addresses = servers.into_iter().map(|server| server.client).collect();
    let client = Client::new(addresses).with_timeout(global.timeout);
    if let Subcommands::Tail { topic } = &arguments.command {
        return topics::tail(&client, topic, global.form()).await;
    }
    match carry_out(&arguments.command, &client, global.form()).await {
        Ok(outcome) => print::outcome(outcome, global.form()),
        Err(error) => {
            eprintln!("quorate-client: {error}");
            Exit::Usage
        }
    }
}

async fn carry_out(
    command: &Subcommands,
    client: &Client,
    form: Form,
) -> Result<Outcome<Printed>, UsageError> {
    use Subcommands as S;
    Ok(match command {
        S::Get(args) => retrieve(client, None, &args.keys, false).await?,
        S::Gets(args) => retrieve(client, None, &args.keys, true).await?,
        S::Gat(args) => retrieve(client, Some(args.exptime), &args.keys, false).await?,
        S::Gats(args) => retrieve(client, Some(args.exptime), &args.keys, true).await?,
        S::Set(Item {
            key,
            value,
            options,
        }) => {
            let value = read(value)?;
            let outcome = client.set(key.as_bytes(), value, item(options)).await;
            outcome.map(|()| Printed::ok("STORED"))
        }
        S::Add(Item {
            key,
            value,
            options,
        }) => {
            let value = read(value)?;
            let outcome = client.add(key.as_bytes(), value, item(options)).await;
            outcome.map(stored)
        }
        S::Replace(Item {
            key,
            value,
            options,
        }) => {
            let value = read(value)?;
            let outcome = client.replace(key.as_bytes(), value, item(options)).await;
            outcome.map(stored)
        }
        S::Append(Addition { key, value }) => {
            let outcome = client.append(key.as_bytes(), read(value)?).await;
            outcome.map(stored)
        }
        S::Prepend(Addition { key, value }) => {
            let outcome = client.prepend(key.as_bytes(), read(value)?).await;
            outcome.map(stored)
        }
        S::Cas(args) => cas(client, args).await?,
        S::Delete { key } => {
            let outcome = client.delete(key.as_bytes()).await;
            outcome.map(|found| found_or_not(found, "DELETED"))
        }
        S::Incr(Delta { key, delta }) => client.incr(key.as_bytes(), *delta).await.map(number),
        S::Decr(Delta { key, delta }) => client.decr(key.as_bytes(), *delta).await.map(number),
        S::Touch { key, exptime } => {
            let outcome = client.touch(key.as_bytes(), Exptime(*exptime)).await;
            outcome.map(|found| found_or_not(found, "TOUCHED"))
        }
        S::FlushAll { delay } => {
            let outcome = client.flush_all(Exptime(*delay)).await;
            outcome.map(|()| Printed::ok("OK"))
        }
        S::Version => client.version().await.map(Printed::Version),
        S::Verbosity { level } => {
            let outcome = client.verbosity(*level).await;
            outcome.map(|()| Printed::ok("OK"))
        }
        S::Stats { which } => stats(client, *which).await,
        S::Topic(command) => topics::of_topic(client, command).await,
        S::Push(args) => topics::push(client, args, form).await?,
        S::Pop(args) => topics::pop(client, args).await,
        S::Reserve(args) => topics::reserve(client, args).await,
        S::Ack(args) => topics::ack(client, args).await,
        S::Nack(args) => topics::nack(client, args).await,
        S::Extend(args) => topics::extend(client, args).await,
        S::Peek { topic } => topics::peek(client, topic).await,
        S::Status | S::Snapshot(_) | S::Bench(_) | S::Tail { .. } => {
            unreachable!("{command:?} is no command of the protocol")
        }
    })
}

async fn retrieve(
    client: &Client,
    exptime: Option<i32>,
    keys: &[OsString],
    uniques: bool,
) -> Result<Outcome<Printed>, UsageError> {
    let keys = keys
        .iter()
        .map(|bytes| key(bytes.as_bytes()))
        .collect::<Result<Vec<Key>, KeyError>>()?;
    let asked = keys.clone();
    let outcome = match exptime {
        None => client.get_many(keys).await,
        Some(exptime) => client.get_and_touch(Exptime(exptime), keys).await,
    };
    Ok(outcome.map(|hits: Vec<Hit>| Printed::Items {
        hits,
        asked,
        uniques,
    }))
}

async fn cas(client: &Client, args: &Swap) -> Result<Outcome<Printed>, UsageError> {
    let Swap {
        key,
        unique,
        value,
        options,
    } = args;
    let value = read(value)?;
    let outcome = client
        .cas(key.as_bytes(), value, item(options), *unique)
        .await;
    Ok(outcome.map(|swapped| match swapped {
        Swapped::Stored => Printed::ok("STORED"),
        Swapped::Exists => Printed::miss("EXISTS"),
        Swapped::NotFound => Printed::miss("NOT_FOUND"),
    }))
}

async fn stats(client: &Client, which: Which) -> Outcome<Printed> {
    let (stats, is_reset) = match which {
        Which::General => (Stats::General, false),
        Which::Settings => (Stats::Settings, false),
        Which::Items => (Stats::Items, false),
        Which::Slabs => (Stats::Slabs, false),
        Which::Reset => (Stats::Reset, true),
    };
    client.stats(stats).await.map(|lines| match is_reset {
        true => Printed::ok("RESET"),
        false => Printed::Stats(lines),
    })
}

fn item(options: &Options) -> ItemOptions {
    ItemOptions {
        flags: options.flags,
        exptime: Exptime(options.exptime),
    }
}

fn stored(stored: Stored) -> Printed {
    match stored {
        Stored::Stored => Printed::ok("STORED"),
        Stored::NotStored => Printed::miss("NOT_STORED"),
    }
}

fn found_or_not(found: bool, word: &'static str) -> Printed {
    match found {
        true => Printed::ok(word),
        false => Printed::miss("NOT_FOUND"),
    }
}

fn number(number: Option<u64>) -> Printed {
    number.map_or(Printed::miss("NOT_FOUND"), Printed::Number)
}

/// The value from where the command line says.
pub(super) fn read(value: &Value) -> Result<Bytes, UsageError> {
    match (&value.value, &value.file) {
        (_, Some(file)) => {
            let source_name = file.display().to_string();
            match File::open(file) {
                Ok(opened) => read_all(opened, source_name),
                Err(error) => Err(UsageError::Read { source_name, error }),
            }
        }
        (Some(value), None) if value != "-" => Ok(Bytes::from(value.clone().into_vec())),
        (_, None) => read_all(io::stdin().lock(), "standard input".to_owned()),
    }
}

fn read_all(source: impl Read, source_name: String) -> Result<Bytes, UsageError> {
    let mut value = Vec::new();
    match source.take(VALUE_BYTES_MAX + 1).read_to_end(&mut value) {
        Err(error) => Err(UsageError::Read { source_name, error }),
        Ok(_) if value.len() as u64 > VALUE_BYTES_MAX => Err(UsageError::TooLong { source_name }),
        Ok(_) => Ok(Bytes::from(value)),
    }
}
