//! What a lane holds: its pending events, its batch in flight, its end, and how it stands.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use super::{EndRequest, Recorder, Status};
use crate::{
    config::{BATCH_BYTES, BATCH_EVENTS},
    id::StreamKey,
    protocol::backoff::Backoff,
    store::Append,
    stream::Metadata,
};

pub(super) struct State {
    pub(super) status: Status,
    /// Whether somebody works the lane off, or will.
    pub(super) claimed: bool,
    /// The last seq that was given.
    pub(super) last: u64,
    /// Everything up to here is stored or lost.
    pub(super) acknowledged: u64,
    pub(super) pending: VecDeque<Bytes>,
    pub(super) pending_bytes: usize,
    /// A batch that was sent, and is sent again unchanged until an answer comes.
    pub(super) flight: Option<Append>,
    pub(super) flight_bytes: usize,
    /// Since when the oldest pending event waits, and the oldest one in flight.
    pub(super) pending_since: Option<Instant>,
    pub(super) flight_since: Option<Instant>,
    /// Whether the store is to be asked how the stream stands.
    pub(super) looks: bool,
    /// Whether the producer has begun to answer, and whether that is still to be said.
    pub(super) started: bool,
    pub(super) starts: bool,
    /// Everything that the host keeps with the stream, as far as this producer knows.
    pub(super) metadata: Metadata,
    pub(super) inner_id: Option<String>,
    /// The last inner id there was, sent or not.
    pub(super) last_inner_id: Option<String>,
    /// Whether metadata is not acknowledged yet: until then nothing may be delivered.
    pub(super) metadata_waits: bool,
    pub(super) forgotten: bool,
    /// The registration was taken back: what is still on the way to the store is not heard any more.
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
}

impl State {
    /// The state of a producer that is registered with this metadata. `started`: it has begun to answer.
    pub(super) fn new(started: bool, metadata: Metadata) -> Self {
        Self {
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
            looks: false,
            started,
            starts: false,
            metadata,
            inner_id: None,
            last_inner_id: None,
            metadata_waits: false,
            forgotten: false,
            withdrawn: false,
            refused: None,
            passed_by: false,
            catches_up_to: 0,
            end: None,
        }
    }

    /// How many events wait for the store, or for its answer.
    pub(super) fn waiting(&self) -> u64 {
        (self.pending.len() + self.flight.as_ref().map_or(0, |flight| flight.events.len())) as u64
    }

    /// Holds events until they are stored; where there is no room, the oldest that wait are lost.
    pub(super) fn take(&mut self, recorder: &Recorder, events: &mut Vec<Bytes>) {
        let bytes = events.iter().map(Bytes::len).sum();
        if !self.charge(recorder, bytes) {
            return events.drain(..).for_each(|event| self.take_singly(recorder, event));
        }
        self.pending_bytes += bytes;
        self.pending.extend(events.drain(..));
    }

    /// What is refused leaves half of the room to what is not.
    pub(super) fn charge(&self, recorder: &Recorder, bytes: usize) -> bool {
        let limit = if self.refused.is_some() { recorder.max_held / 2 } else { recorder.max_held };
        recorder.charge_up_to(limit, bytes)
    }

    pub(super) fn take_singly(&mut self, recorder: &Recorder, event: Bytes) {
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
    pub(super) fn lose_oldest(&mut self, recorder: &Recorder) -> bool {
        let Some(oldest) = self.pending.pop_front() else { return false };
        self.pending_bytes -= oldest.len();
        recorder.refund(oldest.len());
        recorder.lost(1);
        true
    }

    /// The batch to send: the one that has no answer yet, or a new one of what waits.
    pub(super) fn next_flight(&mut self, key: &StreamKey, epoch: u64) -> Option<Append> {
        if self.flight.is_none() {
            if self.pending.is_empty() && !self.looks && !self.starts && !self.metadata_waits {
                return None;
            }
            // What waits is the newest: whatever is missing in between is lost.
            let first = self.last + 1 - self.pending.len() as u64;
            let events = self.take_batch();
            self.looks = false;
            self.flight_since = if events.is_empty() { None } else { self.pending_since };
            if self.pending.is_empty() {
                self.pending_since = None;
            }
            let inner_id = self.inner_id.take();
            let metadata = if self.metadata_waits { self.metadata.clone() } else { Metadata::new() };
            let starts = std::mem::take(&mut self.starts);
            self.flight = Some(Append { key: key.clone(), epoch, starts, first, events, inner_id, metadata });
        }
        self.flight.clone()
    }

    pub(super) fn take_batch(&mut self) -> Vec<Bytes> {
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
}
