//! The builder of a hub.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, request::Parts};

use super::sse::ResilientSse;
use crate::{
    guardian::Guardian,
    hooks::{Acknowledge, EndedStream, ProbeAnswer, on_end, probe},
    layer::ResilientSseLayer,
    model::{
        config::{ConfigError, Durability, OnUnavailable},
        id::{NodeId, Owner},
        stream::StreamInfo,
    },
    node::{
        owner::{Access, authorize},
        reject::Rejection,
        setup::Setup,
    },
    runtime::executor::{BoxFuture, Executor},
    store::Store,
    wire::Framing,
};

/// Sets up a hub: see [`ResilientSse::builder`].
///
/// ```
/// use std::time::Duration;
///
/// use resilient_sse::{Durability, MemoryStore, ResilientSse};
///
/// let (sse, guardian) = ResilientSse::builder(MemoryStore::new())
///     .anonymous() // anybody who knows a stream's id may read it
///     .durability(Durability::BeforeSend)
///     .recovery_window(Duration::from_secs(600))
///     .build()?;
/// # let _ = (sse, guardian);
/// # Ok::<(), resilient_sse::ConfigError>(())
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct Builder(Setup);

/// Generates the setters of plain settings.
macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        $($(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.0.settings.$name = $name;
            self
        })*
    };
}

impl Builder {
    pub(super) fn new(store: impl Store) -> Self {
        Self(Setup::new(store))
    }

    /// Sets the rule that finds a request's owner. A request for which it returns `None` is answered with 401.
    ///
    /// The library takes nothing that a client sends for an identity, unless this rule does. Default: the [`Owner`] in
    /// the request's extensions, which the application's own authentication puts there, outside the layer.
    pub fn owner(mut self, rule: impl Fn(&Parts) -> Option<Owner> + Send + Sync + 'static) -> Self {
        self.0.owner = Arc::new(rule);
        self
    }

    /// Makes [`Owner::ANONYMOUS`] the owner of all streams: anybody who knows a stream's id may read it.
    pub fn anonymous(self) -> Self {
        self.owner(|_| Some(Owner::ANONYMOUS))
    }

    /// Sets the hook that decides whether a caller may read a stream of its own, begin a turn, or stop one.
    ///
    /// The hook runs for every consumer of a stream, also for a replay, which runs no handler. A denied stream is
    /// answered like a missing one.
    ///
    /// ```
    /// # use resilient_sse::{MemoryStore, ResilientSse};
    /// #[derive(Clone)]
    /// struct Scopes(Vec<String>); // the application's authentication puts it into the request's extensions
    ///
    /// let builder = ResilientSse::builder(MemoryStore::new()).authorize(|access| async move {
    ///     let scopes = access.extensions.get::<Scopes>();
    ///     scopes.is_some_and(|Scopes(scopes)| scopes.iter().any(|scope| scope == "answers:read"))
    /// });
    /// # let _ = builder;
    /// ```
    pub fn authorize<F, R>(mut self, hook: F) -> Self
    where
        F: Fn(Access) -> R + Send + Sync + 'static,
        R: Future<Output = bool> + Send + 'static,
    {
        self.0.authorize = Some(authorize(hook));
        self
    }

    /// Sets the `WWW-Authenticate` header of a 401, such as `Bearer` or `Bearer realm="answers"`. RFC 9110 (§ 15.5.2)
    /// requires the header. Default: none, since only the application knows its scheme.
    pub fn challenge(mut self, challenge: impl Into<String>) -> Self {
        self.0.challenge = Some(challenge.into());
        self
    }

    /// Sets the function that shapes the library's own error answers. It gets the rejection, the request's head and the
    /// library's response, and returns the response to send.
    ///
    /// ```
    /// use http::Response;
    /// use resilient_sse::{MemoryStore, ResilientSse};
    ///
    /// let builder = ResilientSse::builder(MemoryStore::new()).on_reject(|rejection, request, response| {
    ///     if !request.uri.path().starts_with("/api/") {
    ///         return response;
    ///     }
    ///     let problem = format!(r#"{{"title":"{rejection}"}}"#);
    ///     let (mut parts, _) = response.into_parts();
    ///     parts.headers.insert("content-type", http::HeaderValue::from_static("application/problem+json"));
    ///     Response::from_parts(parts, problem.into())
    /// });
    /// # let _ = builder;
    /// ```
    pub fn on_reject(
        mut self,
        shape: impl Fn(&Rejection, &Parts, Response<Bytes>) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.0.on_reject = Some(Arc::new(shape));
        self
    }

    /// Sets the hook that tells what the job of a stream is doing. The guardian asks it about each stream whose node
    /// seems to have died, before it closes the stream as `orphaned`.
    ///
    /// While the answer is [`JobStatus::Running`](crate::JobStatus::Running), it asks again at the first sweep after the
    /// longer of [`stale_after`](Self::stale_after) and twice [`probe_limit`](Self::probe_limit), 30 s by default. With an
    /// `on_end` hook and a recovery window under 2 min it may ask sooner.
    ///
    /// The guardian also asks at the end of a drain, about the streams that still run then: their jobs may run elsewhere.
    /// About a job that ends with this process, answer [`Failed`](crate::JobStatus::Failed);
    /// [`Running`](crate::JobStatus::Running) leaves the stream to the other nodes. With a single process the drain is the
    /// only time it asks.
    ///
    /// Probes run on the executor, at most 16 at a time, each for at most [`probe_limit`](Self::probe_limit).
    ///
    /// ```
    /// # use resilient_sse::{Event, JobStatus, MemoryStore, ResilientSse};
    /// # async fn look_up(job: &str) -> Result<Option<String>, std::io::Error> { let _ = job; Ok(None) }
    /// let builder = ResilientSse::builder(MemoryStore::new()).job_probe(|stream| async move {
    ///     // The handler has kept the job's id with `StreamContext::metadata`.
    ///     let job = stream.metadata.iter().find(|(key, _)| key == "job");
    ///     let Some((_, job)) = job else { return Ok(JobStatus::Unknown) };
    ///     let answer = look_up(job).await?; // an error counts as running
    ///     Ok::<_, std::io::Error>(match answer {
    ///         Some(text) => JobStatus::Completed(Event::new(text).named("completed")),
    ///         None => JobStatus::Running,
    ///     })
    /// });
    /// # let _ = builder;
    /// ```
    pub fn job_probe<F, R>(mut self, hook: F) -> Self
    where
        F: Fn(StreamInfo) -> R + Send + Sync + 'static,
        R: Future<Output: ProbeAnswer> + Send + 'static,
    {
        self.0.probe = Some(probe(hook));
        self
    }

    /// Sets the hook that runs at least once for each stream that ends, on any node, for example to save the finished
    /// answer.
    ///
    /// The hook is repeated until it is acknowledged or the recovery window is over. If the store does not take an end
    /// within that window, the end is given up, and its hook does not run.
    ///
    /// Hooks run on the executor, at most 16 at a time on a node, each for at most [`hook_limit`](Self::hook_limit).
    /// Owners with waiting hooks take turns. A hook that fails, panics or takes too long is counted in
    /// [`Health::hooks_failed`](crate::Health). It runs again after the longer of [`stale_after`](Self::stale_after)
    /// and twice [`probe_limit`](Self::probe_limit), but after at most a quarter of the recovery window.
    ///
    /// A graceful shutdown waits, within its limit, for the hooks of streams that ended on this node. A hook that fails
    /// then runs up to four more times, after pauses of 0.2 to 1.6 s, because on the memory store no other node runs it.
    /// [`DrainReport::hooks_unfinished`](crate::DrainReport::hooks_unfinished) counts the hooks that fail to the end.
    ///
    /// If a node is killed, the hook gets what the store has of its streams. Where a saved answer must hold all that a
    /// reader has seen, set [`Durability::BeforeSend`](crate::Durability::BeforeSend) on the route. While the store does not
    /// answer, readers may still be ahead.
    ///
    /// ```
    /// # use resilient_sse::{BoxError, MemoryStore, ResilientSse, StreamState};
    /// # async fn save(owner: Option<&str>, id: &str, text: String) -> Result<(), std::io::Error> { let _ = (owner, id, text); Ok(()) }
    /// let builder = ResilientSse::builder(MemoryStore::new()).on_end(|stream| async move {
    ///     if stream.ended().ending.state != StreamState::Completed {
    ///         return Ok(());
    ///     }
    ///     let text = stream.events().await?.concat();
    ///     let key = stream.key();
    ///     // A turn of a conversation has a name for each answer (its key) and one for the chat (`stream.turn()`).
    ///     // The hook may run twice, on two nodes, so saving must be repeatable. After an error it runs again.
    ///     save(key.owner.name(), key.id.as_str(), text).await?;
    ///     Ok::<(), BoxError>(())
    /// });
    /// # let _ = builder;
    /// ```
    pub fn on_end<F, R>(mut self, hook: F) -> Self
    where
        F: Fn(EndedStream) -> R + Send + Sync + 'static,
        R: Future<Output: Acknowledge> + Send + 'static,
    {
        self.0.on_end = Some(on_end(hook));
        self
    }

    /// Sets the executor that runs detached bodies, probes and hooks. Default: `tokio::spawn`.
    pub fn executor(mut self, spawn: impl Fn(BoxFuture<()>) + Send + Sync + 'static) -> Self {
        self.0.executor = Executor::new(spawn);
        self
    }

    /// Sets this process's name among the nodes that share the store. Default: a random name.
    pub fn node(mut self, node: NodeId) -> Self {
        self.0.name = node;
        self
    }

    /// Sets the wire format of event streams. Default: server-sent events.
    pub fn framing(mut self, framing: impl Framing) -> Self {
        self.0.framing = Arc::new(framing);
        self
    }

    /// Seeds the random numbers of stream ids, tokens and reconnect delays, so that tests can repeat them.
    #[cfg(feature = "test-util")]
    #[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
    pub fn seed(mut self, seed: u64) -> Self {
        self.0.seed = Some(seed);
        self
    }

    settings! {
        /// Sets the length of silence after which a body sends a heartbeat comment. Default: 15 s.
        heartbeat: Duration,
        /// Sets how long a node may be silent before its streams count as orphans. A node beats three times within this
        /// time. Default: 30 s.
        stale_after: Duration,
        /// Sets how often the guardian looks for orphans. Default: 30 s.
        sweep_every: Duration,
        /// Sets how long a stream that has not ended is held after its producer's last append or beat. Default: 1 h.
        lifetime: Duration,
        /// Sets how long an ended stream can be recovered. Default: 5 min.
        recovery_window: Duration,
        /// Sets how many bytes an event may have. A larger event fails the stream. Default: 1 MiB.
        max_event_bytes: usize,
        /// Sets how many bytes of events, of all streams together, may wait for the store. Default: 64 MiB.
        ///
        /// Beyond this limit, the owners that hold the most bytes lose the oldest events of their largest streams, and
        /// readers of these streams get a `gap`. A stream with many events thereby costs a small one nothing.
        ///
        /// Terminal events are never dropped for lack of room. They take up to half of the limit, and are held beyond
        /// it, at most one event for each stream, until they are stored or their recovery window is over.
        ///
        /// The limit must not be less than [`max_event_bytes`](Self::max_event_bytes). There is always room for one
        /// event of that size with its id.
        recorder_bytes: usize,
        /// Sets how long the recorder holds a stream's events back, so that events of other streams join the same
        /// request to the store. Default: 0.
        ///
        /// Zero is best for most stores: events that arrive while a request is under way are batched anyway. A longer
        /// time makes fewer and larger requests. It delays each event's acknowledgement by as much, and with it clients
        /// with [`Durability::BeforeSend`], terminal events and followers.
        ///
        /// With many slow streams, 1 ms saves CPU: 64 streams of 100 events a second on Redis cost 1.9 times as much as
        /// without this library, and 2.4 times with zero.
        ///
        /// The time must be shorter than [`store_limit`](Self::store_limit). It has no effect with a store that answers
        /// at once, as [`MemoryStore`](crate::MemoryStore) does.
        linger: Duration,
        /// Sets how long a request to the store may take, and how long a stream waits for it. Default: 500 ms.
        store_limit: Duration,
        /// Sets how long a request to the store may take that registers a stream, reads from it, or beats. A beat has a
        /// sixth of [`stale_after`](Self::stale_after) at most. Default: 2 s.
        open_limit: Duration,
        /// Sets how long a request to the store may take that no stream waits for: requests of sweeps, hooks, lists and
        /// deletions. Default: 5 s.
        background_limit: Duration,
        /// Sets how long a terminal event waits for the store before it is delivered unacknowledged. Default: 2 s.
        terminal_limit: Duration,
        /// Sets how long a relay waits for a stream that is not opened yet: see [`Relay::wait`](crate::Relay::wait).
        /// Default: 30 s.
        relay_wait: Duration,
        /// Limits how many unread streams a process keeps running. A stream is unread after 30 s without a reader.
        /// Beyond the limit, the owner with the most unread streams loses its oldest, which ends as `failed`, reason
        /// `detach_limit`. Default: 1000.
        max_detached: usize,
        /// Sets how long a slow client may hold up its producer. Default: 10 s.
        ///
        /// The limit applies if others read the same stream, or if the route has
        /// [`Disconnect::Detach`](crate::Disconnect::Detach). After it, the library drives the body on without the
        /// client, and the client continues from the log.
        ///
        /// The producer also waits for a slow reader on this node before it trims events that the reader still needs.
        /// It waits `stall_limit` if another reader has caught up. Otherwise it waits as a plain body would, with
        /// `Detach` for at most `at_most`. A reader that does not catch up in time gets a `gap`.
        stall_limit: Duration,
        /// Sets how long a graceful shutdown takes at most, job probes and hooks included: see
        /// [`Guardian::with_graceful_shutdown`](crate::Guardian::with_graceful_shutdown). Default: 25 s.
        drain_limit: Duration,
        /// Sets how long a job probe may take. Default: 5 s.
        probe_limit: Duration,
        /// Sets how long an [`on_end`](Self::on_end) hook may take before it counts as failed. Default: 30 s.
        hook_limit: Duration,
        /// Sets when an event may be delivered to clients. Default: [`Durability::Buffered`].
        durability: Durability,
        /// Sets how a request is answered while the store does not answer. Default: [`OnUnavailable::Serve`].
        on_unavailable: OnUnavailable,
    }

    /// Sets how many events a stream's log holds. Older events are trimmed. Default: 10,000, and 200,000 for
    /// `generation()`.
    pub fn max_log_events(mut self, events: usize) -> Self {
        self.0.settings.max_log_events = Some(events);
        self
    }

    /// Sets how many bytes of events a stream's log holds. Older events are trimmed. Default: 8 MiB, and 64 MiB for
    /// `generation()`.
    pub fn max_log_bytes(mut self, bytes: usize) -> Self {
        self.0.settings.max_log_bytes = Some(bytes);
        self
    }

    /// Builds the hub and its guardian. The application must poll the guardian, for example in a task of its own.
    ///
    /// A duration of more than 100 years counts as 100 years.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a setting breaks its rule. The error names the setting and the rule.
    pub fn build(mut self) -> Result<(ResilientSse, Guardian), ConfigError> {
        self.0.settings.check()?;
        self.0.settings = self.0.settings.bounded();
        let challenge = self.0.challenge.take().map(HeaderValue::try_from).transpose();
        let challenge = challenge.map_err(|_| ConfigError { setting: "challenge", rule: "must be a header value" })?;
        let node = Arc::new(self.0.into_node(challenge));
        let guardian = Guardian::new(Arc::clone(&node));
        Ok((ResilientSse(node), guardian))
    }
}

impl ResilientSse {
    /// Returns a builder for a hub on this store.
    pub fn builder(store: impl Store) -> Builder {
        Builder::new(store)
    }
}

impl ResilientSseLayer {
    /// Returns a layer on a store with all defaults, and its guardian.
    ///
    /// The owner of a stream is the [`Owner`](crate::Owner) in the request's extensions.
    ///
    /// # Errors
    ///
    /// None today, since the defaults are valid. The signature matches [`Builder::build`](crate::Builder::build).
    pub fn pair(store: impl Store) -> Result<(Self, Guardian), ConfigError> {
        let (sse, guardian) = Builder::new(store).build()?;
        Ok((sse.layer(), guardian))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}
