//! The errors of an event source.

use std::{error::Error, fmt, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode};

use crate::{model::error::BoxError, wire::TooLarge};

/// Why an attempt failed or a connection was lost. The source tries again.
#[derive(Debug)]
#[non_exhaustive]
pub enum CutCause {
    /// The caller's function for headers failed.
    Headers(BoxError),
    /// The HTTP client failed to send the request, or to receive the response's head.
    Request(BoxError),
    /// No response head came within the time limit.
    NoResponse {
        /// How long the source waited.
        waited: Duration,
    },
    /// The server answered with 429 or 5xx.
    Status(StatusCode),
    /// The response body failed before its end.
    Body(BoxError),
    /// The response ended cleanly before the stream's terminal event. Responses of feeds and responses over HTTP/1.0
    /// end so.
    EndedEarly,
    /// The connection was silent for too long: not even heartbeats came.
    Silent {
        /// How long the connection was silent: 2.5 heartbeat intervals.
        waited: Duration,
    },
}

impl fmt::Display for CutCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Headers(_) => f.write_str("the function for headers failed"),
            Self::Request(_) => f.write_str("the request failed"),
            Self::NoResponse { waited } => write!(f, "no response came within {waited:?}"),
            Self::Status(status) => write!(f, "the server answered {status}"),
            Self::Body(_) => f.write_str("the response broke off"),
            Self::EndedEarly => f.write_str("the response ended before the stream's terminal event"),
            Self::Silent { waited } => write!(f, "nothing came for {waited:?}"),
        }
    }
}

impl Error for CutCause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Headers(source) | Self::Request(source) | Self::Body(source) => Some(&**source),
            Self::NoResponse { .. } | Self::Status(_) | Self::EndedEarly | Self::Silent { .. } => None,
        }
    }
}

/// Why an event source stopped before the end of the stream.
///
/// The events so far stay valid. Call [`EventSource::reconnect`](super::EventSource::reconnect) to go on after the last
/// event with the same source, or build a new source with its [`last_event_id`](super::EventSource::last_event_id).
#[derive(Debug)]
#[non_exhaustive]
pub enum GaveUp {
    /// Too many attempts in a row brought no event.
    Attempts {
        /// How many attempts brought no event.
        attempts: u32,
        /// Why the last attempt failed.
        last: CutCause,
    },
    /// The server refused the request with a status other than 200, 204, 429 and 5xx. Another attempt would get the
    /// same answer.
    ///
    /// The response holds the first 16 KiB of its body at most. This library's servers explain the refusal there in a
    /// sentence.
    Refused(Box<Response<Bytes>>),
    /// The response is not an event stream.
    NoEventStream {
        /// The response's content type; `None` if it has none.
        content_type: Option<String>,
    },
    /// An event is larger than [`max_event_bytes`](super::EventSourceBuilder::max_event_bytes). The source does not
    /// reconnect, because the server would send the same event again.
    EventTooLarge(TooLarge),
    /// The last event id holds bytes that a header cannot carry, so no request can ask for the events after it.
    Cursor {
        /// The last event id.
        id: String,
    },
}

impl GaveUp {
    /// Returns the status with which the server refused the request or failed the last attempt, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused(response) => Some(response.status()),
            Self::Attempts { last: CutCause::Status(status), .. } => Some(*status),
            _ => None,
        }
    }
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attempts { attempts: 1, .. } => f.write_str("an attempt brought no event"),
            Self::Attempts { attempts, .. } => write!(f, "{attempts} attempts in a row brought no event"),
            Self::Refused(response) => write!(f, "the server refused the stream: {}", response.status()),
            Self::NoEventStream { content_type: Some(found) } => {
                write!(f, "the response is not text/event-stream but {}", found.escape_debug())
            }
            Self::NoEventStream { content_type: None } => {
                f.write_str("the response is not text/event-stream: it has no type")
            }
            Self::EventTooLarge(too_large) => too_large.fmt(f),
            Self::Cursor { id } => write!(f, "the last event id cannot be sent in a header: {id:?}"),
        }
    }
}

impl Error for GaveUp {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Attempts { last, .. } => Some(last),
            _ => None,
        }
    }
}
