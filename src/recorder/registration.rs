//! What a lane's stream was registered with.

use std::{borrow::Cow, sync::Arc};

use crate::{
    model::{
        id::{NodeId, StreamKey},
        kept::KeptHeaders,
        metadata::Metadata,
        stream::Origin,
        turn::Turn,
        voice::Voice,
    },
    store::{Open, Retention},
};

/// What is said again of a stream to a store that forgot it, or that is to know more of it. The rest of the registration is
/// the lane's key, or changes while it runs: the lane has that.
pub(super) struct Registration {
    pub(super) kind: Cow<'static, str>,
    pub(super) origin: Origin,
    node: NodeId,
    token: u128,
    pub(super) reruns: bool,
    fingerprint: Option<String>,
    voice: Voice,
    /// The turn that was asked for. Which one the stream has become, its lane knows.
    turn: Option<Turn>,
    /// Whether headers of the response are kept that were not known yet.
    pub(super) awaits_headers: bool,
    /// Shared by the lanes of a route.
    pub(super) retention: Arc<Retention>,
}

impl Registration {
    /// `retention`: the request's.
    pub(super) fn of(open: Open, retention: Arc<Retention>) -> Self {
        Self {
            kind: open.kind,
            origin: open.origin,
            node: open.node,
            token: open.token,
            reruns: open.reruns,
            fingerprint: open.fingerprint,
            voice: open.voice,
            turn: open.turn,
            awaits_headers: open.headers == KeptHeaders::Awaited,
            retention,
        }
    }

    /// The same as a request that creates no stream, with what is known of this one by now.
    pub(super) fn again(&self, key: StreamKey, turn: Option<Turn>, headers: KeptHeaders) -> Open {
        Open {
            key,
            kind: self.kind.clone(),
            origin: self.origin,
            node: self.node.clone(),
            token: self.token,
            create: false,
            reruns: self.reruns,
            started: false,
            fingerprint: self.fingerprint.clone(),
            limit: None,
            metadata: Metadata::new(),
            voice: self.voice,
            turn: turn.or_else(|| self.turn.clone()),
            headers,
            retention: *self.retention,
        }
    }
}
