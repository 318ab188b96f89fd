//! What a server says of itself: `GET /status` on its HTTP port. As much of HTTP/1.1 as that
//! takes, and no more: one request on a connection of its own, a body of bounded size.

use std::io;

use serde::Deserialize;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::Address;

/// The longest answer, head and body, in bytes.
pub const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// The members of `GET /status` that every server shows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
pub struct Status {
    pub id: u64,
    /// `Leader`, `Follower` or `Candidate`.
    pub role: String,
    pub term: u64,
    /// The id of the leader that this server follows, or its own.
    pub leader: Option<u64>,
    /// Whether this server knows of a majority that it belongs to.
    pub quorum: bool,
    pub commit_index: u64,
    pub last_applied: u64,
    pub last_log_index: u64,
}

impl Status {
    /// Whether this server leads and has its majority.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.role == "Leader" && self.quorum
    }
}

/// Why a server's status is not known.
#[derive(Debug, Error)]
pub enum StatusError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    TooLate,
    #[error("answered {code}")]
    Code { code: u16 },
    #[error("no answer in HTTP")]
    Malformed,
    #[error("more than {RESPONSE_BYTES_MAX} bytes of answer")]
    TooLong,
    #[error("not the status of a server: {0}")]
    Body(#[from] serde_json::Error),
}

/// The status of the server with this HTTP address.
///
/// # Errors
/// When it can't be reached or its answer is no status, by the deadline.
pub async fn fetch(http: &Address, deadline: Instant) -> Result<Status, StatusError> {
    let response = timeout_at(deadline, get(http, "/status"))
        .await
        .map_err(|_| StatusError::TooLate)??;
    Ok(serde_json::from_slice(body(&response)?)?)
}

/// The bytes that come back for a `GET`.
async fn get(http: &Address, path: &str) -> Result<Vec<u8>, StatusError> {
    let mut stream = TcpStream::connect((http.host.as_str(), http.port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    let mut limited = stream.take(RESPONSE_BYTES_MAX as u64 + 1);
    loop {
        if limited.read_buf(&mut response).await? == 0 {
            return Ok(response);
        }
        if response.len() > RESPONSE_BYTES_MAX {
            return Err(StatusError::TooLong);
        }
        // Some servers leave the connection open all the same.
        if is_whole(&response) {
            return Ok(response);
        }
    }
}

/// Whether the head is there, announces a length, and that many bytes of body are there.
fn is_whole(response: &[u8]) -> bool {
    let Some((head, body)) = split(response) else {
        return false;
    };
    content_length(head).is_some_and(|length| body.len() >= length)
}

fn split(response: &[u8]) -> Option<(&str, &[u8])> {
    let end = response.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = std::str::from_utf8(response.get(..end)?).ok()?;
    Some((head, response.get(end + 4..)?))
}

fn content_length(head: &str) -> Option<usize> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let (_, length) = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    length.trim().parse().ok()
}

fn body(response: &[u8]) -> Result<&[u8], StatusError> {
    let (head, body) = split(response).ok_or(StatusError::Malformed)?;
    let code = head
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or(StatusError::Malformed)?;
    if code != 200 {
        return Err(StatusError::Code { code });
    }
    match content_length(head) {
        Some(length) => body.get(..length).ok_or(StatusError::Malformed),
        None => Ok(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_what_the_announced_length_says() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}rest";
        assert!(is_whole(whole));
        assert_eq!(body(whole).unwrap(), b"{}");
        let torn = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}";
        assert!(!is_whole(torn));
        assert!(matches!(body(torn), Err(StatusError::Malformed)));
    }

    #[test]
    fn what_is_no_success_is_no_body() {
        let busy = b"HTTP/1.1 503 Service Unavailable\r\n\r\n";
        assert!(matches!(body(busy), Err(StatusError::Code { code: 503 })));
        for other in [
            &b"hello\r\n\r\n"[..],
            b"HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n",
        ] {
            assert!(matches!(body(other), Err(StatusError::Malformed)));
        }
    }
}
