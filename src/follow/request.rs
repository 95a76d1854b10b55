//! The request of a consumer that follows a stream.

use std::time::Duration;

use crate::{
    model::{
        id::{EventId, StreamId, StreamKey},
        voice::Voice,
    },
    protocol::{admission::Position, replay::Owed},
};

/// How a client is served: its voice and heartbeat, and how a drain lets it go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) voice: Voice,
    /// The length of silence after which the client gets a heartbeat.
    pub(crate) heartbeat: Duration,
    /// Whether the route's streams never finish, so that its clients expect a clean end.
    pub(crate) endless: bool,
    /// Whether the client reconnects by itself when its body breaks, as an `EventSource` does.
    pub(crate) comes_again: bool,
}

/// The stream and position that a consumer follows, and how the consumer is served.
pub(crate) struct FollowRequest {
    pub(crate) key: StreamKey,
    pub(crate) position: Position,
    /// The events owed to a reader without a cursor.
    pub(crate) owed: Owed,
    pub(crate) manner: Manner,
    /// The prefix of every event id, if the library made up the stream's id.
    pub(crate) prefix: Option<StreamId>,
    /// The reconnect delay that the inner service set, in milliseconds.
    pub(crate) retry: Option<u64>,
    /// How long to wait for a stream that is not opened yet.
    pub(crate) wait: Option<Duration>,
    /// What to take from the store's first page, since it is not known yet.
    pub(crate) unknown: Unknown,
    /// The live run that the reader switches to. The reader reads the log up to that run's start.
    pub(crate) until: Option<EventId>,
}

/// The properties of a stream that are not known before the store's first page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    Nothing,
    /// The kept headers of the producer's response, and the inner service's reconnect delay.
    Response,
    /// The prefix of the event ids, and the inner service's reconnect delay.
    Stream,
    /// The same as `Stream`, and the voice. Until it is known the follower is greeted in the default voice.
    StreamAndVoice,
}
