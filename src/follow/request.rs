//! What a consumer follows, and how it is answered.

use std::time::Duration;

use crate::{
    model::{
        id::{EventId, StreamId, StreamKey},
        voice::Voice,
    },
    protocol::{admission::Position, replay::Owed},
};

/// The manner in which a follower is answered, and let go in a drain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) voice: Voice,
    /// After how much silence it is sent a heartbeat.
    pub(crate) heartbeat: Duration,
    /// Whether its route never finishes: its clients expect a clean end.
    pub(crate) endless: bool,
    /// Whether it reconnects by itself when its body breaks, as an `EventSource` does.
    pub(crate) comes_again: bool,
}

/// The stream and position that a consumer follows, and the manner in which it is answered.
pub(crate) struct FollowRequest {
    pub(crate) key: StreamKey,
    pub(crate) position: Position,
    /// The events owed to a reader without a cursor.
    pub(crate) owed: Owed,
    pub(crate) manner: Manner,
    /// Stands before every id where the library made up the stream's id.
    pub(crate) prefix: Option<StreamId>,
    /// The reconnect delay that the inner service set, in milliseconds.
    pub(crate) retry: Option<u64>,
    /// For how long to wait for a stream that is not opened yet.
    pub(crate) wait: Option<Duration>,
    /// What is asked for once the store gives a page.
    pub(crate) unknown: Unknown,
    /// The run that the reader goes over to: it reads up to that run's start, and no further.
    pub(crate) until: Option<EventId>,
}

/// What is not known of a stream before the store has said what stream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    Nothing,
    /// What the producer's response said: headers that are kept, and the inner service's reconnect delay.
    Response,
    /// The prefix of its ids and the inner service's reconnect delay.
    Stream,
    /// Its voice, too: until that is known the follower is greeted in the default one.
    StreamAndVoice,
}
