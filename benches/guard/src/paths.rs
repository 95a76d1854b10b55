//! The hot paths under test. They run on a memory store and on one thread, and the test polls each body itself.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use resilient_sse::{MemoryStore, ResilientSse, ResilientSseBody, StreamId};
use tokio::runtime::{Builder, EnterGuard, Runtime};
use tower_layer::Layer as _;
use tower_service::Service;

/// The number of frames, or polls, that are counted.
pub(crate) const TIMES: usize = 100;
/// The number of frames before the count begins. They trigger one-time initialisation and let collections grow.
const WARM: usize = 40;
/// The most events in a frame.
const TOGETHER: usize = 64;

/// A hot path.
pub(crate) struct Path {
    pub(crate) name: &'static str,
    /// The unit that the path repeats `TIMES` times.
    pub(crate) unit: &'static str,
    prepare: fn() -> Stream,
    go: fn(&mut Stream),
}

pub(crate) const ALL: &[Path] = &[
    Path {
        name: "one-event",
        unit: "frame of 1 event, pushed and delivered",
        prepare: || Stream::live(1),
        go: |stream| assert!(stream.read(TIMES) > TIMES * EVENT.len()),
    },
    Path {
        name: "64-events",
        unit: "frame of 64 events, pushed and delivered",
        prepare: || Stream::live(TOGETHER),
        go: |stream| assert!(stream.read(TIMES) > TIMES * TOGETHER * EVENT.len()),
    },
    Path {
        name: "replay",
        unit: "entry of 64 events, given to a follower",
        prepare: Stream::replay,
        go: |stream| assert!(stream.read(usize::MAX) > TIMES * TOGETHER * EVENT.len()),
    },
    Path {
        name: "idle",
        unit: "poll of a stream that has no new event",
        prepare: Stream::idle,
        go: |stream| assert_eq!(stream.poll(TIMES), 0),
    },
];

impl Path {
    /// Sets up the path, uncounted. Returns the function to count.
    pub(crate) fn prepare(&self) -> impl FnMut() + use<> {
        let (mut stream, go) = ((self.prepare)(), self.go);
        move || go(&mut stream)
    }
}

/// An event of 64 bytes.
const EVENT: &str = "data: 00000000000000000000000000000000000000000000000000000000\n\n";

/// An inner body of `left` chunks, with a pending poll before each. After them it ends, or stays pending for ever.
struct Inner {
    chunk: Bytes,
    left: usize,
    waits: bool,
    ends: bool,
}

impl Body for Inner {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.waits = !self.waits;
        if self.waits {
            return Poll::Pending;
        }
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None if self.ends => return Poll::Ready(None),
            None => return Poll::Pending,
        }
        // Each chunk has its own allocation, like a handler's.
        Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&self.chunk)))))
    }
}

/// An inner service that responds with an [`Inner`] body.
#[derive(Clone)]
struct Handler {
    events: usize,
    chunks: usize,
    ends: bool,
}

impl<B> Service<Request<B>> for Handler {
    type Response = Response<Inner>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Inner>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let chunk = Bytes::from(EVENT.repeat(self.events));
        let mut response = Response::new(Inner { chunk, left: self.chunks, waits: false, ends: self.ends });
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/event-stream"));
        ready(Ok(response))
    }
}

/// A stream's body, ready to be polled.
struct Stream {
    body: Pin<Box<ResilientSseBody<Inner>>>,
    // Declared last, so dropped last: dropping the body needs the runtime.
    _entered: EnterGuard<'static>,
}

/// Enters a runtime that lives as long as the process.
fn runtime() -> EnterGuard<'static> {
    let runtime: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    Box::leak(Box::new(runtime)).enter()
}

fn open(sse: &ResilientSse, handler: Handler) -> Pin<Box<ResilientSseBody<Inner>>> {
    let mut service = sse.generation().id(StreamId::path("/{id}")).layer(handler);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Service::<Request<()>>::poll_ready(&mut service, &mut cx).is_ready());
    let request = Request::get("/answer").body(()).expect("a request");
    match pin!(service.call(request)).as_mut().poll(&mut cx) {
        Poll::Ready(Ok(answer)) => Box::pin(answer.into_body()),
        Poll::Ready(Err(never)) => match never {},
        Poll::Pending => panic!("the store answers at once"),
    }
}

fn hub() -> ResilientSse {
    let (sse, guardian) = ResilientSse::builder(MemoryStore::new()).anonymous().build().expect("a hub");
    // No one polls the guardian, and dropping it would log an alert.
    std::mem::forget(guardian);
    sse
}

impl Stream {
    fn of(body: Pin<Box<ResilientSseBody<Inner>>>, entered: EnterGuard<'static>) -> Self {
        Self { body, _entered: entered }
    }

    /// A running stream whose chunks have `events` events each.
    fn live(events: usize) -> Self {
        let entered = runtime();
        let handler = Handler { events, chunks: WARM + TIMES, ends: false };
        let mut stream = Self::of(open(&hub(), handler), entered);
        stream.read(WARM);
        stream
    }

    /// A running stream whose client has all events.
    fn idle() -> Self {
        let mut stream = Self::live(1);
        // Every other poll of the inner body is pending.
        stream.poll(2 * TIMES + 10);
        assert_eq!(stream.poll(10), 0);
        stream
    }

    /// A follower of an ended stream, which was recorded in entries of 64 events.
    fn replay() -> Self {
        let entered = runtime();
        let (sse, handler) = (hub(), Handler { events: TOGETHER, chunks: TIMES, ends: true });
        let mut producer = open(&sse, handler.clone());
        while !matches!(producer.as_mut().poll_frame(&mut Context::from_waker(Waker::noop())), Poll::Ready(None)) {}
        Self::of(open(&sse, handler), entered)
    }

    /// Reads `frames` frames, or all if there are fewer. Returns the number of bytes.
    fn read(&mut self, frames: usize) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        let mut bytes = 0;
        let mut left = frames;
        while left > 0 {
            match self.body.as_mut().poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    bytes += frame.data_ref().map_or(0, Bytes::len);
                    left -= 1;
                }
                Poll::Ready(_) => return bytes,
                Poll::Pending => {}
            }
        }
        bytes
    }

    /// Polls `times` times. Returns the number of frames.
    fn poll(&mut self, times: usize) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        (0..times).filter(|_| self.body.as_mut().poll_frame(&mut cx).is_ready()).count()
    }
}
