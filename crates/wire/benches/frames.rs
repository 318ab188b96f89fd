//! What it costs to make a frame of an entry, and to read it.

use bytes::{Buf, Bytes};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quorate_wire::{LENGTH_BYTES, Outgoing, decode};
use raft::{
    AppendEntries, Body, ClusterId, Entry, EntryKind, GroupId, Index, Instance, Message, Position,
    Restart, Sender, ServerId, Term,
};

const VERSION: u8 = 1;

/// 16 commands with values of 256 bytes.
const PAYLOAD: &[u8] = &[b'p'; 5000];

fn append_entries() -> Message {
    let prev = Position {
        term: Term(5),
        index: Index(9),
    };
    let entry = Entry {
        term: Term(5),
        index: Index(10),
        kind: EntryKind::Command,
        payload: Bytes::from_static(PAYLOAD),
    };
    Message {
        sender: Sender {
            id: ServerId(3),
            cluster: Some(ClusterId(1)),
            instance: Instance(2),
            restart: Restart(3),
            recovering: false,
        },
        term: Term(5),
        body: Body::AppendEntries(AppendEntries {
            prev,
            entries: vec![entry],
            leader_commit: Index(8),
        }),
    }
}

fn frames(criterion: &mut Criterion) {
    let message = append_entries();
    let mut outgoing = Outgoing::new();
    outgoing.push_message(VERSION, GroupId(0), &message);
    let mut frame = outgoing.copy_to_bytes(outgoing.remaining());
    frame.advance(LENGTH_BYTES);

    let mut group = criterion.benchmark_group("wire");
    group.throughput(Throughput::Bytes(PAYLOAD.len() as u64));
    group.bench_function("encode AppendEntries of 5 KB", |bencher| {
        bencher.iter(|| {
            outgoing.push_message(VERSION, GroupId(0), &message);
            // As a socket that takes all at once.
            outgoing.advance(outgoing.remaining());
        });
    });
    group.bench_function("decode AppendEntries of 5 KB", |bencher| {
        bencher.iter(|| decode(frame.clone()).expect("it is a frame"));
    });
    group.finish();
}

criterion_group!(benches, frames);
criterion_main!(benches);
