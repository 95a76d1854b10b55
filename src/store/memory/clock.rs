//! The memory store's clock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

/// A monotonic clock in unix milliseconds. It starts at a given time and does not follow when the system's time is set.
pub(super) struct Clock {
    start: Instant,
    /// Atomic, since a test may set the clock.
    start_ms: AtomicU64,
}

impl Clock {
    pub(super) fn starting_at(unix_ms: u64) -> Self {
        Self { start: Instant::now(), start_ms: AtomicU64::new(unix_ms) }
    }

    pub(super) fn now(&self) -> u64 {
        self.start_ms.load(Ordering::Relaxed) + millis(self.start.elapsed())
    }

    /// Sets the clock forwards or backwards by so many milliseconds.
    #[cfg(feature = "test-util")]
    pub(super) fn shift(&self, by: i64) {
        self.start_ms.fetch_add(by.cast_unsigned(), Ordering::Relaxed);
    }
}

/// The system's time, in unix milliseconds.
pub(super) fn unix_now() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A duration in milliseconds. It is capped, so that sums of several times cannot overflow.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_capped() {
        assert_eq!((millis(Duration::from_micros(2_900)), millis(Duration::MAX)), (2, u64::MAX / 4));
        assert_eq!(millis(Duration::from_millis(u64::MAX)), u64::MAX / 4);
    }

    #[cfg(feature = "test-util")]
    #[tokio::test(start_paused = true)]
    async fn a_clock_can_be_set_forwards_and_backwards() {
        let clock = Clock::starting_at(1000);
        clock.shift(500);
        assert_eq!(clock.now(), 1500);
        clock.shift(-700);
        assert_eq!(clock.now(), 800);
    }
}
