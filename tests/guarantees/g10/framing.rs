//! A toy wire format with one JSON object a line shows that layer, recorder and follow depend on no format.

use std::{borrow::Cow, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use http::Request;
use resilient_sse::{
    Event, ResilientSseBody, StreamId,
    test_util::TestHub,
    wire::{Block, EncodeError, EventView, Framing, Scan, Scanned, Sse, TooLarge},
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::bodies::{App, Script, Step, Watch, chunk, request, resuming, send, serving};

/// An event is a line `{"name":…,"data":…,"id":…}`; a line that is no object is no event.
#[derive(Debug)]
struct Ndjson;

struct Lines {
    held: BytesMut,
    given: BytesMut,
    limit: usize,
    failed: bool,
}

impl Scan for Lines {
    fn push(&mut self, chunk: Bytes) {
        self.held.extend_from_slice(&chunk);
    }

    fn next(&mut self) -> Result<Option<Scanned<'_>>, TooLarge> {
        let end = self.held.iter().position(|byte| *byte == b'\n');
        self.failed |= end.unwrap_or(self.held.len()) > self.limit;
        if self.failed {
            return Err(TooLarge { limit: self.limit });
        }
        let Some(end) = end else { return Ok(None) };
        self.given = self.held.split_to(end + 1);
        let bytes = &self.given[..];
        let is_event = bytes.starts_with(b"{");
        Ok(Some(if is_event { Scanned::Event(Block { bytes, has_id: true }) } else { Scanned::Aside(bytes) }))
    }

    fn pending(&self) -> usize {
        self.held.remaining()
    }
}

fn object(block: &[u8]) -> Value {
    serde_json::from_slice(block).unwrap_or_default()
}

impl Framing for Ndjson {
    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn claims(&self, content_type: &str) -> bool {
        content_type == "application/x-ndjson"
    }

    fn scanner(&self, limit: usize) -> Box<dyn Scan> {
        Box::new(Lines { held: BytesMut::new(), given: BytesMut::new(), limit, failed: false })
    }

    fn view<'a>(&self, block: &'a [u8]) -> EventView<'a> {
        let object = object(block);
        let text = |key: &str| object[key].as_str().map(|text| Cow::Owned(text.to_owned()));
        EventView { name: text("name"), data: text("data").unwrap_or_default(), id: text("id"), retry: None }
    }

    fn deliver(&self, block: &[u8], _: bool, id: Option<&[u8]>, retry: Option<u64>, out: &mut BytesMut) {
        if let Some(id) = id {
            let rest = self.deliver_around(block, true, out);
            out.extend_from_slice(id);
            return out.extend_from_slice(rest);
        }
        let mut object = object(block);
        if let Some(retry) = retry {
            object["retry"] = json!(retry);
        }
        out.extend_from_slice(format!("{object}\n").as_bytes());
    }

    fn deliver_around(&self, block: &[u8], _: bool, out: &mut BytesMut) -> &'static [u8] {
        let object = object(block);
        let (name, data) = (&object["name"], &object["data"]);
        out.extend_from_slice(format!(r#"{{"name":{name},"data":{data},"id":""#).as_bytes());
        b"\"}\n"
    }

    fn first(&self, events: &[u8]) -> usize {
        events.iter().position(|byte| *byte == b'\n').map_or(events.len(), |end| end + 1)
    }

    fn encode(&self, event: &Event) -> Result<Bytes, EncodeError> {
        let object = json!({ "name": event.name(), "data": event.data(), "id": event.id() });
        Ok(format!("{object}\n").into())
    }

    fn heartbeat(&self) -> &'static [u8] {
        b"\n"
    }

    fn retry(&self, ms: u64, out: &mut BytesMut) {
        out.extend_from_slice(format!("[{ms}]\n").as_bytes());
    }
}

fn hub() -> TestHub {
    TestHub::with(|builder| builder.anonymous().framing(Ndjson)).unwrap()
}

fn line(name: &str, data: &str) -> Step {
    chunk(format!("{}\n", json!({ "name": name, "data": data, "id": format!("inner-{data}") })))
}

fn ndjson(hub: &TestHub, watch: &Watch, steps: Vec<Step>) -> App {
    let watch = watch.clone();
    serving(hub.sse.generation().id(StreamId::path("/s/{id}")), move |_: Request<()>| {
        http::Response::builder()
            .header("content-type", "application/x-ndjson")
            .body(watch.body(steps.clone()))
            .unwrap()
    })
}

/// Reads a number of lines that are events, or all that are ready.
async fn lines(hub: &mut TestHub, body: &mut ResilientSseBody<Script>, count: usize) -> Vec<Value> {
    use http_body::Body as _;
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut text = BytesMut::new();
    for _ in 0..200 {
        match std::pin::Pin::new(&mut *body).poll_frame(&mut cx) {
            std::task::Poll::Ready(Some(frame)) => text.extend_from_slice(&frame.unwrap().into_data().unwrap()),
            std::task::Poll::Ready(None) => break,
            std::task::Poll::Pending => hub.advance(Duration::from_millis(50)).await,
        }
    }
    let events = text[..].split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{"));
    events.map(|line| serde_json::from_slice(line).unwrap()).take(count).collect()
}

fn told(lines: &[Value]) -> Vec<(&str, &str)> {
    lines.iter().map(|line| (line["name"].as_str().unwrap_or("-"), line["data"].as_str().unwrap())).collect()
}

#[tokio::test(start_paused = true)]
async fn g10_another_format_is_generated_cut_resumed_and_recovered() {
    let mut hub = hub();
    let watch = Watch::default();
    let steps = vec![
        line("token", "1"),
        line("token", "2"),
        chunk("\n"),
        Step::Sleep(Duration::from_secs(1)),
        line("token", "3"),
        Step::Sleep(Duration::from_secs(4)),
        line("completed", "4"),
    ];
    let app = ndjson(&hub, &watch, steps);
    let response = send(&app, request("/s/a")).await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    assert_eq!(response.headers()["x-stream-id"], "a");
    let mut body = response.into_body();
    // Read for one second, then cut.
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut text = String::new();
    while let std::task::Poll::Ready(Some(Ok(frame))) =
        http_body::Body::poll_frame(std::pin::Pin::new(&mut body), &mut cx)
    {
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    drop(body);
    let seen: Vec<Value> =
        text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told(&seen), [("connected", r#"{"streamId":"a"}"#), ("token", "1"), ("token", "2")]);
    assert!(seen[0]["retry"].is_u64(), "in the first event");
    let cursor = seen[2]["id"].as_str().unwrap().to_owned();
    assert!(cursor.ends_with("-2"), "{cursor}");
    hub.advance(Duration::from_secs(2)).await;

    let recovered = hub.sse.recover().oneshot(request("/a/recover")).await.unwrap();
    let recovered = http_body_util::BodyExt::collect(recovered.into_body()).await.unwrap().to_bytes();
    let recovered: Value = serde_json::from_slice(&recovered).unwrap();
    assert_eq!(recovered["status"], "active");
    let events: Vec<_> = recovered["events"].as_array().unwrap().iter().map(|event| &event["type"]).collect();
    assert_eq!(events, ["token", "token", "token"]);

    let response = send(&app, resuming("/s/a", &cursor)).await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let mut body = response.into_body();
    let rest = lines(&mut hub, &mut body, 10).await;
    assert_eq!(told(&rest)[1..], [("token", "3"), ("completed", "4")]);
    let end = rest[2]["id"].as_str().unwrap();
    assert_eq!(send(&app, resuming("/s/a", end)).await.status(), 204);

    let recovered = hub.sse.recover().oneshot(request("/a/recover")).await.unwrap();
    let recovered = http_body_util::BodyExt::collect(recovered.into_body()).await.unwrap().to_bytes();
    let recovered: Value = serde_json::from_slice(&recovered).unwrap();
    assert_eq!((&recovered["status"], &recovered["terminalEventType"]), (&json!("completed"), &json!("completed")));
    assert_eq!((watch.made(), watch.alive()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn g10_another_format_has_gaps_bounds_and_published_events_too() {
    let mut hub = hub();
    let watch = Watch::default();
    let app = ndjson(&hub, &watch, vec![line("token", "1"), chunk("x".repeat(2 << 20))]);
    let mut body = send(&app, resuming("/s/a", "gibberish")).await.into_body();
    let seen = lines(&mut hub, &mut body, 10).await;
    let names: Vec<_> = told(&seen).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["connected", "gap", "token", "failed"]);
    assert_eq!(told(&seen)[3].1, r#"{"reason":"event_too_large"}"#);

    let owner = resilient_sse::Owner::ANONYMOUS;
    hub.sse.publisher().send(&owner, &StreamId::new("b").unwrap(), Event::new("x").named("n")).await.unwrap();
    let mut body = send(&app, request("/s/b")).await.into_body();
    assert_eq!(told(&lines(&mut hub, &mut body, 2).await)[1..], [("n", "x")]);

    // This hub does not claim server-sent events.
    let watch = Watch::default();
    let plain = crate::support::bodies::app(
        hub.sse.generation().id(StreamId::path("/s/{id}")),
        &watch,
        crate::support::bodies::numbers(1),
    );
    let response = send(&plain, request("/s/c")).await;
    assert!(response.headers().get("x-stream-id").is_none());
}

/// Server-sent events, except that one of them cannot be written.
#[derive(Debug)]
struct Panicky;

impl Framing for Panicky {
    fn content_type(&self) -> &'static str {
        Sse.content_type()
    }

    fn claims(&self, content_type: &str) -> bool {
        Sse.claims(content_type)
    }

    fn scanner(&self, limit: usize) -> Box<dyn Scan> {
        Sse.scanner(limit)
    }

    fn view<'a>(&self, block: &'a [u8]) -> EventView<'a> {
        Sse.view(block)
    }

    fn deliver(&self, block: &[u8], has_id: bool, id: Option<&[u8]>, retry: Option<u64>, out: &mut BytesMut) {
        assert!(!block.starts_with(b"data: boom"), "told to panic");
        Sse.deliver(block, has_id, id, retry, out);
    }

    fn deliver_around(&self, block: &[u8], has_id: bool, out: &mut BytesMut) -> &'static [u8] {
        Sse.deliver_around(block, has_id, out)
    }

    fn first(&self, events: &[u8]) -> usize {
        Sse.first(events)
    }

    fn encode(&self, event: &Event) -> Result<Bytes, EncodeError> {
        Sse.encode(event)
    }

    fn heartbeat(&self) -> &'static [u8] {
        Sse.heartbeat()
    }

    fn retry(&self, ms: u64, out: &mut BytesMut) {
        Sse.retry(ms, out);
    }
}

#[tokio::test(start_paused = true)]
async fn g11_a_wire_format_that_panics_fails_its_stream_and_no_other() {
    let mut hub = TestHub::with(|builder| builder.anonymous().framing(Panicky)).unwrap();
    let watch = Watch::default();
    let path = || StreamId::path("/s/{id}");
    let steps = vec![chunk("data: 0\n\n"), Step::Yield, chunk("data: 1\n\ndata: boom\n\ndata: 2\n\n"), Step::Hang];
    let bad = crate::support::bodies::app(hub.sse.generation().id(path()), &watch, steps);
    let good = crate::support::bodies::app(hub.sse.generation().id(path()), &watch, crate::support::bodies::numbers(3));
    let mut client = crate::support::bodies::Client::new(send(&bad, request("/s/bad")).await.into_body());
    client.finish(&mut hub).await;
    assert_eq!((client.names().last(), client.data()[0]), (Some(&"failed"), "0"));
    assert_eq!(watch.alive(), 0, "the work is stopped");
    let key = resilient_sse::StreamKey::new(resilient_sse::Owner::ANONYMOUS, StreamId::new("bad").unwrap());
    let ended = hub.sse.completions().completion(&key).await.unwrap().unwrap();
    assert_eq!((ended.ending.reason.as_deref(), hub.sse.health().active), (Some("panic"), 0));
    let mut other = crate::support::bodies::Client::new(send(&good, request("/s/good")).await.into_body());
    other.finish(&mut hub).await;
    assert_eq!(other.data()[..3], ["0", "1", "2"]);
}
