//! A follower on the node that produces its stream.

use std::sync::{Arc, atomic::Ordering};

use super::{
    lane::Lane,
    readers::{NOBODY, Place},
};
use crate::{model::id::EventId, runtime::sync::lock};

/// A follower's entry among the readers of a stream that its node produces. Dropping it removes the entry.
#[derive(Debug)]
pub(crate) struct Reader {
    lane: Arc<Lane>,
    place: Arc<Place>,
}

impl Reader {
    /// Enters a follower that has every event up to `at`.
    pub(crate) fn enter(lane: Arc<Lane>, at: Option<EventId>) -> Self {
        let place = Arc::new(Place::at(seq_in(&lane, at)));
        {
            let readers = &lane.readers;
            let mut followers = lock(&readers.followers);
            place.index.store(followers.len(), Ordering::Relaxed);
            followers.push(Arc::clone(&place));
            readers.count.store(followers.len(), Ordering::SeqCst);
            readers.lowest.fetch_min(place.seq.load(Ordering::Relaxed), Ordering::SeqCst);
        }
        lane.wake_drive();
        Self { lane, place }
    }

    /// Whether the run that the follower was entered in is over.
    pub(crate) fn is_over(&self) -> bool {
        self.lane.is_halted()
    }

    /// Notes that the follower has received every event up to `at`.
    pub(crate) fn at(&self, at: Option<EventId>) {
        let seq = seq_in(&self.lane, at);
        // SeqCst, as in `wait_for` and `read_places`: the producer sees the new place, or this reader sees that it waits.
        let before = self.place.seq.swap(seq, Ordering::SeqCst);
        let awaited = self.lane.readers.awaited.load(Ordering::SeqCst);
        if before < awaited && seq >= awaited {
            self.lane.wake_drive();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        {
            let readers = &self.lane.readers;
            let mut followers = lock(&readers.followers);
            let index = self.place.index.load(Ordering::Relaxed);
            followers.swap_remove(index);
            if let Some(moved) = followers.get(index) {
                moved.index.store(index, Ordering::Relaxed);
            }
            readers.count.store(followers.len(), Ordering::SeqCst);
        }
        // The producer may be waiting for this reader, or this may have been the last reader.
        self.lane.wake_drive();
    }
}

/// Returns a reader's place in the lane's run. A reader whose position is in an earlier run has no event of this one.
fn seq_in(lane: &Lane, at: Option<EventId>) -> u64 {
    match at {
        Some(at) if at.epoch == lane.epoch => at.seq.min(NOBODY - 1),
        Some(at) if at.epoch > lane.epoch => NOBODY - 1,
        _ => 0,
    }
}
