//! Keeps the pointers of this node's turns: renews them while their streams run, and repeats the changes that the store
//! did not take.

use std::{sync::Arc, time::Duration};

use super::late::runs;
use crate::{
    node::Node,
    recorder::Lane,
    runtime::sync::all,
    store::{Renew, Renewed},
};

/// How many pointers are renewed with one request.
const PAGE: usize = 1000;
/// The interval between renewals of a pointer, unless a quarter of its time to live is shorter or the interval between
/// sweeps is longer. It is also how long a replaced stream may run on if the node that was to stop it has died: its own
/// node finds out by the renewal.
const EVERY: Duration = Duration::from_secs(60);

/// Goes through this node's turns at every beat.
pub(crate) async fn run(node: Arc<Node>) {
    loop {
        tokio::time::sleep(node.settings.beat_every()).await;
        let turns = |lane: &Lane| lane.turn().is_some() && runs(lane);
        let lanes = node.recorder.lanes_that(turns);
        let _ = all(lanes.iter().map(|lane| go_on(&node, lane))).await;
        renew(&node, &lanes).await;
    }
}

/// Repeats the steps of a turn that the store did not answer.
async fn go_on(node: &Arc<Node>, lane: &Arc<Lane>) {
    let Some(begun) = lane.turn() else { return };
    if node.store.is_broken(&begun.conversation) {
        return;
    }
    node.point_later(lane);
    if begun.is_to_finish() {
        node.finish(lane).await;
    }
}

async fn renew(node: &Arc<Node>, lanes: &[Arc<Lane>]) {
    let due: Vec<_> = lanes.iter().filter(|lane| is_due(node, lane)).collect();
    for page in due.chunks(PAGE) {
        renew_page(node, page).await;
    }
}

fn is_due(node: &Node, lane: &Lane) -> bool {
    let every = (lane.retention().kept() / 4).min(node.settings.sweep_every.max(EVERY));
    lane.turn().is_some_and(|begun| begun.is_due(every.saturating_sub(node.settings.beat_every())))
}

async fn renew_page(node: &Arc<Node>, lanes: &[&Arc<Lane>]) {
    // Checked right before the request: a renewal for a stream that has ended would let the pointer outlive the stream.
    let page = lanes.iter().filter_map(|lane| Some((*lane, lane.turn().filter(|_| runs(lane))?)));
    let page = page.filter(|(_, begun)| !node.store.is_broken(&begun.conversation));
    let page: Vec<_> = page.collect();
    let renewals = page.iter().map(|(lane, begun)| Renew {
        conversation: begun.conversation.clone(),
        stream: lane.key.id.clone(),
        ttl: lane.retention().kept(),
        put_back: begun.put_back(),
    });
    // If this fails, the renewals are due again at the next beat.
    let Ok(renewed) = node.store.renew(renewals.collect()).await else { return };
    let settled = page.into_iter().zip(renewed).map(|((lane, begun), renewed)| async move {
        let Renewed::Stands(pointer) = renewed else { return Ok(()) };
        if begun.take_renewed(&lane.key.id, pointer.as_ref()) {
            // The node that was to stop this stream may have died first.
            let _ = node.current(&begun.conversation).await;
        }
        node.point_later(lane);
        node.tidy(lane, begun).await
    });
    let _ = all(settled).await;
}
