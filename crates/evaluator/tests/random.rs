//! Random faults, seeded: what was acknowledged is there, what was refused is not, no read is
//! stale, every command is answered in time, and servers that have applied as much are the same.

mod cluster;

use std::collections::BTreeMap;

use command::{Command, Outcome, Refusal, Reply};
use quorate_evaluator::Input;
use raft::{Index, ServerId};

use cluster::*;

const CLIENTS: u64 = 6;

/// One client with a key of its own, which only it writes.
struct Client {
    key: String,
    server: ServerId,
    connection: u64,
    epoch: u64,
    /// Under way, in order, and when they were sent.
    sent: Vec<Operation>,
    sent_ms: u64,
    outcomes: Vec<Outcome>,
    next_value: u64,
    /// What the key holds, as far as is known.
    value: Option<String>,
    /// Values that it may have taken since, in the order in which they were written.
    perhaps: Vec<String>,
}

#[derive(Clone, Debug)]
enum Operation {
    Set(String),
    Get,
    /// Of the counter that all share.
    Count,
    /// Something that expires.
    Expiring,
}

/// What a run came to.
#[derive(Default, Debug, PartialEq, Eq)]
struct Tally {
    acknowledged: u64,
    refused: u64,
    unknown: u64,
    counted: u64,
    counted_perhaps: u64,
    leader_changes: u64,
    /// Of all outcomes, in order.
    digest: u64,
}

struct Run {
    it: Cluster,
    random: Random,
    clients: Vec<Client>,
    next_connection: u64,
    tally: Tally,
    /// The state at each index, as the first server to get there had it.
    states: BTreeMap<Index, u64>,
    leader: Option<ServerId>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut random = Random(seed);
        let servers = [1, 3, 3, 5][random.below(4) as usize];
        let mut it = Cluster::new(servers);
        it.random = Random(random.next());
        for id in it.ids() {
            it.server(id).wall_offset_ms = random.below(20_000) as i64 - 10_000;
        }
        let client = |number: u64| Client {
            key: format!("key{number}"),
            server: ServerId(1 + number % servers),
            connection: number,
            epoch: 0,
            sent: Vec::new(),
            sent_ms: 0,
            outcomes: Vec::new(),
            next_value: 0,
            value: None,
            perhaps: Vec::new(),
        };
        Run {
            clients: (0..CLIENTS).map(client).collect(),
            it,
            random,
            next_connection: CLIENTS,
            tally: Tally::default(),
            states: BTreeMap::new(),
            leader: None,
        }
    }

    fn run(mut self, ms: u64) -> Tally {
        let mut next_fault = 500;
        for now in 0..ms {
            if now >= next_fault {
                self.fault();
                next_fault = now + 20 + self.random.below(600);
            }
            self.clients_act();
            self.it.run_ms(1);
            self.clients_hear();
            self.compare_states();
        }
        self.finish()
    }

    fn fault(&mut self) {
        let ids = self.it.ids();
        let id = ids[self.random.below(ids.len() as u64) as usize];
        let other = ids[self.random.below(ids.len() as u64) as usize];
        match self.random.below(12) {
            0 | 1 => self.it.heal(),
            2 => self.it.isolate(id),
            3 => {
                self.it.cut.insert((id, other));
            }
            4 => self.it.loss_percent = self.random.below(30),
            5 => self.it.delay_ms_max = self.random.below(30),
            6 | 7 => self.toggle(id),
            8 => {
                if let Some(leader) = self.it.leader() {
                    self.toggle(leader);
                }
            }
            9 => self.it.server(id).disk_stalled = true,
            10 => self.it.server(id).disk_stalled = false,
            _ => {
                if self.it.is_up(id) && self.random.below(3) == 0 {
                    self.it.input(id, Input::Transfer);
                }
            }
        }
    }

    /// Crashes a server, or starts it again.
    fn toggle(&mut self, id: ServerId) {
        if !self.it.is_up(id) {
            self.it.start(id);
            return;
        }
        self.it.crash(id);
        for at in 0..self.clients.len() {
            if self.clients[at].server == id {
                self.connection_lost(at);
            }
        }
    }

    /// Nobody will say what became of what was under way.
    fn connection_lost(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.outcomes.clear();
        for operation in std::mem::take(&mut client.sent) {
            match operation {
                Operation::Set(value) => client.perhaps.push(value),
                Operation::Count => self.tally.counted_perhaps += 1,
                Operation::Get | Operation::Expiring => {}
            }
        }
        self.connect_anywhere(at);
    }

    fn connect_anywhere(&mut self, at: usize) {
        let servers = self.it.servers.len() as u64;
        let server = ServerId(1 + self.random.below(servers));
        self.connect(at, server);
    }

    fn connect(&mut self, at: usize, server: ServerId) {
        let client = &mut self.clients[at];
        if self.it.is_up(client.server) {
            self.it.disconnect(client.server, client.connection);
        }
        client.server = server;
        client.connection = self.next_connection;
        client.epoch = 0;
        self.next_connection += 1;
    }

    fn clients_act(&mut self) {
        for at in 0..self.clients.len() {
            if !self.clients[at].sent.is_empty() || self.random.below(4) > 0 {
                continue;
            }
            if !self.it.is_up(self.clients[at].server) || self.random.below(50) == 0 {
                self.connect_anywhere(at);
                continue;
            }
            self.send(at);
        }
    }

    fn send(&mut self, at: usize) {
        let count = 1 + self.random.below(5);
        let client = &mut self.clients[at];
        let mut commands: Vec<Command> = Vec::new();
        for _ in 0..count {
            let (operation, command) = match self.random.below(8) {
                0..3 => {
                    client.next_value += 1;
                    let value = client.next_value.to_string();
                    let command = set(&client.key, &value);
                    (Operation::Set(value), command)
                }
                3..6 => (Operation::Get, get(&client.key)),
                6 => (Operation::Count, incr("counter")),
                _ => {
                    let key = format!("expiring{}", self.random.below(30));
                    let exptime = 1 + self.random.below(3) as i32;
                    (Operation::Expiring, set_for(&key, exptime))
                }
            };
            client.sent.push(operation);
            commands.push(command);
        }
        client.sent_ms = self.it.now_ms;
        let (server, connection, epoch) = (client.server, client.connection, client.epoch);
        // Part of it may come as a batch of its own.
        let rest = commands.split_off(self.random.below(count) as usize);
        for commands in [commands, rest] {
            if !commands.is_empty() {
                self.it.send_batch(server, connection, epoch, commands);
            }
        }
    }

    fn clients_hear(&mut self) {
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            if client.sent.is_empty() {
                continue;
            }
            let outcomes = self.it.outcomes(client.server, client.connection);
            client.outcomes.extend(outcomes);
            if client.outcomes.len() < client.sent.len() {
                let waited = self.it.now_ms - client.sent_ms;
                assert!(waited <= 1000, "a command waits for {waited} ms");
                continue;
            }
            self.hear(at);
        }
    }

    fn hear(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let outcomes = std::mem::take(&mut client.outcomes);
        let sent = std::mem::take(&mut client.sent);
        assert_eq!(outcomes.len(), sent.len());
        let mut refused = false;
        let mut redirect = None;
        for (operation, outcome) in sent.into_iter().zip(outcomes) {
            self.tally.note(&outcome);
            match &outcome {
                Outcome::Done(_) => assert!(!refused, "{outcome:?} behind a refusal"),
                Outcome::NotDone(Refusal::Redirect { host, .. }) => {
                    let id = host.trim_start_matches("host").parse();
                    redirect = Some(ServerId(id.expect("a host of a test")));
                    refused = true;
                }
                Outcome::NotDone(Refusal::NoLeader | Refusal::OutOfDisk) | Outcome::Unknown => {
                    refused = true;
                }
            }
            match operation {
                Operation::Set(value) => self.clients[at].wrote(value, &outcome),
                Operation::Get => self.clients[at].read(&outcome),
                Operation::Count => self.tally.count(&outcome),
                Operation::Expiring => {}
            }
        }
        if refused {
            self.clients[at].epoch += 1;
            match redirect {
                Some(server) => self.connect(at, server),
                None if self.random.below(2) == 0 => self.connect_anywhere(at),
                None => {}
            }
        }
    }

    /// Servers that have applied as much hold the same.
    fn compare_states(&mut self) {
        for id in self.it.ids() {
            if !self.it.is_up(id) || !self.it.now_ms.is_multiple_of(5) {
                continue;
            }
            let index = self.it.status(id).last_applied;
            let hash = self.it.evaluator(id).state_hash();
            let first = *self.states.entry(index).or_insert(hash);
            assert_eq!(hash, first, "server {id} at index {index}");
        }
        let leader = self.it.leader();
        if leader.is_some() && leader != self.leader {
            self.leader = leader;
            self.tally.leader_changes += 1;
        }
    }

    /// Heals everything; what was acknowledged must be there.
    fn finish(mut self) -> Tally {
        for id in self.it.ids() {
            // One that was told to stop would take no writes.
            if self.it.is_up(id) {
                self.toggle(id);
            }
            self.toggle(id);
        }
        self.it.heal();
        let leader = self.it.await_leader();
        for at in 0..self.clients.len() {
            let key = self.clients[at].key.clone();
            let connection = self.next_connection;
            self.next_connection += 1;
            let outcomes = self.it.ask(leader, connection, vec![get(&key)]);
            self.clients[at].read(&outcomes[0]);
        }
        let outcomes = self.it.ask(leader, u64::MAX - 1, vec![get("counter")]);
        let counter = value(&outcomes[0]).map_or(0, |value| {
            value
                .trim_end()
                .parse::<u64>()
                .expect("a counter is a number")
        });
        let counted = self.tally.counted;
        assert!(
            (counted..=counted + self.tally.counted_perhaps).contains(&counter),
            "{counter} of {counted} and perhaps {} more",
            self.tally.counted_perhaps,
        );
        let outcomes = self.it.ask(leader, u64::MAX - 2, vec![set("last", "v")]);
        assert_eq!(outcomes, [stored()]);
        self.it.run_ms(6000);
        self.compare_states();
        let statuses: Vec<_> = self
            .it
            .ids()
            .into_iter()
            .map(|id| self.it.status(id))
            .collect();
        for status in &statuses {
            assert_eq!(status.last_applied, statuses[0].last_applied);
            assert_eq!(status.store.items, statuses[0].store.items);
            assert_eq!(status.commands_owed, 0);
        }
        self.tally
    }
}

impl Client {
    fn wrote(&mut self, value: String, outcome: &Outcome) {
        match outcome {
            Outcome::Done(reply) => {
                assert_eq!(*reply, Reply::Stored);
                self.value = Some(value);
                self.perhaps.clear();
            }
            Outcome::NotDone(_) => {}
            Outcome::Unknown => self.perhaps.push(value),
        }
    }

    fn read(&mut self, outcome: &Outcome) {
        let Outcome::Done(_) = outcome else {
            return;
        };
        let found = value(outcome).map(str::to_owned);
        if found == self.value {
            return;
        }
        let at = self
            .perhaps
            .iter()
            .position(|it| Some(it) == found.as_ref());
        let Some(at) = at else {
            panic!(
                "{} holds {found:?}, not {:?} or one of {:?}",
                self.key, self.value, self.perhaps
            );
        };
        self.value = found;
        self.perhaps.drain(..=at);
    }
}

impl Tally {
    fn note(&mut self, outcome: &Outcome) {
        let code = match outcome {
            Outcome::Done(Reply::Hits(hits)) => {
                let unique = hits.first().map_or(0, |hit| hit.unique);
                self.acknowledged += 1;
                unique << 3
            }
            Outcome::Done(_) => {
                self.acknowledged += 1;
                1
            }
            Outcome::NotDone(_) => {
                self.refused += 1;
                2
            }
            Outcome::Unknown => {
                self.unknown += 1;
                3
            }
        };
        self.digest = Random(self.digest ^ code).next();
    }

    fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Done(Reply::Number(_)) => self.counted += 1,
            Outcome::Done(reply) => assert_eq!(*reply, Reply::NotFound),
            Outcome::NotDone(_) => {}
            Outcome::Unknown => self.counted_perhaps += 1,
        }
    }
}

/// A counter must exist before it counts.
fn run(seed: u64, ms: u64) -> Tally {
    let mut run = Run::new(seed);
    let leader = run.it.await_leader();
    run.it.ask(leader, u64::MAX - 3, vec![set("counter", "0")]);
    run.run(ms)
}

fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("QUORATE_TEST_SEEDS").ok();
    let count = count.and_then(|count| count.parse().ok());
    0..count.unwrap_or(40)
}

#[test]
fn nothing_acknowledged_is_lost_and_no_read_is_stale() {
    let mut all = Tally::default();
    for seed in seeds() {
        println!("seed {seed}");
        let tally = run(seed, 10_000);
        all.acknowledged += tally.acknowledged;
        all.refused += tally.refused;
        all.unknown += tally.unknown;
        all.counted += tally.counted;
        all.leader_changes += tally.leader_changes;
    }
    println!("{all:?}");
    let runs = seeds().end;
    assert!(
        all.acknowledged > 200 * runs,
        "too little was done: {all:?}"
    );
    assert!(all.unknown > runs / 4, "too few losses: {all:?}");
    assert!(all.leader_changes > 2 * runs, "too few leaders: {all:?}");
}

#[test]
fn the_same_seed_gives_the_same_outcomes() {
    for seed in 0..3 {
        assert_eq!(run(seed, 3000), run(seed, 3000), "seed {seed}");
    }
}
