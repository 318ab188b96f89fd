//! Commands that tell of the server and not of the data, and one that sets what all servers hold to
//! (`cache_memlimit`). But for that and `stats`, which the evaluator answers, each has its whole answer here: what there is no part of (extstore, a slab mover, a
//! log to watch, a dump of the keys) is answered as by a memcached built or started without it.

use std::ops::RangeInclusive;

use command::{Command, Read, Stats, Write};

use crate::Dump;
use crate::classic::{BAD_FORMAT, line_or_silent};
use crate::request::{Line, Request, Shape};
use crate::words::{Words, signed, unsigned};

/// What `version` tells: clients read the digits and dots at its start.
pub const VERSION: &str = concat!("1.6.45-quorate-", env!("CARGO_PKG_VERSION"));

pub(crate) const ERROR: &str = "ERROR\r\n";
const OK: &str = "OK\r\n";
const VERSION_LINE: &str = concat!("VERSION 1.6.45-quorate-", env!("CARGO_PKG_VERSION"), "\r\n");
const SHUTDOWN_DISABLED: &str = "SERVER_ERROR: shutdown not enabled\r\n";
const WATCH_DISABLED: &str = "CLIENT_ERROR watch commands not allowed\r\n";
const REASSIGN_DISABLED: &str = "CLIENT_ERROR slab reassignment disabled\r\n";
const BAD_CLASS: &str = "BADCLASS invalid class id\r\n";
const ILLEGAL_CLASS: &str = "CLIENT_ERROR Illegal slab id\r\n";
const CACHEDUMP_USAGE: &str = "CLIENT_ERROR bad command line\r\n";
const DETAIL_USAGE: &str = "CLIENT_ERROR usage: stats detail on|off|dump\r\n";
const SIZES_DISABLED: &str = "STAT sizes_status disabled\r\nEND\r\n";
const MEMLIMIT_TOO_SMALL: &str = "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n";

/// The classes that a memcached may have, and the one that all items are in here.
const CLASSES: RangeInclusive<u64> = 1..=62;
const CLASS: u64 = 1;

/// The least memory that `cache_memlimit` takes, in MiB.
const MEMLIMIT_MIB_MIN: u32 = 8;

/// Reads the rest of a line that begins with `name`; `None` when that is no command of here.
pub(crate) fn line(name: &[u8], words: Words<'_>) -> Option<Line> {
    let line = match name {
        b"version" => Line::answer(VERSION_LINE),
        b"mn" => Line::answer("MN\r\n"),
        b"quit" => Line::Request(Request::Close),
        b"verbosity" => verbosity(words),
        b"stats" => stats(words),
        b"shutdown" => Line::answer(SHUTDOWN_DISABLED),
        b"cache_memlimit" => cache_memlimit(words),
        b"watch" => Line::answer(WATCH_DISABLED),
        b"slabs" => slabs(words),
        b"lru" => lru(words),
        b"lru_crawler" => lru_crawler(words),
        _ => return None,
    };
    Some(line)
}

/// `<level> [noreply]`. The level is checked and otherwise of no effect.
fn verbosity(mut words: Words<'_>) -> Line {
    let silent = words.end_in_noreply();
    match words.next().and_then(unsigned) {
        Some(_) => Line::answer_unless(silent, OK),
        None => Line::answer_unless(silent, BAD_FORMAT),
    }
}

fn stats(mut words: Words<'_>) -> Line {
    let stats = match words.next() {
        None => Stats::General,
        Some(b"settings") => Stats::Settings,
        Some(b"items") => Stats::Items,
        Some(b"slabs") => Stats::Slabs,
        Some(b"conns") => Stats::Conns,
        Some(b"reset") => Stats::Reset,
        Some(b"sizes") => return Line::answer(SIZES_DISABLED),
        Some(b"detail") => return stats_detail(words),
        Some(b"cachedump") => return stats_cachedump(words),
        Some(_) => return Line::answer(ERROR),
    };
    Line::command(Command::Stats(stats), Shape::Stats(stats))
}

/// Statistics by prefix of the key are not kept, so there are none to dump.
fn stats_detail(mut words: Words<'_>) -> Line {
    Line::answer(match words.next() {
        Some(b"on" | b"off") => OK,
        Some(b"dump") => "END\r\n",
        _ => DETAIL_USAGE,
    })
}

/// `<class> <limit>`.
fn stats_cachedump(mut words: Words<'_>) -> Line {
    let (Some(class), Some(limit)) = (words.next(), words.next()) else {
        return Line::answer(CACHEDUMP_USAGE);
    };
    let small = |word| unsigned(word).filter(|number| *number <= u64::from(u32::MAX));
    match (small(class), small(limit)) {
        (Some(CLASS), Some(items_max)) => dump(Dump::Cachedump { items_max }),
        (Some(class), Some(_)) if class > *CLASSES.end() + 1 => Line::answer(ILLEGAL_CLASS),
        (Some(_), Some(_)) => Line::answer("END\r\n"),
        _ => Line::answer(BAD_FORMAT),
    }
}

/// A read whose reply the server makes of what it has then.
fn dump(dump: Dump) -> Line {
    Line::command(Command::Read(Read::Confirm), Shape::Dump(dump))
}

/// `<MiB> [noreply]`.
fn cache_memlimit(mut words: Words<'_>) -> Line {
    let silent = words.end_in_noreply();
    let Some(limit) = words.next() else {
        return Line::answer(ERROR);
    };
    let mib = unsigned(limit).and_then(|mib| u32::try_from(mib).ok());
    match mib {
        None => Line::answer_unless(silent, ERROR),
        Some(mib) if mib < MEMLIMIT_MIB_MIN => Line::answer_unless(silent, MEMLIMIT_TOO_SMALL),
        Some(mib) => Line::command(
            Command::Write(Write::MemoryLimit { mib }),
            line_or_silent(silent),
        ),
    }
}

fn slabs(mut words: Words<'_>) -> Line {
    let silent = words.end_in_noreply();
    let answer = match (words.next(), words.next(), words.next()) {
        (Some(b"automove"), Some(mode), _) if unsigned(mode).is_some() => OK,
        (Some(b"automove"), Some(_), _) => BAD_FORMAT,
        (Some(b"reassign"), Some(_), Some(_)) => REASSIGN_DISABLED,
        _ => ERROR,
    };
    Line::answer_unless(silent, answer)
}

fn lru(mut words: Words<'_>) -> Line {
    let silent = words.end_in_noreply();
    let answer = match (words.next(), words.next()) {
        (Some(b"mode"), Some(b"flat" | b"segmented")) => OK,
        (Some(b"tune"), Some(_)) if words.count() >= 3 => OK,
        (Some(b"temp_ttl"), Some(seconds)) if signed(seconds).is_some() => OK,
        _ => ERROR,
    };
    Line::answer_unless(silent, answer)
}

fn lru_crawler(mut words: Words<'_>) -> Line {
    let silent = words.end_in_noreply();
    let answer = match (words.next(), words.next()) {
        (Some(b"enable" | b"disable"), _) => OK,
        (Some(b"crawl" | b"sleep" | b"tocrawl"), Some(_)) => OK,
        // These know no noreply: it is a word too many.
        (Some(b"metadump" | b"mgdump"), Some(_)) if words.next().is_some() => {
            return Line::answer(ERROR);
        }
        (Some(b"metadump"), Some(classes)) => {
            return list(Dump::Metadump, classes, "OK\r\nEND\r\n");
        }
        (Some(b"mgdump"), Some(classes)) => {
            return list(Dump::Mgdump, classes, "OK\r\nEN\r\n");
        }
        _ => ERROR,
    };
    Line::answer_unless(silent, answer)
}

/// `all`, `hash`, or classes with commas between them. `empty` is the answer for classes that no
/// item is in.
fn list(kind: Dump, classes: &[u8], empty: &'static str) -> Line {
    if matches!(classes, b"all" | b"hash") {
        return dump(kind);
    }
    let classes = classes.split(|byte| *byte == b',');
    let classes: Option<Vec<u64>> = classes
        .map(|class| unsigned(class).filter(|class| CLASSES.contains(class)))
        .collect();
    match classes {
        None => Line::answer(BAD_CLASS),
        Some(classes) if classes.contains(&CLASS) => dump(kind),
        Some(_) => Line::answer(empty),
    }
}
