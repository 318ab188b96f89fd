//! The threads that own the log: one appends and syncs, one reads back. What goes wrong while it is
//! written ends the process: what is on disk is not known any more, and only the next start can tell
//! (rule 7).

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use evaluator::Input;
use raft::{Entry, Fetch, Fetched, Position, Write, WriteId};
use tracing::{info, warn};
use wal::{DirectoryDisk, Error, Reader, Rotten, Wal};

use crate::bell::{self, Bell, Sender};
use crate::fatal;
use crate::snapshots::{FromSnapshots, Snapshots, Useless};

/// Writes are put together until they are this long: one sync serves them all.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How long a log that has no space reserved for its next segment waits before it tries again.
const RESERVE_INTERVAL: Duration = Duration::from_millis(200);

/// Where the writer takes from and gives to.
#[derive(Debug)]
pub(crate) struct LogWriter {
    pub(crate) writes: Receiver<Write>,
    pub(crate) persisted: Sender<WriteId>,
    /// What of the log may go, or is to.
    pub(crate) drops: Receiver<Useless>,
    /// So much of the log stays whatever is covered.
    pub(crate) kept_bytes: u64,
    /// Told where the log begins, whether it has its reserve, and that a snapshot is needed.
    pub(crate) dropped: Sender<FromSnapshots>,
}

/// Whether the next segment has its space.
#[derive(Debug)]
struct Reserve {
    /// As the evaluator was told last.
    is_there: bool,
    /// None is asked for before.
    next_try: Instant,
}

impl LogWriter {
    /// Appends what comes in, syncs once for all that was waiting, and reports the last; in between
    /// drops what snapshots cover. `bell` is that of both channels. Ends when there is no evaluator
    /// any more.
    pub(crate) fn write(&self, mut wal: Wal<DirectoryDisk>, bell: &Bell) {
        bell.attach();
        let run = self.run(&mut wal);
        // What came last may be that nothing of it is to be believed.
        let dropped = run.and_then(|()| self.drop_useless(&mut wal));
        if let Err(error) = dropped.and_then(|()| wal.close()) {
            fatal::end(&error);
        }
    }

    fn run(&self, wal: &mut Wal<DirectoryDisk>) -> Result<(), Error> {
        let mut reserve = Reserve {
            is_there: true,
            next_try: Instant::now(),
        };
        let mut prepares = true;
        while let Some(first) = self.next(wal, &mut prepares, &mut reserve)? {
            let mut bytes = payload_bytes(&first);
            wal.append(&first)?;
            while bytes < BATCH_BYTES_MAX
                && let Ok(write) = self.writes.try_recv()
            {
                bytes += payload_bytes(&write);
                wal.append(&write)?;
            }
            let Some(id) = self.sync(wal, &mut reserve)? else {
                return Ok(());
            };
            if self.persisted.send(id).is_err() {
                return Ok(());
            }
            self.drop_useless(wal)?;
            self.look_after_reserve(wal, &mut reserve)?;
            prepares = true;
        }
        Ok(())
    }

    /// The next write; while none waits, the log is prepared for later ones, which is done once
    /// `prepares` is false. `None` at the end.
    fn next(
        &self,
        wal: &mut Wal<DirectoryDisk>,
        prepares: &mut bool,
        reserve: &mut Reserve,
    ) -> Result<Option<Write>, Error> {
        loop {
            match self.writes.try_recv() {
                Ok(write) => return Ok(Some(write)),
                Err(TryRecvError::Disconnected) => return Ok(None),
                Err(TryRecvError::Empty) if !self.drops.is_empty() => self.drop_useless(wal)?,
                Err(TryRecvError::Empty) if *prepares => *prepares = wal.prepare_next()?,
                Err(TryRecvError::Empty) if wal.has_reserve() => {
                    self.look_after_reserve(wal, reserve)?;
                    bell::wait();
                }
                Err(TryRecvError::Empty) => {
                    self.look_after_reserve(wal, reserve)?;
                    bell::wait_timeout(RESERVE_INTERVAL);
                }
            }
        }
    }

    /// Makes durable what was appended. A log that has come to the end of its last segment waits for
    /// space: this server acknowledges nothing meanwhile (rule 9). `None` if there is no evaluator
    /// any more.
    fn sync(
        &self,
        wal: &mut Wal<DirectoryDisk>,
        reserve: &mut Reserve,
    ) -> Result<Option<WriteId>, Error> {
        loop {
            match wal.sync() {
                Err(Error::NoSpace { .. }) => {
                    self.look_after_reserve(wal, reserve)?;
                    self.drop_useless(wal)?;
                    let told = Input::Reserve(reserve.is_there);
                    if self.dropped.send(FromSnapshots::Input(told)).is_err() {
                        return Ok(None);
                    }
                    bell::wait_timeout(RESERVE_INTERVAL);
                }
                done => return done.map(Some),
            }
        }
    }

    /// Asks for the next segment's space, if it is not there, and tells the evaluator what has come
    /// of it.
    fn look_after_reserve(
        &self,
        wal: &mut Wal<DirectoryDisk>,
        reserve: &mut Reserve,
    ) -> Result<(), Error> {
        let now = Instant::now();
        if !wal.has_reserve() {
            if now < reserve.next_try {
                return Ok(());
            }
            reserve.next_try = now + RESERVE_INTERVAL;
            wal.prepare_next()?;
        }
        let is_there = wal.has_reserve();
        if is_there != reserve.is_there {
            reserve.is_there = is_there;
            match is_there {
                true => info!("there is space for the log's next segment again"),
                false => warn!(
                    "no space for the log's next segment: as leader this server takes no writes, \
                     and hands over"
                ),
            }
            self.tell(Input::Reserve(is_there));
        }
        Ok(())
    }

    fn drop_useless(&self, wal: &mut Wal<DirectoryDisk>) -> Result<(), Error> {
        while let Ok(useless) = self.drops.try_recv() {
            match useless {
                Useless::Covered { until, newest } => {
                    if let Some(until) = until {
                        let dropped = wal.drop_until(until, self.kept_bytes)?;
                        self.tell_dropped(dropped);
                    }
                    let dropped = wal.drop_given_up(newest)?;
                    self.tell_dropped(dropped);
                }
                Useless::Rotten(segment) => self.give_up(wal, segment)?,
                Useless::All => wal.distrust()?,
            }
        }
        Ok(())
    }

    fn tell_dropped(&self, dropped: Option<Position>) {
        if let Some(position) = dropped {
            info!("the log begins behind index {} from now on", position.index);
            self.tell(Input::Dropped(position));
        }
    }

    /// Asks for a snapshot that stands for a rotten segment, and drops that when it is there.
    fn give_up(&self, wal: &mut Wal<DirectoryDisk>, segment: u64) -> Result<(), Error> {
        match wal.give_up_segment(segment) {
            Ok(Some(index)) => self.tell(Input::SnapshotWanted(index)),
            Ok(None) => {}
            // It is found again.
            Err(error @ Error::NoSpace { .. }) => {
                warn!("{error}; the rotten end of the log stays meanwhile");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn tell(&self, input: Input) {
        // Nobody takes it any more once the evaluator has ended.
        let _ = self.dropped.send(FromSnapshots::Input(input));
    }
}

fn payload_bytes(write: &Write) -> usize {
    let entries = write.entries.iter();
    entries.map(|entry| entry.payload.len()).sum()
}

/// Gives entries back from the log. Ends when there is no evaluator any more. What a follower needs
/// and can't be read has its segment replaced by a snapshot, which the follower gets then; what this
/// server needs itself ends the process, and the next start recovers it from the others.
///
/// What it is to carry out next is read while it carries out what was read before.
pub(crate) fn read_back(
    reader: &Reader<DirectoryDisk>,
    fetches: &Receiver<Fetch>,
    fetched: &Sender<Fetched>,
    snapshots: &Snapshots,
) {
    let mut ahead: Option<Fetched> = None;
    while let Ok(fetch) = fetches.recv() {
        let held = ahead.take_if(|it| {
            it.fetch.reader == fetch.reader
                && it.fetch.from == fetch.from
                && it.fetch.to <= fetch.to
        });
        let read = match held {
            Some(held) => Ok(held.entries),
            None => reader.read(&fetch).or_else(|error| match fetch.reader {
                raft::Reader::Apply => Err(error),
                raft::Reader::Follower(_) => {
                    snapshots.replace(Rotten::of(error)?);
                    Ok(Vec::new())
                }
            }),
        };
        let entries = read.unwrap_or_else(|error| fatal::end(&error));
        let next = next_fetch(&fetch, &entries);
        if fetched.send(Fetched { fetch, entries }).is_err() {
            return;
        }
        if let Some(next) = next.filter(|_| fetches.is_empty()) {
            // If it can't be read, that is told when it is asked for.
            let entries = reader.read(&next).ok();
            ahead = entries.map(|entries| Fetched {
                fetch: next,
                entries,
            });
        }
    }
}

/// What this server will need behind these entries in order to carry it out. All of it is
/// committed, so that it is the same whenever it is read.
fn next_fetch(fetch: &Fetch, entries: &[Entry]) -> Option<Fetch> {
    let last = entries.last()?.index;
    let is_more = fetch.reader == raft::Reader::Apply && last < fetch.to;
    is_more.then(|| Fetch {
        from: last.next(),
        ..*fetch
    })
}
