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
        theirs: "`CLIENT_ERROR options flags are too long`, behind `ma` and `md` without `are`",
        ours: "the first from 19 on",
        why: AS_1_6_45,
        leaves: Leaves::Items,
        applies: |sent| is_meta(sent) && flags(sent).len() > FLAGS_MAX,
        holds: |_, theirs, ours| {
            theirs.starts_with(b"CLIENT_ERROR options flags ")
                && ours == b"CLIENT_ERROR options flags are too long\r\n"
        },
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
        ours: "`CLIENT_ERROR invalid mode for ms M token`, `… ma M token`; `mg` and `md` pass it over",
        why: AS_1_6_45,
        leaves: Leaves::Items,
        applies: |sent| is_meta(sent) && has(sent, |flag| flag[0] == b'M' && flag.len() != 2),
        holds: |sent, theirs, ours| {
            let passes_over = matches!(sent.word(0), b"mg" | b"md");
            theirs.starts_with(b"CLIENT_ERROR ")
                && (passes_over || is_one_line(ours, b"CLIENT_ERROR invalid "))
        },
    },
    Difference {
        name: "an `O` that is too long",
        theirs: "some commands are carried out before the error line",
        ours: "nothing is carried out",
        why: "after an error line nothing was",
        leaves: Leaves::Items,
        applies: |sent| is_meta(sent) && has(sent, |flag| flag[0] == b'O' && flag.len() > 32),
        holds: |_, _, ours| is_one_line(ours, b"CLIENT_ERROR "),
    },
    Difference {
        name: "`T` and `N` of one command that makes an item",
        theirs: "the time of the flag that comes last; `mg` shows some wrong",
        ours: "`ma`: that of `T`; `mg`: that of `N`",
        why: "the order of flags is that of the reply alone",
        leaves: Leaves::Items,
        applies: |sent| {
            is_meta(sent) && has(sent, |flag| flag[0] == b'T') && has(sent, |flag| flag[0] == b'N')
        },
        holds: |_, theirs, ours| ours.is_empty() || theirs.get(..2) == ours.get(..2),
    },
    Difference {
        name: "`t` behind a negative time",
        theirs: "shows a number below 2^32",
        ours: "`t0`",
        why: "nothing is left",
        leaves: Leaves::Items,
        applies: |sent| {
            let is_over = |flag: &[u8]| flag == b"T-1" || flag == b"N-1";
            is_meta(sent) && has(sent, is_over) && has(sent, |flag| flag == b"t")
        },
        holds: |_, theirs, ours| ours.is_empty() || theirs.get(..2) == ours.get(..2),
    },
    Difference {
        name: "`ma` with `N` that makes an item",
        theirs: "answers in spite of `q`; a `t` in front of `N` shows -1",
        ours: "is quiet with `q`; `t` shows the time that is left",
        why: "a client that asks for quiet counts on it",
        leaves: Leaves::Nothing,
        applies: |sent| {
            sent.word(0) == b"ma"
                && has(sent, |flag| flag[0] == b'N')
                && has(sent, |flag| flag == b"q" || flag == b"t")
        },
        holds: |sent, theirs, ours| match has(sent, |flag| flag == b"q") {
            true => ours.is_empty() || theirs == ours,
            false => theirs == ours || theirs.get(..2) == ours.get(..2),
        },
    },
    Difference {
        name: "`T` of `ma`",
        theirs: "is lost when the number takes more digits than before; a `t` in front of it shows \
                 the new time",
        ours: "is set; a `t` in front of it shows what was left before",
        why: "as with `mg`",
        leaves: Leaves::Items,
        applies: |sent| sent.word(0) == b"ma" && has(sent, |flag| flag[0] == b'T'),
        holds: |_, theirs, ours| theirs.get(..2) == ours.get(..2),
    },
    Difference {
        name: "`c` of an `ms` that stores nothing",
        theirs: "shows a unique that no item has",
        ours: "shows nothing",
        why: "there is no such unique",
        leaves: Leaves::Nothing,
        applies: |sent| sent.word(0) == b"ms" && has(sent, |flag| flag == b"c"),
        holds: |_, theirs, ours| without(theirs, b" c<nobody's>") == ours,
    },
    Difference {
        name: "`F` from 2^32 on",
        theirs: "its low 32 bits count",
        ours: "`CLIENT_ERROR bad command line format`, behind `ma` and `md` `CLIENT_ERROR invalid or \
               duplicate flag`",
        why: AS_1_6_45,
        leaves: Leaves::Items,
        applies: |sent| is_meta(sent) && has(sent, |flag| flag == b"F4294967296"),
        holds: |_, _, ours| is_one_line(ours, b"CLIENT_ERROR "),
    },
    Difference {
        name: "`ma` with `C` of an empty value, and another unique",
        theirs: "the value is no number",
        ours: "`EX`",
        why: "the condition comes first, as with all other values",
        leaves: Leaves::Nothing,
        applies: |sent| sent.word(0) == b"ma" && has(sent, |flag| flag[0] == b'C'),
        holds: |_, theirs, ours| {
            theirs == ours
                || (is_one_line(theirs, b"CLIENT_ERROR cannot ") && ours.starts_with(b"EX"))
        },
    },
    Difference {
        name: "`mg` with `N` that makes an item",
        theirs: "counts as a hit",
        ours: "counts as a miss",
        why: "there was nothing",
        leaves: Leaves::Counters,
        applies: |sent| sent.word(0) == b"mg" && has(sent, |flag| flag[0] == b'N'),
        holds: |_, theirs, ours| theirs == ours,
    },
    Difference {
        name: "`D` or `J` without a number behind `mg` or `ms`",
        theirs: "`CLIENT_ERROR invalid numeric delta value`, `… initial value`",
        ours: "`CLIENT_ERROR bad token in command line format`",
        why: "as with all other numbers",
        leaves: Leaves::Nothing,
        applies: |sent| {
            matches!(sent.word(0), b"mg" | b"ms")
                && has(
                    sent,
                    |flag| matches!(flag, [b'D' | b'J', token @ ..] if !token.iter().all(u8::is_ascii_digit)),
                )
        },
        holds: |_, theirs, ours| {
            is_one_line(theirs, b"CLIENT_ERROR invalid numeric ")
                && is_one_line(ours, b"CLIENT_ERROR bad token ")
        },
    },
    Difference {
        name: "`mg` with `T` that misses",
        theirs: "counts as `get`",
        ours: "counts as `touch`, as the hits do",
        why: "hits and misses belong together",
        leaves: Leaves::Counters,
        applies: |sent| sent.word(0) == b"mg" && has(sent, |flag| flag[0] == b'T'),
        holds: |_, theirs, ours| theirs == ours,
    },
    Difference {
        name: "`k`, where a key was sent in base64 once and as it is another time",
        theirs: "shows the form in which the item was stored",
        ours: "shows the form in which it was sent",
        why: "who asks knows that form",
        leaves: Leaves::Nothing,
        applies: |sent| is_meta(sent) && has(sent, |flag| flag == b"k"),
        holds: |_, theirs, ours| theirs == ours,
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

/// The reply without these bytes, if it has them.
fn without(reply: &[u8], bytes: &[u8]) -> Vec<u8> {
    let at = reply
        .windows(bytes.len())
        .position(|window| window == bytes);
    match at {
        Some(at) => [&reply[..at], &reply[at + bytes.len()..]].concat(),
        None => reply.to_vec(),
    }
}
