//! Recovery as a tower service.

use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use tokio::time::Instant;
use tower_service::Service;

use super::{answer::Answer, query::RecoverQuery};
use crate::{
    follow::{
        AnswerBody, AnswerFuture, FollowRequest, Manner, Unknown,
        brief::{come_again, no_content, options},
    },
    model::{id::StreamKey, stream::StreamInfo, voice::Voice},
    node::{
        Node,
        head::Head,
        headers::no_store,
        readers::BEGIN_WAIT,
        reject::Rejection,
        request::{asks_by_name, last_seen, prefers_events},
    },
    protocol::{admission::Position, replay::Owed},
    route::identify::{Identify, Name},
    telemetry::add,
};

/// The recovery service of a hub: see [`ResilientSse::recover`](crate::ResilientSse::recover).
///
/// `GET` answers with JSON: the completion of a stream that has ended, or a page of events of a stream that runs or is
/// interrupted. If the caller owns no such stream, the answer is 404. If `Accept` prefers `text/event-stream`, the
/// service follows the stream instead. [`protocol`](crate::protocol) describes the parameters and fields.
///
/// ```
/// use axum::Router;
/// use resilient_sse::{ResilientSse, StreamId};
///
/// fn recovery(sse: &ResilientSse) -> Router {
///     let recover = sse.recover().id(StreamId::path("/answers/{id}/recover"));
///     Router::new().route_service("/answers/{id}/recover", recover)
/// }
/// ```
#[derive(Clone)]
pub struct Recover {
    node: Arc<Node>,
    identify: Arc<dyn Identify>,
    voice: Option<Voice>,
}

impl Recover {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        let identify = crate::StreamId::path("/{id}/recover");
        Self { node, identify: Arc::new(identify), voice: None }
    }

    /// Sets the identifier that finds a request's stream. Default: the segment before `recover` at the path's end
    /// (`/{id}/recover`).
    #[must_use]
    pub fn id(mut self, identify: impl Identify) -> Self {
        self.identify = Arc::new(identify);
        self
    }

    /// Sets the form of the library's own events for a client that follows. Default: the voice of the route that
    /// produces the stream.
    #[must_use]
    pub fn voice(mut self, voice: Voice) -> Self {
        self.voice = Some(voice);
        self
    }
}

impl fmt::Debug for Recover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recover").field("voice", &self.voice).finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for Recover {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> AnswerFuture {
        let (parts, _) = request.into_parts();
        let name = self.identify.identify(&parts).name;
        AnswerFuture(Box::pin(recover(Arc::clone(&self.node), parts, name, self.voice)))
    }
}

/// Answers a recovery request for the stream `name`.
pub(crate) async fn recover(node: Arc<Node>, parts: Parts, name: Name, voice: Option<Voice>) -> Response<AnswerBody> {
    let head = node.head(&parts);
    match answer(&node, &parts, &head, name, voice).await {
        Ok(response) => response,
        // One answer for a missing stream, another owner's stream and a denied one, so that a caller cannot tell which
        // it is.
        Err(Rejection::NotFound) => {
            let response = json(StatusCode::NOT_FOUND, br#"{"status":"not_found"}"#.to_vec());
            node.reject_with(&Rejection::NotFound, &head, response).map(AnswerBody::full)
        }
        Err(rejection) => node.reject(&rejection, &head).map(AnswerBody::full),
    }
}

async fn answer(
    node: &Arc<Node>,
    parts: &Parts,
    head: &Head,
    name: Name,
    voice: Option<Voice>,
) -> Result<Response<AnswerBody>, Rejection> {
    match parts.method {
        Method::GET | Method::HEAD => {}
        Method::OPTIONS => return Ok(options(node)),
        _ => return Err(Rejection::MethodNotAllowed),
    }
    let owner = node.owner_of(parts)?;
    let id = match name {
        Name::Id(id) => id,
        Name::Malformed(error) => return Err(Rejection::MalformedId(error)),
        Name::OtherPath => return Err(node.no_stream_name("recover", parts.uri.path())),
        Name::Bypass | Name::Generate => return Err(Rejection::NotFound),
    };
    let key = StreamKey::new(owner, id);
    node.authorize(&key, head).await?;
    if prefers_events(parts) && parts.method == Method::GET {
        return follow(node, key, parts, head, voice).await;
    }
    let query = RecoverQuery::parse(parts, &key.id).map_err(Rejection::BadQuery)?;
    match Answer::ask(node, key, &query).await {
        Err(_) => Err(Rejection::Unavailable),
        Ok(None) => Err(missing(node).await),
        Ok(Some(answer)) => {
            add(&node.telemetry.resumed, 1);
            Ok(json(StatusCode::OK, serde_json::to_vec(&answer).unwrap_or_default()).map(AnswerBody::full))
        }
    }
}

async fn follow(
    node: &Arc<Node>,
    key: StreamKey,
    parts: &Parts,
    head: &Head,
    voice: Option<Voice>,
) -> Result<Response<AnswerBody>, Rejection> {
    let position = Position::of(&last_seen(parts, Some(&key.id)));
    let comes_again = asks_by_name(parts);
    let again = |node| Ok(come_again(node, Some(&key.id), comes_again, head));
    let info = match node.store.info(key.clone()).await {
        // An `EventSource` would give up for good at a 503.
        Err(_) if position.is_reconnect() => return again(node),
        Err(_) => return Err(Rejection::Unavailable),
        Ok(None) if position.is_end() => return Ok(no_content(node)),
        // After the store was emptied, the stream's producer may be about to register it again.
        Ok(None) if !matches!(node.ask_whether_forgotten().await, Ok(false)) => return again(node),
        Ok(None) => return Err(Rejection::NotFound),
        Ok(Some(info)) => info,
    };
    follow_known(node, info, position, parts, head, voice, Instant::now() + BEGIN_WAIT).await
}

/// Follows a stream that the store holds, or answers with 204 if the client has everything. It waits until `headers_by`
/// for the headers that the stream's route keeps.
pub(crate) async fn follow_known(
    node: &Arc<Node>,
    info: StreamInfo,
    position: Position,
    parts: &Parts,
    head: &Head,
    voice: Option<Voice>,
    headers_by: Instant,
) -> Result<Response<AnswerBody>, Rejection> {
    let voice = voice.unwrap_or(info.voice);
    let (key, comes_again) = (info.key.clone(), asks_by_name(parts));
    if position.has_all_of(&info, |ending| voice.announces(ending)) {
        return Ok(no_content(node));
    }
    if node.is_draining() && comes_again {
        return Ok(come_again(node, Some(&key.id), comes_again, head));
    }
    let headers = node.await_headers(&key, info.headers.clone(), headers_by).await;
    add(&node.telemetry.resumed, 1);
    let manner = Manner { voice, heartbeat: node.settings.heartbeat, endless: false, comes_again };
    let retry = info.inner_retry;
    let prefix = info.into_prefix();
    let (owed, unknown) = (Owed::Run, Unknown::Nothing);
    let request = FollowRequest { key, position, owed, manner, prefix, retry, wait: None, unknown, until: None };
    node.check_version(parts.version);
    Ok(AnswerBody::follow(node, request, &headers).await)
}

/// Returns the rejection for a stream that the store does not know. After the store was emptied this is 503, since the
/// stream's producer may be about to register it again, and a 404 would be final for a client.
async fn missing(node: &Node) -> Rejection {
    match node.ask_whether_forgotten().await {
        Ok(false) => Rejection::NotFound,
        Ok(true) | Err(_) => Rejection::Unavailable,
    }
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    no_store(headers);
    response
}
