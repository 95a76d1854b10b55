//! An owner of an event source, who notes all that it is given.

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

/// A source of what a URL's server streams.
pub fn get(url: &str) -> EventSourceBuilder<Http, Full<Bytes>> {
    EventSource::builder(http(), Request::get(url).body(Full::default()).unwrap())
}

/// Reads a source, and notes all that comes.
pub struct Reader {
    pub source: EventSource,
    /// The numbers of the tokens, in each run of the work.
    pub runs: Vec<Vec<u64>>,
    pub gaps: Vec<Gap>,
    pub cuts: Vec<CutCause>,
    pub connected: usize,
    pub end: Option<Ended>,
    /// The ids of all events.
    ids: Vec<String>,
    is_hasty: bool,
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
            is_hasty: false,
        }
    }

    /// Does not wait between attempts, as if the network were back each time.
    pub fn hasty(self) -> Self {
        Self { is_hasty: true, ..self }
    }

    /// Reads until so many tokens have come in this run; fails if the stream ends before.
    pub async fn until(&mut self, tokens: usize) {
        while self.runs.last().unwrap().len() < tokens {
            self.step().await.unwrap();
            assert!(self.end.is_none(), "it ended too soon: {:?}", self.end);
        }
    }

    /// Reads to the stream's end.
    pub async fn until_end(&mut self) {
        while self.end.is_none() {
            self.step().await.unwrap();
        }
        assert!(self.source.next().await.is_none(), "an end is the last item");
    }

    /// Reads until the source gives up.
    pub async fn until_failure(&mut self) -> GaveUp {
        loop {
            if let Err(gave_up) = self.step().await {
                return gave_up;
            }
        }
    }

    /// Takes one update.
    async fn step(&mut self) -> Result<(), GaveUp> {
        let update = timeout(PATIENCE * 2, self.source.next()).await.unwrap_or_else(|_| {
            panic!("nothing came in time after {:?}, cut {:?}", self.ids.last(), self.cuts);
        });
        match update.expect("an end was told")? {
            Update::Connected(connected) => {
                assert!(!connected.is_unrecorded(), "the stream is protected");
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
                if self.is_hasty {
                    self.source.reconnect();
                }
            }
            Update::Ended(ended) => {
                self.ids.extend(ended.event.as_ref().map(|event| event.last_event_id.clone()));
                self.end = Some(ended);
            }
            other => panic!("what is {other:?}?"),
        }
        Ok(())
    }

    /// How the stream ended: its state and the reason.
    pub fn ending(&self) -> (Option<StreamState>, Option<&str>) {
        let end = self.end.as_ref().expect("it has ended");
        (end.state, end.reason.as_deref())
    }

    /// The tokens of the last run.
    pub fn numbers(&self) -> &[u64] {
        self.runs.last().unwrap()
    }

    /// Every event came once and in order: each run's tokens have the numbers from 0 on, and the ids rise.
    pub fn is_whole(&self) {
        for run in &self.runs {
            let expected = Vec::from_iter(0..run.len() as u64);
            assert_eq!(*run, expected, "ids {:?}, cut {:?}", self.ids, self.cuts);
        }
        assert!(self.ids.windows(2).all(|pair| place(&pair[0]) < place(&pair[1])), "{:?}", self.ids);
        assert_eq!(self.gaps, []);
    }

    /// It has all of a stream of one run.
    pub fn has_all(&self, tokens: u64, state: StreamState) {
        self.is_whole();
        assert_eq!((self.runs.len(), self.numbers().len() as u64), (1, tokens), "cut {:?}", self.cuts);
        assert_eq!(self.ending().0, Some(state));
    }
}

/// The number of a token event, whether it was told by a handler or posted.
fn number(data: &str) -> Option<u64> {
    let payload: Value = serde_json::from_str(data).ok()?;
    payload["s"].as_u64().or(payload["data"]["s"].as_u64())
}

/// Epoch and number of an id, which may name its stream before them.
fn place(id: &str) -> EventId {
    id.rsplit('.').next().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no id of the library: {id:?}"))
}
