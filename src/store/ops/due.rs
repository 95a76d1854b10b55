//! Streams that a guardian must look at.

use crate::model::stream::StreamInfo;

/// A stream that a guardian must look at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Due {
    /// The stream. Its deadline is the one that the lease wrote.
    pub info: StreamInfo,
    /// Why the stream is due.
    pub reason: DueReason,
}

/// Why a stream is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DueReason {
    /// The store has not heard of the producer for longer than the stale threshold.
    Stale,
    /// The stream has outlived its lifetime.
    Lifetime,
    /// The stream's `on_end` hook has not been acknowledged.
    Hook,
}

impl Due {
    /// A stream that is due for this reason.
    #[must_use]
    pub fn new(info: StreamInfo, reason: DueReason) -> Self {
        Self { info, reason }
    }
}
