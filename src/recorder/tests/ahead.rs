//! How far a producer may go ahead of its readers and of the store.

use super::{frame, hub, lane};
use crate::{
    MemoryStore,
    model::config::{AHEAD_BYTES, AHEAD_EVENTS},
    recorder::{Inner, Lane, Recorder, request::Op},
    test_util::FaultStore,
};
use std::sync::Arc;

fn push(lane: &Arc<Lane>, recorder: &Arc<Recorder>, bytes: &[usize]) {
    for bytes in bytes {
        lane.push(recorder, frame(1, *bytes), Inner::default());
    }
}

/// Has the store acknowledge everything.
fn land(lane: &Lane) {
    while let Some(Op::Append(_)) = lane.next_op() {
        lane.landed();
    }
}

/// A log of 84 events is trimmed to no fewer than 74, so one more event leaves the last 73.
#[tokio::test]
async fn g8_the_bounds_of_a_log_by_its_events() {
    let (sse, _guardian) = hub(&FaultStore::new(MemoryStore::new()).batched());
    let lane = lane("a", 1, 84, 1 << 20);
    push(&lane, &sse.0.recorder, &[10; 100]);
    let bounds = lane.bounds();
    assert_eq!((bounds.made, bounds.stored, bounds.events), (100, 0, 74));
    assert_eq!((bounds.floor, bounds.half), (0, 0), "there is nothing to read before the store has it");
    land(&lane);
    let bounds = lane.bounds();
    assert_eq!((bounds.stored, bounds.floor, bounds.half), (100, 27, 64));
}

/// A log of 16,100 bytes is trimmed to no fewer than 14,088, and the next entry may have 1,006. The bytes are known after each 51
/// events.
#[tokio::test]
async fn g8_the_bounds_of_a_log_by_its_bytes() {
    let (sse, _guardian) = hub(&FaultStore::new(MemoryStore::new()).batched());
    let lane = lane("a", 1, 1 << 20, 16_100);
    push(&lane, &sse.0.recorder, &[10; 2000]);
    land(&lane);
    let bounds = lane.bounds();
    assert_eq!((bounds.made, bounds.stored, bounds.floor, bounds.half), (2000, 2000, 714, 1428));
}

#[tokio::test]
async fn g8_the_room_ahead_of_the_store_is_by_events_and_by_bytes() {
    let (sse, _guardian) = hub(&FaultStore::new(MemoryStore::new()).batched());
    let after = |sizes: &[usize]| {
        let lane = lane("a", 1, 1 << 20, 1 << 30);
        push(&lane, &sse.0.recorder, sizes);
        lane.room_ahead()
    };
    assert_eq!(after(&[]), AHEAD_EVENTS);
    assert_eq!(after(&[1, 1]), AHEAD_EVENTS - 2);
    assert_eq!(after(&[AHEAD_BYTES + 1]), AHEAD_EVENTS - 1, "a single larger one is allowed");
    assert_eq!(after(&[AHEAD_BYTES - 1, 1]), AHEAD_EVENTS - 2);
    assert_eq!(after(&[AHEAD_BYTES, 1]), 0);
    assert_eq!(after(&[1; AHEAD_EVENTS as usize + 1]), 0);
}

#[tokio::test]
async fn g7_only_events_that_wait_are_passed_by() {
    let (sse, _guardian) = hub(&FaultStore::new(MemoryStore::new()).batched());
    let lane = lane("a", 1, 1 << 20, 1 << 30);
    lane.pass_by();
    assert_eq!(lane.room_ahead(), AHEAD_EVENTS);
    push(&lane, &sse.0.recorder, &[1]);
    lane.pass_by();
    assert_eq!(lane.room_ahead(), u64::MAX);
    land(&lane);
    assert_eq!(lane.room_ahead(), AHEAD_EVENTS, "the store takes events again");
}
