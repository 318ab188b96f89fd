//! The configuration: who is a member, and which data directory has each member's seat (rule 41).
//! Its bytes are the payload of a configuration entry.
//!
//! ```text
//! version 1 (u8) | cluster id (u64) | members (u16)
//! each member, ids ascending:
//!     id (u64) | instance, 0 for an empty seat (u64) | address length (u16) | address
//! ```
//! All numbers are little-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::types::{ClusterId, Instance, ServerId};

const VERSION: u8 = 1;

/// The members of a cluster, with their seats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    pub cluster: ClusterId,
    /// Ids ascend.
    pub members: Vec<Member>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: ServerId,
    /// The data directory that has this member's seat; `None` until the leader first sees one.
    pub seat: Option<Instance>,
    /// Where it is reached; opaque here.
    pub address: Bytes,
}

impl Configuration {
    /// The seat of this member.
    #[must_use]
    pub fn seat(&self, id: ServerId) -> Option<Instance> {
        self.members
            .iter()
            .find(|member| member.id == id)
            .and_then(|member| member.seat)
    }

    /// The payload of a configuration entry.
    ///
    /// # Panics
    /// If there are more than 65,535 members, or an address is longer than that.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(11 + self.members.len() * 48);
        bytes.put_u8(VERSION);
        bytes.put_u64_le(self.cluster.0);
        bytes.put_u16_le(u16::try_from(self.members.len()).expect("a cluster of at most 65,535"));
        for member in &self.members {
            bytes.put_u64_le(member.id.0);
            bytes.put_u64_le(member.seat.map_or(0, |instance| instance.0));
            bytes.put_u16_le(u16::try_from(member.address.len()).expect("an address is short"));
            bytes.put_slice(&member.address);
        }
        bytes.freeze()
    }

    /// The configuration with this encoding; `None` if it is none, or of an unknown version.
    #[must_use]
    pub fn decode(mut bytes: Bytes) -> Option<Configuration> {
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        let cluster = ClusterId(bytes.try_get_u64_le().ok()?);
        let count = bytes.try_get_u16_le().ok()?;
        let mut members: Vec<Member> = Vec::new();
        for _ in 0..count {
            let id = ServerId(bytes.try_get_u64_le().ok()?);
            let seat = bytes.try_get_u64_le().ok()?;
            let length = usize::from(bytes.try_get_u16_le().ok()?);
            if bytes.len() < length || members.last().is_some_and(|last| last.id >= id) {
                return None;
            }
            let address = bytes.split_to(length);
            let seat = (seat != 0).then_some(Instance(seat));
            members.push(Member { id, seat, address });
        }
        bytes
            .is_empty()
            .then_some(Configuration { cluster, members })
    }
}
