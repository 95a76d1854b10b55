//! The recorder of a process, and the processing of its lanes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    lane::Lane,
    request::{Claim, Op},
    room::Room,
    roster::{Roll, Roster},
    served::ServedOn,
};
use crate::{
    hooks::Hooks,
    model::{config::Settings, id::StreamKey},
    runtime::{
        executor::{BoxFuture, Executor},
        sync::{WakerCell, lock, until},
    },
    store::StoreHandle,
    telemetry::{Telemetry, add},
};

/// The recorder of a process.
pub(crate) struct Recorder {
    pub(crate) store: StoreHandle,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) executor: Executor,
    pub(super) hooks: Arc<Hooks>,
    /// The room for events that wait for the store.
    pub(super) room: Room,
    /// How long the flusher waits for other lanes to join a flight.
    pub(super) linger: Duration,
    pub(super) lanes: Mutex<Roster>,
    pub(super) served_on: ServedOn,
    /// The ready list: lanes that wait for the flusher, by their part of the store.
    pub(super) ready: Mutex<BTreeMap<u64, VecDeque<Arc<Lane>>>>,
    /// Claimed lanes that were put off, by the time at which they become ready again.
    pub(super) put_off: Mutex<BTreeMap<(Instant, u64), Arc<Lane>>>,
    /// Requests that were begun in place and did not complete at their first poll.
    pub(super) adopted: Mutex<Vec<BoxFuture<bool>>>,
    pub(super) flusher: WakerCell,
    /// Notified when a lane leaves.
    pub(super) left: tokio::sync::Notify,
    /// The number of lanes that were put off so far.
    pub(super) put_offs: AtomicU64,
}

/// The outcome of a lane's request.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    /// The store answered.
    Done,
    /// The store refused this stream alone.
    Refused,
    /// The store did not answer a request of this stream alone.
    Unanswered,
    /// The store failed. The request is repeated once the store answers again.
    Failed,
}

impl Recorder {
    pub(crate) fn new(
        store: StoreHandle,
        telemetry: Arc<Telemetry>,
        executor: Executor,
        hooks: Arc<Hooks>,
        settings: &Settings,
    ) -> Self {
        Self {
            store,
            telemetry,
            executor,
            hooks,
            room: Room::new(settings.room()),
            linger: settings.linger,
            lanes: Mutex::new(Roster::new()),
            served_on: ServedOn::default(),
            ready: Mutex::default(),
            put_off: Mutex::default(),
            adopted: Mutex::default(),
            flusher: WakerCell::default(),
            left: tokio::sync::Notify::new(),
            put_offs: AtomicU64::new(0),
        }
    }

    /// Adds the lane of a new producer to the running streams.
    pub(crate) fn enter(self: &Arc<Self>, lane: &Arc<Lane>) {
        add(&self.telemetry.started, 1);
        let replaced = {
            let mut lanes = lock(&self.lanes);
            let replaced = lanes.insert(lane);
            self.telemetry.active.store(lanes.len() as i64, Ordering::Relaxed);
            replaced
        };
        // The replaced lane belongs to an earlier run that was interrupted elsewhere. It is no longer in the list, so
        // this check is the only one that notifies its producer.
        if let Some(replaced) = replaced {
            self.check_stream(&replaced);
        }
    }

    /// Returns the running streams of this process.
    pub(crate) fn lanes(&self) -> Vec<Arc<Lane>> {
        self.lanes_that(|_| true)
    }

    /// Returns the running streams of this process that match a predicate.
    pub(crate) fn lanes_that(&self, is_meant: impl Fn(&Lane) -> bool) -> Vec<Arc<Lane>> {
        lock(&self.lanes).all().filter(|lane| is_meant(lane)).cloned().collect()
    }

    /// Returns the running streams of this process, in pages. Complexity: O(streams of the pages that have changed).
    pub(crate) fn rolls(&self) -> Vec<Roll> {
        lock(&self.lanes).rolls()
    }

    /// Adds the lane of a producer that serves a client unrecorded.
    pub(crate) fn serves_on(&self, lane: &Arc<Lane>) {
        self.served_on.enter(lane);
    }

    /// Returns the unrecorded streams that a producer of this process may still serve to a client.
    pub(crate) fn served_on(&self) -> Vec<Arc<Lane>> {
        self.served_on.all()
    }

    pub(crate) fn lane(&self, key: &StreamKey) -> Option<Arc<Lane>> {
        lock(&self.lanes).get(key).cloned()
    }

    /// Returns how many bytes wait for the store.
    pub(crate) fn held(&self) -> usize {
        self.room.held()
    }

    /// Processes a lane that has something to send, in place or through the flusher.
    pub(crate) fn ready(self: &Arc<Self>, lane: &Arc<Lane>) {
        match lane.claim() {
            Claim::New if self.store.is_immediate() => self.work_in_place(lane),
            Claim::New => self.queue(Arc::clone(lane)),
            Claim::Hurried => self.flusher.wake(),
            Claim::Held => {}
        }
    }

    /// Processes a lane whose request is not urgent: the lane enters the ready list, and the flusher is not woken for
    /// it. The request is sent with the lane's next one, or when the flusher is woken for another reason.
    pub(crate) fn ready_at_leisure(self: &Arc<Self>, lane: &Arc<Lane>) {
        if self.store.is_immediate() {
            self.ready(lane);
        } else if lane.claim_unhurried() {
            self.line_up(Arc::clone(lane));
        }
    }

    /// Processes a lane in place, as far as the store answers at once.
    pub(super) fn work_in_place(self: &Arc<Self>, lane: &Arc<Lane>) {
        while let Some(op) = lane.next_op() {
            let now = if let Op::Append(append) = &op { self.store.append_now(append) } else { None };
            let Some(outcome) = now else { return self.poll_once(lane, op) };
            let outcome = self.appended(lane, outcome);
            if !self.go_on(lane, outcome) {
                return;
            }
        }
    }

    /// Processes a lane with a single poll, starting with `op`. The flusher takes over what is not complete then.
    pub(super) fn poll_once(self: &Arc<Self>, lane: &Arc<Lane>, op: Op) {
        let mut work: BoxFuture<bool> = Box::pin(Arc::clone(self).work(Arc::clone(lane), op));
        let mut cx = Context::from_waker(Waker::noop());
        if work.as_mut().poll(&mut cx).is_pending() {
            lane.waits();
            lock(&self.adopted).push(work);
            self.flusher.wake();
        }
    }

    /// Adds a claimed lane to the ready list, and wakes the flusher.
    pub(super) fn queue(&self, lane: Arc<Lane>) {
        lane.end_request();
        self.line_up(lane);
        self.flusher.wake();
    }

    pub(super) fn line_up(&self, lane: Arc<Lane>) {
        let part = self.store.part(&lane.key);
        lock(&self.ready).entry(part).or_default().push_back(lane);
    }

    /// Takes the next ready lane of a part of the store.
    pub(super) fn next_ready(&self, part: u64) -> Option<Arc<Lane>> {
        let mut ready = lock(&self.ready);
        let lanes = ready.get_mut(&part)?;
        let lane = lanes.pop_front();
        if lanes.is_empty() && part != 0 {
            ready.remove(&part);
        }
        lane
    }

    /// Puts off a claimed lane for a while. The flusher continues with the others.
    pub(super) fn put_off(&self, lane: Arc<Lane>, unknown: bool) {
        let until = Instant::now() + lane.put_off(unknown);
        // The number keeps two lanes with the same time apart.
        let number = self.put_offs.fetch_add(1, Ordering::Relaxed);
        lock(&self.put_off).insert((until, number), lane);
        self.flusher.wake();
    }

    /// Returns the lanes whose time has come to the ready list. Returns the time of the next one.
    pub(super) fn recall(&self, now: Instant) -> Option<Instant> {
        loop {
            let mut put_off = lock(&self.put_off);
            let first = put_off.first_entry()?;
            if first.key().0 > now {
                return Some(first.key().0);
            }
            let lane = first.remove();
            drop(put_off);
            self.line_up(lane);
        }
    }

    /// Processes a claimed lane, one request after the other, until it has nothing to send or the store fails. Returns
    /// whether the store failed.
    pub(super) async fn work(self: Arc<Self>, lane: Arc<Lane>, first: Op) -> bool {
        let mut next = Some(first);
        while let Some(op) = next {
            let outcome = self.perform(&lane, op).await;
            if !self.go_on(&lane, outcome) {
                return matches!(outcome, Outcome::Failed);
            }
            next = lane.next_op();
        }
        false
    }

    /// Sends a request of a claimed lane to the store.
    pub(super) async fn perform(&self, lane: &Arc<Lane>, op: Op) -> Outcome {
        // Boxed, except for appends: the other requests are rare, and boxing them keeps the append future small.
        match op {
            Op::Append(append) => match self.store.append(vec![append]).await {
                Ok(mut outcomes) => outcomes.pop().map_or(Outcome::Failed, |outcome| self.appended(lane, outcome)),
                Err(_) => Outcome::Failed,
            },
            Op::Reopen(reopen) => Box::pin(self.reopen(lane, *reopen)).await,
            Op::Close(close) => Box::pin(self.store.close(*close)).await.map_or(Outcome::Unanswered, |closed| {
                self.closed(lane, closed);
                Outcome::Done
            }),
            Op::Interrupt(interrupt) => {
                Box::pin(self.store.interrupt(interrupt)).await.map_or(Outcome::Unanswered, |interrupted| {
                    self.interrupted(lane, interrupted);
                    Outcome::Done
                })
            }
        }
    }

    /// Decides from an outcome whether the caller continues with the lane. Returns `false` if the lane was put off or
    /// returned to the ready list.
    pub(super) fn go_on(&self, lane: &Arc<Lane>, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Done => return true,
            Outcome::Refused => self.put_off(Arc::clone(lane), false),
            Outcome::Unanswered => self.put_off(Arc::clone(lane), true),
            Outcome::Failed => self.queue(Arc::clone(lane)),
        }
        false
    }

    /// Whether no stream runs on this node.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.lanes).len() == 0
    }

    /// Waits until no stream runs on this node.
    pub(crate) async fn until_idle(&self) {
        until(&self.left, || self.is_idle()).await;
    }

    /// Waits until recording of the lane has stopped.
    pub(crate) async fn until_settled(&self, lane: &Lane) {
        until(&self.left, || lane.is_halted()).await;
    }

    /// Checks the state of a stream in the store, for example because another node may have changed it.
    pub(crate) fn check_stream(self: &Arc<Self>, lane: &Arc<Lane>) {
        lane.request_check();
        self.ready(lane);
    }

    pub(super) fn lost(&self, events: u64) {
        add(&self.telemetry.lost, events);
    }
}
