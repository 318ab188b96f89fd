//! `Topic`: message queues as methods.

use std::time::Duration;

use bytes::Bytes;
use command::{
    Command, Key, Message, Read, Reply, Take, TopicChange, TopicCounts, TopicSettings, TopicWrite,
    WAIT_SECONDS_MAX, Write,
};

use crate::client::{Client, answer};
use crate::{KeyError, NotDone, Outcome};

/// A topic of a cluster. Nothing is sent to make one of these; [`Topic::create`] makes the topic.
#[derive(Clone, Debug)]
pub struct Topic {
    client: Client,
    name: Key,
}

/// What a message is pushed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushOptions {
    /// The lower number is taken first.
    pub priority: u32,
    /// Seconds until it can be taken.
    pub delay: u32,
}

/// What became of a command that takes a message, or shows one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    Message(Message),
    /// No message can be taken.
    Empty,
    /// There is no such topic.
    NotFound,
}

/// What became of a message that was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nacked {
    /// It can be taken again, at once or when its delay is over.
    Released,
    /// It was delivered as often as the topic allows, and is dead.
    Buried,
    /// It is not reserved any more.
    NotFound,
}

impl Client {
    /// A topic, by a name of 1 to 250 bytes, any of them.
    ///
    /// # Errors
    /// If it has another length.
    pub fn topic(&self, name: impl AsRef<[u8]>) -> Result<Topic, KeyError> {
        let name = name.as_ref();
        let length = KeyError::Length { bytes: name.len() };
        Ok(Topic {
            client: self.clone(),
            name: Key::new(Bytes::copy_from_slice(name)).ok_or(length)?,
        })
    }

    /// `topics`: all of them, in the order of their creation.
    pub async fn topics(&self) -> Outcome<Vec<TopicCounts>> {
        let reply = self.run_one(&Command::Read(Read::Topics)).await;
        answer(reply, |reply| match reply {
            Reply::Topics(topics) => Some(topics),
            _ => None,
        })
    }
}

impl Topic {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.name.as_bytes()
    }

    /// `topic`: true if it was made, false if it was there, and then nothing is changed.
    pub async fn create(&self, settings: TopicSettings) -> Outcome<bool> {
        let reply = self.change(TopicChange::Create(settings)).await;
        reply.map(|reply| reply == Reply::Created)
    }

    /// `push`: the message's id; `None` if there is no such topic. A topic that is full refuses it.
    pub async fn push(
        &self,
        message: impl Into<Bytes>,
        options: PushOptions,
    ) -> Outcome<Option<u64>> {
        self.change(pushed(message.into(), options)).await.map(id)
    }

    /// `push` of many messages in one go: one outcome for each, in order.
    pub async fn push_many(
        &self,
        messages: impl IntoIterator<Item = Bytes>,
        options: PushOptions,
    ) -> Vec<Outcome<Option<u64>>> {
        let messages = messages.into_iter();
        let commands: Vec<Command> = messages
            .map(|message| self.command(pushed(message, options)))
            .collect();
        let outcomes = self.client.pipeline(&commands).await.into_iter();
        outcomes.map(|outcome| outcome.map(id)).collect()
    }

    /// `pop`: takes the first message for good. Waits for one for so many whole seconds, at most a
    /// day, beside the client's timeout.
    pub async fn pop(&self, wait: Duration) -> Outcome<Taken> {
        self.take(None, wait).await
    }

    /// `reserve`: takes the first message; it comes back unless it is acknowledged within `ttr`
    /// seconds, which is at least 1. Waits as `pop` does.
    pub async fn reserve(&self, ttr: u32, wait: Duration) -> Outcome<Taken> {
        self.take(Some(ttr), wait).await
    }

    /// `peek`: the first message, which stays.
    pub async fn peek(&self) -> Outcome<Taken> {
        let topic = self.name.clone();
        let read = Command::Read(Read::Peek { topic });
        answer(self.client.run_one(&read).await, taken)
    }

    /// `ack`: a reserved message is done with; false if it is not reserved any more.
    pub async fn ack(&self, id: u64) -> Outcome<bool> {
        let reply = self.change(TopicChange::Ack { id }).await;
        reply.map(|reply| reply == Reply::Acked)
    }

    /// `nack`: gives a reserved message back, to be taken again after so many seconds.
    pub async fn nack(&self, id: u64, delay: u32) -> Outcome<Nacked> {
        let reply = self.change(TopicChange::Nack { id, delay }).await;
        reply.map(|reply| match reply {
            Reply::Released => Nacked::Released,
            Reply::Buried => Nacked::Buried,
            _ => Nacked::NotFound,
        })
    }

    /// `extend`: a reserved message stays so for this many seconds from now; false if it is not
    /// reserved any more.
    pub async fn extend(&self, id: u64, ttr: u32) -> Outcome<bool> {
        let reply = self.change(TopicChange::Extend { id, ttr }).await;
        reply.map(|reply| reply == Reply::Extended)
    }

    /// `kick`: makes so many dead messages ready again; how many there were, or `None` if there is no
    /// such topic.
    pub async fn kick(&self, count: u64) -> Outcome<Option<u64>> {
        let reply = self.change(TopicChange::Kick { count }).await;
        reply.map(|reply| match reply {
            Reply::Kicked(count) => Some(count),
            _ => None,
        })
    }

    /// `purge`: removes all messages; how many there were, or `None` if there is no such topic.
    pub async fn purge(&self) -> Outcome<Option<u64>> {
        let reply = self.change(TopicChange::Purge).await;
        reply.map(|reply| match reply {
            Reply::Purged(count) => Some(count),
            _ => None,
        })
    }

    /// `drop`: removes the topic and its messages; false if there is none.
    pub async fn remove(&self) -> Outcome<bool> {
        let reply = self.change(TopicChange::Drop).await;
        reply.map(|reply| reply == Reply::Dropped)
    }

    async fn take(&self, ttr: Option<u32>, wait: Duration) -> Outcome<Taken> {
        let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX);
        let wait = seconds.min(WAIT_SECONDS_MAX);
        let command = self.command(TopicChange::Take(Take { ttr, wait }));
        let client = self.client.waiting(Duration::from_secs(u64::from(wait)));
        answer(client.run_one(&command).await, taken)
    }

    async fn change(&self, change: TopicChange) -> Outcome<Reply> {
        answer(self.client.run_one(&self.command(change)).await, Some)
    }

    fn command(&self, change: TopicChange) -> Command {
        let topic = self.name.clone();
        Command::Write(Write::Topic(TopicWrite { topic, change }))
    }
}

fn pushed(message: Bytes, options: PushOptions) -> TopicChange {
    TopicChange::Push {
        message,
        priority: options.priority,
        delay: options.delay,
    }
}

fn id(reply: Reply) -> Option<u64> {
    match reply {
        Reply::Pushed(id) => Some(id),
        _ => None,
    }
}

fn taken(reply: Reply) -> Option<Taken> {
    match reply {
        Reply::Message(message) => Some(Taken::Message(message)),
        Reply::Empty => Some(Taken::Empty),
        Reply::NotFound => Some(Taken::NotFound),
        _ => None,
    }
}

/// The line of a refusal that the protocol has as a reply.
pub(crate) fn refusal(reply: &Reply) -> Option<&'static str> {
    match reply {
        Reply::OutOfMemory => Some("SERVER_ERROR out of memory storing object"),
        Reply::TopicFull => Some("SERVER_ERROR topic full"),
        Reply::TooManyTopics => Some("SERVER_ERROR too many topics"),
        _ => None,
    }
}

/// Whether a change of a topic can have this reply.
pub(crate) fn admits(change: TopicKind, reply: &Reply) -> bool {
    match reply {
        Reply::Created | Reply::Exists => change == TopicKind::Create,
        Reply::NotFound => change != TopicKind::Create,
        Reply::Pushed(_) => change == TopicKind::Push,
        Reply::Message(_) | Reply::Empty => change == TopicKind::Take,
        Reply::Acked => change == TopicKind::Ack,
        Reply::Released | Reply::Buried => change == TopicKind::Nack,
        Reply::Extended => change == TopicKind::Extend,
        Reply::Kicked(_) => change == TopicKind::Kick,
        Reply::Purged(_) => change == TopicKind::Purge,
        Reply::Dropped => change == TopicKind::Drop,
        _ => false,
    }
}

/// Which change of a topic it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TopicKind {
    Create,
    Push,
    Take,
    Ack,
    Nack,
    Extend,
    Kick,
    Purge,
    Drop,
}

impl TopicKind {
    pub(crate) fn of(change: &TopicChange) -> TopicKind {
        match change {
            TopicChange::Create(_) => TopicKind::Create,
            TopicChange::Push { .. } => TopicKind::Push,
            TopicChange::Take(_) => TopicKind::Take,
            TopicChange::Ack { .. } => TopicKind::Ack,
            TopicChange::Nack { .. } => TopicKind::Nack,
            TopicChange::Extend { .. } => TopicKind::Extend,
            TopicChange::Kick { .. } => TopicKind::Kick,
            TopicChange::Purge => TopicKind::Purge,
            TopicChange::Drop => TopicKind::Drop,
        }
    }
}

/// As for a key, of a topic whose name has another length.
pub(crate) fn bad_name<T>(error: KeyError) -> Outcome<T> {
    Outcome::NotDone(NotDone::Key(error))
}
