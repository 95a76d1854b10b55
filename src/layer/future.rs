//! The response future of the layer.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tower_service::Service;

use super::{
    admit::Admission,
    answer::{answer, reject, unprotected},
    asked::Asked,
    context::{Unanswered, Waiting},
    naming::{Leaving, Naming},
    steps::{State, StateProjection, admitted, answered, answered_by_itself, done, generated, halted, serving},
};
use crate::{
    follow::AnswerBody,
    layer::context::StreamContext,
    model::stream::Disconnect,
    node::{Node, head::Head, reject::Rejection},
    produce::{body::ResilientSseBody, inner_body::InnerBody},
    route::settings::Route,
    runtime::{executor::BoxFuture, sync::Entered},
    telemetry::Bypassed,
};

pin_project! {
    /// The response future of a [`ResilientSseService`](super::ResilientSseService).
    ///
    /// The inner service's future is boxed only on [`Detach`](crate::Disconnect::Detach) routes, where it may outlive
    /// the request.
    ///
    /// # Errors
    ///
    /// The errors of the inner service, unchanged. A request that the layer refuses gets a response, not an error.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before the inner service has answered, the stream's registration is withdrawn, and
    /// requests that wait for the stream are admitted anew.
    ///
    /// On a [`Detach`](crate::Disconnect::Detach) route the executor runs the inner service's future on instead, if the
    /// request names its stream, or if the handler has named the stream's conversation.
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
        // The request that waits for its admission, and the service that is ready for it.
        waiting: Option<(S, Request<ReqBody>)>,
        // Counts the handler while no lane stands for its stream. `let_go` bounds a drain's wait for the handler's
        // answer.
        counted: Option<Entered>,
        #[pin]
        let_go: Option<WaitForCancellationFutureOwned>,
        #[pin]
        state: State<S::Future, ResBody, S::Error>,
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

    pub(super) fn forwarding(
        node: Arc<Node>,
        future: S::Future,
        reason: Option<Bypassed>,
        unmatched_path: Option<Box<str>>,
    ) -> Self {
        Self::new(node, State::Forwarding { future, reason, unmatched_path })
    }

    /// Returns a future that is ready with an answer of the layer's own.
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
                StateProjection::Forwarding { future, reason, unmatched_path } => {
                    let response = ready!(future.poll(cx))?;
                    return Poll::Ready(Ok(unprotected(this.node, response, *reason, unmatched_path.as_deref())));
                }
                StateProjection::Recovering { answer } => {
                    let response = ready!(answer.as_mut().poll(cx));
                    return Poll::Ready(Ok(response.map(ResilientSseBody::answer)));
                }
                StateProjection::Answered { response } => match response.take() {
                    Some(response) => {
                        // From here on a drain waits for the body or the lane instead.
                        *this.counted = None;
                        return Poll::Ready(Ok(response));
                    }
                    // The future was polled after its end.
                    None => return Poll::Pending,
                },
                StateProjection::Generating { future, context, unanswered } => {
                    match future.poll(cx)? {
                        // If the handler has named a conversation, the stream is registered, and may be halted.
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
                    // With any other admission the response is dropped, and the guard stops its work.
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

impl<S, ReqBody, ResBody> fmt::Debug for ResilientSseFuture<S, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    ResBody: InnerBody,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResilientSseFuture").finish_non_exhaustive()
    }
}
