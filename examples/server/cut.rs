//! Cuts connections on request, to show how a client reconnects.
//!
//! A layer around all routes wraps the body of every response that carries a stream. `POST /demo/cut/{id}` makes these
//! bodies send half of their next frame and then fail. hyper then drops an HTTP/1.1 connection, or resets an HTTP/2
//! stream. To the client this looks like a proxy that crashes.

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

/// How long a cut waits for the next event, to break off in the middle of it.
const NEXT_EVENT: Duration = Duration::from_secs(1);
/// The pause between the half event and the failure. hyper discards unwritten data when a body fails, so it needs time
/// to write the half event.
const FLUSH: Duration = Duration::from_millis(100);

/// The open responses of this node that carry streams.
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

/// A flag that asks one response body to break off.
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

    /// Returns whether the cut was requested. If not, the task is woken once it is.
    fn poll_asked(&self, cx: &Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.is_asked()
    }
}

/// The entry of a response in `Readers`. The body owns it, and dropping it removes the entry.
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

/// Wraps each response that carries a stream, and passes all others on unchanged.
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

/// Returns the id of the stream that a response carries, if there is one.
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
    /// No cut was requested.
    Whole,
    /// A cut was requested. The body waits for the next frame until the timer fires.
    Breaking(Pin<Box<Sleep>>),
    /// Half of a frame was sent. The body fails when the timer fires.
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

/// Returns the first half of a frame's data. It ends in the middle of an event.
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
