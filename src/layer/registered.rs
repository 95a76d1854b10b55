//! A registration whose producer has not begun to answer.

use std::sync::Arc;

use crate::{
    model::id::EventId,
    node::Node,
    recorder::{Lane, Opening},
};

/// A registration. Dropping it before its producer has begun to answer withdraws it.
pub(super) struct Registered {
    pub(super) node: Arc<Node>,
    pub(super) lane: Arc<Lane>,
    /// The last event of the run before, if there was one.
    pub(super) previous: Option<EventId>,
    pub(super) inner_id: Option<String>,
    pub(super) opening: Opening,
}

impl Registered {
    pub(super) fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node)
    }

    /// Whether an earlier run has made events. A run that was interrupted before its first event may not have begun its
    /// work.
    pub(super) fn has_begun_before(&self) -> bool {
        self.previous.is_some_and(|previous| previous.seq > 0)
    }

    /// Keeps the registration, since the producer has begun to answer.
    pub(super) fn start(mut self) -> Arc<Lane> {
        self.opening.keep();
        Arc::clone(&self.lane)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if !self.opening.is_armed() {
            return;
        }
        // `withdraw` settles the lane before the drop of `opening` withdraws the registration from the store. Otherwise
        // an append that is queued or in flight would register the stream again.
        if !self.node.recorder.withdraw(&self.lane) {
            self.opening.keep();
            self.node.turn_is_over(&self.lane);
        }
        self.node.turn_is_left(&self.lane);
    }
}
