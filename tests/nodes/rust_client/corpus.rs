//! Reads the corpus of event streams with an `EventSource`, and checks its events and the cursor that it keeps.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::stream::{StreamExt as _, iter};
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use resilient_sse::{
    Ends,
    client::{EventSource, GaveUp, Update},
};
use serde_json::Value;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A server that answers its first request with these chunks, and every other one with 404.
#[derive(Clone)]
struct Chunks {
    chunks: Vec<Bytes>,
    cursors: Arc<Mutex<Vec<String>>>,
}

impl tower::Service<Request<Full<Bytes>>> for Chunks {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let cursor =
            request.headers().get("last-event-id").map(|id| String::from_utf8(id.as_bytes().to_vec()).unwrap());
        let mut cursors = self.cursors.lock().unwrap();
        cursors.push(cursor.unwrap_or_default());
        let response = if cursors.len() == 1 {
            let frames = iter(self.chunks.clone()).map(|chunk| Ok(Frame::data(chunk)));
            let response = Response::builder().header(header::CONTENT_TYPE, "text/event-stream");
            response.body(StreamBody::new(frames).boxed_unsync())
        } else {
            Response::builder().status(StatusCode::NOT_FOUND).body(Full::default().boxed_unsync())
        };
        Box::pin(std::future::ready(Ok(response.unwrap())))
    }
}

/// Reads a stream. Returns each event's name, data and id, and the cursor of the next request.
async fn read(chunks: Vec<Bytes>) -> (Vec<[String; 3]>, String) {
    let cursors = Arc::default();
    let server = Chunks { chunks, cursors: Arc::clone(&cursors) };
    let request = Request::get("/").body(Full::default()).unwrap();
    let mut source = EventSource::builder(server, request).ends(Ends::none()).build();
    let mut events = Vec::new();
    while let Some(update) = source.next().await {
        match update {
            Ok(Update::Event(event)) => events.push([event.name, event.data, event.last_event_id]),
            Ok(Update::Connected(_) | Update::Cut(_)) => {}
            Err(GaveUp::Refused(_) | GaveUp::Cursor { .. }) => break,
            other => panic!("{other:?}"),
        }
    }
    let cursor = cursors.lock().unwrap().get(1).cloned();
    (events, cursor.unwrap_or_else(|| source.last_event_id().to_owned()))
}

#[tokio::test(start_paused = true)]
async fn a_source_reads_every_case_whole_and_byte_by_byte() {
    let corpus: Value = serde_json::from_str(include_str!("../../corpus/cases.json")).unwrap();
    let cases = corpus["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 108);
    for case in cases {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let chunks = case["chunks"].as_array().unwrap().iter();
        let chunks: Vec<_> = chunks.map(|chunk| Bytes::from(STANDARD.decode(text(chunk)).unwrap())).collect();
        let events = case["expected"]["events"].as_array().unwrap().iter();
        let events: Vec<_> = events.map(|event| ["type", "data", "id"].map(|field| text(&event[field]))).collect();
        let expected = (events, text(&case["expected"]["lastEventId"]));
        let bytes = Bytes::from(chunks.concat());
        let single = (0..bytes.len()).map(|at| bytes.slice(at..=at)).collect();
        for chunks in [chunks, single] {
            assert_eq!(read(chunks).await, expected, "{}", case["name"]);
        }
    }
}
