//! A proxy: the inner body is an upstream's response, whose connection a client of hyper's keeps in its pool.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, routing::get, serve::ListenerExt as _};
use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::unfold};
use http::{Request, Response, Uri, header};
use http_body::Frame;
use http_body_util::{Empty, StreamBody};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use resilient_sse::{
    Ends, ResilientSseBody, ResilientSseLayer, Voice,
    test_util::{collect, cut_after},
};
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};
use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn, util::BoxCloneService};

use crate::{hub, listener};

const PATIENCE: Duration = Duration::from_secs(10);

/// A server with keep-alive whose answers end in `[DONE]`, but whose bodies end only when the test says so.
struct Upstream {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    /// How many bodies may end.
    ends: Arc<Semaphore>,
}

impl Upstream {
    async fn start() -> Self {
        let (accepted, ends) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let app = Router::new().route("/", get(answer)).with_state(Arc::clone(&ends));
        let (listener, address) = listener().await;
        let counter = Arc::clone(&accepted);
        let listener = listener.tap_io(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, accepted, ends }
    }
}

async fn answer(State(ends): State<Arc<Semaphore>>) -> Response<axum::body::Body> {
    let chunks = unfold((0, ends), async |(told, ends): (u8, Arc<Semaphore>)| {
        let chunk = match told {
            0 => "data: {\"n\":0}\n\n",
            1 => "data: [DONE]\n\n",
            _ => {
                ends.acquire().await.ok()?.forget();
                return None;
            }
        };
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(chunk.as_bytes()))), (told + 1, ends)))
    });
    let response = Response::builder().header(header::CONTENT_TYPE, "text/event-stream");
    response.body(axum::body::Body::new(StreamBody::new(Box::pin(chunks)))).unwrap()
}

/// A client whose pool can never hold more than one connection: a request waits for it until it is idle again.
fn one_connection() -> Client<impl hyper_util::client::legacy::connect::Connect + Clone, Empty<Bytes>> {
    let opened = Arc::new(AtomicUsize::new(0));
    let connector = service_fn(move |uri: Uri| -> BoxFuture<'static, Result<TokioIo<TcpStream>, BoxError>> {
        let is_first = opened.fetch_add(1, Ordering::SeqCst) == 0;
        Box::pin(async move {
            if !is_first {
                // The pool takes an idle connection or a new one, whichever is ready first.
                std::future::pending::<()>().await;
            }
            Ok(TokioIo::new(TcpStream::connect(uri.authority().expect("an address").as_str()).await?))
        })
    });
    Client::builder(TokioExecutor::new()).build(connector)
}

type Proxy = BoxCloneService<Request<()>, Response<ResilientSseBody<Incoming>>, BoxError>;

/// Passes every request on, over the one connection.
fn proxy(layer: ResilientSseLayer, upstream: &Upstream) -> Proxy {
    let (client, uri) = (one_connection(), format!("http://{}/", upstream.address));
    let inner = service_fn(move |_: Request<()>| {
        let answer = client.request(Request::get(&uri).body(Empty::new()).unwrap());
        async move { answer.await.map_err(BoxError::from) }
    });
    BoxCloneService::new(ServiceBuilder::new().layer(layer).service(inner))
}

/// A client that stops at `[DONE]`, as an SDK does, or reads to the end of its body, which does not wait for the
/// upstream's.
#[tokio::test]
async fn g10_an_upstream_s_connection_is_used_again_after_the_last_event() {
    for stops_at_the_end_marker in [false, true] {
        for detaches in [false, true] {
            let (sse, upstream) = (hub(), Upstream::start().await);
            let layer = if detaches { sse.generation() } else { sse.layer() };
            let proxy = proxy(layer.classify(Ends::openai_chat()).voice(Voice::OpenAi), &upstream);
            for request in 1..=3 {
                let seen = timeout(PATIENCE, async {
                    let answer = proxy.clone().oneshot(Request::get("/").body(()).unwrap()).await;
                    let body = answer.unwrap().into_body();
                    if stops_at_the_end_marker { cut_after(2, body).await } else { collect(body).await }
                });
                let seen = seen.await.unwrap_or_else(|_| {
                    panic!("request {request}: the connection is not used again (detaches: {detaches})")
                });
                assert_eq!(seen.data(), ["{\"n\":0}", "[DONE]"]);
                // Only now does the upstream end its body.
                upstream.ends.add_permits(1);
            }
            assert_eq!(upstream.accepted.load(Ordering::SeqCst), 1, "three answers, one connection");
        }
    }
}
