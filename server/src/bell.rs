//! Channels to a thread that waits for several of them at once.
//!
//! What crossbeam does while nothing comes, in `recv` and in `Select` alike, is to spin and then to
//! give up its time slice over and over before it sleeps. With more threads at work than there are
//! cores each of these is a switch to another thread and back, and all wait longer for their turn.
//! So a thread that has found its channels empty sleeps at once, and whoever sends wakes it.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendError, TrySendError};

/// What has waited to be rung for so long is rung though the thread has more to do, once it has done
/// with the system call or the commands that it is at.
const OVERDUE: Duration = Duration::from_micros(200);

thread_local! {
    /// Somebody calls `ring_gathered` before this thread sleeps.
    static GATHERS: Cell<bool> = const { Cell::new(false) };
    static GATHERED: RefCell<Gathered> = const { RefCell::new(Gathered { waiting: None }) };
}

/// What a thread is to ring when it has done all that it has to do just now.
struct Gathered {
    /// A bell, and since when it waits.
    waiting: Option<(Bell, Instant)>,
}

/// Wakes one thread. A ring while the thread is awake makes its next wait end at once, so that
/// nothing is missed between a look at the channels and the wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bell {
    shared: Arc<Shared>,
    ring: Ring,
    is_gathered: bool,
}

/// How a bell rings, which also tells who does: softly what can wait for the thread if need be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ring {
    #[default]
    Hard,
    /// Only when soft rings are heeded.
    Soft,
    /// The thread is woken, and who rings goes on with what he has to do.
    Waking,
}

#[derive(Default)]
struct Shared {
    thread: OnceLock<Thread>,
    heeds_soft: AtomicBool,
    answer: OnceLock<Answer>,
}

type Answer = Box<dyn Fn(Ring) -> bool + Send + Sync>;

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Bell {
    /// The same thread's bell, for what the thread does not always want to be woken by.
    pub(crate) fn soft(&self) -> Bell {
        Bell {
            shared: Arc::clone(&self.shared),
            ring: Ring::Soft,
            is_gathered: false,
        }
    }

    /// The same bell, for threads that have more to do: where `ring_gathered` is called before the
    /// thread sleeps, it rings once for all that was sent until then.
    pub(crate) fn gathered(&self) -> Bell {
        Bell {
            shared: Arc::clone(&self.shared),
            ring: self.ring,
            is_gathered: true,
        }
    }

    /// The same thread's bell, for those who have better to do than what the thread does.
    pub(crate) fn waking(&self) -> Bell {
        Bell {
            shared: Arc::clone(&self.shared),
            ring: Ring::Waking,
            is_gathered: false,
        }
    }

    /// The bell wakes the calling thread from now on. Called once, before the thread first looks at
    /// its channels.
    pub(crate) fn attach(&self) {
        self.shared.thread.get_or_init(thread::current);
    }

    /// Whether the thread is woken by what rings softly: not before this was called. True if that
    /// is new, and then a channel may hold what was sent before: it is to be looked into once more
    /// before a wait.
    pub(crate) fn heed_soft(&self, heeds: bool) -> bool {
        // In one order with the sends: a sender that still finds it false has sent before.
        let heeded = self.shared.heeds_soft.swap(heeds, Ordering::SeqCst);
        heeds && !heeded
    }

    /// From now on whoever rings calls this first. True if that was all, and the thread may sleep
    /// on. Called once.
    pub(crate) fn answered_by(&self, answer: impl Fn(Ring) -> bool + Send + Sync + 'static) {
        self.shared.answer.get_or_init(|| Box::new(answer));
    }

    fn ring(&self) {
        if self.is_gathered && gather(self) {
            return;
        }
        self.ring_now();
    }

    fn ring_now(&self) {
        if self.ring == Ring::Soft && !self.shared.heeds_soft.load(Ordering::SeqCst) {
            return;
        }
        let answer = self.shared.answer.get();
        let may_answer = self.ring != Ring::Waking;
        if may_answer && answer.is_some_and(|answer| answer(self.ring)) {
            return;
        }
        self.wake();
    }

    /// Rings for the same thread, in the same way.
    fn is(&self, other: &Bell) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared) && self.ring == other.ring
    }

    /// Wakes the thread, whoever would answer.
    pub(crate) fn wake(&self) {
        if let Some(thread) = self.shared.thread.get() {
            thread.unpark();
        }
    }
}

impl Gathered {
    /// Takes a bell in, and gives back what is to be rung at once.
    fn add(&mut self, bell: &Bell, now: Instant) -> Option<Bell> {
        match &self.waiting {
            Some((waiting, _)) if waiting.is(bell) => self.take_overdue(now),
            _ => self.waiting.replace((bell.clone(), now)).map(|it| it.0),
        }
    }

    fn take_overdue(&mut self, now: Instant) -> Option<Bell> {
        let is_overdue = |(_, since): &mut (Bell, Instant)| now - *since > OVERDUE;
        self.waiting.take_if(is_overdue).map(|it| it.0)
    }
}

/// Leaves it to `ring_gathered`, if that is called on this thread.
fn gather(bell: &Bell) -> bool {
    if !GATHERS.get() {
        return false;
    }
    let now = Instant::now();
    // Not when the thread ends.
    let other = GATHERED.try_with(|gathered| gathered.borrow_mut().add(bell, now));
    if let Ok(Some(other)) = &other {
        other.ring_now();
    }
    other.is_ok()
}

/// Rings what was gathered on this thread. To be called whenever it is about to sleep, and from the
/// first time on it gathers.
pub(crate) fn ring_gathered() {
    GATHERS.set(true);
    // Who is rung may gather again.
    while let Some((bell, _)) = GATHERED.with_borrow_mut(|gathered| gathered.waiting.take()) {
        bell.ring_now();
    }
}

/// Rings what was gathered on this thread if it has waited for long. To be called now and then by
/// those who keep the thread from sleeping.
pub(crate) fn ring_overdue() {
    let overdue = GATHERED.with_borrow_mut(|gathered| match gathered.waiting {
        Some(_) => gathered.take_overdue(Instant::now()),
        None => None,
    });
    if let Some(bell) = overdue {
        bell.ring_now();
    }
}

/// Sleeps until the bell of this thread is rung. May return early.
pub(crate) fn wait() {
    thread::park();
}

/// As `wait`, but no longer than this.
pub(crate) fn wait_timeout(timeout: Duration) {
    thread::park_timeout(timeout);
}

/// Rings after each send, and when it is gone: then the channel's end is to be noticed.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    // Dropped in this order.
    sender: crossbeam_channel::Sender<T>,
    bell: LastRing,
}

#[derive(Clone, Debug)]
struct LastRing(Bell);

impl Drop for LastRing {
    fn drop(&mut self) {
        self.0.ring();
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender {
            sender: self.sender.clone(),
            bell: self.bell.clone(),
        }
    }
}

/// A channel without a bound, for what is bounded elsewhere.
pub(crate) fn unbounded<T>(bell: &Bell) -> (Sender<T>, Receiver<T>) {
    with_bell(crossbeam_channel::unbounded(), bell)
}

/// A channel that holds so many.
pub(crate) fn bounded<T>(count_max: usize, bell: &Bell) -> (Sender<T>, Receiver<T>) {
    with_bell(crossbeam_channel::bounded(count_max), bell)
}

fn with_bell<T>(
    (sender, receiver): (crossbeam_channel::Sender<T>, Receiver<T>),
    bell: &Bell,
) -> (Sender<T>, Receiver<T>) {
    let bell = LastRing(bell.clone());
    (Sender { sender, bell }, receiver)
}

impl<T> Sender<T> {
    /// Sends into an unbounded channel.
    ///
    /// # Errors
    /// When nobody receives any more.
    pub(crate) fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.sender.send(value)?;
        self.bell.0.ring();
        Ok(())
    }

    /// Sends without waiting for room.
    ///
    /// # Errors
    /// When there is no room, or nobody receives any more.
    pub(crate) fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.sender.try_send(value)?;
        self.bell.0.ring();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    use crossbeam_channel::TryRecvError;

    use super::*;

    /// Counts what comes, asleep whenever nothing does, until all senders are gone.
    fn count(bell: &Bell, first: &Receiver<u64>, second: &Receiver<u64>) -> u64 {
        bell.attach();
        let mut count = 0;
        for turn in 0_u64.. {
            match (first.try_recv(), second.try_recv()) {
                (Err(TryRecvError::Disconnected), Err(TryRecvError::Disconnected)) => break,
                (Err(_), Err(_)) if turn.is_multiple_of(3) => {
                    bell.heed_soft(false);
                }
                (Err(_), Err(_)) if bell.heed_soft(true) => {}
                (Err(_), Err(_)) => wait(),
                (one, other) => count += u64::from(one.is_ok()) + u64::from(other.is_ok()),
            }
        }
        count
    }

    #[test]
    fn what_the_one_who_rings_can_not_do_himself_the_thread_does() {
        let bell = Bell::default();
        let (sender, receiver) = unbounded::<u64>(&bell);
        let taken = Arc::new((Mutex::new(0), receiver));
        let visited = Arc::clone(&taken);
        bell.answered_by(move |_| {
            let Ok(mut count) = visited.0.try_lock() else {
                return false;
            };
            *count += visited.1.try_iter().count();
            *count < 20_000
        });
        thread::scope(|scope| {
            let end = scope.spawn(|| {
                bell.attach();
                loop {
                    let mut count = taken.0.lock().expect("nothing panics while it is held");
                    *count += taken.1.try_iter().count();
                    if *count == 20_000 {
                        return *count;
                    }
                    drop(count);
                    wait();
                }
            });
            for _ in 0..2 {
                let sender = sender.clone();
                scope.spawn(move || {
                    for value in 0..10_000 {
                        sender.send(value).expect("somebody receives");
                    }
                });
            }
            assert_eq!(end.join().expect("nothing panics there"), 20_000);
        });
    }

    /// A bell, and how often it has rung.
    fn counted() -> (Bell, Arc<AtomicUsize>) {
        let (bell, rings) = (Bell::default(), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&rings);
        bell.answered_by(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            true
        });
        (bell, rings)
    }

    #[test]
    fn only_a_thread_that_says_when_it_sleeps_gathers() {
        let (bell, rings) = counted();
        let (sender, receiver) = unbounded(&bell.gathered());
        let send = || sender.send(()).expect("somebody receives");
        let sleeps = || {
            send();
            assert_eq!(rings.load(Ordering::SeqCst), 1);
            ring_gathered();
            send();
            assert_eq!(receiver.len(), 2, "it is sent at once");
            ring_gathered();
            assert_eq!(rings.load(Ordering::SeqCst), 2);
            ring_gathered();
            assert_eq!(rings.load(Ordering::SeqCst), 2);
        };
        thread::scope(|scope| scope.spawn(sleeps).join().expect("nothing panics there"));
        thread::scope(|scope| scope.spawn(send).join().expect("nothing panics there"));
        assert_eq!(rings.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn what_is_gathered_waits_for_a_while_and_for_no_other_bell() {
        let (bell, other) = (Bell::default(), Bell::default());
        let mut gathered = Gathered { waiting: None };
        let now = Instant::now();
        assert!(gathered.add(&bell, now).is_none());
        assert!(gathered.add(&bell, now + OVERDUE).is_none());
        assert!(gathered.take_overdue(now + OVERDUE).is_none());
        let late = now + 2 * OVERDUE;
        assert!(gathered.add(&bell, late).is_some_and(|it| it.is(&bell)));
        assert!(gathered.waiting.is_none());

        assert!(gathered.add(&bell, late).is_none());
        assert!(gathered.add(&other, late).is_some_and(|it| it.is(&bell)));
        let soft = other.soft();
        assert!(gathered.add(&soft, late).is_some_and(|it| it.is(&other)));
        let later = late + 2 * OVERDUE;
        assert!(gathered.take_overdue(later).is_some_and(|it| it.is(&soft)));
    }

    #[test]
    fn a_thread_asleep_misses_neither_a_value_nor_the_end() {
        let bell = Bell::default();
        let (first, from_first) = unbounded(&bell);
        let (second, from_second) = bounded(1, &bell.soft());
        thread::scope(|scope| {
            let counter = scope.spawn(|| count(&bell, &from_first, &from_second));
            scope.spawn(move || {
                for value in 0..10_000 {
                    first.send(value).expect("somebody receives");
                }
            });
            scope.spawn(move || {
                let mut sent = 0;
                while sent < 10_000 {
                    sent += u64::from(second.try_send(sent).is_ok());
                }
            });
            let count = counter.join().expect("nothing panics there");
            assert_eq!(count, 20_000);
        });
    }
}
