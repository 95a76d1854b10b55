//! The states of a stream.

use std::fmt;

use serde::Serialize;

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamState {
    /// A producer runs.
    Active,
    /// No producer now; the log is kept, and a request may start a new run.
    Interrupted,
    /// Ended: the producer was done.
    Completed,
    /// Ended: the producer failed.
    Failed,
    /// Ended: somebody stopped it, or its client left a route that cancels then.
    Cancelled,
    /// Ended: its node died, and nobody knows how the work ended.
    Orphaned,
    /// Ended: it outlived its lifetime.
    Expired,
}

impl StreamState {
    /// Whether the state never changes again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Active | Self::Interrupted)
    }

    /// The state's name, as it stands in events, JSON and stores.
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
