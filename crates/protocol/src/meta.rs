//! The meta commands' lines to commands. Their flags are letters, each with a token behind it or
//! none; all commands know the same ones, and pass over what they have no use for.

use bytes::Bytes;
use command::{
    Command, Direction, Exptime, Key, MetaArithmetic, MetaDelete, MetaGet, MetaSet, Read, Recache,
    Store, StoreMode, Write,
};

use crate::classic::{BAD_FORMAT, TOO_LARGE, block_length, item_bytes, skip_block, skip_too_large};
use crate::request::{Block, Line, MetaCommand, MetaShape, Shape};
use crate::words::{Words, exptime, is_key, unsigned};
use crate::{Limits, base64};

const INVALID_FLAG: &str = "CLIENT_ERROR invalid flag\r\n";
const DUPLICATE_FLAG: &str = "CLIENT_ERROR duplicate flag\r\n";
/// What `md` and `ma` say of whatever is wrong with their flags.
const INVALID_OR_DUPLICATE: &str = "CLIENT_ERROR invalid or duplicate flag\r\n";
pub(crate) const BAD_TOKEN: &str = "CLIENT_ERROR bad token in command line format\r\n";
const OPAQUE_TOO_LONG: &str = "CLIENT_ERROR opaque token too long\r\n";
const TOO_MANY_FLAGS: &str = "CLIENT_ERROR options flags are too long\r\n";
const BAD_BASE64: &str = "CLIENT_ERROR error decoding key\r\n";
const BAD_SET_MODE: &str = "CLIENT_ERROR invalid mode for ms M token\r\n";
const BAD_ARITHMETIC_MODE: &str = "CLIENT_ERROR invalid mode for ma M token\r\n";

/// The most flags of a line, as memcached has it.
const FLAGS_MAX: usize = 18;

/// The longest opaque, with its letter, as memcached has it.
const OPAQUE_BYTES_MAX: usize = 32;

/// Reads the rest of a line that begins with `name`; `None` when that is no command of here.
pub(crate) fn line(name: &[u8], words: Words<'_>, limits: &Limits) -> Option<Line> {
    let line = match name {
        b"mg" => get(words),
        b"ms" => set(words, limits),
        b"md" => delete(words),
        b"ma" => arithmetic(words),
        b"me" => inspect(words),
        _ => return None,
    };
    Some(line.unwrap_or_else(Line::answer))
}

/// What the flags of a line say.
#[derive(Default)]
struct Flags<'a> {
    is_base64: bool,
    peeks: bool,
    invalidate: bool,
    clear: bool,
    touch: Option<Exptime>,
    vivify: Option<Exptime>,
    recache: Option<Recache>,
    compare: Option<u64>,
    unique: Option<u64>,
    flags: u32,
    initial: u64,
    delta: Option<u64>,
    mode: Option<&'a [u8]>,
    opaque_is_too_long: bool,
}

/// Reads all flags, or says what is wrong with the first that is.
fn flags(words: Words<'_>) -> Result<Flags<'_>, &'static str> {
    if words.count() > FLAGS_MAX {
        return Err(TOO_MANY_FLAGS);
    }
    let mut flags = Flags::default();
    let mut seen: u128 = 0;
    for word in words {
        let Some((letter, token)) = word.split_first() else {
            return Err(INVALID_FLAG);
        };
        // As in memcached, what is no ASCII letter or sign counts as seen.
        let bit = 1u128.checked_shl(u32::from(*letter)).unwrap_or(0);
        if seen & bit != 0 || *letter >= 127 {
            return Err(DUPLICATE_FLAG);
        }
        seen |= bit;
        flags.take(*letter, token)?;
    }
    Ok(flags)
}

impl<'a> Flags<'a> {
    fn take(&mut self, letter: u8, token: &'a [u8]) -> Result<(), &'static str> {
        match letter {
            b'b' => self.is_base64 = true,
            b'u' => self.peeks = true,
            b'I' => self.invalidate = true,
            b'x' => self.clear = true,
            b'T' => self.touch = Some(time(token)?),
            b'N' => self.vivify = Some(time(token)?),
            b'R' => {
                let (below, after_touch) = (time(token)?, self.touch.is_some());
                self.recache = Some(Recache { below, after_touch });
            }
            b'C' => self.compare = Some(number(token)?),
            b'E' => self.unique = Some(number(token)?),
            b'J' => self.initial = number(token)?,
            b'D' => self.delta = Some(number(token)?),
            b'F' => {
                let flags = unsigned(token).and_then(|flags| u32::try_from(flags).ok());
                self.flags = flags.ok_or(BAD_FORMAT)?;
            }
            b'M' => self.mode = Some(token),
            b'O' => self.opaque_is_too_long = 1 + token.len() > OPAQUE_BYTES_MAX,
            // To be shown, or to be passed over.
            b'c' | b'f' | b'h' | b'k' | b'l' | b'q' | b's' | b't' | b'v' | b'P' | b'L' => {}
            _ => return Err(INVALID_FLAG),
        }
        Ok(())
    }

    /// The key that a word names, decoded if it is in base64.
    fn key(&self, words: &Words<'a>, word: &'a [u8]) -> Result<Key, &'static str> {
        if !self.is_base64 {
            return words.key(word).ok_or(BAD_FORMAT);
        }
        let bytes = base64::decode(word).ok_or(BAD_BASE64)?;
        Key::new(Bytes::from(bytes)).ok_or(BAD_FORMAT)
    }

    fn check_opaque(&self) -> Result<(), &'static str> {
        match self.opaque_is_too_long {
            true => Err(OPAQUE_TOO_LONG),
            false => Ok(()),
        }
    }
}

fn time(token: &[u8]) -> Result<Exptime, &'static str> {
    exptime(token).ok_or(BAD_TOKEN)
}

fn number(token: &[u8]) -> Result<u64, &'static str> {
    unsigned(token).ok_or(BAD_TOKEN)
}

/// A word that may be a key, in base64 or not.
fn key_word<'a>(words: &mut Words<'a>) -> Result<&'a [u8], &'static str> {
    let word = words.next().ok_or(BAD_FORMAT)?;
    match is_key(word) && word.len() <= command::KEY_BYTES_MAX {
        true => Ok(word),
        false => Err(BAD_FORMAT),
    }
}

/// `<key> <flag>*`.
fn get(mut words: Words<'_>) -> Result<Line, &'static str> {
    let word = key_word(&mut words)?;
    let flags = flags(words)?;
    let key = flags.key(&words, word)?;
    flags.check_opaque()?;
    let get = MetaGet {
        key,
        peeks: flags.peeks,
        touch: flags.touch,
        vivify: flags.vivify,
        recache: flags.recache,
        unique: flags.unique,
    };
    let command = match get.only_reads() {
        true => Command::Read(Read::MetaGet(get)),
        false => Command::Write(Write::MetaGet(get)),
    };
    Ok(Line::command(command, shape(MetaCommand::Get, word, words)))
}

/// `<key> <bytes> <flag>*`. Once the length is known the data block is taken off, whatever is wrong
/// with the rest.
fn set(mut words: Words<'_>, limits: &Limits) -> Result<Line, &'static str> {
    let key = words.next().ok_or(BAD_FORMAT)?;
    let length = words.next().and_then(block_length);
    let value_bytes = length.ok_or(BAD_FORMAT)?;
    let set = meta_set(key, words).and_then(|set| {
        match item_bytes(&set.store.key, value_bytes) > limits.item_bytes_max {
            true => Err(TOO_LARGE),
            false => Ok(set),
        }
    });
    Ok(match set {
        Err(TOO_LARGE) => skip_too_large(false, value_bytes),
        Err(answer) => skip_block(answer, value_bytes),
        Ok(set) => Line::Block(Block {
            write: Write::MetaSet(set),
            value_bytes,
            shape: shape(MetaCommand::Set, key, words),
        }),
    })
}

fn meta_set<'a>(word: &'a [u8], words: Words<'a>) -> Result<MetaSet, &'static str> {
    if word.len() > command::KEY_BYTES_MAX {
        return Err(BAD_FORMAT);
    }
    let flags = flags(words)?;
    let key = flags.key(&words, word)?;
    let mode = match flags.mode {
        None | Some(b"S") => StoreMode::Set,
        Some(b"E") => StoreMode::Add,
        Some(b"A") => StoreMode::Append,
        Some(b"P") => StoreMode::Prepend,
        Some(b"R") => StoreMode::Replace,
        Some(_) => return Err(BAD_SET_MODE),
    };
    flags.check_opaque()?;
    Ok(MetaSet {
        store: Store {
            mode,
            key,
            flags: flags.flags,
            exptime: flags.touch.unwrap_or_default(),
            value: Bytes::new(),
        },
        compare: flags.compare,
        invalidate: flags.invalidate,
        vivify: flags.vivify,
        unique: flags.unique,
    })
}

/// `<key> <flag>*`.
fn delete(mut words: Words<'_>) -> Result<Line, &'static str> {
    let word = key_word(&mut words)?;
    let (key, flags) = flags_and_key(word, words)?;
    flags.check_opaque()?;
    let delete = MetaDelete {
        key,
        compare: flags.compare,
        invalidate: flags.invalidate,
        clear: flags.clear,
        touch: flags.touch,
        unique: flags.unique,
    };
    let command = Command::Write(Write::MetaDelete(delete));
    Ok(Line::command(
        command,
        shape(MetaCommand::Delete, word, words),
    ))
}

/// `<key> <flag>*`.
fn arithmetic(mut words: Words<'_>) -> Result<Line, &'static str> {
    let word = key_word(&mut words)?;
    let (key, flags) = flags_and_key(word, words)?;
    let direction = match flags.mode {
        None | Some(b"I" | b"+") => Direction::Increment,
        Some(b"D" | b"-") => Direction::Decrement,
        Some(_) => return Err(BAD_ARITHMETIC_MODE),
    };
    flags.check_opaque()?;
    let arithmetic = MetaArithmetic {
        key,
        direction,
        delta: flags.delta.unwrap_or(1),
        // As in memcached, 0 stands for any here.
        compare: flags.compare.filter(|unique| *unique != 0),
        vivify: flags.vivify,
        initial: flags.initial,
        touch: flags.touch,
        unique: flags.unique,
    };
    let command = Command::Write(Write::MetaArithmetic(arithmetic));
    let shape = shape(MetaCommand::Arithmetic, word, words);
    Ok(Line::command(command, shape))
}

fn flags_and_key<'a>(word: &'a [u8], words: Words<'a>) -> Result<(Key, Flags<'a>), &'static str> {
    let flags = match flags(words) {
        Err(TOO_MANY_FLAGS) => return Err(TOO_MANY_FLAGS),
        flags => flags.map_err(|_| INVALID_OR_DUPLICATE)?,
    };
    match flags.key(&words, word) {
        Err(BAD_BASE64) => Err(INVALID_OR_DUPLICATE),
        key => Ok((key?, flags)),
    }
}

/// `<key> [b]`. Other words are passed over.
fn inspect(mut words: Words<'_>) -> Result<Line, &'static str> {
    let word = key_word(&mut words)?;
    let flags = Flags {
        is_base64: words.clone().any(|word| word == b"b"),
        ..Flags::default()
    };
    let key = flags.key(&words, word).map_err(|_| BAD_FORMAT)?;
    let shape = shape(MetaCommand::Inspect, word, words);
    Ok(Line::command(Command::Read(Read::Inspect { key }), shape))
}

fn shape(command: MetaCommand, key: &[u8], flags: Words<'_>) -> Shape {
    Shape::Meta(MetaShape {
        command,
        key: flags.share(key),
        flags: flags.share_rest(),
    })
}
