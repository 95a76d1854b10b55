//! One stream to many readers on one node: what an event costs in all, and for each of them.
//!
//! `cargo bench --bench fan --features test-util -- [readers…]`
//!
//! Two figures that must not grow with the number of readers: what it takes a tail to be registered and dropped (each
//! follower does that for each event), and a delivery to a reader of a relay, from the event's publication to the frame.

use std::{
    env,
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use http::Request;
use http_body::Body as _;
use resilient_sse::{AnswerBody, Event, MemoryStore, Owner, ResilientSse, StreamId, store::TailCell};
use tower::ServiceExt as _;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const EVENTS: u32 = 20;

/// A task's waker: shared by nobody.
struct Task;

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let readers: Vec<usize> = env::args().filter_map(|arg| arg.parse().ok()).collect();
    let readers = if readers.is_empty() { vec![100, 1_000, 10_000] } else { readers };
    for readers in readers {
        let (registered, dropped) = tails(readers);
        let (published, delivered) = deliveries(readers).await?;
        let each = |time: Duration| time.as_secs_f64() * 1e9 / readers as f64;
        println!(
            "{readers:>6} readers, ns each: a tail is registered {:.0}, dropped {:.0}; an event is published {:.0}, delivered {:.0}",
            each(registered),
            each(dropped),
            each(published),
            each(delivered),
        );
    }
    Ok(())
}

/// How long it takes to register so many tails of one stream, each with a waker of its own, and to drop them.
fn tails(readers: usize) -> (Duration, Duration) {
    let cell = Arc::new(TailCell::default());
    let mut tails: Vec<_> = (0..readers).map(|_| (cell.tail(), Waker::from(Arc::new(Task)))).collect();
    let begun = Instant::now();
    for (tail, waker) in &mut tails {
        assert!(tail.poll_changed(&mut Context::from_waker(waker)).is_pending());
    }
    let registered = begun.elapsed();
    let begun = Instant::now();
    drop(tails);
    (registered, begun.elapsed())
}

/// How long an event takes to be published, and until every reader has its frame.
async fn deliveries(readers: usize) -> Result<(Duration, Duration)> {
    let (sse, _guardian) = ResilientSse::builder(MemoryStore::new()).anonymous().build()?;
    let id = StreamId::new("news")?;
    sse.publisher().send(&Owner::ANONYMOUS, &id, Event::new("0")).await?;
    let mut bodies = Vec::new();
    for _ in 0..readers {
        let answer = sse.relay().oneshot(Request::get("/news").body(())?).await?;
        bodies.push((Box::pin(answer.into_body()), Waker::from(Arc::new(Task))));
    }
    read_all(&mut bodies);
    let (mut published, begun) = (Duration::ZERO, Instant::now());
    for n in 0..EVENTS {
        let at = Instant::now();
        sse.publisher().send(&Owner::ANONYMOUS, &id, Event::new(n.to_string())).await?;
        published += at.elapsed();
        assert_eq!(read_all(&mut bodies), readers, "each has one frame");
    }
    Ok((published / EVENTS, begun.elapsed() / EVENTS))
}

/// Polls every body until it waits. Returns how many frames there were.
fn read_all(bodies: &mut [(Pin<Box<AnswerBody>>, Waker)]) -> usize {
    let mut frames = 0;
    for (body, waker) in bodies {
        let mut cx = Context::from_waker(waker);
        while let Poll::Ready(Some(Ok(_))) = body.as_mut().poll_frame(&mut cx) {
            frames += 1;
        }
    }
    frames
}
