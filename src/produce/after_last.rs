//! Polls an inner body to its end after its terminal event, so that its code after the last event runs, and the
//! connection that it reads from can be reused.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http_body::Body;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{
    source::{Fed, Source},
    spent::Spent,
    stop::Stop,
};
use crate::{
    model::{config::AFTER_LAST, error::BoxError, stream::Ending},
    node::Node,
    recorder::{Lane, Status},
    runtime::{panics::guarded, sync::Entered},
    telemetry::add,
    wire::Scanned,
};

/// How many frames one poll takes before its task yields.
const FRAMES: usize = 64;

/// Polls an inner body to its end, for at most 5 s. Events that the body still makes are counted and dropped.
pub(crate) struct AfterLast<B> {
    node: Arc<Node>,
    lane: Arc<Lane>,
    stop: Stop,
    /// The ending that the body itself gave its stream.
    ending: Ending,
    source: Source<B>,
    /// Made after the first poll, in which most bodies end.
    limits: Option<Limits>,
    began: bool,
    late: u64,
    _underway: Entered,
}

/// The two limits: the 5 s timer and the process's shutdown.
struct Limits {
    time: Pin<Box<Sleep>>,
    down: Pin<Box<WaitForCancellationFutureOwned>>,
}

// No field is pinned in place: the inner body is boxed.
impl<B> Unpin for AfterLast<B> {}

impl<B> AfterLast<B> {
    pub(crate) fn new(node: Arc<Node>, lane: Arc<Lane>, stop: Stop, ending: Ending, source: Source<B>) -> Self {
        // Makes an end from elsewhere (a stop, another producer) wake this task.
        lane.set_driven();
        let _underway = node.after_last_bodies.enter();
        Self { node, lane, stop, ending, source, limits: None, began: false, late: 0, _underway }
    }

    /// Whether another end was stored first, so that the work must stop.
    fn is_overruled(&self) -> bool {
        if !self.lane.is_halted() {
            return false;
        }
        match self.lane.status() {
            Status::Ended(ended) if ended.ending == self.ending => false,
            status => !self.node.serves_on(&status),
        }
    }

    /// Whether a limit has passed, so that the body is dropped.
    fn is_given_up(&mut self, cx: &mut Context<'_>) -> bool {
        let down = &self.node.after_last;
        let limits = self.limits.get_or_insert_with(|| Limits {
            time: Box::pin(tokio::time::sleep(AFTER_LAST)),
            down: Box::pin(down.clone().cancelled_owned()),
        });
        limits.time.as_mut().poll(cx).is_ready() || limits.down.as_mut().poll(cx).is_ready()
    }
}

impl<B> AfterLast<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Reads the body's frames. Returns whether the body has ended.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        let mut spent = Spent::default();
        for _ in 0..FRAMES {
            let before = self.late;
            while let Ok(Some(found)) = self.source.next() {
                self.late += u64::from(matches!(found, Scanned::Event(_)));
            }
            add(&self.node.telemetry.late_events, self.late - before);
            match self.source.poll_feed(cx, &mut spent) {
                Poll::Pending => return false,
                Poll::Ready(Fed::More) => {}
                Poll::Ready(Fed::Over | Fed::Failed(_)) => return true,
                Poll::Ready(Fed::Panicked) => {
                    self.node.telemetry.panicked("inner body");
                    return true;
                }
            }
        }
        cx.waker().wake_by_ref();
        false
    }
}

impl<B> Future for AfterLast<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.lane.drive.register(cx.waker());
        if this.is_overruled() {
            this.stop.stop();
            return Poll::Ready(());
        }
        // Guarded: the wire format may be the application's code, as may a chunk's destructor.
        let is_over = guarded(|| this.read(cx)).unwrap_or_else(|_| {
            this.node.telemetry.panicked("framing");
            true
        });
        if is_over {
            return Poll::Ready(());
        }
        // The first poll runs in the caller's task, which may have no timer driver, so it sets no limits. The executor
        // polls again at once.
        if std::mem::replace(&mut this.began, true) && this.is_given_up(cx) {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl<B> Drop for AfterLast<B> {
    fn drop(&mut self) {
        if self.late > 0 {
            self.node.warn_late_events(&self.lane.key, self.late);
        }
    }
}
