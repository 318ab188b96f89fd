//! The name of a topic as a word of a line: percent-encoded, so that it may hold any bytes.

use bytes::Bytes;
use command::{KEY_BYTES_MAX, Key};

use crate::Output;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// The name that a word stands for: `%` and two hex digits are a byte, any other byte is itself.
/// `None` if a `%` has no two hex digits behind it, the word holds a NUL or `\r`, or the name would
/// be longer than 250 bytes.
#[must_use]
pub fn decode(word: &[u8]) -> Option<Key> {
    let mut name = Vec::with_capacity(word.len().min(KEY_BYTES_MAX));
    let mut bytes = word.iter();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            0 | b'\r' => return None,
            byte => *byte,
        };
        if name.len() == KEY_BYTES_MAX {
            return None;
        }
        name.push(byte);
    }
    Key::new(Bytes::from(name))
}

/// Appends the word for a name: letters, digits and signs of ASCII are themselves, but for `%`; any
/// other byte is encoded.
pub fn append_topic_name(name: &[u8], output: &mut Output) {
    for byte in name {
        match byte {
            b'%' | 0..=b' ' | 0x7f.. => {
                let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or_default();
                output.append(&[b'%', digit(byte >> 4), digit(byte & 15)]);
            }
            byte => output.append(&[*byte]),
        }
    }
}

fn digit(byte: &u8) -> Option<u8> {
    let value = char::from(*byte).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use bytes::Buf;

    use super::*;

    fn encoded(name: &[u8]) -> Vec<u8> {
        let mut output = Output::new();
        append_topic_name(name, &mut output);
        output.copy_to_bytes(output.remaining()).to_vec()
    }

    #[test]
    fn a_word_is_the_name_with_its_bytes_decoded() {
        let cases: [(&[u8], &[u8]); 7] = [
            (b"jobs", b"jobs"),
            (b"my%20jobs", b"my jobs"),
            (b"%25", b"%"),
            (b"%c3%A4", "ä".as_bytes()),
            ("ä".as_bytes(), "ä".as_bytes()),
            (b"%00%0d%0A", b"\0\r\n"),
            (b"a+b/c?d", b"a+b/c?d"),
        ];
        for (word, name) in cases {
            let decoded = decode(word).expect("a name");
            assert_eq!(decoded.as_bytes(), name, "{}", word.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_encoding_is_no_name() {
        let long = b"a".repeat(251);
        let words: [&[u8]; 8] = [b"", b"%", b"%2", b"a%2", b"%zz", b"a\0b", b"a\rb", &long];
        for word in words {
            assert_eq!(decode(word), None, "{}", word.escape_ascii());
        }
        let longest = b"%20".repeat(250);
        assert_eq!(decode(&longest).expect("a name").as_bytes().len(), 250);
    }

    #[test]
    fn every_byte_comes_back_as_it_was() {
        let all: Vec<u8> = (0..=255).collect();
        for name in all.chunks(128) {
            let word = encoded(name);
            assert!(word.iter().all(u8::is_ascii_graphic));
            assert_eq!(decode(&word).expect("a name").as_bytes(), name);
        }
        assert_eq!(encoded(b"my jobs/1%"), b"my%20jobs/1%25");
    }
}
