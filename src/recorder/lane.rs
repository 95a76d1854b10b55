//! One producer's way to the store.

use std::{
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    END_COST,
    begun::Begun,
    readers::{Bounds, Readers},
    registration::Registration,
    state::{EntryLimits, State},
};
use crate::{
    model::{
        config::{AHEAD_BYTES, AHEAD_EVENTS, AHEAD_TIME, Durability, ENTRY_BYTES, ENTRY_SHARE},
        id::{EventId, StreamId, StreamKey},
        kept::KeptHeaders,
        stream::{Ended, Ending, Origin, Reason, StreamState},
    },
    runtime::sync::{WakerCell, lock},
    store::{Open, Retention},
    wire::frame::FrameWriter,
};

/// Where a producer stands, as far as the store has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It is the stream's producer.
    Running,
    /// It is not any more: a newer run began, or may begin.
    Superseded,
    /// The stream has ended. Boxed: most lanes run.
    Ended(Box<Ended>),
}

/// How a producer goes.
#[derive(Clone, Debug)]
pub(crate) enum EndRequest {
    /// For good. Boxed: a producer has one at most, at its end.
    Close(Box<Ending>),
    /// For now.
    Interrupt,
}

impl EndRequest {
    /// Bytes that it is charged while it waits for the store.
    pub(super) fn bytes(&self) -> usize {
        let event = match self {
            Self::Close(ending) => ending.event.as_ref(),
            Self::Interrupt => None,
        };
        END_COST + event.map_or(0, Bytes::len)
    }

    pub(crate) fn close(ending: Ending) -> Self {
        Self::Close(Box::new(ending))
    }

    /// An ending that the library supplies.
    pub(crate) fn supplied(state: StreamState, reason: Reason) -> Self {
        Self::close(Ending::supplied(state, reason))
    }
}

/// The code that makes events: what a lane can tell it.
pub(crate) trait Producing: Send + Sync {
    /// The stream ended or went to another producer: the inner code is to be dropped, unless it is
    /// to be served to its end. Called on the executor.
    fn halted(self: Arc<Self>);

    /// The process goes down: where the work outlives its client, that is let go. Called on the executor.
    fn release(self: Arc<Self>);

    /// The inner code is to be dropped, however the stream stands. Called on the executor.
    fn discard(self: Arc<Self>);

    /// Whether the stream never finishes, so that nothing is gained by waiting for its end.
    fn is_endless(&self) -> bool {
        false
    }
}

/// What was last known of readers on other nodes.
#[derive(Default)]
struct Elsewhere {
    is_read: bool,
    /// When nothing could be known last, while they read.
    blind: Option<Instant>,
}

/// How long readers on other nodes have, after an outage, to say that they read.
const RETURNS: Duration = Duration::from_secs(10);

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

    /// How far the producer may go ahead of its readers, so that none is overtaken by more than the log holds.
    pub(crate) fn bounds(&self) -> Bounds {
        let retention = &self.registration.retention;
        // A store may cut an eighth more than it must, so as not to cut with each batch.
        let held = |max: usize| (max - max / 8) as u64;
        let (events, bytes) = (held(retention.max_events), held(retention.max_bytes));
        let state = lock(&self.state);
        let (made, stored) = (state.last, state.acknowledged);
        let floor = |events: u64, bytes: u64| {
            let by_bytes = state.pushed.floor(ENTRY_BYTES.min(retention.max_bytes / ENTRY_SHARE) as u64, bytes, made);
            (made + 1).saturating_sub(events).max(by_bytes).min(stored)
        };
        Bounds { made, stored, floor: floor(events, bytes), half: floor(events / 2, bytes / 2), events }
    }

    /// Whether the stream is read on another node: as far as is known, or, while nothing can be known and for a moment after
    /// that, as it was before. Returns also what was last said of it.
    pub(crate) fn is_read_elsewhere(&self, follows: bool, blind: bool) -> (bool, bool) {
        let mut elsewhere = lock(&self.elsewhere);
        let was = elsewhere.is_read;
        if follows {
            *elsewhere = Elsewhere { is_read: true, blind: None };
        } else if blind && elsewhere.is_read {
            elsewhere.blind = Some(Instant::now());
        } else if elsewhere.blind.is_none_or(|at| at.elapsed() >= RETURNS) {
            *elsewhere = Elsewhere::default();
        }
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

    /// Up to which seq events may be delivered now.
    pub(crate) fn deliverable(&self, durability: Durability) -> u64 {
        if self.unrecorded {
            return u64::MAX;
        }
        let state = lock(&self.state);
        match &state.status {
            Status::Running => {}
            // Served to its end, unrecorded; and what was made before its own end is part of the stream.
            Status::Ended(ended)
                if ended.ending.state == StreamState::Orphaned
                    || (state.end.is_some() && ended.last >= EventId::new(self.epoch, state.last)) =>
            {
                return u64::MAX;
            }
            // Cut off by somebody else: what is not in the log by now is not part of the stream.
            Status::Ended(_) | Status::Superseded => return state.acknowledged,
        }
        if state.refused.is_some() || state.passed_by || state.acknowledged < state.catches_up_to {
            return u64::MAX;
        }
        if state.metadata_waits {
            return 0;
        }
        if state.waiting() == 0 {
            return u64::MAX;
        }
        let since = state.flight.as_ref().and_then(|flight| flight.since).or(state.pending_since);
        let fresh = since.is_none_or(|since| since.elapsed() < AHEAD_TIME) && state.held() <= AHEAD_BYTES;
        match durability {
            Durability::Buffered if fresh => state.acknowledged + AHEAD_EVENTS,
            _ => state.acknowledged,
        }
    }

    /// The store is not waited for: what waits goes out, and so does all that is made until the store has caught up.
    pub(crate) fn pass_by(&self) {
        let mut state = lock(&self.state);
        state.passed_by |= state.waiting() > 0;
    }

    /// How many events may be made before the store must have acknowledged some, but for a single larger one; no limit where it is
    /// not waited for.
    pub(crate) fn room_ahead(&self) -> u64 {
        let state = lock(&self.state);
        let waits = state.waiting();
        if state.refused.is_some() || state.passed_by {
            return u64::MAX;
        }
        if waits > 1 && state.held() > AHEAD_BYTES { 0 } else { AHEAD_EVENTS.saturating_sub(waits) }
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("key", &self.key).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}
