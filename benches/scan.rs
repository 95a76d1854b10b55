//! What finding and delivering blocks costs per event, beside the least that finding them can cost.
//!
//! Every iteration takes 64 events. `memmem` looks for blank lines of line feeds only, and so would
//! be wrong for much that is valid; `memchr2` looks at every line end, and knows no fields.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use memchr::{memchr2_iter, memmem::Finder};
use resilient_sse::wire::{Framing, Scanned, Sse};

const EVENTS: usize = 64;
const LIMIT: usize = 1 << 20;

/// An event of `size` bytes, blank line included.
fn event(size: usize) -> Vec<u8> {
    let data = size - "data: \n\n".len();
    format!("data: {}\n\n", "x".repeat(data)).into_bytes()
}

/// A stream of 64 events in chunks of `len` bytes, made like most bodies': with room to spare.
fn chunks(size: usize, len: usize) -> Vec<Bytes> {
    let chunk = |bytes: &[u8]| {
        let mut chunk = Vec::with_capacity(len + 64);
        chunk.extend_from_slice(bytes);
        Bytes::from(chunk)
    };
    event(size).repeat(EVENTS).chunks(len).map(chunk).collect()
}

fn memmem(chunk: &Bytes, finder: &Finder<'_>) -> usize {
    let mut from = 0;
    while let Some(at) = finder.find(&chunk[from..]) {
        black_box(&chunk.slice(from..=from + at));
        from += at + 2;
    }
    from
}

fn memchr2(chunk: &Bytes) -> usize {
    let (mut from, mut line) = (0, 0);
    for at in memchr2_iter(b'\r', b'\n', chunk) {
        if at == line {
            black_box(&chunk.slice(from..at));
            from = at + 1;
        }
        line = at + 1;
    }
    from
}

fn scan(chunks: &[Bytes], mut found: impl FnMut(&Scanned)) {
    let mut scanner = Sse.scanner(LIMIT);
    for chunk in chunks {
        scanner.push(chunk.clone());
        // By reference, so that the cost of moving an item that was only just written is the caller's.
        while let Ok(Some(item)) = &scanner.next() {
            found(item);
        }
    }
}

fn scan_and_deliver(chunks: &[Bytes], has_id: bool, out: &mut BytesMut) {
    scan(chunks, |found| {
        if let Scanned::Event(block) = found {
            Sse.deliver(&block.bytes, has_id, Some(b"e1764000000-123456"), None, out);
        }
    });
    black_box(&out);
    out.clear();
}

fn bench(c: &mut Criterion) {
    for size in [64, 256, 1024] {
        let mut group = c.benchmark_group(format!("{size} B"));
        group.throughput(Throughput::Elements(EVENTS as u64));
        let whole = chunks(size, size * EVENTS);
        let finder = Finder::new("\n\n");
        group.bench_function("memmem", |b| b.iter(|| memmem(black_box(&whole[0]), &finder)));
        group.bench_function("memchr2", |b| b.iter(|| memchr2(black_box(&whole[0]))));
        for (split, len) in [("whole", size * EVENTS), ("an event a chunk", size), ("split", size * 7 / 10)] {
            let chunks = chunks(size, len);
            let mut out = BytesMut::with_capacity(2 * size * EVENTS);
            group.bench_with_input(BenchmarkId::new("scan", split), &chunks, |b, chunks| {
                b.iter(|| scan(chunks, |found| _ = black_box(found)));
            });
            group.bench_with_input(BenchmarkId::new("scan and deliver", split), &chunks, |b, chunks| {
                b.iter(|| scan_and_deliver(chunks, false, &mut out));
            });
            group.bench_with_input(
                BenchmarkId::new("scan and deliver, looking for ids", split),
                &chunks,
                |b, chunks| {
                    b.iter(|| scan_and_deliver(chunks, true, &mut out));
                },
            );
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
