//! A hub with time and randomness under the test's control.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::FaultStore;
use crate::{
    ConfigError,
    guardian::{DrainReport, Guardian},
    hub::{Builder, ResilientSse},
    store::MemoryStore,
};

/// The time at which the clock of a test's store starts: 2023-11-14 22:13:20 UTC, in unix milliseconds.
const START_MS: u64 = 1_700_000_000_000;
/// The longest step of [`TestHub::advance`].
const STEP: Duration = Duration::from_millis(250);

/// A hub with a memory store and seeded ids, whose guardian the test steps.
///
/// Use it with paused time: `#[tokio::test(start_paused = true)]`.
///
/// ```
/// use std::time::Duration;
///
/// use resilient_sse::test_util::TestHub;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
/// let mut hub = TestHub::new();
/// let layer = hub.sse.generation(); // around the handler under test
/// hub.advance(Duration::from_secs(30)).await; // no real time passes
/// assert_eq!(hub.sse.health().active, 0);
/// # let _ = layer;
/// # });
/// ```
#[derive(Debug)]
pub struct TestHub {
    /// The hub.
    pub sse: ResilientSse,
    /// The hub's store, which fails on demand.
    pub store: FaultStore<MemoryStore>,
    guardian: Pin<Box<Guardian>>,
    report: Option<DrainReport>,
}

impl Default for TestHub {
    fn default() -> Self {
        Self::new()
    }
}

impl TestHub {
    /// Creates a hub with default settings and anonymous streams.
    #[must_use]
    #[allow(clippy::expect_used, reason = "the defaults fit together, and a test wants to hear if not")]
    pub fn new() -> Self {
        Self::with(|builder| builder).expect("the defaults fit together")
    }

    /// Creates a hub with the test's settings. Its streams are anonymous, unless the test sets [`Builder::owner`].
    ///
    /// # Errors
    ///
    /// The same as [`Builder::build`].
    pub fn with(setup: impl FnOnce(Builder) -> Builder) -> Result<Self, ConfigError> {
        Self::on(FaultStore::new(MemoryStore::starting_at(START_MS)), setup)
    }

    /// Creates a hub on a store that other hubs may share, like several nodes.
    ///
    /// # Errors
    ///
    /// The same as [`Builder::build`].
    pub fn on(store: FaultStore<MemoryStore>, setup: impl FnOnce(Builder) -> Builder) -> Result<Self, ConfigError> {
        let (sse, guardian) =
            setup(ResilientSse::builder(store.clone()).anonymous().seed(store.next_node())).build()?;
        sse.0.mute_guardian_alert();
        Ok(Self { sse, store, guardian: Box::pin(guardian), report: None })
    }

    /// Sets the signal that starts the guardian's drain. [`report`](Self::report) returns the result after the drain.
    pub fn shut_down_on(&mut self, signal: impl Future<Output = ()> + Send + 'static) {
        let idle = ResilientSse::builder(MemoryStore::new()).build();
        if let Ok((_, idle)) = idle {
            let guardian = std::mem::replace(&mut *self.guardian, idle);
            *self.guardian = guardian.with_graceful_shutdown(signal);
        }
    }

    /// Returns the report of the drain; `None` until it is over.
    #[must_use]
    pub fn report(&self) -> Option<DrainReport> {
        self.report
    }

    /// Polls the guardian and lets spawned tasks run, three times in turn.
    pub async fn step(&mut self) {
        for _ in 0..3 {
            if self.report.is_none() {
                let mut cx = Context::from_waker(Waker::noop());
                if let Poll::Ready(report) = self.guardian.as_mut().poll(&mut cx) {
                    self.report = Some(report);
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Advances time, and steps the guardian every 250 ms of it.
    ///
    /// # Panics
    ///
    /// If time is not paused, see [`tokio::time::advance`].
    pub async fn advance(&mut self, time: Duration) {
        let mut left = time;
        self.step().await;
        while !left.is_zero() {
            let step = left.min(STEP);
            tokio::time::advance(step).await;
            self.step().await;
            left -= step;
        }
    }
}
