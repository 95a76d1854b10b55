//! OpenAI's SDK: a whole answer ends its iterator, and an incomplete one makes it throw (guarantee G12).

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::post,
};
use futures_util::stream::unfold;
use http::{HeaderName, Request, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use resilient_sse::{
    Ending, Ends, MemoryStore, OnUnavailable, Owner, ResilientSse, Store as _, StreamId, StreamKey, StreamState, Voice,
    reason,
    store::{Close, Interrupt},
    test_util::{Fault, FaultStore},
};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::clients::{folder, programs::node};

const PATIENCE: Duration = Duration::from_secs(60);
const TEXT: &str = "Hello, world";
const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How the handler's body goes on after the text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// With the reason why it is over, and `[DONE]`.
    Done,
    /// With the reason, and the end of the body.
    Finish,
    Eof,
    Error,
    /// With one more word for each that the test asks for.
    More,
}

/// The result that the SDK must report.
#[derive(Clone, Copy)]
enum Sees {
    /// The whole text, and no error.
    Whole,
    /// An exception of the API with this status, and no text.
    Status(u16),
    /// An exception of the API with this code, after the text.
    Code(&'static str),
    /// The same, before any text.
    CodeFirst(&'static str),
    /// An exception of the connection, after the text.
    Broken,
}

/// The node that the SDK talks to: the one that makes the answer, or another one, whose body follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Produces,
    Follows,
}

use Role::{Follows, Produces};

/// The name of a case, and its expected result.
const CASES: [(&str, Role, Then, Sees); 18] = [
    ("whole", Produces, Then::Done, Sees::Whole),
    ("whole_without_done", Produces, Then::Finish, Sees::Whole),
    ("whole_elsewhere", Follows, Then::Done, Sees::Whole),
    ("whole_unrecorded", Produces, Then::Done, Sees::Whole),
    ("retried", Produces, Then::Done, Sees::Whole),
    ("store_away", Produces, Then::Done, Sees::Status(503)),
    ("draining", Produces, Then::More, Sees::Status(503)),
    ("drained", Produces, Then::More, Sees::Code("shutdown")),
    ("drained_elsewhere", Follows, Then::More, Sees::Code("shutdown")),
    ("stopped", Produces, Then::More, Sees::Code("stopped")),
    ("lost", Follows, Then::More, Sees::Code("gone")),
    ("orphaned", Follows, Then::More, Sees::Code("node_lost")),
    ("superseded", Produces, Then::More, Sees::Code("superseded")),
    ("interrupted", Follows, Then::More, Sees::Code("interrupted")),
    ("trimmed", Follows, Then::More, Sees::CodeFirst("gap")),
    ("failed", Produces, Then::Error, Sees::Code("error")),
    ("cut_off", Produces, Then::Eof, Sees::Code("eof")),
    ("silent", Produces, Then::Error, Sees::Broken),
];

/// Two nodes on one store, for one case.
struct Stage {
    name: &'static str,
    role: Role,
    store: FaultStore<MemoryStore>,
    nodes: [(ResilientSse, Router, CancellationToken); 2],
    more: Arc<Semaphore>,
    /// How many requests have been answered.
    answered: AtomicUsize,
}

impl Stage {
    fn new(name: &'static str, role: Role, then: Then) -> Self {
        let store = FaultStore::new(MemoryStore::new());
        let more = Arc::new(Semaphore::new(0));
        let nodes = [(); 2].map(|()| serving(name, then, &store, &more));
        Self { name, role, store, nodes, more, answered: AtomicUsize::new(0) }
    }

    fn key(&self) -> StreamKey {
        StreamKey::new(Owner::ANONYMOUS, StreamId::new(self.name).unwrap())
    }

    /// Sends a request to a node.
    async fn ask(&self, node: usize, request: Request<Body>) -> Response {
        self.nodes[node].1.clone().oneshot(request).await.expect("a router does not fail")
    }

    /// What happens before the SDK asks.
    async fn set_up(&self) {
        match self.name {
            "whole_unrecorded" | "retried" | "store_away" => self.store.fail(Fault::Refuse),
            "draining" => {
                let (sse, _, down) = &self.nodes[0];
                self.begin("another", "world").await;
                down.cancel();
                while !sse.health().draining {
                    tokio::task::yield_now().await;
                }
            }
            "trimmed" => {
                self.more.add_permits(20);
                self.begin(self.name, "word-20").await;
            }
            _ if self.role == Follows => self.begin(self.name, "world").await,
            _ => {}
        }
    }

    /// Another client begins a stream on the first node, has read up to this, and goes on reading.
    async fn begin(&self, key: &str, upto: &str) {
        let request = Request::post("/chat/completions").header(KEY, key).body(Body::empty()).unwrap();
        let mut body = self.ask(0, request).await.into_body();
        let mut text = String::new();
        while !text.contains(upto) {
            let frame = body.frame().await.expect("more").expect("not broken");
            text += std::str::from_utf8(frame.data_ref().expect("data")).expect("text");
        }
        tokio::spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
    }

    /// What happens when the SDK has read the text.
    async fn go_on(&self) {
        let key = self.key();
        match self.name {
            "drained" => self.nodes[0].2.cancel(),
            "drained_elsewhere" => self.nodes[1].2.cancel(),
            "stopped" => {
                self.nodes[1].0.streams().stop(&key.owner, &key.id).await.unwrap();
            }
            "lost" => self.store.inner().delete(key).await.unwrap(),
            "orphaned" => {
                let ending = Ending::supplied(StreamState::Orphaned, reason::NODE_LOST);
                let close = Close { key, epoch: None, ending, last: None, if_deadline: None, hook: None };
                self.store.inner().close(close).await.unwrap();
            }
            "superseded" | "interrupted" => {
                let epoch = self.store.inner().info(key.clone()).await.unwrap().expect("it is held").epoch;
                let interrupt = Interrupt { key, epoch, last: None, if_deadline: None };
                self.store.inner().interrupt(interrupt).await.unwrap();
                // A producer learns that with its next event.
                self.more.add_permits(1);
            }
            _ => {}
        }
    }
}

/// A node that serves one case.
fn serving(
    name: &'static str,
    then: Then,
    store: &FaultStore<MemoryStore>,
    more: &Arc<Semaphore>,
) -> (ResilientSse, Router, CancellationToken) {
    let mut builder = ResilientSse::builder(store.clone()).anonymous();
    if matches!(name, "store_away" | "retried") {
        builder = builder.on_unavailable(OnUnavailable::Retry);
    }
    builder = match name {
        "drained" | "drained_elsewhere" => builder.drain_limit(Duration::from_secs(1)),
        // Until the test is over: another client reads on.
        "draining" => builder.drain_limit(PATIENCE * 2),
        "trimmed" => builder.max_log_events(4),
        _ => builder,
    };
    let (sse, guardian) = builder.build().unwrap();
    let down = CancellationToken::new();
    tokio::spawn(guardian.with_graceful_shutdown(down.clone().cancelled_owned()));
    // Only a stream that may be run again can be interrupted.
    let layer = if matches!(name, "superseded" | "interrupted") { sse.layer() } else { sse.generation() };
    let layer = layer.id(StreamId::header(KEY)).classify(Ends::openai_chat());
    let layer = layer.voice(if name == "silent" { Voice::Silent } else { Voice::OpenAi });
    let more = Arc::clone(more);
    let handler = post(move || std::future::ready(answer(then, more)));
    (sse, Router::new().route("/chat/completions", handler.layer(layer)), down)
}

/// Makes two chunks with the text, and the continuation.
fn answer(then: Then, more: Arc<Semaphore>) -> Response {
    let chunks = unfold((1, more), move |(number, more): (usize, Arc<Semaphore>)| async move {
        let chunk = match (number, then) {
            (1, _) => word("Hello, "),
            (2, _) => word("world"),
            (3, Then::Done | Then::Finish) => {
                "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n".to_owned()
            }
            (4, Then::Done) => "data: [DONE]\n\n".to_owned(),
            (_, Then::Error) => return Some((Err("the work failed".to_owned()), (number, more))),
            (_, Then::Eof | Then::Done | Then::Finish) => return None,
            (_, Then::More) => {
                more.acquire().await.ok()?.forget();
                word(&format!(" word-{}", number - 2))
            }
        };
        Some((Ok(Frame::data(Bytes::from(chunk))), (number + 1, more)))
    });
    let body = Body::new(StreamBody::new(Box::pin(chunks)));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

fn word(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n")
}

#[derive(Clone)]
struct Served {
    stages: Arc<HashMap<&'static str, Stage>>,
    reports: mpsc::UnboundedSender<Value>,
}

/// A request of the SDK's.
async fn completions(State(served): State<Served>, Path(name): Path<String>, request: Request<Body>) -> Response {
    let stage = &served.stages[&*name];
    let (mut parts, body) = request.into_parts();
    parts.uri = "/chat/completions".parse().expect("a path");
    let node = usize::from(stage.role == Follows);
    let response = stage.ask(node, Request::from_parts(parts, body)).await;
    if stage.answered.fetch_add(1, Ordering::SeqCst) == 0 && name == "retried" {
        stage.store.heal();
    }
    response
}

/// The SDK has read the text.
async fn saw(State(served): State<Served>, Path(name): Path<String>) -> StatusCode {
    served.stages[&*name].go_on().await;
    StatusCode::NO_CONTENT
}

async fn report(State(served): State<Served>, body: Bytes) -> StatusCode {
    let _ = served.reports.send(serde_json::from_slice(&body).expect("JSON"));
    StatusCode::NO_CONTENT
}

impl Sees {
    fn judge(self, saw: &Value) {
        let (text, error) = (saw["text"].as_str().expect("a text"), &saw["error"]);
        match self {
            Self::Whole => assert_eq!((text, error), (TEXT, &Value::Null), "{saw}"),
            Self::Status(status) => {
                assert_eq!((text, &error["isApiError"], &error["status"]), ("", &true.into(), &status.into()), "{saw}");
            }
            Self::Code(code) | Self::CodeFirst(code) => {
                let said = if matches!(self, Self::Code(_)) { TEXT } else { "" };
                assert!(text.starts_with(said) && (text.is_empty() == said.is_empty()), "{saw}");
                assert_eq!((&error["isApiError"], &error["code"]), (&true.into(), &code.into()), "{saw}");
            }
            Self::Broken => {
                assert_eq!((text, &error["isApiError"]), (TEXT, &false.into()), "{saw}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g12_openai_s_sdk_throws_unless_it_has_the_whole_answer() {
    let stages: HashMap<_, _> =
        CASES.iter().map(|(name, role, then, _)| (*name, Stage::new(name, *role, *then))).collect();
    for stage in stages.values() {
        timeout(PATIENCE, stage.set_up()).await.unwrap_or_else(|_| panic!("{} is not set up in time", stage.name));
    }
    let (sender, mut reports) = mpsc::unbounded_channel();
    let stages = Arc::new(stages);
    let app = Router::new()
        .route("/{name}/chat/completions", post(completions))
        .route("/saw/{name}", post(saw))
        .route("/report", post(report))
        .with_state(Served { stages: Arc::clone(&stages), reports: sender });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });

    let names = CASES.iter().map(|(name, ..)| (*name).to_owned());
    let arguments: Vec<_> = std::iter::once(base).chain(names).collect();
    let program = node(&folder("openai"), "openai.mjs", &arguments);
    let report = timeout(PATIENCE, reports.recv()).await.expect("the SDK comes to an end").expect("a report");
    drop(program);
    for ((name, .., sees), saw) in CASES.iter().zip(report.as_array().expect("a report of each")) {
        assert_eq!(saw["name"], *name);
        sees.judge(saw);
    }
    assert_eq!(stages["retried"].answered.load(Ordering::SeqCst), 2, "503, and then the answer");
}
