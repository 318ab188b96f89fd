//! Where memcached 1.6.18, which Debian has, is known to answer otherwise than quorate, which
//! answers as 1.6.45 does but for its own choices. The table of `docs/memcached.md` is made of it.

use crate::meta_differences::META;
use crate::script::Sent;

/// One known difference. To a step that is of its kind the two answer as it says, and no otherwise.
pub(crate) struct Difference {
    pub(crate) name: &'static str,
    /// What 1.6.18 says.
    pub(crate) theirs: &'static str,
    /// What quorate says.
    pub(crate) ours: &'static str,
    pub(crate) why: &'static str,
    pub(crate) leaves: Leaves,
    /// Whether a step is of its kind.
    pub(crate) applies: fn(&Sent) -> bool,
    /// Whether these replies of memcached and of quorate are what it says.
    pub(crate) holds: fn(&Sent, &[u8], &[u8]) -> bool,
}

/// What later replies could tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    Nothing,
    /// The counters of `stats` differ.
    Counters,
    /// Items differ as well.
    Items,
}

pub(crate) const ERROR: &[u8] = b"ERROR\r\n";
pub(crate) const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
const BAD_CHUNK: &[u8] = b"CLIENT_ERROR bad data chunk\r\n";
const DELETE_USAGE: &[u8] =
    b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n";

pub(crate) const AS_1_6_45: &str = "as 1.6.45";

/// The longest data block that a line can announce.
const ANNOUNCED_BYTES_MAX: i128 = 2_147_483_645;

/// More than this is too large a value for both, whatever the key.
const VALUE_BYTES_MAX: i128 = 1_048_520;

/// Each classic command, with the fewest and the most words that its line has in 1.6.18.
const FORMS: [(&str, usize, usize); 18] = [
    ("get", 2, usize::MAX),
    ("gets", 2, usize::MAX),
    ("gat", 3, usize::MAX),
    ("gats", 3, usize::MAX),
    ("set", 5, 6),
    ("add", 5, 6),
    ("replace", 5, 6),
    ("append", 5, 6),
    ("prepend", 5, 6),
    ("cas", 6, 7),
    ("delete", 2, 4),
    ("incr", 3, 4),
    ("decr", 3, 4),
    ("touch", 3, 4),
    ("flush_all", 1, 3),
    ("verbosity", 2, 3),
    ("cache_memlimit", 1, 3),
    ("version", 1, usize::MAX),
];

/// Those over classic commands.
pub(crate) const CLASSIC: &[Difference] = &[
    Difference {
        name: "an empty line",
        theirs: "`ERROR`",
        ours: "`CLIENT_ERROR bad command line format`",
        why: AS_1_6_45,
        leaves: Leaves::Nothing,
        applies: |sent| sent.line().is_empty(),
        holds: |_, theirs, ours| theirs == ERROR && ours == BAD_FORMAT,
    },
    Difference {
        name: "an empty line left over from a data block that is too long",
        theirs: "`ERROR`",
        ours: "`CLIENT_ERROR bad command line format`",
        why: AS_1_6_45,
        leaves: Leaves::Counters,
        applies: leaves_an_empty_line,
        holds: |sent, theirs, ours| {
            let first = unless_silent(sent, BAD_CHUNK);
            theirs == [first, ERROR].concat() && ours == [first, BAD_FORMAT].concat()
        },
    },
    Difference {
        name: "a data block of another length than announced",
        theirs: "counts in `cmd_set`",
        ours: "does not count",
        why: "no command has been carried out",
        leaves: Leaves::Counters,
        applies: has_bad_block,
        holds: |_, theirs, ours| theirs == ours,
    },
    Difference {
        name: "spaces before a command",
        theirs: "are passed over",
        ours: "`ERROR`; what follows is read as a line",
        why: AS_1_6_45,
        leaves: Leaves::Items,
        applies: |sent| sent.line().starts_with(b" "),
        holds: |sent, _, ours| ours == ERROR.repeat(1 + sent.lines_behind()),
    },
    Difference {
        name: "a NUL in a line",
        theirs: "ends the line for some, and is part of a word for others",
        ours: "a bad key or number; one error line",
        why: "two keys could be taken for one",
        leaves: Leaves::Items,
        applies: |sent| sent.line().contains(&0),
        holds: |sent, _, ours| {
            ours == unless_silent(sent, BAD_FORMAT) || is_one_line(ours, b"CLIENT_ERROR invalid ")
        },
    },
    Difference {
        name: "a `\\r` in a key",
        theirs: "is an ordinary byte",
        ours: "`CLIENT_ERROR bad command line format`",
        why: "a reply that shows the key could not be read",
        leaves: Leaves::Items,
        applies: |sent| sent.line().contains(&b'\r'),
        holds: |sent, _, ours| ours == unless_silent(sent, BAD_FORMAT),
    },
    Difference {
        name: "a tab behind a number",
        theirs: "ends the number, and the rest of the word is ignored",
        ours: "a bad number",
        why: "spaces alone part words",
        leaves: Leaves::Items,
        applies: |sent| is_store(sent) && numbers(sent).any(|word| word.contains(&b'\t')),
        holds: |sent, _, ours| {
            let block = block_bytes(sent).is_none().then_some(ERROR);
            ours == [unless_silent(sent, BAD_FORMAT), block.unwrap_or_default()].concat()
        },
    },
    Difference {
        name: "a word missing (`get`, `incr k`, `set k 0 0`, `cas` without a unique, `verbosity`)",
        theirs: "`ERROR`; `gat` without a key: `END`; a data block is read as commands",
        ours: "`CLIENT_ERROR bad command line format`; a data block whose length is there is \
               consumed",
        why: "as 1.6.45, which hangs however at a `cas` without a unique",
        leaves: Leaves::Items,
        applies: |sent| form(sent).is_some_and(|(fewest, _)| sent.words().len() < fewest),
        holds: |sent, _, ours| {
            let is_silent = sent.is_silent() && sent.words().len() > 2;
            let first = if is_silent { b"" } else { BAD_FORMAT };
            let lines = match block_bytes(sent) {
                Some(_) => 0,
                None => sent.lines_behind(),
            };
            ours == [first, &ERROR.repeat(lines)].concat()
        },
    },
    Difference {
        name: "words too many at the end of a line",
        theirs: "`ERROR`; a data block is read as commands",
        ours: "are ignored; `delete`: the line of its usage",
        why: AS_1_6_45,
        leaves: Leaves::Items,
        applies: |sent| form(sent).is_some_and(|(_, most)| sent.words().len() > most),
        holds: |sent, theirs, ours| {
            let ours_holds = match sent.is_silent() {
                true => ours.is_empty(),
                false if sent.word(0) == b"delete" => ours == DELETE_USAGE,
                false => is_one_line(ours, b"") && !ours.starts_with(b"ERROR"),
            };
            ours_holds && theirs == ERROR.repeat(1 + sent.lines_behind())
        },
    },
    Difference {
        name: "a bad word of a storage line whose length can be read",
        theirs: "an error line; the data block is read as commands",
        ours: "an error line; the data block is consumed",
        why: "as 1.6.45: a value is never read as a command",
        leaves: Leaves::Nothing,
        applies: |sent| is_store(sent) && block_bytes(sent).is_some() && has_bad_word(sent),
        holds: |sent, theirs, ours| {
            let first = unless_silent(sent, BAD_FORMAT);
            let behind = ERROR.repeat(sent.lines_behind());
            ours == first && theirs == [first, &behind].concat()
        },
    },
    Difference {
        name: "a key that is too long behind others (`get`, `gat`)",
        theirs: "those before it count, and have the new time",
        ours: "nothing is carried out",
        why: "after an error line nothing was",
        leaves: Leaves::Items,
        applies: |sent| {
            sent.word(0).starts_with(b"g") && sent.words().iter().any(|it| it.len() > 250)
        },
        holds: |_, theirs, ours| theirs == ours,
    },
    Difference {
        name: "a length over 2^32",
        theirs: "its low 32 bits count",
        ours: "`CLIENT_ERROR bad command line format`",
        why: "a length must be the one that was meant",
        leaves: Leaves::Items,
        applies: |sent| is_store(sent) && announced(sent).is_some_and(|bytes| bytes >= 1 << 32),
        holds: |sent, _, ours| {
            let first = unless_silent(sent, BAD_FORMAT);
            ours == [first, &ERROR.repeat(sent.lines_behind())].concat()
        },
    },
    Difference {
        name: "a `set` that is too large",
        theirs: "the old value is gone",
        ours: "the old value stays",
        why: "after `SERVER_ERROR` nothing was carried out",
        leaves: Leaves::Items,
        applies: |sent| is_store(sent) && announced(sent) > Some(VALUE_BYTES_MAX),
        holds: |_, theirs, ours| theirs == ours,
    },
    Difference {
        name: "`flush_all` with a delay or a moment",
        theirs: "brings back what an earlier one has taken; a moment that has passed flushes \
                 nothing",
        ours: "what is gone stays gone; a moment that has passed flushes at once",
        why: "the documentation says so, and nothing that was seen to be gone comes back",
        leaves: Leaves::Items,
        applies: |sent| sent.word(0) == b"flush_all" && c_number(sent.word(1)) > Some(0),
        holds: |_, theirs, ours| theirs == ours,
    },
    Difference {
        name: "`flush_all` with a bad time",
        theirs: "counts in `cmd_flush`",
        ours: "does not count",
        why: "no command has been carried out",
        leaves: Leaves::Counters,
        applies: |sent| sent.word(0) == b"flush_all" && has_bad_time(sent),
        holds: |_, theirs, ours| theirs == ours,
    },
    Difference {
        name: "`version`",
        theirs: "`VERSION 1.6.18`",
        ours: "`VERSION 1.6.45-quorate-<version>`",
        why: "clients read the digits, people the rest",
        leaves: Leaves::Nothing,
        applies: |sent| sent.word(0) == b"version",
        holds: |_, theirs, ours| {
            theirs == b"VERSION 1.6.18\r\n" && is_one_line(ours, b"VERSION 1.6.45-quorate-")
        },
    },
    Difference {
        name: "`shutdown`",
        theirs: "`ERROR: shutdown not enabled`",
        ours: "`SERVER_ERROR: shutdown not enabled`",
        why: AS_1_6_45,
        leaves: Leaves::Nothing,
        applies: |sent| sent.word(0) == b"shutdown",
        holds: |_, theirs, ours| ours == [b"SERVER_", theirs].concat(),
    },
    Difference {
        name: "`refresh_certs`",
        theirs: "`Error TLS not enabled`",
        ours: "`ERROR`",
        why: AS_1_6_45,
        leaves: Leaves::Nothing,
        applies: |sent| sent.word(0) == b"refresh_certs",
        holds: |_, theirs, ours| theirs.starts_with(b"Error") && ours == ERROR,
    },
    Difference {
        name: "numbers and classes of `slabs reassign`, `lru tune`, `lru_crawler`",
        theirs: "are checked",
        ours: "are not: the answer is that of a memcached that is told nothing wrong",
        why: "there are no slabs, no LRU and no crawler",
        leaves: Leaves::Nothing,
        applies: |sent| {
            let begins = [sent.word(0), sent.word(1)];
            [b"slabs reassign", b"lru tune".as_slice()].contains(&&*begins.join(&b' '))
                || sent.word(0) == b"lru_crawler"
        },
        holds: |_, theirs, ours| is_one_line(theirs, b"") && is_one_line(ours, b""),
    },
];

fn all() -> impl Iterator<Item = &'static Difference> {
    CLASSIC.iter().chain(META)
}

/// What is left behind by a step that the two are known to treat differently.
pub(crate) fn leaves(sent: &Sent) -> Leaves {
    of(sent).map_or(Leaves::Nothing, |difference| difference.leaves)
}

/// The difference of whose kind a step is.
pub(crate) fn of(sent: &Sent) -> Option<&'static Difference> {
    all().find(|it| (it.applies)(sent))
}

/// Whether these are the replies that memcached and quorate should have given.
pub(crate) fn agree(sent: &Sent, theirs: &[u8], ours: &[u8]) -> bool {
    match of(sent) {
        Some(difference) => (difference.holds)(sent, theirs, ours),
        None => theirs == ours,
    }
}

/// All of them as a table of a page.
pub(crate) fn to_markdown() -> String {
    let mut text = String::from("| what | memcached 1.6.18 | quorate | why |\n|---|---|---|---|\n");
    for difference in all() {
        let Difference {
            name,
            theirs,
            ours,
            why,
            ..
        } = difference;
        text.push_str(&format!("| {name} | {theirs} | {ours} | {why} |\n"));
    }
    text
}

fn form(sent: &Sent) -> Option<(usize, usize)> {
    let name = sent.word(0);
    let form = FORMS.iter().find(|form| form.0.as_bytes() == name)?;
    Some((form.1, form.2))
}

fn is_store(sent: &Sent) -> bool {
    let name = sent.word(0);
    let names = ["set", "add", "replace", "append", "prepend", "cas"];
    names.iter().any(|it| it.as_bytes() == name)
}

/// The words of a storage line that are numbers.
fn numbers(sent: &Sent) -> impl Iterator<Item = &[u8]> {
    let count = if sent.word(0) == b"cas" { 4 } else { 3 };
    (2..2 + count).map(|place| sent.word(place))
}

/// The length that a storage line announces, if it is a number at all.
fn announced(sent: &Sent) -> Option<i128> {
    c_number(sent.word(4))
}

/// The length of the data block, if it can be told.
fn block_bytes(sent: &Sent) -> Option<usize> {
    let bytes = announced(sent).filter(|bytes| (0..=ANNOUNCED_BYTES_MAX).contains(bytes))?;
    usize::try_from(bytes).ok().filter(|_| is_store(sent))
}

/// `noreply` alone is no time.
fn has_bad_time(sent: &Sent) -> bool {
    let word = sent.word(1);
    let is_time = c_number(word).is_some_and(|it| i64::try_from(it).is_ok());
    !word.is_empty() && word != b"noreply" && !is_time
}

fn has_bad_word(sent: &Sent) -> bool {
    let is_u64 = |place| c_number(sent.word(place)).is_some_and(|it| u64::try_from(it).is_ok());
    let is_i64 = |place| c_number(sent.word(place)).is_some_and(|it| i64::try_from(it).is_ok());
    let has_bad_unique = sent.word(0) == b"cas" && !is_u64(5);
    sent.word(1).len() > 250 || !is_u64(2) || !is_i64(3) || has_bad_unique
}

/// What follows a data block that is not followed by its end.
fn behind_bad_block(sent: &Sent) -> Option<&[u8]> {
    let bytes = block_bytes(sent).filter(|_| !has_bad_word(sent))?;
    let (_, behind) = sent.rest().split_at_checked(bytes)?;
    let (end, behind) = behind.split_at_checked(2)?;
    (end != b"\r\n").then_some(behind)
}

fn has_bad_block(sent: &Sent) -> bool {
    behind_bad_block(sent).is_some()
}

fn leaves_an_empty_line(sent: &Sent) -> bool {
    behind_bad_block(sent).is_some_and(|behind| behind == b"\n" || behind == b"\r\n")
}

/// The line, if this client wants one.
fn unless_silent<'a>(sent: &Sent, line: &'a [u8]) -> &'a [u8] {
    if sent.is_silent() { b"" } else { line }
}

/// A decimal number, with a sign or without.
fn c_number(word: &[u8]) -> Option<i128> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

pub(crate) fn is_one_line(reply: &[u8], beginning: &[u8]) -> bool {
    let line = reply.strip_suffix(b"\r\n");
    line.is_some_and(|line| line.starts_with(beginning) && !line.contains(&b'\n'))
}
