//! Lists of all keys: `lru_crawler metadump`, `lru_crawler mgdump`, `stats cachedump`. Which items
//! there are is not known here; the server gives them one by one, as fast as the client reads.

use crate::Output;

/// A list that a client has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dump {
    /// A line about each item.
    Metadump,
    /// `mg` lines, which can be sent back as they are.
    Mgdump,
    /// `ITEM` lines, so many at most; all if it is 0.
    Cachedump { items_max: u64 },
}

/// An item of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpItem<'a> {
    pub key: &'a [u8],
    pub value_bytes: usize,
    pub flags: u32,
    pub unique: u64,
    /// Over from this second since 1970 on.
    pub over_at: Option<u32>,
    /// The second since 1970 at which it was last asked for, and whether it ever was.
    pub last_access: u64,
    pub fetched: bool,
    /// What it counts for in `stats`.
    pub bytes: usize,
}

/// A `stats cachedump` ends with the line that takes it here, as memcached's does.
pub const CACHEDUMP_BYTES_MAX: u64 = 2 << 20;

pub(crate) const BUSY: &str = "BUSY currently processing crawler request\r\n";

impl Dump {
    /// Whether there may be but one at a time on a server, and nothing before it on a connection.
    #[must_use]
    pub fn is_exclusive(self) -> bool {
        !matches!(self, Dump::Cachedump { .. })
    }

    /// What is answered when something is owed before it.
    pub(crate) fn not_alone(self) -> &'static str {
        match self {
            Dump::Mgdump => "ERROR cannot pipeline other commands before mgdump\r\n",
            _ => "ERROR cannot pipeline other commands before metadump\r\n",
        }
    }

    pub(crate) fn begin(self, output: &mut Output) {
        if self.is_exclusive() {
            output.append(b"OK\r\n");
        }
    }

    pub(crate) fn end(self, output: &mut Output) {
        output.append(match self {
            Dump::Mgdump => b"EN\r\n",
            _ => b"END\r\n",
        });
    }

    /// Appends the line about an item; false if it has none.
    pub(crate) fn write(self, item: &DumpItem<'_>, output: &mut Output) -> bool {
        match self {
            Dump::Metadump => write_metadump(item, output),
            Dump::Mgdump => write_mgdump(item, output),
            // There is no way to write such a key on this line.
            Dump::Cachedump { .. } if !is_word(item.key) => return false,
            Dump::Cachedump { .. } => write_cachedump(item, output),
        }
        true
    }
}

fn write_metadump(item: &DumpItem<'_>, output: &mut Output) {
    output.append(b"key=");
    write_encoded(item.key, output);
    output.append(b" exp=");
    match item.over_at {
        Some(second) => output.append_number(u64::from(second)),
        None => output.append(b"-1"),
    }
    output.append(b" la=");
    output.append_number(item.last_access);
    output.append(b" cas=");
    output.append_number(item.unique);
    output.append(match item.fetched {
        true => b" fetch=yes",
        false => b" fetch=no",
    });
    output.append(b" cls=1 size=");
    output.append_number(item.bytes as u64);
    output.append(b" flags=");
    output.append_number(u64::from(item.flags));
    // Without a CR, as memcached has it.
    output.append(b"\n");
}

fn write_mgdump(item: &DumpItem<'_>, output: &mut Output) {
    output.append(b"mg ");
    if is_word(item.key) {
        output.append(item.key);
        output.append(b"\r\n");
    } else {
        write_base64(item.key, output);
        output.append(b" b\r\n");
    }
}

fn write_cachedump(item: &DumpItem<'_>, output: &mut Output) {
    output.append(b"ITEM ");
    output.append(item.key);
    output.append(b" [");
    output.append_number(item.value_bytes as u64);
    output.append(b" b; ");
    output.append_number(u64::from(item.over_at.unwrap_or(0)));
    output.append(b" s]\r\n");
}

/// Whether a line can hold this key as it is.
fn is_word(key: &[u8]) -> bool {
    !key.iter()
        .any(|byte| matches!(byte, 0 | b' ' | b'\r' | b'\n'))
}

/// The key as a part of a URI: all but letters, digits and `-._~` as `%` and two hex digits.
fn write_encoded(key: &[u8], output: &mut Output) {
    for byte in key {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            output.append(&[*byte]);
        } else {
            let digit = |half: u8| match half {
                0..=9 => b'0' + half,
                half => b'A' + half - 10,
            };
            output.append(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

fn write_base64(key: &[u8], output: &mut Output) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for three in key.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let digit = |at: usize| {
            let digit = DIGITS.get((bits >> (18 - 6 * at) & 63) as usize);
            digit.copied().unwrap_or(b'=')
        };
        let third = if three.len() > 1 { digit(2) } else { b'=' };
        let fourth = if three.len() > 2 { digit(3) } else { b'=' };
        output.append(&[digit(0), digit(1), third, fourth]);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;

    use super::*;

    fn shown(dump: Dump, key: &[u8], over_at: Option<u32>) -> String {
        let item = DumpItem {
            key,
            value_bytes: 3,
            flags: 7,
            unique: 65_537,
            over_at,
            last_access: 1_700_000_000,
            fetched: over_at.is_some(),
            bytes: 60,
        };
        let mut output = Output::new();
        dump.write(&item, &mut output);
        let bytes = output.copy_to_bytes(output.remaining());
        bytes.escape_ascii().to_string()
    }

    #[test]
    fn lines_are_those_of_memcached() {
        assert_eq!(
            shown(Dump::Metadump, b"a%/\xff~", None),
            "key=a%25%2F%FF~ exp=-1 la=1700000000 cas=65537 fetch=no cls=1 size=60 flags=7\\n"
        );
        assert_eq!(
            shown(Dump::Metadump, b"k", Some(1_700_000_100)),
            "key=k exp=1700000100 la=1700000000 cas=65537 fetch=yes cls=1 size=60 flags=7\\n"
        );
        assert_eq!(shown(Dump::Mgdump, b"a%/", None), "mg a%/\\r\\n");
        let all = Dump::Cachedump { items_max: 0 };
        assert_eq!(shown(all, b"k", None), "ITEM k [3 b; 0 s]\\r\\n");
        assert_eq!(shown(all, b"k", Some(17)), "ITEM k [3 b; 17 s]\\r\\n");
    }

    #[test]
    fn a_key_that_no_line_can_hold_is_encoded_or_left_out() {
        let cases: [(&[u8], &str); 4] = [
            (b"a b", "mg YSBi b\\r\\n"),
            (b"a\n", "mg YQo= b\\r\\n"),
            (b"\0", "mg AA== b\\r\\n"),
            (b"\r\xff\xfe", "mg Df/+ b\\r\\n"),
        ];
        for (key, line) in cases {
            assert_eq!(shown(Dump::Mgdump, key, None), line);
            assert_eq!(shown(Dump::Cachedump { items_max: 0 }, key, None), "");
        }
    }
}
