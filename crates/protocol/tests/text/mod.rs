//! Requests as lines of text, for tables.

use bytes::BytesMut;
use command::{Command, Key, Read, Write};
use quorate_protocol::{Limits, Parsed, Parser, Request, Shape};

/// The requests in these bytes, received at once.
pub(crate) fn requests(input: &[u8], limits: Limits) -> Vec<Parsed> {
    let mut parser = Parser::new(limits);
    let mut buffer = BytesMut::from(input);
    std::iter::from_fn(|| parser.next(&mut buffer)).collect()
}

/// A request as the tables write it: the command and `-> shape`, an answer as it is, or `close`.
pub(crate) fn show(request: &Request) -> String {
    match request {
        Request::Command { command, shape } => {
            format!("{}{}", show_command(command), show_shape(*shape))
        }
        Request::Answer(answer) => format!("{:?}", answer),
        Request::Close => "close".to_string(),
    }
}

fn show_shape(shape: Shape) -> String {
    match shape {
        Shape::Line | Shape::Values | Shape::Stats(_) => String::new(),
        Shape::Silent => " silent".to_owned(),
        Shape::ValuesWithUnique => " with unique".to_owned(),
        Shape::Dump(dump) => format!(" {dump:?}"),
    }
}

fn show_command(command: &Command) -> String {
    match command {
        Command::Write(write) => show_write(write),
        Command::Read(Read::Get { keys }) => format!("get {}", show_keys(keys.iter())),
        Command::Read(Read::Confirm) => "confirm".to_owned(),
        Command::Stats(stats) => format!("stats {stats:?}"),
    }
}

fn show_write(write: &Write) -> String {
    match write {
        Write::Store(store) => {
            let unique = store.mode.unique();
            let unique = unique.map_or(String::new(), |unique| format!("({unique})"));
            format!(
                "{}{unique} {} flags {} exptime {} value {}",
                store.mode.name(),
                show_key(&store.key),
                store.flags,
                store.exptime.0,
                store.value.escape_ascii(),
            )
        }
        Write::Delete { key } => format!("delete {}", show_key(key)),
        Write::Arithmetic {
            key,
            direction,
            delta,
        } => format!("{} {} by {delta}", direction.name(), show_key(key)),
        Write::Touch { key, exptime } => format!("touch {} exptime {}", show_key(key), exptime.0),
        Write::GetAndTouch { keys, exptime } => {
            format!(
                "gat {} exptime {}",
                show_keys(keys.iter().map(Key::as_bytes)),
                exptime.0
            )
        }
        Write::FlushAll { delay } => format!("flush_all delay {}", delay.0),
        Write::MemoryLimit { mib } => format!("cache_memlimit {mib}"),
    }
}

fn show_keys<'a>(keys: impl Iterator<Item = &'a [u8]>) -> String {
    let shown: Vec<String> = keys.map(|key| key.escape_ascii().to_string()).collect();
    shown.join(" ")
}

fn show_key(key: &Key) -> String {
    key.as_bytes().escape_ascii().to_string()
}
