//! Ports that parallel runs do not fight over: blocks outside the range from which the kernel
//! draws the ports of outgoing connections, each kept by a listener on its last port.

use std::net::{Ipv4Addr, TcpListener};

use rand::rngs::{StdRng, SysRng};
use rand::{RngExt, SeedableRng};

/// Ports in a block: ten for each of nineteen servers, as the spawner lays them out, and ten more.
const BLOCK: u16 = 200;

/// The first block's first port, and the end of the last. Linux draws from 32,768 upwards.
const FIRST: u16 = 12_000;
const END: u16 = 32_000;

/// A server's three ports are the first of ten, as with the spawner.
const SERVER_STRIDE: u16 = 10;

/// Tries before it is said that no block is free.
const TRIES: usize = 1_000;

/// A block of free ports, ours until this is dropped.
#[derive(Debug)]
pub struct Ports {
    base: u16,
    _keeper: TcpListener,
}

impl Ports {
    /// Draws a block of which nothing is listened on.
    ///
    /// # Panics
    /// When there seems to be none.
    #[must_use]
    pub fn draw() -> Ports {
        let mut random = StdRng::try_from_rng(&mut SysRng).expect("Linux gives random bytes");
        for _ in 0..TRIES {
            let base = FIRST + BLOCK * random.random_range(0..(END - FIRST) / BLOCK);
            let Some(keeper) = listen(base + BLOCK - 1) else {
                continue;
            };
            if (base..base + BLOCK - 1).all(|port| listen(port).is_some()) {
                return Ports {
                    base,
                    _keeper: keeper,
                };
            }
        }
        panic!("no {BLOCK} free ports in a row between {FIRST} and {END}");
    }

    /// The first port, a multiple of a hundred.
    #[must_use]
    pub fn base(&self) -> u16 {
        self.base
    }

    /// The first of the ports of server `id`, 1 to 19.
    ///
    /// # Panics
    /// When the block has none for this id.
    #[must_use]
    pub fn of_server(&self, id: u64) -> u16 {
        assert!((1..=19).contains(&id), "no ports for server {id}");
        self.base + SERVER_STRIDE * (u16::try_from(id).expect("it is at most 19") - 1)
    }
}

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}
