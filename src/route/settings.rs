//! A route's settings.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use http::{HeaderName, request::Parts};

use super::{
    classify::{Classify, Ends},
    identify::Identify,
    ready_made::Generate,
};
use crate::{
    model::{
        config::{Durability, GENERATION_BYTES, GENERATION_EVENTS, GRACE, OnUnavailable, Settings},
        kept::KeptHeaders,
        stream::Disconnect,
        turn::Overlap,
        voice::Voice,
    },
    store::Retention,
};

pub(crate) type Fingerprint = dyn Fn(&Parts) -> Option<String> + Send + Sync;

/// The settings of one layer.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) identify: Arc<dyn Identify>,
    pub(crate) kind: Cow<'static, str>,
    pub(crate) disconnect: Disconnect,
    /// Whether the end of a body without a terminal event only interrupts the stream, as on `feed()` routes.
    pub(crate) endless: bool,
    pub(crate) classify: Arc<dyn Classify>,
    pub(crate) voice: Voice,
    pub(crate) durability: Durability,
    pub(crate) on_unavailable: OnUnavailable,
    /// How long a stream may be without a reader before `disconnect` applies.
    pub(crate) grace: Duration,
    /// The length of silence after which a body sends a heartbeat.
    pub(crate) heartbeat: Duration,
    /// How long a stream is kept, and how many of its events.
    pub(crate) retention: Arc<Retention>,
    /// The identifier of a request's conversation.
    pub(crate) conversation: Option<Arc<dyn Identify>>,
    pub(crate) overlap: Overlap,
    /// The headers of a response that are stored with its stream.
    pub(crate) keep_headers: Arc<[HeaderName]>,
    pub(crate) limit: Option<usize>,
    pub(crate) fingerprint: Option<Arc<Fingerprint>>,
    /// The suffix of a stream's path under which the layer itself serves recovery.
    pub(crate) recover_suffix: Option<Cow<'static, str>>,
    /// Whether `identify` has found any stream so far.
    pub(crate) matched: Arc<AtomicBool>,
}

impl Route {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            identify: Arc::new(Generate),
            kind: Cow::Borrowed("stream"),
            disconnect: Disconnect::Interrupt,
            endless: false,
            classify: Arc::new(Ends::default()),
            voice: Voice::default(),
            durability: settings.durability,
            on_unavailable: settings.on_unavailable,
            grace: Duration::ZERO,
            heartbeat: settings.heartbeat,
            retention: Arc::new(settings.retention()),
            conversation: None,
            overlap: Overlap::default(),
            keep_headers: Arc::default(),
            limit: None,
            fingerprint: None,
            recover_suffix: None,
            matched: Arc::default(),
        }
    }

    pub(crate) fn generation(settings: &Settings) -> Self {
        let retention = Retention {
            max_events: settings.max_log_events.unwrap_or(GENERATION_EVENTS),
            max_bytes: settings.max_log_bytes.unwrap_or(GENERATION_BYTES),
            ..settings.retention()
        };
        Self {
            kind: Cow::Borrowed("generation"),
            disconnect: Disconnect::DETACH,
            grace: GRACE,
            retention: Arc::new(retention),
            ..Self::new(settings)
        }
    }

    pub(crate) fn feed(settings: &Settings) -> Self {
        Self {
            kind: Cow::Borrowed("feed"),
            endless: true,
            grace: GRACE,
            classify: Arc::new(Ends::none()),
            ..Self::new(settings)
        }
    }
}

impl Route {
    /// Returns the state of the kept headers before the handler has answered.
    pub(crate) fn headers(&self) -> KeptHeaders {
        if self.keep_headers.is_empty() { KeptHeaders::None } else { KeptHeaders::Awaited }
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").field("kind", &self.kind).field("disconnect", &self.disconnect).finish_non_exhaustive()
    }
}
