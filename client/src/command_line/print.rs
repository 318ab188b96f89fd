//! What the command line shows, as text or as JSON.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Table, presets};
use command::{Hit, Key, Message, TopicCounts};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::servers::Server;
use super::topics::flushed;
use super::{Exit, Form};
use crate::status::{self, Status, StatusError};
use crate::{NotDone, Outcome, Topic};

/// What a command that was carried out shows.
#[derive(Debug)]
pub(super) enum Printed {
    /// One word of the protocol.
    Word {
        word: &'static str,
        exit: Exit,
    },
    Items {
        hits: Vec<Hit>,
        asked: Vec<Key>,
        uniques: bool,
    },
    Number(u64),
    /// A word and a number.
    Count(&'static str, u64),
    Message {
        topic: Vec<u8>,
        message: Message,
        /// Its id and deliveries come before it.
        with_id: bool,
    },
    Topics(Vec<TopicCounts>),
    Version(String),
    Stats(Vec<(String, String)>),
}

impl Printed {
    pub(super) fn ok(word: &'static str) -> Printed {
        let exit = Exit::Ok;
        Printed::Word { word, exit }
    }

    pub(super) fn miss(word: &'static str) -> Printed {
        let exit = Exit::Miss;
        Printed::Word { word, exit }
    }
}

/// Shows how a command went.
pub(super) fn outcome(outcome: Outcome<Printed>, form: Form) -> Exit {
    match outcome {
        Outcome::Done(printed) => {
            match form {
                Form::Text => write_text(&printed),
                Form::Json => json(&done(&printed)),
            }
            exit_of(&printed)
        }
        Outcome::NotDone(reason) => {
            failure("not done", &reason, form);
            match reason {
                NotDone::Refused { .. } => Exit::Miss,
                NotDone::Key(_) => Exit::Usage,
                NotDone::Unreachable { .. }
                | NotDone::NoLeader
                | NotDone::OutOfDisk
                | NotDone::Redirected { .. }
                | NotDone::Unanswered { .. }
                | NotDone::TooLate
                | NotDone::AfterUnknown => Exit::Unreachable,
            }
        }
        Outcome::Unknown(doubt) => {
            failure("unknown", &doubt, form);
            Exit::Unknown
        }
    }
}

/// A line and its end on standard output. That nobody reads it is no failure of the command.
pub(super) fn text(shown: &impl Display) {
    let _ = writeln!(io::stdout().lock(), "{shown}");
}

/// One line of JSON on standard output.
pub(super) fn json(shown: &impl Serialize) {
    let line = serde_json::to_string(shown).expect("only strings are keys");
    text(&line);
}

/// Says why something was certainly not done.
pub(super) fn not_done(reason: &impl Display, form: Form) {
    failure("not done", reason, form);
}

fn failure(fate: &str, reason: &impl Display, form: Form) {
    match form {
        Form::Text => eprintln!("quorate-client: {fate}: {reason}"),
        Form::Json => json(&json!({ "outcome": fate, "reason": reason.to_string() })),
    }
}

fn exit_of(printed: &Printed) -> Exit {
    match printed {
        Printed::Word { exit, .. } => *exit,
        Printed::Items { hits, asked, .. } if hits.len() < asked.len() => Exit::Miss,
        Printed::Items { .. }
        | Printed::Number(_)
        | Printed::Count(..)
        | Printed::Message { .. }
        | Printed::Topics(_)
        | Printed::Version(_)
        | Printed::Stats(_) => Exit::Ok,
    }
}

fn write_text(printed: &Printed) {
    match printed {
        Printed::Word { word, .. } => text(word),
        Printed::Number(number) => text(number),
        Printed::Count(word, count) => text(&format!("{word} {count}")),
        Printed::Message {
            message, with_id, ..
        } => {
            let ends = io::stdout().is_terminal();
            // That nobody reads it is no failure of the command.
            let _ = write_message(&mut io::stdout().lock(), message, *with_id, ends);
        }
        Printed::Topics(topics) => text(&topics_table(topics)),
        Printed::Version(version) => text(version),
        Printed::Stats(lines) => {
            for (name, value) in lines {
                text(&format!("{name} {value}"));
            }
        }
        Printed::Items {
            hits,
            asked,
            uniques,
        } => {
            let ends = asked.len() > 1 || io::stdout().is_terminal();
            // That nobody reads it is no failure of the command.
            let _ = write_items(&mut io::stdout().lock(), hits, *uniques, ends);
            for key in missing(hits, asked) {
                eprintln!("{}: NOT_FOUND", key.as_bytes().escape_ascii());
            }
        }
    }
}

fn write_message(
    to: &mut impl Write,
    message: &Message,
    with_id: bool,
    ends: bool,
) -> io::Result<()> {
    if with_id {
        writeln!(to, "{} {}", message.id, message.deliveries)?;
    }
    to.write_all(message.data.as_slice())?;
    if ends {
        writeln!(to)?;
    }
    to.flush()
}

fn topics_table(topics: &[TopicCounts]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["topic", "ready", "reserved", "delayed", "dead"]);
    for TopicCounts { topic, counts } in topics {
        let name = String::from_utf8_lossy(topic.as_bytes());
        let name: String = name.chars().flat_map(char::escape_debug).collect();
        let numbers = [counts.ready, counts.reserved, counts.delayed, counts.dead];
        let numbers = numbers.iter().map(u64::to_string);
        table.add_row(std::iter::once(name).chain(numbers));
    }
    table
}

/// Shows a message at once, on a line of its own.
pub(super) fn message(topic: &Topic, message: &Message, form: Form) -> io::Result<()> {
    let mut to = io::stdout().lock();
    match form {
        Form::Text => flushed(&mut to, message.data.as_slice()),
        Form::Json => {
            let line = message_object(topic.name(), message).to_string();
            flushed(&mut to, line.as_bytes())
        }
    }
}

fn message_object(topic: &[u8], message: &Message) -> Value {
    object([
        bytes_member("topic", topic),
        ("id".to_owned(), json!(message.id)),
        ("deliveries".to_owned(), json!(message.deliveries)),
        bytes_member("message", message.data.as_slice()),
    ])
}

fn topic_object(topic: &TopicCounts) -> Value {
    let counts = &topic.counts;
    object([
        bytes_member("topic", topic.topic.as_bytes()),
        ("ready".to_owned(), json!(counts.ready)),
        ("reserved".to_owned(), json!(counts.reserved)),
        ("delayed".to_owned(), json!(counts.delayed)),
        ("dead".to_owned(), json!(counts.dead)),
    ])
}

fn write_items(to: &mut impl Write, hits: &[Hit], uniques: bool, ends: bool) -> io::Result<()> {
    for hit in hits {
        if uniques {
            writeln!(to, "{} {}", hit.unique, hit.flags)?;
        }
        to.write_all(hit.value())?;
        if ends {
            writeln!(to)?;
        }
    }
    to.flush()
}

/// The keys that were asked for and not found.
fn missing<'a>(hits: &[Hit], asked: &'a [Key]) -> Vec<&'a Key> {
    let found = |key: &&Key| !hits.iter().any(|hit| hit.key() == key.as_bytes());
    asked.iter().filter(found).collect()
}

fn done(printed: &Printed) -> Value {
    let (name, value) = match printed {
        Printed::Word { word, .. } => ("reply", json!(word)),
        Printed::Number(number) | Printed::Count(_, number) => ("number", json!(number)),
        Printed::Message { topic, message, .. } => ("message", message_object(topic, message)),
        Printed::Topics(topics) => {
            let topics: Vec<Value> = topics.iter().map(topic_object).collect();
            ("topics", json!(topics))
        }
        Printed::Version(version) => ("version", json!(version)),
        Printed::Stats(lines) => {
            let lines = lines.iter().cloned();
            let lines: Map<_, _> = lines.map(|(name, value)| (name, json!(value))).collect();
            ("stats", Value::Object(lines))
        }
        Printed::Items { hits, asked, .. } => {
            let items: Vec<Value> = hits.iter().map(item).collect();
            let missing = missing(hits, asked).into_iter();
            let missing: Vec<Value> = missing.map(|key| object([member("key", key)])).collect();
            return json!({ "outcome": "done", "items": items, "missing": missing });
        }
    };
    object([
        ("outcome".to_owned(), json!("done")),
        (name.to_owned(), value),
    ])
}

fn item(hit: &Hit) -> Value {
    object([
        bytes_member("key", hit.key()),
        ("flags".to_owned(), json!(hit.flags)),
        ("unique".to_owned(), json!(hit.unique)),
        bytes_member("value", hit.value()),
    ])
}

fn object<const N: usize>(members: [(String, Value); N]) -> Value {
    Value::Object(members.into_iter().collect())
}

fn member(name: &str, key: &Key) -> (String, Value) {
    bytes_member(name, key.as_bytes())
}

/// Bytes as a string if they are UTF-8, or else in base64 and with another name.
fn bytes_member(name: &str, bytes: &[u8]) -> (String, Value) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (name.to_owned(), json!(text)),
        Err(_) => (format!("{name}_base64"), json!(base64(bytes))),
    }
}

/// RFC 4648 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = (group >> (18 - 6 * i) & 63) as usize;
            text.push(if i > chunk.len() {
                '='
            } else {
                DIGITS[digit].into()
            });
        }
    }
    text
}

/// Asks every server for its status and shows a table of them.
pub(super) async fn status(servers: &[Server], timeout: Duration, form: Form) -> Exit {
    let deadline = Instant::now() + timeout;
    let tasks: Vec<_> = servers
        .iter()
        .map(|server| {
            let http = server.http.clone();
            tokio::spawn(async move { status::fetch(&http, deadline).await })
        })
        .collect();
    let mut rows = Vec::new();
    for (server, task) in servers.iter().zip(tasks) {
        let status = task.await.expect("asking for a status does not panic");
        rows.push((server, status));
    }
    match form {
        Form::Text => text(&status_table(&rows)),
        Form::Json => json(&rows.iter().map(status_json).collect::<Vec<_>>()),
    }
    let is_led = |(_, status): &Row<'_>| status.as_ref().is_ok_and(|status| status.quorum);
    match rows.iter().any(is_led) {
        true => Exit::Ok,
        false => Exit::Unreachable,
    }
}

type Row<'a> = (&'a Server, Result<Status, StatusError>);

fn status_table(rows: &[Row<'_>]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "id", "address", "role", "term", "leader", "quorum", "commit", "applied",
    ]);
    for (server, status) in rows {
        let address = server.client.to_string();
        match status {
            Ok(status) => table.add_row([
                status.id.to_string(),
                address,
                status.role.clone(),
                status.term.to_string(),
                status.leader.map_or("-".to_owned(), |id| id.to_string()),
                if status.quorum { "yes" } else { "no" }.to_owned(),
                status.commit_index.to_string(),
                status.last_applied.to_string(),
            ]),
            Err(_) => table.add_row([
                server.id.map_or("?".to_owned(), |id| id.to_string()),
                address,
                "unreachable".to_owned(),
            ]),
        };
    }
    table
}

fn status_json((server, status): &Row<'_>) -> Value {
    let address = server.client.to_string();
    match status {
        Ok(status) => json!({ "address": address, "reachable": true, "status": status }),
        Err(error) => json!({
            "address": address,
            "reachable": false,
            "id": server.id,
            "error": error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (bytes, text) in vectors {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe]), "//4=");
    }
}
