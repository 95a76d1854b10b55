//! Log messages that outsiders, or a mistake in every request, could repeat without end.

use std::sync::atomic::{AtomicU64, Ordering};

/// How often such a message is logged, in milliseconds.
const EVERY: u64 = 60_000;

/// Lets one message a minute through and counts the others.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    /// When the last message went out, in milliseconds since the hub's start and at least 1; 0 before the first.
    last: AtomicU64,
    waiting: AtomicU64,
}

impl Seldom {
    /// Counts one occasion. Returns how many there were since the last message, this one included, if one is due now.
    pub(super) fn due(&self, now: u64) -> Option<u64> {
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
        assert_eq!(seldom.due(0), Some(1), "the first at once");
        for now in [0, 1, 30_000, 60_000] {
            assert_eq!(seldom.due(now), None, "{now}");
        }
        assert_eq!(seldom.due(60_001), Some(5));
        assert_eq!(seldom.due(60_002), None);
    }
}
