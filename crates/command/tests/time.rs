//! Times as clients give them, and the deadlines that come of them (rule 48).

use bytes::Bytes;
use proptest::prelude::*;
use quorate_command::{Deadline, Exptime, KEY_BYTES_MAX, Key, LogTime, RELATIVE_SECONDS_MAX};

const NOW_SECONDS: u64 = 1_800_000_000;

/// The deadline of an item that is stored 0.999 s into the second `NOW_SECONDS`.
fn deadline(exptime: i32) -> Deadline {
    Exptime(exptime).deadline(LogTime(NOW_SECONDS * 1000 + 999))
}

#[test]
fn zero_is_never_and_less_is_over_already() {
    assert_eq!(deadline(0), Deadline::Never);
    assert_eq!(deadline(-1), Deadline::Past);
    assert_eq!(deadline(i32::MIN), Deadline::Past);
}

#[test]
fn up_to_30_days_is_counted_from_the_second_that_has_begun() {
    assert_eq!(deadline(1), Deadline::At(NOW_SECONDS + 1));
    assert_eq!(RELATIVE_SECONDS_MAX, 2_592_000);
    assert_eq!(
        deadline(RELATIVE_SECONDS_MAX),
        Deadline::At(NOW_SECONDS + 2_592_000)
    );
}

#[test]
fn more_than_30_days_is_a_second_since_1970() {
    assert_eq!(deadline(RELATIVE_SECONDS_MAX + 1), Deadline::Past);
    assert_eq!(deadline(1_799_999_999), Deadline::Past);
    assert_eq!(deadline(1_800_000_000), Deadline::Past);
    assert_eq!(deadline(1_800_000_001), Deadline::At(1_800_000_001));
    assert_eq!(deadline(i32::MAX), Deadline::At(2_147_483_647));
}

#[test]
fn a_key_has_1_to_250_bytes() {
    let key = |length: usize| Key::new(Bytes::from(vec![b'k'; length]));
    assert_eq!(key(0), None);
    assert_eq!(key(1).expect("one byte").as_bytes(), b"k");
    assert_eq!(key(KEY_BYTES_MAX).expect("250 bytes").as_bytes().len(), 250);
    assert_eq!(key(KEY_BYTES_MAX + 1), None);
}

proptest! {
    #[test]
    fn no_time_overflows_and_none_that_is_over_has_a_second(
        exptime in any::<i32>(),
        now in prop_oneof![any::<u64>(), 0..4_000_000_000_000u64],
    ) {
        let now = LogTime(now);
        if let Deadline::At(second) = Exptime(exptime).deadline(now) {
            prop_assert!(second > now.seconds(), "{second} of {exptime} at {now:?}");
        }
    }
}
