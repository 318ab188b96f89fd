//! Requests and replies of a NATS server's key-value store, as its own clients use it: a put is a message
//! to the stream of the bucket `bench`, a get asks any server that has a copy of the stream directly.
//! Replies are messages to a subject that each connection has for itself alone, as long as it lasts.

use super::protocol::{KEY_BYTES, Malformed, Said, What, append_digits, append_key, line};

/// Digits of the number in a connection's subject: those of any `u64`.
const INBOX_DIGITS: usize = 20;

/// A connection is answered on this with its number behind it.
const INBOX: &[u8] = b" _INBOX.bench.";

const PUT: &[u8] = b"PUB $KV.bench.";
const GET: &[u8] = b"PUB $JS.API.DIRECT.GET.KV_bench.$KV.bench.";

/// No answer to each request as such, headers for gets, and an answer if nobody serves a subject.
const OPTIONS: &str = r#"{"verbose":false,"pedantic":false,"headers":true,"no_responders":true}"#;

const LINE_END: &[u8] = b"\r\n";

/// The pieces that requests are put together from.
#[derive(Debug)]
pub(super) struct Requests {
    /// ` <bytes>\r\n<value>\r\n`.
    put_end: Vec<u8>,
}

impl Requests {
    /// Those with values of this many bytes.
    pub(super) fn new(value_bytes: usize) -> Self {
        let mut put_end = format!(" {value_bytes}\r\n").into_bytes();
        put_end.extend((b'a'..=b'z').cycle().take(value_bytes));
        put_end.extend_from_slice(LINE_END);
        Self { put_end }
    }

    pub(super) fn append(&self, what: What, key: u32, inbox: u64, to: &mut Vec<u8>) {
        let (start, end) = match what {
            What::Set => (PUT, &self.put_end[..]),
            What::Get => (GET, &b" 0\r\n\r\n"[..]),
            What::Wait => return,
        };
        to.extend_from_slice(start);
        append_key(key, to);
        append_inbox(inbox, to);
        to.extend_from_slice(end);
    }

    /// The bytes of one set.
    pub(super) fn set_bytes(&self) -> usize {
        PUT.len() + KEY_BYTES + INBOX.len() + INBOX_DIGITS + self.put_end.len()
    }
}

/// What a connection that is answered on this subject sends before anything else.
pub(super) fn opening(inbox: u64) -> Vec<u8> {
    let mut opening = format!("CONNECT {OPTIONS}\r\nSUB").into_bytes();
    append_inbox(inbox, &mut opening);
    opening.extend_from_slice(b" 1\r\n");
    opening
}

fn append_inbox(inbox: u64, to: &mut Vec<u8>) {
    to.extend_from_slice(INBOX);
    append_digits::<INBOX_DIGITS>(inbox, to);
}

/// The reply at the start of `bytes`, with what the server says before it without being asked (its name,
/// and to a connection that was silent whether it is alive: no run is silent for that long), and how long
/// that is; `None` while it is not whole. Gets that are under way together may be answered in any order, so
/// what is said is told by the reply alone.
pub(super) fn reply(bytes: &[u8]) -> Result<Option<(Said, usize)>, Malformed> {
    let mut start = 0;
    loop {
        let rest = bytes.get(start..).unwrap_or_default();
        let Some(line) = line(rest)? else {
            return Ok(None);
        };
        start += line.len() + LINE_END.len();
        let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
        let mut words = line.split(' ');
        // The headers' length is not needed: a status stands in their first line.
        let has_headers = match words.next() {
            Some("INFO" | "PING") => continue,
            Some("MSG") => false,
            Some("HMSG") => true,
            Some("-ERR") => return Ok(Some((Said::Refused(line.to_owned()), start))),
            _ => return Err(Malformed),
        };
        let length = words.next_back().ok_or(Malformed)?;
        let length: u32 = length.parse().map_err(|_| Malformed)?;
        let end = start.checked_add(length as usize).ok_or(Malformed)?;
        let whole = end.checked_add(LINE_END.len()).ok_or(Malformed)?;
        let message = bytes.get(start..end).zip(bytes.get(end..whole));
        return match message {
            None => Ok(None),
            Some((message, LINE_END)) => Ok(Some((said(message, has_headers), whole))),
            Some(_) => Err(Malformed),
        };
    }
}

fn said(message: &[u8], has_headers: bool) -> Said {
    let head = message.split(|&byte| byte == b'\r').next();
    let head = head.unwrap_or_default();
    match has_headers {
        true if head == b"NATS/1.0" => Said::Hit,
        true if head.starts_with(b"NATS/1.0 404") => Said::Miss,
        false if head.starts_with(br#"{"stream":"#) => Said::Stored,
        true | false => Said::Refused(String::from_utf8_lossy(head).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_of_the_key_value_store() {
        let mut bytes = opening(7);
        let requests = Requests::new(3);
        let before = bytes.len();
        requests.append(What::Set, 12, 7, &mut bytes);
        assert_eq!(bytes.len() - before, requests.set_bytes());
        requests.append(What::Get, 999_999_999, u64::MAX, &mut bytes);
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n\
             SUB _INBOX.bench.00000000000000000007 1\r\n\
             PUB $KV.bench.bench-0000000012 _INBOX.bench.00000000000000000007 3\r\nabc\r\n\
             PUB $JS.API.DIRECT.GET.KV_bench.$KV.bench.bench-0999999999 _INBOX.bench.18446744073709551615 0\r\n\r\n"
        );
    }

    /// The reply is recognized when its last byte is there and not before, whatever follows.
    #[track_caller]
    fn recognized(bytes: &str, said: &Said) {
        for cut in 0..bytes.len() {
            let found = reply(&bytes.as_bytes()[..cut]);
            assert_eq!(found, Ok(None), "{cut} of {bytes:?}");
        }
        for bytes in [bytes.to_owned(), format!("{bytes}PING\r\n")] {
            let length = bytes.strip_suffix("PING\r\n").unwrap_or(&bytes).len();
            assert_eq!(reply(bytes.as_bytes()), Ok(Some((said.clone(), length))));
        }
    }

    #[test]
    fn replies_are_told_apart_at_every_cut() {
        let stored = "MSG _INBOX.bench.00007 1 30\r\n{\"stream\":\"KV_bench\", \"seq\":1}\r\n";
        recognized(stored, &Said::Stored);
        let greeted = format!(
            "INFO {{\"server_id\":\"{}\"}}\r\nPING\r\n{stored}",
            "n".repeat(900)
        );
        recognized(&greeted, &Said::Stored);
        let headers = "NATS/1.0\r\nNats-Stream: KV_bench\r\n\r\n";
        let hit = format!(
            "HMSG i 1 {} {}\r\n{headers}abc\r\n",
            headers.len(),
            headers.len() + 3
        );
        recognized(&hit, &Said::Hit);
        let miss = "HMSG i 1 34 34\r\nNATS/1.0 404 Message Not Found\r\n\r\n\r\n";
        recognized(miss, &Said::Miss);
        let nobody = Said::Refused("NATS/1.0 503".to_owned());
        recognized("HMSG i 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n", &nobody);
        let error = r#"{"error":{"code":503}}"#;
        let refused = Said::Refused(error.to_owned());
        recognized(&format!("MSG i 1 {}\r\n{error}\r\n", error.len()), &refused);
        let wrong = Said::Refused("-ERR 'Maximum Payload Violation'".to_owned());
        recognized("-ERR 'Maximum Payload Violation'\r\n", &wrong);
    }

    #[test]
    fn what_is_no_reply_is_malformed() {
        for bytes in [
            "STORED\r\n",
            "MSG\r\n",
            "MSG i 1 x\r\n",
            "MSG i 1 3\r\nabcde\r\n",
            "\r\n",
        ] {
            assert_eq!(reply(bytes.as_bytes()), Err(Malformed), "{bytes:?}");
        }
    }
}
