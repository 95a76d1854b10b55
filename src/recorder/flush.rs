//! Sending the ready lanes' batches: many lanes to a flight, several flights at a time, no timer.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use super::{Lane, Op, Outcome, Recorder};
use crate::{
    protocol::backoff::Backoff,
    store::{Append, handle::BoxFuture},
    sync::lock,
    telemetry::add,
};

/// Flights at a time: enough to keep a store busy over one round trip.
const FLIGHTS: usize = 16;
/// Events in a flight.
const FLIGHT_EVENTS: usize = 512;

/// Works the ready lanes off. The guardian polls it; it is never done.
pub(crate) struct Flusher {
    recorder: Arc<Recorder>,
    flights: Vec<BoxFuture<()>>,
    pause: Option<Pin<Box<Sleep>>>,
    /// Until lanes that are ready have waited long enough for others.
    linger: Option<Pin<Box<Sleep>>>,
    /// How often the store had answered again when the pause began.
    healed: u64,
    /// Until the next lane that was put off has waited long enough.
    recall: Option<Pin<Box<Sleep>>>,
    backoff: Backoff,
    failures_seen: u64,
}

impl Flusher {
    pub(crate) fn new(recorder: Arc<Recorder>) -> Self {
        Self {
            recorder,
            flights: Vec::new(),
            pause: None,
            linger: None,
            healed: 0,
            recall: None,
            backoff: Backoff::new(Duration::from_millis(20), Duration::from_secs(1)),
            failures_seen: 0,
        }
    }

    /// Always pending.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.recorder.flusher.register(cx.waker());
        loop {
            self.flights.append(&mut lock(&self.recorder.adopted));
            let before = self.flights.len();
            self.flights.retain_mut(|flight| flight.as_mut().poll(cx).is_pending());
            let landed = self.flights.len() < before;
            self.recall(cx);
            if self.is_paused(cx) || (!self.start_flights(cx) && !landed) {
                return Poll::Pending;
            }
        }
    }

    /// After an error, and while the breaker is open, nothing is sent for a while; for no longer than until the store
    /// has answered anybody: from then on bodies wait for what is sent here.
    fn is_paused(&mut self, cx: &mut Context<'_>) -> bool {
        let store = &self.recorder.store;
        if let Some(pause) = &mut self.pause {
            let heals = store.healed(cx.waker()) != self.healed;
            if !heals && pause.as_mut().poll(cx).is_pending() {
                return true;
            }
            self.pause = None;
        }
        let failures = self.recorder.failures.load(Ordering::Relaxed);
        let failed = failures != std::mem::replace(&mut self.failures_seen, failures);
        if !failed {
            self.backoff.succeeded();
        }
        if !failed && !store.is_broken() {
            return false;
        }
        // Read first: should the store answer right after, that is not missed.
        self.healed = store.healed(cx.waker());
        let retry = failed.then(|| Instant::now() + self.backoff.failed(crate::random::u128() as u64));
        let Some(until) = retry.max(store.closed_until()) else { return false };
        let pause = self.pause.insert(Box::pin(tokio::time::sleep_until(until)));
        pause.as_mut().poll(cx).is_pending()
    }

    /// Puts lanes that were put off back in line, and sees to it that it is polled for the next of them.
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

    /// Whether the lanes that are ready wait for others.
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

    /// Whether there was anything to send.
    fn start_flights(&mut self, cx: &mut Context<'_>) -> bool {
        let mut started = false;
        if self.flights.len() >= FLIGHTS || self.lingers(cx) {
            return false;
        }
        while self.flights.len() < FLIGHTS {
            let (appends, others) = self.gather();
            if appends.is_empty() && others.is_empty() {
                break;
            }
            started = true;
            if !appends.is_empty() {
                self.flights.push(Box::pin(fly(Arc::clone(&self.recorder), appends)));
            }
            for (lane, op) in others {
                self.flights.push(Box::pin(settle(Arc::clone(&self.recorder), lane, op)));
            }
        }
        started
    }

    /// Takes ready lanes until a flight is full.
    #[allow(clippy::type_complexity, reason = "two lists, used once")]
    fn gather(&mut self) -> (Vec<(Arc<Lane>, Append)>, Vec<(Arc<Lane>, Op)>) {
        let (mut appends, mut others) = (Vec::new(), Vec::new());
        let mut events = 0;
        while events < FLIGHT_EVENTS && others.len() < FLIGHTS {
            let Some(lane) = lock(&self.recorder.ready).pop_front() else { break };
            match lane.next_op() {
                None => {}
                Some(Op::Append(append)) => {
                    events += append.events.len().max(1);
                    appends.push((lane, append));
                }
                Some(op) => others.push((lane, op)),
            }
        }
        (appends, others)
    }
}

/// Sends the batches of many lanes, then puts those that have more to do back in line.
async fn fly(recorder: Arc<Recorder>, batch: Vec<(Arc<Lane>, Append)>) {
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
        }
        Err(_) => {
            add(&recorder.failures, 1);
            lanes.into_iter().for_each(|lane| recorder.queue(lane));
        }
    }
}

/// Sends what is not a batch, then works the lane off.
async fn settle(recorder: Arc<Recorder>, lane: Arc<Lane>, op: Op) {
    if recorder.perform(&lane, op).await {
        // In line with the others: a lane that always has something to do must not keep a flight.
        recorder.queue(lane);
    }
}
