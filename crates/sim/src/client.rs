//! A simulated client: it sends bytes, several commands at a time, and records what it is told.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use command::{
    Command, Direction, Exptime, Key, MetaArithmetic, MetaDelete, MetaGet, MetaSet, Outcome, Read,
    Refusal, Store, StoreMode, Write,
};
use protocol::client::{Answer, Expected, ReplyParser};
use raft::ServerId;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::check::{MARKED_SECOND, OpId, Sent, key, marked_key};
use crate::options::{Fault, Options};
use crate::topics::Reserved;

/// The most that one reply may hold.
const VALUE_BYTES_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Client {
    /// Where it connects next; anywhere if it does not know.
    pub(crate) hint: Option<ServerId>,
    pub(crate) connection: Option<Connection>,
    /// The unique that it saw last of each key.
    uniques: BTreeMap<Key, u64>,
    reserved: Reserved,
    /// Commands answered as done.
    pub(crate) done: u64,
    /// The last answer was a refusal.
    pub(crate) refused: bool,
}

/// Its end of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) server: ServerId,
    /// Of the server's life.
    pub(crate) incarnation: u64,
    /// Commands that want a reply, in order.
    pub(crate) waits: VecDeque<(OpId, Expected)>,
    parser: ReplyParser,
    received: BytesMut,
    /// It sends nothing more.
    pub(crate) ended: bool,
    pub(crate) sent_at: u64,
    /// When what was sent last in each direction arrives: bytes stay in order.
    pub(crate) to_server_at: u64,
    pub(crate) to_client_at: u64,
}

impl Connection {
    pub(crate) fn new(id: u64, server: ServerId, incarnation: u64) -> Connection {
        Connection {
            id,
            server,
            incarnation,
            waits: VecDeque::new(),
            parser: ReplyParser::new(VALUE_BYTES_MAX),
            received: BytesMut::new(),
            ended: false,
            sent_at: 0,
            to_server_at: 0,
            to_client_at: 0,
        }
    }

    /// Takes in reply bytes; the operations that they answer.
    pub(crate) fn hears(&mut self, bytes: &[u8]) -> Vec<(OpId, Answer)> {
        self.received.extend_from_slice(bytes);
        let mut answers = Vec::new();
        while let Some((id, expected)) = self.waits.front() {
            match self.parser.next(*expected, &mut self.received) {
                Ok(Some(answer)) => answers.push((*id, answer)),
                Ok(None) => return answers,
                Err(error) => panic!("operation {id} is answered with no reply: {error}"),
            }
            self.waits.pop_front();
        }
        assert!(
            self.received.is_empty(),
            "a reply to nothing: {}",
            self.received.escape_ascii(),
        );
        answers
    }
}

/// A command as it is sent.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) sent: Sent,
    pub(crate) noreply: bool,
    pub(crate) expected: Expected,
    pub(crate) text: Vec<u8>,
}

impl Client {
    pub(crate) fn new() -> Client {
        Client {
            hint: None,
            connection: None,
            uniques: BTreeMap::new(),
            reserved: Reserved::default(),
            done: 0,
            refused: false,
        }
    }

    /// Learns from an answer.
    pub(crate) fn learns(&mut self, what: &Sent, answer: &Answer) {
        self.refused = matches!(
            answer,
            Answer::Outcome(Outcome::NotDone(_) | Outcome::Unknown)
        );
        match answer {
            Answer::Outcome(Outcome::Done(reply)) => {
                self.done += 1;
                if let (command::Reply::Message(message), Sent::Command(Command::Write(write))) =
                    (reply, what)
                    && let Write::Topic(write) = write
                {
                    self.reserved.learns(&write.topic, message);
                }
                if let command::Reply::Hits(hits) = reply {
                    for hit in hits.iter().filter(|hit| hit.unique != 0) {
                        let key = Key::new(Bytes::copy_from_slice(hit.key()));
                        self.uniques
                            .insert(key.expect("it was asked for"), hit.unique);
                    }
                }
            }
            Answer::Outcome(Outcome::NotDone(Refusal::Redirect { host, .. })) => {
                let id = host.trim_start_matches("host").parse();
                self.hint = Some(ServerId(id.expect("a host of this world")));
            }
            Answer::Outcome(_) => self.hint = None,
            Answer::Text(_) => self.done += 1,
            Answer::Error(_) => {}
        }
    }

    /// Draws the command with this number.
    pub(crate) fn draw(&self, id: OpId, options: &Options, random: &mut StdRng) -> Request {
        if options.has(Fault::Malformed) && random.random_range(0..30) == 0 {
            return malformed(random);
        }
        if options.mix.count > 0 && random.random_range(0..30) == 0 {
            return set_counter(random.random_range(0..COUNTERS));
        }
        if options.mix.topics > 0 && random.random_range(0..20) < options.mix.topics {
            return self.reserved.draw(id, options, random);
        }
        match self.write(id, options, random) {
            Some(write) => {
                let noreply = random.random_range(0..100) < options.noreply;
                match noreply || random.random_range(0..4) > 0 {
                    true => written(write, noreply),
                    false => meta_written(id, write),
                }
            }
            None if random.random_range(0..4) == 0 => meta_read(any_key(options, random)),
            None => {
                let count = if random.random_range(0..4) == 0 {
                    random.random_range(1..=4)
                } else {
                    1
                };
                let keys: Vec<Key> = (0..count).map(|_| any_key(options, random)).collect();
                let total = options.mix.get + options.mix.gets;
                read(keys, random.random_range(0..total) < options.mix.gets)
            }
        }
    }

    /// A write, unless a read was drawn.
    fn write(&self, id: OpId, options: &Options, random: &mut StdRng) -> Option<Write> {
        let mix = &options.mix;
        let key = any_key(options, random);
        let seconds = random.random_range(1..=3);
        let value = value(id, options, random);
        let store = |mode, exptime| {
            Write::Store(Store {
                mode,
                key: key.clone(),
                flags: id as u32,
                exptime: Exptime(exptime),
                value: value.clone(),
            })
        };
        let marked = Exptime(MARKED_SECOND + id as i32);
        let mut drawn = random.random_range(
            0..mix.set
                + mix.get
                + mix.gets
                + mix.cas
                + mix.add
                + mix.append
                + mix.count
                + mix.delete
                + mix.touch
                + mix.expiring
                + mix.flush,
        );
        let mut is = |part: u32| {
            let is = drawn < part;
            drawn = drawn.wrapping_sub(part);
            is
        };
        if is(mix.get + mix.gets) {
            return None;
        }
        let write = if is(mix.set) {
            store(StoreMode::Set, 0)
        } else if is(mix.cas) {
            let unique = self.uniques.get(&key).copied().unwrap_or(1);
            store(StoreMode::Cas(unique), 0)
        } else if is(mix.add) {
            let mode = [StoreMode::Add, StoreMode::Replace][random.random_range(0..2)];
            store(mode, 0)
        } else if is(mix.append) {
            let mode = [StoreMode::Append, StoreMode::Prepend][random.random_range(0..2)];
            store(mode, 0)
        } else if is(mix.count) {
            Write::Arithmetic {
                key: counter(random),
                direction: [Direction::Increment, Direction::Decrement]
                    [usize::from(random.random_range(0..4) == 0)],
                delta: id,
            }
        } else if is(mix.delete) {
            match random.random_range(0..2) {
                0 => Write::Delete { key },
                // Nothing is there, and the log says whose command it was.
                _ => Write::Delete {
                    key: marked_key(id),
                },
            }
        } else if is(mix.touch) {
            match random.random_range(0..2) {
                0 => Write::Touch {
                    key,
                    exptime: marked,
                },
                _ => Write::GetAndTouch {
                    keys: vec![key, any_key(options, random)],
                    exptime: marked,
                },
            }
        } else if is(mix.expiring) {
            store(StoreMode::Set, seconds)
        } else {
            let delay = Exptime(random.random_range(0..3));
            Write::FlushAll { delay }
        };
        Some(write)
    }
}

/// Makes a counter, which `incr` does not do.
fn set_counter(number: u64) -> Request {
    let write = Write::Store(Store {
        mode: StoreMode::Add,
        key: counter_key(number),
        flags: 0,
        exptime: Exptime(0),
        value: Bytes::from_static(b"1000000"),
    });
    written(write, false)
}

/// A write that marks the operation with this number.
pub(crate) fn set_marked(name: &str, id: OpId) -> Request {
    let write = Write::Store(Store {
        mode: StoreMode::Set,
        key: key(name),
        flags: 0,
        exptime: Exptime(0),
        value: Bytes::from(format!("#{id}.")),
    });
    written(write, false)
}

pub(crate) const COUNTERS: u64 = 2;

fn counter(random: &mut StdRng) -> Key {
    counter_key(random.random_range(0..COUNTERS))
}

fn counter_key(number: u64) -> Key {
    key(&format!("count{number}"))
}

/// The keys of this world.
pub(crate) fn all_keys(options: &Options) -> Vec<Key> {
    let keys = (0..options.keys).map(|number| key(&format!("key{number}")));
    keys.chain((0..COUNTERS).map(counter_key)).collect()
}

fn any_key(options: &Options, random: &mut StdRng) -> Key {
    key(&format!("key{}", random.random_range(0..options.keys)))
}

fn value(id: OpId, options: &Options, random: &mut StdRng) -> Bytes {
    let mut value = format!("#{id}.").into_bytes();
    let more = random.random_range(0..=options.value_bytes_max);
    value.extend(std::iter::repeat_n(b"x\r\n y"[more % 5], more));
    Bytes::from(value)
}

/// The text of a read.
pub(crate) fn read(keys: Vec<Key>, with_unique: bool) -> Request {
    let mut text = if with_unique {
        b"gets".to_vec()
    } else {
        b"get".to_vec()
    };
    for key in &keys {
        text.push(b' ');
        text.extend_from_slice(key.as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    let keys = keys.into_iter().collect();
    Request {
        sent: Sent::Command(Command::Read(Read::Get { keys })),
        noreply: false,
        expected: Expected::Hits,
        text,
    }
}

/// A read that shows all but the value, in a line.
fn meta_read(key: Key) -> Request {
    let text = format!("mg {} f c s\r\n", text_of(&key)).into_bytes();
    let get = MetaGet {
        key,
        peeks: false,
        touch: None,
        vivify: None,
        recache: None,
        unique: None,
    };
    Request {
        sent: Sent::Command(Command::Read(Read::MetaGet(get))),
        noreply: false,
        expected: Expected::Text,
        text,
    }
}

/// A write as a meta command, if there is one that does the same.
fn meta_written(id: OpId, write: Write) -> Request {
    let (write, mut text, value) = match write {
        Write::Store(store) => meta_set(store),
        Write::Arithmetic {
            key,
            direction,
            delta,
        } => {
            let mode = match direction {
                Direction::Increment => "I",
                Direction::Decrement => "D",
            };
            let text = format!("ma {} M{mode} D{delta}", text_of(&key));
            let arithmetic = MetaArithmetic {
                key,
                direction,
                delta,
                compare: None,
                vivify: None,
                initial: 0,
                touch: None,
                unique: None,
            };
            (Write::MetaArithmetic(arithmetic), text, None)
        }
        Write::Delete { key } => {
            let text = format!("md {}", text_of(&key));
            let delete = MetaDelete {
                key,
                compare: None,
                invalidate: false,
                clear: false,
                touch: None,
                unique: None,
            };
            (Write::MetaDelete(delete), text, None)
        }
        other => return written(other, false),
    };
    // What is asked for comes back in this order.
    text.push_str(" c O");
    text.push_str(&id.to_string());
    text.push_str(" k\r\n");
    let mut text = text.into_bytes();
    if let Some(value) = value {
        text.extend_from_slice(&value);
        text.extend_from_slice(b"\r\n");
    }
    Request {
        sent: Sent::Command(Command::Write(write)),
        noreply: false,
        expected: Expected::Text,
        text,
    }
}

fn meta_set(store: Store) -> (Write, String, Option<Bytes>) {
    let (compare, mode) = match store.mode {
        StoreMode::Cas(unique) => (Some(unique), StoreMode::Set),
        mode => (None, mode),
    };
    let letter = match mode {
        StoreMode::Set | StoreMode::Cas(_) => 'S',
        StoreMode::Add => 'E',
        StoreMode::Replace => 'R',
        StoreMode::Append => 'A',
        StoreMode::Prepend => 'P',
    };
    let (key, bytes) = (text_of(&store.key), store.value.len());
    let (flags, time) = (store.flags, store.exptime.0);
    let compares = compare.map_or(String::new(), |unique| format!(" C{unique}"));
    let text = format!("ms {key} {bytes} F{flags} T{time} M{letter}{compares}");
    let value = Some(store.value.clone());
    let set = MetaSet {
        store: Store { mode, ..store },
        compare,
        invalidate: false,
        vivify: None,
        unique: None,
    };
    (Write::MetaSet(set), text, value)
}

fn malformed(random: &mut StdRng) -> Request {
    let texts = ["bogus\r\n", "get\r\n", "set k x 0 1\r\nv\r\n", "incr k\r\n"];
    Request {
        sent: Sent::Malformed,
        noreply: false,
        expected: Expected::Text,
        text: texts[random.random_range(0..texts.len())].into(),
    }
}

fn written(write: Write, noreply: bool) -> Request {
    // Nothing of these says noreply, or has a reply without hits.
    let noreply = noreply && !matches!(write, Write::GetAndTouch { .. });
    let end = if noreply { " noreply\r\n" } else { "\r\n" };
    let (head, expected, value) = match &write {
        Write::Store(store) => {
            let (name, unique) = (store.mode.name(), store.mode.unique());
            let unique = unique.map_or(String::new(), |unique| format!(" {unique}"));
            let (flags, exptime, bytes) = (store.flags, store.exptime.0, store.value.len());
            let key = text_of(&store.key);
            (
                format!("{name} {key} {flags} {exptime} {bytes}{unique}"),
                Expected::Stored,
                Some(&store.value),
            )
        }
        Write::Delete { key } => (format!("delete {}", text_of(key)), Expected::Deleted, None),
        Write::Arithmetic {
            key,
            direction,
            delta,
        } => {
            let text = format!("{} {} {delta}", direction.name(), text_of(key));
            (text, Expected::Number, None)
        }
        Write::Touch { key, exptime } => {
            let text = format!("touch {} {}", text_of(key), exptime.0);
            (text, Expected::Touched, None)
        }
        Write::GetAndTouch { keys, exptime } => {
            let keys: Vec<String> = keys.iter().map(text_of).collect();
            let text = format!("gats {} {}", exptime.0, keys.join(" "));
            (text, Expected::Hits, None)
        }
        Write::FlushAll { delay } => (format!("flush_all {}", delay.0), Expected::Ok, None),
        Write::MemoryLimit { mib } => (format!("cache_memlimit {mib}"), Expected::Ok, None),
        Write::MetaGet(_)
        | Write::MetaSet(_)
        | Write::MetaDelete(_)
        | Write::MetaArithmetic(_)
        | Write::Topic(_) => {
            unreachable!("these have a text of their own")
        }
    };
    let mut text = head.into_bytes();
    text.extend_from_slice(end.as_bytes());
    if let Some(value) = value {
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    }
    Request {
        sent: Sent::Command(Command::Write(write)),
        noreply,
        expected,
        text,
    }
}

fn text_of(key: &Key) -> String {
    String::from_utf8_lossy(key.as_bytes()).into_owned()
}
