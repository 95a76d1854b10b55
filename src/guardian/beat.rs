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
    store::Beat,
    sync::lock,
    telemetry::log_warn,
};

/// Beats three times within the stale threshold, streams or none; sooner again after a failure.
pub(super) async fn run(core: Arc<Core>, trust: Arc<Mutex<Trust>>) {
    let every = core.settings.beat_every();
    let mut backoff = Backoff::new(every.min(Duration::from_millis(50)), every);
    loop {
        let begun = Instant::now();
        let acknowledged = round(&core, &trust).await;
        let may_claim = lock(&trust).may_claim(Instant::now().into_std());
        core.telemetry.frozen.store(!may_claim, Ordering::Relaxed);
        if acknowledged {
            backoff.succeeded();
            tokio::time::sleep_until(begun + every).await;
        } else {
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
    let beat = Beat { node: core.node.clone(), streams, stale: core.settings.stale, lifetime: core.settings.lifetime };
    let Ok(beaten) = core.store.beat(beat).await else {
        lock(trust).failed();
        return false;
    };
    let another = lock(trust).acknowledged(Instant::now().into_std(), beaten.now, beaten.run);
    if another {
        log_warn!("the store is another than before: restarted, emptied or failed over");
        core.store_forgot();
    }
    for lane in beaten.lost.iter().filter_map(|index| lanes.get(*index)) {
        core.recorder.look(lane);
    }
    true
}
