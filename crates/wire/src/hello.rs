//! The handshake: who is there, which versions both speak, and who is refused (rule 41).
//!
//! ```text
//! Hello:  magic "QRTE" | lowest, highest version (u8 each) | from, to (u64 each)
//!         | cluster, 0 for none (u64) | instance (u64) | restart (u64) | members hash (u64)
//!         | backup (u64), which is there only if there is one
//! Answer: code (u8) | detail (u64) | the Hello of the server that answers
//! ```
//! All numbers are little-endian. A later release may append fields, which an older one skips.

use std::ops::RangeInclusive;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::{ClusterId, Instance, Restart, Seating, ServerId};

use crate::frame::Error;

/// The versions of the frames that this release speaks.
pub const VERSIONS: RangeInclusive<u8> = 1..=1;

const MAGIC: [u8; 4] = *b"QRTE";

/// How a server presents itself to one other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The lowest and the highest version of frames that it speaks.
    pub versions: (u8, u8),
    pub from: ServerId,
    /// Whom it believes to speak to.
    pub to: ServerId,
    /// Its cluster, once it is seated there.
    pub cluster: Option<ClusterId>,
    pub instance: Instance,
    pub restart: Restart,
    /// A hash of the members that it was configured with.
    pub members_hash: u64,
    /// The checksum of the backup that its data directory began with; 0 if it began empty.
    pub backup: u64,
}

/// What the server that was called answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The version of all later frames, or why there will be none.
    pub verdict: Result<u8, Refusal>,
    pub hello: Hello,
}

/// Why a server does not talk to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the two have no version of the frames in common")]
    Version,
    #[error("the call was meant for another server")]
    WrongServer,
    #[error("it is not among the members")]
    UnknownServer,
    #[error("it belongs to another cluster, not to {cluster}")]
    OtherCluster {
        /// The cluster of the server that refuses.
        cluster: ClusterId,
    },
    #[error("its seat is taken by another data directory, instance {seated}: was its disk wiped?")]
    SeatTaken { seated: Instance },
    #[error("it was configured with other members")]
    OtherMembers,
    #[error("one of the two was restored from a backup that the other was not restored from")]
    OtherBackup,
    #[error("reason {code}, which this release does not know")]
    Unnamed { code: u8 },
}

/// What a server knows about itself and its cluster when it meets another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub id: ServerId,
    pub instance: Instance,
    pub restart: Restart,
    pub seating: Seating,
    /// All members, each with its seat as far as that is known to be committed.
    pub members: Vec<(ServerId, Option<Instance>)>,
    /// A hash of the members that this server was configured with.
    pub members_hash: u64,
    /// The checksum of the backup that its data directory began with; 0 if it began empty.
    pub backup: u64,
}

impl Identity {
    /// How this server presents itself to `to`.
    #[must_use]
    pub fn hello(&self, to: ServerId) -> Hello {
        Hello {
            versions: (*VERSIONS.start(), *VERSIONS.end()),
            from: self.id,
            to,
            cluster: match self.seating {
                Seating::Seated { cluster, .. } => Some(cluster),
                Seating::Unseated | Seating::Met(_) => None,
            },
            instance: self.instance,
            restart: self.restart,
            members_hash: self.members_hash,
            backup: self.backup,
        }
    }

    /// The highest version of frames that both speak, if this server talks to the other at all.
    ///
    /// # Errors
    /// Why it does not (rule 41).
    pub fn check(&self, other: &Hello) -> Result<u8, Refusal> {
        let version = other.versions.1.min(*VERSIONS.end());
        if version < other.versions.0.max(*VERSIONS.start()) {
            return Err(Refusal::Version);
        }
        if other.to != self.id {
            return Err(Refusal::WrongServer);
        }
        let known = self.members.iter().find(|(id, _)| *id == other.from);
        let Some((_, seat)) = known.filter(|_| other.from != self.id) else {
            return Err(Refusal::UnknownServer);
        };
        if let (Some(ours), Some(theirs)) = (self.seating.cluster(), other.cluster)
            && ours != theirs
        {
            return Err(Refusal::OtherCluster { cluster: ours });
        }
        if let Some(seated) = seat.filter(|seat| *seat != other.instance) {
            return Err(Refusal::SeatTaken { seated });
        }
        let both_unseated = !self.seating.is_seated() && other.cluster.is_none();
        if both_unseated && self.members_hash != other.members_hash {
            return Err(Refusal::OtherMembers);
        }
        // Until it has its seat, a restored server has a state that no leader gave it.
        let ours_counts = !self.seating.is_seated() && self.backup != 0;
        let theirs_counts = other.cluster.is_none() && other.backup != 0;
        if (ours_counts || theirs_counts) && self.backup != other.backup {
            return Err(Refusal::OtherBackup);
        }
        Ok(version)
    }
}

impl Hello {
    /// The least length of its encoding.
    const BYTES_MIN: usize = 4 + 2 + 6 * 8;

    /// The length of its encoding.
    pub(crate) fn bytes(&self) -> usize {
        Hello::BYTES_MIN + if self.backup == 0 { 0 } else { 8 }
    }

    pub(crate) fn encode(&self, bytes: &mut BytesMut) {
        bytes.put_slice(&MAGIC);
        bytes.put_u8(self.versions.0);
        bytes.put_u8(self.versions.1);
        bytes.put_u64_le(self.from.0);
        bytes.put_u64_le(self.to.0);
        bytes.put_u64_le(self.cluster.map_or(0, |cluster| cluster.0));
        bytes.put_u64_le(self.instance.0);
        bytes.put_u64_le(self.restart.0);
        bytes.put_u64_le(self.members_hash);
        if self.backup != 0 {
            bytes.put_u64_le(self.backup);
        }
    }

    pub(crate) fn decode(bytes: &mut Bytes) -> Result<Hello, Error> {
        let mut magic = [0; 4];
        bytes
            .try_copy_to_slice(&mut magic)
            .map_err(|_| Error::Short)?;
        if magic != MAGIC {
            return Err(Error::Magic);
        }
        if bytes.len() < Hello::BYTES_MIN - MAGIC.len() {
            return Err(Error::Short);
        }
        let hello = Hello {
            versions: (bytes.get_u8(), bytes.get_u8()),
            from: ServerId(bytes.get_u64_le()),
            to: ServerId(bytes.get_u64_le()),
            cluster: Some(bytes.get_u64_le())
                .filter(|id| *id != 0)
                .map(ClusterId),
            instance: Instance(bytes.get_u64_le()),
            restart: Restart(bytes.get_u64_le()),
            members_hash: bytes.get_u64_le(),
            backup: bytes.try_get_u64_le().unwrap_or(0),
        };
        let possible = hello.from.0 != 0 && hello.to.0 != 0 && hello.instance.0 != 0;
        possible.then_some(hello).ok_or(Error::Field)
    }
}

impl Answer {
    /// The length of its encoding.
    pub(crate) fn bytes(&self) -> usize {
        1 + 8 + self.hello.bytes()
    }

    pub(crate) fn encode(&self, bytes: &mut BytesMut) {
        let (code, detail) = match self.verdict {
            Ok(version) => (0, u64::from(version)),
            Err(Refusal::Version) => (1, 0),
            Err(Refusal::WrongServer) => (2, 0),
            Err(Refusal::UnknownServer) => (3, 0),
            Err(Refusal::OtherCluster { cluster }) => (4, cluster.0),
            Err(Refusal::SeatTaken { seated }) => (5, seated.0),
            Err(Refusal::OtherMembers) => (6, 0),
            Err(Refusal::OtherBackup) => (7, 0),
            Err(Refusal::Unnamed { code }) => (code, 0),
        };
        bytes.put_u8(code);
        bytes.put_u64_le(detail);
        self.hello.encode(bytes);
    }

    pub(crate) fn decode(bytes: &mut Bytes) -> Result<Answer, Error> {
        let code = bytes.try_get_u8().map_err(|_| Error::Short)?;
        let detail = bytes.try_get_u64_le().map_err(|_| Error::Short)?;
        let verdict = match code {
            0 => {
                let version = u8::try_from(detail).map_err(|_| Error::Field)?;
                let spoken = VERSIONS.contains(&version);
                Ok(spoken
                    .then_some(version)
                    .ok_or(Error::Version { found: version })?)
            }
            1 => Err(Refusal::Version),
            2 => Err(Refusal::WrongServer),
            3 => Err(Refusal::UnknownServer),
            4 => Err(Refusal::OtherCluster {
                cluster: ClusterId(detail),
            }),
            5 => Err(Refusal::SeatTaken {
                seated: Instance(detail),
            }),
            6 => Err(Refusal::OtherMembers),
            7 => Err(Refusal::OtherBackup),
            code => Err(Refusal::Unnamed { code }),
        };
        let hello = Hello::decode(bytes)?;
        Ok(Answer { verdict, hello })
    }
}
