//! What an event source tells its owner, and where it stands.

use std::time::Duration;

use http::HeaderMap;

use super::CutCause;
use crate::{
    model::{id::StreamId, stream::StreamState},
    node::headers::{STREAM_ID, STREAM_RECORDED},
    wire::Message,
};

/// What an [`EventSource`](super::EventSource) yields.
#[derive(Debug)]
#[non_exhaustive]
pub enum Update {
    /// A response began: the first one, or one after a [`Cut`](Self::Cut).
    Connected(Connected),
    /// An event of the stream.
    Event(Message),
    /// Events are lost.
    Gap(Gap),
    /// The work began anew: what came before may be repeated or contradicted, so throw it away.
    Restart(Restart),
    /// The connection was lost, or none came about. The next attempt is under way.
    Cut(Cut),
    /// The stream has ended. It is the last item.
    Ended(Ended),
}

/// A response with an event stream.
#[derive(Clone, Debug)]
pub struct Connected {
    /// The response's headers, those that its host keeps for every reader among them.
    pub headers: HeaderMap,
}

impl Connected {
    /// The stream that the response belongs to (`X-Stream-Id`): what recovery and stop are asked with.
    #[must_use]
    pub fn stream_id(&self) -> Option<StreamId> {
        self.headers.get(STREAM_ID).and_then(|id| StreamId::new(id.to_str().ok()?).ok())
    }

    /// Whether the server says that the stream cannot be resumed (`X-Stream-Recorded: false`).
    #[must_use]
    pub fn is_unrecorded(&self) -> bool {
        self.headers.get(STREAM_RECORDED).is_some_and(|recorded| recorded == "false")
    }
}

/// Events that nobody can deliver any more stood here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// The last event before it; `None` where that is unknown.
    pub after: Option<String>,
    /// The next event; `None` where that is unknown.
    pub resumes_at: Option<String>,
    /// How many events are lost; `None` where that is unknown.
    pub missed: Option<u64>,
}

/// A new run of the stream's work begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restart {
    /// The epoch of the new run; `None` where the server did not say.
    pub epoch: Option<u64>,
}

/// A lost connection, or an attempt that failed. The source connects again by itself.
#[derive(Debug)]
pub struct Cut {
    /// What happened.
    pub cause: CutCause,
    /// Why the server let go of the connection, where it said so: `shutdown`, `superseded`, `interrupted` and others.
    pub reason: Option<String>,
    /// How many attempts in a row have brought no event.
    pub attempts: u32,
    /// How long the source waits before the next attempt.
    pub retry_in: Duration,
}

/// The end of the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// The terminal event. `None` where the server said by its status (204) that everything was delivered, as it does for a
    /// cursor at the stream's end, or where nothing is there to be read; and where a response to a POST that cannot be
    /// resumed ended cleanly.
    pub event: Option<Message>,
    /// How the stream ended, where the terminal event says it.
    pub state: Option<StreamState>,
    /// Why, where the library supplied the ending: `eof`, `stopped`, `node_lost` and others.
    pub reason: Option<String>,
}

/// Where an [`EventSource`](super::EventSource) stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// It makes an attempt, or will when it is polled.
    Connecting,
    /// It reads a response.
    Open,
    /// It waits before the next attempt.
    Waiting,
    /// The stream has ended.
    Ended,
    /// It gave up.
    GaveUp,
    /// Its owner has closed it.
    Closed,
}
