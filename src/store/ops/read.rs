//! Reading a log, page by page.

use crate::model::{
    id::{EventId, StreamKey},
    kept::KeptHeaders,
    stream::{Origin, Record, StreamState},
    voice::Voice,
};

/// Where in a log a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the first entry of the newest run that the store still holds.
    Newest,
    /// At the first entry that the store still holds.
    Start,
    /// At the entry with the first event after this one, or at the next entry of any kind.
    After(EventId),
}

/// A request for a page of a log.
///
/// Events that are stored together are returned together, so a page may begin with events up to the cursor, and it may
/// exceed the limits by the rest of its last entry and by entries that were fetched with it, up to about twice the limits. A
/// page may also be smaller if more would take longer; then [`Page::more`] is set.
#[derive(Clone, Debug)]
pub struct Read {
    /// The stream to read.
    pub key: StreamKey,
    /// Where the page begins.
    pub from: ReadFrom,
    /// About how many events and run markers the page has. The end of the stream comes on top.
    pub max_events: usize,
    /// About how many bytes of events the page has. A page has at least one entry, whatever its size.
    pub max_bytes: usize,
}

/// A page of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The state of the stream.
    pub state: StreamState,
    /// The newest run.
    pub epoch: u64,
    /// The newest entry that the store knows of, or the cursor if that is higher. Unless [`more`](Self::more) is set, no
    /// entry is newer.
    pub top: EventId,
    /// With [`ReadFrom::After`]: whether the stream ever had a run of that epoch, as far as the store can tell.
    pub known: bool,
    /// The entries, in order. The end of the stream is the last of them, once everything before it has been read.
    pub records: Vec<Record>,
    /// Whether there are more entries, or may be. If so, `records` is not empty.
    pub more: bool,
    /// Who produces the stream, and who named it.
    pub origin: Origin,
    /// The voice in which the library writes its own events into the stream.
    pub voice: Voice,
    /// The reconnect delay that the inner service set last, in milliseconds.
    pub inner_retry: Option<u64>,
    /// The headers of the producer's response that are kept with the stream.
    pub headers: KeptHeaders,
}

impl Page {
    /// A page without entries, of a stream whose newest entry is `top`. Stores add the rest: see the fields.
    #[must_use]
    pub fn new(state: StreamState, epoch: u64, top: EventId) -> Self {
        Self {
            state,
            epoch,
            top,
            known: true,
            records: Vec::new(),
            more: false,
            origin: Origin::Named,
            voice: Voice::default(),
            inner_retry: None,
            headers: KeptHeaders::None,
        }
    }
}
