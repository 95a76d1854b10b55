//! A page of a stream's events, with the number of events lost before and in it.

use super::query::{After, RecoverQuery};
use crate::{
    model::{
        error::StoreError,
        id::{EventId, StreamKey},
        stream::{Record, RecordKind},
    },
    node::Node,
    protocol::replay::{Missing, Owed, Replay},
    store::{Read, ReadFrom},
    wire::single_events,
};

/// How many bytes of events a page has at most. A single larger event is a page of its own.
const MAX_BYTES: usize = 4 << 20;

/// Events of a log, in order.
pub(super) struct Events {
    pub(super) records: Vec<Record>,
    /// How many events are lost before and between `records`; `None` if the number is not known.
    pub(super) missing: Option<u64>,
    /// The last event of this page, if there are more after it.
    pub(super) next: Option<EventId>,
}

/// Reads a page. Returns `None` if there is no such stream.
pub(super) async fn read(node: &Node, key: &StreamKey, query: &RecoverQuery) -> Result<Option<Events>, StoreError> {
    let (mut from, cursor) = match query.after {
        After::Nothing => (ReadFrom::Newest, None),
        After::Event(at) => (ReadFrom::After(at), Some(at)),
        After::Elsewhere => (ReadFrom::Start, None),
    };
    let mut events = Events { records: Vec::new(), missing: None, next: None };
    // Losses up to the page's last event. A marker after that event shows a loss that the next page counts, since the
    // next page begins with the marker.
    let mut up_to_last = Some(0);
    let (mut missing, mut bytes) = (None, 0);
    // Read on until the page has events: a page of the store may consist of markers only, and an answer without events
    // but with a `next` would not help the client.
    loop {
        // One event more than the page holds shows whether there is a next page.
        let max_events = query.limit + 1 - events.records.len();
        let read = Read { key: key.clone(), from, max_events, max_bytes: (MAX_BYTES + 1).saturating_sub(bytes) };
        let Some(page) = node.store.read(read).await? else { return Ok(None) };
        if missing.is_none() && !page.known {
            // The store does not know the cursor, so the page begins with the first event held, as a follow does.
            from = ReadFrom::Start;
            missing = Some(Missing::on(Replay::unknown(cursor, Owed::Run)));
            continue;
        }
        let has_more = page.more && !page.records.is_empty();
        let missing = missing.get_or_insert_with(|| Missing::on(begin(query.after)));
        let after = if let ReadFrom::After(after) = from { Some(after) } else { None };
        let records = page.records.into_iter().flat_map(|record| single_events(&*node.framing, record));
        for record in records.filter(|record| Some(record.id) > after) {
            let length = if let RecordKind::Events(event) = &record.kind { Some(event.bytes.len()) } else { None };
            let is_full = events.records.len() >= query.limit || bytes + length.unwrap_or(0) > MAX_BYTES;
            if length.is_some() && is_full && !events.records.is_empty() {
                events.missing = up_to_last;
                events.next = events.records.last().map(|record| record.id);
                return Ok(Some(events));
            }
            from = ReadFrom::After(record.id);
            missing.take(&record);
            if let Some(length) = length {
                bytes += length;
                events.records.push(record);
                up_to_last = missing.count();
            }
        }
        if !has_more {
            missing.end_at(page.top);
            events.missing = missing.count();
            return Ok(Some(events));
        }
    }
}

/// Returns the replay state of a reader before its first page.
fn begin(after: After) -> Replay {
    match after {
        After::Nothing => Replay::fresh(Owed::Run),
        After::Event(at) => Replay::after(at),
        After::Elsewhere => Replay::unknown(None, Owed::Run),
    }
}
