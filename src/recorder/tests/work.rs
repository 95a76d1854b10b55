//! The ready list, and what a recorder does with its lanes.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{frame, hub, lane, open};
use crate::{
    EventId, MemoryStore, ResilientSse,
    recorder::{EndRequest, Inner, Lane},
    runtime::sync::lock,
    store::{Opened, Read, ReadFrom, Store as _},
    test_util::FaultStore,
};

/// Without a wrapper, so that batches are appended in place.
#[tokio::test]
async fn g1_an_immediate_store_has_each_event_at_once() {
    let store = MemoryStore::new();
    let (sse, _guardian) = ResilientSse::builder(store.clone()).anonymous().build().expect("valid");
    let opened = store.open(open("a")).await.expect("opened");
    let Opened::New { epoch, .. } = opened else { panic!("{opened:?}") };
    let lane = lane("a", epoch, 100, 1 << 20);
    for seq in 1..=3 {
        lane.push(&sse.0.recorder, frame(1, 1), Inner::default());
        let read = Read { key: lane.key.clone(), from: ReadFrom::Start, max_events: 10, max_bytes: 100 };
        let page = store.read(read).await.expect("answered");
        assert_eq!((page.map(|page| page.top), sse.0.recorder.held()), (Some(EventId::new(epoch, seq)), 0));
    }
}

#[tokio::test]
async fn a_part_of_the_store_has_a_ready_list_of_its_own_while_it_needs_one() {
    let (sse, _guardian) = hub(&FaultStore::new(MemoryStore::new()).batched());
    let recorder = &sse.0.recorder;
    for part in [0, 7] {
        for id in ["a", "b"] {
            lock(&recorder.ready).entry(part).or_default().push_back(lane(id, 1, 1, 1));
        }
        let next = || recorder.next_ready(part).map(|lane| lane.key.id.to_string());
        assert_eq!([next(), next(), next()], [Some("a".to_owned()), Some("b".to_owned()), None]);
    }
    assert_eq!(lock(&recorder.ready).keys().collect::<Vec<_>>(), [&0], "the only part of most stores is kept");
}

#[tokio::test(start_paused = true)]
async fn a_lane_is_recalled_at_the_time_that_it_was_put_off_to() {
    let (sse, _guardian) = hub(&FaultStore::new(MemoryStore::new()).batched());
    let recorder = &sse.0.recorder;
    let at = Instant::now() + Duration::from_secs(1);
    lock(&recorder.put_off).insert((at, 1), lane("a", 1, 1, 1));
    assert_eq!(recorder.recall(at - Duration::from_nanos(1)), Some(at));
    assert!(recorder.next_ready(0).is_none());
    assert_eq!(recorder.recall(at), None);
    assert!(recorder.next_ready(0).is_some());
}

#[tokio::test(start_paused = true)]
async fn g6_an_end_that_the_store_does_not_take_is_given_up_after_its_recovery_window() {
    let (sse, _guardian) = hub(&FaultStore::new(MemoryStore::new()).batched());
    let recorder = &sse.0.recorder;
    let (ending, running): (Arc<Lane>, _) = (lane("a", 1, 1, 1), lane("b", 1, 1, 1));
    for lane in [&ending, &running] {
        recorder.enter(lane);
    }
    ending.end(recorder, EndRequest::Interrupt);
    let window = ending.retention().recovery_window;
    for (waits, given_up) in [(window - Duration::from_millis(1), 0), (Duration::from_millis(1), 1)] {
        tokio::time::advance(waits).await;
        recorder.give_up_expired_ends();
        let lanes = recorder.lanes().len();
        assert_eq!((lanes, recorder.held() == 0, ending.is_halted()), (2 - given_up, given_up == 1, given_up == 1));
    }
}

#[tokio::test]
async fn a_lane_that_has_time_is_sent_with_the_next_flight() {
    for (store, waits) in
        [(FaultStore::new(MemoryStore::new()).batched(), true), (FaultStore::new(MemoryStore::new()), false)]
    {
        let (sse, _guardian) = hub(&store);
        let recorder = &sse.0.recorder;
        let lane = lane("a", 1, 1, 1);
        lane.request_check();
        recorder.ready_at_leisure(&lane);
        assert_eq!(store.calls("append") == 0, waits);
        assert_eq!(recorder.next_ready(0).is_some(), waits);
    }
}
