//! One producer's way to the store.

use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    END_COST, Recorder,
    readers::{Bounds, Readers},
    state::{Inner, State},
};
use crate::{
    config::{AHEAD_EVENTS, AHEAD_TIME, BATCH_BYTES, Durability},
    id::{EventId, StreamKey},
    kept::keep,
    protocol::backoff::Backoff,
    recent::RecentClose,
    store::{Append, Close, Interrupt, Open, Reopen},
    stream::{Ended, Ending, Origin, Reason, StreamState},
    sync::{WakerCell, lock},
};

/// How long a lane waits that was refused: at first and at most.
const SOONEST: Duration = Duration::from_millis(20);
const LATEST: Duration = Duration::from_secs(1);

/// Where a producer stands, as far as the store has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It is the stream's producer.
    Running,
    /// It is not any more: a newer run began, or may begin.
    Superseded,
    /// The stream has ended.
    Ended(Ended),
}

/// How a producer goes.
#[derive(Clone, Debug)]
pub(crate) enum EndRequest {
    /// For good.
    Close(Ending),
    /// For now.
    Interrupt,
}

impl EndRequest {
    /// What it is charged while it waits for the store.
    fn bytes(&self) -> usize {
        let event = match self {
            Self::Close(ending) => ending.event.as_ref(),
            Self::Interrupt => None,
        };
        END_COST + event.map_or(0, Bytes::len)
    }

    /// An ending that the library supplies.
    pub(crate) fn supplied(state: StreamState, reason: Reason) -> Self {
        Self::Close(Ending::supplied(state, reason))
    }
}

/// The next request of a lane.
pub(crate) enum Op {
    Append(Append),
    Reopen(Box<Reopen>),
    Close(Box<Close>),
    Interrupt(Interrupt),
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

/// What landed in the store.
pub(super) struct Landed {
    pub(super) events: u64,
    pub(super) bytes: usize,
}

pub(crate) struct Lane {
    pub(crate) key: StreamKey,
    pub(crate) epoch: u64,
    registration: Open,
    hook: Option<Duration>,
    /// The stream could not be registered: nothing is recorded, and its end is final at once.
    unrecorded: bool,
    /// Set once the status is not `Running`: looked at for every event.
    halted: AtomicBool,
    /// The client's body, or the publication, while it waits.
    pub(crate) waker: Arc<WakerCell>,
    /// The task that drives the inner body on, while it waits; and whether there ever was one.
    pub(crate) drive: WakerCell,
    driven: AtomicBool,
    /// Whether the producer is pushing, and so looks at the lane right afterwards.
    pushing: AtomicBool,
    /// How many bytes of its events wait for the store: read where room has to be made.
    held: AtomicUsize,
    /// Who reads the stream on this node.
    pub(crate) readers: Readers,
    state: Mutex<State>,
    producer: Mutex<Option<Weak<dyn Producing>>>,
}

impl Lane {
    /// `hook`: for how long this node has the `on_end` hook to itself, where there is one.
    pub(crate) fn new(mut registration: Open, epoch: u64, hook: Option<Duration>) -> Arc<Self> {
        let state = State::new(registration.started, std::mem::take(&mut registration.metadata));
        Arc::new(Self {
            key: registration.key.clone(),
            epoch,
            registration,
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
            state: Mutex::new(state),
        })
    }

    /// A lane that leads nowhere: for a stream that cannot be registered and goes out unrecorded.
    pub(crate) fn unrecorded(registration: Open) -> Arc<Self> {
        let mut lane = Self::new(registration, 0, None);
        if let Some(lane) = Arc::get_mut(&mut lane) {
            lane.unrecorded = true;
        }
        lane
    }

    /// The last reconnect delay that the inner service set, in milliseconds.
    pub(crate) fn inner_retry(&self) -> Option<u64> {
        lock(&self.state).last_inner.retry
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
    fn wake(&self) {
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
            let by_bytes = state.pushed.floor(BATCH_BYTES as u64, bytes, made);
            (made + 1).saturating_sub(events).max(by_bytes).min(stored)
        };
        Bounds { made, stored, floor: floor(events, bytes), half: floor(events / 2, bytes / 2), events }
    }

    /// Takes events out of the list, gives them the next seqs, and returns the first of these.
    pub(crate) fn push(self: &Arc<Self>, recorder: &Arc<Recorder>, events: &mut Vec<Bytes>, inner: Inner) -> u64 {
        if self.unrecorded {
            let mut state = lock(&self.state);
            let first = state.last + 1;
            state.last += events.len() as u64;
            return first;
        }
        let bytes = events.iter().map(Bytes::len).sum();
        let first = if self.is_halted() || !recorder.room.charge(bytes) {
            self.take_singly(recorder, events, inner)
        } else {
            self.take(recorder, events, bytes, inner)
        };
        let _pushing = Pushing::of(self);
        recorder.ready(self);
        first
    }

    /// Takes events that there is room for.
    fn take(&self, recorder: &Recorder, events: &mut Vec<Bytes>, bytes: usize, inner: Inner) -> u64 {
        let mut state = lock(&self.state);
        let first = state.last + 1;
        state.last += events.len() as u64;
        if state.status != Status::Running {
            recorder.room.refund(bytes);
            return first;
        }
        state.note_inner(inner);
        state.started |= !events.is_empty();
        let last = state.last;
        state.pushed.add(bytes, last, self.registration.retention.max_bytes as u64);
        state.pending_bytes += bytes;
        state.pending.extend(events.drain(..));
        self.holds(&mut state, recorder);
        first
    }

    /// Takes events for which room has to be made. An event for which there is none is made, and missing.
    fn take_singly(&self, recorder: &Recorder, events: &mut Vec<Bytes>, inner: Inner) -> u64 {
        let mut state = lock(&self.state);
        let first = state.last + 1;
        if state.status != Status::Running {
            state.last += events.len() as u64;
            return first;
        }
        state.note_inner(inner);
        drop(state);
        for event in events.drain(..) {
            // Without the lock: room may be made in any lane, this one included.
            let fits = recorder.make_room(self, event.len());
            let mut state = lock(&self.state);
            state.last += 1;
            let last = state.last;
            state.pushed.add(event.len(), last, self.registration.retention.max_bytes as u64);
            state.started = true;
            match (fits, state.status == Status::Running) {
                (true, true) => state.hold(event),
                (true, false) => recorder.room.refund(event.len()),
                (false, _) => recorder.lost(1),
            }
            self.holds(&mut state, recorder);
        }
        first
    }

    /// Events are held, or none any more.
    fn holds(&self, state: &mut State, recorder: &Recorder) {
        self.held.store(state.held(), Ordering::Relaxed);
        // What was lost already is nothing to wait for.
        let waits = state.claimed || !recorder.store.is_immediate();
        if state.pending.is_empty() {
            state.pending_since = None;
        } else if waits {
            state.pending_since.get_or_insert_with(Instant::now);
        }
    }

    /// How many bytes of events are held.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Gives up the oldest events, until no more than so many bytes are held: see [`State::give_up`].
    pub(super) fn give_up(&self, keep: usize) -> (u64, usize) {
        let mut state = lock(&self.state);
        let given_up = state.give_up(keep);
        self.held.store(state.held(), Ordering::Relaxed);
        given_up
    }

    /// The producer began to answer.
    pub(crate) fn start(self: &Arc<Self>, recorder: &Arc<Recorder>) {
        if self.unrecorded {
            return;
        }
        {
            let mut state = lock(&self.state);
            state.starts |= !std::mem::replace(&mut state.started, true);
        }
        recorder.ready(self);
    }

    /// Keeps something with the stream. The error is how many bytes it would be, where that is too much.
    pub(crate) fn keep(self: &Arc<Self>, recorder: &Arc<Recorder>, key: String, value: String) -> Result<(), usize> {
        if self.unrecorded {
            return Ok(());
        }
        {
            let mut state = lock(&self.state);
            state.metadata_waits |= keep(&mut state.metadata, key, value)?;
        }
        recorder.ready(self);
        Ok(())
    }

    /// The producer goes. What was pushed before is recorded before. The first word counts: `false` if this is not it.
    pub(crate) fn end(self: &Arc<Self>, recorder: &Arc<Recorder>, end: EndRequest) -> bool {
        {
            let mut state = lock(&self.state);
            if state.end.is_some() || state.status != Status::Running {
                return false;
            }
            if self.unrecorded {
                state.status = self.ended_by(&end, state.last);
                state.end = Some(end);
                drop(state);
                self.halted.store(true, Ordering::Release);
                self.waker.wake();
                return true;
            }
            state.end_bytes = end.bytes();
            state.end_since = Some(Instant::now());
            state.end = Some(end);
            // Held whether there is room for it or not: an end is lost by nobody (guarantee G3), and each stream has but
            // one.
            recorder.room.charge_end(state.end_bytes);
        }
        recorder.fit();
        recorder.ready(self);
        true
    }

    /// Whether the end was tried for as long as it could be recovered.
    pub(super) fn is_hopeless(&self) -> bool {
        let state = lock(&self.state);
        let window = self.registration.retention.recovery_window;
        state.status == Status::Running && state.end_since.is_some_and(|since| since.elapsed() >= window)
    }

    /// How the stream stands after an end that no store has a say in.
    fn ended_by(&self, end: &EndRequest, last: u64) -> Status {
        match end {
            EndRequest::Interrupt => Status::Superseded,
            EndRequest::Close(ending) => Status::Ended(Ended {
                ending: ending.clone(),
                id: EventId::terminal(self.epoch),
                last: EventId::new(self.epoch, last),
                at: 0,
            }),
        }
    }

    /// Whether the producer's end was requested already.
    pub(crate) fn is_ending(&self) -> bool {
        lock(&self.state).end.is_some()
    }

    /// How the producer goes, once that was requested.
    pub(crate) fn requested_end(&self) -> Option<EndRequest> {
        lock(&self.state).end.clone()
    }

    /// The end that the producer has requested, as it will be stored unless another one was stored before.
    pub(crate) fn own_end(&self) -> Option<Ended> {
        let state = lock(&self.state);
        let Some(EndRequest::Close(ending)) = &state.end else { return None };
        let last = EventId::new(self.epoch, state.last);
        Some(Ended { ending: ending.clone(), id: EventId::terminal(self.epoch), last, at: 0 })
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
            Status::Ended(ended) if ended.ending.state == StreamState::Orphaned || state.end.is_some() => {
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
        let since = state.flight_since.or(state.pending_since);
        let fresh = since.is_none_or(|since| since.elapsed() < AHEAD_TIME);
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

    /// How many events wait for a store that can be waited for.
    pub(crate) fn unacknowledged(&self) -> u64 {
        let state = lock(&self.state);
        if state.refused.is_some() || state.passed_by { 0 } else { state.waiting() }
    }

    /// Asks the store how the stream stands, with the next request.
    pub(super) fn look(&self) {
        lock(&self.state).looks = true;
    }

    /// Whether the caller is to work the lane off.
    pub(super) fn claim(&self) -> bool {
        let mut state = lock(&self.state);
        !std::mem::replace(&mut state.claimed, true)
    }

    /// The next request; `None` gives the claim back.
    pub(super) fn next_op(&self) -> Option<Op> {
        let mut state = lock(&self.state);
        let op = self.choose(&mut state);
        state.claimed = op.is_some();
        state.in_the_air = op.is_some();
        op
    }

    fn choose(&self, state: &mut State) -> Option<Op> {
        if state.status != Status::Running {
            return None;
        }
        if state.forgotten {
            return Some(Op::Reopen(Box::new(self.reopen(state))));
        }
        if let Some(flight) = state.next_flight(&self.key, self.epoch) {
            return Some(Op::Append(flight));
        }
        match &state.end {
            None => None,
            Some(EndRequest::Interrupt) => {
                let (key, last) = (self.key.clone(), Some(state.last));
                Some(Op::Interrupt(Interrupt { key, epoch: self.epoch, last, if_deadline: None }))
            }
            Some(EndRequest::Close(ending)) => Some(Op::Close(Box::new(self.close(state, ending)))),
        }
    }

    fn reopen(&self, state: &State) -> Reopen {
        let open = Open { started: state.started, metadata: state.metadata.clone(), ..self.registration.clone() };
        let Inner { id: inner_id, retry: inner_retry } = state.last_inner.clone();
        Reopen { open, epoch: self.epoch, acknowledged: state.acknowledged, inner_id, inner_retry }
    }

    fn close(&self, state: &State, ending: &Ending) -> Close {
        Close {
            key: self.key.clone(),
            epoch: Some(self.epoch),
            ending: ending.clone(),
            last: Some(state.last),
            if_deadline: None,
            hook: self.hook,
        }
    }

    /// The lane's own end, to be said again should the store lose it.
    pub(super) fn recent_close(&self) -> Option<RecentClose> {
        let state = lock(&self.state);
        let Some(EndRequest::Close(ending)) = &state.end else { return None };
        Some(RecentClose { close: self.close(&state, ending), reopen: self.reopen(&state) })
    }

    /// The store is asked nothing for this lane now.
    pub(super) fn rests(&self) {
        lock(&self.state).in_the_air = false;
        self.waits();
    }

    /// The store did not answer at once: what was sent waits from now on.
    pub(super) fn waits(&self) {
        let mut state = lock(&self.state);
        if state.flight.as_ref().is_some_and(|flight| !flight.events.is_empty()) {
            state.flight_since.get_or_insert_with(Instant::now);
        }
    }

    /// The batch in flight is stored.
    pub(super) fn landed(&self) -> Landed {
        let mut state = lock(&self.state);
        let Some(flight) = state.flight.take() else { return Landed { events: 0, bytes: 0 } };
        let events = flight.events.len() as u64;
        if events > 0 {
            state.acknowledged = flight.first + events - 1;
        }
        // A look before an end is tried again says nothing of the end.
        let refused = (events > 0 || state.end.is_none()) && state.refused.take().is_some();
        if refused || (events > 0 && std::mem::take(&mut state.passed_by)) {
            state.catches_up_to = state.last;
        }
        state.flight_since = None;
        state.metadata_waits &= flight.metadata != state.metadata;
        let bytes = std::mem::take(&mut state.flight_bytes);
        self.held.store(state.held(), Ordering::Relaxed);
        drop(state);
        // Read after the state was locked: a producer that was done before has seen what landed.
        if !self.pushing.load(Ordering::Relaxed) {
            self.wake();
        }
        Landed { events, bytes }
    }

    /// Whether the lane can be withdrawn: its producer never began, and it has neither settled nor been given an end.
    pub(super) fn withdraw(&self) -> bool {
        let mut state = lock(&self.state);
        state.withdrawn = state.status == Status::Running && state.end.is_none();
        state.withdrawn
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        lock(&self.state).withdrawn
    }

    /// The store does not know the stream.
    pub(super) fn forgotten(&self) {
        lock(&self.state).forgotten = true;
    }

    /// What was asked for this stream is to be asked again, after a while that is returned; others' is not
    /// concerned. `unknown`: it was not answered, so the stream is looked at first, which is no error where
    /// the store refuses it.
    pub(super) fn put_off(&self, unknown: bool) -> Duration {
        let mut state = lock(&self.state);
        state.in_the_air = false;
        if unknown {
            state.looks = true;
            state.forgotten = false;
        }
        let backoff = state.refused.get_or_insert_with(|| Box::new(Backoff::new(SOONEST, LATEST)));
        let pause = backoff.failed(crate::random::u128() as u64);
        drop(state);
        self.wake();
        pause
    }

    pub(super) fn reopened(&self) {
        lock(&self.state).forgotten = false;
    }

    /// Nothing more is recorded. Returns the bytes of events, and of the end, that are held no more.
    pub(super) fn settle(&self, status: Status) -> (usize, usize) {
        let mut state = lock(&self.state);
        state.status = status;
        state.pending.clear();
        state.pending_since = None;
        state.flight = None;
        state.flight_since = None;
        // Given back once: a lane that was given up may still hear from the store.
        let events = std::mem::take(&mut state.pending_bytes) + std::mem::take(&mut state.flight_bytes);
        let end = std::mem::take(&mut state.end_bytes);
        self.held.store(0, Ordering::Relaxed);
        drop(state);
        self.halted.store(true, Ordering::Release);
        self.wake();
        (events, end)
    }
}

/// A producer that pushes: it needs no waking for what lands at once.
struct Pushing<'a>(&'a Lane);

impl<'a> Pushing<'a> {
    fn of(lane: &'a Lane) -> Self {
        lane.pushing.store(true, Ordering::Relaxed);
        Self(lane)
    }
}

impl Drop for Pushing<'_> {
    fn drop(&mut self) {
        self.0.pushing.store(false, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("key", &self.key).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}
