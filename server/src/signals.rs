//! What the operating system tells this process: stop, and that its parent has ended.

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::signal::unix::{self, SignalKind};

use crate::arguments::DieWithParent;
use crate::error::Error;

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl Signals {
    /// From here on, the signals no longer end the process by themselves. Within a tokio runtime.
    ///
    /// # Errors
    /// `System`.
    pub(crate) fn new() -> Result<Signals, Error> {
        let failed = Error::system("listen to signals");
        Ok(Signals {
            terminate: unix::signal(SignalKind::terminate()).map_err(&failed)?,
            interrupt: unix::signal(SignalKind::interrupt()).map_err(&failed)?,
        })
    }

    /// Waits for the next of them.
    pub(crate) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// From here on, this process is killed when its parent ends.
///
/// # Errors
/// `ParentEnded` if it has ended meanwhile, `System`.
pub(crate) fn die_with_parent(which: DieWithParent) -> Result<(), Error> {
    let parent = || getppid().map(|parent| parent.as_raw_nonzero().get().unsigned_abs());
    let before = match which {
        DieWithParent::Parent => parent(),
        DieWithParent::Process(id) => Some(id),
    };
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| Error::system("follow the parent process")(errno.into()))?;
    // It may have ended between the fork and the line above.
    if parent() == before {
        Ok(())
    } else {
        Err(Error::ParentEnded)
    }
}
