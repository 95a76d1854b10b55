//! What a stream is: its states, its endings, what is known and held of it.

use std::{borrow::Cow, fmt, time::Duration};

use bytes::Bytes;
use serde::Serialize;

use crate::model::{
    id::{EventId, NodeId, StreamId, StreamKey},
    kept::KeptHeaders,
    turn::Turn,
    voice::Voice,
};

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamState {
    /// A producer runs.
    Active,
    /// No producer now; the log is kept, and a request may start a new run.
    Interrupted,
    /// Ended: the producer was done.
    Completed,
    /// Ended: the producer failed.
    Failed,
    /// Ended: somebody stopped it, or its client left a route that cancels then.
    Cancelled,
    /// Ended: its node died, and nobody knows how the work ended.
    Orphaned,
    /// Ended: it outlived its lifetime.
    Expired,
}

impl StreamState {
    /// Whether the state never changes again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Active | Self::Interrupted)
    }

    /// The state's name, as it stands in events, JSON and stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Interrupted => "interrupted",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Orphaned => "orphaned",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for StreamState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

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

/// Who produces a stream, and who named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An inner body; the request named the stream.
    Named,
    /// An inner body; the library made up the stream's id, which stands in front of its event ids.
    Generated,
    /// A publisher.
    Published,
}

impl Origin {
    /// The origin's name, as it stands in stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::Generated => "generated",
            Self::Published => "published",
        }
    }
}

impl Origin {
    /// The origin of a stream's new run, after one of this origin.
    pub(crate) fn of_new_run(self, request: Self) -> Self {
        if self == Self::Generated && request == Self::Named { self } else { request }
    }
}

/// Key and value pairs that the host keeps with a stream, such as the id of a job.
pub type Metadata = Vec<(String, String)>;

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

/// Events of one run as they go over the wire, one after the other, each whole and with its id, without holes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// How many events these are.
    pub count: u64,
    /// The events.
    pub bytes: Bytes,
}

impl Frame {
    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its id; of several events the last one's.
    pub id: EventId,
    /// When it was recorded, by the store's clock, in unix milliseconds.
    pub at: u64,
    /// What it is.
    pub kind: RecordKind,
}

impl Record {
    /// The id of its first event; of what is no event its own.
    #[must_use]
    pub fn first(&self) -> EventId {
        match &self.kind {
            RecordKind::Events(frame) => {
                EventId::new(self.id.epoch, self.id.seq.saturating_sub(frame.count.saturating_sub(1)))
            }
            RecordKind::Run { .. } | RecordKind::End(_) => self.id,
        }
    }

    /// The run that it belongs to. An end has the id of the run that would come next: that is what fences.
    pub(crate) fn run(&self) -> u64 {
        match &self.kind {
            RecordKind::Events(_) | RecordKind::Run { .. } => self.id.epoch,
            RecordKind::End(ended) => ended.last.epoch,
        }
    }
}

/// What an entry of a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// Events, up to a batch of them.
    Events(Frame),
    /// A run begins; readers skip it, but learn where the run before it ended.
    Run {
        /// The last event that the run before made, recorded or not.
        previous: Option<EventId>,
    },
    /// The stream ended.
    End(Box<Ended>),
}
