//! The states of the response future, and the transitions between them.

use std::sync::Arc;

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    admit::Admission,
    answer::{answer, is_protected, reject, serve, unprotected},
    asked::Asked,
    context::{Unanswered, Waiting},
    handler::Handler,
    inner::inner_request,
    naming::Naming,
    registered::Registered,
};
use crate::{
    follow::AnswerBody,
    layer::context::StreamContext,
    model::{kept::KeptHeaders, stream::Disconnect},
    node::Node,
    produce::{body::ResilientSseBody, inner_body::InnerBody},
    route::settings::Route,
    runtime::executor::BoxFuture,
    telemetry::Bypassed,
};

pin_project! {
    #[project = StateProjection]
    pub(super) enum State<F, ResBody, E>
    where
        ResBody: InnerBody,
        E: 'static,
    {
        // The request passes untouched. The path is set if the route's template does not match it.
        Forwarding { #[pin] future: F, reason: Option<Bypassed>, unmatched_path: Option<Box<str>> },
        // The inner service runs before the registration. Only an event stream is registered.
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
        // The store is asked before the inner service is called.
        Admitting { admission: BoxFuture<Admission> },
        Producing {
            #[pin] future: F,
            waiting: Option<Waiting>,
            context: StreamContext,
            unanswered: Option<Unanswered>,
        },
        // Like `Producing`, with an inner service's future that may outlive the request.
        Handling { handler: Handler<ResBody, E> },
        // The stream was stopped or taken over by another producer before the inner service answered.
        Halted { admission: BoxFuture<Admission> },
        Recovering { answer: BoxFuture<Response<AnswerBody>> },
        Answered { response: Option<Response<ResilientSseBody<ResBody>>> },
    }
}

impl<F, ResBody, E> State<F, ResBody, E>
where
    ResBody: InnerBody,
{
    /// Whether the inner service has not answered and no lane stands for its stream.
    pub(super) fn is_with_handler(&self) -> bool {
        matches!(self, Self::Generating { .. } | Self::Producing { waiting: None, .. })
    }
}

/// The next state. It is `None` only if the future is polled after its end.
pub(super) type Next<F, ResBody, E> = Option<State<F, ResBody, E>>;

/// Disarms the guard that stops the handler's work, since the inner service has answered.
pub(super) fn answered_by_itself(unanswered: Option<Unanswered>) {
    if let Some(unanswered) = unanswered {
        unanswered.answered();
    }
}

pub(super) fn done<F, ResBody, E>(response: Response<ResilientSseBody<ResBody>>) -> Next<F, ResBody, E>
where
    ResBody: InnerBody,
{
    Some(State::Answered { response: Some(response) })
}

/// Returns the state after the inner service has answered without a registered stream.
pub(super) fn generated<F, ResBody, E>(
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

/// Passes an answer that the layer does not protect. A 409 for a refused turn gets the running stream's `X-Stream-Id`.
pub(super) fn refused_or_plain<ResBody>(
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
    unprotected(node, response, reason, None)
}

/// Begins to register the event stream that the inner service has answered with.
pub(super) fn registering<F, ResBody, E>(
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
    let Some(context) = context else { return done(reject(node, &node.unauthorized("-"), &asked.head)) };
    asked.metadata = context.kept();
    if asked.headers == KeptHeaders::Awaited {
        asked.headers = node.kept_headers(&asked.key, response.headers(), &route.keep_headers);
    }
    let admission = Box::pin(Admission::register(Arc::clone(node), route, asked.clone()));
    Some(State::Registering { admission, response: Some(response), context: context.clone(), unanswered })
}

/// Returns the state after the admission of a request.
pub(super) fn admitted<S, ReqBody, ResBody>(
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
    let context = |asked: &Asked, inner_id| StreamContext::new(node, route, asked, inner_id);
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

/// Returns the state after the inner service has answered for a stream that is registered, or cannot be.
pub(super) fn answered<F, ResBody, E>(
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

pub(super) fn serving<F, ResBody, E>(
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

/// Makes the client follow its stream, which ended or was taken over before the inner service answered.
pub(super) fn halted<F, ResBody, E>(
    node: &Arc<Node>,
    route: &Option<Arc<Route>>,
    asked: &Option<Asked>,
) -> Next<F, ResBody, E>
where
    ResBody: InnerBody,
{
    let (node, route, asked) = (Arc::clone(node), Arc::clone(route.as_ref()?), asked.clone()?);
    let admission = Box::pin(async move { Admission::follow(&node, &route, asked, true).await });
    Some(State::Halted { admission })
}
