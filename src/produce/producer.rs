//! The producer of a stream. The client's response body polls its engine while the client reads, otherwise a task does.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::Context,
    time::Duration,
};

use super::engine::{Engine, Made, Progress};
use crate::{
    model::{
        config::{AHEAD_EVENTS, BATCH_EVENTS, Durability},
        error::BoxError,
        stream::{Disconnect, StreamState, reason},
    },
    node::Node,
    produce::inner_body::InnerBody,
    recorder::{EndRequest, Lane},
    route::settings::Route,
    runtime::sync::lock,
};

/// An engine that the client's body shares with the task that may take it over.
pub(crate) struct Producer<B> {
    pub(crate) node: Arc<Node>,
    pub(crate) route: Arc<Route>,
    pub(crate) lane: Arc<Lane>,
    pub(super) engine: Mutex<Option<Engine<B>>>,
    /// Whether a task drives the engine, or did. The log then holds the events that the client has not read.
    pub(super) driven: AtomicBool,
    /// Whether the inner body must be dropped, by its client's body or by the task.
    discarded: AtomicBool,
    /// Whether the client was let go, to follow on another node.
    pub(super) released: AtomicBool,
    /// Whether the client reconnects by itself when its body breaks.
    pub(super) comes_again: bool,
}

impl<B> Producer<B>
where
    B: InnerBody,
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

    /// Makes events for the client. Returns `None` if a task drives the inner body now, or if it was dropped.
    pub(crate) fn make(&self, cx: &mut Context<'_>, made: &mut VecDeque<Made>) -> Option<Progress> {
        let most = match self.route.durability {
            Durability::Buffered => BATCH_EVENTS,
            // The events wait for the store anyway, so all that are ready go to it in one request.
            Durability::BeforeSend => self.lane.room_ahead().clamp(1, AHEAD_EVENTS) as usize,
        };
        lock(&self.engine).as_mut().map(|engine| engine.make(cx, made, most))
    }

    /// Takes the error that ended the inner body, if one did while the client's body still drove it.
    pub(crate) fn take_error(&self) -> Option<BoxError> {
        lock(&self.engine).as_mut().and_then(Engine::take_error)
    }

    /// Drops the inner body.
    pub(crate) fn discard(&self) {
        self.discarded.store(true, Ordering::Release);
        // Two statements, so that the lock is released before the inner body's drop code runs.
        let engine = lock(&self.engine).take();
        drop(engine);
        self.lane.wake_drive();
    }

    /// Whether the inner body must be dropped.
    pub(crate) fn is_discarded(&self) -> bool {
        self.discarded.load(Ordering::Acquire)
    }

    /// Whether a task drives the inner body now, or the body was dropped.
    pub(crate) fn is_taken_over(&self) -> bool {
        lock(&self.engine).is_none()
    }

    /// Whether a task drives the inner body, or did until its end.
    pub(crate) fn is_driven(&self) -> bool {
        self.driven.load(Ordering::Acquire)
    }

    /// Whether the client was let go, to follow on another node.
    pub(crate) fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }

    /// Returns how long the work goes on without a reader.
    pub(crate) fn may_run_unread(&self) -> Duration {
        match self.route.disconnect {
            Disconnect::Interrupt | Disconnect::Cancel => self.route.grace,
            Disconnect::Detach { at_most } => at_most,
        }
    }

    /// Returns the end of a stream that had no reader for too long.
    pub(crate) fn end_unread(&self) -> EndRequest {
        match self.route.disconnect {
            Disconnect::Interrupt => EndRequest::Interrupt,
            Disconnect::Cancel => EndRequest::supplied(StreamState::Cancelled, reason::DISCONNECTED),
            Disconnect::Detach { .. } => EndRequest::supplied(StreamState::Failed, reason::DETACH_TIMEOUT),
        }
    }

    /// Whether the work goes on without readers.
    pub(super) fn outlives_readers(&self) -> bool {
        matches!(self.route.disconnect, Disconnect::Detach { .. })
    }
}
