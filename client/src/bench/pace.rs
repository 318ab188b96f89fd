//! Open loop: when each command of a thread's connections is to be sent, at a fixed rate whatever
//! the server does. The runtime's own timers tell milliseconds, which is longer than a command takes.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What is due within this time is sent together: to wake up for each command would take the
/// processor that the server is to have.
const TICK: Duration = Duration::from_micros(50);

/// A thread's schedule: its connections take turns.
#[derive(Debug)]
pub(super) struct Pace {
    start: Instant,
    end: Instant,
    /// Seconds between two commands of this thread: whole nanoseconds would add up.
    interval: f64,
    turns: Vec<Turn>,
    is_over: Cell<bool>,
}

/// One connection's part.
#[derive(Debug, Default)]
struct Turn {
    /// How many of its commands were due so far.
    due: Cell<u64>,
    changed: Notify,
}

impl Pace {
    pub(super) fn new(
        (start, end): (Instant, Instant),
        interval: f64,
        connections: usize,
    ) -> Rc<Pace> {
        Rc::new(Pace {
            start,
            end,
            interval,
            turns: (0..connections).map(|_| Turn::default()).collect(),
            is_over: Cell::new(false),
        })
    }

    /// When this command of this connection is to be sent.
    pub(super) fn time(&self, connection: usize, command: u64) -> Instant {
        let number = command * self.turns.len() as u64 + connection as u64;
        self.start + self.offset(number)
    }

    fn offset(&self, number: u64) -> Duration {
        Duration::from_secs_f64(self.interval * number as f64)
    }

    /// How many commands of this connection were to be sent by now.
    pub(super) fn due(&self, connection: usize) -> u64 {
        self.turn(connection).due.get()
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// Waits until more is due to this connection, or nothing will be any more.
    pub(super) async fn changed(&self, connection: usize) {
        if !self.is_over() {
            self.turn(connection).changed.notified().await;
        }
    }

    /// Tells the connections what is due, until the end.
    pub(super) async fn run(&self) -> io::Result<()> {
        let timer = Timer::new()?;
        let mut next = 0;
        loop {
            let now = Instant::now();
            while self.start + self.offset(next) <= now.min(self.end) {
                let connection = (next % self.turns.len() as u64) as usize;
                let turn = self.turn(connection);
                turn.due.update(|due| due + 1);
                turn.changed.notify_one();
                next += 1;
            }
            if now >= self.end {
                break;
            }
            let next = (self.start + self.offset(next)).min(self.end);
            timer
                .sleep(next.saturating_duration_since(now).max(TICK))
                .await?;
        }
        self.is_over.set(true);
        for turn in &self.turns {
            turn.changed.notify_one();
        }
        Ok(())
    }

    fn turn(&self, connection: usize) -> &Turn {
        self.turns.get(connection).expect("each connection has one")
    }
}

/// Sleeps as long as it is told, to some microseconds.
#[derive(Debug)]
struct Timer(
    /// A timer of the kernel's. It is read as a pipe is, into which the kernel writes when it goes
    /// off.
    Receiver,
);

impl Timer {
    fn new() -> io::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Timer(Receiver::from_owned_fd_unchecked(timer)?))
    }

    async fn sleep(&self, duration: Duration) -> io::Result<()> {
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(duration).map_err(io::Error::other)?,
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        loop {
            self.0.readable().await?;
            let mut expirations = [0; 8];
            match self.0.try_read(&mut expirations) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(|_| ()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn commands_are_due_in_turn_and_at_their_rate() {
        let start = Instant::now();
        let end = start + Duration::from_millis(10);
        let pace = Pace::new((start, end), 0.001, 3);
        pace.run().await.expect("a timer");
        assert!(Instant::now() >= end, "it ends with the schedule");
        assert!(pace.is_over());
        // 0, 3, 6, 9 ms; 1, 4, 7, 10; 2, 5, 8.
        assert_eq!([0, 1, 2].map(|connection| pace.due(connection)), [4, 4, 3]);
        assert_eq!(pace.time(1, 2), start + Duration::from_millis(7));
        pace.changed(0).await;
    }
}
