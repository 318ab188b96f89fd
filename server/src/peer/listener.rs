//! Accepts calls of other servers, up to a limit. Anybody may call, and say nothing: whoever has not
//! said who it is gives way to others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use raft::ServerId;
use tokio_util::sync::CancellationToken;

use super::receive_snapshot::Receiving;
use super::{Peers, inbound};
use crate::listen::Acceptor;
use crate::places::Places;

/// Calls at a time, those included that have not said yet who they are. There are never more than
/// 18 peers, each with a call for messages, one for what it forwards, and one for a snapshot, so some
/// of these can always be closed.
const CALLS_MAX: usize = 64;

/// The call of each peer that is listened to: a newer one ends it, since the peer has given it up.
#[derive(Debug, Default)]
pub(super) struct Calls {
    messages: Mutex<BTreeMap<ServerId, CancellationToken>>,
    forwards: Mutex<BTreeMap<ServerId, CancellationToken>>,
    /// Those that bring snapshots, of which there is one at a time, whoever called.
    pub(super) receiving: Receiving,
}

impl Calls {
    /// Ends the peer's earlier call; the token ends this one.
    pub(super) fn begin(&self, peer: ServerId) -> CancellationToken {
        replace(&self.messages, peer)
    }

    /// The same for calls on which the peer forwards commands.
    pub(super) fn begin_forwards(&self, peer: ServerId) -> CancellationToken {
        replace(&self.forwards, peer)
    }
}

fn replace(
    calls: &Mutex<BTreeMap<ServerId, CancellationToken>>,
    peer: ServerId,
) -> CancellationToken {
    let token = CancellationToken::new();
    let mut calls = calls.lock().expect("nothing panics while it is held");
    if let Some(earlier) = calls.insert(peer, token.clone()) {
        earlier.cancel();
    }
    token
}

/// Takes calls until the runtime ends.
pub(crate) async fn serve(mut acceptor: Acceptor, peers: Arc<Peers>) {
    let mut places = Places::new(CALLS_MAX);
    let calls = Arc::new(Calls::default());
    loop {
        let (stream, address) = acceptor.accept().await;
        let place = places.take().await;
        let peers = Arc::clone(&peers);
        let calls = Arc::clone(&calls);
        tokio::spawn(async move {
            inbound::take(stream, address, place, &peers, &calls).await;
        });
    }
}
