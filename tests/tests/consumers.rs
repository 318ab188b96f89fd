//! 100,000 messages through four producers and four consumers, while leaders are killed: each that
//! was acknowledged is delivered, and none is popped twice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use quorate_tests::{Plan, Programs, Text, deadline, wait_until};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

const MESSAGES: usize = 100_000;
const PRODUCERS: usize = 4;
const KILLS: usize = 3;

/// Messages that a producer sends before it reads.
const BATCH: usize = 50;

/// Commands that a consumer sends before it reads.
const TAKES: usize = 10;

/// A connection to whichever server leads.
struct Queue {
    addresses: Vec<SocketAddr>,
    /// Which of them is tried next.
    next: usize,
    text: Option<Text>,
}

/// What became of a command.
#[derive(Debug, PartialEq)]
enum Told {
    Line(String),
    /// A message, and the id.
    Message(u64, String),
    NotDone,
    Unknown,
}

impl Queue {
    fn new(addresses: Vec<SocketAddr>) -> Queue {
        Queue {
            addresses,
            next: 0,
            text: None,
        }
    }

    /// Sends these commands at once and says what became of each; waits until some server leads.
    fn ask(&mut self, commands: &[String]) -> Vec<Told> {
        wait_until("a leader", deadline(), || {
            let told = self.attempt(commands);
            match told.iter().all(|told| *told == Told::NotDone) {
                true => Err("nothing is carried out".to_owned()),
                false => Ok(told),
            }
        })
    }

    fn attempt(&mut self, commands: &[String]) -> Vec<Told> {
        if self.text.is_none() {
            let address = self.addresses[self.next % self.addresses.len()];
            self.next += 1;
            self.text = Text::try_connect(address).ok();
        }
        let Some(text) = &mut self.text else {
            return commands.iter().map(|_| Told::NotDone).collect();
        };
        let mut told = Vec::new();
        let mut is_lost = text.try_send(commands.concat()).is_err();
        while told.len() < commands.len() && !is_lost {
            match read(text) {
                Some(next) => told.push(next),
                None => is_lost = true,
            }
        }
        told.resize_with(commands.len(), || Told::Unknown);
        let refused = |told: &Told| matches!(told, Told::NotDone | Told::Unknown);
        if told.iter().any(refused) {
            self.text = None;
        }
        told
    }
}

/// The next reply; `None` if the connection is lost.
fn read(text: &mut Text) -> Option<Told> {
    let line = text.try_line().ok()?;
    if line.starts_with("ERR_REDIRECT") || line == "SERVER_ERROR no leader" {
        return Some(Told::NotDone);
    }
    if line == "SERVER_ERROR outcome unknown" {
        return Some(Told::Unknown);
    }
    let Some(rest) = line.strip_prefix("MESSAGE q ") else {
        return Some(Told::Line(line));
    };
    let id = rest.split(' ').next().and_then(|id| id.parse().ok());
    Some(Told::Message(id.expect("an id"), text.try_line().ok()?))
}

/// What a producer was told: messages that were acknowledged, and that may be there.
fn produce(queue: &mut Queue, producer: usize) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut acknowledged, mut doubtful) = (BTreeSet::new(), BTreeSet::new());
    let mut next = 0;
    while next < MESSAGES / PRODUCERS {
        let texts: Vec<String> = (next..next + BATCH)
            .map(|number| format!("{producer}.{number}"))
            .collect();
        let commands: Vec<String> = texts
            .iter()
            .map(|text| format!("push q {}\r\n{text}\r\n", text.len()))
            .collect();
        for (told, text) in queue.ask(&commands).into_iter().zip(texts) {
            match told {
                Told::Line(line) if line.starts_with("PUSHED ") => acknowledged.insert(text),
                Told::Unknown => doubtful.insert(text),
                // What follows is not done either: it is sent again with the next batch.
                Told::NotDone => break,
                other => panic!("{other:?} for a push"),
            };
            next += 1;
        }
    }
    (acknowledged, doubtful)
}

/// What consumers were told.
#[derive(Debug, Default)]
struct Consumed {
    popped: Vec<String>,
    acked: Vec<String>,
    /// Pops, and acknowledgements, that may each have taken a message.
    doubtful: usize,
}

fn pop_all(queue: &mut Queue, is_over: &AtomicBool) -> Consumed {
    let mut consumed = Consumed::default();
    loop {
        let ends = is_over.load(Ordering::SeqCst);
        let mut found = false;
        for told in queue.ask(&vec!["pop q\r\n".to_owned(); TAKES]) {
            match told {
                Told::Message(_, text) => {
                    found = true;
                    consumed.popped.push(text);
                }
                Told::Unknown => consumed.doubtful += 1,
                Told::NotDone => break,
                Told::Line(line) => assert_eq!(line, "EMPTY"),
            }
        }
        if ends && !found {
            return consumed;
        }
    }
}

fn reserve_all(queue: &mut Queue, is_over: &AtomicBool) -> Consumed {
    let mut consumed = Consumed::default();
    loop {
        let ends = is_over.load(Ordering::SeqCst);
        let mut reserved = Vec::new();
        for told in queue.ask(&vec!["reserve q 600\r\n".to_owned(); TAKES]) {
            match told {
                Told::Message(id, text) => reserved.push((id, text)),
                // It is reserved for nobody, and is counted as if it were gone.
                Told::Unknown => consumed.doubtful += 1,
                Told::NotDone => break,
                Told::Line(line) => assert_eq!(line, "EMPTY"),
            }
        }
        if ends && reserved.is_empty() {
            return consumed;
        }
        while !reserved.is_empty() {
            let acks: Vec<String> = reserved
                .iter()
                .map(|(id, _)| format!("ack q {id}\r\n"))
                .collect();
            let told = queue.ask(&acks);
            let settled = told
                .iter()
                .take_while(|told| **told != Told::NotDone)
                .count();
            for (told, (_, text)) in told.into_iter().zip(reserved.drain(..settled)) {
                match told {
                    Told::Line(line) if line == "ACKED" => consumed.acked.push(text),
                    Told::Unknown => consumed.doubtful += 1,
                    other => panic!("{other:?} for an ack of what is reserved for ten minutes"),
                }
            }
        }
    }
}

#[test]
fn every_acknowledged_message_is_delivered_and_none_is_popped_twice() {
    let mut cluster = Plan::new(PROGRAMS, 5).start();
    let leader = cluster.agreed_leader();
    cluster
        .connect(leader)
        .exchange("topic q\r\n", "CREATED\r\n");
    let addresses = cluster.client_addresses();
    let producing = AtomicUsize::new(PRODUCERS);
    let is_over = AtomicBool::new(false);
    let (pushed, consumed) = thread::scope(|scope| {
        let (addresses, producing, is_over) = (&addresses, &producing, &is_over);
        let queue = || Queue::new(addresses.clone());
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                scope.spawn(move || {
                    let pushed = produce(&mut queue(), producer);
                    producing.fetch_sub(1, Ordering::SeqCst);
                    pushed
                })
            })
            .collect();
        let poppers: Vec<_> = (0..2)
            .map(|_| scope.spawn(move || pop_all(&mut queue(), is_over)))
            .collect();
        let reservers: Vec<_> = (0..2)
            .map(|_| scope.spawn(move || reserve_all(&mut queue(), is_over)))
            .collect();
        let mut kills = 0;
        while producing.load(Ordering::SeqCst) > 0 || kills < KILLS {
            if kills < KILLS {
                let leader = cluster.leader();
                cluster.kill(leader);
                cluster.leader();
                cluster.start(leader);
                kills += 1;
            }
            cluster.agreed_leader();
        }
        is_over.store(true, Ordering::SeqCst);
        let pushed: Vec<_> = producers
            .into_iter()
            .map(|it| it.join().expect("a producer"))
            .collect();
        let consumers = poppers.into_iter().chain(reservers);
        let consumed: Vec<_> = consumers.map(|it| it.join().expect("a consumer")).collect();
        (pushed, consumed)
    });

    let acknowledged: BTreeSet<&String> = pushed.iter().flat_map(|(sure, _)| sure).collect();
    let doubtful: BTreeSet<&String> = pushed.iter().flat_map(|(_, doubtful)| doubtful).collect();
    assert_eq!(acknowledged.len() + doubtful.len(), MESSAGES);
    let mut times: BTreeMap<&String, usize> = BTreeMap::new();
    for consumed in &consumed {
        for text in consumed.popped.iter().chain(&consumed.acked) {
            *times.entry(text).or_default() += 1;
        }
    }
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "taken more than once: {twice:?}");
    let invented = times
        .keys()
        .find(|text| !acknowledged.contains(*text) && !doubtful.contains(*text));
    assert_eq!(invented, None, "nobody has pushed it");
    let missing = acknowledged
        .iter()
        .filter(|text| !times.contains_key(**text));
    let lost_replies: usize = consumed.iter().map(|it| it.doubtful).sum();
    let missing = missing.count();
    assert!(
        missing <= lost_replies,
        "{missing} acknowledged messages are missing, and {lost_replies} takes are of unknown outcome"
    );
}
