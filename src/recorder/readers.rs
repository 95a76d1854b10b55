//! Who reads a stream on the node that produces it, and how far each of them has come.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use super::Lane;
use crate::{
    model::{config::BATCH_EVENTS, id::EventId},
    runtime::sync::lock,
};

/// The place of a client that is not there.
const NOBODY: u64 = u64::MAX;

/// The readers of a stream on this node.
///
/// A reader notes its place once a frame, in an atomic of its own. A body that is driven on compares with the lowest
/// place it knows of, which is never above the true one, and looks at all places only where that one would stop it.
#[derive(Debug)]
pub(crate) struct Readers {
    /// The client whose request runs the inner body, until it reads from the log like any follower.
    client: Place,
    followers: Mutex<Vec<Arc<Place>>>,
    count: AtomicUsize,
    /// No reader that is waited for is further back than this.
    lowest: AtomicU64,
    /// Below which place readers are waited for now; 0 while none is.
    awaited: AtomicU64,
}

/// How far one reader has come.
#[derive(Debug)]
struct Place {
    /// The seq of the last event that it was given.
    seq: AtomicU64,
    /// It missed its wait, and is not waited for again until it has come near.
    passed: AtomicBool,
    /// Where it stands in the list.
    index: AtomicUsize,
}

impl Place {
    fn at(seq: u64) -> Self {
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

/// A follower's entry among the readers of a stream that is produced on its node. Dropping it takes it out.
#[derive(Debug)]
pub(crate) struct Reader {
    lane: Arc<Lane>,
    place: Arc<Place>,
}

impl Reader {
    /// Enters a follower that has everything up to `at`.
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

    /// Whether the run that it was entered in is over.
    pub(crate) fn is_over(&self) -> bool {
        self.lane.is_halted()
    }

    /// The follower was given everything up to here.
    pub(crate) fn at(&self, at: Option<EventId>) {
        let seq = seq_in(&self.lane, at);
        // SeqCst, like in `wait_for` and `look`: either the producer sees the new place, or this sees that it waits.
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
        // Perhaps it was the last one, or the one that was waited for.
        self.lane.wake_drive();
    }
}

/// A reader's place in the lane's run: what it has of an earlier run is not of this one.
fn seq_in(lane: &Lane, at: Option<EventId>) -> u64 {
    match at {
        Some(at) if at.epoch == lane.epoch => at.seq.min(NOBODY - 1),
        Some(at) if at.epoch > lane.epoch => NOBODY - 1,
        _ => 0,
    }
}

/// How many bytes were made up to which event: exact enough to say where a log's bytes end.
#[derive(Debug, Default)]
pub(super) struct Pushed {
    bytes: u64,
    /// Seqs, and the bytes made up to and with them; a mark is set each time a part of the log's bytes was made.
    marks: std::collections::VecDeque<(u64, u64)>,
}

/// Into how many parts the marks divide what a log holds.
const PARTS: u64 = 32;

impl Pushed {
    /// These bytes were made, up to this event.
    pub(super) fn add(&mut self, bytes: usize, last: u64, max_bytes: u64) {
        self.bytes += bytes as u64;
        if self.bytes - self.marks.back().map_or(0, |mark| mark.1) >= max_bytes / PARTS {
            self.marks.push_back((last, self.bytes));
            // The newest of those that the log does not reach back to says what the oldest part of it begins with.
            while self.marks.get(1).is_some_and(|mark| self.bytes - mark.1 > max_bytes) {
                self.marks.pop_front();
            }
        }
    }

    /// The lowest event after which at most `max_bytes` were made, `more` included; `last` if there is no such mark.
    pub(super) fn floor(&self, more: u64, max_bytes: u64, last: u64) -> u64 {
        let Some(beyond) = (self.bytes + more).checked_sub(max_bytes).filter(|beyond| *beyond > 0) else { return 0 };
        let index = self.marks.partition_point(|mark| mark.1 < beyond);
        self.marks.get(index).map_or(last, |mark| mark.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX_BYTES: u64 = 3200;

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

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        /// What was made after the floor fits, and no floor is higher by more than a part of the log than it must be.
        #[test]
        fn bytes_are_known_to_a_part_of_the_log(
            sizes in prop::collection::vec(1..400_usize, 0..200),
            more in 0..500_u64,
        ) {
            let mut pushed = Pushed::default();
            for (index, size) in sizes.iter().enumerate() {
                pushed.add(*size, index as u64 + 1, MAX_BYTES);
            }
            let last = sizes.len() as u64;
            let after = |seq: u64| sizes[seq as usize..].iter().map(|size| *size as u64).sum::<u64>() + more;
            let floor = pushed.floor(more, MAX_BYTES, last);
            prop_assert!(floor <= last);
            prop_assert!(floor == last || after(floor) <= MAX_BYTES, "{} bytes after {floor}", after(floor));
            let lowest = (0..=last).find(|seq| after(*seq) <= MAX_BYTES).unwrap_or(last);
            prop_assert!(floor == 0 || after(lowest) - after(floor) <= MAX_BYTES / PARTS + 400, "{lowest} to {floor}");
            prop_assert!(pushed.marks.len() <= 2 + PARTS as usize);
        }
    }
}
