//! The inner service's future on a `Detach` route, between the registration of its stream and the head of its response.
//!
//! A stop, or another producer of the stream, drops the future. A request that is dropped hands the future to the
//! executor.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Response;

use super::{
    answer::{is_protected, start},
    asked::Asked,
    context::{StreamContext, Waiting},
    registered::Registered,
};
use crate::{
    model::stream::StreamState,
    node::Node,
    produce::{
        absence::{Attendance, Unread},
        inner_body::InnerBody,
    },
    recorder::EndRequest,
    route::settings::Route,
    runtime::{executor::BoxFuture, panics::Guarded},
};

/// The inner service's future, which may outlive its request.
pub(super) struct Handler<ResBody, E>
where
    ResBody: InnerBody,
    E: 'static,
{
    work: Option<Box<Work<ResBody, E>>>,
}

pub(super) struct Work<ResBody, E> {
    pub(super) node: Arc<Node>,
    pub(super) route: Arc<Route>,
    pub(super) asked: Asked,
    pub(super) waiting: Waiting,
    /// How long the work may go on without a reader.
    pub(super) at_most: Duration,
    pub(super) future: BoxFuture<Result<Response<ResBody>, E>>,
}

impl<ResBody, E> Handler<ResBody, E>
where
    ResBody: InnerBody,
    E: 'static,
{
    pub(super) fn new(
        node: &Arc<Node>,
        route: &Arc<Route>,
        asked: &Asked,
        waiting: Waiting,
        at_most: Duration,
        future: BoxFuture<Result<Response<ResBody>, E>>,
    ) -> Self {
        let (node, route, asked) = (Arc::clone(node), Arc::clone(route), asked.clone());
        Self { work: Some(Box::new(Work { node, route, asked, waiting, at_most, future })) }
    }

    /// Returns the response with its registration, or `None` if the stream was stopped or taken over by another
    /// producer.
    #[allow(clippy::type_complexity, reason = "three values that belong together, used once")]
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<(Registered, Response<ResBody>, StreamContext)>, E>> {
        // Taken out before the poll, so that a panic of the inner service drops the work and withdraws the
        // registration.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        if work.waiting.poll_halted(cx).is_ready() {
            return Poll::Ready(Ok(None));
        }
        let Poll::Ready(answered) = work.future.as_mut().poll(cx) else {
            self.work = Some(work);
            return Poll::Pending;
        };
        Poll::Ready(answered.map(|response| {
            let context = work.waiting.halting.context.clone();
            Some((work.waiting.into_registered(), response, context))
        }))
    }
}

impl<ResBody, E> Drop for Handler<ResBody, E>
where
    ResBody: InnerBody,
    E: 'static,
{
    /// Hands the work to the executor, since the request was dropped before the inner service answered.
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        work.node.executor.clone().spawn((*work).carry_on());
    }
}

impl<ResBody, E> Work<ResBody, E>
where
    ResBody: InnerBody,
    E: 'static,
{
    /// Waits for the response without the request, and drives its body on.
    pub(super) async fn carry_on(self) {
        let Self { node, route, asked, waiting, at_most, future } = self;
        let lane = Arc::clone(&waiting.halting.lane);
        let mut future = Guarded::new(future);
        lane.set_driven();
        let mut attendance = Attendance::new(&node, &lane);
        let answered = poll_fn(|cx| {
            // Readers wake `drive`. Changes in the store wake `drive` and `waker`.
            lane.drive.register(cx.waker());
            if waiting.poll_halted(cx).is_ready() {
                return Poll::Ready(Waited::Halted);
            }
            if let Poll::Ready(answered) = Pin::new(&mut future).poll(cx) {
                return Poll::Ready(Waited::Answered(answered));
            }
            attendance.poll_unread(cx, at_most).map(Waited::Unread)
        });
        let response = match answered.await {
            Waited::Halted | Waited::Answered(Ok(Err(_))) => return,
            Waited::Answered(Err(_)) => return node.telemetry.panicked("inner service"),
            Waited::Answered(Ok(Ok(response))) => response,
            Waited::Unread(unread) => {
                lane.end(&node.recorder, EndRequest::supplied(StreamState::Failed, unread.reason()));
                waiting.halting.context.stop();
                // The end is stored for the stream, so the registration is kept.
                let _ = waiting.into_registered().start();
                return;
            }
        };
        let context = waiting.halting.context.clone();
        // The inner service has answered, so its work is not told to stop, even if the answer is no event stream.
        let registered = waiting.into_registered();
        // An answer that is no event stream withdraws the registration.
        if is_protected(&node, &response).is_ok() {
            let (head, body) = response.into_parts();
            let started = start(&node, &route, &asked, registered, &head.headers, body, &context);
            started.producer.go_on(attendance);
        }
    }
}

/// The result of waiting for a response without the request.
enum Waited<T> {
    Halted,
    Answered(T),
    Unread(Unread),
}
