//! The flusher, which sends the batches of ready lanes: many lanes in a flight, several flights at a time, without a
//! timer.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use super::{
    lane::Lane,
    request::Op,
    work::{Outcome, Recorder},
};
use crate::{
    protocol::backoff::Backoff,
    runtime::{executor::BoxFuture, sync::lock},
    store::Append,
};

/// How many flights are sent at a time: enough to keep a store busy over one round trip.
const FLIGHTS: usize = 16;
/// How many events a flight carries.
const FLIGHT_EVENTS: u64 = 8192;
/// How many bytes of events a flight carries, not counting those of its last lane. A slow network must transfer a
/// flight within the store's time limit, and all flights together must fill the round trips of a distant store.
const FLIGHT_BYTES: usize = 1 << 20;

/// Processes the ready lanes. The guardian polls it, and it never completes.
pub(crate) struct Flusher {
    recorder: Arc<Recorder>,
    /// A way to each part of the store. A part that fails or hangs does not delay the others.
    ways: BTreeMap<u64, Way>,
    /// The timer for the time that ready lanes wait for others to join their flight.
    linger: Option<Pin<Box<Sleep>>>,
    /// The timer for the next lane that was put off.
    recall: Option<Pin<Box<Sleep>>>,
}

/// The flights to a part of the store.
struct Way {
    part: u64,
    /// The flights. Each returns whether it failed.
    flights: Vec<BoxFuture<bool>>,
    failed: bool,
    /// Whether a flight has succeeded since the last failure.
    landed: bool,
    pause: Option<Pin<Box<Sleep>>>,
    /// The part's count of recoveries when the pause began.
    healed: u64,
    backoff: Backoff,
}

impl Flusher {
    pub(crate) fn new(recorder: Arc<Recorder>) -> Self {
        Self { recorder, ways: BTreeMap::new(), linger: None, recall: None }
    }

    /// Sends what is ready. Always returns [`Poll::Pending`].
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.recorder.flusher.register(cx.waker());
        loop {
            self.adopt();
            for way in self.ways.values_mut() {
                way.land(cx);
            }
            self.recall(cx);
            let lingers = self.lingers(cx);
            let mut goes_on = false;
            for part in self.parts() {
                let way = self.ways.entry(part).or_insert_with(|| Way::new(part));
                // Polled even if no flight starts, so that the flusher is woken at the end of the pause.
                let paused = way.is_paused(&self.recorder, cx);
                goes_on |= !paused && !lingers && way.start_flights(&self.recorder);
            }
            if !goes_on {
                self.ways.retain(|_, way| !way.is_idle());
                return Poll::Pending;
            }
        }
    }

    /// Returns the parts with ready lanes or flights.
    fn parts(&self) -> Vec<u64> {
        let mut parts: Vec<u64> = self.ways.keys().copied().collect();
        parts.extend(lock(&self.recorder.ready).keys());
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    /// Takes over the requests that were begun in place. Only stores with a single part have such requests.
    fn adopt(&mut self) {
        let mut adopted = lock(&self.recorder.adopted);
        if !adopted.is_empty() {
            self.ways.entry(0).or_insert_with(|| Way::new(0)).flights.append(&mut adopted);
        }
    }

    /// Returns lanes that were put off to the ready list, and sets the timer for the next one.
    fn recall(&mut self, cx: &mut Context<'_>) {
        while let Some(next) = self.recorder.recall(Instant::now()) {
            let recall = self.recall.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
            if recall.deadline() != next {
                recall.as_mut().reset(next);
            }
            if recall.as_mut().poll(cx).is_pending() {
                return;
            }
        }
        self.recall = None;
    }

    /// Whether the ready lanes are still waiting for others to join their flight.
    fn lingers(&mut self, cx: &mut Context<'_>) -> bool {
        let linger = self.recorder.linger;
        if linger.is_zero() || lock(&self.recorder.ready).is_empty() {
            return false;
        }
        let waits = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(linger)));
        if waits.as_mut().poll(cx).is_pending() {
            return true;
        }
        self.linger = None;
        false
    }
}

impl Way {
    fn new(part: u64) -> Self {
        Self {
            part,
            flights: Vec::new(),
            failed: false,
            landed: false,
            pause: None,
            healed: 0,
            backoff: Backoff::new(Duration::from_millis(20), Duration::from_secs(1)),
        }
    }

    fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.pause.is_none()
    }

    /// Polls the flights, and removes those that have completed.
    fn land(&mut self, cx: &mut Context<'_>) {
        self.flights.retain_mut(|flight| match flight.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(failed) => {
                self.failed |= failed;
                self.landed |= !failed;
                false
            }
        });
    }

    /// Whether sending is paused, after an error or while the breaker is open. The pause ends early when the part
    /// answers any request, because bodies wait for the store again from then on.
    fn is_paused(&mut self, recorder: &Recorder, cx: &mut Context<'_>) -> bool {
        let store = &recorder.store;
        if let Some(pause) = &mut self.pause {
            let heals = store.healed(self.part, cx.waker()) != self.healed;
            if !heals && pause.as_mut().poll(cx).is_pending() {
                return true;
            }
            self.pause = None;
        }
        let (failed, landed) = (std::mem::take(&mut self.failed), std::mem::take(&mut self.landed));
        if landed && !failed {
            self.backoff.succeeded();
        }
        let (broken, _) = store.part_closed_until(self.part);
        if !failed && !broken {
            return false;
        }
        // Read before the pause is computed, so that an answer that arrives in between is not missed.
        self.healed = store.healed(self.part, cx.waker());
        let retry = failed.then(|| Instant::now() + self.backoff.failed(crate::runtime::random::u128() as u64));
        let (_, closed_until) = store.part_closed_until(self.part);
        let Some(until) = retry.max(closed_until) else { return false };
        let pause = self.pause.insert(Box::pin(tokio::time::sleep_until(until)));
        pause.as_mut().poll(cx).is_pending()
    }

    /// Starts flights for the ready lanes. Returns whether there was anything to send.
    fn start_flights(&mut self, recorder: &Arc<Recorder>) -> bool {
        let mut started = false;
        while self.flights.len() < FLIGHTS {
            let (appends, others) = self.gather(recorder);
            if appends.is_empty() && others.is_empty() {
                break;
            }
            started = true;
            if !appends.is_empty() {
                self.flights.push(Box::pin(fly(Arc::clone(recorder), appends)));
            }
            for (lane, op) in others {
                self.flights.push(Box::pin(settle(Arc::clone(recorder), lane, op)));
            }
        }
        started
    }

    /// Takes ready lanes until a flight is full.
    #[allow(clippy::type_complexity, reason = "two lists, used once")]
    fn gather(&mut self, recorder: &Recorder) -> (Vec<(Arc<Lane>, Append)>, Vec<(Arc<Lane>, Op)>) {
        let (mut appends, mut others) = (Vec::new(), Vec::new());
        let (mut events, mut bytes) = (0, 0);
        while events < FLIGHT_EVENTS && bytes < FLIGHT_BYTES && others.len() < FLIGHTS {
            let Some(lane) = recorder.next_ready(self.part) else { break };
            match lane.next_op() {
                None => {}
                Some(Op::Append(append)) => {
                    events += append.events.count.max(1);
                    bytes += append.events.bytes.len();
                    appends.push((lane, append));
                }
                Some(op) => others.push((lane, op)),
            }
        }
        (appends, others)
    }
}

/// Sends the batches of many lanes, and returns the lanes that have more to send to the ready list. Returns whether it
/// failed.
async fn fly(recorder: Arc<Recorder>, batch: Vec<(Arc<Lane>, Append)>) -> bool {
    let (lanes, appends): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
    match recorder.store.append(appends).await {
        Ok(outcomes) => {
            let mut outcomes = outcomes.into_iter();
            for lane in lanes {
                let outcome = outcomes.next().map_or(Outcome::Done, |outcome| recorder.appended(&lane, outcome));
                if recorder.go_on(&lane, outcome) {
                    recorder.queue(lane);
                }
            }
            false
        }
        Err(_) => {
            lanes.into_iter().for_each(|lane| recorder.queue(lane));
            true
        }
    }
}

/// Sends a request other than a batch, and returns the lane to the ready list if it has more to send: a busy lane must
/// not occupy a flight. Returns whether it failed.
async fn settle(recorder: Arc<Recorder>, lane: Arc<Lane>, op: Op) -> bool {
    let outcome = recorder.perform(&lane, op).await;
    if recorder.go_on(&lane, outcome) {
        recorder.queue(lane);
    }
    matches!(outcome, Outcome::Failed)
}

#[cfg(all(test, feature = "test-util"))]
mod tests;
