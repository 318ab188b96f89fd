//! What a server starts from: its log, and the state of its newest snapshot.

use std::path::Path;
use std::time::Instant;

use raft::{Index, ServerId};
use rand::TryRng;
use store::{Loader, Store};
use tokio::sync::oneshot;
use tracing::{info, warn};
use wal::{Backup, DirectoryDisk, Opened, Options, SnapshotReader, Wal};

use crate::arguments::Service;
use crate::error::Error;
use crate::snapshots::Taken;
use crate::start::spawn;

/// All that a data directory holds.
pub(crate) struct Recovery {
    pub(crate) wal: Wal<DirectoryDisk>,
    pub(crate) opened: Opened,
    /// The state that the snapshot holds; an empty one without a snapshot.
    pub(crate) store: Store,
    /// What was loaded.
    pub(crate) loaded: Option<Taken>,
}

/// Reads everything back, on a thread of its own: much of it takes seconds.
pub(crate) fn begin(
    service: &Service,
) -> Result<oneshot::Receiver<Result<Recovery, Error>>, Error> {
    let (sender, receiver) = oneshot::channel();
    let data_dir = service.data_dir.clone();
    let options = Options {
        server_id: ServerId(service.server.id),
        segment_bytes: service.settings.log_segment_bytes,
        seed: random()?,
        // The others must be a majority without this one.
        heals: service.cluster.servers().len() > 2,
    };
    let seed = random()?;
    let backup = service.restore.clone();
    spawn("quorate-recovery", move || {
        let restored = backup.map_or(Ok(()), |backup| restore(&data_dir, &options, &backup));
        let recovery = restored.and_then(|()| {
            let disk = DirectoryDisk::open(&data_dir)?;
            recover(disk, options, seed)
        });
        // Nobody waits for it any more once the server has been told to stop.
        let _ = sender.send(recovery);
    })?;
    Ok(receiver)
}

/// Lets the data directory begin with the state of a backup, once that is known to be readable.
fn restore(data_dir: &Path, options: &Options, file: &Path) -> Result<(), Error> {
    let failed = |problem| Error::Backup {
        file: file.to_path_buf(),
        problem,
    };
    let mut backup = Backup::open(file).map_err(Error::of_backup)?;
    let mut loader = Loader::new(options.seed);
    while let Some(piece) = backup.read().map_err(Error::of_backup)? {
        loader.push(&piece).map_err(failed)?;
    }
    loader.finish().map_err(failed)?;
    let backup = Backup::open(file).map_err(Error::of_backup)?;
    let (cluster, index) = (backup.cluster(), backup.snapshot().position.index);
    let disk = DirectoryDisk::open(data_dir)?;
    let id = wal::restore(&disk, options, backup)?;
    info!("begins with backup {id}, of cluster {cluster} up to index {index}");
    Ok(())
}

fn recover(disk: DirectoryDisk, options: Options, seed: u64) -> Result<Recovery, Error> {
    let begun = Instant::now();
    let opened = Wal::open(disk, options);
    let (wal, opened) = opened.map_err(|error| Error::of_start(error, options.heals))?;
    for damaged in &opened.damaged {
        warn!(
            "{}: corrupt at byte {}: {}; this server starts without it",
            damaged.file.display(),
            damaged.offset,
            damaged.problem
        );
    }
    let position = opened.recovered.snapshot.as_ref().map(|it| it.position);
    let Some(position) = position else {
        return Ok(Recovery {
            wal,
            opened,
            store: Store::new(seed),
            loaded: None,
        });
    };
    let reader = SnapshotReader::open(&wal.snapshots(), position)?;
    let (store, bytes) = load(reader, seed)?;
    let took = begun.elapsed();
    let index = position.index;
    info!(
        "starts from the snapshot up to index {index}: {bytes} bytes, read with the log in {:.2} s",
        took.as_secs_f64()
    );
    Ok(Recovery {
        wal,
        opened,
        store,
        loaded: Some(Taken { index, bytes, took }),
    })
}

/// The state that a snapshot holds, and the length of its content.
///
/// # Errors
/// `Log` if it can't be read, `State` if it was written by a release whose states this one can't
/// read.
pub(crate) fn load(
    mut reader: SnapshotReader<DirectoryDisk>,
    seed: u64,
) -> Result<(Store, u64), Error> {
    let index = reader.snapshot().position.index;
    let failed = |problem| Error::State { index, problem };
    let mut loader = Loader::new(seed);
    let mut bytes = 0;
    while let Some(piece) = reader.read()? {
        bytes += piece.len() as u64;
        loader.push(&piece).map_err(failed)?;
    }
    Ok((loader.finish().map_err(failed)?, bytes))
}

/// A number from the operating system.
pub(crate) fn random() -> Result<u64, Error> {
    rand::rngs::SysRng
        .try_next_u64()
        .map_err(|error| Error::system("draw a random number")(std::io::Error::other(error)))
}

/// Logs what was found.
pub(crate) fn tell(opened: &Opened) {
    let recovered = &opened.recovered;
    let (before, last) = (recovered.before.index, recovered.last.index);
    let term = recovered.hard_state.term;
    let begins = match before {
        Index(0) => String::new(),
        before => format!(" begins behind index {before} and"),
    };
    info!(
        "the log{begins} ends at index {last}, the term is {term}; start number {} of instance {}",
        opened.restart, opened.instance
    );
    if let Some(torn) = &opened.torn {
        info!(
            "{}: {} bytes behind byte {} were never synced, and are erased",
            torn.file.display(),
            torn.bytes,
            torn.offset
        );
    }
    if opened.recovered.recovering {
        warn!("{}, and gets it from its peers", lost(opened));
    }
}

/// What this server's disk has lost, if it is recovering.
pub(crate) fn lost(opened: &Opened) -> String {
    match &opened.lost {
        Some(lost) => format!("recovering: {lost}"),
        None => "recovering: an earlier start has found something lost".to_owned(),
    }
}
