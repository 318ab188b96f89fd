//! A real memcached, if there is one.

use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use quorate_tests::{Ports, Process, Text, deadline, wait_until};

/// The version that the table of differences tells of.
const VERSION: &str = "VERSION 1.6.18";

/// A memcached of our own; ended when it is dropped.
#[derive(Debug)]
pub(crate) struct Memcached {
    pub(crate) address: SocketAddr,
    _process: Process,
    _ports: Ports,
}

impl Memcached {
    /// Starts the one that is installed; says in one line why not, if not.
    pub(crate) fn start() -> Result<Memcached, String> {
        let program = find().ok_or("no memcached is on PATH")?;
        let ports = Ports::draw();
        let port = ports.base();
        let mut command = Command::new(program);
        // Room enough that nothing is evicted; as root it wants to know what to become. The thread
        // that maintains its LRU would hold an item now and then, and `decr` not pad it.
        command.args(["-l", "127.0.0.1", "-U", "0", "-m", "1024", "-u", "nobody"]);
        command.args(["-o", "no_lru_maintainer"]);
        command.arg("-p").arg(port.to_string());
        let process = Process::start("memcached", command);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let version = wait_until("memcached", deadline(), || {
            let mut text = Text::try_connect(address).map_err(|error| error.to_string())?;
            text.try_ask("version\r\n")
                .map_err(|error| error.to_string())
        });
        if version != VERSION {
            return Err(format!(
                "the memcached on PATH says {version}, the table is of {VERSION}"
            ));
        }
        Ok(Memcached {
            address,
            _process: process,
            _ports: ports,
        })
    }
}

fn find() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join("memcached"))
        .find(|program| program.is_file())
}
