//! What scripts say in words: servers, times, positions, entries, messages.

use std::error::Error;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use goldenscript::ArgumentConsumer;
use quorate_raft::{
    AppendEntries, AppendEntriesReply, Body, Campaign, Entry, EntryKind, Healed, Heartbeat,
    HeartbeatReply, Index, Position, RequestVote, RequestVoteReply, Restart, ServerId, Term,
};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub(crate) type Args<'a> = ArgumentConsumer<'a>;

pub(crate) fn server(id: &str) -> Result<ServerId> {
    Ok(ServerId(id.parse()?))
}

pub(crate) trait FromArgument: Sized {
    fn from_argument(text: &str) -> Result<Self>;
}

impl FromArgument for ServerId {
    fn from_argument(text: &str) -> Result<ServerId> {
        server(text)
    }
}

impl FromArgument for u64 {
    fn from_argument(text: &str) -> Result<u64> {
        Ok(text.parse()?)
    }
}

pub(crate) fn next<T: FromArgument>(args: &mut Args<'_>) -> Result<T> {
    T::from_argument(args.next_pos().ok_or("an argument is missing")?)
}

pub(crate) fn keyed<T: FromStr>(args: &mut Args<'_>, key: &str) -> Result<Option<T>>
where
    T::Err: Error + 'static,
{
    Ok(args.take_key(key).map(str::parse).transpose()?)
}

pub(crate) fn duration(args: &mut Args<'_>) -> Result<Duration> {
    let text = args.next_pos().ok_or("an argument is missing")?;
    let millis = text.strip_suffix("ms").ok_or("a time is in ms")?;
    Ok(Duration::from_millis(millis.parse()?))
}

/// `index@term`
pub(crate) fn position(text: &str) -> Result<Position> {
    let (index, term) = text.split_once('@').ok_or("a position is index@term")?;
    Ok(Position {
        term: Term(term.parse()?),
        index: Index(index.parse()?),
    })
}

pub(crate) fn positioned(args: &mut Args<'_>, key: &str) -> Result<Position> {
    position(args.take_key(key).unwrap_or("0@0"))
}

/// `index@term`, with `:Kind` for another than a command; its payload is one byte.
pub(crate) fn entry(text: &str) -> Result<Entry> {
    let (at, kind) = match text.split_once(':') {
        None => (text, EntryKind::Command),
        Some((at, "Configuration")) => (at, EntryKind::Configuration),
        Some(_) => return Err(format!("no entry {text}").into()),
    };
    let Position { term, index } = position(at)?;
    let payload = Bytes::from_static(b"?");
    Ok(Entry {
        term,
        index,
        kind,
        payload,
    })
}

pub(crate) fn body(kind: &str, args: &mut Args<'_>) -> Result<Body> {
    let granted = args.take_key("granted") == Some("yes");
    let (name, campaign) = match kind {
        "PreVote" | "PreVoteReply" => (kind.replace("PreVote", "RequestVote"), Campaign::PreVote),
        _ if args.take_key("transfer").is_some() => (kind.to_owned(), Campaign::Transfer),
        _ => (kind.to_owned(), Campaign::Election),
    };
    Ok(match name.as_str() {
        "RequestVote" => Body::RequestVote(RequestVote {
            campaign,
            last_log: positioned(args, "last")?,
        }),
        "RequestVoteReply" => Body::RequestVoteReply(RequestVoteReply { campaign, granted }),
        "AppendEntries" => {
            let entries = args.take_key("entries").unwrap_or_default();
            Body::AppendEntries(AppendEntries {
                prev: positioned(args, "prev")?,
                entries: entries
                    .split_whitespace()
                    .map(entry)
                    .collect::<Result<_>>()?,
                leader_commit: Index(keyed(args, "commit")?.unwrap_or(0)),
            })
        }
        "AppendEntriesReply" => match args.take_key("conflict") {
            Some(prev) => Body::AppendEntriesReply(AppendEntriesReply::Conflict {
                prev: position(prev)?,
                hint: positioned(args, "hint")?,
            }),
            None => Body::AppendEntriesReply(AppendEntriesReply::Matches {
                match_index: Index(keyed(args, "match")?.unwrap_or(0)),
            }),
        },
        "Heartbeat" => Body::Heartbeat(Heartbeat {
            leader_commit: Index(keyed(args, "commit")?.unwrap_or(0)),
            round: keyed(args, "round")?.unwrap_or(0),
        }),
        "HeartbeatReply" => Body::HeartbeatReply(HeartbeatReply {
            round: keyed(args, "round")?.unwrap_or(0),
            match_index: Index(keyed(args, "match")?.unwrap_or(0)),
        }),
        "TimeoutNow" => Body::TimeoutNow,
        "Healed" => Body::Healed(Healed {
            restart: Restart(keyed(args, "start")?.unwrap_or(1)),
            index: Index(keyed(args, "index")?.unwrap_or(0)),
        }),
        other => return Err(format!("no message {other}").into()),
    })
}
