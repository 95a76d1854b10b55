//! A registration until its producer has begun to answer.

use std::sync::Arc;

use crate::{
    model::id::EventId,
    node::Node,
    recorder::{Lane, Opening},
};

/// A registration, which is withdrawn if it is dropped before its producer has begun to answer.
pub(super) struct Registered {
    pub(super) node: Arc<Node>,
    pub(super) lane: Arc<Lane>,
    /// Where the run before ended, if there was one.
    pub(super) previous: Option<EventId>,
    pub(super) inner_id: Option<String>,
    pub(super) opening: Opening,
}

impl Registered {
    pub(super) fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node)
    }

    /// Whether an earlier run has made events: one that was interrupted before that may not have begun.
    pub(super) fn has_begun_before(&self) -> bool {
        self.previous.is_some_and(|previous| previous.seq > 0)
    }

    /// The producer has begun to answer: from here on its body decides.
    pub(super) fn start(mut self) -> Arc<Lane> {
        self.opening.keep();
        Arc::clone(&self.lane)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // Settled first: an append that is queued or in flight must not register the stream again.
        if !self.opening.is_armed() {
            return;
        }
        if !self.node.recorder.withdraw(&self.lane) {
            self.opening.keep();
            self.node.turn_is_over(&self.lane);
        }
        self.node.turn_is_left(&self.lane);
    }
}
