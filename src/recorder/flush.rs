//! Sending the ready lanes' batches: many lanes to a flight, several flights at a time, no timer.

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

/// Flights at a time: enough to keep a store busy over one round trip.
const FLIGHTS: usize = 16;
/// Events in a flight.
const FLIGHT_EVENTS: u64 = 8192;
/// Bytes of events in a flight, but for what the last lane brings: a slow network must carry it within the store's time limit, and
/// all flights together must fill a distant store's round trips.
const FLIGHT_BYTES: usize = 1 << 20;

/// Works the ready lanes off. The guardian polls it; it is never done.
pub(crate) struct Flusher {
    recorder: Arc<Recorder>,
    /// One way to each part of the store: what fails or hangs on one does not hold up the others.
    ways: BTreeMap<u64, Way>,
    /// Until lanes that are ready have waited long enough for others.
    linger: Option<Pin<Box<Sleep>>>,
    /// Until the next lane that was put off has waited long enough.
    recall: Option<Pin<Box<Sleep>>>,
}

/// The way to one part of the store.
struct Way {
    part: u64,
    /// Each says in the end whether it failed.
    flights: Vec<BoxFuture<bool>>,
    failed: bool,
    /// Something landed since the last failure.
    landed: bool,
    pause: Option<Pin<Box<Sleep>>>,
    /// How often the part had answered again when the pause began.
    healed: u64,
    backoff: Backoff,
}

impl Flusher {
    pub(crate) fn new(recorder: Arc<Recorder>) -> Self {
        Self { recorder, ways: BTreeMap::new(), linger: None, recall: None }
    }

    /// Always pending.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.recorder.flusher.register(cx.waker());
        loop {
            self.adopt();
            let mut goes_on = false;
            for way in self.ways.values_mut() {
                goes_on |= way.land(cx);
            }
            self.recall(cx);
            let lingers = self.lingers(cx);
            for part in self.parts() {
                let way = self.ways.entry(part).or_insert_with(|| Way::new(part));
                // Looked at also where nothing is started, so that it is polled when the pause is over.
                let paused = way.is_paused(&self.recorder, cx);
                goes_on |= !paused && !lingers && way.start_flights(&self.recorder);
            }
            if !goes_on {
                self.ways.retain(|_, way| !way.is_idle());
                return Poll::Pending;
            }
        }
    }

    /// The parts that something is to be sent to, or is on its way to.
    fn parts(&self) -> Vec<u64> {
        let mut parts: Vec<u64> = self.ways.keys().copied().collect();
        parts.extend(lock(&self.recorder.ready).keys());
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    /// Takes over what was begun in place, which only stores of one part have.
    fn adopt(&mut self) {
        let mut adopted = lock(&self.recorder.adopted);
        if !adopted.is_empty() {
            self.ways.entry(0).or_insert_with(|| Way::new(0)).flights.append(&mut adopted);
        }
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
        self.flights.is_empty() && !self.failed && self.pause.is_none()
    }

    /// Polls what is under way. Returns whether anything landed.
    fn land(&mut self, cx: &mut Context<'_>) -> bool {
        let before = self.flights.len();
        self.flights.retain_mut(|flight| match flight.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(failed) => {
                self.failed |= failed;
                self.landed |= !failed;
                false
            }
        });
        self.flights.len() < before
    }

    /// After an error, and while the breaker is open, nothing is sent for a while; for no longer than until the part has
    /// answered anybody: from then on bodies wait for what is sent here.
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
        // Read first: should the part answer right after, that is not missed.
        self.healed = store.healed(self.part, cx.waker());
        let retry = failed.then(|| Instant::now() + self.backoff.failed(crate::runtime::random::u128() as u64));
        let (_, closed_until) = store.part_closed_until(self.part);
        let Some(until) = retry.max(closed_until) else { return false };
        let pause = self.pause.insert(Box::pin(tokio::time::sleep_until(until)));
        pause.as_mut().poll(cx).is_pending()
    }

    /// Returns whether there was anything to send.
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

/// Sends the batches of many lanes, then puts those that have more to do back in line. Returns whether it failed.
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

/// Sends what is not a batch, and puts the lane back in line with the others: one that always has something to do must not
/// keep a flight. Returns whether it failed.
async fn settle(recorder: Arc<Recorder>, lane: Arc<Lane>, op: Op) -> bool {
    let outcome = recorder.perform(&lane, op).await;
    if recorder.go_on(&lane, outcome) {
        recorder.queue(lane);
    }
    matches!(outcome, Outcome::Failed)
}
