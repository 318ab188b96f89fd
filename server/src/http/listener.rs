//! Accepts HTTP connections up to a limit, and ends those that say nothing: at once when others
//! need their place, since this port is to answer always.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::listen::Acceptor;
use crate::places::{Place, Places};

/// Connections at a time. For one more, the oldest is closed.
const CONNECTIONS_MAX: usize = 64;

/// A connection on which nothing comes or goes for this long is closed.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What `axum::serve` accepts from.
#[derive(Debug)]
pub(crate) struct LimitedListener {
    acceptor: Acceptor,
    places: Places,
}

impl LimitedListener {
    pub(crate) fn new(acceptor: Acceptor) -> LimitedListener {
        LimitedListener {
            acceptor,
            places: Places::new(CONNECTIONS_MAX),
        }
    }
}

impl axum::serve::Listener for LimitedListener {
    type Io = LimitedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (LimitedStream, SocketAddr) {
        let (stream, address) = self.acceptor.accept().await;
        let place = self.places.take().await;
        let stream = LimitedStream {
            stream,
            silence: Box::pin(sleep(SILENCE_MAX)),
            lost_its_place: Box::pin(place.lost()),
            _place: place,
        };
        (stream, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.acceptor.listener().local_addr()
    }
}

/// One of the connections.
#[derive(Debug)]
pub(crate) struct LimitedStream {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    lost_its_place: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: Place,
}

impl LimitedStream {
    /// Something has come or gone.
    fn stirred(&mut self) {
        let end = Instant::now() + SILENCE_MAX;
        self.silence.as_mut().reset(end);
    }

    /// What a read or write comes to that can't go on now.
    fn pending<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        match self.lost_its_place.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for LimitedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if result.is_ready() {
            self.stirred();
            return result;
        }
        match self.silence.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => self.pending(context),
        }
    }
}

impl AsyncWrite for LimitedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Pending => self.pending(context),
            result => {
                self.stirred();
                result
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
