//! Whose data directory it is and how often it was started, in two files that are written in
//! turn: whatever a crash does to the one, the other is whole.
//!
//! ```text
//! 4096 bytes
//!      0  8 bytes  "QUORMETA"
//!      8  u32      CRC-32C of bytes 12 to 4095
//!     12  u32      format version, 1
//!     16  u64      sequence: that of the file written before + 1
//!     24  u64      server id
//!     32  u64      instance: the random number of the data directory
//!     40  u64      restart number
//!     48  u64      cluster id, 0 if it is not known
//!     56  u64      1 while the server is recovering, 2 while nothing in the directory is to be believed,
//!                  else 0
//!     64  u64      synced mark: sequence of the segment, 0 before there is one
//!     72  u64      synced mark: offset in it, behind the last record that is known to be synced
//!     80  u64      synced mark: the last index there
//!     88  u32      length of the configuration of last resort; reserved, 0
//!     92  u64      checksum of the backup that the directory began with, 0 if it began empty
//!    100           zeros
//! ```
//! All numbers are little-endian. The magic, the checksum and the version stay where they are in
//! every version. A file comes into being under another name and whole; later it is overwritten.
//! Both stay open with the log: a server that has run out of open files can still move its mark on.

use std::fmt;

use bytes::{Buf, BufMut};
use raft::{ClusterId, Index, Instance, Restart, ServerId};
use rand::Rng;
use rand::rngs::StdRng;

use crate::disk::Disk;
use crate::error::{Error, Problem, is_unreadable};
use crate::segment::{FORMAT_VERSION, Identity, Unreadable, parse_name, seal, unseal};
use crate::snapshot_file::parse_snapshot_name;

const MAGIC: &[u8; 8] = b"QUORMETA";
/// Of the state that a directory's first file begins with.
pub(crate) const FIRST_SEQUENCE: u64 = 1;
const META_BYTES: usize = 4096;
pub(crate) const NAMES: [&str; 2] = ["meta.0", "meta.1"];
pub(crate) const TEMPORARY_NAME: &str = "meta.tmp";

/// What both files are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Grows with each write; its parity says which file has it.
    pub(crate) sequence: u64,
    pub(crate) identity: Identity,
    pub(crate) restart: Restart,
    pub(crate) cluster: Option<ClusterId>,
    /// What was acknowledged may be gone from this directory. In both files before anything is given
    /// up, so that no one of them can lose it.
    pub(crate) recovering: bool,
    /// The state that this directory leads to is not that of the other servers: the next start gives
    /// up all of it.
    pub(crate) distrusted: bool,
    pub(crate) mark: Mark,
    /// The backup that the directory began with.
    pub(crate) backup: Option<BackupId>,
}

/// What tells one backup from every other: the checksum over its file. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupId(pub u64);

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// How far the log was synced at some time: what is torn lies behind it. Written now and then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// 0 before there is a segment.
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) index: Index,
}

/// `meta.0` and `meta.1`, each open once it is there.
#[derive(Debug)]
pub(crate) struct Files<F>([Option<F>; 2]);

/// What the files say at start.
#[derive(Debug)]
pub(crate) struct Loaded<F> {
    pub(crate) files: Files<F>,
    pub(crate) state: State,
    /// One of the files can't be read. It may have been a write that a crash tore, or the newest
    /// state that rotted: then one more start was made than `state` says.
    pub(crate) doubtful: bool,
}

impl<F> Loaded<F> {
    /// A file is there that can't be read: the mark may have been further on, by one segment.
    pub(crate) fn may_have_marked_more(&self) -> bool {
        self.doubtful && self.files.0.iter().all(Option::is_some)
    }
}

impl State {
    fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(META_BYTES - 12);
        fields.put_u32_le(FORMAT_VERSION);
        fields.put_u64_le(self.sequence);
        fields.put_u64_le(self.identity.server.0);
        fields.put_u64_le(self.identity.instance.0);
        fields.put_u64_le(self.restart.0);
        fields.put_u64_le(self.cluster.map_or(0, |cluster| cluster.0));
        fields.put_u64_le(if self.distrusted {
            2
        } else {
            self.recovering.into()
        });
        fields.put_u64_le(self.mark.segment);
        fields.put_u64_le(self.mark.offset);
        fields.put_u64_le(self.mark.index.0);
        fields.put_u32_le(0);
        fields.put_u64_le(self.backup.map_or(0, |backup| backup.0));
        seal(MAGIC, META_BYTES, fields)
    }

    fn decode(bytes: &[u8]) -> Result<State, Unreadable> {
        let mut fields = unseal(MAGIC, bytes)?;
        let sequence = fields.get_u64_le();
        let server = ServerId(fields.get_u64_le());
        let instance = Instance(fields.get_u64_le());
        let restart = Restart(fields.get_u64_le());
        let cluster = fields.get_u64_le();
        let (recovering, distrusted) = match fields.get_u64_le() {
            0 => (false, false),
            1 => (true, false),
            2 => (true, true),
            found => {
                return Err(Unreadable::Corrupt(Problem::Unexpected {
                    what: "recovering mark",
                    expected: 0,
                    found,
                }));
            }
        };
        let mark = Mark {
            segment: fields.get_u64_le(),
            offset: fields.get_u64_le(),
            index: Index(fields.get_u64_le()),
        };
        let _configuration_bytes = fields.get_u32_le();
        let backup = fields.get_u64_le();
        Ok(State {
            sequence,
            identity: Identity { server, instance },
            restart,
            cluster: (cluster != 0).then_some(ClusterId(cluster)),
            recovering,
            distrusted,
            mark,
            backup: (backup != 0).then_some(BackupId(backup)),
        })
    }
}

/// What the directory with these names says it is, which must be this server's. At the first
/// start it becomes this server's, with a random instance number.
pub(crate) fn claim<D: Disk>(
    disk: &D,
    server: ServerId,
    names: &[String],
    random: &mut StdRng,
) -> Result<Loaded<D::File>, Error> {
    if let Some(loaded) = load(disk, names)? {
        let found = loaded.state.identity.server;
        if found != server {
            return Err(Error::OtherServer {
                directory: disk.path().to_path_buf(),
                expected: server,
                found,
            });
        }
        return Ok(loaded);
    }
    must_be_there(disk, names)?;
    let (files, state) = begin(disk, server, None, random)?;
    Ok(Loaded {
        files,
        state,
        doubtful: false,
    })
}

/// Makes an empty directory this server's, with a random instance number.
pub(crate) fn begin<D: Disk>(
    disk: &D,
    server: ServerId,
    backup: Option<BackupId>,
    random: &mut StdRng,
) -> Result<(Files<D::File>, State), Error> {
    let instance = Instance(random.next_u64().max(1));
    let state = State {
        sequence: FIRST_SEQUENCE,
        identity: Identity { server, instance },
        restart: Restart(0),
        cluster: None,
        recovering: false,
        distrusted: false,
        mark: Mark::default(),
        backup,
    };
    let mut files = Files([None, None]);
    files.write(disk, &state)?;
    Ok((files, state))
}

/// Without the files there is nothing that they would be about.
pub(crate) fn must_be_there<D: Disk>(disk: &D, names: &[String]) -> Result<(), Error> {
    let has_data =
        |name: &String| parse_name(name).is_some() || parse_snapshot_name(name).is_some();
    if names.iter().any(has_data) {
        return Err(Error::Missing {
            file: disk.path().join("meta.0"),
        });
    }
    Ok(())
}

/// Reads the files of a directory with these names; `None` if it has neither.
pub(crate) fn load<D: Disk>(disk: &D, names: &[String]) -> Result<Option<Loaded<D::File>>, Error> {
    let mut files = Files([None, None]);
    let mut states = Vec::new();
    for (name, file) in NAMES.into_iter().zip(&mut files.0) {
        if let Some((opened, state)) = read_if_there(disk, name, names)? {
            *file = Some(opened);
            states.push((name, state));
        }
    }
    Ok(newest(disk, states)?.map(|(state, doubtful)| Loaded {
        files,
        state,
        doubtful,
    }))
}

/// What a file says that may be there.
pub(crate) type Read = Result<State, Unreadable>;

/// The newest of what the files say, and whether it is in doubt; `None` if there are none.
fn newest<D: Disk>(disk: &D, files: Vec<(&str, Read)>) -> Result<Option<(State, bool)>, Error> {
    let mut newest: Option<State> = None;
    let mut readable = 0;
    let mut unreadable: Option<Error> = None;
    for (name, state) in files {
        match state {
            Ok(state) => {
                readable += 1;
                if newest.is_none_or(|newest| newest.sequence < state.sequence) {
                    newest = Some(state);
                }
            }
            // An older release must not run on what a newer one wrote, not even in part.
            Err(newer @ Unreadable::Newer(_)) => return Err(newer.into_error(disk, name)),
            Err(corrupt) => unreadable = Some(corrupt.into_error(disk, name)),
        }
    }
    match (newest, unreadable) {
        (Some(state), _) => Ok(Some((state, readable < NAMES.len()))),
        (None, Some(error)) => Err(error),
        (None, None) => Ok(None),
    }
}

/// Opens and reads this file, if it is among these.
pub(crate) fn read_if_there<D: Disk>(
    disk: &D,
    name: &str,
    names: &[String],
) -> Result<Option<(D::File, Read)>, Error> {
    if !names.iter().any(|listed| listed == name) {
        return Ok(None);
    }
    let file = disk.open(name).map_err(Error::io(disk, name, "open"))?;
    let state = match read(disk, name, &file)? {
        // What is read wrongly once is read again, from the disk.
        Err(Unreadable::Corrupt(_)) => {
            disk.forget(name);
            read(disk, name, &file)?
        }
        state => state,
    };
    Ok(Some((file, state)))
}

fn read<D: Disk>(disk: &D, name: &str, file: &D::File) -> Result<Read, Error> {
    let failed = Error::io(disk, name, "read");
    let length = disk.length(file).map_err(&failed)?;
    if length < META_BYTES as u64 {
        return Ok(Err(Unreadable::Corrupt(Problem::Unexpected {
            what: "length of the file",
            expected: META_BYTES as u64,
            found: length,
        })));
    }
    let mut bytes = vec![0; META_BYTES];
    match disk.read_at(file, &mut bytes, 0) {
        Ok(()) => Ok(State::decode(&bytes)),
        Err(error) if is_unreadable(&error) => Ok(Err(Unreadable::Corrupt(Problem::Unreadable))),
        Err(error) => Err(failed(error)),
    }
}

impl<F> Files<F> {
    /// Writes a state over the older of the two files, and makes it durable.
    pub(crate) fn write<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        state: &State,
    ) -> Result<(), Error> {
        let [first, second] = &mut self.0;
        let (place, name) = if state.sequence % 2 == 1 {
            (first, "meta.0")
        } else {
            (second, "meta.1")
        };
        if let Some(file) = place {
            return write(disk, name, file, state);
        }
        let file =
            disk.create(TEMPORARY_NAME)
                .map_err(Error::io(disk, TEMPORARY_NAME, "create"))?;
        write(disk, TEMPORARY_NAME, &file, state)?;
        disk.rename(TEMPORARY_NAME, name)
            .map_err(Error::io(disk, TEMPORARY_NAME, "rename"))?;
        disk.sync_directory()
            .map_err(Error::io(disk, "", "sync the data directory"))?;
        *place = Some(file);
        Ok(())
    }
}

fn write<D: Disk>(disk: &D, name: &str, file: &D::File, state: &State) -> Result<(), Error> {
    disk.write_at(file, &state.encode(), 0)
        .map_err(Error::io(disk, name, "write"))?;
    disk.sync(file).map_err(Error::io(disk, name, "sync"))
}
