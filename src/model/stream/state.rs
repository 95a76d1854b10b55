//! The states of a stream.

use std::fmt;

use serde::Serialize;

/// The state of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamState {
    /// A producer is running.
    Active,
    /// No producer is running. The log is kept, and a request may start a new run.
    Interrupted,
    /// The stream ended because the producer finished.
    Completed,
    /// The stream ended because the producer failed.
    Failed,
    /// The stream ended because it was stopped, or because its last reader left a [`Cancel`](crate::Disconnect::Cancel)
    /// route.
    Cancelled,
    /// The stream ended because its node died. The outcome of the work is unknown.
    Orphaned,
    /// The stream ended because it exceeded its lifetime.
    Expired,
}

impl StreamState {
    /// Whether the state never changes again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Active | Self::Interrupted)
    }

    /// Returns the state's name in events, JSON and stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Interrupted => "interrupted",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Orphaned => "orphaned",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for StreamState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
