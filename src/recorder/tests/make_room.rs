//! Whose events are given up when too many wait for the store.

use std::sync::Arc;

use super::{frame, lane};
use crate::{
    Guardian, MemoryStore, ResilientSse,
    recorder::{EndRequest, Inner, Lane, Recorder},
    test_util::FaultStore,
};

const ROOM: usize = 16_000;

/// What an end is charged that has no event.
const END: usize = 512;

fn hub() -> (ResilientSse, Guardian) {
    let store = FaultStore::new(MemoryStore::new()).batched();
    let hub = ResilientSse::builder(store).anonymous().max_event_bytes(1000).recorder_bytes(ROOM);
    hub.build().expect("valid")
}

/// Adds a stream that holds so many events of a byte each.
fn hold(recorder: &Arc<Recorder>, id: &str, events: usize) -> Arc<Lane> {
    let lane = lane(id, 1, 1 << 20, 1 << 30);
    recorder.enter(&lane);
    for _ in 0..events {
        lane.push(recorder, frame(1, 1), Inner::default());
    }
    lane
}

#[tokio::test]
async fn g8_a_sixteenth_of_the_room_is_freed_beyond_what_is_needed() {
    let (sse, _guardian) = hub();
    let recorder = &sse.0.recorder;
    let full = hold(recorder, "a", ROOM);
    assert_eq!(full.held(), ROOM);
    let small = lane("b", 1, 1 << 20, 1 << 30);
    recorder.enter(&small);
    small.push(recorder, frame(1, 100), Inner::default());
    assert_eq!((full.held(), small.held()), (ROOM - ROOM / 16 - 100, 100));
}

#[tokio::test]
async fn g8_an_end_costs_no_event_while_all_fit() {
    let (sse, _guardian) = hub();
    let recorder = &sse.0.recorder;
    let full = hold(recorder, "a", ROOM - END);
    lane("b", 1, 1, 1).end(recorder, EndRequest::Interrupt);
    assert_eq!(full.held(), ROOM - END);
    lane("c", 1, 1, 1).end(recorder, EndRequest::Interrupt);
    assert_eq!(full.held(), ROOM - 2 * END - (ROOM - 2 * END) / 16);
}
