//! The items that an event source yields, and its states.

use std::time::Duration;

use http::HeaderMap;

use super::CutCause;
use crate::{
    model::{id::StreamId, stream::StreamState},
    node::headers::{STREAM_ID, STREAM_RECORDED},
    wire::Message,
};

/// An item of an [`EventSource`](super::EventSource).
#[derive(Debug)]
#[non_exhaustive]
pub enum Update {
    /// A response with an event stream began: the first response, or one after a [`Cut`](Self::Cut).
    Connected(Connected),
    /// An event of the stream.
    Event(Message),
    /// Events were lost.
    Gap(Gap),
    /// The work began again. Discard the events so far: the new run may repeat or contradict them.
    Restart(Restart),
    /// The connection was lost, or an attempt failed. The source tries again by itself.
    Cut(Cut),
    /// The stream has ended. This is the last item.
    Ended(Ended),
}

/// A response with an event stream.
#[derive(Clone, Debug)]
pub struct Connected {
    /// The headers of the response. They include the headers that the host keeps for every reader.
    pub headers: HeaderMap,
}

impl Connected {
    /// Returns the id of the response's stream (`X-Stream-Id`), if there is one. Recovery and stop take this id.
    #[must_use]
    pub fn stream_id(&self) -> Option<StreamId> {
        self.headers.get(STREAM_ID).and_then(|id| StreamId::new(id.to_str().ok()?).ok())
    }

    /// Returns whether the server says that the stream cannot be resumed (`X-Stream-Recorded: false`).
    #[must_use]
    pub fn is_unrecorded(&self) -> bool {
        self.headers.get(STREAM_RECORDED).is_some_and(|recorded| recorded == "false")
    }
}

/// A place in the stream where events are missing that the server can no longer deliver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// The id of the last event before the gap; `None` if it is unknown.
    pub after: Option<String>,
    /// The id of the first event after the gap; `None` if it is unknown.
    pub resumes_at: Option<String>,
    /// How many events were lost; `None` if the number is unknown.
    pub missed: Option<u64>,
}

/// The beginning of a new run of the stream's work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restart {
    /// The epoch of the new run; `None` if the server did not send it.
    pub epoch: Option<u64>,
}

/// A lost connection, or an attempt that failed. The source connects again by itself.
#[derive(Debug)]
pub struct Cut {
    /// Why the connection was lost or the attempt failed.
    pub cause: CutCause,
    /// Why the server closed the connection, if it said so: `shutdown`, `superseded`, `interrupted` and others.
    pub reason: Option<String>,
    /// How many attempts in a row brought no event.
    pub attempts: u32,
    /// How long the source waits before the next attempt.
    pub retry_in: Duration,
}

/// The end of the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// The terminal event, or `None` if the stream ended without one.
    ///
    /// It is `None` if the server answered 204: the cursor was at the end of the stream, or there was nothing to read.
    /// It is also `None` if the response to a POST ended cleanly and its events had no ids, so that it cannot be
    /// resumed.
    pub event: Option<Message>,
    /// How the stream ended, if the terminal event says it.
    pub state: Option<StreamState>,
    /// Why the stream ended, if the library wrote the terminal event: `eof`, `stopped`, `node_lost` and others.
    pub reason: Option<String>,
}

/// The state of an [`EventSource`](super::EventSource).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// The source makes an attempt, or begins one at the next poll.
    Connecting,
    /// The source reads a response.
    Open,
    /// The source waits before the next attempt.
    Waiting,
    /// The stream has ended.
    Ended,
    /// The source gave up.
    GaveUp,
    /// The owner has closed the source.
    Closed,
}
