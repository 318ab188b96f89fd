//! Replies with what two servers may differ in masked: uniques, versions of the program, seconds
//! that pass.

use std::collections::BTreeMap;

/// The lines of `stats` that count the same events in both.
const COUNTERS: [&str; 17] = [
    "cmd_get",
    "cmd_set",
    "cmd_flush",
    "cmd_touch",
    "get_hits",
    "get_misses",
    "delete_misses",
    "delete_hits",
    "incr_misses",
    "incr_hits",
    "decr_misses",
    "decr_hits",
    "cas_misses",
    "cas_hits",
    "cas_badval",
    "touch_hits",
    "touch_misses",
];

/// More seconds than are ever left, and fewer than memcached shows of an item that is over.
const LEFT_MAX: u64 = 4_000_000_000;

/// Keys in base64 and what they stand for: `k` shows the one or the other.
pub(crate) const ENCODED: [(&str, &str); 4] = [
    ("YQ==", "a"),
    ("Yg==", "b"),
    ("ZiBn", "f g"),
    ("AA0K", "\0\r\n"),
];

/// The uniques that one server has shown, in the order in which they were seen.
#[derive(Debug, Default)]
pub(crate) struct Uniques {
    seen: Vec<u64>,
    by_key: BTreeMap<Vec<u8>, Vec<u64>>,
}

impl Uniques {
    /// The last unique that was shown for `key`, or one of those before it.
    pub(crate) fn shown(&self, key: &[u8], age: usize) -> Option<u64> {
        let shown = self.by_key.get(key)?;
        let place = shown.len().checked_sub(1 + age)?;
        shown.get(place).copied()
    }

    /// A reply without what may differ: each unique is written as its place among those that this
    /// server has shown. `key` is the one that a meta command names.
    pub(crate) fn mask(&mut self, key: &[u8], reply: &[u8]) -> Vec<u8> {
        let mut masked = Vec::with_capacity(reply.len());
        let mut rest = reply;
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n');
            let (line, behind) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
            let (line, value_bytes) = self.mask_line(key, line);
            masked.extend_from_slice(&line);
            let (value, behind) = behind.split_at(value_bytes.min(behind.len()));
            masked.extend_from_slice(value);
            rest = behind;
        }
        masked
    }

    /// The line, and how many bytes of a value follow it.
    fn mask_line(&mut self, key: &[u8], line: &[u8]) -> (Vec<u8>, usize) {
        let words: Vec<&[u8]> = line
            .trim_ascii_end()
            .split(|byte| *byte == b' ')
            .filter(|word| !word.is_empty())
            .collect();
        match words[..] {
            [b"VALUE", _, _, bytes] => (line.to_vec(), number(bytes) as usize + 2),
            [b"VALUE", key, flags, bytes, unique] => {
                let place = self.place(key, number(unique));
                let head = [b"VALUE", key, flags, bytes].join(&b' ');
                let masked = [&*head, b" ", place.as_bytes(), b"\r\n"].concat();
                (masked, number(bytes) as usize + 2)
            }
            [b"VA", bytes, ..] => (self.mask_flags(key, &words, 2), number(bytes) as usize + 2),
            [b"HD", ..] => (self.mask_flags(key, &words, 1), 0),
            [b"EN" | b"NF" | b"NS" | b"EX", ..] => (mask_no_unique(&words), 0),
            [b"ME", key, ..] => (mask_about(key, &words), 0),
            [b"STAT", name, _] if COUNTERS.iter().any(|it| it.as_bytes() == name) => {
                (line.to_vec(), 0)
            }
            [b"STAT", name, _] if !name.starts_with(b"sizes") => (Vec::new(), 0),
            _ => (line.to_vec(), 0),
        }
    }

    /// `#<n>`: the n-th unique that this server has shown.
    fn place(&mut self, key: &[u8], unique: u64) -> String {
        let place = self.seen.iter().position(|seen| *seen == unique);
        let place = place.unwrap_or_else(|| {
            self.seen.push(unique);
            self.seen.len() - 1
        });
        let shown = self.by_key.entry(key.to_vec()).or_default();
        if shown.last() != Some(&unique) {
            shown.push(unique);
        }
        format!("#{place}")
    }

    /// The flags of a meta command's reply, from the word at `from` on.
    fn mask_flags(&mut self, key: &[u8], words: &[&[u8]], from: usize) -> Vec<u8> {
        let mut masked: Vec<Vec<u8>> = words[..from].iter().map(|it| it.to_vec()).collect();
        for word in &words[from..] {
            masked.push(match word {
                [b'b'] => continue,
                [b'k', key @ ..] => decoded(key),
                [b'c', digits @ ..] if is_number(digits) => {
                    format!("c{}", self.place(key, number(digits))).into_bytes()
                }
                [b'l', digits @ ..] if is_number(digits) => b"l<seconds>".to_vec(),
                [b't', digits @ ..] if is_number(digits) => {
                    // Times are chosen in the middle between two thousands. What is less than
                    // nothing is a large number to memcached.
                    let left = Some(number(digits)).filter(|left| *left < LEFT_MAX);
                    format!("t<{} thousand>", (left.unwrap_or(0) + 500) / 1000).into_bytes()
                }
                word => word.to_vec(),
            });
        }
        let mut line = masked.join(&b' ');
        line.extend_from_slice(b"\r\n");
        line
    }
}

/// There is no item, or it is not told of, so a unique would be nobody's.
fn mask_no_unique(words: &[&[u8]]) -> Vec<u8> {
    let mask = |word: &&[u8]| match word {
        [b'b'] => None,
        [b'k', key @ ..] => Some(decoded(key)),
        [b'c', digits @ ..] if is_number(digits) => Some(b"c<nobody's>".to_vec()),
        word => Some(word.to_vec()),
    };
    let masked: Vec<Vec<u8>> = words.iter().filter_map(mask).collect();
    [masked.join(&b' '), b"\r\n".to_vec()].concat()
}

/// `me`: whether the item ends at all is what can be compared.
fn mask_about(key: &[u8], words: &[&[u8]]) -> Vec<u8> {
    let never = words.contains(&b"exp=-1".as_slice());
    let end = if never { "never" } else { "some time" };
    [
        b"ME ",
        &*decoded(key),
        format!(" ends {end}\r\n").as_bytes(),
    ]
    .concat()
}

/// `k` with the key that this word stands for.
fn decoded(key: &[u8]) -> Vec<u8> {
    let known = ENCODED.iter().find(|pair| pair.0.as_bytes() == key);
    let key = known.map_or(key, |pair| pair.1.as_bytes());
    format!("k{}", key.escape_ascii()).into_bytes()
}

fn is_number(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(u8::is_ascii_digit)
}

/// A number of a server, which is none of ours to check: 0 if it is no number.
fn number(word: &[u8]) -> u64 {
    let text = std::str::from_utf8(word).unwrap_or_default();
    text.trim_end().parse().unwrap_or_default()
}
