//! Accepts calls of other servers, up to a limit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use raft::ServerId;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Peers, inbound};
use crate::listen::Acceptor;

/// Calls at a time, those included that have not said yet who they are.
pub(super) const CALLS_MAX: usize = 64;

/// The call of each peer that is listened to: a newer one ends it, since the peer has given it up.
#[derive(Debug, Default)]
pub(super) struct Calls(Mutex<BTreeMap<ServerId, CancellationToken>>);

impl Calls {
    /// Ends the peer's earlier call; the token ends this one.
    pub(super) fn begin(&self, peer: ServerId) -> CancellationToken {
        let token = CancellationToken::new();
        let mut calls = self.0.lock().expect("nothing panics while it is held");
        if let Some(earlier) = calls.insert(peer, token.clone()) {
            earlier.cancel();
        }
        token
    }
}

/// Takes calls until the runtime ends.
pub(crate) async fn serve(mut acceptor: Acceptor, peers: Arc<Peers>) {
    let room = Arc::new(Semaphore::new(CALLS_MAX));
    let calls = Arc::new(Calls::default());
    loop {
        let room = Arc::clone(&room).acquire_owned().await;
        let room = room.expect("the semaphore is never closed");
        let (stream, address) = acceptor.accept().await;
        let peers = Arc::clone(&peers);
        let calls = Arc::clone(&calls);
        tokio::spawn(async move {
            inbound::take(stream, address, &peers, &calls).await;
            drop(room);
        });
    }
}
