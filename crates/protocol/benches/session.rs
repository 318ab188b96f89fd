//! What the text of commands costs: the parser alone, and a session from the socket's bytes to the
//! reply's.

use std::hint::black_box;
use std::iter;

use bytes::{Buf, Bytes, BytesMut};
use command::{Hit, Key, KeyValue, Outcome, Reply};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quorate_protocol::{Limits, Parser, Session};

const KEY: &[u8] = b"key:000000000001";
const VALUE: &[u8] = &[b'v'; 256];

/// Commands that arrive together.
const PIPELINE: usize = 16;

fn set_line() -> Vec<u8> {
    [b"set ", KEY, b" 0 0 256\r\n", VALUE, b"\r\n"].concat()
}

fn get_line() -> Vec<u8> {
    [b"get ", KEY, b"\r\n"].concat()
}

/// The outcome of a `get` that finds the key.
fn found() -> Outcome {
    let key = Key::new(Bytes::from_static(KEY)).expect("1 to 250 bytes");
    let hit = Hit {
        flags: 0,
        unique: 1,
        data: KeyValue::new(&key, VALUE),
    };
    Outcome::Done(Reply::Hits(vec![hit]))
}

fn parser(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("protocol/parser");
    group.throughput(Throughput::Elements(PIPELINE as u64));
    let pipelines = [("16 sets", set_line()), ("16 gets", get_line())];
    for (name, line) in pipelines {
        let lines = line.repeat(PIPELINE);
        let mut parser = Parser::new(Limits::default());
        let mut received = BytesMut::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                received.extend_from_slice(&lines);
                let parsed = iter::from_fn(|| parser.next(&mut received));
                let requests = parsed.map(black_box).count();
                assert_eq!(requests, PIPELINE);
            });
        });
    }
    group.finish();
}

fn session(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("protocol/session");
    let commands = [
        ("set", set_line(), Outcome::Done(Reply::Stored)),
        ("get", get_line(), found()),
    ];
    for (name, line, outcome) in commands {
        let mut session = Session::new(Limits::default());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                session.receive_buffer().extend_from_slice(&line);
                let run = session.next_run().expect("the line has come whole");
                let outcomes = run.commands.iter().map(|_| outcome.clone());
                session.outcomes(outcomes, |_| Vec::new());
                let bytes = black_box(session.output()).remaining();
                session.written(bytes, 0);
                run
            });
        });
        assert!(session.is_settled());
    }
    group.finish();
}

criterion_group!(benches, parser, session);
criterion_main!(benches);
