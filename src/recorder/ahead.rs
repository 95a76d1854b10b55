//! Limits how far a producer may go ahead of the store and of its readers.

use super::{lane::Lane, producing::Status, readers::Bounds};
use crate::{
    model::{
        config::{AHEAD_BYTES, AHEAD_EVENTS, AHEAD_TIME, Durability, ENTRY_BYTES, ENTRY_SHARE},
        id::EventId,
        stream::StreamState,
    },
    runtime::sync::lock,
};

impl Lane {
    /// Returns how far the producer may go ahead of its readers, so that the log still holds what they have not read.
    pub(crate) fn bounds(&self) -> Bounds {
        let retention = &self.registration.retention;
        // A store may trim up to an eighth more than necessary, so that it does not trim at each batch.
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

    /// Returns the seq up to which events may be delivered now.
    pub(crate) fn deliverable(&self, durability: Durability) -> u64 {
        if self.unrecorded {
            return u64::MAX;
        }
        let state = lock(&self.state);
        match &state.status {
            Status::Running => {}
            // A stream that was closed as orphaned is served to its end, unrecorded. If the stream ended by the
            // producer's own end, all events before that end are part of the stream.
            Status::Ended(ended)
                if ended.ending.state == StreamState::Orphaned
                    || (state.end.is_some() && ended.last >= EventId::new(self.epoch, state.last)) =>
            {
                return u64::MAX;
            }
            // Another node ended the stream or took it over. Events that are not in the log are not part of the stream.
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
        let since = state.flight.as_ref().and_then(|flight| flight.since).or(state.pending.since);
        let fresh = since.is_none_or(|since| since.elapsed() < AHEAD_TIME) && state.held() <= AHEAD_BYTES;
        match durability {
            Durability::Buffered if fresh => state.acknowledged + AHEAD_EVENTS,
            _ => state.acknowledged,
        }
    }

    /// Lets the waiting events be delivered unacknowledged, and all later ones until the store has caught up.
    pub(crate) fn pass_by(&self) {
        let mut state = lock(&self.state);
        state.passed_by |= state.waiting() > 0;
    }

    /// Returns how many events may be produced before the store must have acknowledged some, not counting a single
    /// larger one. There is no limit while events do not wait for the store.
    pub(crate) fn room_ahead(&self) -> u64 {
        let state = lock(&self.state);
        let waits = state.waiting();
        if state.refused.is_some() || state.passed_by {
            return u64::MAX;
        }
        if waits > 1 && state.held() > AHEAD_BYTES { 0 } else { AHEAD_EVENTS.saturating_sub(waits) }
    }
}
