//! Setting up a hub.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU64},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Response, request::Parts};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Access, Core, Rejection, ResilientSse,
    owner::{Authorize, OwnerRule, authorize, from_extension},
    reject::{OnReject, Rejecter},
};
use crate::{
    config::{Durability, OnUnavailable, Settings},
    error::ConfigError,
    executor::Executor,
    guardian::Guardian,
    hooks::{Acknowledge, EndedStream, Hooks, OnEnd, Probe, ProbeAnswer, on_end, probe},
    id::{NodeId, Owner},
    layer::unattended::Unattended,
    pulse::Pulses,
    random::Seeded,
    recorder::Recorder,
    store::{Store, StoreHandle, handle::BoxFuture},
    stream::StreamInfo,
    telemetry::{Seldom, Telemetry},
    wire::{Framing, Sse},
};

/// Puts a store of any type behind its handle, once the settings are known.
type MakeHandle = dyn FnOnce(&Settings, Arc<Telemetry>) -> StoreHandle + Send;

/// Sets up a hub: see [`ResilientSse::builder`].
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    settings: Settings,
    store: Box<MakeHandle>,
    node: NodeId,
    owner: Arc<OwnerRule>,
    authorize: Option<Arc<Authorize>>,
    on_reject: Option<Arc<OnReject>>,
    challenge: Option<String>,
    probe: Option<Arc<Probe>>,
    on_end: Option<Box<OnEnd>>,
    executor: Executor,
    framing: Arc<dyn Framing>,
    seed: Option<u64>,
}

/// Makes the setters of plain settings.
macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        $($(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.settings.$name = $name;
            self
        })*
    };
}

impl Builder {
    pub(super) fn new(store: impl Store) -> Self {
        Self {
            settings: Settings::default(),
            store: Box::new(|settings, telemetry| StoreHandle::new(store, settings, telemetry)),
            node: NodeId::random(),
            owner: Arc::new(from_extension),
            authorize: None,
            on_reject: None,
            challenge: None,
            probe: None,
            on_end: None,
            executor: Executor::default(),
            framing: Arc::new(Sse),
            seed: None,
        }
    }

    /// Sets the rule that finds a request's owner. `None` is answered with 401.
    ///
    /// Nothing that a client sends is an identity unless this rule says so. Default: an [`Owner`] in
    /// the request's extensions, put there by the host's own authentication outside the layer.
    pub fn owner(mut self, rule: impl Fn(&Parts) -> Option<Owner> + Send + Sync + 'static) -> Self {
        self.owner = Arc::new(rule);
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
        self.authorize = Some(authorize(hook));
        self
    }

    /// How a client may sign in: the `WWW-Authenticate` header of a 401, which RFC 9110 (§ 15.5.2) wants there, such as
    /// `Bearer` or `Bearer realm="answers"`. Default: none, since only the host knows.
    pub fn challenge(mut self, challenge: impl Into<String>) -> Self {
        self.challenge = Some(challenge.into());
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
        self.on_reject = Some(Arc::new(shape));
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
        self.probe = Some(probe(hook));
        self
    }

    /// Sets the hook that runs at least once for each stream that ends, on any node, until it is acknowledged or the recovery
    /// window is over: to save the finished answer. An end that no store takes within that window is given up, and its hook
    /// does not run.
    ///
    /// Runs on the executor, at most 16 at a time on a node, for which the owners that wait take turns, for at most
    /// [`hook_limit`](Self::hook_limit) each. One that fails, panics or takes too long is counted in
    /// [`Health::hooks_failed`](crate::Health) and run again after [`stale`](Self::stale) or twice
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
        self.on_end = Some(on_end(hook));
        self
    }

    /// Where detached bodies, probes and hooks run. Default: `tokio::spawn`.
    pub fn executor(mut self, spawn: impl Fn(BoxFuture<()>) + Send + Sync + 'static) -> Self {
        self.executor = Executor::new(spawn);
        self
    }

    /// This process's name among the nodes that share the store. Default: random.
    pub fn node(mut self, node: NodeId) -> Self {
        self.node = node;
        self
    }

    /// The wire format of event streams. Default: server-sent events.
    pub fn framing(mut self, framing: impl Framing) -> Self {
        self.framing = Arc::new(framing);
        self
    }

    /// Makes stream ids, tokens and reconnect delays repeatable: for tests.
    #[cfg(feature = "test-util")]
    #[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    settings! {
        /// Silence after which a body sends a heartbeat comment. Default: 15 s.
        heartbeat: Duration,
        /// How long a node may be silent before its streams are taken for orphans. It beats three times within. Default: 30 s.
        stale: Duration,
        /// How often the guardian looks for orphans. Default: 30 s.
        sweep: Duration,
        /// How long a stream lives on after its producer was last heard of. Default: 1 h.
        lifetime: Duration,
        /// How long an ended stream can be recovered. Default: 5 min.
        recovery_window: Duration,
        /// How many bytes an event may have; a larger one fails the stream. Default: 1 MiB.
        max_event: usize,
        /// How many bytes of events, of all streams, may wait for the store. Beyond it, the owners that hold the most lose
        /// the oldest events of their largest streams, and readers get a `gap`, so that one loud stream costs a quiet one
        /// nothing. Ends are never lost for want of room: they take up to
        /// half of it and are held beyond it, for each stream at most one event, until they are stored or their
        /// recovery window is over. It must not be less than `max_event`, and there is always room for one such event with its id. Default: 64 MiB.
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
        /// Before it trims events that a reader on this node still needs, the producer waits for that reader: `stall` if
        /// another reader has caught up, otherwise as a plain body would (`Detach`: at most `at_most`). A reader that does
        /// not catch up in time gets a `gap`. Default: 10 s.
        stall: Duration,
        /// How long the process takes to go down at most, job probes and hooks included: see
        /// [`Guardian::with_graceful_shutdown`](crate::Guardian::with_graceful_shutdown). Default: 25 s.
        drain: Duration,
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
    pub fn max_events(mut self, max_events: usize) -> Self {
        self.settings.max_events = Some(max_events);
        self
    }

    /// How many bytes of events a log holds; older ones are trimmed. Default: 8 MiB, and 64 MiB for `generation()`.
    pub fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.settings.max_bytes = Some(max_bytes);
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
        self.settings.check()?;
        self.settings = self.settings.bounded();
        let challenge = self.challenge.take().map(HeaderValue::try_from).transpose();
        let challenge = challenge.map_err(|_| ConfigError { setting: "challenge", rule: "must be a header value" })?;
        let core = Arc::new(self.into_core(challenge));
        let guardian = Guardian::new(Arc::clone(&core));
        Ok((ResilientSse(core), guardian))
    }

    fn into_core(self, challenge: Option<HeaderValue>) -> Core {
        let settings = self.settings;
        let telemetry = Arc::new(Telemetry::default());
        let store = (self.store)(&settings, Arc::clone(&telemetry));
        let hooks = Arc::new(Hooks::new(
            self.on_end,
            self.executor.clone(),
            &store,
            Arc::clone(&telemetry),
            Arc::clone(&self.framing),
            &settings,
        ));
        let recorder =
            Recorder::new(store.clone(), Arc::clone(&telemetry), self.executor.clone(), Arc::clone(&hooks), &settings);
        Core {
            unattended: Arc::new(Unattended::new(settings.max_detached)),
            after_last: CancellationToken::new(),
            rests: Arc::default(),
            pulses: Arc::new(Pulses::new(settings.heartbeat, settings.stall)),
            settings,
            node: self.node,
            store,
            recorder: Arc::new(recorder),
            telemetry,
            executor: self.executor,
            hooks,
            probe: self.probe,
            framing: self.framing,
            random: Seeded::new(self.seed),
            owner: self.owner,
            authorize: self.authorize,
            rejecter: Rejecter { on_reject: self.on_reject, challenge },
            guarded_at: AtomicU64::new(0),
            drain: AtomicU8::new(0),
            drain_began: CancellationToken::new(),
            let_go: CancellationToken::new(),
            read_elsewhere: Mutex::default(),
            beyond_record: Arc::default(),
            handlers: Arc::default(),
            bystanders: Arc::default(),
            start: Instant::now(),
            forgotten_until: AtomicU64::new(0),
            asked_store: tokio::sync::Mutex::default(),
            times_asked: AtomicU64::new(0),
            run: Mutex::new(None),
            unguarded: Seldom::default(),
            unowned: Seldom::default(),
            unnamed: Seldom::default(),
            shared_ids: Seldom::default(),
            late_events: Seldom::default(),
            unkept: Seldom::default(),
            old_http: Seldom::default(),
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("settings", &self.settings).finish_non_exhaustive()
    }
}
