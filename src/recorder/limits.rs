//! The limits on an entry of a log.

use crate::{
    model::config::{ENTRY_BYTES, ENTRY_EVENTS, ENTRY_SHARE},
    store::Retention,
};

/// How much an entry of a log may hold. A single larger event is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryLimits {
    pub(crate) events: u64,
    pub(crate) bytes: usize,
}

impl EntryLimits {
    /// Returns the limits for a log with this retention: small, because a log is trimmed by whole entries.
    pub(crate) fn of(retention: &Retention) -> Self {
        let events = (retention.max_events / ENTRY_SHARE).clamp(1, ENTRY_EVENTS) as u64;
        Self { events, bytes: (retention.max_bytes / ENTRY_SHARE).min(ENTRY_BYTES) }
    }

    /// Whether an entry may hold this much.
    pub(crate) fn take(self, events: u64, bytes: usize) -> bool {
        events <= 1 || (events <= self.events && bytes <= self.bytes)
    }
}
