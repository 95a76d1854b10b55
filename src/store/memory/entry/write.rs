//! What a producer does to its stream: appending, interrupting, ending; and deleting it.

use std::time::Duration;

use super::state::{Entry, Hook};
use crate::{
    model::{
        id::EventId,
        kept::KeptHeaders,
        stream::{Ended, Ending, StreamState, reason},
    },
    store::{
        Append, Appended, Close, Closed, Fence, Interrupt, Interrupted,
        memory::{
            clock::millis,
            log::{Log, Put},
        },
    },
};

impl Entry {
    /// Why a write of the run `epoch` is refused. `None`: it is not.
    pub(super) fn fence(&self, epoch: u64) -> Option<Fence> {
        if self.epoch != epoch {
            return Some(Fence::Newer);
        }
        match &self.ended {
            Some(ended) => Some(Fence::Ended(Ended::clone(ended))),
            None => (self.state != StreamState::Active).then_some(Fence::Newer),
        }
    }

    pub(in super::super) fn append(&mut self, append: &Append, now: u64) -> Appended {
        if append.epoch > self.epoch {
            return Appended::Gone;
        }
        if let Some(fence) = self.fence(append.epoch) {
            return Appended::Fenced(fence);
        }
        if !append.events.is_empty() {
            let last = EventId::new(append.epoch, append.last());
            if self.log.put(last, append.events.clone(), now, &self.retention) == Put::Taken {
                return Appended::Refused;
            }
            self.started = true;
            self.trim();
        }
        self.started |= append.starts;
        if append.inner_id.is_some() {
            self.inner_id.clone_from(&append.inner_id);
        }
        self.inner_retry = append.inner_retry.or(self.inner_retry);
        self.keep(&append.metadata);
        self.expires_at = now.saturating_add(millis(self.retention.lifetime));
        Appended::Stored
    }

    pub(in super::super) fn close(&mut self, close: Close, now: u64) -> Closed {
        if (self.deleted && close.epoch.is_none()) || close.epoch.is_some_and(|epoch| epoch > self.epoch) {
            return Closed::Missing;
        }
        if let Some(ended) = &self.ended {
            return Closed::Before(Ended::clone(ended));
        }
        if close.epoch.is_some_and(|epoch| epoch != self.epoch) {
            return Closed::Newer;
        }
        if close.if_deadline.is_some_and(|deadline| deadline != self.deadline) {
            return Closed::Moved;
        }
        let ended = self.end(close.ending, close.last, close.hook, now);
        Closed::Now { ended, node: self.node.clone() }
    }

    pub(super) fn end(&mut self, ending: Ending, last: Option<u64>, hook: Option<Duration>, now: u64) -> Ended {
        let recorded = self.last_recorded();
        let last = last.map_or(recorded, |seq| EventId::new(self.epoch, seq).max(recorded));
        let ended = Ended { id: EventId::terminal(self.epoch), last, at: now, ending };
        self.state = ended.ending.state;
        self.hook = hook.map_or(Hook::None, |lease| Hook::DueAt(now.saturating_add(millis(lease))));
        self.expires_at = now.saturating_add(millis(self.retention.recovery_window));
        self.ended = Some(Box::new(ended.clone()));
        ended
    }

    /// The last known event of the newest run, recorded or not.
    fn last_recorded(&self) -> EventId {
        self.run_end.map_or(self.log.top(), |end| end.max(self.log.top()))
    }

    pub(in super::super) fn interrupt(&mut self, interrupt: &Interrupt) -> Interrupted {
        if interrupt.epoch > self.epoch {
            return Interrupted::Missing;
        }
        if let Some(fence) = self.fence(interrupt.epoch) {
            let done = self.state == StreamState::Interrupted && self.epoch == interrupt.epoch;
            return if done { Interrupted::Done } else { Interrupted::Fenced(fence) };
        }
        if interrupt.if_deadline.is_some_and(|deadline| deadline != self.deadline) {
            return Interrupted::Moved;
        }
        let top = self.log.top();
        self.stand_still(interrupt.last.map_or(top, |seq| EventId::new(self.epoch, seq).max(top)));
        Interrupted::Done
    }

    pub(super) fn stand_still(&mut self, end: EventId) {
        self.state = StreamState::Interrupted;
        self.run_end = Some(end);
    }

    /// Leaves a tombstone for one stale threshold.
    pub(in super::super) fn delete(&mut self, now: u64) {
        if self.ended.is_none() {
            self.end(Ending::supplied(StreamState::Cancelled, reason::STOPPED), None, None, now);
        }
        self.deleted = true;
        self.hook = Hook::None;
        self.log = Log::default();
        self.metadata.clear();
        if let Some(before) = &mut self.before {
            before.metadata.clear();
        }
        self.turn = None;
        self.headers = KeptHeaders::None;
        self.keys = None;
        self.expires_at = now.saturating_add(millis(self.retention.stale));
    }
}
