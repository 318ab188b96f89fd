//! Clients that set one new key after another, wherever the cluster leads them, and remember what
//! they were told of each: afterwards the cluster is held to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::text::Text;
use crate::wait::{deadline, moment, wait_until};

/// Keys of one `get` when the load is verified.
const KEYS_AT_ONCE: usize = 100;

/// What a client was told of one `set`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// `STORED`.
    Done,
    /// A redirect or `no leader`: it must never be seen.
    NotDone,
    /// `SERVER_ERROR outcome unknown`.
    Unknown,
    /// The connection was lost before the reply came.
    Lost,
    /// Anything else, which is a fault in itself.
    Unexpected(String),
}

/// One `set` of a key that was used for nothing else.
#[derive(Clone, Debug)]
pub struct Written {
    pub key: String,
    pub value: String,
    pub fate: Fate,
    /// From its last byte being sent to its reply or the loss of its connection.
    pub took: Duration,
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<Written>>>,
}

impl Load {
    /// Starts this many clients; the keys of two loads on one cluster differ by `name`.
    #[must_use]
    pub fn start(cluster: &Cluster, name: &str, clients: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let clients = (0..clients)
            .map(|number| {
                let client = LoadClient {
                    servers: cluster.client_addresses(),
                    next_server: number,
                    connection: None,
                    name: format!("{name}-{number}"),
                };
                let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
                thread::spawn(move || client.run(&stop, &done))
            })
            .collect();
        Load {
            stop,
            done,
            clients,
        }
    }

    /// How many sets have been acknowledged so far.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until this many more sets have been acknowledged.
    ///
    /// # Panics
    /// When they are not in time.
    pub fn wait_for_more(&self, count: u64) {
        let wanted = self.done() + count;
        wait_until("acknowledged writes", deadline(), || match self.done() {
            done if done >= wanted => Ok(()),
            done => Err(format!("{done} of {wanted}")),
        });
    }

    /// Stops the clients; all that they wrote.
    ///
    /// # Panics
    /// When a client was told what no server may say.
    #[must_use]
    pub fn stop(self) -> Vec<Written> {
        self.stop.store(true, Ordering::Relaxed);
        let clients = self.clients.into_iter();
        let written: Vec<Written> = clients
            .flat_map(|client| client.join().expect("clients do not panic"))
            .collect();
        for set in &written {
            assert!(!matches!(set.fate, Fate::Unexpected(_)), "{set:?}");
        }
        written
    }
}

impl Written {
    /// Holds the cluster to what clients were told: what was acknowledged is there, what was
    /// refused is not, and whatever is there is what was written.
    ///
    /// # Panics
    /// When it is not so.
    pub fn verify(written: &[Written], cluster: &Cluster) {
        let mut leader = cluster.connect_to_leader();
        for sets in written.chunks(KEYS_AT_ONCE) {
            let found = get(&mut leader, sets);
            for set in sets {
                let value = found.get(&set.key);
                let right = match set.fate {
                    Fate::Done => value == Some(&set.value),
                    Fate::NotDone => value.is_none(),
                    _ => value.is_none_or(|value| *value == set.value),
                };
                assert!(right, "{set:?}, but the cluster has {value:?}");
            }
        }
    }

    /// How many of `written` have this fate.
    #[must_use]
    pub fn count(written: &[Written], fate: &Fate) -> usize {
        written.iter().filter(|set| set.fate == *fate).count()
    }
}

/// Key and value of each of `sets` that is there.
fn get(leader: &mut Text, sets: &[Written]) -> BTreeMap<String, String> {
    let keys: Vec<&str> = sets.iter().map(|set| set.key.as_str()).collect();
    leader.send(format!("get {}\r\n", keys.join(" ")));
    let mut found = BTreeMap::new();
    loop {
        let line = leader.line();
        if line == "END" {
            return found;
        }
        let key = line
            .strip_prefix("VALUE ")
            .and_then(|rest| rest.split(' ').next());
        let key = key.unwrap_or_else(|| panic!("no hit: {line:?}"));
        found.insert(key.to_owned(), leader.line());
    }
}

/// One client, which has one set under way at a time.
struct LoadClient {
    servers: Vec<SocketAddr>,
    next_server: usize,
    connection: Option<Text>,
    name: String,
}

impl LoadClient {
    fn run(mut self, stop: &AtomicBool, done: &AtomicU64) -> Vec<Written> {
        let mut written = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let key = format!("{}-{}", self.name, written.len());
            let value = format!("value of {key}");
            let set = format!("set {key} 0 0 {}\r\n{value}\r\n", value.len());
            let Some(connection) = self.connected() else {
                continue;
            };
            let start = Instant::now();
            let fate = match connection.try_ask(set) {
                Ok(line) => self.hear(&line),
                Err(_) => {
                    self.try_another();
                    Fate::Lost
                }
            };
            let took = start.elapsed();
            if fate == Fate::Done {
                done.fetch_add(1, Ordering::Relaxed);
            } else {
                // A cluster without a leader is not to be drowned in questions for one.
                moment();
            }
            written.push(Written {
                key,
                value,
                fate,
                took,
            });
        }
        written
    }

    fn connected(&mut self) -> Option<&mut Text> {
        if self.connection.is_none() {
            let server = self.servers[self.next_server % self.servers.len()];
            match Text::try_connect(server) {
                Ok(connection) => self.connection = Some(connection),
                Err(_) => {
                    self.try_another();
                    moment();
                }
            }
        }
        self.connection.as_mut()
    }

    fn hear(&mut self, line: &str) -> Fate {
        if let Some(place) = line.strip_prefix("ERR_REDIRECT ") {
            self.try_another();
            match place.replace(' ', ":").parse() {
                Ok(address) => {
                    let known = self.servers.iter().position(|server| *server == address);
                    self.next_server = known.unwrap_or(self.next_server);
                    Fate::NotDone
                }
                Err(_) => Fate::Unexpected(line.to_owned()),
            }
        } else {
            match line {
                "STORED" => Fate::Done,
                "SERVER_ERROR no leader" => {
                    self.try_another();
                    Fate::NotDone
                }
                "SERVER_ERROR outcome unknown" => Fate::Unknown,
                _ => Fate::Unexpected(line.to_owned()),
            }
        }
    }

    fn try_another(&mut self) {
        self.connection = None;
        self.next_server += 1;
    }
}
