//! A circuit breaker: while the store fails, callers do not wait for it, and one probe at a time tests whether it is
//! back.

use std::time::{Duration, Instant};

/// How many errors in a row open the breaker. A single timeout opens it.
const ERRORS: u32 = 3;

/// The circuit breaker of a part of the store. It is closed while the store answers, and only writes of the hot path
/// open it (guarantee G7).
#[derive(Debug)]
pub(crate) struct Breaker {
    probe_every: Duration,
    errors: u32,
    next_probe: Option<Instant>,
    /// Whether the last error answered a write that needs room. Such a store is full: it may still answer reads and
    /// writes that need no room.
    refuses: bool,
}

impl Breaker {
    pub(crate) const fn new(probe_every: Duration) -> Self {
        Self { probe_every, errors: 0, next_probe: None, refuses: false }
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.next_probe.is_some()
    }

    /// Whether a success would change the breaker's state.
    pub(crate) const fn is_unsettled(&self) -> bool {
        self.is_open() || self.errors > 0
    }

    /// Returns when the store may be asked next; `None` means now.
    pub(crate) fn wait_until(&self, now: Instant) -> Option<Instant> {
        self.next_probe.filter(|probe| *probe > now)
    }

    /// Whether a write may be sent now. `grows`: the write needs room in the store.
    ///
    /// While the breaker is open, an admitted write takes the probe that is due. A write that needs no room takes no
    /// probe if the store is known to refuse only writes that do.
    pub(crate) fn admits_write(&mut self, grows: bool, now: Instant) -> bool {
        match &mut self.next_probe {
            None => true,
            Some(_) if self.refuses && !grows => true,
            Some(probe) if *probe > now => false,
            Some(probe) => {
                *probe = now + self.probe_every;
                true
            }
        }
    }

    /// Whether a read may be sent now: while the breaker is closed, while the store refuses only writes, or when a
    /// probe is due. A read does not take the probe.
    pub(crate) fn admits_reader(&self, now: Instant) -> bool {
        self.refuses || self.wait_until(now).is_none()
    }

    /// Notes an answer in time. `grows`: it answered a write that needs room, such as a beat.
    ///
    /// Returns whether the answer closed the breaker. If the store has refused a write that needs room, only an answer
    /// to such a write closes it.
    pub(crate) fn succeeded(&mut self, grows: bool) -> bool {
        if self.refuses && !grows {
            return false;
        }
        self.errors = 0;
        self.refuses = false;
        self.next_probe.take().is_some()
    }

    /// Notes a write that was not answered in time. Returns whether that opened the breaker.
    pub(crate) fn timed_out(&mut self, now: Instant) -> bool {
        self.refuses = false;
        self.open(now)
    }

    /// Notes a write that was answered with an error. Returns whether that opened the breaker.
    pub(crate) fn errored(&mut self, grows: bool, now: Instant) -> bool {
        if self.is_open() && self.refuses && !grows {
            // This write was admitted without the probe, so its error does not delay the next probe.
            return false;
        }
        self.refuses |= grows;
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
        assert!(!breaker.admits_write(true, now) && !breaker.admits_write(false, now) && !breaker.admits_reader(now));
        assert!(breaker.admits_write(false, now + SECOND), "one probe is due");
        assert!(!breaker.admits_write(true, now + SECOND), "and only one");
        assert_eq!(breaker.wait_until(now + SECOND), Some(now + SECOND * 2));
        assert!(breaker.succeeded(true));
        assert!(!breaker.is_open() && breaker.admits_write(true, now));
    }

    #[test]
    fn a_store_that_refuses_what_needs_room_still_answers_everything_else() {
        let now = Instant::now();
        let mut breaker = Breaker::new(SECOND);
        assert!(!breaker.errored(true, now));
        assert!(!breaker.succeeded(false), "says nothing");
        assert!(!breaker.errored(true, now));
        assert!(breaker.errored(true, now));
        assert!(breaker.admits_reader(now) && breaker.admits_write(false, now) && !breaker.admits_write(true, now));
        assert!(!breaker.errored(false, now + SECOND / 2));
        assert!(!breaker.succeeded(false) && breaker.is_open());
        assert!(breaker.admits_write(true, now + SECOND), "the probe is due all the same");
        assert!(breaker.succeeded(true) && !breaker.is_open());
        assert!(breaker.timed_out(now));
        assert!(!breaker.admits_reader(now) && !breaker.admits_write(false, now));
        assert!(breaker.succeeded(false), "it hung for all");
    }

    #[test]
    fn readers_do_not_take_the_probe() {
        let now = Instant::now();
        let mut breaker = Breaker::new(SECOND);
        breaker.timed_out(now);
        assert!(breaker.admits_reader(now + SECOND) && breaker.admits_reader(now + SECOND));
        assert!(breaker.admits_write(true, now + SECOND), "the probe is due all the same");
        assert!(!breaker.errored(true, now + SECOND));
        assert_eq!(breaker.wait_until(now + SECOND), Some(now + SECOND * 2), "the probe failed");
    }

    #[test]
    fn a_breaker_is_unsettled_as_long_as_an_answer_would_change_it() {
        let now = Instant::now();
        let mut breaker = Breaker::new(SECOND);
        assert!(!breaker.is_unsettled());
        breaker.errored(false, now);
        assert!(breaker.is_unsettled() && !breaker.is_open());
        breaker.succeeded(false);
        assert!(!breaker.is_unsettled());
        breaker.timed_out(now);
        assert!(breaker.is_unsettled());
        breaker.succeeded(false);
        assert!(!breaker.is_unsettled());
    }

    #[test]
    fn three_errors_in_a_row_open() {
        let now = Instant::now();
        let mut breaker = Breaker::new(SECOND);
        assert!(!breaker.errored(true, now));
        assert!(!breaker.errored(false, now));
        assert!(!breaker.succeeded(true));
        assert!(!breaker.errored(true, now));
        assert!(!breaker.errored(true, now));
        assert!(breaker.errored(true, now));
        assert!(!breaker.errored(true, now + SECOND / 2));
        assert_eq!(breaker.wait_until(now), Some(now + SECOND * 3 / 2), "a probe that fails puts the next one off");
        assert!(breaker.succeeded(true));
        assert!(!breaker.errored(true, now), "counted anew");
        assert!(!breaker.errored(false, now) && breaker.errored(false, now), "one that needs no room counts as well");
    }
}
