//! The room for bytes that wait for the store.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

/// The fraction of the room (1/16) that is freed in addition each time room is made.
pub(super) const PART: usize = 16;

/// The number of bytes that wait for the store, and its limit.
pub(super) struct Room {
    limit: usize,
    pub(super) events: AtomicUsize,
    /// The bytes of ends. They count for at most half of the room. Beyond that they are held without room, because ends
    /// are never given up.
    ends: AtomicUsize,
    /// Held by a caller that makes room. The next caller then usually finds enough.
    pub(super) making: Mutex<()>,
}

impl Room {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, events: AtomicUsize::new(0), ends: AtomicUsize::new(0), making: Mutex::default() }
    }

    /// Returns how many bytes wait for the store.
    pub(super) fn held(&self) -> usize {
        self.events.load(Ordering::Relaxed) + self.ends.load(Ordering::Relaxed)
    }

    /// Returns how many bytes of events may wait.
    pub(super) fn for_events(&self) -> usize {
        self.limit - self.ends.load(Ordering::Relaxed).min(self.limit / 2)
    }

    /// Charges for bytes of events. Returns `false` if there is no room for them.
    pub(super) fn charge(&self, bytes: usize) -> bool {
        let before = self.events.fetch_add(bytes, Ordering::Relaxed);
        let fits = before + bytes <= self.for_events();
        if !fits {
            self.refund(bytes);
        }
        fits
    }

    pub(super) fn refund(&self, bytes: usize) {
        self.events.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn charge_end(&self, bytes: usize) {
        self.ends.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether any end waits for the store.
    pub(super) fn holds_ends(&self) -> bool {
        self.ends.load(Ordering::Relaxed) > 0
    }

    pub(super) fn refund_end(&self, bytes: usize) {
        self.ends.fetch_sub(bytes, Ordering::Relaxed);
    }
}
