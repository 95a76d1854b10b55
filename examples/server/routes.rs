//! The routes, and the handlers that stream.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{Query, Request, State},
    http::{HeaderName, Method, StatusCode, header},
    middleware::{from_fn, from_fn_with_state},
    response::{IntoResponse, Response, Sse, sse::KeepAlive},
    routing::{get, get_service, post},
};
use resilient_sse::{Disconnect, Ends, ResilientSse, ResilientSseLayer, StreamId};
use tower::ServiceExt as _;

use crate::{
    control,
    cut::{self, Readers},
    demo,
    jobs::Jobs,
    options::Options,
    origins,
    telling::{Plan, Telling},
};

/// The state that handlers share.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) sse: ResilientSse,
    pub(crate) jobs: Jobs,
    pub(crate) options: Arc<Options>,
    pub(crate) readers: Readers,
}

/// An error response: its status, and a sentence as its body.
pub(crate) type Refused = (StatusCode, String);

/// Returns the router with all routes, and the layers around all of them.
pub(crate) fn router(app: App) -> Router {
    let watch = from_fn_with_state(app.readers.clone(), cut::watch);
    streaming(app).layer(watch).layer(from_fn(origins::allow_loopback))
}

fn streaming(app: App) -> Router {
    let (sse, options) = (app.sse.clone(), Arc::clone(&app.options));
    let answers = routes(app.clone(), sse.generation().on_disconnect(options.disconnect()));
    if options.disconnect() != Disconnect::Interrupt {
        return answers;
    }
    // An endless stream that may be interrupted belongs on a feed route: a process that shuts down interrupts it at
    // once, since the stream would not end by itself. Both routers serve the same streams, so they have the same kind
    // and the same ends.
    let feeds = routes(app, sse.feed().kind("generation").classify(Ends::default()));
    Router::new().fallback(by_end).with_state([answers, feeds])
}

/// Routes a request for an endless stream to the feeds, and any other request to the answers.
async fn by_end(State([answers, feeds]): State<[Router; 2]>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let router = if query.split('&').any(|pair| pair == "end=never") { feeds } else { answers };
    router.oneshot(request).await.into_response()
}

fn routes(app: App, layer: ResilientSseLayer) -> Router {
    let App { sse, options, .. } = &app;
    let mut layer = layer.grace(options.grace).voice(options.voice);
    if let Some(limit) = options.max_streams_per_user {
        layer = layer.max_streams(limit);
    }
    let turns = layer
        .clone()
        .id(StreamId::header(HeaderName::from_static("idempotency-key")).or_generate())
        .conversation(StreamId::path("/api/chat/{id}"))
        .overlap(options.overlap);
    let resume = sse.resume().conversation(StreamId::path("/api/chat/{id}/stream"));
    let stop = sse.stop().conversation(StreamId::path("/api/chat/{id}/stream"));
    let named = get(tell).layer(layer.clone().id(StreamId::path("/api/stream/{id}")));
    let recover = sse.recover().id(StreamId::path("/api/stream/{id}/recover")).voice(options.voice);
    let relay = sse.relay().id(StreamId::path("/api/relay/{id}")).voice(options.voice);
    Router::new()
        .route("/api/stream", get(tell).layer(layer))
        .route("/api/stream/{id}", named.delete(control::stop))
        .route("/api/stream/{id}/events", post(control::publish))
        .route_service("/api/stream/{id}/recover", recover)
        .route_service("/api/relay/{id}", relay)
        .route("/api/chat/{conversation}", post(chat).layer(turns))
        .route("/api/chat/{conversation}/stream", get_service(resume).delete_service(stop))
        .route("/api/streams", get(control::streams))
        .route("/api/jobs", post(control::start_job))
        .route("/plain/{id}", get(tell_plainly))
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .merge(demo::routes())
        .with_state(app)
}

/// Answers with an event stream. This is an ordinary handler: it does not depend on the layer.
///
/// axum also runs a GET handler for HEAD. That response has no body, so the handler does no work for it.
async fn tell(method: Method, Query(query): Query<Vec<(String, String)>>) -> Result<Response, Refused> {
    let plan = plan(&query)?;
    if method == Method::HEAD {
        return Ok([(header::CONTENT_TYPE, "text/event-stream")].into_response());
    }
    Ok(Sse::new(Telling::new(plan)).into_response())
}

/// Answers a turn of a conversation, with a stream of its own. The layer takes the conversation from the path.
async fn chat(body: Bytes) -> Result<Response, Refused> {
    Ok(Sse::new(Telling::new(control::turn(&body)?)).into_response())
}

/// Answers with the same events as `tell`, but without the layer and with axum's own keep-alive, for comparison.
async fn tell_plainly(
    State(app): State<App>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<impl IntoResponse, Refused> {
    let heartbeat = KeepAlive::new().interval(app.options.heartbeat);
    Ok(Sse::new(Telling::new(plan(&query)?)).keep_alive(heartbeat))
}

fn plan(query: &[(String, String)]) -> Result<Plan, Refused> {
    Plan::parse(query).map_err(|rule| (StatusCode::BAD_REQUEST, format!("{rule}\n")))
}

async fn health(State(app): State<App>) -> Response {
    control::json(StatusCode::OK, &app.sse.health())
}

async fn metrics(State(app): State<App>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.sse.health().to_prometheus())
}
