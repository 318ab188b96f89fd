//! A raw connection to a client port: bytes out, and exactly the expected bytes back.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long an expected reply may take. Ten times the second within which a server answers.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest line that a test reads.
const LINE_BYTES_MAX: usize = 64 << 10;

/// What is read at a time in search of the end of a line.
const READ_BYTES: usize = 4 << 10;

/// A connection that speaks memcached's text as a test tells it to.
#[derive(Debug)]
pub struct Text {
    stream: TcpStream,
    /// Read with a line and not part of it.
    ahead: Vec<u8>,
}

impl Text {
    /// Connects.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn try_connect(address: SocketAddr) -> io::Result<Text> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Text {
            stream,
            ahead: Vec::new(),
        })
    }

    /// Connects.
    ///
    /// # Panics
    /// When nothing listens there.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Text {
        Text::try_connect(address).unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// Sends these bytes in one write.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends these bytes in one write.
    ///
    /// # Panics
    /// When the connection takes them not.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref()).unwrap_or_else(|error| {
            panic!("cannot send {}: {error}", shown(bytes.as_ref()));
        });
    }

    /// Reads as many bytes as are expected, which must be these.
    ///
    /// # Panics
    /// When others come, or none, or the connection is closed.
    #[track_caller]
    pub fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let mut received = Vec::with_capacity(expected.len());
        let error = loop {
            if received.len() == expected.len() {
                break None;
            }
            match self.read_some(expected.len() - received.len()) {
                Ok(bytes) if bytes.is_empty() => break Some("then it was closed".to_owned()),
                Ok(bytes) => received.extend(bytes),
                Err(error) => break Some(format!("then {error}")),
            }
            // What is wrong already will not become right; what else has come helps to see why.
            if !expected.starts_with(&received) {
                break None;
            }
        };
        assert!(
            received == expected,
            "expected {}\nreceived {} {}",
            shown(expected),
            shown(&received),
            error.unwrap_or_default()
        );
    }

    /// Sends, then expects.
    ///
    /// # Panics
    /// As `send` and `expect`.
    #[track_caller]
    pub fn exchange(&mut self, sent: impl AsRef<[u8]>, expected: impl AsRef<[u8]>) {
        self.send(sent);
        self.expect(expected);
    }

    /// Sends each line by itself and expects its reply before the next.
    #[track_caller]
    pub fn exchange_all(&mut self, exchanges: &[(&str, &str)]) {
        for (sent, expected) in exchanges {
            self.exchange(sent, expected);
        }
    }

    /// The next line, without its `\r\n`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the connection is closed before its end; `WouldBlock` when none comes
    /// in ten seconds.
    pub fn try_line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() > LINE_BYTES_MAX {
                return Err(io::Error::other("a line without end"));
            }
            let mut bytes = self.read_some(READ_BYTES)?;
            if bytes.is_empty() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            // Up to the first end of a line that the two make, be it between them.
            let starts = line.ends_with(b"\r") && bytes.starts_with(b"\n");
            let end = bytes.windows(2).position(|two| two == b"\r\n");
            let of_line = match starts {
                true => 1,
                false => end.map_or(bytes.len(), |end| end + 2),
            };
            let mut ahead = bytes.split_off(of_line);
            ahead.append(&mut self.ahead);
            self.ahead = ahead;
            line.append(&mut bytes);
        }
        line.truncate(line.len() - 2);
        String::from_utf8(line).map_err(io::Error::other)
    }

    /// The next line, without its `\r\n`.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn line(&mut self) -> String {
        match self.try_line() {
            Ok(line) => line,
            Err(error) => panic!("no line: {error}"),
        }
    }

    /// Sends one line and returns the one line that answers it.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn ask(&mut self, sent: impl AsRef<[u8]>) -> String {
        self.send(sent);
        self.line()
    }

    /// Sends, and returns the one line that answers it.
    ///
    /// # Errors
    /// When the connection is lost meanwhile.
    pub fn try_ask(&mut self, sent: impl AsRef<[u8]>) -> io::Result<String> {
        self.try_send(sent)?;
        self.try_line()
    }

    /// Expects the server to close the connection without another byte.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        match self.read_some(LINE_BYTES_MAX) {
            Ok(bytes) => assert!(bytes.is_empty(), "received {}", shown(&bytes)),
            // It was closed with bytes of ours unread.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("not closed: {error}"),
        }
    }

    /// Sends no more; replies can still be read.
    ///
    /// # Panics
    /// When the connection is gone.
    pub fn finish(&mut self) {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("it is connected");
    }

    /// Waits this long, at most, for each later reply and for room for each later write.
    ///
    /// # Panics
    /// When `timeout` is zero.
    pub fn set_timeout(&mut self, timeout: Duration) {
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            set(&self.stream, Some(timeout)).expect("it is not zero");
        }
    }

    /// At most `bytes_max` bytes, as they come; none when the connection is closed.
    fn read_some(&mut self, bytes_max: usize) -> io::Result<Vec<u8>> {
        if !self.ahead.is_empty() {
            let count = bytes_max.min(self.ahead.len());
            return Ok(self.ahead.drain(..count).collect());
        }
        let mut bytes = vec![0; bytes_max];
        let count = loop {
            match self.stream.read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        bytes.truncate(count);
        Ok(bytes)
    }
}

/// Bytes as a failure shows them: escaped, and not all of a mebibyte.
fn shown(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 400;
    let head = bytes.get(..SHOWN_MAX).unwrap_or(bytes).escape_ascii();
    match bytes.len().saturating_sub(SHOWN_MAX) {
        0 => format!("`{head}`"),
        more => format!("`{head}` and {more} bytes more"),
    }
}
