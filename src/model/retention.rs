//! How long and how much is kept of a stream.

use std::time::Duration;

/// How long and how much a store keeps of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long after its last beat an active stream is overdue (the stale threshold).
    pub stale: Duration,
    /// How long a stream lives after its producer was last heard of.
    pub lifetime: Duration,
    /// How long an ended stream is kept.
    pub recovery_window: Duration,
    /// How many events the log holds. A run's start marker counts as one event, unless the run before it made none.
    pub max_events: usize,
    /// How many bytes of events the log holds.
    pub max_bytes: usize,
}

impl Retention {
    /// How long a stream's keys live after its producer was last heard of, if nobody ends it: long enough that a guardian
    /// finds the stream when its lifetime is over. A conversation's pointer to it lives as long.
    pub(crate) fn kept(&self) -> Duration {
        self.lifetime.saturating_add(self.recovery_window).saturating_add(self.stale)
    }
}
