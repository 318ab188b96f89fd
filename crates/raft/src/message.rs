//! The messages between servers, fields as in the paper, and what each carries about its sender.

use serde::{Deserialize, Serialize};

use crate::types::{
    ClusterId, Entry, Index, Instance, Position, Restart, ServerId, Snapshot, Term,
};

/// One message. `sender` and `term` are in every one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub sender: Sender,
    /// The sender's current term; in a pre-vote request and in its grant the term that the
    /// candidate would campaign in (diss. 9.6).
    pub term: Term,
    pub body: Body,
}

impl Message {
    /// True if `newer`, to the same receiver, says all that this one does.
    pub(crate) fn is_replaced_by(&self, newer: &Message) -> bool {
        let both_reply_to_heartbeats = matches!(
            (&self.body, &newer.body),
            (Body::HeartbeatReply(_), Body::HeartbeatReply(_))
        );
        self == newer || (both_reply_to_heartbeats && self.term == newer.term)
    }
}

/// Who sent a message, beyond its id (rules 15 and 41).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    pub id: ServerId,
    /// The sender's cluster, once it is seated there.
    pub cluster: Option<ClusterId>,
    pub instance: Instance,
    pub restart: Restart,
    /// What it had promised may be gone: nothing that it says counts towards a majority.
    pub recovering: bool,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    RequestVote(RequestVote),
    RequestVoteReply(RequestVoteReply),
    AppendEntries(AppendEntries),
    AppendEntriesReply(AppendEntriesReply),
    Heartbeat(Heartbeat),
    HeartbeatReply(HeartbeatReply),
    TimeoutNow,
    InstallSnapshot(InstallSnapshot),
    Healed(Healed),
}

/// Why a candidate asks for a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Campaign {
    /// It asks whether it would win; nobody's term or vote changes (diss. 9.6).
    PreVote,
    /// It stands for election.
    Election,
    /// It stands at its leader's word, so that a live leader is no reason to refuse (diss. 3.10).
    Transfer,
}

/// Asks for a vote (§5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestVote {
    pub campaign: Campaign,
    /// The end of the candidate's log.
    pub last_log: Position,
}

/// Answers `RequestVote` of the same kind of campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestVoteReply {
    pub campaign: Campaign,
    pub granted: bool,
}

/// Entries to append behind `prev` (§5.3). Never without entries but to probe: `Heartbeat` is
/// what asserts leadership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendEntries {
    /// The entry before the first of `entries`.
    pub prev: Position,
    /// Consecutive, from `prev.index + 1`.
    pub entries: Vec<Entry>,
    pub leader_commit: Index,
}

/// Answers `AppendEntries`, with the same term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppendEntriesReply {
    /// The log equals the leader's up to `match_index` and is on disk that far.
    Matches { match_index: Index },
    /// There is no entry at `prev`. Whoever wrote this log agrees with it at most up to the end
    /// of `hint` (§5.3, the accelerated backtracking).
    Conflict {
        /// The `prev` of the request.
        prev: Position,
        /// The follower's last entry at or below `prev.index` whose term is at most
        /// `prev.term`.
        hint: Position,
    },
}

/// Asserts leadership and asks for a confirmation of it (§5.2, §8). Bypasses entries under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// At most what the follower is known to hold, so that it can be believed without `prev`.
    pub leader_commit: Index,
    /// Grows with every round in a term.
    pub round: u64,
}

/// Answers `Heartbeat`, at once: it vouches only for the term, and for what is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// The round of the request.
    pub round: u64,
    /// As in `AppendEntriesReply::Matches`; 0 when nothing was matched in this term yet.
    pub match_index: Index,
}

/// A snapshot of the leader's to take in place of entries that it no longer has (§7). It is given
/// to the core once the snapshot is whole and durable at the receiver, and is answered like
/// `AppendEntries`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallSnapshot {
    pub snapshot: Snapshot,
}

/// Tells a follower that is recovering when it is whole again: with every heartbeat, once the leader
/// knows the entry at `index` to be committed by others (`recovering.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healed {
    /// The start of the follower that this is said to.
    pub restart: Restart,
    /// When its log equals the leader's up to here and is on disk, nothing is missing.
    pub index: Index,
}
