//! Why a server does not start, or ends: one clear line each.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;

use raft::{Index, ServerId};
use store::LoadError;
use wal::BackupId;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line makes no sense, or asks for help or the version.
    #[error("{0}")]
    Arguments(#[from] clap::Error),
    #[error("{}: {problem}", file.display())]
    Config { file: PathBuf, problem: String },
    #[error("there is no server {id} in {}", file.display())]
    UnknownId { id: u64, file: PathBuf },
    #[error("{0}")]
    Setting(#[from] cluster::SettingError),
    #[error("log_level: {problem}")]
    LogLevel { problem: String },
    /// What is opened besides client connections would run out of files.
    #[error(
        "the limit of {limit} open files (ulimit -n) is too low: {reserve} are kept for the log, \
         HTTP and the other servers, and there must be room for {connections} clients"
    )]
    FileLimit {
        limit: u64,
        reserve: u64,
        connections: usize,
    },
    #[error("{host}: no such host: {source}")]
    Resolve { host: String, source: io::Error },
    /// The address is in use, or is none of this machine's.
    #[error("cannot listen on {host}:{port}, the {field}: {source}")]
    Listen {
        host: String,
        port: u16,
        field: &'static str,
        source: io::Error,
    },
    #[error("{0}")]
    Log(#[from] wal::Error),
    /// What this server has lost, no majority of others has.
    #[error(
        "{error}; in a cluster of one or two nobody else can vouch for what was there, so nothing is \
         changed: put the files that --check names back as they were, from a copy of this disk made \
         since this server last ran, or begin anew: every server with an empty data directory and \
         --restore of the same backup"
    )]
    DamagedAlone { error: wal::Error },
    /// The others have all that was here, and can't tell whose it was.
    #[error(
        "{error}; without meta.0 or meta.1 it is not known whose data directory this is, and nothing \
         in it is changed: put one of the two back from a copy of this disk made since this server \
         last ran. The others go on while they are a majority"
    )]
    DamagedMeta { error: wal::Error },
    /// The backup, and not this server's disk.
    #[error(
        "{error}; this backup is damaged or not whole, and nothing was restored: use another copy of \
         it, or another backup"
    )]
    DamagedBackup { error: wal::Error },
    /// A snapshot is as it was written, and what was written is no state.
    #[error("the snapshot up to index {index} can't be loaded: {problem}")]
    State { index: Index, problem: LoadError },
    #[error("the process that started this server has ended")]
    ParentEnded,
    /// A thread, a timer or a signal handler can't be had.
    #[error("cannot {operation}: {source}")]
    System {
        operation: &'static str,
        source: io::Error,
    },
    /// A seated peer does not know this data directory (rule 41).
    #[error(
        "server {peer} refuses this server, whose seat another data directory has: was the disk \
         wiped? It comes back only as a new member"
    )]
    SeatTaken { peer: ServerId },
    /// The members of a cluster are those that its log names; a majority of fewer could forget what
    /// was acknowledged.
    #[error(
        "{}: of another cluster, or cluster.toml was changed since: its log names the servers {}, \
         cluster.toml names {}", directory.display(), ids(found), ids(named)
    )]
    OtherMembers {
        directory: PathBuf,
        found: Vec<ServerId>,
        named: Vec<ServerId>,
    },
    /// What a backup holds is no state that this release can read.
    #[error("{}: no backup that this release can read: {problem}", file.display())]
    Backup { file: PathBuf, problem: LoadError },
    /// A seated peer began with another backup than this server.
    #[error(
        "server {peer} refuses this server: it was restored from another backup, {backup}. To join \
         that cluster, empty its data directory and start it without --restore"
    )]
    OtherBackup { peer: ServerId, backup: BackupId },
    /// A seated peer began without a backup: maybe it was this server alone that was restored.
    #[error(
        "server {peer} refuses this server: it was restored from a backup, and server {peer} was \
         not. If the cluster is to have what the backup holds, and nothing else, stop all servers, \
         empty the others' data directories, and restore each from the same backup; if not, empty \
         this server's alone and start it without --restore"
    )]
    NoBackup { peer: ServerId },
    /// Nobody can tell any more what was acknowledged.
    #[error(
        "{lost}; so many servers are recovering that no majority is left to recover from: start all \
         of them with a backup, or a majority with copies of their whole directories from before \
         this was found; what they still had is kept in the files that begin with lost."
    )]
    Stranded { lost: String },
    /// A majority of the members belongs to another cluster.
    #[error("a majority of the members belongs to another cluster than this data directory")]
    OtherCluster,
}

fn ids(servers: &[ServerId]) -> String {
    let ids: Vec<String> = servers.iter().map(ServerId::to_string).collect();
    ids.join(", ")
}

impl Error {
    /// Why a start refuses what it finds in the data directory, of a cluster in which others can give
    /// back what is lost or not.
    pub(crate) fn of_start(error: wal::Error, heals: bool) -> Error {
        match &error {
            wal::Error::Corrupt { file, .. } | wal::Error::Missing { file } if heals => {
                let name = file.file_name().and_then(OsStr::to_str);
                match name.is_some_and(|name| name.starts_with("meta.")) {
                    true => Error::DamagedMeta { error },
                    false => Error::Log(error),
                }
            }
            wal::Error::Corrupt { .. }
            | wal::Error::Missing { .. }
            | wal::Error::Recovering { .. } => Error::DamagedAlone { error },
            _ => Error::Log(error),
        }
    }

    /// Why a file can't be restored from.
    pub(crate) fn of_backup(error: wal::Error) -> Error {
        match error {
            wal::Error::Corrupt { .. } => Error::DamagedBackup { error },
            _ => Error::Log(error),
        }
    }

    /// What `operation`, a verb with its object, ran into.
    pub(crate) fn system(operation: &'static str) -> impl Fn(io::Error) -> Error {
        move |source| Error::System { operation, source }
    }
}
