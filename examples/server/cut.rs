//! Cuts connections on request, so that one can watch a client come back.
//!
//! A layer around all routes wraps the body of every response that carries a stream. `POST /demo/cut/{id}` has these
//! bodies send half of their next frame and then fail, at which hyper drops an HTTP/1.1 connection (and resets an HTTP/2
//! stream). The client sees what it would see of a proxy that dies.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, Method, header},
    middleware::Next,
    response::Response,
};
use futures_util::task::AtomicWaker;
use hyper::body::{Frame, SizeHint};
use resilient_sse::{StreamId, StreamKey};
use tokio::time::{Sleep, sleep};

use crate::hub;

/// How long a cut waits for an event to break off in the middle of.
const NEXT_EVENT: Duration = Duration::from_secs(1);
/// hyper throws away what it has not written yet when a body fails, so the half event needs time to leave.
const FLUSH: Duration = Duration::from_millis(100);

/// The responses of this node that carry streams now.
#[derive(Clone, Default)]
pub(crate) struct Readers(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    next: u64,
    readers: HashMap<StreamKey, HashMap<u64, Arc<Cut>>>,
}

impl Readers {
    /// Cuts every response that carries this stream, and returns how many there were.
    pub(crate) fn cut(&self, stream: &StreamKey) -> usize {
        let readers = self.lock().readers.remove(stream).unwrap_or_default();
        readers.values().for_each(|cut| cut.ask());
        readers.len()
    }

    fn enter(&self, stream: StreamKey) -> Reader {
        let cut = Arc::new(Cut::default());
        let mut open = self.lock();
        let number = open.next;
        open.next += 1;
        open.readers.entry(stream.clone()).or_default().insert(number, cut.clone());
        drop(open);
        Reader { readers: self.clone(), stream, number, cut }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks one response body to break off.
#[derive(Default)]
struct Cut {
    asked: AtomicBool,
    waker: AtomicWaker,
}

impl Cut {
    fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Whether it is asked; if not, the task is woken once it is.
    fn poll_asked(&self, cx: &Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.is_asked()
    }
}

/// A response's entry among the readers. Dropping it, with the body, removes the entry.
struct Reader {
    readers: Readers,
    stream: StreamKey,
    number: u64,
    cut: Arc<Cut>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut open = self.readers.lock();
        let Some(readers) = open.readers.get_mut(&self.stream) else { return };
        readers.remove(&self.number);
        if readers.is_empty() {
            open.readers.remove(&self.stream);
        }
    }
}

/// The layer: wraps the responses that carry a stream, and passes all others on as they are.
pub(crate) async fn watch(State(readers): State<Readers>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let owner = hub::owner(&parts);
    let has_body = parts.method != Method::HEAD;
    let response = next.run(Request::from_parts(parts, body)).await;
    match (owner, stream_id(response.headers())) {
        (Some(owner), Some(id)) if has_body && !response.body().is_end_stream() => {
            let reader = readers.enter(StreamKey::new(owner, id));
            response.map(|body| Body::new(Cuttable { body, reader, stage: Stage::Whole }))
        }
        _ => response,
    }
}

/// The stream that a response carries, if it carries one.
fn stream_id(headers: &HeaderMap) -> Option<StreamId> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let id = headers.get("x-stream-id")?.to_str().ok()?;
    kind.starts_with("text/event-stream").then(|| StreamId::new(id).ok()).flatten()
}

/// A response body that can be cut.
struct Cuttable {
    body: Body,
    reader: Reader,
    stage: Stage,
}

enum Stage {
    /// Nobody has asked for a cut.
    Whole,
    /// The next frame will be cut, if it comes in time.
    Breaking(Pin<Box<Sleep>>),
    /// Half of a frame was the last one.
    Halved(Pin<Box<Sleep>>),
}

impl HttpBody for Cuttable {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        loop {
            match &mut this.stage {
                Stage::Whole => {
                    if !this.reader.cut.is_asked() {
                        let frame = Pin::new(&mut this.body).poll_frame(cx);
                        if frame.is_ready() || !this.reader.cut.poll_asked(cx) {
                            return frame;
                        }
                    }
                    this.stage = Stage::Breaking(Box::pin(sleep(NEXT_EVENT)));
                }
                Stage::Breaking(limit) => {
                    return match Pin::new(&mut this.body).poll_frame(cx) {
                        Poll::Ready(Some(Ok(frame))) => {
                            this.stage = Stage::Halved(Box::pin(sleep(FLUSH)));
                            Poll::Ready(Some(Ok(frame.map_data(half))))
                        }
                        Poll::Ready(end) => Poll::Ready(end),
                        Poll::Pending => limit.as_mut().poll(cx).map(|()| Some(Err(broken()))),
                    };
                }
                Stage::Halved(flush) => {
                    ready!(flush.as_mut().poll(cx));
                    return Poll::Ready(Some(Err(broken())));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.stage, Stage::Whole) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.stage {
            Stage::Whole => self.body.size_hint(),
            Stage::Breaking(_) | Stage::Halved(_) => SizeHint::default(),
        }
    }
}

/// The first half of a frame's data, which ends within an event.
fn half(mut data: Bytes) -> Bytes {
    data.truncate(data.len() / 2);
    if data.ends_with(b"\n\n") {
        data.truncate(data.len() - 1);
    }
    data
}

fn broken() -> axum::Error {
    axum::Error::new(io::Error::other("the connection is cut, as `POST /demo/cut` asked"))
}
