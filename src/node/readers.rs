//! The readers of a stream on this node and on others, and how a node announces a reader to the producing node.

use std::{
    collections::HashSet,
    future::poll_fn,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    model::{id::StreamKey, kept::KeptHeaders},
    node::Node,
    recorder::Lane,
    runtime::sync::lock,
};

/// How long a follower waits for a producer to begin its answer and for the kept headers of that answer, both together.
pub(crate) const BEGIN_WAIT: Duration = Duration::from_secs(2);

impl Node {
    /// Whether the stream of this lane has a reader, on this node (its client included) or on another.
    pub(crate) fn is_read(&self, lane: &Arc<Lane>) -> bool {
        lane.readers.any() || self.is_read_elsewhere(lane)
    }

    /// Whether the stream of this lane has a reader on another node, as far as this node knows. While the stream's part
    /// of the store does not answer, other nodes cannot announce readers, so the earlier ones still count.
    pub(crate) fn is_read_elsewhere(&self, lane: &Arc<Lane>) -> bool {
        let follows = self.store.is_followed_beside(&lane.key, lane.readers.followers());
        let (was, is) = lane.is_read_elsewhere(follows, !follows && self.store.is_mute(&lane.key));
        if is && !was {
            lock(&self.read_elsewhere).push(Arc::downgrade(lane));
        }
        is
    }

    /// Notes which streams of this process have readers on other nodes. The note is used while the store does not
    /// answer.
    pub(crate) fn note_who_is_read(&self) {
        let asked = match self.store.followed() {
            Some(followed) => {
                // Streams that had readers before are asked about too, since the readers may have left.
                let before: Vec<_> = lock(&self.read_elsewhere).iter().filter_map(Weak::upgrade).collect();
                before.into_iter().chain(followed.iter().filter_map(|key| self.recorder.lane(key))).collect()
            }
            None => self.recorder.lanes(),
        };
        for lane in asked {
            let _ = self.is_read_elsewhere(&lane);
        }
        // A stream that was unread for a while is in the list twice.
        let mut kept = HashSet::new();
        lock(&self.read_elsewhere).retain(|lane| {
            let is_read = lane.upgrade().is_some_and(|lane| !lane.is_halted() && lane.was_read_elsewhere());
            is_read && kept.insert(lane.as_ptr())
        });
    }

    /// Announces a reader on this node to the node that produces the stream.
    pub(crate) async fn announce(&self, key: &StreamKey) {
        // With an immediate store all nodes are one process. A stream of this node counts its followers itself.
        if self.store.is_immediate() || self.recorder.lane(key).is_some() {
            return;
        }
        // An error is ignored: the store still tells the producing node of the reader, only later.
        let _ = self.store.announce(key.clone()).await;
    }

    /// Returns the kept headers of a stream's response. If the producer has not answered yet, this waits for its answer
    /// until the deadline.
    pub(crate) async fn await_headers(&self, key: &StreamKey, known: KeptHeaders, deadline: Instant) -> KeptHeaders {
        if known != KeptHeaders::Awaited {
            return known;
        }
        let waits = async {
            let mut tail = self.store.tail(key);
            loop {
                let headers = match self.recorder.lane(key) {
                    Some(lane) => lane.headers().clone(),
                    None => {
                        self.store.info(key.clone()).await.ok().flatten().map(|info| info.headers).unwrap_or_default()
                    }
                };
                if headers != KeptHeaders::Awaited {
                    return headers;
                }
                poll_fn(|cx| tail.poll_changed(cx)).await;
            }
        };
        tokio::time::timeout_at(deadline, waits).await.unwrap_or_default()
    }
}
