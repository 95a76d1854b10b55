//! The future of a request that passes the layer.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    admit::{Admission, Asked, Registered},
    answer::{answer, is_protected, reject, serve, unprotected},
    handler::{Handler, Leaving, Naming, Unanswered, Waiting},
    service::inner_request,
};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::{
    follow::AnswerBody,
    layer::context::StreamContext,
    model::{kept::KeptHeaders, stream::Disconnect},
    node::{Node, head::Head, reject::Rejection},
    produce::{body::ResilientSseBody, inner_body::InnerBody},
    route::settings::Route,
    runtime::{executor::BoxFuture, sync::Entered},
    telemetry::Bypassed,
};

pin_project! {
    /// Answers a request that passes a [`ResilientSseLayer`](super::ResilientSseLayer).
    ///
    /// The inner service's future is boxed only where it may outlive the request: on routes that detach. Requests to the
    /// store are boxed, behind their common type.
    ///
    /// # Errors
    ///
    /// Those of the inner service, unchanged. What the layer refuses is a response.
    ///
    /// # Cancel safety
    ///
    /// Dropped before the inner service has begun to answer, the stream's registration is withdrawn, and requests that wait for
    /// it are admitted anew. On a [`Detach`](crate::Disconnect::Detach) route whose request names its stream, or whose handler has named the
    /// stream's conversation, the inner service's future goes on on the executor instead.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResilientSseFuture<S, ReqBody, ResBody>
    where
        S: Service<Request<ReqBody>>,
        ResBody: InnerBody,
        S::Error: 'static,
    {
        node: Arc<Node>,
        route: Option<Arc<Route>>,
        asked: Option<Asked>,
        // A request that waits for its admission, with the service that is ready for it.
        waiting: Option<(S, Request<ReqBody>)>,
        // Counts the handler, while no lane stands for its stream. A drain may wait for its answer, but not for ever.
        counted: Option<Entered>,
        #[pin]
        let_go: Option<WaitForCancellationFutureOwned>,
        #[pin]
        state: State<S::Future, ResBody, S::Error>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, ResBody, E>
    where
        ResBody: InnerBody,
        E: 'static,
    {
        // The inner service answers a request that is not the layer's business.
        Forwarding { #[pin] future: F, reason: Option<Bypassed> },
        // The inner service answers; only an event stream is registered then.
        Generating {
            #[pin] future: Naming<F, ResBody, E>,
            context: Option<StreamContext>,
            unanswered: Option<Unanswered>,
        },
        Registering {
            admission: BoxFuture<Admission>,
            response: Option<Response<ResBody>>,
            context: StreamContext,
            unanswered: Option<Unanswered>,
        },
        // The stream is registered, then the inner service answers.
        Admitting { admission: BoxFuture<Admission> },
        Producing {
            #[pin] future: F,
            waiting: Option<Waiting>,
            context: StreamContext,
            unanswered: Option<Unanswered>,
        },
        // The same, where the inner service's future outlives the request.
        Handling { handler: Handler<ResBody, E> },
        // The stream was stopped, or went to another producer, before the inner service answered.
        Halted { admission: BoxFuture<Admission> },
        Recovering { answer: BoxFuture<Response<AnswerBody>> },
        Answered { response: Option<Response<ResilientSseBody<ResBody>>> },
    }
}

impl<S, ReqBody, ResBody> ResilientSseFuture<S, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: InnerBody,
{
    fn new(node: Arc<Node>, state: State<S::Future, ResBody, S::Error>) -> Self {
        Self { node, route: None, asked: None, waiting: None, counted: None, let_go: None, state }
    }

    pub(super) fn forwarding(node: Arc<Node>, future: S::Future, reason: Option<Bypassed>) -> Self {
        Self::new(node, State::Forwarding { future, reason })
    }

    /// An answer that needs neither the store nor the inner service.
    pub(super) fn answering(node: &Arc<Node>, route: &Route, asked: &Asked, admission: Admission) -> Self {
        let response = Some(answer(node, route, asked, admission));
        Self::new(Arc::clone(node), State::Answered { response })
    }

    pub(super) fn rejected(node: &Arc<Node>, rejection: &Rejection, head: &Head) -> Self {
        let response = Some(reject(node, rejection, head));
        Self::new(Arc::clone(node), State::Answered { response })
    }

    pub(super) fn recovering(node: Arc<Node>, answer: BoxFuture<Response<AnswerBody>>) -> Self {
        Self::new(node, State::Recovering { answer })
    }

    pub(super) fn generating(
        node: Arc<Node>,
        route: Arc<Route>,
        future: S::Future,
        mut asked: Asked,
        context: Option<StreamContext>,
    ) -> Self
    where
        S::Future: Send + 'static,
    {
        let counted = Some(asked.wait_for(&node, &route));
        let future = match (route.disconnect, &context) {
            (Disconnect::Detach { at_most }, Some(context)) => {
                Naming::Apart { leaving: Leaving::new(&node, &route, &asked, context, at_most, Box::pin(future)) }
            }
            _ => Naming::InPlace { future },
        };
        let this =
            Self::new(node, State::Generating { future, unanswered: context.clone().map(Unanswered::new), context });
        Self { route: Some(route), asked: Some(asked), counted, ..this }
    }

    pub(super) fn admitting(
        node: Arc<Node>,
        route: Arc<Route>,
        admission: BoxFuture<Admission>,
        service: S,
        request: Request<ReqBody>,
        asked: Asked,
    ) -> Self {
        let this = Self::new(node, State::Admitting { admission });
        Self { route: Some(route), asked: Some(asked), waiting: Some((service, request)), ..this }
    }
}

impl<S, ReqBody, ResBody> Future for ResilientSseFuture<S, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    ResBody: InnerBody,
{
    type Output = Result<Response<ResilientSseBody<ResBody>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if this.counted.is_some() && this.state.is_with_handler() {
                if this.let_go.is_none() {
                    this.let_go.set(Some(this.node.let_go()));
                }
                if this.let_go.as_mut().as_pin_mut().is_some_and(|let_go| let_go.poll(cx).is_ready())
                    && let (Some(route), Some(asked)) = (this.route.as_ref(), this.asked.as_ref())
                {
                    // Replacing the state drops the inner service's future, and stops its work.
                    let refused = answer(this.node, route, asked, Admission::Retry);
                    this.state.set(State::Answered { response: Some(refused) });
                }
            }
            let next = match this.state.as_mut().project() {
                StateProjection::Forwarding { future, reason } => {
                    let response = ready!(future.poll(cx))?;
                    return Poll::Ready(Ok(unprotected(this.node, response, *reason)));
                }
                StateProjection::Recovering { answer } => {
                    let response = ready!(answer.as_mut().poll(cx));
                    return Poll::Ready(Ok(response.map(ResilientSseBody::answer)));
                }
                StateProjection::Answered { response } => match response.take() {
                    Some(response) => {
                        // Its body, or its lane, is waited for from here on.
                        *this.counted = None;
                        return Poll::Ready(Ok(response));
                    }
                    // Polled after its end.
                    None => return Poll::Pending,
                },
                StateProjection::Generating { future, context, unanswered } => {
                    match future.poll(cx)? {
                        // The handler may have named a conversation, and the stream is registered then.
                        Poll::Pending if context.as_ref().is_some_and(|context| context.poll_halted(cx).is_ready()) => {
                            halted(this.node, this.route, this.asked)
                        }
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(response) => {
                            let unanswered = unanswered.take();
                            let registered = context.as_ref().and_then(StreamContext::take_registered);
                            match context.as_ref().filter(|context| context.is_settled()) {
                                Some(context) => {
                                    answered_by_itself(unanswered);
                                    answered(this.node, this.route, this.asked, registered, response, context)
                                }
                                None => generated(this.node, this.route, this.asked, response, context, unanswered),
                            }
                        }
                    }
                }
                StateProjection::Registering { admission, response, context, unanswered } => {
                    let admission = ready!(admission.as_mut().poll(cx));
                    // A response that is refused is dropped, and its work stopped.
                    if matches!(admission, Admission::Produce(_) | Admission::Unrecorded) {
                        answered_by_itself(unanswered.take());
                    }
                    let Some(response) = response.take() else { return Poll::Pending };
                    serving(this.node, this.route, this.asked, admission, response, context)
                }
                StateProjection::Admitting { admission } => {
                    let admission = ready!(admission.as_mut().poll(cx));
                    if let (Admission::Unrecorded | Admission::Anew, Some(route), Some(asked)) =
                        (&admission, this.route.as_ref(), this.asked.as_mut())
                        && (asked.turn.is_none() || matches!(admission, Admission::Unrecorded))
                    {
                        *this.counted = Some(asked.wait_for(this.node, route));
                    }
                    admitted(this.node, this.route, this.asked, this.waiting, admission)
                }
                StateProjection::Producing { future, waiting, context, unanswered } => {
                    if waiting.as_ref().is_some_and(|waiting| waiting.poll_halted(cx).is_ready()) {
                        // Replacing the state drops the inner service's future.
                        halted(this.node, this.route, this.asked)
                    } else {
                        let response = ready!(future.poll(cx))?;
                        answered_by_itself(unanswered.take());
                        let registered = waiting.take().map(Waiting::into_registered);
                        answered(this.node, this.route, this.asked, registered, response, context)
                    }
                }
                StateProjection::Handling { handler } => match ready!(handler.poll(cx))? {
                    None => halted(this.node, this.route, this.asked),
                    Some((registered, response, context)) => {
                        answered(this.node, this.route, this.asked, Some(registered), response, &context)
                    }
                },
                StateProjection::Halted { admission } => {
                    let admission = ready!(admission.as_mut().poll(cx));
                    match (this.route.as_ref(), this.asked.as_ref()) {
                        (Some(route), Some(asked)) => done(answer(this.node, route, asked, admission)),
                        _ => None,
                    }
                }
            };
            let Some(next) = next else { return Poll::Pending };
            this.state.set(next);
        }
    }
}

impl<F, ResBody, E> State<F, ResBody, E>
where
    ResBody: InnerBody,
{
    /// Whether the inner service has not answered, and no lane stands for its stream.
    fn is_with_handler(&self) -> bool {
        matches!(self, Self::Generating { .. } | Self::Producing { waiting: None, .. })
    }
}

/// The inner service has answered, and its body or nobody stops its work from here on.
fn answered_by_itself(unanswered: Option<Unanswered>) {
    if let Some(unanswered) = unanswered {
        unanswered.answered();
    }
}

/// `None` only where a future is polled after its end.
type Next<F, ResBody, E> = Option<State<F, ResBody, E>>;

fn done<F, ResBody, E>(response: Response<ResilientSseBody<ResBody>>) -> Next<F, ResBody, E>
where
    ResBody: InnerBody,
{
    Some(State::Answered { response: Some(response) })
}

/// The inner service has answered, and no stream is registered yet.
fn generated<F, ResBody, E>(
    node: &Arc<Node>,
    route: &Option<Arc<Route>>,
    asked: &mut Option<Asked>,
    response: Response<ResBody>,
    context: &Option<StreamContext>,
    unanswered: Option<Unanswered>,
) -> Next<F, ResBody, E>
where
    ResBody: InnerBody,
{
    match is_protected(node, &response) {
        Err(reason) => {
            answered_by_itself(unanswered);
            done(refused_or_plain(node, response, reason, context.as_ref()))
        }
        Ok(()) => registering(node, route, asked, response, context, unanswered),
    }
}

/// The inner service has answered something else than an event stream.
fn refused_or_plain<ResBody>(
    node: &Arc<Node>,
    mut response: Response<ResBody>,
    reason: Option<Bypassed>,
    context: Option<&StreamContext>,
) -> Response<ResilientSseBody<ResBody>>
where
    ResBody: InnerBody,
{
    if let Some(context) = context {
        context.name_refused(&mut response);
    }
    unprotected(node, response, reason)
}

/// The inner service has answered with an event stream: registers it.
fn registering<F, ResBody, E>(
    node: &Arc<Node>,
    route: &Option<Arc<Route>>,
    asked: &mut Option<Asked>,
    response: Response<ResBody>,
    context: &Option<StreamContext>,
    unanswered: Option<Unanswered>,
) -> Next<F, ResBody, E>
where
    ResBody: InnerBody,
{
    let (route, asked) = (Arc::clone(route.as_ref()?), asked.as_mut()?);
    let Some(context) = context else { return done(reject(node, &node.nobody("-"), &asked.head)) };
    asked.metadata = context.kept();
    if asked.headers == KeptHeaders::Awaited {
        asked.headers = node.kept_headers(&asked.key, response.headers(), &route.keep_headers);
    }
    let admission = Box::pin(Admission::register(Arc::clone(node), route, asked.clone()));
    Some(State::Registering { admission, response: Some(response), context: context.clone(), unanswered })
}

/// The store has said what becomes of a request.
fn admitted<S, ReqBody, ResBody>(
    node: &Arc<Node>,
    route: &Option<Arc<Route>>,
    asked: &mut Option<Asked>,
    waiting: &mut Option<(S, Request<ReqBody>)>,
    admission: Admission,
) -> Next<S::Future, ResBody, S::Error>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    S::Future: Send + 'static,
    ResBody: InnerBody,
{
    let (route, asked) = (route.as_ref()?, asked.as_mut()?);
    let (mut service, request) = waiting.take()?;
    let context = |asked: &Asked, inner_id| asked.context(node, route, inner_id);
    match admission {
        Admission::Produce(registered) => {
            let context = context(asked, registered.inner_id.clone());
            context.registered(&registered.lane);
            if registered.has_begun_before() {
                context.set_runs_again();
            }
            let waiting = Waiting::new(registered, context.clone(), route.endless);
            let future = service.call(inner_request(request, Some(&context)));
            Some(match route.disconnect {
                Disconnect::Detach { at_most } => {
                    let handler = Handler::new(node, route, asked, waiting, at_most, Box::pin(future));
                    State::Handling { handler }
                }
                Disconnect::Interrupt | Disconnect::Cancel => {
                    State::Producing { future, waiting: Some(waiting), context, unanswered: None }
                }
            })
        }
        Admission::Unrecorded => {
            let context = context(asked, None);
            context.unrecorded();
            let future = service.call(inner_request(request, Some(&context)));
            let unanswered = Some(Unanswered::new(context.clone()));
            Some(State::Producing { future, waiting: None, context, unanswered })
        }
        Admission::Anew => {
            asked.begin_anew(node);
            if asked.begins {
                // A turn is registered before its handler runs.
                let admission = Admission::ask(Arc::clone(node), Arc::clone(route), asked.clone());
                *waiting = Some((service, request));
                return Some(State::Admitting { admission: Box::pin(admission) });
            }
            let context = context(asked, None);
            let future = service.call(inner_request(request, Some(&context)));
            let unanswered = Some(Unanswered::new(context.clone()));
            Some(State::Generating { future: Naming::InPlace { future }, context: Some(context), unanswered })
        }
        other => done(answer(node, route, asked, other)),
    }
}

/// The inner service has answered for a stream that is registered, or cannot be.
fn answered<F, ResBody, E>(
    node: &Arc<Node>,
    route: &Option<Arc<Route>>,
    asked: &Option<Asked>,
    registered: Option<Registered>,
    response: Response<ResBody>,
    context: &StreamContext,
) -> Next<F, ResBody, E>
where
    ResBody: InnerBody,
{
    match is_protected(node, &response) {
        // Dropping the registration withdraws it.
        Err(reason) => done(refused_or_plain(node, response, reason, Some(context))),
        Ok(()) => {
            let admission = registered.map_or(Admission::Unrecorded, Admission::Produce);
            serving(node, route, asked, admission, response, context)
        }
    }
}

fn serving<F, ResBody, E>(
    node: &Arc<Node>,
    route: &Option<Arc<Route>>,
    asked: &Option<Asked>,
    admission: Admission,
    response: Response<ResBody>,
    context: &StreamContext,
) -> Next<F, ResBody, E>
where
    ResBody: InnerBody,
{
    let (route, asked) = (route.as_ref()?, asked.as_ref()?);
    done(serve(node, route, asked, admission, response, context))
}

/// The stream ended, or went to another producer, before the inner service answered: the client follows it.
fn halted<F, ResBody, E>(node: &Arc<Node>, route: &Option<Arc<Route>>, asked: &Option<Asked>) -> Next<F, ResBody, E>
where
    ResBody: InnerBody,
{
    let (node, route, asked) = (Arc::clone(node), Arc::clone(route.as_ref()?), asked.clone()?);
    let admission = Box::pin(async move { Admission::follow(&node, &route, asked, true).await });
    Some(State::Halted { admission })
}

impl<S, ReqBody, ResBody> fmt::Debug for ResilientSseFuture<S, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    ResBody: InnerBody,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResilientSseFuture").finish_non_exhaustive()
    }
}
