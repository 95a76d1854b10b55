//! A stream is produced on one node and read on others.

use std::time::Duration;

use crate::{
    addresses,
    client::{Client, Via, Visit},
    node,
    support::{example::eventually, redis::RedisServer},
};

/// G1: a stream begins on one node, is cut, and is resumed on the other, which does not produce it.
#[tokio::test(flavor = "multi_thread")]
async fn g1_a_client_goes_on_at_another_node() {
    let redis = RedisServer::start();
    let [a, b] = [node(&redis.url(), &[]), node(&redis.url(), &[])];
    for (via, id) in [(Via::Header, "by-header"), (Via::Query, "by-query")] {
        let mut client = Client::of(&format!("/api/stream/{id}?n=100&rate=50")).via(via);
        assert_eq!(client.visit(a.address, 10).await, Visit::Cut);
        let epoch = client.epoch();
        // The stream still runs on the first node.
        assert_eq!(crate::figure(&a, "active").await, 1);
        for visit in 0..4 {
            assert_eq!(client.visit(addresses(&[&b, &a])[visit % 2], 10).await, Visit::Cut);
        }
        assert_eq!(client.visit(b.address, usize::MAX).await, Visit::Over);
        client.has_all(100, "completed");
        // The end's id has the epoch after the run's, whichever node closes the stream.
        assert_eq!(client.epoch(), epoch + 1);
        for node in [&a, &b] {
            assert_eq!(client.visit(node.address, 1).await, Visit::Done);
        }
    }
    assert_eq!((crate::figure(&a, "started").await, crate::figure(&b, "started").await), (2, 0));
}

/// G1: each of many followers of another node's stream gets all of it, whenever the follower came and left.
#[tokio::test(flavor = "multi_thread")]
async fn g1_many_follow_on_another_node() {
    let redis = RedisServer::start();
    let [a, b] = [node(&redis.url(), &[]), node(&redis.url(), &[])];
    let path = "/api/stream/shared?n=150&rate=100";
    let mut producing = Client::of(path);
    assert_eq!(producing.visit(a.address, 1).await, Visit::Cut);
    let followers: Vec<_> = (0..12)
        .map(|follower| {
            let (mut client, b) = (Client::of(path), b.address);
            // Some followers stay, some are cut every few events.
            let events = if follower % 3 == 0 { usize::MAX } else { 5 + follower };
            tokio::spawn(async move {
                client.follow(&[b], events).await;
                client
            })
        })
        .collect();
    producing.follow(&[a.address], usize::MAX).await;
    producing.has_all(150, "completed");
    for follower in followers {
        follower.await.unwrap().has_all(150, "completed");
    }
    assert_eq!(crate::figure(&b, "started").await, 0);
    eventually(async || (crate::figure(&b, "followers").await == 0).then_some(())).await;
}

/// Prints how long an event takes to a follower on another node. Only a generous limit is judged, since the time depends on
/// the machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_not_far_behind() {
    let redis = RedisServer::start();
    let [a, b] = [node(&redis.url(), &[]), node(&redis.url(), &[])];
    let path = "/api/stream/trickle?n=200&rate=100";
    let mut here = Client::of(path);
    here.visit(a.address, 1).await;
    let mut there = Client::of(path);
    let (first, second) = ([a.address], [b.address]);
    tokio::join!(here.follow(&first, usize::MAX), there.follow(&second, usize::MAX));
    here.has_all(200, "completed");
    there.has_all(200, "completed");
    // Measure from when both clients were connected.
    let mut delays: Vec<_> = (here.seen.iter().zip(&there.seen).skip(50))
        .map(|((_, here), (_, there))| there.saturating_duration_since(*here))
        .collect();
    delays.sort_unstable();
    let (half, most) = (delays[delays.len() / 2], delays[delays.len() * 9 / 10]);
    eprintln!("behind by {half:?} (p50), {most:?} (p90)");
    assert!(half < Duration::from_millis(500), "by far not by polling: {half:?}");
}

/// G1: streams whose id the library made up are found again on another node by their last id.
#[tokio::test(flavor = "multi_thread")]
async fn g1_an_event_source_goes_on_at_another_node() {
    let redis = RedisServer::start();
    let [a, b] = [node(&redis.url(), &[]), node(&redis.url(), &[])];
    let mut client = Client::of("/api/stream?n=40&rate=100");
    client.follow(&addresses(&[&a, &b]), 7).await;
    client.has_all(40, "completed");
    assert!(client.cursor().contains('.'), "{}", client.cursor());
    assert_eq!((crate::figure(&a, "started").await, crate::figure(&b, "started").await), (1, 0));
}
