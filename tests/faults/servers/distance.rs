//! The server is far away: everything takes long round trips, and that must not count as a fault.

use std::time::Duration;

use resilient_sse::StreamState;

use crate::{
    servers::stage::Stage,
    support::redis::{Proxy, RedisServer},
};

const STALE: Duration = Duration::from_secs(6);

/// Streams, followers, resumes, recovery and sweeps, with a delay each way.
async fn at(delay: Duration) {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.address());
    proxy.delay(delay);
    let stage = Stage::new();
    let far = |builder: resilient_sse::Builder| builder.stale_after(STALE).sweep_every(Duration::from_secs(1));
    let [node, other, lost] =
        [stage.node(&proxy.url(), far).await, stage.node(&proxy.url(), far).await, stage.node(&proxy.url(), far).await];
    let live = stage.client(&node.generation, "a").attached().await;
    let follower = stage.client(&other.generation, "a").attached().await;
    let orphan = stage.client_apart(&lost.generation, "silent").attached_once().await;
    live.hears(20).await;
    follower.hears(20).await;
    let resumed = stage.client(&other.generation, "a").cut(5).await.attached().await;
    resumed.hears(20).await;
    assert_eq!(other.recover("a").await["status"], "active");
    for node in [&node, &other] {
        node.until_trusting().await;
    }

    // One node falls silent: the others find its stream.
    lost.pause(true);
    other.until_state("silent", StreamState::Orphaned).await;
    drop(orphan);

    stage.finish();
    let live = live.done().await;
    let made = live.has_all();
    assert_eq!((follower.done().await.has_all(), resumed.done().await.has_all()), (made, made));
    for node in [&node, &other] {
        let health = node.sse.health();
        assert_eq!((health.breaker, health.store_errors, health.lost), ("closed", 0, 0), "{delay:?}");
    }
    assert_eq!(node.sse.health().orphaned + other.sse.health().orphaned, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g7_a_server_beside() {
    at(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g7_a_server_10_ms_away() {
    at(Duration::from_millis(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g7_a_server_40_ms_away() {
    at(Duration::from_millis(40)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g7_a_server_100_ms_away() {
    at(Duration::from_millis(100)).await;
}
