//! A page of a stream's events, and how many are lost before and in it.

use super::query::{After, RecoverQuery};
use crate::{
    model::{
        error::StoreError,
        id::{EventId, StreamKey},
        stream::{Record, RecordKind},
    },
    node::Node,
    protocol::replay::{Missing, Owed, Replay},
    store::{From, Read},
    wire::single_events,
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
pub(super) async fn read(node: &Node, key: &StreamKey, query: &RecoverQuery) -> Result<Option<Events>, StoreError> {
    let (mut from, cursor) = match query.after {
        After::Nothing => (From::Newest, None),
        After::Event(at) => (From::After(at), Some(at)),
        After::Elsewhere => (From::Start, None),
    };
    let mut events = Events { records: Vec::new(), missing: None, next: None };
    // Up to the page's last event: what a marker behind it shows is missing on the next page, which begins with that marker.
    let mut up_to_last = Some(0);
    let (mut missing, mut bytes) = (None, 0);
    // Entries that are no events fill a page of the store too; an answer without events that says `next` would be no help.
    loop {
        // One more than fits tells whether there are more.
        let max_events = query.limit + 1 - events.records.len();
        let read = Read { key: key.clone(), from, max_events, max_bytes: (MAX_BYTES + 1).saturating_sub(bytes) };
        let Some(page) = node.store.read(read).await? else { return Ok(None) };
        if missing.is_none() && !page.known {
            // A cursor that says nothing here hides nothing either: all that is held, as for one who follows.
            from = From::Start;
            missing = Some(Missing::on(Replay::unknown(cursor, Owed::Run)));
            continue;
        }
        let has_more = page.more && !page.records.is_empty();
        let missing = missing.get_or_insert_with(|| Missing::on(begin(query.after)));
        let after = if let From::After(after) = from { Some(after) } else { None };
        let records = page.records.into_iter().flat_map(|record| single_events(&*node.framing, record));
        for record in records.filter(|record| Some(record.id) > after) {
            let length = if let RecordKind::Events(event) = &record.kind { Some(event.bytes.len()) } else { None };
            let is_full = events.records.len() >= query.limit || bytes + length.unwrap_or(0) > MAX_BYTES;
            if length.is_some() && is_full && !events.records.is_empty() {
                events.missing = up_to_last;
                events.next = events.records.last().map(|record| record.id);
                return Ok(Some(events));
            }
            from = From::After(record.id);
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

/// The place of a reader before the first page.
fn begin(after: After) -> Replay {
    match after {
        After::Nothing => Replay::fresh(Owed::Run),
        After::Event(at) => Replay::after(at),
        After::Elsewhere => Replay::unknown(None, Owed::Run),
    }
}
