//! One producer's way to the store.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{END_COST, Recorder};
use crate::{
    config::{AHEAD_EVENTS, AHEAD_TIME, BATCH_BYTES, BATCH_EVENTS, Durability},
    id::{EventId, StreamKey},
    protocol::backoff::Backoff,
    recent::RecentClose,
    store::{Append, Close, Interrupt, Open, Reopen},
    stream::{Ended, Ending, Metadata, Reason, StreamState},
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
    /// Set once the status is not `Running`: looked at for every event.
    halted: AtomicBool,
    /// The producer, while it waits.
    pub(crate) waker: Arc<WakerCell>,
    /// Whether the producer is pushing, and so looks at the lane right afterwards.
    pushing: AtomicBool,
    /// How many read the stream on this node.
    pub(crate) followers: AtomicUsize,
    state: Mutex<State>,
    producer: Mutex<Option<Weak<dyn Producing>>>,
}

struct State {
    status: Status,
    /// Whether somebody works the lane off, or will.
    claimed: bool,
    /// The last seq that was given.
    last: u64,
    /// Everything up to here is stored or lost.
    acknowledged: u64,
    pending: VecDeque<Bytes>,
    pending_bytes: usize,
    /// A batch that was sent, and is sent again unchanged until an answer comes.
    flight: Option<Append>,
    flight_bytes: usize,
    /// Since when the oldest pending event waits, and the oldest one in flight.
    pending_since: Option<Instant>,
    flight_since: Option<Instant>,
    /// Something to say apart from events: that the producer began, metadata, an inner id, or "how do I stand?".
    news: bool,
    metadata: Metadata,
    inner_id: Option<String>,
    /// The last inner id there was, sent or not.
    last_inner_id: Option<String>,
    /// Whether metadata is not acknowledged yet: until then nothing may be delivered.
    metadata_waits: bool,
    forgotten: bool,
    /// The store refuses this stream, or did not answer what only this stream asked: until something lands,
    /// nobody waits for it.
    refused: Option<Box<Backoff>>,
    /// Events went out that the store had not acknowledged, since nobody waited for it any more: until something lands,
    /// nobody does.
    passed_by: bool,
    /// What was made before the stream was written again went out unrecorded: up to here nothing waits.
    catches_up_to: u64,
    end: Option<EndRequest>,
}

impl Lane {
    /// `hook`: for how long this node has the `on_end` hook to itself, where there is one.
    pub(crate) fn new(registration: Open, epoch: u64, hook: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            key: registration.key.clone(),
            epoch,
            registration,
            hook,
            halted: AtomicBool::new(false),
            waker: Arc::default(),
            pushing: AtomicBool::new(false),
            producer: Mutex::new(None),
            followers: AtomicUsize::new(0),
            state: Mutex::new(State {
                status: Status::Running,
                claimed: false,
                last: 0,
                acknowledged: 0,
                pending: VecDeque::new(),
                pending_bytes: 0,
                flight: None,
                flight_bytes: 0,
                pending_since: None,
                flight_since: None,
                news: false,
                metadata: Metadata::new(),
                inner_id: None,
                last_inner_id: None,
                metadata_waits: false,
                forgotten: false,
                refused: None,
                passed_by: false,
                catches_up_to: 0,
                end: None,
            }),
        })
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

    /// Takes events out of the list, gives them the next seqs, and returns the first of these.
    pub(crate) fn push(
        self: &Arc<Self>,
        recorder: &Arc<Recorder>,
        events: &mut Vec<Bytes>,
        inner_id: Option<String>,
    ) -> u64 {
        let first = {
            let mut state = lock(&self.state);
            let first = state.last + 1;
            state.last += events.len() as u64;
            if state.status != Status::Running {
                return first;
            }
            if inner_id.is_some() {
                state.last_inner_id.clone_from(&inner_id);
                state.inner_id = inner_id;
            }
            state.take(recorder, events);
            // What was lost already is nothing to wait for.
            let waits = state.claimed || !recorder.store.is_immediate();
            if state.pending.is_empty() {
                state.pending_since = None;
            } else if waits {
                state.pending_since.get_or_insert_with(Instant::now);
            }
            first
        };
        let _pushing = Pushing::of(self);
        recorder.ready(self);
        first
    }

    /// The producer began to answer.
    pub(crate) fn start(self: &Arc<Self>, recorder: &Arc<Recorder>) {
        lock(&self.state).news = true;
        recorder.ready(self);
    }

    /// Keeps something with the stream.
    pub(crate) fn keep(self: &Arc<Self>, recorder: &Arc<Recorder>, key: String, value: String) {
        {
            let mut state = lock(&self.state);
            state.metadata.push((key, value));
            state.metadata_waits = true;
        }
        recorder.ready(self);
    }

    /// The producer goes; the first word counts. What was pushed before is recorded before.
    pub(crate) fn end(self: &Arc<Self>, recorder: &Arc<Recorder>, end: EndRequest) {
        {
            let mut state = lock(&self.state);
            if state.end.is_some() || state.status != Status::Running {
                return;
            }
            // Room for it is made among the stream's own events. Where other streams' take it all it is held
            // nonetheless: an end is lost by nobody (guarantee G3), and each stream has but one.
            while !recorder.charge(END_COST) {
                if !state.lose_oldest(recorder) {
                    recorder.charge_beyond(END_COST);
                    break;
                }
            }
            state.end = Some(end);
        }
        recorder.ready(self);
    }

    /// Whether the producer's end was requested already.
    pub(crate) fn is_ending(&self) -> bool {
        lock(&self.state).end.is_some()
    }

    /// Up to which seq events may be delivered now.
    pub(crate) fn deliverable(&self, durability: Durability) -> u64 {
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
        lock(&self.state).news = true;
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
        let mut open = Open { started: true, ..self.registration.clone() };
        // What was kept later stands for what was kept before under the same key.
        open.metadata.retain(|(key, _)| !state.metadata.iter().any(|(kept, _)| kept == key));
        open.metadata.extend(state.metadata.iter().cloned());
        let inner_id = state.last_inner_id.clone();
        Reopen { open, epoch: self.epoch, acknowledged: state.acknowledged, inner_id }
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
        state.metadata_waits &= state.metadata_is_newer(&flight);
        let bytes = std::mem::take(&mut state.flight_bytes);
        drop(state);
        // Read after the state was locked: a producer that was done before has seen what landed.
        if !self.pushing.load(Ordering::Relaxed) {
            self.waker.wake();
        }
        Landed { events, bytes }
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
        if unknown {
            state.news = true;
            state.forgotten = false;
        }
        let backoff = state.refused.get_or_insert_with(|| Box::new(Backoff::new(SOONEST, LATEST)));
        let pause = backoff.failed(crate::random::u128() as u64);
        drop(state);
        self.waker.wake();
        pause
    }

    pub(super) fn reopened(&self) {
        lock(&self.state).forgotten = false;
    }

    /// Nothing more is recorded. Returns the bytes that are held no more.
    pub(super) fn settle(&self, status: Status) -> usize {
        let mut state = lock(&self.state);
        // Given back once: a lane that was given up may still hear from the store.
        let charged = state.end.is_some() && state.status == Status::Running;
        state.status = status;
        state.pending.clear();
        state.pending_since = None;
        state.flight = None;
        state.flight_since = None;
        let end = if charged { END_COST } else { 0 };
        let dropped = std::mem::take(&mut state.pending_bytes) + std::mem::take(&mut state.flight_bytes) + end;
        drop(state);
        self.halted.store(true, Ordering::Release);
        self.waker.wake();
        dropped
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

impl State {
    /// How many events wait for the store, or for its answer.
    fn waiting(&self) -> u64 {
        (self.pending.len() + self.flight.as_ref().map_or(0, |flight| flight.events.len())) as u64
    }

    /// Holds events until they are stored; where there is no room, the oldest that wait are lost.
    fn take(&mut self, recorder: &Recorder, events: &mut Vec<Bytes>) {
        let bytes = events.iter().map(Bytes::len).sum();
        if !self.charge(recorder, bytes) {
            return events.drain(..).for_each(|event| self.take_singly(recorder, event));
        }
        self.pending_bytes += bytes;
        self.pending.extend(events.drain(..));
    }

    /// What is refused leaves half of the room to what is not.
    fn charge(&self, recorder: &Recorder, bytes: usize) -> bool {
        let limit = if self.refused.is_some() { recorder.max_held / 2 } else { recorder.max_held };
        recorder.charge_up_to(limit, bytes)
    }

    fn take_singly(&mut self, recorder: &Recorder, event: Bytes) {
        while !self.charge(recorder, event.len()) {
            if !self.lose_oldest(recorder) {
                // Not even the event alone fits: it is made, and missing.
                recorder.lost(1);
                return;
            }
        }
        self.pending_bytes += event.len();
        self.pending.push_back(event);
    }

    /// Gives up the oldest event that waits. `false`: none does.
    fn lose_oldest(&mut self, recorder: &Recorder) -> bool {
        let Some(oldest) = self.pending.pop_front() else { return false };
        self.pending_bytes -= oldest.len();
        recorder.refund(oldest.len());
        recorder.lost(1);
        true
    }

    /// The batch to send: the one that has no answer yet, or a new one of what waits.
    fn next_flight(&mut self, key: &StreamKey, epoch: u64) -> Option<Append> {
        if self.flight.is_none() {
            if self.pending.is_empty() && !self.news && !self.metadata_waits {
                return None;
            }
            // What waits is the newest: whatever is missing in between is lost.
            let first = self.last + 1 - self.pending.len() as u64;
            let events = self.take_batch();
            self.news = false;
            self.flight_since = if events.is_empty() { None } else { self.pending_since };
            if self.pending.is_empty() {
                self.pending_since = None;
            }
            let inner_id = self.inner_id.take();
            let metadata = if self.metadata_waits { self.metadata.clone() } else { Metadata::new() };
            self.flight = Some(Append { key: key.clone(), epoch, starts: true, first, events, inner_id, metadata });
        }
        self.flight.clone()
    }

    fn take_batch(&mut self) -> Vec<Bytes> {
        let mut bytes = 0;
        let fits = |event: &&Bytes| {
            bytes += event.len();
            bytes <= BATCH_BYTES
        };
        let count = self.pending.iter().take(BATCH_EVENTS).take_while(fits).count().max(1).min(self.pending.len());
        let events: Vec<_> = if count == self.pending.len() {
            std::mem::take(&mut self.pending).into()
        } else {
            self.pending.drain(..count).collect()
        };
        self.flight_bytes = events.iter().map(Bytes::len).sum();
        self.pending_bytes -= self.flight_bytes;
        events
    }

    fn metadata_is_newer(&self, flight: &Append) -> bool {
        flight.metadata.len() < self.metadata.len()
    }
}
