//! A client that connects, reads, is cut, and reconnects to any node with the last id it saw.

use std::net::SocketAddr;

use http::{Request, StatusCode, header, request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use resilient_sse::{
    EventId,
    test_util::Seen,
    wire::{Parsed, Parser},
};
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep, timeout, timeout_at};

use crate::support::example::{PATIENCE, connect, get};

/// The names of terminal events.
const ENDINGS: [&str; 5] = ["completed", "failed", "cancelled", "orphaned", "expired"];

/// How a client sends its cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Header,
    Query,
}

/// How a visit to a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// The client had as many events as it wanted.
    Cut,
    /// The body ended cleanly.
    Over,
    /// The body or its connection broke off, or there was no connection.
    Broken,
    /// The stream is over.
    Done,
    Refused(StatusCode),
}

/// A client of one stream, over all its connections.
#[derive(Clone, Debug)]
pub struct Client {
    path: String,
    via: Via,
    cursor: String,
    /// All events but `connected`, and when they came.
    pub seen: Vec<(Seen, Instant)>,
    pub visits: usize,
}

impl Client {
    pub fn of(path: &str) -> Self {
        Self { path: path.to_owned(), via: Via::Header, cursor: String::new(), seen: Vec::new(), visits: 0 }
    }

    pub fn via(self, via: Via) -> Self {
        Self { via, ..self }
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request: request::Builder = get(&self.path);
        if !self.cursor.is_empty() {
            match self.via {
                Via::Header => request = request.header("last-event-id", &self.cursor),
                Via::Query => {
                    let mark = if self.path.contains('?') { '&' } else { '?' };
                    request = get(&format!("{}{mark}last_event_id={}", self.path, self.cursor));
                }
            }
        }
        // Ask like an `EventSource`, which is told to come again where others are refused.
        request.header(header::ACCEPT, "text/event-stream").body(Full::default()).unwrap()
    }

    /// Connects once, and reads at most a number of events.
    pub async fn visit(&mut self, node: SocketAddr, events: usize) -> Visit {
        self.visits += 1;
        let Ok(mut connection) = connect(node).await else { return Visit::Broken };
        let Ok(answer) = timeout(PATIENCE, connection.send_request(self.request())).await else {
            panic!("no answer in time: {}", self.path)
        };
        let Ok(response) = answer else { return Visit::Broken };
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NO_CONTENT => return Visit::Done,
            status => return Visit::Refused(status),
        }
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        assert!(!response.headers().contains_key("x-stream-recorded"), "it is protected: {}", self.path);
        let (mut body, mut parser, mut counted) = (response.into_body(), Parser::new(1 << 24), 0);
        // Heartbeats are no progress.
        let mut deadline = Instant::now() + PATIENCE * 2;
        loop {
            while let Some(parsed) = parser.pop() {
                let Parsed::Message(message) = parsed else { continue };
                if message.name == "connected" {
                    continue;
                }
                deadline = Instant::now() + PATIENCE * 2;
                self.cursor.clone_from(&message.last_event_id);
                let seen = Seen { name: message.name, data: message.data, id: message.last_event_id };
                self.seen.push((seen, Instant::now()));
                counted += 1;
                if counted == events {
                    return Visit::Cut;
                }
            }
            let Ok(frame) = timeout_at(deadline, body.frame()).await else {
                panic!("nothing came in time after {:?}: {}", self.seen.last(), self.path)
            };
            match frame {
                None => {
                    // An end that was posted has no name; any end's seq is 0.
                    let is_over = self.has_ended() || self.cursor.ends_with("-0");
                    assert!(is_over, "an unfinished stream looks finished: {:?}", self.seen.last());
                    return Visit::Over;
                }
                Some(Err(_)) => return Visit::Broken,
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        parser.push(&data).unwrap();
                    }
                }
            }
        }
    }

    /// Reconnects to each node in turn, for a number of events at a time, until the stream has ended.
    pub async fn follow(&mut self, nodes: &[SocketAddr], events: usize) {
        let deadline = Instant::now() + PATIENCE * 3;
        let first = self.visits;
        while !self.has_ended() {
            let node = nodes[(self.visits - first) % nodes.len()];
            match self.visit(node, events).await {
                Visit::Cut => {}
                Visit::Over | Visit::Broken => sleep(Duration::from_millis(20)).await,
                Visit::Done | Visit::Refused(_) if self.has_ended() => {}
                odd => panic!("{odd:?} after {:?}: {}", self.seen.last(), self.path),
            }
            assert!(Instant::now() < deadline, "no end in time after {:?}: {}", self.seen.last(), self.path);
        }
    }

    pub fn end(&self) -> Option<&Seen> {
        self.seen.iter().map(|(seen, _)| seen).find(|seen| ENDINGS.contains(&&*seen.name))
    }

    pub fn has_ended(&self) -> bool {
        self.end().is_some()
    }

    /// The name of the event that ended the stream for this client.
    pub fn ending(&self) -> &str {
        self.end().map_or("", |end| &end.name)
    }

    pub fn cursor(&self) -> &str {
        &self.cursor
    }

    /// The run that its last event belongs to.
    pub fn epoch(&self) -> u64 {
        place(&self.cursor).0
    }

    /// Returns the numbers of the tokens that arrived.
    pub fn numbers(&self) -> Vec<u64> {
        self.seen.iter().filter_map(|(seen, _)| number(seen)).collect()
    }

    fn count(&self, name: &str) -> usize {
        self.seen.iter().filter(|(seen, _)| seen.name == name).count()
    }

    pub fn gaps(&self) -> usize {
        self.count("gap")
    }

    pub fn restarts(&self) -> usize {
        self.count("restart")
    }

    /// Asserts that each event came once, in order, and that missing events of a run have a gap in their place.
    pub fn check(&self) {
        let (mut last, mut next, mut gap) = ((0, 0), 0, None);
        for (index, (seen, _)) in self.seen.iter().enumerate() {
            let told = || format!("{}, event {index}: {seen:?}\n{:#?}", self.path, self.seen);
            match &*seen.name {
                "restart" => next = 0,
                "gap" => {
                    let data: Value = serde_json::from_str(&seen.data).unwrap();
                    gap = Some(data["missed"].as_u64());
                }
                _ => {
                    assert!(place(&seen.id) > last, "not above {last:?}: {}", told());
                    last = place(&seen.id);
                    let gap = gap.take();
                    if let Some(number) = number(seen) {
                        match gap {
                            None => assert_eq!(number, next, "{}", told()),
                            Some(missed) => {
                                assert!(number >= next, "{}", told());
                                assert!(missed.is_none_or(|missed| number == next + missed), "{}", told());
                            }
                        }
                        next = number + 1;
                    }
                    assert!(
                        index + 1 == self.seen.len() || !ENDINGS.contains(&&*seen.name),
                        "after the end: {}",
                        told()
                    );
                }
            }
        }
    }

    /// Asserts that the client has seen a whole stream of one run: its tokens and its end, without a gap.
    pub fn has_all(&self, tokens: u64, ending: &str) {
        self.check();
        assert_eq!((self.gaps(), self.restarts()), (0, 0), "{}: {:#?}", self.path, self.seen);
        assert_eq!(self.numbers(), Vec::from_iter(0..tokens), "{}", self.path);
        assert_eq!(self.ending(), ending, "{}", self.path);
    }
}

/// Returns the epoch and number of an id, which may begin with its stream's name.
fn place(id: &str) -> (u64, u64) {
    let id = id.rsplit('.').next().unwrap_or_default();
    let id: Option<EventId> = id.parse().ok();
    id.map(|id| (id.epoch, id.seq)).unwrap_or_default()
}

/// The number of a token event.
fn number(seen: &Seen) -> Option<u64> {
    let payload: Value = serde_json::from_str(&seen.data).ok()?;
    payload["s"].as_u64()
}
