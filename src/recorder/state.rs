//! The state of a lane: its pending events, its batch in flight, its end and its status.

use tokio::time::Instant;

use super::{
    inner::{Inner, Unsent},
    limits::EntryLimits,
    pending::Pending,
    producing::{EndRequest, Status},
    pushed::Pushed,
};
use crate::{
    model::{id::StreamKey, metadata::Metadata, stream::Frame},
    protocol::backoff::Backoff,
    store::Append,
};

/// Whether and how a lane is being processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// The lane has nothing to send.
    Idle,
    /// The lane waits in the ready list, and the flusher was not woken for it.
    Unhurried,
    /// A task processes the lane; or the lane waits in the ready list, and the flusher was woken; or it was put off, and the flusher
    /// recalls it later.
    Claimed,
    /// A request of the lane is in flight. Its batch must not be changed.
    Asking,
}

pub(super) struct State {
    pub(super) status: Status,
    pub(super) work: Work,
    /// The seq of the last event.
    pub(super) last: u64,
    /// The seq up to which every event is stored or lost.
    pub(super) acknowledged: u64,
    /// The bytes of all events, recorded or not.
    pub(super) pushed: Pushed,
    pub(super) pending: Pending,
    pub(super) flight: Option<Flight>,
    /// Whether the next request checks the state of the stream, even without events.
    pub(super) checks: bool,
    /// Whether the producer has begun to answer.
    pub(super) started: bool,
    /// Whether the store still has to be told that the producer has begun.
    pub(super) starts: bool,
    /// The metadata of the stream, as far as this producer knows it.
    pub(super) metadata: Metadata,
    /// The last inner id and reconnect delay.
    pub(super) inner: Inner,
    /// Which parts of `inner` no batch has carried yet.
    unsent: Unsent,
    /// Whether metadata is not acknowledged yet. Until then no event may be delivered.
    pub(super) metadata_waits: bool,
    pub(super) forgotten: bool,
    /// Whether the registration was withdrawn. Later answers of the store are ignored.
    pub(super) withdrawn: bool,
    /// Set if the store refuses this stream, or did not answer a request of this stream alone. Events do not wait for
    /// the store until a batch is stored.
    pub(super) refused: Option<Box<Backoff>>,
    /// Whether events were delivered before the store acknowledged them, because the wait for it was over. Events do
    /// not wait for the store until a batch is stored.
    pub(super) passed_by: bool,
    /// The seq of the last event that was delivered unacknowledged before the store took batches again. Events do not
    /// wait until everything up to it is acknowledged.
    pub(super) catches_up_to: u64,
    pub(super) end: Option<EndRequest>,
    /// When the end was requested.
    pub(super) end_since: Option<Instant>,
    /// The bytes that the end is charged until it is stored.
    pub(super) end_bytes: usize,
}

/// A batch that is sent unchanged until the store answers.
pub(super) struct Flight {
    /// The seq of its first event.
    pub(super) first: u64,
    pub(super) events: Frame,
    /// When the oldest of the events was pushed.
    pub(super) since: Option<Instant>,
    starts: bool,
    inner: Inner,
    pub(super) metadata: Metadata,
}

impl Flight {
    fn append(&self, key: &StreamKey, epoch: u64) -> Append {
        let Inner { id: inner_id, retry: inner_retry } = self.inner.clone();
        Append {
            key: key.clone(),
            epoch,
            starts: self.starts,
            first: self.first,
            events: self.events.clone(),
            inner_id,
            inner_retry,
            metadata: self.metadata.clone(),
        }
    }
}

impl State {
    /// Creates the state of a producer that is registered with this metadata. `started`: it has begun to answer.
    pub(super) fn new(started: bool, metadata: Metadata) -> Self {
        Self {
            status: Status::Running,
            work: Work::Idle,
            last: 0,
            acknowledged: 0,
            pushed: Pushed::default(),
            pending: Pending::default(),
            flight: None,
            checks: false,
            started,
            starts: false,
            metadata,
            inner: Inner::default(),
            unsent: Unsent::default(),
            metadata_waits: false,
            forgotten: false,
            withdrawn: false,
            refused: None,
            passed_by: false,
            catches_up_to: 0,
            end: None,
            end_since: None,
            end_bytes: 0,
        }
    }

    /// Returns how many events wait for the store: pending or in flight.
    pub(super) fn waiting(&self) -> u64 {
        self.pending.events + self.flight.as_ref().map_or(0, |flight| flight.events.count)
    }

    /// Notes an id or a reconnect delay that the inner service set.
    pub(super) fn note_inner(&mut self, inner: Inner) {
        if inner.is_none() {
            return;
        }
        self.unsent.note(&inner);
        self.inner.update(inner);
    }

    /// Holds the newest events until they are stored. They must be charged to the room.
    pub(super) fn hold(&mut self, events: Frame) {
        self.pending.push(self.last, events);
    }

    /// Returns how many bytes of events are held.
    pub(super) fn held(&self) -> usize {
        self.pending.bytes + self.flight.as_ref().map_or(0, |flight| flight.events.bytes.len())
    }

    /// Gives up events, the oldest first, until at most `keep` bytes are held or only a batch in flight is left.
    /// Returns the number of events and bytes given up.
    pub(super) fn give_up(&mut self, keep: usize) -> (u64, usize) {
        let (mut events, before) = (0, self.held());
        if before > keep && self.work != Work::Asking {
            events += self.give_up_flight();
        }
        while self.held() > keep {
            let Some(oldest) = self.pending.pop() else { break };
            events += oldest.count;
        }
        (events, before - self.held())
    }

    /// Gives up a batch that was sent and not acknowledged. It does no harm if the store has the batch or gets it late,
    /// because later events have higher seqs.
    fn give_up_flight(&mut self) -> u64 {
        let Some(flight) = self.flight.take() else { return 0 };
        // The next batch carries the other parts of this one. Metadata is repeated until it is acknowledged anyway.
        self.starts |= flight.starts;
        self.unsent.note(&flight.inner);
        flight.events.count
    }

    /// Returns the batch to send: the one without an answer, or a new one of the pending events.
    pub(super) fn next_flight(&mut self, key: &StreamKey, epoch: u64, limits: EntryLimits) -> Option<Append> {
        if self.flight.is_none() {
            // An id without an event goes with the next event. It goes alone before an interruption, because the next
            // run gets it as its `Last-Event-ID`.
            let id_waits = self.unsent.id && matches!(self.end, Some(EndRequest::Interrupt));
            if self.pending.is_empty() && !self.checks && !self.starts && !self.metadata_waits && !id_waits {
                return None;
            }
            // The events between the last batch and this seq are lost.
            let first = self.pending.first().unwrap_or(self.last + 1);
            let since = self.pending.since;
            let events = self.pending.take_batch(limits);
            self.checks = false;
            let since = if events.is_empty() { None } else { since };
            let Unsent { id, retry } = std::mem::take(&mut self.unsent);
            let inner =
                Inner { id: self.inner.id.as_ref().filter(|_| id).cloned(), retry: self.inner.retry.filter(|_| retry) };
            let metadata = if self.metadata_waits { self.metadata.clone() } else { Metadata::new() };
            let starts = std::mem::take(&mut self.starts);
            self.flight = Some(Flight { first, events, since, starts, inner, metadata });
        }
        self.flight.as_ref().map(|flight| flight.append(key, epoch))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::id::{Owner, StreamId};

    fn push(state: &mut State, count: u64, fits: bool) {
        state.last += count;
        if fits {
            state.hold(Frame { count, bytes: Bytes::from(vec![b'x'; count as usize]) });
        }
    }

    /// Events without room leave a hole, also between, before and after pending events.
    #[test]
    fn g1_what_waits_keeps_its_ids_whatever_is_lost_beside_it() {
        let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new("a").expect("valid"));
        let limits = EntryLimits { events: 100, bytes: 1000 };
        let mut state = State::new(true, Metadata::new());
        for (count, fits) in [(2, false), (3, true), (4, true), (5, false), (6, true), (1, false)] {
            push(&mut state, count, fits);
        }
        let mut sent = Vec::new();
        while let Some(flight) = state.next_flight(&key, 9, limits) {
            assert_eq!(flight.events.bytes.len() as u64, flight.events.count);
            sent.push((flight.first, flight.events.count));
            state.flight = None;
        }
        assert_eq!(sent, [(3, 7), (15, 6)]);
        push(&mut state, 1, true);
        assert_eq!(state.next_flight(&key, 9, limits).map(|flight| flight.first), Some(22));
        state.flight = None;
        assert_eq!((state.pending.events, state.pending.bytes), (0, 0));
    }

    #[test]
    fn nothing_is_given_up_while_no_more_is_held_than_may_be_kept() {
        let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new("a").expect("valid"));
        let mut state = State::new(true, Metadata::new());
        push(&mut state, 3, true);
        state.next_flight(&key, 9, EntryLimits { events: 10, bytes: 100 }).expect("a batch");
        push(&mut state, 2, true);
        assert_eq!(state.give_up(5), (0, 0));
        state.work = Work::Asking;
        assert_eq!((state.give_up(0), state.held()), ((2, 2), 3), "the store may be taking the batch in flight");
        state.work = Work::Claimed;
        push(&mut state, 2, true);
        assert_eq!((state.give_up(4), state.held()), ((3, 3), 2), "the batch in flight is the oldest");
    }

    #[test]
    fn what_a_batch_says_besides_its_events_is_not_given_up_with_it() {
        let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new("a").expect("valid"));
        let limits = EntryLimits { events: 10, bytes: 100 };
        let mut state = State::new(true, Metadata::new());
        state.starts = true;
        state.note_inner(Inner { id: Some("7".to_owned()), retry: Some(9) });
        push(&mut state, 3, true);
        let says = |append: Append| (append.first, append.starts, append.inner_id, append.inner_retry);
        let all = (1, true, Some("7".to_owned()), Some(9));
        assert_eq!(state.next_flight(&key, 9, limits).map(says), Some(all));
        state.give_up(0);
        assert_eq!(state.next_flight(&key, 9, limits).map(says), Some((4, true, Some("7".to_owned()), Some(9))));
        state.flight = None;
        push(&mut state, 1, true);
        assert_eq!(state.next_flight(&key, 9, limits).map(says), Some((4, false, None, None)), "said once");
    }

    #[test]
    fn what_waited_together_is_one_entry_as_far_as_that_may_be() {
        let limits = EntryLimits { events: 10, bytes: 8 };
        let mut state = State::new(true, Metadata::new());
        for count in [3, 3, 2, 1, 9, 1] {
            push(&mut state, count, true);
        }
        let sent: Vec<_> =
            std::iter::from_fn(|| Some(state.pending.take_batch(limits).count).filter(|count| *count > 0)).collect();
        assert_eq!(sent, [8, 1, 9, 1], "a frame is never cut");
    }
}
