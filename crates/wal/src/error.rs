//! What can go wrong with a log, each with a line that says where and what. What to do about damage
//! depends on whose file it is and who else has what was in it: that is for the caller to say.

use std::fmt;
use std::io;
use std::path::PathBuf;

use raft::ServerId;
use rustix::io::Errno;

use crate::disk::Disk;

/// Why the log can't be opened, or can't be used any more. After an error of `append` or `sync`
/// it is not known what is on disk: the process ends (rule 7).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused; never tried again.
    #[error("{}: cannot {operation}: {source}", file.display())]
    Io {
        file: PathBuf,
        /// What was tried, as a verb.
        operation: &'static str,
        source: io::Error,
    },
    /// Something that was synced is not there as it was written.
    #[error("{}: corrupt at byte {offset}: {problem}", file.display())]
    Corrupt {
        file: PathBuf,
        offset: u64,
        problem: Problem,
    },
    /// A file that must be there is not.
    #[error("{}: missing", file.display())]
    Missing { file: PathBuf },
    /// An earlier start has found something missing, and this server has no peers to get it from.
    #[error(
        "{}: is marked as recovering, and there are no other servers to recover from",
        directory.display()
    )]
    Recovering { directory: PathBuf },
    /// Another process uses the directory.
    #[error("{}: locked: another process is using this data directory", file.display())]
    Locked { file: PathBuf },
    /// The directory is another server's (rule 41).
    #[error(
        "{}: is the data directory of server {found}, not of server {expected}",
        directory.display()
    )]
    OtherServer {
        directory: PathBuf,
        expected: ServerId,
        found: ServerId,
    },
    /// There is none of the files that a server keeps.
    #[error("{}: no server has kept its data here", directory.display())]
    NoData { directory: PathBuf },
    /// Only an empty directory can begin with a backup.
    #[error("{}: is not empty, and so is not restored into: it holds {found}", directory.display())]
    NotEmpty { directory: PathBuf, found: String },
    /// A later release wrote this.
    #[error(
        "{}: has format version {found}, and this release reads versions up to {newest}",
        file.display()
    )]
    NewerFormat {
        file: PathBuf,
        found: u32,
        newest: u32,
    },
    /// There is no space for a snapshot, which is given up, or for the log's next segment, which
    /// waits; nothing else is amiss (rules 7 and 9).
    #[error("{}: no space left", file.display())]
    NoSpace { file: PathBuf },
    /// A peer sent other bytes of a snapshot than the next ones.
    #[error(
        "{}: received the bytes at {found} of a snapshot where those at {expected} were next",
        file.display()
    )]
    Misplaced {
        file: PathBuf,
        expected: u64,
        found: u64,
    },
    /// An earlier call failed, and what is on disk since is not known.
    #[error("the log can't be used after a failed write")]
    Failed,
}

/// What is wrong with a corrupt place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Bytes that a checksum covers are not those that were written.
    Checksum { expected: u32, found: u32 },
    /// Zeros stand where there was something.
    Lost,
    /// Something other than zeros stands between two records.
    Padding,
    /// The disk reports an error in place of what was written.
    Unreadable,
    /// A checksum is right, and the number or code it covers still makes no sense here.
    Unexpected {
        what: &'static str,
        expected: u64,
        found: u64,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Checksum { expected, found } => {
                write!(
                    f,
                    "the checksum is {found:08x} and should be {expected:08x}"
                )
            }
            Problem::Lost => f.write_str("zeros where a record was written"),
            Problem::Padding => f.write_str("something other than zeros between two records"),
            Problem::Unreadable => f.write_str("the disk gives an error in place of what it holds"),
            Problem::Unexpected {
                what,
                expected,
                found,
            } => write!(f, "the {what} is {found} and should be {expected}"),
        }
    }
}

impl Error {
    /// What makes an `Error` of a failure to do `operation` to the file of this name; the
    /// directory itself has the name "".
    pub(crate) fn io<D: Disk>(
        disk: &D,
        name: &str,
        operation: &'static str,
    ) -> impl Fn(io::Error) -> Error {
        let file = if name.is_empty() {
            disk.path().to_path_buf()
        } else {
            disk.path().join(name)
        };
        move |source| Error::Io {
            file: file.clone(),
            operation,
            source,
        }
    }

    /// The name of the file that it is about, if it is about one.
    pub(crate) fn file_name(&self) -> Option<&str> {
        match self {
            Error::Io { file, .. } | Error::Corrupt { file, .. } | Error::Missing { file } => {
                file.file_name()?.to_str()
            }
            _ => None,
        }
    }

    /// Says of a place that the disk can't give back what it means at a start: that it is damaged.
    pub(crate) fn or_damage(self, offset: u64) -> Error {
        match self {
            Error::Io { file, source, .. } if is_unreadable(&source) => Error::Corrupt {
                file,
                offset,
                problem: Problem::Unreadable,
            },
            other => other,
        }
    }

    /// Says of a full disk what it means for a file that nothing depends on yet (rule 7).
    pub(crate) fn without_space(self) -> Error {
        match self {
            Error::Io { file, source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Error::NoSpace { file }
            }
            other => other,
        }
    }
}

/// Whether the disk says that it can't give back what it holds. Every other error is about
/// something else, which may be over the next time: permissions, too many open files, memory.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}
