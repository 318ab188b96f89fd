//! Receiving a snapshot: one at a time, from whoever called last. What has arrived is kept when a
//! call is lost, and a later one goes on there. The other side is `send_snapshot.rs`.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evaluator::{Input, LoadedState};
use raft::{Body, Message, Snapshot};
use store::Store;
use tokio::net::TcpStream;
use tokio::sync::OwnedMutexGuard;
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use wal::{DirectoryDisk, SnapshotIdentity, SnapshotReader, SnapshotReceiver, SnapshotSender};
use wire::{Failure, Frame, Hello, Offer, Transfer};

use super::frames::FrameReader;
use super::handshake::Caller;
use super::transfer_frames::{hear, invalid, out_of_order, say};
use super::{GROUP, Peers};
use crate::snapshots::{FromSnapshots, Snapshots, Taken};
use crate::{fatal, recovery};

/// No snapshot is longer.
const FILE_BYTES_MAX: u64 = 1 << 40;

/// How often the sender is told that there is nothing to ask for.
const CHECKING: Duration = Duration::from_secs(1);

/// Who receives.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    /// Ends the present call.
    call: Mutex<CancellationToken>,
    /// Held while a call has a file: the next one waits until that is closed.
    file: Arc<tokio::sync::Mutex<()>>,
}

impl Receiving {
    /// Takes what `hello.from` offers, and gives up what another one was sending.
    pub(super) async fn receive(&self, stream: TcpStream, caller: Caller, peers: &Peers) {
        let token = CancellationToken::new();
        {
            let mut call = self.call.lock().expect("nothing panics while it is held");
            std::mem::replace(&mut *call, token.clone()).cancel();
        }
        let mut frames = FrameReader::new(stream);
        frames.take_long_frames();
        let Caller { hello, version, .. } = caller;
        let from = hello.from;
        let result = tokio::select! {
            result = async {
                let file = Arc::clone(&self.file).lock_owned().await;
                let call = Call { hello, version, frames, snapshots: &peers.snapshots };
                call.receive(file).await
            } => result,
            () = token.cancelled() => return,
        };
        peers.snapshots.figures.receiving(0);
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                warn!("ends the transfer of server {from}: {error}");
            }
            Err(error) => debug!("the transfer of server {from} is lost: {error}"),
        }
    }
}

/// One call of a server that has a snapshot.
struct Call<'a> {
    hello: Hello,
    version: u8,
    frames: FrameReader<TcpStream>,
    snapshots: &'a Arc<Snapshots>,
}

/// A snapshot that is durable here, and its state.
struct Loaded {
    snapshot: Snapshot,
    store: Store,
}

impl Call<'_> {
    /// Takes what is offered, and gives it to the core.
    async fn receive(mut self, file: OwnedMutexGuard<()>) -> io::Result<()> {
        let begun = Instant::now();
        let Frame::Transfer(Transfer::Offer(offer)) = hear(&mut self.frames).await? else {
            return Err(out_of_order());
        };
        let identity = self.check(&offer)?;
        let loaded = match self.have(identity).await {
            Some(reader) => self.load(reader, file).await?,
            None => match self.take_file(identity, file).await? {
                Ok(loaded) => loaded,
                Err(failure) => return self.say(&Transfer::Failed(failure)).await,
            },
        };
        info!(
            "received the snapshot up to index {} from server {} in {:.2} s",
            loaded.snapshot.position.index,
            self.hello.from,
            begun.elapsed().as_secs_f64()
        );
        let figures = Taken {
            index: loaded.snapshot.position.index,
            bytes: identity.file_bytes,
            took: begun.elapsed(),
        };
        self.snapshots.received(loaded.snapshot.position, figures);
        self.install(loaded).await
    }

    /// What is offered, if it can be.
    fn check(&self, offer: &Offer) -> io::Result<SnapshotIdentity> {
        // What the cluster began with was of none.
        if offer.cluster.0 != 0 && self.hello.cluster != Some(offer.cluster) {
            return Err(invalid(
                "it offers a snapshot of another cluster than its own",
            ));
        }
        if offer.file_bytes > FILE_BYTES_MAX {
            return Err(invalid("it offers a snapshot of more than a tebibyte"));
        }
        Ok(SnapshotIdentity {
            cluster: offer.cluster,
            position: offer.position,
            file_bytes: offer.file_bytes,
            checksum: offer.checksum,
        })
    }

    /// The snapshot itself, if it is here already: a call was lost behind its last byte.
    async fn have(&self, offered: SnapshotIdentity) -> Option<SnapshotReader<DirectoryDisk>> {
        let newest = self.snapshots.files.newest();
        let newest = newest.filter(|newest| newest.position == offered.position)?;
        let files = &self.snapshots.files;
        let file = block_in_place(|| SnapshotSender::open(files, newest.position)).ok()?;
        let open = || SnapshotReader::open(files, newest.position).ok();
        (file.identity() == offered).then(|| block_in_place(open))?
    }

    /// Receives the file, from where an earlier call ended. The lock is held as long as anything
    /// uses the file, also when this call is given up.
    async fn take_file(
        &mut self,
        identity: SnapshotIdentity,
        lock: OwnedMutexGuard<()>,
    ) -> io::Result<Result<Loaded, Failure>> {
        let snapshots = Arc::clone(self.snapshots);
        // What is there is verified.
        let opening = move || (SnapshotReceiver::open(&snapshots.files, identity), lock);
        let (receiver, lock) = self.busy(opening).await?;
        let mut receiver = match receiver {
            Ok(receiver) => receiver,
            Err(error) => return Ok(Err(failure(error))),
        };
        if receiver.offset() > 0 {
            info!(
                "goes on at byte {} of {} of the snapshot up to index {}",
                receiver.offset(),
                identity.file_bytes,
                identity.position.index
            );
        }
        if let Err(error) = self.take_pieces(&mut receiver).await? {
            return Ok(Err(failure(error)));
        }
        let finishing = move || (receiver.finish().map(load), lock);
        let (loaded, _lock) = self.busy(finishing).await?;
        Ok(loaded.map_err(failure))
    }

    /// Asks for all that has not arrived. The next piece is under way while one is written.
    async fn take_pieces(
        &mut self,
        receiver: &mut SnapshotReceiver<DirectoryDisk>,
    ) -> io::Result<Result<(), wal::Error>> {
        let file_bytes = receiver.identity().file_bytes;
        let mut offset = receiver.offset();
        if offset < file_bytes {
            self.say(&Transfer::Next { offset }).await?;
        }
        while offset < file_bytes {
            let Frame::Transfer(Transfer::Piece {
                offset: found,
                bytes,
            }) = hear(&mut self.frames).await?
            else {
                return Err(out_of_order());
            };
            let behind = offset + bytes.len() as u64;
            if found != offset || behind > file_bytes {
                return Err(invalid("it sends other bytes than it was asked for"));
            }
            if behind < file_bytes {
                self.say(&Transfer::Next { offset: behind }).await?;
            }
            if let Err(error) = block_in_place(|| receiver.write(offset, &bytes)) {
                return Ok(Err(error));
            }
            offset = behind;
            self.snapshots.figures.receiving(offset);
        }
        Ok(Ok(()))
    }

    async fn load(
        &mut self,
        reader: SnapshotReader<DirectoryDisk>,
        lock: OwnedMutexGuard<()>,
    ) -> io::Result<Loaded> {
        self.busy(move || {
            let loaded = load(reader);
            drop(lock);
            loaded
        })
        .await
    }

    /// Asks for the message, and gives it to the core with the state.
    async fn install(&mut self, loaded: Loaded) -> io::Result<()> {
        let message = match self.message(&loaded.snapshot).await {
            Ok(message) => message,
            Err(error) => {
                block_in_place(|| drop(loaded));
                return Err(error);
            }
        };
        let state = LoadedState {
            position: loaded.snapshot.position,
            store: Box::new(loaded.store),
        };
        let install = Input::Install(message, state);
        self.snapshots.tell(FromSnapshots::Input(install));
        Ok(())
    }

    async fn message(&mut self, snapshot: &Snapshot) -> io::Result<Message> {
        self.say(&Transfer::Loaded).await?;
        let Frame::Message(GROUP, message) = hear(&mut self.frames).await? else {
            return Err(out_of_order());
        };
        if message.sender.id != self.hello.from {
            return Err(invalid("it speaks in the name of another server"));
        }
        match &message.body {
            Body::InstallSnapshot(install) if install.snapshot == *snapshot => Ok(message),
            _ => Err(invalid(
                "its message is not about the snapshot that it has sent",
            )),
        }
    }

    /// Does something that takes a while on another thread, and tells the sender so.
    async fn busy<T: Send + 'static>(
        &mut self,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let mut acting = spawn_blocking(act);
        let mut ticks = interval(CHECKING);
        ticks.tick().await;
        loop {
            tokio::select! {
                done = &mut acting => return Ok(done.expect("a thread that panics ends the process")),
                _ = ticks.tick() => self.say(&Transfer::Checking).await?,
            }
        }
    }

    async fn say(&mut self, transfer: &Transfer) -> io::Result<()> {
        say(self.frames.stream(), self.version, transfer).await
    }
}

/// The state of a snapshot that is durable here. A disk that does not give it back ends the
/// process.
fn load(reader: SnapshotReader<DirectoryDisk>) -> Loaded {
    let snapshot = reader.snapshot().clone();
    let loaded = recovery::random().and_then(|seed| recovery::load(reader, seed));
    let (store, _) = loaded.unwrap_or_else(|error| fatal::end(&error));
    Loaded { snapshot, store }
}

/// What the sender is told. What is the fault of this server's disk ends the process.
fn failure(error: wal::Error) -> Failure {
    let failure = match &error {
        wal::Error::NoSpace { .. } => Failure::NoSpace,
        wal::Error::Corrupt { .. }
        | wal::Error::NewerFormat { .. }
        | wal::Error::Misplaced { .. } => Failure::Damaged,
        error => fatal::end(error),
    };
    warn!("a snapshot is not received: {error}");
    failure
}
