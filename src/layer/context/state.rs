//! The state that the layer and a handler share about the handler's stream, until the handler has answered.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use crate::{
    layer::{asked::Asked, registered::Registered},
    model::{id::StreamId, metadata::Metadata},
    node::{Node, headers::stream_id},
    produce::stop::Stop,
    recorder::{Lane, Producing},
    route::settings::Route,
    runtime::sync::lock,
};

/// The context of a request's stream, for its handler. The layer puts it into the extensions of the inner request. In
/// axum a handler takes it as `Extension<StreamContext>`.
///
/// ```
/// # use resilient_sse::StreamContext;
/// async fn start(stream: &StreamContext, job: &str) {
///     // Stored before the first event is delivered, so that a probe on another node can find the job.
///     stream.metadata("job", job).expect("fits");
/// }
/// ```
#[derive(Clone)]
pub struct StreamContext(pub(in crate::layer) Arc<Inner>);

pub(in crate::layer) struct Inner {
    pub(in crate::layer) recorded: OnceLock<bool>,
    pub(in crate::layer) last_inner_id: Option<String>,
    pub(in crate::layer) stop: Stop,
    /// The metadata to keep with the stream. It is moved to the lane when the stream is registered.
    pub(in crate::layer) metadata: Mutex<Metadata>,
    pub(in crate::layer) lane: OnceLock<Arc<Lane>>,
    pub(in crate::layer) node: Arc<Node>,
    pub(in crate::layer) route: Arc<Route>,
    pub(in crate::layer) asked: Asked,
    /// Whether the stream had a run before this one.
    pub(in crate::layer) runs_again: AtomicBool,
    /// The running stream because of which the handler's turn was refused.
    pub(in crate::layer) refused_for: OnceLock<StreamId>,
    pub(in crate::layer) early: Mutex<Early>,
    /// Whether the handler runs on without its request.
    pub(in crate::layer) outlives: AtomicBool,
}

/// The state of a registration that the handler asks for before it answers, on a route that makes up ids.
pub(in crate::layer) enum Early {
    /// The handler has not answered, and has not asked for a registration.
    Open,
    /// The registration is under way. There is one at a time.
    UnderWay,
    Registered(Box<Waiting>),
    /// The handler has answered, or its future was dropped.
    Over,
}

impl StreamContext {
    pub(in crate::layer) fn new(
        node: &Arc<Node>,
        route: &Arc<Route>,
        asked: &Asked,
        last_inner_id: Option<String>,
    ) -> Self {
        Self(Arc::new(Inner {
            recorded: OnceLock::new(),
            last_inner_id,
            stop: Stop::default(),
            metadata: Mutex::new(asked.metadata.clone()),
            lane: OnceLock::new(),
            node: Arc::clone(node),
            route: Arc::clone(route),
            asked: asked.clone(),
            runs_again: AtomicBool::new(false),
            refused_for: OnceLock::new(),
            early: Mutex::new(Early::Open),
            outlives: AtomicBool::new(false),
        }))
    }

    /// Adds the `X-Stream-Id` of the running stream to a 409 of a handler whose turn was refused.
    pub(in crate::layer) fn name_refused<B>(&self, response: &mut http::Response<B>) {
        if let Some(stream) = self.0.refused_for.get().filter(|_| response.status() == http::StatusCode::CONFLICT) {
            stream_id(response.headers_mut(), stream);
        }
    }

    /// Holds a registration until the handler answers. Returns it if the handler has answered already, or its future
    /// was dropped.
    pub(in crate::layer) fn hold(&self, waiting: Box<Waiting>) -> Result<(), Box<Waiting>> {
        let mut early = lock(&self.0.early);
        if !matches!(*early, Early::UnderWay) {
            return Err(waiting);
        }
        *early = Early::Registered(waiting);
        Ok(())
    }

    /// Notes that the stream has run before, so that it is no new turn.
    pub(in crate::layer) fn set_runs_again(&self) {
        self.0.runs_again.store(true, Ordering::Relaxed);
    }

    /// Whether it is decided already if the stream is recorded, because its handler has named a conversation.
    pub(in crate::layer) fn is_settled(&self) -> bool {
        self.is_recorded().is_some()
    }

    /// Takes the registration that the handler asked for, after the handler has answered.
    pub(in crate::layer) fn take_registered(&self) -> Option<Registered> {
        match std::mem::replace(&mut *lock(&self.0.early), Early::Over) {
            Early::Registered(waiting) => Some(waiting.into_registered()),
            Early::Open | Early::UnderWay | Early::Over => None,
        }
    }

    /// Returns whether the handler's future should go on although its request was dropped. It should if the handler has
    /// begun to register its stream.
    pub(in crate::layer) fn outlives_request(&self) -> bool {
        let outlives = matches!(*lock(&self.0.early), Early::UnderWay | Early::Registered(_));
        self.0.outlives.store(outlives, Ordering::Relaxed);
        outlives
    }

    /// Whether the handler's registration is under way.
    pub(in crate::layer) fn is_registering(&self) -> bool {
        matches!(*lock(&self.0.early), Early::UnderWay)
    }

    /// Takes the registration that the handler asked for, before the handler has answered.
    pub(in crate::layer) fn take_waiting(&self) -> Option<Waiting> {
        let mut early = lock(&self.0.early);
        match std::mem::replace(&mut *early, Early::Over) {
            Early::Registered(waiting) => Some(*waiting),
            other => {
                *early = other;
                None
            }
        }
    }

    /// Completes when the stream that the handler has registered was stopped or taken over by another producer.
    pub(in crate::layer) fn poll_halted(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &*lock(&self.0.early) {
            Early::Registered(waiting) => waiting.poll_halted(cx),
            Early::Open | Early::UnderWay | Early::Over => Poll::Pending,
        }
    }

    /// Returns the metadata that was set before the stream's registration.
    pub(crate) fn kept(&self) -> Metadata {
        lock(&self.0.metadata).clone()
    }

    /// Notes that the stream is registered, and moves its metadata to the lane.
    pub(crate) fn registered(&self, lane: &Arc<Lane>) {
        let kept = {
            let mut metadata = lock(&self.0.metadata);
            let _ = self.0.lane.set(Arc::clone(lane));
            let _ = self.0.recorded.set(true);
            std::mem::take(&mut *metadata)
        };
        for (key, value) in kept {
            // This cannot fail: the pairs were within the bound. Pairs of the registration itself change nothing.
            let _ = lane.keep(&self.0.node.recorder, key, value);
        }
    }

    /// Notes that the stream cannot be registered.
    pub(crate) fn unrecorded(&self) {
        let _ = self.0.recorded.set(false);
    }

    /// Returns the stop signal alone, for code that needs nothing else of the context.
    pub(in crate::layer) fn stopper(&self) -> Stop {
        self.0.stop.clone()
    }

    pub(crate) fn stop(&self) {
        self.0.stop.stop();
    }

    /// Stops the work of a handler whose future was dropped, and withdraws its registration.
    pub(in crate::layer) fn abandon(&self) {
        if self.0.outlives.load(Ordering::Relaxed) {
            return;
        }
        self.stop();
        let early = std::mem::replace(&mut *lock(&self.0.early), Early::Over);
        drop(early);
    }
}

/// A registration whose inner service has not answered yet.
pub(in crate::layer) struct Waiting {
    pub(in crate::layer) registered: Registered,
    /// Receives the lane's notice of a stop.
    pub(in crate::layer) halting: Arc<Halting>,
    pub(in crate::layer) unanswered: Unanswered,
}

impl Waiting {
    pub(in crate::layer) fn new(registered: Registered, context: StreamContext, endless: bool) -> Self {
        let (node, lane) = (registered.node(), Arc::clone(&registered.lane));
        let halting = Arc::new(Halting { node, lane, context, discarded: AtomicBool::new(false), endless });
        let producer: Arc<dyn Producing> = halting.clone();
        halting.lane.set_producer(Arc::downgrade(&producer));
        if halting.lane.is_ending() {
            // The stop came before the lane knew this producer.
            producer.discard();
        }
        let unanswered = Unanswered::new(halting.context.clone());
        Self { registered, halting, unanswered }
    }

    /// Completes when the stream was stopped or taken over by another producer.
    pub(in crate::layer) fn poll_halted(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.halting.lane.waker.register(cx.waker());
        if !self.halting.is_halted() {
            return Poll::Pending;
        }
        self.halting.context.stop();
        Poll::Ready(())
    }

    /// Returns the registration, since the inner service has answered. Its work is no longer stopped on drop.
    pub(in crate::layer) fn into_registered(self) -> Registered {
        self.unanswered.answered();
        self.registered
    }
}

/// A guard that stops a handler's work if it is dropped before the handler has answered.
pub(in crate::layer) struct Unanswered(Option<StreamContext>);

impl Unanswered {
    pub(in crate::layer) fn new(context: StreamContext) -> Self {
        Self(Some(context))
    }

    /// Disarms the guard, since the handler has answered.
    pub(in crate::layer) fn answered(mut self) {
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

/// The producer of a registered stream before its handler has answered. It stops the work when the stream is stopped or
/// taken over.
pub(in crate::layer) struct Halting {
    pub(in crate::layer) node: Arc<Node>,
    pub(in crate::layer) lane: Arc<Lane>,
    pub(in crate::layer) context: StreamContext,
    /// Whether the inner service's future must be dropped regardless of the stream's state.
    pub(in crate::layer) discarded: AtomicBool,
    pub(in crate::layer) endless: bool,
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
