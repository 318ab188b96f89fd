//! The RPC port and the connections to the other servers. Each pair has two: whoever has something
//! to say calls the other, and only listens for the end of the call.

mod frames;
mod handshake;
mod inbound;
mod listener;
mod outbound;
mod queue;

pub(crate) use handshake::Refusals;
pub(crate) use listener::serve;
pub(crate) use outbound::{Callee, call};
pub(crate) use queue::Queue;

use std::time::Duration;

use command::LogTime;
use raft::{GroupId, Message, ServerId};
use tokio::sync::mpsc::UnboundedSender;

use crate::error::Error;
use crate::published::View;
use crate::room::RoomSender;

/// The group of all messages: there is one.
const GROUP: GroupId = GroupId(0);

/// How long either side waits for the other's part of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// What peers' connections say to the evaluator.
#[derive(Debug)]
pub(crate) enum FromPeer {
    Message(Message),
    /// What its wall clock shows.
    Clock(ServerId, LogTime),
    /// This server has called the peer, who listens.
    Connected(ServerId),
}

/// What all peers' connections share.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) evaluator: RoomSender<FromPeer>,
    pub(crate) view: View,
    pub(crate) refusals: Refusals,
    /// Told why this server can't go on.
    pub(crate) fatal: UnboundedSender<Error>,
}
