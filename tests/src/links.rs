//! The way from each server to each other server, through a proxy that can be told to let nothing
//! through: as in a real network, what was sent meanwhile comes late, or never.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// What one link moves at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// A proxy for each ordered pair of servers. What a server sends to another on a connection that
/// it made goes through the link from it to the other; so does what comes back on it.
#[derive(Debug)]
pub(crate) struct Links {
    links: BTreeMap<(u64, u64), Link>,
}

impl Links {
    /// Links between servers, each with the address on which it listens for the others.
    pub(crate) fn start(servers: &[(u64, SocketAddr)]) -> Links {
        let mut links = BTreeMap::new();
        for (from, _) in servers {
            for (to, address) in servers {
                if from != to {
                    links.insert((*from, *to), Link::start(*address));
                }
            }
        }
        Links { links }
    }

    /// The port on which `from` reaches `to`.
    pub(crate) fn port(&self, from: u64, to: u64) -> u16 {
        self.links[&(from, to)].port
    }

    /// Lets nothing through between `from` and `to` on connections that `from` made.
    pub(crate) fn cut(&self, from: u64, to: u64) {
        self.links[&(from, to)].set(Passage::Cut);
    }

    /// Closes the connections that `from` made to `to`, with what is under way on them.
    pub(crate) fn reset(&self, from: u64, to: u64) {
        self.links[&(from, to)].state.close_all();
    }

    /// Lets everything through again.
    pub(crate) fn heal(&self) {
        for link in self.links.values() {
            link.set(Passage::Open);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passage {
    Open,
    Cut,
    /// The proxy is to end.
    Over,
}

#[derive(Debug)]
struct Link {
    port: u16,
    state: Arc<State>,
}

impl Link {
    fn start(to: SocketAddr) -> Link {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("ports can be had");
        let port = listener.local_addr().expect("it is bound").port();
        let state = Arc::new(State {
            passage: Mutex::new(Passage::Open),
            changed: Condvar::new(),
            streams: Mutex::new(BTreeMap::new()),
        });
        let accepting = Arc::clone(&state);
        thread::spawn(move || {
            for caller in listener.incoming() {
                if *accepting.passage() == Passage::Over {
                    return;
                }
                let state = Arc::clone(&accepting);
                if let Ok(caller) = caller {
                    thread::spawn(move || state.connect(caller, to));
                }
            }
        });
        Link { port, state }
    }

    fn set(&self, passage: Passage) {
        *self.state.passage() = passage;
        self.state.changed.notify_all();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.set(Passage::Over);
        self.state.close_all();
        // Its thread waits for a caller.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

#[derive(Debug)]
struct State {
    passage: Mutex<Passage>,
    changed: Condvar,
    /// Both ends of every connection that is there.
    streams: Mutex<BTreeMap<u64, [TcpStream; 2]>>,
}

impl State {
    /// Carries bytes between `caller` and `to` until one of them is gone.
    fn connect(self: Arc<State>, caller: TcpStream, to: SocketAddr) {
        if !self.wait_until_open() {
            return;
        }
        // Nobody listens there: the caller sees its connection closed.
        let Ok(called) = TcpStream::connect(to) else {
            return;
        };
        let copy = || Ok::<_, io::Error>([caller.try_clone()?, called.try_clone()?]);
        let (Ok(kept), Ok([from_caller, from_called])) = (copy(), copy()) else {
            return;
        };
        let number = self.keep(kept);
        let state = Arc::clone(&self);
        let back = thread::spawn(move || state.carry(from_called, caller));
        self.carry(from_caller, called);
        // A thread that panics has closed its streams.
        drop(back.join());
        self.streams().remove(&number);
    }

    /// Remembers both ends of a connection under a number that no other has.
    fn keep(&self, ends: [TcpStream; 2]) -> u64 {
        let mut streams = self.streams();
        let number = streams.last_key_value().map_or(0, |(last, _)| last + 1);
        streams.insert(number, ends);
        number
    }

    fn close_all(&self) {
        for stream in self.streams().values().flatten() {
            // The other end may have been faster.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            if !self.wait_until_open() || to.write_all(&chunk[..count]).is_err() {
                break;
            }
        }
        // A cut link does not tell one end that the other is gone.
        if self.wait_until_open() {
            drop(from.shutdown(Shutdown::Both));
            drop(to.shutdown(Shutdown::Both));
        }
    }

    /// `false` when the proxy is to end.
    fn wait_until_open(&self) -> bool {
        let mut passage = self.passage();
        while *passage == Passage::Cut {
            let waited = self.changed.wait(passage);
            passage = waited.unwrap_or_else(PoisonError::into_inner);
        }
        *passage == Passage::Open
    }

    fn passage(&self) -> MutexGuard<'_, Passage> {
        self.passage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn streams(&self) -> MutexGuard<'_, BTreeMap<u64, [TcpStream; 2]>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
