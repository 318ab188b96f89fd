//! One item as it is kept in memory, and the arithmetic on its value.

use command::{About, Deadline, Direction, ITEM_MEMORY_BYTES, ITEM_OVERHEAD_BYTES, Key, KeyValue};

/// An item: 8 bytes in the map and one allocation, of which other views of the map hold shares.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) data: KeyValue,
}

impl Item {
    /// An item whose value is `head` and `tail` together, copied into memory of its own (rule 59),
    /// made in this second. `scratch` is only there to be used again.
    pub(crate) fn new(
        scratch: &mut Vec<u8>,
        about: About,
        second: u32,
        key: &Key,
        head: &[u8],
        tail: &[u8],
    ) -> Item {
        Item {
            data: KeyValue::joined(scratch, about, second, key, head, tail),
        }
    }

    pub(crate) fn key(&self) -> &[u8] {
        self.data.key()
    }

    pub(crate) fn value(&self) -> &[u8] {
        self.data.value()
    }

    pub(crate) fn about(&self) -> About {
        self.data.about()
    }

    pub(crate) fn over_at(&self) -> u32 {
        self.about().over_at
    }

    /// What counts against the limit of an item.
    pub(crate) fn limited_bytes(&self) -> usize {
        self.data.bytes() + ITEM_OVERHEAD_BYTES
    }

    /// The memory that the item takes, as `stats` and the memory limit count it: the same on all
    /// servers, and within a tenth of what a process grows by.
    pub(crate) fn bytes(&self) -> usize {
        self.data.bytes() + ITEM_MEMORY_BYTES
    }
}

/// `Item::over_at` for a deadline; `None` if it has passed.
pub(crate) fn over_at(deadline: Deadline) -> Option<u32> {
    match deadline {
        Deadline::Past => None,
        Deadline::At(second) => Some(u32::try_from(second).unwrap_or(u32::MAX)),
        Deadline::Never => Some(0),
    }
}

/// The number after `incr` or `decr`, and the value that says so: its digits, padded with spaces
/// to the length of the old value (docs/memcached.md, incr decr). `None` if the value is no number.
pub(crate) fn arithmetic(value: &[u8], direction: Direction, delta: u64) -> Option<(u64, Vec<u8>)> {
    let number = parse_number(value)?;
    let number = match direction {
        Direction::Increment => number.wrapping_add(delta),
        Direction::Decrement => number.saturating_sub(delta),
    };
    let mut digits = number.to_string().into_bytes();
    if digits.len() < value.len() {
        digits.resize(value.len(), b' ');
    }
    Some((number, digits))
}

/// A value as memcached reads a number, which is as C's `strtoull` does: white space, a sign,
/// digits, then nothing or white space or NUL and anything. A minus sign takes the two's complement,
/// which is refused where it is a negative number of 64 bits.
fn parse_number(value: &[u8]) -> Option<u64> {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = value.iter().position(|byte| !is_space(byte))?;
    let rest = &value[start..];
    let (negative, rest) = match rest.first() {
        Some(b'-') => (true, &rest[1..]),
        Some(b'+') => (false, &rest[1..]),
        _ => (false, rest),
    };
    let end = rest
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(rest.len());
    let (digits, behind) = rest.split_at(end);
    let ends = |byte: &u8| is_space(byte) || *byte == 0;
    if digits.is_empty() || behind.first().is_some_and(|byte| !ends(byte)) {
        return None;
    }
    let mut number: u64 = 0;
    for digit in digits {
        number = number.checked_mul(10)?;
        number = number.checked_add(u64::from(digit - b'0'))?;
    }
    if !negative {
        return Some(number);
    }
    let number = number.wrapping_neg();
    (number >> 63 == 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_memcached_reads_them() {
        let cases: [(&[u8], Option<u64>); 24] = [
            (b"0", Some(0)),
            (b"12", Some(12)),
            (b"00012", Some(12)),
            (b"+5", Some(5)),
            (b" 7", Some(7)),
            (b"\t7", Some(7)),
            (b"9 ", Some(9)),
            (b"9 x", Some(9)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"99999999999999999999", None),
            (b"111111111111111111111", None),
            (b"", None),
            (b" ", None),
            (b"abc", None),
            (b"1.5", None),
            (b"1a", None),
            (b"-1", None),
            (b"-0", Some(0)),
            (b"+", None),
            (b"- 1", None),
            (b"1\0", Some(1)),
            (b"1\0x", Some(1)),
            (b"\x001", None),
        ];
        for (value, number) in cases {
            assert_eq!(parse_number(value), number, "{value:?}");
        }
    }

    #[test]
    fn a_shorter_result_is_padded_and_a_longer_one_grows() {
        let up = |value: &[u8], delta| arithmetic(value, Direction::Increment, delta);
        let down = |value: &[u8], delta| arithmetic(value, Direction::Decrement, delta);
        assert_eq!(down(b"10", 1), Some((9, b"9 ".to_vec())));
        assert_eq!(down(b"1", 9), Some((0, b"0".to_vec())));
        assert_eq!(down(b"8 ", 100), Some((0, b"0 ".to_vec())));
        assert_eq!(up(b"99", 1), Some((100, b"100".to_vec())));
        assert_eq!(up(b"00012", 1), Some((13, b"13   ".to_vec())));
        assert_eq!(
            up(b"18446744073709551615", 1),
            Some((0, b"0                   ".to_vec()))
        );
    }

    #[test]
    fn an_item_takes_8_bytes_in_the_map() {
        assert_eq!(size_of::<Item>(), 8);
    }
}
