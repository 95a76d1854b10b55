//! The time between a request's admission and the head of the inner service's response.
//!
//! The stream is registered, and nothing of it was said yet. A stop, or another producer, drops the inner service's future. On
//! `Detach` routes a request that is dropped hands that future to the executor, as it hands over a body later.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::Response;
use pin_project_lite::pin_project;

use super::{
    admit::{Asked, Registered},
    answer::{is_protected, start},
};
use crate::{
    layer::context::StreamContext,
    model::stream::StreamState,
    node::Node,
    produce::{
        absence::{Attendance, Unread},
        inner_body::InnerBody,
    },
    recorder::{EndRequest, Lane, Producing},
    route::settings::Route,
    runtime::{
        executor::BoxFuture,
        panics::{Guarded, guarded},
    },
};

/// A registration whose inner service has not answered yet.
pub(super) struct Waiting {
    registered: Registered,
    /// The receiver of the lane's news of a stop.
    halting: Arc<Halting>,
    unanswered: Unanswered,
}

/// Stops the work that a handler has begun, if it is dropped before the handler answers.
pub(super) struct Unanswered(Option<StreamContext>);

impl Unanswered {
    pub(super) fn new(context: StreamContext) -> Self {
        Self(Some(context))
    }

    /// The handler has answered: from here on its body's end decides.
    pub(super) fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            context.abandon();
        }
    }
}

/// Tells the inner service, through its context, that the stream was stopped or taken over.
struct Halting {
    node: Arc<Node>,
    lane: Arc<Lane>,
    context: StreamContext,
    /// The process ends: the inner service's future is dropped, however the stream stands.
    discarded: AtomicBool,
    endless: bool,
}

impl Halting {
    fn is_halted(&self) -> bool {
        self.discarded.load(Ordering::Acquire) || (self.lane.is_halted() && !self.node.serves_on(&self.lane.status()))
    }
}

impl Producing for Halting {
    fn halted(self: Arc<Self>) {
        if self.is_halted() {
            self.context.stop();
        }
    }

    fn release(self: Arc<Self>) {}

    fn discard(self: Arc<Self>) {
        self.discarded.store(true, Ordering::Release);
        self.context.stop();
        self.lane.waker.wake();
    }

    fn is_endless(&self) -> bool {
        self.endless
    }
}

impl Waiting {
    pub(super) fn new(registered: Registered, context: StreamContext, endless: bool) -> Self {
        let (node, lane) = (registered.node(), Arc::clone(&registered.lane));
        let halting = Arc::new(Halting { node, lane, context, discarded: AtomicBool::new(false), endless });
        let producer: Arc<dyn Producing> = halting.clone();
        halting.lane.set_producer(Arc::downgrade(&producer));
        if halting.lane.is_ending() {
            // The stop came before this producer was registered with the lane.
            producer.discard();
        }
        let unanswered = Unanswered::new(halting.context.clone());
        Self { registered, halting, unanswered }
    }

    /// Ready once the stream was stopped, or went to another producer.
    pub(super) fn poll_halted(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.halting.lane.waker.register(cx.waker());
        if !self.halting.is_halted() {
            return Poll::Pending;
        }
        self.halting.context.stop();
        Poll::Ready(())
    }

    /// The inner service has answered.
    pub(super) fn into_registered(self) -> Registered {
        self.unanswered.answered();
        self.registered
    }
}

/// The inner service's future, which outlives its request.
pub(super) struct Handler<ResBody, E>
where
    ResBody: InnerBody,
    E: 'static,
{
    work: Option<Box<Work<ResBody, E>>>,
}

struct Work<ResBody, E> {
    node: Arc<Node>,
    route: Arc<Route>,
    asked: Asked,
    waiting: Waiting,
    /// How long it may take without a reader.
    at_most: Duration,
    future: BoxFuture<Result<Response<ResBody>, E>>,
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

    /// The response, with its registration; `None` if the stream was stopped, or went to another producer.
    #[allow(clippy::type_complexity, reason = "three values that belong together, used once")]
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<(Registered, Response<ResBody>, StreamContext)>, E>> {
        // Taken out first: a panic of the inner service drops it, which withdraws the registration.
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
    /// The request was dropped before the inner service answered.
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
    async fn carry_on(self) {
        let Self { node, route, asked, waiting, at_most, future } = self;
        let lane = Arc::clone(&waiting.halting.lane);
        let mut future = Guarded::new(future);
        lane.set_driven();
        let mut attendance = Attendance::new(&node, &lane);
        let answered = poll_fn(|cx| {
            // Readers wake `drive`; changes in the store wake `drive` and `waker`.
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
                // The end settles the registration: it is not withdrawn.
                let _ = waiting.into_registered().start();
                return;
            }
        };
        let context = waiting.halting.context.clone();
        // It has answered: its own work is not told to stop, whatever the answer is.
        let registered = waiting.into_registered();
        // Anything but an event stream withdraws the registration.
        if is_protected(&node, &response).is_ok() {
            let (head, body) = response.into_parts();
            let started = start(&node, &route, &asked, registered, &head.headers, body, &context);
            started.producer.go_on(attendance);
        }
    }
}

pin_project! {
    /// The inner service's future on a route that makes up ids, where the handler itself may register the stream, by naming its
    /// conversation.
    #[project = NamingProjection]
    pub(super) enum Naming<F, ResBody, E>
    where
        ResBody: InnerBody,
        E: 'static,
    {
        InPlace { #[pin] future: F },
        // On a route that detaches it outlives its request from then on.
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

/// A handler's future that is handed to the executor if it is dropped once the handler has begun to register its stream.
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
        // Taken out first: a panic of the inner service drops it here, and what it has registered is withdrawn.
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
    /// The request was dropped before the handler answered.
    fn drop(&mut self) {
        let Some(future) = self.future.take().filter(|_| self.context.outlives_request()) else { return };
        let (node, route, asked) = (Arc::clone(&self.node), Arc::clone(&self.route), self.asked.clone());
        let (context, at_most) = (self.context.clone(), self.at_most);
        self.node.executor.spawn(async move {
            // Nobody is told the error, and it need not be `Send`.
            let future = Box::pin(async move { future.await.map_err(drop) });
            let Some((waiting, future)) = until_registered(&node, &context, future).await else {
                return context.stop();
            };
            Work { node, route, asked, waiting, at_most, future }.carry_on().await;
        });
    }
}

type Answering<ResBody> = BoxFuture<Result<Response<ResBody>, ()>>;

/// Waits for the registration that a handler has begun; `None` if it comes to nothing.
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
                // Withdrawn, if it had come so far.
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

/// The result of waiting for a response without the request.
enum Waited<T> {
    Halted,
    Answered(T),
    Unread(Unread),
}
