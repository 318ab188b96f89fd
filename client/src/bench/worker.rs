//! One connection under load: sends a batch, reads its replies, and so on, or sends each command
//! when it is due. After a refusal or a broken connection it goes on at the leader, and counts.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::pace::Pace;
use super::protocol::{Malformed, Said, What};
use super::{Plan, Tally, Target};

/// How long a batch may stay without a reply before its connection is given up.
const REPLY_TIME_MAX: Duration = Duration::from_secs(3);

/// How long a connection may take to come about.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);

/// The pause before a connection is tried again is between half of this and all of it.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// How long preloading goes on without any success.
const PRELOAD_PATIENCE: Duration = Duration::from_secs(10);

/// A batch of the preload is about this long.
const PRELOAD_BATCH_BYTES: usize = 64 << 10;

const READ_BYTES: usize = 64 << 10;

/// The most commands that are due and sent on one connection without an answer. Beyond it they are
/// sent later than they are due, and their latency counts from then all the same.
const UNDER_WAY_MAX: usize = 10_000;

/// How one batch ended.
enum End {
    /// Every request was carried out.
    Whole,
    /// A request was refused, for good.
    Refused(String),
    /// The next batch goes to this server.
    Redirect(crate::Address),
    /// The next batch goes to another server.
    Elsewhere,
}

/// Why a key could not be preloaded.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum PreloadError {
    #[error("a set was refused: {line}")]
    Refused { line: String },
    #[error("no set succeeded for {} s", PRELOAD_PATIENCE.as_secs())]
    NoProgress,
}

/// A request.
#[derive(Clone, Copy, Debug)]
struct Asked {
    what: What,
    /// When it was to be sent.
    due: Instant,
}

#[derive(Debug)]
pub(super) struct Worker {
    plan: Rc<Plan>,
    target: std::sync::Arc<Target>,
    tally: Rc<RefCell<Tally>>,
    random: StdRng,
    /// Commands that may still be sent; `None` for any number. Each worker has its own share, so
    /// that which commands are sent follows from the seed alone.
    budget: Option<u64>,
    connection: Option<(crate::Address, TcpStream)>,
    /// The subject of the connection that is there or will be next: of no other, so that answers to one
    /// that was lost do not reach it.
    inbox: u64,
    /// What is on its way, and how much of that is sent.
    batch: Vec<u8>,
    sent: usize,
    /// Something of what is on its way has been sent.
    has_sent: bool,
    /// The requests that are not answered, and since when their replies are waited for.
    asked: VecDeque<Asked>,
    /// Sets that are stored and not yet known to be replicated, and when they were to be sent.
    stored: Vec<Instant>,
    waits_since: Instant,
    received: BytesMut,
    /// What was to be sent before is not counted.
    counts_from: Instant,
    /// Redirects in a row.
    redirects: u32,
    watchdog: Pin<Box<Sleep>>,
}

impl Worker {
    pub(super) fn new(
        number: u64,
        plan: Rc<Plan>,
        target: std::sync::Arc<Target>,
        tally: Rc<RefCell<Tally>>,
        budget: Option<u64>,
    ) -> Self {
        let random = StdRng::seed_from_u64(plan.seed.wrapping_add(number));
        Self {
            plan,
            target,
            tally,
            random,
            budget,
            connection: None,
            inbox: 0,
            batch: Vec::new(),
            sent: 0,
            has_sent: false,
            asked: VecDeque::new(),
            stored: Vec::new(),
            waits_since: Instant::now(),
            received: BytesMut::with_capacity(READ_BYTES),
            counts_from: Instant::now(),
            redirects: 0,
            watchdog: Box::pin(sleep(REPLY_TIME_MAX)),
        }
    }

    /// Sets each of these keys until that succeeds.
    pub(super) async fn preload(
        &mut self,
        keys: impl Iterator<Item = u32>,
    ) -> Result<(), PreloadError> {
        let per_batch = (PRELOAD_BATCH_BYTES / self.plan.requests.set_bytes()).max(1);
        let keys: Vec<u32> = keys.collect();
        for keys in keys.chunks(per_batch) {
            let start = Instant::now();
            loop {
                self.clear_batch();
                for key in keys {
                    self.add(What::Set, *key, start);
                }
                self.await_replicas(start);
                match self.run_batch().await {
                    End::Whole => break,
                    End::Refused(line) => return Err(PreloadError::Refused { line }),
                    end => self.move_on(end).await,
                }
                if start.elapsed() > PRELOAD_PATIENCE {
                    return Err(PreloadError::NoProgress);
                }
            }
        }
        Ok(())
    }

    /// Sends batches until the time is over or the operations are used up.
    pub(super) async fn load(&mut self, counts_from: Instant, end: Option<Instant>) {
        self.counts_from = counts_from;
        while end.is_none_or(|end| Instant::now() < end) {
            let size = self.take_budget();
            if size == 0 {
                return;
            }
            self.clear_batch();
            let now = Instant::now();
            for _ in 0..size {
                self.draw(now);
            }
            self.await_replicas(now);
            match self.run_batch().await {
                End::Whole | End::Refused(_) => {}
                end => self.move_on(end).await,
            }
        }
    }

    /// Sends each command when it is due, whether those before it are answered or not. Gives how many
    /// were due and never sent, since the server was too slow.
    pub(super) async fn load_at_pace(
        &mut self,
        counts_from: Instant,
        connection: usize,
        pace: &Pace,
    ) -> u64 {
        self.counts_from = counts_from;
        let mut taken = 0;
        loop {
            while !pace.is_over() && taken == pace.due(connection) {
                pace.changed(connection).await;
            }
            if pace.is_over() {
                return pace.due(connection) - taken;
            }
            self.clear_batch();
            match self.keep_pace(connection, pace, &mut taken).await {
                End::Whole | End::Refused(_) => {}
                end => self.move_on(end).await,
            }
        }
    }

    /// Sends what is due and reads replies, until a command is refused, the connection is lost, or
    /// nothing is due any more; then only reads.
    async fn keep_pace(&mut self, connection: usize, pace: &Pace, taken: &mut u64) -> End {
        let Some((address, stream)) = self.connect().await else {
            self.tally.borrow_mut().errors.unreachable += 1;
            return End::Elsewhere;
        };
        let mut end = End::Whole;
        loop {
            let goes_on = matches!(end, End::Whole | End::Refused(_)) && !pace.is_over();
            while goes_on && *taken < pace.due(connection) && self.asked.len() < UNDER_WAY_MAX {
                self.draw(pace.time(connection, *taken));
                *taken += 1;
            }
            self.await_replicas(Instant::now());
            if self.asked.is_empty() && !goes_on {
                self.connection = Some((address, stream));
                return end;
            }
            // Nothing is lost if one of the two is dropped while it waits for the other.
            let stepped = tokio::select! {
                biased;
                stepped = self.step(&stream), if !self.asked.is_empty() => stepped,
                () = pace.changed(connection), if goes_on => continue,
            };
            match self.take_replies_or_leave(&address, stepped, end) {
                Some(so_far) => end = so_far,
                None => return End::Elsewhere,
            }
        }
    }

    /// Draws a command.
    fn draw(&mut self, due: Instant) {
        let key = self.plan.keys.draw(&mut self.random);
        let what = match self.plan.ratio.is_set(&mut self.random) {
            true => What::Set,
            false => What::Get,
        };
        self.add(what, key, due);
    }

    /// How many commands the next batch has.
    fn take_budget(&mut self) -> u32 {
        let pipeline = self.plan.pipeline;
        let Some(budget) = &mut self.budget else {
            return pipeline;
        };
        let size = u64::from(pipeline).min(*budget);
        *budget -= size;
        size as u32
    }

    fn clear_batch(&mut self) {
        if self.connection.is_none() {
            self.inbox = rand::make_rng::<StdRng>().random();
        }
        self.batch.clear();
        self.asked.clear();
        self.stored.clear();
        self.sent = 0;
        self.has_sent = false;
    }

    /// Has the sets that were added last replicated, if it takes a command of its own.
    fn await_replicas(&mut self, due: Instant) {
        let new = self.asked.iter().rev();
        let mut new = new.take_while(|asked| asked.what != What::Wait);
        if self.plan.requests.waits() && new.any(|asked| asked.what == What::Set) {
            self.add(What::Wait, 0, due);
        }
    }

    fn add(&mut self, what: What, key: u32, due: Instant) {
        if self.sent == self.batch.len() {
            self.batch.clear();
            self.sent = 0;
        }
        let requests = &self.plan.requests;
        requests.append(what, key, self.inbox, &mut self.batch);
        if self.asked.is_empty() {
            self.waits_since = Instant::now();
        }
        self.asked.push_back(Asked { what, due });
    }

    /// Sends the batch and reads its replies; counts each.
    async fn run_batch(&mut self) -> End {
        let Some((address, stream)) = self.connect().await else {
            self.tally.borrow_mut().errors.unreachable += 1;
            return End::Elsewhere;
        };
        let start = Instant::now();
        self.asked.iter_mut().for_each(|asked| asked.due = start);
        self.waits_since = start;
        let mut end = End::Whole;
        while !self.asked.is_empty() {
            let stepped = self.step(&stream).await;
            match self.take_replies_or_leave(&address, stepped, end) {
                Some(so_far) => end = so_far,
                None => return End::Elsewhere,
            }
        }
        self.connection = Some((address, stream));
        end
    }

    /// Waits until the socket takes or gives something, and lets it.
    async fn step(&mut self, stream: &TcpStream) -> io::Result<()> {
        let unsent = self.batch.get(self.sent..).unwrap_or_default();
        let interest = match unsent.is_empty() {
            true => Interest::READABLE,
            false => Interest::READABLE | Interest::WRITABLE,
        };
        let ready = loop {
            tokio::select! {
                biased;
                ready = stream.ready(interest) => break ready?,
                () = self.watchdog.as_mut() => {}
            }
            // Set anew only when it goes off, which is seldom: a timer for each batch would cost
            // more than the batch.
            let due = self.waits_since + REPLY_TIME_MAX;
            if Instant::now() >= due {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.watchdog.as_mut().reset(due);
        };
        if ready.is_writable() && !unsent.is_empty() {
            match stream.try_write(unsent) {
                Ok(bytes) => {
                    self.sent += bytes;
                    self.has_sent = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if ready.is_readable() {
            self.received.reserve(READ_BYTES);
            match stream.try_read_buf(&mut self.received) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => self.waits_since = Instant::now(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Counts what has arrived in a step; the batch's end so far. `None` if the connection is lost with
    /// it.
    fn take_replies_or_leave(
        &mut self,
        address: &crate::Address,
        stepped: io::Result<()>,
        end: End,
    ) -> Option<End> {
        let lost = match (self.take_replies(end), stepped) {
            (Ok(end), Ok(())) => return Some(end),
            (Ok(_), Err(error)) => Some(error),
            (Err(Malformed), _) => None,
        };
        self.count_loss(lost.as_ref());
        self.target.forget(address);
        None
    }

    /// Counts every whole reply. The batch's end is the last refusal, or whole.
    fn take_replies(&mut self, mut end: End) -> Result<End, Malformed> {
        if self.received.is_empty() {
            return Ok(end);
        }
        let now = Instant::now();
        let mut tally = self.tally.borrow_mut();
        let mut done = 0;
        let mut taken = 0;
        let requests = &self.plan.requests;
        while let Some(Asked { what, due }) = self.asked.front().copied() {
            let rest = self.received.get(taken..).unwrap_or_default();
            let Some((said, bytes)) = requests.reply(what, rest)? else {
                break;
            };
            taken += bytes;
            self.asked.pop_front();
            let ended = match what {
                What::Set if said == Said::Stored && requests.waits() => {
                    self.stored.push(due);
                    continue;
                }
                What::Set | What::Get => &[due][..],
                What::Wait => &self.stored,
            };
            for due in ended.iter().filter(|due| **due >= self.counts_from) {
                tally.count(&said, now.duration_since(*due).as_nanos() as u64);
            }
            if said.is_done() {
                done += ended.len() as u64;
                self.redirects = 0;
            }
            if what == What::Wait {
                self.stored.clear();
            }
            end = match said {
                Said::Stored | Said::Hit | Said::Miss => end,
                Said::Refused(line) => End::Refused(line),
                Said::Redirect(leader) => End::Redirect(leader),
                Said::NoLeader | Said::Unknown => End::Elsewhere,
            };
        }
        self.received.advance(taken);
        self.target.progress(now.into_std(), done);
        Ok(end)
    }

    /// The connection is lost, for this reason or for a reply that was none: the requests that may have
    /// been sent and are not answered have an unknown outcome.
    fn count_loss(&mut self, error: Option<&io::Error>) {
        if Instant::now() < self.counts_from {
            return;
        }
        let errors = &mut self.tally.borrow_mut().errors;
        match error.map(io::Error::kind) {
            None => errors.malformed += 1,
            Some(io::ErrorKind::TimedOut) => errors.timed_out += 1,
            Some(_) => errors.closed += 1,
        }
        if self.has_sent {
            let asked = self.asked.iter().filter(|asked| asked.what != What::Wait);
            errors.unanswered += (asked.count() + self.stored.len()) as u64;
        }
    }

    /// The connection that is there, or one to the leader or the next server.
    async fn connect(&mut self) -> Option<(crate::Address, TcpStream)> {
        if let Some(connection) = self.connection.take() {
            return Some(connection);
        }
        self.received.clear();
        let address = self.target.address();
        let opening = self.plan.requests.opening(self.inbox);
        match timeout(CONNECT_TIME_MAX, open(&address, &opening)).await {
            Ok(Ok(stream)) => Some((address, stream)),
            _ => {
                self.target.forget(&address);
                None
            }
        }
    }

    /// Leaves the server that did not carry out a batch.
    async fn move_on(&mut self, end: End) {
        let left = self.connection.take();
        match end {
            End::Redirect(leader) => {
                self.target.follow(leader);
                self.redirects += 1;
                // The first redirect is the way to the leader; more in a row are an election.
                if self.redirects == 1 {
                    return;
                }
            }
            End::Whole | End::Refused(_) | End::Elsewhere => {
                if let Some((address, _)) = left {
                    self.target.forget(&address);
                }
            }
        }
        sleep(PAUSE_MAX.mul_f64(self.random.random_range(0.5..1.0))).await;
    }
}

/// A connection that has sent this.
async fn open(address: &crate::Address, opening: &[u8]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    stream.set_nodelay(true)?;
    stream.write_all(opening).await?;
    Ok(stream)
}
