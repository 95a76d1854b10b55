//! The retention of a stream.

use std::time::Duration;

/// How much of a stream a store keeps, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The stale threshold: how long after its last beat an active stream is overdue.
    pub stale: Duration,
    /// How long a stream lives after the store last heard from its producer.
    pub lifetime: Duration,
    /// How long an ended stream is kept.
    pub recovery_window: Duration,
    /// How many events the log holds. The entry that starts a run counts as one event, unless the previous run has no
    /// events.
    pub max_events: usize,
    /// How many bytes of events the log holds.
    pub max_bytes: usize,
}

impl Retention {
    /// Returns how long the keys of a stream without an end live after the store last heard from its producer. This is
    /// long enough for a guardian to find the stream when its lifetime is over. A conversation's pointer to it lives as
    /// long.
    pub(crate) fn kept(&self) -> Duration {
        self.lifetime.saturating_add(self.recovery_window).saturating_add(self.stale)
    }
}
