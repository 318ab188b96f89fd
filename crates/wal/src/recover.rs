//! What a start makes of the files that it finds: looks at all of them, and says what of the log
//! there is and whether something that was synced is lost. A check says the same with the same code.
//! Nothing is changed here: what a start does about it then is in `mend.rs`.
//!
//! A batch counts once its last record is there, so a write of the core is in the log wholly or
//! not at all. The first place where no valid record is ends the log, and is one of two things:
//!
//! - *Torn*: the batch that starts there or reaches over it was never synced, and so nothing in it
//!   was acknowledged. That holds if the place is in the last segment and not below the synced
//!   mark, if it looks like sectors that did not reach the disk (a header all zeros, or a payload
//!   with more parts of zeros than its header counts), and if no record of a later batch is
//!   behind it, since a batch is only written when the one before is synced. The whole batch is
//!   erased.
//! - *Lost*: everything else, and segments that are missing, and a log that begins behind what the
//!   snapshots reach; a place that the disk gives an error for, too. What was acknowledged may be
//!   gone, and a vote. Kept are the whole batches in front of the first such place, if the log
//!   begins where it can be used; else the newest snapshot; else nothing. All else is given up,
//!   after meta has the mark that says so, and set aside (`aside.rs`).
//!
//! One thing can't be told from a torn batch, and lies outside what the log survives: a disk that
//! said that the newest batch was synced, and lost a sector of it (or the only bit that was set
//! in one) before the mark was moved on.

use std::path::PathBuf;

use raft::{ClusterId, Entry};

use crate::contents::Contents;
use crate::disk::Disk;
use crate::error::Error;
use crate::meta;
use crate::reader::Places;
use crate::record::Chain;
use crate::scan::scan;
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader, parse_name};
use crate::snapshot_file::parse_snapshot_name;
use crate::snapshots::{Found, find};
use crate::window::Window;

/// A batch at the end of the log that was never synced, and is erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    pub file: PathBuf,
    /// Where the log ends.
    pub offset: u64,
    /// How many bytes of the batch there were.
    pub bytes: u64,
}

/// What the segments held.
pub(crate) struct Log<F> {
    pub(crate) contents: Contents,
    pub(crate) configurations: Vec<Entry>,
    pub(crate) places: Places,
    /// The last batch.
    pub(crate) batch: u64,
    /// The last segment.
    pub(crate) segment: Segment<F>,
    pub(crate) chain: Chain,
    /// That segment has its end record: the log has to go on in the next one, which was not made.
    pub(crate) has_ended: bool,
    pub(crate) torn: Option<Torn>,
    /// The last batch as it is, from the start of its block on, and where that is.
    pub(crate) again: (u64, Vec<u8>),
    /// Up to where there is something else than zeros behind the end.
    pub(crate) dirty_end: u64,
}

/// What a directory holds, before anything in it is changed.
pub(crate) struct Look<F> {
    /// `None` if nothing of a log can be used, or there never was one.
    pub(crate) log: Option<Log<F>>,
    pub(crate) found: Found,
    /// Something that was synced is not there as it was written: the first such place.
    pub(crate) loss: Option<Error>,
    /// Segments that the log does without: what is in them was given up, dropped or lost.
    pub(crate) useless: Vec<String>,
    /// Behind those of all segments that there are, or were.
    pub(crate) next_sequence: u64,
}

/// Looks at all segments and snapshots among these names, and changes nothing. What is read wrongly
/// once is read again, from the disk and not from memory, before it counts as lost. Where the entries
/// are is noted if that is wanted.
pub(crate) fn look<D: Disk>(
    disk: &D,
    claimed: &meta::Loaded<D::File>,
    names: &[String],
    notes_places: bool,
) -> Result<Look<D::File>, Error> {
    if claimed.state.distrusted {
        return Ok(believe_nothing(disk, claimed, names));
    }
    let first = look_once(disk, claimed, names, notes_places)?;
    if first.loss.is_none() && first.found.damaged.is_empty() {
        return Ok(first);
    }
    let is_read = |name: &str| parse_name(name).is_some() || parse_snapshot_name(name).is_some();
    for name in names.iter().filter(|name| is_read(name)) {
        disk.forget(name);
    }
    look_once(disk, claimed, names, notes_places)
}

/// All that there is, is as good as lost.
fn believe_nothing<D: Disk>(
    disk: &D,
    claimed: &meta::Loaded<D::File>,
    names: &[String],
) -> Look<D::File> {
    let segments = names.iter().filter_map(|name| parse_name(name));
    let newest = segments.map(|(sequence, _)| sequence).max();
    let is_data =
        |name: &&String| parse_name(name).is_some() || parse_snapshot_name(name).is_some();
    Look {
        log: None,
        found: Found::default(),
        loss: Some(Error::Distrusted {
            directory: disk.path().to_path_buf(),
        }),
        useless: names.iter().filter(is_data).cloned().collect(),
        next_sequence: newest.unwrap_or(0).max(claimed.state.mark.segment) + 1,
    }
}

fn look_once<D: Disk>(
    disk: &D,
    claimed: &meta::Loaded<D::File>,
    names: &[String],
    notes_places: bool,
) -> Result<Look<D::File>, Error> {
    let meta = &claimed.state;
    let runs = runs(disk, names)?;
    let newest = runs.iter().flatten().map(|(sequence, _)| *sequence).max();
    let newest = newest.unwrap_or(0);
    let mut loss = (newest < meta.mark.segment).then(|| missing(disk, newest + 1));
    let mut found: Option<Found> = None;
    let mut log = None;
    for (at, run) in runs.iter().enumerate() {
        let run: Vec<&String> = run.iter().map(|(_, name)| *name).collect();
        let scanned = scan(disk, meta.identity, meta.mark, &run, at == 0, notes_places)?;
        loss = loss.or(scanned.damage);
        let Some(scanned) = scanned.log else {
            continue;
        };
        let known = found.take();
        let known = match known {
            Some(found) => found,
            None => find(disk, names, cluster(meta, &scanned))?,
        };
        let complaint = reaches_back(disk, &scanned, &known).err();
        found = Some(known);
        if complaint.is_none() {
            log = Some(scanned);
            break;
        }
        loss = loss.or(complaint);
    }
    let mut marked = meta.mark.segment;
    // The end of the log says that there was another segment, or nothing does: when meta can't be
    // believed to know of the newest, that one is gone.
    let has_ended = log.as_ref().is_none_or(|log| log.has_ended);
    if loss.is_none() && has_ended && claimed.may_have_marked_more() {
        loss = Some(missing(disk, newest + 1));
        marked = marked.max(newest + 1);
    }
    let found = match found {
        Some(found) => found,
        None => find(disk, names, meta.cluster)?,
    };
    // What began with a backup never is without a snapshot, unless that is known to be lost.
    let must_have_one = meta.backup.is_some() && !meta.recovering;
    if loss.is_none() && must_have_one && found.newest.is_none() {
        loss = Some(without_snapshot(disk, &found));
    }
    let used = log.iter().flat_map(|log| &log.places.segments);
    let used: Vec<String> = used.map(|header| header.name()).collect();
    let segments = names.iter().filter(|name| parse_name(name).is_some());
    let useless = segments.filter(|name| !used.contains(name));
    let useless = useless.cloned().collect();
    Ok(Look {
        log,
        found,
        loss,
        useless,
        next_sequence: newest.max(marked) + 1,
    })
}

/// The cluster that this directory is known to be of.
fn cluster<F>(meta: &meta::State, log: &Log<F>) -> Option<ClusterId> {
    log.contents.hard_state.seating.cluster().or(meta.cluster)
}

/// Segments one after the other, with their sequences.
pub(crate) type Run<'a> = Vec<(u64, &'a String)>;

/// All segments in runs without a gap, the newest first; each from the last segment on that begins a
/// log. The newest is the log. What is before a gap was dropped for a snapshot, and came back or was
/// not yet gone at a crash; or else the log begins too late for the snapshot.
pub(crate) fn runs<'a, D: Disk>(disk: &D, names: &'a [String]) -> Result<Vec<Run<'a>>, Error> {
    let mut segments: Run<'a> = names
        .iter()
        .filter_map(|name| Some((parse_name(name)?.0, name)))
        .collect();
    segments.sort_unstable();
    let mut runs: Vec<Run<'a>> = Vec::new();
    let mut begun = false;
    for (sequence, name) in segments.into_iter().rev() {
        let goes_on = runs.last().and_then(|run| run.last());
        let goes_on = goes_on.is_some_and(|(behind, _)| sequence + 1 == *behind) && !begun;
        match runs.last_mut() {
            Some(run) if goes_on => run.push((sequence, name)),
            _ => runs.push(vec![(sequence, name)]),
        }
        begun = begins(disk, name)?;
    }
    for run in &mut runs {
        run.reverse();
    }
    Ok(runs)
}

/// The error for a segment that is not there.
fn missing<D: Disk>(disk: &D, sequence: u64) -> Error {
    Error::Missing {
        file: disk.path().join(format!("wal-{sequence:016x}-*.log")),
    }
}

/// True if the log begins with this segment. One that can't be read is complained of later.
fn begins<D: Disk>(disk: &D, name: &str) -> Result<bool, Error> {
    Ok(header_of(disk, name)?.is_some_and(|header| header.begins))
}

/// The header of this segment, if it can be read.
pub(crate) fn header_of<D: Disk>(disk: &D, name: &str) -> Result<Option<SegmentHeader>, Error> {
    let window = Window::open(disk, name)?;
    if window.file_bytes < SEGMENT_HEADER_BYTES as u64 {
        return Ok(None);
    }
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    match window.read_header(&mut bytes) {
        Err(Error::Corrupt { .. }) => return Ok(None),
        read => read?,
    }
    Ok(SegmentHeader::decode(&bytes).ok())
}

/// Checks that nothing is missing between the newest snapshot and the log.
fn reaches_back<D: Disk>(disk: &D, log: &Log<D::File>, found: &Found) -> Result<(), Error> {
    let first = log.places.segments.front();
    let first = first.expect("there is a segment");
    let before = log.contents.before.index;
    let holds_all = first.sequence == 1 || (first.begins && before.0 == 0);
    let newest = found.newest.as_ref();
    if holds_all || newest.is_some_and(|newest| newest.position.index >= before) {
        return Ok(());
    }
    Err(damage(found).unwrap_or_else(|| missing(disk, first.sequence - 1)))
}

/// The error for a snapshot that there must be, and that can't be used.
fn without_snapshot<D: Disk>(disk: &D, found: &Found) -> Error {
    damage(found).unwrap_or_else(|| Error::Missing {
        file: disk.path().join("snap-*.snap"),
    })
}

/// What is wrong with the newest snapshot.
fn damage(found: &Found) -> Option<Error> {
    let damaged = found.damaged.first()?;
    Some(Error::Corrupt {
        file: damaged.file.clone(),
        offset: damaged.offset,
        problem: damaged.problem.clone(),
    })
}
