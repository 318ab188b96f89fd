//! Lists of all keys (`lru_crawler metadump` and the like). The evaluator gives its state as it is,
//! frozen, when that has come as far as the leader's had when it confirmed that it leads; the
//! connection's own task walks over it, a few items at a time, as its client takes the lines.
//! Commands go on meanwhile, and the store copies what they change. That memory is why there is one
//! such list at a time, and why whoever takes it too slowly is cut off.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use evaluator::FrozenState;
use protocol::{DumpItem, Session};
use raft::Index;
use store::{Dump, Listed};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, Sleep, sleep};
use tracing::warn;

use crate::bell::Sender;
use crate::evaluator_thread::Control;
use crate::snapshot_thread::discard;

/// So many items are looked at before the socket is.
const PIECE_ITEMS_MAX: usize = 256;

/// Whoever takes less than this, on an average and after a while, is cut off. Looked at this often.
const RATE_MIN: u64 = 128 << 10;
const RATE_JUDGED_AFTER: Duration = Duration::from_secs(30);

/// Where the keys are had from.
#[derive(Debug)]
pub(crate) struct Dumps {
    control: Sender<Control>,
    one: Arc<Semaphore>,
}

/// A list that a client is being given.
#[derive(Debug)]
pub(super) struct Dumping {
    keys: Keys,
    pace: Pace,
    /// Of the one list of its kind that there may be.
    _permit: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Keys {
    Awaited(oneshot::Receiver<Option<FrozenState>>),
    Walked(Walk),
}

/// A state that is walked over, and let go of little by little.
#[derive(Debug)]
struct Walk(Option<Dump>);

/// How fast a client takes what it has asked for.
#[derive(Debug)]
struct Pace {
    begun: Instant,
    /// The bytes that had been written then.
    written: u64,
    next_look: Pin<Box<Sleep>>,
}

/// Why a client is not given its list.
#[derive(Debug)]
pub(super) enum DumpError {
    /// There is no state to be had: the server is about to end, or its state is wrong.
    NoState,
    TooSlow,
}

impl Dumps {
    pub(crate) fn new(control: Sender<Control>) -> Dumps {
        Dumps {
            control,
            one: Arc::new(Semaphore::new(1)),
        }
    }

    /// Begins the list that the session owes, of a state that has come to this index or further.
    /// `None` if another is being made, and this one has to be the only one.
    pub(super) fn begin(
        &self,
        dump: protocol::Dump,
        last_applied: Index,
        session: &Session,
    ) -> Option<Dumping> {
        let permit = match dump.is_exclusive() {
            true => Some(Arc::clone(&self.one).try_acquire_owned().ok()?),
            false => None,
        };
        let (asker, state) = oneshot::channel();
        // The evaluator ends only with the process.
        let _ = self.control.send(Control::Freeze(last_applied, asker));
        Some(Dumping {
            keys: Keys::Awaited(state),
            pace: Pace {
                begun: Instant::now(),
                written: session.output().written_bytes(),
                next_look: Box::pin(sleep(RATE_JUDGED_AFTER)),
            },
            _permit: permit,
        })
    }
}

impl Dumping {
    /// Appends what there is room for. Ready with whether something was, and pending if the state is
    /// not there yet or the client has to read first.
    pub(super) fn poll(
        &mut self,
        session: &mut Session,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), DumpError>> {
        let written = session.output().written_bytes();
        if self.pace.is_too_slow(written, context) {
            warn!("a list of keys was taken too slowly");
            return Poll::Ready(Err(DumpError::TooSlow));
        }
        if let Keys::Awaited(state) = &mut self.keys {
            let state = match Pin::new(state).poll(context) {
                Poll::Ready(Ok(Some(state))) => state,
                Poll::Ready(_) => return Poll::Ready(Err(DumpError::NoState)),
                Poll::Pending => return Poll::Pending,
            };
            session.begin_dump();
            self.keys = Keys::Walked(Walk(Some(state.store.into_dump())));
        }
        let Keys::Walked(Walk(Some(keys))) = &mut self.keys else {
            return Poll::Pending;
        };
        let mut moved = false;
        while session.dump().is_some() {
            moved = true;
            let mut takes_more = true;
            let has_more = keys.list(PIECE_ITEMS_MAX, &mut |item| {
                takes_more = takes_more && session.dump_item(&dump_item(item));
            });
            if !has_more || !takes_more {
                session.end_dump();
            }
        }
        match moved {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }
}

fn dump_item(item: Listed<'_>) -> DumpItem<'_> {
    DumpItem {
        key: item.key,
        value_bytes: item.value_bytes,
        flags: item.flags,
        unique: item.unique,
        over_at: item.over_at,
        last_access: item.last_access,
        fetched: item.fetched,
        bytes: item.bytes,
    }
}

impl Drop for Walk {
    /// What the store has changed meanwhile is freed with this, unless the process is ending.
    fn drop(&mut self) {
        let garbage = self.0.take().map(Dump::into_garbage);
        if let (Some(garbage), Ok(runtime)) = (garbage, Handle::try_current())
            && !garbage.is_empty()
        {
            runtime.spawn_blocking(|| discard(garbage));
        }
    }
}

impl Pace {
    fn is_too_slow(&mut self, written: u64, context: &mut Context<'_>) -> bool {
        while self.next_look.as_mut().poll(context).is_ready() {
            if is_too_slow(written - self.written, self.begun.elapsed()) {
                return true;
            }
            let next = Instant::now() + RATE_JUDGED_AFTER / 10;
            self.next_look.as_mut().reset(next);
        }
        false
    }
}

fn is_too_slow(bytes: u64, took: Duration) -> bool {
    bytes / took.as_secs().max(1) < RATE_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_takes_less_than_128_kib_a_second_is_too_slow() {
        assert!(is_too_slow(RATE_MIN * 30 - 1, Duration::from_secs(30)));
        assert!(!is_too_slow(RATE_MIN * 30, Duration::from_secs(30)));
    }
}
