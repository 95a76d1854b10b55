//! The middleware: a layer, its service, the service's future and the response body.
//!
//! The service asks [`Identify`] which stream a request means, and the hub's owner rule whose it is.
//! Its future admits the request by the table of the design: it runs the inner service and wraps its
//! body (`Live`), follows a stream that exists (`FollowBody`), or answers
//! itself. A live body polls the inner body through the `Engine`, which cuts it into blocks and gives
//! these to the recorder; when the client leaves, the `Producer` drops the engine or hands it to a `Drive`, which goes on
//! with it for other readers and for those that come back.

mod admit;
mod answer;
mod asked;
mod context;
mod future;
mod handler;
mod inner;
mod join;
mod naming;
mod registered;
mod service;
mod steps;
mod turn;

use std::{borrow::Cow, sync::Arc, time::Duration};

pub use context::{StreamContext, WaitStopped};
pub use future::ResilientSseFuture;
use http::{HeaderName, request::Parts};
pub use service::ResilientSseService;
use tower_layer::Layer;

use crate::{
    model::{
        config::{Durability, OnUnavailable, bounded},
        stream::Disconnect,
        turn::Overlap,
        voice::Voice,
    },
    node::{Node, headers::is_set_here},
    route::{classify::Classify, identify::Identify, settings::Route},
};

/// Makes event streams resilient: see [`ResilientSse`](crate::ResilientSse). Cheap to clone.
///
/// Authentication belongs outside of it: a follow, a replay and a 204 do not run the inner service.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a service is wrapped in it"]
pub struct ResilientSseLayer {
    node: Arc<Node>,
    route: Arc<Route>,
}

impl ResilientSseLayer {
    pub(crate) fn new(node: Arc<Node>, route: Route) -> Self {
        Self { node, route: Arc::new(route) }
    }

    fn with(self, change: impl FnOnce(&mut Route)) -> Self {
        let mut route = Arc::unwrap_or_clone(self.route);
        change(&mut route);
        Self { route: Arc::new(route), ..self }
    }

    /// Which stream a request means. Default: a new one each time ([`Generate`]).
    pub fn id(self, identify: impl Identify) -> Self {
        self.with(|route| route.identify = Arc::new(identify))
    }

    /// Which conversation a request is a turn of: an owner's name for a chat or a document, under the rules of a stream's name.
    ///
    /// Each request is then a new stream, registered before its handler runs. Its id is made up, or the one that
    /// [`id`](Self::id) finds, such as an `Idempotency-Key`; a key or a cursor that names a stream which is held joins that
    /// stream, and begins no turn. [`ResilientSse::resume`](crate::ResilientSse::resume) and [`ResilientSse::stop`](crate::ResilientSse::stop) find the newest turn by
    /// the same name. A malformed name is answered with 400. A request for which the identifier names none
    /// ([`Identity::bypass`]) is a turn of no conversation.
    ///
    /// A handler that finds the name in its request's body uses [`StreamContext::conversation`] instead.
    ///
    /// ```
    /// use axum::{Router, routing::{get_service, post}};
    /// use resilient_sse::{ResilientSse, StreamId};
    ///
    /// fn chats(sse: &ResilientSse) -> Router {
    ///     let turns = sse.generation().conversation(StreamId::path("/chat/{id}"));
    ///     let resume = sse.resume().conversation(StreamId::path("/chat/{id}/stream"));
    ///     let stop = sse.stop().conversation(StreamId::path("/chat/{id}/stream"));
    ///     Router::new()
    ///         .route("/chat/{id}", post(|| async { "…" }).layer(turns))
    ///         .route("/chat/{id}/stream", get_service(resume).delete_service(stop))
    /// }
    /// ```
    pub fn conversation(self, identify: impl Identify) -> Self {
        self.with(|route| route.conversation = Some(Arc::new(identify)))
    }

    /// What happens to the last stream of a conversation, if it still runs when a new turn begins. Default:
    /// [`Overlap::Replace`].
    pub fn overlap(self, overlap: Overlap) -> Self {
        self.with(|route| route.overlap = overlap)
    }

    /// Keeps these headers of a handler's response with its stream, and gives them again to every client that follows,
    /// resumes or is replayed the stream: a `Location`, a version, a deprecation. A client that comes before the handler
    /// has answered waits for them for up to 2 s.
    ///
    /// Up to 4 KiB of names and values are kept of a response, and only what is text. The rest is left out, and logged once a minute.
    /// Default: none.
    ///
    /// # Panics
    ///
    /// If the library or the transport sets a header of that name, such as `Content-Type` or `X-Stream-Id`.
    #[track_caller]
    pub fn keep_headers(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        let names: Arc<[HeaderName]> = names.into_iter().collect();
        let unkept = names.iter().find(|name| is_set_here(name));
        assert!(unkept.is_none(), "`keep_headers` cannot keep {unkept:?}: it is set for each response anew");
        self.with(|route| route.keep_headers = names)
    }

    /// What the route's streams are for: `generation`, `export`, any name.
    pub fn kind(self, kind: impl Into<Cow<'static, str>>) -> Self {
        self.with(|route| route.kind = kind.into())
    }

    /// What happens to the work once nobody reads the stream any more.
    pub fn on_disconnect(self, disconnect: Disconnect) -> Self {
        let disconnect = match disconnect {
            Disconnect::Detach { at_most } => Disconnect::Detach { at_most: bounded(at_most) },
            Disconnect::Interrupt | Disconnect::Cancel => disconnect,
        };
        self.with(|route| route.disconnect = disconnect)
    }

    /// Which events are terminal. Default: those named or typed `completed` or `failed` ([`Ends::default`]).
    pub fn classify(self, classify: impl Classify) -> Self {
        self.with(|route| route.classify = Arc::new(classify))
    }

    /// How the library itself speaks. Default: [`Voice::Named`].
    pub fn voice(self, voice: Voice) -> Self {
        self.with(|route| route.voice = voice)
    }

    /// When an event may be delivered. Default: the hub's.
    pub fn durability(self, durability: Durability) -> Self {
        self.with(|route| route.durability = durability)
    }

    /// What a request gets while the store does not answer. Default: the hub's.
    pub fn on_unavailable(self, on_unavailable: OnUnavailable) -> Self {
        self.with(|route| route.on_unavailable = on_unavailable)
    }

    /// Silence after which a response of this route sends a heartbeat comment; clients read it from `X-Stream-Heartbeat`,
    /// in seconds. Default: [`Builder::heartbeat`](crate::Builder::heartbeat), 15 s.
    ///
    /// # Panics
    ///
    /// If it is shorter than a millisecond.
    #[track_caller]
    pub fn heartbeat(self, heartbeat: Duration) -> Self {
        let heartbeat = positive("heartbeat", heartbeat);
        self.with(|route| route.heartbeat = heartbeat)
    }

    /// How long the work goes on after the last reader has left, before [`Disconnect::Interrupt`] or [`Disconnect::Cancel`]
    /// applies, so that a reload does not end it. [`Disconnect::Detach`] does not use it: its `at_most` counts from the same
    /// moment. Zero: at once. Default: 2 s on `generation()` and `feed()`, 0 on `layer()`.
    pub fn grace(self, grace: Duration) -> Self {
        self.with(|route| route.grace = bounded(grace))
    }

    /// How long a stream of this route lives on after its producer was last heard of. Default:
    /// [`Builder::lifetime`](crate::Builder::lifetime), 1 h.
    ///
    /// # Panics
    ///
    /// If it is shorter than a millisecond, or than [`Builder::stale_after`](crate::Builder::stale_after): a stream would expire between
    /// two beats of its producer.
    #[track_caller]
    pub fn lifetime(self, lifetime: Duration) -> Self {
        let (lifetime, stale) = (positive("lifetime", lifetime), self.node.settings.stale_after);
        assert!(
            lifetime >= stale,
            "`lifetime` must not be shorter than the hub's `stale_after`, {stale:?}; it is {lifetime:?}"
        );
        self.with(|route| Arc::make_mut(&mut route.retention).lifetime = lifetime)
    }

    /// How long an ended stream of this route can be recovered. Default:
    /// [`Builder::recovery_window`](crate::Builder::recovery_window), 5 min.
    ///
    /// # Panics
    ///
    /// If it is shorter than a millisecond.
    #[track_caller]
    pub fn recovery_window(self, window: Duration) -> Self {
        let window = positive("recovery_window", window);
        self.with(|route| Arc::make_mut(&mut route.retention).recovery_window = window)
    }

    /// How many events the log of a stream holds; older ones are trimmed, and readers that missed them get a
    /// `gap`. Default: [`Builder::max_log_events`](crate::Builder::max_log_events); 10,000, and 200,000 on `generation()`.
    ///
    /// # Panics
    ///
    /// If it is 0.
    #[track_caller]
    pub fn max_log_events(self, events: usize) -> Self {
        assert!(events > 0, "`max_log_events` must be at least 1");
        self.with(|route| Arc::make_mut(&mut route.retention).max_events = events)
    }

    /// How many bytes of events the log of a stream holds; older events are trimmed. An event that is larger is delivered, but
    /// not held: a reader that missed it gets a `gap`. Default: [`Builder::max_log_bytes`](crate::Builder::max_log_bytes); 8 MiB, and 64 MiB on
    /// `generation()`.
    ///
    /// # Panics
    ///
    /// If it is 0.
    #[track_caller]
    pub fn max_log_bytes(self, bytes: usize) -> Self {
        assert!(bytes > 0, "`max_log_bytes` must be at least 1");
        self.with(|route| Arc::make_mut(&mut route.retention).max_bytes = bytes)
    }

    /// How many active streams an owner may have: one more is answered with 429, and a client that comes back with a cursor
    /// is told to come again. Default: any number.
    ///
    /// In a Redis Cluster the count lies on another server than the stream. Where that does not answer within 500 ms the stream is
    /// admitted.
    pub fn max_streams(self, limit: usize) -> Self {
        self.with(|route| route.limit = Some(limit))
    }

    /// Sets the fingerprint of a request. A request with another fingerprint under the same stream id is answered with 422. For
    /// idempotent POST requests. It is kept with the stream, and counts towards its 4 KiB of metadata. Default: nothing is
    /// compared.
    pub fn fingerprint(self, fingerprint: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static) -> Self {
        self.with(|route| route.fingerprint = Some(Arc::new(fingerprint)))
    }

    /// Serves recovery too, under a stream's path with this suffix: for stacks without a router.
    ///
    /// With `/recover`, `/answers/42/recover` says how the stream of `/answers/42` stands, also where that stream is made by POST. A path with the suffix that names no stream without it goes to the inner service.
    pub fn recover_suffix(self, suffix: impl Into<Cow<'static, str>>) -> Self {
        self.with(|route| route.recover_suffix = Some(suffix.into()))
    }
}

/// Refuses a duration shorter than a millisecond.
#[track_caller]
fn positive(setting: &str, duration: Duration) -> Duration {
    assert!(duration >= Duration::from_millis(1), "`{setting}` must be at least a millisecond; it is {duration:?}");
    bounded(duration)
}

impl<S> Layer<S> for ResilientSseLayer {
    type Service = ResilientSseService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ResilientSseService::new(inner, Arc::clone(&self.node), Arc::clone(&self.route))
    }
}
