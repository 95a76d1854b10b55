//! Fetching entries until a page is full.

use redis::Value;

use super::super::{
    error::RedisStoreError,
    keys::StreamKeys,
    request::Request,
    stored::{self, Held, Holds},
    value,
};
use super::{density::Density, requests::range};
use crate::{
    model::{
        id::EventId,
        stream::{Ended, Record, RecordKind, StreamState},
    },
    store::{Page, Read},
};

/// How many entries one request fetches at most, and about how many bytes of events. A larger page takes several requests.
const MOST: usize = 1024;
const MOST_BYTES: usize = 1 << 20;

/// Takes entries until the page is full, or the log is at its end.
pub(super) struct Pager<'a> {
    read: &'a Read,
    /// The reader's cursor.
    pub(super) after: EventId,
    /// The last entry that was taken.
    at: EventId,
    pub(super) density: Density,
    /// How many entries were asked for last.
    pub(super) asked: usize,
    /// How many requests for entries there were.
    rounds: usize,
    records: Vec<Record>,
    /// The number of events and markers in `records`, and of bytes of events.
    events: usize,
    bytes: usize,
    top: EventId,
    pub(super) at_end: bool,
    is_full: bool,
    /// Whether the page has room for more than one request fetches.
    is_vast: bool,
}

impl<'a> Pager<'a> {
    pub(super) fn new(read: &'a Read, density: Option<Density>) -> Self {
        Self {
            read,
            after: EventId::default(),
            at: EventId::default(),
            density: density.unwrap_or_default(),
            asked: 0,
            rounds: 0,
            records: Vec::new(),
            events: 0,
            bytes: 0,
            top: EventId::default(),
            at_end: false,
            is_full: false,
            is_vast: false,
        }
    }

    /// The request for the next entries. `None`: no more are needed.
    pub(super) fn next(&mut self, keys: &StreamKeys) -> Option<Request> {
        if self.at_end || self.is_full {
            return None;
        }
        let events = self.read.max_events.saturating_sub(self.events);
        let bytes = self.read.max_bytes.saturating_sub(self.bytes);
        // The log's first entry is a marker.
        let first = if self.at == EventId::default() && self.after == self.at { 2 } else { 1 };
        let fits = |bytes| if self.density.entries > 0 { self.density.entries(events, bytes) } else { first };
        self.asked = fits(bytes.min(MOST_BYTES)).min(MOST);
        self.is_vast = self.read.max_events > MOST && (fits(bytes) > self.asked || self.density.entries == 0);
        self.rounds += 1;
        Some(range(keys, self.at.max(self.after), self.asked))
    }

    pub(super) fn needs_another_round(&self) -> bool {
        self.rounds < 2 || self.is_vast || self.records.is_empty()
    }

    /// Takes fetched entries, each whole, until the page would exceed twice its limits.
    pub(super) fn take(&mut self, reply: Value, epoch: u64) -> Result<(), RedisStoreError> {
        let entries = stored::entries(value::or_missing(Ok(reply))?)?;
        self.at_end = entries.len() < self.asked;
        let density = Density::of(&entries);
        if density.entries > 0 {
            self.density = density;
        }
        for entry in entries {
            let (id, is_seal) = (entry.id, matches!(entry.holds, Holds::Seal));
            let record = entry.into_record();
            let (more_events, more_bytes) = record.as_ref().map_or((0, 0), size);
            let (events, bytes) = (self.events.saturating_add(more_events), self.bytes + more_bytes);
            let most = |asked: usize| asked.saturating_mul(2);
            let is_too_much = bytes > most(self.read.max_bytes) || events > most(self.read.max_events);
            if is_too_much && self.bytes > 0 {
                (self.at_end, self.is_full) = (false, true);
                return Ok(());
            }
            (self.events, self.bytes, self.at) = (events, bytes, id);
            self.records.extend(record);
            if is_seal {
                // Nothing comes after the seal of the newest run.
                self.at_end |= id >= EventId::new(epoch, u64::MAX);
            } else {
                self.top = id;
            }
        }
        // No id is higher than this.
        self.at_end |= self.at.max(self.after) == EventId::new(u64::MAX, u64::MAX);
        self.is_full = self.events >= self.read.max_events || self.bytes >= self.read.max_bytes;
        Ok(())
    }

    /// Notes the id of the log's newest entry, which shows if the page is at its end.
    pub(super) fn note_newest(&mut self, newest: Option<EventId>) {
        self.at_end |= !self.is_full && newest.is_some_and(|newest| newest <= self.at.max(self.after));
    }

    /// The page. `end`: the id of the stream's end, if the reader must get it; `ended`: that end, if it was fetched.
    pub(super) fn into_page(
        mut self,
        held: &Held,
        state: StreamState,
        end: Option<EventId>,
        ended: Option<Option<Ended>>,
        known: bool,
    ) -> Page {
        let epoch = held.epoch();
        let lost = held.lost().filter(|lost| lost.epoch == epoch).unwrap_or_default();
        let mut top = self.top.max(self.after).max(EventId::new(epoch, 0)).max(lost);
        let mut more = !self.at_end;
        if let Some(end) = end {
            top = end;
            match ended {
                Some(ended) if self.at_end => self.records.extend(ended.map(record)),
                Some(_) => {}
                None => more = true,
            }
        }
        Page {
            state,
            epoch,
            top,
            known,
            records: self.records,
            more,
            origin: held.origin(),
            voice: held.voice(),
            inner_retry: held.inner_retry(),
            headers: held.headers(),
        }
    }
}

fn record(ended: Ended) -> Record {
    Record { id: ended.id, at: ended.at, kind: RecordKind::End(Box::new(ended)) }
}

/// How many events or markers an entry counts as, and how many bytes of events it has.
fn size(record: &Record) -> (usize, usize) {
    match &record.kind {
        RecordKind::Events(frame) => (usize::try_from(frame.count).unwrap_or(usize::MAX), frame.bytes.len()),
        RecordKind::Run { .. } | RecordKind::End(_) => (1, 0),
    }
}
