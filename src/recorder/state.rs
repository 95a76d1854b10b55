//! What a lane holds: its pending events, its batch in flight, its end, and how it stands.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::{EndRequest, Status, readers::Pushed};
use crate::{
    model::{
        config::{ENTRY_BYTES, ENTRY_EVENTS, ENTRY_SHARE},
        id::StreamKey,
        metadata::Metadata,
        stream::Frame,
    },
    protocol::backoff::Backoff,
    store::{Append, Retention},
};

/// Frames that a lane keeps the room for.
const FEW: usize = 4;

/// How much an entry of a log may hold, but for a single larger event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryLimits {
    pub(crate) events: u64,
    pub(crate) bytes: usize,
}

impl EntryLimits {
    /// Of a log that keeps so much: small enough to cut it where it must be.
    pub(crate) fn of(retention: &Retention) -> Self {
        let events = (retention.max_events / ENTRY_SHARE).clamp(1, ENTRY_EVENTS) as u64;
        Self { events, bytes: (retention.max_bytes / ENTRY_SHARE).min(ENTRY_BYTES) }
    }

    /// Whether an entry takes so much.
    pub(crate) fn take(self, events: u64, bytes: usize) -> bool {
        events <= 1 || (events <= self.events && bytes <= self.bytes)
    }
}

pub(super) struct State {
    pub(super) status: Status,
    /// Whether a task works the lane off, or is about to.
    pub(super) claimed: bool,
    /// It waits for the flusher, which was not woken for it.
    pub(super) unhurried: bool,
    /// The last seq that was given.
    pub(super) last: u64,
    /// Everything up to here is stored or lost.
    pub(super) acknowledged: u64,
    /// How much was made, recorded or not.
    pub(super) pushed: Pushed,
    /// Events that wait, and the seqs of their first ones: between two there may be a hole, of events without room.
    pub(super) pending: VecDeque<(u64, Frame)>,
    /// How many events these are, and how many bytes.
    pub(super) pending_events: u64,
    pub(super) pending_bytes: usize,
    pub(super) flight: Option<Flight>,
    /// Whether the store is being asked something: the batch in flight is not to be touched.
    pub(super) in_the_air: bool,
    /// When the oldest pending event was pushed.
    pub(super) pending_since: Option<Instant>,
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

/// Which parts of what the inner service set go with the next batch.
#[derive(Default)]
struct Unsaid {
    id: bool,
    retry: bool,
}

impl Unsaid {
    fn note(&mut self, inner: &Inner) {
        self.id |= inner.id.is_some();
        self.retry |= inner.retry.is_some();
    }
}

/// The id and the reconnect delay that an inner service set in its event stream: the last of each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inner {
    /// The id of an event.
    pub(crate) id: Option<String>,
    /// The reconnect delay, in milliseconds.
    pub(crate) retry: Option<u64>,
}

impl Inner {
    pub(crate) fn is_none(&self) -> bool {
        self.id.is_none() && self.retry.is_none()
    }

    fn update(&mut self, newer: Self) {
        self.id = newer.id.or(self.id.take());
        self.retry = newer.retry.or(self.retry);
    }
}

impl State {
    /// The state of a producer that is registered with this metadata. `started`: it has begun to answer.
    pub(super) fn new(started: bool, metadata: Metadata) -> Self {
        Self {
            status: Status::Running,
            claimed: false,
            unhurried: false,
            last: 0,
            acknowledged: 0,
            pushed: Pushed::default(),
            pending: VecDeque::new(),
            pending_events: 0,
            pending_bytes: 0,
            flight: None,
            in_the_air: false,
            pending_since: None,
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
        self.pending_events + self.flight.as_ref().map_or(0, |flight| flight.events.count)
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
        if events.is_empty() {
            return;
        }
        self.pending_events += events.count;
        self.pending_bytes += events.bytes.len();
        if self.pending.capacity() == 0 {
            // Mostly one frame waits at a time: the room for it is kept.
            self.pending.reserve_exact(1);
        }
        self.pending.push_back((self.last + 1 - events.count, events));
    }

    /// Takes back the oldest events that are held and not on their way.
    fn let_go(&mut self) -> Option<Frame> {
        let (_, oldest) = self.pending.pop_front()?;
        self.pending_events -= oldest.count;
        self.pending_bytes -= oldest.bytes.len();
        if self.pending.is_empty() && self.pending.capacity() > FEW {
            self.pending = VecDeque::new();
        }
        Some(oldest)
    }

    /// How many bytes of events are held.
    pub(super) fn held(&self) -> usize {
        self.pending_bytes + self.flight.as_ref().map_or(0, |flight| flight.events.bytes.len())
    }

    /// Gives up events, the oldest first, until no more than so many bytes are held, or what is left is on its way to
    /// the store. Returns how many events and bytes that were.
    pub(super) fn give_up(&mut self, keep: usize) -> (u64, usize) {
        let (mut events, before) = (0, self.held());
        if before > keep && !self.in_the_air {
            events += self.give_up_flight();
        }
        while self.held() > keep {
            let Some(oldest) = self.let_go() else { break };
            events += oldest.count;
        }
        if self.pending.is_empty() {
            self.pending_since = None;
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
            let first = self.pending.front().map_or(self.last + 1, |(first, _)| *first);
            let events = self.take_batch(limits);
            self.looks = false;
            let since = if events.is_empty() { None } else { self.pending_since };
            if self.pending.is_empty() {
                self.pending_since = None;
            }
            let Unsaid { id, retry } = std::mem::take(&mut self.unsaid);
            let inner =
                Inner { id: self.inner.id.as_ref().filter(|_| id).cloned(), retry: self.inner.retry.filter(|_| retry) };
            let metadata = if self.metadata_waits { self.metadata.clone() } else { Metadata::new() };
            let starts = std::mem::take(&mut self.starts);
            self.flight = Some(Flight { first, events, since, starts, inner, metadata });
        }
        self.flight.as_ref().map(|flight| flight.append(key, epoch))
    }

    /// Takes as many events as are one entry: what waited together is written together.
    pub(super) fn take_batch(&mut self, limits: EntryLimits) -> Frame {
        let (mut events, mut bytes, mut frames) = (0, 0, 0);
        let begins = self.pending.front().map_or(0, |(first, _)| *first);
        for (first, frame) in &self.pending {
            let more = (events + frame.count, bytes + frame.bytes.len());
            if frames > 0 && (*first != begins + events || !limits.take(more.0, more.1)) {
                break;
            }
            ((events, bytes), frames) = (more, frames + 1);
        }
        if frames <= 1 {
            return self.let_go().unwrap_or_default();
        }
        let mut all = BytesMut::with_capacity(bytes);
        for (_, frame) in self.pending.drain(..frames) {
            all.extend_from_slice(&frame.bytes);
        }
        self.pending_events -= events;
        self.pending_bytes -= bytes;
        if self.pending.is_empty() {
            self.pending = VecDeque::new();
        }
        Frame { count: events, bytes: Bytes::from(Vec::from(all)) }
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!((state.pending_events, state.pending_bytes), (0, 0));
    }

    #[test]
    fn what_waited_together_is_one_entry_as_far_as_that_may_be() {
        let limits = EntryLimits { events: 10, bytes: 8 };
        let mut state = State::new(true, Metadata::new());
        for count in [3, 3, 2, 1, 9, 1] {
            push(&mut state, count, true);
        }
        let sent: Vec<_> =
            std::iter::from_fn(|| Some(state.take_batch(limits).count).filter(|count| *count > 0)).collect();
        assert_eq!(sent, [8, 1, 9, 1], "a frame is never cut");
    }
}
