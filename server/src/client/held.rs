//! The replies that a server holds which it has got from another one: the values in them are not
//! shared with its own store, so that clients which read no replies would cost it memory without
//! end. What the leader itself answers shares its store's values, and is not bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::published::View;

/// All connections together hold no more than about this much of replies. Beyond it, a connection
/// that holds more than `EACH_BYTES_MIN` and would hold still more is closed.
const HELD_BYTES_MAX: usize = 256 << 20;
const EACH_BYTES_MIN: usize = 8 << 20;

/// What all connections hold, in bytes; nothing is counted by a server that does not forward.
#[derive(Debug, Default)]
pub(crate) struct Held {
    bytes: AtomicUsize,
    /// Of a server that forwards when it follows.
    view: Option<View>,
}

/// What one connection holds.
#[derive(Debug)]
pub(super) struct HeldHere {
    all: Arc<Held>,
    bytes: usize,
}

impl Held {
    pub(crate) fn new(view: Option<View>) -> Held {
        Held {
            bytes: AtomicUsize::new(0),
            view,
        }
    }

    /// Whether the values are this server's own: it leads.
    fn are_shared(&self) -> bool {
        self.view.as_ref().is_some_and(View::leads)
    }
}

impl HeldHere {
    pub(super) fn new(all: &Arc<Held>) -> HeldHere {
        HeldHere {
            all: Arc::clone(all),
            bytes: 0,
        }
    }

    /// The connection holds this much; false if it is to be closed.
    pub(super) fn set(&mut self, bytes: usize) -> bool {
        if self.all.view.is_none() || bytes == self.bytes {
            return true;
        }
        let grows = bytes > self.bytes;
        let all = match grows {
            true => {
                let more = bytes - self.bytes;
                self.all.bytes.fetch_add(more, Ordering::Relaxed) + more
            }
            false => {
                let less = self.bytes - bytes;
                self.all.bytes.fetch_sub(less, Ordering::Relaxed) - less
            }
        };
        self.bytes = bytes;
        !grows || all <= HELD_BYTES_MAX || bytes <= EACH_BYTES_MIN || self.all.are_shared()
    }
}

impl Drop for HeldHere {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use crate::clock::Clock;
    use crate::published;

    use super::*;

    /// Of a server that does not lead.
    fn view() -> View {
        let server = cluster::Server {
            id: 1,
            host: "127.0.0.1".into(),
            bind: None,
            client_port: 1,
            rpc_port: 2,
            http_port: 3,
        };
        published::channel(Clock::new(), server).1
    }

    #[test]
    fn a_connection_that_holds_much_is_closed_once_all_hold_too_much() {
        let all = Arc::new(Held::new(Some(view())));
        let (mut first, mut second) = (HeldHere::new(&all), HeldHere::new(&all));
        assert!(first.set(HELD_BYTES_MAX), "it is alone");
        assert!(second.set(EACH_BYTES_MIN), "it holds little");
        assert!(!second.set(EACH_BYTES_MIN + 1));
        assert!(second.set(EACH_BYTES_MIN), "it holds less than before");
        drop(first);
        assert!(second.set(HELD_BYTES_MAX), "the first one's room is free");
    }

    #[test]
    fn a_server_that_does_not_forward_bounds_nothing_here() {
        let all = Arc::new(Held::new(None));
        assert!(HeldHere::new(&all).set(usize::MAX));
    }
}
