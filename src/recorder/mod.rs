//! Between producers and the store: what is made goes to the store in batches, in order, and again
//! until it lands; what the store says back reaches the producer.
//!
//! Each running stream has a [`Lane`]: its pending events, at most one immutable batch in flight, and
//! its end once that is known. A lane with something to do is *ready*. With a store that answers at
//! once it is worked off in place; otherwise it waits in the ready list for the flusher, which the
//! guardian polls and which gathers the batches of many lanes into one flight.

mod again;
mod begun;
mod flush;
mod lane;
mod opening;
mod push;
mod readers;
mod registration;
mod request;
mod room;
mod roster;
mod served;
mod state;
pub(crate) mod unattended;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

pub(crate) use begun::Begun;
pub(crate) use flush::Flusher;
pub(crate) use lane::{EndRequest, Lane, Producing, Status};
pub(crate) use opening::{LATE, Opening};
pub(crate) use readers::Reader;
use request::Claim;
pub(crate) use request::Op;
use room::Room;
pub(crate) use roster::Roll;
use roster::Roster;
use served::ServedOn;
pub(crate) use state::{EntryLimits, Inner};
use tokio::time::Instant;

use crate::{
    hooks::Hooks,
    model::{config::Settings, id::StreamKey, stream::StreamState},
    runtime::{
        executor::{BoxFuture, Executor},
        sync::{WakerCell, lock, until},
    },
    store::{Appended, Closed, Fence, Interrupted, Reopen, Reopened, StoreHandle},
    telemetry::{Telemetry, add, log_warn},
};

/// Bytes that a lane is charged for its end until that is stored, besides the terminal event's.
const END_COST: usize = 512;

/// The recorder of a process.
pub(crate) struct Recorder {
    pub(crate) store: StoreHandle,
    telemetry: Arc<Telemetry>,
    executor: Executor,
    hooks: Arc<Hooks>,
    /// The room for events that wait for the store.
    room: Room,
    /// How long the flusher waits for lanes to join the one that is ready.
    linger: Duration,
    lanes: Mutex<Roster>,
    served_on: ServedOn,
    /// Lanes that wait for the flusher, by the part of the store that they are in.
    ready: Mutex<BTreeMap<u64, VecDeque<Arc<Lane>>>>,
    /// Claimed lanes that wait until they are asked for again, by when that is.
    put_off: Mutex<BTreeMap<(Instant, u64), Arc<Lane>>>,
    /// Work that was begun in place and did not end at its first poll.
    adopted: Mutex<Vec<BoxFuture<bool>>>,
    flusher: WakerCell,
    /// Notified when a lane leaves.
    left: tokio::sync::Notify,
    /// Lanes that were put off so far.
    put_offs: AtomicU64,
}

/// How a request went.
#[derive(Clone, Copy)]
enum Outcome {
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
    fn work_in_place(self: &Arc<Self>, lane: &Arc<Lane>) {
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
    fn poll_once(self: &Arc<Self>, lane: &Arc<Lane>, op: Op) {
        let mut work: BoxFuture<bool> = Box::pin(Arc::clone(self).work(Arc::clone(lane), op));
        let mut cx = Context::from_waker(Waker::noop());
        if work.as_mut().poll(&mut cx).is_pending() {
            lane.waits();
            lock(&self.adopted).push(work);
            self.flusher.wake();
        }
    }

    /// A claimed lane waits for the flusher.
    fn queue(&self, lane: Arc<Lane>) {
        lane.rests();
        self.line_up(lane);
        self.flusher.wake();
    }

    fn line_up(&self, lane: Arc<Lane>) {
        let part = self.store.part(&lane.key);
        lock(&self.ready).entry(part).or_default().push_back(lane);
    }

    /// The next claimed lane that waits for a part of the store.
    fn next_ready(&self, part: u64) -> Option<Arc<Lane>> {
        let mut ready = lock(&self.ready);
        let lanes = ready.get_mut(&part)?;
        let lane = lanes.pop_front();
        if lanes.is_empty() && part != 0 {
            ready.remove(&part);
        }
        lane
    }

    /// A claimed lane waits on its own, while the flusher goes on with the others.
    fn put_off(&self, lane: Arc<Lane>, unknown: bool) {
        let until = Instant::now() + lane.put_off(unknown);
        // Two lanes may have to wait until the same moment.
        let number = self.put_offs.fetch_add(1, Ordering::Relaxed);
        lock(&self.put_off).insert((until, number), lane);
        self.flusher.wake();
    }

    /// Puts the lanes that have waited long enough back in line. Returns when the next one has.
    fn recall(&self, now: Instant) -> Option<Instant> {
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
    async fn work(self: Arc<Self>, lane: Arc<Lane>, first: Op) -> bool {
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
    async fn perform(&self, lane: &Arc<Lane>, op: Op) -> Outcome {
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

    async fn reopen(&self, lane: &Arc<Lane>, reopen: Reopen) -> Outcome {
        let (key, token) = (reopen.open.key.clone(), reopen.open.token);
        let reopened = self.store.reopen(reopen).await;
        if lane.is_withdrawn() {
            // The withdrawal may have reached the store first, and this registered the stream again.
            let _ = self.store.withdraw(key, token).await;
            return Outcome::Done;
        }
        match reopened {
            Ok(Reopened::Registered) => lane.reopened(),
            Ok(Reopened::Fenced(fence)) => self.fenced(lane, fence),
            Err(_) => return Outcome::Unanswered,
        }
        Outcome::Done
    }

    /// What follows from how a claimed lane's request went. `false`: it is put off, or back in line.
    fn go_on(&self, lane: &Arc<Lane>, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Done => return true,
            Outcome::Refused => self.put_off(Arc::clone(lane), false),
            Outcome::Unanswered => self.put_off(Arc::clone(lane), true),
            Outcome::Failed => self.queue(Arc::clone(lane)),
        }
        false
    }

    fn appended(&self, lane: &Arc<Lane>, outcome: Appended) -> Outcome {
        if lane.is_withdrawn() {
            return Outcome::Done;
        }
        match outcome {
            Appended::Refused => return Outcome::Refused,
            Appended::Stored => {
                let landed = lane.landed();
                add(&self.telemetry.recorded, landed.events);
                self.room.refund(landed.bytes);
            }
            Appended::Fenced(fence) => self.fenced(lane, fence),
            Appended::Gone => lane.forgotten(),
        }
        Outcome::Done
    }

    /// The producer's word counts no more: it is told why, and what it still had to say is dropped.
    fn fenced(&self, lane: &Arc<Lane>, fence: Fence) {
        let status = match fence {
            Fence::Newer => Status::Superseded,
            Fence::Ended(ended) => {
                // Perhaps its own end, of which the acknowledgement was lost: then the hook is this node's too.
                if let Some(recent) = lane.recent_close().filter(|recent| recent.close.ending == ended.ending) {
                    self.telemetry.closed(ended.ending.state);
                    self.hooks.recent.landed(recent);
                    self.hooks.ended(lane.key.clone());
                }
                Status::Ended(Box::new(ended))
            }
        };
        self.settle(lane, status);
    }

    fn closed(&self, lane: &Arc<Lane>, closed: Closed) {
        match closed {
            Closed::Now { ended, .. } => {
                self.telemetry.closed(ended.ending.state);
                if let Some(recent) = lane.recent_close() {
                    self.hooks.recent.landed(recent);
                }
                self.hooks.ended(lane.key.clone());
                self.settle(lane, Status::Ended(Box::new(ended)));
            }
            Closed::Before(ended) => self.fenced(lane, Fence::Ended(ended)),
            Closed::Newer | Closed::Moved => self.settle(lane, Status::Superseded),
            Closed::Missing => lane.forgotten(),
        }
    }

    fn interrupted(&self, lane: &Arc<Lane>, interrupted: Interrupted) {
        match interrupted {
            Interrupted::Fenced(fence) => self.fenced(lane, fence),
            // What the store forgot has no producer either; its log is lost in any case.
            Interrupted::Done | Interrupted::Moved | Interrupted::Missing => self.settle(lane, Status::Superseded),
        }
    }

    /// The lane has nothing more to record, and its producer is told how the stream stands.
    fn settle(&self, lane: &Arc<Lane>, status: Status) {
        let ending = lane.is_ending();
        if matches!(&status, Status::Ended(ended) if ended.ending.state == StreamState::Orphaned) {
            self.serves_on(lane);
        }
        self.end_recording(lane, status);
        if let Some(producer) = lane.producer().filter(|_| !ending) {
            self.executor.spawn(async move { producer.halted() });
        }
    }

    /// The lane is left as it is: the sweep of some guardian will find it overdue.
    pub(crate) fn abandon(&self, lane: &Arc<Lane>) {
        if !lane.is_halted() {
            self.let_go(lane);
        }
    }

    /// The producer never began to answer, and its registration is about to be withdrawn: nothing that is queued or in
    /// flight registers the stream again. `false`: the lane has settled or has been given an end, which stands.
    pub(crate) fn withdraw(&self, lane: &Arc<Lane>) -> bool {
        let withdrawn = lane.withdraw();
        if withdrawn {
            self.let_go(lane);
        }
        withdrawn
    }

    /// Nothing more is recorded of the lane, and nobody is told.
    fn let_go(&self, lane: &Arc<Lane>) {
        self.end_recording(lane, Status::Superseded);
    }

    fn end_recording(&self, lane: &Arc<Lane>, status: Status) {
        let (events, end) = lane.settle(status);
        self.room.refund(events);
        self.room.refund_end(end);
        self.leave(lane);
    }

    /// Lets go of the streams whose end no store has taken for as long as it could have been recovered.
    pub(crate) fn give_up_hopeless(&self) {
        self.served_on.tidy();
        if !self.room.holds_ends() {
            return;
        }
        for lane in self.lanes_that(Lane::is_hopeless) {
            add(&self.telemetry.ends_given_up, 1);
            log_warn!(id = %lane.key.id, "the end of a stream is given up: no store has taken it in its recovery window");
            self.let_go(&lane);
        }
    }

    /// Takes the lane out of the running streams.
    fn leave(&self, lane: &Arc<Lane>) {
        let mut lanes = lock(&self.lanes);
        if lanes.remove(lane) {
            self.telemetry.active.store(lanes.len() as i64, Ordering::Relaxed);
            drop(lanes);
            self.left.notify_waiters();
        }
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

    fn lost(&self, events: u64) {
        add(&self.telemetry.lost, events);
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use std::time::Duration;

    use super::{EndRequest, Lane, Op, Recorder, roster::tests::open};
    use crate::{
        Event, MemoryStore, Owner, ResilientSse, StreamId, StreamSpec,
        model::stream::{StreamState, reason},
        test_util::{Fault, FaultStore},
    };

    /// Asking how a stream stands, and keeping metadata with it, say nothing of its producer.
    #[tokio::test(start_paused = true)]
    async fn g5_only_a_producer_that_begins_or_an_event_starts_a_stream() {
        let (sse, _guardian) =
            ResilientSse::builder(FaultStore::new(MemoryStore::new()).batched()).anonymous().build().expect("valid");
        let recorder = &sse.0.recorder;
        let lane = Lane::new(open("a"), &std::sync::Arc::new(open("a").retention), 1, None);
        let starts = |lane: &Lane| match lane.next_op() {
            Some(Op::Append(append)) => Some(append.starts || !append.events.is_empty()),
            _ => None,
        };
        assert_eq!(starts(&lane), None);
        lane.look();
        assert_eq!(starts(&lane), Some(false), "a look");
        lane.landed();
        lane.keep(recorder, "job".into(), "7".into()).expect("it fits");
        assert_eq!(starts(&lane), Some(false), "metadata");
        lane.landed();
        lane.forgotten();
        assert!(matches!(lane.next_op(), Some(Op::Reopen(reopen)) if !reopen.open.started), "registered again");
        lane.reopened();
        lane.start();
        assert_eq!(starts(&lane), Some(true));
        lane.landed();
        assert_eq!(starts(&lane), None);
        lane.forgotten();
        assert!(matches!(lane.next_op(), Some(Op::Reopen(reopen)) if reopen.open.started));
    }

    /// A lane that is given up while its end is on the way to the store hears of that all the same.
    #[tokio::test(start_paused = true)]
    async fn g7_what_an_end_was_charged_is_given_back_once() {
        let store = FaultStore::new(MemoryStore::new()).batched();
        let (sse, guardian) = ResilientSse::builder(store.clone()).anonymous().build().expect("valid");
        let guardian = tokio::spawn(guardian);
        let spec = StreamSpec::new(Owner::ANONYMOUS, StreamId::new("a").expect("valid"));
        let mut publication = sse.publisher().open(spec).await.expect("open");
        publication.send(Event::new("one")).await.expect("sent");
        tokio::time::sleep(Duration::from_secs(1)).await;
        store.fail_on("close", Fault::Delay(Duration::from_millis(300)));
        let recorder: &std::sync::Arc<Recorder> = &sse.0.recorder;
        let lane = recorder.lane(publication.key()).expect("it runs");
        lane.end(recorder, EndRequest::supplied(StreamState::Failed, reason::ERROR));
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(recorder.held() > 0, "the end waits");
        recorder.abandon(&lane);
        assert_eq!(recorder.held(), 0);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((recorder.held(), store.calls("close")), (0, 1));
        guardian.abort();
    }
}
