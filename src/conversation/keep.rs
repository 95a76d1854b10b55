//! Keeping pointers: they are renewed with the streams of this node that they name, and what the store did not take is said
//! again.

use std::{sync::Arc, time::Duration};

use super::late::runs;
use crate::{
    hub::Core,
    recorder::Lane,
    store::{Renew, Renewed},
    sync::all,
};

/// How many pointers are renewed with one request.
const PAGE: usize = 1000;
/// How often a pointer is renewed at most. Also how soon a stream that was to be stopped is found by its own node, if the
/// node that was to stop it has died.
const EVERY: Duration = Duration::from_secs(60);

/// Looks at this node's turns as often as it beats.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        tokio::time::sleep(core.settings.beat_every()).await;
        let turns = |lane: &Lane| lane.turn().is_some() && runs(lane);
        let lanes = core.recorder.lanes_that(turns);
        let _ = all(lanes.iter().map(|lane| go_on(&core, lane))).await;
        renew(&core, &lanes).await;
    }
}

/// Goes on where the store did not answer.
async fn go_on(core: &Arc<Core>, lane: &Arc<Lane>) {
    let Some(begun) = lane.turn() else { return };
    if core.store.is_broken(&begun.conversation) {
        return;
    }
    core.point_later(lane);
    if begun.is_to_finish() {
        core.finish(lane).await;
    }
}

async fn renew(core: &Arc<Core>, lanes: &[Arc<Lane>]) {
    let due: Vec<_> = lanes.iter().filter(|lane| is_due(core, lane)).collect();
    for page in due.chunks(PAGE) {
        renew_page(core, page).await;
    }
}

fn is_due(core: &Core, lane: &Lane) -> bool {
    let every = (lane.retention().kept() / 4).min(core.settings.sweep.max(EVERY));
    lane.turn().is_some_and(|begun| begun.is_due(every.saturating_sub(core.settings.beat_every())))
}

async fn renew_page(core: &Arc<Core>, lanes: &[&Arc<Lane>]) {
    // Looked at again right before: a pointer that is renewed for a stream that has ended would outlive it.
    let page = lanes.iter().filter_map(|lane| Some((*lane, lane.turn().filter(|_| runs(lane))?)));
    let page = page.filter(|(_, begun)| !core.store.is_broken(&begun.conversation));
    let page: Vec<_> = page.collect();
    let renewals = page.iter().map(|(lane, begun)| Renew {
        conversation: begun.conversation.clone(),
        stream: lane.key.id.clone(),
        ttl: lane.retention().kept(),
        put_back: begun.put_back(),
    });
    // What is not renewed now is due again at the next beat.
    let Ok(renewed) = core.store.renew(renewals.collect()).await else { return };
    let settled = page.into_iter().zip(renewed).map(|((lane, begun), renewed)| async move {
        let Renewed::Stands(pointer) = renewed else { return Ok(()) };
        if begun.heard(&lane.key.id, pointer.as_ref()) {
            // The turn that was to stop the stream may have died before it did.
            let _ = core.current(&begun.conversation).await;
        }
        core.point_later(lane);
        core.tidy(lane, begun).await
    });
    let _ = all(settled).await;
}
