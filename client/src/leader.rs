//! Where commands go: finds the leader by asking any server, follows redirects, keeps connections
//! to it, and sends again what was certainly not carried out, until a deadline.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::{RngExt, rngs::StdRng};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::connection::{Connection, End};
use crate::request::{Answer, Request};
use crate::{Address, Doubt, NotDone, Outcome};

/// How long a command that changes nothing waits for a silent server before it is sent to another
/// one. A server answers within 1 s what it has accepted.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// The first pause before a command is sent again; each following one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(4);

/// The longest pause: an election takes 150 ms and more.
const PAUSE_MAX: Duration = Duration::from_millis(128);

/// The servers as one client knows them.
#[derive(Debug)]
pub(crate) struct Leader {
    servers: Vec<Address>,
    /// One for each connection that may be open.
    permits: Semaphore,
    /// Never held across an await.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The server that led when it was last heard of.
    leader: Option<Address>,
    /// Which of `servers` is asked when no leader is known; counts up.
    next: usize,
    /// Connections to `leader` that nobody uses.
    idle: Vec<Connection>,
    random: StdRng,
}

/// The fates of the commands of one pipeline while they are found out.
struct Pipeline<'a> {
    requests: &'a [Request],
    /// `None` for those that are to be sent, again or at all.
    outcomes: Vec<Option<Outcome<Answer>>>,
    /// Why those were not carried out the last time.
    reason: NotDone,
}

/// What an attempt says about where to go next.
enum Course {
    /// All fates are known.
    Settled,
    /// To this server, which is said to lead.
    Redirect(Address),
    /// To any server, after a pause.
    Elsewhere,
}

impl Leader {
    /// # Panics
    /// Without servers or without connections.
    pub(crate) fn new(servers: Vec<Address>, connections_max: usize) -> Self {
        assert!(!servers.is_empty(), "a client needs a server to ask");
        assert!(connections_max > 0, "a client needs a connection");
        let mut random: StdRng = rand::make_rng();
        // Many clients that start at once do not all ask the same server.
        let next = random.random_range(0..servers.len());
        let state = State {
            leader: None,
            next,
            idle: Vec::new(),
            random,
        };
        Self {
            servers,
            permits: Semaphore::new(connections_max),
            state: Mutex::new(state),
        }
    }

    /// The server that led when it was last heard of.
    pub(crate) fn address(&self) -> Option<Address> {
        self.lock().leader.clone()
    }

    /// Carries out these requests in this order on one connection, and returns one outcome for
    /// each. What was certainly not carried out is sent again, in the same order, until the
    /// deadline; but nothing that follows a command whose outcome is unknown, since that one may
    /// still be carried out after it.
    pub(crate) async fn run(
        &self,
        requests: &[Request],
        deadline: Instant,
    ) -> Vec<Outcome<Answer>> {
        let mut pipeline = Pipeline::new(requests);
        let mut failures = 0;
        let mut redirects = 0;
        loop {
            match self.attempt(&mut pipeline, deadline).await {
                Course::Settled => break,
                Course::Redirect(leader) => {
                    redirects += 1;
                    self.follow(leader);
                    // The first redirect is the way to the leader; more in a row are an election.
                    if redirects == 1 {
                        continue;
                    }
                }
                Course::Elsewhere => redirects = 0,
            }
            let pause = self.pause(failures);
            failures += 1;
            let end = Instant::now() + pause;
            if end >= deadline {
                break;
            }
            sleep_until(end).await;
        }
        pipeline.finish()
    }

    /// Sends what is not settled yet once.
    async fn attempt(&self, pipeline: &mut Pipeline<'_>, deadline: Instant) -> Course {
        let pending = pipeline.pending();
        if pending.is_empty() {
            return Course::Settled;
        }
        let Ok(Ok(permit)) = timeout_at(deadline, self.permits.acquire()).await else {
            return Course::Settled;
        };
        let mut connection = match self.connection(deadline, &permit).await {
            Ok(connection) => connection,
            Err((address, error)) => {
                let error = Arc::new(error);
                pipeline.learn_silence(NotDone::Unreachable { address, error });
                return Course::Elsewhere;
            }
        };
        let requests: Vec<&Request> = pending.iter().map(|&i| &pipeline.requests[i]).collect();
        let silence_max = match requests.iter().all(|request| request.changes_nothing()) {
            true => SILENCE_MAX,
            false => deadline.saturating_duration_since(Instant::now()),
        };
        let exchange = connection.exchange(&requests, deadline, silence_max).await;
        let whole = matches!(exchange.end, End::Whole);
        let address = connection.address().clone();
        let course = pipeline.learn(&pending, exchange.answers, exchange.end, &address);
        match (&course, whole) {
            (Course::Settled, true) => self.keep(connection, pipeline.was_led()),
            (Course::Redirect(_), _) => {}
            (Course::Settled | Course::Elsewhere, _) => self.forget(&address),
        }
        course
    }

    /// A connection to the leader, or to the next server to ask; on failure which one it was.
    async fn connection(
        &self,
        deadline: Instant,
        _permit: &SemaphorePermit<'_>,
    ) -> Result<Connection, (Address, io::Error)> {
        // Lets the runtime look at the sockets first, so that one that was closed is seen to be.
        tokio::task::yield_now().await;
        while let Some(connection) = self.take_idle() {
            if connection.is_usable() {
                return Ok(connection);
            }
        }
        let address = self.target();
        match Connection::open(&address, deadline).await {
            Ok(connection) => Ok(connection),
            Err(error) => {
                self.forget(&address);
                Err((address, error))
            }
        }
    }

    fn take_idle(&self) -> Option<Connection> {
        self.lock().idle.pop()
    }

    fn target(&self) -> Address {
        let state = self.lock();
        let next = || self.servers[state.next % self.servers.len()].clone();
        state.leader.clone().unwrap_or_else(next)
    }

    /// This server is said to lead.
    fn follow(&self, leader: Address) {
        let mut state = self.lock();
        if state.leader.as_ref() != Some(&leader) {
            state.idle.clear();
            state.leader = Some(leader);
        }
    }

    /// This server does not answer as a leader does: if it was thought to be one, none is known,
    /// and another server is asked next.
    fn forget(&self, address: &Address) {
        let mut state = self.lock();
        if state.leader.as_ref() == Some(address) {
            state.leader = None;
            state.idle.clear();
        }
        if state.leader.is_none() && self.servers[state.next % self.servers.len()] == *address {
            state.next = state.next.wrapping_add(1);
        }
    }

    /// Keeps a connection to the leader for the next commands. Its server is the leader if it
    /// `led`: answered what only a leader answers.
    fn keep(&self, connection: Connection, led: bool) {
        let mut state = self.lock();
        if state.leader.is_none() && led {
            state.leader = Some(connection.address().clone());
        }
        if state.leader.as_ref() == Some(connection.address()) {
            state.idle.push(connection);
        }
    }

    /// Between half and all of `PAUSE_MIN` doubled `failures` times.
    fn pause(&self, failures: u32) -> Duration {
        let whole = PAUSE_MIN
            .saturating_mul(1 << failures.min(16))
            .min(PAUSE_MAX);
        let share = self.lock().random.random_range(0.5..1.0);
        whole.mul_f64(share)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // No code that holds the lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Pipeline<'a> {
    fn new(requests: &'a [Request]) -> Self {
        Self {
            requests,
            outcomes: requests.iter().map(|_| None).collect(),
            reason: NotDone::TooLate,
        }
    }

    /// Which requests are to be sent, in order.
    fn pending(&self) -> Vec<usize> {
        let outcomes = self.outcomes.iter().enumerate();
        let pending = outcomes.filter(|(_, outcome)| outcome.is_none());
        pending.map(|(i, _)| i).collect()
    }

    /// Takes in that a server said nothing. If another one has said that nobody leads, or that it
    /// has no room, that says more.
    fn learn_silence(&mut self, reason: NotDone) {
        if !matches!(self.reason, NotDone::NoLeader | NotDone::OutOfDisk) {
            self.reason = reason;
        }
    }

    /// Takes in how the requests with these numbers fared at a server.
    fn learn(
        &mut self,
        pending: &[usize],
        answers: Vec<Answer>,
        end: End,
        address: &Address,
    ) -> Course {
        let mut redirect = None;
        let answered = answers.len();
        for (&i, answer) in pending.iter().zip(answers) {
            match answer {
                Answer::Redirect(leader) => {
                    self.reason = NotDone::Redirected {
                        address: leader.clone(),
                    };
                    redirect = Some(leader);
                }
                Answer::NoLeader => self.reason = NotDone::NoLeader,
                Answer::OutOfDisk => self.reason = NotDone::OutOfDisk,
                Answer::Unknown if self.requests[i].changes_nothing() => {
                    self.reason = NotDone::NoLeader;
                }
                Answer::Unknown => self.outcomes[i] = Some(Outcome::Unknown(Doubt::Server)),
                Answer::Refused(line) => {
                    let refused = NotDone::Refused { line };
                    self.outcomes[i] = Some(Outcome::NotDone(refused));
                }
                answer => self.outcomes[i] = Some(Outcome::Done(answer)),
            }
        }
        let unanswered = pending.get(answered..).unwrap_or_default();
        self.learn_end(unanswered, answered, end, address);
        self.settle_around_unknown(address);
        match redirect {
            _ if self.outcomes.iter().all(Option::is_some) => Course::Settled,
            Some(leader) => Course::Redirect(leader),
            None => Course::Elsewhere,
        }
    }

    /// Takes in what the end of an exchange means for the requests that it left without answer.
    fn learn_end(&mut self, unanswered: &[usize], answered: usize, end: End, address: &Address) {
        let address = || address.clone();
        let (sent, doubt, reason) = match end {
            End::Whole => return,
            End::Broken { sent, error } => {
                let error = Arc::new(error);
                let doubt = Doubt::Broken {
                    address: address(),
                    error: Arc::clone(&error),
                };
                let address = address();
                (sent, doubt, NotDone::Unreachable { address, error })
            }
            End::Unanswered { sent } => (
                sent,
                Doubt::Unanswered { address: address() },
                NotDone::Unanswered { address: address() },
            ),
            End::Malformed { sent } => (
                sent,
                Doubt::Malformed { address: address() },
                NotDone::Unanswered { address: address() },
            ),
        };
        self.learn_silence(reason);
        for &i in unanswered.iter().take(sent.saturating_sub(answered)) {
            if !self.requests[i].changes_nothing() {
                self.outcomes[i] = Some(Outcome::Unknown(doubt.clone()));
            }
        }
    }

    /// Whether a leader answered at least one of the requests.
    fn was_led(&self) -> bool {
        let mut fates = self.requests.iter().zip(&self.outcomes);
        fates.any(|(request, outcome)| {
            request.needs_leader() && matches!(outcome, Some(Outcome::Done(_)))
        })
    }

    /// Once an outcome is unknown nothing is sent again: it might be carried out after the command
    /// in doubt, though it stands before it, or before it, though it stands after it.
    fn settle_around_unknown(&mut self, address: &Address) {
        let unknown = |outcome: &Option<_>| matches!(outcome, Some(Outcome::Unknown(_)));
        let Some(first) = self.outcomes.iter().position(unknown) else {
            return;
        };
        for (i, outcome) in self.outcomes.iter_mut().enumerate() {
            let reason = match i < first {
                true => {
                    let address = address.clone();
                    NotDone::Unanswered { address }
                }
                false => NotDone::AfterUnknown,
            };
            outcome.get_or_insert(Outcome::NotDone(reason));
        }
    }

    /// The fates; those that are not settled are those of commands that were not carried out.
    fn finish(self) -> Vec<Outcome<Answer>> {
        let reason = self.reason;
        let outcomes = self.outcomes.into_iter();
        outcomes
            .map(|outcome| outcome.unwrap_or_else(|| Outcome::NotDone(reason.clone())))
            .collect()
    }
}
