//! A command line as words, and its words as keys and numbers.

use bytes::Bytes;
use command::{Exptime, Key};
use memchr::{memchr, memchr2};

/// The words of a line that are still to be read. Spaces alone part them; a tab does not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words<'a> {
    line: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Words<'a> {
    pub(crate) fn new(line: &'a Bytes) -> Words<'a> {
        Words { line, rest: line }
    }

    /// The key that a word of this line names, as a slice of the line; `None` when it is longer
    /// than a key may be or has a NUL or `\r` in it.
    pub(crate) fn key(&self, word: &'a [u8]) -> Option<Key> {
        if !is_key(word) {
            return None;
        }
        Key::new(self.line.slice_ref(word))
    }

    /// A word of this line, sharing its memory.
    pub(crate) fn share(&self, word: &'a [u8]) -> Bytes {
        self.line.slice_ref(word)
    }

    /// What is still to be read, sharing the line's memory.
    pub(crate) fn share_rest(&self) -> Bytes {
        self.line.slice_ref(self.rest)
    }

    /// The length of what is still to be read.
    pub(crate) fn rest_bytes(&self) -> usize {
        self.rest.len()
    }

    /// Whether `noreply` is the last of the words that are still to be read. What stands between
    /// does not matter: memcached keeps silent about errors of such a line too.
    pub(crate) fn end_in_noreply(&self) -> bool {
        let spaces = self.rest.iter().rev().take_while(|byte| **byte == b' ');
        let end = self.rest.len() - spaces.count();
        let words = self.rest.get(..end).unwrap_or_default();
        words.ends_with(b" noreply")
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.rest.iter().position(|byte| *byte != b' ')?;
        let (_, rest) = self.rest.split_at(start);
        let (word, rest) = rest.split_at(memchr(b' ', rest).unwrap_or(rest.len()));
        self.rest = rest;
        Some(word)
    }
}

/// Whether a word that is no longer than a key may be can be one.
pub(crate) fn is_key(word: &[u8]) -> bool {
    memchr2(0, b'\r', word).is_none()
}

/// A decimal u64. As in memcached (that is, C) a sign may stand before it; `-0` is 0.
pub(crate) fn unsigned(word: &[u8]) -> Option<u64> {
    let (negative, number) = magnitude(word)?;
    (!negative || number == 0).then_some(number)
}

/// A decimal i64.
pub(crate) fn signed(word: &[u8]) -> Option<i64> {
    match magnitude(word)? {
        (false, number) => i64::try_from(number).ok(),
        (true, number) => 0i64.checked_sub_unsigned(number),
    }
}

/// A time. memcached keeps the low 32 bits of a 64-bit number, so 2^31 is in the past.
pub(crate) fn exptime(word: &[u8]) -> Option<Exptime> {
    signed(word).map(|number| Exptime(number as i32))
}

/// Whether there is a minus, and the number behind it.
fn magnitude(word: &[u8]) -> Option<(bool, u64)> {
    let (negative, digits) = match word {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut number: u64 = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some((negative, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_c_reads_them_but_never_wrap_around_a_sign() {
        let cases: &[(&str, Option<u64>, Option<i64>)] = &[
            ("0", Some(0), Some(0)),
            ("00012", Some(12), Some(12)),
            ("+5", Some(5), Some(5)),
            ("-0", Some(0), Some(0)),
            ("-1", None, Some(-1)),
            ("18446744073709551615", Some(u64::MAX), None),
            ("18446744073709551616", None, None),
            ("-18446744073709551615", None, None),
            ("9223372036854775807", Some(i64::MAX as u64), Some(i64::MAX)),
            ("-9223372036854775808", None, Some(i64::MIN)),
            ("-9223372036854775809", None, None),
            ("99999999999999999999999999", None, None),
            ("", None, None),
            ("+", None, None),
            ("-", None, None),
            ("--1", None, None),
            ("1.5", None, None),
            ("1x", None, None),
            ("0x1", None, None),
            ("\t1", None, None),
            ("/", None, None),
            (":", None, None),
        ];
        for (word, as_unsigned, as_signed) in cases {
            assert_eq!(unsigned(word.as_bytes()), *as_unsigned, "{word}");
            assert_eq!(signed(word.as_bytes()), *as_signed, "{word}");
        }
    }

    #[test]
    fn times_keep_their_low_32_bits() {
        assert_eq!(exptime(b"2147483647"), Some(Exptime(i32::MAX)));
        assert_eq!(exptime(b"2147483648"), Some(Exptime(i32::MIN)));
        assert_eq!(exptime(b"4294967296"), Some(Exptime(0)));
        assert_eq!(exptime(b"-1"), Some(Exptime(-1)));
        assert_eq!(exptime(b"9223372036854775808"), None);
    }

    #[test]
    fn only_spaces_part_words() {
        let line = Bytes::from_static(b"  a \tb   c\rd  ");
        let words: Vec<&[u8]> = Words::new(&line).collect();
        assert_eq!(words, [b"a".as_slice(), b"\tb", b"c\rd"]);
    }

    #[test]
    fn noreply_counts_as_the_last_word_alone() {
        let after_the_name = |line: &'static str| {
            let line = Bytes::from_static(line.as_bytes());
            let mut words = Words::new(&line);
            words.next();
            words.end_in_noreply()
        };
        assert!(after_the_name("set 1 noreply"));
        assert!(after_the_name("set noreply  "));
        assert!(!after_the_name("noreply"));
        assert!(!after_the_name("set noreply 1"));
        assert!(!after_the_name("set xnoreply"));
        assert!(!after_the_name("set"));
    }
}
