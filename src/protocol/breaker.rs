//! A breaker: after the store failed, nobody waits for it; one probe at a time asks whether it is back.

use std::time::{Duration, Instant};

/// Errors in a row, time-outs apart, that open the breaker.
const ERRORS: u32 = 3;

/// Closed while the store answers. Only the writes of the hot path open it (guarantee G7).
#[derive(Debug)]
pub(crate) struct Breaker {
    probe_every: Duration,
    errors: u32,
    next_probe: Option<Instant>,
    /// What needs room was refused last: the store answers, perhaps those who need none.
    refuses: bool,
}

impl Breaker {
    pub(crate) const fn new(probe_every: Duration) -> Self {
        Self { probe_every, errors: 0, next_probe: None, refuses: false }
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.next_probe.is_some()
    }

    /// Whether a success has anything to say.
    pub(crate) const fn is_unsettled(&self) -> bool {
        self.is_open() || self.errors > 0
    }

    /// When the store may be asked next: `None` means now.
    pub(crate) fn wait_until(&self, now: Instant) -> Option<Instant> {
        self.next_probe.filter(|probe| *probe > now)
    }

    /// Whether a write may be sent now. While the breaker is open, this takes the one probe that is due, unless the store is
    /// known to answer what needs no room (`grows` says that this write needs some).
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

    /// Whether somebody who only reads may ask now: also a store that refuses writes, and one that a probe is due for, which
    /// is not taken.
    pub(crate) fn admits_reader(&self, now: Instant) -> bool {
        self.refuses || self.wait_until(now).is_none()
    }

    /// Something was answered in time; `grows`: a write that needs room, or a beat, which is one. Returns whether that closed
    /// the breaker: a store that refuses what needs room may do so still.
    pub(crate) fn succeeded(&mut self, grows: bool) -> bool {
        if self.refuses && !grows {
            return false;
        }
        self.errors = 0;
        self.refuses = false;
        self.next_probe.take().is_some()
    }

    /// A write was not answered in time; returns whether that opened the breaker.
    pub(crate) fn timed_out(&mut self, now: Instant) -> bool {
        self.refuses = false;
        self.open(now)
    }

    /// A write was answered with an error; returns whether that opened the breaker.
    pub(crate) fn errored(&mut self, grows: bool, now: Instant) -> bool {
        if self.is_open() && self.refuses && !grows {
            // It was let through beside the probe, and says nothing of when the next one is due.
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
    fn three_errors_in_a_row_open() {
        let now = Instant::now();
        let mut breaker = Breaker::new(SECOND);
        assert!(!breaker.errored(true, now));
        assert!(!breaker.errored(false, now));
        assert!(!breaker.succeeded(true));
        assert!(!breaker.errored(true, now));
        assert!(!breaker.errored(true, now));
        assert!(breaker.errored(true, now));
        assert!(!breaker.errored(true, now), "a probe that fails puts the next one off");
        assert!(breaker.succeeded(true));
        assert!(!breaker.errored(true, now), "counted anew");
    }
}
