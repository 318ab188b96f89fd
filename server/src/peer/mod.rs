//! The RPC port and the connections to the other servers. Each pair has two: whoever has something
//! to say calls the other, and only listens for the end of the call. A snapshot goes over a third,
//! which lasts as long as its transfer, and what is forwarded over one of its own.

mod forward;
mod frames;
mod handshake;
mod inbound;
mod listener;
mod outbound;
mod queue;
mod receive_snapshot;
mod send_snapshot;
mod transfer_frames;

pub(crate) use forward::{
    ForwardQueue, TO_FOLLOWER_QUEUE_BYTES_MAX, TO_LEADER_QUEUE_BYTES_MAX, forward,
};
pub(crate) use handshake::Refusals;
pub(crate) use listener::serve;
pub(crate) use outbound::{Callee, call};
pub(crate) use queue::Queue;
pub(crate) use send_snapshot::{Pace, Sending, send_snapshots};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use command::LogTime;
use evaluator::{ForwardMessage, StateHash};
use raft::{GroupId, Message, ServerId};
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;

use crate::client::FromClient;
use crate::error::Error;
use crate::published::View;
use crate::room::RoomSender;
use crate::snapshots::Snapshots;

/// The group of all messages: there is one.
const GROUP: GroupId = GroupId(0);

/// How long either side waits for the other's part of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long either side of a snapshot's transfer waits for a sign of the other.
const SILENCE: Duration = Duration::from_secs(10);

/// What peers' connections say to the evaluator.
#[derive(Debug)]
pub(crate) enum FromPeer {
    Message(Message),
    /// What its wall clock shows.
    Clock(ServerId, LogTime),
    /// What its state is.
    StateHash(ServerId, StateHash),
    /// This server has called the peer, who listens.
    Connected(ServerId),
    /// There is a connection to forward to this peer, or it is gone.
    ForwardLink(ServerId, bool),
    /// What it says of forwarded commands.
    Forward(ServerId, ForwardMessage),
}

/// What all peers' connections share.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) evaluator: RoomSender<FromPeer>,
    /// The same for what leaders say of forwarded commands: with room of its own, since replies may
    /// be large.
    pub(crate) forwards: RoomSender<FromPeer>,
    /// What followers forward waits with what clients say.
    pub(crate) clients: RoomSender<FromClient>,
    /// What goes back to each of them.
    pub(crate) followers: BTreeMap<ServerId, Arc<ForwardQueue>>,
    /// Where connections for what is forwarded are looked after: with the clients', since that is
    /// whom they are for.
    pub(crate) forwarding: Handle,
    pub(crate) view: View,
    pub(crate) snapshots: Arc<Snapshots>,
    /// Where snapshots are sent and received: with a thread of their own, so that they keep no
    /// message waiting.
    pub(crate) transfers: Handle,
    pub(crate) refusals: Refusals,
    /// Told why this server can't go on.
    pub(crate) fatal: UnboundedSender<Error>,
}
