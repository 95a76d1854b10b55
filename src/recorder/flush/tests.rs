use std::task::Waker;

use super::*;
use crate::{
    MemoryStore, ResilientSse,
    recorder::{
        EndRequest, Inner,
        tests::{frame, hub, lane},
    },
    test_util::{Fault, FaultStore},
};

const MS: Duration = Duration::from_millis(1);

/// Makes a lane ready that has events of this many bytes.
fn line_up(recorder: &Arc<Recorder>, id: usize, events: u64, bytes: usize) -> Arc<Lane> {
    let lane = lane(&id.to_string(), 1, 1 << 20, 1 << 30);
    lane.push(recorder, frame(events, bytes), Inner::default());
    lane
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Returns how long the next pause of the way is, after a failure.
fn pause_after_failure(way: &mut Way, recorder: &Recorder) -> Duration {
    way.flights.push(Box::pin(std::future::ready(true)));
    way.land(&mut context());
    assert!(way.is_paused(recorder, &mut context()));
    assert!(way.is_paused(recorder, &mut context()), "until its time");
    way.pause.as_ref().expect("a pause").deadline() - Instant::now()
}

/// Lets the pause of the way pass.
async fn pass(way: &mut Way, recorder: &Recorder, pause: Duration) {
    tokio::time::advance(pause + MS).await;
    assert!(!way.is_paused(recorder, &mut context()));
}

#[tokio::test]
async fn a_flight_is_full_at_its_number_of_events_or_bytes() {
    for (events, bytes) in [(FLIGHT_EVENTS / 2, 1), (1, FLIGHT_BYTES / 2)] {
        let (sse, _guardian) = hub(&FaultStore::new(MemoryStore::new()).batched());
        let recorder = &sse.0.recorder;
        for id in 0..3 {
            line_up(recorder, id, events, bytes);
        }
        let mut way = Way::new(0);
        let sizes = [(); 3].map(|()| way.gather(recorder).0.len());
        assert_eq!(sizes, [2, 1, 0], "{events} events of {bytes} bytes");
    }
}

#[tokio::test]
async fn a_flight_has_a_number_of_requests_that_are_no_batches() {
    let (sse, _guardian) = hub(&FaultStore::new(MemoryStore::new()).batched());
    let recorder = &sse.0.recorder;
    for id in 0..=FLIGHTS {
        lane(&id.to_string(), 1, 1, 1).end(recorder, EndRequest::Interrupt);
    }
    assert_eq!(Way::new(0).gather(recorder).1.len(), FLIGHTS);
}

#[tokio::test]
async fn a_way_has_a_number_of_flights_at_a_time() {
    let (sse, _guardian) = hub(&FaultStore::new(MemoryStore::new()).batched());
    let recorder = &sse.0.recorder;
    for id in 0..=FLIGHTS {
        line_up(recorder, id, 1, FLIGHT_BYTES);
    }
    let mut way = Way::new(0);
    assert!(way.start_flights(recorder));
    assert_eq!(way.flights.len(), FLIGHTS);
    assert!(!way.start_flights(recorder));
}

/// The pauses are random, so only their limits are certain.
#[tokio::test(start_paused = true)]
async fn g7_pauses_grow_until_a_flight_succeeds() {
    let (sse, _guardian) = hub(&FaultStore::new(MemoryStore::new()).batched());
    let recorder = &sse.0.recorder;
    let mut way = Way::new(0);
    let mut longest = Duration::ZERO;
    for _ in 0..50 {
        let pause = pause_after_failure(&mut way, recorder);
        longest = longest.max(pause);
        pass(&mut way, recorder, pause).await;
    }
    assert!(longest > 40 * MS, "{longest:?}");
    for _ in 0..5 {
        way.flights.push(Box::pin(std::future::ready(false)));
        way.land(&mut context());
        assert!(!way.is_paused(recorder, &mut context()));
        let pause = pause_after_failure(&mut way, recorder);
        assert!(pause <= 40 * MS, "{pause:?}");
        pass(&mut way, recorder, pause).await;
    }
}

#[tokio::test]
async fn each_part_of_a_store_has_flights_of_its_own() {
    let store = FaultStore::new(MemoryStore::new()).batched();
    let (sse, _guardian) = hub(&store);
    let recorder = &sse.0.recorder;
    let lane = line_up(recorder, 1, 1, 1);
    lock(&recorder.ready).clear();
    lock(&recorder.ready).entry(7).or_default().push_back(lane);
    assert!(Flusher::new(Arc::clone(recorder)).poll(&mut context()).is_pending());
    assert!(store.calls("append") > 0);
}

#[tokio::test(start_paused = true)]
async fn g7_nothing_is_sent_while_the_breaker_is_open() {
    let store = FaultStore::new(MemoryStore::new()).batched();
    let (sse, _guardian) = hub(&store);
    let recorder = &sse.0.recorder;
    store.fail(Fault::Refuse);
    let mut way = Way::new(0);
    assert!(!way.is_paused(recorder, &mut context()));
    while !recorder.store.part_closed_until(0).0 {
        let append = line_up(recorder, 1, 1, 1).next_op();
        let Some(Op::Append(append)) = append else { panic!("no batch") };
        recorder.store.append(vec![append]).await.expect_err("refused");
    }
    assert!(way.is_paused(recorder, &mut context()));
}

/// The next lane may be due before the one that the timer was set for.
#[tokio::test(start_paused = true)]
async fn a_lane_that_was_put_off_is_sent_at_its_time() {
    let store = FaultStore::new(MemoryStore::new()).batched();
    let (sse, _guardian) = hub(&store);
    let recorder = &sse.0.recorder;
    let mut flusher = Flusher::new(Arc::clone(recorder));
    let put_off = |id: usize, by: Duration| {
        let lane = line_up(recorder, id, 1, 1);
        lock(&recorder.ready).clear();
        lock(&recorder.put_off).insert((Instant::now() + by, id as u64), lane);
    };
    let mut flushing = tokio_test::task::spawn(std::future::poll_fn(|cx| flusher.poll(cx)));
    for (id, by) in [(1, 1000 * MS), (2, 50 * MS)] {
        put_off(id, by);
        assert!(flushing.poll().is_pending());
    }
    // The store does not know the streams, so each is registered once.
    for (after, sent) in [(51 * MS, 1), (950 * MS, 2)] {
        assert!(!flushing.is_woken());
        tokio::time::advance(after).await;
        assert!(flushing.is_woken());
        while flushing.is_woken() {
            assert!(flushing.poll().is_pending());
        }
        assert_eq!(store.calls("reopen"), sent);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_waits_for_others_from_when_it_is_ready() {
    let store = FaultStore::new(MemoryStore::new()).batched();
    let (sse, _guardian) = ResilientSse::builder(store.clone()).anonymous().linger(10 * MS).build().expect("valid");
    let mut flusher = Flusher::new(Arc::clone(&sse.0.recorder));
    let mut sends_after = async |wait| {
        tokio::time::advance(wait).await;
        assert!(flusher.poll(&mut context()).is_pending());
        store.calls("append") > 0
    };
    assert!(!sends_after(Duration::ZERO).await);
    assert!(!sends_after(9 * MS).await);
    line_up(&sse.0.recorder, 1, 1, 1);
    assert!(!sends_after(Duration::ZERO).await);
    assert!(!sends_after(9 * MS).await);
    assert!(sends_after(2 * MS).await);
}

/// Nodes come and go in a cluster, so a part without requests must leave nothing.
#[tokio::test]
async fn g6_a_way_without_requests_is_removed() {
    let (sse, _guardian) = hub(&FaultStore::new(MemoryStore::new()).batched());
    let mut flusher = Flusher::new(Arc::clone(&sse.0.recorder));
    line_up(&sse.0.recorder, 1, 1, 1);
    assert!(flusher.poll(&mut context()).is_pending());
    assert!(flusher.ways.is_empty());
}
