//! Outcomes to reply bytes.

use command::{Hit, Message, Outcome, Refusal, Reply, TopicCounts};

use crate::Output;
use crate::meta_reply::write_meta_reply;
use crate::request::Shape;
use crate::session::StatLine;
use crate::topic_name::append_topic_name;

/// What stands before the host and port that a redirect names.
pub(crate) const REDIRECT: &str = "ERR_REDIRECT ";
pub(crate) const NO_LEADER: &str = "SERVER_ERROR no leader";
pub(crate) const OUT_OF_DISK: &str = "SERVER_ERROR out of disk";
pub(crate) const OUTCOME_UNKNOWN: &str = "SERVER_ERROR outcome unknown";
pub(crate) const OUT_OF_MEMORY: &str = "SERVER_ERROR out of memory storing object";
pub(crate) const TOO_MANY_TOPICS: &str = "SERVER_ERROR too many topics";
pub(crate) const TOPIC_FULL: &str = "SERVER_ERROR topic full";
pub(crate) const NON_NUMERIC: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value";

/// Appends the whole reply to a command of this shape, however long. `server_stats` are lines to
/// follow those that `stats` has brought along.
///
/// # Panics
///
/// When the outcome is none that a command of this shape can have.
pub fn write_reply(
    outcome: &Outcome,
    shape: &Shape,
    server_stats: &[StatLine],
    output: &mut Output,
) {
    if *shape == Shape::Silent {
        return;
    }
    match outcome {
        Outcome::Done(reply) if let Shape::Meta(shape) = shape => {
            write_meta_reply(reply, shape, output);
        }
        Outcome::Done(Reply::Hits(hits)) => {
            let with_unique = shows_unique(shape);
            for hit in hits {
                write_hit(hit, with_unique, output);
            }
            write_hits_end(output);
        }
        Outcome::Done(Reply::Stats(lines)) => {
            write_stats(lines.iter().chain(server_stats), output);
        }
        Outcome::Done(Reply::Number(number)) => {
            output.append_number(*number);
            output.append(b"\r\n");
        }
        Outcome::Done(Reply::Message(message)) => write_message(message, shape, output),
        Outcome::Done(Reply::Topics(topics)) => write_topics(topics, output),
        Outcome::Done(reply) => match numbered(reply) {
            Some((word, number)) => {
                output.append(word.as_bytes());
                output.append_number(number);
                output.append(b"\r\n");
            }
            None => write_line(line(reply, shape), output),
        },
        Outcome::NotDone(Refusal::Redirect { host, client_port }) => {
            output.append(REDIRECT.as_bytes());
            output.append(host.as_bytes());
            output.append(b" ");
            output.append_number(u64::from(*client_port));
            output.append(b"\r\n");
        }
        Outcome::NotDone(Refusal::NoLeader) => write_line(NO_LEADER, output),
        Outcome::NotDone(Refusal::OutOfDisk) => write_line(OUT_OF_DISK, output),
        Outcome::Unknown => write_line(OUTCOME_UNKNOWN, output),
    }
}

/// The line of a reply that is one and always the same.
fn line(reply: &Reply, shape: &Shape) -> &'static str {
    match reply {
        Reply::Stored => "STORED",
        Reply::NotStored => "NOT_STORED",
        Reply::Exists => "EXISTS",
        Reply::NotFound => "NOT_FOUND",
        Reply::Deleted => "DELETED",
        Reply::Touched => "TOUCHED",
        Reply::NonNumeric => NON_NUMERIC,
        Reply::OutOfMemory => OUT_OF_MEMORY,
        Reply::Ok if matches!(shape, Shape::Stats(_)) => "RESET",
        Reply::Ok => "OK",
        Reply::Created => "CREATED",
        Reply::TooManyTopics => TOO_MANY_TOPICS,
        Reply::TopicFull => TOPIC_FULL,
        Reply::Empty => "EMPTY",
        Reply::Acked => "ACKED",
        Reply::Extended => "EXTENDED",
        Reply::Released => "RELEASED",
        Reply::Buried => "BURIED",
        Reply::Dropped => "DROPPED",
        Reply::Pushed(_)
        | Reply::Kicked(_)
        | Reply::Purged(_)
        | Reply::Message(_)
        | Reply::Topics(_)
        | Reply::Number(_)
        | Reply::Hits(_)
        | Reply::Stats(_)
        | Reply::MetaHit(_)
        | Reply::LowUnique
        | Reply::Confirmed { .. } => {
            unreachable!("{reply:?} is not one line")
        }
    }
}

/// The word before the number of a reply that is a line of both.
fn numbered(reply: &Reply) -> Option<(&'static str, u64)> {
    match reply {
        Reply::Pushed(id) => Some(("PUSHED ", *id)),
        Reply::Kicked(count) => Some(("KICKED ", *count)),
        Reply::Purged(count) => Some(("PURGED ", *count)),
        _ => None,
    }
}

/// `MESSAGE <topic> <id> <bytes> [<deliveries>]` and the data block.
fn write_message(message: &Message, shape: &Shape, output: &mut Output) {
    let Shape::Message(shape) = shape else {
        unreachable!("a message for a command of the shape {shape:?}");
    };
    let bytes = message.data.as_slice();
    output.append(b"MESSAGE ");
    output.append(&shape.topic);
    output.append(b" ");
    output.append_number(message.id);
    output.append(b" ");
    output.append_number(bytes.len() as u64);
    if shape.shows_deliveries {
        output.append(b" ");
        output.append_number(u64::from(message.deliveries));
    }
    output.append(b"\r\n");
    output.append_value(bytes, || message.data.share());
    output.append(b"\r\n");
}

/// `TOPIC <topic> <ready> <reserved> <delayed> <dead>` lines and `END`.
fn write_topics(topics: &[TopicCounts], output: &mut Output) {
    for TopicCounts { topic, counts } in topics {
        output.append(b"TOPIC ");
        append_topic_name(topic.as_bytes(), output);
        for count in [counts.ready, counts.reserved, counts.delayed, counts.dead] {
            output.append(b" ");
            output.append_number(count);
        }
        output.append(b"\r\n");
    }
    output.append(b"END\r\n");
}

fn write_line(line: &str, output: &mut Output) {
    output.append(line.as_bytes());
    output.append(b"\r\n");
}

/// Whether hits are written with their uniques.
///
/// # Panics
///
/// When a command of this shape has none.
pub(crate) fn shows_unique(shape: &Shape) -> bool {
    match shape {
        Shape::Values => false,
        Shape::ValuesWithUnique => true,
        other => unreachable!("hits for a command of the shape {other:?}"),
    }
}

pub(crate) fn write_hit(hit: &Hit, with_unique: bool, output: &mut Output) {
    output.append(b"VALUE ");
    output.append(hit.key());
    output.append(b" ");
    output.append_number(u64::from(hit.flags));
    output.append(b" ");
    output.append_number(hit.value().len() as u64);
    if with_unique {
        output.append(b" ");
        output.append_number(hit.unique);
    }
    output.append(b"\r\n");
    output.append_value(hit.value(), || hit.data.share_value());
    output.append(b"\r\n");
}

/// What stands behind the last hit.
pub(crate) fn write_hits_end(output: &mut Output) {
    output.append(b"END\r\n");
}

fn write_stats<'a>(lines: impl Iterator<Item = &'a StatLine>, output: &mut Output) {
    for (name, value) in lines {
        output.append(b"STAT ");
        output.append(name.as_bytes());
        output.append(b" ");
        output.append(value.as_bytes());
        output.append(b"\r\n");
    }
    output.append(b"END\r\n");
}
