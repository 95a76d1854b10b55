//! The policy for the work after the last reader has left.

use std::time::Duration;

/// The policy for the work after the last reader of the stream has left.
///
/// A reader is the client whose request started the work, or a client that follows the stream on any node. A client
/// that is connected but does not read counts as a reader. The work continues while the stream has a reader, even if
/// the first client has left.
///
/// With [`Interrupt`](Self::Interrupt) and [`Cancel`](Self::Cancel) the work continues for the route's
/// [`grace`](crate::ResilientSseLayer::grace) after the last reader has left (2 s; none on `layer()`), so that a page
/// reload does not end it. [`Detach`](Self::Detach) measures `at_most` from the moment the last reader left; `grace`
/// does not apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disconnect {
    /// Drops the inner body. The next request runs the handler again, as with plain server-sent events.
    Interrupt,
    /// Drops the inner body and closes the stream as `cancelled`. The handler never runs a second time.
    Cancel,
    /// Keeps driving and recording the inner body, for at most this long.
    Detach {
        /// How long the inner body may run without a reader, measured anew each time the last reader leaves. 10 minutes
        /// in [`Disconnect::DETACH`].
        at_most: Duration,
    },
}

impl Disconnect {
    /// [`Detach`](Self::Detach) for at most 10 minutes.
    pub const DETACH: Self = Self::Detach { at_most: Duration::from_secs(600) };

    /// Whether the stream of such a route may be run again after its producer is gone.
    #[must_use]
    pub const fn reruns(self) -> bool {
        matches!(self, Self::Interrupt)
    }
}
