//! What a lane holds: its pending events, its batch in flight, its end, and how it stands.

use tokio::time::Instant;

use super::{
    inner::{Inner, Unsaid},
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

/// Who works a lane off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Nobody: it has nothing to say.
    Idle,
    /// It stands in line for the flusher, which was not woken for it.
    Unhurried,
    /// A task works it off, or is about to.
    Claimed,
    /// The store is being asked for it: the batch in flight is not to be touched.
    Asking,
}

pub(super) struct State {
    pub(super) status: Status,
    pub(super) work: Work,
    /// The last seq that was given.
    pub(super) last: u64,
    /// Everything up to here is stored or lost.
    pub(super) acknowledged: u64,
    /// How much was made, recorded or not.
    pub(super) pushed: Pushed,
    pub(super) pending: Pending,
    pub(super) flight: Option<Flight>,
    /// Whether the store is to be asked how the stream stands.
    pub(super) looks: bool,
    /// Whether the producer has begun to answer, and whether that is still to be said.
    pub(super) started: bool,
    pub(super) starts: bool,
    /// Everything that the host keeps with the stream, as far as this producer knows.
    pub(super) metadata: Metadata,
    /// The last inner id and delay there were, and which of them no batch has said yet.
    pub(super) inner: Inner,
    unsaid: Unsaid,
    /// Whether metadata is not acknowledged yet: until then nothing may be delivered.
    pub(super) metadata_waits: bool,
    pub(super) forgotten: bool,
    /// The registration was withdrawn: later answers of the store are ignored.
    pub(super) withdrawn: bool,
    /// The store refuses this stream, or did not answer what only this stream asked: until something lands,
    /// nobody waits for it.
    pub(super) refused: Option<Box<Backoff>>,
    /// Events went out that the store had not acknowledged, since nobody waited for it any more: until something lands,
    /// nobody does.
    pub(super) passed_by: bool,
    /// What was made before the stream was written again went out unrecorded: up to here nothing waits.
    pub(super) catches_up_to: u64,
    pub(super) end: Option<EndRequest>,
    /// When the end was requested, and what it is charged until it is stored.
    pub(super) end_since: Option<Instant>,
    pub(super) end_bytes: usize,
}

/// A batch that was sent, and is sent again unchanged until an answer comes.
pub(super) struct Flight {
    /// The seq of its first event.
    pub(super) first: u64,
    pub(super) events: Frame,
    /// When the oldest of them was pushed.
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
    /// The state of a producer that is registered with this metadata. `started`: it has begun to answer.
    pub(super) fn new(started: bool, metadata: Metadata) -> Self {
        Self {
            status: Status::Running,
            work: Work::Idle,
            last: 0,
            acknowledged: 0,
            pushed: Pushed::default(),
            pending: Pending::default(),
            flight: None,
            looks: false,
            started,
            starts: false,
            metadata,
            inner: Inner::default(),
            unsaid: Unsaid::default(),
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

    /// How many events wait for the store, or for its answer.
    pub(super) fn waiting(&self) -> u64 {
        self.pending.events + self.flight.as_ref().map_or(0, |flight| flight.events.count)
    }

    /// The inner service set an id or a reconnect delay of its own.
    pub(super) fn note_inner(&mut self, inner: Inner) {
        if inner.is_none() {
            return;
        }
        self.unsaid.note(&inner);
        self.inner.update(inner);
    }

    /// Holds the newest events, for which there is room, until they are stored.
    pub(super) fn hold(&mut self, events: Frame) {
        self.pending.push(self.last, events);
    }

    /// How many bytes of events are held.
    pub(super) fn held(&self) -> usize {
        self.pending.bytes + self.flight.as_ref().map_or(0, |flight| flight.events.bytes.len())
    }

    /// Gives up events, the oldest first, until no more than so many bytes are held, or what is left is on its way to
    /// the store. Returns how many events and bytes that were.
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

    /// Gives up a batch that was sent and not acknowledged. Should the store have it all the same, or get it late, that
    /// does no harm: what follows has higher seqs.
    fn give_up_flight(&mut self) -> u64 {
        let Some(flight) = self.flight.take() else { return 0 };
        // What the batch said besides is said with the next one; metadata waits until it is acknowledged anyway.
        self.starts |= flight.starts;
        self.unsaid.note(&flight.inner);
        flight.events.count
    }

    /// The batch to send: the one that has no answer yet, or a new one of what waits.
    pub(super) fn next_flight(&mut self, key: &StreamKey, epoch: u64, limits: EntryLimits) -> Option<Append> {
        if self.flight.is_none() {
            // An id without an event goes with the next event; before the next run, which is to be given it, at the latest.
            let id_waits = self.unsaid.id && matches!(self.end, Some(EndRequest::Interrupt));
            if self.pending.is_empty() && !self.looks && !self.starts && !self.metadata_waits && !id_waits {
                return None;
            }
            // Whatever is missing before it is lost.
            let first = self.pending.first().unwrap_or(self.last + 1);
            let since = self.pending.since;
            let events = self.pending.take_batch(limits);
            self.looks = false;
            let since = if events.is_empty() { None } else { since };
            let Unsaid { id, retry } = std::mem::take(&mut self.unsaid);
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

    /// Events without room leave a hole where they were, also in front of and behind others that wait.
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
