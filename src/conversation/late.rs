//! Repeats the moves of a pointer that the store did not take when the turn began, or has lost since.

use std::{sync::Arc, time::Duration};

use crate::{
    model::error::StoreError,
    node::Node,
    protocol::backoff::Backoff,
    recorder::{Begun, LATE, Lane, Status},
    store::{Expected, Point, Pointed},
};

/// How often a pointer that a late move may have reached is cleaned up. If all tries fail, the next caller of `current`
/// does it.
const TRIES: u32 = 5;
/// The first pause before a move is repeated.
const SOON: Duration = Duration::from_millis(200);

impl Node {
    /// Lets a turn begin although the store has not moved the pointer to it, and repeats the move in a spawned task.
    pub(crate) fn begin_anyway(self: &Arc<Self>, lane: &Arc<Lane>) {
        if let Some(begun) = lane.turn() {
            begun.begins_anyway();
        }
        self.point_later(lane);
    }

    /// Spawns a task that moves the pointer to a turn that is already served. The task ends once the pointer is moved,
    /// or the turn no longer runs.
    pub(super) fn point_later(self: &Arc<Self>, lane: &Arc<Lane>) {
        let Some(begun) = lane.turn().filter(|begun| begun.begins_moving()) else { return };
        let (node, lane, begun) = (Arc::clone(self), Arc::clone(lane), Arc::clone(begun));
        self.executor.spawn(async move {
            let mut backoff = Backoff::new(SOON, node.settings.beat_every());
            while begun.is_to_point() && runs(&lane) {
                tokio::time::sleep(backoff.failed(crate::runtime::random::u128() as u64)).await;
                if runs(&lane) && !node.store.is_broken(&begun.conversation) {
                    // If this fails, the loop tries again.
                    let _ = node.catch_up(&lane, &begun).await;
                }
            }
            begun.ends_moving();
            if begun.is_unanswered() && !runs(&lane) {
                node.tidy_late(&lane).await;
            }
        });
    }

    /// Moves the pointer to a turn, or enters the turn behind those that have begun since. If one of these has started,
    /// this turn is stopped at once, because it was not in the pointer when that one stopped the others.
    async fn catch_up(self: &Arc<Self>, lane: &Arc<Lane>, begun: &Begun) -> Result<(), StoreError> {
        let named = self.store.pointer(begun.conversation.clone()).await?;
        let point = Point {
            conversation: begun.conversation.clone(),
            stream: lane.key.id.clone(),
            place: begun.place(),
            // The age in `place` is wrong if this move arrives late. So the move names the pointer that it expects, and
            // cannot replace a turn that begins in the meantime.
            expected: named.map_or(Expected::Nothing, |named| Expected::Stream(named.stream)),
            ttl: lane.retention().kept(),
        };
        if let Pointed::Moved(pointer) = self.send_move(begun, point).await? {
            begun.pointed(&lane.key.id, &pointer);
            if begun.is_to_finish() {
                self.finish(lane).await;
            }
            if pointer.stream != lane.key.id {
                self.current(&begun.conversation).await?;
            }
            self.tidy(lane, begun).await?;
        }
        Ok(())
    }

    /// Tidies up after a move that was not answered, at a time when the move must have arrived if it ever does.
    pub(super) async fn tidy_late(self: &Arc<Self>, lane: &Lane) {
        let Some(begun) = lane.turn() else { return };
        for _ in 0..TRIES {
            tokio::time::sleep(LATE).await;
            // `current` stops the streams behind the turn, which were not known when the turn started.
            if self.tidy(lane, begun).await.is_ok() && self.current(&begun.conversation).await.is_ok() {
                return;
            }
        }
    }

    /// Corrects a pointer that was moved to, or restored for, a stream that had stopped running by then: the pointer
    /// must not outlive the stream.
    pub(super) async fn tidy(&self, lane: &Lane, begun: &Begun) -> Result<(), StoreError> {
        if runs(lane) {
            return Ok(());
        }
        let (conversation, stream) = (begun.conversation.clone(), lane.key.id.clone());
        match self.store.info(lane.key.clone()).await? {
            None => self.store.unpoint(conversation, stream, Some(lane.epoch)).await.map(drop),
            // The stream was stopped before it began, so the pointer goes back to the turn before.
            Some(info) if info.state.is_terminal() && !info.started => {
                self.store.unpoint(conversation, stream, Some(lane.epoch)).await.map(drop)
            }
            Some(info) if info.state.is_terminal() => {
                self.store.renew(vec![begun.expiring(&lane.key.id, lane.retention().recovery_window)]).await.map(drop)
            }
            Some(_) => Ok(()),
        }
    }
}

pub(super) fn runs(lane: &Lane) -> bool {
    lane.status() == Status::Running && !lane.is_ending()
}
