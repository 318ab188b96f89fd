//! `GET /snapshot`: the whole state as a snapshot file, for a backup.
//!
//! It is the state of a moment behind the beginning of the request: the leader first answers a read
//! as it would a client's, which proves that it leads and has applied what was answered before, and
//! then freezes what it has. A thread of its own writes that out, as fast as it is taken; commands
//! go on meanwhile, and the store copies what they change. That memory is why there is one at a
//! time, and why whoever takes it too slowly is cut off. The file's own footer tells the other end
//! whether it has got all of it.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use cluster::Server;
use command::{Command, Outcome, Read, Reply};
use evaluator::FrozenState;
use raft::Index;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::io::{ReaderStream, SyncIoBridge};
use tracing::{info, warn};
use wal::{SNAPSHOT_PIECE_BYTES_MAX, SnapshotEncoder};

use super::asker::Asker;
use super::router::Site;
use crate::evaluator_thread::Control;
use crate::snapshot_thread::{discard, step_back};
use crate::start::spawn;

/// How long the evaluator may take to answer the read, and then to freeze the state.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What is on its way to the socket.
const WAITING_BYTES_MAX: usize = 512 << 10;

/// Whoever takes less than this, on an average and after a while, is cut off.
const RATE_MIN: u64 = 128 << 10;
const RATE_JUDGED_AFTER: Duration = Duration::from_secs(30);

/// Where states are had from.
#[derive(Debug)]
pub(crate) struct Backups {
    /// All servers, for who asks the wrong one.
    servers: Vec<Server>,
    asker: Arc<Asker>,
    one: Arc<Semaphore>,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// Another one is being given out.
    Busy,
    /// This server does not lead.
    NotLeader,
    /// It can't be told in time whether it does.
    NoLeader,
}

/// The body of a refusal.
#[derive(Debug, Serialize)]
struct Refused<'a> {
    success: bool,
    reason: &'static str,
    /// Where to ask instead.
    leader: Option<Leader<'a>>,
}

#[derive(Debug, Serialize)]
struct Leader<'a> {
    id: u64,
    host: &'a str,
    http_port: u16,
}

/// Answers the request.
pub(super) async fn answer(site: &Site) -> Response {
    match site.backups.state().await {
        Ok((frozen, permit)) => stream(frozen, permit),
        Err(refusal) => refused(site, refusal),
    }
}

fn refused(site: &Site, refusal: Refusal) -> Response {
    let newest = site.view.now();
    let status = newest.as_ref().map(|newest| &newest.status);
    let leader = status.and_then(|status| status.leader);
    let refusal = match refusal {
        Refusal::NoLeader if leader != status.map(|status| status.id) && leader.is_some() => {
            Refusal::NotLeader
        }
        refusal => refusal,
    };
    let (code, reason) = match refusal {
        Refusal::Busy => (
            StatusCode::SERVICE_UNAVAILABLE,
            "another snapshot is being saved",
        ),
        Refusal::NotLeader => (StatusCode::BAD_REQUEST, "not the leader"),
        Refusal::NoLeader => (StatusCode::SERVICE_UNAVAILABLE, "no leader"),
    };
    let leader = leader.and_then(|leader| {
        let mut servers = site.backups.servers.iter();
        servers.find(|server| server.id == leader.0)
    });
    let body = Refused {
        success: false,
        reason,
        leader: leader.map(|server| Leader {
            id: server.id,
            host: &server.host,
            http_port: server.http_port,
        }),
    };
    (code, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

impl Backups {
    pub(crate) fn new(servers: Vec<Server>, asker: Arc<Asker>) -> Backups {
        Backups {
            servers,
            asker,
            one: Arc::new(Semaphore::new(1)),
        }
    }

    /// The state, and the place of the one that it is given out to.
    async fn state(&self) -> Result<(FrozenState, OwnedSemaphorePermit), Refusal> {
        let source = self.asker.source().ok_or(Refusal::NoLeader)?;
        let permit = Arc::clone(&self.one).try_acquire_owned();
        let permit = permit.map_err(|_| Refusal::Busy)?;
        let confirm = Command::Read(Read::Confirm);
        let read = self.asker.ask(confirm, 0, true, ANSWER_MAX).await;
        let Some(Outcome::Done(Reply::Confirmed { last_applied })) = read else {
            return Err(Refusal::NoLeader);
        };
        let (asker, frozen) = oneshot::channel();
        let last_applied = Index(last_applied);
        let _ = source.control.send(Control::Freeze(last_applied, asker));
        let frozen = timeout(ANSWER_MAX, frozen).await;
        let frozen = frozen.ok().and_then(Result::ok).flatten();
        Ok((frozen.ok_or(Refusal::NoLeader)?, permit))
    }
}

/// Gives the state out, from a thread of its own.
fn stream(frozen: FrozenState, permit: OwnedSemaphorePermit) -> Response {
    let (reader, writer) = tokio::io::duplex(WAITING_BYTES_MAX);
    let writer = SyncIoBridge::new_with_handle(writer, Handle::current());
    let begun = spawn("quorate-backup", move || {
        step_back("a backup is written");
        let index = frozen.snapshot.position.index;
        let started = Instant::now();
        match write(frozen, writer) {
            Ok(bytes) => {
                let took = started.elapsed().as_secs_f64();
                info!("gave out a snapshot up to index {index}: {bytes} bytes in {took:.2} s");
            }
            Err(error) => warn!("a snapshot was not given out whole: {error}"),
        }
        drop(permit);
    });
    if let Err(error) = begun {
        warn!("{error}");
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Body::from_stream(ReaderStream::new(reader))).into_response()
}

/// Writes the state out as a snapshot file. Gives its length.
fn write(frozen: FrozenState, mut to: impl Write) -> io::Result<u64> {
    let started = Instant::now();
    let mut bytes = 0;
    let mut sink = |part: &[u8]| {
        to.write_all(part)?;
        bytes += part.len() as u64;
        match is_too_slow(bytes, started.elapsed()) {
            true => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "it was taken too slowly",
            )),
            false => Ok(()),
        }
    };
    let FrozenState {
        cluster,
        snapshot,
        store,
    } = frozen;
    let mut encoder = SnapshotEncoder::begin(cluster, snapshot, &mut sink)?;
    store.write_out(SNAPSHOT_PIECE_BYTES_MAX, &mut |piece: &[u8]| {
        encoder.write(piece, &mut sink)
    })?;
    // The evaluator copies what it changes as long as this is there.
    discard(store.into_garbage());
    encoder.finish(&mut sink)?;
    Ok(bytes)
}

fn is_too_slow(bytes: u64, took: Duration) -> bool {
    took > RATE_JUDGED_AFTER && bytes / took.as_secs().max(1) < RATE_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_takes_it_slowly_has_half_a_minute() {
        assert!(!is_too_slow(0, Duration::from_secs(30)));
        assert!(is_too_slow(RATE_MIN * 31 - 1, Duration::from_secs(31)));
        assert!(!is_too_slow(RATE_MIN * 31, Duration::from_secs(31)));
        assert!(is_too_slow(RATE_MIN * 599, Duration::from_secs(600)));
    }
}
