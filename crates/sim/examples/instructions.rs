//! Commands, one after another, through five servers in one thread, whose disks and network take no
//! time: `bench/instructions` runs this under callgrind, which counts what `counted` calls and
//! nothing else. Run by hand,
//! `cargo run --release -p quorate-sim --example instructions -- set leader 1000`
//! says nothing if all is well. Every seed is fixed, so that every run does the same.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use command::LogTime;
use evaluator::{Batch, Config, ConnectionId, Evaluator, Input, Limits, Member, Now, Output};
use protocol::Session;
use raft::{Body, Instance, Recovered, Restart, ServerId, Timestamp};
use store::Store;

const SERVERS: u64 = 5;

/// Keys that the commands go round.
const KEYS: usize = 1000;

const VALUE: &[u8] = &[b'v'; 256];

/// From one command to the next, in milliseconds: heartbeats, and what followers are sent later than
/// others, have their part in each.
const INTERVAL_MS: u64 = 1;

/// So little of the applied log is kept in memory that something is let go with each entry.
const CACHE_BYTES_MAX: usize = 256 << 10;

const CONNECTION: ConnectionId = ConnectionId(1);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [command, part, count] = &arguments[..] else {
        return Err("usage: instructions set|get leader|follower COUNT".into());
    };
    let count = count.parse()?;
    let (line, reply_bytes): (fn(usize) -> Vec<u8>, usize) = match command.as_str() {
        "set" => (set, STORED_BYTES),
        "get" => (get, FOUND_BYTES),
        _ => return Err(format!("{command} is neither set nor get").into()),
    };
    let mut cluster = Cluster::serving();
    for number in 0..KEYS {
        cluster.carry_out(&set(number), STORED_BYTES);
    }
    cluster.counted = match part.as_str() {
        "leader" => Some(cluster.leader),
        "follower" => Some(cluster.prompt_follower()),
        _ => return Err(format!("{part} is neither leader nor follower").into()),
    };
    let follower = cluster.prompt_follower();
    let appends = cluster.server(follower).appends;
    for number in 0..count {
        cluster.carry_out(&line(number), reply_bytes);
    }
    let appends = cluster.server(follower).appends - appends;
    let expected = if command == "set" { count } else { 0 };
    assert_eq!(appends, expected, "messages with entries to a follower");
    Ok(())
}

const STORED_BYTES: usize = "STORED\r\n".len();
const FOUND_BYTES: usize = "VALUE key:000000000001 0 256\r\n\r\nEND\r\n".len() + VALUE.len();

fn set(number: usize) -> Vec<u8> {
    let line = format!("set key:{:012} 0 0 256\r\n", number % KEYS);
    [line.as_bytes(), VALUE, b"\r\n"].concat()
}

fn get(number: usize) -> Vec<u8> {
    format!("get key:{:012}\r\n", number % KEYS).into_bytes()
}

/// Callgrind knows this by its name.
#[inline(never)]
fn counted<T>(work: impl FnOnce() -> T) -> T {
    work()
}

fn perform<T>(is_counted: bool, work: impl FnOnce() -> T) -> T {
    match is_counted {
        true => counted(work),
        false => work(),
    }
}

struct Server {
    evaluator: Evaluator,
    inbox: Vec<Input>,
    /// Messages with entries that it was sent.
    appends: usize,
}

struct Cluster {
    servers: Vec<Server>,
    now: Now,
    leader: ServerId,
    /// The leader's only connection.
    session: Session,
    /// Whose instructions are counted.
    counted: Option<ServerId>,
}

impl Cluster {
    /// A cluster that has a leader, and all of whose servers are seated.
    fn serving() -> Cluster {
        let now = Now {
            monotonic: Timestamp(1_000_000_000),
            wall: LogTime(1_700_000_000_000),
        };
        let server = |id| Server {
            evaluator: Evaluator::new(config(id), Recovered::default(), Store::new(id), now),
            inbox: Vec::new(),
            appends: 0,
        };
        let mut cluster = Cluster {
            servers: (1..=SERVERS).map(server).collect(),
            now,
            leader: ServerId(0),
            session: Session::new(protocol::Limits::default()),
            counted: None,
        };
        for _ in 0..10_000 {
            cluster.pass_time();
            let mut statuses = cluster.servers.iter().map(|it| it.evaluator.status());
            if statuses.all(|it| it.seats_filled == SERVERS as usize) {
                let mut servers = cluster.servers.iter();
                let leads = |it: &&Server| it.evaluator.status().role == "Leader";
                let leader = servers.find(leads).expect("somebody has seated them");
                cluster.leader = leader.evaluator.status().id;
                return cluster;
            }
        }
        panic!("not all servers are seated within 10 s");
    }

    /// A command of the client, from its bytes to those of its reply.
    fn carry_out(&mut self, line: &[u8], reply_bytes: usize) {
        self.pass_time();
        let is_counted = self.counted == Some(self.leader);
        let session = &mut self.session;
        let run = perform(is_counted, || {
            session.receive_buffer().extend_from_slice(line);
            session.next_run().expect("the line has come whole")
        });
        let batch = Batch {
            connection: CONNECTION,
            epoch: run.epoch,
            commands: run.commands,
            is_local: false,
        };
        let leader = self.leader;
        self.server(leader).inbox.push(Input::Batch(batch));
        self.settle();
        let bytes = self.session.output().remaining();
        assert_eq!(bytes, reply_bytes, "the reply to {}", line.escape_ascii());
        let session = &mut self.session;
        perform(is_counted, || session.written(bytes, 0));
    }

    fn pass_time(&mut self) {
        self.now.monotonic = self.now.monotonic + Duration::from_millis(INTERVAL_MS);
        self.now.wall.0 += INTERVAL_MS;
        self.settle();
    }

    /// Turns of all servers, until none has anything to do.
    fn settle(&mut self) {
        while (1..=SERVERS).fold(false, |busy, id| self.turn(ServerId(id)) | busy) {}
    }

    /// A turn of this server; false if it has nothing to do.
    fn turn(&mut self, id: ServerId) -> bool {
        let (now, is_counted) = (self.now, self.counted == Some(id));
        let Server {
            evaluator, inbox, ..
        } = self.server(id);
        let is_due = evaluator.next_deadline() <= now.monotonic;
        if inbox.is_empty() && !is_due {
            return false;
        }
        let output = perform(is_counted, || {
            for input in inbox.drain(..) {
                evaluator.step(now, input);
            }
            if is_due {
                evaluator.step(now, Input::Tick);
            }
            evaluator.take_output(now)
        });
        self.hand_out(id, output, is_counted);
        true
    }

    fn hand_out(&mut self, id: ServerId, output: Output, is_counted: bool) {
        if let Some(write) = output.write {
            self.server(id).inbox.push(Input::Persisted(write.id));
        }
        for (to, message) in output.messages {
            let is_append = matches!(message.body, Body::AppendEntries(_));
            let server = self.server(to);
            server.appends += usize::from(is_append);
            server.inbox.push(Input::Message(message));
        }
        for outcomes in output.outcomes {
            let session = &mut self.session;
            perform(is_counted, || {
                session.outcomes(outcomes.outcomes, |_| Vec::new());
            });
        }
    }

    /// A follower that is sent each entry at once, in a message of its own.
    fn prompt_follower(&self) -> ServerId {
        let followers = (1..=SERVERS).zip(&self.servers);
        let most = followers.max_by_key(|(_, server)| server.appends);
        most.map(|(id, _)| ServerId(id)).expect("there are servers")
    }

    fn server(&mut self, id: ServerId) -> &mut Server {
        &mut self.servers[id.0 as usize - 1]
    }
}

fn config(id: u64) -> Config {
    Config {
        id: ServerId(id),
        members: (1..=SERVERS).map(member).collect(),
        instance: Instance(id),
        restart: Restart(1),
        election_timeout: Duration::from_millis(150)..Duration::from_millis(300),
        heartbeat: Duration::from_millis(50),
        seed: id,
        item_bytes_max: command::ITEM_BYTES_MAX_DEFAULT,
        memory_limit_bytes: 0,
        forwards: false,
        limits: Limits {
            cache_bytes_max: CACHE_BYTES_MAX,
            ..Limits::default()
        },
    }
}

fn member(id: u64) -> Member {
    let port = 9000 + 10 * id as u16;
    Member {
        id: ServerId(id),
        host: Arc::from("host"),
        client_port: port,
        rpc_port: port + 1,
        http_port: port + 2,
    }
}
