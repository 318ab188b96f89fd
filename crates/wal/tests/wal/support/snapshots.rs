//! Snapshots of which every test knows what is in them.

use quorate_wal::{
    Disk, Error, MemoryDisk, SnapshotReader, SnapshotReceiver, SnapshotSender, SnapshotWriter,
    Snapshots, Wal,
};
use raft::{ClusterId, Entry, EntryKind, Index, Position, Snapshot, Term};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{mix, options};

/// Whose state it is.
pub(crate) const CLUSTER: ClusterId = ClusterId(77);

/// The position with these numbers.
pub(crate) fn position(term: u64, index: u64) -> Position {
    Position {
        term: Term(term),
        index: Index(index),
    }
}

/// The snapshot of this position in all tests.
pub(crate) fn snapshot_at(position: Position) -> Snapshot {
    let configuration = (position.index.0 > 3).then(|| Entry {
        term: Term(1),
        index: Index(2),
        kind: EntryKind::Configuration,
        payload: vec![position.index.0 as u8; 100].into(),
    });
    Snapshot {
        position,
        configuration,
    }
}

/// The content of that snapshot.
pub(crate) fn content_of(snapshot: &Snapshot) -> Vec<u8> {
    let index = snapshot.position.index.0;
    let mut content = vec![0; (mix(index, 7) % 3000) as usize];
    StdRng::seed_from_u64(index).fill_bytes(&mut content);
    content
}

/// Writes a snapshot as the server's own.
pub(crate) fn write_snapshot<D: Disk>(
    snapshots: &Snapshots<D>,
    snapshot: &Snapshot,
) -> Result<(), Error> {
    let mut writer = SnapshotWriter::create(snapshots, CLUSTER, snapshot.clone())?;
    for piece in content_of(snapshot).chunks(700) {
        writer.write(piece)?;
    }
    assert_eq!(writer.finish()?, *snapshot);
    Ok(())
}

/// Receives a snapshot that another server has.
pub(crate) fn receive_snapshot<D: Disk>(
    snapshots: &Snapshots<D>,
    snapshot: &Snapshot,
) -> Result<(), Error> {
    let sender = sender(snapshot);
    let mut receiver = SnapshotReceiver::open(snapshots, sender.identity())?;
    loop {
        let offset = receiver.offset();
        let bytes = sender.read(offset, 1500).expect("that disk is sound");
        if bytes.is_empty() {
            break;
        }
        receiver.write(offset, &bytes)?;
    }
    assert_eq!(receiver.finish()?.snapshot(), snapshot);
    Ok(())
}

/// Another server that has this snapshot.
pub(crate) fn sender(snapshot: &Snapshot) -> SnapshotSender<MemoryDisk> {
    let (wal, _) = Wal::open(MemoryDisk::new(), options(1)).expect("an empty directory opens");
    write_snapshot(&wal.snapshots(), snapshot).expect("that disk is sound");
    SnapshotSender::open(&wal.snapshots(), snapshot.position).expect("that disk is sound")
}

/// The content of the snapshot up to this position.
pub(crate) fn read_snapshot<D: Disk>(
    snapshots: &Snapshots<D>,
    position: Position,
) -> Result<Vec<u8>, Error> {
    let mut reader = SnapshotReader::open(snapshots, position)?;
    let mut content = Vec::new();
    while let Some(piece) = reader.read()? {
        content.extend_from_slice(&piece);
    }
    Ok(content)
}
