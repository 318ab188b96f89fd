//! Looking at a data directory without changing anything in it: what each file holds, what is not
//! as it was written, and what a start would find. It reads with the code that a start reads with,
//! and goes on where a start would stop.

use std::sync::Arc;

use bytes::Bytes;
use raft::{ClusterId, Entry, Index, Instance, Position, Recovered, Restart, ServerId, Snapshot};

use crate::contents::Contents;
use crate::disk::Disk;
use crate::error::Error;
use crate::meta::{self, Mark};
use crate::open::{LOCK_NAME, lock, obsolete_for, reaches_back, recovered};
use crate::record::Header;
use crate::recover::{Scan, Segments, Torn, header_of, segments, segments_named};
use crate::segment::{Identity, NEXT_NAME, parse_name};
use crate::snapshot_file::{parse_snapshot_name, snapshot_name};
use crate::snapshots::{Damaged, Found, is_unfinished, positions, verify};

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
    /// What a start would find, or why it would refuse.
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
        damaged: 0,
        refusal: None,
    };
    inspection.run()
}

struct Inspection<'a, D> {
    disk: &'a D,
    /// Of all files, sorted.
    names: &'a [String],
    see: &'a mut dyn FnMut(Seen<'_>) -> Result<(), Error>,
    damaged: usize,
    /// The first thing that no server starts on.
    refusal: Option<Arc<Error>>,
}

/// What the segments come to.
#[derive(Default)]
struct Log {
    /// The sequence of the first one.
    first: u64,
    contents: Contents,
    configurations: Vec<Entry>,
}

impl<D: Disk> Inspection<'_, D> {
    /// In the order of `Wal::open`, so that what is complained of first is the same.
    fn run(&mut self) -> Result<Verdict, Error> {
        let (identity, mark) = self.meta()?;
        let mut log = self.segments(identity, mark)?;
        let found = self.snapshots(log.contents.hard_state.seating.cluster())?;
        if self.refusal.is_none() && log.first > 0 {
            self.reaches_back(&log, &found)?;
        }
        self.others()?;
        if let Some(position) = obsolete_for(&log.contents, found.newest.as_ref()) {
            log.contents.begin_behind(position);
            log.configurations.clear();
        }
        let start = recovered(&log.contents, found.newest, log.configurations);
        Ok(Verdict {
            server: identity.server,
            damaged: self.damaged,
            start: self.refusal.take().map_or(Ok(start), Err),
        })
    }

    /// Whose directory it is, and how far its log was synced.
    fn meta(&mut self) -> Result<(Identity, Mark), Error> {
        let mut files = Vec::new();
        for name in meta::NAMES {
            if let Some((_, read)) = meta::read_if_there(self.disk, name, self.names)? {
                files.push((name, read));
            }
        }
        let newest = meta::newest(self.disk, files.clone());
        let newest = newest.map_or_else(|error| unless_damage(error).map(Err), |it| Ok(Ok(it)))?;
        // Before it has a second file there is the very first state alone.
        let lacks_one = files.len() == 1
            && !matches!(&newest, Ok(Some((state, _))) if state.sequence == meta::FIRST_SEQUENCE);
        for name in meta::NAMES {
            match files.iter().find(|(file, _)| *file == name) {
                Some((_, Ok(state))) => self.report(name, meta_holds(state), Finding::Sound)?,
                Some((_, Err(error))) => {
                    self.damaged(
                        name,
                        Holds::Unknown,
                        error.clone().into_error(self.disk, name),
                    )?;
                }
                None if lacks_one => {
                    let file = self.disk.path().join(name);
                    self.damaged(name, Holds::Unknown, Error::Missing { file })?;
                }
                None => {}
            }
        }
        match newest {
            Ok(Some((state, _))) => Ok((state.identity, state.mark)),
            Ok(None) => {
                let missing = meta::must_be_there(self.disk, self.names).err();
                let directory = self.disk.path().to_path_buf();
                let missing = missing.ok_or(Error::NoData { directory })?;
                self.refuse(meta::NAMES[0], Holds::Unknown, missing)?;
                Ok((self.identity_of_segments()?, Mark::default()))
            }
            Err(error) => {
                // It was reported with its file.
                self.refusal = Some(Arc::new(error));
                Ok((self.identity_of_segments()?, Mark::default()))
            }
        }
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

    /// Reads all segments. Behind a damaged one the log is taken to begin anew.
    fn segments(&mut self, identity: Identity, mark: Mark) -> Result<Log, Error> {
        let disk = self.disk;
        let Segments { names, useless } = match segments(disk, mark, self.names) {
            Err(error @ Error::Missing { .. }) => {
                let last = self.names.iter().filter_map(|name| parse_name(name)).max();
                let sequence = last.map_or(0, |(sequence, _)| sequence) + 1;
                self.refuse(&segments_named(sequence), Holds::Unknown, error)?;
                segments(disk, Mark::default(), self.names)?
            }
            segments => segments?,
        };
        for name in &useless {
            let unused = Holds::Unused("given up or dropped for a snapshot");
            self.report(name, unused, Finding::Sound)?;
        }
        let mut log = Log::default();
        if let Some((first, _)) = names.first().and_then(|name| parse_name(name)) {
            log.first = first;
        }
        let mut at = 0;
        while at < names.len() {
            let mut scan = Scan::new(disk, identity, mark, None, &mut *self.see);
            let mut damage = None;
            while let (None, Some(name)) = (&damage, names.get(at)) {
                at += 1;
                match scan.segment(name, at == names.len()) {
                    Ok(scanned) => {
                        let holds = Holds::Segment {
                            tally: scan.tally,
                            bytes: Some(scanned.segment.end),
                        };
                        let finding = scanned.torn.map_or(Finding::Sound, Finding::Torn);
                        (scan.see)(Seen::File(FileReport {
                            file: name,
                            holds,
                            finding,
                        }))?;
                    }
                    Err(error) => damage = Some((name, scan.tally, unless_damage(error)?)),
                }
            }
            log.contents = scan.contents;
            log.configurations = scan.configurations;
            if let Some((name, tally, error)) = damage {
                let holds = Holds::Segment { tally, bytes: None };
                self.refuse(name, holds, error)?;
            }
        }
        Ok(log)
    }

    /// Reads all snapshots, the newest first.
    fn snapshots(&mut self, cluster: Option<ClusterId>) -> Result<Found, Error> {
        let mut found = Found::default();
        for position in positions(self.names) {
            let name = snapshot_name(position);
            let see = &mut *self.see;
            let verified = verify(self.disk, position, cluster, |content| {
                let file = &name;
                see(Seen::Piece { file, content })
            });
            match verified {
                Ok((snapshot, content_bytes)) => {
                    let holds = Holds::Snapshot {
                        snapshot: snapshot.clone(),
                        content_bytes,
                    };
                    self.report(&name, holds, Finding::Sound)?;
                    found.newest.get_or_insert(snapshot);
                }
                Err(error) => {
                    let error = unless_damage(error)?;
                    if found.newest.is_none() {
                        found.damaged.extend(Damaged::of(&error));
                    }
                    self.damaged(&name, Holds::Unknown, error)?;
                }
            }
        }
        Ok(found)
    }

    /// Checks that nothing is missing between the newest snapshot and the log.
    fn reaches_back(&mut self, log: &Log, found: &Found) -> Result<(), Error> {
        match reaches_back(self.disk, log.first, log.contents.before, found) {
            Err(error @ Error::Missing { .. }) => {
                self.refuse(&segments_named(log.first - 1), Holds::Unknown, error)
            }
            Err(error) => {
                // It was reported with its file.
                self.refusal = Some(Arc::new(error));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
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

    /// Reports what a server starts in spite of.
    fn damaged(&mut self, file: &str, holds: Holds, error: Error) -> Result<(), Error> {
        self.damaged += 1;
        self.report(file, holds, Finding::Damaged(Arc::new(error)))
    }

    /// Reports what no server starts on.
    fn refuse(&mut self, file: &str, holds: Holds, error: Error) -> Result<(), Error> {
        self.damaged += 1;
        let error = Arc::new(error);
        self.refusal.get_or_insert(Arc::clone(&error));
        self.report(file, holds, Finding::Damaged(error))
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
        marked: state.mark.index,
    }
}
