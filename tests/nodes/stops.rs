//! A stream is stopped from another node than its own.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::{
    client::{Client, Visit},
    figure, node,
    support::{example::eventually, redis::RedisServer},
};

/// The longest time from a stop to the producer's end.
const STOPPED_WITHIN: Duration = Duration::from_millis(200);
/// How many streams are stopped: a busy machine may be late now and then, but not half of the time.
const TIMES: usize = 11;

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_elsewhere_ends_the_producer_at_once() {
    let redis = RedisServer::start();
    let [a, b] = [node(&redis.url(), &[]), node(&redis.url(), &[])];
    let mut took = Vec::new();
    for round in 0..TIMES {
        let id = format!("s{round}");
        // Some produce while they are stopped, some are silent.
        let query = ["n=100000&rate=100", "n=1&rate=0&end=never"][round % 2];
        let mut client = Client::of(&format!("/api/stream/{id}?{query}"));
        let address = a.address;
        let reading = tokio::spawn(async move {
            assert_eq!(client.visit(address, usize::MAX).await, Visit::Over);
            client
        });
        b.until_status(&id, "active").await;
        eventually(async || (figure(&a, "recorded").await > round as u64).then_some(())).await;
        let asked = Instant::now();
        assert_eq!(b.delete(&format!("/api/stream/{id}")).await, StatusCode::ACCEPTED);
        let client = reading.await.unwrap();
        let (end, told) = client.seen.last().unwrap();
        assert_eq!((&*end.name, &*end.data), ("cancelled", r#"{"reason":"stopped"}"#));
        client.check();
        took.push(*told - asked);
        eventually(async || (figure(&a, "active").await == 0).then_some(())).await;
        assert_eq!(b.until_status(&id, "cancelled").await["reason"], "stopped");
    }
    took.sort_unstable();
    eprintln!("stopped within {:?} (p50), {:?} (most)", took[TIMES / 2], took[TIMES - 1]);
    assert!(took[TIMES / 2] < STOPPED_WITHIN, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_elsewhere_ends_a_producer_without_clients() {
    let redis = RedisServer::start();
    let [a, b] = [node(&redis.url(), &[]), node(&redis.url(), &[])];
    let mut took = Vec::new();
    for round in 0..TIMES {
        let path = format!("/api/stream/s{round}?n=100000&rate=50");
        let mut client = Client::of(&path);
        assert_eq!(client.visit(a.address, 3).await, Visit::Cut);
        eventually(async || (figure(&a, "detached").await == 1).then_some(())).await;
        let asked = Instant::now();
        assert_eq!(b.delete(&format!("/api/stream/s{round}")).await, StatusCode::ACCEPTED);
        eventually(async || (figure(&a, "active").await == 0).then_some(())).await;
        took.push(asked.elapsed());
        client.follow(&[b.address], usize::MAX).await;
        client.has_all(client.numbers().len() as u64, "cancelled");
    }
    took.sort_unstable();
    eprintln!("gone within {:?} (p50), {:?} (most)", took[TIMES / 2], took[TIMES - 1]);
    assert!(took[TIMES / 2] < STOPPED_WITHIN, "{took:?}");
}
