//! Handles the store's answers: a lane continues, or recording of it stops.

use std::sync::{Arc, atomic::Ordering};

use super::{
    lane::Lane,
    producing::Status,
    work::{Outcome, Recorder},
};
use crate::{
    model::stream::StreamState,
    runtime::sync::lock,
    store::{Appended, Closed, Fence, Interrupted, Reopen, Reopened},
    telemetry::{add, log_warn},
};

impl Recorder {
    pub(super) fn appended(&self, lane: &Arc<Lane>, outcome: Appended) -> Outcome {
        if lane.is_withdrawn() {
            return Outcome::Done;
        }
        match outcome {
            Appended::Refused => return Outcome::Refused,
            Appended::Stored => {
                let landed = lane.landed();
                add(&self.telemetry.recorded, landed.events);
                self.room.refund(landed.bytes);
            }
            Appended::Fenced(fence) => self.fenced(lane, fence),
            Appended::Gone => lane.forgotten(),
        }
        Outcome::Done
    }

    /// Stops recording a producer whose write the store refused. The producer is notified, and its pending events are
    /// dropped.
    pub(super) fn fenced(&self, lane: &Arc<Lane>, fence: Fence) {
        let status = match fence {
            Fence::Newer => Status::Superseded,
            Fence::Ended(ended) => {
                // This may be the producer's own end, whose acknowledgement was lost. Then this node also runs the
                // hook.
                if let Some(recent) = lane.recent_close().filter(|recent| recent.close.ending == ended.ending) {
                    self.telemetry.closed(ended.ending.state);
                    self.hooks.recent.landed(recent);
                    self.hooks.ended(lane.key.clone());
                }
                Status::Ended(Box::new(ended))
            }
        };
        self.settle(lane, status);
    }

    pub(super) fn closed(&self, lane: &Arc<Lane>, closed: Closed) {
        match closed {
            Closed::Now { ended, .. } => {
                self.telemetry.closed(ended.ending.state);
                if let Some(recent) = lane.recent_close() {
                    self.hooks.recent.landed(recent);
                }
                self.hooks.ended(lane.key.clone());
                self.settle(lane, Status::Ended(Box::new(ended)));
            }
            Closed::Before(ended) => self.fenced(lane, Fence::Ended(ended)),
            Closed::Newer | Closed::Moved => self.settle(lane, Status::Superseded),
            Closed::Missing => lane.forgotten(),
        }
    }

    pub(super) fn interrupted(&self, lane: &Arc<Lane>, interrupted: Interrupted) {
        match interrupted {
            Interrupted::Fenced(fence) => self.fenced(lane, fence),
            // A stream that the store forgot has no producer either, and its log is lost in any case.
            Interrupted::Done | Interrupted::Moved | Interrupted::Missing => self.settle(lane, Status::Superseded),
        }
    }

    /// Stops recording a lane with this status, and notifies its producer unless that requested the end.
    pub(super) fn settle(&self, lane: &Arc<Lane>, status: Status) {
        let ending = lane.is_ending();
        if matches!(&status, Status::Ended(ended) if ended.ending.state == StreamState::Orphaned) {
            self.serves_on(lane);
        }
        self.end_recording(lane, status);
        if let Some(producer) = lane.producer().filter(|_| !ending) {
            self.executor.spawn(async move { producer.halted() });
        }
    }

    /// Stops recording a lane without an end. A sweep of another guardian will find its stream overdue.
    pub(crate) fn abandon(&self, lane: &Arc<Lane>) {
        if !lane.is_halted() {
            self.let_go(lane);
        }
    }

    /// Stops recording a lane whose registration is about to be withdrawn, because its producer never began to answer.
    /// Queued requests and those in flight can then no longer register the stream again.
    ///
    /// Returns `false` if the lane has a final status or a requested end; these are kept.
    pub(crate) fn withdraw(&self, lane: &Arc<Lane>) -> bool {
        let withdrawn = lane.withdraw();
        if withdrawn {
            self.let_go(lane);
        }
        withdrawn
    }

    /// Stops recording a lane without notifying its producer.
    pub(super) fn let_go(&self, lane: &Arc<Lane>) {
        self.end_recording(lane, Status::Superseded);
    }

    pub(super) fn end_recording(&self, lane: &Arc<Lane>, status: Status) {
        let (events, end) = lane.settle(status);
        self.room.refund(events);
        self.room.refund_end(end);
        self.leave(lane);
    }

    /// Gives up the ends that the store has not taken within their recovery window.
    pub(crate) fn give_up_expired_ends(&self) {
        self.served_on.tidy();
        if !self.room.holds_ends() {
            return;
        }
        for lane in self.lanes_that(Lane::is_end_expired) {
            add(&self.telemetry.ends_given_up, 1);
            log_warn!(id = %lane.key.id, "the end of a stream is given up: the store did not take it in time");
            self.let_go(&lane);
        }
    }

    /// Removes the lane from the running streams.
    pub(super) fn leave(&self, lane: &Arc<Lane>) {
        let mut lanes = lock(&self.lanes);
        if lanes.remove(lane) {
            self.telemetry.active.store(lanes.len() as i64, Ordering::Relaxed);
            drop(lanes);
            self.left.notify_waiters();
        }
    }

    pub(super) async fn reopen(&self, lane: &Arc<Lane>, reopen: Reopen) -> Outcome {
        let (key, token) = (reopen.open.key.clone(), reopen.open.token);
        let reopened = self.store.reopen(reopen).await;
        if lane.is_withdrawn() {
            // The withdrawal may have reached the store before this request, which then registered the stream again.
            let _ = self.store.withdraw(key, token).await;
            return Outcome::Done;
        }
        match reopened {
            Ok(Reopened::Registered) => lane.reopened(),
            Ok(Reopened::Fenced(fence)) => self.fenced(lane, fence),
            Err(_) => return Outcome::Unanswered,
        }
        Outcome::Done
    }
}
