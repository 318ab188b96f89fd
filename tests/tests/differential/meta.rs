//! Random meta commands, with classic ones between them.

use crate::commands::{self, Dice, lengths};
use crate::replies::ENCODED;
use crate::script::{Part, Script, Step};

/// The most steps of a script.
const STEPS_MAX: usize = 30;

/// Times of flags, in the middle between two thousands, since what is left of them is shown.
const TIMES: [&str; 5] = ["0", "-1", "100000", "2592000", "300000"];

const KEYS: [&str; 4] = ["a", "a", "b", "noreply_"];

const BAD_KEYS: [&str; 4] = ["a b", "Zg= b", "?? b", "Z b"];

/// What is no flag of any meta command, or not in this form.
const BAD_FLAGS: [&str; 15] = [
    "z", "Y", "1", "Txx", "T", "Nxx", "Rxx", "Cxx", "C-1", "Dxx", "D-1", "Jxx", "MX", "Mx", "-",
];

const NUMBERS: [&str; 6] = ["0", "1", "9", "10", "1000000000000000000", "abc"];

/// The meta script of this number: always the same. Half of them ask with `h`, and do not calculate:
/// memcached remembers that an item was asked for if the new number fits into the place of the old.
pub(crate) fn script(number: u64) -> Script {
    let mut dice = Dice::new(number);
    let asks = dice.once_in(2);
    let count = dice.below(STEPS_MAX) + 1;
    let mut steps = Vec::new();
    while steps.len() < count {
        let step = match dice.below(6) {
            0 => commands::step(&mut dice),
            _ => step(&mut dice),
        };
        let sent = step.sent();
        let calculates = matches!(sent.word(0), b"ma" | b"incr" | b"decr");
        let shows = sent.words().contains(&b"h".as_slice());
        if !(asks && calculates) && (asks || !shows) {
            steps.push(step);
        }
    }
    Script {
        steps,
        lengths: lengths(&mut dice),
    }
}

/// A meta command as it is put together.
struct Line {
    parts: Vec<Part>,
    waits: bool,
}

impl Line {
    fn new(name: &str, key: &str) -> Line {
        Line {
            parts: vec![Part::Bytes(format!("{name} {key}").into_bytes())],
            waits: false,
        }
    }

    fn word(&mut self, word: &str) {
        self.parts
            .push(Part::Bytes(format!(" {word}").into_bytes()));
    }

    /// `C` with a unique that was shown for the key.
    fn unique(&mut self, key: &str, age: usize) {
        self.word("C");
        let key = key.as_bytes().to_vec();
        self.parts.push(Part::Unique { key, age });
        self.waits = true;
    }

    fn end(mut self, dice: &mut Dice, block: Option<&[u8]>) -> Step {
        let end = if dice.once_in(20) { "\n" } else { "\r\n" };
        self.parts.push(Part::Bytes(end.as_bytes().to_vec()));
        if let Some(block) = block {
            self.parts.push(Part::Bytes([block, b"\r\n"].concat()));
        }
        Step {
            parts: self.parts,
            waits: self.waits,
            closes: false,
        }
    }
}

fn step(dice: &mut Dice) -> Step {
    match dice.below(20) {
        0..7 => get(dice),
        7..13 => set(dice),
        13..15 => delete(dice),
        15..18 => arithmetic(dice),
        18 => about(dice),
        _ => wrong(dice),
    }
}

/// A key, and whether the command must say that it is base64.
fn key(dice: &mut Dice) -> (&'static str, bool) {
    match dice.once_in(5) {
        true => (dice.pick(&ENCODED).0, true),
        false => (dice.pick(&KEYS), false),
    }
}

/// Some of these flags, each once at most, in any order.
fn flags(dice: &mut Dice, line: &mut Line, encoded: bool, from: &[&str]) {
    let mut rest = from.to_vec();
    // memcached would show the item that it makes with its key as it is, with spaces and all.
    rest.retain(|flag| !(encoded && *flag == "N"));
    if encoded {
        rest.push("b");
    }
    let mut count = dice.below(rest.len().min(6) + 1);
    while count > 0 || (encoded && rest.contains(&"b")) {
        if rest.is_empty() {
            break;
        }
        let flag = rest.swap_remove(dice.below(rest.len()));
        let token = match flag {
            "O" => dice.pick(&["", "1", "opaque", "1234567890123456789012345678901"]),
            "T" | "N" => dice.pick(&TIMES),
            "R" => dice.pick(&["10", "200000"]),
            "F" => dice.pick(&["0", "5", "+7", "4294967295"]),
            "D" => dice.pick(&["0", "1", "9", "1000000000000000"]),
            "J" => dice.pick(&["0", "13", "1000000000000000000"]),
            "P" | "L" => dice.pick(&["", "x"]),
            _ => "",
        };
        line.word(&format!("{flag}{token}"));
        count = count.saturating_sub(1);
    }
}

fn get(dice: &mut Dice) -> Step {
    let (key, encoded) = key(dice);
    let mut line = Line::new("mg", key);
    let quiet = if dice.once_in(6) { "q" } else { "v" };
    let change = dice.pick(&["N", "R", "T", "u", "P", "L"]);
    let shown = ["c", "f", "h", "k", "l", "O", "s", "t", "v"];
    let all = [&shown[..], &[change]].concat();
    flags(dice, &mut line, encoded, &all);
    if quiet == "q" {
        line.word(quiet);
    }
    line.end(dice, None)
}

fn set(dice: &mut Dice) -> Step {
    let (key, encoded) = key(dice);
    let value = if dice.once_in(2) {
        dice.word(&NUMBERS)
    } else {
        dice.value()
    };
    let mut line = Line::new("ms", key);
    line.word(&value.len().to_string());
    if dice.once_in(3) {
        line.word(&format!("M{}", dice.pick(&["S", "E", "A", "P", "R"])));
    }
    flags(
        dice,
        &mut line,
        encoded,
        &["c", "F", "I", "k", "O", "T", "q"],
    );
    if dice.once_in(4) {
        let age = dice.below(2);
        line.unique(key, age);
    }
    line.end(dice, Some(&value))
}

fn delete(dice: &mut Dice) -> Step {
    let (key, encoded) = key(dice);
    let mut line = Line::new("md", key);
    flags(dice, &mut line, encoded, &["I", "k", "O", "q", "T"]);
    if dice.once_in(4) {
        let age = dice.below(2);
        line.unique(key, age);
    }
    line.end(dice, None)
}

/// It waits, as `incr` does.
fn arithmetic(dice: &mut Dice) -> Step {
    let (key, encoded) = key(dice);
    let mut line = Line::new("ma", key);
    line.waits = true;
    if dice.once_in(3) {
        line.word(&format!("M{}", dice.pick(&["I", "D", "+", "-"])));
    }
    if dice.once_in(6) {
        line.unique(key, 0);
        flags(dice, &mut line, encoded, &["k", "v", "D"]);
        return line.end(dice, None);
    }
    // Not both: one server could show a unique of which the other says nothing.
    let last = dice.pick(&["c", "c", "q"]);
    let all = ["D", "J", "k", "N", "O", "t", "T", "v", last];
    flags(dice, &mut line, encoded, &all);
    line.end(dice, None)
}

fn about(dice: &mut Dice) -> Step {
    let key = dice.pick(&KEYS);
    Line::new("me", key).end(dice, None)
}

/// A meta command with something wrong about it.
fn wrong(dice: &mut Dice) -> Step {
    let name = dice.pick(&["mg", "ms", "md", "ma"]);
    let long = "k".repeat(251);
    let flag = match dice.below(9) {
        0 => return Step::new(format!("{name}\r\n")),
        1 => return bare(dice, name, &long),
        2 => {
            let key = dice.pick(&BAD_KEYS);
            return bare(dice, name, key);
        }
        3 => {
            let length = dice.pick(&["", " xx", " -1", " 2147483646", " 1x"]);
            return Step::new(format!("ms a{length}\r\nzz\r\n"));
        }
        4 => "P ".repeat(19),
        5 => format!("O{}", "x".repeat(33)),
        6 => dice.pick(&["k k", "c c", "v v", "q q"]).to_owned(),
        7 => dice
            .pick(&[
                "Madd",
                "M",
                "F4294967296",
                "F-1",
                "E5",
                "x",
                "C1",
                "C1",
                "s",
                "N0",
            ])
            .to_owned(),
        _ => dice.pick(&BAD_FLAGS).to_owned(),
    };
    bare(dice, name, &format!("a {flag}"))
}

/// The command with these words, and two bytes of data if it is `ms`.
fn bare(dice: &mut Dice, name: &str, words: &str) -> Step {
    let (key, flags) = words.split_once(' ').unwrap_or((words, ""));
    let mut line = Line::new(name, key);
    if name == "ms" {
        line.word("2");
    }
    line.word(flags);
    line.waits = name == "ma";
    line.end(dice, (name == "ms").then_some(b"zz"))
}
