//! Cuts connections on request, so that one can watch a client come back.
//!
//! A layer around all routes wraps the body of every response that carries a stream. `POST /demo/cut/{id}` has these
//! bodies send half of their next frame and then fail, at which hyper drops an HTTP/1.1 connection (and resets an HTTP/2
//! stream). The client sees what it would see of a proxy that dies.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::{Request, State},
    http::{HeaderMap, Method, header},
    middleware::Next,
    response::Response,
};
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use resilient_sse::{StreamId, StreamKey};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

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
    readers: HashMap<StreamKey, HashMap<u64, CancellationToken>>,
}

impl Readers {
    /// Cuts every response that carries this stream, and returns how many there were.
    pub(crate) fn cut(&self, stream: &StreamKey) -> usize {
        let readers = self.lock().readers.remove(stream).unwrap_or_default();
        readers.values().for_each(CancellationToken::cancel);
        readers.len()
    }

    fn enter(&self, stream: StreamKey) -> Reader {
        let cut = CancellationToken::new();
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

/// A response's entry among the readers. Dropping it, with the body, removes the entry.
struct Reader {
    readers: Readers,
    stream: StreamKey,
    number: u64,
    cut: CancellationToken,
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
            response.map(|body| cuttable(body, reader))
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

fn cuttable(body: Body, reader: Reader) -> Body {
    let body = Cuttable { body, reader, halved: false };
    Body::new(StreamBody::new(stream::unfold(body, async |mut body| Some((body.next().await?, body)))))
}

/// A response body that can be cut.
struct Cuttable {
    body: Body,
    reader: Reader,
    /// Whether half of a frame was its last.
    halved: bool,
}

impl Cuttable {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, axum::Error>> {
        if self.halved {
            sleep(FLUSH).await;
            return Some(Err(broken()));
        }
        tokio::select! {
            biased;
            () = self.reader.cut.cancelled() => {}
            frame = self.body.frame() => return frame,
        }
        match timeout(NEXT_EVENT, self.body.frame()).await {
            Ok(Some(Ok(frame))) => {
                self.halved = true;
                Some(Ok(frame.map_data(half)))
            }
            Ok(ended) => ended,
            Err(_) => Some(Err(broken())),
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
