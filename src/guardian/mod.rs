//! The guardian: one future that the host's runtime polls, on every node.
//!
//! It flushes the recorder, wakes bodies for their heartbeats, says that the node lives, looks for
//! streams whose node does not, and takes the process down in order. It runs no foreign code on its
//! own poll: probes, hooks and the dropping of inner bodies happen on the executor.

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

/// Keeps a node's streams, and looks after those of dead nodes.
///
/// It hands recorded events to the store, wakes bodies for their heartbeats, says that the node lives, looks for streams whose
/// node does not (and asks the job probe about them), and takes the process down in order. Probes, hooks and inner bodies
/// run on the executor, never on its own poll.
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
/// Without [`with_graceful_shutdown`](Self::with_graceful_shutdown) it never ends.
///
/// # Cancel safety
///
/// Dropped at any point, live streams flow on; with a store that does not answer at once they are not
/// recorded any more, and heartbeats, beats and sweeps stop, which
/// [`Health::guarded`](crate::Health) and the log say (without the feature `tracing` a line on standard error, at most one
/// a minute), and other nodes' guardians take this node's streams for orphans after the stale threshold. The same holds of
/// a guardian that is not polled any more.
#[must_use = "a guardian does nothing unless it is polled"]
pub struct Guardian {
    node: Arc<Node>,
    flusher: Flusher,
    notices: Notices,
    /// Made when it is first polled: a guardian may be built where no runtime is.
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

    /// Takes the process down in order once `signal` is ready, and then ends with a report.
    ///
    /// That takes at most the drain time ([`Builder::drain_limit`](crate::Builder::drain_limit), 25 s), whatever probes, hooks and the
    /// store do, and no longer than it has to:
    ///
    /// - No new stream is begun here from then on.
    /// - Streams of `feed()` routes are interrupted at once.
    /// - Clients that come again by themselves (a GET that asks for `text/event-stream` by name) are let go at once, to go on
    ///   on another node: all followers of a stream, the clients of unrecorded streams, and on `Detach` routes, where the
    ///   work goes on without them, also the client whose request began it. All other clients are served until shortly
    ///   before the end; those whose handler has not answered yet are waited for as long.
    /// - Then streams that may run again are interrupted. All others end as the job probe says, as far as there is time to
    ///   ask, are left to other nodes if their job runs elsewhere, or end as `failed`, reason `shutdown`. Inner bodies are
    ///   dropped.
    /// - The guardian waits for the `on_end` hooks of streams that ended here.
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

    /// Looks at the streams that others changed.
    fn poll_notices(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(post) = self.notices.poll(cx) {
            for (key, epoch) in post.deleted {
                self.node.hooks.recent.deleted(key, epoch);
            }
            for lane in post.streams.iter().filter_map(|key| self.node.recorder.lane(key)) {
                self.node.recorder.look(&lane);
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

/// Hands the figures to the `metrics` facade, once a second.
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
        // These run for ever.
        let _ = this.beats.as_mut().poll(cx);
        let _ = this.sweeps.as_mut().poll(cx);
        let _ = this.turns.as_mut().poll(cx);
        this.poll_shutdown(cx);
        let report = this.drain.as_mut().map(|drain| drain.as_mut().poll(cx));
        // Last, so that the requests that the steps above made go out in this poll.
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
            // At once, and again where requests come: see `Node::check_guarded`.
            self.node.check_guarded();
        }
    }
}

impl fmt::Debug for Guardian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guardian").field("node", &self.node.name).finish_non_exhaustive()
    }
}
