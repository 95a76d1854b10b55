//! The recorder of a process, and who works its lanes off.

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
    /// How long the flusher waits for lanes to join the one that is ready.
    pub(super) linger: Duration,
    pub(super) lanes: Mutex<Roster>,
    pub(super) served_on: ServedOn,
    /// Lanes that wait for the flusher, by the part of the store that they are in.
    pub(super) ready: Mutex<BTreeMap<u64, VecDeque<Arc<Lane>>>>,
    /// Claimed lanes that wait until they are asked for again, by when that is.
    pub(super) put_off: Mutex<BTreeMap<(Instant, u64), Arc<Lane>>>,
    /// Work that was begun in place and did not end at its first poll.
    pub(super) adopted: Mutex<Vec<BoxFuture<bool>>>,
    pub(super) flusher: WakerCell,
    /// Notified when a lane leaves.
    pub(super) left: tokio::sync::Notify,
    /// Lanes that were put off so far.
    pub(super) put_offs: AtomicU64,
}

/// How a request went.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    /// It was answered.
    Done,
    /// This stream alone is refused.
    Refused,
    /// What only this stream asked was not answered.
    Unanswered,
    /// It is to be repeated once the store answers again.
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

    /// Takes up a new producer's lane.
    pub(crate) fn enter(self: &Arc<Self>, lane: &Arc<Lane>) {
        add(&self.telemetry.started, 1);
        let replaced = {
            let mut lanes = lock(&self.lanes);
            let replaced = lanes.insert(lane);
            self.telemetry.active.store(lanes.len() as i64, Ordering::Relaxed);
            replaced
        };
        // A producer of an earlier run, which somebody has interrupted: nobody else tells it any more.
        if let Some(replaced) = replaced {
            self.look(&replaced);
        }
    }

    /// The running streams of this process.
    pub(crate) fn lanes(&self) -> Vec<Arc<Lane>> {
        self.lanes_that(|_| true)
    }

    /// The running streams of this process that are of a kind.
    pub(crate) fn lanes_that(&self, is_meant: impl Fn(&Lane) -> bool) -> Vec<Arc<Lane>> {
        lock(&self.lanes).all().filter(|lane| is_meant(lane)).cloned().collect()
    }

    /// The running streams of this process, in pages. Complexity: O(streams of the pages that have changed since).
    pub(crate) fn rolls(&self) -> Vec<Roll> {
        lock(&self.lanes).rolls()
    }

    /// Takes up the lane of a producer that serves a client, although nothing is recorded of its stream.
    pub(crate) fn serves_on(&self, lane: &Arc<Lane>) {
        self.served_on.enter(lane);
    }

    /// Streams that nothing is recorded of, and that a producer of this process may still serve to a client.
    pub(crate) fn served_on(&self) -> Vec<Arc<Lane>> {
        self.served_on.all()
    }

    pub(crate) fn lane(&self, key: &StreamKey) -> Option<Arc<Lane>> {
        lock(&self.lanes).get(key).cloned()
    }

    /// Bytes that wait for the store.
    pub(crate) fn held(&self) -> usize {
        self.room.held()
    }

    /// The lane has something to do: does it, or sees to it that it is done.
    pub(crate) fn ready(self: &Arc<Self>, lane: &Arc<Lane>) {
        match lane.claim() {
            Claim::New if self.store.is_immediate() => self.work_in_place(lane),
            Claim::New => self.queue(Arc::clone(lane)),
            Claim::Hurried => self.flusher.wake(),
            Claim::Held => {}
        }
    }

    /// The same for what is not urgent: the lane stands in line, and the flusher is not woken for it. It is sent with what the
    /// lane has to say next, or when the flusher is woken for another reason.
    pub(crate) fn ready_at_leisure(self: &Arc<Self>, lane: &Arc<Lane>) {
        if self.store.is_immediate() {
            self.ready(lane);
        } else if lane.claim_unhurried() {
            self.line_up(Arc::clone(lane));
        }
    }

    /// Works a lane off in place, as far as the store answers at once.
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

    /// Works a lane off with one poll, `op` first; what is not done then is the flusher's.
    pub(super) fn poll_once(self: &Arc<Self>, lane: &Arc<Lane>, op: Op) {
        let mut work: BoxFuture<bool> = Box::pin(Arc::clone(self).work(Arc::clone(lane), op));
        let mut cx = Context::from_waker(Waker::noop());
        if work.as_mut().poll(&mut cx).is_pending() {
            lane.waits();
            lock(&self.adopted).push(work);
            self.flusher.wake();
        }
    }

    /// A claimed lane waits for the flusher.
    pub(super) fn queue(&self, lane: Arc<Lane>) {
        lane.rests();
        self.line_up(lane);
        self.flusher.wake();
    }

    pub(super) fn line_up(&self, lane: Arc<Lane>) {
        let part = self.store.part(&lane.key);
        lock(&self.ready).entry(part).or_default().push_back(lane);
    }

    /// The next claimed lane that waits for a part of the store.
    pub(super) fn next_ready(&self, part: u64) -> Option<Arc<Lane>> {
        let mut ready = lock(&self.ready);
        let lanes = ready.get_mut(&part)?;
        let lane = lanes.pop_front();
        if lanes.is_empty() && part != 0 {
            ready.remove(&part);
        }
        lane
    }

    /// A claimed lane waits on its own, while the flusher goes on with the others.
    pub(super) fn put_off(&self, lane: Arc<Lane>, unknown: bool) {
        let until = Instant::now() + lane.put_off(unknown);
        // Two lanes may have to wait until the same moment.
        let number = self.put_offs.fetch_add(1, Ordering::Relaxed);
        lock(&self.put_off).insert((until, number), lane);
        self.flusher.wake();
    }

    /// Puts the lanes that have waited long enough back in line. Returns when the next one has.
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

    /// Works a claimed lane off, one request after the other, until it has nothing to do or the store fails. Returns whether
    /// it failed.
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

    /// One request to the store for a claimed lane.
    pub(super) async fn perform(&self, lane: &Arc<Lane>, op: Op) -> Outcome {
        // All but appending is rare, and boxed, so that the future of an append is small.
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

    /// What follows from how a claimed lane's request went. `false`: it is put off, or back in line.
    pub(super) fn go_on(&self, lane: &Arc<Lane>, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Done => return true,
            Outcome::Refused => self.put_off(Arc::clone(lane), false),
            Outcome::Unanswered => self.put_off(Arc::clone(lane), true),
            Outcome::Failed => self.queue(Arc::clone(lane)),
        }
        false
    }

    /// Whether no stream runs here.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.lanes).len() == 0
    }

    /// Ready once no stream runs here.
    pub(crate) async fn until_idle(&self) {
        until(&self.left, || self.is_idle()).await;
    }

    /// Ready once nothing more is recorded of the lane.
    pub(crate) async fn until_settled(&self, lane: &Lane) {
        until(&self.left, || lane.is_halted()).await;
    }

    /// Somebody said that the store changed the stream: looks.
    pub(crate) fn look(self: &Arc<Self>, lane: &Arc<Lane>) {
        lane.look();
        self.ready(lane);
    }

    pub(super) fn lost(&self, events: u64) {
        add(&self.telemetry.lost, events);
    }
}
