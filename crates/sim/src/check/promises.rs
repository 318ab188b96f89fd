//! Nothing that is sent reveals what is not on disk (rules 1 to 4), nobody votes twice in a term,
//! whatever happened in between (§5.2), and who is recovering does not vote at all (rule 63). The
//! simulated disk knows what is synced, so this is judged at every message and not left to an
//! unlucky crash.

use raft::{AppendEntriesReply, Body, Campaign, Index, Message, ServerId, Term};

use super::Logs;

impl Logs {
    /// A server sends a message.
    pub(crate) fn sends(
        &mut self,
        from: ServerId,
        to: ServerId,
        message: &Message,
        append_bytes_max: usize,
    ) {
        let durable = self.durable(from).hard_state;
        let term = message.term;
        let recovering = message.sender.recovering;
        assert!(
            recovering || !self.is_marked(from),
            "server {from} is marked as recovering, and does not say so",
        );
        let promises_term = |what: &str| {
            assert!(
                term <= durable.term,
                "server {from} sends {what} of term {term}, and has synced term {}",
                durable.term,
            );
        };
        match &message.body {
            Body::RequestVote(_) if recovering => {
                panic!("server {from} stands for election while it is recovering")
            }
            Body::RequestVote(request) if request.campaign == Campaign::PreVote => {}
            Body::RequestVote(_) => {
                promises_term("a vote request");
                assert!(
                    term < durable.term || durable.voted_for == Some(from),
                    "server {from} asks for votes in term {term} before its own is on disk",
                );
            }
            Body::RequestVoteReply(reply) => match (reply.campaign, reply.granted) {
                (Campaign::PreVote, true) => {}
                (_, false) => promises_term("a refusal of a vote"),
                (_, true) if recovering => {
                    panic!("server {from} grants {to} a vote while it is recovering")
                }
                (_, true) => {
                    promises_term("a vote");
                    assert!(
                        term < durable.term || durable.voted_for == Some(to),
                        "server {from} grants {to} its vote in term {term}, and has synced {:?}",
                        durable.voted_for,
                    );
                }
            },
            Body::AppendEntries(append) => {
                promises_term("entries");
                let behind_first = append.entries.iter().skip(1);
                let bytes: usize = behind_first.map(|entry| entry.payload.len()).sum();
                assert!(
                    bytes <= append_bytes_max,
                    "server {from} sends {bytes} bytes behind the first entry of a message",
                );
            }
            Body::Heartbeat(_) => promises_term("a heartbeat"),
            Body::AppendEntriesReply(AppendEntriesReply::Matches { match_index }) => {
                promises_term("an acknowledgement");
                self.acknowledges(from, term, *match_index);
            }
            Body::AppendEntriesReply(_) => promises_term("a conflict"),
            Body::HeartbeatReply(reply) => {
                promises_term("a heartbeat's reply");
                self.acknowledges(from, term, reply.match_index);
            }
            Body::TimeoutNow => promises_term("a call to campaign"),
            Body::Healed(_) => promises_term("the word to a server that was recovering"),
            Body::InstallSnapshot(_) => promises_term("a snapshot"),
        }
    }

    fn acknowledges(&mut self, from: ServerId, term: Term, index: Index) {
        assert!(
            self.has_synced(from, term, index),
            "server {from} acknowledges index {index}, which its disk has not synced",
        );
        self.note_acknowledged(from, index);
    }
}
