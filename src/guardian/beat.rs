//! Saying that this node lives, and with it its streams.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    config::BEAT_PAGE,
    hub::Core,
    protocol::backoff::Backoff,
    recorder::{Lane, Status},
    sync::lock,
};

/// Beats three times within the stale threshold, streams or none; sooner again after a failure, and at once when the store
/// was away: what it holds may be older than what it acknowledged.
pub(super) async fn run(core: Arc<Core>) {
    let every = core.settings.beat_every();
    let mut backoff = Backoff::new(every.min(Duration::from_millis(50)), every);
    loop {
        let begun = Instant::now();
        let acknowledged = round(&core).await;
        core.recorder.tidy_ended();
        let may_claim = lock(&core.trust).may_claim(Instant::now().into_std());
        core.telemetry.frozen.store(!may_claim, Ordering::Relaxed);
        let next = if acknowledged {
            backoff.succeeded();
            begun + every
        } else {
            Instant::now() + backoff.failed(crate::random::u128() as u64)
        };
        let _ = tokio::time::timeout_at(next, core.reconnected.notified()).await;
    }
}

/// Names all running streams, page by page. Returns whether every page was acknowledged.
async fn round(core: &Arc<Core>) -> bool {
    let mut lanes = core.recorder.lanes();
    lanes.retain(|lane| lane.status() == Status::Running);
    let mut pages = lanes.chunks(BEAT_PAGE);
    // A node without streams beats too: that is how its guardian earns the right to claim others'.
    let mut page = pages.next().unwrap_or_default();
    loop {
        if !beat(core, page).await {
            return false;
        }
        match pages.next() {
            Some(next) => page = next,
            None => return true,
        }
    }
}

async fn beat(core: &Arc<Core>, lanes: &[Arc<Lane>]) -> bool {
    let streams = lanes.iter().map(|lane| (lane.key.clone(), lane.epoch)).collect();
    let Some(beaten) = core.beat(streams).await else { return false };
    for lane in beaten.lost.iter().filter_map(|index| lanes.get(*index)) {
        core.recorder.look(lane);
    }
    true
}
