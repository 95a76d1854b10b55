//! The routes that do not stream: they publish events, stop and list streams, and start jobs.

use axum::{
    body::Bytes,
    extract::{FromRequestParts, Path, Query, State},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use resilient_sse::{Event, Owner, PublishError, StoreError, StreamId, StreamInfo, StreamSpec};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};

use crate::{
    hub,
    routes::{App, Refused},
    telling::Plan,
};

/// Extracts the caller by the same rule as the library's routes.
pub(crate) struct Caller(pub(crate) Owner);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let owner = hub::owner(parts)
            .ok_or_else(|| refuse(StatusCode::UNAUTHORIZED, "`x-user-id` is 1 to 256 bytes of text"))?;
        Ok(Self(owner))
    }
}

/// The body of `POST /api/stream/{id}/events`.
#[derive(Deserialize)]
struct Posted<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    terminal: bool,
}

/// Serves `POST /api/stream/{id}/events`: publishes one event.
pub(crate) async fn publish(
    State(app): State<App>,
    Caller(owner): Caller,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response, Refused> {
    let id = stream_id(&id)?;
    let posted: Posted<'_> = body_of(&body, r#"{"type":"token","data":{…},"terminal":false}"#)?;
    let event = event(&posted)?;
    let publisher = app.sse.publisher();
    let published = if posted.terminal {
        publisher.end(&owner, &id, event).await
    } else {
        publisher.send(&owner, &id, event).await
    };
    let id = published.map_err(|error| not_published(&error))?;
    Ok(json(StatusCode::ACCEPTED, &json!({ "id": id.to_string() })))
}

/// Returns the posted event, with its data as the client wrote it.
fn event(posted: &Posted<'_>) -> Result<Event, Refused> {
    if posted.kind.is_empty() {
        return Err(refuse(StatusCode::BAD_REQUEST, "`type` must not be empty"));
    }
    if posted.terminal && !matches!(&*posted.kind, "completed" | "failed") {
        return Err(refuse(StatusCode::BAD_REQUEST, "the `type` of a terminal event is completed or failed"));
    }
    let kind = json!(posted.kind);
    // JSON has line ends only between tokens, so a space can replace each of them.
    let data = posted.data.map_or("null", RawValue::get).replace(['\r', '\n'], " ");
    Ok(Event::new(format!(r#"{{"type":{kind},"data":{data}}}"#)))
}

/// Serves `DELETE /api/stream/{id}`: stops the stream.
pub(crate) async fn stop(
    State(app): State<App>,
    Caller(owner): Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Refused> {
    let id = stream_id(&id)?;
    match app.sse.streams().stop(&owner, &id).await.map_err(|error| unavailable(&error))? {
        Some(_) => Ok(StatusCode::ACCEPTED),
        None => Err(refuse(StatusCode::NOT_FOUND, "there is no such stream")),
    }
}

/// A stream in the answer of `GET /api/streams`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    stream_id: String,
    kind: String,
    status: &'static str,
    reason: Option<String>,
    started_at: u64,
    last_heartbeat: u64,
    completed_at: Option<u64>,
}

impl From<StreamInfo> for Listed {
    fn from(info: StreamInfo) -> Self {
        let ended = info.ended.as_ref();
        Self {
            stream_id: info.key.id.to_string(),
            kind: info.kind.into_owned(),
            status: info.state.as_str(),
            reason: ended.and_then(|ended| ended.ending.reason.as_deref()).map(str::to_owned),
            started_at: info.started_at,
            last_heartbeat: info.last_heartbeat,
            completed_at: ended.map(|ended| ended.at),
        }
    }
}

/// The default number of streams in a page.
const PAGE: usize = 100;
/// The largest number of streams in a page.
const MAX_PAGE: usize = 1000;

/// Serves `GET /api/streams?limit=&after=`: lists the caller's streams, newest first. `after` is the last stream of the
/// page before.
///
/// An anonymous caller gets an empty list. All anonymous callers share one owner, and anyone who knows the id of an
/// anonymous stream may read it, so the ids must stay secret.
pub(crate) async fn streams(
    State(app): State<App>,
    Caller(owner): Caller,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, Refused> {
    let find = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let limit =
        find("limit").map_or(Some(PAGE), |limit| limit.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit)));
    let limit = limit.ok_or_else(|| {
        refuse(StatusCode::BAD_REQUEST, &format!("`limit` is a number of streams from 1 to {MAX_PAGE}"))
    })?;
    let after = find("after").map(stream_id).transpose()?;
    if owner == Owner::ANONYMOUS {
        return Ok(json(StatusCode::OK, &[(); 0]));
    }
    let page = app.sse.streams().page(&owner, after.as_ref(), limit).await.map_err(|error| unavailable(&error))?;
    let page: Vec<_> = page.streams.into_iter().map(Listed::from).collect();
    Ok(json(StatusCode::OK, &page))
}

/// Reads the body of `POST /api/chat/{conversation}`. An empty body asks for the whole text.
pub(crate) fn turn(body: &Bytes) -> Result<Plan, Refused> {
    let asked = if body.is_empty() { Turn::default() } else { body_of(body, r#"{"n":100,"rate":20}"#)? };
    Plan::new().paced(asked.n, asked.rate).map_err(|rule| refuse(StatusCode::BAD_REQUEST, &rule))
}

/// The body of `POST /api/chat/{conversation}`.
#[derive(Default, Deserialize)]
struct Turn {
    n: Option<u64>,
    rate: Option<f64>,
}

/// The body of `POST /api/jobs`.
#[derive(Deserialize)]
struct Wanted {
    n: Option<u64>,
    rate: Option<f64>,
    #[serde(default)]
    silent: bool,
}

/// Serves `POST /api/jobs`: starts a job and answers with the id of its stream.
pub(crate) async fn start_job(State(app): State<App>, Caller(owner): Caller, body: Bytes) -> Result<Response, Refused> {
    let wanted: Wanted = body_of(&body, r#"{"n":100,"rate":20,"silent":false}"#)?;
    let plan = Plan::new().paced(wanted.n, wanted.rate).map_err(|rule| refuse(StatusCode::BAD_REQUEST, &rule))?;
    let id = StreamId::random();
    let spec = StreamSpec::new(owner, id.clone());
    let publication = app.sse.publisher().open(spec).await.map_err(|error| not_published(&error))?;
    tokio::spawn(app.jobs.run(publication, plan, wanted.silent));
    Ok(json(StatusCode::ACCEPTED, &json!({ "id": id.as_str() })))
}

/// Returns a JSON response.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()).into_response(),
    }
}

fn body_of<'a, T: Deserialize<'a>>(body: &'a Bytes, form: &str) -> Result<T, Refused> {
    serde_json::from_slice(body)
        .map_err(|error| refuse(StatusCode::BAD_REQUEST, &format!("the body is JSON of the form {form}: {error}")))
}

pub(crate) fn stream_id(id: &str) -> Result<StreamId, Refused> {
    StreamId::new(id).map_err(|error| refuse(StatusCode::BAD_REQUEST, &error.to_string()))
}

fn not_published(error: &PublishError) -> Refused {
    let status = match error {
        PublishError::Conflict => StatusCode::CONFLICT,
        PublishError::Ended(_) => StatusCode::GONE,
        PublishError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        PublishError::Draining | PublishError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    refuse(status, &error.to_string())
}

fn unavailable(error: &StoreError) -> Refused {
    refuse(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
}

fn refuse(status: StatusCode, sentence: &str) -> Refused {
    (status, format!("{sentence}\n"))
}
