//! A reader of an event source. It keeps everything that the source reports.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use resilient_sse::{
    EventId, StreamState,
    client::{CutCause, Ended, EventSource, EventSourceBuilder, Gap, GaveUp, Update},
};
use serde_json::Value;
use tokio::time::timeout;

use crate::support::example::PATIENCE;

pub type Http = Client<HttpConnector, Full<Bytes>>;

/// A client that makes each request over a connection of its own.
pub fn http() -> Http {
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http()
}

/// Returns the builder of an event source for a URL.
pub fn get(url: &str) -> EventSourceBuilder<Http, Full<Bytes>> {
    EventSource::builder(http(), Request::get(url).body(Full::default()).unwrap())
}

/// Reads an event source, and keeps everything that it reports.
pub struct Reader {
    pub source: EventSource,
    /// The numbers of the tokens, one list for each run of the work.
    pub runs: Vec<Vec<u64>>,
    pub gaps: Vec<Gap>,
    pub cuts: Vec<CutCause>,
    pub connected: usize,
    pub end: Option<Ended>,
    /// The ids of all events.
    ids: Vec<String>,
    /// Whether the reader skips the delay before each attempt.
    skips_delays: bool,
}

impl Reader {
    pub fn of<S, B, R>(builder: EventSourceBuilder<S, B>) -> Self
    where
        S: tower::Service<Request<B>, Response = http::Response<R>> + Clone + Send + 'static,
        S::Error: Into<resilient_sse::BoxError>,
        S::Future: Send,
        B: Clone + Send + 'static,
        R: hyper::body::Body + Send + 'static,
        R::Error: Into<resilient_sse::BoxError>,
    {
        Self {
            source: builder.build(),
            runs: vec![Vec::new()],
            gaps: Vec::new(),
            cuts: Vec::new(),
            connected: 0,
            end: None,
            ids: Vec::new(),
            skips_delays: false,
        }
    }

    /// Reconnects without a delay after each cut, as a program does that learns that the network is back.
    pub fn without_delays(self) -> Self {
        Self { skips_delays: true, ..self }
    }

    /// Reads until this run has had `tokens` tokens. Panics if the stream ends before.
    pub async fn until(&mut self, tokens: usize) {
        while self.runs.last().unwrap().len() < tokens {
            self.step().await.unwrap();
            assert!(self.end.is_none(), "the stream ended too soon: {:?}", self.end);
        }
    }

    /// Reads to the stream's end.
    pub async fn until_end(&mut self) {
        while self.end.is_none() {
            self.step().await.unwrap();
        }
        assert!(self.source.next().await.is_none(), "an item after the end");
    }

    /// Reads until the source gives up.
    pub async fn until_failure(&mut self) -> GaveUp {
        loop {
            if let Err(gave_up) = self.step().await {
                return gave_up;
            }
        }
    }

    /// Reads one update.
    async fn step(&mut self) -> Result<(), GaveUp> {
        let update = timeout(PATIENCE * 2, self.source.next()).await.unwrap_or_else(|_| {
            panic!("nothing came in time after {:?}, cut {:?}", self.ids.last(), self.cuts);
        });
        match update.expect("the source ended without an end of the stream")? {
            Update::Connected(connected) => {
                assert!(!connected.is_unrecorded(), "the stream is not recorded");
                self.connected += 1;
            }
            Update::Event(event) => {
                self.ids.push(event.last_event_id.clone());
                if let Some(number) = number(&event.data) {
                    self.runs.last_mut().unwrap().push(number);
                }
            }
            Update::Gap(gap) => self.gaps.push(gap),
            Update::Restart(_) => self.runs.push(Vec::new()),
            Update::Cut(cut) => {
                self.cuts.push(cut.cause);
                if self.skips_delays {
                    self.source.reconnect();
                }
            }
            Update::Ended(ended) => {
                self.ids.extend(ended.event.as_ref().map(|event| event.last_event_id.clone()));
                self.end = Some(ended);
            }
            other => panic!("an unknown update: {other:?}"),
        }
        Ok(())
    }

    /// Returns the state in which the stream ended, and the reason.
    pub fn ending(&self) -> (Option<StreamState>, Option<&str>) {
        let end = self.end.as_ref().expect("the stream has ended");
        (end.state, end.reason.as_deref())
    }

    /// The numbers of the last run's tokens.
    pub fn numbers(&self) -> &[u64] {
        self.runs.last().unwrap()
    }

    /// Asserts that every event came once and in order: each run's tokens are numbered from 0, and the ids rise.
    pub fn assert_no_loss(&self) {
        for run in &self.runs {
            let expected = Vec::from_iter(0..run.len() as u64);
            assert_eq!(*run, expected, "ids {:?}, cut {:?}", self.ids, self.cuts);
        }
        assert!(self.ids.windows(2).all(|pair| event_id(&pair[0]) < event_id(&pair[1])), "{:?}", self.ids);
        assert_eq!(self.gaps, []);
    }

    /// Asserts that the stream had one run, that all of its tokens came, and that it ended in this state.
    pub fn assert_has_all(&self, tokens: u64, state: StreamState) {
        self.assert_no_loss();
        assert_eq!((self.runs.len(), self.numbers().len() as u64), (1, tokens), "cut {:?}", self.cuts);
        assert_eq!(self.ending().0, Some(state));
    }
}

/// Returns the number of a token event. Handlers and publishers put it in different places.
fn number(data: &str) -> Option<u64> {
    let payload: Value = serde_json::from_str(data).ok()?;
    payload["s"].as_u64().or(payload["data"]["s"].as_u64())
}

/// Parses an id of the library, with or without the stream's id before it.
fn event_id(id: &str) -> EventId {
    id.rsplit('.').next().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("not an id of the library: {id:?}"))
}
