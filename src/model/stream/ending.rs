//! How a stream ended.

use std::borrow::Cow;

use bytes::Bytes;

use super::StreamState;
use crate::model::id::EventId;

/// The reason for a stream's end, where its own terminal event does not say.
pub type Reason = Cow<'static, str>;

/// The reasons that the library gives.
pub mod reason {
    use crate::Reason;

    /// The body ended without a terminal event.
    pub const EOF: Reason = Reason::Borrowed("eof");
    /// The body failed with an error.
    pub const ERROR: Reason = Reason::Borrowed("error");
    /// The inner code panicked.
    pub const PANIC: Reason = Reason::Borrowed("panic");
    /// An event was larger than the limit.
    pub const EVENT_TOO_LARGE: Reason = Reason::Borrowed("event_too_large");
    /// The last reader left a route that cancels then.
    pub const DISCONNECTED: Reason = Reason::Borrowed("disconnected");
    /// The stream was stopped on request.
    pub const STOPPED: Reason = Reason::Borrowed("stopped");
    /// The next turn of the stream's conversation has started.
    pub const REPLACED: Reason = Reason::Borrowed("replaced");
    /// It ran longer without any reader than its route allows.
    pub const DETACH_TIMEOUT: Reason = Reason::Borrowed("detach_timeout");
    /// Too many streams of the process were read by nobody, and this one's owner had the most of them.
    pub const DETACH_LIMIT: Reason = Reason::Borrowed("detach_limit");
    /// The process went down before the work was done.
    pub const SHUTDOWN: Reason = Reason::Borrowed("shutdown");
    /// A publication was dropped without an end.
    pub const DROPPED: Reason = Reason::Borrowed("dropped");
    /// No producer was heard of for longer than the lifetime.
    pub const LIFETIME: Reason = Reason::Borrowed("lifetime");
    /// The producing node was not heard of for longer than the stale threshold.
    pub const NODE_LOST: Reason = Reason::Borrowed("node_lost");
}

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Always a terminal state.
    pub state: StreamState,
    /// Why, where the terminal event does not say.
    pub reason: Option<Reason>,
    /// The terminal event's block as the producer wrote it; `None` where the library supplies the ending,
    /// which each route then tells in its own voice.
    pub event: Option<Bytes>,
}

impl Ending {
    /// An ending that the library supplies.
    #[must_use]
    pub fn supplied(state: StreamState, reason: Reason) -> Self {
        Self { state, reason: Some(reason), event: None }
    }

    /// An ending with the producer's own terminal event.
    #[must_use]
    pub fn with_event(state: StreamState, event: Bytes) -> Self {
        Self { state, reason: None, event: Some(event) }
    }
}

/// A completion: the end of a stream as the store keeps it for the recovery window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub ending: Ending,
    /// The terminal event's id.
    pub id: EventId,
    /// The last event of its run that the producer made, recorded or not.
    pub last: EventId,
    /// When, by the store's clock, in unix milliseconds.
    pub at: u64,
}
