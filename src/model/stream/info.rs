//! What a store tells of a stream.

use std::borrow::Cow;

use super::{Ended, Origin, StreamState};
use crate::model::{
    id::{EventId, NodeId, StreamId, StreamKey},
    kept::KeptHeaders,
    metadata::Metadata,
    turn::Turn,
    voice::Voice,
};

/// What a store knows of a stream, its log apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// The stream's owner and id.
    pub key: StreamKey,
    /// The kind of stream: `generation`, `export`, any name.
    pub kind: Cow<'static, str>,
    /// The origin of the stream.
    pub origin: Origin,
    /// The fingerprint of the request that opened the stream, where the route has a rule for it.
    pub fingerprint: Option<String>,
    /// The voice of the route that produces the stream: its clients are spoken to so.
    pub voice: Voice,
    /// The conversation that the stream is a turn of.
    pub turn: Option<Turn>,
    /// The headers of the newest run's response that its route keeps.
    pub headers: KeptHeaders,
    /// Where it stands.
    pub state: StreamState,
    /// The newest run.
    pub epoch: u64,
    /// The last event that the run before the newest made, recorded or not; `None` where the newest is the first run that
    /// the store knows of.
    pub previous: Option<EventId>,
    /// The node whose guardian keeps it alive; `None` where it is published statelessly.
    pub node: Option<NodeId>,
    /// Whether the producer of the newest run has begun to answer: it said so, or an event of that run was recorded. Until
    /// then its registration may still be withdrawn.
    pub started: bool,
    /// Whether the stream may be run again once its producer is gone.
    pub reruns: bool,
    /// When the newest run began, by the store's clock, in unix milliseconds.
    pub started_at: u64,
    /// When its producer was last heard of, by the store's clock, in unix milliseconds.
    pub last_heartbeat: u64,
    /// When a guardian may first look whether the stream's node died, in unix milliseconds.
    pub deadline: u64,
    /// The metadata that the host keeps with the stream.
    pub metadata: Metadata,
    /// The newest recorded event or marker.
    pub top: EventId,
    /// The last id that the inner service gave an event of its own.
    pub inner_id: Option<String>,
    /// The last reconnect delay that the inner service set, in milliseconds. Followers are told the same.
    pub inner_retry: Option<u64>,
    /// How it ended.
    pub ended: Option<Ended>,
}

impl StreamInfo {
    /// The prefix of the stream's event ids on the wire: its own id, where the library made that up.
    pub(crate) fn into_prefix(self) -> Option<StreamId> {
        (self.origin == Origin::Generated).then_some(self.key.id)
    }
}
