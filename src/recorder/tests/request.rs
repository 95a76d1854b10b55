//! The requests of a lane, and what their answers change.

use std::sync::Arc;

use super::{frame, hub, lane, open};
use crate::{
    Durability, EventId, MemoryStore, ResilientSse,
    model::stream::{Ending, StreamState},
    recorder::{
        EndRequest, Inner, Lane, Recorder, Status,
        request::{Claim, Op},
    },
    test_util::FaultStore,
};

/// Creates a hub whose recorder sends nothing.
fn idle_hub() -> ResilientSse {
    hub(&FaultStore::new(MemoryStore::new()).batched()).0
}

/// Creates a lane whose batches have one frame each, with so many events of a byte.
fn holding(recorder: &Arc<Recorder>, events: u64) -> Arc<Lane> {
    let lane = lane("a", 1, 16, 1 << 20);
    for _ in 0..events {
        lane.push(recorder, frame(1, 1), Inner::default());
    }
    lane
}

/// Has the store take the next batch. Returns its number of events.
fn land(lane: &Lane) -> u64 {
    assert!(matches!(lane.next_op(), Some(Op::Append(_))));
    lane.landed().events
}

/// Returns the seq up to which events may be delivered that must not go ahead of the store.
fn deliverable(lane: &Lane) -> u64 {
    lane.deliverable(Durability::BeforeSend)
}

#[tokio::test]
async fn g2_events_wait_until_they_are_stored() {
    let sse = idle_hub();
    let lane = holding(&sse.0.recorder, 3);
    assert_eq!((deliverable(&lane), lane.bounds().stored), (0, 0));
    land(&lane);
    assert_eq!((deliverable(&lane), lane.bounds().stored), (1, 1));
    land(&lane);
    assert_eq!(deliverable(&lane), 2);
    land(&lane);
    assert_eq!(deliverable(&lane), u64::MAX, "nothing waits");
}

#[tokio::test]
async fn g7_events_that_were_passed_by_do_not_wait_again_before_they_are_stored() {
    let sse = idle_hub();
    let lane = holding(&sse.0.recorder, 2);
    lane.pass_by();
    assert_eq!((deliverable(&lane), lane.room_ahead()), (u64::MAX, u64::MAX));
    land(&lane);
    assert_eq!(deliverable(&lane), u64::MAX, "the second one was delivered");
    assert_ne!(lane.room_ahead(), u64::MAX);
    lane.push(&sse.0.recorder, frame(1, 1), Inner::default());
    land(&lane);
    assert_eq!(deliverable(&lane), 2);
}

/// An empty batch only asks for the state of the stream.
#[tokio::test]
async fn g7_a_check_does_not_show_that_the_store_takes_events_again() {
    let sse = idle_hub();
    let lane = holding(&sse.0.recorder, 1);
    lane.pass_by();
    assert_eq!(lane.give_up(0), (1, 1));
    lane.request_check();
    assert_eq!(land(&lane), 0);
    assert_eq!((lane.room_ahead(), lane.bounds().stored), (u64::MAX, 0));
}

#[tokio::test]
async fn g7_a_store_that_refused_a_stream_is_waited_for_once_it_answers_a_check_or_takes_an_event() {
    let sse = idle_hub();
    let recorder = &sse.0.recorder;
    // Whether an end is requested, the events that are stored, and whether events wait for the store then.
    for (ends, events, waits) in [(false, 0, true), (false, 1, true), (true, 0, false), (true, 1, true)] {
        let lane = holding(recorder, events);
        lane.put_off(true);
        assert_eq!((deliverable(&lane), lane.room_ahead()), (u64::MAX, u64::MAX));
        if ends {
            lane.end(recorder, EndRequest::Interrupt);
        }
        assert_eq!(land(&lane), events);
        assert_eq!(lane.room_ahead() != u64::MAX, waits, "ends: {ends}, {events} events");
    }
}

#[tokio::test]
async fn an_unhurried_lane_is_claimed_once_and_can_be_hurried() {
    let lane = lane("a", 1, 16, 1 << 20);
    assert!(lane.claim_unhurried() && !lane.claim_unhurried());
    assert!(matches!(lane.claim(), Claim::Hurried));
    assert!(matches!(lane.claim(), Claim::Held) && !lane.claim_unhurried());
    assert!(lane.next_op().is_none());
    assert!(matches!(lane.claim(), Claim::New));
}

#[tokio::test]
async fn g3_a_lane_with_an_end_is_not_withdrawn() {
    let sse = idle_hub();
    let recorder = &sse.0.recorder;
    let running = holding(recorder, 0);
    assert!(recorder.withdraw(&running) && running.is_withdrawn() && running.is_halted());
    let ending = holding(recorder, 0);
    ending.end(recorder, EndRequest::Interrupt);
    assert!(!recorder.withdraw(&ending) && !ending.is_withdrawn() && !ending.is_halted());
    let ended = holding(recorder, 0);
    recorder.abandon(&ended);
    assert!(!recorder.withdraw(&ended) && !ended.is_withdrawn());
}

#[tokio::test]
async fn g8_what_a_lane_holds_is_given_back_once() {
    let sse = idle_hub();
    let recorder = &sse.0.recorder;
    let lane = holding(recorder, 3);
    let event = vec![b'x'; 100].into();
    lane.end(recorder, EndRequest::close(Ending::with_event(StreamState::Completed, event)));
    assert_eq!(recorder.held(), 3 + 612, "an end counts for 512 bytes more than its event");
    assert_eq!(lane.settle(Status::Superseded), (3, 612));
    assert_eq!(lane.settle(Status::Superseded), (0, 0));
}

#[tokio::test]
async fn g1_seqs_are_used_up_whether_or_not_events_are_recorded() {
    let sse = idle_hub();
    let recorder = &sse.0.recorder;
    let (recorded, halted) = (lane("a", 7, 16, 1 << 20), lane("b", 7, 16, 1 << 20));
    let unrecorded = Lane::unrecorded(open("c"), &Arc::new(open("c").retention));
    recorder.abandon(&halted);
    for lane in [recorded, halted, unrecorded] {
        for count in [3, 2] {
            lane.push(recorder, frame(count, 1), Inner::default());
        }
        assert_eq!((lane.next(), lane.last()), (6, EventId::new(lane.epoch, 5)));
    }
}

/// Only a stream that has begun may stay if its request is dropped.
#[tokio::test]
async fn g5_a_stream_with_an_event_is_registered_again_as_one_that_has_begun() {
    let sse = idle_hub();
    for (events, started) in [(0, false), (1, true)] {
        let lane = holding(&sse.0.recorder, events);
        lane.push(&sse.0.recorder, frame(0, 0), Inner::default());
        lane.forgotten();
        assert!(matches!(lane.next_op(), Some(Op::Reopen(reopen)) if reopen.open.started == started));
    }
}

/// A store may lose an end that it has acknowledged. An interruption needs no repeat.
#[tokio::test]
async fn g3_a_lane_knows_its_own_end() {
    let sse = idle_hub();
    let recorder = &sse.0.recorder;
    let end = Ending::supplied(StreamState::Failed, crate::reason::ERROR);
    for (request, kept) in [(EndRequest::Interrupt, None), (EndRequest::close(end.clone()), Some(end))] {
        let lane = holding(recorder, 2);
        assert!(lane.recent_close().is_none());
        lane.end(recorder, request);
        let close = lane.recent_close().map(|recent| recent.close);
        assert_eq!(close.as_ref().map(|close| (close.epoch, close.last)), kept.as_ref().map(|_| (Some(1), Some(2))));
        assert_eq!(close.map(|close| close.ending), kept);
    }
}

/// An immediate store takes most events at once, so the time is noted only for those that wait.
#[tokio::test]
async fn g2_the_time_of_events_that_wait_is_known() {
    let (sse, _guardian) = hub(&FaultStore::new(MemoryStore::new()));
    let lane = lane("a", 1, 16, 1 << 20);
    assert!(lane.claim_unhurried(), "something else is to be sent first");
    lane.push(&sse.0.recorder, frame(1, 1), Inner::default());
    assert!(crate::runtime::sync::lock(&lane.state).pending.since.is_some());
}
