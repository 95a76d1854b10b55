//! G5 on real sockets: beats do not depend on a client that reads.

use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use resilient_sse::{Disconnect, Guardian, MemoryStore, Owner, ResilientSse, StreamId, StreamKey, StreamState};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tower::ServiceExt as _;

use crate::support::handlers::{App, Handler, Script, app};

const STALE: Duration = Duration::from_millis(200);

fn node(store: &MemoryStore) -> (ResilientSse, Guardian) {
    let builder = ResilientSse::builder(store.clone()).anonymous().stale_after(STALE).sweep_every(STALE / 4);
    builder.lifetime(Duration::from_secs(2)).recovery_window(STALE).build().unwrap()
}

async fn serve(listener: TcpListener, app: App) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let app = app.clone();
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            let app = app.clone();
            async move {
                let response = app.oneshot(request.map(|_| ())).await;
                response.map(|response| response.map(|body| body.map_err(std::io::Error::other).boxed_unsync()))
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
    }
}

/// Waits for a condition that must become true.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        ticks.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_a_client_that_never_reads_its_socket_is_not_orphaned() {
    for disconnect in [Disconnect::Interrupt, Disconnect::Cancel] {
        let store = MemoryStore::new();
        let (producing, first) = node(&store);
        let (watching, second) = node(&store);
        let guardians = [tokio::spawn(first), tokio::spawn(second)];
        until("both trust the store", async || ![&producing, &watching].iter().any(|sse| sse.health().frozen)).await;

        // Send far more than socket buffers hold, so that the body waits for its client.
        let line = "x".repeat(100_000);
        let handler = Handler::new(move |_| {
            let block = format!("data: {line}\n\n");
            let frames = futures_util::stream::repeat_with(move || Ok(http_body::Frame::data(block.clone().into())));
            crate::support::handlers::sse(StreamBody::new(frames).boxed_unsync())
        });
        let layer = producing.layer().id(StreamId::path("/{id}")).on_disconnect(disconnect);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, app(layer, &handler)));
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new("a").unwrap());
        let registry = watching.registry();
        until("it is open", async || registry.stream(&key).await.unwrap().is_some_and(|info| info.started)).await;
        let mut last = None;
        until("the body waits", async || {
            let recorded = Some(producing.health().recorded);
            std::mem::replace(&mut last, recorded) == recorded
        })
        .await;

        // Several thresholds pass by the other guardian's own sweeps.
        let from = registry.stream(&key).await.unwrap().unwrap().started_at;
        let enough = from + 5 * STALE.as_millis() as u64;
        until("it sweeps", async || watching.health().last_sweep.is_some_and(|at| at > enough)).await;
        let info = registry.stream(&key).await.unwrap().unwrap();
        assert_eq!((info.state, handler.calls()), (StreamState::Active, 1));
        assert_eq!(watching.health().orphaned, 0);

        // The client still gets its stream, and its leaving is noticed.
        let mut first_bytes = [0; 1000];
        socket.read_exact(&mut first_bytes).await.unwrap();
        drop(socket);
        until("it ends", async || producing.health().active == 0).await;
        until("nothing is left", async || store.is_empty()).await;
        server.abort();
        for guardian in guardians {
            guardian.abort();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_a_spawned_guardian_drains_and_reports() {
    let store = MemoryStore::new();
    let (sse, guardian) = node(&store);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let guardian = tokio::spawn(guardian.with_graceful_shutdown(async { drop(stopped.await) }));
    let (script, gate) = Script::events(3).gated();
    let app = app(sse.generation().id(StreamId::path("/{id}")), &Handler::plays(script));
    let response =
        app.oneshot(Request::get("/a").header("accept", "text/event-stream").body(()).unwrap()).await.unwrap();
    drop(stop);
    let seen = resilient_sse::test_util::collect(response.into_body()).await;
    assert_eq!((seen.names().len(), seen.ended, seen.retry.is_some()), (0, false, true), "let go at once");
    gate.send_replace(4);
    let report = guardian.await.unwrap();
    assert_eq!((report.running, report.finished, report.interrupted, report.closed), (1, 1, 0, 0));
    assert_eq!((report.unsettled, report.unrecorded_bytes), (0, 0));
}
