//! The members of `GET /status`. The first eight are promised; the others may change.

use serde::Serialize;

use super::router::Site;

#[derive(Debug, Default, Serialize)]
pub(super) struct StatusBody {
    /// `Leader`, `Follower` or `Candidate`.
    pub(super) role: &'static str,
    pub(super) term: u64,
    pub(super) id: u64,
    pub(super) leader: Option<u64>,
    /// A leader that has a majority is known.
    quorum: bool,
    commit_index: u64,
    last_applied: u64,
    last_log_index: u64,

    /// Whether the log is still being read.
    starting: bool,
    persisted_index: u64,
    /// The entry before the first that the log holds.
    log_begins_behind: u64,
    /// The newest snapshot that was written or loaded: the length of its content, and how long
    /// that took.
    snapshot_index: u64,
    snapshot_bytes: u64,
    snapshot_ms: u64,
    /// Of a snapshot that a leader is sending, so much has arrived.
    snapshot_received_bytes: u64,
    /// How many snapshots of leaders have taken the place of this server's state, and how many were
    /// sent to others, since the start.
    snapshots_installed: u64,
    snapshots_sent: u64,
    /// What is on disk is read again now and then: how often all of it was since the start, how long
    /// ago that ended the last time, how many bytes that were in all, and how often something was
    /// found that had rotted.
    scrub_passes: u64,
    scrub_ended_s_ago: Option<u64>,
    scrub_bytes: u64,
    scrub_hits: u64,
    /// The disk has no room for the log's next segment: as leader, this server takes no writes.
    out_of_disk: bool,
    /// The newest hash of this server's state, 16 hex digits, and the entry behind which it was taken:
    /// equal on all servers at equal indexes.
    state_hash: Option<String>,
    state_hash_index: u64,
    /// The entry behind which this server's state was not that of a majority: it serves no more.
    state_differs_at: Option<u64>,
    /// 16 hex digits each.
    cluster: Option<String>,
    instance: Option<String>,
    restart: u64,
    /// Its disk has lost what it may have promised: it does not vote until that is there again. Not
    /// known while the log is still being read.
    recovering: Option<bool>,
    /// Members whose data directory is known to the cluster, and those whose is not: while there
    /// are such, a majority of all members must be among the known.
    seats_filled: usize,
    seats_empty: usize,
    client_connections: usize,
    commands_owed: usize,
    unpersisted_bytes: usize,
    uncommitted_bytes: usize,
    items: u64,
    item_bytes: u64,
    /// Topics, and messages of all of them, whatever state they are in, and what these take in memory
    /// as it is counted.
    topics: u64,
    messages: u64,
    topic_bytes: u64,
    log_time_ms: u64,
    elections: u64,
    peers: Vec<PeerBody>,
    version: &'static str,
}

#[derive(Debug, Serialize)]
struct PeerBody {
    id: u64,
    /// Messages for this peer that found no room.
    dropped_messages: u64,
}

impl StatusBody {
    pub(super) fn new(site: &Site) -> StatusBody {
        let queues = site.queues.iter();
        let snapshot = site.snapshots.get();
        let common = StatusBody {
            role: "Follower",
            id: site.view.server.id,
            snapshot_index: snapshot.index.0,
            snapshot_bytes: snapshot.bytes,
            snapshot_ms: u64::try_from(snapshot.took.as_millis()).unwrap_or(u64::MAX),
            snapshot_received_bytes: site.snapshots.received_bytes(),
            scrub_passes: site.scrubs.passes(),
            scrub_ended_s_ago: site.scrubs.ended_ago().map(|ago| ago.as_secs()),
            scrub_bytes: site.scrubs.bytes(),
            scrub_hits: site.scrubs.hits(),
            client_connections: site.clients.open(),
            peers: queues
                .map(|(id, queue)| PeerBody {
                    id: id.0,
                    dropped_messages: queue.dropped(),
                })
                .collect(),
            version: env!("CARGO_PKG_VERSION"),
            ..StatusBody::default()
        };
        let Some(newest) = site.view.now() else {
            return StatusBody {
                starting: true,
                ..common
            };
        };
        let status = &newest.status;
        let identity = &newest.identity;
        StatusBody {
            role: status.role,
            term: status.term.0,
            leader: status.leader.map(|leader| leader.0),
            quorum: status.quorum,
            commit_index: status.commit_index.0,
            last_applied: status.last_applied.0,
            last_log_index: status.last_log_index.0,
            persisted_index: status.persisted_index.0,
            log_begins_behind: status.before.index.0,
            out_of_disk: status.out_of_disk,
            state_hash: status.state_hash.map(|it| format!("{:016x}", it.hash)),
            state_hash_index: status.state_hash.map_or(0, |it| it.index.0),
            state_differs_at: status.differs_at.map(|index| index.0),
            cluster: status.cluster.map(|cluster| cluster.to_string()),
            instance: Some(identity.instance.to_string()),
            restart: identity.restart.0,
            recovering: Some(status.recovering),
            seats_filled: status.seats_filled,
            seats_empty: status.seats_empty,
            commands_owed: status.commands_owed,
            unpersisted_bytes: status.unpersisted_bytes,
            uncommitted_bytes: status.uncommitted_bytes,
            items: status.store.items,
            item_bytes: status.store.bytes,
            topics: status.store.topics,
            messages: status.store.messages,
            topic_bytes: status.store.topic_bytes,
            log_time_ms: status.log_time.0,
            elections: status.raft.elections,
            snapshots_installed: status.raft.installed,
            snapshots_sent: status.raft.installs,
            ..common
        }
    }
}
