//! The allocations of a request and the memory of a log: counts that a change must not raise by accident. `.ci/guard`
//! counts the cost of a frame.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::StreamBody;
use resilient_sse::{StreamId, test_util::TestHub};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::bodies::{App, Watch, app, numbers, request};

fn ask(app: &App, uri: &str) -> AllocationInfo {
    let (app, request): (_, Request<()>) = (app.clone(), request(uri));
    let mut answer = None;
    let cost = measure(|| answer = app.oneshot(request).now_or_never());
    assert!(answer.expect("the store answers at once").is_ok());
    cost
}

/// A response that the layer does not protect costs almost nothing.
#[tokio::test(start_paused = true)]
async fn a_request_costs_so_many_allocations() {
    let hub = TestHub::new();
    let app = app(hub.sse.generation().id(StreamId::path("/s/{id}")), &Watch::default(), numbers(1));
    // The first request sets up what the process needs once.
    ask(&app, "/s/first");
    ask(&app, "/other/first");
    let (named, bypassed) = (ask(&app, "/s/fresh"), ask(&app, "/other"));
    assert!(named.count_total <= 52, "{named:?}");
    assert!(bypassed.count_total <= 8, "{bypassed:?}");
}

/// A body of chunks that are a long comment and one small event each.
fn padded(chunks: usize, event: &'static str) -> impl Body<Data = Bytes, Error = Infallible> + Send + 'static {
    let chunk = move |_| Bytes::from(format!(":{}\n{event}", " ".repeat(64 << 10)));
    StreamBody::new(stream::iter((0..chunks).map(chunk).map(|chunk| Ok(Frame::data(chunk)))))
}

/// Reads a stream to its end. Returns the number of events.
fn read_through(hub: &TestHub, id: &str, chunks: usize, event: &'static str) -> usize {
    let inner = service_fn(move |_: Request<()>| async move {
        let response = Response::builder().header("content-type", "text/event-stream");
        Ok::<_, Infallible>(response.body(padded(chunks, event)).unwrap())
    });
    let app = hub.sse.generation().id(StreamId::path("/{id}")).layer(inner);
    let answer = app.oneshot(request(&format!("/{id}"))).now_or_never().expect("the store answers at once").unwrap();
    let mut body = pin!(answer.into_body());
    let mut cx = Context::from_waker(Waker::noop());
    let mut events = 0;
    loop {
        match body.as_mut().poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => {
                events += memchr::memmem::find_iter(frame.data_ref().unwrap(), "data: x").count();
            }
            Poll::Ready(_) => return events,
            Poll::Pending => {}
        }
    }
}

/// Guarantee G8: a log is bounded by the memory that it keeps alive, not by the length of its slices.
#[tokio::test(start_paused = true)]
async fn g8_a_log_holds_on_to_its_events_and_to_nothing_else() {
    const EVENTS: usize = 10_000;
    let hub = TestHub::new();
    read_through(&hub, "first", 10, "data: x\n\n");
    let mut events = 0;
    let held = measure(|| events = read_through(&hub, "a", EVENTS, "data: x\n\n"));
    assert_eq!(events, EVENTS);
    let counted = EVENTS * "data: x\n".len();
    assert!(held.bytes_total > (EVENTS as u64) << 16, "the chunks alone are 640 MiB");
    // An entry of the log takes 80 bytes besides its event, and a list may have room for twice as many.
    assert!(held.bytes_current < (counted + EVENTS * 2 * 80) as i64, "{} bytes for {counted}", held.bytes_current);
}

/// The same for a terminal event, which is kept for the recovery window.
#[tokio::test(start_paused = true)]
async fn g8_a_terminal_event_is_kept_without_its_chunk() {
    let hub = TestHub::new();
    let end = "event: completed\ndata: x\n\n";
    read_through(&hub, "first", 1, end);
    let held = measure(|| {
        for id in 0..100 {
            assert_eq!(read_through(&hub, &format!("s{id}"), 1, end), 1);
        }
    });
    assert!(held.bytes_current < 100 * 4096, "{} bytes for 100 streams", held.bytes_current);
}

/// A chunk with one event that counts the chunks alive.
struct Counted(Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        b"data: x\n\n"
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A poll keeps some of the chunks that it has read, so that the next ones are made in other memory. None outlives it.
#[tokio::test(start_paused = true)]
async fn g8_a_poll_frees_the_chunks_that_it_has_read() {
    let hub = TestHub::new();
    let (alive, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&alive), Arc::clone(&most));
    let inner = service_fn(move |_: Request<()>| {
        let (alive, most) = counts.clone();
        let chunks = (0..64).map(move |_| {
            most.fetch_max(alive.fetch_add(1, Relaxed) + 1, Relaxed);
            Ok::<_, Infallible>(Frame::data(Bytes::from_owner(Counted(Arc::clone(&alive)))))
        });
        let response = Response::builder().header("content-type", "text/event-stream");
        let body = StreamBody::new(stream::iter(chunks).chain(stream::pending()));
        async move { Ok::<_, Infallible>(response.body(body).unwrap()) }
    });
    let app = hub.sse.generation().id(StreamId::path("/{id}")).layer(inner);
    let answer = app.oneshot(request("/a")).now_or_never().expect("the store answers at once").unwrap();
    let mut body = pin!(answer.into_body());
    let mut cx = Context::from_waker(Waker::noop());
    while body.as_mut().poll_frame(&mut cx).is_ready() {}
    assert!(alive.load(Relaxed) <= 1, "{} chunks are alive: all but the last were read", alive.load(Relaxed));
    // Ten are kept when the last one is made.
    assert_eq!(most.load(Relaxed), 11);
}
