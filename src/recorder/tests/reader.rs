//! Where a follower stands in the run that its node produces.

use super::lane;
use crate::{
    EventId, MemoryStore,
    recorder::{Reader, readers::Bounds},
    test_util::FaultStore,
};

const BOUNDS: Bounds = Bounds { made: 8, stored: 8, floor: 0, half: 4, events: 8 };

#[test]
fn g8_a_reader_of_a_later_run_is_not_waited_for_and_one_of_an_earlier_run_has_nothing() {
    let lane = lane("a", 5, 8, 1 << 20);
    let seen = |at| {
        let _reader = Reader::enter(lane.clone(), at);
        let seen = lane.readers.read_places(&BOUNDS);
        (seen.slowest, seen.caught_up)
    };
    assert_eq!(seen(None), (0, false));
    assert_eq!(seen(Some(EventId::new(4, 7))), (0, false));
    assert_eq!(seen(Some(EventId::new(5, 3))), (3, false));
    assert_eq!(seen(Some(EventId::new(5, u64::MAX))), (8, true));
    assert_eq!(seen(Some(EventId::new(6, 1))), (8, true));
}

#[tokio::test]
async fn a_reader_learns_that_its_run_is_over() {
    let (sse, _guardian) = super::hub(&FaultStore::new(MemoryStore::new()).batched());
    let lane = lane("a", 5, 8, 1 << 20);
    let reader = Reader::enter(lane.clone(), None);
    assert!(!reader.is_over());
    sse.0.recorder.abandon(&lane);
    assert!(reader.is_over());
}
