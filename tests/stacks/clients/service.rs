//! A service of three nodes behind one address, which records its clients' requests.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use futures_util::stream::unfold;
use http::{Request, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use resilient_sse::{
    MemoryStore, OnUnavailable, ResilientSse, StreamId,
    test_util::{Fault, FaultStore},
};
use serde_json::Value;
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// The limit for the whole life of the streams. A client waits for up to 5 s before each reconnect.
const PATIENCE: Duration = Duration::from_secs(60);

/// The streams, which each client watches both at once.
pub(crate) const PATHS: [&str; 2] = ["/stream/cut", "/stream/later"];
/// How many events each has before its end.
const EVENTS: u64 = 40;

/// When a client stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stops {
    /// When it is told that the stream is over.
    At204,
    /// When its page closes it, at the end.
    AtTheEnd,
}

/// The recorded requests of its clients.
#[derive(Default)]
struct Heard {
    /// Path and cursor of each request for a stream, and the status of its answer.
    requests: Mutex<Vec<(String, String, StatusCode)>>,
    /// How often a body broke off.
    broken: Arc<AtomicU64>,
    /// How often the handler ran.
    runs: AtomicU64,
    /// The node that serves.
    node: AtomicUsize,
}

pub(crate) struct Service {
    address: SocketAddr,
    heard: Arc<Heard>,
    first_goes_down: CancellationToken,
    reports: mpsc::UnboundedReceiver<Value>,
}

/// The state that serves requests.
#[derive(Clone)]
struct Served {
    heard: Arc<Heard>,
    /// Two nodes on one store, and one whose store is away.
    nodes: [Router; 3],
    reports: mpsc::UnboundedSender<Value>,
}

impl Service {
    pub(crate) async fn start() -> Self {
        let heard = Arc::new(Heard::default());
        let first_goes_down = CancellationToken::new();
        let store = FaultStore::new(MemoryStore::new());
        let away = FaultStore::new(MemoryStore::new());
        away.fail(Fault::Refuse);
        let nodes = [
            node(&heard, store.clone(), &first_goes_down),
            node(&heard, store, &CancellationToken::new()),
            node(&heard, away, &CancellationToken::new()),
        ];
        let (sender, reports) = mpsc::unbounded_channel();
        let served = Served { heard: Arc::clone(&heard), nodes, reports: sender };
        let app = Router::new()
            .route("/page", get(page))
            .route("/watch.mjs", get(watch))
            .route("/report", post(report))
            .route("/stream/{id}", get(stream))
            .with_state(served);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, heard, first_goes_down, reports }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Waits until the first stream runs, and takes its node down. The other node serves from then on.
    pub(crate) async fn cut_the_first_stream(&self) {
        let asked = async {
            while !self.requests(PATHS[0]).iter().any(|(_, status)| *status == StatusCode::OK) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, asked).await.expect("the client asks for the stream");
        // The stream is in its middle: it makes 20 events a second.
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.heard.node.store(1, Ordering::SeqCst);
        self.first_goes_down.cancel();
    }

    /// Returns the client's transcript, once it has stopped reading all streams.
    pub(crate) async fn report(&mut self) -> Value {
        let report = timeout(PATIENCE, self.reports.recv()).await;
        report.unwrap_or_else(|_| panic!("no report in time: {:?}", self.heard.requests.lock())).expect("a report")
    }

    /// The cursor of each request for a path, and the status of the answer.
    fn requests(&self, path: &str) -> Vec<(String, StatusCode)> {
        let requests = self.heard.requests.lock().unwrap();
        let of_path = requests.iter().filter(|(asked, ..)| asked == path);
        of_path.map(|(_, id, status)| (id.clone(), *status)).collect()
    }

    /// Asserts that the client got every event of each stream once, from one run of its handler, reconnected where it
    /// had to, and stopped at the end.
    pub(crate) fn judge(&self, report: &Value, stops: Stops) {
        assert_eq!(self.heard.runs.load(Ordering::SeqCst), 2, "each handler ran once: {report}");
        assert_eq!(self.heard.broken.load(Ordering::SeqCst), 2, "the first body of each stream broke off");
        for (path, saw) in PATHS.iter().zip(report.as_array().expect("a report of each")) {
            let events = saw["events"].as_array().expect("events");
            let told = events.iter().map(|event| (event["name"].as_str().unwrap(), event["data"].as_str().unwrap()));
            let numbers: Vec<_> = (0..EVENTS).map(|number| number.to_string()).collect();
            let expected = numbers.iter().map(|number| ("message", &**number)).chain([("completed", "{}")]);
            assert_eq!(told.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{path}: {saw}");
            let ids: Vec<_> = events.iter().map(|event| event["id"].as_str().expect("an id")).collect();

            let requests = self.requests(path);
            let mut requests = requests.iter().map(|(cursor, status)| (&**cursor, status.as_u16()));
            assert_eq!(requests.next(), Some(("", 200)), "{path}");
            let (cursor, status) = requests.next().expect("it came again");
            assert_eq!(status, 200, "{path}");
            if *path == PATHS[0] {
                // The second request continues where the first body broke off.
                let at = ids.iter().position(|id| *id == cursor);
                assert!(at.is_some_and(|at| (3..30).contains(&at)), "{path}: {cursor}, {saw}");
            } else {
                assert_eq!(cursor, "", "{path}: the first body had no event");
            }
            let mut errors = 1;
            if stops == Stops::At204 {
                // The body ended, and then there was none.
                errors += 2;
                assert_eq!(requests.next(), Some((ids[ids.len() - 1], 204)), "{path}");
            }
            assert_eq!(requests.next(), None, "{path}: it is done");
            assert_eq!((&saw["opens"], &saw["errors"]), (&2.into(), &errors.into()), "{path}: {saw}");
        }
    }
}

/// A node, with streams that tell their numbers.
fn node(heard: &Arc<Heard>, store: FaultStore<MemoryStore>, down: &CancellationToken) -> Router {
    let builder = ResilientSse::builder(store).anonymous().on_unavailable(OnUnavailable::Retry);
    let (sse, guardian) = builder.build().unwrap();
    tokio::spawn(guardian.with_graceful_shutdown(down.clone().cancelled_owned()));
    let heard = Arc::clone(heard);
    let tell = move || {
        heard.runs.fetch_add(1, Ordering::SeqCst);
        let events = unfold(0, async |number: u64| {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let event =
                if number < EVENTS { format!("data: {number}\n\n") } else { "event: completed\ndata: {}\n\n".into() };
            (number <= EVENTS).then(|| (Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(event))), number + 1))
        });
        let body = Body::new(StreamBody::new(Box::pin(events)));
        std::future::ready(([(header::CONTENT_TYPE, "text/event-stream")], body).into_response())
    };
    let layer = sse.generation().id(StreamId::path("/stream/{id}"));
    Router::new().route("/stream/{id}", get(tell).layer(layer))
}

/// Sends a request for a stream to the node that serves, as a load balancer does.
async fn stream(State(served): State<Served>, request: Request<Body>) -> Response {
    let path = request.uri().path().to_owned();
    let id = cursor(&request);
    let is_first = !served.heard.requests.lock().unwrap().iter().any(|(asked, ..)| *asked == path);
    // The other stream cannot be served the first time.
    let node = if is_first && path == PATHS[1] { 2 } else { served.heard.node.load(Ordering::SeqCst) };
    let response = served.nodes[node].clone().oneshot(request).await.expect("a router does not fail");
    served.heard.requests.lock().unwrap().push((path, id, response.status()));
    let broken = Arc::clone(&served.heard.broken);
    response.map(|body| {
        Body::new(body.map_err(move |error| {
            broken.fetch_add(1, Ordering::SeqCst);
            error
        }))
    })
}

/// Returns a client's cursor, which a polyfill sends in the query.
fn cursor(request: &Request<Body>) -> String {
    let header = request.headers().get("last-event-id").map(|id| id.to_str().expect("our own ids"));
    let query = request.uri().query().unwrap_or_default();
    let parameter = query.split('&').find_map(|pair| pair.strip_prefix("lastEventId="));
    header.or(parameter).unwrap_or_default().to_owned()
}

async fn page() -> Html<String> {
    let paths = serde_json::json!(PATHS);
    Html(format!(
        "<!doctype html><title>a test</title><script type=module>\n\
         import {{ watchAll }} from '/watch.mjs';\n\
         await watchAll(EventSource, '', {paths});\n\
         </script>"
    ))
}

async fn watch() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript")], include_str!("js/watch.mjs"))
}

async fn report(State(served): State<Served>, body: Bytes) -> StatusCode {
    let _ = served.reports.send(serde_json::from_slice(&body).expect("JSON"));
    StatusCode::NO_CONTENT
}
