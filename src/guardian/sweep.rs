//! The sweeps, which find streams whose node has died, whose lifetime is over, or whose hook is due.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};

use crate::{
    hooks::{JobStatus, block_of},
    model::{
        config::{PROBES, SWEEP_PAGE},
        id::StreamKey,
        stream::{Ending, StreamInfo, StreamState, reason},
        turn::Turn,
    },
    node::Node,
    protocol::trust::Trust,
    runtime::{
        panics::Guarded,
        sync::{all, lock},
    },
    store::{Close, Closed, Due, DueReason, Interrupt, StoreHandle},
    telemetry::log_warn,
};

/// How many sweeps in a row a probe may fail before its answer counts as [`JobStatus::Unknown`].
const PROBE_STRIKES: u32 = 3;

/// How many streams are handled at the same time: enough to keep a store busy, and few enough for it to answer in time.
const AT_A_TIME: usize = 64;

/// How many streams are closed with one request if no job probe has to be asked.
const GROUP: usize = 32;

/// The state that a node's sweeps share.
pub(super) struct Sweeper {
    node: Arc<Node>,
    /// A background handle, so that slow requests of a sweep do not open the breaker.
    store: StoreHandle,
    probes: Semaphore,
    places: Arc<Semaphore>,
    /// The failed probes of each stream: how many in a row, and the number of the last sweep with a failure.
    strikes: Mutex<HashMap<StreamKey, (u32, u64)>>,
}

/// Sweeps at every interval.
pub(super) async fn run(node: Arc<Node>, trust: Arc<Mutex<Trust>>) {
    let sweeper = Arc::new(Sweeper::new(node));
    let mut number = 0;
    loop {
        tokio::time::sleep(sweeper.node.hooks.sweep_every(sweeper.node.settings.sweep_every)).await;
        if sweeper.node.is_draining() {
            // There is no time left to handle a stream that a sweep finds now.
            continue;
        }
        number += 1;
        // A request may have found out before the next beat that the store has lost its data.
        let claim = lock(&trust).claim(Instant::now().into_std()).filter(|_| !sweeper.node.may_be_forgotten());
        sweeper.sweep(claim, number).await;
        let store_now = lock(&trust).store_now(Instant::now().into_std());
        sweeper.node.telemetry.last_sweep.store(store_now.unwrap_or(0), Ordering::Relaxed);
    }
}

impl Sweeper {
    pub(super) fn new(node: Arc<Node>) -> Self {
        let store = node.store.in_background();
        Self {
            node,
            store,
            probes: Semaphore::new(PROBES),
            places: Arc::new(Semaphore::new(AT_A_TIME)),
            strikes: Mutex::default(),
        }
    }

    /// Handles every stream that is due, page by page. If the store fails, the next sweep continues.
    async fn sweep(self: &Arc<Self>, claim: Option<u64>, number: u64) {
        lock(&self.strikes).retain(|_, (_, seen)| *seen + 2 * u64::from(PROBE_STRIKES) >= number);
        let lease = self.lease();
        loop {
            let asked = Instant::now();
            let Ok(page) = self.store.due(SWEEP_PAGE, lease, claim).await else { return };
            let full = page.len() == SWEEP_PAGE;
            let (given_up, others): (Vec<_>, Vec<_>) = page.into_iter().partition(|due| self.is_given_up(due));
            for group in given_up.chunks(GROUP) {
                let (sweeper, group) = (Arc::clone(self), group.iter().map(|due| due.info.clone()).collect());
                let Ok(places) = Arc::clone(&self.places).acquire_many_owned(GROUP as u32).await else { return };
                self.node.executor.spawn(async move {
                    sweeper.close_orphans(group).await;
                    drop(places);
                });
            }
            for due in others {
                let sweeper = Arc::clone(self);
                let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
                // Spawned, because it may take as long as a probe, and beats and heartbeats must not wait for that.
                self.node.executor.spawn(async move {
                    sweeper.handle(due, asked, number).await;
                    drop(place);
                });
            }
            if !full {
                return;
            }
        }
    }

    /// Returns how long this node leases the streams that a sweep finds.
    ///
    /// If the store's reply is lost, no node handles these streams for that long. So the lease is longer only where the
    /// host's own code, a probe or a hook, needs the time.
    fn lease(&self) -> Duration {
        let settings = &self.node.settings;
        match (&self.node.probe, self.node.hooks.lease()) {
            (None, None) => settings.stale_after,
            (None, Some(hook)) => hook,
            (Some(_), None) => settings.lease(),
            (Some(_), Some(hook)) => hook.max(settings.probe_limit.saturating_mul(2)),
        }
    }

    async fn handle(&self, due: Due, asked: Instant, sweep: u64) {
        let info = due.info;
        match due.reason {
            DueReason::Hook => self.node.hooks.due(info.key, asked),
            DueReason::Lifetime => {
                let ending = Ending::supplied(StreamState::Expired, reason::LIFETIME);
                self.close(info, ending).await;
            }
            DueReason::Stale => self.orphan(info, sweep).await,
        }
    }

    /// Handles a stream whose node seems to have died.
    async fn orphan(&self, info: StreamInfo, sweep: u64) {
        match self.probe(&info, sweep).await {
            JobStatus::Running => {}
            JobStatus::Completed(event) => match block_of(&*self.node.framing, &event) {
                Some(block) => self.close(info, Ending::with_event(StreamState::Completed, block)).await,
                None => self.give_up(info).await,
            },
            JobStatus::Failed(event) => match block_of(&*self.node.framing, &event) {
                Some(block) => self.close(info, Ending::with_event(StreamState::Failed, block)).await,
                None => self.give_up(info).await,
            },
            JobStatus::Unknown => self.give_up(info).await,
        }
    }

    /// Whether a stream is closed as orphaned without asking: its node seems to have died, there is no job probe, and
    /// it may not be run again.
    fn is_given_up(&self, due: &Due) -> bool {
        due.reason == DueReason::Stale && self.node.probe.is_none() && !due.info.reruns
    }

    /// Interrupts or closes a stream whose work has an unknown outcome.
    async fn give_up(&self, info: StreamInfo) {
        if info.reruns {
            let interrupt =
                Interrupt { key: info.key.clone(), epoch: info.epoch, last: None, if_deadline: Some(info.deadline) };
            // If this fails, the stream is due again when its lease is over.
            let _ = self.store.interrupt(interrupt).await;
            self.finish(&info.key, info.turn.as_ref()).await;
        } else {
            self.close_orphans(vec![info]).await;
        }
    }

    async fn close_orphans(&self, orphans: Vec<StreamInfo>) {
        for info in &orphans {
            log_warn!(id = %info.key.id, "a stream's node was lost: the stream is closed as orphaned");
        }
        self.close_all(orphans, &Ending::supplied(StreamState::Orphaned, reason::NODE_LOST)).await;
    }

    async fn close(&self, info: StreamInfo, ending: Ending) {
        self.close_all(vec![info], &ending).await;
    }

    /// Closes each stream, unless its producer was heard from after the stream was leased.
    async fn close_all(&self, infos: Vec<StreamInfo>, ending: &Ending) {
        let close = |info: &StreamInfo| Close {
            key: info.key.clone(),
            epoch: Some(info.epoch),
            ending: ending.clone(),
            last: None,
            if_deadline: Some(info.deadline),
            hook: self.node.hooks.lease(),
        };
        // If this fails, the streams are due again when their leases are over.
        let closed = self.store.close_all(infos.iter().map(close).collect()).await.unwrap_or_default();
        for (info, closed) in infos.iter().zip(closed) {
            if let Some(Closed::Now { ended, .. }) = closed {
                self.node.telemetry.closed(ended.ending.state);
                self.node.hooks.ended(info.key.clone());
            }
        }
        let turns = infos.iter().filter(|info| info.turn.is_some());
        let _ = all(turns.map(|info| self.finish(&info.key, info.turn.as_ref()))).await;
    }

    /// Completes what the dead node of a turn left undone. If the turn had started, the earlier turns are stopped. If
    /// it had not, the pointer moves back to the turn before it.
    async fn finish(&self, key: &StreamKey, turn: Option<&Turn>) {
        if let Some(turn) = turn {
            let conversation = StreamKey::new(key.owner.clone(), turn.conversation.clone());
            // If this fails, the next caller of `current` does it.
            let _ = self.node.current(&conversation).await;
        }
    }

    /// Asks the host's job probe about a stream. A failed probe counts as [`JobStatus::Running`] for [`PROBE_STRIKES`]
    /// sweeps.
    pub(super) async fn probe(&self, info: &StreamInfo, sweep: u64) -> JobStatus {
        let Some(probe) = &self.node.probe else { return JobStatus::Unknown };
        let Ok(_permit) = self.probes.acquire().await else { return JobStatus::Unknown };
        let asked = Guarded::new(async { probe(info.clone()).await });
        let answer = tokio::time::timeout(self.node.settings.probe_limit, asked).await;
        match answer {
            Ok(Ok(Ok(status))) => {
                lock(&self.strikes).remove(&info.key);
                return status;
            }
            Ok(Ok(Err(error))) => self.node.telemetry.probe_failed(&info.key, Some(error.as_ref())),
            Ok(Err(panicked)) => {
                self.node.telemetry.panicked("job_probe");
                self.node.telemetry.probe_failed(&info.key, Some(&panicked));
            }
            Err(_) => self.node.telemetry.probe_failed(&info.key, None),
        }
        let mut strikes = lock(&self.strikes);
        let (count, seen) = strikes.entry(info.key.clone()).or_insert((0, sweep));
        *count += 1;
        *seen = sweep;
        if *count <= PROBE_STRIKES { JobStatus::Running } else { JobStatus::Unknown }
    }
}
