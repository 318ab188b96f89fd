//! One HTTP request and its response, on a connection of its own.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a server may take over a response before it counts as not answering.
const TIMEOUT: Duration = Duration::from_secs(2);

/// An HTTP response.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    /// What `address` answers to `GET path`.
    ///
    /// # Errors
    /// When nothing listens there, or no whole response comes within two seconds.
    pub fn get(address: SocketAddr, path: &str) -> io::Result<Response> {
        Response::request(address, "GET", path)
    }

    /// What `address` answers to a request without a body.
    ///
    /// # Errors
    /// When nothing listens there, or no whole response comes within two seconds.
    pub fn request(address: SocketAddr, method: &str, path: &str) -> io::Result<Response> {
        Response::send(address, method, path, "")
    }

    /// What `address` answers to a request with this body.
    ///
    /// # Errors
    /// When nothing listens there, or no whole response comes within two seconds.
    pub fn send(address: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<Response> {
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        parse(&text).ok_or_else(|| io::Error::other(format!("no HTTP response: {text:?}")))
    }

    /// The value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }
}

fn parse(text: &str) -> Option<Response> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Some(Response {
        status,
        headers,
        body: body.to_owned(),
    })
}
