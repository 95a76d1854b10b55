//! What happens to the work when nobody reads it any more.

use std::time::Duration;

/// What happens to the work once nobody reads the stream any more.
///
/// A reader is the client whose request began the work, or any client that follows the stream, on this node or on another; a
/// client that is connected and does not read is one too. The work goes on while the stream has a reader, even if the
/// first client left.
///
/// With [`Interrupt`](Self::Interrupt) and [`Cancel`](Self::Cancel) the work goes on for the route's
/// [`grace`](crate::ResilientSseLayer::grace) after the last reader has left (2 s, none on `layer()`), so that a reload does
/// not end it. [`Detach`](Self::Detach) counts its `at_most` from that moment; `grace` does not apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disconnect {
    /// The inner body is dropped, and the next request runs it again: like plain server-sent events.
    Interrupt,
    /// The inner body is dropped, the stream is closed as `cancelled`, and never run twice.
    Cancel,
    /// The inner body is driven on, recording, for at most this long.
    Detach {
        /// How long it may run on without any reader; each time starts anew. Default: 10 minutes.
        at_most: Duration,
    },
}

impl Disconnect {
    /// `Detach` for at most 10 minutes.
    pub const DETACH: Self = Self::Detach { at_most: Duration::from_secs(600) };

    /// Whether the stream of such a route may be run again after its producer is gone.
    #[must_use]
    pub const fn reruns(self) -> bool {
        matches!(self, Self::Interrupt)
    }
}
