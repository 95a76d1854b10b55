//! The future of a request that passes the layer.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    admit::{Admission, Asked, Registered},
    body::ResilientSseBody,
    context::StreamContext,
    engine::Engine,
    live::Live,
    producer::Producer,
    route::Route,
    service::inner_request,
    voice::{Notice, Speaker},
};
use crate::{
    error::BoxError,
    follow::{AnswerBody, FollowBody, FollowRequest, tell_step},
    headers::{STREAM_RECORDED, event_stream, no_store},
    hub::{Core, Head, Rejection},
    id::EventId,
    protocol::{
        admission::Position,
        replay::{Owed, Replay},
    },
    store::handle::BoxFuture,
    telemetry::{Bypassed, add},
};

pin_project! {
    /// Answers a request that passes a [`ResilientSseLayer`](super::ResilientSseLayer).
    ///
    /// The inner service's future is not boxed; requests to the store are, behind their common type.
    ///
    /// # Errors
    ///
    /// Those of the inner service, unchanged. What the layer refuses is a response.
    ///
    /// # Cancel safety
    ///
    /// Dropped before the inner service has begun to answer, the stream's registration is withdrawn:
    /// whoever waits for it is admitted anew.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResilientSseFuture<S, ReqBody, ResBody>
    where
        S: Service<Request<ReqBody>>,
        ResBody: Body,
        ResBody: Send,
        ResBody: 'static,
        ResBody::Error: Into<BoxError>,
    {
        core: Arc<Core>,
        route: Option<Arc<Route>>,
        asked: Option<Asked>,
        // A request that waits for its admission, with the service that is ready for it.
        waiting: Option<(S, Request<ReqBody>)>,
        #[pin]
        state: State<S::Future, ResBody>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, ResBody>
    where
        ResBody: Body,
        ResBody: Send,
        ResBody: 'static,
        ResBody::Error: Into<BoxError>,
    {
        // The inner service answers a request that is not the layer's business.
        Forwarding { #[pin] future: F, reason: Option<Bypassed> },
        // The inner service answers, then its stream is registered.
        Generating { #[pin] future: F, context: StreamContext },
        Registering { admission: BoxFuture<Admission>, response: Option<Response<ResBody>>, context: StreamContext },
        // The stream is registered, then the inner service answers.
        Admitting { admission: BoxFuture<Admission> },
        Producing { #[pin] future: F, registered: Option<Registered>, context: StreamContext },
        Recovering { answer: BoxFuture<Response<AnswerBody>> },
        Answered { response: Option<Response<ResilientSseBody<ResBody>>> },
    }
}

impl<S, ReqBody, ResBody> ResilientSseFuture<S, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    fn new(core: Arc<Core>, state: State<S::Future, ResBody>) -> Self {
        Self { core, route: None, asked: None, waiting: None, state }
    }

    pub(super) fn forwarding(core: Arc<Core>, future: S::Future, reason: Option<Bypassed>) -> Self {
        Self::new(core, State::Forwarding { future, reason })
    }

    pub(super) fn retrying(core: &Arc<Core>, asked: &Asked) -> Self {
        let response = Some(answer(core, asked, Admission::Retry));
        Self::new(Arc::clone(core), State::Answered { response })
    }

    pub(super) fn rejected(core: &Arc<Core>, rejection: &Rejection, head: &Head) -> Self {
        let response = Some(reject(core, rejection, head));
        Self::new(Arc::clone(core), State::Answered { response })
    }

    pub(super) fn recovering(core: Arc<Core>, answer: BoxFuture<Response<AnswerBody>>) -> Self {
        Self::new(core, State::Recovering { answer })
    }

    pub(super) fn generating(
        core: Arc<Core>,
        route: Arc<Route>,
        future: S::Future,
        asked: Asked,
        context: StreamContext,
    ) -> Self {
        let this = Self::new(core, State::Generating { future, context });
        Self { route: Some(route), asked: Some(asked), ..this }
    }

    pub(super) fn admitting(
        core: Arc<Core>,
        route: Arc<Route>,
        admission: BoxFuture<Admission>,
        service: S,
        request: Request<ReqBody>,
        asked: Asked,
    ) -> Self {
        let this = Self::new(core, State::Admitting { admission });
        Self { route: Some(route), asked: Some(asked), waiting: Some((service, request)), ..this }
    }
}

impl<S, ReqBody, ResBody> Future for ResilientSseFuture<S, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Output = Result<Response<ResilientSseBody<ResBody>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProjection::Forwarding { future, reason } => {
                    let response = ready!(future.poll(cx))?;
                    return Poll::Ready(Ok(unprotected(this.core, response, *reason)));
                }
                StateProjection::Recovering { answer } => {
                    let response = ready!(answer.as_mut().poll(cx));
                    return Poll::Ready(Ok(response.map(ResilientSseBody::recover)));
                }
                StateProjection::Answered { response } => match response.take() {
                    Some(response) => return Poll::Ready(Ok(response)),
                    // Polled after its end.
                    None => return Poll::Pending,
                },
                StateProjection::Generating { future, context } => {
                    let response = ready!(future.poll(cx))?;
                    match is_protected(this.core, &response) {
                        Err(reason) => return Poll::Ready(Ok(unprotected(this.core, response, reason))),
                        Ok(()) => registering(this.core, this.route, this.asked, response, context),
                    }
                }
                StateProjection::Registering { admission, response, context } => {
                    let admission = ready!(admission.as_mut().poll(cx));
                    let Some(response) = response.take() else { return Poll::Pending };
                    answered(finish(this.core, this.route, this.asked, admission, response, context))
                }
                StateProjection::Admitting { admission } => {
                    let admission = ready!(admission.as_mut().poll(cx));
                    admitted(this.core, this.asked, this.waiting, admission)
                }
                StateProjection::Producing { future, registered, context } => {
                    let response = ready!(future.poll(cx))?;
                    let admission = registered.take().map_or(Admission::Unrecorded, Admission::Produce);
                    match is_protected(this.core, &response) {
                        // Dropping the registration withdraws it.
                        Err(reason) => answered(unprotected(this.core, response, reason)),
                        Ok(()) => answered(finish(this.core, this.route, this.asked, admission, response, context)),
                    }
                }
            };
            let Some(next) = next else { return Poll::Pending };
            this.state.set(next);
        }
    }
}

type Next<F, ResBody> = Option<State<F, ResBody>>;

fn answered<F, ResBody>(response: Response<ResilientSseBody<ResBody>>) -> Next<F, ResBody>
where
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    Some(State::Answered { response: Some(response) })
}

/// The inner service has answered with an event stream: registers it.
fn registering<F, ResBody>(
    core: &Arc<Core>,
    route: &Option<Arc<Route>>,
    asked: &mut Option<Asked>,
    response: Response<ResBody>,
    context: &StreamContext,
) -> Next<F, ResBody>
where
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    let (route, asked) = (Arc::clone(route.as_ref()?), asked.as_mut()?);
    asked.metadata = context.kept();
    let admission = Box::pin(Admission::register(Arc::clone(core), route, asked.clone()));
    Some(State::Registering { admission, response: Some(response), context: context.clone() })
}

/// The store has said what becomes of a request.
fn admitted<S, ReqBody, ResBody>(
    core: &Arc<Core>,
    asked: &mut Option<Asked>,
    waiting: &mut Option<(S, Request<ReqBody>)>,
    admission: Admission,
) -> Next<S::Future, ResBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    let asked = asked.as_mut()?;
    let (mut service, request) = waiting.take()?;
    let context = |inner_id| StreamContext::new(asked.key.clone(), cursor(asked.position), inner_id, &asked.metadata);
    match admission {
        Admission::Produce(registered) => {
            let context = context(registered.inner_id.clone());
            context.registered(&registered.lane, &core.recorder);
            let future = service.call(inner_request(request, &context));
            Some(State::Producing { future, registered: Some(registered), context })
        }
        Admission::Unrecorded => {
            let context = context(None);
            let future = service.call(inner_request(request, &context));
            Some(State::Producing { future, registered: None, context })
        }
        Admission::Anew => {
            let id = crate::StreamId::from_random(core.random.u128());
            asked.key.id = id.clone();
            asked.prefix = Some(id);
            asked.position = Position::Unreadable;
            let context = StreamContext::new(asked.key.clone(), None, None, &asked.metadata);
            let future = service.call(inner_request(request, &context));
            Some(State::Generating { future, context })
        }
        other => answered(answer(core, asked, other)),
    }
}

fn cursor(position: Position) -> Option<EventId> {
    match position {
        Position::After(id) => Some(id),
        Position::Newest | Position::Live | Position::Unreadable => None,
    }
}

/// Whether the layer protects a response; if not, what its event stream counts as.
fn is_protected<B>(core: &Core, response: &Response<B>) -> Result<(), Option<Bypassed>> {
    if !claims(core, response) {
        return Err(None);
    }
    if response.status() != StatusCode::OK {
        return Err(Some(Bypassed::Status));
    }
    if response.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(Some(Bypassed::Encoded));
    }
    Ok(())
}

fn claims<B>(core: &Core, response: &Response<B>) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    content_type.and_then(|value| value.to_str().ok()).is_some_and(|value| core.framing.claims(value))
}

/// A response that passes untouched, but for the mark on an event stream that is not protected.
fn unprotected<ResBody>(
    core: &Core,
    mut response: Response<ResBody>,
    reason: Option<Bypassed>,
) -> Response<ResilientSseBody<ResBody>>
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

/// Joins the inner service's event stream with what became of its registration.
fn finish<ResBody>(
    core: &Arc<Core>,
    route: &Option<Arc<Route>>,
    asked: &Option<Asked>,
    admission: Admission,
    response: Response<ResBody>,
    context: &StreamContext,
) -> Response<ResilientSseBody<ResBody>>
where
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    let (Some(route), Some(asked)) = (route, asked) else {
        return unprotected(core, response, Some(Bypassed::Unavailable));
    };
    match admission {
        Admission::Produce(registered) => produce(core, route, asked, registered, response, context),
        Admission::Unrecorded => unprotected(core, response, Some(Bypassed::Unavailable)),
        other => answer(core, asked, other),
    }
}

/// Wraps the inner body.
fn produce<ResBody>(
    core: &Arc<Core>,
    route: &Arc<Route>,
    asked: &Asked,
    registered: Registered,
    response: Response<ResBody>,
    context: &StreamContext,
) -> Response<ResilientSseBody<ResBody>>
where
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    let previous = registered.previous;
    let lane = registered.start();
    context.registered(&lane, &core.recorder);
    let run = EventId::new(lane.epoch, 0);
    let (mut parts, body) = response.into_parts();
    event_stream(&mut parts.headers, &asked.key.id);
    let engine = Engine::new(Arc::clone(core), Arc::clone(route), Arc::clone(&lane), context.clone(), body);
    let producer = Producer::new(core, route, engine);
    let speaker = Speaker::new(Arc::clone(&core.framing), route.voice, asked.prefix.clone(), Some(core.retry()));
    let mut live = Live::new(core, route, producer, speaker, asked.opened);
    // Only now, with a body that goes with its client, whatever happens from here on.
    lane.start(&core.recorder);
    if asked.position.is_reconnect() {
        add(&core.telemetry.resumed, 1);
    }
    let replays = matches!(asked.position, Position::After(_) | Position::Unreadable);
    let body = if previous.is_some() && replays {
        let missed = FollowRequest {
            key: asked.key.clone(),
            position: asked.position,
            owed: Owed::Nothing,
            voice: route.voice,
            prefix: asked.prefix.clone(),
            wait: None,
            until: Some(run),
        };
        ResilientSseBody::rerun(Arc::clone(core), FollowBody::new(core, missed), live, run)
    } else {
        live.speaker().notice(&Notice::Connected(&asked.key.id));
        begin(core, asked, live, run)
    };
    Response::from_parts(parts, body)
}

/// A first run: a client that comes with a cursor is told that what it speaks of is gone.
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
        Position::Unreadable => Replay::unknown(None).hand_over(run),
    };
    if tell_step(core, live.speaker(), step, run.epoch) {
        ResilientSseBody::live(live)
    } else {
        ResilientSseBody::full(live.speaker().take().unwrap_or_default())
    }
}

/// An answer that needs no inner service.
fn answer<ResBody>(core: &Arc<Core>, asked: &Asked, admission: Admission) -> Response<ResilientSseBody<ResBody>>
where
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    match admission {
        Admission::Follow(follow) => events(core, asked, ResilientSseBody::follow(follow)),
        Admission::Retry => {
            let mut line = bytes::BytesMut::new();
            core.framing.retry(core.retry(), &mut line);
            events(core, asked, ResilientSseBody::full(line.freeze()))
        }
        Admission::NoContent => {
            let mut response = Response::new(ResilientSseBody::full(Bytes::new()));
            *response.status_mut() = StatusCode::NO_CONTENT;
            no_store(response.headers_mut());
            response
        }
        Admission::Reject(rejection) => reject(core, &rejection, &asked.head),
        Admission::Produce(_) | Admission::Unrecorded | Admission::Anew => {
            reject(core, &Rejection::Unavailable, &asked.head)
        }
    }
}

fn events<ResBody>(core: &Core, asked: &Asked, body: ResilientSseBody<ResBody>) -> Response<ResilientSseBody<ResBody>>
where
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    let mut response = Response::new(body);
    let content_type = HeaderValue::from_static(core.framing.content_type());
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    event_stream(response.headers_mut(), &asked.key.id);
    response
}

fn reject<ResBody>(core: &Core, rejection: &Rejection, head: &Head) -> Response<ResilientSseBody<ResBody>>
where
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    core.reject(rejection, head).map(ResilientSseBody::full)
}

impl<S, ReqBody, ResBody> fmt::Debug for ResilientSseFuture<S, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResilientSseFuture").finish_non_exhaustive()
    }
}
