//! The requests of a lane to the store, one at a time, and the changes that their answers make.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;

use super::{
    inner::Inner,
    lane::Lane,
    producing::{EndRequest, Status},
    state::{State, Work},
};
use crate::{
    hooks::recent::RecentClose,
    model::stream::Ending,
    protocol::backoff::Backoff,
    runtime::sync::lock,
    store::{Append, Close, Interrupt, Open, Reopen},
};

/// The shortest and the longest wait of a lane that was refused.
const SOONEST: Duration = Duration::from_millis(20);
const LATEST: Duration = Duration::from_secs(1);

/// The next request of a lane.
pub(crate) enum Op {
    Append(Append),
    Reopen(Box<Reopen>),
    Close(Box<Close>),
    Interrupt(Interrupt),
}

/// The result of claiming a lane.
pub(super) enum Claim {
    /// The caller processes the lane.
    New,
    /// The flusher processes the lane, and the caller has to wake it.
    Hurried,
    /// Another task is already processing the lane.
    Held,
}

/// The events of a batch that was stored.
pub(super) struct Landed {
    pub(super) events: u64,
    pub(super) bytes: usize,
}

impl Lane {
    /// Makes the next request check the state of the stream.
    pub(super) fn request_check(&self) {
        lock(&self.state).checks = true;
    }

    /// Claims the lane for processing.
    pub(super) fn claim(&self) -> Claim {
        let mut state = lock(&self.state);
        let claim = match state.work {
            Work::Idle => Claim::New,
            Work::Unhurried => Claim::Hurried,
            Work::Claimed | Work::Asking => return Claim::Held,
        };
        state.work = Work::Claimed;
        claim
    }

    /// Claims the lane for the flusher without waking it. Returns `false` if the lane is already being processed.
    pub(super) fn claim_unhurried(&self) -> bool {
        let mut state = lock(&self.state);
        let is_new = state.work == Work::Idle;
        if is_new {
            state.work = Work::Unhurried;
        }
        is_new
    }

    /// Returns the next request. `None` ends the claim.
    pub(super) fn next_op(&self) -> Option<Op> {
        let mut state = lock(&self.state);
        let op = self.choose(&mut state);
        state.work = if op.is_some() { Work::Asking } else { Work::Idle };
        op
    }

    fn choose(&self, state: &mut State) -> Option<Op> {
        if state.status != Status::Running {
            return None;
        }
        if state.forgotten {
            return Some(Op::Reopen(Box::new(self.reopen(state))));
        }
        if let Some(flight) = state.next_flight(&self.key, self.epoch, self.entry_limits()) {
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
        let open = Open { started: state.started, metadata: state.metadata.clone(), ..self.registered() };
        let Inner { id: inner_id, retry: inner_retry } = state.inner.clone();
        let since = self.turn().map_or(Duration::ZERO, |begun| begun.age());
        Reopen { open, epoch: self.epoch, acknowledged: state.acknowledged, inner_id, inner_retry, since }
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

    /// Returns the lane's own end, which is stored again if the store loses it.
    pub(super) fn recent_close(&self) -> Option<RecentClose> {
        let state = lock(&self.state);
        let Some(EndRequest::Close(ending)) = &state.end else { return None };
        Some(RecentClose { close: self.close(&state, ending), reopen: self.reopen(&state) })
    }

    /// Notes that no request of this lane is in flight now.
    pub(super) fn end_request(&self) {
        lock(&self.state).work = Work::Claimed;
        self.waits();
    }

    /// Notes that the store did not answer at once, so that the batch in flight counts as waiting from now on.
    pub(super) fn waits(&self) {
        let mut state = lock(&self.state);
        if let Some(flight) = state.flight.as_mut().filter(|flight| !flight.events.is_empty()) {
            flight.since.get_or_insert_with(Instant::now);
        }
    }

    /// Notes that the batch in flight was stored.
    pub(super) fn landed(&self) -> Landed {
        let mut state = lock(&self.state);
        let Some(flight) = state.flight.take() else { return Landed { events: 0, bytes: 0 } };
        let events = flight.events.count;
        if events > 0 {
            state.acknowledged = flight.first + events - 1;
        }
        // An empty append only checks the state of the stream. It does not show that the store takes the end again.
        let refused = (events > 0 || state.end.is_none()) && state.refused.take().is_some();
        if refused || (events > 0 && std::mem::take(&mut state.passed_by)) {
            state.catches_up_to = state.last;
        }
        state.metadata_waits &= flight.metadata != state.metadata;
        let bytes = flight.events.bytes.len();
        self.held.store(state.held(), Ordering::Relaxed);
        drop(state);
        // Read after the lock was released. A producer that left `push` before has already seen the new state.
        if !self.pushing.load(Ordering::Relaxed) {
            self.wake();
        }
        Landed { events, bytes }
    }

    /// Withdraws the lane. Returns `false` if it has a final status or a requested end, and stays as it is.
    pub(super) fn withdraw(&self) -> bool {
        let mut state = lock(&self.state);
        state.withdrawn = state.status == Status::Running && state.end.is_none();
        state.withdrawn
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        lock(&self.state).withdrawn
    }

    /// Notes that the store does not know the stream.
    pub(super) fn forgotten(&self) {
        lock(&self.state).forgotten = true;
    }

    /// Puts off this lane's request, and returns for how long. Other lanes are not affected.
    ///
    /// If the store did not answer (`unknown`), the lane first checks the state of the stream. A store that refuses the
    /// stream answers this check without an error.
    pub(super) fn put_off(&self, unknown: bool) -> Duration {
        let mut state = lock(&self.state);
        state.work = Work::Claimed;
        if unknown {
            state.checks = true;
            state.forgotten = false;
        }
        let backoff = state.refused.get_or_insert_with(|| Box::new(Backoff::new(SOONEST, LATEST)));
        let pause = backoff.failed(crate::runtime::random::u128() as u64);
        drop(state);
        self.wake();
        pause
    }

    pub(super) fn reopened(&self) {
        lock(&self.state).forgotten = false;
    }

    /// Ends recording with this status. Returns the bytes of events and of the end that are no longer held.
    pub(super) fn settle(&self, status: Status) -> (usize, usize) {
        let mut state = lock(&self.state);
        state.status = status;
        // These bytes are returned only once, although the store may still answer a lane that was given up.
        let events = state.held();
        state.pending.clear();
        state.flight = None;
        let end = std::mem::take(&mut state.end_bytes);
        self.held.store(0, Ordering::Relaxed);
        drop(state);
        self.halted.store(true, Ordering::Release);
        self.wake();
        (events, end)
    }
}
