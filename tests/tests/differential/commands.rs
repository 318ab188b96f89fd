//! Random classic commands: mostly valid, with operands at their bounds, and some that are wrong in
//! one way.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::script::{Part, Script, Step};

/// Few keys, so that commands meet. None holds the line that ends a reply.
const KEYS: [&[u8]; 5] = [b"a", b"b", b"noreply_", b"\x01\xfc\t!", &[b'k'; 250]];

const FLAGS: [&str; 8] = [
    "0",
    "5",
    "+7",
    "007",
    "-0",
    "4294967295",
    "4294967296",
    "18446744073709551615",
];
const BAD_FLAGS: [&str; 6] = ["-1", "xx", "1.5", "5x", "18446744073709551616", "0x1"];

/// Times that are over, or far away: seconds that pass must not matter.
const TIMES: [&str; 12] = [
    "0",
    "100000",
    "+100000",
    "2592000",
    "2592001",
    "2000000000",
    "2147483647",
    "2147483648",
    "-1",
    "4294967296",
    "-2147483649",
    "9223372036854775807",
];
const BAD_TIMES: [&str; 5] = ["xx", "1.5", "-", "9223372036854775808", "5x"];

const BAD_LENGTHS: [&str; 8] = [
    "-1",
    "xx",
    "1x",
    "2147483646",
    "2147483648",
    "4294967295",
    "4294967297",
    "99999999999999999999",
];

const DELTAS: [&str; 8] = [
    "0",
    "1",
    "9",
    "+5",
    "007",
    "100",
    "1000000000000000",
    "9999999999",
];
const BAD_DELTAS: [&str; 5] = ["-1", "xx", "1.5", "18446744073709551616", "1x"];

/// What values are made of. None is a number from 2^63 on, and no sum gets there: behind the digits of
/// such a one memcached looks for a minus, in whatever its memory held before.
const NUMBERS: [&str; 18] = [
    "0",
    "1",
    "9",
    "10",
    "99",
    "100",
    "1000000000000000000",
    "18446744073709551616",
    "99999999999999999999",
    "00012",
    "+5",
    " 7",
    "9 ",
    "9 x",
    "1.5",
    "abc",
    "0000000000000000000000000012",
    "5\0x",
];

/// Whole lines about the server, and such as are no commands.
const LINES: [&str; 42] = [
    "version",
    "verbosity 0",
    "verbosity 0 x",
    "verbosity xx",
    "verbosity -1",
    "verbosity 0 noreply",
    "verbosity noreply",
    "stats reset",
    "stats foo",
    "stats detail",
    "stats detail on",
    "stats detail off",
    "stats detail dump",
    "stats detail xx",
    "stats cachedump",
    "stats cachedump 1",
    "stats sizes",
    "cache_memlimit",
    "cache_memlimit 5",
    "cache_memlimit 1024",
    "cache_memlimit xx",
    "cache_memlimit -1",
    "cache_memlimit 1024 noreply",
    "shutdown",
    "refresh_certs",
    "slabs",
    "slabs automove",
    "slabs automove 0",
    "slabs automove xx",
    "slabs reassign 1 2",
    "lru",
    "lru mode xx",
    "lru tune 10 25 0.1 2",
    "lru_crawler",
    "lru_crawler tocrawl xx",
    "misbehave",
    "foo",
    "GET a",
    "set\ta 0 0 1",
    "get\ta",
    "PUT x",
    "x HTTP/1.1 y",
];

/// Lines over which the connection is closed.
const LAST_LINES: [&str; 5] = [
    "quit",
    "quit now",
    "GET / HTTP/1.1",
    "POST /a HTTP/1.0",
    "HTTP/",
];

/// The key of large values, with which nothing is calculated: to memcached a value of more than half
/// a mebibyte is no number, however it begins.
const LARGE_KEY: &[u8] = b"large";

/// The most steps of a script.
const STEPS_MAX: usize = 40;

/// A value of `LARGE` bytes is kept by both, one of `TOO_LARGE` by neither.
const LARGE: usize = 1_000_000;
const TOO_LARGE: usize = 1_060_000;

/// The classic script of this number: always the same.
pub(crate) fn script(number: u64) -> Script {
    let mut dice = Dice::new(number);
    let count = dice.below(STEPS_MAX) + 1;
    let mut steps: Vec<Step> = (0..count).map(|_| step(&mut dice)).collect();
    match dice.below(20) {
        0..4 => steps.push(Step::new("stats\r\n").waiting()),
        4 => steps.push(last(&mut dice)),
        _ => {}
    }
    Script {
        steps,
        lengths: lengths(&mut dice),
    }
}

/// The source of all choices.
pub(crate) struct Dice(StdRng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(StdRng::seed_from_u64(seed))
    }

    /// Any number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0.random_range(0..bound)
    }

    pub(crate) fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(crate) fn word(&mut self, from: &[&str]) -> Vec<u8> {
        self.pick(from).as_bytes().to_vec()
    }

    pub(crate) fn key(&mut self) -> Vec<u8> {
        // The first one more often than all others.
        let key = if self.once_in(2) {
            KEYS[0]
        } else {
            self.pick(&KEYS)
        };
        key.to_vec()
    }

    /// The same, or now and then the one of large values.
    fn any_key(&mut self) -> Vec<u8> {
        match self.once_in(30) {
            true => LARGE_KEY.to_vec(),
            false => self.key(),
        }
    }

    /// A value that both servers keep. None is white space alone: in search of its digits memcached
    /// would read on behind it.
    pub(crate) fn value(&mut self) -> Vec<u8> {
        match self.below(10) {
            0..5 => self.word(&NUMBERS),
            5..8 => {
                let length = self.below(30);
                let bytes = b"xyz 019\r\n\0\t\xff";
                let mut value: Vec<u8> = (0..length).map(|_| self.pick(bytes)).collect();
                value.insert(self.below(length + 1), b'x');
                value
            }
            8 => vec![b'v'; self.below(10_000)],
            _ => Vec::new(),
        }
    }
}

/// How a script is cut into writes: not at all, byte by byte, or anyhow.
pub(crate) fn lengths(dice: &mut Dice) -> Vec<usize> {
    match dice.below(4) {
        0 => vec![usize::MAX],
        1 => vec![1],
        _ => (0..8).map(|_| 1 + dice.below(60)).collect(),
    }
}

/// Any classic command.
pub(crate) fn step(dice: &mut Dice) -> Step {
    match dice.below(100) {
        0..30 => store(dice),
        30..52 => retrieve(dice),
        52..64 => arithmetic(dice),
        64..72 => delete(dice),
        72..78 => touch(dice),
        78..80 => flush_all(dice),
        80..86 => bad_store(dice),
        86..89 => bad_block(dice),
        89..94 => bad_line(dice),
        _ => {
            let line = dice.word(&LINES);
            Step::new(end(dice, line))
        }
    }
}

/// The line with an end, and at times with more spaces than it needs.
fn line(dice: &mut Dice, words: &[Vec<u8>]) -> Vec<u8> {
    let mut line = Vec::new();
    for (place, word) in words.iter().enumerate() {
        if place > 0 {
            let spaces = if dice.once_in(20) { 3 } else { 1 };
            line.extend(std::iter::repeat_n(b' ', spaces));
        }
        line.extend_from_slice(word);
    }
    if dice.once_in(20) {
        line.push(b' ');
    }
    end(dice, line)
}

fn end(dice: &mut Dice, mut line: Vec<u8>) -> Vec<u8> {
    let end: &[u8] = if dice.once_in(20) { b"\n" } else { b"\r\n" };
    line.extend_from_slice(end);
    line
}

/// The words with `noreply` at times.
fn silent(dice: &mut Dice, mut words: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    if dice.once_in(6) {
        words.push(b"noreply".to_vec());
    }
    words
}

/// `<name> <key> <flags> <exptime> <bytes>`.
fn store_words(dice: &mut Dice, name: &str, bytes: usize) -> Vec<Vec<u8>> {
    let time = if dice.once_in(3) {
        dice.word(&TIMES)
    } else {
        b"0".to_vec()
    };
    vec![
        name.as_bytes().to_vec(),
        dice.key(),
        dice.word(&FLAGS),
        time,
        bytes.to_string().into_bytes(),
    ]
}

fn store_name(dice: &mut Dice) -> &'static str {
    dice.pick(&["set", "set", "set", "add", "replace", "append", "prepend"])
}

fn store(dice: &mut Dice) -> Step {
    let large = match dice.below(150) {
        0 => Some(LARGE),
        1 => Some(TOO_LARGE),
        2 => Some(TOO_LARGE - LARGE),
        _ => None,
    };
    let value = large.map_or_else(|| dice.value(), |length| vec![b'v'; length]);
    if large.is_none() && dice.once_in(4) {
        return cas(dice, &value);
    }
    let name = store_name(dice);
    let mut words = store_words(dice, name, value.len());
    if large.is_some() {
        words[1] = LARGE_KEY.to_vec();
    }
    let words = silent(dice, words);
    let line = line(dice, &words);
    Step::new([&*line, &value, b"\r\n"].concat())
}

/// With a unique that was shown, or with none.
fn cas(dice: &mut Dice, value: &[u8]) -> Step {
    let words = store_words(dice, "cas", value.len());
    let key = words[1].clone();
    let unique = match dice.below(6) {
        0 => Part::Bytes(dice.word(&["0", "18446744073709551615", "+4611686018427387904"])),
        1 => Part::Unique { key, age: 1 },
        _ => Part::Unique { key, age: 0 },
    };
    let noreply: &[u8] = if dice.once_in(6) { b" noreply" } else { b"" };
    let rest = [noreply, b"\r\n", value, b"\r\n"].concat();
    Step {
        parts: vec![
            Part::Bytes([words.join(&b' '), b" ".to_vec()].concat()),
            unique,
            Part::Bytes(rest),
        ],
        waits: true,
        closes: false,
    }
}

/// A storage line with one word that is wrong, too many or missing. Its value is no command.
fn bad_store(dice: &mut Dice) -> Step {
    let is_cas = dice.once_in(3);
    let name = if is_cas { "cas" } else { store_name(dice) };
    let mut words = store_words(dice, name, 2);
    words[3] = b"0".to_vec();
    if is_cas {
        words.push(b"1".to_vec());
    }
    match dice.below(9) {
        0 => words[1] = vec![b'k'; 251],
        1 => words[1] = dice.word(&["a\0b", "a\rb", "\0"]),
        2 => words[2] = dice.word(&BAD_FLAGS),
        3 => words[3] = dice.word(&BAD_TIMES),
        4 => words[4] = dice.word(&BAD_LENGTHS),
        5 => {
            words[2 + dice.below(3)] = b"2\tx".to_vec();
        }
        6 => words.truncate(1 + dice.below(words.len() - 1)),
        7 => words.extend([b"xx".to_vec(), b"yy".to_vec()]),
        _ if is_cas => words[5] = dice.word(&["xx", "-1", "18446744073709551616"]),
        _ => words[0].insert(0, b' '),
    }
    let words = silent(dice, words);
    Step::new([words.join(&b' '), b"\r\nzz\r\n".to_vec()].concat())
}

/// A data block that is longer or shorter than it should be.
fn bad_block(dice: &mut Dice) -> Step {
    let (length, off) = (dice.below(20), 1 + dice.below(9));
    let is_short = dice.once_in(2);
    let name = store_name(dice);
    let announced = if is_short { length + off } else { length };
    let words = store_words(dice, name, announced);
    let words = silent(dice, words);
    let line = line(dice, &words);
    let block = match is_short {
        // The bytes that are missing are taken from a line that is none.
        true => [vec![b'z'; length], b"\r\n".to_vec(), vec![b'z'; off + 8]].concat(),
        false => vec![b'z'; length + off],
    };
    Step::new([&*line, &block, b"\r\n"].concat())
}

fn retrieve(dice: &mut Dice) -> Step {
    let mut words = match dice.below(10) {
        0..4 => vec![b"get".to_vec()],
        4..8 => vec![b"gets".to_vec()],
        8 => vec![b"gat".to_vec(), dice.word(&TIMES)],
        _ => vec![b"gats".to_vec(), dice.word(&TIMES)],
    };
    let count = if dice.once_in(4) {
        1 + dice.below(6)
    } else {
        1
    };
    for _ in 0..count {
        words.push(dice.any_key());
    }
    Step::new(line(dice, &words))
}

/// It waits: memcached pads a shorter number unless an earlier reply still holds the item.
fn arithmetic(dice: &mut Dice) -> Step {
    let name = dice.word(&["incr", "decr"]);
    let words = vec![name, dice.key(), dice.word(&DELTAS)];
    let words = silent(dice, words);
    Step::new(line(dice, &words)).waiting()
}

fn delete(dice: &mut Dice) -> Step {
    let mut words = vec![b"delete".to_vec(), dice.any_key()];
    match dice.below(8) {
        0 => words.push(b"0".to_vec()),
        1 => words.push(dice.word(&["1", "xx", "-1"])),
        _ => {}
    }
    let words = silent(dice, words);
    Step::new(line(dice, &words))
}

fn touch(dice: &mut Dice) -> Step {
    let words = vec![b"touch".to_vec(), dice.any_key(), dice.word(&TIMES)];
    let words = silent(dice, words);
    Step::new(line(dice, &words))
}

fn flush_all(dice: &mut Dice) -> Step {
    let mut words = vec![b"flush_all".to_vec()];
    if dice.once_in(2) {
        let delays = ["0", "-1", "100000", "2592001", "4294967296", "0 foo"];
        words.push(dice.word(&delays));
    }
    let words = silent(dice, words);
    Step::new(line(dice, &words))
}

/// Any other command with something wrong about it.
fn bad_line(dice: &mut Dice) -> Step {
    let key = dice.key();
    let long = vec![b'k'; 251];
    let words: Vec<Vec<u8>> = match dice.below(12) {
        0 => vec![dice.word(&["get", "gets", "gat", "gats", "delete", "touch", "incr"])],
        1 => vec![dice.word(&["gat", "gats"]), b"0".to_vec()],
        2 => vec![dice.word(&["incr", "decr", "touch"]), key],
        3 => vec![dice.word(&["incr", "decr"]), key, dice.word(&BAD_DELTAS)],
        4 => vec![dice.word(&["touch"]), key, dice.word(&BAD_TIMES)],
        5 => vec![dice.word(&["gat", "gats"]), dice.word(&BAD_TIMES), key],
        6 => vec![b"flush_all".to_vec(), dice.word(&BAD_TIMES)],
        7 => vec![dice.word(&["get", "gets", "gat 0"]), key, long],
        8 => vec![dice.word(&["delete", "gat 0", "get"]), b"a\0b".to_vec()],
        9 => vec![
            dice.word(&["get", "delete", "touch"]),
            b"a\rb".to_vec(),
            b"0".to_vec(),
        ],
        10 => {
            let name = dice.word(&["incr", "touch", "delete", "flush_all", "verbosity"]);
            [name, key]
                .into_iter()
                .chain(["1", "2", "3"].map(|it| it.as_bytes().to_vec()))
                .collect()
        }
        _ => vec![dice.word(&["", " get", "   ", "verbosity", "lru_crawler crawl xx"])],
    };
    let is_retrieval = words[0].starts_with(b"g") || words[0].starts_with(b" ");
    let words = match words.len() {
        1 => words,
        _ if is_retrieval => words,
        _ => silent(dice, words),
    };
    Step::new(end(dice, words.join(&b' ')))
}

/// What the connection is closed over.
fn last(dice: &mut Dice) -> Step {
    let bytes = match dice.below(4) {
        0 => vec![b'x'; 3_000],
        1 => [b"gat 0".to_vec(), b" a".repeat(1_500)].concat(),
        _ => {
            let line = dice.word(&LAST_LINES);
            end(dice, line)
        }
    };
    Step::new(bytes).closing()
}
