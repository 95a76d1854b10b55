//! A task that drives an inner body on without its client, for other readers and for clients that return.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::Sleep;

use super::{
    absence::{Attendance, Unread},
    engine::{Engine, Made, Progress},
    patience::{Limits, Patience},
    producer::Producer,
};
use crate::{
    model::{
        config::BATCH_EVENTS,
        stream::{Disconnect, StreamState},
    },
    produce::inner_body::InnerBody,
    recorder::{EndRequest, Status},
    telemetry::add,
};

/// The future that drives an inner body without its client.
pub(crate) struct Drive<B>
where
    B: InnerBody,
{
    producer: Arc<Producer<B>>,
    engine: Engine<B>,
    attendance: Attendance,
    patience: Patience,
    store_wait: Option<Pin<Box<Sleep>>>,
}

// No field is pinned in place: the inner body is boxed.
impl<B> Unpin for Drive<B> where B: InnerBody {}

impl<B> Drop for Drive<B>
where
    B: InnerBody,
{
    /// Handles a drop before the body has ended, by an executor that shuts down or has no runtime.
    ///
    /// A stream that may be run again is interrupted. A stream of a `Cancel` route is closed if it has no readers. Any
    /// other stream is left as a killed process would leave it: its beats stop.
    fn drop(&mut self) {
        if self.engine.is_over() {
            return;
        }
        match self.producer.route.disconnect {
            Disconnect::Interrupt => self.engine.abort(EndRequest::Interrupt),
            Disconnect::Cancel if !self.producer.node.is_read(&self.producer.lane) => {
                self.engine.abort(self.producer.end_unread());
            }
            Disconnect::Cancel | Disconnect::Detach { .. } => {
                self.producer.node.recorder.abandon(&self.producer.lane);
            }
        }
    }
}

impl<B> Future for Drive<B>
where
    B: InnerBody,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // Registered before the checks, so that a change after them wakes this task.
        this.producer.lane.drive.register(cx.waker());
        if this.is_ended_elsewhere() {
            this.engine.discard();
            return Poll::Ready(());
        }
        if let Some(end) = this.poll_unread(cx) {
            this.engine.abort(end);
            return Poll::Ready(());
        }
        if this.waits_for_store(cx) {
            return Poll::Pending;
        }
        let Poll::Ready(room) = this.poll_room(cx) else { return Poll::Pending };
        match this.make(cx, room) {
            Progress::Made => {}
            Progress::Waiting => return Poll::Pending,
            Progress::Over(_) => return Poll::Ready(()),
        }
        // Yield after each batch: the runtime checks its sockets only once in dozens of task polls, so a poll must be
        // short.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<B> Drive<B>
where
    B: InnerBody,
{
    pub(crate) fn new(producer: Arc<Producer<B>>, engine: Engine<B>, attendance: Attendance) -> Self {
        Self { producer, engine, attendance, patience: Patience::default(), store_wait: None }
    }

    /// Makes up to `room` events.
    fn make(&mut self, cx: &mut Context<'_>, room: usize) -> Progress {
        let mut made = VecDeque::new();
        let progress = self.engine.make(cx, &mut made, room);
        if self.attendance.is_unread() {
            add(&self.producer.node.telemetry.unheard, made.iter().map(Made::events).sum());
        }
        progress
    }

    /// Whether the stream ended elsewhere, or the inner body must be dropped.
    fn is_ended_elsewhere(&self) -> bool {
        let lane = &self.producer.lane;
        self.producer.is_discarded() || (lane.is_halted() && lane.status() != Status::Running)
    }

    /// Returns the end of the stream, if it has had no reader for too long.
    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Option<EndRequest> {
        match self.attendance.poll_unread(cx, self.producer.may_run_unread()) {
            Poll::Pending => None,
            Poll::Ready(Unread::TooLong) => Some(self.producer.end_unread()),
            Poll::Ready(unread) => Some(EndRequest::supplied(StreamState::Failed, unread.reason())),
        }
    }

    /// Returns how many events may be made before a reader on this node would miss trimmed ones.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let producer = &self.producer;
        if !producer.lane.readers.any() {
            self.patience = Patience::default();
            return Poll::Ready(BATCH_EVENTS);
        }
        let alone = match producer.route.disconnect {
            Disconnect::Detach { at_most } => Some(at_most),
            Disconnect::Interrupt | Disconnect::Cancel => None,
        };
        let limits = Limits { stall: producer.node.settings.stall_limit, alone };
        self.patience.poll(cx, &producer.lane, limits, || producer.node.is_read_elsewhere(&producer.lane))
    }

    /// Whether to wait for a store that is too far behind. The wait has the store's time limit.
    fn waits_for_store(&mut self, cx: &mut Context<'_>) -> bool {
        let node = &self.producer.node;
        if self.producer.lane.room_ahead() > 0 || node.store.is_broken(&self.producer.lane.key) {
            self.store_wait = None;
            return false;
        }
        let limit = node.settings.store_limit;
        let wait = self.store_wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if wait.as_mut().poll(cx).is_pending() {
            return true;
        }
        self.store_wait = None;
        self.producer.lane.pass_by();
        false
    }
}
