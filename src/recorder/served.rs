//! The streams that nothing is recorded of, and that a producer of this process serves to a client all the same.

use std::sync::{Arc, Mutex, Weak};

use super::lane::Lane;
use crate::runtime::sync::lock;

/// Streams that could not be registered, or were closed as orphaned while their producer serves on.
#[derive(Debug, Default)]
pub(super) struct ServedOn(Mutex<Vec<Weak<Lane>>>);

impl ServedOn {
    /// Enters a stream. It leaves with its producer.
    pub(super) fn enter(&self, lane: &Arc<Lane>) {
        let mut lanes = lock(&self.0);
        if lanes.len() == lanes.capacity() {
            // Only where it would have to grow, so that many of them cost no more each than few.
            lanes.retain(is_alive);
            let alive = lanes.len();
            lanes.reserve(alive.max(4));
        }
        lanes.push(Arc::downgrade(lane));
    }

    /// Forgets the streams that are over.
    pub(super) fn tidy(&self) {
        let mut lanes = lock(&self.0);
        lanes.retain(is_alive);
        lanes.shrink_to_fit();
    }

    /// The streams that may still be served.
    pub(super) fn all(&self) -> Vec<Arc<Lane>> {
        lock(&self.0).iter().filter_map(Weak::upgrade).collect()
    }
}

fn is_alive(lane: &Weak<Lane>) -> bool {
    lane.strong_count() > 0
}
