//! The registration of a lane's stream.

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

/// The constant part of a stream's registration, for registering the stream again with a store that forgot it, and for
/// updating its registration. The lane holds the rest: the key, and everything that changes while the stream runs.
pub(super) struct Registration {
    pub(super) kind: Cow<'static, str>,
    pub(super) origin: Origin,
    node: NodeId,
    token: u128,
    pub(super) reruns: bool,
    fingerprint: Option<String>,
    voice: Voice,
    /// The turn of the first registration. The lane has the turn that the stream has become since.
    turn: Option<Turn>,
    /// Whether response headers are to be kept that were not known at the first registration.
    pub(super) awaits_headers: bool,
    /// The retention, which the lanes of a route share.
    pub(super) retention: Arc<Retention>,
}

impl Registration {
    /// Takes the constant part of a request. `retention` is the one in the request.
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

    /// Returns the registration as a request that creates no stream, with the current turn and headers.
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
