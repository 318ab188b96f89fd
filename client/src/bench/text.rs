//! Requests and replies of the protocols that answer in the order of the requests: memcached's and
//! redis's.

use super::protocol::{KEY_BYTES, Malformed, Said, What, append_key, line};
use crate::Address;

/// The commands that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// `set` and `get`.
    Classic,
    /// `ms` and `mg`.
    Meta,
    /// Another server's, to compare with: `SET` and `GET` of redis, and behind sets that are sent together
    /// a `WAIT` for so many replicas, from 0 to 9, that have them too.
    Redis { replicas: u8 },
}

/// The pieces that requests are put together from.
#[derive(Debug)]
pub(super) struct Requests {
    family: Family,
    set: &'static [u8],
    /// ` 0 0 <bytes>\r\n<value>\r\n`, or what the family has for it.
    set_end: Vec<u8>,
    get: &'static [u8],
    get_end: &'static [u8],
    /// How long the reply to a get is that finds a value written by these sets: up to and with the
    /// line end of its first line, which is `<bytes>\r\n`, and in all.
    hit_head: usize,
    hit_head_end: Vec<u8>,
    hit: usize,
}

impl Requests {
    /// Those of this family with values of this many bytes.
    pub(super) fn new(family: Family, value_bytes: usize) -> Self {
        let length = value_bytes.to_string();
        let value_head = match family {
            Family::Classic => format!(" 0 0 {length}\r\n"),
            Family::Meta => format!(" {length}\r\n"),
            Family::Redis { .. } => format!("\r\n${length}\r\n"),
        };
        let mut set_end = value_head.into_bytes();
        set_end.extend((b'a'..=b'z').cycle().take(value_bytes));
        set_end.extend_from_slice(b"\r\n");
        let (set, get, get_end): (&[u8], &[u8], &[u8]) = match family {
            Family::Classic => (b"set ", b"get ", b"\r\n"),
            Family::Meta => (b"ms ", b"mg ", b" v\r\n"),
            Family::Redis { .. } => (
                b"*3\r\n$3\r\nSET\r\n$16\r\n",
                b"*2\r\n$3\r\nGET\r\n$16\r\n",
                b"\r\n",
            ),
        };
        let hit_head_end = format!("{length}\r\n").into_bytes();
        let hit_head = hit_head_end.len()
            + match family {
                Family::Classic => b"VALUE ".len() + KEY_BYTES + b" 0 ".len(),
                Family::Meta => b"VA ".len(),
                Family::Redis { .. } => b"$".len(),
            };
        Self {
            family,
            set,
            set_end,
            get,
            get_end,
            hit_head,
            hit_head_end,
            hit: hit_head + value_bytes + family.hit_end().len(),
        }
    }

    pub(super) fn append(&self, what: What, key: u32, to: &mut Vec<u8>) {
        match what {
            What::Set => self.append_set(key, to),
            What::Get => self.append_get(key, to),
            What::Wait => self.append_wait(to),
        }
    }

    /// The reply at the start of `bytes`, and how long it is; `None` while it is not whole.
    pub(super) fn reply(
        &self,
        what: What,
        bytes: &[u8],
    ) -> Result<Option<(Said, usize)>, Malformed> {
        match what {
            What::Set => self.set_reply(bytes),
            What::Get => self.get_reply(bytes),
            What::Wait => self.wait_reply(bytes),
        }
    }

    fn append_set(&self, key: u32, to: &mut Vec<u8>) {
        to.extend_from_slice(self.set);
        append_key(key, to);
        to.extend_from_slice(&self.set_end);
    }

    fn append_get(&self, key: u32, to: &mut Vec<u8>) {
        to.extend_from_slice(self.get);
        append_key(key, to);
        to.extend_from_slice(self.get_end);
    }

    /// Whether sets that are sent together are carried out only once a `WAIT` behind them is answered.
    pub(super) fn waits(&self) -> bool {
        self.family.replicas() > 0
    }

    fn append_wait(&self, to: &mut Vec<u8>) {
        let replicas = self.family.replicas();
        let wait = format!("*3\r\n$4\r\nWAIT\r\n$1\r\n{replicas}\r\n$1\r\n0\r\n");
        to.extend_from_slice(wait.as_bytes());
    }

    /// The bytes of one set.
    pub(super) fn set_bytes(&self) -> usize {
        self.set.len() + KEY_BYTES + self.set_end.len()
    }

    fn set_reply(&self, bytes: &[u8]) -> Result<Option<(Said, usize)>, Malformed> {
        let stored = self.family.stored();
        if bytes.starts_with(stored) {
            return Ok(Some((Said::Stored, stored.len())));
        }
        let Some(line) = line(bytes)? else {
            return Ok(None);
        };
        Ok(Some((refusal(line)?, line.len() + 2)))
    }

    /// `:<how many>\r\n`.
    fn wait_reply(&self, bytes: &[u8]) -> Result<Option<(Said, usize)>, Malformed> {
        let Some(line) = line(bytes)? else {
            return Ok(None);
        };
        let length = line.len() + 2;
        let Some(count) = line.strip_prefix(b":") else {
            return Ok(Some((refusal(line)?, length)));
        };
        let count = std::str::from_utf8(count).map_err(|_| Malformed)?;
        let count: u32 = count.parse().map_err(|_| Malformed)?;
        let said = match count >= self.family.replicas().into() {
            true => Said::Stored,
            false => Said::Refused(format!("{count} replicas")),
        };
        Ok(Some((said, length)))
    }

    fn get_reply(&self, bytes: &[u8]) -> Result<Option<(Said, usize)>, Malformed> {
        let miss = self.family.miss();
        if bytes.starts_with(miss) {
            return Ok(Some((Said::Miss, miss.len())));
        }
        if bytes.starts_with(self.family.value()) {
            return self.hit_reply(bytes);
        }
        let Some(line) = line(bytes)? else {
            return Ok(None);
        };
        Ok(Some((refusal(line)?, line.len() + 2)))
    }

    fn hit_reply(&self, bytes: &[u8]) -> Result<Option<(Said, usize)>, Malformed> {
        let hit_end = self.family.hit_end();
        // The usual hit is one of our own values, whose reply has a known length.
        if bytes.get(self.hit_head - self.hit_head_end.len()..self.hit_head)
            == Some(&self.hit_head_end)
            && bytes.get(self.hit - hit_end.len()..self.hit) == Some(hit_end)
        {
            return Ok(Some((Said::Hit, self.hit)));
        }
        let Some(line) = line(bytes)? else {
            return Ok(None);
        };
        let length = match self.family {
            Family::Classic => line.split(|&byte| byte == b' ').nth(3),
            Family::Meta => line.split(|&byte| byte == b' ').nth(1),
            Family::Redis { .. } => line.strip_prefix(b"$"),
        };
        let length = length.ok_or(Malformed)?;
        let length = std::str::from_utf8(length).map_err(|_| Malformed)?;
        let length: u32 = length.parse().map_err(|_| Malformed)?;
        let end = line.len() + 2 + length as usize;
        let whole = end + hit_end.len();
        match bytes.get(end..whole) {
            None => Ok(None),
            Some(found) if found == hit_end => Ok(Some((Said::Hit, whole))),
            Some(_) => Err(Malformed),
        }
    }
}

impl Family {
    fn stored(self) -> &'static [u8] {
        match self {
            Family::Classic => b"STORED\r\n",
            Family::Meta => b"HD\r\n",
            Family::Redis { .. } => b"+OK\r\n",
        }
    }

    fn value(self) -> &'static [u8] {
        match self {
            Family::Classic => b"VALUE ",
            Family::Meta => b"VA ",
            Family::Redis { .. } => b"$",
        }
    }

    /// Behind a value.
    fn hit_end(self) -> &'static [u8] {
        match self {
            Family::Classic => b"\r\nEND\r\n",
            Family::Meta | Family::Redis { .. } => b"\r\n",
        }
    }

    fn miss(self) -> &'static [u8] {
        match self {
            Family::Classic => b"END\r\n",
            Family::Meta => b"EN\r\n",
            Family::Redis { .. } => b"$-1\r\n",
        }
    }

    /// How many replicas sets wait for.
    fn replicas(self) -> u8 {
        match self {
            Family::Redis { replicas } => replicas,
            Family::Classic | Family::Meta => 0,
        }
    }
}

fn refusal(line: &[u8]) -> Result<Said, Malformed> {
    let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
    let mut words = line.split(' ');
    match words.next() {
        Some("ERR_REDIRECT") => {
            let host = words.next().ok_or(Malformed)?;
            let port = words.next().and_then(|port| port.parse().ok());
            Ok(Said::Redirect(Address::new(host, port.ok_or(Malformed)?)))
        }
        Some("SERVER_ERROR") if line == "SERVER_ERROR no leader" => Ok(Said::NoLeader),
        Some("SERVER_ERROR") if line == "SERVER_ERROR outcome unknown" => Ok(Said::Unknown),
        Some("SERVER_ERROR" | "CLIENT_ERROR" | "ERROR") => Ok(Said::Refused(line.to_owned())),
        // Redis's.
        Some(word) if word.starts_with('-') => Ok(Said::Refused(line.to_owned())),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::{KEYS_MAX, LINE_BYTES_MAX};
    use super::*;

    fn requests(family: Family) -> Requests {
        Requests::new(family, 3)
    }

    #[track_caller]
    fn sent(family: Family, expected: &str) {
        let mut bytes = Vec::new();
        let requests = requests(family);
        requests.append(What::Set, 12, &mut bytes);
        assert_eq!(bytes.len(), requests.set_bytes());
        requests.append(What::Get, KEYS_MAX - 1, &mut bytes);
        if requests.waits() {
            requests.append(What::Wait, 0, &mut bytes);
        }
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn requests_are_those_of_the_text_protocol() {
        sent(
            Family::Classic,
            "set bench-0000000012 0 0 3\r\nabc\r\nget bench-0999999999\r\n",
        );
        sent(
            Family::Meta,
            "ms bench-0000000012 3\r\nabc\r\nmg bench-0999999999 v\r\n",
        );
        sent(
            Family::Redis { replicas: 2 },
            "*3\r\n$3\r\nSET\r\n$16\r\nbench-0000000012\r\n$3\r\nabc\r\n\
             *2\r\n$3\r\nGET\r\n$16\r\nbench-0999999999\r\n\
             *3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$1\r\n0\r\n",
        );
    }

    /// The reply is recognized when its last byte is there and not before, whatever follows.
    #[track_caller]
    fn recognized(family: Family, reply: &str, what: What, said: &Said) {
        let requests = requests(family);
        let scan = |bytes: &[u8]| requests.reply(what, bytes);
        for cut in 0..reply.len() {
            assert_eq!(
                scan(&reply.as_bytes()[..cut]),
                Ok(None),
                "{cut} of {reply:?}"
            );
        }
        let more = format!("{reply}STORED\r\n");
        for bytes in [reply, &more] {
            assert_eq!(
                scan(bytes.as_bytes()),
                Ok(Some((said.clone(), reply.len())))
            );
        }
    }

    #[test]
    fn replies_are_told_apart_at_every_cut() {
        let hits = [
            (
                Family::Classic,
                "VALUE bench-0000000012 0 3\r\nabc\r\nEND\r\n",
            ),
            (
                Family::Classic,
                "VALUE bench-0000000012 7 5\r\na\r\nbc\r\nEND\r\n",
            ),
            (Family::Meta, "VA 3\r\nabc\r\n"),
            // As long as the usual one up to where that ends.
            (Family::Meta, "VA 5\r\nabc\r\n\r\n"),
        ];
        for (family, reply) in hits {
            recognized(family, reply, What::Get, &Said::Hit);
        }
        recognized(Family::Classic, "STORED\r\n", What::Set, &Said::Stored);
        recognized(Family::Classic, "END\r\n", What::Get, &Said::Miss);
        recognized(Family::Meta, "HD\r\n", What::Set, &Said::Stored);
        recognized(Family::Meta, "EN\r\n", What::Get, &Said::Miss);
        let redis = Family::Redis { replicas: 2 };
        recognized(redis, ":3\r\n", What::Wait, &Said::Stored);
        recognized(redis, "+OK\r\n", What::Set, &Said::Stored);
        let few = Said::Refused("1 replicas".to_owned());
        recognized(redis, ":1\r\n", What::Wait, &few);
        recognized(redis, "$3\r\nabc\r\n", What::Get, &Said::Hit);
        recognized(redis, "$5\r\nabc\r\n\r\n", What::Get, &Said::Hit);
        recognized(redis, "$-1\r\n", What::Get, &Said::Miss);
        let wrong = Said::Refused("-ERR no".to_owned());
        recognized(redis, "-ERR no\r\n", What::Get, &wrong);
        for (family, what) in [
            (Family::Classic, What::Set),
            (Family::Classic, What::Get),
            (Family::Meta, What::Set),
            (Family::Meta, What::Get),
        ] {
            let leader = Said::Redirect(Address::new("::1", 9010));
            recognized(family, "ERR_REDIRECT ::1 9010\r\n", what, &leader);
            recognized(family, "SERVER_ERROR no leader\r\n", what, &Said::NoLeader);
            recognized(
                family,
                "SERVER_ERROR outcome unknown\r\n",
                what,
                &Said::Unknown,
            );
            let line = "SERVER_ERROR object too large for cache";
            let refused = Said::Refused(line.to_owned());
            recognized(family, &format!("{line}\r\n"), what, &refused);
        }
    }

    #[test]
    fn what_is_no_reply_is_malformed() {
        let long = "E".repeat(LINE_BYTES_MAX + 1);
        for bytes in [
            "VALUE a b c\r\n",
            "ERR_REDIRECT\r\n",
            "HELLO\r\n",
            "\r\n",
            "VALUE k 0 3\r\nabcdefEND\r\n",
            &long,
        ] {
            assert_eq!(
                requests(Family::Classic).get_reply(bytes.as_bytes()),
                Err(Malformed),
                "{bytes:?}"
            );
        }
        for bytes in ["VA\r\n", "VA x\r\n", "VA 3\r\nabcd\r\n", "END\r\n"] {
            assert_eq!(
                requests(Family::Meta).get_reply(bytes.as_bytes()),
                Err(Malformed),
                "{bytes:?}"
            );
        }
    }
}
