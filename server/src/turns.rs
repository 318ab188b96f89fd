//! Who takes an evaluator's turns: its thread, and while that is asleep whoever brings something.
//! To wake a thread takes longer than a turn, and for a single client's command that would be paid
//! at every server on its way.
//!
//! A client's thread takes any turn. Those of the peers and the log take light ones only: what
//! clients ask for in megabytes keeps no heartbeat and no sync waiting.

use std::sync::{Arc, Mutex, MutexGuard};

use raft::Timestamp;

use crate::bell::{self, Ring};
use crate::client;
use crate::evaluator_thread::EvaluatorThread;

/// An evaluator at work.
pub(crate) struct Turns {
    shared: Mutex<Shared>,
}

struct Shared {
    evaluator: EvaluatorThread,
    thread: Thread,
}

/// What the evaluator's thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thread {
    /// It will take a turn without being woken once more.
    Awake,
    /// It sleeps until then, or is about to.
    Asleep(Timestamp),
}

impl Turns {
    /// From now on whoever rings the evaluator's bell may find himself taking its turn.
    pub(crate) fn new(evaluator: EvaluatorThread) -> Arc<Turns> {
        let bell = evaluator.bell().clone();
        let turns = Arc::new(Turns {
            shared: Mutex::new(Shared {
                evaluator,
                thread: Thread::Awake,
            }),
        });
        // The thread alone keeps it alive: when that ends, the channels do.
        let weak = Arc::downgrade(&turns);
        bell.answered_by(move |ring| weak.upgrade().is_some_and(|turns| turns.visit(ring)));
        turns
    }

    /// Takes turns until told to stop.
    pub(crate) fn run(&self) {
        self.shared().evaluator.bell().attach();
        loop {
            let mut shared = self.shared();
            let due = shared.evaluator.turn();
            let deliveries = shared.evaluator.take_deliveries();
            let stops = shared.evaluator.stops();
            let clock = shared.evaluator.clock();
            if !stops {
                shared.thread = Thread::Asleep(due);
            }
            drop(shared);
            client::deliver(deliveries);
            if stops {
                return;
            }
            let now = clock.monotonic();
            if now < due {
                bell::wait_timeout(due.since(now));
            }
        }
    }

    /// Takes a turn, unless one is being taken. The thread is to be woken, in the first case by who
    /// rings, which is what false says:
    ///
    /// 1. Somebody takes a turn, and may have looked into the channel before the visitor sent. The
    ///    thread, once woken, waits for the end of that turn and takes another.
    /// 2. The turn is not light, and the visitor is no client's thread: only these ring softly.
    /// 3. After the visitor's turn there is more to do, or something is due before the thread
    ///    wakes up by itself.
    ///
    /// The last two are noted, so that others do not wake it as well.
    fn visit(&self, ring: Ring) -> bool {
        let Ok(mut shared) = self.shared.try_lock() else {
            return false;
        };
        let Thread::Asleep(until) = shared.thread else {
            return true;
        };
        let takes_turn = ring == Ring::Soft || shared.evaluator.is_light();
        let is_all = takes_turn && {
            let due = shared.evaluator.turn();
            until <= due && !shared.evaluator.stops()
        };
        if !is_all {
            shared.thread = Thread::Awake;
        }
        let bell = (!is_all).then(|| shared.evaluator.bell().clone());
        let deliveries = shared.evaluator.take_deliveries();
        drop(shared);
        // First, since from now on all others take it to be awake.
        if let Some(bell) = bell {
            bell.wake();
        }
        client::deliver(deliveries);
        true
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("nothing panics while it is held")
    }
}
