//! One script said to one server, and what it answers to each step.
//!
//! Every step is followed by `mn`, whose reply `MN` ends its replies: the generators see to it that
//! no value holds that line. A step after which the two are known to hold different items is followed by
//! `flush_all` besides.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crate::differences::{Leaves, leaves};
use crate::replies::Uniques;
use crate::script::{Part, Script, Step};

const MARK: &[u8] = b"mn\r\n";
const MARKED: &[u8] = b"MN\r\n";

/// What makes both servers equal again.
const RESET: &[u8] = b"flush_all\r\nmn\r\n";

/// What a unique is taken for that the server has not shown: no item has it.
const NO_UNIQUE: u64 = 1 << 62;

/// No more writes than this, about, are made of what is sent at one time.
const WRITES_MAX: usize = 5_000;

/// All that a server has answered.
#[derive(Debug)]
pub(crate) struct Replies {
    /// To each step, as far as they came; uniques and times masked.
    pub(crate) steps: Vec<Vec<u8>>,
    /// What came behind the last complete reply.
    pub(crate) rest: Vec<u8>,
    pub(crate) end: End,
}

/// How a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All steps are answered.
    Answered,
    /// The server closed the connection.
    Closed,
    /// No answer came in time.
    Silent,
}

/// The bytes of some steps, and the marks to be read for them.
struct Batch {
    bytes: Vec<u8>,
    marks: Vec<Mark>,
    closes: bool,
}

/// What ends with a mark.
enum Mark {
    Step { key: Vec<u8> },
    Reset,
}

/// A connection, and what has been read of it.
struct Reader {
    stream: TcpStream,
    read: Vec<u8>,
    /// Of `read`, how much is known to hold no mark.
    searched: usize,
}

/// Says it all to the server at `address`, which may be silent for `patience` and no longer.
pub(crate) fn converse(address: SocketAddr, script: &Script, patience: Duration) -> Replies {
    let stream = TcpStream::connect(address).expect("the server runs");
    stream.set_nodelay(true).expect("it is connected");
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(&stream, Some(patience)).expect("it is not zero");
    }
    let mut reader = Reader {
        stream,
        read: Vec::new(),
        searched: 0,
    };
    let mut uniques = Uniques::default();
    let mut steps = Vec::new();
    let beginning = b"flush_all\r\nstats reset\r\nmn\r\n".to_vec();
    let mut end = reader.exchange(
        &Batch {
            bytes: beginning,
            marks: vec![Mark::Reset],
            closes: false,
        },
        &[usize::MAX],
        |_, _| {},
    );
    let mut rest: &[Step] = &script.steps;
    while let Some((first, others)) = rest.split_first()
        && end == End::Answered
    {
        let together = others.iter().take_while(|step| !step.waits).count();
        let batch = batch(first, &others[..together], &uniques);
        rest = &others[together..];
        end = reader.exchange(&batch, &script.lengths, |mark, reply| {
            if let Mark::Step { key } = mark {
                steps.push(uniques.mask(key, reply));
            }
        });
    }
    Replies {
        steps,
        rest: reader.read,
        end,
    }
}

fn batch(first: &Step, others: &[Step], uniques: &Uniques) -> Batch {
    let mut batch = Batch {
        bytes: Vec::new(),
        marks: Vec::new(),
        closes: first.closes,
    };
    for step in std::iter::once(first).chain(others) {
        for part in &step.parts {
            match part {
                Part::Bytes(bytes) => batch.bytes.extend_from_slice(bytes),
                Part::Unique { key, age } => {
                    let unique = uniques.shown(key, *age).unwrap_or(NO_UNIQUE);
                    batch.bytes.extend_from_slice(unique.to_string().as_bytes());
                }
            }
        }
        if step.closes {
            break;
        }
        let sent = step.sent();
        let key = sent.word(1).to_vec();
        batch.bytes.extend_from_slice(MARK);
        batch.marks.push(Mark::Step { key });
        if leaves(&sent) == Leaves::Items {
            batch.bytes.extend_from_slice(RESET);
            batch.marks.push(Mark::Reset);
        }
    }
    batch
}

impl Reader {
    /// Sends and reads at the same time, so that neither side waits for the other for ever.
    fn exchange(
        &mut self,
        batch: &Batch,
        lengths: &[usize],
        mut take: impl FnMut(&Mark, &[u8]),
    ) -> End {
        let mut writer = self.stream.try_clone().expect("a socket can be shared");
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut bytes = &*batch.bytes;
                // What is large goes in larger pieces.
                let scale = 1 + bytes.len() / WRITES_MAX;
                for length in lengths.iter().cycle() {
                    let length = length.saturating_mul(scale).min(bytes.len());
                    let (piece, rest) = bytes.split_at(length);
                    // A server that closes the connection is seen by who reads.
                    if piece.is_empty() || writer.write_all(piece).is_err() {
                        break;
                    }
                    bytes = rest;
                }
            });
            for mark in &batch.marks {
                match self.reply() {
                    Ok(reply) => take(mark, &reply),
                    Err(end) => return end,
                }
            }
            match batch.closes {
                true => self.reply().err().unwrap_or(End::Answered),
                false => End::Answered,
            }
        })
    }

    /// All up to the next mark.
    fn reply(&mut self) -> Result<Vec<u8>, End> {
        loop {
            let from = self.searched.saturating_sub(MARKED.len());
            let mut windows = self.read[from..].windows(MARKED.len());
            if let Some(at) = windows.position(|window| window == MARKED) {
                let rest = self.read.split_off(from + at + MARKED.len());
                let mut reply = std::mem::replace(&mut self.read, rest);
                reply.truncate(from + at);
                self.searched = 0;
                return Ok(reply);
            }
            self.searched = self.read.len();
            let mut bytes = vec![0; 64 << 10];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(End::Closed),
                Ok(count) => self.read.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(End::Silent),
                // Closed with bytes of ours unread.
                Err(_) => return Err(End::Closed),
            }
        }
    }
}
