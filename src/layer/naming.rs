//! The inner service's future on a route that makes up ids. Its handler may name the stream's conversation before it
//! answers.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Response;
use pin_project_lite::pin_project;

use super::{
    asked::Asked,
    context::{StreamContext, Waiting},
    handler::Work,
};
use crate::{
    node::Node,
    produce::inner_body::InnerBody,
    route::settings::Route,
    runtime::{executor::BoxFuture, panics::guarded},
};

pin_project! {
    /// The inner service's future on a route that makes up ids. Its handler may register the stream itself, by naming
    /// the stream's conversation.
    #[project = NamingProjection]
    pub(super) enum Naming<F, ResBody, E>
    where
        ResBody: InnerBody,
        E: 'static,
    {
        InPlace { #[pin] future: F },
        // On a `Detach` route, where the future outlives its request after the handler has begun a registration.
        Apart { leaving: Leaving<ResBody, E> },
    }
}

impl<F, ResBody, E> Future for Naming<F, ResBody, E>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
    ResBody: InnerBody,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            NamingProjection::InPlace { future } => future.poll(cx),
            NamingProjection::Apart { leaving } => leaving.poll(cx),
        }
    }
}

/// A handler's future. If it is dropped after the handler has begun to register its stream, the executor runs it on.
pub(super) struct Leaving<ResBody, E>
where
    ResBody: InnerBody,
    E: 'static,
{
    node: Arc<Node>,
    route: Arc<Route>,
    asked: Asked,
    context: StreamContext,
    at_most: Duration,
    future: Option<BoxFuture<Result<Response<ResBody>, E>>>,
}

impl<ResBody, E> Leaving<ResBody, E>
where
    ResBody: InnerBody,
    E: 'static,
{
    pub(super) fn new(
        node: &Arc<Node>,
        route: &Arc<Route>,
        asked: &Asked,
        context: &StreamContext,
        at_most: Duration,
        future: BoxFuture<Result<Response<ResBody>, E>>,
    ) -> Self {
        let (node, route, asked, context) = (Arc::clone(node), Arc::clone(route), asked.clone(), context.clone());
        Self { node, route, asked, context, at_most, future: Some(future) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<ResBody>, E>> {
        // Taken out before the poll, so that a panic of the inner service drops the future here, and the registration
        // that its handler made is withdrawn.
        let Some(mut future) = self.future.take() else { return Poll::Pending };
        let answered = future.as_mut().poll(cx);
        if answered.is_pending() {
            self.future = Some(future);
        }
        answered
    }
}

impl<ResBody, E> Drop for Leaving<ResBody, E>
where
    ResBody: InnerBody,
    E: 'static,
{
    /// Hands the future to the executor, since the request was dropped before the handler answered.
    fn drop(&mut self) {
        let Some(future) = self.future.take().filter(|_| self.context.outlives_request()) else { return };
        let (node, route, asked) = (Arc::clone(&self.node), Arc::clone(&self.route), self.asked.clone());
        let (context, at_most) = (self.context.clone(), self.at_most);
        self.node.executor.spawn(async move {
            // The error is dropped: there is no client to get it, and it need not be `Send`.
            let future = Box::pin(async move { future.await.map_err(drop) });
            let Some((waiting, future)) = until_registered(&node, &context, future).await else {
                return context.stop();
            };
            Work { node, route, asked, waiting, at_most, future }.carry_on().await;
        });
    }
}

type Answering<ResBody> = BoxFuture<Result<Response<ResBody>, ()>>;

/// Waits for the registration that a handler has begun. Returns `None` if the registration fails.
async fn until_registered<ResBody>(
    node: &Node,
    context: &StreamContext,
    mut future: Answering<ResBody>,
) -> Option<(Waiting, Answering<ResBody>)>
where
    ResBody: Send + 'static,
{
    let mut answered = None;
    let waiting = poll_fn(|cx| {
        if let Some(waiting) = context.take_waiting() {
            return Poll::Ready(Some(waiting));
        }
        match guarded(|| future.as_mut().poll(cx)) {
            Err(_) => {
                node.telemetry.panicked("inner service");
                // Withdraws the registration, if it was made.
                drop(context.take_waiting());
                return Poll::Ready(None);
            }
            Ok(Poll::Ready(response)) => answered = Some(response),
            Ok(Poll::Pending) if context.is_registering() => return Poll::Pending,
            Ok(Poll::Pending) => {}
        }
        Poll::Ready(context.take_waiting())
    });
    let waiting = waiting.await?;
    match answered {
        Some(response) => Some((waiting, Box::pin(std::future::ready(response)))),
        None => Some((waiting, future)),
    }
}
