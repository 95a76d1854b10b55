//! Sending the ready lanes' batches: many lanes to a flight, several flights at a time, no timer.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use super::{Lane, Op, Recorder};
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
    backoff: Backoff,
    failures_seen: u64,
}

impl Flusher {
    pub(crate) fn new(recorder: Arc<Recorder>) -> Self {
        Self {
            recorder,
            flights: Vec::new(),
            pause: None,
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
            if self.is_paused(cx) || (!self.start_flights() && !landed) {
                return Poll::Pending;
            }
        }
    }

    /// After an error, and while the breaker is open, nothing is sent for a while.
    fn is_paused(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return true;
            }
            self.pause = None;
        }
        let failures = self.recorder.failures.load(Ordering::Relaxed);
        let failed = failures != std::mem::replace(&mut self.failures_seen, failures);
        if !failed {
            self.backoff.succeeded();
        }
        let retry = failed.then(|| Instant::now() + self.backoff.failed(crate::random::u128() as u64));
        let Some(until) = retry.max(self.recorder.store.closed_until()) else { return false };
        let pause = self.pause.insert(Box::pin(tokio::time::sleep_until(until)));
        pause.as_mut().poll(cx).is_pending()
    }

    /// Whether there was anything to send.
    fn start_flights(&mut self) -> bool {
        let mut started = false;
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
            for (lane, outcome) in lanes.iter().zip(outcomes) {
                recorder.appended(lane, outcome);
            }
        }
        Err(_) => add(&recorder.failures, 1),
    }
    for lane in lanes {
        recorder.queue(lane);
    }
}

/// Sends what is not a batch, then works the lane off.
async fn settle(recorder: Arc<Recorder>, lane: Arc<Lane>, op: Op) {
    if recorder.perform(&lane, op).await {
        recorder.work(lane).await;
    } else {
        add(&recorder.failures, 1);
        recorder.queue(lane);
    }
}
