//! Who drives the inner body: the client's response body while it reads, else a task of its own.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http_body::Body;
use tokio::time::Sleep;

use super::{
    engine::{Engine, Made, Progress},
    route::Route,
};
use crate::{
    error::BoxError,
    hub::Core,
    pulse::Stall,
    recorder::{EndRequest, Lane, Producing, Status},
    stream::{Disconnect, StreamState, reason},
    sync::lock,
    telemetry::{Counted, add},
};

/// Events that a body which runs without a client may be ahead of the store.
const DRIVEN_AHEAD: u64 = 256;

/// An engine, shared between the client's body and those who may take it over.
pub(crate) struct Producer<B> {
    core: Arc<Core>,
    route: Arc<Route>,
    pub(crate) lane: Arc<Lane>,
    engine: Mutex<Option<Engine<B>>>,
    /// A task drives the engine, or did: what the client has not read is in the log.
    driven: AtomicBool,
    /// The client went away while somebody else drove the engine.
    gone: AtomicBool,
    /// The client was let go, to follow on another node.
    released: AtomicBool,
}

impl<B> Producer<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    pub(crate) fn new(core: &Arc<Core>, route: &Arc<Route>, engine: Engine<B>) -> Arc<Self> {
        let producer = Arc::new(Self {
            core: Arc::clone(core),
            route: Arc::clone(route),
            lane: Arc::clone(&engine.lane),
            engine: Mutex::new(Some(engine)),
            driven: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            released: AtomicBool::new(false),
        });
        let weak: Weak<Self> = Arc::downgrade(&producer);
        producer.lane.set_producer(weak);
        producer
    }

    /// Makes events for the client; `None` if somebody else drives the body now.
    pub(crate) fn make(&self, cx: &mut Context<'_>, made: &mut VecDeque<Made>) -> Option<Progress> {
        lock(&self.engine).as_mut().map(|engine| engine.make(cx, made))
    }

    /// Drops the inner body.
    pub(crate) fn discard(&self) {
        // Not in the same expression: the lock is given back before foreign code runs.
        let engine = lock(&self.engine).take();
        drop(engine);
    }

    /// Whether somebody else drives the body now, or it is gone.
    pub(crate) fn is_taken_over(&self) -> bool {
        lock(&self.engine).is_none()
    }

    /// Whether a task drives the body, or did to its end.
    pub(crate) fn is_driven(&self) -> bool {
        self.driven.load(Ordering::Acquire)
    }

    /// Whether the client is to go on elsewhere.
    pub(crate) fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }

    /// The client went away.
    pub(crate) fn client_gone(self: &Arc<Self>) {
        let engine = lock(&self.engine).take();
        match engine {
            Some(engine) if !engine.is_over() => self.go_on_without_client(engine),
            Some(_) => {}
            None => {
                self.gone.store(true, Ordering::Release);
                self.lane.waker.wake();
            }
        }
    }

    fn go_on_without_client(self: &Arc<Self>, mut engine: Engine<B>) {
        let limit = match self.route.disconnect {
            Disconnect::Interrupt => return engine.abort(EndRequest::Interrupt),
            Disconnect::Cancel => {
                return engine.abort(EndRequest::supplied(StreamState::Cancelled, reason::DISCONNECTED));
            }
            Disconnect::Detach { at_most } => at_most,
        };
        let counted = self.count();
        if self.is_over_limit() {
            return engine.abort(EndRequest::supplied(StreamState::Failed, reason::DETACH_LIMIT));
        }
        self.drive(engine, Some(limit), counted);
    }

    /// Counts one more body that runs without its client.
    fn count(&self) -> Counted {
        Counted::new(&self.core.telemetry, |telemetry| &telemetry.detached)
    }

    /// Whether more bodies run without their clients than may, whoever was counted last included.
    fn is_over_limit(&self) -> bool {
        self.core.telemetry.detached.load(Ordering::Relaxed) > self.core.max_detached()
    }

    fn drive(self: &Arc<Self>, engine: Engine<B>, limit: Option<Duration>, counted: Counted) {
        let producer = Arc::clone(self);
        self.core.executor.spawn(Drive {
            producer,
            engine,
            limit,
            deadline: None,
            store_wait: None,
            _counted: counted,
        });
    }

    /// Takes the engine from a client that is still there, and drives it on.
    fn take_over(self: &Arc<Self>, counted: Counted) {
        // What is not recorded any more cannot be followed: only its client has it, and is waited for.
        if self.lane.is_halted() {
            return;
        }
        let engine = {
            let mut engine = lock(&self.engine);
            if engine.as_ref().is_none_or(Engine::is_over) {
                return;
            }
            // Under the lock: a client that finds no engine knows why.
            self.driven.store(true, Ordering::Release);
            engine.take()
        };
        let Some(engine) = engine else { return };
        let limit = match self.route.disconnect {
            Disconnect::Detach { at_most } => Some(at_most),
            // The client is there, and its leaving ends the work as the route says.
            Disconnect::Interrupt | Disconnect::Cancel => None,
        };
        // Before the task puts its own waker in the client's place.
        self.lane.waker.wake();
        self.drive(engine, limit, counted);
    }

    /// Whether somebody else reads the stream, on this node or on another.
    fn is_followed(&self) -> bool {
        self.lane.followers.load(Ordering::Relaxed) > 0 || self.core.store.is_followed(&self.lane.key)
    }

    /// Whether the work goes on when its client does not.
    fn outlives_client(&self) -> bool {
        matches!(self.route.disconnect, Disconnect::Detach { .. })
    }
}

impl<B> Stall for Producer<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn stalled(self: Arc<Self>) {
        if self.outlives_client() || self.is_followed() {
            // On the executor: the lock may be held while the inner body is polled.
            let executor = self.core.executor.clone();
            executor.spawn(async move {
                let counted = self.count();
                // Beyond the limit the body waits for its client, as it does where nobody else reads.
                if !self.is_over_limit() {
                    self.take_over(counted);
                }
            });
        }
    }
}

impl<B> Producing for Producer<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn halted(self: Arc<Self>) {
        if !self.core.serves_on(&self.lane.status()) {
            self.discard();
        }
    }

    fn release(self: Arc<Self>) {
        if self.outlives_client() {
            self.released.store(true, Ordering::Release);
            self.take_over(self.count());
        }
    }
}

/// A body that runs without its client.
struct Drive<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    producer: Arc<Producer<B>>,
    engine: Engine<B>,
    /// For how long it may run, until its first poll makes that a deadline: where the client's body is
    /// dropped there may be no runtime.
    limit: Option<Duration>,
    deadline: Option<Pin<Box<Sleep>>>,
    store_wait: Option<Pin<Box<Sleep>>>,
    _counted: Counted,
}

// Nothing in it is pinned in place: the inner body has a box of its own.
impl<B> Unpin for Drive<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
}

impl<B> Drop for Drive<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// Dropped before the body is over, by an executor that goes down or has no runtime: what it leaves
    /// undone is what a killed process leaves undone, so nobody says any more that the stream lives.
    fn drop(&mut self) {
        if !self.engine.is_over() {
            self.producer.core.recorder.abandon(&self.producer.lane);
        }
    }
}

impl<B> Future for Drive<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // First, so that whatever changes from here on wakes this task.
        this.producer.lane.waker.register(cx.waker());
        if this.must_stop(cx) {
            this.engine.drop_body();
            return Poll::Ready(());
        }
        if this.waits_for_store(cx) {
            return Poll::Pending;
        }
        let mut unheard = VecDeque::new();
        let progress = this.engine.make(cx, &mut unheard);
        let events = unheard.iter().filter(|made| matches!(made, Made::Event(..))).count();
        add(&this.producer.core.telemetry.unheard, events as u64);
        match progress {
            Progress::Made => {}
            Progress::Waiting => return Poll::Pending,
            Progress::Over(_) => return Poll::Ready(()),
        }
        // After each batch it is the others' turn: the runtime looks at its sockets only once in dozens of polls.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<B> Drive<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// Whether the work ended elsewhere, or has run for too long.
    fn must_stop(&mut self, cx: &mut Context<'_>) -> bool {
        let lane = &self.producer.lane;
        if lane.is_halted() && lane.status() != Status::Running {
            return true;
        }
        if self.producer.gone.load(Ordering::Acquire) && !self.producer.outlives_client() {
            self.engine.abort(match self.producer.route.disconnect {
                Disconnect::Cancel => EndRequest::supplied(StreamState::Cancelled, reason::DISCONNECTED),
                _ => EndRequest::Interrupt,
            });
            return true;
        }
        if let Some(limit) = self.limit.take() {
            self.deadline = Some(Box::pin(tokio::time::sleep(limit)));
        }
        let late = self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
        if late {
            self.engine.abort(EndRequest::supplied(StreamState::Failed, reason::DETACH_TIMEOUT));
        }
        late
    }

    /// Whether the store is too far behind, for no longer than its time limit.
    fn waits_for_store(&mut self, cx: &mut Context<'_>) -> bool {
        let core = &self.producer.core;
        if self.producer.lane.unacknowledged() < DRIVEN_AHEAD || core.store.is_broken() {
            self.store_wait = None;
            return false;
        }
        let limit = core.settings.store_limit;
        let wait = self.store_wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if wait.as_mut().poll(cx).is_pending() {
            return true;
        }
        self.store_wait = None;
        self.producer.lane.pass_by();
        false
    }
}
