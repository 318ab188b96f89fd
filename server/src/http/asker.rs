//! Commands on behalf of HTTP requests: each is a connection of its own to the evaluator.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use command::{Command, Outcome, TopicCounts};
use evaluator::{Batch, ConnectionId};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::bell::Sender;
use crate::client::{FromClient, Recipient};
use crate::evaluator_thread::Control;
use crate::room::RoomSender;

/// Asks the evaluator, once the log was read.
#[derive(Debug, Default)]
pub(crate) struct Asker {
    source: OnceLock<Source>,
    asked: AtomicU64,
}

/// The ways to the evaluator.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) evaluator: RoomSender<FromClient>,
    pub(crate) control: Sender<Control>,
}

impl Asker {
    /// From now on there is somebody to ask.
    pub(crate) fn begin(&self, source: Source) {
        // It is begun once.
        let _ = self.source.set(source);
    }

    pub(super) fn source(&self) -> Option<&Source> {
        self.source.get()
    }

    /// What has become of a command after this time; `None` if that is not known by then, or the
    /// server is not ready. `is_local` is for what this server is to answer itself.
    pub(super) async fn ask(
        &self,
        command: Command,
        bytes: usize,
        is_local: bool,
        within: Duration,
    ) -> Option<Outcome> {
        let source = self.source.get()?.clone();
        // Clients count up from 1.
        let connection = ConnectionId(u64::MAX - self.asked.fetch_add(1, Ordering::Relaxed));
        let batch = Batch {
            connection,
            epoch: 0,
            commands: vec![command],
            is_local,
        };
        let deadline = Instant::now() + within;
        // A task of its own, so that the evaluator learns of the end though the request is given up.
        let asked = tokio::spawn(source.ask(batch, bytes, deadline));
        asked.await.ok().flatten()
    }

    /// The topics as far as this server has applied the log; `None` if it is not ready in this time.
    pub(super) async fn topics(&self, within: Duration) -> Option<Vec<TopicCounts>> {
        let source = self.source.get()?;
        let (asker, topics) = oneshot::channel();
        source.control.send(Control::Topics(asker)).ok()?;
        let deadline = Instant::now() + within;
        timeout_at(deadline, topics).await.ok()?.ok()
    }
}

impl Source {
    async fn ask(self, batch: Batch, bytes: usize, deadline: Instant) -> Option<Outcome> {
        let connection = batch.connection;
        let room = timeout_at(deadline, self.evaluator.reserve(bytes));
        let room = room.await.ok()?;
        let (sender, mut outcomes) = unbounded_channel();
        let outcomes_sender = Some(Recipient::Asker(sender));
        let batch = FromClient::Batch {
            batch,
            outcomes: outcomes_sender,
        };
        self.evaluator.send(room, batch);
        let answered = timeout_at(deadline, outcomes.recv()).await;
        let room = self.evaluator.reserve(0).await;
        self.evaluator
            .send(room, FromClient::Disconnected(connection));
        answered.ok()??.into_iter().next()
    }
}
