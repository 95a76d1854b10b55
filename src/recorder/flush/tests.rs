use std::task::Waker;

use super::*;
use crate::{
    MemoryStore,
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
    way.failed = true;
    assert!(way.is_paused(recorder, &mut context()));
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
    way.flights.push(Box::pin(std::future::ready(false)));
    way.land(&mut context());
    assert!(!way.is_paused(recorder, &mut context()));
    assert!(pause_after_failure(&mut way, recorder) <= 40 * MS);
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
    let mut sent = || {
        assert!(flusher.poll(&mut context()).is_pending());
        // The store does not know the streams, so each is registered once.
        store.calls("reopen")
    };
    put_off(1, 1000 * MS);
    assert_eq!(sent(), 0);
    put_off(2, 50 * MS);
    assert_eq!(sent(), 0);
    tokio::time::advance(51 * MS).await;
    assert_eq!(sent(), 1);
    tokio::time::advance(900 * MS).await;
    assert_eq!(sent(), 1);
    tokio::time::advance(51 * MS).await;
    assert_eq!(sent(), 2);
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
