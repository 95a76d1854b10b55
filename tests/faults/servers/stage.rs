//! Nodes on one Redis, handlers that make events on a schedule, and the verdict in which every scenario ends.

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::stream::unfold;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use resilient_sse::{
    BoxError, Builder, Guardian, Owner, RedisStore, ResilientSse, ResilientSseLayer, Store, StreamId, StreamInfo,
    StreamKey, StreamState,
};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tower::ServiceExt as _;

use crate::{
    servers::client::Client,
    support::{
        checker::{Facts, check_health},
        handlers::{App, Call, Handler, app, sse},
    },
};

/// How long a recovery may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long the store may delay a live stream, once for each outage and node (guarantee G7).
const BUDGET: Duration = Duration::from_millis(500);
/// How long a terminal event may wait.
const TERMINAL: Duration = Duration::from_secs(2);
/// The delay that a busy machine may add, besides the measured one.
const SLACK: Duration = Duration::from_millis(400);
/// The time between two events of a stream.
const EVERY: Duration = Duration::from_millis(50);

/// How long a node may be silent, where a scenario is to be [`quick`].
pub const STALE: Duration = Duration::from_secs(2);

pub type AllFacts = Arc<Mutex<BTreeMap<StreamKey, Facts>>>;

/// When each run of the handler began, by what its events begin with.
type Begun = Arc<Mutex<HashMap<String, Instant>>>;

/// When which streams were told to end; `*` stands for all.
type Finish = HashMap<String, Instant>;

/// What all nodes and clients of a scenario share.
pub struct Stage {
    handler: Handler,
    facts: AllFacts,
    begun: Begun,
    every: Duration,
    finish: watch::Sender<Finish>,
    stumble: Arc<AtomicU64>,
    _watch: AbortOnDrop,
}

pub struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Stage {
    /// Streams that make an event every 50 ms, until [`finish`](Self::finish). One whose name begins with `silent`
    /// makes a single one at its beginning.
    pub fn new() -> Self {
        Self::every(EVERY)
    }

    pub fn every(every: Duration) -> Self {
        let (finish, finished) = watch::channel(Finish::new());
        let begun = Begun::default();
        let runs = Arc::clone(&begun);
        let handler = Handler::new(move |call| {
            let run = Run::begin(call, every, finished.clone());
            runs.lock().unwrap().insert(run.tag.clone(), run.begun);
            sse(StreamBody::new(unfold(run, Run::next)).boxed_unsync())
        });
        let stumble = Arc::new(AtomicU64::new(0));
        let watch = AbortOnDrop(tokio::spawn(watch_the_machine(Arc::clone(&stumble))).abort_handle());
        Self { handler, facts: AllFacts::default(), begun, every, finish, stumble, _watch: watch }
    }

    /// A node with a connection of its own.
    pub async fn node(&self, url: &str, setup: impl FnOnce(Builder) -> Builder) -> Node {
        self.node_on(RedisStore::builder(url).unwrap().connect().await.unwrap(), setup)
    }

    pub fn node_on(&self, store: impl Store, setup: impl FnOnce(Builder) -> Builder) -> Node {
        let (sse, guardian) = setup(ResilientSse::builder(store).anonymous()).build().unwrap();
        let (polled, polling) = watch::channel(true);
        let guardian = Pausable { guardian: Box::pin(guardian), polling, waiting: None };
        Node {
            generation: self.route(sse.generation()),
            feed: self.route(sse.layer()),
            sse,
            polled,
            _guardian: AbortOnDrop(tokio::spawn(guardian).abort_handle()),
        }
    }

    /// Adds a route to a node.
    pub fn route(&self, layer: ResilientSseLayer) -> App {
        app(layer.id(StreamId::path("/{id}")), &self.handler)
    }

    /// Makes a client of a stream.
    pub fn client(&self, app: &App, id: &str) -> Client {
        Client::new(app, key(id), Arc::clone(&self.facts))
    }

    /// Makes a client that sees events the store does not hold. It is judged by itself.
    pub fn client_apart(&self, app: &App, id: &str) -> Client {
        Client::new(app, key(id), AllFacts::default())
    }

    /// Returns how often the handler ran.
    pub fn runs(&self) -> u64 {
        self.handler.calls()
    }

    /// Ends all streams, each with its terminal event.
    pub fn finish(&self) {
        self.finish_one("*");
    }

    /// Ends one stream.
    pub fn finish_one(&self, id: &str) {
        self.finish.send_modify(|finish| {
            finish.insert(id.to_owned(), Instant::now());
        });
    }

    /// Returns the machine's own delay, and a little more.
    fn slack(&self) -> Duration {
        SLACK + Duration::from_millis(self.stumble.load(Ordering::Relaxed))
    }

    /// Returns the delay of each event behind its schedule, and its time.
    fn delays(&self, client: &Client) -> Vec<(Instant, Duration)> {
        let begun = self.begun.lock().unwrap();
        let finished = finished(&self.finish.borrow(), client.witness.key.id.as_str());
        let every = if is_silent(&client.witness.key) { Duration::ZERO } else { self.every };
        let due = |data: &str| {
            let (tag, n) = data.rsplit_once(':')?;
            Some(match n.parse::<u32>() {
                Ok(n) => *begun.get(tag)? + every * n,
                Err(_) => finished?,
            })
        };
        let delay = |(at, data): &(Instant, String)| Some((*at, at.saturating_duration_since(due(data)?)));
        client.heard.iter().filter_map(delay).collect()
    }

    /// Asserts guarantee G7: a live client got each event when it was made, except for one delay in each outage.
    pub fn check_delays(&self, client: &Client, outages: usize) {
        let slack = self.slack();
        let mut delays = self.delays(client);
        if client.witness.ended.is_some() {
            let (_, delay) = delays.pop().unwrap();
            assert!(delay <= TERMINAL + slack, "the end came {delay:?} late");
        }
        // A delay begins when its first event comes late, and lasts no longer than the limit.
        let mut holdups: Vec<Instant> = Vec::new();
        for (at, delay) in delays {
            assert!(delay <= BUDGET + slack, "{delay:?} late, of {:?}", BUDGET + slack);
            let same = holdups.last().is_some_and(|first| at - *first <= BUDGET + slack);
            if delay > slack && !same {
                holdups.push(at);
            }
        }
        assert!(holdups.len() <= outages, "held up {} times in {outages} outages", holdups.len());
    }

    /// Judges everything, once nothing runs any more. `lost`: whether the store lost what it had acknowledged.
    pub async fn verdict(&self, nodes: &[&Node], lost: bool) {
        for node in nodes {
            until("nothing runs any more, and the store is trusted", async || {
                let health = node.sse.health();
                health.active == 0 && health.detached == 0 && health.followers == 0 && health.breaker == "closed"
            })
            .await;
            check_health(&node.sse.health());
        }
        let keys: Vec<_> = self.facts.lock().unwrap().keys().cloned().collect();
        for key in keys {
            let page = nodes[0].sse.completions().events(&key, None, usize::MAX).await.unwrap();
            let Some(page) = page else { continue };
            self.facts.lock().unwrap().get_mut(&key).unwrap().check_log(&key, &page, lost);
        }
        let told: u64 = self.facts.lock().unwrap().values().map(|facts| facts.gaps).sum();
        let counted: u64 = nodes.iter().map(|node| node.sse.health().gaps).sum();
        assert!(told <= counted, "{told} gaps were told, {counted} counted");
    }
}

fn finished(finish: &Finish, id: &str) -> Option<Instant> {
    finish.get(id).or_else(|| finish.get("*")).copied()
}

/// Measures the runtime's worst delay, in milliseconds.
async fn watch_the_machine(worst: Arc<AtomicU64>) {
    let tick = Duration::from_millis(10);
    loop {
        let due = Instant::now() + tick;
        sleep_until(due).await;
        worst.fetch_max(due.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

/// One run of the handler: numbered events on a schedule, then the end.
struct Run {
    id: String,
    tag: String,
    begun: Instant,
    every: Option<Duration>,
    next: u32,
    finish: watch::Receiver<Finish>,
    over: bool,
}

impl Run {
    fn begin(call: &Call, every: Duration, finish: watch::Receiver<Finish>) -> Self {
        let id = call.context.as_ref().expect("it has a name").id().to_string();
        let every = (!id.starts_with("silent")).then_some(every);
        Self { id, tag: call.tag(), begun: Instant::now(), every, next: 1, finish, over: false }
    }

    async fn next(mut self) -> Option<(Result<Frame<bytes::Bytes>, BoxError>, Self)> {
        if self.over {
            return None;
        }
        let n = self.next;
        self.next += 1;
        let is_finished = |finish: &Finish| finished(finish, &self.id).is_some();
        self.over = match self.every {
            Some(every) => {
                let due = self.begun + every * n;
                // Make all events that are due before the end.
                tokio::select! {
                    biased;
                    () = sleep_until(due) => false,
                    _ = self.finish.wait_for(is_finished) => true,
                }
            }
            None if n == 1 => false,
            None => self.finish.wait_for(is_finished).await.is_ok(),
        };
        let tag = &self.tag;
        let block =
            if self.over { format!("event: completed\ndata: {tag}:end\n\n") } else { format!("data: {tag}:{n}\n\n") };
        Some((Ok(Frame::data(block.into())), self))
    }
}

/// A hub, its guardian, and two routes.
pub struct Node {
    pub sse: ResilientSse,
    /// Work that goes on without its client.
    pub generation: App,
    /// Work that is interrupted with its client.
    pub feed: App,
    polled: watch::Sender<bool>,
    _guardian: AbortOnDrop,
}

impl Node {
    /// Stops or resumes polling the node's guardian.
    pub fn pause(&self, pause: bool) {
        self.polled.send_replace(!pause);
    }

    pub async fn info(&self, id: &str) -> Option<StreamInfo> {
        self.sse.registry().stream(&key(id)).await.ok().flatten()
    }

    pub async fn until_state(&self, id: &str, state: StreamState) {
        until(&format!("{id} is {state}"), async || self.info(id).await.is_some_and(|info| info.state == state)).await;
    }

    /// Waits until the node's store answers.
    pub async fn until_answered(&self) {
        until("the store answers", async || self.sse.registry().active_count().await.is_ok()).await;
    }

    /// Waits until the node's guardian may claim orphans.
    pub async fn until_trusting(&self) {
        until("the guardian trusts the store", async || !self.sse.health().frozen).await;
    }

    /// Waits until all events so far, and some later ones, are recorded.
    pub async fn until_recording(&self) {
        until("the breaker closes", async || self.sse.health().breaker == "closed").await;
        let before = self.sse.health().recorded;
        until("events are recorded", async || self.sse.health().recorded > before + 5).await;
    }

    /// Waits until the node's guardian has swept this often, trusting the store throughout.
    pub async fn sweeps(&self, sweeps: usize) {
        for _ in 0..sweeps {
            let before = self.sse.health().last_sweep;
            until("the guardian sweeps", async || {
                let health = self.sse.health();
                health.last_sweep != before && !health.frozen
            })
            .await;
        }
    }

    /// Returns recovery's answer.
    pub async fn recover(&self, id: &str) -> Value {
        let service = self.sse.recover().id(StreamId::path("/{id}"));
        let request = Request::get(format!("/{id}")).body(Empty::<bytes::Bytes>::new()).unwrap();
        let body = service.oneshot(request).await.unwrap().into_body().collect().await.unwrap();
        serde_json::from_slice(&body.to_bytes()).unwrap()
    }
}

/// A guardian that is not polled for a while.
struct Pausable {
    guardian: Pin<Box<Guardian>>,
    polling: watch::Receiver<bool>,
    waiting: Option<Pin<Box<dyn Future<Output = bool> + Send>>>,
}

impl Future for Pausable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.waiting.is_none() {
                let mut polling = self.polling.clone();
                polling.mark_unchanged();
                let changed = async move { polling.changed().await.is_ok() };
                self.waiting = Some(Box::pin(changed));
            }
            let Some(waiting) = &mut self.waiting else { continue };
            match waiting.as_mut().poll(cx) {
                Poll::Ready(true) => self.waiting = None,
                // The node is gone.
                Poll::Ready(false) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        if *self.polling.borrow() {
            let _ = self.guardian.as_mut().poll(cx);
        }
        Poll::Pending
    }
}

pub fn key(id: &str) -> StreamKey {
    StreamKey::new(Owner::ANONYMOUS, StreamId::new(id).unwrap())
}

fn is_silent(key: &StreamKey) -> bool {
    key.id.as_str().starts_with("silent")
}

/// Waits for a condition that must become true.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    while !holds().await {
        assert!(Instant::now() < deadline, "did not happen in time: {what}");
        ticks.tick().await;
    }
}

/// A threshold short enough that a scenario can wait for it.
pub fn quick(builder: Builder) -> Builder {
    builder.stale_after(STALE).sweep_every(STALE / 6)
}

/// Lets the scenario go on for a while, as it is.
pub async fn for_a_while(time: Duration) {
    tokio::time::sleep(time).await;
}
