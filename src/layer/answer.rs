//! What the layer answers with.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body;

use super::{
    admit::{Admission, Asked, Registered, registration},
    body::ResilientSseBody,
    context::StreamContext,
    engine::Engine,
    live::Live,
    producer::Producer,
    route::Route,
    voice::{Notice, Speaker},
};
use crate::{
    error::{BodyError, BoxError},
    follow::{
        FollowBody, FollowRequest, Unknown,
        ending::{End, come_again, finish, no_content},
        tell_step,
    },
    headers::{STREAM_RECORDED, event_stream, give_again},
    hub::{Core, Head, Rejection},
    id::EventId,
    kept::KeptHeaders,
    protocol::{
        admission::Position,
        replay::{Owed, Replay},
    },
    recorder::Lane,
    telemetry::{Bypassed, add},
};

type Answer<ResBody> = Response<ResilientSseBody<ResBody>>;

/// Whether the layer protects a response; if not, what its event stream counts as.
pub(super) fn is_protected<B>(core: &Core, response: &Response<B>) -> Result<(), Option<Bypassed>> {
    if !claims(core, response) {
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

/// Whether a `Content-Encoding` line names a coding, so that the bytes are not the content itself. `identity` stands for no
/// encoding (RFC 9110 § 8.4.1); some servers send it to keep compression away.
fn is_encoding(line: &HeaderValue) -> bool {
    // The field is a list, whose empty elements count for nothing (RFC 9110 § 5.6.1).
    let mut codings = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    codings.any(|coding| {
        !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity") && !coding.eq_ignore_ascii_case(b"none")
    })
}

fn claims<B>(core: &Core, response: &Response<B>) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    content_type.and_then(|value| value.to_str().ok()).is_some_and(|value| core.framing.claims(value))
}

/// A response that passes untouched, but for the mark on an event stream that is not protected.
pub(super) fn unprotected<ResBody>(
    core: &Core,
    mut response: Response<ResBody>,
    reason: Option<Bypassed>,
) -> Answer<ResBody>
where
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    if let Some(reason) = reason.filter(|_| claims(core, &response)) {
        core.telemetry.bypassed(reason);
        response.headers_mut().insert(STREAM_RECORDED, HeaderValue::from_static("false"));
    }
    response.map(ResilientSseBody::pass)
}

/// Joins the inner service's event stream with the outcome of its registration.
pub(super) fn serve<ResBody>(
    core: &Arc<Core>,
    route: &Arc<Route>,
    asked: &Asked,
    admission: Admission,
    response: Response<ResBody>,
    context: &StreamContext,
) -> Answer<ResBody>
where
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    match admission {
        Admission::Produce(registered) => produce(core, route, asked, registered, response, context),
        Admission::Unrecorded => unrecorded(core, route, asked, response, context),
        other => answer(core, route, asked, other),
    }
}

/// Looks at the version of HTTP over which a stream is given. The response of a feed may end cleanly at any time.
fn check_version(core: &Core, route: &Route, asked: &Asked) {
    if !route.endless {
        core.check_version(asked.version);
    }
}

/// A producer that has begun.
pub(super) struct Started<ResBody> {
    pub(super) producer: Arc<Producer<ResBody>>,
    /// The end of the run before, if there was one.
    previous: Option<EventId>,
}

/// Starts the producer of a stream that is registered: from here on its body decides what becomes of it.
pub(super) fn start<ResBody>(
    core: &Arc<Core>,
    route: &Arc<Route>,
    asked: &Asked,
    registered: Registered,
    headers: &HeaderMap,
    body: ResBody,
    context: &StreamContext,
) -> Started<ResBody>
where
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    let previous = registered.previous;
    let lane = registered.start();
    context.registered(&lane);
    let producer = engage(core, route, asked, &lane, body, context);
    keep_headers(core, route, &lane, headers);
    lane.start();
    // Said with the first event, if there is one at once: the engine sees to it once the body waits.
    core.recorder.ready_at_leisure(&lane);
    core.turn_started(&lane);
    Started { producer, previous }
}

/// Stores the headers that the route keeps, where the stream was registered before its handler answered.
fn keep_headers(core: &Arc<Core>, route: &Route, lane: &Arc<Lane>, headers: &HeaderMap) {
    if lane.headers() == &KeptHeaders::Awaited
        && lane.keep_headers(core.kept_headers(&lane.key, headers, &route.keep_headers))
    {
        let (core, lane) = (Arc::clone(core), Arc::clone(lane));
        core.executor.clone().begin(async move { core.recorder.say_again(&lane).await });
    }
}

fn engage<ResBody>(
    core: &Arc<Core>,
    route: &Arc<Route>,
    asked: &Asked,
    lane: &Arc<Lane>,
    body: ResBody,
    context: &StreamContext,
) -> Arc<Producer<ResBody>>
where
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    let engine = Engine::new(Arc::clone(core), Arc::clone(route), Arc::clone(lane), context.stopper(), body);
    Producer::new(core, route, engine, asked.comes_again)
}

/// Wraps the inner body.
fn produce<ResBody>(
    core: &Arc<Core>,
    route: &Arc<Route>,
    asked: &Asked,
    registered: Registered,
    response: Response<ResBody>,
    context: &StreamContext,
) -> Answer<ResBody>
where
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    check_version(core, route, asked);
    let (mut parts, body) = response.into_parts();
    let Started { producer, previous } = start(core, route, asked, registered, &parts.headers, body, context);
    event_stream(&mut parts.headers, Some(&asked.key.id), route.heartbeat);
    let run = EventId::new(producer.lane.epoch, 0);
    let prefix = producer.lane.prefix();
    let speaker = Speaker::new(Arc::clone(&core.framing), route.voice, prefix.clone(), Some(core.retry()));
    let mut live = Live::new(producer, speaker, asked.manner(route), asked.opened);
    if asked.position.is_reconnect() {
        add(&core.telemetry.resumed, 1);
    }
    let replays = matches!(asked.position, Position::After(_) | Position::Unreadable);
    let body = if previous.is_some() && replays {
        // The inner body is not polled before the client has what it missed.
        core.recorder.ready(live.lane());
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
        ResilientSseBody::rerun(Arc::clone(core), FollowBody::new(core, missed), live, run)
    } else {
        live.speaker().notice(&Notice::Connected(&asked.key.id));
        begin(core, asked, live, run)
    };
    Response::from_parts(parts, body)
}

/// Begins a first run. A client with a cursor is told that its events are gone.
fn begin<ResBody>(core: &Core, asked: &Asked, mut live: Live<ResBody>, run: EventId) -> ResilientSseBody<ResBody>
where
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
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
    match tell_step(core, live.speaker(), step, run.epoch) {
        Ok(()) => ResilientSseBody::live(live),
        Err(error) => Box::new(live).break_off(error),
    }
}

/// Serves an event stream that cannot be registered: it has all that the layer adds, but for ids.
fn unrecorded<ResBody>(
    core: &Arc<Core>,
    route: &Arc<Route>,
    asked: &Asked,
    response: Response<ResBody>,
    context: &StreamContext,
) -> Answer<ResBody>
where
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    check_version(core, route, asked);
    core.telemetry.bypassed(Bypassed::Unavailable);
    context.unrecorded();
    let (mut parts, body) = response.into_parts();
    event_stream(&mut parts.headers, Some(&asked.key.id), route.heartbeat);
    parts.headers.insert(STREAM_RECORDED, HeaderValue::from_static("false"));
    let lane = Lane::unrecorded(registration(core, route, asked, 0, true), &route.retention);
    core.recorder.serves_on(&lane);
    let producer = engage(core, route, asked, &lane, body, context);
    let speaker = Speaker::without_ids(Arc::clone(&core.framing), route.voice, Some(core.retry()));
    let live = Live::new(producer, speaker, asked.manner(route), asked.opened);
    Response::from_parts(parts, ResilientSseBody::live(live))
}

/// An answer that needs no inner service.
pub(super) fn answer<ResBody>(core: &Arc<Core>, route: &Route, asked: &Asked, admission: Admission) -> Answer<ResBody>
where
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    match admission {
        Admission::Follow(follow, headers) => {
            let mut response = events(core, route, asked, ResilientSseBody::follow(follow));
            give_again(response.headers_mut(), &headers);
            response
        }
        Admission::Retry => {
            come_again(core, Some(&asked.key.id), asked.comes_again, &asked.head).map(ResilientSseBody::answer)
        }
        Admission::Break(error) => events(core, route, asked, broken(core, route, error)),
        Admission::NoContent => no_content(core).map(ResilientSseBody::answer),
        Admission::Reject(rejection) => reject(core, &rejection, &asked.head),
        Admission::Produce(_) | Admission::Unrecorded | Admission::Anew => {
            reject(core, &Rejection::Unavailable, &asked.head)
        }
    }
}

/// A body that breaks at once, after what the route's voice has to say.
fn broken<ResBody>(core: &Core, route: &Route, error: BodyError) -> ResilientSseBody<ResBody>
where
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    let mut speaker = Speaker::new(Arc::clone(&core.framing), route.voice, None, Some(core.retry()));
    let closing = finish(&mut speaker, End::Unfinished(error), route.endless);
    ResilientSseBody::closing(speaker.take(), closing)
}

fn events<ResBody>(core: &Arc<Core>, route: &Route, asked: &Asked, body: ResilientSseBody<ResBody>) -> Answer<ResBody>
where
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    check_version(core, route, asked);
    let mut response = Response::new(body);
    let content_type = HeaderValue::from_static(core.framing.content_type());
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    event_stream(response.headers_mut(), Some(&asked.key.id), route.heartbeat);
    response
}

pub(super) fn reject<ResBody>(core: &Core, rejection: &Rejection, head: &Head) -> Answer<ResBody>
where
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    let empty = |bytes: Bytes| ResilientSseBody::closing(Some(bytes), crate::follow::ending::Closing::clean());
    core.reject(rejection, head).map(empty)
}
