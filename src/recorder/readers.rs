//! Who reads a stream on the node that produces it, and how far each of them has come.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use crate::{model::config::BATCH_EVENTS, runtime::sync::lock};

/// The place of a client that is not there.
pub(super) const NOBODY: u64 = u64::MAX;

/// The readers of a stream on this node.
///
/// A reader notes its place once a frame, in an atomic of its own. A body that is driven on compares with the lowest
/// place it knows of, which is never above the true one, and looks at all places only where that one would stop it.
#[derive(Debug)]
pub(crate) struct Readers {
    /// The client whose request runs the inner body, until it reads from the log like any follower.
    client: Place,
    pub(super) followers: Mutex<Vec<Arc<Place>>>,
    pub(super) count: AtomicUsize,
    /// No reader that is waited for is further back than this.
    pub(super) lowest: AtomicU64,
    /// Below which place readers are waited for now; 0 while none is.
    pub(super) awaited: AtomicU64,
}

/// How far one reader has come.
#[derive(Debug)]
pub(super) struct Place {
    /// The seq of the last event that it was given.
    pub(super) seq: AtomicU64,
    /// It missed its wait, and is not waited for again until it has come near.
    passed: AtomicBool,
    /// Where it stands in the list.
    pub(super) index: AtomicUsize,
}

impl Place {
    pub(super) fn at(seq: u64) -> Self {
        Self { seq: AtomicU64::new(seq), passed: AtomicBool::new(false), index: AtomicUsize::new(0) }
    }
}

/// How far a producer may go ahead of its readers, so that the log holds what they have not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The last event made, and the last one that is there to be read.
    pub(crate) made: u64,
    pub(crate) stored: u64,
    /// The lowest place of a reader that is not overtaken by one more event, or that has read all there is.
    pub(crate) floor: u64,
    /// The same by half of what the log holds: a reader from there on has caught up.
    pub(crate) half: u64,
    /// How many events the log holds.
    pub(crate) events: u64,
}

impl Bounds {
    /// How many events may be made while the slowest reader is here; `None`: it is waited for.
    pub(crate) fn room(&self, slowest: u64) -> Option<usize> {
        let ahead = self.made.saturating_sub(slowest);
        let room = self.events.saturating_sub(ahead).clamp(1, BATCH_EVENTS as u64);
        (slowest >= self.floor).then_some(room as usize)
    }
}

/// The result of a look at all places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The place of the slowest reader that is waited for, or the last event made where none is.
    pub(crate) slowest: u64,
    /// A reader has been given everything that is there to be read.
    pub(crate) caught_up: bool,
    /// No reader that is waited for is further back than half of what the log holds.
    pub(crate) all_near: bool,
}

impl Readers {
    pub(super) fn new() -> Self {
        Self {
            client: Place::at(NOBODY),
            followers: Mutex::default(),
            count: AtomicUsize::new(0),
            lowest: AtomicU64::new(NOBODY),
            awaited: AtomicU64::new(0),
        }
    }

    /// The client whose request runs the inner body is there.
    pub(crate) fn attach_client(&self) {
        self.client.seq.store(0, Ordering::SeqCst);
        self.lowest.fetch_min(0, Ordering::SeqCst);
    }

    /// That client was given everything up to here.
    pub(crate) fn client_at(&self, seq: u64) {
        self.client.seq.store(seq, Ordering::Relaxed);
    }

    /// That client is gone, or reads from the log now.
    pub(crate) fn detach_client(&self) {
        self.client.seq.store(NOBODY, Ordering::SeqCst);
    }

    /// Whether anybody reads on this node.
    pub(crate) fn any(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0 || self.client.seq.load(Ordering::SeqCst) != NOBODY
    }

    /// How many read from the log on this node.
    pub(crate) fn followers(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// The lowest place of those who are waited for, as far as is known: it may have risen since.
    pub(crate) fn lowest(&self) -> u64 {
        self.lowest.load(Ordering::SeqCst)
    }

    /// Has the producer woken by each reader that reaches this place; 0: by none.
    pub(crate) fn wait_for(&self, floor: u64) {
        self.awaited.store(floor, Ordering::SeqCst);
    }

    /// Looks at all places. Complexity: O(readers).
    pub(crate) fn look(&self, bounds: &Bounds) -> Seen {
        let followers = lock(&self.followers);
        let mut seen = Seen { slowest: bounds.made, caught_up: false, all_near: true };
        for place in followers.iter().map(|place| &**place).chain([&self.client]) {
            let seq = place.seq.load(Ordering::SeqCst);
            if seq == NOBODY {
                continue;
            }
            seen.caught_up |= seq >= bounds.stored;
            if place.passed.load(Ordering::Relaxed) {
                if seq < bounds.half {
                    continue;
                }
                place.passed.store(false, Ordering::Relaxed);
            }
            seen.slowest = seen.slowest.min(seq);
            seen.all_near &= seq >= bounds.half;
        }
        // Under the lock: who enters meanwhile comes after this, and is not overlooked.
        self.lowest.store(seen.slowest, Ordering::SeqCst);
        seen
    }

    /// Marks the readers before this place as having missed their wait.
    pub(crate) fn pass_by(&self, before: u64) {
        for place in lock(&self.followers).iter().map(|place| &**place).chain([&self.client]) {
            let seq = place.seq.load(Ordering::SeqCst);
            if seq < before {
                place.passed.store(true, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of readers, and what a body that made so many events may do.
    fn bounds(made: u64, events: u64) -> Bounds {
        let floor = |events: u64| (made + 1).saturating_sub(events).min(made);
        Bounds { made, stored: made, floor: floor(events), half: floor(events / 2), events }
    }

    #[test]
    fn room_is_what_the_log_holds_beyond_the_slowest() {
        let bounds = bounds(100, 80);
        assert_eq!(bounds.room(20), None);
        assert_eq!(bounds.room(21), Some(1));
        assert_eq!(bounds.room(50), Some(30));
        assert_eq!(bounds.room(100), Some(64));
        assert_eq!(bounds.room(NOBODY), Some(64));
    }

    /// A reader that has read every stored event is not waited for, however many unstored ones there are.
    #[test]
    fn a_reader_with_nothing_to_read_is_not_behind() {
        let bounds = Bounds { made: 1000, stored: 50, floor: 50, half: 50, events: 10 };
        assert_eq!((bounds.room(49), bounds.room(50)), (None, Some(1)));
    }

    #[test]
    fn who_was_passed_by_counts_again_once_it_has_caught_up() {
        let readers = Readers::new();
        readers.attach_client();
        let far = bounds(100, 40);
        assert_eq!(readers.look(&far), Seen { slowest: 0, caught_up: false, all_near: false });
        readers.pass_by(far.floor);
        assert_eq!(readers.look(&far), Seen { slowest: 100, caught_up: false, all_near: true });
        assert_eq!(readers.lowest(), 100);
        readers.client_at(70);
        assert_eq!(readers.look(&far).slowest, 100, "nearer, and not near");
        readers.client_at(81);
        assert_eq!(readers.look(&far), Seen { slowest: 81, caught_up: false, all_near: true });
        readers.client_at(100);
        assert!(readers.look(&far).caught_up);
        readers.detach_client();
        assert_eq!(readers.look(&far), Seen { slowest: 100, caught_up: false, all_near: true });
        assert!(!readers.any());
    }
}
