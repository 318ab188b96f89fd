//! Accepts clients, up to a limit.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use evaluator::ConnectionId;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::Clients;
use super::connection::{Connection, LINGER, linger};
use super::mailbox::Mailbox;
use super::stats::Activity;
use crate::listen::Acceptor;

/// What memcached says to a connection too many.
const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

/// How many are being told so at a time. If there are more, they are not told.
const TURNED_AWAY_MAX: usize = 64;

/// Serves clients until `stop_accepting`; `tasks` then ends when the last of them has gone, which
/// `stop` hurries.
pub(crate) async fn serve(
    mut acceptor: Acceptor,
    clients: Arc<Clients>,
    tasks: TaskTracker,
    stop_accepting: CancellationToken,
    stop: CancellationToken,
) {
    let mut last_id = 0;
    let mut is_full = false;
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
    loop {
        let (stream, peer) = tokio::select! {
            connection = acceptor.accept() => connection,
            () = stop_accepting.cancelled() => return,
        };
        let open = clients.counters.open.load(Ordering::Relaxed);
        if open >= clients.connections_max {
            if !is_full {
                warn!("{open} client connections are open: more are turned away");
            }
            is_full = true;
            clients.counters.rejected.add(1);
            if let Ok(room) = Arc::clone(&turned_away).try_acquire_owned() {
                tokio::spawn(async move {
                    turn_away(stream).await;
                    drop(room);
                });
            }
            continue;
        }
        is_full = false;
        last_id += 1;
        // Without it, a reply may wait for the client's acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let counted = Counted::new(&clients, last_id, peer);
        let connection = Connection::new(
            ConnectionId(last_id),
            stream,
            Arc::clone(&clients),
            counted.activity(),
            stop.clone(),
        );
        tasks.spawn(async move {
            Mailbox::serve(connection).await;
            drop(counted);
        });
    }
}

/// Says so, and hears the client out for a moment, so that it can read it.
async fn turn_away(mut stream: TcpStream) {
    let told = async {
        stream.write_all(TOO_MANY).await?;
        linger(stream).await
    };
    let _ = timeout(LINGER, told).await;
}

/// One open connection, as counted.
struct Counted {
    clients: Arc<Clients>,
    id: u64,
    activity: Arc<Activity>,
}

impl Counted {
    fn new(clients: &Arc<Clients>, id: u64, peer: SocketAddr) -> Counted {
        clients.counters.open.fetch_add(1, Ordering::Relaxed);
        clients.counters.accepted.add(1);
        Counted {
            clients: Arc::clone(clients),
            id,
            activity: clients.connections.begun(id, peer),
        }
    }

    fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.clients.counters.open.fetch_sub(1, Ordering::Relaxed);
        self.clients.connections.ended(self.id);
    }
}
