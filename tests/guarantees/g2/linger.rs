//! The flusher may wait for streams to join a flight.

use std::time::Duration;

use resilient_sse::{Durability, MemoryStore, ResilientSse};
use tokio::time::Instant;

use crate::support::rig::{Rig, Script, assert_unharmed, delays, millis, watch};

/// Runs ten streams, each a millisecond after the one before. Returns the number of requests that recorded them, and
/// the greatest delay of an event.
async fn record(linger: Duration) -> (u64, Duration) {
    let script = Script { events: 50, ..Script::default() };
    let hub = |hub: resilient_sse::Builder| hub.durability(Durability::BeforeSend).linger(linger);
    let rig = Rig::with(true, script, hub, |layer| layer);
    let mut clients = Vec::new();
    for id in 0..10 {
        tokio::time::sleep(millis(1)).await;
        let start = Instant::now();
        clients.push(tokio::spawn(watch(rig.get(&id.to_string(), None).await.into_body(), start)));
    }
    let mut slowest = Duration::ZERO;
    for client in clients {
        let seen = client.await.unwrap();
        assert_unharmed(&seen, script);
        slowest = slowest.max(delays(&seen, script).into_iter().map(|(_, delay)| delay).max().unwrap());
    }
    assert_eq!((rig.sse.health().recorded, rig.sse.health().store_errors), (500, 0));
    (rig.store.calls("append"), slowest)
}

#[tokio::test(start_paused = true)]
async fn g2_a_flight_may_wait_for_others_to_join() {
    let (alone, at_once) = record(Duration::ZERO).await;
    let (together, late) = record(millis(12)).await;
    assert!(alone >= 500 && at_once <= millis(1), "{alone} requests, {at_once:?}");
    assert!(together <= 110, "{together} requests");
    assert!(late >= millis(10) && late <= millis(15), "{late:?}");
}

#[test]
fn a_wait_beyond_the_stores_own_limit_is_refused() {
    let hub = |linger| ResilientSse::builder(MemoryStore::new()).linger(linger).build();
    assert!(hub(millis(499)).is_ok() && hub(millis(500)).is_err());
}
