//! When a stream must be visited, and why.

use super::state::{Entry, Hook};
use crate::{model::stream::StreamState, store::memory::clock::millis};

impl Entry {
    pub(in super::super) fn beat(&mut self, now: u64, stale: u64) {
        self.last_heartbeat = now;
        self.deadline = now.saturating_add(stale);
        self.expires_at = now.saturating_add(millis(self.retention.lifetime));
    }

    pub(in super::super) fn lease(&mut self, now: u64, lease: u64) {
        let until = now.saturating_add(lease);
        if self.state.is_terminal() {
            self.hook = Hook::DueAt(until);
        } else {
            self.leased_until = until;
            self.deadline = until;
        }
    }

    pub(in super::super) fn hook_done(&mut self) {
        self.hook = Hook::None;
    }

    /// Whether the stream has expired and may be removed.
    pub(in super::super) fn is_over(&self, now: u64) -> bool {
        let removable = self.state.is_terminal() || (self.state == StreamState::Interrupted && self.reruns);
        removable && self.expires_at <= now
    }

    /// Whether the stream has not ended, its lifetime is over, and no guardian has leased it.
    pub(in super::super) fn has_expired(&self, now: u64) -> bool {
        !self.state.is_terminal() && self.expires_at.max(self.leased_until) <= now
    }

    /// Whether its producer has missed the deadline.
    pub(in super::super) fn is_stale(&self, now: u64) -> bool {
        self.state == StreamState::Active && self.node.is_some() && self.deadline <= now
    }

    pub(in super::super) fn hook_is_due(&self, now: u64) -> bool {
        matches!(self.hook, Hook::DueAt(at) if at <= now)
    }

    /// When the stream must be visited next.
    pub(in super::super) fn next_timer(&self) -> u64 {
        let mut at = if self.state.is_terminal() { self.expires_at } else { self.expires_at.max(self.leased_until) };
        if self.state == StreamState::Active && self.node.is_some() {
            at = at.min(self.deadline);
        }
        if let Hook::DueAt(hook) = self.hook {
            at = at.min(hook);
        }
        at
    }
}
