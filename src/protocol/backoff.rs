//! Exponential backoff with jitter.

use std::time::Duration;

/// Exponential backoff with full jitter: the n-th wait is random between `base` and `min(cap, base * 2^n)`, so that
/// clients do not retry in step.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, failures: 0 }
    }

    /// Counts a failure and returns how long to wait. `random` must be uniform.
    pub(crate) fn failed(&mut self, random: u64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        between(self.base, ceiling(self.base, self.cap, self.failures), random)
    }

    /// Resets the count of failures.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

/// Returns the longest wait after the n-th failure in a row.
pub(crate) fn ceiling(base: Duration, cap: Duration, failures: u32) -> Duration {
    base.saturating_mul(1 << failures.min(16)).min(cap)
}

/// Returns a random wait from `shortest` to `longest`, or `shortest` if that is the greater one. `random` must be
/// uniform.
pub(crate) fn between(shortest: Duration, longest: Duration, random: u64) -> Duration {
    let span = longest.saturating_sub(shortest);
    let part = (random >> 11) as f64 / (1u64 << 53) as f64;
    shortest + span.mul_f64(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_start_again_after_success() {
        let base = Duration::from_millis(100);
        let cap = Duration::from_secs(5);
        let mut backoff = Backoff::new(base, cap);
        let longest: Vec<_> = (0..20).map(|_| backoff.failed(u64::MAX)).collect();
        assert!(longest.is_sorted());
        assert!(*longest.last().expect("some") <= cap);
        assert!(*longest.last().expect("some") > cap - base);
        assert_eq!(backoff.failed(0), base);
        backoff.succeeded();
        assert!(backoff.failed(u64::MAX) <= base * 2);
    }
}
