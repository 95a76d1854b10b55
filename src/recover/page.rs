//! A page of a stream's events, and how many are lost before and in it.

use super::answer::{After, RecoverQuery};
use crate::{
    error::StoreError,
    id::{EventId, StreamKey},
    protocol::replay::Replay,
    store::{From, Page, Read, StoreHandle},
    stream::{Record, RecordKind},
};

/// Bytes of events in an answer at most, but for a single larger event.
const MAX_BYTES: usize = 4 << 20;

/// Events of a log, in order.
pub(super) struct Events {
    pub(super) records: Vec<Record>,
    /// How many are lost before and between them; `None` where that is not known.
    pub(super) missing: Option<u64>,
    /// The last of the events, if there are more.
    pub(super) next: Option<EventId>,
}

/// Reads a page; `None` if there is no such stream.
pub(super) async fn read(
    store: &StoreHandle,
    key: &StreamKey,
    query: &RecoverQuery,
) -> Result<Option<Events>, StoreError> {
    let (mut from, cursor) = match query.after {
        After::Nothing => (From::Newest, None),
        After::Event(at) => (From::After(at), Some(at)),
        After::Elsewhere => (From::Start, None),
    };
    let mut events = Events { records: Vec::new(), missing: Some(0), next: None };
    let (mut place, mut bytes) = (None, 0);
    // Entries that are no events fill a page of the store too; an answer without events that says `next` would be no help.
    loop {
        let max_events = query.limit - events.records.len();
        let read = Read { key: key.clone(), from, max_events, max_bytes: MAX_BYTES - bytes };
        let Some(page) = store.read(read).await? else { return Ok(None) };
        if place.is_none() && !page.known {
            // A cursor that says nothing here hides nothing either: all that is held, as for one who follows.
            from = From::Start;
            place = Some(Replay::unknown(cursor));
            events.missing = None;
            continue;
        }
        let has_more = page.more && !page.records.is_empty();
        let place = place.get_or_insert_with(|| begin(query.after, &page));
        if query.after == After::Elsewhere {
            events.missing = None;
        }
        for record in page.records {
            from = From::After(record.id);
            let step = place.step(record.id, &record.kind);
            if let Some(gap) = step.and_then(|step| step.gap) {
                events.missing = events.missing.zip(gap.missed).map(|(sum, missed)| sum.saturating_add(missed));
            }
            if let RecordKind::Event(block) = &record.kind {
                bytes += block.len();
                events.records.push(record);
            }
        }
        let is_full = events.records.len() >= query.limit || bytes >= MAX_BYTES;
        if !has_more {
            // A store that forgot a stream knows up to where its producer had come, though no event says so.
            let lost =
                place.at().filter(|at| at.epoch == page.top.epoch).map_or(0, |at| page.top.seq.saturating_sub(at.seq));
            events.missing = events.missing.map(|missing| missing.saturating_add(lost));
        }
        if is_full || !has_more {
            events.next = events.records.last().filter(|_| has_more).map(|record| record.id);
            return Ok(Some(events));
        }
    }
}

/// Where a reader stands before the first page.
fn begin(after: After, page: &Page) -> Replay {
    match after {
        // It is owed the newest run from its first event.
        After::Nothing => Replay::after(EventId::new(page.epoch, 0)),
        After::Event(at) => Replay::after(at),
        After::Elsewhere => Replay::unknown(None),
    }
}
