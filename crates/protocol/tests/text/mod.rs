//! Requests as lines of text, for tables.

use bytes::BytesMut;
use command::{Command, Exptime, Key, MetaGet, Read, Write};
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
            format!("{}{}", show_command(command), show_shape(shape))
        }
        Request::Answer(answer) => format!("{:?}", answer),
        Request::Close => "close".to_string(),
    }
}

fn show_shape(shape: &Shape) -> String {
    match shape {
        Shape::Line
        | Shape::Values
        | Shape::Stats(_)
        | Shape::Meta(_)
        | Shape::Message(_)
        | Shape::Topics => String::new(),
        Shape::Silent => " silent".to_owned(),
        Shape::ValuesWithUnique => " with unique".to_owned(),
        Shape::Dump(dump) => format!(" {dump:?}"),
    }
}

fn show_command(command: &Command) -> String {
    match command {
        Command::Write(write) => show_write(write),
        Command::Read(Read::Get { keys }) => format!("get {}", show_keys(keys.iter())),
        Command::Read(Read::MetaGet(get)) => format!("mg {}", show_key(&get.key)),
        Command::Read(Read::Inspect { key }) => format!("me {}", show_key(key)),
        Command::Read(Read::Confirm) => "confirm".to_owned(),
        Command::Read(Read::Topics) => "topics".to_owned(),
        Command::Read(Read::Peek { topic }) => format!("peek {}", show_key(topic)),
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
        Write::MetaGet(get) => show_get(get),
        Write::Topic(write) => format!("{write:?}"),
        Write::MetaSet(set) => {
            let store = show_write(&Write::Store(set.store.clone()));
            let compare = show_number("compare", set.compare);
            let unique = show_number("unique", set.unique);
            let vivify = show_time("vivify", set.vivify);
            let invalidate = if set.invalidate { " invalidate" } else { "" };
            format!("ms {store}{compare}{vivify}{unique}{invalidate}")
        }
        Write::MetaDelete(delete) => {
            let compare = show_number("compare", delete.compare);
            let unique = show_number("unique", delete.unique);
            let touch = show_time("exptime", delete.touch);
            let invalidate = if delete.invalidate { " invalidate" } else { "" };
            let clear = if delete.clear { " clear" } else { "" };
            let key = show_key(&delete.key);
            format!("md {key}{compare}{touch}{unique}{invalidate}{clear}")
        }
        Write::MetaArithmetic(it) => {
            let compare = show_number("compare", it.compare);
            let unique = show_number("unique", it.unique);
            let times = show_time("vivify", it.vivify) + &show_time("exptime", it.touch);
            let (name, key) = (it.direction.name(), show_key(&it.key));
            format!(
                "ma {name} {key} by {} from {}{compare}{times}{unique}",
                it.delta, it.initial
            )
        }
    }
}

fn show_get(get: &MetaGet) -> String {
    let recache = get.recache.map_or(String::new(), |recache| {
        let after = if recache.after_touch {
            " after touch"
        } else {
            ""
        };
        format!(" recache {}{after}", recache.below.0)
    });
    let times = show_time("exptime", get.touch) + &show_time("vivify", get.vivify);
    let unique = show_number("unique", get.unique);
    let peeks = if get.peeks { " peeks" } else { "" };
    format!(
        "mg {}{times}{recache}{unique}{peeks} logged",
        show_key(&get.key)
    )
}

fn show_time(name: &str, time: Option<Exptime>) -> String {
    time.map_or(String::new(), |time| format!(" {name} {}", time.0))
}

fn show_number(name: &str, number: Option<u64>) -> String {
    number.map_or(String::new(), |number| format!(" {name} {number}"))
}

fn show_keys<'a>(keys: impl Iterator<Item = &'a [u8]>) -> String {
    let shown: Vec<String> = keys.map(|key| key.escape_ascii().to_string()).collect();
    shown.join(" ")
}

fn show_key(key: &Key) -> String {
    key.as_bytes().escape_ascii().to_string()
}
