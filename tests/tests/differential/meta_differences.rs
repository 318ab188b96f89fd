//! The known differences over meta commands, which were young in 1.6.18.

use crate::differences::{AS_1_6_45, BAD_FORMAT, Difference, ERROR, Leaves, is_one_line};
use crate::script::Sent;

const NEW_FLAGS: &str = "are there";

/// From this many flags on 1.6.18 refuses a line.
const FLAGS_MAX: usize = 17;

pub(crate) const META: &[Difference] = &[
    Difference {
        name: "a meta command without a key",
        theirs: "`ERROR`",
        ours: "`CLIENT_ERROR bad command line format`",
        why: AS_1_6_45,
        leaves: Leaves::Nothing,
        applies: |sent| is_meta(sent) && sent.words().len() == 1,
        holds: |_, theirs, ours| theirs == ERROR && ours == BAD_FORMAT,
    },
    Difference {
        name: "`ms` with a key that is too long",
        theirs: "the data block is read as commands",
        ours: "the data block is consumed",
        why: "as 1.6.45: a value is never read as a command",
        leaves: Leaves::Nothing,
        applies: |sent| sent.word(0) == b"ms" && sent.word(1).len() > 250,
        holds: |_, theirs, ours| theirs == [BAD_FORMAT, ERROR].concat() && ours == BAD_FORMAT,
    },
    Difference {
        name: "more than 17 flags",
        theirs: "`CLIENT_ERROR options flags are too long`",
        ours: "the same from 19 on",
        why: AS_1_6_45,
        leaves: Leaves::Items,
        applies: |sent| is_meta(sent) && flags(sent).len() > FLAGS_MAX,
        holds: |_, theirs, ours| theirs == ours,
    },
    Difference {
        name: "`E` of all that change an item, `x` of `md` and `ms`",
        theirs: "an invalid flag",
        ours: NEW_FLAGS,
        why: AS_1_6_45,
        leaves: Leaves::Items,
        applies: |sent| is_meta(sent) && has(sent, |flag| matches!(flag[0], b'E' | b'x')),
        holds: |_, theirs, ours| {
            theirs.starts_with(b"CLIENT_ERROR invalid ") && !ours.starts_with(b"ERROR")
        },
    },
    Difference {
        name: "`C` of `mg`, `s` of `ms`, `N` of `ms`",
        theirs: "are ignored",
        ours: NEW_FLAGS,
        why: AS_1_6_45,
        leaves: Leaves::Items,
        applies: |sent| {
            (sent.word(0) == b"mg" && has(sent, |flag| flag[0] == b'C'))
                || (sent.word(0) == b"ms" && has(sent, |flag| matches!(flag[0], b's' | b'N')))
        },
        holds: |_, _, ours| !ours.starts_with(b"ERROR"),
    },
    Difference {
        name: "an `M` of more than one letter, or of none",
        theirs: "`CLIENT_ERROR incorrect length for M token`",
        ours: "`CLIENT_ERROR invalid mode for ms M token`, `… ma M token`",
        why: AS_1_6_45,
        leaves: Leaves::Nothing,
        applies: |sent| is_meta(sent) && has(sent, |flag| flag[0] == b'M' && flag.len() != 2),
        holds: |_, theirs, ours| {
            theirs == b"CLIENT_ERROR incorrect length for M token\r\n"
                && is_one_line(ours, b"CLIENT_ERROR invalid ")
        },
    },
    Difference {
        name: "`F` of `ms` from 2^32 on",
        theirs: "its low 32 bits count",
        ours: "`CLIENT_ERROR bad command line format`",
        why: AS_1_6_45,
        leaves: Leaves::Items,
        applies: |sent| sent.word(0) == b"ms" && flags(sent).contains(&b"F4294967296".as_slice()),
        holds: |_, _, ours| ours == BAD_FORMAT,
    },
];

fn is_meta(sent: &Sent) -> bool {
    let names = ["mg", "ms", "md", "ma", "me"];
    names.iter().any(|name| name.as_bytes() == sent.word(0))
}

/// The words that are flags.
fn flags(sent: &Sent) -> Vec<&[u8]> {
    let before = if sent.word(0) == b"ms" { 3 } else { 2 };
    sent.words().split_off(before.min(sent.words().len()))
}

fn has(sent: &Sent, of_kind: impl Fn(&[u8]) -> bool) -> bool {
    flags(sent).into_iter().any(of_kind)
}
