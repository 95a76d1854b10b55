//! Who reads a stream, and how a reader on another node announces itself.

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

/// How long a follower waits for a producer to begin to answer, and for the headers that are kept of that answer: both together.
pub(crate) const BEGIN_WAIT: Duration = Duration::from_secs(2);

impl Node {
    /// Whether anybody reads the stream of this lane: on this node, its client included, or on another.
    pub(crate) fn is_read(&self, lane: &Arc<Lane>) -> bool {
        lane.readers.any() || self.is_read_elsewhere(lane)
    }

    /// Whether anybody reads the stream of this lane on another node, as far as is known here. While the stream's part of the
    /// store does not answer nobody can say so: whoever read before counts as a reader still.
    pub(crate) fn is_read_elsewhere(&self, lane: &Arc<Lane>) -> bool {
        let follows = self.store.is_followed_beside(&lane.key, lane.readers.followers());
        let (was, is) = lane.is_read_elsewhere(follows, !follows && self.store.is_mute(&lane.key));
        if is && !was {
            lock(&self.read_elsewhere).push(Arc::downgrade(lane));
        }
        is
    }

    /// Notes which streams of this process are read on other nodes, so that this is known once nothing can be heard of it.
    pub(crate) fn note_who_is_read(&self) {
        let asked = match self.store.followed() {
            Some(followed) => {
                // Those that were read before, too: they may not be any more.
                let before: Vec<_> = lock(&self.read_elsewhere).iter().filter_map(Weak::upgrade).collect();
                before.into_iter().chain(followed.iter().filter_map(|key| self.recorder.lane(key))).collect()
            }
            None => self.recorder.lanes(),
        };
        for lane in asked {
            let _ = self.is_read_elsewhere(&lane);
        }
        // A stream that was unread for a while is there twice.
        let mut kept = HashSet::new();
        lock(&self.read_elsewhere).retain(|lane| {
            let is_read = lane.upgrade().is_some_and(|lane| !lane.is_halted() && lane.was_read_elsewhere());
            is_read && kept.insert(lane.as_ptr())
        });
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

    /// The headers that are kept of a stream's response: as far as they are known, or once its producer has answered; that is waited for
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
