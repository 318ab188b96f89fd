//! Messages and entries as a script spells them: positions are `index@term`, entries a list of
//! these.

use quorate_raft::{
    AppendEntriesReply, Body, Campaign, Entry, EntryKind, HardState, Position, Seating, ServerId,
    Snapshot, Write,
};

pub(crate) fn position(at: Position) -> String {
    format!("{}@{}", at.index, at.term)
}

/// The entries' positions; what a client wrote is told where it is applied.
pub(crate) fn entries(entries: &[Entry]) -> String {
    let entries: Vec<String> = entries.iter().map(|it| position(it.position())).collect();
    format!("[{}]", entries.join(" "))
}

/// An entry with what it holds.
pub(crate) fn entry(entry: &Entry) -> String {
    let payload = match entry.kind {
        EntryKind::NoOp => "NoOp".to_owned(),
        EntryKind::Configuration => configuration(entry),
        EntryKind::Command if entry.payload.len() > 20 => {
            format!("{} bytes", entry.payload.len())
        }
        EntryKind::Command => String::from_utf8_lossy(&entry.payload).into_owned(),
    };
    format!("{} {payload}", position(entry.position()))
}

fn configuration(entry: &Entry) -> String {
    let Some(configuration) = quorate_raft::Configuration::decode(entry.payload.clone()) else {
        return "Configuration that cannot be read".to_owned();
    };
    // A server's first data directory has its own number; the others are told with theirs.
    let seats = configuration.members.iter().filter_map(|member| {
        let (id, instance) = (member.id, member.seat?.0);
        Some(if id.0 == instance {
            id.to_string()
        } else {
            format!("{id}:disk{instance}")
        })
    });
    let seated: Vec<String> = seats.collect();
    format!("Configuration seats {}", seated.join(" "))
}

pub(crate) fn voted_for(hard_state: HardState) -> String {
    hard_state
        .voted_for
        .map_or("none".to_owned(), |server| server.to_string())
}

pub(crate) fn seating(seating: Seating) -> &'static str {
    match seating {
        Seating::Unseated => "unseated",
        Seating::Met(_) => "unseated, has met a seated server",
        Seating::Seated { .. } => "seated",
    }
}

pub(crate) fn write(write: &Write) -> String {
    let mut line = format!("write {}", write.id);
    if let Some(behind) = write.begin_behind {
        line.push_str(&format!(" begin_behind={}", position(behind)));
    }
    if let Some(from) = write.truncate_from {
        line.push_str(&format!(" truncate_from={from}"));
    }
    if !write.entries.is_empty() {
        line.push_str(&format!(" entries={}", entries(&write.entries)));
    }
    if let Some(hard_state) = write.hard_state {
        let vote = voted_for(hard_state);
        line.push_str(&format!(" term={} voted_for={vote}", hard_state.term));
    }
    if write.recovered {
        line.push_str(" recovered");
    }
    line
}

pub(crate) fn message(from: ServerId, to: ServerId, message: &quorate_raft::Message) -> String {
    let term = message.term;
    let body = match &message.body {
        Body::RequestVote(request) => {
            let last = position(request.last_log);
            format!(
                "{} term={term} last={last}",
                campaign("RequestVote", request.campaign)
            )
        }
        Body::RequestVoteReply(reply) => format!(
            "{} term={term} granted={}",
            campaign("RequestVoteReply", reply.campaign),
            if reply.granted { "yes" } else { "no" },
        ),
        Body::AppendEntries(request) => format!(
            "AppendEntries term={term} prev={} entries={} commit={}",
            position(request.prev),
            entries(&request.entries),
            request.leader_commit,
        ),
        Body::AppendEntriesReply(AppendEntriesReply::Matches { match_index }) => {
            format!("AppendEntriesReply term={term} match={match_index}")
        }
        Body::AppendEntriesReply(AppendEntriesReply::Conflict { prev, hint }) => format!(
            "AppendEntriesReply term={term} conflict={} hint={}",
            position(*prev),
            position(*hint),
        ),
        Body::Heartbeat(request) => format!(
            "Heartbeat term={term} round={} commit={}",
            request.round, request.leader_commit,
        ),
        Body::HeartbeatReply(reply) => format!(
            "HeartbeatReply term={term} round={} match={}",
            reply.round, reply.match_index,
        ),
        Body::TimeoutNow => format!("TimeoutNow term={term}"),
        Body::Healed(healed) => format!(
            "Healed term={term} start={} index={}",
            healed.restart, healed.index,
        ),
        Body::InstallSnapshot(request) => {
            format!(
                "InstallSnapshot term={term} {}",
                snapshot(&request.snapshot)
            )
        }
    };
    let state = if message.sender.recovering {
        ", recovering"
    } else {
        ""
    };
    format!("s{from} -> s{to} {body}{state}")
}

pub(crate) fn snapshot(snapshot: &Snapshot) -> String {
    let at = position(snapshot.position);
    match &snapshot.configuration {
        Some(configuration) => format!("snapshot={at} ({})", entry(configuration)),
        None => format!("snapshot={at}"),
    }
}

fn campaign(message: &str, campaign: Campaign) -> String {
    match campaign {
        Campaign::PreVote => message.replace("RequestVote", "PreVote"),
        Campaign::Election => message.to_owned(),
        Campaign::Transfer => format!("{message} transfer"),
    }
}
