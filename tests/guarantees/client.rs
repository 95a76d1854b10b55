//! Clients that connect, read, leave, and reconnect with the last id they saw.

use bytes::Buf as _;
use futures_util::FutureExt as _;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use resilient_sse::{
    Owner, ResilientSseBody, StreamId, StreamKey, Voice,
    test_util::Seen,
    wire::{Parsed, Parser},
};
use std::sync::Arc;
use tower::ServiceExt as _;

use crate::{
    stage::AllFacts,
    support::{
        checker::{Cursor, Facts, Witness, check_bytes},
        handlers::{App, Body},
    },
};

/// How a client sends its cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Header,
    Query,
}

/// A client that connects, reads, leaves, and reconnects with the last id it saw.
pub struct Client {
    pub app: App,
    uri: String,
    user: Option<String>,
    pub via: Via,
    pub method: Method,
    pub headers: HeaderMap,
    pub witness: Witness,
    facts: AllFacts,
    connection: Option<Connection>,
    /// How the newest body ended; `None` while it has not.
    pub body_end: Option<BodyEnd>,
    /// All bytes that arrived.
    bytes: Vec<u8>,
}

/// How a response body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// The body ended cleanly.
    Clean,
    /// The body ended with an error, like a broken connection.
    Broken,
}

struct Connection {
    body: ResilientSseBody<Body>,
    parser: Parser,
    bytes: Vec<u8>,
    comments: u64,
    ended: bool,
}

impl Client {
    pub fn new(app: &App, uri: &str, facts: &AllFacts) -> Self {
        let name = uri.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        let id = StreamId::new(name).unwrap_or_else(|_| StreamId::new("unnamed").unwrap());
        Self {
            app: app.clone(),
            uri: uri.to_owned(),
            user: None,
            via: Via::Header,
            method: Method::GET,
            headers: HeaderMap::new(),
            witness: Witness::new(StreamKey::new(Owner::ANONYMOUS, id), Voice::Named, false),
            facts: Arc::clone(facts),
            connection: None,
            body_end: None,
            bytes: Vec::new(),
        }
    }

    pub fn user(mut self, user: &str) -> Self {
        self.witness.key.owner = Owner::new(user).unwrap();
        self.user = Some(user.to_owned());
        self
    }

    pub fn voice(mut self, voice: Voice) -> Self {
        self.witness.voice = voice;
        self
    }

    /// Whether the library makes up the stream's name.
    pub fn unnamed(mut self) -> Self {
        self.witness.prefixed = true;
        self
    }

    /// Whether the route's streams never finish.
    pub fn endless(mut self) -> Self {
        self.witness.endless = true;
        self
    }

    /// Whether the client is judged by itself, because it sees something else than the store holds.
    pub fn apart(mut self) -> Self {
        self.facts = Arc::default();
        self
    }

    pub fn key(&self) -> &StreamKey {
        &self.witness.key
    }

    /// Connects with the last id it saw, if it saw one.
    pub async fn connect(&mut self) -> StatusCode {
        let cursor = self.witness.cursor();
        let kind = if cursor.is_some() { Cursor::Own } else { Cursor::None };
        self.connect_with(cursor.as_deref(), kind).await
    }

    /// Connects with a cursor of the test's choice.
    pub async fn connect_with(&mut self, cursor: Option<&str>, kind: Cursor) -> StatusCode {
        self.leave();
        let request = self.request(cursor);
        let response = self.app.clone().oneshot(request).await.unwrap();
        let status = response.status();
        if status != StatusCode::OK {
            return status;
        }
        self.check_headers(response.headers());
        let had_ended = self.witness.ended.is_some();
        assert!(!had_ended || kind != Cursor::Own, "after the end comes 204");
        self.witness.connects(kind);
        self.body_end = None;
        self.connection = Some(Connection {
            body: response.into_body(),
            parser: Parser::new(1 << 24),
            bytes: Vec::new(),
            comments: 0,
            ended: false,
        });
        status
    }

    fn request(&self, cursor: Option<&str>) -> Request<()> {
        let uri = match cursor {
            Some(cursor) if self.via == Via::Query => format!("{}?last_event_id={cursor}", self.uri),
            _ => self.uri.clone(),
        };
        let mut request = Request::builder().method(self.method.clone()).uri(uri).body(()).unwrap();
        request.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
        request.headers_mut().extend(self.headers.clone());
        if let Some(user) = &self.user {
            request.headers_mut().insert("x-user", user.parse().unwrap());
        }
        if let Some(cursor) = cursor.filter(|_| self.via == Via::Header) {
            request.headers_mut().insert("last-event-id", cursor.parse().unwrap());
        }
        request
    }

    fn check_headers(&mut self, headers: &HeaderMap) {
        assert_eq!(headers["content-type"], "text/event-stream");
        assert_eq!(headers["cache-control"], "no-store, no-transform");
        assert_eq!(headers["x-accel-buffering"], "no");
        assert!(!headers.contains_key("content-length") && !headers.contains_key("x-stream-recorded"));
        let id = headers["x-stream-id"].to_str().unwrap();
        if self.witness.prefixed {
            self.witness.set_stream_id(id);
        }
        assert_eq!(id, self.witness.key.id.as_str());
        self.facts.lock().unwrap().entry(self.witness.key.clone()).or_default();
    }

    /// Reads everything that is ready. Returns the number of events.
    pub async fn read_ready(&mut self) -> u64 {
        let before = self.witness.data.len() as u64;
        // Frames that were taken from the body are kept even if this future is dropped.
        let _ = self.read(u64::MAX).now_or_never();
        // If a task does the work, let it run too.
        tokio::task::yield_now().await;
        let _ = self.read(u64::MAX).now_or_never();
        self.witness.data.len() as u64 - before
    }

    /// Reads until a number of events arrived, not counting the library's notices. Returns how many arrived.
    pub async fn read(&mut self, events: u64) -> u64 {
        let before = self.witness.data.len() as u64;
        let mut facts = Facts::default();
        while self.witness.data.len() as u64 - before < events {
            let connection = self.connection.as_mut().expect("connected");
            if let Some(parsed) = connection.parser.pop() {
                match parsed {
                    Parsed::Comment(_) => connection.comments += 1,
                    Parsed::Message(message) => {
                        let seen = Seen { name: message.name, data: message.data, id: message.last_event_id };
                        let mut all = self.facts.lock().unwrap();
                        let facts = all.get_mut(&self.witness.key).unwrap_or(&mut facts);
                        self.witness.check(&seen, facts);
                    }
                }
                continue;
            }
            match connection.body.frame().await {
                None => {
                    connection.ended = true;
                    self.body_end = Some(BodyEnd::Clean);
                    self.witness.body_ends_cleanly();
                    break;
                }
                Some(Err(_)) => {
                    connection.ended = true;
                    self.body_end = Some(BodyEnd::Broken);
                    break;
                }
                Some(Ok(frame)) => {
                    let mut data = frame.into_data().unwrap();
                    let bytes = data.copy_to_bytes(data.remaining());
                    connection.bytes.extend_from_slice(&bytes);
                    connection.parser.push(&bytes).unwrap();
                }
            }
        }
        self.witness.data.len() as u64 - before
    }

    /// Reads until the body ends. Returns the number of events.
    pub async fn read_to_end(&mut self) -> u64 {
        let read = self.read(u64::MAX).await;
        assert!(self.connection.as_ref().is_some_and(|connection| connection.ended));
        self.leave();
        read
    }

    /// Drops the response.
    pub fn leave(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.bytes.extend_from_slice(&connection.bytes);
            check_bytes(&connection.bytes, connection.ended);
            if connection.ended || connection.bytes.windows(5).any(|bytes| bytes == b"data:") {
                let retry = connection.parser.reconnection_time();
                assert!(retry.is_some_and(|ms| (1000..=5000).contains(&ms)), "{retry:?}");
            }
        }
    }

    /// Returns the bytes of every event that arrived, without the library's notices.
    pub fn events_sent(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let own = |line: &&str| line.starts_with(':') || line.starts_with("retry:");
        let block = |block: &str| block.lines().filter(|line| !own(line)).map(|line| format!("{line}\n")).collect();
        let blocks: Vec<String> = text.split("\n\n").map(block).collect();
        blocks.into_iter().filter(|block| block.contains("id: ")).map(|block| block + "\n").collect()
    }

    /// Leaves the body undropped, as if its node had died: no destructor runs.
    pub fn dies_with_its_node(&mut self) {
        std::mem::forget(self.connection.take());
    }

    /// Connects, and dies with its node before the response.
    pub fn dies_waiting(&mut self) {
        let mut answer = Box::pin(self.app.clone().oneshot(self.request(None)));
        assert!(answer.as_mut().now_or_never().is_none());
        std::mem::forget(answer);
    }

    /// Connects, reads a number of events, and leaves.
    pub async fn cut(&mut self, events: u64) {
        assert_eq!(self.connect().await, StatusCode::OK);
        assert_eq!(self.read(events).await, events);
        self.leave();
    }

    /// Connects, and reads to the end of the body.
    pub async fn finish(&mut self) -> u64 {
        assert_eq!(self.connect().await, StatusCode::OK);
        self.read_to_end().await
    }

    /// Asserts that the client saw all events of this run, the end last, and is told so when it reconnects.
    pub async fn has_all(&mut self, events: u64) {
        assert!(self.witness.ended.is_some(), "no end came: {:?}", self.witness.data);
        let n = |data: &String| data.rsplit(':').next().unwrap_or_default().to_owned();
        let seen: Vec<_> = self.witness.data.iter().map(n).collect();
        let mut expected: Vec<_> = (1..=events).map(|n| n.to_string()).collect();
        expected.push("end".to_owned());
        assert_eq!(seen, expected);
        assert_eq!((self.witness.gaps, self.witness.restarts), (0, 0));
        assert_eq!(self.connect().await, StatusCode::NO_CONTENT);
    }
}
