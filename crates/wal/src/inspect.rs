//! Looking at a data directory without changing anything in it: what each file holds, what is not
//! as it was written, and what a start would find. What is lost is decided by the code with which a
//! start decides it; what each file holds is read by the same reader, which goes on behind damage.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::sync::Arc;

use bytes::Bytes;
use raft::{ClusterId, Index, Instance, Position, Recovered, Restart, ServerId, Snapshot};

use crate::aside::is_aside;
use crate::disk::Disk;
use crate::error::Error;
use crate::meta::{self, Mark};
use crate::open::{LOCK_NAME, foresee, lock};
use crate::record::Header;
use crate::recover::{Torn, header_of, look, runs};
use crate::scan::Scan;
use crate::segment::{Identity, NEXT_NAME, parse_name};
use crate::snapshot_file::{Reading, parse_snapshot_name, snapshot_name};
use crate::snapshots::{is_unfinished, positions, verify};

/// What is seen of a data directory, file by file and each from front to back.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A record of a segment, whole by itself. That its batch is whole is known when the next one
    /// begins, or the file ends without `Finding::Torn`.
    Record {
        file: &'a str,
        offset: u64,
        header: &'a Header,
        payload: &'a [u8],
    },
    /// A piece of a snapshot's content, whole by itself.
    Piece { file: &'a str, content: Bytes },
    /// All of a file was read, or all of it that can be.
    File(FileReport<'a>),
}

/// What a file holds, and whether it is as it was written.
#[derive(Debug)]
pub struct FileReport<'a> {
    /// Its name; a pattern if it is missing, and part of the name is not known.
    pub file: &'a str,
    pub holds: Holds,
    pub finding: Finding,
}

/// What a file holds.
#[derive(Clone, Debug)]
pub enum Holds {
    Meta {
        server: ServerId,
        instance: Instance,
        restart: Restart,
        cluster: Option<ClusterId>,
        /// An earlier start has marked the server as recovering, and it is not whole again.
        recovering: bool,
        /// How far the log was known to be synced.
        marked: Index,
    },
    Segment {
        tally: Tally,
        /// Where the last whole batch ends; `None` if the segment is damaged.
        bytes: Option<u64>,
    },
    Snapshot {
        snapshot: Snapshot,
        content_bytes: u64,
        /// The log goes on behind it: a start could do with it in place of a newer one.
        is_reached: bool,
    },
    /// Nothing that a server would read: it is removed, written over or left alone.
    Unused(&'static str),
    /// It can't be told.
    Unknown,
}

/// What the records in the whole batches of one segment come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub records: u64,
    pub entries: u64,
    /// The first and the last of the entries, of which some may be superseded.
    pub first: Option<Position>,
    pub last: Option<Position>,
}

/// What is to be said about a file.
#[derive(Clone, Debug)]
pub enum Finding {
    Sound,
    /// It ends in a batch that was never synced: the next start erases that.
    Torn(Torn),
    Damaged(Arc<Error>),
}

/// What it all comes to.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Whose directory it is.
    pub server: ServerId,
    /// How many files are damaged or missing.
    pub damaged: usize,
    /// The first place where something that was synced is lost: a start gives up what is behind it,
    /// and begins to recover. Without others to recover from it refuses with this.
    pub lost: Option<Arc<Error>>,
    /// What a start would find, where there are others to recover from if need be
    /// (`Recovered::recovering`), or why every start would refuse.
    pub start: Result<Recovered, Arc<Error>>,
}

/// Looks at everything in a data directory, and shows it to `see`.
///
/// # Errors
/// `Error::Locked` if a server uses the directory, `Error::NoData` if it is no server's,
/// `Error::Io`, and whatever `see` gives, which ends it.
pub fn inspect<D: Disk>(
    disk: &D,
    see: &mut dyn FnMut(Seen<'_>) -> Result<(), Error>,
) -> Result<Verdict, Error> {
    lock(disk)?;
    let mut names = disk
        .list()
        .map_err(Error::io(disk, "", "list the data directory"))?;
    names.sort_unstable();
    let mut inspection = Inspection {
        disk,
        names: &names,
        see,
        damaged: BTreeSet::new(),
    };
    inspection.run()
}

struct Inspection<'a, D> {
    disk: &'a D,
    /// Of all files, sorted.
    names: &'a [String],
    see: &'a mut dyn FnMut(Seen<'_>) -> Result<(), Error>,
    /// The files that were reported as damaged or missing.
    damaged: BTreeSet<String>,
}

/// What a start makes of it.
struct Start {
    identity: Identity,
    mark: Mark,
    cluster: Option<ClusterId>,
    lost: Option<Arc<Error>>,
    recovered: Result<Recovered, Arc<Error>>,
}

impl<D: Disk> Inspection<'_, D> {
    fn run(&mut self) -> Result<Verdict, Error> {
        let start = self.start()?;
        self.meta()?;
        self.segments(&start)?;
        self.snapshots(&start)?;
        self.others()?;
        // It may be in no file that is there.
        let refusal = start.recovered.as_ref().err();
        for error in start.lost.iter().chain(refusal) {
            self.damage_of(error)?;
        }
        Ok(Verdict {
            server: start.identity.server,
            damaged: self.damaged.len(),
            lost: start.lost,
            start: start.recovered,
        })
    }

    /// Does what a start does, up to where it would change something.
    fn start(&self) -> Result<Start, Error> {
        let refuses = |error: Error, identity| {
            Ok(Start {
                identity,
                mark: Mark::default(),
                cluster: None,
                lost: None,
                recovered: Err(Arc::new(unless_damage(error)?)),
            })
        };
        let claimed = match meta::load(self.disk, self.names) {
            Ok(Some(claimed)) => claimed,
            Ok(None) => {
                let missing = meta::must_be_there(self.disk, self.names).err();
                let directory = self.disk.path().to_path_buf();
                let missing = missing.ok_or(Error::NoData { directory })?;
                return refuses(missing, self.identity_of_segments()?);
            }
            Err(error) => return refuses(error, self.identity_of_segments()?),
        };
        let state = claimed.state;
        let look = match look(self.disk, &claimed, self.names, false) {
            Ok(look) => look,
            Err(error) => return refuses(error, state.identity),
        };
        let seating = look.log.as_ref().map(|log| log.contents.hard_state.seating);
        let cluster = seating.and_then(|seating| seating.cluster());
        let (recovered, loss) = foresee(&state, look);
        Ok(Start {
            identity: state.identity,
            mark: state.mark,
            cluster: cluster.or(state.cluster),
            lost: loss.map(Arc::new),
            recovered: Ok(recovered),
        })
    }

    fn meta(&mut self) -> Result<(), Error> {
        let mut files = Vec::new();
        for name in meta::NAMES {
            if let Some((_, read)) = meta::read_if_there(self.disk, name, self.names)? {
                files.push((name, read));
            }
        }
        // Before it has a second file there is the very first state alone.
        let lacks_one = match files.as_slice() {
            [(_, Ok(state))] => state.sequence != meta::FIRST_SEQUENCE,
            files => files.len() == 1,
        };
        for name in meta::NAMES {
            match files.iter().find(|(file, _)| *file == name) {
                Some((_, Ok(state))) => self.report(name, meta_holds(state), Finding::Sound)?,
                Some((_, Err(error))) => {
                    let error = error.clone().into_error(self.disk, name);
                    self.damaged(name, Holds::Unknown, error)?;
                }
                None if lacks_one => {
                    let file = self.disk.path().join(name);
                    self.damaged(name, Holds::Unknown, Error::Missing { file })?;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Whose directory it is by its segments, where meta can't tell.
    fn identity_of_segments(&self) -> Result<Identity, Error> {
        for name in self.names.iter().filter(|name| parse_name(name).is_some()) {
            if let Some(header) = header_of(self.disk, name)? {
                return Ok(header.identity);
            }
        }
        Ok(Identity {
            server: ServerId(0),
            instance: Instance(0),
        })
    }

    /// Reads the segments of the log, and if that is damaged all others, too.
    fn segments(&mut self, start: &Start) -> Result<(), Error> {
        let is_sound = start.lost.is_none() && start.recovered.is_ok();
        let runs = runs(self.disk, self.names)?;
        for (at, run) in runs.iter().enumerate().rev() {
            let is_newest = at == 0;
            if is_newest || !is_sound {
                let names: Vec<&String> = run.iter().map(|(_, name)| *name).collect();
                self.run_of_segments(start, &names, is_newest)?;
                continue;
            }
            for (_, name) in run {
                let unused = Holds::Unused("given up or dropped for a snapshot");
                self.report(name, unused, Finding::Sound)?;
            }
        }
        Ok(())
    }

    /// Reads segments that follow each other. Behind a damaged one the log is taken to begin anew.
    fn run_of_segments(
        &mut self,
        start: &Start,
        names: &[&String],
        is_newest: bool,
    ) -> Result<(), Error> {
        let mut at = 0;
        while at < names.len() {
            let (disk, see) = (self.disk, &mut *self.see);
            let mut scan = Scan::new(disk, start.identity, start.mark, false, see);
            let mut damage = None;
            while let (None, Some(name)) = (&damage, names.get(at)) {
                at += 1;
                let read = match scan.segment(name, is_newest && at == names.len()) {
                    Ok(read) => read,
                    Err(error) => {
                        damage = Some((name, scan.tally, unless_damage(error)?));
                        continue;
                    }
                };
                if let Some(error) = scan.damage.take() {
                    damage = Some((name, scan.tally, error));
                } else if let Some(read) = read {
                    let holds = Holds::Segment {
                        tally: scan.tally,
                        bytes: Some(read.segment.end),
                    };
                    let finding = read.torn.map_or(Finding::Sound, Finding::Torn);
                    (scan.see)(Seen::File(FileReport {
                        file: name,
                        holds,
                        finding,
                    }))?;
                }
            }
            if let Some((name, tally, error)) = damage {
                let holds = Holds::Segment { tally, bytes: None };
                self.damaged(name, holds, error)?;
            }
        }
        Ok(())
    }

    /// Reads all snapshots, the newest first.
    fn snapshots(&mut self, start: &Start) -> Result<(), Error> {
        let before = start.recovered.as_ref().map(|it| it.before.index);
        let before = before.unwrap_or_default();
        for position in positions(self.names) {
            let name = snapshot_name(position);
            let see = &mut *self.see;
            let verified = verify(
                self.disk,
                position,
                start.cluster,
                Reading::Cached,
                |content| {
                    let file = &name;
                    see(Seen::Piece { file, content })
                },
            );
            match verified {
                Ok((snapshot, content_bytes)) => {
                    let holds = Holds::Snapshot {
                        snapshot,
                        content_bytes,
                        is_reached: position.index >= before,
                    };
                    self.report(&name, holds, Finding::Sound)?;
                }
                Err(error) => self.damaged(&name, Holds::Unknown, unless_damage(error)?)?,
            }
        }
        Ok(())
    }

    /// Names the files that no server reads.
    fn others(&mut self) -> Result<(), Error> {
        for name in self.names {
            let unused = match name.as_str() {
                "." | ".." | LOCK_NAME => continue,
                NEXT_NAME => "the next segment, being prepared",
                meta::TEMPORARY_NAME => "a meta file that was not finished",
                name if meta::NAMES.contains(&name) => continue,
                name if parse_name(name).is_some() => continue,
                name if parse_snapshot_name(name).is_some() => continue,
                name if is_aside(name) => "set aside until what was lost is back",
                name if is_unfinished(name) => "a snapshot that was not finished",
                _ => "not a file of a server",
            };
            self.report(name, Holds::Unused(unused), Finding::Sound)?;
        }
        Ok(())
    }

    fn report(&mut self, file: &str, holds: Holds, finding: Finding) -> Result<(), Error> {
        (self.see)(Seen::File(FileReport {
            file,
            holds,
            finding,
        }))
    }

    fn damaged(&mut self, file: &str, holds: Holds, error: Error) -> Result<(), Error> {
        self.damaged.insert(file.to_owned());
        self.report(file, holds, Finding::Damaged(Arc::new(error)))
    }

    /// Reports what a start complains of, if that was not reported with its file.
    fn damage_of(&mut self, error: &Arc<Error>) -> Result<(), Error> {
        let (Error::Corrupt { file, .. } | Error::Missing { file }) = error.as_ref() else {
            return Ok(());
        };
        let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if !self.damaged.insert(name.to_owned()) {
            return Ok(());
        }
        let error = Arc::clone(error);
        self.report(name, Holds::Unknown, Finding::Damaged(error))
    }
}

/// An error that says that something is not as it was written; any other ends it all.
fn unless_damage(error: Error) -> Result<Error, Error> {
    match error {
        Error::Corrupt { .. } | Error::Missing { .. } | Error::OtherServer { .. } => Ok(error),
        other => Err(other),
    }
}

fn meta_holds(state: &meta::State) -> Holds {
    Holds::Meta {
        server: state.identity.server,
        instance: state.identity.instance,
        restart: state.restart,
        cluster: state.cluster,
        recovering: state.recovering,
        marked: state.mark.index,
    }
}
