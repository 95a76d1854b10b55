//! Who drives the inner body: the client's response body while it reads, else a task of its own.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::Context,
    time::Duration,
};

use http_body::Body;

use super::{
    absence::Attendance,
    drive::Drive,
    engine::{Engine, Made, Progress},
};
use crate::{
    model::{
        config::{AHEAD_EVENTS, BATCH_EVENTS, Durability},
        error::BoxError,
        stream::{Disconnect, StreamState, reason},
    },
    node::Node,
    recorder::{EndRequest, Lane, Producing},
    route::settings::Route,
    runtime::{pulse::Stall, sync::lock},
};

/// An engine, shared between the client's body and those who may take it over.
pub(crate) struct Producer<B> {
    pub(crate) node: Arc<Node>,
    pub(crate) route: Arc<Route>,
    pub(crate) lane: Arc<Lane>,
    engine: Mutex<Option<Engine<B>>>,
    /// A task drives the engine, or did: what the client has not read is in the log.
    driven: AtomicBool,
    /// The inner body is to be dropped, whoever drives it.
    discarded: AtomicBool,
    /// The client was let go, to follow on another node.
    released: AtomicBool,
    /// Whether the client reconnects by itself when its body breaks.
    comes_again: bool,
}

impl<B> Producer<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    pub(crate) fn new(node: &Arc<Node>, route: &Arc<Route>, engine: Engine<B>, comes_again: bool) -> Arc<Self> {
        let producer = Arc::new(Self {
            node: Arc::clone(node),
            route: Arc::clone(route),
            lane: Arc::clone(&engine.lane),
            engine: Mutex::new(Some(engine)),
            driven: AtomicBool::new(false),
            discarded: AtomicBool::new(false),
            released: AtomicBool::new(false),
            comes_again,
        });
        let weak: Weak<Self> = Arc::downgrade(&producer);
        producer.lane.set_producer(weak);
        producer
    }

    /// Makes events for the client; `None` if somebody else drives the body now.
    pub(crate) fn make(&self, cx: &mut Context<'_>, made: &mut VecDeque<Made>) -> Option<Progress> {
        let most = match self.route.durability {
            Durability::Buffered => BATCH_EVENTS,
            // They wait for the store anyway: what is ready together goes to it together.
            Durability::BeforeSend => self.lane.room_ahead().clamp(1, AHEAD_EVENTS) as usize,
        };
        lock(&self.engine).as_mut().map(|engine| engine.make(cx, made, most))
    }

    /// The error that ended the inner body, if one did and the client's body still drove it; once.
    pub(crate) fn take_error(&self) -> Option<BoxError> {
        lock(&self.engine).as_mut().and_then(Engine::take_error)
    }

    /// Drops the inner body.
    pub(crate) fn discard(&self) {
        self.discarded.store(true, Ordering::Release);
        // Not in the same expression: the lock is given back before foreign code runs.
        let engine = lock(&self.engine).take();
        drop(engine);
        self.lane.wake_drive();
    }

    /// Whether the inner body is to be dropped, whoever drives it.
    pub(crate) fn is_discarded(&self) -> bool {
        self.discarded.load(Ordering::Acquire)
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
        self.lane.readers.detach_client();
        let engine = lock(&self.engine).take();
        match engine {
            Some(engine) if !engine.is_over() => self.go_on_without_client(engine),
            Some(_) => {}
            None => self.lane.wake_drive(),
        }
    }

    /// Drives the body on if somebody reads or may return; otherwise ends the work at once.
    fn go_on_without_client(self: &Arc<Self>, mut engine: Engine<B>) {
        // Nobody could ever read its events.
        if self.lane.is_unrecorded() {
            return engine.abort(EndRequest::Interrupt);
        }
        if self.may_run_unread().is_zero() && !self.node.is_read(&self.lane) {
            return engine.abort(self.end_unread());
        }
        self.drive(engine, Attendance::new(&self.node, &self.lane));
    }

    /// Drives on the body of a request that was dropped before the inner service answered.
    pub(crate) fn go_on(self: &Arc<Self>, attendance: Attendance) {
        let engine = lock(&self.engine).take();
        if let Some(engine) = engine {
            self.drive(engine, attendance);
        }
    }

    fn drive(self: &Arc<Self>, engine: Engine<B>, attendance: Attendance) {
        self.lane.set_driven();
        self.node.executor.spawn(Drive::new(Arc::clone(self), engine, attendance));
    }

    /// Takes the engine from a client that is still there, and drives it on.
    fn take_over(self: &Arc<Self>) {
        // What is not recorded any more cannot be followed: only its client has it, and is waited for.
        if self.lane.is_halted() || self.lane.is_unrecorded() {
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
        self.lane.waker.wake();
        self.drive(engine, Attendance::new(&self.node, &self.lane));
    }

    /// For how long the work goes on while nobody reads.
    pub(crate) fn may_run_unread(&self) -> Duration {
        match self.route.disconnect {
            Disconnect::Interrupt | Disconnect::Cancel => self.route.grace,
            Disconnect::Detach { at_most } => at_most,
        }
    }

    /// The end of a stream that nobody has read for too long.
    pub(crate) fn end_unread(&self) -> EndRequest {
        match self.route.disconnect {
            Disconnect::Interrupt => EndRequest::Interrupt,
            Disconnect::Cancel => EndRequest::supplied(StreamState::Cancelled, reason::DISCONNECTED),
            Disconnect::Detach { .. } => EndRequest::supplied(StreamState::Failed, reason::DETACH_TIMEOUT),
        }
    }

    /// Whether the work goes on when nobody reads.
    fn outlives_readers(&self) -> bool {
        matches!(self.route.disconnect, Disconnect::Detach { .. })
    }
}

impl<B> Stall for Producer<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn stalled(self: Arc<Self>) {
        if self.outlives_readers() || self.lane.readers.followers() > 0 || self.node.is_read_elsewhere(&self.lane) {
            // On the executor: the lock may be held while the inner body is polled.
            let executor = self.node.executor.clone();
            executor.spawn(async move { self.take_over() });
        }
    }
}

impl<B> Producing for Producer<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn halted(self: Arc<Self>) {
        if !self.node.serves_on(&self.lane.status()) {
            Producer::discard(&self);
        }
    }

    fn release(self: Arc<Self>) {
        if self.outlives_readers() && self.comes_again {
            self.released.store(true, Ordering::Release);
            self.take_over();
        }
    }

    fn discard(self: Arc<Self>) {
        Producer::discard(&self);
    }

    fn is_endless(&self) -> bool {
        self.route.endless
    }
}
