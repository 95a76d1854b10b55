//! Health, metrics and logs of the library.
//!
//! [`Health`] is a snapshot of all figures, and [`Health::to_prometheus`] its text form. With the feature `metrics` the
//! guardian reports the same figures through the `metrics` facade. With the feature `tracing` events are logged under
//! the target `resilient_sse`.
//!
//! | metric | kind | what it counts |
//! |---|---|---|
//! | `resilient_sse_active` | gauge | streams whose producer is on this node |
//! | `resilient_sse_detached` | gauge | active streams without a reader on any node |
//! | `resilient_sse_followers` | gauge | consumers that read from the log |
//! | `resilient_sse_recorded_total` | counter | events that the store acknowledged |
//! | `resilient_sse_lost_total` | counter | events that could not be recorded, each reported in a gap |
//! | `resilient_sse_ends_given_up_total` | counter | ends that the store did not take within the recovery window |
//! | `resilient_sse_unheard_total` | counter | events produced while the stream had no reader |
//! | `resilient_sse_late_events_total` | counter | events that inner bodies produced after their terminal event, which are dropped |
//! | `resilient_sse_started_total` | counter | producers that were started |
//! | `resilient_sse_ended_total{state}` | counter | streams that this node closed, by state |
//! | `resilient_sse_resumed_total` | counter | requests that continued a stream |
//! | `resilient_sse_gaps_total` | counter | gaps that were reported to consumers |
//! | `resilient_sse_rejected_total` | counter | requests that the library itself answered with an error |
//! | `resilient_sse_bypassed_total{reason}` | counter | event streams that were not protected: `encoded`, `status`, `bypass`, `method`, `unavailable` |
//! | `resilient_sse_hooks_failed_total` | counter | runs of an `on_end` hook that failed, panicked or took too long |
//! | `resilient_sse_panics_total` | counter | panics of inner code that were caught |
//! | `resilient_sse_store_errors_total` | counter | store requests that failed or timed out |
//! | `resilient_sse_breaker_open` | gauge | 1 while streams do not wait for the store |
//! | `resilient_sse_store_parts_away` | gauge | parts of the store (masters of a Cluster) with an open breaker |
//! | `resilient_sse_frozen` | gauge | 1 while the guardian does not trust the store enough to claim orphans |
//! | `resilient_sse_draining` | gauge | 1 while the process is draining |
//! | `resilient_sse_first_event_seconds` | histogram | time from the request to the first event |
//! | `resilient_sse_event_gap_seconds` | histogram | time between two events of a running stream |

mod health;
mod histogram;
pub(crate) mod log;
mod seldom;

use std::{
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

pub use health::{Health, HistogramSnapshot};
pub(crate) use histogram::Histogram;
pub(crate) use log::{log_alert, log_debug, log_error, log_warn, to_stderr};
pub(crate) use seldom::Seldom;

use crate::{
    model::{
        error::{BoxError, StoreError},
        id::StreamKey,
        stream::StreamState,
    },
    runtime::panics::Panicked,
};

/// The reason why an event stream was not protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bypassed {
    /// The response is content-encoded, so its events cannot be read.
    Encoded,
    /// The status is not 200. Errors are not replayed.
    Status,
    /// The route's `Identify` returned `Bypass`.
    Bypass,
    /// The request was neither GET nor POST.
    Method,
    /// The store did not answer.
    Unavailable,
}

impl Bypassed {
    const ALL: [Self; 5] = [Self::Encoded, Self::Status, Self::Bypass, Self::Method, Self::Unavailable];

    const fn name(self) -> &'static str {
        match self {
            Self::Encoded => "encoded",
            Self::Status => "status",
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::Unavailable => "unavailable",
        }
    }
}

const ENDINGS: [StreamState; 5] =
    [StreamState::Completed, StreamState::Failed, StreamState::Cancelled, StreamState::Orphaned, StreamState::Expired];

/// The counters of the process, updated with relaxed atomics at most once a batch.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    pub(crate) active: AtomicI64,
    pub(crate) detached: AtomicI64,
    pub(crate) followers: AtomicI64,
    pub(crate) recorded: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) ends_given_up: AtomicU64,
    pub(crate) unheard: AtomicU64,
    pub(crate) late_events: AtomicU64,
    pub(crate) started: AtomicU64,
    ended: [AtomicU64; ENDINGS.len()],
    pub(crate) resumed: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) rejected: AtomicU64,
    bypassed: [AtomicU64; Bypassed::ALL.len()],
    pub(crate) panics: AtomicU64,
    hooks_failed: AtomicU64,
    hook_failures: Seldom,
    probe_failures: Seldom,
    store_losses: Seldom,
    store_errors: AtomicU64,
    /// The number of parts of the store with an open breaker.
    parts_away: AtomicU64,
    pub(crate) frozen: AtomicBool,
    pub(crate) draining: AtomicBool,
    /// When the last sweep ended, by the store's clock, in unix milliseconds; 0 before the first.
    pub(crate) last_sweep: AtomicU64,
    first_event: Histogram,
    event_gap: Histogram,
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Telemetry {
    pub(crate) fn bypassed(&self, reason: Bypassed) {
        log_debug!(reason = reason.name(), "an event stream is not protected");
        add(&self.bypassed[reason as usize], 1);
    }

    pub(crate) fn first_event(&self, after: Duration) {
        self.first_event.record(after);
        #[cfg(feature = "metrics")]
        metrics::histogram!("resilient_sse_first_event_seconds").record(after.as_secs_f64());
    }

    pub(crate) fn event_gap(&self, silence: Duration) {
        self.event_gap.record(silence);
        #[cfg(feature = "metrics")]
        metrics::histogram!("resilient_sse_event_gap_seconds").record(silence.as_secs_f64());
    }

    /// Counts a stream that this node closed.
    pub(crate) fn closed(&self, state: StreamState) {
        if let Some(index) = ENDINGS.iter().position(|ending| *ending == state) {
            add(&self.ended[index], 1);
        }
    }

    pub(crate) fn panicked(&self, what: &'static str) {
        add(&self.panics, 1);
        log_error!(what, "inner code panicked; other streams are not affected");
    }

    pub(crate) fn store_failed(&self, error: &StoreError) {
        add(&self.store_errors, 1);
        log_debug!(error = %Chain(error), "store request failed");
        if self.parts_away.load(Ordering::Relaxed) > 0 {
            self.tell_of_loss(error);
        }
    }

    /// Writes to standard error, once a minute while the store is away.
    fn tell_of_loss(&self, error: &StoreError) {
        if self.store_losses.due().is_some() {
            to_stderr(format_args!(
                "the store, or a part of it, does not answer, and its streams do not wait for it; error: {}",
                Chain(error)
            ));
        }
    }

    /// Notes that the breaker of a part of the store opened. `parts` is the number of open ones now.
    pub(crate) fn store_lost(&self, parts: usize, error: &StoreError) {
        self.parts_away.store(parts as u64, Ordering::Relaxed);
        log_warn!(error = %Chain(error), parts, "the store, or a part of it, has failed: its streams no longer wait for it");
        self.tell_of_loss(error);
    }

    /// Notes that a part of the store answers again. `parts` is the number of parts that do not yet.
    pub(crate) fn store_back(&self, parts: usize) {
        self.parts_away.store(parts as u64, Ordering::Relaxed);
        log_warn!(parts_away = parts, "a part of the store answers again, or all of it");
    }

    /// Notes that an `on_end` hook failed or took too long. It runs again.
    pub(crate) fn hook_failed(&self, key: &StreamKey, error: &(dyn std::error::Error + 'static)) {
        add(&self.hooks_failed, 1);
        log_warn!(id = %key.id, error = %Chain(error), "an `on_end` hook failed and will run again");
        if let Some(failures) = self.hook_failures.due() {
            to_stderr(format_args!(
                "{failures} run(s) of the `on_end` hook failed, last for the stream `{}`: {}",
                key.id,
                Chain(error)
            ));
        }
    }

    /// Notes that an `on_end` hook panicked. It runs again.
    pub(crate) fn hook_panicked(&self, key: &StreamKey) {
        self.panicked("on_end");
        self.hook_failed(key, &Panicked);
    }

    /// Notes that a job probe failed, or that it gave no answer in time (`None`).
    pub(crate) fn probe_failed(&self, key: &StreamKey, error: Option<&(dyn std::error::Error + 'static)>) {
        let error = error.map_or_else(|| "no answer in time".to_owned(), |error| Chain(error).to_string());
        log_warn!(id = %key.id, error = %error, "the job probe failed");
        if let Some(failures) = self.probe_failures.due() {
            to_stderr(format_args!("{failures} job probe(s) failed, last for the stream `{}`: {error}", key.id));
        }
    }

    /// Logs an error of the host's code.
    pub(crate) fn host_failed(&self, what: &'static str, error: &BoxError) {
        log_warn!(what, error = %Chain(error.as_ref()), "the host's code failed");
    }
}

/// A guard that counts in a gauge until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    telemetry: std::sync::Arc<Telemetry>,
    gauge: fn(&Telemetry) -> &AtomicI64,
}

impl Counted {
    pub(crate) fn new(telemetry: &std::sync::Arc<Telemetry>, gauge: fn(&Telemetry) -> &AtomicI64) -> Self {
        gauge(telemetry).fetch_add(1, Ordering::Relaxed);
        Self { telemetry: std::sync::Arc::clone(telemetry), gauge }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.gauge)(&self.telemetry).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Displays an error and the chain of its sources in one line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
