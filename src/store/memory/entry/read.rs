//! Pages of a log.

use super::state::Entry;
use crate::{
    model::{
        id::EventId,
        stream::{Record, RecordKind},
    },
    store::{Page, Read, ReadFrom},
};

impl Entry {
    pub(in super::super) fn read(&self, read: &Read) -> Page {
        let known = match read.from {
            ReadFrom::After(cursor) => self.knows(cursor),
            ReadFrom::Newest | ReadFrom::Start => true,
        };
        let after = match read.from {
            ReadFrom::After(cursor) => cursor,
            ReadFrom::Start => EventId::default(),
            ReadFrom::Newest => EventId::new(self.epoch, 0),
        };
        let mut page = Page {
            state: self.state,
            epoch: self.epoch,
            top: self.ended.as_ref().map_or(self.log.top(), |ended| ended.id).max(after),
            known,
            records: Vec::new(),
            more: false,
            origin: self.origin,
            voice: self.voice,
            inner_retry: self.inner_retry,
            headers: self.headers.clone(),
        };
        self.fill(&mut page, after, read);
        page
    }

    fn fill(&self, page: &mut Page, after: EventId, read: &Read) {
        let (mut events, mut bytes) = (0, 0);
        for record in self.log.after(after) {
            let (count, length) = match &record.kind {
                RecordKind::Events(events) => (events.count, events.bytes.len()),
                RecordKind::Run { .. } | RecordKind::End(_) => (1, 0),
            };
            let is_full = events >= read.max_events as u64 || bytes + length > read.max_bytes;
            if is_full && !page.records.is_empty() {
                page.more = true;
                return;
            }
            (events, bytes) = (events + count, bytes + length);
            page.records.push(record.clone());
        }
        if let Some(ended) = self.ended().filter(|ended| ended.id > after) {
            page.records.push(Record { id: ended.id, at: ended.at, kind: RecordKind::End(Box::new(ended.clone())) });
        }
    }

    fn knows(&self, cursor: EventId) -> bool {
        cursor.epoch == self.epoch
            || self.ended.as_ref().is_some_and(|ended| ended.id == cursor)
            || self.log.knows(cursor.epoch)
    }
}
