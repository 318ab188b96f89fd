//! The threads that own the log: one appends and syncs, one reads back. Whatever goes wrong here
//! ends the process: what is on disk is not known any more, and only the next start can tell
//! (rule 7).

use crossbeam_channel::{Receiver, TryRecvError};
use raft::{Fetch, Fetched, Write, WriteId};
use wal::{DirectoryDisk, Error, Reader, Wal};

use crate::bell::{self, Bell, Sender};
use crate::fatal;

/// Writes are put together until they are this long: one sync serves them all.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Appends what comes in, syncs once for all that was waiting, and reports the last. `bell` is that
/// of `writes`. Ends when there is no evaluator any more.
pub(crate) fn write(
    mut wal: Wal<DirectoryDisk>,
    writes: &Receiver<Write>,
    bell: &Bell,
    persisted: &Sender<WriteId>,
) {
    bell.attach();
    let result = run(&mut wal, writes, persisted).and_then(|()| wal.close());
    if let Err(error) = result {
        fatal::end(&error);
    }
}

fn run(
    wal: &mut Wal<DirectoryDisk>,
    writes: &Receiver<Write>,
    persisted: &Sender<WriteId>,
) -> Result<(), Error> {
    let mut prepares = true;
    while let Some(first) = next(wal, writes, &mut prepares)? {
        let mut bytes = payload_bytes(&first);
        wal.append(&first)?;
        while bytes < BATCH_BYTES_MAX
            && let Ok(write) = writes.try_recv()
        {
            bytes += payload_bytes(&write);
            wal.append(&write)?;
        }
        let id = wal.sync()?;
        if persisted.send(id).is_err() {
            return Ok(());
        }
        prepares = true;
    }
    Ok(())
}

/// The next write; while none waits, the log is prepared for later ones, which is done once
/// `prepares` is false. `None` at the end.
fn next(
    wal: &mut Wal<DirectoryDisk>,
    writes: &Receiver<Write>,
    prepares: &mut bool,
) -> Result<Option<Write>, Error> {
    loop {
        match writes.try_recv() {
            Ok(write) => return Ok(Some(write)),
            Err(TryRecvError::Disconnected) => return Ok(None),
            Err(TryRecvError::Empty) if *prepares => *prepares = wal.prepare_next()?,
            Err(TryRecvError::Empty) => bell::wait(),
        }
    }
}

fn payload_bytes(write: &Write) -> usize {
    let entries = write.entries.iter();
    entries.map(|entry| entry.payload.len()).sum()
}

/// Gives entries back from the log. Ends when there is no evaluator any more.
pub(crate) fn read_back(
    reader: &Reader<DirectoryDisk>,
    fetches: &Receiver<Fetch>,
    fetched: &Sender<Fetched>,
) {
    while let Ok(fetch) = fetches.recv() {
        match reader.read(&fetch) {
            Ok(entries) => {
                if fetched.send(Fetched { fetch, entries }).is_err() {
                    return;
                }
            }
            Err(error) => fatal::end(&error),
        }
    }
}
