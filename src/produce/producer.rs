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

/// An engine, shared between the client's body and those who may take it over.
pub(crate) struct Producer<B> {
    pub(crate) node: Arc<Node>,
    pub(crate) route: Arc<Route>,
    pub(crate) lane: Arc<Lane>,
    pub(super) engine: Mutex<Option<Engine<B>>>,
    /// A task drives the engine, or did: what the client has not read is in the log.
    pub(super) driven: AtomicBool,
    /// The inner body is to be dropped, whoever drives it.
    discarded: AtomicBool,
    /// The client was let go, to follow on another node.
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
    pub(super) fn outlives_readers(&self) -> bool {
        matches!(self.route.disconnect, Disconnect::Detach { .. })
    }
}
