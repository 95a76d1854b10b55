//! A stream's log in memory: bounded, dense within a run, trimmed from the front.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes, BytesMut};

use crate::{
    model::{
        config::ENTRY_SHARE,
        id::EventId,
        stream::{Frame, Record, RecordKind},
    },
    store::Retention,
    wire::{Framing as _, Sse},
};

/// Small entries are merged up to this size, since each entry costs about 130 bytes besides its events.
const TOGETHER_BYTES: usize = 16 << 10;
/// The events of one entry were recorded within this many milliseconds, since an entry has one time for all.
const TOGETHER_MS: u64 = 100;

#[derive(Debug, Default)]
pub(super) struct Log {
    records: VecDeque<Record>,
    /// The runs whose start markers are held, in order: the first and the last epoch that a marker stands for. All runs of a
    /// marker but the last made no events.
    runs: VecDeque<(u64, u64)>,
    /// The number of events and markers that are held.
    count: u64,
    /// The number of bytes of events that are held.
    bytes: usize,
    /// The highest id that was trimmed.
    trimmed: Option<EventId>,
    /// The last event of a run that the store acknowledged before it forgot everything.
    forgotten: EventId,
    top: EventId,
}

/// The outcome of putting a batch into a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// The log holds the whole batch, or held it before it was trimmed.
    Held,
    /// The log holds other events with its ids, or has gone past them.
    Taken,
}

impl Log {
    /// A log that has lost everything up to `acknowledged`.
    pub(super) fn resumed_after(acknowledged: EventId) -> Self {
        Self { trimmed: Some(acknowledged), forgotten: acknowledged, top: acknowledged, ..Self::default() }
    }

    /// Notes that events up to this id were made. Those that are not held are lost.
    pub(super) fn lose_up_to(&mut self, id: EventId) {
        self.forgotten = self.forgotten.max(id);
        self.top = self.top.max(id);
    }

    pub(super) fn top(&self) -> EventId {
        self.top
    }

    /// Writes the marker of a new run, which stands for all epochs from `since` on. If the run before made nothing, its marker is
    /// removed: so a stream that is opened again and again does not grow, and keeps its events.
    pub(super) fn push_run(&mut self, epoch: u64, mut since: u64, mut previous: Option<EventId>, at: u64) {
        if let Some(Record { id, kind: RecordKind::Run { previous: before }, .. }) = self.records.back()
            && previous == Some(*id)
        {
            previous = *before;
            self.records.pop_back();
            self.count -= 1;
            since = self.runs.pop_back().map_or(since, |(since, _)| since);
        }
        if self.records.is_empty() {
            // Many streams make nothing, so room is reserved for this one marker only.
            self.runs.reserve_exact(1);
            self.records.reserve_exact(1);
        }
        self.runs.push_back((since, epoch));
        self.push(Record { id: EventId::new(epoch, 0), at, kind: RecordKind::Run { previous } });
    }

    /// Takes a batch of events whole, or not at all. `id` is that of the last event. Amortized O(bytes of the batch).
    pub(super) fn put(&mut self, id: EventId, events: Frame, at: u64, retention: &Retention) -> Put {
        let batch = Record { id, at, kind: RecordKind::Events(events) };
        if batch.first() <= self.top {
            let is_repeat = id <= self.top && self.covers(batch.first(), id);
            return if is_repeat { Put::Held } else { Put::Taken };
        }
        if let RecordKind::Events(events) = &batch.kind {
            self.bytes += events.bytes.len();
        }
        self.push(batch);
        let most = (retention.max_events / ENTRY_SHARE) as u64;
        let most_bytes = (retention.max_bytes / ENTRY_SHARE).min(TOGETHER_BYTES);
        while self.put_together(most, most_bytes) {}
        Put::Held
    }

    /// Whether all events from `first` to `last`, of one run, are held or were held before they were trimmed.
    fn covers(&self, first: EventId, last: EventId) -> bool {
        let gone = self.forgotten.max(self.trimmed.unwrap_or_default());
        let mut next = if gone.epoch == first.epoch {
            first.max(EventId::new(gone.epoch, gone.seq.saturating_add(1)))
        } else {
            first
        };
        for record in self.after(EventId::new(next.epoch, next.seq.saturating_sub(1))) {
            if next > last || record.first() > next {
                break;
            }
            next = EventId::new(record.id.epoch, record.id.seq + 1);
        }
        next > last
    }

    /// Merges the two newest entries if they are small and of similar size, so that a byte is copied only a few times until its
    /// entry is large. Returns whether it did.
    fn put_together(&mut self, max_events: u64, max_bytes: usize) -> bool {
        let mut newest = self.records.iter().rev();
        let (Some(last), Some(before)) = (newest.next(), newest.next()) else { return false };
        let (RecordKind::Events(b), RecordKind::Events(a)) = (&last.kind, &before.kind) else { return false };
        let follows = last.first() == EventId::new(before.id.epoch, before.id.seq + 1);
        let bytes = a.bytes.len() + b.bytes.len();
        let fits = bytes <= max_bytes && a.count + b.count <= max_events;
        if !follows || !fits || a.bytes.len() > 2 * b.bytes.len() || last.at.saturating_sub(before.at) > TOGETHER_MS {
            return false;
        }
        let mut all = BytesMut::with_capacity(bytes);
        all.extend_from_slice(&a.bytes);
        all.extend_from_slice(&b.bytes);
        let frame = Frame { count: a.count + b.count, bytes: Bytes::from(Vec::from(all)) };
        let both = Record { id: last.id, at: before.at, kind: RecordKind::Events(frame) };
        self.records.pop_back();
        self.records.pop_back();
        self.records.push_back(both);
        true
    }

    fn push(&mut self, record: Record) {
        self.top = self.top.max(record.id);
        self.count += count(&record);
        self.records.push_back(record);
    }

    /// Drops the oldest events until the log is within these limits. A marker counts as an event, and the newest event stays,
    /// however large. If only a part of an entry goes, the rest keeps the memory of the whole entry, which is at most a
    /// sixteenth of the log.
    pub(super) fn trim(&mut self, max_events: usize, max_bytes: usize) {
        while self.count > max_events as u64 || self.bytes > max_bytes {
            let Some(record) = self.records.front_mut() else { return };
            let first = record.first();
            if let RecordKind::Events(events) = &mut record.kind {
                let length = Sse.first(&events.bytes);
                // Events of another wire format cannot be separated, so their entry goes whole.
                let ends = events.bytes[..length].trim_ascii_end().ends_with(first.to_string().as_bytes());
                if events.count > 1 && ends {
                    events.bytes.advance(length);
                    events.count -= 1;
                    (self.count, self.bytes, self.trimmed) = (self.count - 1, self.bytes - length, Some(first));
                    continue;
                }
            }
            if self.records.len() == 1 {
                return;
            }
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(record) = self.records.pop_front() else { return };
        self.trimmed = Some(record.id);
        self.count -= count(&record);
        match record.kind {
            RecordKind::Events(events) => self.bytes -= events.bytes.len(),
            RecordKind::Run { .. } => {
                self.runs.pop_front();
            }
            RecordKind::End(_) => {}
        }
    }

    /// Whether the stream ever had this run, as far as the log tells. O(log runs held).
    pub(super) fn knows(&self, epoch: u64) -> bool {
        let next = self.runs.partition_point(|(_, last)| *last < epoch);
        self.runs.get(next).is_some_and(|(first, _)| *first <= epoch)
            || self.trimmed.is_some_and(|trimmed| epoch <= trimmed.epoch)
    }

    /// The entries after `id`, the oldest first. The first one may also have events up to `id`.
    pub(super) fn after(&self, id: EventId) -> impl Iterator<Item = &Record> {
        let start = self.records.partition_point(|record| record.id <= id);
        self.records.range(start..)
    }
}

/// How many events or markers an entry counts as.
fn count(record: &Record) -> u64 {
    if let RecordKind::Events(events) = &record.kind { events.count } else { 1 }
}

#[cfg(test)]
mod tests;
