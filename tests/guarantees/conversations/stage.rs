//! Nodes on one store, each with faults of its own, and short methods for the requests of clients.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use resilient_sse::{
    AnswerBody, Builder, MemoryStore, Owner, ResilientSse, ResilientSseBody, ResilientSseLayer, Store as _, StreamId,
    StreamInfo, StreamKey, StreamState,
    test_util::{FaultStore, TestHub, Transcript},
};
use tower::ServiceExt as _;

use crate::support::handlers::{App, Body, Handler, Script, app};

pub const SECOND: Duration = Duration::from_secs(1);
pub const LIFETIME: Duration = Duration::from_secs(600);

/// Nodes that share a store. The store can fail for each node separately.
pub struct Stage {
    pub store: MemoryStore,
    pub hubs: Vec<TestHub>,
    /// The nodes whose guardians are polled.
    pub alive: Vec<bool>,
}

/// Reads the request's owner from the test's own header.
pub fn user(request: &http::request::Parts) -> Option<Owner> {
    match request.headers.get("x-user") {
        Some(user) => Owner::new(user.to_str().ok()?).ok(),
        None => Some(ada()),
    }
}

pub fn ada() -> Owner {
    Owner::new("ada").unwrap()
}

pub fn key(id: &str) -> StreamKey {
    StreamKey::new(ada(), StreamId::new(id).unwrap())
}

/// A node with faults and ids of its own.
fn hub_on(store: &MemoryStore, setup: impl Fn(Builder) -> Builder) -> TestHub {
    static SEED: AtomicU64 = AtomicU64::new(1);
    let seed = SEED.fetch_add(1, Ordering::Relaxed);
    let setup = |hub: Builder| setup(hub.owner(user).lifetime(LIFETIME)).seed(seed);
    TestHub::on(FaultStore::new(store.clone()), setup).unwrap()
}

impl Stage {
    pub fn nodes(nodes: usize) -> Self {
        Self::with(nodes, |hub| hub)
    }

    pub fn with(nodes: usize, setup: impl Fn(Builder) -> Builder) -> Self {
        let store = MemoryStore::starting_at(1_700_000_000_000);
        let hubs = (0..nodes).map(|_| hub_on(&store, &setup)).collect();
        Self { hubs, store, alive: vec![true; nodes] }
    }

    /// Adds a node.
    pub fn add(&mut self) {
        self.hubs.push(hub_on(&self.store, |hub| hub));
        self.alive.push(true);
    }

    pub fn sse(&self, node: usize) -> &ResilientSse {
        &self.hubs[node].sse
    }

    /// A route on a node whose path names the conversation of its turns.
    pub fn chat(&self, node: usize, handler: &Handler) -> App {
        self.chat_with(node, handler, |layer| layer)
    }

    pub fn chat_with(
        &self,
        node: usize,
        handler: &Handler,
        with: impl FnOnce(ResilientSseLayer) -> ResilientSseLayer,
    ) -> App {
        app(with(self.sse(node).generation().conversation(StreamId::path("/chat/{id}"))), handler)
    }

    pub async fn resume(&self, node: usize, cursor: Option<&str>) -> Response<AnswerBody> {
        let mut request = Request::get("/chat/c/stream").body(()).unwrap();
        if let Some(cursor) = cursor {
            request.headers_mut().insert("last-event-id", cursor.parse().unwrap());
        }
        self.resume_by(node, request).await
    }

    pub async fn resume_by(&self, node: usize, request: Request<()>) -> Response<AnswerBody> {
        let resume = self.sse(node).resume().conversation(StreamId::path("/chat/{id}/stream"));
        resume.oneshot(request).await.unwrap()
    }

    /// Stops the conversation `c`. `query` is `?stream=<id>`, or empty.
    pub async fn stop(&self, node: usize, query: &str) -> StatusCode {
        let request = Request::delete(format!("/chat/c/stream{query}")).body(()).unwrap();
        let stop = self.sse(node).stop().conversation(StreamId::path("/chat/{id}/stream"));
        stop.oneshot(request).await.unwrap().status()
    }

    /// Returns the stream that the store's pointer of the conversation `c` names, and those behind it.
    pub async fn pointer(&self) -> Vec<String> {
        let pointer = self.store.pointer(key("c")).await.unwrap();
        let streams = pointer.into_iter().flat_map(|pointer| std::iter::once(pointer.stream).chain(pointer.behind));
        streams.map(|id| id.to_string()).collect()
    }

    pub async fn info(&self, id: &str) -> Option<StreamInfo> {
        self.store.info(key(id)).await.unwrap()
    }

    /// Returns a stream's state and reason.
    pub async fn stands(&self, id: &str) -> (StreamState, String) {
        let info = self.info(id).await.unwrap();
        let reason = info.ended.and_then(|ended| ended.ending.reason);
        (info.state, reason.unwrap_or_default().into_owned())
    }

    /// Returns Ada's streams.
    pub async fn infos(&self) -> Vec<StreamInfo> {
        let list = resilient_sse::store::List { owner: ada(), after: None, limit: 1000 };
        self.store.list(list).await.unwrap().streams
    }

    /// Returns Ada's running streams.
    pub async fn running(&self) -> Vec<String> {
        let all = self.infos().await.into_iter();
        all.filter(|info| info.state == StreamState::Active).map(|info| info.key.id.to_string()).collect()
    }

    /// Registers a stream directly with the store.
    pub fn an_open(&self, id: &str) -> resilient_sse::store::Open {
        resilient_sse::store::Open {
            key: key(id),
            kind: "chat".into(),
            origin: resilient_sse::Origin::Named,
            node: resilient_sse::NodeId::random(),
            token: 1,
            create: true,
            reruns: false,
            started: false,
            fingerprint: None,
            limit: None,
            metadata: Vec::new(),
            voice: resilient_sse::Voice::default(),
            turn: None,
            headers: resilient_sse::KeptHeaders::None,
            retention: resilient_sse::store::Retention {
                stale: 30 * SECOND,
                lifetime: LIFETIME,
                recovery_window: 300 * SECOND,
                max_events: 100,
                max_bytes: 1 << 20,
            },
        }
    }

    pub async fn step(&mut self) {
        for (hub, alive) in self.hubs.iter_mut().zip(&self.alive) {
            if *alive {
                hub.step().await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Lets time pass on every node that lives.
    pub async fn advance(&mut self, time: Duration) {
        let mut left = time;
        self.step().await;
        while !left.is_zero() {
            // Use coarser steps for long times.
            let step = left.min(if left > 30 * SECOND { SECOND } else { Duration::from_millis(250) });
            tokio::time::advance(step).await;
            self.step().await;
            left -= step;
        }
    }

    /// Waits until everything has expired, and asserts that nothing is left.
    pub async fn verdict(mut self) {
        for (hub, alive) in self.hubs.iter().zip(&self.alive) {
            if *alive {
                hub.store.heal();
            }
        }
        let node = self.alive.iter().position(|alive| *alive).unwrap();
        for id in self.running().await {
            self.sse(node).streams().stop(&ada(), &StreamId::new(id).unwrap()).await.unwrap();
        }
        self.advance(Duration::from_secs(400)).await;
        if !self.store.is_empty() {
            self.advance(LIFETIME).await;
        }
        assert!(self.store.is_empty(), "left in the store: {:?}", self.store);
    }
}

/// A turn that was asked for.
pub struct Asked {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: ResilientSseBody<Body>,
}

impl Asked {
    pub fn id(&self) -> String {
        self.headers["x-stream-id"].to_str().unwrap().to_owned()
    }

    /// Reads until a number of events have arrived.
    pub async fn read(&mut self, events: usize) -> Transcript {
        resilient_sse::test_util::cut_after(events, &mut self.body).await
    }

    pub async fn whole(self) -> Transcript {
        resilient_sse::test_util::collect(self.body).await
    }
}

pub fn post(path: &str) -> Request<()> {
    Request::builder().method(Method::POST).uri(path).body(()).unwrap()
}

/// Asks for a turn of the conversation `c`.
pub fn turn(app: &App) -> impl Future<Output = Asked> + Send + use<> {
    send(app, post("/chat/c"))
}

pub fn send(app: &App, request: Request<()>) -> impl Future<Output = Asked> + Send + use<> {
    let answer = app.clone().oneshot(request);
    async move {
        let (parts, body) = answer.await.unwrap().into_parts();
        Asked { status: parts.status, headers: parts.headers, body }
    }
}

/// A handler whose streams go on for ever.
pub fn endless() -> Handler {
    Handler::plays(Script::events(u64::MAX))
}

/// Returns the bytes of a body that has ended.
pub async fn text<B: http_body::Body + Unpin>(body: B) -> String
where
    B::Error: std::fmt::Debug,
{
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}
