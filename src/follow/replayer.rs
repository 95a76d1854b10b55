//! Which page to read next, and what of it is news.

use crate::{
    model::{
        error::StoreError,
        id::{EventId, StreamKey},
        stream::{Record, StreamInfo},
    },
    protocol::{
        admission::Position,
        replay::{Owed, Replay, Step},
    },
    runtime::executor::BoxFuture,
    store::{Page, Read, ReadFrom, StoreHandle},
};

/// Entries and bytes that a page holds.
const PAGE_EVENTS: usize = 512;
const PAGE_BYTES: usize = 128 << 10;

/// A reader's place in a stored log.
#[derive(Debug)]
pub(super) struct Replayer {
    pub(super) key: StreamKey,
    from: ReadFrom,
    pub(super) place: Replay,
    /// Only what comes from now on: where that is, the first page says.
    live: bool,
    /// Nothing was read yet. The first page is as small as can be, so that the client has something soon.
    is_first: bool,
}

impl Replayer {
    pub(super) fn new(key: StreamKey, position: Position, owed: Owed) -> Self {
        let (from, place) = match position {
            Position::Newest => (ReadFrom::Newest, Replay::fresh(owed)),
            Position::Live => (ReadFrom::Newest, Replay::fresh(Owed::Nothing)),
            Position::After(cursor) => (ReadFrom::After(cursor), Replay::after(cursor)),
            Position::Unreadable => (ReadFrom::Start, Replay::unknown(None, owed)),
        };
        Self { key, from, place, live: position == Position::Live, is_first: true }
    }

    pub(super) fn fetch(&mut self, store: &StoreHandle) -> BoxFuture<Result<Option<Page>, StoreError>> {
        let store = store.clone();
        if self.live {
            let key = self.key.clone();
            return Box::pin(async move { Ok(store.info(key).await?.map(|info| standing(&info))) });
        }
        // A store that answers at once is as soon done with a whole page.
        let is_small = self.is_first && !store.is_immediate();
        let (max_events, max_bytes) = if is_small { (1, 1) } else { (PAGE_EVENTS, PAGE_BYTES) };
        let read = Read { key: self.key.clone(), from: self.from, max_events, max_bytes };
        Box::pin(async move { store.read(read).await })
    }

    /// Looks whether the first page is the right one: if not, the next fetch gets that.
    pub(super) fn starts_over(&mut self, page: &Page) -> bool {
        if !page.known {
            self.place = self.place.forgotten();
            self.from = ReadFrom::Start;
            return true;
        }
        if std::mem::take(&mut self.live) {
            // Of a stream that has ended, the end itself is still to come.
            let end = page.state.is_terminal();
            let top = if end { EventId::new(page.epoch, u64::MAX) } else { page.top };
            self.place = Replay::after(top);
            self.from = ReadFrom::After(top);
            return true;
        }
        false
    }

    /// A page was read. Returns whether it was the first.
    pub(super) fn has_read(&mut self) -> bool {
        std::mem::take(&mut self.is_first)
    }

    /// The next entry; `None` if it is not for this reader.
    pub(super) fn take(&mut self, record: &Record) -> Option<Step> {
        self.from = ReadFrom::After(record.id);
        self.place.step(record)
    }
}

/// A page without entries, which says where a stream stands.
fn standing(info: &StreamInfo) -> Page {
    Page {
        state: info.state,
        epoch: info.epoch,
        top: info.top,
        known: true,
        records: Vec::new(),
        more: false,
        origin: info.origin,
        voice: info.voice,
        inner_retry: info.inner_retry,
        headers: info.headers.clone(),
    }
}
