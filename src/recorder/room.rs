//! The bytes that may wait for the store.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

/// The part of the room that is made at a time.
pub(super) const PART: usize = 16;

/// How many bytes wait for the store, and how many may.
pub(super) struct Room {
    limit: usize,
    pub(super) events: AtomicUsize,
    /// Ends are never given up: they take up to half of the room, and are held beyond it.
    ends: AtomicUsize,
    /// Only one caller makes room at a time; the next one then finds some.
    pub(super) making: Mutex<()>,
}

impl Room {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, events: AtomicUsize::new(0), ends: AtomicUsize::new(0), making: Mutex::default() }
    }

    /// Bytes that wait for the store.
    pub(super) fn held(&self) -> usize {
        self.events.load(Ordering::Relaxed) + self.ends.load(Ordering::Relaxed)
    }

    /// How many bytes of events may wait.
    pub(super) fn for_events(&self) -> usize {
        self.limit - self.ends.load(Ordering::Relaxed).min(self.limit / 2)
    }

    /// Charges for bytes of events that are to wait. `false`: there is no room for them.
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
