//! Moves of a pointer that the store did not take when the turn began, or has lost since.

use std::{sync::Arc, time::Duration};

use crate::{
    model::error::StoreError,
    node::Node,
    protocol::backoff::Backoff,
    recorder::{Begun, LATE, Lane, Status},
    store::{Expected, Point, Pointed},
};

/// How often a pointer is looked after that a move may have reached late. Should all fail, whoever looks at it next does it.
const TRIES: u32 = 5;
/// How soon a move is tried again.
const SOON: Duration = Duration::from_millis(200);

impl Node {
    /// A turn is served although the store has not moved the pointer to it: that is done later.
    pub(crate) fn begin_anyway(self: &Arc<Self>, lane: &Arc<Lane>) {
        if let Some(begun) = lane.turn() {
            begun.begins_anyway();
        }
        self.point_later(lane);
    }

    /// Goes on moving the pointer to a turn that is served already, beside the caller, until it is moved or the turn runs no more.
    pub(super) fn point_later(self: &Arc<Self>, lane: &Arc<Lane>) {
        let Some(begun) = lane.turn().filter(|begun| begun.begins_moving()) else { return };
        let (node, lane, begun) = (Arc::clone(self), Arc::clone(lane), Arc::clone(begun));
        self.executor.spawn(async move {
            let mut backoff = Backoff::new(SOON, node.settings.beat_every());
            while begun.is_to_point() && runs(&lane) {
                tokio::time::sleep(backoff.failed(crate::runtime::random::u128() as u64)).await;
                if runs(&lane) && !node.store.is_broken(&begun.conversation) {
                    // Should this fail, it is tried again.
                    let _ = node.catch_up(&lane, &begun).await;
                }
            }
            begun.ends_moving();
            if begun.is_unanswered() && !runs(&lane) {
                node.tidy_late(&lane).await;
            }
        });
    }

    /// Moves the pointer to a turn, or puts the turn behind those that have begun since: to one that has started it gives way at once, since it
    /// was not in the pointer to be stopped.
    async fn catch_up(self: &Arc<Self>, lane: &Arc<Lane>, begun: &Begun) -> Result<(), StoreError> {
        let named = self.store.pointer(begun.conversation.clone()).await?;
        let point = Point {
            conversation: begun.conversation.clone(),
            stream: lane.key.id.clone(),
            place: begun.place(),
            // Should this arrive late, its place is not as long ago as it says: it is not to pass a turn that begins meanwhile.
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

    /// The same for a move that nothing was heard of, once it has arrived if it ever does.
    pub(super) async fn tidy_late(self: &Arc<Self>, lane: &Lane) {
        let Some(begun) = lane.turn() else { return };
        for _ in 0..TRIES {
            tokio::time::sleep(LATE).await;
            // Whoever stands behind the turn was not known when that started.
            if self.tidy(lane, begun).await.is_ok() && self.current(&begun.conversation).await.is_ok() {
                return;
            }
        }
    }

    /// Sets right a pointer that was moved or put back for a stream that ran no more by then: it goes with the stream.
    pub(super) async fn tidy(&self, lane: &Lane, begun: &Begun) -> Result<(), StoreError> {
        if runs(lane) {
            return Ok(());
        }
        let (conversation, stream) = (begun.conversation.clone(), lane.key.id.clone());
        match self.store.info(lane.key.clone()).await? {
            None => self.store.unpoint(conversation, stream, Some(lane.epoch)).await.map(drop),
            // It was stopped before it began: the pointer goes back to the turn before.
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
