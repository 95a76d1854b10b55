//! The registration of a stream.

use std::borrow::Cow;

use super::{Ended, Origin, StreamState};
use crate::model::{
    id::{EventId, NodeId, StreamId, StreamKey},
    kept::KeptHeaders,
    metadata::Metadata,
    turn::Turn,
    voice::Voice,
};

/// Everything that a store knows about a stream, apart from its log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamInfo {
    /// The stream's owner and id.
    pub key: StreamKey,
    /// The kind of stream: `generation`, `export`, any name.
    pub kind: Cow<'static, str>,
    /// The origin of the stream.
    pub origin: Origin,
    /// The fingerprint of the request that opened the stream, if the route computes one.
    pub fingerprint: Option<String>,
    /// The voice of the route that produces the stream, used towards all of its clients.
    pub voice: Voice,
    /// The conversation that the stream is a turn of.
    pub turn: Option<Turn>,
    /// The kept headers of the newest run's response.
    pub headers: KeptHeaders,
    /// The stream's state.
    pub state: StreamState,
    /// The epoch of the newest run.
    pub epoch: u64,
    /// The last event that the previous run produced, recorded or not; `None` if the store knows of no previous run.
    pub previous: Option<EventId>,
    /// The node whose guardian keeps the stream alive; `None` for a stateless publication.
    pub node: Option<NodeId>,
    /// Whether the producer of the newest run has begun to answer: it reported so, or an event of that run was
    /// recorded. Until then its registration may still be withdrawn.
    pub started: bool,
    /// Whether the stream may be run again after its producer is gone.
    pub reruns: bool,
    /// When the newest run began, by the store's clock, in unix milliseconds.
    pub started_at: u64,
    /// When the store last heard from the producer, by the store's clock, in unix milliseconds.
    pub last_heartbeat: u64,
    /// The earliest time at which a guardian may check whether the stream's node died, by the store's clock, in unix
    /// milliseconds.
    pub deadline: u64,
    /// The metadata that the host keeps with the stream.
    pub metadata: Metadata,
    /// The id of the newest recorded event or marker.
    pub top: EventId,
    /// The last id that the inner service itself gave an event.
    pub inner_id: Option<String>,
    /// The last reconnect delay that the inner service set, in milliseconds. Followers receive the same delay.
    pub inner_retry: Option<u64>,
    /// The stream's ending; `None` while it has not ended.
    pub ended: Option<Ended>,
}

impl StreamInfo {
    /// An active stream without recorded events. A store sets the other fields that it knows.
    #[must_use]
    pub fn new(key: StreamKey, kind: impl Into<Cow<'static, str>>, origin: Origin, epoch: u64) -> Self {
        Self {
            key,
            kind: kind.into(),
            origin,
            fingerprint: None,
            voice: Voice::default(),
            turn: None,
            headers: KeptHeaders::None,
            state: StreamState::Active,
            epoch,
            previous: None,
            node: None,
            started: false,
            reruns: false,
            started_at: 0,
            last_heartbeat: 0,
            deadline: 0,
            metadata: Metadata::new(),
            top: EventId::new(epoch, 0),
            inner_id: None,
            inner_retry: None,
            ended: None,
        }
    }

    /// Returns the prefix of the stream's event ids on the wire: the stream's id if the library generated it.
    pub(crate) fn into_prefix(self) -> Option<StreamId> {
        (self.origin == Origin::Generated).then_some(self.key.id)
    }
}
