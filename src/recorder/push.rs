//! The producer's side of a lane: it pushes events and metadata, and reports its start and its end.

use std::sync::{Arc, atomic::Ordering};

use tokio::time::Instant;

use super::{
    inner::Inner,
    lane::Lane,
    producing::{EndRequest, Status},
    state::{State, Work},
    work::Recorder,
};
use crate::{
    model::{
        id::EventId,
        metadata::keep,
        stream::{Ended, Ending, Frame},
    },
    runtime::sync::lock,
};

impl Lane {
    /// Takes events. The seq of the first one is [`next`](Self::next).
    pub(crate) fn push(self: &Arc<Self>, recorder: &Arc<Recorder>, events: Frame, inner: Inner) {
        if self.unrecorded || self.is_halted() {
            lock(&self.state).last += events.count;
            return;
        }
        if recorder.room.charge(events.bytes.len()) {
            self.take(recorder, events, inner);
        } else {
            self.take_into_made_room(recorder, events, inner);
        }
        let _pushing = Pushing::of(self);
        recorder.ready(self);
    }

    /// Returns the seq of the next event.
    pub(crate) fn next(&self) -> u64 {
        lock(&self.state).last + 1
    }

    /// Takes events that are charged to the room.
    fn take(&self, recorder: &Recorder, events: Frame, inner: Inner) {
        let mut state = lock(&self.state);
        let bytes = events.bytes.len();
        state.last += events.count;
        if state.status != Status::Running {
            recorder.room.refund(bytes);
            return;
        }
        self.note(&mut state, &events, inner);
        state.hold(events);
        self.holds(&mut state, recorder);
    }

    /// Makes room for events and takes them. Events without room are lost; their seqs are used up.
    fn take_into_made_room(&self, recorder: &Recorder, events: Frame, inner: Inner) {
        let (count, bytes) = (events.count, events.bytes.len());
        // Called without the state's lock, because room may be made in any lane, including this one.
        let fits = recorder.make_room(self, bytes);
        let mut state = lock(&self.state);
        state.last += count;
        let runs = state.status == Status::Running;
        if runs {
            self.note(&mut state, &events, inner);
        }
        match (fits, runs) {
            (true, true) => state.hold(events),
            (true, false) => recorder.room.refund(bytes),
            (false, _) => recorder.lost(count),
        }
        self.holds(&mut state, recorder);
    }

    /// Notes events that were produced, recorded or not.
    fn note(&self, state: &mut State, events: &Frame, inner: Inner) {
        state.note_inner(inner);
        state.started |= !events.is_empty();
        let last = state.last;
        state.pushed.add(events.bytes.len(), last, self.registration.retention.max_bytes as u64);
    }

    /// Updates the number of held bytes and the time of the oldest pending event.
    fn holds(&self, state: &mut State, recorder: &Recorder) {
        self.held.store(state.held(), Ordering::Relaxed);
        // Lost events are not pending, so nothing waits for them.
        let waits = state.work != Work::Idle || !recorder.store.is_immediate();
        if state.pending.is_empty() {
            state.pending.since = None;
        } else if waits {
            state.pending.since.get_or_insert_with(Instant::now);
        }
    }

    /// Returns how many bytes of events are held.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Gives up the oldest events until at most `keep` bytes are held, see [`State::give_up`].
    pub(super) fn give_up(&self, keep: usize) -> (u64, usize) {
        let mut state = lock(&self.state);
        let given_up = state.give_up(keep);
        self.held.store(state.held(), Ordering::Relaxed);
        given_up
    }

    /// Notes that the producer began to answer. The lane's next request tells the store.
    pub(crate) fn start(&self) {
        if !self.unrecorded {
            let mut state = lock(&self.state);
            state.starts |= !std::mem::replace(&mut state.started, true);
        }
    }

    /// Keeps metadata with the stream. Returns the total number of bytes as an error if it exceeds the limit.
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

    /// Requests the end of the stream, which is recorded after all pushed events. Returns `false` if the stream has a
    /// final status or an end was requested earlier.
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
            // An end is held even without room, because it must never be lost (guarantee G3). Each stream has only one.
            recorder.room.charge_end(state.end_bytes);
        }
        recorder.fit();
        recorder.ready(self);
        true
    }

    /// Whether the end has waited for a whole recovery window.
    pub(super) fn is_end_expired(&self) -> bool {
        let state = lock(&self.state);
        let window = self.registration.retention.recovery_window;
        state.status == Status::Running && state.end_since.is_some_and(|since| since.elapsed() >= window)
    }

    /// Returns the status after an end that no store confirms.
    fn ended_by(&self, end: &EndRequest, last: u64) -> Status {
        match end {
            EndRequest::Interrupt => Status::Superseded,
            EndRequest::Close(ending) => Status::Ended(Box::new(Ended {
                ending: Ending::clone(ending),
                id: EventId::terminal(self.epoch),
                last: EventId::new(self.epoch, last),
                at: 0,
            })),
        }
    }
}

/// Marks the lane of a producer that is pushing. The producer is not woken for batches that are stored meanwhile.
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
