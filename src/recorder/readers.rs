//! The readers of a stream on the node that produces it, and the place of each.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use crate::{model::config::BATCH_EVENTS, runtime::sync::lock};

/// The place of a client that is not attached.
pub(super) const NOBODY: u64 = u64::MAX;

/// The readers of a stream on this node.
///
/// A reader updates its place once a frame, in an atomic of its own. The producer compares with `lowest`, which is
/// never above the true lowest place, and reads all places only if it would have to wait for that one.
#[derive(Debug)]
pub(crate) struct Readers {
    /// The client whose request runs the inner body, until it reads from the log like a follower.
    client: Place,
    pub(super) followers: Mutex<Vec<Arc<Place>>>,
    pub(super) count: AtomicUsize,
    /// A lower bound of the places of the readers that the producer waits for.
    pub(super) lowest: AtomicU64,
    /// The place that a reader has to reach to wake the producer; 0 while the producer does not wait.
    pub(super) awaited: AtomicU64,
}

/// The place of a reader.
#[derive(Debug)]
pub(super) struct Place {
    /// The seq of the last event that the reader received.
    pub(super) seq: AtomicU64,
    /// Whether the reader was too slow once. The producer does not wait for it again until it has caught up.
    passed: AtomicBool,
    /// The index in the list of followers.
    pub(super) index: AtomicUsize,
}

impl Place {
    pub(super) fn at(seq: u64) -> Self {
        Self { seq: AtomicU64::new(seq), passed: AtomicBool::new(false), index: AtomicUsize::new(0) }
    }
}

/// How far a producer may go ahead of its readers, so that the log still holds what they have not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The seq of the last event produced.
    pub(crate) made: u64,
    /// The seq of the last event that can be read from the log.
    pub(crate) stored: u64,
    /// The lowest place that one more event does not push out of the log, or `stored` if that is lower.
    pub(crate) floor: u64,
    /// The same for half of the log. A reader at this place or later has caught up.
    pub(crate) half: u64,
    /// How many events the log holds.
    pub(crate) events: u64,
}

impl Bounds {
    /// Returns how many events may be produced while the slowest reader is at this place; `None` if the producer must
    /// wait.
    pub(crate) fn room(&self, slowest: u64) -> Option<usize> {
        let ahead = self.made.saturating_sub(slowest);
        let room = self.events.saturating_sub(ahead).clamp(1, BATCH_EVENTS as u64);
        (slowest >= self.floor).then_some(room as usize)
    }
}

/// The result of reading all places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The place of the slowest reader that the producer waits for; without such a reader the last event produced.
    pub(crate) slowest: u64,
    /// Whether a reader has received every event that can be read.
    pub(crate) caught_up: bool,
    /// Whether all readers that the producer waits for are within half of the log.
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

    /// Attaches the client whose request runs the inner body.
    pub(crate) fn attach_client(&self) {
        self.client.seq.store(0, Ordering::SeqCst);
        self.lowest.fetch_min(0, Ordering::SeqCst);
    }

    /// Notes that this client has received every event up to `seq`.
    pub(crate) fn client_at(&self, seq: u64) {
        self.client.seq.store(seq, Ordering::Relaxed);
    }

    /// Detaches this client, which has left or reads from the log from now on.
    pub(crate) fn detach_client(&self) {
        self.client.seq.store(NOBODY, Ordering::SeqCst);
    }

    /// Whether the stream has a reader on this node.
    pub(crate) fn any(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0 || self.client.seq.load(Ordering::SeqCst) != NOBODY
    }

    /// Returns the number of followers on this node.
    pub(crate) fn followers(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Returns a lower bound of the places of the readers that the producer waits for.
    pub(crate) fn lowest(&self) -> u64 {
        self.lowest.load(Ordering::SeqCst)
    }

    /// Has each reader that reaches the place `floor` wake the producer; 0 means none.
    pub(crate) fn wait_for(&self, floor: u64) {
        self.awaited.store(floor, Ordering::SeqCst);
    }

    /// Reads all places. Complexity: O(readers).
    pub(crate) fn read_places(&self, bounds: &Bounds) -> Seen {
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
        // Stored under the lock: a reader that enters later lowers the value again.
        self.lowest.store(seen.slowest, Ordering::SeqCst);
        seen
    }

    /// Marks the readers before this place as too slow, so that the producer does not wait for them.
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

    /// Returns the bounds of a producer that has produced `made` events, all stored, with a log of `events` events.
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

    /// The producer does not wait for a reader that has every stored event, however many unstored ones there are.
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
        assert_eq!(readers.read_places(&far), Seen { slowest: 0, caught_up: false, all_near: false });
        readers.pass_by(far.floor);
        assert_eq!(readers.read_places(&far), Seen { slowest: 100, caught_up: false, all_near: true });
        assert_eq!(readers.lowest(), 100);
        readers.client_at(70);
        assert_eq!(readers.read_places(&far).slowest, 100, "nearer, and not near");
        readers.client_at(81);
        assert_eq!(readers.read_places(&far), Seen { slowest: 81, caught_up: false, all_near: true });
        readers.client_at(100);
        assert!(readers.read_places(&far).caught_up);
        readers.detach_client();
        assert_eq!(readers.read_places(&far), Seen { slowest: 100, caught_up: false, all_near: true });
        assert!(!readers.any());
    }

    #[test]
    fn only_readers_before_the_place_are_passed_by() {
        let readers = Readers::new();
        readers.attach_client();
        let far = bounds(100, 40);
        readers.client_at(far.floor);
        readers.pass_by(far.floor);
        assert_eq!(readers.read_places(&far).slowest, far.floor);
    }
}
