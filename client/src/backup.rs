//! Backups of a running cluster: the whole state, as the leader's HTTP port gives it out, in a file
//! that is there whole or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use wal::Backup;

use crate::Address;

/// A server that says nothing for this long while it gives out a snapshot has gone.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The longest head of an answer, and the longest body of a refusal.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How much of the snapshot is read at a time.
const READ_BYTES: usize = 256 << 10;
/// How long a cluster without a leader is left alone.
const PAUSE: Duration = Duration::from_millis(100);

/// A backup that was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    pub bytes: u64,
    /// The checksum that tells it from every other, in 16 hex digits.
    pub backup: String,
    /// The cluster that it is of, in 16 hex digits.
    pub cluster: String,
    /// The last entry of the log that it holds.
    pub index: u64,
    pub term: u64,
}

/// Why there is no backup.
#[derive(Debug, Error)]
pub enum SaveError {
    #[error("{}: {error}", file.display())]
    File { file: PathBuf, error: io::Error },
    /// A folder, a device or the like is no place for a backup.
    #[error("{}: is there and is no regular file: name one, or one that is not there yet", file.display())]
    NoRegularFile { file: PathBuf },
    /// What a restore could not name either.
    #[error("{}: is no name of a file in UTF-8", file.display())]
    Name { file: PathBuf },
    /// The leader was not found in time.
    #[error("no leader has answered in time: {last}")]
    Unreachable { last: String },
    #[error(
        "the leader's answer broke off after {bytes} bytes, nothing is saved, try again: {error}"
    )]
    BrokenOff { bytes: u64, error: io::Error },
    /// What has come is not whole: the leader has ended, or leads no more.
    #[error("what the leader has sent is no whole snapshot, nothing is saved, try again: {0}")]
    NotWhole(wal::Error),
}

/// What a server says instead of a snapshot.
#[derive(Debug, Default, Deserialize)]
struct Refused {
    #[serde(default)]
    reason: String,
    leader: Option<Leader>,
}

#[derive(Debug, Deserialize)]
struct Leader {
    host: String,
    http_port: u16,
}

/// A file that goes away again, unless it gets its name.
struct Draft {
    path: PathBuf,
    is_kept: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The file that is to be made, or replaced.
struct Target {
    /// Where it is itself, if its name is that of a link.
    path: PathBuf,
    draft: PathBuf,
    /// Of the file that is replaced.
    permissions: Option<Permissions>,
}

impl Target {
    fn of(file: &Path) -> Result<Target, SaveError> {
        let failed = |error| SaveError::File {
            file: file.to_path_buf(),
            error,
        };
        let mut path = file.to_path_buf();
        let permissions = match fs::symlink_metadata(file) {
            Ok(found) => {
                let followed = fs::metadata(file).map_err(failed)?;
                if !followed.is_file() {
                    return Err(SaveError::NoRegularFile { file: path });
                }
                // A rename would replace the link, and not what it leads to.
                if found.is_symlink() {
                    path = fs::canonicalize(file).map_err(failed)?;
                }
                Some(followed.permissions())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(SaveError::Name { file: path });
        };
        let draft = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
        Ok(Target {
            path,
            draft,
            permissions,
        })
    }
}

/// Saves the state of the cluster that these servers belong to, by their HTTP addresses, as of some
/// moment after this was called: every command that was answered before is in it. A regular file of
/// that name, or that a link of that name leads to, is replaced by the new one, which has its mode,
/// and stays if there is none. `progress` is told how many bytes have come.
///
/// # Errors
/// Why there is no backup; then there is no file either. What is wrong with the name is found before
/// anybody is asked for anything.
pub async fn save(
    servers: &[Address],
    file: &Path,
    wait: Duration,
    progress: &mut impl FnMut(u64),
) -> Result<Saved, SaveError> {
    let failed = |error| SaveError::File {
        file: file.to_path_buf(),
        error,
    };
    let target = Target::of(file)?;
    let mut draft = Draft {
        path: target.draft,
        is_kept: false,
    };
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let mut written = options.open(&draft.path).map_err(failed)?;
    let (mut stream, first) = ask_leader(servers, wait).await?;
    receive(&mut stream, first, &mut written, progress)
        .await
        .map_err(|error| match error {
            ReceiveError::File(error) => failed(error),
            ReceiveError::Stream { bytes, error } => SaveError::BrokenOff { bytes, error },
        })?;
    written.sync_all().map_err(failed)?;
    // With the code that a restore reads it with, as it is on the disk.
    let backup = Backup::open(&draft.path).map_err(SaveError::NotWhole)?;
    let (cluster, position) = (backup.cluster(), backup.snapshot().position);
    let bytes = backup.file_bytes();
    let id = backup.verify().map_err(SaveError::NotWhole)?;
    if let Some(permissions) = target.permissions {
        written.set_permissions(permissions).map_err(failed)?;
        written.sync_all().map_err(failed)?;
    }
    fs::rename(&draft.path, &target.path).map_err(failed)?;
    draft.is_kept = true;
    let parent = target.path.parent();
    let parent = parent.filter(|parent| *parent != Path::new(""));
    let parent = File::open(parent.unwrap_or(Path::new("."))).map_err(failed)?;
    parent.sync_all().map_err(failed)?;
    Ok(Saved {
        bytes,
        backup: id.to_string(),
        cluster: cluster.to_string(),
        index: position.index.0,
        term: position.term.0,
    })
}

/// Asks one server after the other, and those that they name as the leader, until one gives out a
/// snapshot. Gives the connection, and the first bytes of the snapshot.
async fn ask_leader(
    servers: &[Address],
    wait: Duration,
) -> Result<(TcpStream, Vec<u8>), SaveError> {
    let deadline = Instant::now() + wait;
    let mut last = String::new();
    let mut named: Option<Address> = None;
    loop {
        let candidates: Vec<Address> = named.take().into_iter().chain(servers.to_vec()).collect();
        for server in candidates {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(SaveError::Unreachable { last });
            }
            match timeout(left, ask(&server)).await {
                Ok(Ok(Answer::Snapshot(stream, first))) => return Ok((stream, first)),
                Ok(Ok(Answer::Refused(refused))) => {
                    last = format!("{server}: {}", refused.reason);
                    let leader = refused.leader;
                    named = leader.map(|leader| Address::new(leader.host, leader.http_port));
                    if named.is_some() && named.as_ref() != Some(&server) {
                        break;
                    }
                }
                Ok(Err(error)) => last = format!("{server}: {error}"),
                Err(_) => last = format!("{server}: no answer"),
            }
        }
        sleep(PAUSE).await;
    }
}

enum Answer {
    Snapshot(TcpStream, Vec<u8>),
    Refused(Refused),
}

/// HTTP/1.0: the body ends with the connection, and says itself whether it is whole.
async fn ask(server: &Address) -> io::Result<Answer> {
    let mut stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
    let request = format!("GET /snapshot HTTP/1.0\r\nHost: {server}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut received = Vec::new();
    let end = loop {
        if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end;
        }
        if received.len() > HEAD_BYTES_MAX || stream.read_buf(&mut received).await? == 0 {
            return Err(invalid("no answer in HTTP"));
        }
    };
    let mut body = received.split_off(end + 4);
    let head = String::from_utf8_lossy(&received);
    let code = head.split(' ').nth(1).unwrap_or_default();
    match code {
        "200" => Ok(Answer::Snapshot(stream, body)),
        "400" | "503" => {
            let mut limited = stream.take(HEAD_BYTES_MAX as u64);
            limited.read_to_end(&mut body).await?;
            let refused = serde_json::from_slice(&body).unwrap_or_default();
            Ok(Answer::Refused(refused))
        }
        code => Err(invalid(&format!("answered {code}"))),
    }
}

enum ReceiveError {
    File(io::Error),
    Stream { bytes: u64, error: io::Error },
}

async fn receive(
    stream: &mut TcpStream,
    first: Vec<u8>,
    to: &mut File,
    progress: &mut impl FnMut(u64),
) -> Result<(), ReceiveError> {
    to.write_all(&first).map_err(ReceiveError::File)?;
    let mut bytes = first.len() as u64;
    let mut part = Vec::with_capacity(READ_BYTES);
    loop {
        part.clear();
        let read = timeout(SILENCE_MAX, stream.read_buf(&mut part)).await;
        let read = read.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
        match read.map_err(|error| ReceiveError::Stream { bytes, error })? {
            0 => return Ok(()),
            read => bytes += read as u64,
        }
        to.write_all(&part).map_err(ReceiveError::File)?;
        progress(bytes);
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_owned())
}
