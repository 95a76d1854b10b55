//! One producer's way to the store.

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
    /// The stream could not be registered: nothing is recorded, and its end is final at once.
    pub(super) unrecorded: bool,
    /// Set once the status is not `Running`: looked at for every event.
    pub(super) halted: AtomicBool,
    /// The client's body, or the publication, while it waits.
    pub(crate) waker: Arc<WakerCell>,
    /// The waker of the task that drives the inner body on; and whether there ever was such a task.
    pub(crate) drive: WakerCell,
    pub(super) driven: AtomicBool,
    /// Whether the producer is pushing, and so looks at the lane right afterwards.
    pub(super) pushing: AtomicBool,
    /// How many bytes of its events wait for the store: read where room has to be made.
    pub(super) held: AtomicUsize,
    /// The stream's readers on this node.
    pub(crate) readers: Readers,
    elsewhere: Mutex<Elsewhere>,
    /// The turn of a conversation that the stream is, once it is named so.
    turn: OnceLock<Arc<Begun>>,
    /// The headers of the response that its route keeps, once the inner service has answered.
    headers: OnceLock<KeptHeaders>,
    pub(super) state: Mutex<State>,
    pub(super) producer: Mutex<Option<Weak<dyn Producing>>>,
}

impl Lane {
    /// `retention`: the registration's, as the lanes of a route share it. `hook`: for how long this node has the `on_end` hook to itself, where there is one.
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

    /// A lane without a store behind it, for a stream that cannot be registered and goes out unrecorded.
    pub(crate) fn unrecorded(registration: Open, retention: &Arc<Retention>) -> Arc<Self> {
        let mut lane = Self::new(registration, retention, 0, None);
        if let Some(lane) = Arc::get_mut(&mut lane) {
            lane.unrecorded = true;
        }
        lane
    }

    /// How much an entry of the stream's log may hold.
    pub(crate) fn entry_limits(&self) -> EntryLimits {
        EntryLimits::of(&self.registration.retention)
    }

    /// Writes the stream's events.
    pub(crate) fn writer(&self) -> FrameWriter {
        if self.unrecorded {
            return FrameWriter::without_ids();
        }
        FrameWriter::new(self.prefix())
    }

    /// What stands before every id of the stream's events: its own, where the library made that up.
    pub(crate) fn prefix(&self) -> Option<StreamId> {
        (self.registration.origin == Origin::Generated).then(|| self.key.id.clone())
    }

    /// The last reconnect delay that the inner service set, in milliseconds.
    pub(crate) fn inner_retry(&self) -> Option<u64> {
        lock(&self.state).inner.retry
    }

    /// The turn of a conversation that the stream is.
    pub(crate) fn turn(&self) -> Option<&Arc<Begun>> {
        self.turn.get()
    }

    /// Names the stream's turn; `false` if it is one already.
    pub(crate) fn set_turn(&self, turn: Arc<Begun>) -> bool {
        self.turn.set(turn).is_ok()
    }

    /// The headers of the response that the stream's route keeps.
    pub(crate) fn headers(&self) -> &KeptHeaders {
        let none = if self.registration.awaits_headers { &KeptHeaders::Awaited } else { &KeptHeaders::None };
        self.headers.get().unwrap_or(none)
    }

    /// The inner service has answered. Returns whether its headers are still to be stored.
    pub(crate) fn keep_headers(&self, headers: KeptHeaders) -> bool {
        self.registration.awaits_headers && self.headers.set(headers).is_ok()
    }

    /// The stream's registration, with what has been said of it since: for a stream that is there already.
    pub(crate) fn registered(&self) -> Open {
        self.registration.again(self.key.clone(), self.turn().map(|turn| turn.turn()), self.headers().clone())
    }

    /// Whether nothing of the stream is recorded.
    pub(crate) fn is_unrecorded(&self) -> bool {
        self.unrecorded
    }

    /// Whether the store would take this stream for the one that a request means: a cursor that names a stream opens only
    /// one whose name the library made up, of the request's own kind (guarantee G9).
    pub(crate) fn is_meant_by(&self, origin: Origin, kind: &str) -> bool {
        origin != Origin::Generated || (self.registration.origin == origin && self.registration.kind == kind)
    }

    /// How long and how much is kept of the stream.
    pub(crate) fn retention(&self) -> &Retention {
        &self.registration.retention
    }

    pub(crate) fn reruns(&self) -> bool {
        self.registration.reruns
    }

    /// Says whom to tell that the stream ended elsewhere.
    pub(crate) fn set_producer(&self, producer: Weak<dyn Producing>) {
        *lock(&self.producer) = Some(producer);
    }

    pub(crate) fn producer(&self) -> Option<Arc<dyn Producing>> {
        lock(&self.producer).as_ref().and_then(Weak::upgrade)
    }

    /// A task is about to drive the inner body on: it is woken from now on.
    pub(crate) fn set_driven(&self) {
        self.driven.store(true, Ordering::Release);
    }

    /// Wakes the task that drives the inner body on, if there is one.
    pub(crate) fn wake_drive(&self) {
        if self.driven.load(Ordering::Acquire) {
            self.drive.wake();
        }
    }

    /// Something landed, or the status changed: wakes both who may wait for that.
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

    /// The last event made.
    pub(crate) fn last(&self) -> EventId {
        EventId::new(self.epoch, lock(&self.state).last)
    }

    /// Whether the stream is read on another node: as far as is known, or, while nothing can be known and for a moment after
    /// that, as it was before. Returns also what was last said of it.
    pub(crate) fn is_read_elsewhere(&self, follows: bool, blind: bool) -> (bool, bool) {
        let mut elsewhere = lock(&self.elsewhere);
        let was = elsewhere.note(follows, blind);
        (was, elsewhere.is_read)
    }

    /// What was last said of it.
    pub(crate) fn was_read_elsewhere(&self) -> bool {
        lock(&self.elsewhere).is_read
    }

    /// Whether the producer's end was requested already.
    pub(crate) fn is_ending(&self) -> bool {
        lock(&self.state).end.is_some()
    }

    /// The end that the producer has requested.
    pub(crate) fn requested_end(&self) -> Option<EndRequest> {
        lock(&self.state).end.clone()
    }

    /// The end that the producer has requested, as it will be stored unless another one was stored before.
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
