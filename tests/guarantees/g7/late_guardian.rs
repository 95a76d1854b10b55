//! G7: a guardian that is late, or not polled at all, does not count as a broken store.

use std::time::Duration;

use futures_util::FutureExt as _;
use resilient_sse::{
    Durability, Event, MemoryStore, Owner, StreamId, StreamSpec,
    test_util::{FaultStore, TestHub},
};

use crate::support::bodies::{Client, Step, Watch, app, chunk, numbered, numbers, request, send, then};

const MILLI: Duration = Duration::from_millis(1);

/// A hub on a store that gets gathered batches: nothing reaches the store unless the guardian is polled.
fn hub(durability: Durability) -> TestHub {
    let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000)).batched();
    TestHub::on(store, |builder| builder.anonymous().durability(durability)).unwrap()
}

fn assert_the_store_is_well(hub: &TestHub) {
    let health = hub.sse.health();
    assert_eq!((health.breaker, health.store_errors), ("closed", 0));
}

#[tokio::test(start_paused = true)]
async fn g7_a_body_that_waits_for_a_late_guardian_blames_nobody() {
    for durability in [Durability::BeforeSend, Durability::Buffered] {
        let mut hub = hub(durability);
        hub.advance(Duration::from_secs(1)).await;
        let steps = (0..5).flat_map(|n| [chunk(format!("data: {n}\n\n")), Step::Sleep(MILLI * 500)]).collect();
        let app = app(hub.sse.generation().id(StreamId::path("/s/{id}")), &Watch::default(), steps);
        let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
        for _ in 0..60 {
            client.drain();
            tokio::time::advance(MILLI * 50).await;
        }
        client.drain();
        assert_eq!(client.data(), numbered(5), "it is delayed by one time limit and not held up for ever");
        assert_the_store_is_well(&hub);
        let other = send(&app, request("/s/b")).await;
        assert!(!other.headers().contains_key("x-stream-recorded"), "it is registered");
        // The waiting events are recorded once the guardian is polled.
        hub.advance(Duration::from_secs(1)).await;
        client.drain();
        assert_eq!((hub.sse.health().lost, client.names().last()), (0, Some(&"completed")));
    }
}

#[tokio::test(start_paused = true)]
async fn g7_a_publication_that_waits_for_a_late_guardian_blames_nobody() {
    let mut hub = hub(Durability::Buffered);
    let spec = StreamSpec::new(Owner::ANONYMOUS, StreamId::new("a").unwrap());
    let mut job = hub.sse.publisher().open(spec).await.unwrap();
    let start = tokio::time::Instant::now();
    for n in 0..200 {
        let mut sending = Box::pin(job.send(Event::new(n.to_string())));
        while (&mut sending).now_or_never().is_none() {
            tokio::time::advance(MILLI * 50).await;
        }
    }
    assert!(start.elapsed() <= MILLI * 550, "once for all of them: {:?}", start.elapsed());
    assert_the_store_is_well(&hub);
    hub.advance(Duration::from_secs(1)).await;
    assert_eq!((hub.sse.health().recorded, hub.sse.health().lost), (200, 0));
}

#[tokio::test(start_paused = true)]
async fn g7_a_body_without_a_client_that_waits_for_a_late_guardian_blames_nobody() {
    let mut hub = hub(Durability::Buffered);
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(StreamId::path("/s/{id}")), &watch, then(numbers(2000), Step::Hang));
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    assert!(client.poll());
    drop(client);
    for _ in 0..60 {
        tokio::time::advance(MILLI * 50).await;
        tokio::task::yield_now().await;
    }
    assert_the_store_is_well(&hub);
    hub.advance(Duration::from_secs(2)).await;
    assert_eq!((hub.sse.health().recorded, hub.sse.health().lost), (2000, 0));
}

#[tokio::test(start_paused = true)]
async fn g7_health_says_whether_a_guardian_is_polled() {
    let mut hub = hub(Durability::Buffered);
    assert!(!hub.sse.health().guarded);
    hub.step().await;
    assert!(hub.sse.health().guarded);
    tokio::time::advance(MILLI * 9000).await;
    assert!(hub.sse.health().guarded, "late");
    tokio::time::advance(MILLI * 1500).await;
    assert!(!hub.sse.health().guarded, "not polled any more");
    hub.step().await;
    assert!(hub.sse.health().guarded);
}
