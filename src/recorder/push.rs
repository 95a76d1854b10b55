//! What a lane is told by its producer: events, metadata, that it began, and how it goes.

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
    /// Takes events, whose ids begin with [`Self::next`].
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

    /// The seq of the next event that is pushed.
    pub(crate) fn next(&self) -> u64 {
        lock(&self.state).last + 1
    }

    /// Takes events that there is room for.
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

    /// Takes events for which room has to be made. Those without room keep their seqs and are lost.
    fn take_into_made_room(&self, recorder: &Recorder, events: Frame, inner: Inner) {
        let (count, bytes) = (events.count, events.bytes.len());
        // Without the lock: room may be made in any lane, this one included.
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

    /// What was made, recorded or not.
    fn note(&self, state: &mut State, events: &Frame, inner: Inner) {
        state.note_inner(inner);
        state.started |= !events.is_empty();
        let last = state.last;
        state.pushed.add(events.bytes.len(), last, self.registration.retention.max_bytes as u64);
    }

    /// Events are held, or none any more.
    fn holds(&self, state: &mut State, recorder: &Recorder) {
        self.held.store(state.held(), Ordering::Relaxed);
        // Events that are lost already are not waited for.
        let waits = state.work != Work::Idle || !recorder.store.is_immediate();
        if state.pending.is_empty() {
            state.pending.since = None;
        } else if waits {
            state.pending.since.get_or_insert_with(Instant::now);
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

    /// The producer began to answer: that is said with the next request of the lane.
    pub(crate) fn start(&self) {
        if !self.unrecorded {
            let mut state = lock(&self.state);
            state.starts |= !std::mem::replace(&mut state.started, true);
        }
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

    /// Requests the end of the stream. Events that were pushed before are recorded before it. Returns `false` if an end was requested earlier.
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

    /// Whether the end was tried for a whole recovery window.
    pub(super) fn is_hopeless(&self) -> bool {
        let state = lock(&self.state);
        let window = self.registration.retention.recovery_window;
        state.status == Status::Running && state.end_since.is_some_and(|since| since.elapsed() >= window)
    }

    /// The status after an end that no store confirms.
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
