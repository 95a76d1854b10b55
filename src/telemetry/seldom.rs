//! A rate limit for log messages that clients, or a mistake in every request, could otherwise repeat without end.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// The shortest interval between two messages, in milliseconds.
const EVERY: u64 = 60_000;

/// Lets one message a minute through and counts the others.
#[derive(Debug)]
pub(crate) struct Seldom {
    start: Instant,
    /// When the last message was logged, in milliseconds since the start, at least 1; 0 before the first.
    last: AtomicU64,
    waiting: AtomicU64,
}

impl Default for Seldom {
    fn default() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0), waiting: AtomicU64::new(0) }
    }
}

impl Seldom {
    /// Makes no message due from now on.
    #[cfg(feature = "test-util")]
    pub(crate) fn mute(&self) {
        self.last.store(u64::MAX, Ordering::Relaxed);
    }

    /// Counts an occurrence. If a message is due now, returns the number of occurrences since the last message,
    /// including this one.
    pub(crate) fn due(&self) -> Option<u64> {
        self.due_at(self.start.elapsed().as_millis() as u64)
    }

    fn due_at(&self, now: u64) -> Option<u64> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let last = self.last.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) >= EVERY;
        let is_mine = due && self.last.compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        is_mine.then(|| self.waiting.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_goes_out_once_a_minute_with_a_count() {
        let seldom = Seldom::default();
        assert_eq!(seldom.due_at(0), Some(1), "the first at once");
        for now in [0, 1, 30_000, 60_000] {
            assert_eq!(seldom.due_at(now), None, "{now}");
        }
        assert_eq!(seldom.due_at(60_001), Some(5));
        assert_eq!(seldom.due_at(60_002), None);
    }
}
