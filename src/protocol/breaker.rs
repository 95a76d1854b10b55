//! A breaker: after the store failed, nobody waits for it; one probe at a time asks whether it is back.

use std::time::{Duration, Instant};

/// Errors in a row, time-outs apart, that open the breaker.
const ERRORS: u32 = 3;

/// Closed while the store answers.
#[derive(Debug)]
pub(crate) struct Breaker {
    probe_every: Duration,
    errors: u32,
    next_probe: Option<Instant>,
    /// What was answered with an error last was a write: that the store answers readers says nothing then.
    refuses_writes: bool,
}

impl Breaker {
    pub(crate) const fn new(probe_every: Duration) -> Self {
        Self { probe_every, errors: 0, next_probe: None, refuses_writes: false }
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.next_probe.is_some()
    }

    /// When the store may be asked next: `None` means now.
    pub(crate) fn wait_until(&self, now: Instant) -> Option<Instant> {
        self.next_probe.filter(|probe| *probe > now)
    }

    /// The store is asked. While the breaker is open this takes the one probe that is due.
    pub(crate) fn asked(&mut self, now: Instant) {
        if let Some(probe) = &mut self.next_probe {
            *probe = now + self.probe_every;
        }
    }

    /// Whether a request may be sent now, whatever the breaker says: a reader's, while it is only writes that fail.
    pub(crate) const fn lets_through(&self, write: bool) -> bool {
        self.refuses_writes && !write
    }

    /// The store answered, a write or a reader; whether that closed the breaker.
    pub(crate) fn succeeded(&mut self, write: bool) -> bool {
        if self.lets_through(write) {
            return false;
        }
        self.refuses_writes = false;
        self.errors = 0;
        self.next_probe.take().is_some()
    }

    /// The store did not answer in time; whether that opened the breaker.
    pub(crate) fn timed_out(&mut self, now: Instant) -> bool {
        self.refuses_writes = false;
        self.open(now)
    }

    /// The store answered a write or a reader with an error; whether that opened the breaker.
    pub(crate) fn errored(&mut self, write: bool, now: Instant) -> bool {
        if self.is_open() && self.lets_through(write) {
            // It was let through beside the probe, and says nothing of when a write may be tried.
            return false;
        }
        self.refuses_writes |= write;
        self.errors = self.errors.saturating_add(1);
        (self.is_open() || self.errors >= ERRORS) && self.open(now)
    }

    fn open(&mut self, now: Instant) -> bool {
        self.next_probe.replace(now + self.probe_every).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_time_out_opens_and_an_answer_closes() {
        let now = Instant::now();
        let mut breaker = Breaker::new(SECOND);
        assert!(breaker.timed_out(now));
        assert!(!breaker.timed_out(now), "opens once");
        assert_eq!(breaker.wait_until(now), Some(now + SECOND));
        assert_eq!(breaker.wait_until(now + SECOND), None, "one probe is due");
        breaker.asked(now + SECOND);
        assert_eq!(breaker.wait_until(now + SECOND), Some(now + SECOND * 2), "and only one");
        assert!(breaker.succeeded(true));
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_store_that_only_refuses_writes_still_answers_readers() {
        let now = Instant::now();
        let mut breaker = Breaker::new(SECOND);
        assert!(!breaker.errored(true, now));
        assert!(!breaker.succeeded(false), "says nothing");
        assert!(!breaker.errored(true, now));
        assert!(breaker.errored(true, now));
        assert!(breaker.lets_through(false) && !breaker.lets_through(true));
        assert!(!breaker.succeeded(false) && breaker.is_open());
        assert!(breaker.succeeded(true) && !breaker.is_open());
        assert!(breaker.timed_out(now));
        assert!(!breaker.lets_through(false));
        assert!(breaker.succeeded(false), "it hung for all");
    }

    #[test]
    fn readers_that_fail_do_not_put_off_the_probe() {
        let now = Instant::now();
        let mut breaker = Breaker::new(SECOND);
        for _ in 0..ERRORS {
            breaker.errored(true, now);
        }
        assert_eq!(breaker.wait_until(now), Some(now + SECOND));
        assert!(!breaker.errored(false, now + SECOND / 2));
        assert_eq!(breaker.wait_until(now + SECOND), None, "the probe is due all the same");
        assert!(!breaker.errored(true, now + SECOND));
        assert_eq!(breaker.wait_until(now + SECOND), Some(now + SECOND * 2), "the probe failed");
    }

    #[test]
    fn three_errors_in_a_row_open() {
        let now = Instant::now();
        let mut breaker = Breaker::new(SECOND);
        assert!(!breaker.errored(true, now));
        assert!(!breaker.errored(true, now));
        assert!(!breaker.succeeded(true));
        assert!(!breaker.errored(true, now));
        assert!(!breaker.errored(true, now));
        assert!(breaker.errored(true, now));
    }
}
