//! The addresses of a server: bound early, so that a port in use is known at once, and listened on
//! once there is something to answer with. And `accept` that survives running out of files.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use crate::client::Count;
use crate::error::Error;

/// Connections that the kernel makes before they are accepted.
pub(crate) const BACKLOG: i32 = 1024;

/// How long nothing is accepted after an error, at first and at most: whatever is short is not
/// there again at once, and trying would take a whole processor.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// An address that is bound and not listened on.
#[derive(Debug)]
pub(crate) struct Bound {
    socket: Socket,
    host: String,
    port: u16,
    field: &'static str,
}

/// Binds the port that cluster.toml names `field`.
///
/// # Errors
/// `Resolve` and `Listen`.
pub(crate) fn bind(host: &str, port: u16, field: &'static str) -> Result<Bound, Error> {
    let mut addresses: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|source| Error::Resolve {
            host: host.to_owned(),
            source,
        })?
        .collect();
    // Where a name has both, clients find the older kind more often.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut result = Err(io::Error::from(io::ErrorKind::AddrNotAvailable));
    for address in addresses {
        result = bind_address(address);
        if result.is_ok() {
            break;
        }
    }
    let socket = result.map_err(|source| listen_error(host, port, field, source))?;
    Ok(Bound {
        socket,
        host: host.to_owned(),
        port,
        field,
    })
}

fn bind_address(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Connections of a server that ended a moment ago do not keep the next one waiting.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn listen_error(host: &str, port: u16, field: &'static str, source: io::Error) -> Error {
    Error::Listen {
        host: host.to_owned(),
        port,
        field,
        source,
    }
}

impl Bound {
    /// Whether only this machine reaches it.
    pub(crate) fn is_loopback(&self) -> bool {
        let address = self.socket.local_addr().ok();
        let address = address.and_then(|address| address.as_socket());
        address.is_some_and(|address| address.ip().is_loopback())
    }

    /// Lets the kernel make connections. Within a tokio runtime.
    ///
    /// # Errors
    /// `Listen`: two servers may bind a port as long as neither listens.
    pub(crate) fn listen(self) -> Result<TcpListener, Error> {
        self.socket
            .listen(BACKLOG)
            .and_then(|()| TcpListener::from_std(self.socket.into()))
            .map_err(|source| listen_error(&self.host, self.port, self.field, source))
    }
}

/// A listener that goes on after any error, with a pause that grows.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: TcpListener,
    pause: Duration,
    /// What is accepted, for the log.
    what: &'static str,
    pauses: Arc<Pauses>,
}

/// How often nothing was accepted for a while after an error, and for how long in all.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    pub(crate) count: Count,
    pub(crate) microseconds: Count,
}

impl Acceptor {
    pub(crate) fn new(listener: TcpListener, what: &'static str) -> Acceptor {
        Acceptor {
            listener,
            pause: PAUSE_MIN,
            what,
            pauses: Arc::default(),
        }
    }

    pub(crate) fn pauses(&self) -> Arc<Pauses> {
        Arc::clone(&self.pauses)
    }

    /// The next connection.
    pub(crate) async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(connection) => {
                    self.pause = PAUSE_MIN;
                    return connection;
                }
                // The client has gone again: nothing is short.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    warn!("cannot accept {}: {error}", self.what);
                    self.pauses.count.add(1);
                    tokio::time::sleep(self.pause).await;
                    let paused = u64::try_from(self.pause.as_micros()).unwrap_or(u64::MAX);
                    self.pauses.microseconds.add(paused);
                    self.pause = (self.pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    pub(crate) fn listener(&self) -> &TcpListener {
        &self.listener
    }
}
