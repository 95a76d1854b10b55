//! The beats, which tell the store that this node and its streams are alive.

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

/// The longest pause after a failed beat.
const RETRY: Duration = Duration::from_secs(1);

/// Sends a round of beats three times within the stale threshold, even without streams. Retries a failed round sooner,
/// and sends one at once when the store is back after an outage.
pub(super) async fn run(node: Arc<Node>, trust: Arc<Mutex<Trust>>) {
    let every = node.settings.beat_every();
    let mut backoff = Backoff::new(every.min(Duration::from_millis(50)), every.min(RETRY));
    let mut left: Vec<Roll> = Vec::new();
    loop {
        let begun = Instant::now();
        node.recorder.give_up_expired_ends();
        let mut round = Round::of(&node, &left);
        let mut complete = round.go(&node, &trust).await;
        while !complete && begun.elapsed() < every {
            node.hooks.recent.store_is_away();
            // Back off even if the store comes back in between: a server that flaps must not be hammered.
            tokio::time::sleep(backoff.failed(crate::runtime::random::u128() as u64)).await;
            complete = round.go(&node, &trust).await;
        }
        left = std::mem::take(&mut round.left);
        if complete {
            node.hooks.recent.expire();
            backoff.succeeded();
            let _ = tokio::time::timeout_at(begun + every, node.store.back()).await;
        } else {
            tokio::time::sleep(backoff.failed(crate::runtime::random::u128() as u64)).await;
        }
    }
}

/// A round of beats, which lists every running stream.
struct Round {
    /// The pages to send next.
    left: Vec<Roll>,
    /// The streams that the store did not take. They are listed again after all others.
    missed: Vec<Arc<Lane>>,
    failed: bool,
}

impl Round {
    /// Creates a round that begins with the pages of `first`, which the last round did not send.
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

    /// Sends the pages that are left. If a page fails, the others are still sent. Returns whether the store took all of
    /// them.
    async fn go(&mut self, node: &Arc<Node>, trust: &Mutex<Trust>) -> bool {
        let mut rolls = std::mem::take(&mut self.left);
        self.missed.retain(|lane| lane.status() == Status::Running);
        rolls.extend(self.missed.chunks(BEAT_PAGE).map(|lanes| Roll::of(lanes.to_vec())));
        self.missed.clear();
        self.failed = false;
        if rolls.is_empty() {
            // A node without streams beats too, because only acknowledged beats allow its guardian to claim orphans.
            rolls.push(Roll::of(Vec::new()));
        }
        let mut hangs = false;
        for rolls in rolls.chunks(BEATS) {
            if hangs {
                // If the store hangs for one page, it hangs for all. Trying the others would delay the next round too
                // much.
                self.left.extend_from_slice(rolls);
                continue;
            }
            let beaten = all(rolls.iter().map(|roll| beat(node, roll))).await;
            for (roll, beaten) in rolls.iter().zip(beaten) {
                hangs |= beaten.as_ref().is_err_and(StoreError::is_timeout);
                self.take_answer(node, trust, &roll.lanes, beaten);
            }
        }
        let may_claim = lock(trust).may_claim(Instant::now().into_std());
        node.telemetry.frozen.store(!may_claim, Ordering::Relaxed);
        !self.failed && self.left.is_empty() && self.missed.is_empty()
    }

    /// Takes the store's answer to a page.
    fn take_answer(
        &mut self,
        node: &Node,
        trust: &Mutex<Trust>,
        page: &[Arc<Lane>],
        beaten: Result<Beaten, StoreError>,
    ) {
        let Ok(beaten) = beaten else {
            lock(trust).failed();
            self.failed = true;
            self.missed.extend_from_slice(page);
            return;
        };
        lock(trust).acknowledged(Instant::now().into_std(), beaten.now, beaten.run);
        node.note_run(beaten.run);
        for lane in beaten.lost.iter().filter_map(|index| page.get(*index)) {
            node.recorder.check_stream(lane);
        }
        self.failed |= !beaten.refused_by.is_empty();
        self.missed.extend(beaten.missed.iter().filter_map(|index| page.get(*index)).cloned());
    }
}

async fn beat(node: &Node, roll: &Roll) -> Result<Beaten, StoreError> {
    node.store.send_beat(node.beat_of(Arc::clone(&roll.streams))).await
}
