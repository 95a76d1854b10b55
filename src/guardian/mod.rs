//! The guardian: a future that runs on every node.
//!
//! It flushes the recorder, wakes bodies for their heartbeats, sends the node's beats, sweeps for streams whose node
//! has died, and drains the process. Its own poll runs no code of the host: probes, hooks and the drop of inner bodies
//! run on the executor.

mod beat;
mod drain;
mod sweep;

use std::{
    fmt,
    future::{Future, pending},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

pub use drain::DrainReport;
use tokio::time::{Instant, Sleep};

use crate::{node::Node, protocol::trust::Trust, recorder::Flusher, runtime::executor::BoxFuture, store::Notices};

/// The background work of a node, as a future.
///
/// The guardian writes recorded events to the store, wakes bodies for their heartbeats, tells the store that the node
/// is alive, finds the streams of dead nodes (and asks the job probe about them), and drains the process on shutdown.
/// Probes, hooks and inner bodies run on the executor, never on the guardian's own poll.
///
/// Spawn it, or poll it beside a server:
///
/// ```
/// # use resilient_sse::{MemoryStore, ResilientSse};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (sse, guardian) = ResilientSse::builder(MemoryStore::new()).anonymous().build()?;
/// let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
/// let guardian = tokio::spawn(guardian.with_graceful_shutdown(async { drop(stopped.await) }));
/// // … serve …
/// # let _ = sse;
/// drop(stop);
/// let report = guardian.await?;
/// assert_eq!(report.interrupted, 0);
/// # Ok(())
/// # }
/// ```
///
/// Without [`with_graceful_shutdown`](Self::with_graceful_shutdown) it never completes.
///
/// # Cancel safety
///
/// Dropping a guardian does not interrupt live streams. But heartbeats, beats and sweeps stop, and streams are no
/// longer recorded, except in a store that answers at once. After the stale threshold, the guardians of other nodes
/// take this node's streams for orphans. The same happens if a guardian is not polled.
///
/// [`Health::guarded`](crate::Health) is then `false`, and the log reports it (without the feature `tracing`, a line on
/// standard error, at most one a minute).
#[must_use = "a guardian does nothing unless it is polled"]
pub struct Guardian {
    node: Arc<Node>,
    flusher: Flusher,
    notices: Notices,
    /// Created at the first poll, because a guardian may be built outside of a runtime.
    tick: Option<Pin<Box<Sleep>>>,
    beats: BoxFuture<()>,
    sweeps: BoxFuture<()>,
    /// Keeps the pointers of conversations.
    turns: BoxFuture<()>,
    shutdown: Option<BoxFuture<()>>,
    drain: Option<BoxFuture<DrainReport>>,
    /// Whether the drain is over.
    is_done: bool,
    #[cfg(feature = "metrics")]
    reported: Option<Instant>,
}

impl Guardian {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        let trust = Arc::new(Mutex::new(Trust::new(node.settings.stale_after)));
        Self {
            flusher: Flusher::new(Arc::clone(&node.recorder)),
            notices: node.store.notices(&node.name),
            tick: None,
            beats: Box::pin(beat::run(Arc::clone(&node), Arc::clone(&trust))),
            sweeps: Box::pin(sweep::run(Arc::clone(&node), trust)),
            turns: Box::pin(crate::conversation::keep(Arc::clone(&node))),
            shutdown: Some(Box::pin(pending())),
            drain: None,
            is_done: false,
            #[cfg(feature = "metrics")]
            reported: None,
            node,
        }
    }

    /// Drains the process once `signal` is ready, and then completes with a report.
    ///
    /// The drain ends as soon as all work is done. It takes at most
    /// [`Builder::drain_limit`](crate::Builder::drain_limit) (25 s), even if probes, hooks or the store hang. It has
    /// these steps:
    ///
    /// - From the signal on, this node begins no new streams.
    /// - Streams of `feed()` routes are interrupted at once.
    /// - Clients that reconnect by themselves (a GET that asks for `text/event-stream` by name) are disconnected at
    ///   once, so that they continue on another node. These are all followers, the clients of unrecorded streams, and on
    ///   `Detach` routes, where the work continues without a reader, also the client whose request began the stream.
    /// - All other clients are served until shortly before the limit, and handlers that have not answered yet have the same
    ///   time. What is kept for the steps below is [`probe_limit`](crate::Builder::probe_limit) (5 s) if there is a job
    ///   probe, and time to store the ends: a quarter of `terminal_limit`, or all of it (2 s) if there is an `on_end` hook or the
    ///   store is slow. Together it is at most half of the limit.
    /// - Then streams that may be run again are interrupted. For the others the job probe is asked, as far as time allows.
    ///   A stream whose job runs elsewhere is left to other nodes. A stream whose job is over ends as the probe says. All
    ///   others end as `failed`, reason `shutdown`. Inner bodies are dropped.
    /// - The guardian waits for the `on_end` hooks of streams that ended on this node.
    pub fn with_graceful_shutdown(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown = Some(Box::pin(signal));
        self
    }

    /// Wakes the bodies that are due.
    fn poll_tick(&mut self, cx: &mut Context<'_>) {
        let tick = self.tick.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now())));
        while tick.as_mut().poll(cx).is_ready() {
            tick.as_mut().reset(self.node.pulses.tick());
            #[cfg(feature = "metrics")]
            report(&self.node, &mut self.reported);
        }
    }

    /// Checks the streams that other nodes changed.
    fn poll_notices(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(post) = self.notices.poll(cx) {
            for (key, epoch) in post.deleted {
                self.node.hooks.recent.deleted(key, epoch);
            }
            for lane in post.streams.iter().filter_map(|key| self.node.recorder.lane(key)) {
                self.node.recorder.check_stream(&lane);
            }
            if post.reconnected {
                self.node.store.came_back();
            }
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) {
        if let Some(shutdown) = &mut self.shutdown
            && shutdown.as_mut().poll(cx).is_ready()
        {
            self.shutdown = None;
            self.drain = Some(Box::pin(drain::run(Arc::clone(&self.node))));
        }
    }
}

/// Reports the figures to the `metrics` facade, once a second.
#[cfg(feature = "metrics")]
fn report(node: &Node, reported: &mut Option<Instant>) {
    let now = Instant::now();
    if reported.is_none_or(|at| now - at >= std::time::Duration::from_secs(1)) {
        *reported = Some(now);
        node.health().report();
    }
}

impl Future for Guardian {
    type Output = DrainReport;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<DrainReport> {
        let this = &mut *self;
        this.node.set_guarded(true);
        this.poll_tick(cx);
        this.poll_notices(cx);
        // These futures never complete.
        let _ = this.beats.as_mut().poll(cx);
        let _ = this.sweeps.as_mut().poll(cx);
        let _ = this.turns.as_mut().poll(cx);
        this.poll_shutdown(cx);
        let report = this.drain.as_mut().map(|drain| drain.as_mut().poll(cx));
        // Polled last, so that requests from the steps above are sent in this poll.
        let _ = this.flusher.poll(cx);
        match report {
            Some(Poll::Ready(report)) => {
                this.drain = None;
                this.is_done = true;
                this.node.set_guarded(false);
                Poll::Ready(report)
            }
            _ => Poll::Pending,
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.node.set_guarded(false);
        if !self.is_done && !self.node.recorder.is_idle() {
            // Reports the missing guardian now; `Node::check_guarded` reports it again when requests arrive.
            self.node.check_guarded();
        }
    }
}

impl fmt::Debug for Guardian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guardian").field("node", &self.node.name).finish_non_exhaustive()
    }
}
