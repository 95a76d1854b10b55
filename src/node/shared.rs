//! The node: the state that the parts of one process share.

use std::sync::{
    Arc, Mutex, Weak,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
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

/// After how many milliseconds without a poll a guardian counts as not polled. A guardian that runs is polled at least
/// once a second.
const UNGUARDED_AFTER: u64 = 10_000;
/// The value of `guarded_at` after the guardian was dropped or is done.
const GONE: u64 = u64::MAX;
/// How many milliseconds after its start a process may serve requests before it polls its guardian.
const STARTS: u64 = 1000;

/// The stages of a drain: clients are still served, then bodies break off, then the drain is over.
const DRAINING: u8 = 1;
const LETTING_GO: u8 = 2;
const DOWN: u8 = 3;

/// The state that the parts of a hub share.
pub(crate) struct Node {
    pub(crate) settings: Settings,
    pub(crate) name: NodeId,
    pub(crate) store: StoreHandle,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) pulses: Arc<Pulses>,
    pub(crate) unattended: Arc<Unattended>,
    /// Cancelled when inner bodies are no longer polled after their terminal events.
    pub(crate) after_last: CancellationToken,
    /// Counts the inner bodies that are polled after their terminal events.
    pub(crate) after_last_bodies: Arc<Underway>,
    pub(crate) executor: Executor,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) probe: Option<Arc<Probe>>,
    pub(crate) framing: Arc<dyn Framing>,
    pub(crate) random: Seeded,
    pub(super) owner: Arc<OwnerRule>,
    pub(super) authorize: Option<Arc<Authorize>>,
    pub(super) rejecter: Rejecter,
    /// The time of the guardian's last poll, in milliseconds since the start and at least 1. It is 0 before the first
    /// poll, and [`GONE`] after the guardian was dropped.
    pub(super) guarded_at: AtomicU64,
    /// The stage of the drain: [`DRAINING`], [`LETTING_GO`] or [`DOWN`], or 0 if there is none.
    pub(super) drain: AtomicU8,
    /// Cancelled when a drain begins, to wake requests that wait for another request's handler.
    pub(super) drain_began: CancellationToken,
    /// Cancelled when the drain's time is nearly over, to wake requests whose handler has not answered.
    pub(super) let_go: CancellationToken,
    /// Lanes whose streams had readers on other nodes when last checked.
    pub(super) read_elsewhere: Mutex<Vec<Weak<crate::recorder::Lane>>>,
    /// Counts the bodies that serve a client of a stream which no lane stands for. A drain waits for these clients too.
    pub(crate) beyond_record: Arc<Underway>,
    /// Counts the requests that no lane stands for and whose handler has not answered. A drain waits for these too.
    pub(crate) handlers: Arc<Underway>,
    /// Counts such requests whose client may be let go at once. A drain does not wait for these.
    pub(crate) bystanders: Arc<Underway>,
    pub(super) start: Instant,
    /// Until when a stream that the store does not know may be one that it lost, in milliseconds since the start.
    pub(super) forgotten_until: AtomicU64,
    /// The result of the last beat that asked whether the store has changed; `None` if the request was dropped.
    pub(super) asked_store: tokio::sync::Mutex<Option<Result<(), StoreError>>>,
    /// The number of these beats.
    pub(super) times_asked: AtomicU64,
    /// The log lines below are limited to one a minute each, since requests would otherwise fill the log with them.
    pub(super) unguarded: Seldom,
    pub(super) unowned: Seldom,
    /// Whether the owner rule has found an owner so far.
    pub(super) owned: AtomicBool,
    pub(super) no_stream_name: Seldom,
    pub(super) no_conversation: Seldom,
    pub(super) unmatched: Seldom,
    pub(super) shared_ids: Seldom,
    pub(super) late_events: Seldom,
    pub(super) unkept: Seldom,
    pub(super) old_http: Seldom,
    /// The run of the store that answered last.
    pub(super) run: Mutex<Option<u128>>,
}

impl Node {
    /// Returns this node's health figures.
    pub(crate) fn health(&self) -> Health {
        Health::of(&self.telemetry, self.is_guarded(), self.store.is_away())
    }

    /// Returns a random reconnect delay from 1,000 to 5,000 ms, so that clients that lost their node together do not
    /// reconnect together.
    pub(crate) fn retry(&self) -> u64 {
        1000 + self.random.u64() % 4001
    }

    /// Whether a producer whose stream has this status still serves its client. It does if another node took the stream
    /// for an orphan by mistake.
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

    /// Returns a future that completes when the drain's time is nearly over.
    pub(crate) fn let_go(&self) -> WaitForCancellationFutureOwned {
        self.let_go.clone().cancelled_owned()
    }

    /// Whether the drain is over. No body waits for anything then.
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

    /// Returns a future that completes when a drain begins, and does not borrow the node.
    pub(crate) fn draining(&self) -> WaitForCancellationFutureOwned {
        self.drain_began.clone().cancelled_owned()
    }

    /// Returns a future that completes when a drain begins.
    pub(crate) fn drain_began(&self) -> WaitForCancellationFuture<'_> {
        self.drain_began.cancelled()
    }

    /// Notes that the guardian was polled, or that it is gone.
    pub(crate) fn set_guarded(&self, guarded: bool) {
        self.guarded_at.store(if guarded { self.elapsed().max(1) } else { GONE }, Ordering::Relaxed);
    }

    /// Whether a guardian is polled.
    fn is_guarded(&self) -> bool {
        let polled = self.guarded_at.load(Ordering::Relaxed);
        !matches!(polled, 0 | GONE) && self.elapsed().saturating_sub(polled) < UNGUARDED_AFTER
    }

    /// Turns off the alert about a guardian that nothing polls. A test polls the guardian in steps, with pauses between.
    #[cfg(feature = "test-util")]
    pub(crate) fn mute_guardian_alert(&self) {
        self.unguarded.mute();
    }

    /// Logs an alert, once a minute at most, if nothing polls the guardian. A process has a second after its start to
    /// begin, and needs no guardian during its drain.
    pub(crate) fn check_guarded(&self) {
        let starts = self.guarded_at.load(Ordering::Relaxed) == 0 && self.elapsed() < STARTS;
        if !starts && !self.is_draining() && !self.is_guarded() && self.unguarded.due().is_some() {
            log_alert!("no guardian is polled: no recording, no heartbeats, no orphan detection, no clean-up");
        }
    }

    /// Logs, once a minute at most, that an inner body made events after its terminal one. The route's classifier may
    /// take an ordinary event for a terminal one.
    pub(crate) fn warn_late_events(&self, key: &StreamKey, events: u64) {
        if let Some(streams) = self.late_events.due() {
            log_warn!(
                id = %key.id,
                events = events,
                streams = streams,
                "an inner body made events after its terminal event: they are dropped"
            );
        }
    }

    /// Returns the headers of a response to keep with its stream. Logs, once a minute at most, that some do not fit or
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
                "headers of a response are not kept with its stream: they exceed 4096 bytes in all, or are no text"
            );
        }
        kept
    }

    /// Logs an alert, once a minute at most, if a stream is sent over HTTP/1.0. Such a response ends when its
    /// connection closes (RFC 9112 § 6.3), so the peer takes a body that breaks off for a complete one.
    pub(crate) fn check_version(&self, version: Version) {
        if version < Version::HTTP_11
            && let Some(requests) = self.old_http.due()
        {
            log_alert!(
                requests = requests,
                "a stream is sent over HTTP/1.0, where a response that breaks off looks complete: behind nginx set `proxy_http_version 1.1`"
            );
        }
    }

    /// Returns a beat for these streams.
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
