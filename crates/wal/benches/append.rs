//! What the log itself costs for an entry, on a disk that takes no time and keeps nothing: its
//! record, the checksums, the batch, and its place for readers.

use std::io;
use std::path::Path;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quorate_wal::{Disk, Options, SEGMENT_BYTES, Wal};
use raft::{Entry, EntryKind, Index, ServerId, Term, Write, WriteId};

/// 16 commands with values of 256 bytes.
const PAYLOAD: &[u8] = &[b'p'; 5000];

#[derive(Debug)]
struct Nowhere;

impl Disk for Nowhere {
    type File = ();

    fn path(&self) -> &Path {
        Path::new("nowhere")
    }

    fn lock(&self, _: &str) -> io::Result<bool> {
        Ok(true)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn open(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn create(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self, _: &()) -> io::Result<u64> {
        Ok(0)
    }

    fn allocate(&self, _: &(), _: u64) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, _: &(), _: &mut [u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn write_at(&self, _: &(), _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self, _: &()) -> io::Result<()> {
        Ok(())
    }
}

fn append(criterion: &mut Criterion) {
    let options = Options {
        server_id: ServerId(1),
        segment_bytes: SEGMENT_BYTES,
        seed: 1,
        heals: false,
    };
    let (mut wal, _) = Wal::open(Nowhere, options).expect("this disk does not fail");
    let mut write = Write {
        entries: vec![Entry {
            term: Term(1),
            index: Index(0),
            kind: EntryKind::Command,
            payload: Bytes::from_static(PAYLOAD),
        }],
        ..Write::default()
    };
    let mut group = criterion.benchmark_group("wal");
    group.throughput(Throughput::Bytes(PAYLOAD.len() as u64));
    group.bench_function("append 5 KB", |bencher| {
        bencher.iter(|| {
            write.id = write.id.next();
            for entry in &mut write.entries {
                entry.index = entry.index.next();
            }
            wal.append(&write).expect("this disk does not fail");
            let synced: WriteId = wal.sync().expect("this disk does not fail");
            assert_eq!(synced, write.id);
        });
    });
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
