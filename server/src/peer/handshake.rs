//! Who is there, before any message: both sides' part of `wire::Hello` and `wire::Answer`, and
//! what becomes of refusals (rule 41).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use raft::ServerId;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tracing::warn;
use wal::BackupId;
use wire::{Answer, Frame, Hello, Identity, Outgoing, Refusal};

use super::frames::FrameReader;
use crate::error::Error;

/// A refusal that goes on is told again after this time.
const TOLD_AGAIN: Duration = Duration::from_secs(30);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] wire::Error),
    #[error("the handshake is out of order")]
    Order,
    /// The other one does not talk to this server.
    #[error("{refusal}")]
    Refused { refusal: Refusal, by: Hello },
    /// This server does not talk to the other one.
    #[error("{refusal}")]
    Refuses { from: ServerId, refusal: Refusal },
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Messages,
    /// The transfer of a snapshot.
    Snapshot,
    /// What clients of the caller ask for.
    Forward,
}

/// Somebody who called and is talked to.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) hello: Hello,
    /// The version to speak.
    pub(super) version: u8,
    pub(super) purpose: Purpose,
}

/// The part of the server that calls: gives the version to speak.
pub(super) async fn call(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    identity: &Identity,
    to: ServerId,
    purpose: Purpose,
) -> Result<u8, HandshakeError> {
    let mut outgoing = Outgoing::new();
    let hello = identity.hello(to);
    match purpose {
        Purpose::Messages => outgoing.push_hello(&hello),
        Purpose::Snapshot => outgoing.push_transfer_hello(&hello),
        Purpose::Forward => outgoing.push_forward_hello(&hello),
    }
    stream.write_all_buf(&mut outgoing).await?;
    let frame = FrameReader::new(stream).next().await?;
    let Frame::Answer(answer) = wire::decode(frame.freeze())? else {
        return Err(HandshakeError::Order);
    };
    let version = answer.verdict.map_err(|refusal| HandshakeError::Refused {
        refusal,
        by: answer.hello,
    })?;
    let refuses = |refusal| HandshakeError::Refuses { from: to, refusal };
    if answer.hello.from != to {
        return Err(refuses(Refusal::WrongServer));
    }
    identity.check(&answer.hello).map_err(refuses)?;
    Ok(version)
}

/// The part of the server that is called.
pub(super) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    identity: impl FnOnce() -> Option<std::sync::Arc<Identity>>,
) -> Result<Caller, HandshakeError> {
    let frame = FrameReader::new(&mut *stream).next().await?;
    let (hello, purpose) = match wire::decode(frame.freeze())? {
        Frame::Hello(hello) => (hello, Purpose::Messages),
        Frame::TransferHello(hello) => (hello, Purpose::Snapshot),
        Frame::ForwardHello(hello) => (hello, Purpose::Forward),
        _ => return Err(HandshakeError::Order),
    };
    let identity = identity().ok_or(HandshakeError::Order)?;
    let verdict = identity.check(&hello);
    let mut outgoing = Outgoing::new();
    outgoing.push_answer(&Answer {
        verdict,
        hello: identity.hello(hello.from),
    });
    stream.write_all_buf(&mut outgoing).await?;
    let version = verdict.map_err(|refusal| HandshakeError::Refuses {
        from: hello.from,
        refusal,
    })?;
    Ok(Caller {
        hello,
        version,
        purpose,
    })
}

/// What peers and this server have against each other, told once in a while.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    told: Mutex<BTreeMap<(ServerId, bool), (Refusal, Instant)>>,
    /// The peers that say that this server belongs to another cluster.
    other_cluster: Mutex<BTreeSet<ServerId>>,
}

impl Refusals {
    /// Notes that `peer` and this server talk.
    pub(super) fn settled(&self, peer: ServerId) {
        let mut told = self.told.lock().expect("nothing panics while it is held");
        told.retain(|(other, _), _| *other != peer);
        self.other_cluster().remove(&peer);
    }

    /// Notes that this server does not talk to `peer`.
    pub(super) fn refuses(&self, peer: ServerId, refusal: Refusal) {
        if self.is_news(peer, false, refusal) {
            warn!("refuses server {peer}: {refusal}");
        }
    }

    /// Notes that `peer`, which presents itself so, does not talk to this server.
    ///
    /// # Errors
    /// Why this server can't go on: a seated peer knows another data directory in its seat, or has
    /// another past than this one, or `others`, which is how many peers there are, or a majority of
    /// the members say that it belongs to another cluster.
    pub(super) fn refused(
        &self,
        peer: ServerId,
        refusal: Refusal,
        by: &Hello,
        others: usize,
    ) -> Result<(), Error> {
        // Who has a seat in a cluster knows who belongs there.
        let by_seated = by.cluster.is_some();
        if self.is_news(peer, true, refusal) {
            warn!("refused by server {peer}: {refusal}");
        }
        match refusal {
            Refusal::SeatTaken { .. } if by_seated => return Err(Error::SeatTaken { peer }),
            Refusal::OtherBackup if by_seated => {
                return Err(match by.backup {
                    0 => Error::NoBackup { peer },
                    backup => Error::OtherBackup {
                        peer,
                        backup: BackupId(backup),
                    },
                });
            }
            Refusal::OtherCluster { .. } => {
                let mut other_cluster = self.other_cluster();
                other_cluster.insert(peer);
                let members = others + 1;
                let majority = members / 2 + 1;
                if other_cluster.len() >= majority.min(others) {
                    return Err(Error::OtherCluster);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn is_news(&self, peer: ServerId, by_peer: bool, refusal: Refusal) -> bool {
        let mut told = self.told.lock().expect("nothing panics while it is held");
        let now = Instant::now();
        let last = told.get(&(peer, by_peer));
        let known = last.is_some_and(|(last, at)| *last == refusal && now - *at < TOLD_AGAIN);
        // A stranger may present itself with any id: only so many are remembered.
        if !known && (told.len() < 64 || last.is_some()) {
            told.insert((peer, by_peer), (refusal, now));
            return true;
        }
        false
    }

    fn other_cluster(&self) -> std::sync::MutexGuard<'_, BTreeSet<ServerId>> {
        self.other_cluster
            .lock()
            .expect("nothing panics while it is held")
    }
}

#[cfg(test)]
mod tests {
    use raft::{ClusterId, Instance, Restart};
    use wire::VERSIONS;

    use super::*;

    const OTHER: Refusal = Refusal::OtherCluster {
        cluster: ClusterId(7),
    };
    const TAKEN: Refusal = Refusal::SeatTaken {
        seated: Instance(7),
    };

    /// How a peer presents itself that began with this backup.
    fn by(is_seated: bool, backup: u64) -> Hello {
        Hello {
            versions: (*VERSIONS.start(), *VERSIONS.end()),
            from: ServerId(2),
            to: ServerId(1),
            cluster: is_seated.then_some(ClusterId(7)),
            instance: Instance(2),
            restart: Restart(1),
            members_hash: 0,
            backup,
        }
    }

    fn refused(refusals: &Refusals, peer: u64, others: usize) -> bool {
        refusals
            .refused(ServerId(peer), OTHER, &by(true, 0), others)
            .is_err()
    }

    #[test]
    fn only_a_majority_can_say_that_a_server_belongs_to_another_cluster() {
        let refusals = Refusals::default();
        assert!(!refused(&refusals, 2, 4));
        assert!(!refused(&refusals, 2, 4), "the same one again");
        assert!(!refused(&refusals, 3, 4));
        refusals.settled(ServerId(2));
        assert!(!refused(&refusals, 4, 4));
        assert!(refused(&refusals, 5, 4));
        assert!(
            refused(&Refusals::default(), 2, 1),
            "there is only one to say so"
        );
    }

    #[test]
    fn a_seated_peer_ends_a_server_with_a_wiped_disk() {
        let refusals = Refusals::default();
        let refused = |by_seated| refusals.refused(ServerId(2), TAKEN, &by(by_seated, 0), 4);
        assert!(refused(false).is_ok());
        assert!(matches!(
            refused(true),
            Err(Error::SeatTaken { peer: ServerId(2) })
        ));
    }

    #[test]
    fn a_restored_server_is_told_whether_the_others_have_another_backup_or_none() {
        let refusals = Refusals::default();
        let refused = |is_seated, backup| {
            let by = by(is_seated, backup);
            refusals.refused(ServerId(2), Refusal::OtherBackup, &by, 4)
        };
        assert!(refused(false, 0).is_ok() && refused(false, 9).is_ok());
        let other = refused(true, 9)
            .expect_err("a seated one knows")
            .to_string();
        assert!(
            other.contains("another backup, 0000000000000009"),
            "{other}"
        );
        assert!(other.contains("empty its data directory"), "{other}");
        let none = refused(true, 0)
            .expect_err("a seated one knows")
            .to_string();
        assert!(none.contains("server 2 was not"), "{none}");
        assert!(none.contains("restore each from the same backup"), "{none}");
    }
}
