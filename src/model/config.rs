//! The limits and intervals of a hub, with their defaults, see [`Settings`].

use std::{error::Error, fmt, time::Duration};

use super::retention::Retention;

/// The order of delivering an event and recording it (guarantee G2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Delivers an event at once, at most 1,024 events, 256 KiB or 100 ms ahead of the store's acknowledgement.
    #[default]
    Buffered,
    /// Delivers an event once the store has acknowledged it.
    ///
    /// In an outage an event waits for at most [`Builder::store_limit`](crate::Builder::store_limit) (500 ms, guarantee
    /// G7). After that, events are delivered unacknowledged until the store answers. While events wait for the store,
    /// the inner body may produce up to 1,024 events or 256 KiB, which the next appends carry.
    BeforeSend,
}

/// The answer to a request that needs the store while the store does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnUnavailable {
    /// Serves the stream unrecorded, marked `X-Stream-Recorded: false`. A request with a cursor is answered as with
    /// [`Retry`](Self::Retry), because it asks for events that only the store has.
    #[default]
    Serve,
    /// Tells the client to reconnect: a GET that asks for `text/event-stream` by name, as every `EventSource` does,
    /// gets 200, `retry:` and a body that breaks off. Any other request gets 503 with `Retry-After`.
    ///
    /// On a route that generates stream ids the inner service does not run while the breaker is open, even if it would
    /// answer with something other than an event stream. Put such a layer only around routes that stream. Before the
    /// breaker opens, the inner service runs and its event stream is dropped.
    Retry,
    /// Answers 503 with `Retry-After`. A request with a cursor is answered as with [`Retry`](Self::Retry), because an
    /// `EventSource` gives up for good on 503.
    ///
    /// On a route that generates stream ids the inner service runs under the same conditions as with
    /// [`Retry`](Self::Retry).
    Status,
}

/// The intervals and limits of a hub, which [`Builder`](crate::Builder) sets and documents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) heartbeat: Duration,
    pub(crate) stale_after: Duration,
    pub(crate) sweep_every: Duration,
    pub(crate) lifetime: Duration,
    pub(crate) recovery_window: Duration,
    /// `None`: [`LOG_EVENTS`], or the default of the kind of route.
    pub(crate) max_log_events: Option<usize>,
    /// `None`: [`LOG_BYTES`], or the default of the kind of route.
    pub(crate) max_log_bytes: Option<usize>,
    pub(crate) max_event_bytes: usize,
    pub(crate) recorder_bytes: usize,
    pub(crate) linger: Duration,
    pub(crate) store_limit: Duration,
    pub(crate) open_limit: Duration,
    pub(crate) background_limit: Duration,
    pub(crate) terminal_limit: Duration,
    pub(crate) max_detached: usize,
    pub(crate) stall_limit: Duration,
    pub(crate) drain_limit: Duration,
    pub(crate) probe_limit: Duration,
    pub(crate) hook_limit: Duration,
    pub(crate) durability: Durability,
    pub(crate) on_unavailable: OnUnavailable,
    /// How long a relay waits for a stream to be opened.
    pub(crate) relay_wait: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(15),
            stale_after: Duration::from_secs(30),
            sweep_every: Duration::from_secs(30),
            lifetime: Duration::from_secs(3600),
            recovery_window: Duration::from_secs(300),
            max_log_events: None,
            max_log_bytes: None,
            max_event_bytes: 1 << 20,
            recorder_bytes: 64 << 20,
            linger: Duration::ZERO,
            store_limit: Duration::from_millis(500),
            open_limit: Duration::from_secs(2),
            background_limit: Duration::from_secs(5),
            terminal_limit: Duration::from_secs(2),
            max_detached: 1000,
            stall_limit: Duration::from_secs(10),
            drain_limit: Duration::from_secs(25),
            probe_limit: Duration::from_secs(5),
            hook_limit: Duration::from_secs(30),
            durability: Durability::Buffered,
            on_unavailable: OnUnavailable::Serve,
            relay_wait: Duration::from_secs(30),
        }
    }
}

/// How many events and bytes an inner body may produce ahead of the store's acknowledgement. A `Buffered` client
/// receives them at once.
pub(crate) const AHEAD_EVENTS: u64 = 1024;
pub(crate) const AHEAD_BYTES: usize = 256 << 10;
/// How long a `Buffered` client may be ahead of the store.
pub(crate) const AHEAD_TIME: Duration = Duration::from_millis(100);
/// How many events and bytes are produced without a pause, so that other tasks get their turn.
pub(crate) const BATCH_EVENTS: usize = 64;
pub(crate) const BATCH_BYTES: usize = 64 << 10;
/// How many events and bytes one append carries at most, except for a single larger event. The bytes are limited to one
/// and a half batches: the allocator takes buffers of hundreds of KiB from the system each time, which costs more than
/// the additional entries.
pub(crate) const ENTRY_EVENTS: usize = 1024;
pub(crate) const ENTRY_BYTES: usize = 96 << 10;
/// An entry takes at most 1/16 of a log's limits. A log is trimmed by whole entries, so it stays close to its limits.
pub(crate) const ENTRY_SHARE: usize = 16;
/// How many events and bytes a log holds by default.
pub(crate) const LOG_EVENTS: usize = 10_000;
pub(crate) const LOG_BYTES: usize = 8 << 20;
/// How many events and bytes the log of a `generation()` holds by default: enough for a long answer from its first
/// event.
pub(crate) const GENERATION_EVENTS: usize = 200_000;
pub(crate) const GENERATION_BYTES: usize = 64 << 20;
/// The default grace of `generation()` and `feed()`: how long work continues without a reader before `Interrupt` or
/// `Cancel` applies.
pub(crate) const GRACE: Duration = Duration::from_secs(2);
/// How long a stream has no reader before it counts towards `max_detached`.
pub(crate) const UNATTENDED: Duration = Duration::from_secs(30);
/// How long an inner body is polled after its terminal event.
pub(crate) const AFTER_LAST: Duration = Duration::from_secs(5);
/// How often an open breaker admits a request, as a probe.
pub(crate) const PROBE_EVERY: Duration = Duration::from_secs(1);
/// The longest duration of a setting: 100 years. Adding it to the current time cannot overflow a clock.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
/// How many job probes run at a time.
pub(crate) const PROBES: usize = 16;
/// How many streams a sweep takes from the store in one step.
pub(crate) const SWEEP_PAGE: usize = 250;
/// How many streams one beat names, and how many beats of a round are in flight at a time.
pub(crate) const BEAT_PAGE: usize = 4000;
pub(crate) const BEATS: usize = 2;

/// Limits a duration to [`LONGEST`], so that `Duration::MAX` ("for ever") cannot overflow a deadline.
pub(crate) fn bounded(duration: Duration) -> Duration {
    duration.min(LONGEST)
}

/// The most bytes that an id adds to an event, with the longest stream id as its prefix.
const ID_BYTES: usize = 256;

impl Settings {
    /// Returns how many bytes of events may wait for the store. The largest allowed event with its id always fits.
    pub(crate) fn room(&self) -> usize {
        self.recorder_bytes.max(self.max_event_bytes.saturating_add(ID_BYTES))
    }

    /// Returns the interval between a node's beats: a third of the stale threshold.
    pub(crate) fn beat_every(&self) -> Duration {
        self.stale_after / 3
    }

    /// Returns how long a node that claims an overdue stream holds its lease.
    pub(crate) fn lease(&self) -> Duration {
        self.stale_after.max(self.probe_limit.saturating_mul(2))
    }

    pub(crate) fn retention(&self) -> Retention {
        Retention {
            stale: self.stale_after,
            lifetime: self.lifetime,
            recovery_window: self.recovery_window,
            max_events: self.max_log_events.unwrap_or(LOG_EVENTS),
            max_bytes: self.max_log_bytes.unwrap_or(LOG_BYTES),
        }
    }

    /// Returns the settings with every duration limited by [`bounded`].
    pub(crate) fn bounded(self) -> Self {
        Self {
            heartbeat: bounded(self.heartbeat),
            stale_after: bounded(self.stale_after),
            sweep_every: bounded(self.sweep_every),
            lifetime: bounded(self.lifetime),
            recovery_window: bounded(self.recovery_window),
            linger: bounded(self.linger),
            store_limit: bounded(self.store_limit),
            open_limit: bounded(self.open_limit),
            background_limit: bounded(self.background_limit),
            terminal_limit: bounded(self.terminal_limit),
            stall_limit: bounded(self.stall_limit),
            drain_limit: bounded(self.drain_limit),
            probe_limit: bounded(self.probe_limit),
            hook_limit: bounded(self.hook_limit),
            relay_wait: bounded(self.relay_wait),
            ..self
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let positive = [
            ("heartbeat", self.heartbeat),
            ("stale_after", self.stale_after),
            ("sweep_every", self.sweep_every),
            ("lifetime", self.lifetime),
            ("recovery_window", self.recovery_window),
            ("store_limit", self.store_limit),
            ("open_limit", self.open_limit),
            ("background_limit", self.background_limit),
            ("stall_limit", self.stall_limit),
            ("probe_limit", self.probe_limit),
            ("hook_limit", self.hook_limit),
        ];
        for (setting, value) in positive {
            if value < Duration::from_millis(1) {
                return Err(ConfigError { setting, rule: "must be at least a millisecond" });
            }
        }
        let counted = [
            ("max_log_events", self.max_log_events.unwrap_or(LOG_EVENTS)),
            ("max_log_bytes", self.max_log_bytes.unwrap_or(LOG_BYTES)),
            ("max_event_bytes", self.max_event_bytes),
            ("recorder_bytes", self.recorder_bytes),
        ];
        for (setting, value) in counted {
            if value == 0 {
                return Err(ConfigError { setting, rule: "must be at least 1" });
            }
        }
        if self.max_event_bytes > self.max_log_bytes.unwrap_or(LOG_BYTES) {
            return Err(ConfigError {
                setting: "max_event_bytes",
                rule: "must not exceed `max_log_bytes`: the log could not hold it",
            });
        }
        if self.recorder_bytes < self.max_event_bytes {
            return Err(ConfigError {
                setting: "recorder_bytes",
                rule: "must not be less than `max_event_bytes`: such an event could never wait for the store",
            });
        }
        if self.linger >= self.store_limit {
            return Err(ConfigError { setting: "linger", rule: "must be shorter than `store_limit`" });
        }
        if self.lifetime < self.stale_after {
            return Err(ConfigError { setting: "lifetime", rule: "must not be shorter than `stale_after`" });
        }
        Ok(())
    }
}

/// The error of building a hub or layer with an invalid setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub(crate) setting: &'static str,
    pub(crate) rule: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.setting, self.rule)
    }
}

impl Error for ConfigError {}
