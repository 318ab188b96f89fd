//! The meta commands of an entry; see `codec`.
//!
//! ```text
//! 32 mg    key | has: 1 touch, 2 vivify, 4 recache, 8 unique, 16 recache after touch, 32 peeks
//!              | those of the first four that it has, in this order
//! 33 ms    key | has: 1 compare, 2 vivify, 4 unique, 8 invalidate
//!              | those of the first three that it has | mode (u8, the code of the classic command)
//!              | flags (u32) | exptime (i32) | value
//! 34 md    key | has: 1 compare, 2 touch, 4 unique, 8 invalidate, 16 clear
//!              | those of the first three that it has
//! 35 ma    key | has: 1 compare, 2 vivify, 4 touch, 8 unique, 16 decrement
//!              | those of the first four that it has | delta (u64) | initial (u64)
//! has      the sum of these (u8)
//! ```
//! Times are i32, uniques u64.

use bytes::{BufMut, BytesMut};

use crate::codec::{CodecError, Reader, encode_key};
use crate::{
    Direction, Exptime, Key, MetaArithmetic, MetaDelete, MetaGet, MetaSet, Recache, Store,
    StoreMode, Write,
};

const GET: u8 = 32;
const SET: u8 = 33;
const DELETE: u8 = 34;
const ARITHMETIC: u8 = 35;

/// Fields that may be missing, and facts: a bit for each, in order.
#[derive(Default)]
struct Has {
    bits: u8,
    next: u32,
}

impl Has {
    fn push(mut self, is_there: bool) -> Has {
        self.bits |= u8::from(is_there) << self.next;
        self.next += 1;
        self
    }

    /// The next one of those read.
    fn take(&mut self) -> bool {
        let is_there = self.bits >> self.next & 1 == 1;
        self.next += 1;
        is_there
    }
}

/// The bytes that a meta command takes behind its code.
pub(crate) fn meta_bytes(write: &Write) -> usize {
    let key_and_has = |key: &Key| 1 + key.as_bytes().len() + 1;
    let time = |time: Option<Exptime>| if time.is_some() { 4 } else { 0 };
    let unique = |unique: Option<u64>| if unique.is_some() { 8 } else { 0 };
    match write {
        Write::MetaGet(get) => {
            let recache = get.recache.map(|recache| recache.below);
            let times = time(get.touch) + time(get.vivify) + time(recache);
            key_and_has(&get.key) + times + unique(get.unique)
        }
        Write::MetaSet(set) => {
            let optional = unique(set.compare) + time(set.vivify) + unique(set.unique);
            key_and_has(&set.store.key) + optional + 1 + 4 + 4 + 4 + set.store.value.len()
        }
        Write::MetaDelete(delete) => {
            let uniques = unique(delete.compare) + unique(delete.unique);
            key_and_has(&delete.key) + uniques + time(delete.touch)
        }
        Write::MetaArithmetic(it) => {
            let uniques = unique(it.compare) + unique(it.unique);
            key_and_has(&it.key) + uniques + time(it.vivify) + time(it.touch) + 8 + 8
        }
        other => unreachable!("{other:?} is no meta command"),
    }
}

pub(crate) fn encode_meta(write: &Write, bytes: &mut BytesMut) {
    match write {
        Write::MetaGet(get) => encode_get(get, bytes),
        Write::MetaSet(set) => encode_set(set, bytes),
        Write::MetaDelete(delete) => encode_delete(delete, bytes),
        Write::MetaArithmetic(arithmetic) => encode_arithmetic(arithmetic, bytes),
        other => unreachable!("{other:?} is no meta command"),
    }
}

fn head(code: u8, key: &Key, has: &Has, bytes: &mut BytesMut) {
    bytes.put_u8(code);
    encode_key(key, bytes);
    bytes.put_u8(has.bits);
}

fn put_time(time: Option<Exptime>, bytes: &mut BytesMut) {
    if let Some(time) = time {
        bytes.put_i32_le(time.0);
    }
}

fn put_unique(unique: Option<u64>, bytes: &mut BytesMut) {
    if let Some(unique) = unique {
        bytes.put_u64_le(unique);
    }
}

fn encode_get(get: &MetaGet, bytes: &mut BytesMut) {
    let recache = get.recache.map(|recache| recache.below);
    let after_touch = get.recache.is_some_and(|recache| recache.after_touch);
    let has = Has::default()
        .push(get.touch.is_some())
        .push(get.vivify.is_some())
        .push(recache.is_some())
        .push(get.unique.is_some())
        .push(after_touch)
        .push(get.peeks);
    head(GET, &get.key, &has, bytes);
    put_time(get.touch, bytes);
    put_time(get.vivify, bytes);
    put_time(recache, bytes);
    put_unique(get.unique, bytes);
}

fn encode_set(set: &MetaSet, bytes: &mut BytesMut) {
    let store = &set.store;
    let has = Has::default()
        .push(set.compare.is_some())
        .push(set.vivify.is_some())
        .push(set.unique.is_some())
        .push(set.invalidate);
    head(SET, &store.key, &has, bytes);
    put_unique(set.compare, bytes);
    put_time(set.vivify, bytes);
    put_unique(set.unique, bytes);
    bytes.put_u8(mode_code(store.mode));
    bytes.put_u32_le(store.flags);
    bytes.put_i32_le(store.exptime.0);
    bytes.put_u32_le(u32::try_from(store.value.len()).expect("a value is shorter than 4 GiB"));
    bytes.put_slice(&store.value);
}

fn encode_delete(delete: &MetaDelete, bytes: &mut BytesMut) {
    let has = Has::default()
        .push(delete.compare.is_some())
        .push(delete.touch.is_some())
        .push(delete.unique.is_some())
        .push(delete.invalidate)
        .push(delete.clear);
    head(DELETE, &delete.key, &has, bytes);
    put_unique(delete.compare, bytes);
    put_time(delete.touch, bytes);
    put_unique(delete.unique, bytes);
}

fn encode_arithmetic(arithmetic: &MetaArithmetic, bytes: &mut BytesMut) {
    let has = Has::default()
        .push(arithmetic.compare.is_some())
        .push(arithmetic.vivify.is_some())
        .push(arithmetic.touch.is_some())
        .push(arithmetic.unique.is_some())
        .push(arithmetic.direction == Direction::Decrement);
    head(ARITHMETIC, &arithmetic.key, &has, bytes);
    put_unique(arithmetic.compare, bytes);
    put_time(arithmetic.vivify, bytes);
    put_time(arithmetic.touch, bytes);
    put_unique(arithmetic.unique, bytes);
    bytes.put_u64_le(arithmetic.delta);
    bytes.put_u64_le(arithmetic.initial);
}

const MODES: [StoreMode; 5] = [
    StoreMode::Set,
    StoreMode::Add,
    StoreMode::Replace,
    StoreMode::Append,
    StoreMode::Prepend,
];

fn mode_code(mode: StoreMode) -> u8 {
    let at = MODES.iter().position(|other| *other == mode);
    at.unwrap_or_else(|| panic!("{mode:?} is no mode of ms")) as u8 + 1
}

impl Reader<'_> {
    /// The meta command with this code; `None` if there is none.
    pub(crate) fn meta(&mut self, code: u8) -> Result<Option<Write>, CodecError> {
        Ok(Some(match code {
            GET => Write::MetaGet(self.meta_get()?),
            SET => Write::MetaSet(self.meta_set()?),
            DELETE => Write::MetaDelete(self.meta_delete()?),
            ARITHMETIC => Write::MetaArithmetic(self.meta_arithmetic()?),
            _ => return Ok(None),
        }))
    }

    fn head(&mut self) -> Result<(Key, Has), CodecError> {
        let key = self.key()?;
        let bits = self.u8()?;
        Ok((key, Has { bits, next: 0 }))
    }

    fn time_if(&mut self, is_there: bool) -> Result<Option<Exptime>, CodecError> {
        is_there.then(|| self.exptime()).transpose()
    }

    fn unique_if(&mut self, is_there: bool) -> Result<Option<u64>, CodecError> {
        is_there.then(|| self.u64()).transpose()
    }

    fn meta_get(&mut self) -> Result<MetaGet, CodecError> {
        let (key, mut has) = self.head()?;
        let touch = self.time_if(has.take())?;
        let vivify = self.time_if(has.take())?;
        let below = self.time_if(has.take())?;
        let unique = self.unique_if(has.take())?;
        let after_touch = has.take();
        Ok(MetaGet {
            key,
            peeks: has.take(),
            touch,
            vivify,
            recache: below.map(|below| Recache { below, after_touch }),
            unique,
        })
    }

    fn meta_set(&mut self) -> Result<MetaSet, CodecError> {
        let (key, mut has) = self.head()?;
        let compare = self.unique_if(has.take())?;
        let vivify = self.time_if(has.take())?;
        let unique = self.unique_if(has.take())?;
        let invalidate = has.take();
        let code = self.u8()?;
        let mode = MODES.get(usize::from(code).wrapping_sub(1));
        let mode = *mode.ok_or_else(|| self.unknown_code(code))?;
        let flags = self.u32()?;
        let exptime = self.exptime()?;
        let length = self.u32()?;
        let value = self.take(length as usize)?;
        Ok(MetaSet {
            store: Store {
                mode,
                key,
                flags,
                exptime,
                value,
            },
            compare,
            invalidate,
            vivify,
            unique,
        })
    }

    fn meta_delete(&mut self) -> Result<MetaDelete, CodecError> {
        let (key, mut has) = self.head()?;
        Ok(MetaDelete {
            key,
            compare: self.unique_if(has.take())?,
            touch: self.time_if(has.take())?,
            unique: self.unique_if(has.take())?,
            invalidate: has.take(),
            clear: has.take(),
        })
    }

    fn meta_arithmetic(&mut self) -> Result<MetaArithmetic, CodecError> {
        let (key, mut has) = self.head()?;
        Ok(MetaArithmetic {
            key,
            compare: self.unique_if(has.take())?,
            vivify: self.time_if(has.take())?,
            touch: self.time_if(has.take())?,
            unique: self.unique_if(has.take())?,
            direction: match has.take() {
                true => Direction::Decrement,
                false => Direction::Increment,
            },
            delta: self.u64()?,
            initial: self.u64()?,
        })
    }
}
