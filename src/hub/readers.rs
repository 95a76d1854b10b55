//! Who reads a stream, and how a reader on another node announces itself.

use std::{future::poll_fn, task::Poll};

use super::Core;
use crate::{id::StreamKey, recorder::Lane};

impl Core {
    /// Whether anybody reads the stream of this lane: on this node, its client included, or on another.
    pub(crate) fn is_read(&self, lane: &Lane) -> bool {
        lane.readers.any() || self.is_read_elsewhere(lane)
    }

    /// Whether anybody reads the stream of this lane on another node, as far as is known here. While the stream's part of the
    /// store does not answer nobody can say so: whoever read before counts as a reader still.
    pub(crate) fn is_read_elsewhere(&self, lane: &Lane) -> bool {
        let follows = self.store.is_followed_beside(&lane.key, lane.readers.followers());
        lane.is_read_elsewhere(follows, !follows && self.store.is_mute(&lane.key))
    }

    /// Tells the node that produces a stream that it is read here.
    pub(crate) async fn announce(&self, key: &StreamKey) {
        // Nodes of an immediate store are one process, and a stream of this node counts its followers itself.
        if self.store.is_immediate() || self.recorder.lane(key).is_some() {
            return;
        }
        // Best effort: without it the producing node learns of the reader within the store's own time.
        let _ = self.store.announce(key.clone()).await;
    }

    /// The same, and returns the reconnect delay that the inner service set: both in the time of one request.
    pub(crate) async fn announce_and_ask_delay(&self, key: &StreamKey) -> Option<u64> {
        if let Some(lane) = self.recorder.lane(key) {
            return lane.inner_retry();
        }
        let mut announced = Box::pin(self.announce(key));
        let mut asked = Box::pin(self.store.info(key.clone()));
        let (mut is_announced, mut info) = (false, None);
        poll_fn(|cx| {
            is_announced = is_announced || announced.as_mut().poll(cx).is_ready();
            if info.is_none()
                && let Poll::Ready(answer) = asked.as_mut().poll(cx)
            {
                info = Some(answer);
            }
            if is_announced && info.is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        info?.ok()??.inner_retry
    }
}
