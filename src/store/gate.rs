//! The circuit breakers in front of a store: one for each part.

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

/// The breakers of all parts of a store. Most stores have one part: see [`Store::part`](super::Store::part).
pub(super) struct Gates {
    /// Part 0, the only one of most stores.
    first: Arc<Gate>,
    others: Mutex<HashMap<u64, Arc<Gate>>>,
    /// The number of open breakers. It is read for every event, so it is a counter of its own.
    open: AtomicUsize,
    /// The parts that refused the last beat. `None`: all did.
    refused: Mutex<Option<Vec<u64>>>,
    telemetry: Arc<Telemetry>,
}

/// The breaker of one part.
pub(super) struct Gate {
    breaker: Mutex<Breaker>,
    open: AtomicBool,
    /// Whether a write failed since the last success. Only then must a success be reported to the breaker.
    unsettled: AtomicBool,
    /// How often the breaker has closed.
    healed: AtomicU64,
    /// The waker to wake when it closes the next time.
    healing: WakerCell,
}

/// What kind of request it is, which decides whether it is sent while the breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A write of the hot path that needs memory in the store. Its failure opens the breaker, and while that is open, one such
    /// write at a time is sent as a probe.
    Grow,
    /// A write of the hot path that a full store takes too, such as an end.
    Settle,
    /// A request that somebody waits for and that is no write of the hot path: reads, but also a deletion, a move of a pointer. While
    /// the breaker is open it is sent only if a probe is due or the store is merely full. It never opens the breaker.
    Read,
    /// A request that may take its time. It is always sent, and never opens the breaker.
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

    /// Whether the breaker of any part is open.
    pub(super) fn any_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// How many breakers are open.
    pub(super) fn count_open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Notes which parts refused a beat. `None`: all did.
    pub(super) fn note_refused(&self, by: Option<Vec<u64>>) {
        *lock(&self.refused) = by;
    }

    /// Whether a part refused the last beat.
    pub(super) fn has_refused(&self, part: u64) -> bool {
        lock(&self.refused).as_ref().is_none_or(|refused| refused.contains(&part))
    }

    pub(super) fn of(&self, part: u64) -> Arc<Gate> {
        if part == 0 {
            return Arc::clone(&self.first);
        }
        let mut others = lock(&self.others);
        if !others.contains_key(&part) && others.len() >= KEPT {
            // Remove closed gates that no request holds. Most belong to servers that are gone, and `of` makes a removed gate again.
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
            Class::Read | Class::Background => breaker.admits_reader(now),
        }
    }

    /// Reports an answered request. Returns whether that closed the breaker.
    pub(super) fn succeeded(&self, gate: &Gate, class: Class) -> bool {
        if class == Class::Background || !gate.unsettled.load(Ordering::Relaxed) {
            return false;
        }
        // A successful read does not end a row of failed writes.
        let counts = class.is_hot();
        self.settle(gate, |breaker| (counts || breaker.is_open()) && breaker.succeeded(class == Class::Grow))
    }

    /// Reports that these parts took a node's beat. If the breaker of one of them is open and a probe is due, it closes. The
    /// breaker of a part that nobody has asked for a while closes too: its server may be gone for good. Returns whether any
    /// breaker closed.
    pub(super) fn note_beat_taken(&self, by: &[u64]) -> bool {
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
            // The open breaker of a part without writes delays no stream. But if the part refused this beat, its server exists and
            // is down, so the breaker stays open for longer.
            let unasked = if self.has_refused(part) { UNASKED } else { GONE };
            let due = if by.contains(&part) { Some(now) } else { now.checked_sub(unasked) };
            back |= self.settle(&gate, |breaker| {
                due.is_some_and(|due| breaker.wait_until(due).is_none()) && breaker.succeeded(true)
            });
        }
        back
    }

    /// Reports an answer to the breaker. Returns whether that closed it.
    fn settle(&self, gate: &Gate, report: impl FnOnce(&mut Breaker) -> bool) -> bool {
        let mut breaker = lock(&gate.breaker);
        let closed = report(&mut breaker);
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

    /// Reports a failed write of the hot path.
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

/// A part that nobody has probed for this long counts as gone. `GONE` is for a part that did not refuse the last beat, such as
/// a master that another one has replaced; it is the time of several probes.
const UNASKED: Duration = Duration::from_secs(30);
const GONE: Duration = Duration::from_secs(5);
/// How many parts are remembered before those that are gone are dropped.
const KEPT: usize = 64;

impl Gate {
    /// Whether the part failed and is not waited for.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// When the part may be asked next. `None`: now.
    pub(super) fn closed_until(&self) -> Option<Instant> {
        if !self.is_open() {
            return None;
        }
        lock(&self.breaker).wait_until(Instant::now().into_std()).map(Instant::from_std)
    }

    /// How often the part answered again after a failure. The waker is woken when it does so the next time. There is one
    /// waker, the flusher's.
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
            gates.note_beat_taken(&[1, 2]);
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
