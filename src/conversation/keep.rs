//! Keeping pointers: they are renewed with the streams of this node that they name, and what the store did not take is said
//! again.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    hub::Core,
    recorder::{Lane, Status},
    store::Renew,
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
        let turns = |lane: &Arc<Lane>| lane.turn().is_some() && lane.status() == Status::Running;
        let lanes: Vec<_> = core.recorder.lanes().into_iter().filter(turns).collect();
        for lane in &lanes {
            go_on(&core, lane).await;
        }
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
    let now = Instant::now();
    let due = lanes.iter().filter_map(|lane| {
        let begun = lane.turn()?;
        let ttl = lane.retention().kept();
        let every = (ttl / 4).min(core.settings.sweep.max(EVERY));
        let is_due = now.saturating_duration_since(begun.renewed()?) + core.settings.beat_every() >= every;
        let stream = lane.key.id.clone();
        let renew = Renew { conversation: begun.conversation.clone(), stream, ttl, put_back: begun.puts_back() };
        is_due.then_some((lane, renew))
    });
    let due: Vec<_> = due.collect();
    for page in due.chunks(PAGE) {
        let asked = page.iter().map(|(_, renew)| renew.clone()).collect();
        let Ok(pointers) = core.store.renew(asked).await else { return };
        let behind = page.iter().zip(&pointers).filter(|((lane, _), pointer)| {
            let is_behind = lane.turn().is_some_and(|begun| begun.heard(&lane.key.id, pointer.as_ref()));
            core.point_later(lane);
            is_behind
        });
        // The turn that was to stop the stream may have died before it did.
        let looks: Vec<_> = behind.map(|((_, renew), _)| core.current(&renew.conversation)).collect();
        let _ = all(looks.into_iter()).await;
    }
}
