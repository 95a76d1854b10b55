//! Setting up a hub.

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
#[must_use = "a builder does nothing until it is built"]
pub struct Builder(Setup);

/// Makes the setters of plain settings.
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

    /// Sets the rule that finds a request's owner. `None` is answered with 401.
    ///
    /// Nothing that a client sends is an identity unless this rule says so. Default: an [`Owner`] in
    /// the request's extensions, put there by the host's own authentication outside the layer.
    pub fn owner(mut self, rule: impl Fn(&Parts) -> Option<Owner> + Send + Sync + 'static) -> Self {
        self.0.owner = Arc::new(rule);
        self
    }

    /// All streams are [`Owner::ANONYMOUS`]: anybody who knows a stream's id may read it.
    pub fn anonymous(self) -> Self {
        self.owner(|_| Some(Owner::ANONYMOUS))
    }

    /// Asked for every consumer of a stream, also of a replay, for which no handler runs: whether the
    /// caller, who owns the stream, may read it. A denied stream is answered like a missing one.
    ///
    /// ```
    /// # use resilient_sse::{MemoryStore, ResilientSse};
    /// #[derive(Clone)]
    /// struct Scopes(Vec<String>); // put into the request's extensions by the host's authentication
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

    /// How a client may sign in: the `WWW-Authenticate` header of a 401, which RFC 9110 (§ 15.5.2) wants there, such as
    /// `Bearer` or `Bearer realm="answers"`. Default: none, since only the host knows.
    pub fn challenge(mut self, challenge: impl Into<String>) -> Self {
        self.0.challenge = Some(challenge.into());
        self
    }

    /// Shapes the library's own error answers, given the request's head and the library's response.
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

    /// Asked for each stream whose node seems to have died: what its job is doing.
    ///
    /// Runs on the executor, at most 16 at a time, for at most [`probe_limit`](Self::probe_limit) each. Also asked at the end of a
    /// drain, for streams that still run then. With a single process the probe is asked only in a drain.
    ///
    /// ```
    /// # use resilient_sse::{Event, JobStatus, MemoryStore, ResilientSse};
    /// # async fn look_up(job: &str) -> Result<Option<String>, std::io::Error> { let _ = job; Ok(None) }
    /// let builder = ResilientSse::builder(MemoryStore::new()).job_probe(|stream| async move {
    ///     // What the handler kept with `StreamContext::metadata`.
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

    /// Sets the hook that runs at least once for each stream that ends, on any node, until it is acknowledged or the recovery
    /// window is over: to save the finished answer. An end that no store takes within that window is given up, and its hook
    /// does not run.
    ///
    /// Runs on the executor, at most 16 at a time on a node, for which the owners that wait take turns, for at most
    /// [`hook_limit`](Self::hook_limit) each. One that fails, panics or takes too long is counted in
    /// [`Health::hooks_failed`](crate::Health) and run again after [`stale_after`](Self::stale_after) or twice
    /// [`probe_limit`](Self::probe_limit), whichever is longer, but at most a quarter of the recovery
    /// window. A graceful shutdown waits, within its limit, for the hooks of streams that ended here.
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
    ///     // It may run twice, on two nodes: saving must be repeatable. An error has it run again.
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

    /// Where detached bodies, probes and hooks run. Default: `tokio::spawn`.
    pub fn executor(mut self, spawn: impl Fn(BoxFuture<()>) + Send + Sync + 'static) -> Self {
        self.0.executor = Executor::new(spawn);
        self
    }

    /// This process's name among the nodes that share the store. Default: random.
    pub fn node(mut self, node: NodeId) -> Self {
        self.0.name = node;
        self
    }

    /// The wire format of event streams. Default: server-sent events.
    pub fn framing(mut self, framing: impl Framing) -> Self {
        self.0.framing = Arc::new(framing);
        self
    }

    /// Makes stream ids, tokens and reconnect delays repeatable: for tests.
    #[cfg(feature = "test-util")]
    #[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
    pub fn seed(mut self, seed: u64) -> Self {
        self.0.seed = Some(seed);
        self
    }

    settings! {
        /// Silence after which a body sends a heartbeat comment. Default: 15 s.
        heartbeat: Duration,
        /// How long a node may be silent before its streams are taken for orphans. It beats three times within. Default: 30 s.
        stale_after: Duration,
        /// How often the guardian looks for orphans. Default: 30 s.
        sweep_every: Duration,
        /// How long a stream lives on after its producer was last heard of. Default: 1 h.
        lifetime: Duration,
        /// How long an ended stream can be recovered. Default: 5 min.
        recovery_window: Duration,
        /// How many bytes an event may have; a larger one fails the stream. Default: 1 MiB.
        max_event_bytes: usize,
        /// How many bytes of events, of all streams, may wait for the store. Beyond it, the owners that hold the most lose
        /// the oldest events of their largest streams, and readers get a `gap`, so that one loud stream costs a quiet one
        /// nothing. Ends are never lost for want of room: they take up to
        /// half of it and are held beyond it, for each stream at most one event, until they are stored or their
        /// recovery window is over. It must not be less than `max_event_bytes`, and there is always room for one such event with its id. Default: 64 MiB.
        recorder_bytes: usize,
        /// How long recording waits, once a stream has something for the store, for other streams to join the
        /// request. Zero does not wait, and is best for most stores: while requests are under way, what
        /// comes meanwhile gathers by itself. More makes fewer and larger requests, and each event's
        /// acknowledgement later by as much: a delay for clients with [`Durability::BeforeSend`], for
        /// terminal events and for followers. Shorter than [`store_limit`](Self::store_limit); of no effect
        /// with a store that answers at once, as [`MemoryStore`](crate::MemoryStore) does. Default: 0.
        linger: Duration,
        /// How long a request to the store may take, and how long a stream waits for it. Default: 500 ms.
        store_limit: Duration,
        /// How long registering a stream may take, and reading of it; and a beat, which has a sixth of the stale threshold at
        /// most. Default: 2 s.
        open_limit: Duration,
        /// How long a request to the store may take that no stream waits for: of sweeps and hooks, lists, deletions. Default: 5 s.
        background_limit: Duration,
        /// How long a terminal event waits for the store before it goes out unacknowledged. Default: 2 s.
        terminal_limit: Duration,
        /// How long a relay waits for a stream that is not opened yet: see [`Relay::wait`](crate::Relay::wait). Default: 30 s.
        relay_wait: Duration,
        /// The most unread streams (30 s without a reader) that a process keeps. Beyond it, the owner with the most of them
        /// loses its oldest: that ends as `failed`, reason `detach_limit`. Default: 1000.
        max_detached: usize,
        /// How long a client may leave its response unread where others read the same stream, or its route has
        /// [`Disconnect::Detach`](crate::Disconnect::Detach): then the body is driven on without it, and it continues from the log.
        ///
        /// Before it trims events that a reader on this node still needs, the producer waits for that reader: `stall_limit` if
        /// another reader has caught up, otherwise as a plain body would (`Detach`: at most `at_most`). A reader that does
        /// not catch up in time gets a `gap`. Default: 10 s.
        stall_limit: Duration,
        /// How long the process takes to go down at most, job probes and hooks included: see
        /// [`Guardian::with_graceful_shutdown`](crate::Guardian::with_graceful_shutdown). Default: 25 s.
        drain_limit: Duration,
        /// How long a job probe may take. Default: 5 s.
        probe_limit: Duration,
        /// How long an [`on_end`](Self::on_end) hook may take before it counts as failed. Default: 30 s.
        hook_limit: Duration,
        /// When an event may be delivered. Default: [`Durability::Buffered`].
        durability: Durability,
        /// What a request gets while the store does not answer. Default: [`OnUnavailable::Serve`].
        on_unavailable: OnUnavailable,
    }

    /// How many events a log holds; older ones are trimmed. Default: 10,000, and 200,000 for `generation()`.
    pub fn max_log_events(mut self, events: usize) -> Self {
        self.0.settings.max_log_events = Some(events);
        self
    }

    /// How many bytes of events a log holds; older ones are trimmed. Default: 8 MiB, and 64 MiB for `generation()`.
    pub fn max_log_bytes(mut self, bytes: usize) -> Self {
        self.0.settings.max_log_bytes = Some(bytes);
        self
    }

    /// The hub, and its guardian, which the host's runtime must poll.
    ///
    /// A duration of more than 100 years counts as 100 years.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names a setting that cannot work.
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
    /// Begins a hub on this store.
    pub fn builder(store: impl Store) -> Builder {
        Builder::new(store)
    }
}

impl ResilientSseLayer {
    /// The short form: a layer on a store with all defaults, and its guardian.
    ///
    /// The owner is an [`Owner`](crate::Owner) in the request's extensions.
    ///
    /// # Errors
    ///
    /// None today: the defaults fit together. The type is that of [`Builder::build`](crate::Builder::build).
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
