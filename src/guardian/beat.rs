//! Saying that this node lives, and with it its streams.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    model::{
        config::{BEAT_PAGE, BEATS},
        error::StoreError,
    },
    node::Node,
    protocol::{backoff::Backoff, trust::Trust},
    recorder::{Lane, Roll, Status},
    runtime::sync::{all, lock},
    store::Beaten,
};

/// The longest pause after a beat that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Beats three times within the stale threshold, streams or none; sooner again after a failure, and at once
/// where the store was away and is back.
pub(super) async fn run(node: Arc<Node>, trust: Arc<Mutex<Trust>>) {
    let every = node.settings.beat_every();
    let mut backoff = Backoff::new(every.min(Duration::from_millis(50)), every.min(RETRY));
    let mut left: Vec<Roll> = Vec::new();
    loop {
        let begun = Instant::now();
        node.recorder.give_up_hopeless();
        let mut round = Round::of(&node, &left);
        let mut heard = round.go(&node, &trust).await;
        while !heard && begun.elapsed() < every {
            node.hooks.recent.store_is_away();
            // Not before, whatever comes back: what keeps coming back may keep failing.
            tokio::time::sleep(backoff.failed(crate::runtime::random::u128() as u64)).await;
            heard = round.go(&node, &trust).await;
        }
        left = std::mem::take(&mut round.left);
        if heard {
            node.hooks.recent.expire();
            backoff.succeeded();
            let _ = tokio::time::timeout_at(begun + every, node.store.back()).await;
        } else {
            tokio::time::sleep(backoff.failed(crate::runtime::random::u128() as u64)).await;
        }
    }
}

/// One round of beats, which lists every running stream.
struct Round {
    /// The pages that are to be sent next.
    left: Vec<Roll>,
    /// The streams that the store did not take: they are named again after all others.
    missed: Vec<Arc<Lane>>,
    failed: bool,
}

impl Round {
    /// `first`: those that the last round did not get to.
    fn of(node: &Node, first: &[Roll]) -> Self {
        if !node.store.is_immediate() {
            node.note_who_is_read();
        }
        let mut left = node.recorder.rolls();
        if !first.is_empty() {
            let first: HashSet<_> = first.iter().flat_map(|roll| roll.lanes.iter()).map(Arc::as_ptr).collect();
            left.sort_by_key(|roll| !roll.lanes.iter().any(|lane| first.contains(&Arc::as_ptr(lane))));
        }
        Self { left, missed: Vec::new(), failed: true }
    }

    /// Lists the streams that are left, page by page: a page that fails does not keep the others from being listed. Returns
    /// whether the store has heard of all of them.
    async fn go(&mut self, node: &Arc<Node>, trust: &Mutex<Trust>) -> bool {
        let mut rolls = std::mem::take(&mut self.left);
        self.missed.retain(|lane| lane.status() == Status::Running);
        rolls.extend(self.missed.chunks(BEAT_PAGE).map(|lanes| Roll::of(lanes.to_vec())));
        self.missed.clear();
        self.failed = false;
        if rolls.is_empty() {
            // A node without streams beats too: that is how its guardian earns the right to claim others'.
            rolls.push(Roll::of(Vec::new()));
        }
        let mut hangs = false;
        for rolls in rolls.chunks(BEATS) {
            if hangs {
                // What hangs for some pages hangs for all, and the next round must not come too late.
                self.left.extend_from_slice(rolls);
                continue;
            }
            let beaten = all(rolls.iter().map(|roll| beat(node, roll))).await;
            for (roll, beaten) in rolls.iter().zip(beaten) {
                hangs |= beaten.as_ref().is_err_and(StoreError::is_timeout);
                self.heard(node, trust, &roll.lanes, beaten);
            }
        }
        let may_claim = lock(trust).may_claim(Instant::now().into_std());
        node.telemetry.frozen.store(!may_claim, Ordering::Relaxed);
        !self.failed && self.left.is_empty() && self.missed.is_empty()
    }

    /// Takes the answer to a page.
    fn heard(&mut self, node: &Node, trust: &Mutex<Trust>, page: &[Arc<Lane>], beaten: Result<Beaten, StoreError>) {
        let Ok(beaten) = beaten else {
            lock(trust).failed();
            self.failed = true;
            self.missed.extend_from_slice(page);
            return;
        };
        lock(trust).acknowledged(Instant::now().into_std(), beaten.now, beaten.run);
        node.note_run(beaten.run);
        for lane in beaten.lost.iter().filter_map(|index| page.get(*index)) {
            node.recorder.look(lane);
        }
        self.failed |= !beaten.refused_by.is_empty();
        self.missed.extend(beaten.missed.iter().filter_map(|index| page.get(*index)).cloned());
    }
}

async fn beat(node: &Node, roll: &Roll) -> Result<Beaten, StoreError> {
    node.store.sign_of_life(node.beat_of(Arc::clone(&roll.streams))).await
}
