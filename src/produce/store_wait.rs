//! The waits of a live body for the store, until it acknowledges events or the stream's end.

use std::{task::Context, time::Duration};

use super::{
    engine::{Made, Progress},
    inner_body::InnerBody,
    live::Live,
};
use crate::{
    follow::closing::End,
    model::{
        config::{AHEAD_BYTES, AHEAD_EVENTS},
        id::EventId,
        stream::{Ended, Ending, StreamState},
    },
    recorder::{EndRequest, Status},
};

impl<B> Live<B>
where
    B: InnerBody,
{
    /// Waits for the store to acknowledge the oldest events, for no longer than the store's time limit.
    ///
    /// This and the other steps return whether there is more to do at once.
    pub(super) fn wait_for_store(&mut self, cx: &mut Context<'_>) -> bool {
        self.pulse.register(cx.waker());
        let Some(Made::Events(_, last)) = self.made.front() else { return true };
        let last = *last;
        // Read before `deliverable`: after a halt nothing more is stored, so what is deliverable then is final.
        let halted = self.lane().is_halted();
        if last <= self.deliverable() {
            self.stop_waiting();
            return true;
        }
        if halted {
            self.made.clear();
            if self.is_cut_off() {
                // The log holds events that the client was not given, before an end from elsewhere. Follow it.
                self.end = None;
            }
            return true;
        }
        if self.wait_up_to(self.producer.node.settings.store_limit, cx) {
            self.lane().pass_by();
            self.held_up = true;
            return true;
        }
        // Checked again: an acknowledgement that came while the inner body was polled has woken no task.
        self.run_ahead(cx) || last <= self.deliverable()
    }

    /// Polls the inner body for the next events while the store is busy, so that each round trip carries as much as the
    /// window holds.
    pub(super) fn run_ahead(&mut self, cx: &mut Context<'_>) -> bool {
        if self.end.is_some() || self.is_window_made() || self.lane().room_ahead() == 0 {
            return false;
        }
        match self.make(cx) {
            Some(Progress::Made) => true,
            Some(Progress::Over(end)) => {
                self.end = Some(end);
                true
            }
            Some(Progress::Waiting) | None => false,
        }
    }

    /// Whether the window or the recorder is full. Events that the recorder drops for lack of room would never be
    /// stored.
    pub(super) fn is_window_made(&self) -> bool {
        let (mut events, mut bytes) = (0, 0);
        for made in &self.made {
            // Lines that are no event count as one.
            (events, bytes) = (events + made.events().max(1), bytes + made.len());
        }
        events >= AHEAD_EVENTS || bytes >= AHEAD_BYTES || !self.producer.node.recorder.has_room_ahead()
    }

    /// Ends the wait for the store. If the store's breaker is open by then, the wait counts towards the time limit of
    /// an end.
    pub(super) fn stop_waiting(&mut self) {
        self.held_up |= self.wait.take().is_some() && self.producer.node.store.is_broken(&self.lane().key);
    }

    /// Polls the timer of the wait for the store. Returns whether `limit` has passed.
    pub(super) fn wait_up_to(&mut self, limit: Duration, cx: &mut Context<'_>) -> bool {
        let wait = self.wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        let elapsed = wait.as_mut().poll(cx).is_ready();
        if elapsed {
            self.wait = None;
        }
        elapsed
    }

    /// Waits after the inner body's end until the terminal event is stored, for 2 s at most, and delivers it.
    pub(super) fn wait_for_end(&mut self, cx: &mut Context<'_>) -> bool {
        self.pulse.register(cx.waker());
        let ended = match self.lane().status() {
            Status::Superseded => None,
            Status::Ended(stored) => Some(self.end_to_tell(*stored)),
            Status::Running => match &self.end {
                Some(EndRequest::Close(ending)) => {
                    let ending = Ending::clone(ending);
                    let settings = &self.producer.node.settings;
                    let waited = if self.held_up { settings.store_limit } else { Duration::ZERO };
                    if !self.wait_up_to(settings.terminal_limit.saturating_sub(waited), cx) {
                        return false;
                    }
                    Some(self.own_end(ending))
                }
                // An interruption has no event to store, so it is reported at once.
                _ => None,
            },
        };
        match ended {
            Some(ended) => {
                let cause = self.producer.take_error();
                self.finish(End::Stream { ended, cause });
            }
            None => self.finish_unfinished(),
        }
        true
    }

    /// Returns the end to deliver: the stored one, since the first end counts. If the stream was taken for an orphan
    /// while its client was still served, the client gets the inner body's own end.
    pub(super) fn end_to_tell(&self, stored: Ended) -> Ended {
        match &self.end {
            Some(EndRequest::Close(own)) if stored.ending.state == StreamState::Orphaned => {
                self.own_end(Ending::clone(own))
            }
            _ => stored,
        }
    }

    pub(super) fn own_end(&self, ending: Ending) -> Ended {
        let lane = self.lane();
        Ended { ending, id: EventId::terminal(lane.epoch), last: lane.last(), at: 0 }
    }
}
