//! Runs the `on_end` hook on the executor, with a limited number at a time and a time limit for each.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{EndedStream, OnEnd, queue::Queue};
use crate::{
    hooks::recent::RecentCloses,
    model::{
        config::Settings,
        error::{BoxError, StoreError},
        id::StreamKey,
        stream::StreamInfo,
    },
    runtime::{
        executor::Executor,
        panics::{Guarded, drop_guarded},
        sync::{lock, until},
    },
    store::StoreHandle,
    telemetry::Telemetry,
    wire::Framing,
};

/// A node's lease of a hook is at most the recovery window divided by this, so that there is time for more tries if the
/// hook fails or the node dies.
const LEASES: u32 = 4;

/// How often a stream is read before its hook runs, if the store does not answer, and the pause after the first try.
/// Each pause is twice the one before.
const READS: u32 = 4;
const READ_AGAIN: Duration = Duration::from_millis(200);

/// The pause before a failed hook runs again while the node shuts down. Each later pause is twice the one before.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// Runs the `on_end` hook, and acknowledges it to the store.
pub(crate) struct Hooks {
    on_end: Option<Box<OnEnd>>,
    executor: Executor,
    store: StoreHandle,
    telemetry: Arc<Telemetry>,
    framing: Arc<dyn Framing>,
    /// How long a hook may take.
    limit: Duration,
    /// The upper limit of a node's lease of a hook.
    longest_lease: Duration,
    /// The shortest recovery window of any route, in milliseconds.
    shortest_window: AtomicU64,
    queue: Mutex<Queue>,
    /// Notified when a hook is done.
    done: Notify,
    /// The recent ends. Those whose hook was acknowledged do not run it again after a failover.
    pub(crate) recent: Arc<RecentCloses>,
}

impl Hooks {
    pub(crate) fn new(
        on_end: Option<Box<OnEnd>>,
        executor: Executor,
        store: &StoreHandle,
        telemetry: Arc<Telemetry>,
        framing: Arc<dyn Framing>,
        settings: &Settings,
    ) -> Self {
        Self {
            on_end,
            executor,
            store: store.in_background(),
            telemetry,
            framing,
            limit: settings.hook_limit,
            longest_lease: settings.lease(),
            shortest_window: AtomicU64::new(millis(settings.recovery_window)),
            queue: Mutex::default(),
            done: Notify::new(),
            recent: Arc::new(RecentCloses::new(settings.stale_after, settings.recovery_window)),
        }
    }

    /// Returns how long a node that ends a stream leases its hook; `None` without a hook.
    pub(crate) fn lease(&self) -> Option<Duration> {
        self.on_end.as_ref()?;
        let window = Duration::from_millis(self.shortest_window.load(Ordering::Relaxed));
        Some(self.longest_lease.min(window / LEASES))
    }

    /// Returns the same for a stream with this recovery window.
    pub(crate) fn lease_within(&self, window: Duration) -> Option<Duration> {
        self.shortest_window.fetch_min(millis(window), Ordering::Relaxed);
        self.lease()
    }

    /// Returns the interval of the sweeps: `sweep`, or less where hooks become due sooner.
    pub(crate) fn sweep_every(&self, sweep: Duration) -> Duration {
        self.lease().map_or(sweep, |lease| sweep.min(lease.max(Duration::from_millis(100))))
    }

    /// Queues the hook of a stream that has ended on this node.
    pub(crate) fn ended(self: &Arc<Self>, key: StreamKey) {
        self.leased(key, Instant::now());
    }

    /// Queues a hook that this node has leased since `since`.
    fn leased(self: &Arc<Self>, key: StreamKey, since: Instant) {
        if let Some(lease) = self.lease() {
            lock(&self.queue).add(key, Instant::now() + lease.max(self.patience()), since + lease);
            self.begin();
        }
    }

    /// Queues a hook that the store leased to this node in answer to a request sent at `asked`.
    pub(crate) fn due(self: &Arc<Self>, key: StreamKey, asked: Instant) {
        if !lock(&self.queue).was_acknowledged(&key, asked) {
            self.leased(key, asked);
        }
    }

    /// Moves the stream's hook to the front if it waits on this node, and waits until it has run.
    pub(crate) async fn finished(&self, key: &StreamKey) {
        lock(&self.queue).hurry(key, Instant::now() + self.patience());
        until(&self.done, || !lock(&self.queue).is_busy(key)).await;
    }

    /// Waits until no hook is running or waiting on this node.
    pub(crate) async fn until_idle(&self) {
        until(&self.done, || self.unfinished() == 0).await;
    }

    /// Returns the number of running and waiting hooks.
    pub(crate) fn unfinished(&self) -> usize {
        lock(&self.queue).len()
    }

    /// Runs failed hooks again from now on, because the node shuts down: on the memory store no other node will. Returns
    /// whether the store must be asked for due hooks, since the lease of a failed one is over.
    pub(crate) fn begin_last_tries(self: &Arc<Self>) -> bool {
        let must_ask = lock(&self.queue).begin_last_tries(Instant::now());
        self.begin();
        must_ask
    }

    /// Notes that the store has returned all hooks that were due at `asked`.
    pub(crate) fn forget_lapsed(&self, asked: Instant) {
        lock(&self.queue).forget_lapsed(asked);
    }

    /// Ends the tries. Returns the number of hooks that have not run to their end, or have failed.
    pub(crate) fn end_last_tries(&self) -> usize {
        let mut queue = lock(&self.queue);
        queue.end_last_tries();
        queue.len() + queue.failed()
    }

    /// Returns how long to wait for a hook: for its turn, and for its run.
    pub(crate) fn patience(&self) -> Duration {
        self.limit.saturating_mul(2)
    }

    /// Leaves a failed hook to a later sweep, or runs it again after a pause if the node shuts down. The pause occupies no
    /// place.
    fn fails(self: &Arc<Self>, key: &StreamKey) {
        let Some(before) = lock(&self.queue).fails(key, Instant::now()) else { return };
        let (hooks, key) = (Arc::clone(self), key.clone());
        self.executor.spawn(async move {
            tokio::time::sleep(TRY_AGAIN * (1 << before)).await;
            lock(&hooks.queue).again(&key, Instant::now());
            hooks.done.notify_waiters();
            hooks.begin();
        });
    }

    /// Starts as many hooks as may run.
    fn begin(self: &Arc<Self>) {
        loop {
            let Some(key) = lock(&self.queue).next(Instant::now()) else { return };
            self.executor.spawn(Place { hooks: Arc::clone(self), key, outcome: None }.run());
        }
    }

    /// Reads a stream that has ended. Retries, because a deletion of the stream waits for this run of its hook only. If
    /// the store does not answer at all, the hook stays due, and a sweep finds it.
    async fn read_ended(&self, key: &StreamKey) -> Result<Option<StreamInfo>, StoreError> {
        for read in 1..READS {
            if let Ok(info) = self.store.info(key.clone()).await {
                return Ok(info);
            }
            tokio::time::sleep(READ_AGAIN * (1 << (read - 1))).await;
        }
        self.store.info(key.clone()).await
    }

    /// Runs a hook. Returns whether it is over: it has run to its end, or there is nothing to run it for.
    async fn run(&self, key: &StreamKey) -> bool {
        let Some(on_end) = &self.on_end else { return true };
        let Ok(info) = self.read_ended(key).await else { return false };
        let Some(info) = info else { return true };
        let Some(ended) = info.ended.clone() else { return true };
        let stream = EndedStream { info, ended, store: self.store.clone(), framing: Arc::clone(&self.framing) };
        let mut hook = Box::pin(Guarded::new(run_hook(on_end, stream)));
        let outcome = tokio::time::timeout(self.limit, hook.as_mut()).await;
        drop_guarded(hook);
        match outcome {
            Ok(Ok(Ok(()))) => {
                self.recent.hook_done(key);
                let _ = self.store.hook_done(key.clone()).await;
                lock(&self.queue).acknowledged(key.clone(), Instant::now());
                return true;
            }
            Ok(Ok(Err(error))) => self.telemetry.hook_failed(key, &*error),
            Ok(Err(_)) => self.telemetry.hook_panicked(key),
            Err(late) => self.telemetry.hook_failed(key, &late),
        }
        false
    }
}

async fn run_hook(on_end: &OnEnd, stream: EndedStream) -> Result<(), BoxError> {
    on_end(stream).await
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A running hook. Dropping it frees its place for the next one.
struct Place {
    hooks: Arc<Hooks>,
    key: StreamKey,
    /// Whether the hook is over. `None`: it is still running, or the executor dropped it.
    outcome: Option<bool>,
}

impl Place {
    async fn run(mut self) {
        self.outcome = Some(self.hooks.run(&self.key).await);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        match self.outcome {
            Some(false) => self.hooks.fails(&self.key),
            Some(true) | None => lock(&self.hooks.queue).done(&self.key),
        }
        self.hooks.done.notify_waiters();
        // If the executor dropped this future, it would drop the next one as well.
        if self.outcome.is_some() {
            self.hooks.begin();
        }
    }
}
