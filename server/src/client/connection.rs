//! One client's connection: bytes to `protocol::Session` and back, runs of commands to the
//! evaluator, outcomes from it. All of it moves whenever any of it can: the task never waits for
//! one thing while another could go on, and never blocks its thread.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use command::Outcome;
use evaluator::{Batch, ConnectionId};
use protocol::{Run, Session};
use raft::Index;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, PollSemaphore, WaitForCancellationFutureOwned};

use super::dumps::{DumpError, Dumping};
use super::held::HeldHere;
use super::mailbox::{Inbox, Recipient};
use super::stats::Activity;
use super::{Clients, FromClient, stats};
use crate::bell;
use crate::room::Room;

/// The pieces of one vectored write.
const PIECES_MAX: usize = 64;

/// How long, and how much, a closed connection's client is listened to without being heard: to
/// close while bytes lie unread would take back replies that are still under way.
pub(super) const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1 << 20;

/// A server that stops closes a connection on which nothing has come or gone for this long. What is
/// said until then is refused, and certainly not done; closed any sooner, the next command of a
/// busy client would be on its way, and its outcome unknown.
pub(crate) const QUIET: Duration = Duration::from_millis(500);

pub(super) struct Connection {
    id: ConnectionId,
    stream: TcpStream,
    session: Session,
    clients: Arc<Clients>,
    /// Commands that are parsed and have no room in the evaluator's channel.
    run: Option<Run>,
    /// How many runs there have been.
    runs: u64,
    room: PollSemaphore,
    /// Where outcomes are to go, until the evaluator knows.
    recipient: Option<Recipient>,
    has_asked: bool,
    /// The list of keys that the session owes, once it is begun.
    dumping: Option<Dumping>,
    /// When the client was last heard, for others.
    activity: Arc<Activity>,
    /// How many items were too large, as far as that was counted.
    too_large: u64,
    /// The client has sent all it ever will.
    ended: bool,
    /// The evaluator is to know that the client waits for no message any longer, once there is room to
    /// tell it.
    stops_waiting: bool,
    /// The evaluator gives nothing more: what is owed will never come.
    is_cut_off: bool,
    /// The task is woken when the client says something, and has nothing to do until then but to answer.
    only_listens: bool,
    held: HeldHere,
    /// Runs while a command is there in part.
    patience: Option<Patience>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    /// When something was last received or sent.
    active_at: Instant,
    /// Ends when it may have been quiet for long enough. There once the server stops.
    quiet: Option<Pin<Box<Sleep>>>,
}

/// Why a connection is over.
pub(super) enum End {
    /// All is said: the client may still read the last of it.
    Said,
    /// There is nobody left to talk to, or nothing left to say to them.
    Broken,
}

/// How long the rest of a command is waited for.
struct Patience {
    /// The runs and the reply bytes that there were when the command began to be there in part.
    progress: (u64, u64),
    end: Pin<Box<Sleep>>,
}

/// Something moved, so that something else may be able to.
type Moved = bool;

impl Connection {
    pub(super) fn new(
        id: ConnectionId,
        stream: TcpStream,
        clients: Arc<Clients>,
        activity: Arc<Activity>,
        stop: CancellationToken,
    ) -> Connection {
        Connection {
            id,
            stream,
            session: Session::new(clients.limits),
            run: None,
            runs: 0,
            room: clients.evaluator.poll_room(),
            held: HeldHere::new(&clients.held),
            clients,
            recipient: None,
            has_asked: false,
            dumping: None,
            activity,
            too_large: 0,
            ended: false,
            stops_waiting: false,
            is_cut_off: false,
            only_listens: false,
            patience: None,
            // Of its own, so that connections do not wait for each other to look at it.
            stop: Box::pin(stop.child_token().cancelled_owned()),
            active_at: Instant::now(),
            quiet: None,
        }
    }

    /// The same, with its outcomes to go there.
    pub(super) fn with_recipient(self, recipient: Recipient) -> Connection {
        Connection {
            recipient: Some(recipient),
            ..self
        }
    }

    /// Says so where that matters.
    pub(super) async fn end(self, end: End) {
        if self.has_asked {
            let room = self.clients.evaluator.reserve(0).await;
            self.clients
                .evaluator
                .send(room, FromClient::Disconnected(self.id));
        }
        if matches!(end, End::Said) {
            let _ = timeout(LINGER, linger(self.stream)).await;
        }
    }

    /// Moves all that can be moved.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, inbox: &Inbox) -> Poll<End> {
        if self.quiet.is_none() && self.stop.as_mut().poll(context).is_ready() {
            self.quiet = Some(Box::pin(sleep_until(self.active_at + QUIET)));
        }
        loop {
            bell::ring_overdue();
            let moved = self.take_outcomes(inbox)
                | self.hand_out(context)
                | self.stop_waiting(context)
                | match self.dump(context) {
                    Ok(moved) => moved,
                    Err(_) => return Poll::Ready(End::Broken),
                }
                | match self.write(context) {
                    Ok(moved) => moved,
                    Err(_) => return Poll::Ready(End::Broken),
                };
            if self.is_over(context) {
                return Poll::Ready(End::Said);
            }
            if self.is_cut_off || !self.held.set(self.session.held_bytes()) {
                return Poll::Ready(End::Broken);
            }
            let received = match self.read(context) {
                Ok(moved) => moved,
                Err(_) => return Poll::Ready(End::Broken),
            };
            if !moved && !received {
                break;
            }
        }
        if self.runs_out_of_patience(context) {
            return Poll::Ready(End::Said);
        }
        Poll::Pending
    }

    /// Turns the outcomes that are there into replies.
    fn take_outcomes(&mut self, inbox: &Inbox) -> Moved {
        let Some(outcomes) = inbox.take() else {
            self.is_cut_off = true;
            return false;
        };
        self.reply(outcomes)
    }

    fn reply(&mut self, outcomes: Vec<Outcome>) -> Moved {
        let moved = !outcomes.is_empty();
        let clients = &self.clients;
        self.session
            .outcomes(outcomes, |kind| stats::lines(clients, kind));
        moved
    }

    /// Writes the replies to a few commands, if nothing else is to be done. False if the task is to go
    /// on, which may have everything left to do.
    pub(super) fn deliver(&mut self, inbox: &Inbox) -> bool {
        // What a socket has not taken may be much. And a reply lets the rest of a command take longer.
        let waits = self.session.output().has_remaining() || self.patience.is_some();
        if !self.only_listens || waits {
            return false;
        }
        let Some(outcomes) = inbox.take_few() else {
            return false;
        };
        self.reply(outcomes);
        while self.session.output().has_remaining() && !self.session.owes_refusal() {
            let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
            let count = self.session.output().chunks_vectored(&mut pieces);
            match self.stream.try_write_vectored(&pieces[..count]) {
                Ok(written) => self.written(written, 0),
                // The task finds the same.
                Err(_) => break,
            }
        }
        let is_written = !self.session.output().has_remaining();
        let is_held = self.held.set(self.session.held_bytes());
        // It is to hear more, as before, and so there is nothing that it could parse or close.
        is_written && is_held && self.session.wants_input()
    }

    /// Goes on with a list of keys, as far as there is room.
    fn dump(&mut self, context: &mut Context<'_>) -> Result<Moved, DumpError> {
        if !self.session.owes_dump() {
            self.dumping = None;
            return Ok(false);
        }
        if let (None, Some((dump, last_applied))) = (&self.dumping, self.session.dump()) {
            let dumps = &self.clients.dumps;
            self.dumping = dumps.begin(dump, Index(last_applied), &self.session);
            if self.dumping.is_none() {
                self.session.refuse_dump();
                return Ok(true);
            }
        }
        let Some(dumping) = &mut self.dumping else {
            return Ok(false);
        };
        match dumping.poll(&mut self.session, context) {
            Poll::Ready(result) => result.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    /// Gives the evaluator the whole commands that were received, as far as there is room.
    fn hand_out(&mut self, context: &mut Context<'_>) -> Moved {
        let mut moved = false;
        loop {
            if self.run.is_none() {
                self.run = self.session.next_run();
                self.runs += u64::from(self.run.is_some());
                self.count_too_large();
            }
            let Some(run) = &self.run else {
                return moved;
            };
            let units = self.clients.evaluator.units(run.bytes);
            let Poll::Ready(permit) = self.room.poll_acquire_many(context, units) else {
                return moved;
            };
            let room = Room::from_permit(permit.expect("the semaphore is never closed"));
            if let Some(run) = self.run.take() {
                self.send(room, run);
                moved = true;
            }
        }
    }

    fn count_too_large(&mut self) {
        let too_large = self.session.too_large();
        if too_large > self.too_large {
            let more = too_large - self.too_large;
            self.clients.counters.too_large.add(more);
            self.too_large = too_large;
        }
    }

    fn send(&mut self, room: Room, run: Run) {
        let batch = Batch {
            connection: self.id,
            epoch: run.epoch,
            commands: run.commands,
            is_local: false,
        };
        let outcomes = self.recipient.take();
        self.has_asked = true;
        self.clients
            .evaluator
            .send(room, FromClient::Batch { batch, outcomes });
        // Who is gone waits for nothing, however many commands were sent before.
        self.stops_waiting |= self.ended && self.session.awaits_message();
    }

    /// Writes what the socket takes.
    fn write(&mut self, context: &mut Context<'_>) -> io::Result<Moved> {
        let mut moved = false;
        while self.session.output().has_remaining() {
            // What lies unread was sent before the client can have seen this refusal (rule 54).
            let unread = if self.session.owes_refusal() {
                rustix::io::ioctl_fionread(&self.stream)?
            } else {
                0
            };
            let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
            let count = self.session.output().chunks_vectored(&mut pieces);
            let stream = Pin::new(&mut self.stream);
            match stream.poll_write_vectored(context, &pieces[..count]) {
                Poll::Ready(written) => self.written(written?, unread),
                Poll::Pending => break,
            }
            moved = true;
            if self.session.output().has_remaining() {
                bell::ring_overdue();
            }
        }
        Ok(moved)
    }

    fn written(&mut self, bytes: usize, unread: u64) {
        self.clients.counters.written.add(bytes as u64);
        self.session.written(bytes, unread);
        self.active_at = Instant::now();
    }

    /// Reads what has arrived, once.
    fn read(&mut self, context: &mut Context<'_>) -> io::Result<Moved> {
        self.only_listens = false;
        if self.ended || self.run.is_some() || !self.listens() {
            return Ok(false);
        }
        let read = pin!(self.stream.read_buf(self.session.receive_buffer()));
        match read.poll(context) {
            Poll::Ready(Ok(0)) => {
                self.ended = true;
                self.stops_waiting = self.session.awaits_message();
                Ok(true)
            }
            Poll::Ready(result) => {
                self.active_at = Instant::now();
                self.activity.heard(self.active_at);
                let count = result?;
                self.clients.counters.read.add(count as u64);
                Ok(true)
            }
            Poll::Pending => {
                self.only_listens = self.session.wants_input() && self.quiet.is_none();
                Ok(false)
            }
        }
    }

    /// Whether the client is listened to. While it waits for a message that is only to learn that it
    /// goes away: what it says meanwhile is kept, up to a limit.
    fn listens(&mut self) -> bool {
        let read_bytes = self.clients.limits.read_bytes;
        self.session.wants_input()
            || self.session.awaits_message() && self.session.receive_buffer().len() < read_bytes
    }

    /// Tells the evaluator that the client waits no longer.
    fn stop_waiting(&mut self, context: &mut Context<'_>) -> Moved {
        if !self.stops_waiting || self.run.is_some() {
            return false;
        }
        let Poll::Ready(permit) = self.room.poll_acquire_many(context, 1) else {
            return false;
        };
        let room = Room::from_permit(permit.expect("the semaphore is never closed"));
        self.clients
            .evaluator
            .send(room, FromClient::StopWaiting(self.id));
        self.stops_waiting = false;
        true
    }

    /// Whether nothing is owed to the client, and nothing is expected of it.
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        if self.session.should_close() {
            return true;
        }
        if self.run.is_some() || !self.session.is_settled() {
            return false;
        }
        self.ended
            || self.is_quiet(context) && rustix::io::ioctl_fionread(&self.stream).unwrap_or(0) == 0
    }

    /// Whether the server stops, and the client has been quiet for so long that nothing of it is
    /// on its way.
    fn is_quiet(&mut self, context: &mut Context<'_>) -> bool {
        let end = self.active_at + QUIET;
        let Some(quiet) = &mut self.quiet else {
            return false;
        };
        if quiet.deadline() < end {
            quiet.as_mut().reset(end);
        }
        quiet.as_mut().poll(context).is_ready()
    }

    /// Whether a command has been in coming for too long.
    fn runs_out_of_patience(&mut self, context: &mut Context<'_>) -> bool {
        if !self.session.holds_partial_command() {
            self.patience = None;
            return false;
        }
        // A client that completes one command after the other is never here for long.
        let progress = (self.runs, self.session.output().appended_bytes());
        let limit = self.clients.incomplete_command;
        match &mut self.patience {
            Some(patience) if patience.progress == progress => {}
            patience => {
                *patience = Some(Patience {
                    progress,
                    end: Box::pin(sleep(limit)),
                });
            }
        }
        let patience = self.patience.as_mut();
        patience.is_some_and(|patience| patience.end.as_mut().poll(context).is_ready())
    }
}

/// Says that nothing more will come, and reads on until the client says so too.
pub(super) async fn linger(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut discarded = [0; 4096];
    let mut total = 0;
    while total < LINGER_BYTES_MAX {
        match stream.read(&mut discarded).await? {
            0 => break,
            count => total += count,
        }
    }
    Ok(())
}
