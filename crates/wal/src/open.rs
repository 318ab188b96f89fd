//! Opening a log: whose it is, what it holds, and how it fits the newest snapshot.

use std::sync::Arc;

use mutants::Mutant;
use raft::{
    ClusterId, Entry, HardState, Instance, Position, Recovered, Restart, Seating, ServerId,
    Snapshot, WriteId,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::aside;
use crate::contents::Contents;
use crate::disk::{BLOCK_BYTES, Disk};
use crate::error::Error;
use crate::mend::{give_up, mend};
use crate::meta::{self, BackupId};
use crate::reader::{End, Places, Shared};
use crate::record::Chain;
use crate::recover::{Log, Look, Torn, look};
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, start_segment};
use crate::snapshots::{Catalog, Damaged, remove, tidy};
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
    /// There are other servers that can give back what is lost. Without them a damaged log is not
    /// opened, and nothing in the directory is changed.
    pub heals: bool,
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
    /// Something that was synced is lost, and with it what is behind it: this server is recovering
    /// from this start on (`Recovered::recovering`). The error that it is names the first place.
    pub lost: Option<Arc<Error>>,
    /// Snapshots newer than `recovered.snapshot` that can't be used, the newest first. Nothing is
    /// lost: the log reaches back to that one, or holds everything.
    pub damaged: Vec<Damaged>,
}

impl<D: Disk> Wal<D> {
    /// Opens the log in a directory, which may be empty: then it is this server's from now on.
    /// Everything that `Opened` says is durable.
    ///
    /// If something that was synced is lost, this server is marked as recovering, which stays until
    /// a `Write::recovered` is synced; then what can't be used is given up.
    ///
    /// # Errors
    /// `Error::Locked` if another process has the directory, `Error::OtherServer` if it is another
    /// server's, `Error::NewerFormat` if a later release wrote it, `Error::Io`. `Error::Corrupt` or
    /// `Error::Missing` if it can't be told whose directory it is; also if anything else that was
    /// synced is not there any more, or `Error::Recovering` if it was not at an earlier start, unless
    /// `Options::heals`.
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
        let mut claimed = meta::claim(&disk, options.server_id, &names, &mut random)?;
        // A process that was killed may have renamed what it did not come to sync (rule 8).
        disk.sync_directory()
            .map_err(Error::io(&disk, "", "sync the data directory"))?;
        let mut look = look(&disk, &claimed, &names, true)?;
        if !options.heals {
            if let Some(lost) = look.loss {
                return Err(lost);
            }
            if claimed.state.recovering {
                let directory = disk.path().to_path_buf();
                return Err(Error::Recovering { directory });
            }
        }
        let doubtful = claimed.doubtful && !mutants::is_on(Mutant::RestartReused);
        let restart = claimed.state.restart.0 + 1 + u64::from(doubtful);
        claimed.state.restart = Restart(restart);
        if mutants::is_on(Mutant::MarkForgotten) {
            claimed.state.recovering = false;
        }
        if look.loss.is_some() {
            give_up(&disk, &names, &mut claimed, &mut look)?;
        }
        let is_first = look.log.is_none() && look.loss.is_none();
        let log = match look.log.take() {
            Some(log) => {
                mend(&disk, &log)?;
                log
            }
            None => first_log(&disk, &options, &claimed.state, &look, &mut random)?,
        };
        let torn = log.torn.clone();
        let (mut wal, configurations) = open_log(disk, options, random, claimed, log, &look)?;
        if !mutants::is_on(Mutant::RestartNotDurable) {
            wal.write_meta()?;
            if doubtful || is_first {
                // Both files, so that neither is behind by more than the one start that the next
                // doubtful one allows for, and both know that there is a log.
                wal.write_meta()?;
            }
        }
        if !wal.meta.recovering {
            aside::remove_all(&wal.shared.disk)?;
        }
        remove(&wal.shared.disk, &look.useless, |_| true)?;
        tidy(&wal.shared.disk, &names, look.found.newest.as_ref())?;
        let (recovering, newest) = (wal.meta.recovering, look.found.newest);
        let opened = Opened {
            instance: wal.meta.identity.instance,
            restart: wal.meta.restart,
            recovered: recovered(&wal.contents, recovering, newest, configurations),
            backup: wal.meta.backup,
            torn,
            lost: look.loss.map(Arc::new),
            damaged: look.found.damaged,
        };
        Ok((wal, opened))
    }
}

/// Where the log must begin anew, if it does not hold the newest snapshot's last entry: a crash cut
/// the installation of the snapshot short, or the entries that led to it were not synced.
fn obsolete_for(contents: &Contents, newest: Option<&Snapshot>) -> Option<Position> {
    let position = newest?.position;
    let is_held = contents.position_at(position.index) == Some(position);
    let is_obsolete = !is_held && !mutants::is_on(Mutant::ObsoleteLogKept);
    is_obsolete.then_some(position)
}

/// What the consensus core is told.
fn recovered(
    contents: &Contents,
    recovering: bool,
    snapshot: Option<Snapshot>,
    configurations: Vec<Entry>,
) -> Recovered {
    Recovered {
        recovering,
        hard_state: contents.hard_state,
        before: contents.before,
        snapshot,
        term_starts: contents.term_starts.clone(),
        last: contents.last,
        configurations,
    }
}

/// What the consensus core would be told by a start that finds this, where there are others to
/// recover from if need be; and what is lost.
pub(crate) fn foresee<F>(meta: &meta::State, look: Look<F>) -> (Recovered, Option<Error>) {
    let recovering = meta.recovering || look.loss.is_some();
    let newest = look.found.newest.as_ref();
    let begins_behind = begins_behind(&look);
    let (mut contents, mut configurations) = match look.log {
        Some(log) => (log.contents, log.configurations),
        None => (empty_behind(begins_behind), Vec::new()),
    };
    if recovering {
        contents.hard_state.seating = seating(contents.hard_state.seating, meta.cluster);
    }
    if let Some(position) = obsolete_for(&contents, newest) {
        contents.begin_behind(position);
        configurations.clear();
    }
    let newest = look.found.newest;
    let recovered = recovered(&contents, recovering, newest, configurations);
    (recovered, look.loss)
}

/// The log as it goes on: behind the newest snapshot, or in the segment that was to follow, if need
/// be. Returns its configurations as well.
fn open_log<D: Disk>(
    disk: D,
    options: Options,
    random: StdRng,
    claimed: meta::Loaded<D::File>,
    log: Log<D::File>,
    look: &Look<D::File>,
) -> Result<(Wal<D>, Vec<Entry>), Error> {
    let newest = look.found.newest.as_ref();
    let mut meta = claimed.state;
    meta.cluster = meta.cluster.or(log.contents.hard_state.seating.cluster());
    let mut contents = log.contents;
    if meta.recovering {
        contents.hard_state.seating = seating(contents.hard_state.seating, meta.cluster);
    }
    let mut places = log.places;
    places.end = End {
        offset: log.segment.end,
        batch: log.batch,
        chain: log.chain,
    };
    let mut wal = Wal {
        synced: Synced {
            hard_state: contents.hard_state,
            last: contents.last,
            batch: log.batch,
            chain: log.chain,
        },
        shared: Arc::new(Shared::new(disk, places, Catalog::new(newest.cloned()))),
        options,
        random,
        meta,
        meta_files: claimed.files,
        segment: log.segment,
        next: None,
        contents,
        appended: WriteId(0),
        recovered: false,
        begin_behind: None,
        given_up: None,
        pending: Vec::new(),
        pending_bytes: 0,
        buffer: Vec::new(),
        failed: false,
    };
    let mut configurations = log.configurations;
    if let Some(position) = obsolete_for(&wal.contents, newest) {
        configurations.clear();
        wal.begin_behind(position);
        wal.write_pending()?;
    } else if log.has_ended {
        wal.start_next(0)?;
    }
    Ok((wal, configurations))
}

/// How far a server has come into its cluster whose log may have lost that: it has met it at least,
/// if meta knows of it, and so takes no part in founding another (rule 41).
fn seating(found: Seating, cluster: Option<ClusterId>) -> Seating {
    match (found, cluster) {
        (Seating::Unseated, Some(cluster)) => Seating::Met(cluster),
        (found, _) => found,
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

/// Where a log begins of which nothing is there: behind the newest snapshot if it was lost.
fn begins_behind<F>(look: &Look<F>) -> Position {
    let newest = look.found.newest.as_ref().filter(|_| look.loss.is_some());
    newest.map_or_else(Position::default, |newest| newest.position)
}

fn empty_behind(before: Position) -> Contents {
    let mut contents = Contents::default();
    contents.begin_behind(before);
    contents
}

/// An empty log with its first segment.
fn first_log<D: Disk>(
    disk: &D,
    options: &Options,
    meta: &meta::State,
    look: &Look<D::File>,
    random: &mut StdRng,
) -> Result<Log<D::File>, Error> {
    let previous = begins_behind(look);
    let header = SegmentHeader {
        identity: meta.identity,
        cluster: None,
        sequence: look.next_sequence,
        previous,
        first_batch: 1,
        file_bytes: options.segment_bytes,
        salt: random.next_u32(),
        chain: Chain::default(),
        begins: look.loss.is_some(),
    };
    let started = start_segment(disk, header, &HardState::default(), &[], None)?;
    let mut places = Places::default();
    places.begin_behind(previous.index);
    places.segments.push_back(Arc::new(header));
    Ok(Log {
        contents: empty_behind(previous),
        configurations: Vec::new(),
        places,
        batch: started.batch,
        segment: started.segment,
        chain: started.chain,
        has_ended: false,
        torn: None,
        again: (SEGMENT_HEADER_BYTES as u64, Vec::new()),
        dirty_end: 0,
    })
}
