//! The ending of a stream.

use std::borrow::Cow;

use bytes::Bytes;

use super::StreamState;
use crate::model::id::EventId;

/// The reason for a stream's end, for streams without a terminal event of their own.
pub type Reason = Cow<'static, str>;

/// The reasons that the library sets.
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
    /// The last reader left a [`Cancel`](crate::Disconnect::Cancel) route.
    pub const DISCONNECTED: Reason = Reason::Borrowed("disconnected");
    /// The stream was stopped on request.
    pub const STOPPED: Reason = Reason::Borrowed("stopped");
    /// The next turn of the stream's conversation has started.
    pub const REPLACED: Reason = Reason::Borrowed("replaced");
    /// The stream ran without a reader for longer than its route allows.
    pub const DETACH_TIMEOUT: Reason = Reason::Borrowed("detach_timeout");
    /// The process had too many streams without a reader, and this stream's owner had the most of them.
    pub const DETACH_LIMIT: Reason = Reason::Borrowed("detach_limit");
    /// The process shut down before the work was done.
    pub const SHUTDOWN: Reason = Reason::Borrowed("shutdown");
    /// A publication was dropped without an end.
    pub const DROPPED: Reason = Reason::Borrowed("dropped");
    /// The store did not hear from a producer for longer than the lifetime.
    pub const LIFETIME: Reason = Reason::Borrowed("lifetime");
    /// The store did not hear from the producing node for longer than the stale threshold.
    pub const NODE_LOST: Reason = Reason::Borrowed("node_lost");
}

/// The ending of a stream: its final state, the reason, and its terminal event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The final state, which is always terminal.
    pub state: StreamState,
    /// The reason for the ending; `None` where the producer's own terminal event gives it.
    pub reason: Option<Reason>,
    /// The terminal event's block as the producer wrote it. `None` if the library supplies the ending: each route then
    /// announces it in its own voice.
    pub event: Option<Bytes>,
}

impl Ending {
    /// Creates an ending that the library supplies.
    #[must_use]
    pub fn supplied(state: StreamState, reason: Reason) -> Self {
        Self { state, reason: Some(reason), event: None }
    }

    /// Creates an ending with the producer's own terminal event.
    #[must_use]
    pub fn with_event(state: StreamState, event: Bytes) -> Self {
        Self { state, reason: None, event: Some(event) }
    }
}

/// A completion: the ending of a stream, which the store keeps for the recovery window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The ending.
    pub ending: Ending,
    /// The id of the terminal event.
    pub id: EventId,
    /// The last event that the producer of the run produced, recorded or not.
    pub last: EventId,
    /// When the stream ended, by the store's clock, in unix milliseconds.
    pub at: u64,
}
