//! Keys in base64, as the flag `b` of the meta commands has them: the standard alphabet, padded, and
//! written in the one way in which it is made, so that a key comes back as it was sent.

/// The bytes that `text` stands for; `None` if it is not in that form, or stands for none.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let (quads, rest) = text.as_chunks::<4>();
    let (last, before) = quads.split_last()?;
    if !rest.is_empty() {
        return None;
    }
    let mut bytes = Vec::with_capacity(quads.len() * 3);
    for quad in before {
        bytes.extend_from_slice(&triple(*quad)?);
    }
    let padding = last.iter().rev().take_while(|byte| **byte == b'=').count();
    let mut filled = *last;
    for byte in filled.iter_mut().rev().take(padding) {
        *byte = b'A';
    }
    let triple = triple(filled)?;
    let (kept, dropped) = triple.split_at_checked(3usize.checked_sub(padding)?)?;
    if kept.is_empty() || dropped.iter().any(|byte| *byte != 0) {
        return None;
    }
    bytes.extend_from_slice(kept);
    Some(bytes)
}

fn triple(quad: [u8; 4]) -> Option<[u8; 3]> {
    let mut bits: u32 = 0;
    for letter in quad {
        let six = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
    }
    let [_, first, second, third] = bits.to_be_bytes();
    Some([first, second, third])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_base64_makes_is_read() {
        let cases: [(&str, Option<&[u8]>); 16] = [
            ("Zm9v", Some(b"foo")),
            ("Zm8=", Some(b"fo")),
            ("Zg==", Some(b"f")),
            ("Zm9vYmFy", Some(b"foobar")),
            ("AAAA", Some(&[0, 0, 0])),
            ("//++", Some(&[0xff, 0xff, 0xbe])),
            ("", None),
            ("Z", None),
            ("Zm8", None),
            ("Zm9=", None),
            ("Zh==", None),
            ("Z===", None),
            ("====", None),
            ("Zm9v!", None),
            ("Zm=v", None),
            ("Zg==Zg==", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(decode(text.as_bytes()).as_deref(), bytes, "{text}");
        }
    }
}
