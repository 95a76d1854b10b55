//! What the layer adds to polling a body, per event, beside the bare body.
//!
//! The inner body is always ready and gives one event a frame; every iteration takes 64 of them.
//! `shared` frames are one buffer over and over, which shows the layer's own work alone; `allocated`
//! ones are made for each event, as a handler makes them, so that the log holds memory of its own.
//! `trickle` is pending after each event, as a body is whose events come one by one.

use std::{
    convert::Infallible,
    hint::black_box,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::{Request, Response};
use http_body::{Body, Frame};
use resilient_sse::{MemoryStore, ResilientSse, StreamId};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

/// Events in an iteration: as many as the layer takes in one poll while they are ready.
const EVENTS: usize = 64;

/// Events that inner bodies have given; there is one body at a time.
static GIVEN: AtomicUsize = AtomicUsize::new(0);

/// How a body comes by its frames.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    Shared,
    Allocated,
    Trickle,
}

impl Source {
    const ALL: [(&str, Self); 3] =
        [("shared", Self::Shared), ("allocated", Self::Allocated), ("trickle", Self::Trickle)];
}

struct Events {
    event: Bytes,
    source: Source,
    rests: bool,
}

impl Events {
    fn new(size: usize, source: Source) -> Self {
        let data = "x".repeat(size - "data: \n\n".len());
        Self { event: Bytes::from(format!("data: {data}\n\n")), source, rests: false }
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.source == Source::Trickle {
            self.rests = !self.rests;
            if !self.rests {
                return Poll::Pending;
            }
        }
        GIVEN.store(GIVEN.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let event = match self.source {
            Source::Shared => self.event.clone(),
            Source::Allocated | Source::Trickle => Bytes::copy_from_slice(&self.event),
        };
        Poll::Ready(Some(Ok(Frame::data(event))))
    }
}

/// Polls until the inner body has given an iteration's events.
fn take(body: &mut (impl Body<Data = Bytes> + Unpin), cx: &mut Context<'_>) {
    let until = GIVEN.load(Ordering::Relaxed) + EVENTS;
    while GIVEN.load(Ordering::Relaxed) < until {
        drop(black_box(Pin::new(&mut *body).poll_frame(cx)));
    }
}

fn bench(c: &mut Criterion) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    let _guard = runtime.enter();
    let Ok((sse, _guardian)) = ResilientSse::builder(MemoryStore::new()).anonymous().build() else { return };
    let layered = |size, source, content_type: &'static str| {
        let inner = service_fn(move |_: Request<()>| async move {
            Response::builder().header("content-type", content_type).body(Events::new(size, source))
        });
        let layer = sse.generation().id(StreamId::path("/chat/{id}"));
        let app = ServiceBuilder::new().layer(layer).service(inner);
        let path = format!("/chat/{}", StreamId::random());
        let answer = async { app.oneshot(Request::get(path).body(())?).await };
        runtime.block_on(answer).map(Response::into_body)
    };
    let cx = &mut Context::from_waker(Waker::noop());
    for (name, source) in Source::ALL {
        for size in [64, 256, 1024] {
            let mut group = c.benchmark_group(format!("{name}, {size} B"));
            group.throughput(Throughput::Elements(EVENTS as u64));
            let mut bare = Events::new(size, source);
            group.bench_function("bare", |b| b.iter(|| take(&mut bare, cx)));
            if let Ok(mut passed) = layered(size, source, "application/json") {
                group.bench_function("passed", |b| b.iter(|| take(&mut passed, cx)));
            }
            if let Ok(mut recorded) = layered(size, source, "text/event-stream") {
                group.bench_function("recorded", |b| b.iter(|| take(&mut recorded, cx)));
            }
            group.finish();
        }
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
