//! Outcomes to reply bytes.

use command::{Hit, Outcome, Refusal, Reply};

use crate::Output;
use crate::meta_reply::write_meta_reply;
use crate::request::Shape;
use crate::session::StatLine;

/// What stands before the host and port that a redirect names.
pub(crate) const REDIRECT: &str = "ERR_REDIRECT ";
pub(crate) const NO_LEADER: &str = "SERVER_ERROR no leader";
pub(crate) const OUT_OF_DISK: &str = "SERVER_ERROR out of disk";
pub(crate) const OUTCOME_UNKNOWN: &str = "SERVER_ERROR outcome unknown";
pub(crate) const OUT_OF_MEMORY: &str = "SERVER_ERROR out of memory storing object";
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
        Outcome::Done(reply) => write_line(line(reply, shape), output),
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
        Reply::Number(_)
        | Reply::Hits(_)
        | Reply::Stats(_)
        | Reply::MetaHit(_)
        | Reply::LowUnique
        | Reply::Confirmed { .. } => {
            unreachable!("{reply:?} is not one line")
        }
    }
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
