//! How a live body waits for the store: for an acknowledgement of its events, and of its end.

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
    /// Events wait for their acknowledgement, for no longer than the store's time limit.
    ///
    /// The steps return whether there is more to do at once.
    pub(super) fn wait_for_store(&mut self, cx: &mut Context<'_>) -> bool {
        self.pulse.register(cx.waker());
        let Some(Made::Events(_, last)) = self.made.front() else { return true };
        let last = *last;
        // Looked at first: once nothing more is stored, what was stored by then is known for good.
        let halted = self.lane().is_halted();
        if last <= self.deliverable() {
            self.waits_no_more();
            return true;
        }
        if halted {
            self.made.clear();
            if self.is_cut_off() {
                // The log has events that were not given yet, before the end that somebody else has said.
                self.end = None;
            }
            return true;
        }
        if self.wait_up_to(self.producer.node.settings.store_limit, cx) {
            self.lane().pass_by();
            self.held_up = true;
            return true;
        }
        // What landed while the body was polled has woken nobody.
        self.run_ahead(cx) || last <= self.deliverable()
    }

    /// While the store is waited for, the inner body makes what is to be stored next, so that each round trip carries as much
    /// as the window holds.
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

    /// Whether the window is full, or the recorder is too full for more: what it gives up for want of room is never stored.
    pub(super) fn is_window_made(&self) -> bool {
        let (mut events, mut bytes) = (0, 0);
        for made in &self.made {
            // Lines that are no event count as one.
            (events, bytes) = (events + made.events().max(1), bytes + made.len());
        }
        events >= AHEAD_EVENTS || bytes >= AHEAD_BYTES || !self.producer.node.recorder.has_room_ahead()
    }

    pub(super) fn waits_no_more(&mut self) {
        self.held_up |= self.wait.take().is_some() && self.producer.node.store.is_broken(&self.lane().key);
    }

    pub(super) fn wait_up_to(&mut self, limit: Duration, cx: &mut Context<'_>) -> bool {
        let wait = self.wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        let elapsed = wait.as_mut().poll(cx).is_ready();
        if elapsed {
            self.wait = None;
        }
        elapsed
    }

    /// The inner body is over. Its terminal event is delivered once it is stored, or after 2 s.
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
                // An interruption has no event that would have to be stored before it is told.
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

    /// The first end counts, whoever said it; but a client that was still served when its stream was
    /// taken for an orphan gets the real one.
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
