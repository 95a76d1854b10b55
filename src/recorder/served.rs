//! The streams that producers of this process serve to clients unrecorded.

use std::sync::{Arc, Mutex, Weak};

use super::lane::Lane;
use crate::runtime::sync::lock;

/// The streams that could not be registered, or were closed as orphaned while their producer still serves a client.
#[derive(Debug, Default)]
pub(super) struct ServedOn(Mutex<Vec<Weak<Lane>>>);

impl ServedOn {
    /// Enters a stream, which stays until its producer is dropped.
    pub(super) fn enter(&self, lane: &Arc<Lane>) {
        let mut lanes = lock(&self.0);
        if lanes.len() == lanes.capacity() {
            // Removes dead entries only when the list would grow, so that an insertion takes amortized constant time.
            lanes.retain(is_alive);
            let alive = lanes.len();
            lanes.reserve(alive.max(4));
        }
        lanes.push(Arc::downgrade(lane));
    }

    /// Removes the streams that are over.
    pub(super) fn tidy(&self) {
        let mut lanes = lock(&self.0);
        lanes.retain(is_alive);
        lanes.shrink_to_fit();
    }

    /// Returns the streams that may still be served.
    pub(super) fn all(&self) -> Vec<Arc<Lane>> {
        lock(&self.0).iter().filter_map(Weak::upgrade).collect()
    }
}

fn is_alive(lane: &Weak<Lane>) -> bool {
    lane.strong_count() > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::roster::tests::open;

    fn lane() -> Arc<Lane> {
        Lane::unrecorded(open("a"), &Arc::new(open("a").retention))
    }

    #[test]
    fn g6_streams_that_are_over_take_no_room() {
        let served = ServedOn::default();
        let first = lane();
        served.enter(&first);
        for _ in 0..1000 {
            served.enter(&lane());
        }
        assert_eq!(served.all().len(), 1);
        assert!(lock(&served.0).capacity() < 10, "one at a time was served beside the first");
        served.tidy();
        assert_eq!((served.all().len(), lock(&served.0).len()), (1, 1));
        drop(first);
        served.tidy();
        assert_eq!((served.all().len(), lock(&served.0).capacity()), (0, 0));
    }
}
