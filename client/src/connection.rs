//! One connection to one server: sends requests, pipelined, and reads their answers. Where to
//! connect, and what to do with a refusal, is `leader`'s.

use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::BytesMut;
use protocol::client::ReplyParser;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::Address;
use crate::request::{Answer, Malformed, Request};

/// How long a connection may take to come about.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);

/// The longest answer to one command, in bytes: what a server sends beyond it is no answer.
pub const ANSWER_BYTES_MAX: usize = 256 << 20;

/// How much is read at a time, in bytes.
const READ_BYTES: usize = 64 << 10;

/// How many requests are given to the kernel at a time.
const SLICES_MAX: usize = 64;

/// A connection on which everything that was sent has been answered.
#[derive(Debug)]
pub(crate) struct Connection {
    address: Address,
    stream: TcpStream,
    received: BytesMut,
    parser: ReplyParser,
    /// Bytes that were received since the last whole answer.
    answer_bytes: usize,
}

/// How far an exchange came. `answers` are those of the first requests, in order.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) answers: Vec<Answer>,
    pub(crate) end: End,
}

/// How an exchange ended. `sent` counts the requests whose last byte may have left this machine:
/// those after them were certainly not carried out.
#[derive(Debug)]
pub(crate) enum End {
    /// Every request is answered.
    Whole,
    Broken {
        sent: usize,
        error: io::Error,
    },
    /// The deadline, or a silence, was over first.
    Unanswered {
        sent: usize,
    },
    /// The server sent something that is no answer.
    Malformed {
        sent: usize,
    },
}

impl Connection {
    /// Connects, which takes at most `CONNECT_TIME_MAX` and not longer than the deadline.
    pub(crate) async fn open(address: &Address, deadline: Instant) -> io::Result<Self> {
        let deadline = deadline.min(Instant::now() + CONNECT_TIME_MAX);
        let connect = TcpStream::connect((address.host.as_str(), address.port));
        let stream = timeout_at(deadline, connect)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        Ok(Self {
            address: address.clone(),
            stream,
            received: BytesMut::new(),
            parser: ReplyParser::new(ANSWER_BYTES_MAX),
            answer_bytes: 0,
        })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Whether the server has neither closed this connection nor sent what nobody asked for: a
    /// connection that was idle is used again only then, since a command that is sent into a
    /// closed one has an unknown outcome.
    pub(crate) fn is_usable(&self) -> bool {
        let mut byte = [0];
        let quiet = self.stream.try_read(&mut byte);
        self.received.is_empty()
            && matches!(quiet, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends all requests and reads their answers while it sends, so that neither side waits for
    /// the other however much is under way. Gives up at the deadline, and before it when nothing
    /// was sent or received for `silence_max`.
    ///
    /// The connection may be used again only if the exchange is whole.
    pub(crate) async fn exchange(
        &mut self,
        requests: &[&Request],
        deadline: Instant,
        silence_max: Duration,
    ) -> Exchange {
        let mut sending = Sending::new(requests);
        let mut answers = Vec::with_capacity(requests.len());
        while answers.len() < requests.len() {
            let patience = deadline.min(Instant::now() + silence_max);
            let step = timeout_at(patience, self.step(&mut sending)).await;
            let sent = sending.sent;
            match step {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    // What arrived before the end still counts.
                    let end = End::Broken { sent, error };
                    return match self.take_answers(requests, &mut answers) {
                        Ok(()) if answers.len() == requests.len() => Exchange {
                            answers,
                            end: End::Whole,
                        },
                        Ok(()) => Exchange { answers, end },
                        Err(Malformed) => Exchange {
                            answers,
                            end: End::Malformed { sent },
                        },
                    };
                }
                Err(_) => {
                    let end = End::Unanswered { sent };
                    return Exchange { answers, end };
                }
            }
            if self.take_answers(requests, &mut answers).is_err() {
                let end = End::Malformed { sent };
                return Exchange { answers, end };
            }
        }
        let end = End::Whole;
        Exchange { answers, end }
    }

    /// Waits until the socket takes or gives something, and lets it.
    async fn step(&mut self, sending: &mut Sending<'_>) -> io::Result<()> {
        let interest = match sending.is_over() {
            true => Interest::READABLE,
            false => Interest::READABLE | Interest::WRITABLE,
        };
        let ready = self.stream.ready(interest).await?;
        if ready.is_readable() {
            self.received.reserve(READ_BYTES);
            match self.stream.try_read_buf(&mut self.received) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => self.answer_bytes += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if ready.is_writable() && !sending.is_over() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = sending.fill(&mut slices);
            match self.stream.try_write_vectored(&slices[..filled]) {
                Ok(bytes) => sending.advance(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes every whole answer out of what was received.
    fn take_answers(
        &mut self,
        requests: &[&Request],
        answers: &mut Vec<Answer>,
    ) -> Result<(), Malformed> {
        while let Some(request) = requests.get(answers.len()) {
            match request.take_answer(&mut self.parser, &mut self.received)? {
                Some(answer) => answers.push(answer),
                None if self.answer_bytes > ANSWER_BYTES_MAX => return Err(Malformed),
                None => return Ok(()),
            }
            self.answer_bytes = self.received.len();
        }
        if self.received.is_empty() {
            Ok(())
        } else {
            Err(Malformed)
        }
    }
}

/// Requests on their way out.
struct Sending<'a> {
    requests: &'a [&'a Request],
    /// How many of them are handed to the kernel as a whole, and how many bytes of the next.
    sent: usize,
    of_next: usize,
}

impl<'a> Sending<'a> {
    fn new(requests: &'a [&'a Request]) -> Self {
        Self {
            requests,
            sent: 0,
            of_next: 0,
        }
    }

    fn is_over(&self) -> bool {
        self.sent == self.requests.len()
    }

    /// Fills in what is to be sent next, and returns how many slices that takes.
    fn fill(&self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        let mut skip = self.of_next;
        for (slice, request) in slices.iter_mut().zip(&self.requests[self.sent..]) {
            *slice = IoSlice::new(&request.bytes()[skip..]);
            skip = 0;
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, bytes: usize) {
        self.of_next += bytes;
        while let Some(request) = self.requests.get(self.sent)
            && self.of_next >= request.bytes().len()
        {
            self.of_next -= request.bytes().len();
            self.sent += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_sent_when_its_last_byte_is() {
        let version = Request::version();
        let requests = [&version, &version, &version];
        let length = version.bytes().len();
        let mut sending = Sending::new(&requests);
        sending.advance(length - 1);
        assert_eq!(sending.sent, 0);
        let mut slices = [IoSlice::new(&[]); 2];
        assert_eq!(sending.fill(&mut slices), 2);
        assert_eq!((&*slices[0], &*slices[1]), (&b"\n"[..], version.bytes()));
        sending.advance(1 + length);
        assert_eq!(sending.sent, 2);
        sending.advance(length);
        assert!(sending.is_over());
    }
}
