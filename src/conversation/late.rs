//! Moves of a pointer that the store did not take when the turn began, or has lost since.

use std::{sync::Arc, time::Duration};

use super::{Begun, Current, has_failed_to_begin};
use crate::{
    error::StoreError,
    hub::Core,
    protocol::backoff::Backoff,
    recorder::{Lane, Status},
    store::{Expected, Point, Pointed},
    stream::{StreamInfo, StreamState, reason},
};

/// How soon a move is tried again.
const SOON: Duration = Duration::from_millis(200);

/// What the turn that a pointer names means for one that is not in the pointer.
enum Front {
    /// It is older, or has failed: it goes behind.
    Older,
    /// It is newer, and may still fail to begin.
    Waits,
    /// It is newer and has begun.
    Newer,
}

impl Front {
    fn of(info: &StreamInfo, lane: &Lane) -> Self {
        match info.state {
            _ if info.epoch <= lane.epoch || has_failed_to_begin(info) => Self::Older,
            StreamState::Active if !info.started => Self::Waits,
            _ => Self::Newer,
        }
    }
}

impl Core {
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
        let (core, lane, begun) = (Arc::clone(self), Arc::clone(lane), Arc::clone(begun));
        self.executor.spawn(async move {
            let mut backoff = Backoff::new(SOON, core.settings.beat_every());
            while begun.is_to_point() && runs(&lane) {
                tokio::time::sleep(backoff.failed(crate::random::u128() as u64)).await;
                if runs(&lane) && !core.store.is_broken(&begun.conversation) {
                    // Should this fail, it is tried again.
                    let _ = core.catch_up(&lane, &begun).await;
                }
            }
            begun.ends_moving();
        });
    }

    /// Moves the pointer to a turn, unless a newer one has begun: the turn gives way to that by itself, as it was not in the pointer to be
    /// stopped.
    async fn catch_up(self: &Arc<Self>, lane: &Arc<Lane>, begun: &Begun) -> Result<(), StoreError> {
        let expected = match self.current(&begun.conversation).await? {
            None => Expected::Nothing,
            Some(Current { pointer, .. }) if pointer.knows(&lane.key.id) => Expected::Any,
            Some(Current { pointer, info }) => match Front::of(&info, lane) {
                Front::Older => Expected::Stream(pointer.stream),
                Front::Waits => return Ok(()),
                Front::Newer => {
                    if info.turn.is_none_or(|turn| turn.overlap.stops()) {
                        self.stop(&lane.key, reason::REPLACED).await?;
                    }
                    begun.pass();
                    return Ok(());
                }
            },
        };
        let point = Point {
            conversation: begun.conversation.clone(),
            stream: lane.key.id.clone(),
            expected,
            ttl: lane.retention().kept(),
        };
        if let Pointed::Moved(pointer) = self.store.point(point).await? {
            begun.pointed(pointer.behind(&lane.key.id));
            if begun.is_to_finish() {
                self.finish(lane).await;
            }
            self.tidy(lane, begun).await?;
        }
        Ok(())
    }

    /// Sets right a pointer that was moved or put back for a stream that ran no more by then: it goes with the stream.
    pub(super) async fn tidy(self: &Arc<Self>, lane: &Lane, begun: &Begun) -> Result<(), StoreError> {
        if runs(lane) {
            return Ok(());
        }
        let (conversation, stream) = (begun.conversation.clone(), lane.key.id.clone());
        match self.store.info(lane.key.clone()).await? {
            None => self.store.unpoint(conversation, stream).await.map(drop),
            Some(info) if info.state.is_terminal() => self.store.renew(vec![begun.expiring(lane)]).await.map(drop),
            Some(_) => Ok(()),
        }
    }
}

pub(super) fn runs(lane: &Lane) -> bool {
    lane.status() == Status::Running && !lane.is_ending()
}
