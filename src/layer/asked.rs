//! What a request asks for, and what it registers.

use std::borrow::Cow;

use http::Version;
use tokio::time::Instant;

use crate::{
    follow::Manner,
    model::{
        id::{EventId, StreamId, StreamKey},
        kept::KeptHeaders,
        metadata::Metadata,
        stream::Origin,
        turn::{Overlap, Turn},
    },
    node::{Node, head::Head},
    protocol::admission::Position,
    route::settings::Route,
    runtime::sync::Entered,
    store::Open,
};

/// What a request asks for.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) key: StreamKey,
    pub(super) position: Position,
    /// Stands before every event id where the library made up the stream's.
    pub(super) prefix: Option<StreamId>,
    pub(super) kind: Cow<'static, str>,
    pub(super) metadata: Metadata,
    pub(super) fingerprint: Option<String>,
    /// The conversation that the stream is a turn of, if the request begins it.
    pub(super) turn: Option<Turn>,
    /// The request begins a stream under a name that the library has just made up.
    pub(super) begins: bool,
    /// The request came with the cursor of a stream that is gone.
    pub(super) is_stale: bool,
    /// The headers of the handler's response that the route keeps.
    pub(super) headers: KeptHeaders,
    /// Whether the request asks for an event stream by name, and so reconnects by itself when its body breaks.
    pub(super) comes_again: bool,
    /// The request's version of HTTP.
    pub(super) version: Version,
    /// A drain that has begun since the request came waits for it, as it does for a stream.
    pub(super) waited_for: bool,
    /// When the request came.
    pub(super) opened: Instant,
    /// The request's head, for the host's hooks.
    pub(super) head: Head,
}

impl Asked {
    /// Begins a stream under a name that the library makes up, in place of one that is gone. The client is told of a gap.
    pub(super) fn begin_anew(&mut self, node: &Node) {
        let id = StreamId::from_random(node.random.u128());
        self.key.id = id.clone();
        self.prefix = Some(id);
        self.position = Position::Unreadable;
        self.begins = self.turn.is_some();
        self.is_stale = true;
    }

    /// The turn that a first run of the stream is. A cursor of a stream that is gone asks for that one's work and is no new question: it
    /// begins a turn only where no stream of the conversation runs.
    pub(super) fn new_turn(&self, turn: Turn) -> Turn {
        let overlap = if self.is_stale || self.cursor().is_some() { Overlap::Refuse } else { turn.overlap };
        Turn { overlap, ..turn }
    }

    /// Counts the request until what this returns is dropped, and has a drain wait for it, unless its client may go at once, as a
    /// feed's and one that comes again by itself may. For requests whose handler runs and that no lane stands for.
    pub(super) fn wait_for(&mut self, node: &Node, route: &Route) -> Entered {
        let may_go = route.endless || self.comes_again;
        let entered = (!may_go).then(|| node.handlers.enter());
        // Entered before this look: a drain that is not seen here sees the request.
        self.waited_for = entered.is_some() && !node.is_draining();
        // One that came in the drain begins no stream, but may answer something else: it is waited for as well.
        entered.unwrap_or_else(|| node.bystanders.enter())
    }

    /// Whether the request may begin a stream now.
    pub(super) fn may_begin(&self, node: &Node) -> bool {
        if self.waited_for { !node.is_letting_go() } else { !node.is_draining() }
    }

    pub(super) fn origin(&self) -> Origin {
        if self.prefix.is_some() { Origin::Generated } else { Origin::Named }
    }

    pub(super) fn cursor(&self) -> Option<EventId> {
        match self.position {
            Position::After(id) => Some(id),
            Position::Newest | Position::Live | Position::Unreadable => None,
        }
    }

    /// How the client is spoken to on this route.
    pub(super) fn manner(&self, route: &Route) -> Manner {
        Manner { voice: route.voice, heartbeat: route.heartbeat, endless: route.endless, comes_again: self.comes_again }
    }
}

/// `answered`: the inner service has answered with an event stream already.
pub(super) fn registration(node: &Node, route: &Route, asked: &Asked, token: u128, answered: bool) -> Open {
    // A name that the library made up names no new stream, whoever brings it back.
    let anew = asked.prefix.is_none() || answered || asked.begins;
    Open {
        key: asked.key.clone(),
        kind: asked.kind.clone(),
        origin: asked.origin(),
        node: node.name.clone(),
        token,
        create: anew && (answered || asked.position.may_create(route.disconnect)) && !forgotten(node, asked, answered),
        reruns: route.disconnect.reruns(),
        // Said once the producer's body is there: see `Lane::start`.
        started: false,
        fingerprint: asked.fingerprint.clone(),
        limit: route.limit,
        metadata: asked.metadata.clone(),
        voice: route.voice,
        turn: asked.turn.clone(),
        headers: asked.headers.clone(),
        retention: *route.retention,
    }
}

/// Whether the stream that a cursor speaks of may be about to register again.
fn forgotten(node: &Node, asked: &Asked, answered: bool) -> bool {
    !answered && asked.position.is_reconnect() && node.may_be_forgotten()
}
