//! What a turn of the evaluator has for a connection. Whoever took the turn may hand a few short
//! replies to their clients himself, since to wake the connection's task takes longer than that; all
//! else the task does.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use command::{Outcome, Reply};
use tokio::sync::mpsc::UnboundedSender;

use super::connection::Connection;

/// The replies of a turn to further connections are left to their tasks, which are on several threads.
const DELIVERED_MAX: usize = 16;

/// Of one connection, no more than so many replies of so many bytes are delivered by others than its
/// task.
const REPLIES_MAX: usize = 8;
const BYTES_MAX: usize = 16 << 10;

/// Where the outcomes of a connection's commands go. Once this is dropped, nothing more will come.
#[derive(Debug)]
pub(crate) enum Recipient {
    Client(Client),
    /// Somebody who has asked for this server.
    Asker(UnboundedSender<Vec<Outcome>>),
}

#[derive(Debug)]
pub(crate) struct Client(Arc<Mailbox>);

/// Takes the connection out, which may hold its own recipient, also when the task is dropped.
struct Served(Arc<Mailbox>);

/// Outcomes that their recipient has not heard of.
#[derive(Debug)]
pub(crate) struct Delivery(Arc<Mailbox>);

/// A connection and what has come for it.
pub(super) struct Mailbox {
    inbox: Inbox,
    /// Until it is over.
    connection: Mutex<Option<Connection>>,
}

/// What waits here is bounded by the commands that one connection may have under way.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    contents: Mutex<Contents>,
}

#[derive(Debug, Default)]
struct Contents {
    outcomes: Vec<Outcome>,
    /// Nothing more will come.
    is_closed: bool,
    /// Of the connection's task.
    waker: Option<Waker>,
}

impl Recipient {
    /// In the order of the commands. The delivery is to be made once no lock is held.
    pub(crate) fn put(&self, outcomes: Vec<Outcome>) -> Option<Delivery> {
        match self {
            Recipient::Client(Client(mailbox)) => {
                mailbox.inbox.put(outcomes);
                Some(Delivery(Arc::clone(mailbox)))
            }
            Recipient::Asker(sender) => {
                // Whoever asked may be gone.
                let _ = sender.send(outcomes);
                None
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let connection = self.0.connection().take();
        drop(connection);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut contents = self.0.inbox.contents();
        contents.is_closed = true;
        contents.wake();
    }
}

/// Sees to it that the clients get what turns have for them.
pub(crate) fn deliver(mut deliveries: Vec<Delivery>) {
    let rest = deliveries.split_off(deliveries.len().min(DELIVERED_MAX));
    for Delivery(mailbox) in rest {
        mailbox.inbox.contents().wake();
    }
    for Delivery(mailbox) in deliveries {
        if !mailbox.deliver() {
            mailbox.inbox.contents().wake();
        }
    }
}

impl Mailbox {
    /// Serves the client to the end.
    pub(super) async fn serve(connection: Connection) {
        let mailbox = Arc::new(Mailbox {
            inbox: Inbox::default(),
            connection: Mutex::new(None),
        });
        let recipient = Recipient::Client(Client(Arc::clone(&mailbox)));
        *mailbox.connection() = Some(connection.with_recipient(recipient));
        let served = Served(mailbox);
        let mailbox = &served.0;
        let end = poll_fn(|context| {
            mailbox.inbox.attach(context.waker());
            let mut connection = mailbox.connection();
            let connection = connection.as_mut().expect("it is taken out at its end");
            connection.poll(context, &mailbox.inbox)
        });
        let end = end.await;
        let connection = mailbox.connection().take();
        if let Some(connection) = connection {
            connection.end(end).await;
        }
    }

    fn connection(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection
            .lock()
            .expect("nothing panics while it is held")
    }

    /// Writes what has come to the socket. False if the task is to see to the connection: it does just
    /// now, and may have looked for outcomes before, or has more to do than that.
    fn deliver(&self) -> bool {
        let Ok(mut connection) = self.connection.try_lock() else {
            return false;
        };
        let connection = connection.as_mut();
        connection.is_none_or(|connection| connection.deliver(&self.inbox))
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl Inbox {
    fn put(&self, outcomes: Vec<Outcome>) {
        let mut contents = self.contents();
        if contents.outcomes.is_empty() {
            contents.outcomes = outcomes;
        } else {
            contents.outcomes.extend(outcomes);
        }
    }

    /// From now on this is who is woken.
    fn attach(&self, waker: &Waker) {
        let mut contents = self.contents();
        if !contents
            .waker
            .as_ref()
            .is_some_and(|it| it.will_wake(waker))
        {
            contents.waker = Some(waker.clone());
        }
    }

    /// What has come since the last time; `None` if nothing has, and nothing will.
    pub(super) fn take(&self) -> Option<Vec<Outcome>> {
        let mut contents = self.contents();
        let outcomes = std::mem::take(&mut contents.outcomes);
        (!outcomes.is_empty() || !contents.is_closed).then_some(outcomes)
    }

    /// The same for others than the task; none if that is too much for them.
    pub(super) fn take_few(&self) -> Option<Vec<Outcome>> {
        let mut contents = self.contents();
        let are_few = !contents.is_closed && are_few(&contents.outcomes);
        are_few.then(|| std::mem::take(&mut contents.outcomes))
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents
            .lock()
            .expect("nothing panics while it is held")
    }
}

impl Contents {
    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

fn are_few(outcomes: &[Outcome]) -> bool {
    let mut bytes = 0;
    outcomes.len() <= REPLIES_MAX
        && outcomes.iter().all(|outcome| {
            bytes += match outcome {
                Outcome::Done(Reply::Hits(hits)) if hits.len() <= REPLIES_MAX => {
                    hits.iter().map(|hit| hit.data.bytes()).sum()
                }
                Outcome::Done(Reply::MetaHit(hit)) => hit.data.bytes(),
                Outcome::Done(Reply::Message(message)) => message.data.as_slice().len(),
                // Long, or put together when they are written.
                Outcome::Done(
                    Reply::Hits(_) | Reply::Stats(_) | Reply::Topics(_) | Reply::Confirmed { .. },
                ) => return false,
                Outcome::Done(_) | Outcome::NotDone(_) | Outcome::Unknown => 0,
            };
            bytes <= BYTES_MAX
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: Outcome = Outcome::Done(Reply::Stored);

    #[test]
    fn what_is_long_is_left_to_the_task_with_all_behind_it() {
        let inbox = Inbox::default();
        inbox.put(vec![STORED; REPLIES_MAX]);
        assert_eq!(inbox.take_few(), Some(vec![STORED; REPLIES_MAX]));
        assert_eq!(inbox.take_few(), Some(vec![]));
        let lines = Outcome::Done(Reply::Stats(Vec::new()));
        let topics = Outcome::Done(Reply::Topics(Vec::new()));
        for long in [vec![STORED; REPLIES_MAX + 1], vec![lines], vec![topics]] {
            inbox.put(long.clone());
            inbox.put(vec![Outcome::Unknown]);
            assert_eq!(inbox.take_few(), None);
            let all: Vec<Outcome> = long.into_iter().chain([Outcome::Unknown]).collect();
            assert_eq!(inbox.take(), Some(all));
        }
    }

    #[test]
    fn the_task_takes_the_last_outcomes_and_then_learns_that_they_were() {
        let inbox = Inbox::default();
        inbox.put(vec![STORED]);
        inbox.contents().is_closed = true;
        assert_eq!(inbox.take_few(), None);
        assert_eq!(inbox.take(), Some(vec![STORED]));
        assert_eq!(inbox.take(), None);
    }
}
