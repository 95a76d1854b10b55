//! The middleware: a layer, its service, the service's future and the response body.
//!
//! The service asks [`Identify`] for the request's stream and the hub's owner rule for its owner. Its future admits the
//! request: it runs the inner service and wraps the body (`Live`), follows a stream that exists (`FollowBody`), or
//! makes the answer itself.
//!
//! A live body polls the inner body through the `Engine`, which cuts the bytes into blocks and gives these to the
//! recorder. When the client leaves, the `Producer` drops the engine or hands it to a `Drive`. The drive polls the
//! inner body on, for other readers and for clients that return.

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

/// A tower layer that makes the event streams of a service resilient.
///
/// [`ResilientSse::layer`](crate::ResilientSse::layer), [`generation`](crate::ResilientSse::generation) and
/// [`feed`](crate::ResilientSse::feed) make one. It is cheap to clone.
///
/// Authentication belongs outside of this layer: a follow, a replay and a 204 do not run the inner service.
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

    /// Sets the identifier that finds a request's stream. Default: each request is a new stream
    /// ([`Generate`](crate::Generate)).
    pub fn id(self, identify: impl Identify) -> Self {
        self.with(|route| {
            route.identify = Arc::new(identify);
            // A copy of the layer with another identifier has not matched yet.
            route.matched = Arc::default();
        })
    }

    /// Sets the identifier that finds a request's conversation: an owner's name for a chat or a document. The rules for
    /// the name are those for a stream's.
    ///
    /// Each request is then a turn of its conversation: a new stream, registered before the handler runs. The library
    /// makes up the stream's id, unless [`id`](Self::id) finds one, such as an `Idempotency-Key`. A request whose key
    /// or cursor names a stream that the store holds joins that stream, and begins no turn.
    ///
    /// [`ResilientSse::resume`](crate::ResilientSse::resume) and [`ResilientSse::stop`](crate::ResilientSse::stop) find
    /// the newest turn by the same name. A malformed name is answered with 400. A request for which the identifier
    /// returns [`Identity::bypass`](crate::Identity::bypass) is a turn of no conversation.
    ///
    /// The layer takes every GET and POST of its route for a turn. So in axum put it around the POST handler, before
    /// another method is added: `post(ask).layer(turns).get(history)`. If a path template does not match the path of a
    /// request that begins a stream, that is logged, since the stream is a turn of no conversation.
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

    /// Sets what a new turn does to the conversation's last stream if that still runs. Default: [`Overlap::Replace`].
    pub fn overlap(self, overlap: Overlap) -> Self {
        self.with(|route| route.overlap = overlap)
    }

    /// Keeps these headers of a handler's response with its stream, such as a `Location`, a version or a deprecation.
    ///
    /// Every response that follows, resumes or replays the stream carries them again. A client that comes before the
    /// handler has answered waits for them for up to 2 s.
    ///
    /// The store keeps up to 4 KiB of names and values per stream, and only values that are text. Other headers are
    /// left out, and a log line says so once a minute. Default: none.
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

    /// Sets the kind of the route's streams: what they are for, such as `generation` or `export`. A request for a
    /// stream of another kind is answered with 409. Default: `stream` on `layer()`, `generation` on `generation()`,
    /// `feed` on `feed()`.
    pub fn kind(self, kind: impl Into<Cow<'static, str>>) -> Self {
        self.with(|route| route.kind = kind.into())
    }

    /// Sets what happens to the work when the last reader has left. Default: [`Disconnect::DETACH`] on `generation()`,
    /// [`Disconnect::Interrupt`] on `layer()` and `feed()`.
    pub fn on_disconnect(self, disconnect: Disconnect) -> Self {
        let disconnect = match disconnect {
            Disconnect::Detach { at_most } => Disconnect::Detach { at_most: bounded(at_most) },
            Disconnect::Interrupt | Disconnect::Cancel => disconnect,
        };
        self.with(|route| route.disconnect = disconnect)
    }

    /// Sets the classifier that finds terminal events. Default: an event whose name or payload `type` is `completed` or
    /// `failed` is terminal ([`Ends::default`](crate::Ends::default)); on `feed()` none is.
    pub fn classify(self, classify: impl Classify) -> Self {
        self.with(|route| route.classify = Arc::new(classify))
    }

    /// Sets the form of the library's own events. Default: [`Voice::Named`].
    pub fn voice(self, voice: Voice) -> Self {
        self.with(|route| route.voice = voice)
    }

    /// Sets when an event may be delivered to clients. Default: [`Builder::durability`](crate::Builder::durability).
    pub fn durability(self, durability: Durability) -> Self {
        self.with(|route| route.durability = durability)
    }

    /// Sets how a request is answered while the store does not answer. Default:
    /// [`Builder::on_unavailable`](crate::Builder::on_unavailable).
    pub fn on_unavailable(self, on_unavailable: OnUnavailable) -> Self {
        self.with(|route| route.on_unavailable = on_unavailable)
    }

    /// Sets the length of silence after which a response of this route sends a heartbeat comment. The header
    /// `X-Stream-Heartbeat` tells clients this length, in seconds. Default:
    /// [`Builder::heartbeat`](crate::Builder::heartbeat), 15 s.
    ///
    /// # Panics
    ///
    /// If it is shorter than a millisecond.
    #[track_caller]
    pub fn heartbeat(self, heartbeat: Duration) -> Self {
        let heartbeat = positive("heartbeat", heartbeat);
        self.with(|route| route.heartbeat = heartbeat)
    }

    /// Sets how long the work goes on after the last reader has left, before [`Disconnect::Interrupt`] or
    /// [`Disconnect::Cancel`] applies. The grace lets a client reload its page without ending the work.
    ///
    /// With zero the policy applies at once. [`Disconnect::Detach`] does not use the grace: its `at_most` counts from
    /// the same moment. Default: 2 s on `generation()` and `feed()`, 0 on `layer()`.
    pub fn grace(self, grace: Duration) -> Self {
        self.with(|route| route.grace = bounded(grace))
    }

    /// Sets how long a stream of this route that has not ended is held after its producer's last append or beat.
    /// Default: [`Builder::lifetime`](crate::Builder::lifetime), 1 h.
    ///
    /// # Panics
    ///
    /// If it is shorter than a millisecond, or shorter than [`Builder::stale_after`](crate::Builder::stale_after): a
    /// stream would expire between two beats of its producer.
    #[track_caller]
    pub fn lifetime(self, lifetime: Duration) -> Self {
        let (lifetime, stale) = (positive("lifetime", lifetime), self.node.settings.stale_after);
        assert!(
            lifetime >= stale,
            "`lifetime` must not be shorter than the hub's `stale_after`, {stale:?}; it is {lifetime:?}"
        );
        self.with(|route| Arc::make_mut(&mut route.retention).lifetime = lifetime)
    }

    /// Sets how long an ended stream of this route can be recovered. Default:
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

    /// Sets how many events the log of a stream holds. Older events are trimmed, and a reader that missed them gets a
    /// `gap`. Default: [`Builder::max_log_events`](crate::Builder::max_log_events), which is 10,000, and 200,000 on
    /// `generation()`.
    ///
    /// # Panics
    ///
    /// If it is 0.
    #[track_caller]
    pub fn max_log_events(self, events: usize) -> Self {
        assert!(events > 0, "`max_log_events` must be at least 1");
        self.with(|route| Arc::make_mut(&mut route.retention).max_events = events)
    }

    /// Sets how many bytes of events the log of a stream holds. Older events are trimmed. A single event that is larger
    /// than the log is delivered, but not held: a reader that missed it gets a `gap`. Default:
    /// [`Builder::max_log_bytes`](crate::Builder::max_log_bytes), which is 8 MiB, and 64 MiB on `generation()`.
    ///
    /// # Panics
    ///
    /// If it is 0.
    #[track_caller]
    pub fn max_log_bytes(self, bytes: usize) -> Self {
        assert!(bytes > 0, "`max_log_bytes` must be at least 1");
        self.with(|route| Arc::make_mut(&mut route.retention).max_bytes = bytes)
    }

    /// Limits how many active streams an owner may have. Default: no limit.
    ///
    /// A request for one more stream is answered with 429. A client that reconnects with a cursor is told to come again
    /// instead, since an `EventSource` would give up for good at a 429.
    ///
    /// In a Redis Cluster the count may be on another server than the stream. If that server does not answer within
    /// 500 ms, the stream is admitted.
    pub fn max_streams(self, limit: usize) -> Self {
        self.with(|route| route.limit = Some(limit))
    }

    /// Sets the rule that computes a request's fingerprint, for idempotent POST requests.
    ///
    /// The rule sees the request's head, not its body: if one key may come with different questions, let the client send a digest
    /// of the question in a header.
    ///
    /// A request with another fingerprint under the same stream id is answered with 422. The store keeps the
    /// fingerprint with the stream, and it counts towards the stream's 4 KiB of metadata. Default: requests are not
    /// compared.
    pub fn fingerprint(self, fingerprint: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static) -> Self {
        self.with(|route| route.fingerprint = Some(Arc::new(fingerprint)))
    }

    /// Serves recovery under a stream's path with this suffix, for stacks without a router.
    ///
    /// With the suffix `/recover`, a GET of `/answers/42/recover` recovers the stream of `/answers/42`, even if a POST
    /// made that stream. If the path without the suffix names no stream, the request goes to the inner service.
    pub fn recover_suffix(self, suffix: impl Into<Cow<'static, str>>) -> Self {
        self.with(|route| route.recover_suffix = Some(suffix.into()))
    }
}

/// Returns the duration, bounded. Panics if it is shorter than a millisecond.
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
