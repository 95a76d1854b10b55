//! Whether a store is waited for: each part of it has a breaker of its own.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    model::{config::PROBE_EVERY, error::StoreError},
    protocol::breaker::Breaker,
    runtime::sync::{WakerCell, lock},
    telemetry::Telemetry,
};

/// Parts that a store is in: most have one. See [`Store::part`](super::Store::part).
pub(super) struct Gates {
    /// The part of stores that have but one.
    first: Arc<Gate>,
    others: Mutex<HashMap<u64, Arc<Gate>>>,
    /// How many are not waited for: looked at for every event.
    open: AtomicUsize,
    /// Those that did not take the last sign of life; `None`: none did.
    refused: Mutex<Option<Vec<u64>>>,
    telemetry: Arc<Telemetry>,
}

/// One part's breaker.
pub(super) struct Gate {
    breaker: Mutex<Breaker>,
    open: AtomicBool,
    /// A write failed since the last success: only then does a success have anything to say to the breaker.
    unsettled: AtomicBool,
    /// How often the breaker closed, and whom to tell.
    healed: AtomicU64,
    healing: WakerCell,
}

/// How much one may ask of a store whose breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A write of the hot path that needs room: it opens the breaker, and one at a time probes.
    Grow,
    /// A write of the hot path that needs none, and that a full store takes.
    Settle,
    /// Somebody who waits for an answer and changes nothing: refused where the store does not answer at all.
    Look,
    /// Whoever has time, and must know.
    Background,
}

impl Class {
    /// Whether it is a write of the hot path: those alone open the breaker (guarantee G7).
    pub(super) fn is_hot(self) -> bool {
        matches!(self, Self::Grow | Self::Settle)
    }
}

impl Gates {
    pub(super) fn new(telemetry: Arc<Telemetry>) -> Self {
        Self {
            first: Arc::default(),
            others: Mutex::default(),
            open: AtomicUsize::new(0),
            refused: Mutex::new(Some(Vec::new())),
            telemetry,
        }
    }

    /// Whether any part is not waited for.
    pub(super) fn any_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// How many are not.
    pub(super) fn count_open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Notes which parts did not take a sign of life; `None`: none did.
    pub(super) fn note_refused(&self, by: Option<Vec<u64>>) {
        *lock(&self.refused) = by;
    }

    /// Whether a part did not take the last sign of life.
    pub(super) fn has_refused(&self, part: u64) -> bool {
        lock(&self.refused).as_ref().is_none_or(|refused| refused.contains(&part))
    }

    pub(super) fn of(&self, part: u64) -> Arc<Gate> {
        if part == 0 {
            return Arc::clone(&self.first);
        }
        let mut others = lock(&self.others);
        if !others.contains_key(&part) && others.len() >= KEPT {
            // Of servers that are gone.
            others.retain(|_, gate| Arc::strong_count(gate) > 1 || gate.is_open());
        }
        Arc::clone(others.entry(part).or_default())
    }

    /// Whether a request may be sent.
    pub(super) fn admits(&self, gate: &Gate, class: Class) -> bool {
        if class == Class::Background || !gate.is_open() {
            return true;
        }
        let now = Instant::now().into_std();
        let mut breaker = lock(&gate.breaker);
        match class {
            Class::Grow => breaker.admits_write(true, now),
            Class::Settle => breaker.admits_write(false, now),
            Class::Look | Class::Background => breaker.admits_reader(now),
        }
    }

    /// A request was answered. `true`: that closed the breaker.
    pub(super) fn succeeded(&self, gate: &Gate, class: Class) -> bool {
        if class == Class::Background || !gate.unsettled.load(Ordering::Relaxed) {
            return false;
        }
        // What only reads does not count as the end of a row of errors.
        let counts = class.is_hot();
        self.settle(gate, |breaker| (counts || breaker.is_open()) && breaker.succeeded(class == Class::Grow))
    }

    /// A node's sign of life was taken by these parts: one of them whose breaker is open, and which a probe is due for, is
    /// back. So may be one that nobody has asked for a while: perhaps it is a server that is gone. `true`: there was one.
    pub(super) fn beaten(&self, by: &[u64]) -> bool {
        if !self.any_open() {
            return false;
        }
        let now = Instant::now().into_std();
        let others: Vec<_> = lock(&self.others).iter().map(|(part, gate)| (*part, Arc::clone(gate))).collect();
        let mut back = false;
        for (part, gate) in others.into_iter().chain([(0, Arc::clone(&self.first))]) {
            if !gate.is_open() {
                continue;
            }
            // What nobody asks for is no part of an outage that anybody notices. One that did not take this sign of life either is
            // there, and away.
            let unasked = if self.has_refused(part) { UNASKED } else { GONE };
            let due = if by.contains(&part) { Some(now) } else { now.checked_sub(unasked) };
            back |= self.settle(&gate, |breaker| {
                due.is_some_and(|due| breaker.wait_until(due).is_none()) && breaker.succeeded(true)
            });
        }
        back
    }

    /// Tells the breaker of an answer. Returns whether that closed it.
    fn settle(&self, gate: &Gate, told: impl FnOnce(&mut Breaker) -> bool) -> bool {
        let mut breaker = lock(&gate.breaker);
        let closed = told(&mut breaker);
        gate.unsettled.store(breaker.is_unsettled(), Ordering::Relaxed);
        if !closed {
            return false;
        }
        // Under the lock, so that the flag and the breaker never disagree.
        gate.open.store(false, Ordering::Relaxed);
        gate.healed.fetch_add(1, Ordering::Relaxed);
        let still_open = self.open.fetch_sub(1, Ordering::Relaxed) - 1;
        drop(breaker);
        self.telemetry.store_back(still_open);
        gate.healing.wake();
        true
    }

    /// A write of the hot path failed.
    pub(super) fn failed(&self, gate: &Gate, class: Class, error: &StoreError) {
        let now = Instant::now().into_std();
        let mut breaker = lock(&gate.breaker);
        gate.unsettled.store(true, Ordering::Relaxed);
        let opened =
            if error.is_timeout() { breaker.timed_out(now) } else { breaker.errored(class == Class::Grow, now) };
        if !opened {
            return;
        }
        gate.open.store(true, Ordering::Relaxed);
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        drop(breaker);
        self.telemetry.store_lost(open, error);
    }
}

/// For how long nobody has probed a part that counts as gone: where nobody says that it is away, as of a master whose place
/// another one has taken, several probes' time.
const UNASKED: Duration = Duration::from_secs(30);
const GONE: Duration = Duration::from_secs(5);
/// Parts that are remembered before those are dropped that are gone.
const KEPT: usize = 64;

impl Gate {
    /// Whether the part failed, and is not waited for.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// When it may be asked next; `None` means now.
    pub(super) fn closed_until(&self) -> Option<Instant> {
        if !self.is_open() {
            return None;
        }
        lock(&self.breaker).wait_until(Instant::now().into_std()).map(Instant::from_std)
    }

    /// How often the part answered again after it had failed; the waker is woken when it does the next time. One at a time:
    /// the flusher's.
    pub(super) fn healed(&self, waker: &Waker) -> u64 {
        self.healing.register(waker);
        self.healed.load(Ordering::Relaxed)
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            breaker: Mutex::new(Breaker::new(PROBE_EVERY)),
            open: AtomicBool::new(false),
            unsettled: AtomicBool::new(false),
            healed: AtomicU64::new(0),
            healing: WakerCell::default(),
        }
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use super::*;

    /// Whether a part that failed counts as away so many seconds later, though nobody asks for it: what the signs of life since
    /// then say of it.
    async fn is_away_after(seconds: u64, refused: Vec<u64>) -> bool {
        let gates = Gates::new(Arc::default());
        let gate = gates.of(7);
        gates.failed(&gate, Class::Grow, &StoreError::timed_out("append"));
        for _ in 0..seconds {
            tokio::time::advance(Duration::from_secs(1)).await;
            gates.note_refused(Some(refused.clone()));
            gates.beaten(&[1, 2]);
        }
        gates.any_open()
    }

    /// A master whose place another one has taken is asked for nothing any more, and never answers.
    #[tokio::test(start_paused = true)]
    async fn g7_a_part_that_is_gone_is_no_outage_for_long() {
        assert!(is_away_after(5, Vec::new()).await);
        assert!(!is_away_after(7, Vec::new()).await);
    }

    /// One that refuses signs of life is there: whoever writes to it next must not wait for it.
    #[tokio::test(start_paused = true)]
    async fn g7_a_part_that_refuses_signs_of_life_stays_away() {
        assert!(is_away_after(30, vec![7]).await);
        assert!(!is_away_after(32, vec![7]).await, "nobody has asked for it in all that time");
    }
}
