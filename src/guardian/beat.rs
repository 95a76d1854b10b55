//! Saying that this node lives, and with it its streams.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    config::BEAT_PAGE,
    hub::Core,
    protocol::{backoff::Backoff, trust::Trust},
    recorder::{Lane, Status},
    sync::lock,
};

/// The longest pause after a beat that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Beats three times within the stale threshold, streams or none; sooner again after a failure, and at once
/// where the store was away and is back.
pub(super) async fn run(core: Arc<Core>, trust: Arc<Mutex<Trust>>) {
    let every = core.settings.beat_every();
    let mut backoff = Backoff::new(every.min(Duration::from_millis(50)), every.min(RETRY));
    loop {
        let begun = Instant::now();
        core.recorder.give_up_hopeless();
        let acknowledged = round(&core, &trust).await;
        let may_claim = lock(&trust).may_claim(Instant::now().into_std());
        core.telemetry.frozen.store(!may_claim, Ordering::Relaxed);
        if acknowledged {
            core.hooks.recent.expire();
            backoff.succeeded();
            let _ = tokio::time::timeout_at(begun + every, core.store.back()).await;
        } else {
            core.hooks.recent.store_is_away();
            // Not before, whatever comes back: what keeps coming back may keep failing.
            tokio::time::sleep(backoff.failed(crate::random::u128() as u64)).await;
        }
    }
}

/// Names all running streams, page by page. Returns whether every page was acknowledged.
async fn round(core: &Arc<Core>, trust: &Mutex<Trust>) -> bool {
    let mut lanes = core.recorder.lanes();
    lanes.retain(|lane| lane.status() == Status::Running);
    let mut pages = lanes.chunks(BEAT_PAGE);
    // A node without streams beats too: that is how its guardian earns the right to claim others'.
    let mut page = pages.next().unwrap_or_default();
    loop {
        if !beat(core, trust, page).await {
            return false;
        }
        match pages.next() {
            Some(next) => page = next,
            None => return true,
        }
    }
}

async fn beat(core: &Arc<Core>, trust: &Mutex<Trust>, lanes: &[Arc<Lane>]) -> bool {
    let streams = lanes.iter().map(|lane| (lane.key.clone(), lane.epoch)).collect();
    let Ok(beaten) = core.store.beat(core.beat_of(streams)).await else {
        lock(trust).failed();
        return false;
    };
    lock(trust).acknowledged(Instant::now().into_std(), beaten.now, beaten.run);
    core.heard_run(beaten.run);
    for lane in beaten.lost.iter().filter_map(|index| lanes.get(*index)) {
        core.recorder.look(lane);
    }
    true
}
