//! `Client`: memcached's classic commands as methods.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use command::{Command, Direction, Exptime, Hit, Key, Read, Reply, Stats, Store, StoreMode, Write};
use tokio::time::Instant;

use crate::leader::Leader;
use crate::request::{Answer, Request};
use crate::{Address, KeyError, NotDone, Outcome, key};

/// How long a command may take, unless `Client::with_timeout` says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// How many connections a client and its clones have open at most: as many commands or pipelines
/// are under way, and others wait their turn.
pub const CONNECTIONS_MAX: usize = 64;

/// How a server refuses `incr` and `decr` of a value that is no number.
const NON_NUMERIC: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value";

/// A client of one cluster. Clones share its connections and what it knows of the leader.
///
/// Each command runs on one connection to the leader, which is found by asking any of the
/// servers. A command that was certainly not carried out (a redirect, no leader, no connection) is
/// sent again until its timeout; one that may have been is not, unless it changes nothing.
#[derive(Clone, Debug)]
pub struct Client {
    leader: Arc<Leader>,
    timeout: Duration,
}

/// What an item is given besides its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ItemOptions {
    /// Opaque to the server, comes back with the value.
    pub flags: u32,
    pub exptime: Exptime,
}

/// What became of a conditional write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    Stored,
    /// The condition does not hold: `add` found an item, the others none.
    NotStored,
}

/// What became of a `cas`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swapped {
    Stored,
    /// The item has been changed since.
    Exists,
    /// There is no item.
    NotFound,
}

impl Client {
    /// A client of the cluster that these servers belong to; it connects when the first command
    /// is sent.
    ///
    /// # Panics
    /// When `servers` is empty.
    #[must_use]
    pub fn new(servers: Vec<Address>) -> Client {
        Client {
            leader: Arc::new(Leader::new(servers, CONNECTIONS_MAX)),
            timeout: TIMEOUT_DEFAULT,
        }
    }

    /// A client that has found the cluster's leader.
    ///
    /// # Errors
    /// Why none was found in `timeout`, which becomes that of the commands too.
    ///
    /// # Panics
    /// When `servers` is empty.
    pub async fn connect(servers: Vec<Address>, timeout: Duration) -> Result<Client, NotDone> {
        let client = Client::new(servers).with_timeout(timeout);
        let no_matter_which = key("k")?;
        match client.get_many(vec![no_matter_which]).await {
            Outcome::Done(_) => Ok(client),
            Outcome::NotDone(reason) => Err(reason),
            Outcome::Unknown(doubt) => unreachable!("a read with an unknown outcome: {doubt}"),
        }
    }

    /// The same client with another timeout for each command.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Client {
        Client {
            leader: Arc::clone(&self.leader),
            timeout,
        }
    }

    /// The same client, which waits so much longer.
    pub(crate) fn waiting(&self, wait: Duration) -> Client {
        self.with_timeout(self.timeout.saturating_add(wait))
    }

    /// The server that led when it was last heard of.
    #[must_use]
    pub fn leader(&self) -> Option<Address> {
        self.leader.address()
    }

    /// `gets`: an item with its value, flags and the unique that `cas` takes.
    pub async fn get(&self, item: impl AsRef<[u8]>) -> Outcome<Option<Hit>> {
        match key(item) {
            Ok(key) => {
                let hits = self.get_many(vec![key]).await;
                hits.map(|hits| hits.into_iter().next())
            }
            Err(error) => bad_key(error),
        }
    }

    /// `gets` of several keys, at one point in time: the hits in the order of the keys.
    pub async fn get_many(&self, keys: Vec<Key>) -> Outcome<Vec<Hit>> {
        let keys = keys.into_iter().collect();
        let reply = self.run_one(&Command::Read(Read::Get { keys })).await;
        answer(reply, hits)
    }

    /// `gats`: as `get_many`, and gives each hit this time.
    pub async fn get_and_touch(&self, exptime: Exptime, keys: Vec<Key>) -> Outcome<Vec<Hit>> {
        let reply = self.write(Write::GetAndTouch { keys, exptime }).await;
        answer(reply, hits)
    }

    /// `set`.
    pub async fn set(
        &self,
        item: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: ItemOptions,
    ) -> Outcome<()> {
        let reply = self.store(StoreMode::Set, item, value, options).await;
        answer(reply, |reply| match reply {
            Reply::Stored => Some(()),
            _ => None,
        })
    }

    /// `add`: only if there is no item.
    pub async fn add(
        &self,
        item: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: ItemOptions,
    ) -> Outcome<Stored> {
        let reply = self.store(StoreMode::Add, item, value, options).await;
        answer(reply, stored)
    }

    /// `replace`: only if there is an item.
    pub async fn replace(
        &self,
        item: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: ItemOptions,
    ) -> Outcome<Stored> {
        let reply = self.store(StoreMode::Replace, item, value, options).await;
        answer(reply, stored)
    }

    /// `append`: behind the value of an item, if there is one.
    pub async fn append(&self, item: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Outcome<Stored> {
        let options = ItemOptions::default();
        let reply = self.store(StoreMode::Append, item, value, options).await;
        answer(reply, stored)
    }

    /// `prepend`: before the value of an item, if there is one.
    pub async fn prepend(
        &self,
        item: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
    ) -> Outcome<Stored> {
        let options = ItemOptions::default();
        let reply = self.store(StoreMode::Prepend, item, value, options).await;
        answer(reply, stored)
    }

    /// `cas`: only if the item still has this unique.
    pub async fn cas(
        &self,
        item: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: ItemOptions,
        unique: u64,
    ) -> Outcome<Swapped> {
        let mode = StoreMode::Cas(unique);
        let reply = self.store(mode, item, value, options).await;
        answer(reply, |reply| match reply {
            Reply::Stored => Some(Swapped::Stored),
            Reply::Exists => Some(Swapped::Exists),
            Reply::NotFound => Some(Swapped::NotFound),
            _ => None,
        })
    }

    /// `delete`: whether there was an item.
    pub async fn delete(&self, item: impl AsRef<[u8]>) -> Outcome<bool> {
        match key(item) {
            Ok(key) => {
                let reply = self.write(Write::Delete { key }).await;
                answer(reply, found)
            }
            Err(error) => bad_key(error),
        }
    }

    /// `incr`: the new value, modulo 2^64; `None` if there is no item. A value that is no number
    /// is refused.
    pub async fn incr(&self, item: impl AsRef<[u8]>, delta: u64) -> Outcome<Option<u64>> {
        self.arithmetic(Direction::Increment, item, delta).await
    }

    /// `decr`: the new value, at least 0; `None` if there is no item. A value that is no number is
    /// refused.
    pub async fn decr(&self, item: impl AsRef<[u8]>, delta: u64) -> Outcome<Option<u64>> {
        self.arithmetic(Direction::Decrement, item, delta).await
    }

    /// `touch`: gives an item this time; whether there was one.
    pub async fn touch(&self, item: impl AsRef<[u8]>, exptime: Exptime) -> Outcome<bool> {
        match key(item) {
            Ok(key) => {
                let reply = self.write(Write::Touch { key, exptime }).await;
                answer(reply, found)
            }
            Err(error) => bad_key(error),
        }
    }

    /// `flush_all`: empties the store, after this delay.
    pub async fn flush_all(&self, delay: Exptime) -> Outcome<()> {
        let reply = self.write(Write::FlushAll { delay }).await;
        answer(reply, |reply| match reply {
            Reply::Ok => Some(()),
            _ => None,
        })
    }

    /// `version` of the server that is asked: the leader if it is known, or any.
    pub async fn version(&self) -> Outcome<String> {
        let outcome = self.run_requests(&[Request::version()]).await;
        only(outcome).map(|answer| match answer {
            Answer::Version(text) => text,
            other => unreachable!("{other:?} passed for a version"),
        })
    }

    /// `verbosity` of the server that is asked: the leader if it is known, or any. It has no effect
    /// on a server of quorate.
    pub async fn verbosity(&self, level: u32) -> Outcome<()> {
        let outcome = self.run_requests(&[Request::verbosity(level)]).await;
        only(outcome).map(|answer| match answer {
            Answer::Ok => (),
            other => unreachable!("{other:?} passed for an OK"),
        })
    }

    /// `stats` of the server that is asked: the leader if it is known, or any. Name and value of
    /// each line; none for `Stats::Reset`.
    pub async fn stats(&self, which: Stats) -> Outcome<Vec<(String, String)>> {
        let reply = self.run_one(&Command::Stats(which)).await;
        answer(reply, |reply| match reply {
            Reply::Stats(lines) => Some(
                lines
                    .into_iter()
                    .map(|(name, value)| (name.into_owned(), value))
                    .collect(),
            ),
            Reply::Ok => Some(Vec::new()),
            _ => None,
        })
    }

    /// Sends many commands in one go on one connection and returns one outcome for each, in
    /// order. Each sees the effects of those before it. What follows a command whose outcome is
    /// unknown is not sent again.
    pub async fn pipeline(&self, commands: &[Command]) -> Vec<Outcome<Reply>> {
        let requests: Vec<_> = commands.iter().map(Request::new).collect();
        let sendable: Vec<Request> = requests.iter().flatten().cloned().collect();
        let mut outcomes = self.run_requests(&sendable).await.into_iter();
        let mut next = || outcomes.next().expect("as many outcomes as requests");
        requests
            .into_iter()
            .map(|request| match request {
                Ok(_) => answer(next(), Some),
                Err(error) => bad_key(error),
            })
            .collect()
    }

    async fn store(
        &self,
        mode: StoreMode,
        item: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: ItemOptions,
    ) -> Outcome<Answer> {
        let key = match key(item) {
            Ok(key) => key,
            Err(error) => return bad_key(error),
        };
        let value = value.into();
        let ItemOptions { flags, exptime } = options;
        let store = Store {
            mode,
            key,
            flags,
            exptime,
            value,
        };
        self.write(Write::Store(store)).await
    }

    async fn arithmetic(
        &self,
        direction: Direction,
        item: impl AsRef<[u8]>,
        delta: u64,
    ) -> Outcome<Option<u64>> {
        let key = match key(item) {
            Ok(key) => key,
            Err(error) => return bad_key(error),
        };
        let write = Write::Arithmetic {
            key,
            direction,
            delta,
        };
        let reply = self.write(write).await;
        answer(reply, |reply| match reply {
            Reply::Number(number) => Some(Some(number)),
            Reply::NotFound => Some(None),
            _ => None,
        })
    }

    async fn write(&self, write: Write) -> Outcome<Answer> {
        self.run_one(&Command::Write(write)).await
    }

    pub(crate) async fn run_one(&self, command: &Command) -> Outcome<Answer> {
        match Request::new(command) {
            Ok(request) => only(self.run_requests(&[request]).await),
            Err(error) => bad_key(error),
        }
    }

    async fn run_requests(&self, requests: &[Request]) -> Vec<Outcome<Answer>> {
        self.leader.run(requests, self.deadline()).await
    }

    fn deadline(&self) -> Instant {
        let now = Instant::now();
        // A century, when the timeout can't be added.
        let never = now + Duration::from_secs(100 * 365 * 24 * 60 * 60);
        now.checked_add(self.timeout)
            .map_or(never, |at| at.min(never))
    }
}

fn bad_key<T>(error: KeyError) -> Outcome<T> {
    Outcome::NotDone(NotDone::Key(error))
}

fn only(mut outcomes: Vec<Outcome<Answer>>) -> Outcome<Answer> {
    outcomes.pop().expect("as many outcomes as requests")
}

/// The reply in the form that its method returns; `form` knows all replies to its command.
pub(crate) fn answer<T>(
    outcome: Outcome<Answer>,
    form: impl FnOnce(Reply) -> Option<T>,
) -> Outcome<T> {
    let reply = match outcome {
        Outcome::Done(Answer::Reply(Reply::NonNumeric)) => {
            let line = NON_NUMERIC.to_owned();
            return Outcome::NotDone(NotDone::Refused { line });
        }
        other => other.map(|answer| match answer {
            Answer::Reply(reply) => reply,
            other => unreachable!("{other:?} passed for a reply"),
        }),
    };
    reply.map(|reply| form(reply).expect("request.rs lets only fitting replies through"))
}

fn hits(reply: Reply) -> Option<Vec<Hit>> {
    match reply {
        Reply::Hits(hits) => Some(hits),
        _ => None,
    }
}

fn stored(reply: Reply) -> Option<Stored> {
    match reply {
        Reply::Stored => Some(Stored::Stored),
        Reply::NotStored => Some(Stored::NotStored),
        _ => None,
    }
}

fn found(reply: Reply) -> Option<bool> {
    match reply {
        Reply::Deleted | Reply::Touched => Some(true),
        Reply::NotFound => Some(false),
        _ => None,
    }
}
