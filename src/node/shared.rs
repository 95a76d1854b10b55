//! What the parts of one process share.

use std::sync::{
    Arc, Mutex, Weak,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

use http::{HeaderMap, HeaderName, Version};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture, WaitForCancellationFutureOwned};

use super::{
    owner::{Authorize, OwnerRule},
    reject::Rejecter,
};
use crate::{
    hooks::{Hooks, Probe},
    model::{
        config::Settings,
        error::StoreError,
        id::{NodeId, StreamKey},
        kept::KeptHeaders,
        stream::StreamState,
    },
    recorder::{Recorder, Status, unattended::Unattended},
    runtime::{executor::Executor, pulse::Pulses, random::Seeded, sync::Underway},
    store::{Beat, StoreHandle},
    telemetry::{Health, Seldom, Telemetry, log_alert, log_warn},
    wire::Framing,
};

/// A guardian is polled at least once a second; one that was not for so long, in milliseconds, is not polled.
const UNGUARDED_AFTER: u64 = 10_000;
/// In place of the time at which a guardian was polled last: it was dropped, or is done.
const GONE: u64 = u64::MAX;
/// For how long after its start a process may have requests before it polls its guardian, in milliseconds.
const STARTS: u64 = 1000;

/// The stages of a drain: clients are served on, bodies break off, and it is over.
const DRAINING: u8 = 1;
const LETTING_GO: u8 = 2;
const DOWN: u8 = 3;

/// What the hub's parts share.
pub(crate) struct Node {
    pub(crate) settings: Settings,
    pub(crate) name: NodeId,
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
    pub(super) owner: Arc<OwnerRule>,
    pub(super) authorize: Option<Arc<Authorize>>,
    pub(super) rejecter: Rejecter,
    /// The time of the guardian's last poll, in milliseconds since the start and at least 1; 0 before that, and [`GONE`] once
    /// it is dropped.
    pub(super) guarded_at: AtomicU64,
    /// How far a drain has come: one of [`DRAINING`], [`LETTING_GO`] and [`DOWN`], or 0.
    pub(super) drain: AtomicU8,
    /// Cancelled once a drain begins, to wake requests that wait for another request's handler.
    pub(super) drain_began: CancellationToken,
    /// Cancelled once its time is nearly over, to wake requests whose handler has not answered.
    pub(super) let_go: CancellationToken,
    /// Lanes whose streams were read elsewhere when that was asked last.
    pub(super) read_elsewhere: Mutex<Vec<Weak<crate::recorder::Lane>>>,
    /// Bodies that serve a client although no lane stands for their stream: a drain serves these clients on, too.
    pub(crate) beyond_record: Arc<Underway>,
    /// Requests whose handler has not answered, and that no lane stands for: a drain waits for these, too.
    pub(crate) handlers: Arc<Underway>,
    /// The same, where the client may go at once: nobody waits for these.
    pub(crate) bystanders: Arc<Underway>,
    pub(super) start: Instant,
    /// In milliseconds since the start: until when a stream that the store does not know may be one
    /// that it forgot.
    pub(super) forgotten_until: AtomicU64,
    /// The result of the last request whether the store is another (`None` if it was given up), and the number of requests.
    pub(super) asked_store: tokio::sync::Mutex<Option<Result<(), StoreError>>>,
    pub(super) times_asked: AtomicU64,
    /// Messages that would fill the log if each occasion had its own.
    pub(super) unguarded: Seldom,
    pub(super) unowned: Seldom,
    pub(super) unnamed: Seldom,
    pub(super) shared_ids: Seldom,
    pub(super) late_events: Seldom,
    pub(super) unkept: Seldom,
    pub(super) old_http: Seldom,
    /// Which run of the store answered last.
    pub(super) run: Mutex<Option<u128>>,
}

impl Node {
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

    /// Ready once a drain begins, for those who outlive this borrow.
    pub(crate) fn draining(&self) -> WaitForCancellationFutureOwned {
        self.drain_began.clone().cancelled_owned()
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
        let (kept, left_out) = crate::node::headers::kept(headers, names);
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
        Beat { node: self.name.clone(), streams, stale: self.settings.stale_after, lifetime: self.settings.lifetime }
    }

    pub(super) fn elapsed(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResilientSse").field("node", &self.name).finish_non_exhaustive()
    }
}
