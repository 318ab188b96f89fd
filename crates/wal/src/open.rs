//! Opening a log: whose it is, what it holds, and how it fits the newest snapshot.

use std::sync::Arc;

use mutants::Mutant;
use raft::{Entry, HardState, Instance, Position, Recovered, Restart, ServerId, Snapshot, WriteId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::contents::Contents;
use crate::disk::{BLOCK_BYTES, Disk};
use crate::error::Error;
use crate::meta::{self, BackupId};
use crate::reader::{Places, Shared};
use crate::record::Chain;
use crate::recover::{Log, Torn, missing, recover};
use crate::segment::{SegmentHeader, start_segment};
use crate::snapshots::{Catalog, Damaged, Found, find, remove, tidy};
use crate::wal::{SEGMENT_BYTES_MIN, Synced, Wal};

/// The file that is locked while a server uses the directory.
pub(crate) const LOCK_NAME: &str = "lock";

/// What is fixed while a log is open.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whose directory it must be.
    pub server_id: ServerId,
    /// The length of a segment: a multiple of 4096, at least `SEGMENT_BYTES_MIN`. One that holds
    /// a single larger batch is longer.
    pub segment_bytes: u64,
    /// Random, and another at each start: the instance number and the salts are drawn from it.
    pub seed: u64,
}

/// What a directory held.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Drawn at the first start (rule 41).
    pub instance: Instance,
    /// Larger than at any start before, and durable (rule 15).
    pub restart: Restart,
    pub recovered: Recovered,
    /// The backup that the directory began with (`restore`).
    pub backup: Option<BackupId>,
    /// What was erased at the end of the log.
    pub torn: Option<Torn>,
    /// Snapshots newer than `recovered.snapshot` that can't be used, the newest first. Nothing is
    /// lost: the log reaches back to that one, or holds everything.
    pub damaged: Vec<Damaged>,
}

impl<D: Disk> Wal<D> {
    /// Opens the log in a directory, which may be empty: then it is this server's from now on.
    /// Everything that `Opened` says is durable.
    ///
    /// # Errors
    /// `Error::Locked` if another process has the directory, `Error::OtherServer` if it is another
    /// server's, `Error::NewerFormat` if a later release wrote it, `Error::Corrupt` or
    /// `Error::Missing` if something that was synced is not there any more, `Error::Io`.
    ///
    /// # Panics
    /// If an option is out of its range.
    pub fn open(disk: D, options: Options) -> Result<(Wal<D>, Opened), Error> {
        let segment_bytes = options.segment_bytes;
        assert!(
            segment_bytes >= SEGMENT_BYTES_MIN && segment_bytes.is_multiple_of(BLOCK_BYTES),
            "segments of {segment_bytes} bytes",
        );
        lock(&disk)?;
        let mut random = StdRng::seed_from_u64(options.seed);
        let names = disk
            .list()
            .map_err(Error::io(&disk, "", "list the data directory"))?;
        let claimed = meta::claim(&disk, options.server_id, &names, &mut random)?;
        let mut meta = claimed.state;
        // A process that was killed may have renamed what it did not come to sync (rule 8).
        disk.sync_directory()
            .map_err(Error::io(&disk, "", "sync the data directory"))?;
        let log = match recover(&disk, meta.identity, meta.mark, &names)? {
            Some(log) => log,
            None => first_log(&disk, &options, &meta, &mut random)?,
        };
        meta.cluster = meta.cluster.or(log.contents.hard_state.seating.cluster());
        let doubtful = claimed.doubtful && !mutants::is_on(Mutant::RestartReused);
        meta.restart = Restart(meta.restart.0 + 1 + u64::from(doubtful));
        let found = find(&disk, &names, log.contents.hard_state.seating.cluster())?;
        let first = log.places.segments.front();
        let first = first.expect("there is a segment").sequence;
        reaches_back(&disk, first, log.contents.before, &found)?;
        let mut wal = Wal {
            synced: Synced {
                hard_state: log.contents.hard_state,
                last: log.contents.last,
                batch: log.batch,
                chain: log.chain,
            },
            shared: Arc::new(Shared::new(
                disk,
                log.places,
                Catalog::new(found.newest.clone()),
            )),
            options,
            random,
            meta,
            meta_files: claimed.files,
            segment: log.segment,
            next: None,
            contents: log.contents,
            appended: WriteId(0),
            begin_behind: None,
            pending: Vec::new(),
            pending_bytes: 0,
            buffer: Vec::new(),
            failed: false,
        };
        let mut configurations = log.configurations;
        if let Some(position) = obsolete_for(&wal.contents, found.newest.as_ref()) {
            configurations.clear();
            wal.begin_behind(position);
            wal.write_pending()?;
        } else if log.has_ended {
            wal.start_next(0)?;
        }
        if !mutants::is_on(Mutant::RestartNotDurable) {
            wal.write_meta()?;
            if doubtful {
                // Both files, so that neither is behind by more than the one start that the next
                // doubtful one allows for.
                wal.write_meta()?;
            }
        }
        remove(&wal.shared.disk, &log.useless, |_| true)?;
        tidy(&wal.shared.disk, &names, found.newest.as_ref())?;
        let opened = Opened {
            instance: wal.meta.identity.instance,
            restart: wal.meta.restart,
            recovered: recovered(&wal.contents, found.newest, configurations),
            backup: wal.meta.backup,
            torn: log.torn,
            damaged: found.damaged,
        };
        Ok((wal, opened))
    }
}

/// Where the log must begin anew, if it does not hold the newest snapshot's last entry: a crash cut
/// the installation of the snapshot short, or the entries that led to it were not synced.
pub(crate) fn obsolete_for(contents: &Contents, newest: Option<&Snapshot>) -> Option<Position> {
    let position = newest?.position;
    let is_held = contents.position_at(position.index) == Some(position);
    let is_obsolete = !is_held && !mutants::is_on(Mutant::ObsoleteLogKept);
    is_obsolete.then_some(position)
}

/// What the consensus core is told.
pub(crate) fn recovered(
    contents: &Contents,
    snapshot: Option<Snapshot>,
    configurations: Vec<Entry>,
) -> Recovered {
    Recovered {
        hard_state: contents.hard_state,
        before: contents.before,
        snapshot,
        term_starts: contents.term_starts.clone(),
        last: contents.last,
        configurations,
    }
}

/// Checks that nothing is missing between the newest snapshot and the log, which begins behind
/// `before` in the segment `first`.
pub(crate) fn reaches_back<D: Disk>(
    disk: &D,
    first: u64,
    before: Position,
    found: &Found,
) -> Result<(), Error> {
    let newest = found.newest.as_ref();
    if first == 1 || newest.is_some_and(|newest| newest.position.index >= before.index) {
        return Ok(());
    }
    match found.damaged.first() {
        Some(damaged) => Err(Error::Corrupt {
            file: damaged.file.clone(),
            offset: damaged.offset,
            problem: damaged.problem.clone(),
        }),
        None => Err(missing(disk, first - 1)),
    }
}

pub(crate) fn lock<D: Disk>(disk: &D) -> Result<(), Error> {
    let locked = disk.lock(LOCK_NAME);
    if locked.map_err(Error::io(disk, LOCK_NAME, "lock"))? {
        return Ok(());
    }
    Err(Error::Locked {
        file: disk.path().join(LOCK_NAME),
    })
}

/// An empty log with its first segment.
fn first_log<D: Disk>(
    disk: &D,
    options: &Options,
    meta: &meta::State,
    random: &mut StdRng,
) -> Result<Log<D::File>, Error> {
    let header = SegmentHeader {
        identity: meta.identity,
        cluster: None,
        sequence: 1,
        previous: Position::default(),
        first_batch: 1,
        file_bytes: options.segment_bytes,
        salt: random.next_u32(),
        chain: Chain::default(),
        begins: false,
    };
    let started = start_segment(disk, header, &HardState::default(), &[], None)?;
    let mut places = Places::default();
    places.segments.push_back(Arc::new(header));
    Ok(Log {
        contents: Contents::default(),
        configurations: Vec::new(),
        places,
        batch: started.batch,
        segment: started.segment,
        chain: started.chain,
        has_ended: false,
        torn: None,
        useless: Vec::new(),
    })
}
