//! Clients that do all sorts of things to a few keys, alone and in pipelines, at the leader and at
//! servers that may believe that they lead, and record what they were told: a history for each key.
//!
//! Values are numbers, of which each is written once and so far from the next that increments do
//! not bring them together. Increments and deletions, which cannot be told from others like them,
//! are under way on a key three at a time at most; and a key of which too many outcomes are unknown
//! is left for a new one, so that its history can be judged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::cluster::Cluster;
use crate::history::{Action, Answer, Operation, Returned};
use crate::text::Text;
use crate::wait::{deadline, moment, wait_until};

/// Keys in use at a time.
const KEYS: usize = 4;

/// Commands sent in one write.
const PIPELINE_MAX: usize = 4;

/// Operations under way on one key that others like them could be taken for.
const REPEATABLE_MAX: usize = 3;

/// When a key is left for a new one.
const UNKNOWN_MAX: usize = 20;
const OPERATIONS_MAX: usize = 5_000;

/// Of the commands of a client that stays at its server.
const READ_SHARE_OF_STAYING: f64 = 0.98;

/// How far a value is from the next: more than all increments of a key come to.
const VALUE_STRIDE: u64 = 1_000_000;

/// Values of one client.
const VALUES_MAX: u64 = 1_000_000_000;

/// How long a client waits for an answer: longer than a server may take, and not for ever, since a
/// paused one gives none.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Clients at work.
#[derive(Debug)]
pub struct Workload {
    state: Arc<State>,
    clients: Vec<JoinHandle<Recorded>>,
}

/// Each with its key.
type Recorded = Vec<(String, Operation)>;

#[derive(Debug)]
struct State {
    stop: AtomicBool,
    name: String,
    start: Instant,
    acknowledged: AtomicU64,
    pipelines: AtomicU64,
    keys: [Mutex<KeyInUse>; KEYS],
}

#[derive(Debug, Default)]
struct KeyInUse {
    generation: u64,
    operations: usize,
    unknown: usize,
    /// Increments and deletions under way.
    repeatable: usize,
}

impl Workload {
    /// Starts this many clients that go where they are sent, and one for each server that stays
    /// there and hardly ever writes: a write would keep it waiting at a leader that is cut off,
    /// where reads might be answered. The keys of two workloads on one cluster differ by `name`.
    #[must_use]
    pub fn start(cluster: &Cluster, name: &str, followers: usize, seed: u64) -> Workload {
        let state = Arc::new(State {
            stop: AtomicBool::new(false),
            name: name.to_owned(),
            start: Instant::now(),
            acknowledged: AtomicU64::new(0),
            pipelines: AtomicU64::new(0),
            keys: Default::default(),
        });
        let servers = cluster.client_addresses();
        let clients = (0..followers + servers.len()).map(|number| {
            let client = Client {
                number,
                server: number % servers.len(),
                servers: servers.clone(),
                is_led: number < followers,
                connection: None,
                random: StdRng::seed_from_u64(seed + number as u64),
                values: 0,
                told: None,
                recorded: Vec::new(),
                state: Arc::clone(&state),
            };
            thread::spawn(move || client.run())
        });
        Workload {
            clients: clients.collect(),
            state,
        }
    }

    /// How many operations have been answered so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.state.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until this many more operations have been answered, or a client has failed.
    ///
    /// # Panics
    /// When they are not in time.
    pub fn wait_for_more(&self, count: u64) {
        let wanted = self.acknowledged() + count;
        wait_until("answered operations", deadline(), || {
            let done = self.acknowledged();
            let failed = self.clients.iter().any(JoinHandle::is_finished);
            match done >= wanted || failed {
                true => Ok(()),
                false => Err(format!("{done} of {wanted}")),
            }
        });
    }

    /// Stops the clients and reads all keys once more; the history of each key.
    ///
    /// # Panics
    /// When a client was told what no server may say, or the keys cannot be read.
    #[must_use]
    pub fn stop(self, cluster: &mut Cluster) -> BTreeMap<String, Vec<Operation>> {
        self.state.stop.store(true, Ordering::Relaxed);
        let mut histories: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
        let reader = self.clients.len();
        for client in self.clients {
            let recorded = client.join();
            for (key, operation) in
                recorded.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            {
                histories.entry(key).or_default().push(operation);
            }
        }
        // By one leader and, since it stops, by another.
        for _ in 0..2 {
            let leader = cluster.agreed_leader();
            for (key, history) in &mut histories {
                history.push(self.state.read(cluster, key, reader));
            }
            cluster.terminate(leader);
            cluster.start(leader);
        }
        histories
    }
}

impl State {
    fn key(&self, number: usize) -> MutexGuard<'_, KeyInUse> {
        self.keys[number]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a key, whoever leads.
    fn read(&self, cluster: &Cluster, key: &str, client: usize) -> Operation {
        let command = Command::new(key.to_owned(), Action::Get, true);
        wait_until("a read", deadline(), || {
            let mut connection = cluster.connect_to_leader();
            let invoked = self.start.elapsed();
            connection.send(command.line());
            let Ok(Reply::Answer(answer)) = command.reply(&mut connection) else {
                return Err(format!("{key} was not answered"));
            };
            let at = self.start.elapsed();
            Ok(Operation {
                client,
                pipeline: self.pipelines.fetch_add(1, Ordering::Relaxed),
                action: command.action.clone(),
                invoked,
                returned: Some(Returned { at, answer }),
            })
        })
    }

    /// The key's name; with it the right to do to it what others do as well, if that is asked for
    /// and can be had.
    fn take(&self, number: usize, repeatable: bool) -> (String, bool) {
        let mut key = self.key(number);
        let granted = repeatable && key.repeatable < REPEATABLE_MAX;
        key.repeatable += usize::from(granted);
        let name = format!("{}-{number}-{}", self.name, key.generation);
        (name, granted)
    }

    fn give_back(&self, number: usize, repeatable: bool, is_unknown: bool) {
        let mut key = self.key(number);
        key.repeatable -= usize::from(repeatable);
        key.operations += 1;
        key.unknown += usize::from(is_unknown);
        if key.unknown >= UNKNOWN_MAX || key.operations >= OPERATIONS_MAX {
            key.generation += 1;
            (key.operations, key.unknown) = (0, 0);
        }
    }
}

/// A command on one key.
#[derive(Debug)]
struct Command {
    key: String,
    action: Action,
    /// `gets` rather than `get`.
    asks_unique: bool,
}

/// What the reply to a command says.
#[derive(Debug)]
enum Reply {
    Answer(Answer),
    /// Certainly not done. Where to go, if it is known.
    NotDone(Option<SocketAddr>),
    Unknown,
}

impl Command {
    fn new(key: String, action: Action, asks_unique: bool) -> Command {
        Command {
            key,
            action,
            asks_unique,
        }
    }

    /// As it is sent.
    fn line(&self) -> String {
        let key = &self.key;
        match &self.action {
            Action::Get if self.asks_unique => format!("gets {key}\r\n"),
            Action::Get => format!("get {key}\r\n"),
            Action::Set(value) => format!("set {key} 0 0 {}\r\n{value}\r\n", value.len()),
            Action::Cas { value, unique } => {
                format!("cas {key} 0 0 {} {unique}\r\n{value}\r\n", value.len())
            }
            Action::Delete => format!("delete {key}\r\n"),
            Action::Incr(delta) => format!("incr {key} {delta}\r\n"),
        }
    }

    /// Reads what answers it.
    ///
    /// # Panics
    /// When that is what no server may say.
    fn reply(&self, connection: &mut Text) -> std::io::Result<Reply> {
        let line = connection.try_line()?;
        if let Some(place) = line.strip_prefix("ERR_REDIRECT ") {
            let address = place.replace(' ', ":").parse();
            let address = address.unwrap_or_else(|_| panic!("{self:?} was answered {line:?}"));
            return Ok(Reply::NotDone(Some(address)));
        }
        let answer = match line.as_str() {
            "SERVER_ERROR no leader" => return Ok(Reply::NotDone(None)),
            "SERVER_ERROR outcome unknown" => return Ok(Reply::Unknown),
            "STORED" => Answer::Stored,
            "EXISTS" => Answer::Exists,
            "NOT_FOUND" => Answer::NotFound,
            "DELETED" => Answer::Deleted,
            "END" => Answer::Miss,
            _ if line.starts_with("VALUE ") => self.hit(&line, connection)?,
            _ => match line.parse() {
                Ok(number) => Answer::Number(number),
                Err(_) => panic!("{self:?} was answered {line:?}"),
            },
        };
        Ok(Reply::Answer(answer))
    }

    /// The rest of a hit that begins with `line`.
    fn hit(&self, line: &str, connection: &mut Text) -> std::io::Result<Answer> {
        let value = connection.try_line()?;
        let end = connection.try_line()?;
        let words: Vec<&str> = line.split(' ').collect();
        let unique = words.get(4).and_then(|word| word.parse().ok());
        let right = words.len() == 4 + usize::from(self.asks_unique)
            && words[1] == self.key
            && words[3].parse() == Ok(value.len())
            && unique.is_some() == self.asks_unique
            && end == "END";
        assert!(right, "{self:?} was answered {line:?}, {value:?}, {end:?}");
        Ok(Answer::Hit { value, unique })
    }
}

/// One client, which has one pipeline under way at a time.
struct Client {
    number: usize,
    servers: Vec<SocketAddr>,
    server: usize,
    /// It goes where it is sent; otherwise it stays, whatever it is told.
    is_led: bool,
    connection: Option<Text>,
    random: StdRng,
    /// Values written so far.
    values: u64,
    /// The key's number and name, and the unique that its item had.
    told: Option<(usize, String, u64)>,
    recorded: Recorded,
    state: Arc<State>,
}

/// A command that was chosen: the number of its key, and whether it is among those of which only
/// a few may be under way.
type Chosen = (usize, bool, Command);

impl Client {
    fn run(mut self) -> Recorded {
        while !self.state.stop.load(Ordering::Relaxed) {
            match self.connect() {
                Some(connection) => self.exchange(connection),
                None => {
                    self.try_another();
                    moment();
                }
            }
        }
        self.recorded
    }

    fn connect(&mut self) -> Option<Text> {
        if let Some(connection) = self.connection.take() {
            return Some(connection);
        }
        let mut connection = Text::try_connect(self.servers[self.server]).ok()?;
        connection.set_timeout(PATIENCE);
        Some(connection)
    }

    /// Sends one pipeline, and records what becomes of it.
    fn exchange(&mut self, mut connection: Text) {
        let chosen = self.choose_pipeline();
        let lines: String = chosen
            .iter()
            .map(|(_, _, command)| command.line())
            .collect();
        let pipeline = self.state.pipelines.fetch_add(1, Ordering::Relaxed);
        let invoked = self.state.start.elapsed();
        let mut is_lost = connection.try_send(lines).is_err();
        let mut refusal = None;
        for (number, repeatable, command) in chosen {
            let reply = match is_lost {
                true => None,
                false => command.reply(&mut connection).ok(),
            };
            is_lost |= reply.is_none();
            let returned = match &reply {
                Some(Reply::Answer(answer)) => {
                    assert!(
                        refusal.is_none(),
                        "{command:?} was answered {answer:?} behind a refusal"
                    );
                    self.learn(number, &command, answer);
                    self.state.acknowledged.fetch_add(1, Ordering::Relaxed);
                    Some(Returned {
                        at: self.state.start.elapsed(),
                        answer: answer.clone(),
                    })
                }
                _ => None,
            };
            let is_unknown = matches!(reply, None | Some(Reply::Unknown));
            self.state.give_back(
                number,
                repeatable,
                is_unknown && command.action != Action::Get,
            );
            if !matches!(reply, Some(Reply::NotDone(_))) {
                let operation = Operation {
                    client: self.number,
                    pipeline,
                    action: command.action,
                    invoked,
                    returned,
                };
                self.recorded.push((command.key, operation));
            }
            match reply {
                Some(Reply::NotDone(place)) => refusal = Some(place),
                Some(Reply::Unknown) => refusal = Some(None),
                _ => {}
            }
        }
        self.go_on(connection, is_lost, refusal);
    }

    /// Stays with the connection, or not.
    fn go_on(&mut self, connection: Text, is_lost: bool, refusal: Option<Option<SocketAddr>>) {
        if is_lost {
            self.try_another();
        } else if refusal.is_none() || !self.is_led {
            self.connection = Some(connection);
        }
        match refusal {
            Some(Some(place)) if self.is_led => {
                let known = self.servers.iter().position(|server| *server == place);
                self.server = known.unwrap_or(self.server);
            }
            Some(_) => {
                self.try_another();
                // A cluster without a leader is not to be drowned in questions for one.
                moment();
            }
            None => {}
        }
    }

    fn try_another(&mut self) {
        if self.is_led {
            self.server = (self.server + 1) % self.servers.len();
        }
    }

    fn learn(&mut self, number: usize, command: &Command, answer: &Answer) {
        if let Answer::Hit {
            unique: Some(unique),
            ..
        } = answer
        {
            self.told = Some((number, command.key.clone(), *unique));
        }
    }

    fn choose_pipeline(&mut self) -> Vec<Chosen> {
        let count = match self.random.random_bool(0.5) {
            true => 1,
            false => self.random.random_range(2..=PIPELINE_MAX),
        };
        (0..count).map(|_| self.choose()).collect()
    }

    fn choose(&mut self) -> Chosen {
        let reads = !self.is_led && self.random.random_bool(READ_SHARE_OF_STAYING);
        if !reads
            && self.random.random_bool(0.5)
            && let Some((number, key, unique)) = self.told.take()
        {
            let value = self.next_value();
            let action = Action::Cas { value, unique };
            return (number, false, Command::new(key, action, false));
        }
        let number = self.random.random_range(0..KEYS);
        let kind = self
            .random
            .random_range(if reads { 50..100 } else { 0..100 });
        let (key, repeatable) = self.state.take(number, kind < 25);
        let action = match kind {
            0..10 if repeatable => Action::Delete,
            10..18 if repeatable => Action::Incr(1),
            18..25 if repeatable => Action::Incr(7),
            0..50 => Action::Set(self.next_value()),
            _ => Action::Get,
        };
        (number, repeatable, Command::new(key, action, kind >= 75))
    }

    fn next_value(&mut self) -> String {
        self.values += 1;
        let client = self.number as u64 + 1;
        ((client * VALUES_MAX + self.values) * VALUE_STRIDE).to_string()
    }
}
