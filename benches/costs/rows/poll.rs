//! The cost that the layer adds to polling a body, per event. No sockets are involved, and no store if the body is not
//! an event stream.

use std::{
    convert::Infallible,
    hint::black_box,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use resilient_sse::{MemoryStore, ResilientSse, StreamId};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

use crate::{
    Options, Result,
    figure::{Goal, Line},
    rows::in_turns,
};

pub(crate) const WHAT: &str = "poll_frame, added per frame of one event";

const FRAMES: usize = 1_000_000;

/// Makes events of 64 B. Each has its own allocation, like a handler's.
struct Events {
    event: Bytes,
    left: usize,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&self.event)))))
    }
}

fn events() -> Events {
    Events { event: Bytes::from(format!("data: {}\n\n", "x".repeat(56))), left: FRAMES }
}

pub(crate) fn measure(options: &Options) -> Result<Vec<Line>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let [bare, passed, recorded]: [Vec<f64>; 3] = in_turns(options, |variant, _| {
        runtime.block_on(async {
            match variant {
                0 => Ok(take(events())),
                1 => Ok(take(layered("application/json").await?)),
                _ => Ok(take(layered("text/event-stream").await?)),
            }
        })
    })?;
    let added = |own: &[f64]| own.iter().zip(&bare).map(|(own, bare)| own - bare).collect();
    Ok(vec![
        Line::new(WHAT, "the bare body", "ns", Goal::None, bare.clone()),
        Line::new(WHAT, "a body that is no event stream", "ns", Goal::AtMost(25.0), added(&passed)),
        Line::new(WHAT, "an event stream, recorded on memory, 64 events a frame", "ns", Goal::None, added(&recorded)),
    ])
}

async fn layered(content_type: &'static str) -> Result<impl Body<Data = Bytes> + Unpin> {
    let (sse, guardian) = ResilientSse::builder(MemoryStore::new()).anonymous().build()?;
    tokio::spawn(guardian);
    let inner = service_fn(move |_: Request<()>| async move {
        Response::builder().header("content-type", content_type).body(events())
    });
    let app = ServiceBuilder::new().layer(sse.generation().id(StreamId::path("/{id}"))).service(inner);
    Ok(app.oneshot(Request::get("/a").body(())?).await?.into_body())
}

/// Polls a body to its end. Returns the ns for each event.
fn take(mut body: impl Body<Data = Bytes> + Unpin) -> f64 {
    let mut cx = Context::from_waker(Waker::noop());
    let begun = Instant::now();
    loop {
        match Pin::new(&mut body).poll_frame(&mut cx) {
            Poll::Ready(None) => break,
            frame => drop(black_box(frame)),
        }
    }
    begun.elapsed().as_secs_f64() * 1e9 / FRAMES as f64
}
