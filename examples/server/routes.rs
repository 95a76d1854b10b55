//! The routes, and the handlers of those that stream.

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

/// An answer that is an error: its status, and a sentence.
pub(crate) type Refused = (StatusCode, String);

/// All routes, within what concerns each of them.
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
    // What may be interrupted and never ends is a feed: a process that goes down lets go of it at once, since waiting for
    // it gains nothing. Both routes serve the same streams, so they are of one kind, and know the same ends.
    let feeds = routes(app, sse.feed().kind("generation").classify(Ends::default()));
    Router::new().fallback(by_end).with_state([answers, feeds])
}

/// Sends a request for a stream without an end to the feeds, and any other to the answers.
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

/// An ordinary handler that answers with an event stream: it knows nothing of the layer around it.
///
/// axum runs a GET handler for HEAD, too. The answer has no body then, so no work is begun for it.
async fn tell(method: Method, Query(query): Query<Vec<(String, String)>>) -> Result<Response, Refused> {
    let plan = plan(&query)?;
    if method == Method::HEAD {
        return Ok([(header::CONTENT_TYPE, "text/event-stream")].into_response());
    }
    Ok(Sse::new(Telling::new(plan)).into_response())
}

/// A turn of a conversation, which the layer around it names: an answer to each question, in a stream of its own.
async fn chat(body: Bytes) -> Result<Response, Refused> {
    Ok(Sse::new(Telling::new(control::turn(&body)?)).into_response())
}

/// The same without the layer, and with axum's own heartbeats: for side-by-side measurement.
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
