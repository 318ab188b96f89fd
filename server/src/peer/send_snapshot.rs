//! Sending snapshots to followers that need what the log no longer holds: one transfer at a time to
//! each, over a call of its own, all of them together no faster than the settings say. The other
//! side is `receive_snapshot.rs`.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evaluator::Input;
use raft::{ServerId, Snapshot};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};
use wal::{DirectoryDisk, Rotten, SnapshotReader, SnapshotSender};
use wire::{Failure, Frame, Offer, Outgoing, Transfer};

use super::frames::FrameReader;
use super::handshake::Purpose;
use super::outbound::{Callee, connect};
use super::transfer_frames::{hear, invalid, out_of_order, say, write};
use super::{GROUP, Peers, SILENCE};
use crate::fatal;
use crate::snapshots::FromSnapshots;

/// The most of a file that is sent at a time.
const PIECE_BYTES_MAX: u64 = 1 << 20;
const PIECE_BYTES_MIN: u64 = 4 << 10;

/// A slow transfer is cut into so many pieces for each second.
const PIECES_PER_SECOND: u64 = 8;

/// A call that ends early is made again after this time, and no more once nothing has arrived for
/// so long: then the core asks again when it hears of the follower.
const PAUSE: Duration = Duration::from_millis(200);
const GIVE_UP: Duration = Duration::from_secs(5);

/// How long a follower without space is left alone.
const NO_SPACE: Duration = Duration::from_secs(10);

/// How long the log is held for a follower behind the end of its transfer, beside the time that
/// the transfer took: it has to fetch what was written meanwhile.
const HELD_AFTER: Duration = Duration::from_secs(10);

/// What all transfers share.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) peers: Arc<Peers>,
    pub(crate) callees: BTreeMap<ServerId, Callee>,
    pub(crate) pace: Pace,
}

/// Sends the newest snapshot to each that is asked for; says of each once that it has ended.
pub(crate) async fn send_snapshots(mut asks: UnboundedReceiver<ServerId>, sending: Arc<Sending>) {
    while let Some(to) = asks.recv().await {
        let sending = Arc::clone(&sending);
        tokio::spawn(async move {
            let callee = sending.callees.get(&to);
            let callee = callee.expect("the core asks for members alone");
            sending.send(callee).await;
            let ended = Input::InstallEnded(to);
            sending.peers.snapshots.tell(FromSnapshots::Input(ended));
        });
    }
}

/// How a transfer goes on when a call has ended.
enum End {
    /// The follower has it, or there is no use in another call.
    Over,
    /// The call was lost.
    Broken(io::Error),
}

impl Sending {
    async fn send(&self, to: &Callee) {
        let begun = Instant::now();
        let snapshots = &self.peers.snapshots;
        let offered = match block_in_place(|| Offered::newest(&snapshots.files)) {
            Ok(offered) => offered,
            Err(error) => return self.own_file_is_damaged(error).await,
        };
        let identity = offered.file.identity();
        let held = snapshots.hold(identity.position.index);
        info!(
            "sends server {} the snapshot up to index {}: {} bytes",
            to.id, identity.position.index, identity.file_bytes
        );
        let mut progress = Progress {
            offset: 0,
            at: begun,
        };
        // An old leader's snapshot is of use, but it would compete with the new one's.
        while self.peers.view.leads() && progress.at.elapsed() < GIVE_UP {
            match self.call(to, &offered, &mut progress).await {
                End::Over => break,
                End::Broken(error) => {
                    debug!("the transfer to server {} is lost: {error}", to.id);
                    sleep(PAUSE).await;
                }
            }
        }
        let took = begun.elapsed();
        tokio::spawn(async move {
            sleep(took + HELD_AFTER).await;
            drop(held);
        });
    }

    /// Has the snapshot that was to be sent replaced, and gives that some time: then the core asks
    /// again.
    async fn own_file_is_damaged(&self, error: wal::Error) {
        match Rotten::of(error) {
            Ok(rotten) => self.peers.snapshots.replace(rotten),
            Err(error) => fatal::end(&error),
        }
        sleep(GIVE_UP).await;
    }

    /// One call, to its end.
    async fn call(&self, to: &Callee, offered: &Offered, progress: &mut Progress) -> End {
        let (stream, version) = match connect(to, &self.peers, Purpose::Snapshot).await {
            Ok(connection) => connection,
            Err(error) => return End::Broken(io::Error::other(error)),
        };
        let mut call = Call {
            to,
            version,
            offered,
            frames: FrameReader::new(stream),
        };
        match call.talk(self, progress).await {
            Ok(None) => End::Over,
            Ok(Some(error)) => {
                self.own_file_is_damaged(error).await;
                End::Over
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                warn!("ends the transfer to server {}: {error}", to.id);
                End::Over
            }
            Err(error) => End::Broken(error),
        }
    }
}

/// A snapshot that is being sent. It can be read to its end, also when it is removed meanwhile.
struct Offered {
    snapshot: Snapshot,
    file: SnapshotSender<DirectoryDisk>,
}

impl Offered {
    fn newest(files: &wal::Snapshots<DirectoryDisk>) -> Result<Offered, wal::Error> {
        loop {
            let newest = files.newest();
            let snapshot = newest.expect("the core knows of one");
            match SnapshotSender::open(files, snapshot.position) {
                Ok(file) => return Ok(Offered { snapshot, file }),
                // It was removed, for two later ones.
                Err(_) if files.newest().as_ref() != Some(&snapshot) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A follower got other bytes than were written here: what is wrong with them on this disk, if
    /// anything is.
    fn damage(&self, files: &wal::Snapshots<DirectoryDisk>) -> Option<wal::Error> {
        let mut reader = SnapshotReader::open(files, self.snapshot.position).ok()?;
        loop {
            match reader.read() {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => return Some(error),
            }
        }
    }
}

/// How far a transfer has come, over all of its calls.
struct Progress {
    /// The furthest that the follower has asked for.
    offset: u64,
    at: Instant,
}

/// One call of a follower that is to have a snapshot.
struct Call<'a> {
    to: &'a Callee,
    version: u8,
    offered: &'a Offered,
    frames: FrameReader<TcpStream>,
}

impl Call<'_> {
    /// Gives the follower what it asks for. Ends well when there is no use in another call, with
    /// what is wrong with the file on this server's own disk if that is the reason.
    async fn talk(
        &mut self,
        sending: &Sending,
        progress: &mut Progress,
    ) -> io::Result<Option<wal::Error>> {
        let identity = self.offered.file.identity();
        let offer = Transfer::Offer(Offer {
            cluster: identity.cluster,
            position: identity.position,
            file_bytes: identity.file_bytes,
            checksum: identity.checksum,
        });
        self.say(&offer).await?;
        loop {
            let transfer = match hear(&mut self.frames).await? {
                Frame::Transfer(transfer) => transfer,
                _ => return Err(out_of_order()),
            };
            if !sending.peers.view.leads() {
                return Ok(None);
            }
            match transfer {
                Transfer::Next { offset } => {
                    if offset > progress.offset {
                        *progress = Progress {
                            offset,
                            at: Instant::now(),
                        };
                    }
                    let bytes_max = sending.pace.piece_bytes();
                    let read = block_in_place(|| self.offered.file.read(offset, bytes_max));
                    let bytes = match read {
                        Ok(bytes) if bytes.is_empty() => {
                            return Err(invalid("it asks for more than there is"));
                        }
                        Ok(bytes) => bytes,
                        Err(error) => return Ok(Some(error)),
                    };
                    sleep_until(sending.pace.reserve(Instant::now(), bytes.len())).await;
                    self.say(&Transfer::Piece { offset, bytes }).await?;
                }
                Transfer::Checking => progress.at = Instant::now(),
                Transfer::Loaded => return self.install(sending).await.map(|()| None),
                Transfer::Failed(failure) => {
                    warn!("server {} has no snapshot: {failure}", self.to.id);
                    let files = &sending.peers.snapshots.files;
                    return match failure {
                        Failure::Damaged => Ok(block_in_place(|| self.offered.damage(files))),
                        Failure::NoSpace => {
                            sleep(NO_SPACE).await;
                            Ok(None)
                        }
                    };
                }
                Transfer::Offer(_) | Transfer::Piece { .. } => return Err(out_of_order()),
            }
        }
    }

    /// The follower has it all, and hangs up when it has given the message to its core.
    async fn install(&mut self, sending: &Sending) -> io::Result<()> {
        let snapshot = self.offered.snapshot.clone();
        let index = snapshot.position.index;
        let (answer, answered) = oneshot::channel();
        let ask = FromSnapshots::Message(snapshot, answer);
        sending.peers.snapshots.tell(ask);
        // The evaluator ends only with the process.
        let Ok(Some(message)) = answered.await else {
            return Ok(());
        };
        let mut outgoing = Outgoing::new();
        outgoing.push_message(self.version, GROUP, &message);
        write(self.frames.stream(), &mut outgoing).await?;
        match timeout(SILENCE, self.frames.next()).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                info!("server {} has the snapshot up to index {index}", self.to.id);
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) => Err(out_of_order()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn say(&mut self, transfer: &Transfer) -> io::Result<()> {
        say(self.frames.stream(), self.version, transfer).await
    }
}

/// How fast snapshots may leave, whoever gets them.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    /// When the next piece may leave.
    next: Mutex<Instant>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: u64) -> Pace {
        Pace {
            bytes_per_second,
            next: Mutex::new(Instant::now()),
        }
    }

    fn piece_bytes(&self) -> usize {
        let bytes = self.bytes_per_second / PIECES_PER_SECOND;
        bytes.clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX) as usize
    }

    /// When so many bytes may leave.
    fn reserve(&self, now: Instant, bytes: usize) -> Instant {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut next = self.next.lock().expect("nothing panics while it is held");
        let at = now.max(*next);
        *next = at + takes;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_transfers_together_are_no_faster_than_the_pace() {
        let pace = Pace::new(1_000_000);
        let begun = Instant::now();
        let mut at = begun;
        for _ in 0..31 {
            at = pace.reserve(begun, 100_000);
        }
        let took = (at - begun).as_secs_f64();
        assert!((2.99..3.01).contains(&took), "3,000,000 bytes in {took} s");
        let idle = at + Duration::from_secs(60);
        assert_eq!(pace.reserve(idle, 1), idle, "nothing is saved up");
        assert!(pace.reserve(idle, 1) > idle);
    }

    #[test]
    fn a_slow_pace_makes_small_pieces() {
        assert_eq!(Pace::new(1 << 40).piece_bytes(), 1 << 20);
        assert_eq!(Pace::new(1 << 20).piece_bytes(), 1 << 17);
        assert_eq!(Pace::new(1).piece_bytes(), 4 << 10);
    }
}
