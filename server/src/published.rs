//! What the evaluator thread lets the other threads see, so that nobody has to ask it.

use std::sync::Arc;
use std::time::Duration;

use cluster::Server;
use evaluator::Status;
use raft::Timestamp;
use tokio::sync::watch;
use wire::Identity;

use crate::clock::Clock;

/// Published again at least this often, and when something changes that others act on.
pub(crate) const INTERVAL: Duration = Duration::from_millis(250);

/// What only tells how far a server has come is published this often while it changes.
pub(crate) const INTERVAL_BUSY: Duration = Duration::from_millis(5);

/// The evaluator thread works if it published this lately.
const ALIVE: Duration = Duration::from_secs(2);

/// One look at the evaluator.
#[derive(Debug)]
pub(crate) struct Published {
    /// When it was taken.
    pub(crate) at: Timestamp,
    pub(crate) status: Status,
    pub(crate) identity: Arc<Identity>,
    /// Leadership is handed over and everything is answered.
    pub(crate) may_stop: bool,
}

/// The newest look, once there is one.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) clock: Clock,
    pub(crate) server: Server,
    receiver: watch::Receiver<Option<Arc<Published>>>,
}

/// Where the evaluator thread publishes.
pub(crate) type Publisher = watch::Sender<Option<Arc<Published>>>;

/// Nothing is published yet: the log is still being read.
pub(crate) fn channel(clock: Clock, server: Server) -> (Publisher, View) {
    let (publisher, receiver) = watch::channel(None);
    let view = View {
        clock,
        server,
        receiver,
    };
    (publisher, view)
}

impl View {
    /// The newest; `None` while the server starts.
    pub(crate) fn now(&self) -> Option<Arc<Published>> {
        self.receiver.borrow().clone()
    }

    /// Whether this server leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        let newest = self.now();
        newest.is_some_and(|newest| newest.status.leader == Some(newest.status.id))
    }

    /// Whether the evaluator thread turns, or is not there yet.
    pub(crate) fn is_alive(&self) -> bool {
        let now = self.clock.monotonic();
        self.now().is_none_or(|newest| now.since(newest.at) < ALIVE)
    }

    /// Waits until no majority is left to recover from; for ever if that does not happen.
    pub(crate) async fn stranded(&mut self) {
        let is_stranded = |newest: &Option<Arc<Published>>| {
            newest.as_ref().is_some_and(|newest| newest.status.stranded)
        };
        if self.receiver.wait_for(is_stranded).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the evaluator says that the server may stop.
    pub(crate) async fn may_stop(&mut self) {
        let may =
            |newest: &Option<Arc<Published>>| newest.as_ref().is_none_or(|newest| newest.may_stop);
        // The evaluator thread has ended, then: nothing more to wait for.
        let _ = self.receiver.wait_for(may).await;
    }
}
