//! The messages of the consensus core, there and back. AppendEntries is laid out by hand, since
//! nearly all bytes between servers are its entries:
//!
//! ```text
//! sender: id (u64) | cluster, 0 for none (u64) | instance (u64) | restart (u64) | recovering (u8)
//! term (u64) | prev: term, index (u64 each) | leader commit (u64) | entries (u32)
//! each entry: term (u64) | kind (u8) | payload length (u32)
//! the payloads, one behind the other
//! ```
//! InstallSnapshot as well, since a configuration has no fixed length:
//!
//! ```text
//! sender and term as above | position: term, index (u64 each)
//! configuration entry: term (u64) | index, 0 for none (u64) | payload length (u32) | payload
//! ```
//! All numbers are little-endian; the entries' indices follow from `prev`. All other messages are
//! bincode with fixed integers, limited, and without bytes behind them.

use bincode::Options;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::{
    AppendEntries, AppendEntriesReply, Body, ClusterId, Entry, EntryKind, Healed, Heartbeat,
    HeartbeatReply, Index, InstallSnapshot, Instance, Message, Position, RequestVote,
    RequestVoteReply, Restart, Sender, ServerId, Snapshot, Term,
};
use serde::{Deserialize, Serialize};

use crate::frame::Error;

/// AppendEntries up to its entries.
const HEAD_BYTES: usize = 1 + 8 * 8 + 4;

/// InstallSnapshot up to the configuration's payload.
const INSTALL_HEAD_BYTES: usize = 1 + 9 * 8 + 4;

/// An entry without its payload.
const ENTRY_BYTES: usize = 8 + 1 + 4;

/// The longest encoding of a message without entries.
const MESSAGE_BYTES_MAX: u64 = 256;

/// Terms and indices grow by one at a time, and never come near this. What claims to have is not
/// let near the core's arithmetic.
const NUMBER_MAX: u64 = 1 << 62;

/// A message without entries. The order of the variants is their code.
#[derive(Serialize, Deserialize)]
struct Plain {
    sender: Sender,
    term: Term,
    body: PlainBody,
}

#[derive(Serialize, Deserialize)]
enum PlainBody {
    RequestVote(RequestVote),
    RequestVoteReply(RequestVoteReply),
    AppendEntriesReply(AppendEntriesReply),
    Heartbeat(Heartbeat),
    HeartbeatReply(HeartbeatReply),
    TimeoutNow,
    Healed(Healed),
}

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_limit(MESSAGE_BYTES_MAX)
}

/// The message's entries, if it is one that carries some.
pub(crate) fn append_entries(message: &Message) -> Option<&AppendEntries> {
    match &message.body {
        Body::AppendEntries(append) => Some(append),
        _ => None,
    }
}

/// The snapshot, if the message is one that carries some.
pub(crate) fn install_snapshot(message: &Message) -> Option<&Snapshot> {
    match &message.body {
        Body::InstallSnapshot(install) => Some(&install.snapshot),
        _ => None,
    }
}

/// The encoding of any message but AppendEntries and InstallSnapshot.
pub(crate) fn encode_message(message: &Message) -> Vec<u8> {
    let body = match &message.body {
        Body::RequestVote(request) => PlainBody::RequestVote(*request),
        Body::RequestVoteReply(reply) => PlainBody::RequestVoteReply(*reply),
        Body::AppendEntriesReply(reply) => PlainBody::AppendEntriesReply(*reply),
        Body::Heartbeat(heartbeat) => PlainBody::Heartbeat(*heartbeat),
        Body::HeartbeatReply(reply) => PlainBody::HeartbeatReply(*reply),
        Body::TimeoutNow => PlainBody::TimeoutNow,
        Body::Healed(healed) => PlainBody::Healed(*healed),
        Body::AppendEntries(_) | Body::InstallSnapshot(_) => {
            unreachable!("it has an encoding of its own")
        }
    };
    let plain = Plain {
        sender: message.sender,
        term: message.term,
        body,
    };
    options()
        .serialize(&plain)
        .expect("a fixed number of integers is within the limit")
}

/// Any message but AppendEntries and InstallSnapshot.
pub(crate) fn decode_message(bytes: &[u8]) -> Result<Message, Error> {
    let plain: Plain = options().deserialize(bytes).map_err(|_| Error::Field)?;
    let body = match plain.body {
        PlainBody::RequestVote(request) => {
            check_position(request.last_log)?;
            Body::RequestVote(request)
        }
        PlainBody::RequestVoteReply(reply) => Body::RequestVoteReply(reply),
        PlainBody::AppendEntriesReply(reply) => {
            match reply {
                AppendEntriesReply::Matches { match_index } => check_number(match_index.0)?,
                AppendEntriesReply::Conflict { prev, hint } => {
                    check_position(prev)?;
                    check_position(hint)?;
                }
            }
            Body::AppendEntriesReply(reply)
        }
        PlainBody::Heartbeat(heartbeat) => {
            check_number(heartbeat.leader_commit.0)?;
            Body::Heartbeat(heartbeat)
        }
        PlainBody::HeartbeatReply(reply) => {
            check_number(reply.match_index.0)?;
            Body::HeartbeatReply(reply)
        }
        PlainBody::TimeoutNow => Body::TimeoutNow,
        PlainBody::Healed(healed) => {
            check_number(healed.index.0)?;
            Body::Healed(healed)
        }
    };
    check_number(plain.term.0)?;
    Ok(Message {
        sender: plain.sender,
        term: plain.term,
        body,
    })
}

/// The length of the whole encoding, payloads included.
pub(crate) fn append_entries_bytes(append: &AppendEntries) -> usize {
    let entry_bytes = |entry: &Entry| ENTRY_BYTES + entry.payload.len();
    HEAD_BYTES + append.entries.iter().map(entry_bytes).sum::<usize>()
}

/// Encodes all but the payloads, which follow in the order of the entries.
pub(crate) fn encode_append_entries(
    message: &Message,
    append: &AppendEntries,
    bytes: &mut BytesMut,
) {
    encode_head(message, bytes);
    bytes.put_u64_le(append.prev.term.0);
    bytes.put_u64_le(append.prev.index.0);
    bytes.put_u64_le(append.leader_commit.0);
    bytes.put_u32_le(length(append.entries.len()));
    let mut index = append.prev.index;
    for entry in &append.entries {
        index = index.next();
        assert_eq!(entry.index, index, "entries are consecutive from prev on");
        bytes.put_u64_le(entry.term.0);
        bytes.put_u8(entry.kind as u8);
        bytes.put_u32_le(length(entry.payload.len()));
    }
}

/// AppendEntries, with payloads that are slices of `bytes`.
pub(crate) fn decode_append_entries(mut bytes: Bytes) -> Result<Message, Error> {
    if bytes.len() < HEAD_BYTES {
        return Err(Error::Short);
    }
    let (sender, term) = decode_head(&mut bytes)?;
    let prev = decode_position(&mut bytes)?;
    let leader_commit = Index(bytes.get_u64_le());
    check_number(leader_commit.0)?;
    let entries = decode_entries(bytes, prev)?;
    Ok(Message {
        sender,
        term,
        body: Body::AppendEntries(AppendEntries {
            prev,
            entries,
            leader_commit,
        }),
    })
}

/// The length of the whole encoding.
pub(crate) fn install_snapshot_bytes(snapshot: &Snapshot) -> usize {
    let payload = snapshot.configuration.as_ref().map(|it| it.payload.len());
    INSTALL_HEAD_BYTES + payload.unwrap_or(0)
}

/// Encodes a message that carries this snapshot.
///
/// # Panics
/// If what stands for the configuration is another kind of entry.
pub(crate) fn encode_install_snapshot(
    message: &Message,
    snapshot: &Snapshot,
    bytes: &mut BytesMut,
) {
    encode_head(message, bytes);
    bytes.put_u64_le(snapshot.position.term.0);
    bytes.put_u64_le(snapshot.position.index.0);
    match &snapshot.configuration {
        Some(entry) => {
            assert!(
                entry.kind == EntryKind::Configuration && entry.index > Index(0),
                "entry {} is no configuration",
                entry.index,
            );
            bytes.put_u64_le(entry.term.0);
            bytes.put_u64_le(entry.index.0);
            bytes.put_u32_le(length(entry.payload.len()));
            bytes.put_slice(&entry.payload);
        }
        None => bytes.put_bytes(0, 8 + 8 + 4),
    }
}

/// InstallSnapshot, with a configuration that is a slice of `bytes`.
pub(crate) fn decode_install_snapshot(mut bytes: Bytes) -> Result<Message, Error> {
    if bytes.len() < INSTALL_HEAD_BYTES {
        return Err(Error::Short);
    }
    let (sender, term) = decode_head(&mut bytes)?;
    let position = decode_position(&mut bytes)?;
    let found = decode_position(&mut bytes)?;
    let length = usize::try_from(bytes.get_u32_le()).map_err(|_| Error::Field)?;
    if bytes.len() < length {
        return Err(Error::Short);
    }
    let payload = bytes.split_to(length);
    if bytes.has_remaining() {
        return Err(Error::Trailing { found: bytes.len() });
    }
    let configuration = match found.index {
        Index(0) if found.term > Term(0) || length > 0 => return Err(Error::Field),
        Index(0) => None,
        index => Some(Entry {
            term: found.term,
            index,
            kind: EntryKind::Configuration,
            payload,
        }),
    };
    let snapshot = Snapshot {
        position,
        configuration,
    };
    Ok(Message {
        sender,
        term,
        body: Body::InstallSnapshot(InstallSnapshot { snapshot }),
    })
}

/// What every message laid out by hand begins with.
fn encode_head(message: &Message, bytes: &mut BytesMut) {
    let sender = &message.sender;
    bytes.put_u64_le(sender.id.0);
    bytes.put_u64_le(sender.cluster.map_or(0, |cluster| cluster.0));
    bytes.put_u64_le(sender.instance.0);
    bytes.put_u64_le(sender.restart.0);
    bytes.put_u8(sender.recovering.into());
    bytes.put_u64_le(message.term.0);
}

/// The sender and the term, of which the caller knows that they are there.
fn decode_head(bytes: &mut Bytes) -> Result<(Sender, Term), Error> {
    let sender = Sender {
        id: ServerId(bytes.get_u64_le()),
        cluster: Some(bytes.get_u64_le())
            .filter(|id| *id != 0)
            .map(ClusterId),
        instance: Instance(bytes.get_u64_le()),
        restart: Restart(bytes.get_u64_le()),
        recovering: match bytes.get_u8() {
            0 => false,
            1 => true,
            _ => return Err(Error::Field),
        },
    };
    let term = Term(bytes.get_u64_le());
    check_number(term.0)?;
    Ok((sender, term))
}

fn decode_position(bytes: &mut Bytes) -> Result<Position, Error> {
    let position = Position {
        term: Term(bytes.get_u64_le()),
        index: Index(bytes.get_u64_le()),
    };
    check_position(position)?;
    Ok(position)
}

/// The entries behind `prev`, from their number on to the end of `bytes`.
fn decode_entries(mut bytes: Bytes, prev: Position) -> Result<Vec<Entry>, Error> {
    let count = usize::try_from(bytes.get_u32_le()).map_err(|_| Error::Field)?;
    let heads_bytes = count.checked_mul(ENTRY_BYTES).ok_or(Error::Field)?;
    if bytes.len() < heads_bytes {
        return Err(Error::Short);
    }
    let mut heads = bytes.split_to(heads_bytes);
    let mut entries = Vec::with_capacity(count);
    let mut index = prev.index;
    for _ in 0..count {
        index = index.next();
        let term = Term(heads.get_u64_le());
        check_number(term.0)?;
        let kind = EntryKind::from_code(heads.get_u8()).ok_or(Error::Field)?;
        let length = usize::try_from(heads.get_u32_le()).map_err(|_| Error::Field)?;
        if bytes.len() < length {
            return Err(Error::Short);
        }
        entries.push(Entry {
            term,
            index,
            kind,
            payload: bytes.split_to(length),
        });
    }
    match bytes.len() {
        0 => Ok(entries),
        found => Err(Error::Trailing { found }),
    }
}

pub(crate) fn check_position(position: Position) -> Result<(), Error> {
    check_number(position.term.0)?;
    check_number(position.index.0)
}

fn check_number(number: u64) -> Result<(), Error> {
    if number < NUMBER_MAX {
        Ok(())
    } else {
        Err(Error::Field)
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a frame is at most 4 MiB, and its parts are smaller")
}
