//! The client port: memcached's text, one task for each connection.

mod connection;
mod dumps;
mod held;
mod listener;
mod mailbox;
mod stats;

pub(crate) use connection::QUIET;
pub(crate) use dumps::Dumps;
pub(crate) use held::Held;
pub(crate) use listener::serve;
pub(crate) use mailbox::{Delivery, Recipient, deliver};
pub(crate) use stats::{Connections, Count, Counters};

use std::sync::Arc;
use std::time::Duration;

use cluster::Settings;
use evaluator::{Batch, ConnectionId, ForwardMessage, Stream};
use protocol::Limits;
use raft::ServerId;

use crate::room::RoomSender;

/// What connections say to the evaluator.
#[derive(Debug)]
pub(crate) enum FromClient {
    Batch {
        batch: Batch,
        /// Where the outcomes of this connection's commands go. With its first batch only.
        outcomes: Option<Recipient>,
    },
    /// The connection is gone, and it had sent a batch.
    Disconnected(ConnectionId),
    /// The client has closed its half of the connection, and waits for no message any longer.
    StopWaiting(ConnectionId),
    /// What a follower says on behalf of its clients.
    Forward(ServerId, ForwardMessage),
    /// The follower's connection is gone; no later stream than this had come over it.
    FollowerGone(ServerId, Stream),
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) evaluator: RoomSender<FromClient>,
    pub(crate) limits: Limits,
    pub(crate) incomplete_command: Duration,
    pub(crate) connections_max: usize,
    pub(crate) settings: Settings,
    /// Where clients are listened to.
    pub(crate) bind: String,
    pub(crate) client_port: u16,
    pub(crate) counters: Arc<Counters>,
    pub(crate) dumps: Dumps,
    /// Those that are open, for `stats conns`.
    pub(crate) connections: Connections,
    /// Bounds the replies that this server, as follower, has got from the leader.
    pub(crate) held: Arc<Held>,
}
