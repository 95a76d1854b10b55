//! Two nodes on one store, and handlers whose bodies end as the test wants.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Query, State},
    response::{IntoResponse, Response as AxumResponse},
    routing::get,
};
use bytes::Bytes;
use futures_util::stream::unfold;
use http::{Request, Response, header, request};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use resilient_sse::{
    Builder, Disconnect, Ending, MemoryStore, Owner, Reason, ResilientSse, Store as _, StreamId, StreamKey,
    StreamState, Voice,
    store::{Close, Interrupt},
    test_util::FaultStore,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::g12::client::{Body, PATIENCE, Reading};

/// How a request reaches the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Http1,
    Http2,
    /// Without a socket: the test polls the body itself.
    Direct,
}

/// The limit of a node's drain.
pub const DRAIN: Duration = Duration::from_millis(600);

/// Two nodes on one store.
pub struct Stage {
    pub store: FaultStore<MemoryStore>,
    pub nodes: [Node; 2],
    transport: Transport,
    pub voice: Voice,
}

/// One of the two nodes.
pub struct Node {
    pub sse: ResilientSse,
    app: Router,
    address: Option<SocketAddr>,
    down: CancellationToken,
    more: Arc<Semaphore>,
}

impl Stage {
    pub async fn new(transport: Transport, voice: Voice, setup: impl Fn(Builder) -> Builder) -> Self {
        let store = FaultStore::new(MemoryStore::new());
        let nodes =
            [Node::start(&store, transport, voice, &setup).await, Node::start(&store, transport, voice, &setup).await];
        Self { store, nodes, transport, voice }
    }

    /// Sends a request to a node.
    pub async fn ask(&self, node: usize, request: request::Builder) -> Reading {
        Reading::new(self.nodes[node].ask(self.transport, request).await, self.transport == Transport::Direct)
    }

    /// Drains a node.
    pub fn drain(&self, node: usize) {
        self.nodes[node].down.cancel();
    }

    /// Has the handlers of a node send more events.
    pub fn more(&self, node: usize, events: usize) {
        self.nodes[node].more.add_permits(events);
    }

    /// Has the handlers of a node end their bodies.
    pub fn close_bodies(&self, node: usize) {
        self.nodes[node].more.close();
    }

    /// Interrupts a stream directly in the store, as another node would.
    pub async fn interrupt(&self, id: &str, epoch: u64) {
        let interrupt = Interrupt { key: key(id), epoch, last: None, if_deadline: None };
        self.store.inner().interrupt(interrupt).await.unwrap();
    }

    /// Ends a stream directly in the store, as another node would.
    pub async fn close(&self, id: &str, state: StreamState, reason: Reason) {
        let ending = Ending::supplied(state, reason);
        let close = Close { key: key(id), epoch: None, ending, last: None, if_deadline: None, hook: None };
        self.store.inner().close(close).await.unwrap();
    }

    /// Waits until a stream has this state.
    pub async fn until(&self, id: &str, state: StreamState) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let info = self.store.inner().info(key(id)).await.unwrap();
            if info.as_ref().is_some_and(|info| info.state == state) {
                return;
            }
            assert!(Instant::now() < deadline, "{id} is not {state}: {info:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Returns the key of an anonymous stream.
pub fn key(id: &str) -> StreamKey {
    StreamKey::new(Owner::ANONYMOUS, StreamId::new(id).unwrap())
}

impl Node {
    async fn start(
        store: &FaultStore<MemoryStore>,
        transport: Transport,
        voice: Voice,
        setup: &impl Fn(Builder) -> Builder,
    ) -> Self {
        let builder = setup(ResilientSse::builder(store.clone()).anonymous().drain_limit(DRAIN));
        let (sse, guardian) = builder.build().unwrap();
        let down = CancellationToken::new();
        tokio::spawn(guardian.with_graceful_shutdown(down.clone().cancelled_owned()));
        let more = Arc::new(Semaphore::new(0));
        let app = app(&sse, voice, Arc::clone(&more));
        let address = if transport == Transport::Direct {
            None
        } else {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let served = app.clone();
            tokio::spawn(async move { axum::serve(listener, served).await });
            Some(address)
        };
        Self { sse, app, address, down, more }
    }

    async fn ask(&self, transport: Transport, request: request::Builder) -> Response<Body> {
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        match transport {
            Transport::Direct => {
                let answer = self.app.clone().oneshot(request).await;
                answer.unwrap().map(|body| body.map_err(Into::into).boxed_unsync())
            }
            Transport::Http1 => {
                let (mut sender, connection) = http1::handshake(TokioIo::new(self.connect().await)).await.unwrap();
                tokio::spawn(async move { drop(connection.await) });
                // HTTP/1.1 names the host in a header.
                let (mut head, body) = request.into_parts();
                head.headers.insert(header::HOST, header::HeaderValue::from_static("test"));
                head.uri = head.uri.path_and_query().unwrap().as_str().parse().unwrap();
                let answer = sender.send_request(Request::from_parts(head, body)).await;
                answer.unwrap().map(|body| body.map_err(Into::into).boxed_unsync())
            }
            Transport::Http2 => {
                let connection = TokioIo::new(self.connect().await);
                let (mut sender, connection) = http2::handshake(TokioExecutor::new(), connection).await.unwrap();
                tokio::spawn(async move { drop(connection.await) });
                let answer = sender.send_request(request).await;
                answer.unwrap().map(|body| body.map_err(Into::into).boxed_unsync())
            }
        }
    }

    /// Connects to the node.
    pub async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address.expect("it listens")).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }
}

/// The kinds of routes.
fn app(sse: &ResilientSse, voice: Voice, more: Arc<Semaphore>) -> Router {
    let limited = sse
        .generation()
        .on_disconnect(Disconnect::Detach { at_most: Duration::from_millis(100) })
        .grace(Duration::ZERO);
    let relay = sse.relay().voice(voice).id(StreamId::path("/relay/{id}")).wait(Duration::from_millis(100));
    Router::new()
        .route(
            "/generation/{id}",
            get(told).post(told).layer(sse.generation().voice(voice).id(StreamId::path("/generation/{id}"))),
        )
        .route("/limited/{id}", get(told).layer(limited.voice(voice).id(StreamId::path("/limited/{id}"))))
        .route("/layer/{id}", get(told).layer(sse.layer().voice(voice).id(StreamId::path("/layer/{id}"))))
        .route("/feed/{id}", get(told).layer(sse.feed().voice(voice).id(StreamId::path("/feed/{id}"))))
        .route_service("/relay/{id}", relay)
        .with_state(more)
}

/// Sends three events, then one more for each that the test asks for. `?then=` replaces the latter.
async fn told(State(more): State<Arc<Semaphore>>, Query(query): Query<HashMap<String, String>>) -> AxumResponse {
    let then = query.get("then").cloned().unwrap_or_default();
    let events = unfold((0, more, then), async |(told, more, then): (u64, Arc<Semaphore>, String)| {
        let told = told + 1;
        if told > 3 && then.is_empty() {
            more.acquire().await.ok()?.forget();
        }
        let event = match (told, &*then) {
            (..=3, _) | (_, "") => format!("data: event-{told}\n\n"),
            (4, "eof") | (5.., _) => return None,
            (4, "error") => return Some((Err("the work failed".to_owned()), (told, more, then))),
            (4, "panic") => panic!("the work panics, as the test wants it"),
            (4, "large") => format!("data: {}\n\n", "x".repeat(200)),
            (4, state) => format!("event: {state}\ndata: the producer's own word\n\n"),
        };
        Some((Ok(Frame::data(Bytes::from(event))), (told, more, then)))
    });
    let body = axum::body::Body::new(StreamBody::new(Box::pin(events)));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}
