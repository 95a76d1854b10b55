//! The lane of a producer.

use std::{
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{
    begun::Begun,
    elsewhere::Elsewhere,
    limits::EntryLimits,
    producing::{EndRequest, Producing, Status},
    readers::Readers,
    registration::Registration,
    state::State,
};
use crate::{
    model::{
        id::{EventId, StreamId, StreamKey},
        kept::KeptHeaders,
        stream::{Ended, Ending, Origin},
    },
    runtime::sync::{WakerCell, lock},
    store::{Open, Retention},
    wire::frame::FrameWriter,
};

pub(crate) struct Lane {
    pub(crate) key: StreamKey,
    pub(crate) epoch: u64,
    pub(super) registration: Registration,
    pub(super) hook: Option<Duration>,
    /// Whether the stream could not be registered. Then nothing is recorded, and its end is final at once.
    pub(super) unrecorded: bool,
    /// Set once the status is not `Running`. An atomic, because it is read for every event.
    pub(super) halted: AtomicBool,
    /// The waker of the client's body or the publication.
    pub(crate) waker: Arc<WakerCell>,
    /// The waker of the task that drives the inner body.
    pub(crate) drive: WakerCell,
    /// Whether a task has ever driven the inner body.
    pub(super) driven: AtomicBool,
    /// Whether the producer is in [`push`](Self::push). It checks the lane right afterwards, so it needs no wake.
    pub(super) pushing: AtomicBool,
    /// How many bytes of its events wait for the store. Read by [`Recorder::make_room`](super::Recorder::make_room).
    pub(super) held: AtomicUsize,
    /// The stream's readers on this node.
    pub(crate) readers: Readers,
    /// The stream's readers on other nodes.
    elsewhere: Mutex<Elsewhere>,
    /// The stream's turn in a conversation; unset until the stream is marked as a turn.
    turn: OnceLock<Arc<Begun>>,
    /// The response headers that the stream's route keeps; unset until the inner service has answered.
    headers: OnceLock<KeptHeaders>,
    pub(super) state: Mutex<State>,
    pub(super) producer: Mutex<Option<Weak<dyn Producing>>>,
}

impl Lane {
    /// Creates the lane of a registered stream. `retention` is that of the registration, in the allocation that the
    /// lanes of a route share. `hook` is how long this node leases the `on_end` hook, if there is one.
    pub(crate) fn new(
        mut registration: Open,
        retention: &Arc<Retention>,
        epoch: u64,
        hook: Option<Duration>,
    ) -> Arc<Self> {
        let state = State::new(registration.started, std::mem::take(&mut registration.metadata));
        let headers = OnceLock::new();
        if let KeptHeaders::Kept(_) = &registration.headers {
            let _ = headers.set(registration.headers.clone());
        }
        Arc::new(Self {
            key: registration.key.clone(),
            epoch,
            registration: Registration::of(registration, Arc::clone(retention)),
            hook,
            unrecorded: false,
            halted: AtomicBool::new(false),
            waker: Arc::default(),
            drive: WakerCell::default(),
            driven: AtomicBool::new(false),
            pushing: AtomicBool::new(false),
            producer: Mutex::new(None),
            held: AtomicUsize::new(0),
            readers: Readers::new(),
            elsewhere: Mutex::default(),
            turn: OnceLock::new(),
            headers,
            state: Mutex::new(state),
        })
    }

    /// Creates the lane of a stream that cannot be registered and is served unrecorded.
    pub(crate) fn unrecorded(registration: Open, retention: &Arc<Retention>) -> Arc<Self> {
        let mut lane = Self::new(registration, retention, 0, None);
        if let Some(lane) = Arc::get_mut(&mut lane) {
            lane.unrecorded = true;
        }
        lane
    }

    /// Returns the limits on an entry of the stream's log.
    pub(crate) fn entry_limits(&self) -> EntryLimits {
        EntryLimits::of(&self.registration.retention)
    }

    /// Returns a writer for the stream's events.
    pub(crate) fn writer(&self) -> FrameWriter {
        if self.unrecorded {
            return FrameWriter::without_ids();
        }
        FrameWriter::new(self.prefix())
    }

    /// Returns the prefix of the stream's event ids: the stream's id if the library generated it.
    pub(crate) fn prefix(&self) -> Option<StreamId> {
        (self.registration.origin == Origin::Generated).then(|| self.key.id.clone())
    }

    /// Returns the last reconnect delay that the inner service set, in milliseconds.
    pub(crate) fn inner_retry(&self) -> Option<u64> {
        lock(&self.state).inner.retry
    }

    /// Returns the stream's turn in a conversation.
    pub(crate) fn turn(&self) -> Option<&Arc<Begun>> {
        self.turn.get()
    }

    /// Marks the stream as a turn, unless it is one already.
    pub(crate) fn set_turn(&self, turn: Arc<Begun>) {
        let _ = self.turn.set(turn);
    }

    /// Returns the response headers that the stream's route keeps.
    pub(crate) fn headers(&self) -> &KeptHeaders {
        let none = if self.registration.awaits_headers { &KeptHeaders::Awaited } else { &KeptHeaders::None };
        self.headers.get().unwrap_or(none)
    }

    /// Keeps the headers of the inner service's response, which the route awaits.
    pub(crate) fn keep_headers(&self, headers: KeptHeaders) {
        let _ = self.headers.set(headers);
    }

    /// Returns the stream's registration with its current turn and headers, as a request that creates no stream.
    pub(crate) fn registered(&self) -> Open {
        self.registration.again(self.key.clone(), self.turn().map(|turn| turn.turn()), self.headers().clone())
    }

    /// Whether the stream is served unrecorded.
    pub(crate) fn is_unrecorded(&self) -> bool {
        self.unrecorded
    }

    /// Whether the store would open this stream for a request. A cursor that names a stream opens only a stream of the
    /// request's kind whose id the library generated (guarantee G9).
    pub(crate) fn is_meant_by(&self, origin: Origin, kind: &str) -> bool {
        origin != Origin::Generated || (self.registration.origin == origin && self.registration.kind == kind)
    }

    /// Returns how much of the stream is kept, and for how long.
    pub(crate) fn retention(&self) -> &Retention {
        &self.registration.retention
    }

    pub(crate) fn reruns(&self) -> bool {
        self.registration.reruns
    }

    /// Sets the producer, which is notified if the stream ends elsewhere.
    pub(crate) fn set_producer(&self, producer: Weak<dyn Producing>) {
        *lock(&self.producer) = Some(producer);
    }

    pub(crate) fn producer(&self) -> Option<Arc<dyn Producing>> {
        lock(&self.producer).as_ref().and_then(Weak::upgrade)
    }

    /// Notes that a task is about to drive the inner body, so that [`wake`](Self::wake) wakes it from now on.
    pub(crate) fn set_driven(&self) {
        self.driven.store(true, Ordering::Release);
    }

    /// Wakes the task that drives the inner body, if there is one.
    pub(crate) fn wake_drive(&self) {
        if self.driven.load(Ordering::Acquire) {
            self.drive.wake();
        }
    }

    /// Wakes the client's body and the task that drives the inner body, after a batch was stored or the status changed.
    pub(super) fn wake(&self) {
        self.waker.wake();
        self.wake_drive();
    }

    pub(crate) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Acquire)
    }

    pub(crate) fn status(&self) -> Status {
        lock(&self.state).status.clone()
    }

    /// Returns the id of the last event produced.
    pub(crate) fn last(&self) -> EventId {
        EventId::new(self.epoch, lock(&self.state).last)
    }

    /// Notes whether other nodes follow the stream. Returns whether the stream was read elsewhere before, and whether
    /// it is now.
    ///
    /// While the store cannot tell (`blind`), and for a moment after that, the earlier state stays.
    pub(crate) fn is_read_elsewhere(&self, follows: bool, blind: bool) -> (bool, bool) {
        let mut elsewhere = lock(&self.elsewhere);
        let was = elsewhere.note(follows, blind);
        (was, elsewhere.is_read)
    }

    /// Whether the stream was read on another node when that was last noted.
    pub(crate) fn was_read_elsewhere(&self) -> bool {
        lock(&self.elsewhere).is_read
    }

    /// Whether an end was requested.
    pub(crate) fn is_ending(&self) -> bool {
        lock(&self.state).end.is_some()
    }

    /// Returns the requested end.
    pub(crate) fn requested_end(&self) -> Option<EndRequest> {
        lock(&self.state).end.clone()
    }

    /// Returns the requested end as the store will keep it, unless another end was stored first.
    pub(crate) fn own_end(&self) -> Option<Ended> {
        let state = lock(&self.state);
        let Some(EndRequest::Close(ending)) = &state.end else { return None };
        let last = EventId::new(self.epoch, state.last);
        Some(Ended { ending: Ending::clone(ending), id: EventId::terminal(self.epoch), last, at: 0 })
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("key", &self.key).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}
