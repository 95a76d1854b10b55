//! The place of a reader in a stored log: which page to read next, and which of its entries are new to the reader.

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

/// How many entries and bytes a page has at most.
const PAGE_EVENTS: usize = 512;
const PAGE_BYTES: usize = 128 << 10;

/// A reader's place in a stored log.
#[derive(Debug)]
pub(super) struct Replayer {
    pub(super) key: StreamKey,
    from: ReadFrom,
    pub(super) place: Replay,
    /// Whether the reader wants only new events. The first page then tells where the log ends.
    live: bool,
    /// Whether nothing was read yet. The first page holds one entry, so that the client gets it soon.
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

    /// Notes that the reader wants every event of the newest run, even if it asked for new ones only.
    pub(super) fn wants_all(&mut self) {
        self.live = false;
    }

    pub(super) fn fetch(&mut self, store: &StoreHandle) -> BoxFuture<Result<Option<Page>, StoreError>> {
        let store = store.clone();
        if self.live {
            let key = self.key.clone();
            return Box::pin(async move { Ok(store.info(key).await?.map(|info| standing(&info))) });
        }
        // An immediate store returns a whole page as soon as a small one.
        let is_small = self.is_first && !store.is_immediate();
        let (max_events, max_bytes) = if is_small { (1, 1) } else { (PAGE_EVENTS, PAGE_BYTES) };
        let read = Read { key: self.key.clone(), from: self.from, max_events, max_bytes };
        Box::pin(async move { store.read(read).await })
    }

    /// Returns whether the reader must start over from another place, because the store does not know its cursor, or
    /// because it wants only new events. The next fetch then reads from there.
    pub(super) fn starts_over(&mut self, page: &Page) -> bool {
        if !page.known {
            self.place = self.place.forgotten();
            self.from = ReadFrom::Start;
            return true;
        }
        if std::mem::take(&mut self.live) {
            // If the stream has ended, the reader still gets the end.
            let end = page.state.is_terminal();
            let top = if end { EventId::new(page.epoch, u64::MAX) } else { page.top };
            self.place = Replay::after(top);
            self.from = ReadFrom::After(top);
            return true;
        }
        false
    }

    /// Notes that a page was read. Returns whether it was the first.
    pub(super) fn has_read(&mut self) -> bool {
        std::mem::take(&mut self.is_first)
    }

    /// Takes the next entry. Returns `None` if the entry is not for this reader.
    pub(super) fn take(&mut self, record: &Record) -> Option<Step> {
        self.from = ReadFrom::After(record.id);
        self.place.step(record)
    }
}

/// Returns a page without entries, with the stream's state.
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
