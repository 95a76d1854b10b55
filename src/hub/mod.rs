//! The hub: what all layers, services and the guardian of a process share.

mod builder;
mod forgotten;
mod handles;
mod owner;
mod readers;
mod reject;

use std::sync::{
    Arc, Mutex, Weak,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

use http::{HeaderMap, HeaderName, Version};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture, WaitForCancellationFutureOwned};

pub use builder::Builder;
pub(crate) use handles::Stopped;
pub use handles::{CompletionStore, StreamRegistry, Streams};
pub use owner::Access;
pub(crate) use owner::Head;
use owner::{Authorize, OwnerRule};
pub(crate) use readers::BEGIN_WAIT;
use reject::Rejecter;
pub use reject::Rejection;

use crate::{
    config::Settings,
    error::StoreError,
    executor::Executor,
    hooks::{Hooks, Probe},
    id::{NodeId, StreamKey},
    kept::KeptHeaders,
    layer::{ResilientSseLayer, route::Route, unattended::Unattended},
    publish::{Publisher, Relay},
    pulse::Pulses,
    random::Seeded,
    recorder::{Recorder, Status},
    recover::Recover,
    resume::{Resume, Stop},
    store::{Beat, Store, StoreHandle},
    stream::StreamState,
    sync::Underway,
    telemetry::{Health, Seldom, Telemetry, log_alert, log_warn},
    wire::Framing,
};

/// A guardian is polled at least once a second; one that was not for so long, in milliseconds, is not polled.
const UNGUARDED_AFTER: u64 = 10_000;
/// In place of the time at which a guardian was polled last: it was dropped, or is done.
const GONE: u64 = u64::MAX;
/// For how long after its start a process may have requests before it polls its guardian, in milliseconds.
const STARTS: u64 = 1000;

/// The hub: makes layers and services that share one store, one recorder and one guardian.
///
/// Cheap to clone.
///
/// ```
/// use resilient_sse::{MemoryStore, Owner, ResilientSse};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (sse, guardian) = ResilientSse::builder(MemoryStore::new())
///     // Put there by the host's own authentication, in a layer around this one. A header that a client may set is no identity.
///     .owner(|request| request.extensions.get::<Owner>().cloned())
///     .build()?;
/// tokio::spawn(guardian);
/// let generation = sse.generation(); // a tower layer
/// let recover = sse.recover(); // a tower service
/// # let _ = (generation, recover);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ResilientSse(pub(crate) Arc<Core>);

/// The stages of a drain: clients are served on, bodies break off, and it is over.
const DRAINING: u8 = 1;
const LETTING_GO: u8 = 2;
const DOWN: u8 = 3;

/// What the hub's parts share.
pub(crate) struct Core {
    pub(crate) settings: Settings,
    pub(crate) node: NodeId,
    pub(crate) store: StoreHandle,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) pulses: Arc<Pulses>,
    pub(crate) unattended: Arc<Unattended>,
    /// Cancelled once inner bodies are not polled on any more after their terminal events.
    pub(crate) after_last: CancellationToken,
    /// The inner bodies that are polled after their terminal events.
    pub(crate) rests: Arc<Underway>,
    pub(crate) executor: Executor,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) probe: Option<Arc<Probe>>,
    pub(crate) framing: Arc<dyn Framing>,
    pub(crate) random: Seeded,
    owner: Arc<OwnerRule>,
    authorize: Option<Arc<Authorize>>,
    rejecter: Rejecter,
    /// The time of the guardian's last poll, in milliseconds since the start and at least 1; 0 before that, and [`GONE`] once
    /// it is dropped.
    guarded_at: AtomicU64,
    /// How far a drain has come: one of [`DRAINING`], [`LETTING_GO`] and [`DOWN`], or 0.
    drain: AtomicU8,
    /// Cancelled once a drain begins, to wake requests that wait for another request's handler.
    drain_began: CancellationToken,
    /// Cancelled once its time is nearly over, to wake requests whose handler has not answered.
    let_go: CancellationToken,
    /// Lanes whose streams were read elsewhere when that was asked last.
    read_elsewhere: Mutex<Vec<Weak<crate::recorder::Lane>>>,
    /// Bodies that serve a client although no lane stands for their stream: a drain serves these clients on, too.
    pub(crate) beyond_record: Arc<Underway>,
    /// Requests whose handler has not answered, and that no lane stands for: a drain waits for these, too.
    pub(crate) handlers: Arc<Underway>,
    /// The same, where the client may go at once: nobody waits for these.
    pub(crate) bystanders: Arc<Underway>,
    start: Instant,
    /// In milliseconds since the start: until when a stream that the store does not know may be one
    /// that it forgot.
    forgotten_until: AtomicU64,
    /// The result of the last request whether the store is another (`None` if it was given up), and the number of requests.
    asked_store: tokio::sync::Mutex<Option<Result<(), StoreError>>>,
    times_asked: AtomicU64,
    /// Messages that would fill the log if each occasion had its own.
    unguarded: Seldom,
    unowned: Seldom,
    unnamed: Seldom,
    shared_ids: Seldom,
    late_events: Seldom,
    unkept: Seldom,
    old_http: Seldom,
    /// Which run of the store answered last.
    run: Mutex<Option<u128>>,
}

impl ResilientSse {
    /// Begins a hub on this store.
    pub fn builder(store: impl Store) -> Builder {
        Builder::new(store)
    }

    /// A layer that behaves like plain server-sent events once nobody reads
    /// ([`Disconnect::Interrupt`](crate::Disconnect::Interrupt), at once), and makes up a stream id for each request.
    pub fn layer(&self) -> ResilientSseLayer {
        ResilientSseLayer::new(Arc::clone(&self.0), Route::new(&self.0.settings))
    }

    /// A layer for work that goes on when its clients leave: [`Disconnect::DETACH`](crate::Disconnect::DETACH), kind `generation`.
    pub fn generation(&self) -> ResilientSseLayer {
        ResilientSseLayer::new(Arc::clone(&self.0), Route::generation(&self.0.settings))
    }

    /// A layer for streams without an end: a body that ends is interrupted, and run again for the
    /// next request; kind `feed`.
    ///
    /// All clients that ask for the same stream share one body, which runs for as long as one of them reads, and for 2 s more.
    /// Events after that are not recorded. A handler that can look them up gives its events ids of its own, and goes on
    /// after [`StreamContext::last_inner_id`](crate::StreamContext::last_inner_id) when it is run again.
    pub fn feed(&self) -> ResilientSseLayer {
        ResilientSseLayer::new(Arc::clone(&self.0), Route::feed(&self.0.settings))
    }

    /// The recovery service: how a stream stands, its end, and its events page by page, as JSON. For a client that was away; a
    /// [relay](Self::relay) is for one that wants to watch. It never runs an inner service.
    #[must_use]
    pub fn recover(&self) -> Recover {
        Recover::new(Arc::clone(&self.0))
    }

    /// The resume service of conversations: a page that is loaded again asks it for the stream that runs, and follows that
    /// from its first event or after its cursor. It never runs an inner service. See [`ResilientSseLayer::conversation`].
    #[must_use]
    pub fn resume(&self) -> Resume {
        Resume::new(Arc::clone(&self.0))
    }

    /// A service that stops the stream of a conversation that runs. See [`ResilientSseLayer::conversation`].
    #[must_use]
    pub fn stop(&self) -> Stop {
        Stop::new(Arc::clone(&self.0))
    }

    /// A service that follows streams which others [publish](Self::publisher), and waits for those that are not opened yet. Streams that an
    /// inner service produces are followed on their own route.
    #[must_use]
    pub fn relay(&self) -> Relay {
        Relay::new(Arc::clone(&self.0))
    }

    /// Publishes streams from background jobs.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher::new(Arc::clone(&self.0))
    }

    /// Lists and stops streams.
    ///
    /// ```
    /// # use resilient_sse::{Owner, ResilientSse, StreamId};
    /// // Behind the host's own authentication, which says who `owner` is.
    /// async fn stop(sse: &ResilientSse, owner: &Owner, id: &StreamId) -> Result<bool, resilient_sse::StoreError> {
    ///     for stream in sse.streams().list(owner).await? {
    ///         println!("{} is {}", stream.key.id, stream.state);
    ///     }
    ///     // Wherever it runs; `None` if there is no such stream.
    ///     Ok(sse.streams().stop(owner, id).await?.is_some())
    /// }
    /// ```
    #[must_use]
    pub fn streams(&self) -> Streams {
        Streams::new(Arc::clone(&self.0))
    }

    /// Looks into what the store knows of streams.
    #[must_use]
    pub fn registry(&self) -> StreamRegistry {
        StreamRegistry::new(Arc::clone(&self.0))
    }

    /// Looks into what the store keeps of ended streams.
    #[must_use]
    pub fn completions(&self) -> CompletionStore {
        CompletionStore::new(Arc::clone(&self.0))
    }

    /// How this node is doing.
    #[must_use]
    pub fn health(&self) -> Health {
        self.0.health()
    }

    /// This node's name.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.0.node
    }
}

impl Core {
    /// How this node is doing.
    pub(crate) fn health(&self) -> Health {
        Health::of(&self.telemetry, self.is_guarded(), self.store.is_away())
    }

    /// A reconnect delay in milliseconds: random for each connection, so that clients which lost
    /// their node together do not come back together.
    pub(crate) fn retry(&self) -> u64 {
        1000 + self.random.u64() % 4001
    }

    /// Whether a producer whose stream stands like this still serves its client: it does where the
    /// stream was only taken for an orphan.
    pub(crate) fn serves_on(&self, status: &Status) -> bool {
        match status {
            Status::Running => true,
            Status::Ended(ended) => ended.ending.state == StreamState::Orphaned,
            Status::Superseded => false,
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.drain.load(Ordering::Acquire) >= DRAINING
    }

    pub(crate) fn start_draining(&self) {
        self.telemetry.draining.store(true, Ordering::Relaxed);
        self.drain_to(DRAINING);
        self.drain_began.cancel();
    }

    /// Whether the drain's time is nearly over, so that bodies whose streams do not end here break off.
    pub(crate) fn is_letting_go(&self) -> bool {
        self.drain.load(Ordering::Acquire) >= LETTING_GO
    }

    /// Breaks off the bodies whose streams do not end on this node.
    pub(crate) fn start_letting_go(&self) {
        self.drain_to(LETTING_GO);
        self.let_go.cancel();
    }

    /// Ready once the drain's time is nearly over.
    pub(crate) fn let_go(&self) -> WaitForCancellationFutureOwned {
        self.let_go.clone().cancelled_owned()
    }

    /// Whether the drain is over: no body waits for anything from here on.
    pub(crate) fn is_down(&self) -> bool {
        self.drain.load(Ordering::Acquire) >= DOWN
    }

    /// Breaks off all remaining bodies.
    pub(crate) fn go_down(&self) {
        self.drain_to(DOWN);
    }

    fn drain_to(&self, stage: u8) {
        self.drain.store(stage, Ordering::Release);
        self.pulses.wake_all();
    }

    /// Ready once a drain begins.
    pub(crate) fn drain_began(&self) -> WaitForCancellationFuture<'_> {
        self.drain_began.cancelled()
    }

    /// The guardian is polled, or will not be any more.
    pub(crate) fn set_guarded(&self, guarded: bool) {
        self.guarded_at.store(if guarded { self.elapsed().max(1) } else { GONE }, Ordering::Relaxed);
    }

    /// Whether a guardian is polled.
    fn is_guarded(&self) -> bool {
        let polled = self.guarded_at.load(Ordering::Relaxed);
        !matches!(polled, 0 | GONE) && self.elapsed().saturating_sub(polled) < UNGUARDED_AFTER
    }

    /// Says so, now and then, where nobody polls the guardian. A process that has just started is given a second, and one
    /// that is going down does without.
    pub(crate) fn check_guarded(&self) {
        let starts = self.guarded_at.load(Ordering::Relaxed) == 0 && self.elapsed() < STARTS;
        if !starts && !self.is_draining() && !self.is_guarded() && self.unguarded.due().is_some() {
            log_alert!("no guardian is polled: no recording, no heartbeats, no orphan detection, no clean-up");
        }
    }

    /// Warns, once a minute at most, that an inner body made events after its terminal one: its classifier may be too eager.
    pub(crate) fn warn_late_events(&self, key: &StreamKey, events: u64) {
        if let Some(streams) = self.late_events.due() {
            log_warn!(
                id = %key.id,
                events = events,
                streams = streams,
                "an inner body made events after its terminal one: nobody gets them"
            );
        }
    }

    /// Reads which of a response's headers are kept with its stream. Warns, once a minute at most, of those that do not fit or
    /// are no text.
    pub(crate) fn kept_headers(&self, key: &StreamKey, headers: &HeaderMap, names: &[HeaderName]) -> KeptHeaders {
        let (kept, left_out) = crate::headers::kept(headers, names);
        if left_out > 0
            && let Some(streams) = self.unkept.due()
        {
            log_warn!(
                id = %key.id,
                headers = left_out,
                streams = streams,
                "headers of a response are not kept with its stream: they are longer than 4096 bytes in all, or no text"
            );
        }
        kept
    }

    /// Says so, once a minute at most, where a stream is given over HTTP/1.0: such a response is over when its connection closes
    /// (RFC 9112 § 6.3), so the peer takes a body that breaks off for a complete one.
    pub(crate) fn check_version(&self, version: Version) {
        if version < Version::HTTP_11
            && let Some(requests) = self.old_http.due()
        {
            log_alert!(
                requests = requests,
                "a stream is given over HTTP/1.0, where a response that breaks off looks complete: behind nginx set `proxy_http_version 1.1`"
            );
        }
    }

    /// A beat, of these streams.
    pub(crate) fn beat_of(&self, streams: Arc<[(StreamKey, u64)]>) -> Beat {
        Beat { node: self.node.clone(), streams, stale: self.settings.stale, lifetime: self.settings.lifetime }
    }

    fn elapsed(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResilientSse").field("node", &self.node).finish_non_exhaustive()
    }
}
