//! Decides when a guardian may believe the store that another node is dead (guarantee G5).

use std::time::{Duration, Instant};

/// The record of a guardian's own beats. They are the evidence that the store works, keeps its data, and keeps time.
///
/// A guardian may take an overdue stream for an orphan only after one whole stale threshold of unbroken evidence.
/// Within that time every live node had the chance to send a beat.
#[derive(Debug)]
pub(crate) struct Trust {
    threshold: Duration,
    since: Option<Instant>,
    last: Option<Acknowledged>,
}

#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    at: Instant,
    store_ms: u64,
    run: u128,
}

impl Trust {
    /// Creates a record without beats. `threshold` is the stale threshold.
    pub(crate) const fn new(threshold: Duration) -> Self {
        Self { threshold, since: None, last: None }
    }

    /// Notes a beat that was acknowledged at `now` by a store with the clock `store_ms` and the run id `run`.
    pub(crate) fn acknowledged(&mut self, now: Instant, store_ms: u64, run: u128) {
        let beat = Acknowledged { at: now, store_ms, run };
        let before = self.last.replace(beat);
        if !before.is_some_and(|before| self.follows(before, beat)) {
            self.since = Some(now);
        }
    }

    /// Notes a beat that was refused, lost or never sent.
    pub(crate) fn failed(&mut self) {
        self.since = None;
        self.last = None;
    }

    /// Whether orphans may be claimed.
    pub(crate) fn may_claim(&self, now: Instant) -> bool {
        let fresh = self.last.is_some_and(|last| now.duration_since(last.at) < self.threshold / 2);
        let proven = self.since.is_some_and(|since| now.duration_since(since) >= self.threshold);
        fresh && proven
    }

    /// Returns the time of the store's clock up to which overdue streams may be claimed; `None` if none may be.
    ///
    /// The time is computed from the last beat and this node's own clock, so that a jump of the store's clock since
    /// that beat makes no live stream look overdue.
    pub(crate) fn claim(&self, now: Instant) -> Option<u64> {
        self.store_now(now).filter(|_| self.may_claim(now))
    }

    /// Returns the time of the store's clock, in unix milliseconds, computed from the last beat.
    pub(crate) fn store_now(&self, now: Instant) -> Option<u64> {
        let last = self.last?;
        let since = u64::try_from(now.duration_since(last.at).as_millis()).unwrap_or(0);
        Some(last.store_ms.saturating_add(since))
    }

    /// Whether two beats are unbroken evidence: the same store run, no long silence, and clocks in step.
    fn follows(&self, before: Acknowledged, beat: Acknowledged) -> bool {
        let here = beat.at.duration_since(before.at);
        let there = Duration::from_millis(beat.store_ms.saturating_sub(before.store_ms));
        let backwards = beat.store_ms < before.store_ms;
        let apart = here.abs_diff(there);
        let tolerance = self.threshold / 10 + Duration::from_millis(5);
        self.since.is_some() && before.run == beat.run && !backwards && apart <= tolerance && here < self.threshold / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLD: Duration = Duration::from_secs(30);
    const STEP: Duration = Duration::from_secs(10);

    /// Notes a beat every 10 s from `from` to `to`, with the store's clock in step.
    fn beat(trust: &mut Trust, start: Instant, from: u64, to: u64) {
        for second in (from..=to).step_by(10) {
            trust.acknowledged(start + Duration::from_secs(second), second * 1000, 1);
        }
    }

    #[test]
    fn claims_only_after_a_whole_threshold_of_beats() {
        let start = Instant::now();
        let mut trust = Trust::new(THRESHOLD);
        assert!(!trust.may_claim(start));
        beat(&mut trust, start, 0, 20);
        assert!(!trust.may_claim(start + STEP * 2));
        beat(&mut trust, start, 30, 30);
        assert!(trust.may_claim(start + STEP * 3));
        assert!(!trust.may_claim(start + STEP * 3 + THRESHOLD / 2), "its own last beat is too old");
        assert!(trust.may_claim(start + STEP * 3 + THRESHOLD / 2 - Duration::from_millis(1)));
    }

    #[test]
    fn a_claim_reaches_as_far_as_this_nodes_own_clock() {
        let start = Instant::now();
        let mut trust = Trust::new(THRESHOLD);
        beat(&mut trust, start, 0, 20);
        assert_eq!(trust.claim(start + STEP * 2), None);
        beat(&mut trust, start, 30, 30);
        assert_eq!(trust.claim(start + STEP * 3 + Duration::from_millis(7)), Some(30_007));
    }

    /// The clocks may drift apart by a tenth of the threshold and 5 ms between two beats.
    #[test]
    fn beats_close_together_and_clocks_slightly_apart_break_nothing() {
        let start = Instant::now();
        for (after_ms, store_ms, follows) in [
            (0, 0, true),
            (1000, 0, true),
            (10_000, 13_005, true),
            (10_000, 13_006, false),
            (10_000, 6_995, true),
            (10_000, 6_994, false),
        ] {
            let mut trust = Trust::new(THRESHOLD);
            beat(&mut trust, start, 0, 30);
            let now = start + THRESHOLD + Duration::from_millis(after_ms);
            trust.acknowledged(now, 30_000 + store_ms, 1);
            assert_eq!(trust.may_claim(now), follows, "{after_ms} ms here and {store_ms} ms there");
        }
    }

    #[test]
    fn any_break_in_the_evidence_starts_it_over() {
        type Break = fn(&mut Trust, Instant);
        let start = Instant::now();
        let breaks: [(&str, Break); 7] = [
            ("a failed beat", |trust, _| trust.failed()),
            ("another store", |trust, now| {
                trust.acknowledged(now + STEP, 40_000, 2);
            }),
            ("the store's clock ahead", |trust, now| {
                trust.acknowledged(now + STEP, 3_640_000, 1);
            }),
            ("the store's clock back", |trust, now| {
                trust.acknowledged(now + STEP, 10_000, 1);
            }),
            ("the store's clock a little back", |trust, now| {
                trust.acknowledged(now + Duration::from_secs(1), 29_999, 1);
            }),
            ("a pause of this node", |trust, now| {
                trust.acknowledged(now + STEP * 4, 70_000, 1);
            }),
            ("a pause as long as half the threshold", |trust, now| {
                trust.acknowledged(now + THRESHOLD / 2, 45_000, 1);
            }),
        ];
        for (what, interrupt) in breaks {
            let mut trust = Trust::new(THRESHOLD);
            beat(&mut trust, start, 0, 30);
            let now = start + THRESHOLD;
            assert!(trust.may_claim(now));
            interrupt(&mut trust, now);
            assert!(!trust.may_claim(now + STEP), "{what}");
        }
    }
}
