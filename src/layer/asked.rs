//! The parsed request, and the registration that is made of it.

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

/// A parsed request: its stream, its cursor, and the settings of its registration.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) key: StreamKey,
    pub(super) position: Position,
    /// The prefix of every event id, if the library made up the stream's id.
    pub(super) prefix: Option<StreamId>,
    pub(super) kind: Cow<'static, str>,
    pub(super) metadata: Metadata,
    pub(super) fingerprint: Option<String>,
    /// The turn of its conversation that the request begins, if it registers its stream.
    pub(super) turn: Option<Turn>,
    /// The request's path, if the template of the route's conversations does not match it.
    pub(super) unmatched_path: Option<Box<str>>,
    /// Whether the request begins a turn under a stream id that the library has just made up.
    pub(super) begins: bool,
    /// Whether the request came with the cursor of a stream that is gone.
    pub(super) is_stale: bool,
    /// The headers of the handler's response that the route keeps.
    pub(super) headers: KeptHeaders,
    /// Whether the request asks for an event stream by name, and so reconnects by itself when its body breaks.
    pub(super) comes_again: bool,
    /// The request's version of HTTP.
    pub(super) version: Version,
    /// Whether a drain that begins after the request's arrival waits for the request, as it does for a stream.
    pub(super) waited_for: bool,
    /// When the request arrived.
    pub(super) opened: Instant,
    /// The request's head, for the application's hooks.
    pub(super) head: Head,
}

impl Asked {
    /// Gives the request a new stream id in place of the stream that is gone. The client gets a gap.
    pub(super) fn begin_anew(&mut self, node: &Node) {
        let id = StreamId::from_random(node.random.u128());
        self.key.id = id.clone();
        self.prefix = Some(id);
        self.position = Position::Unreadable;
        self.begins = self.turn.is_some();
        self.is_stale = true;
    }

    /// Returns the turn for a first run of the stream.
    ///
    /// A request with the cursor of a stream that is gone repeats old work, so it must not replace a running stream: it
    /// begins a turn only if no stream of the conversation runs.
    pub(super) fn new_turn(&self, turn: Turn) -> Turn {
        let overlap = if self.is_stale || self.cursor().is_some() { Overlap::Refuse } else { turn.overlap };
        Turn { overlap, ..turn }
    }

    /// Counts a request whose handler runs and that no lane stands for, until the guard is dropped.
    ///
    /// A drain waits for the request, unless its client may go at once. The clients of a feed and clients that
    /// reconnect by themselves may.
    pub(super) fn wait_for(&mut self, node: &Node, route: &Route) -> Entered {
        let may_go = route.endless || self.comes_again;
        let entered = (!may_go).then(|| node.handlers.enter());
        // Checked after the request is counted, so that a drain that begins later sees the request.
        self.waited_for = entered.is_some() && !node.is_draining();
        // A request that arrived in the drain begins no stream, but may get another answer, so it is counted as well.
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

    /// Returns how the client is served on this route.
    pub(super) fn manner(&self, route: &Route) -> Manner {
        Manner { voice: route.voice, heartbeat: route.heartbeat, endless: route.endless, comes_again: self.comes_again }
    }
}

/// Returns the registration of a request's stream. `answered` says whether the inner service has answered with an event
/// stream already.
pub(super) fn registration(node: &Node, route: &Route, asked: &Asked, token: u128, answered: bool) -> Open {
    // A client that sends back an id that the library made up asks for that stream, and never creates a new one.
    let anew = asked.prefix.is_none() || answered || asked.begins;
    Open {
        key: asked.key.clone(),
        kind: asked.kind.clone(),
        origin: asked.origin(),
        node: node.name.clone(),
        token,
        create: anew && (answered || asked.position.may_create(route.disconnect)) && !forgotten(node, asked, answered),
        reruns: route.disconnect.reruns(),
        // `Lane::start` reports the start once the producer's body exists.
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

/// Whether the store may have lost the stream of the request's cursor, so that its producer may register it again.
fn forgotten(node: &Node, asked: &Asked, answered: bool) -> bool {
    !answered && asked.position.is_reconnect() && node.may_be_forgotten()
}
