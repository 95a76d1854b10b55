//! The responses of the layer.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::{
    admit::Admission,
    asked::{Asked, registration},
    registered::Registered,
};
use crate::{
    follow::{
        FollowBody, FollowRequest, Unknown,
        brief::{come_again, no_content},
        closing::{End, finish},
        tell_step,
    },
    layer::context::StreamContext,
    model::{error::BodyError, id::EventId, kept::KeptHeaders},
    node::{
        Node,
        head::Head,
        headers::{STREAM_HEARTBEAT, STREAM_RECORDED, event_stream, give_again},
        reject::Rejection,
    },
    produce::{body::ResilientSseBody, engine::Engine, inner_body::InnerBody, live::Live, producer::Producer},
    protocol::{
        admission::Position,
        replay::{Owed, Replay},
    },
    recorder::Lane,
    route::{
        settings::Route,
        speaker::{Notice, Speaker},
    },
    telemetry::{Bypassed, add},
};

type Answer<ResBody> = Response<ResilientSseBody<ResBody>>;

/// Returns `Ok` if the layer protects a response. The error is the reason under which an unprotected event stream is
/// counted, or `None` if the response is no event stream.
pub(super) fn is_protected<B>(node: &Node, response: &Response<B>) -> Result<(), Option<Bypassed>> {
    if !claims(node, response) {
        return Err(None);
    }
    if response.status() != StatusCode::OK {
        return Err(Some(Bypassed::Status));
    }
    if response.headers().get_all(header::CONTENT_ENCODING).iter().any(is_encoding) {
        return Err(Some(Bypassed::Encoded));
    }
    Ok(())
}

/// Whether a `Content-Encoding` line names a coding, so that the bytes are not the content itself. `identity` means no
/// coding (RFC 9110 § 8.4.1). Some servers send it to keep compression layers away.
fn is_encoding(line: &HeaderValue) -> bool {
    // The field is a list. A recipient ignores empty elements (RFC 9110 § 5.6.1).
    let mut codings = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    codings.any(|coding| {
        !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity") && !coding.eq_ignore_ascii_case(b"none")
    })
}

fn claims<B>(node: &Node, response: &Response<B>) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    content_type.and_then(|value| value.to_str().ok()).is_some_and(|value| node.framing.claims(value))
}

/// Returns a response that passes untouched. An event stream that is not protected gets `X-Stream-Recorded: false`. It is
/// reported if the reason is that the route's template does not match `unmatched_path`.
///
/// An event stream of another layer or service of this library is left alone. It has the header `X-Stream-Heartbeat`.
pub(super) fn unprotected<ResBody>(
    node: &Node,
    mut response: Response<ResBody>,
    reason: Option<Bypassed>,
    unmatched_path: Option<&str>,
) -> Answer<ResBody>
where
    ResBody: InnerBody,
{
    let is_protected_within = reason == Some(Bypassed::Bypass) && response.headers().contains_key(&STREAM_HEARTBEAT);
    if let Some(reason) = reason.filter(|_| !is_protected_within && claims(node, &response)) {
        node.telemetry.bypassed(reason);
        if let Some(path) = unmatched_path {
            node.unmatched(path);
        }
        response.headers_mut().insert(STREAM_RECORDED, HeaderValue::from_static("false"));
    }
    response.map(ResilientSseBody::pass)
}

/// Serves the inner service's event stream according to the outcome of its registration.
pub(super) fn serve<ResBody>(
    node: &Arc<Node>,
    route: &Arc<Route>,
    asked: &Asked,
    admission: Admission,
    response: Response<ResBody>,
    context: &StreamContext,
) -> Answer<ResBody>
where
    ResBody: InnerBody,
{
    match admission {
        Admission::Produce(registered) => produce(node, route, asked, registered, response, context),
        Admission::Unrecorded => unrecorded(node, route, asked, response, context),
        other => answer(node, route, asked, other),
    }
}

/// Logs an alert if a stream is sent over HTTP/1.0, unless it is a feed's: the response of a feed may end cleanly at
/// any time.
fn check_version(node: &Node, route: &Route, asked: &Asked) {
    if !route.endless {
        node.check_version(asked.version);
    }
}

/// A producer that has begun.
pub(super) struct Started<ResBody> {
    pub(super) producer: Arc<Producer<ResBody>>,
    /// The last event of the run before, if there was one.
    previous: Option<EventId>,
}

/// Starts the producer of a registered stream. From then on the inner body's end is the stream's.
pub(super) fn start<ResBody>(
    node: &Arc<Node>,
    route: &Arc<Route>,
    asked: &Asked,
    registered: Registered,
    headers: &HeaderMap,
    body: ResBody,
    context: &StreamContext,
) -> Started<ResBody>
where
    ResBody: InnerBody,
{
    let previous = registered.previous;
    let lane = registered.start();
    context.registered(&lane);
    let producer = engage(node, route, asked, &lane, body, context);
    keep_headers(node, route, &lane, headers);
    lane.start();
    // The store learns of the start with the first event. If there is none at once, the engine reports the start when
    // the inner body is pending.
    node.recorder.ready_at_leisure(&lane);
    node.turn_started(&lane);
    Started { producer, previous }
}

/// Stores the headers that the route keeps, if the stream was registered before its handler answered.
fn keep_headers(node: &Arc<Node>, route: &Route, lane: &Arc<Lane>, headers: &HeaderMap) {
    if lane.headers() == &KeptHeaders::Awaited {
        lane.keep_headers(node.kept_headers(&lane.key, headers, &route.keep_headers));
        let (node, lane) = (Arc::clone(node), Arc::clone(lane));
        node.executor.clone().begin(async move { node.recorder.update_registration(&lane).await });
    }
}

fn engage<ResBody>(
    node: &Arc<Node>,
    route: &Arc<Route>,
    asked: &Asked,
    lane: &Arc<Lane>,
    body: ResBody,
    context: &StreamContext,
) -> Arc<Producer<ResBody>>
where
    ResBody: InnerBody,
{
    let engine = Engine::new(Arc::clone(node), Arc::clone(route), Arc::clone(lane), context.stopper(), body);
    Producer::new(node, route, engine, asked.comes_again)
}

/// Wraps the inner body of a registered stream.
fn produce<ResBody>(
    node: &Arc<Node>,
    route: &Arc<Route>,
    asked: &Asked,
    registered: Registered,
    response: Response<ResBody>,
    context: &StreamContext,
) -> Answer<ResBody>
where
    ResBody: InnerBody,
{
    check_version(node, route, asked);
    let (mut parts, body) = response.into_parts();
    let Started { producer, previous } = start(node, route, asked, registered, &parts.headers, body, context);
    event_stream(&mut parts.headers, Some(&asked.key.id), route.heartbeat);
    let run = EventId::new(producer.lane.epoch, 0);
    let prefix = producer.lane.prefix();
    let speaker = Speaker::new(Arc::clone(&node.framing), route.voice, prefix.clone(), Some(node.retry()));
    let mut live = Live::new(producer, speaker, asked.manner(route), asked.opened);
    if asked.position.is_reconnect() {
        add(&node.telemetry.resumed, 1);
    }
    let replays = matches!(asked.position, Position::After(_) | Position::Unreadable);
    let body = if previous.is_some() && replays {
        // The engine does not report the start here: the inner body is not polled until the client has the missed
        // events.
        node.recorder.ready(live.lane());
        let missed = FollowRequest {
            key: asked.key.clone(),
            position: asked.position,
            owed: Owed::Nothing,
            manner: asked.manner(route),
            prefix,
            retry: None,
            wait: None,
            unknown: Unknown::Nothing,
            until: Some(run),
        };
        ResilientSseBody::rerun(Arc::clone(node), FollowBody::new(node, missed), live, run)
    } else {
        live.speaker().notice(&Notice::Connected(&asked.key.id));
        begin(node, asked, live, run)
    };
    Response::from_parts(parts, body)
}

/// Begins a first run. A client with a cursor gets a gap, since the events before the run are gone.
fn begin<ResBody>(node: &Node, asked: &Asked, mut live: Live<ResBody>, run: EventId) -> ResilientSseBody<ResBody>
where
    ResBody: InnerBody,
{
    let step = match asked.position {
        Position::Newest | Position::Live => return ResilientSseBody::live(live),
        Position::After(cursor) => {
            let mut replay = Replay::after(cursor);
            replay.unreadable();
            replay.hand_over(run)
        }
        Position::Unreadable => Replay::unknown(None, Owed::Run).hand_over(run),
    };
    match tell_step(node, live.speaker(), step, run.epoch) {
        Ok(()) => ResilientSseBody::live(live),
        Err(error) => ResilientSseBody::broken(live, error),
    }
}

/// Serves an event stream that cannot be registered. It has everything that the layer adds except ids.
fn unrecorded<ResBody>(
    node: &Arc<Node>,
    route: &Arc<Route>,
    asked: &Asked,
    response: Response<ResBody>,
    context: &StreamContext,
) -> Answer<ResBody>
where
    ResBody: InnerBody,
{
    check_version(node, route, asked);
    node.telemetry.bypassed(Bypassed::Unavailable);
    context.unrecorded();
    let (mut parts, body) = response.into_parts();
    event_stream(&mut parts.headers, Some(&asked.key.id), route.heartbeat);
    parts.headers.insert(STREAM_RECORDED, HeaderValue::from_static("false"));
    let lane = Lane::unrecorded(registration(node, route, asked, 0, true), &route.retention);
    node.recorder.serves_on(&lane);
    let producer = engage(node, route, asked, &lane, body, context);
    let speaker = Speaker::without_ids(Arc::clone(&node.framing), route.voice, Some(node.retry()));
    let live = Live::new(producer, speaker, asked.manner(route), asked.opened);
    Response::from_parts(parts, ResilientSseBody::live(live))
}

/// Returns the response to an admission that needs no inner service.
pub(super) fn answer<ResBody>(node: &Arc<Node>, route: &Route, asked: &Asked, admission: Admission) -> Answer<ResBody>
where
    ResBody: InnerBody,
{
    match admission {
        Admission::Follow(follow, headers) => {
            let mut response = events(node, route, asked, ResilientSseBody::follow(follow));
            give_again(response.headers_mut(), &headers);
            response
        }
        Admission::Retry => {
            come_again(node, Some(&asked.key.id), asked.comes_again, &asked.head).map(ResilientSseBody::answer)
        }
        Admission::Break(error) => events(node, route, asked, broken(node, route, error)),
        Admission::NoContent => no_content(node).map(ResilientSseBody::answer),
        Admission::Reject(rejection) => reject(node, &rejection, &asked.head),
        Admission::Produce(_) | Admission::Unrecorded | Admission::Anew => {
            reject(node, &Rejection::Unavailable, &asked.head)
        }
    }
}

/// Returns a body that breaks at once, after the voice's error event if it has one.
fn broken<ResBody>(node: &Node, route: &Route, error: BodyError) -> ResilientSseBody<ResBody>
where
    ResBody: InnerBody,
{
    let mut speaker = Speaker::new(Arc::clone(&node.framing), route.voice, None, Some(node.retry()));
    let closing = finish(&mut speaker, End::Unfinished(error), route.endless);
    ResilientSseBody::closing(speaker.take(), closing)
}

fn events<ResBody>(node: &Arc<Node>, route: &Route, asked: &Asked, body: ResilientSseBody<ResBody>) -> Answer<ResBody>
where
    ResBody: InnerBody,
{
    check_version(node, route, asked);
    let mut response = Response::new(body);
    let content_type = HeaderValue::from_static(node.framing.content_type());
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    event_stream(response.headers_mut(), Some(&asked.key.id), route.heartbeat);
    response
}

pub(super) fn reject<ResBody>(node: &Node, rejection: &Rejection, head: &Head) -> Answer<ResBody>
where
    ResBody: InnerBody,
{
    let empty = |bytes: Bytes| ResilientSseBody::closing(Some(bytes), crate::follow::closing::Closing::clean());
    node.reject(rejection, head).map(empty)
}
